"""The default line-up: twelve strategies, a window of real prices, and the cost of a trade.

This is a demonstration, not research, and it was chosen with the outcome known. 97 rules on both
indices were replayed over four windows (from March 2003, March 2009, January 2013 and February
2016) under the default promotion criteria, with round windows only; this window and these twelve
were kept because one run shows the whole life of a strategy:

* five climb paper -> shadow -> live-small -> live-scaled on measured evidence;
* `session_below_w5` is live-scaled when the S&P 500 falls 6.7% on 2011-08-08, loses 6.6% in that
  session, is demoted by itself, and climbs again; `session_above_w10` loses 10.7% of its peak in
  live-small by 2010-06-04, is demoted and climbs again; `session_above_w50_and_after_up_k2` decays
  in live-small until 2012-01-09 and never returns;
* two are promoted once and then stay in shadow, because their results did not last;
* four never leave paper: too few closed round trips to judge, buy and hold having none at all.

The demo does not show skill. The gate is evaluated at the end of every session, so luck passes it
often: the Sharpe ratios of the five since their last promotion (-0.4 to 0.9) are all below those
that earned it (1.0 to 2.2). It could not have been traded as it stands either: an index is not an
instrument, and dividends are absent. The published open of the S&P 500 repeats the previous close
to a hundredth of a per cent on three sessions in ten of this window and to a tenth on two in three,
2011-08-08 among them, so a session rule there trades part of the night as well. The NASDAQ's open
repeats it less often (one session in six to a tenth of a per cent).
"""

import datetime
from typing import Final

import msgspec

from fundops.replay.rules import Rule, named


class Strategy(msgspec.Struct, frozen=True):
    """One line of the line-up."""

    name: str
    """The name it is registered under, unique in the line-up."""
    symbol: str
    """The bundled series it trades, one of `prices.SYMBOLS`."""
    rule: Rule
    """The rule that decides its exposure."""


DEFAULT_START: Final = datetime.date(2009, 3, 2)
"""The first session traded; the bars before it are history the rules warm up on."""

DEFAULT_SESSIONS: Final = 1000
"""Sessions replayed: to 2013-02-19."""

COST_BP_PER_SIDE: Final = 0.25
"""Cost of each fill in basis points of its notional: commission only, without slippage.

Half a tick of an S&P 500 future of that time was about 1.25 bp. At 1 bp three strategies still end
live-scaled, and all three automatic demotions still happen; at 0.5 bp only a few dates change.
"""

# Named by their rules: no rule is on both indices.
LINE_UP: Final = tuple(
    Strategy(name, symbol, named(name))
    for name, symbol in (
        ("bollinger_mr_w20", "sp500"),
        ("sma_cross_f20_s50", "nasdaq"),
        ("breakout_w20", "nasdaq"),
        ("momentum_w10", "nasdaq"),
        ("buy_and_hold", "sp500"),
        ("session_above_w50", "nasdaq"),
        ("session_after_up_k1", "nasdaq"),
        ("session_above_w100_and_below_w5", "sp500"),
        ("session_below_w5", "sp500"),
        ("session_above_w10", "sp500"),
        ("session_above_w50_and_after_up_k2", "nasdaq"),
        ("session_after_down_k1", "sp500"),
    )
)
"""The twelve, holding rules first."""
