"""The doors of a fund that runs in another thread: plain calls that wait, or asyncio coroutines.

Made from the table of commands: each verb is a method here under its own name, with its own
arguments. `faces.pyi` beside this file says so to type checkers and editors; `docs/generate.py`
writes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from fundops.control.commands import FUND, PARTS, Command, commands_of

if TYPE_CHECKING:
    from fundops.fund import Fund

__all__ = [
    "Asked",
    "AsyncioAlerts",
    "AsyncioFace",
    "AsyncioKillSwitch",
    "AsyncioLedger",
    "AsyncioPromotion",
    "AsyncioRecovery",
    "AsyncioVerbs",
    "SyncAlerts",
    "SyncFace",
    "SyncKillSwitch",
    "SyncLedger",
    "SyncPromotion",
    "SyncRecovery",
    "SyncVerbs",
    "asyncio_face",
    "sync_face",
]


class Waits(Protocol):
    """The way into the thread of a fund: `wait` runs a function there and waits for its answer."""

    def wait(self, verb: str, function: Callable[[Fund], Awaitable[Any]]) -> Any:
        """The answer of `function`. `verb` names the call, as "ledger.deposit"."""
        ...

    def now(self) -> Fund:
        """The fund itself, for what may be called in any thread."""
        ...


class Posts(Protocol):
    """The way into the thread of a fund from an asyncio loop."""

    async def post(self, function: Callable[[Fund], Awaitable[Any]]) -> Any:
        """The answer of `function`."""
        ...

    def now(self) -> Fund:
        """The fund itself, for what may be called in any thread."""
        ...


class SyncFace:
    """One part of a fund, with its verbs as plain calls. Each waits for its answer."""

    def __init__(self, way: Waits) -> None:
        self._way = way


class AsyncioFace:
    """One part of a fund, with its verbs as coroutines for an asyncio loop."""

    def __init__(self, way: Posts) -> None:
        self._way = way


def sync_face(part: str, name: str) -> type[SyncFace]:
    """The class with the verbs of one part as plain calls."""
    return type(name, (SyncFace,), {**_members(part, _waiting), "__doc__": SyncFace.__doc__})


def asyncio_face(part: str, name: str) -> type[AsyncioFace]:
    """The class with the verbs of one part as coroutines for asyncio."""
    return type(name, (AsyncioFace,), {**_members(part, _posting), "__doc__": AsyncioFace.__doc__})


def _members(part: str, made: Callable[[Command], Callable[..., Any]]) -> Mapping[str, Any]:
    members = {command.verb: made(command) for command in commands_of(part)}
    if part != FUND:  # its plain methods are those of `Hosted`
        members |= {name: _plain(part, name) for name in plain_methods(part)}
    return members


def plain_methods(part: str) -> tuple[str, ...]:
    """The public methods of a door that need no waiting, such as `new_key` of the ledger."""
    door = PARTS[part]
    return tuple(
        name
        for name, member in inspect.getmembers(door, inspect.isfunction)
        if not name.startswith("_") and not inspect.iscoroutinefunction(member)
    )


class Asked(NamedTuple):
    """One call of a verb, to be made on the fund."""

    command: Command
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    async def __call__(self, fund: Fund) -> Any:
        """The answer of the verb."""
        door = fund if self.command.part == FUND else getattr(fund, self.command.part)
        return await getattr(door, self.command.verb)(*self.args, **self.kwargs)

    def named(self) -> dict[str, Any]:
        """The arguments by name. Raises: TypeError for those that the verb does not take."""
        return dict(self.command.signature.bind(*self.args, **self.kwargs).arguments)


def _waiting(command: Command) -> Callable[..., Any]:
    @wraps(command.method)
    def call(self: SyncFace, *args: Any, **kwargs: Any) -> Any:
        name = f"{command.part}.{command.verb}"
        return self._way.wait(name, Asked(command, args, kwargs))

    return call


def _posting(command: Command) -> Callable[..., Any]:
    @wraps(command.method)
    async def call(self: AsyncioFace, *args: Any, **kwargs: Any) -> Any:
        return await self._way.post(Asked(command, args, kwargs))

    return call


def _plain(part: str, name: str) -> Callable[..., Any]:
    @wraps(getattr(PARTS[part], name))
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        return getattr(getattr(self._way.now(), part), name)(*args, **kwargs)

    return call


SyncVerbs: Final = sync_face(FUND, "SyncVerbs")
SyncLedger: Final = sync_face("ledger", "SyncLedger")
SyncPromotion: Final = sync_face("promotion", "SyncPromotion")
SyncAlerts: Final = sync_face("alerts", "SyncAlerts")
SyncRecovery: Final = sync_face("recovery", "SyncRecovery")
SyncKillSwitch: Final = sync_face("kill_switch", "SyncKillSwitch")

AsyncioVerbs: Final = asyncio_face(FUND, "AsyncioVerbs")
AsyncioLedger: Final = asyncio_face("ledger", "AsyncioLedger")
AsyncioPromotion: Final = asyncio_face("promotion", "AsyncioPromotion")
AsyncioAlerts: Final = asyncio_face("alerts", "AsyncioAlerts")
AsyncioRecovery: Final = asyncio_face("recovery", "AsyncioRecovery")
AsyncioKillSwitch: Final = asyncio_face("kill_switch", "AsyncioKillSwitch")
