"""Gathers the figures of a demo from its fund and its engine, once the last session is over."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from fundops.fund import Fund
from fundops.reader import open_reader
from fundops.replay.engine import ReplayEngine, Result
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
from fundops.replay.prices import Bar
from fundops.replay.reasons import limit_pct_of, reason_of
from fundops.runtime import ChildStatus
from fundops.wire.money import from_minor
from fundops.wire.promotion import PromotionSnapshot, PromotionStage

__all__ = ["Curves", "Run", "gathered"]

# The accounts of the income statement that make the result of trading.
TRADING = ("REALIZED_PNL", "UNREALIZED_PNL", "TRADING_FEES")


class Run(NamedTuple):
    """The terms of a replay."""

    window: Sequence[Bar]
    seed: int
    drilled: tuple[str, ...]
    """The actors that were crashed on purpose."""
    begun_s: float
    """By `time.perf_counter`."""


class Curves:
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
    curves: Curves,
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


async def _nav(fund: Fund, curves: Curves) -> NavFigures:
    samples = [*reversed(await fund.nav_history(len(curves.results)))]
    return NavFigures(
        tuple(sample.session for sample in samples),
        tuple(sample.nav for sample in samples),
        tuple(sample.drawdown_pct for sample in samples),
        tuple(from_minor(minor) for minor in curves.real()),
        tuple(from_minor(minor) for minor in curves.all_real()),
    )


async def gathered(
    fund: Fund, run: Run, events: Events, curves: Curves, *, fills: int, delivered: int
) -> DemoReport:
    """The report on a replay that has just ended. `fills` and `delivered` are counts of the host:
    its real fills, and the alerts that its webhook received.
    """
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
    policy = config.promotion_rules()
    return DemoReport(
        sessions=len(run.window),
        first_session=run.window[0].day.isoformat(),
        last_session=run.window[-1].day.isoformat(),
        seed=run.seed,
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
                limit_pct_of(policy.rung(snapshot.stage), config),
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
        fills=fills,
        fills_booked=fills_booked,
        actor_restarts=sum(actor.restarts for actor in _leaves(fund.tree())),
        drilled=run.drilled,
        nav_history=nav,
        wall_s=round(time.perf_counter() - run.begun_s, 3),
    )


def _leaves(tree: Sequence[ChildStatus]) -> list[ChildStatus]:
    return [
        leaf for child in tree for leaf in (_leaves(child.children) if child.children else [child])
    ]
