"""PromotionManager: the lifecycle of strategies without a fund around it, for synchronous code.

    manager = PromotionManager(db_path="promotions.db")
    strategy_id = manager.register("bollinger_mr_w20")

It keeps no state between calls and takes the writer's lock only for the length of one write, so
several processes may share a file. Its verbs are those of `Fund.promotion`, decided by the same
desk. A file of its own knows no capital; in a fund's file its capital bounds the strategies as it
did in the fund's last run. Where a running fund owns the file, reads are direct and writes go
through that fund's control socket.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_type_hints

from fundops.actors.alert.requests import requested
from fundops.actors.persistence import Reader, Rows, Store, errors_named
from fundops.actors.promotion import PromotionPolicy, checked, schema
from fundops.actors.promotion.desk import Desk
from fundops.actors.promotion.metrics import canonical_metrics
from fundops.actors.promotion.notes import notes_of
from fundops.bridge import running_loop
from fundops.config import home, is_file_path
from fundops.control.arguments import converted, noted, plain
from fundops.control.audit import Caller, audited
from fundops.control.client import call
from fundops.control.commands import BY_MAX, Command
from fundops.control.policy import commit, is_kept, keep_policy, policy_in
from fundops.doors import PromotionDoor
from fundops.doors.inert import inert
from fundops.errors import DatabaseInUse, FundNotRunning, NobodyListens
from fundops.faces import Asked, SyncPromotion
from fundops.file import meta
from fundops.file.database import MIGRATIONS
from fundops.file.lock import OwnerLock
from fundops.file.strategies import FileBook, capital_in
from fundops.runtime import Clock, ConfigError, Request, SystemClock, shown
from fundops.wire.errors import DatabaseError, UnknownStage
from fundops.wire.foreign import fitted, plain_number
from fundops.wire.money import from_minor, positive_minor, text_of
from fundops.wire.persistence import Statement
from fundops.wire.promotion import PromotionStage

if TYPE_CHECKING:
    from fundops.fund import Fund

__all__ = ["PromotionFile", "PromotionManager"]

T = TypeVar("T")

LOCK_WAIT_S: Final = 5.0
_POLL_S: Final = 0.02  # between two looks for a fund that listens
_DOOR: Final = "manager"  # in the audit table
_STAGES: Final = frozenset({"initial_stage", "stage", "to"})  # arguments of changes
_WORDS: Final = tuple(stage.value for stage in PromotionStage)


class PromotionManager(SyncPromotion):
    """Strategies may be named by their id or by their name. Refusals are in
    `fundops.wire.errors`.
    """

    def __init__(
        self,
        db_path: str | Path | None = None,
        *,
        policy: PromotionPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`db_path` None: promotion.db in the home folder. `policy` None: the one that the file
        stores, or `policy_of("guarded")` in a new file.

        Raises: `DatabaseError`; `ConfigError` for a name that is no file, and for a policy that is
        none; `PolicyError` naming a
        strategy whose stage the ladder lacks; `DatabaseInUse` for a new file, or another policy,
        while another program owns the file.
        """
        if db_path is not None and not is_file_path(db_path):
            problem = f"{shown(db_path)} is no file; the strategies of a call are read by the next"
            raise ConfigError("db_path", problem)
        if policy is not None and not isinstance(policy, PromotionPolicy):
            problem = f"{shown(policy)} is no PromotionPolicy; policy_of('guarded') makes one"
            raise ConfigError("policy", problem)
        # Located once: the working folder may change between two calls.
        path = Path(db_path) if db_path is not None else home() / "promotion.db"
        super().__init__(PromotionFile(Path(os.path.realpath(path)), policy, clock))


