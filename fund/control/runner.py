"""Runs the commands of the table on the doors of one fund, and writes the audit rows of changes.

A command from outside (`run`) leaves its row, done or refused, before its answer is sent. In
process (`sign`) each change to which a person gives a name with `by` leaves one, too. An act that
tightens never waits for its row: a database that hangs must not delay a kill switch.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from functools import wraps
from typing import Any, Final

import msgspec
import trio

from fundops.control.arguments import bound, noted, plain
from fundops.control.audit import Caller, audited
from fundops.control.commands import BY_MAX, COMMANDS, Command
from fundops.errors import NotAudited, UnknownCommand
from fundops.runtime import ActorError, ConfigError, Ref, Rejected
from fundops.wire.foreign import fitted
from fundops.wire.persistence import COMMIT_DEADLINE_S, Commit

__all__ = ["CommandRunner"]

log = logging.getLogger("fundops.control")

# The largest `limit` of a question: the ledger reads a page without a pause.
PAGE_MAX: Final = 1_000
# For rows that are being written when the fund stops.
FINISH_S: Final = 5.0


class CommandRunner:
    """Runs commands by name.

    `doors` are those of this fund by part: a command of another part is unknown here. `spawn`
    starts a task that outlives the caller, for audit rows that must not delay it.
    """

    def __init__(
        self,
        doors: Mapping[str, object],
        persistence: Ref,
        now_us: Callable[[], int],
        spawn: Callable[..., None],
    ) -> None:
        self._doors = dict(doors)
        # As they are before `sign`, since `run` writes its rows itself.
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {
            name: getattr(doors[command.part], command.verb)
            for name, command in COMMANDS.items()
            if command.part in doors
        }
        self._persistence = persistence
        self._now_us = now_us
        self._spawn = spawn
        self._noting = 0  # rows that no caller waits for
        self._noted = trio.Event()

    def __iter__(self) -> Iterator[str]:
        """The names of the commands that may be asked for from outside."""
        return (name for name in self._methods if COMMANDS[name].reach != "process")

    def _found(self, name: str) -> tuple[Command, Callable[..., Awaitable[Any]]]:
        if name not in set(self):
            known = ", ".join(sorted(self))
            raise UnknownCommand("command", f"there is no {name[:80]!r}; known: {known}")
        return COMMANDS[name], self._methods[name]

    async def run(self, caller: Caller, name: str, arguments: Mapping[str, Any]) -> Any:
        """Run one command from outside and return its answer as JSON values.

        Raises: `UnknownCommand`; `ConfigError` for the arguments; the method's own errors;
        `NotAudited`.
        """
        command, method = self._found(name)
        arguments, by = command.fit(arguments, caller.by)
        caller = msgspec.structs.replace(caller, by=by)
        if not command.may_tighten and (len(by) > BY_MAX or not by.isprintable()):
            raise ConfigError("by", f"is not at most {BY_MAX} printable characters")
        try:
            answer = plain(await method(**await _converted(command, arguments)))
        except Exception as error:
            if not command.reads:
                await self._note_refusal(caller, command, arguments, error)
            raise
        if command.effect == "tightens":
            self._note_later(caller, command, arguments, answer)
        elif not command.reads:
            problem = await self._note_done(caller, command, arguments, answer)
            if problem is not None:
                key = answer.get("key") if isinstance(answer, dict) else None
                raise NotAudited(name, key, str(problem)) from problem
        return answer

    def sign(self) -> None:
        """Let each change of these doors that takes `by` leave an audit row when it is called."""
        for command in COMMANDS.values():
            if command.signed and command.name in self._methods:
                signing = self._signing(command, self._methods[command.name])
                setattr(self._doors[command.part], command.verb, signing)

    def _signing(
        self, command: Command, method: Callable[..., Awaitable[Any]]
    ) -> Callable[..., Awaitable[Any]]:
        @wraps(method)
        async def call(*args: Any, **kwargs: Any) -> Any:
            try:
                answer = await method(*args, **kwargs)
            except Exception as error:
                caller, arguments = _signed(command, args, kwargs)
                await self._note_refusal(caller, command, arguments, error)
                raise
            caller, arguments = _signed(command, args, kwargs)
            if command.effect == "tightens":
                self._note_later(caller, command, arguments, answer)
            else:
                # A problem is logged. The caller is not told that a change failed which was done.
                await self._note_done(caller, command, arguments, answer)
            return answer

        return call

    async def finish(self) -> None:
        """Wait up to 5 s for the rows that no caller waits for, also when cancelled."""
        with trio.move_on_after(FINISH_S, shield=True):
            while self._noting:
                await self._noted.wait()

    def _note_later(self, *noted: Any) -> None:
        async def note() -> None:
            try:
                await self._note_done(*noted)
            finally:
                self._noting -= 1
                noted_before, self._noted = self._noted, trio.Event()
                noted_before.set()

        self._noting += 1
        self._spawn(note)

    async def _note_refusal(
        self, caller: Caller, command: Command, arguments: Mapping[str, Any], error: Exception
    ) -> None:
        outcome = {"refused": {"type": type(error).__name__, "text": fitted(error)}}
        try:
            await self._commit(caller, command, arguments, outcome)
        except (Rejected, ActorError) as problem:
            # Nothing has changed, so the caller is told the refusal and not this problem.
            log.error(
                "the refusal of %s by %s is not in the audit table: %s",
                command.name,
                caller,
                problem,
            )

    async def _note_done(
        self, caller: Caller, command: Command, arguments: Mapping[str, Any], answer: Any
    ) -> Exception | None:
        """Write the row of a change that was done. Returns why it could not be written."""
        try:
            await self._commit(caller, command, arguments, {"done": answer})
        except (Rejected, ActorError) as problem:
            log.error(
                "%s by %s is done and not in the audit table: %s", command.name, caller, problem
            )
            return problem
        return None

    async def _commit(
        self,
        caller: Caller,
        command: Command,
        arguments: Mapping[str, Any],
        outcome: dict[str, Any],
    ) -> None:
        row = audited(self._now_us(), caller, command.name, arguments, outcome)
        await self._persistence.ask(Commit((row,)), timeout_s=COMMIT_DEADLINE_S)


def _signed(
    command: Command, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[Caller, dict[str, Any]]:
    """The caller in process, and its arguments as JSON values.

    An act that tightens takes any object as a text, so nothing here may fail.
    """
    try:
        given = command.signature.bind(*args, **kwargs).arguments
    except TypeError:  # the method has refused them, or will
        given = dict(kwargs)
    by = fitted(given.get("by", ""), BY_MAX)
    return Caller("process", os.getuid(), os.getpid(), by), {
        name: noted(value) for name, value in given.items()
    }


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
