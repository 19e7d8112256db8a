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
from decimal import Decimal
from pathlib import Path

import msgspec

from fundops.actors.promotion.ladder import ladder
from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.reader import open_reader
from fundops.replay.endpoint import open_endpoint
from fundops.replay.engine import Crash, ReplayEngine, Result, Script, session_open_us
from fundops.replay.events import Events
from fundops.replay.figures import (
    CURVE_POINTS,
    AlertFigures,
    DemoReport,
    Happening,
    NavFigures,
    Stay,
    StrategyFigures,
)
from fundops.replay.lineup import LINE_UP, Strategy
from fundops.replay.prices import Bar
from fundops.replay.reasons import limit_pct_of, reason_of
from fundops.replay.rules import named
from fundops.replay.run import replay
from fundops.runtime import ChildStatus, ConfigError, FundopsError, VirtualClock
from fundops.wire.money import from_minor
from fundops.wire.promotion import PromotionSnapshot, PromotionStage

__all__ = ["CAPITAL", "Options", "run_demo", "window_of"]

CAPITAL = 1_200_000
LEASE_S = 90.0  # ticks are a minute apart
MANAGEMENT_FEE_BPS = 200  # a fund charges nothing unless it says so; the demo shows fees
PERFORMANCE_FEE_PCT = 20.0
FLUSH_S = 30.0
# The strategy that never recovers. It hardly trades, so its rule does not matter.
BROKEN = "broken"
# The accounts of the income statement that make the result of trading.
TRADING = ("REALIZED_PNL", "UNREALIZED_PNL", "TRADING_FEES")


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
            lease_s=LEASE_S,
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
            events, curves = Events(fund, bars, on_event), _Curves(engine)

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
            report = await _report(
                fund,
                engine,
                bars,
                options,
                events,
                curves,
                drilled,
                endpoint.received,
                begun,
            )
            if on_report is not None:
                await on_report(report, fund)
    return report


class _Curves:
    """The results at the end of each session, in minor units."""

    def __init__(self, engine: ReplayEngine) -> None:
        self._engine = engine
        self.results: list[Mapping[str, Result]] = []

    def add(self) -> None:
        """Keep the results as they are now."""
        self.results.append(self._engine.results())

    def real(self) -> list[int]:
        """The P&L of the whole fund that was made with real money."""
        return [sum(result.real_minor for result in day.values()) for day in self.results]

    def all_real(self) -> list[int]:
        """That of every strategy at its full size."""
        return [sum(result.full_size_minor for result in day.values()) for day in self.results]

    def of(self, name: str) -> tuple[Decimal, ...]:
        """One strategy at its full size, at up to `CURVE_POINTS` sessions."""
        last, points = len(self.results) - 1, min(CURVE_POINTS, len(self.results))
        places = [round(last * (number + 1) / points) for number in range(points)]
        return tuple(from_minor(self.results[place][name].full_size_minor) for place in places)


def _worst_pct(capital_minor: int, pnl_minor: Sequence[int]) -> float:
    """The worst drawdown of the capital and this P&L, in percent."""
    peak, worst = capital_minor, 0.0
    for gain in pnl_minor:
        value = capital_minor + gain
        peak = max(peak, value)
        worst = max(worst, (peak - value) / peak)
    return round(worst * 100, 6)


def _strategy(
    snapshot: PromotionSnapshot,
    moves: Sequence[Happening],
    curves: _Curves,
    limit_pct: float | None,
    *,
    breaker_open: bool,
) -> StrategyFigures:
    own = [move for move in moves if move.strategy == snapshot.name and move.to_stage]
    demoted = own[-1].reason if own and own[-1].kind == "demote" else ""
    sharpe = snapshot.metrics.get("sharpe")
    return StrategyFigures(
        snapshot.name,
        snapshot.stage.value,
        round(snapshot.days_in_stage, 6),
        int(snapshot.metrics.get("n_trades", 0)),
        None if sharpe is None else round(sharpe, 6),
        round(snapshot.metrics.get("max_drawdown", 0.0) * 100, 6),
        limit_pct,
        from_minor(curves.results[-1][snapshot.name].real_minor),
        reason_of(snapshot, limit_pct=limit_pct, demoted=demoted, breaker_open=breaker_open),
        (
            Stay(0, PromotionStage.Paper.value),
            *(Stay(move.session, move.to_stage) for move in own),
        ),
        curves.of(snapshot.name),
    )


