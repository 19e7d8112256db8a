"""The step `storage`: people hear when the database cannot be written, and when its log grows.

The alerts are sent, not committed as requests: a request could not be stored either, and a CRITICAL
alert leaves from memory. They are fired from the state, again in later ticks until one was let out.
"""

from __future__ import annotations

from typing import ClassVar, Final

from ....runtime import FundopsError
from ....wire.alert import AlertOutcome, Category, Level, SendAlert
from ....wire.errors import StorageDegraded
from ....wire.persistence import StorageState, StorageStatus
from ..round import Effects, Round
from .step import Ports, Step

__all__ = ["WAL_LARGE_BYTES", "StorageStep"]

# Checkpoints cut the log back every 16 MiB, unless a reader never ends its transaction.
WAL_LARGE_BYTES = 256 * 2**20
# After an alert that the rate limit held back; each try leaves a row in the history.
AGAIN_AFTER_US: Final = 60_000_000


class StorageStep(Step):
    """Compares the state of the storage with the alerts that were sent.

    In a new life it resolves the alerts that an earlier process left open.
    """

    name: ClassVar[str] = "storage"
    tells_itself: ClassVar[bool] = True

    def __init__(self, ports: Ports) -> None:
        super().__init__(ports)
        self._told: dict[str, bool] = {}  # by dedup key: whether it was fired; else resolved
        self._again_us: dict[str, int] = {}

    async def run(self, tick: Round) -> Effects:
        """Tell a change of the state. The fault is that the database cannot be written."""
        status = self.ports.storage.read()
        if status is None:
            return Effects()  # persistence restarts, and its supervisor tells of that
        if self.ports.settings.alerts_enabled:
            now_us = self.ports.clock.now_us()
            for state in ("failed", "degraded"):
                await self._tell(now_us, _of_state(state, status), status.state == state)
            await self._tell(now_us, _of_log(status), status.wal_bytes > WAL_LARGE_BYTES)
        if status.state == "ok":
            return Effects()
        return Effects(fault=StorageDegraded(str(status.reason)))

    async def _tell(self, now_us: int, alert: SendAlert, fires: bool) -> None:
        key = str(alert.dedup_key)
        if self._told.get(key) is fires or now_us < self._again_us.get(key, 0):
            return
        try:
            receipt = await self.ports.ask("alert", alert if fires else _resolved(alert))
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