class PromotionFile:
    """A file in a fund's place: it runs each verb of promotion in the caller's thread."""

    def __init__(
        self,
        path: Path,
        policy: PromotionPolicy | None = None,
        clock: Clock | None = None,
        door: str = _DOOR,
        by: str = "",
    ) -> None:
        """`door` and `by` are for the audit table; a verb's own `by` counts before that one."""
        self._path = path
        self._by = by
        self._clock = clock or SystemClock()
        self._door = door
        # One call at a time: the connection is opened for each, but two threads would fight over
        # the file's lock.
        self._turn = threading.Lock()
        policy = None if policy is None else checked(policy)
        if not self._is_kept(policy):
            # Other tools may open the file at the same time. In an event loop waiting could stop
            # the fund that owns it.
            wait_s = LOCK_WAIT_S if running_loop() is None else 0.0
            with self._turn, _Locked(path, wait_s):
                keep_policy(path, policy, self._clock, door)

    def _is_kept(self, given: PromotionPolicy | None) -> bool:
        """Whether the file is one of this version, with this policy: then nothing is written to
        begin with it, and one that a running fund owns can be used.

        Raises: `PolicyError`.
        """
        try:
            reader = Reader(self._path)
        except DatabaseError:
            return False
        with reader:
            if reader.row("PRAGMA user_version")[0] != len(MIGRATIONS):
                return False
            return is_kept(reader, given)

    def now(self) -> Fund:
        """No verb of promotion needs a fund without waiting. Raises: `FundNotRunning`."""
        raise FundNotRunning("a file of promotion has no fund")

    def wait(self, verb: str, function: Callable[[Fund], Awaitable[Any]]) -> Any:
        """Run a verb of the table and return its answer. Raises: its refusal."""
        assert isinstance(function, Asked)
        if function.command.reads:
            with self._turn, Reader(self._path) as reader, reader.snapshot():
                return _on(_FileDoor(reader, self._clock), function)
        return self._write(function)

    def run(self, command: Command, arguments: Mapping[str, Any]) -> Any:
        """As `wait`, for arguments by name."""
        asked = Asked(command, (), arguments)
        return self.wait(command.name, asked)

    def _write(self, asked: Asked) -> Any:
        arguments, _ = asked.command.fit(asked.named(), "")
        asked = Asked(asked.command, (), arguments)
        deadline, wait_s = time.monotonic() + LOCK_WAIT_S, 0.0
        while True:
            try:
                with self._turn, _Locked(self._path, wait_s):
                    return self._written(asked)
            except DatabaseInUse as owned:
                try:
                    return self._sent(asked, owned)
                except NobodyListens:
                    # Another tool is writing, or a fund is starting or stopping.
                    if time.monotonic() >= deadline:
                        raise owned from None
                    wait_s = _POLL_S

    def _written(self, asked: Asked) -> Any:
        with errors_named(self._path):
            store = Store(self._path, MIGRATIONS)
            try:
                return self._decided(asked, store)
            finally:
                store.connection.close()

    def _decided(self, asked: Asked, store: Store) -> Any:
        door = _FileDoor(Rows(store.connection), self._clock)
        answer = _on(door, asked)
        if door.statements:
            arguments = {name: noted(value) for name, value in asked.named().items()}
            by = fitted(arguments.get("by", self._by), BY_MAX)
            caller = Caller(self._door, os.getuid(), os.getpid(), by)
            row = audited(
                self._clock.now_us(),
                caller,
                asked.command.name,
                arguments,
                {"done": plain(answer)},
            )
            commit(store, [*door.statements, row])
        return answer

    def _sent(self, asked: Asked, owned: DatabaseInUse) -> Any:
        """The answer of the fund that owns the file.

        Raises: `NobodyListens`; `DatabaseInUse` in the thread of an event loop of this process,
            where waiting could stop the fund that should answer.
        """
        if "uuid" not in meta.read_file(self._path):
            raise NobodyListens("the file is not a fund's")
        if running_loop() is not None and owned.owner == "this process":
            raise owned
        arguments = asked.named()
        self._check_stages(arguments)
        arguments = _carried(arguments)
        command = asked.command
        answer = call(self._path, command.name, arguments, by=str(arguments.get("by", self._by)))
        return converted(answer, get_type_hints(command.method)["return"], "answer")

    def _check_stages(self, arguments: Mapping[str, Any]) -> None:
        """Refuse a word that is no stage as the desk does, since JSON's types would first.

        Raises: `UnknownStage`.
        """
        for name in _STAGES & arguments.keys():
            stage = arguments[name]
            if stage is not None and stage not in _WORDS and not isinstance(stage, PromotionStage):
                with Reader(self._path) as reader:
                    raise UnknownStage(stage, policy_in(reader, None).policy.names())


class _FileDoor(PromotionDoor):
    """The door of promotion, with the desk behind it at once; `statements` are to be committed."""

    def __init__(self, rows: Rows, clock: Clock) -> None:
        super().__init__(None)
        found, capital = policy_in(rows, None), capital_in(rows)
        self._is_funds = capital.fund_minor is not None
        self._desk = Desk(found.policy, capital, found.base)
        self._book = FileBook(rows, found.policy, capital)
        self._clock = clock
        self.statements: tuple[Statement, ...] = ()

    async def _ask(self, request: Request[T]) -> T:
        now_us = self._clock.now_us()
        decided = self._desk.handle(inert(request), self._book, now_us)
        self.statements += decided.statements
        if self._is_funds:
            # The fund tells them at its next start. A file of a manager alone is read by no fund.
            notes = notes_of(decided.changes, schema.next_seq(self._book.rows))
            self.statements += tuple(requested(now_us, notes))
        answer: T = decided.answer
        return answer


class _Locked:
    """The owner's lock for the length of a block. Raises: `DatabaseInUse`."""

    def __init__(self, path: Path, wait_s: float = 0.0) -> None:
        self._lock = OwnerLock(path)
        self._wait_s = wait_s

    def __enter__(self) -> None:
        self._lock.acquire(self._wait_s)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _on(door: PromotionDoor, asked: Asked) -> Any:
    """The answer of a verb, which waits for nothing: the desk is behind the door itself."""
    coroutine = getattr(door, asked.command.verb)(*asked.args, **asked.kwargs)
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise RuntimeError(f"{asked.command.name} waits for something")


def _carried(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments as JSON can carry them: amounts as text, other figures as plain numbers."""
    if arguments.get("budget") is not None:
        minor = positive_minor(arguments["budget"], "budget").minor
        arguments["budget"] = text_of(from_minor(minor))
    if "metrics" in arguments:
        arguments["metrics"] = canonical_metrics(arguments["metrics"])
    return {name: _plain_figure(value) for name, value in arguments.items()}


def _plain_figure(value: Any) -> Any:
    number = plain_number(value)
    if number is None:
        return value
    return float(number) if isinstance(number, Decimal) else number
