"""The figures of a demo: all that its report, its page and its picture show, and no more.

The text, the page and the picture are pure functions of `DemoReport`, and `--json` prints the same
record, so a program reads every figure that a person sees. Money is `Decimal` here and decimal text
in JSON. A session is known by its place in the window, from 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from fundops.wire.money import text_of

__all__ = [
    "CURVE_POINTS",
    "AlertFigures",
    "DemoReport",
    "Happening",
    "NavFigures",
    "Stay",
    "StrategyFigures",
]

CURVE_POINTS = 48
"""The points of a strategy's curve."""


class Stay(msgspec.Struct, frozen=True):
    """The sessions that a strategy stays in one stage; they end where the next stay begins."""

    session: int
    """The first one."""
    stage: str
    """paper, shadow, live-small, live-scaled, live or retired."""


class Happening(msgspec.Struct, frozen=True):
    """One thing that a person would want to hear at once."""

    session: int
    day: str
    """ISO day."""
    kind: Literal["promote", "demote", "breaker", "kill switch"]
    strategy: str = ""
    """"" of the kill switch."""
    from_stage: str = ""
    """"" where no stage is left."""
    to_stage: str = ""
    reason: str = ""


class StrategyFigures(msgspec.Struct, frozen=True):
    """One strategy at the end."""

    name: str
    stage: str
    days_in_stage: float
    n_trades: int
    """Closed round trips in this stage."""
    sharpe: float | None
    """Annual, in this stage; None: undefined."""
    drawdown_pct: float
    """The worst one in this stage, in percent."""
    limit_pct: float | None
    """The drawdown at which real money is taken away, in percent; None: it has none."""
    real_pnl: Decimal
    """Made with real money, after the costs of its fills."""
    reason: str
    """Why it is in this stage, or what the next one still asks for."""
    stays: tuple[Stay, ...]
    """Its stages over time."""
    curve: tuple[Decimal, ...]
    """Its result at full size, real or not, at up to `CURVE_POINTS` sessions, the last included."""


class NavFigures(msgspec.Struct, frozen=True):
    """The fund at the end of each session, in columns of equal length."""

    sessions: tuple[str, ...]
    """ISO days."""
    nav: tuple[Decimal, ...]
    drawdown_pct: tuple[float, ...]
    """From the peak, as the kill switch measures it."""
    real_pnl: tuple[Decimal, ...]
    """Made with real money so far, before the fund's fees."""
    all_real_pnl: tuple[Decimal, ...]
    """The same, had every strategy traded its whole share with real money from the first day."""


class AlertFigures(msgspec.Struct, frozen=True):
    """The alerts of the whole run."""

    sent: int
    suppressed: int
    """Held back by the rate limit."""
    repeats: int
    delivered: int
    """That the demo's own webhook received."""
    by_category: Mapping[str, int]


class DemoReport(msgspec.Struct, frozen=True):
    """The results of a demo, for a person or a program."""

    sessions: int
    first_session: str
    last_session: str
    seed: int
    capital: Decimal
    nav: Decimal
    drawdown_pct: float
    drawdown_pct_max: float
    kill_limit_pct: float
    """The drawdown at which the kill switch stops trading."""
    kill_switch: str
    total_fees: Decimal
    """Posted and accrued fees of the fund."""
    management_fee_bps: int
    performance_fee_pct: float
    trading_pnl: Decimal
    """By the books: realized and unrealized P&L less trading fees."""
    gated_drawdown_pct_max: float
    """The worst drawdown of the capital and `trading_pnl`, before the fund's fees."""
    all_real_pnl: Decimal
    """Had every strategy traded real money from the first day."""
    all_real_drawdown_pct_max: float
    strategies: tuple[StrategyFigures, ...]
    happenings: tuple[Happening, ...]
    promotions: int
    demotions: int
    alerts: AlertFigures
    recovery: Mapping[str, int]
    open_breakers: tuple[str, ...]
    """The strategies that stay down until a person resets their breaker."""
    balance_sheet: Mapping[str, Decimal]
    income_statement: Mapping[str, Decimal]
    trial_balance: Decimal
    entries: int
    fills: int
    fills_booked: int
    actor_restarts: int
    drilled: tuple[str, ...]
    """The actors of fundops that were crashed on purpose."""
    nav_history: NavFigures
    wall_s: float
    """Seconds that the run took."""

    def as_json(self) -> bytes:
        """One object; money as decimal text."""
        return msgspec.json.encode(_plain(msgspec.to_builtins(self, builtin_types=(Decimal,))))

    @classmethod
    def from_json(cls, text: str | bytes) -> DemoReport:
        """The report that `as_json` wrote. Raises: `msgspec.ValidationError`."""
        return msgspec.json.decode(text, type=cls)


def _plain(value: Any) -> Any:
    """The value with its money as text, never in the notation with an exponent."""
    match value:
        case Decimal():
            return text_of(value)
        case dict():
            return {key: _plain(inner) for key, inner in value.items()}
        case list() | tuple():
            return [_plain(inner) for inner in value]
        case _:
            return value
