"""A disk under SQLite that remembers every write and every sync, can lose power, and fails when
told to.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import apsw
import pytest

from fundops.actors.ledger import LedgerActor
from fundops.actors.persistence import PersistenceActor, open_database
from fundops.file.database import MIGRATIONS
from fundops.runtime import (
    ChildSpec,
    InlineWorker,
    Supervisor,
    VirtualClock,
    Worker,
    open_supervisor,
)
from fundops.wire.ledger import Posted

BASE = "unix"
START_US = 1_700_000_000_000_000

Files = dict[str, bytes]
Damage = Literal["dropped", "kept", "thinned", "torn 512", "torn 4096"]


class Write(NamedTuple):
    file: str
    offset: int
    data: bytes


class Truncate(NamedTuple):
    file: str
    size: int


class Sync(NamedTuple):
    file: str
    ok: bool  # or what was written since the last one is lost, though the system goes on showing it


class Delete(NamedTuple):
    file: str


Event = Write | Truncate | Sync | Delete | Posted


class Disk(apsw.VFS):
    """Everything that happens to one database and its log, in order, with the acknowledgements in
    between.

    SQLite's default while the fixture lasts, so that nobody above knows of it.
    """

    NAME = "fundops-faulty-disk"

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.before: Files = {}
        self._faults: dict[tuple[str, str], list[Exception]] = {}
        super().__init__(self.NAME, BASE, makedefault=True)

    def begin(self, path: Path) -> None:
        """What is in the folder now is safe; record from here on."""
        self.events.clear()
        self.before = {
            one.name: one.read_bytes() for one in path.parent.iterdir() if _is_recorded(one.name)
        }

    def fail(self, call: str, suffix: str, error: Exception, times: int = 1) -> None:
        """The next `times` of this call on the file of that suffix raise; what they should do is
        not done.
        """
        self._faults[call, suffix] = [error] * times

    def heal(self) -> None:
        self._faults.clear()

    def check(self, call: str, file: str) -> None:
        for (failing, suffix), errors in self._faults.items():
            if failing == call and file.endswith(suffix) and errors:
                raise errors.pop()

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:
        return _DiskFile(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        super().xDelete(filename, syncdir)
        if _is_recorded(Path(filename).name):
            self.events.append(Delete(Path(filename).name))

    def image(self, until: int, damage: Damage, rng: random.Random) -> Files:
        """The files after a power cut at this event: all that was synced, and of the rest what
        `damage` says.
        """
        disk = {name: bytearray(content) for name, content in self.before.items()}
        pending: dict[str, list[Write | Truncate]] = {}
        for event in self.events[:until]:
            match event:
                case Write() | Truncate():
                    pending.setdefault(event.file, []).append(event)
                case Sync(file, ok):
                    for one in pending.pop(file, ()):
                        if ok:
                            _apply(disk, one)
                case Delete(file):
                    pending.pop(file, None)
                    disk.pop(file, None)
        for one in (
            piece
            for events in pending.values()
            for event in events
            for piece in _left(event, damage, rng)
        ):
            _apply(disk, one)
        return {name: bytes(content) for name, content in disk.items()}

    def acknowledged(self, until: int) -> list[Posted]:
        return [event for event in self.events[:until] if isinstance(event, Posted)]


class _DiskFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: Any, flags: list[int]) -> None:
        self._disk = disk
        self._file = Path(
            name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        ).name
        self._recorded = _is_recorded(self._file)
        super().__init__(BASE, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.check("xWrite", self._file)
        super().xWrite(data, offset)
        if self._recorded:
            self._disk.events.append(Write(self._file, offset, bytes(data)))

    def xTruncate(self, size: int) -> None:
        self._disk.check("xTruncate", self._file)
        super().xTruncate(size)
        if self._recorded:
            self._disk.events.append(Truncate(self._file, size))

    def xLock(self, level: int) -> None:
        """A connection that was opened to read asks, as it closes, for a lock that needs a file
        open to write. SQLite takes a no for an answer; apsw raises any other error than busy.
        """
        try:
            super().xLock(level)
        except apsw.IOError as error:
            raise apsw.BusyError("not locked") from error

    def xSync(self, flags: int) -> None:
        """Not passed on: no test here depends on the real disk, and syncing it is what takes
        time.
        """
        try:
            self._disk.check("xSync", self._file)
        except apsw.Error:
            self._disk.events.append(Sync(self._file, ok=False))
            raise
        if self._recorded:
            self._disk.events.append(Sync(self._file, ok=True))


def _is_recorded(name: str) -> bool:
    return name.endswith((".db", ".db-wal"))


def _left(
    event: Write | Truncate, damage: Damage, rng: random.Random
) -> Iterator[Write | Truncate]:
    """What a power cut leaves of something that was not synced."""
    if damage == "dropped":
        return
    if damage == "kept":
        yield event
    elif damage == "thinned" or isinstance(event, Truncate):
        if rng.random() < 0.5:
            yield event
    else:
        sector = int(damage.removeprefix("torn "))
        start = event.offset
        while start < event.offset + len(event.data):
            end = min((start // sector + 1) * sector, event.offset + len(event.data))
            if rng.random() < 0.5:
                yield Write(
                    event.file, start, event.data[start - event.offset : end - event.offset]
                )
            start = end


def _apply(disk: dict[str, bytearray], event: Write | Truncate) -> None:
    content = disk.setdefault(event.file, bytearray())
    size = event.size if isinstance(event, Truncate) else event.offset + len(event.data)
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if isinstance(event, Truncate):
        del content[size:]
    else:
        content[event.offset : size] = event.data


def check_book(path: Path, acknowledged: Sequence[Posted]) -> int:
    """Open the file with plain SQLite. Every acknowledged entry is there, and all that is there
    is in order.
    """
    connection = apsw.Connection(str(path), vfs=BASE)
    try:
        connection.pragma("synchronous", "off")  # it is thrown away afterwards
        assert connection.pragma("integrity_check") == "ok"
        heads, head = {}, bytes(32)
        for number, (seq, key, payload, stored) in enumerate(
            connection.execute("SELECT seq, key, payload, hash FROM entry ORDER BY seq"), start=1
        ):
            head = hashlib.sha256(head + payload.encode()).digest()
            assert (seq, stored) == (number, head)
            heads[seq] = (key, head.hex())
        for posted in acknowledged:
            assert heads.get(posted.seq) == (posted.key, posted.hash)
        derived = (
            "SELECT account, coalesce(strategy, ''), asset, sum(amount_minor)"
            " FROM posting GROUP BY 1, 2, 3"
        )
        balances: list[tuple[Any, ...]] = connection.execute(
            "SELECT * FROM balance WHERE amount_minor <> 0 ORDER BY 1, 2, 3"
        ).fetchall()
        assert balances == [
            one for one in connection.execute(f"{derived} ORDER BY 1, 2, 3") if one[3]
        ]
        assert sum(amount for *_, amount in balances) == 0
        return len(heads)
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database with its schema, in a folder of its own."""
    (tmp_path / "fund").mkdir()
    path = tmp_path / "fund" / "fund.db"
    open_database(path, MIGRATIONS).close()
    return path


@pytest.fixture
def disk(path: Path) -> Iterator[Disk]:
    """Under everything that is opened from now on."""
    disk = Disk()
    disk.begin(path)
    yield disk
    disk.unregister()


@pytest.fixture
def checked() -> Callable[[Path, Sequence[Posted]], int]:
    return check_book


Running = Callable[..., AbstractAsyncContextManager[Supervisor]]


@pytest.fixture
def running() -> Running:
    """Persistence and the ledger as in a fund."""

    @asynccontextmanager
    async def run(
        path: Path, make_worker: Callable[[], Worker] = InlineWorker
    ) -> AsyncIterator[Supervisor]:
        children = [
            ChildSpec(
                "persistence", partial(PersistenceActor, path, MIGRATIONS, make_worker=make_worker)
            ),
            ChildSpec(
                "ledger",
                partial(LedgerActor, path, VirtualClock(START_US), "USD", make_worker=make_worker),
            ),
        ]
        async with open_supervisor(children, strategy="rest_for_one") as supervisor:
            yield supervisor

    return run
