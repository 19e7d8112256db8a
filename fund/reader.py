"""Read a fund's database from any process, whether the fund runs or not.

The modules of a subsystem are imported by the methods that need them: a tool asks one question and
ends, and should not wait for the others.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from fundops.actors.ledger import schema as ledger_schema
from fundops.actors.ledger.history import check_kind
from fundops.actors.ledger.reports import Reports
from fundops.actors.ledger.verify import Anchor, Verification, anchor_of, verify
from fundops.actors.persistence import Reader
from fundops.control import audit
from fundops.file import meta
from fundops.moments import Instant, Moment, day_of, known_us, moment_of
from fundops.wire.alert import AlertPage
from fundops.wire.errors import DatabaseError, UnknownStrategy
from fundops.wire.ledger import (
    AsideReport,
    Entry,
    JournalLine,
    LedgerLot,
    LedgerPosition,
    Reconciliation,
    Statement,
)
from fundops.wire.money import Amount
from fundops.wire.oversight import NavHistory, NavSample
from fundops.wire.paging import checked_limit
from fundops.wire.promotion import HistoryEntry, PromotionStage, StrategyState
from fundops.wire.recovery import RecoveryEvent
from fundops.wire.why import Why

if TYPE_CHECKING:
    from fundops.actors.promotion.strategy import Strategy

__all__ = ["FundReader", "open_reader"]


class FundReader:
    """The committed facts of one fund, read-only. A context manager; use it from one thread.

    Raises: `DatabaseError`, also for an error of SQLite that leaves the block.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()
        self._reader = Reader(path)

    def __enter__(self) -> FundReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._reader.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the connection. Idempotent."""
        self._reader.close()

    def snapshot(self) -> AbstractContextManager[None]:
        """A block in which all answers show the same moment, even while a running fund commits."""
        return self._reader.snapshot()

    # -- identity

    def meta(self) -> Mapping[str, str]:
        """Name, currency, capital and uuid, and the origin of a restored or imported database."""
        return meta.read(self._reader)

    def schema(self) -> int:
        """The version of the file's schema."""
        return int(self._reader.row("PRAGMA user_version")[0])

    # -- ledger

    def _reports(self) -> Reports:
        currency = self.meta().get("currency")
        if currency is None:
            raise DatabaseError(self._path, "is not the database of a fund")
        return Reports(self._reader, currency)

    def balance_sheet(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits per account.

        A date counts to its end, UTC; an instant is included.
        """
        return self._reports().balance_sheet(moment_of("as_of", as_of), strategy, asset)

    def income_statement(
        self,
        start: Moment | None = None,
        end: Moment | None = None,
        *,
        strategy: str | None = None,
        asset: str | None = None,
    ) -> dict[str, Decimal]:
        """Income positive, expense negative, both ends included; closing entries are left out."""
        return self._reports().income_statement(
            moment_of("start", start), moment_of("end", end), strategy, asset
        )

    def cash_flow(
        self, start: Moment | None = None, end: Moment | None = None, *, strategy: str | None = None
    ) -> dict[str, Decimal]:
        """Changes of CASH by their purpose; OPENING plus NET is CLOSING."""
        return self._reports().cash_flow(moment_of("start", start), moment_of("end", end), strategy)

    def trial_balance(
        self, as_of: Moment | None = None, *, strategy: str | None = None, asset: str | None = None
    ) -> dict[str, Decimal]:
        """Debits minus credits of every account, EXTERNAL too; the values sum to zero."""
        return self._reports().trial_balance(moment_of("as_of", as_of), strategy, asset)

    def nav(self, as_of: Moment | None = None, *, strategy: str | None = None) -> Decimal:
        """The net asset value by the books."""
        return self._reports().nav(moment_of("as_of", as_of), strategy)

    def nav_per_unit(self, as_of: Moment | None = None) -> Decimal:
        """The net asset value of one unit, which deposits and withdrawals do not change.

        `trial_balance(asset="UNITS")` gives the number of units.
        """
        return self._reports().nav_per_unit(moment_of("as_of", as_of))

    def recent_entries(self, limit: int = 20) -> tuple[Entry, ...]:
        """Newest first."""
        return self._reports().recent_entries(limit)

    def entries(
        self,
        *,
        account: str | None = None,
        strategy: str | None = None,
        kind: str | None = None,
        after_seq: int | None = None,
        limit: int = 100,
        key: str | None = None,
        day: dt.date | str | None = None,
        instrument: str | None = None,
    ) -> tuple[Entry, ...]:
        """One page of matching entries, newest first.

        For the next page, pass the `seq` of the last entry as `after_seq`.
        """
        dated = None if day is None else day_of("day", day)
        return self._reports().entries(
            account, strategy, kind, after_seq, limit, key, dated, instrument
        )

    def entries_after(self, seq: int = 0, limit: int = 100) -> tuple[JournalLine, ...]:
        """The entries after entry `seq` as they are stored, oldest first: payload and hash."""
        return self._reports().entries_after(seq, limit)

    def positions(
        self, as_of: Moment | None = None, *, strategy: str | None = None
    ) -> tuple[LedgerPosition, ...]:
        """The open positions by strategy and instrument, of now or of any time."""
        return self._reports().positions(moment_of("as_of", as_of), strategy)

    def lots(
        self, *, strategy: str | None = None, instrument: str | None = None
    ) -> tuple[LedgerLot, ...]:
        """The open lots by strategy and instrument, oldest first."""
        return self._reports().lots(strategy, instrument)

    def realized(
        self, start: Moment | None = None, end: Moment | None = None, *, by: str = "strategy"
    ) -> dict[str, Decimal]:
        """Realized P&L by "strategy" or by "instrument", both ends included; a gain is positive.

        An empty name stands for what belongs to none. Closing entries are left out.
        """
        return self._reports().realized(moment_of("start", start), moment_of("end", end), by)

    def prices(self, as_of: Moment | None = None) -> dict[str, Decimal | None]:
        """The last price of every other asset.

        None: the fund holds the asset, and the NAV does not count it for want of a price.
        """
        return self._reports().prices(moment_of("as_of", as_of))

    def reconcile(
        self, statements: Sequence[Statement], *, tolerance: Amount = 0
    ) -> Reconciliation:
        """Compare the books with a broker's statements of some days, all strategies together."""
        with self.snapshot():
            return self._reports().reconcile(statements, tolerance)

    def reports_aside(self, limit: int = 100) -> tuple[AsideReport, ...]:
        """The reports of the engine that could not be booked and wait aside, the oldest first."""
        return ledger_schema.reports_aside(self._reader, checked_limit(limit))

    def anchor(self) -> Anchor:
        """Number and hash of the newest entry.

        Kept outside the file and given to `verify` later, they detect a truncated journal.
        """
        return anchor_of(self._reader)

    def verify(self, level: int = 2, *, anchor: Anchor | None = None) -> Verification:
        """Check the book in one snapshot; returns the findings and repairs nothing.

        Raises: `ConfigError` for another level.
        """
        with self.snapshot():
            return verify(self._reader, level, anchor)

    def entry_count(self, kind: str | None = None) -> int:
        """The number of entries, of one kind or of all. Raises: `BadField` for an unknown kind."""
        if kind is not None:
            check_kind(kind)
        return int(
            self._reader.row("SELECT count(*) FROM entry WHERE ?1 IS NULL OR kind = ?1", (kind,))[0]
        )

    # -- one strategy

    def why(self, name: str) -> Why:
        """Every blocker between a strategy and real orders that the files tell.

        No lease is stored, so no strategy may open by this answer, also while its fund runs:
        `fundops.control.call(path, "fund.why", {"name": name})` asks that fund.

        Raises: `ConfigError` when `name` is no name.
        """
        from fundops.file.why import stored_why

        return stored_why(self._reader, self._path, name)

    # -- audit

    def audit(self, limit: int = 50) -> tuple[audit.AuditRow, ...]:
        """Changes that were asked for from outside, with their outcomes, newest first."""
        return audit.recent(self._reader, checked_limit(limit))

    # -- alerts

    def recent_alerts(self, limit: int = 50) -> AlertPage:
        """The newest alerts, newest first, with counts over the whole history."""
        from fundops.actors.alert import recent

        return recent(self._reader, checked_limit(limit))

    # -- promotion

    def stages(self) -> dict[str, PromotionStage]:
        """The current stage of every strategy, by name."""
        from fundops.actors.promotion import schema

        return {strategy.name: strategy.stage for strategy in schema.load_all(self._reader)}

    def current_stage(self, strategy_id: str) -> PromotionStage:
        """The stage of one strategy, by its id or its name. Raises: `UnknownStrategy`."""
        return self._strategy(strategy_id).stage

    def promotion_history(
        self, limit: int = 50, *, strategy_id: str | None = None
    ) -> tuple[HistoryEntry, ...]:
        """Changes of all strategies, or of one, newest first. Raises: `UnknownStrategy`."""
        from fundops.actors.promotion import schema

        found = None if strategy_id is None else self._strategy(strategy_id).id
        return schema.history(self._reader, found, checked_limit(limit))

    def state_as_of(self, t: Instant) -> tuple[StrategyState, ...]:
        """All strategies as they were at an instant, in the order of their names."""
        from fundops.actors.promotion import schema

        return schema.state_as_of(self._reader, known_us("t", t))

    def _strategy(self, strategy_id: str) -> Strategy:
        from fundops.actors.promotion import schema

        found = schema.find(self._reader, strategy_id)
        if found is None:
            raise UnknownStrategy(strategy_id)
        return found

    # -- recovery

    def recovery_events(self, limit: int = 20) -> tuple[RecoveryEvent, ...]:
        """The newest events of recovery, newest first."""
        from fundops.actors.recovery import schema

        return schema.newest_events(self._reader, checked_limit(limit))

    # -- oversight

    def nav_history(
        self, limit: int = 100, every: Literal["session", "minute"] = "session"
    ) -> tuple[NavSample, ...]:
        """NAV and drawdown at the end of each session or of each minute, newest first.

        Minutes are written every quarter of an hour at least.

        Raises: `ConfigError` for another `every`.
        """
        from fundops.actors.oversight import schema

        request = NavHistory(checked_limit(limit), every)
        if request.every == "minute":
            return schema.nav_minutes(self._reader, request.limit)
        return schema.nav_history(self._reader, request.limit)


def open_reader(path: str | Path) -> FundReader:
    """Open the database at `path` for reading. Raises: `DatabaseError`."""
    return FundReader(Path(path))
