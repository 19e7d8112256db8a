"""The demo: a fund's operations over real market prices, from paper to live and back.

Policy `literal`: the loop promotes through every gate by itself, under the default criteria.
Meanwhile one strategy crashes and recovers, one never recovers and opens its breaker, one feed goes
silent, and two actors of fundops are crashed. At the end the books must balance and every real fill
must be in the journal.
"""

from __future__ import annotations

import datetime as dt
import random
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from fundops.actors.promotion import (
    DefaultCriteria,
    GateSettings,
    PromotionSettings,
    StageSettings,
)
from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.replay.endpoint import open_endpoint
from fundops.replay.engine import Crash, ReplayEngine, Script, session_open_us
from fundops.replay.events import Events
from fundops.replay.figures import DemoReport, Happening
from fundops.replay.gather import Curves, Run, gathered
from fundops.replay.lineup import LINE_UP, Strategy
from fundops.replay.prices import Bar
from fundops.replay.rules import named
from fundops.replay.run import replay
from fundops.runtime import ConfigError, FundopsError, VirtualClock

__all__ = ["CAPITAL", "Options", "run_demo", "window_of"]

CAPITAL = 1_200_000
LEASE_S = 90.0  # ticks are a minute apart
MANAGEMENT_FEE_BPS = 200  # a fund charges nothing unless it says so; the demo shows fees
PERFORMANCE_FEE_PCT = 20.0
FLUSH_S = 30.0
# Live-small demotes at a drawdown of 10 percent, so the gate into it asks for no more than that.
LIMITS = PromotionSettings(
    stages={"live-small": StageSettings(hard_drawdown=0.1)},
    gates={
        "shadow": GateSettings(
            DefaultCriteria(max_drawdown_pct=10).criteria(win_rate_required=False)
        )
    },
)
# The strategy that never recovers. It hardly trades, so its rule does not matter.
BROKEN = "broken"


class Options(msgspec.Struct, frozen=True):
    """The prices and the window to replay, and the database to make."""

    bars: Mapping[str, Sequence[Bar]]  # by symbol; all with the same days
    start: dt.date
    sessions: int
    seed: int
    db: Path
    port: int | None = None  # of the status stream; None: no stream


def window_of(bars: Sequence[Bar], start: dt.date, sessions: int) -> range:
    """The indices of the window's bars. Raises: `ConfigError` naming the wrong option."""
    if sessions < 1:
        raise ConfigError("--sessions", f"{sessions} is not a positive number")
    first = bisect_left(bars, start, key=lambda bar: bar.day)
    if first >= len(bars):
        raise ConfigError("--start", f"{start} lies after the last price, {bars[-1].day}")
    return range(first, min(first + sessions, len(bars)))


def _line_up(symbols: Sequence[str]) -> list[Strategy]:
    """The default line-up and the broken strategy; a single price file is traded by all of them."""
    strategies = [*LINE_UP, Strategy(BROKEN, LINE_UP[0].symbol, named("breakout_w50"))]
    if len(symbols) > 1:
        return strategies
    return [Strategy(strategy.name, symbols[0], strategy.rule) for strategy in strategies]


def _script(rng: random.Random, sessions: int, symbol: str) -> Script:
    """The times of the troubles: early, in the middle and late, each moved a little by the seed."""

    def about(part: float) -> int:
        return min(sessions - 1, int(sessions * (part + 0.05 * rng.random())))

    return Script(
        crashes=(
            Crash(LINE_UP[0].name, about(0.30), 3, recovers=True),
            Crash(BROKEN, about(0.10), 2, recovers=False),
        ),
        silent_feed=symbol,
        silent_from=about(0.50),
        silent_sessions=2,
    )


async def run_demo(
    options: Options,
    *,
    on_session: Callable[[int], None] = lambda _: None,
    on_event: Callable[[Happening], None] = lambda _: None,
    on_ready: Callable[[Fund], Awaitable[None]] | None = None,
    on_report: Callable[[DemoReport, Fund], Awaitable[None]] | None = None,
) -> DemoReport:
    """Replay the window and report.

    `on_event` hears of each move, breaker and kill switch as it happens. `on_report` runs before
    the fund stops, and may ask it more.
    """
    begun = time.perf_counter()
    rng = random.Random(options.seed)
    symbols = sorted(options.bars)
    main = options.bars[symbols[-1]]
    window = window_of(main, options.start, options.sessions)
    bars = [main[index] for index in window]
    clock = VirtualClock(session_open_us(bars[0]) - 3_600_000_000)
    line_up = _line_up(symbols)
    script = _script(rng, len(bars), symbols[0])
    drilled = tuple(rng.sample(("alert", "ledger", "promotion", "recovery"), 2))
    drills = {len(bars) * (number + 1) // 3: actor for number, actor in enumerate(drilled)}
    async with open_endpoint() as endpoint:
        config = FundConfig(
            total_capital=CAPITAL,
            alert_webhook_url=endpoint.url,
            ledger_enabled=True,
            promotion_enabled=True,
            self_healing_enabled=True,
            name="demo",
            db_path=options.db,
            tick_interval_s=None,
            control_socket=False,  # two demos of one seed have one uuid
            recovery_every_ticks=1,
            promotion_every_ticks=10,
            promotion_policy="literal",
            promotion=LIMITS,
            lease_s=LEASE_S,
            host_silent_s=LEASE_S,
            management_fee_bps=MANAGEMENT_FEE_BPS,
            performance_fee_pct=PERFORMANCE_FEE_PCT,
            status_port=options.port,
        )
        engine = ReplayEngine(
            line_up, options.bars, window[0], config.capital_minor, clock.now_us, script
        )
        async with Fund.open(config, engine, clock=clock, seed=options.seed) as fund:
            for strategy in line_up:
                await fund.promotion.register(strategy.name, budget=engine.share)
            if on_ready is not None:
                await on_ready(fund)
            events, curves = Events(fund, bars, on_event), Curves(engine)

            def session_done(number: int) -> None:
                curves.add()
                on_session(number)

            await replay(
                fund,
                engine,
                clock,
                bars,
                drills=drills,
                on_tick=events.look,
                on_session=session_done,
            )
            if not await fund.flush_alerts(FLUSH_S):
                raise FundopsError(
                    f"alerts could not be delivered to the demo's own endpoint within {FLUSH_S:g} s"
                )
            report = await gathered(
                fund,
                Run(bars, options.seed, drilled, begun),
                events,
                curves,
                fills=engine.fill_count,
                delivered=endpoint.received,
            )
            if on_report is not None:
                await on_report(report, fund)
    return report