async def _nav(fund: Fund, curves: _Curves) -> NavFigures:
    samples = [*reversed(await fund.nav_history(len(curves.results)))]
    return NavFigures(
        tuple(sample.session for sample in samples),
        tuple(sample.nav for sample in samples),
        tuple(sample.drawdown_pct for sample in samples),
        tuple(from_minor(minor) for minor in curves.real()),
        tuple(from_minor(minor) for minor in curves.all_real()),
    )


async def _report(
    fund: Fund,
    engine: ReplayEngine,
    bars: Sequence[Bar],
    options: Options,
    events: Events,
    curves: _Curves,
    drilled: tuple[str, ...],
    delivered: int,
    begun: float,
) -> DemoReport:
    config = fund.config
    stats, status = await fund.recovery.stats(), await fund.status()
    income = await fund.ledger.income_statement()
    trial = await fund.ledger.trial_balance()
    newest = await fund.ledger.recent_entries(1)
    history = await fund.promotion.history(limit=100_000)
    alerts = await fund.alerts.recent(20)
    nav = await _nav(fund, curves)
    with open_reader(config.path) as reader:
        fills_booked = reader.entry_count("fill")
    rungs = ladder(config.promotion_ladder)
    return DemoReport(
        sessions=len(bars),
        first_session=bars[0].day.isoformat(),
        last_session=bars[-1].day.isoformat(),
        seed=options.seed,
        capital=status.total_capital,
        nav=status.nav,
        drawdown_pct=status.drawdown_pct,
        drawdown_pct_max=max(nav.drawdown_pct, default=0.0),
        kill_limit_pct=config.max_fund_drawdown_pct,
        kill_switch=status.kill_switch,
        total_fees=status.total_fees,
        management_fee_bps=config.management_fee_bps,
        performance_fee_pct=config.performance_fee_pct,
        trading_pnl=sum((income.get(account, Decimal(0)) for account in TRADING), Decimal(0)),
        gated_drawdown_pct_max=_worst_pct(config.capital_minor, curves.real()),
        all_real_pnl=nav.all_real_pnl[-1],
        all_real_drawdown_pct_max=_worst_pct(config.capital_minor, curves.all_real()),
        strategies=tuple(
            _strategy(
                snapshot,
                events.happenings,
                curves,
                limit_pct_of(rungs.rung(snapshot.stage), config),
                breaker_open=snapshot.name in events.open_breakers,
            )
            for snapshot in await fund.promotion.strategies()
        ),
        happenings=tuple(events.happenings),
        promotions=sum(line.kind == "promote" for line in history),
        demotions=sum(line.kind == "demote" for line in history),
        alerts=AlertFigures(
            alerts.by_outcome.get("QUEUED", 0),
            alerts.by_outcome.get("RATE_SUPPRESSED", 0),
            alerts.by_outcome.get("DEDUPED", 0),
            delivered,
            alerts.by_category,
        ),
        recovery={
            key: stats[key]
            for key in ("total_attempts", "successes", "failures", "circuit_breakers_open")
        },
        open_breakers=events.open_breakers,
        balance_sheet=await fund.ledger.balance_sheet(),
        income_statement=income,
        trial_balance=sum(trial.values(), Decimal(0)),
        entries=newest[0].seq,
        fills=engine.fill_count,
        fills_booked=fills_booked,
        actor_restarts=sum(actor.restarts for actor in _leaves(fund.tree())),
        drilled=drilled,
        nav_history=nav,
        wall_s=round(time.perf_counter() - begun, 3),
    )


def _leaves(tree: Sequence[ChildStatus]) -> list[ChildStatus]:
    return [
        leaf for child in tree for leaf in (_leaves(child.children) if child.children else [child])
    ]
