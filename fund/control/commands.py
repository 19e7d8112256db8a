"""The table of commands: the requests that a fund accepts from outside, and their audit rows.

A door's public coroutines are commands: ``ledger.deposit``, ``ledger.balance_sheet``. A command
that only reads leaves no row. Every other command leaves one, done or refused, before its answer is
sent. A method counts as a change unless it is listed as a read.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from fundops.actors.persistence import backup as copy_database
from fundops.control.arguments import bound, plain
from fundops.control.audit import Caller, audited
from fundops.doors import LedgerDoor
from fundops.errors import NotAudited, UnknownCommand
from fundops.runtime import ActorError, ConfigError, Ref, Rejected
from fundops.wire.persistence import COMMIT_DEADLINE_S, Commit

__all__ = ["ALERT_READS", "Command", "CommandTable", "fund_commands", "takes_key"]

log = logging.getLogger("fundops.control")

BY_MAX = 128
# The largest `limit` of a question: the ledger reads a page without a pause.
PAGE_MAX = 1_000

# Methods of the ledger that only read. A new method counts as a change until it is listed here: an
# audit row too many is the safer mistake.
LEDGER_READS: Final = frozenset(
    (
        "balance_sheet",
        "cash_flow",
        "entries",
        "entries_after",
        "income_statement",
        "lots",
        "nav",
        "nav_per_unit",
        "positions",
        "prices",
        "realized",
        "recent_entries",
        "reports_aside",
        "reconcile",
        "trial_balance",
        "verify",
    )
)

# A test alert changes nothing in the fund.
ALERT_READS: Final = frozenset(("recent", "test"))


class Command(msgspec.Struct, frozen=True):
    """A command of the table."""

    method: Callable[..., Awaitable[Any]]
    change: bool  # leaves an audit row


class CommandTable:
    """Runs commands by name and writes each change with its outcome to the audit table."""

    def __init__(self, persistence: Ref, now_us: Callable[[], int]) -> None:
        self._persistence = persistence
        self._now_us = now_us
        self._commands: dict[str, Command] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._commands)

    def __getitem__(self, name: str) -> Command:
        if name not in self._commands:
            raise UnknownCommand(
                "command", f"there is no {name[:80]!r}; known: {', '.join(sorted(self._commands))}"
            )
        return self._commands[name]

    def add(self, name: str, method: Callable[..., Awaitable[Any]], *, change: bool = True) -> None:
        """Offer the coroutine function `method` as `name`; a `change` leaves an audit row.

        Raises: ValueError when the name is taken.
        """
        if name in self._commands:
            raise ValueError(f"command {name!r} is there already")
        self._commands[name] = Command(method, change)

    def add_door(self, part: str, door: object, reads: frozenset[str]) -> None:
        """Offer every public coroutine of a door as ``part.method``; `reads` leave no audit row."""
        for name in dir(type(door)):
            if not name.startswith("_") and inspect.iscoroutinefunction(getattr(type(door), name)):
                self.add(f"{part}.{name}", getattr(door, name), change=name not in reads)

    async def run(self, caller: Caller, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run one command and return its answer as JSON values; a change is audited first.

        Raises: `UnknownCommand`; `ConfigError` for the arguments; the method's own errors;
        `NotAudited`.
        """
        command = self[name]
        if len(caller.by) > BY_MAX or not caller.by.isprintable():
            raise ConfigError("by", f"is not at most {BY_MAX} printable characters")
        try:
            answer = plain(await command.method(**await _converted(command, arguments)))
        except Exception as error:
            if command.change:
                await self._note_refusal(caller, name, arguments, error)
            raise
        if command.change:
            await self._note(caller, name, arguments, answer)
        return answer

    async def _note_refusal(
        self, caller: Caller, name: str, arguments: Mapping[str, Any], error: Exception
    ) -> None:
        outcome = {"refused": {"type": type(error).__name__, "text": str(error)}}
        try:
            await self._commit(caller, name, arguments, outcome)
        except (Rejected, ActorError) as problem:
            # Nothing has changed, so the caller is told the refusal and not this problem.
            log.error(
                "the refusal of %s by %s is not in the audit table: %s", name, caller, problem
            )

    async def _note(
        self, caller: Caller, name: str, arguments: Mapping[str, Any], answer: Any
    ) -> None:
        try:
            await self._commit(caller, name, arguments, {"done": answer})
        except (Rejected, ActorError) as problem:
            log.error("%s by %s is done and not in the audit table: %s", name, caller, problem)
            key = answer.get("key") if isinstance(answer, dict) else None
            raise NotAudited(name, key, str(problem)) from problem

    async def _commit(
        self, caller: Caller, name: str, arguments: Mapping[str, Any], outcome: dict[str, Any]
    ) -> None:
        row = audited(self._now_us(), caller, name, arguments, outcome)
        await self._persistence.ask(Commit((row,)), timeout_s=COMMIT_DEADLINE_S)


async def _converted(command: Command, arguments: Mapping[str, Any]) -> dict[str, Any]:
    limit = arguments.get("limit")
    if isinstance(limit, int) and limit > PAGE_MAX:
        raise ConfigError(
            "limit", f"{limit} is more than {PAGE_MAX}; for more, read the file with open_reader"
        )
    if any(isinstance(value, list | dict) for value in arguments.values()):
        # A mebibyte of legs takes half a second, too long for the event loop.
        return await trio.to_thread.run_sync(bound, command.method, arguments)
    return bound(command.method, arguments)


def fund_commands(
    path: Path, persistence: Ref, ledger: LedgerDoor, now_us: Callable[[], int]
) -> CommandTable:
    """The commands that every fund offers: those of the ledger, and `backup`."""
    table = CommandTable(persistence, now_us)
    table.add_door("ledger", ledger, LEDGER_READS)

    async def backup(target: str) -> dict[str, str | int]:
        """Copy the database as it is now; writing goes on meanwhile."""
        if not Path(target).is_absolute():
            raise ConfigError(
                "target",
                f"{target!r} is not absolute, and where this fund runs is not where you are",
            )
        copied = await trio.to_thread.run_sync(copy_database, path, Path(target))
        return {"target": target, "schema": copied.schema, "size_bytes": copied.size_bytes}

    table.add("backup", backup)
    return table


def takes_key(name: str) -> bool:
    """Whether the command takes an idempotency key, so that it can safely be asked twice."""
    part, _, method = name.partition(".")
    # A question may have a key too: that of the entry that it looks for.
    books = part == "ledger" and method not in LEDGER_READS
    function = getattr(LedgerDoor, method, None) if books else None
    return function is not None and "key" in inspect.signature(function).parameters
