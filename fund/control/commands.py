"""The table of commands: what may be asked of a fund from outside, by name, and the audit row of each change.

A door's public coroutines are commands: ``ledger.deposit``, ``ledger.balance_sheet``. A command that only reads leaves
no row; every other one does, done or refused, before its answer leaves. What is not known to be a read is a change.
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

__all__ = ["Command", "CommandTable", "fund_commands", "takes_key"]

log = logging.getLogger("fundops.control")

ACTOR_MAX = 128
# Of a question with a `limit`: the ledger reads a page in one go.
PAGE_MAX = 1_000

# Questions of the ledger; a method that is not among them is taken for a change, which is the safe mistake.
LEDGER_READS: Final = frozenset(
    (
        "balance_sheet",
        "cash_flow",
        "entries",
        "income_statement",
        "nav",
        "nav_per_unit",
        "recent_entries",
        "trial_balance",
        "verify",
    )
)


class Command(msgspec.Struct, frozen=True):
    """One name of the table."""

    method: Callable[..., Awaitable[Any]]
    change: bool  # leaves an audit row


class CommandTable:
    """Runs commands by name, and writes what was asked and what became of it."""

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
        """Offer a coroutine function. Raises: ValueError when the name is taken."""
        if name in self._commands:
            raise ValueError(f"command {name!r} is there already")
        self._commands[name] = Command(method, change)

    def add_door(self, part: str, door: object, reads: frozenset[str]) -> None:
        """Offer every public coroutine of a door as ``part.name``; those in `reads` leave no audit row."""
        for name in dir(type(door)):
            if not name.startswith("_") and inspect.iscoroutinefunction(getattr(type(door), name)):
                self.add(f"{part}.{name}", getattr(door, name), change=name not in reads)

    async def run(self, caller: Caller, name: str, arguments: Mapping[str, Any]) -> Any:
        """The answer, ready for JSON; a change is audited first.

        Raises: `UnknownCommand`, `ConfigError` for the arguments, what the method raises, `NotAudited`.
        """
        command = self[name]
        if len(caller.actor) > ACTOR_MAX or not caller.actor.isprintable():
            raise ConfigError("actor", f"is not at most {ACTOR_MAX} printable characters")
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
            # The refusal is what the caller must hear; nothing has changed.
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
        # A mebibyte of legs takes half a second, and the fund must not stand still that long.
        return await trio.to_thread.run_sync(bound, command.method, arguments)
    return bound(command.method, arguments)


def fund_commands(
    path: Path, persistence: Ref, ledger: LedgerDoor, now_us: Callable[[], int]
) -> CommandTable:
    """What every fund offers: the ledger, and a backup."""
    table = CommandTable(persistence, now_us)
    table.add_door("ledger", ledger, LEDGER_READS)

    async def backup(target: str) -> dict[str, str | int]:
        """A copy of the database as it is now, made while it is written."""
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
    """Whether a command can be asked twice safely, by a key that its caller makes before sending."""
    part, _, method = name.partition(".")
    function = getattr(LedgerDoor, method, None) if part == "ledger" else None
    return function is not None and "key" in inspect.signature(function).parameters
