"""One command for one database: sent to the fund that runs on it, or executed here when none runs.

Without an owner the command takes the owner's lock, starts persistence and the ledger, runs, and
stops. It starts no guard, no alerts and no tick: those belong to a running fund.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio

from fundops.actors.ledger import LedgerActor
from fundops.actors.ledger.keys import new_key
from fundops.actors.persistence import PersistenceActor, check_writable, errors_named
from fundops.control.arguments import check_carried
from fundops.control.audit import Caller
from fundops.control.client import call
from fundops.control.commands import COMMANDS
from fundops.control.runner import CommandRunner
from fundops.doors import LedgerDoor
from fundops.errors import DatabaseInUse, NobodyListens
from fundops.file import meta
from fundops.file.database import MIGRATIONS
from fundops.file.lock import OwnerLock
from fundops.runtime import (
    ChildSpec,
    ConfigError,
    SupervisorSpec,
    SystemClock,
    ThreadWorker,
    bare_errors,
    open_supervisor,
)

__all__ = ["run_command"]

# For the owner's lock, and again for SQLite's: another tool's write or the start of a fund takes
# less. Both waits together are within the 10 s that a caller is promised.
LOCK_WAIT_S = 4.0
_POLL_S = 0.05

_BEGINS_THE_BOOK: Final = "ledger.opening_balances"


def run_command(
    db: Path,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    by: str = "",
    *,
    wait_s: float = LOCK_WAIT_S,
) -> Any:
    """Run a command and return its answer as JSON values. Not to be called from within a trio run.

    A change without a `key` gets one first, so that its errors can carry it. `by` is the name for
    the audit table. While another program holds the database's write lock, a change is refused
    before anything is started, and leaves no audit row: that could not be written either.

    Raises: the command's own error; `NobodyListens` when it needs a running fund and none runs;
    `DatabaseInUse` when the owner does not listen;
    `StorageDegraded`; `DatabaseError`.
    """
    db = Path(os.path.realpath(db))
    asked, row = dict(arguments or {}), COMMANDS.get(command)
    if row is not None:
        asked, by = row.fit(asked, by)
    check_carried({**asked, "by": by})
    if row is not None and row.keyed and asked.get("key") is None:
        asked["key"] = new_key(SystemClock().now_us())
    deadline = time.monotonic() + wait_s
    identity = meta.read_file(db)
    if not {"name", "currency", "total_capital", "uuid"} <= identity.keys():
        raise ConfigError("db", f"{db} is not the database of a fund")
    while True:
        lock = OwnerLock(db)
        try:
            lock.acquire()
        except DatabaseInUse as owned:
            try:
                return call(db, command, asked, by=by)
            except NobodyListens:
                # Another tool is writing, or a fund is starting or stopping.
                if time.monotonic() >= deadline:
                    raise owned from None
            time.sleep(_POLL_S)
            continue
        try:
            if row is not None and row.part != "ledger":
                # Without a fund only its books can be worked on.
                raise NobodyListens(f"no fund runs on {db}, and {command} needs one that does")
            if row is None or not row.reads:
                check_writable(db, round(1_000 * LOCK_WAIT_S))
            # An interrupt waits for the write to end and then ends the command.
            run = partial(_alone, db, identity, command, asked, by)
            return trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)
        finally:
            lock.release()


async def _alone(
    path: Path, identity: Mapping[str, str], command: str, arguments: Mapping[str, Any], by: str
) -> Any:
    clock = SystemClock()
    with errors_named(path):
        rules = meta.rules_of(identity)
    ledger = ChildSpec("ledger", partial(LedgerActor, path, clock, identity["currency"], rules))
    specs: list[ChildSpec | SupervisorSpec] = [
        ChildSpec("persistence", partial(PersistenceActor, path, MIGRATIONS)),
        SupervisorSpec("subsystems", (ledger,)),
    ]
    with bare_errors():
        async with open_supervisor(
            specs, strategy="rest_for_one", name=identity["name"]
        ) as supervisor:
            door = LedgerDoor(supervisor.ref("ledger"), clock.now_us, path, ThreadWorker)
            if command != _BEGINS_THE_BOOK:
                # As a fund does at every start: the first entry is the capital, whichever program
                # opens the book first.
                await door.deposit(identity["total_capital"], key="opening", memo="total capital")
            async with trio.open_nursery() as nursery:
                persistence = supervisor.ref("persistence")
                runner = CommandRunner(
                    {"ledger": door}, persistence, clock.now_us, nursery.start_soon
                )
                caller = Caller("standalone", os.getuid(), os.getpid(), by)
                return await runner.run(caller, command, arguments)
