"""Read a fund's database from any process, whether the fund is running or not."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from decimal import Decimal
from pathlib import Path

from fundops.actors.alert import recent
from fundops.actors.ledger import accounts
from fundops.actors.ledger import schema as ledger_schema
from fundops.actors.persistence import Reader
from fundops.actors.promotion import schema as promotion_schema
from fundops.wire.alert import AlertPage
from fundops.wire.ledger import Entry
from fundops.wire.paging import checked_limit
from fundops.wire.promotion import HistoryEntry, PromotionStage

__all__ = ["FundReader", "open_reader"]


class FundReader:
    """Committed facts of one fund, read-only. A context manager; use it from one thread."""

    def __init__(self, path: Path) -> None:
        self._reader = Reader(path)

    def __enter__(self) -> FundReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._reader.close()

    def snapshot(self) -> AbstractContextManager[None]:
        """A block in which all answers are of one moment, however much a running fund commits meanwhile."""
        return self._reader.snapshot()

    # -- whose it is

    def meta(self) -> Mapping[str, str]:
        """Name, currency, capital and uuid."""
        return dict(self._reader.rows("SELECT key, value FROM meta"))

    # -- ledger

    def _totals(self) -> Mapping[str, int]:
        return ledger_schema.account_totals(self._reader, self.meta()["currency"])

    def balance_sheet(self) -> dict[str, Decimal]:
        return accounts.balance_sheet(self._totals())

    def income_statement(self) -> dict[str, Decimal]:
        return accounts.income_statement(self._totals())

    def trial_balance(self) -> dict[str, Decimal]:
        return accounts.trial_balance(self._totals())

    def recent_entries(self, limit: int = 20) -> tuple[Entry, ...]:
        """Newest first."""
        return ledger_schema.recent_entries(self._reader, checked_limit(limit))

    def entry_count(self, kind: str | None = None) -> int:
        """How many entries there are, of one kind or of all."""
        return int(self._reader.row("SELECT count(*) FROM entry WHERE ?1 IS NULL OR kind = ?1", (kind,))[0])

    # -- alerts

    def recent_alerts(self, limit: int = 50) -> AlertPage:
        """Newest first, with counts over all of history."""
        return recent(self._reader, checked_limit(limit))

    # -- promotion

    def stages(self) -> dict[str, PromotionStage]:
        """The current stage of every strategy, by name."""
        return {one.name: one.stage for one in promotion_schema.load_all(self._reader)}

    def promotion_history(self, limit: int = 50) -> tuple[HistoryEntry, ...]:
        """Newest first."""
        return promotion_schema.history(self._reader, None, checked_limit(limit))


def open_reader(path: str | Path) -> FundReader:
    """Open a database for reading. Raises: `DatabaseError`."""
    return FundReader(Path(path))
