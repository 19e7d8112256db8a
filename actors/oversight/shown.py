"""The state topics of the status stream, as they are shown: money is decimal text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

import msgspec

from ...wire.controller import FeedStatus, StrategyStatus
from ...wire.guard import GuardState, KillStatus, StrategyBook
from ...wire.money import from_minor, text_of
from ...wire.oversight import FundStatus
from ...wire.persistence import StorageStatus
from ...wire.promotion import EntitlementTerms
from ...wire.stream.records import Feed, Fund, Kill, PromotionBrief, Storage, Strategy

__all__ = ["FundFace", "briefs", "feeds", "fund", "strategies", "texts"]


class FundFace(msgspec.Struct, frozen=True):
    """The settings of the fund that the stream shows."""

    name: str = "fund"
    currency: str = "USD"
    clock: Literal["system", "driven"] = "system"  # "driven": a replay moves the time
    tick_interval_s: float | None = 1.0  # None: the host calls the ticks
    lease_s: float = 30.0
    kill_limit_pct: float = 15.0
    warn_pct: float = 12.0
    strategy_limit_pct: float = 25.0


def texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with money as decimal text; a browser rounds large numbers."""
    return {
        name: text_of(value) if isinstance(value, Decimal) else value
        for name, value in values.items()
    }


def fund(
    status: FundStatus,
    guard: GuardState,
    face: FundFace,
    kill: KillStatus,
    storage: StorageStatus | None,
    *,
    now_us: int,
    tick_us: int | None,
    data_us: int | None,
    nav_open_minor: int | None,
) -> dict[str, Any]:
    """The topic `fund`: each field of `Fund` by its name."""
    # Before the first look of the guard there are no units, and NAV is its own peak.
    peak = from_minor(round(guard.peak_per_unit * guard.units)) if guard.units else status.nav
    floor = peak * (1 - Decimal(str(face.kill_limit_pct)) / 100)
    money = {
        "total_capital": status.total_capital,
        "nav": status.nav,
        "nav_open": None if nav_open_minor is None else from_minor(nav_open_minor),
        "high_water_mark": status.high_water_mark,
        "peak_nav": peak,
        "headroom": max(Decimal(0), round(status.nav - floor, 8)),
        "total_fees": status.total_fees,
        "ledger_gap": status.nav_difference,
    }
    record = Fund(
        name=face.name,
        mode=status.mode,
        currency=face.currency,
        clock=face.clock,
        host_ticks=face.tick_interval_s is None,
        now_us=now_us,
        tick_us=tick_us,
        data_us=data_us,
        tick_age_s=status.tick_age_s,
        tick_interval_s=face.tick_interval_s,
        lease_s=face.lease_s,
        ticks=status.ticks,
        running=status.running,
        stale=status.stale,
        data_age_s=status.data_age_s,
        clock_suspect=status.clock_suspect,
        drawdown_pct=status.drawdown_pct,
        kill_limit_pct=face.kill_limit_pct,
        warn_pct=face.warn_pct,
        strategy_limit_pct=face.strategy_limit_pct,
        kill=Kill(
            kill.state,
            kill.reason,
            kill.by,
            kill.at_us,
            kill.problem,
            kill.open_orders,
            kill.open_positions,
        ),
        storage=_storage(storage),
        strategies_by_stage=status.strategies_by_stage,
        running_strategies=status.running_strategies,
        alerts_24h=status.alerts_24h,
        breakers_open=status.breakers_open,
        **texts(money),
    )
    return {name: getattr(record, name) for name in Fund.__struct_fields__}


def _storage(status: StorageStatus | None) -> Storage:
    return (
        Storage(None) if status is None else Storage(status.state, status.reason, status.commit_ms)
    )


# The figures of a status, which an engine may report as any kind of number.
_MONEY = ("equity", "allocated", "realized_pnl", "unrealized_pnl", "capital_cap", "twin_equity")
_AS_REPORTED = (
    "name",
    "state",
    "n_trades",
    "n_wins",
    "error",
    "retryable",
    "heartbeat_us",
    "at_us",
)


def strategies(
    statuses: Sequence[StrategyStatus],
    terms: Mapping[str, EntitlementTerms],
    guard: GuardState = GuardState(),  # noqa: B008  frozen
) -> dict[str, dict[str, Any]]:
    """The topic `strategies`: each status, with the stage that the database has for it."""
    found = {}
    for status in statuses:
        entitled = terms.get(status.name)
        book = guard.strategies.get(status.name, StrategyBook())
        reported: dict[str, Any] = {field: getattr(status, field) for field in _AS_REPORTED}
        reported |= {field: _money(getattr(status, field)) for field in _MONEY}
        record = Strategy(
            **reported,
            stage=entitled.stage.value if entitled is not None else status.stage,
            mode=None if entitled is None else entitled.mode,
            real=book.real,
            pnl=_pnl(status, guard),
            drawdown_pct=_drawdown_pct(book),
            paused=book.paused or bool(book.paused_by),
            paused_by=book.paused_by,
            paused_why=book.paused_why,
            counters_restarted=book.restarted,
            version=status.version,
            run=status.run,
        )
        found[status.name] = {name: getattr(record, name) for name in Strategy.__struct_fields__}
    return found


def _pnl(status: StrategyStatus, guard: GuardState) -> str | None:
    book = guard.strategies.get(status.name)
    if book is not None:
        return text_of(from_minor(book.pnl_minor))
    if status.realized_pnl is None or status.unrealized_pnl is None:
        return None
    return _money(Decimal(str(status.realized_pnl)) + Decimal(str(status.unrealized_pnl)))


def _drawdown_pct(book: StrategyBook) -> float | None:
    """Of its equity below its peak; None while either is not known."""
    if book.peak_minor <= 0 or book.worth_minor <= 0:
        return None
    return round(max(0, book.peak_minor - book.worth_minor) / book.peak_minor * 100, 2)


def _money(value: Decimal | float | None) -> str | None:
    """The shortest decimal text that names the number."""
    return None if value is None else text_of(Decimal(str(value)))


def feeds(statuses: Sequence[FeedStatus], at_us: int) -> dict[str, Feed]:
    """The topic `feeds`, as of the tick at `at_us` that asked for them."""
    found = {}
    for status in statuses:
        after_s, last_us = status.limit_s, status.last_data_us
        stale = after_s is not None and (last_us is None or at_us - last_us > after_s * 1_000_000)
        found[status.name] = Feed(status.name, last_us, after_s, stale)
    return found


def briefs(full: Mapping[str, PromotionBrief]) -> dict[str, PromotionBrief]:
    """The brief part of each full record."""
    fields = PromotionBrief.__struct_fields__
    return {
        name: PromotionBrief(**{field: getattr(record, field) for field in fields})
        for name, record in full.items()
    }
