"""The step `storage`: people hear when the database cannot be written, and when its log grows.

The alerts are sent, not committed as requests: a request could not be stored either, and a CRITICAL
alert leaves from memory. They are fired from the state, again in later ticks until one was let out.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from ...runtime import FundopsError
from ...wire.alert import AlertOutcome, AlertReceipt, Category, Level, SendAlert
from ...wire.persistence import StorageState, StorageStatus
from ..persistence import StorageBoard

__all__ = ["WAL_LARGE_BYTES", "StorageWatch"]

# Checkpoints cut the log back every 16 MiB, unless a reader never ends its transaction.
WAL_LARGE_BYTES = 256 * 2**20
# After an alert that the rate limit held back; each try leaves a row in the history.
AGAIN_AFTER_US: Final = 60_000_000

Ask = Callable[[str, Any], Awaitable[Any]]


class StorageWatch:
    """Remembers what was told; a new one resolves what an earlier process left open."""

    def __init__(self, board: StorageBoard, *, alerts: bool) -> None:
        self._board = board
        self._alerts = alerts
        self._told: dict[str, bool] = {}  # by dedup key: whether it was fired; else resolved
        self._again_us: dict[str, int] = {}

    async def look(self, ask: Ask, now_us: int) -> str | None:
        """Compare the state with what was told. Returns why the database cannot be written."""
        status = self._board.read()
        if status is None:
            return None  # persistence restarts, and its supervisor tells of that
        if self._alerts:
            for state in ("failed", "degraded"):
                await self._tell(ask, now_us, _of_state(state, status), status.state == state)
            await self._tell(ask, now_us, _of_log(status), status.wal_bytes > WAL_LARGE_BYTES)
        return None if status.state == "ok" else str(status.reason)

    async def _tell(self, ask: Ask, now_us: int, alert: SendAlert, fires: bool) -> None:
        key = str(alert.dedup_key)
        if self._told.get(key) is fires or now_us < self._again_us.get(key, 0):
            return
        try:
            receipt: AlertReceipt = await ask("alert", alert if fires else _resolved(alert))
        except FundopsError:
            return  # storage refused all but a CRITICAL one, or the actor restarts
        if receipt.outcome is AlertOutcome.RATE_SUPPRESSED:
            self._again_us[key] = now_us + AGAIN_AFTER_US
        else:
            self._told[key] = fires


def _of_state(state: StorageState, status: StorageStatus) -> SendAlert:
    return SendAlert(
        Level.CRITICAL,
        Category.GENERAL,
        "The database cannot be written" if state == "degraded" else "The database has failed",
        status.reason or "",
        dedup_key=f"storage:{state}",
    )


def _of_log(status: StorageStatus) -> SendAlert:
    return SendAlert(
        Level.WARNING,
        Category.GENERAL,
        "The database's log grows",
        f"the write-ahead log has {status.wal_bytes / 2**20:.0f} MiB, more than"
        f" {WAL_LARGE_BYTES / 2**20:g}: a reader in some process does not end its transaction",
        dedup_key="storage:log",
    )


def _resolved(alert: SendAlert) -> SendAlert:
    return SendAlert(
        Level.INFO,
        alert.category,
        f"No longer: {alert.title}",
        "",
        dedup_key=alert.dedup_key,
        resolves=True,
    )
