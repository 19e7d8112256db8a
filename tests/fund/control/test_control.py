"""The control socket: its place, its commands, hostile clients, the audit table, and the errors."""

from __future__ import annotations

import datetime as dt
import inspect
import json
import logging
import os
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import apsw
import pytest
import trio
import trio.testing

import fundops
from fundops import (
    AmountError,
    ConfigError,
    DatabaseInUse,
    Fund,
    FundConfig,
    FundManager,
    FundopsError,
    InsufficientFunds,
    PromotionManager,
    SubsystemDisabled,
    open_reader,
)
from fundops.actors.persistence import open_database
from fundops.control import call, client, rendezvous, runner, server
from fundops.control.arguments import bound, converted, plain
from fundops.control.audit import OUTCOME_MAX, Caller
from fundops.control.client import rebuilt
from fundops.control.commands import COMMANDS, PARTS, Command, Effect, commands_of
from fundops.control.rendezvous import Peer, folder_to_listen_in, peer_of, socket_name
from fundops.control.runner import CommandRunner
from fundops.control.server import ControlServer
from fundops.doors import LedgerDoor
from fundops.errors import ControlError, NobodyListens, NotAudited, UnknownCommand
from fundops.file.database import MIGRATIONS, prepare
from fundops.runtime import InlineWorker, Worker
from fundops.wire.errors import (
    AlreadyReversed,
    DatabaseError,
    IdempotencyConflict,
    PositionMismatch,
    StorageDegraded,
    UnknownStrategy,
)
from fundops.wire.ledger import Deposit, Event, Leg, Posted
from fundops.wire.promotion import PromotionStage as P

DEADLINE_S = 30
IDENTITY = {"name": "fund", "currency": "USD", "total_capital": "100000"}


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A runtime folder for each test, under a path that is short enough on every system."""
    with tempfile.TemporaryDirectory(prefix="fo", dir="/tmp") as name:
        monkeypatch.setenv("XDG_RUNTIME_DIR", name)
        yield Path(name)


@contextmanager
def _running(path: Path, **settings: Any) -> Iterator[FundManager]:
    defaults: dict[str, Any] = {
        "total_capital": 100_000,
        "tick_interval_s": None,
        "ledger_enabled": True,
    }
    with FundManager(FundConfig(**{**defaults, "db_path": path, **settings})) as fund:
        yield fund


@pytest.fixture
def fund(tmp_path: Path) -> Iterator[FundManager]:
    with _running(tmp_path / "x.db") as running:
        yield running


@pytest.fixture
def db(fund: FundManager) -> Path:
    return fund.config.path


def _uuid(path: Path) -> str:
    with open_reader(path) as reader:
        return reader.meta()["uuid"]


def _socket_of(path: Path, runtime: Path) -> Path:
    return runtime / socket_name(_uuid(path))


@contextmanager
def _connected(db: Path, runtime: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(DEADLINE_S)
        client.connect(str(_socket_of(db, runtime)))
        yield client


def _all_of(client: socket.socket) -> bytes:
    received = bytearray()
    while chunk := client.recv(65_536):
        received += chunk
    return bytes(received)


def _error_of(answer: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(answer)["error"]
    return error


# -- where it is


def test_the_socket_is_for_its_owner_alone_and_gone_with_the_fund(
    tmp_path: Path, runtime: Path
) -> None:
    with _running(tmp_path / "x.db"):
        path = _socket_of(tmp_path / "x.db", runtime)
        found = path.stat()
        assert stat.S_ISSOCK(found.st_mode)
        assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o600, os.getuid())
        assert [one.name for one in runtime.iterdir()] == [path.name], "nothing temporary stays"
    assert list(runtime.iterdir()) == []


def test_the_name_is_short_and_tells_the_uuid_to_nobody() -> None:
    uuid = "01234567-89ab-cdef-0123-456789abcdef"
    assert len(socket_name(uuid)) < 32
    assert socket_name(uuid) == socket_name(uuid) != socket_name(uuid[:-1])
    assert uuid[:8] not in socket_name(uuid)


@pytest.mark.parametrize("spoilt", ["unset", "relative", "missing", "open", "a file", "long"])
def test_a_runtime_folder_that_is_not_ours_alone_is_passed_over(
    spoilt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "TEMPORARY", tmp_path)
    folder = tmp_path / ("x" * 90 if spoilt == "long" else "runtime")
    if spoilt == "a file":
        folder.touch(mode=0o600)
    elif spoilt != "missing":
        folder.mkdir(mode=0o700)
    if spoilt == "open":
        folder.chmod(0o770)
    value = {"unset": "", "relative": "runtime"}.get(spoilt, str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", value)
    shared = tmp_path / f"fundops-{os.getuid()}"
    assert folder_to_listen_in() == shared
    assert stat.S_IMODE(shared.stat().st_mode) == 0o700
    assert folder_to_listen_in() == shared, "and again, now that it is there"


@pytest.mark.parametrize("spoilt", ["open", "link", "file"])
def test_a_shared_folder_that_somebody_else_could_have_made_is_refused(
    spoilt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    monkeypatch.setattr(rendezvous, "TEMPORARY", tmp_path)
    shared = tmp_path / f"fundops-{os.getuid()}"
    if spoilt == "open":
        shared.mkdir()
        shared.chmod(0o755)
    elif spoilt == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        shared.symlink_to(tmp_path / "theirs")
    else:
        shared.touch()
    with pytest.raises(ControlError, match="would not be safe"):
        folder_to_listen_in()
    assert shared not in rendezvous.folders_to_look_in()


def test_a_folder_of_another_user_is_neither_listened_in_nor_looked_in(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger = os.getuid() + 1
    (runtime / f"fundops-{stranger}").mkdir(mode=0o700)
    monkeypatch.setattr(rendezvous, "TEMPORARY", runtime)
    monkeypatch.setattr(os, "getuid", lambda: stranger)
    with pytest.raises(ControlError, match="belongs to uid"):
        folder_to_listen_in()
    assert rendezvous.folders_to_look_in() == []


def test_a_caller_with_another_environment_finds_the_fund_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "TEMPORARY", Path(os.environ["XDG_RUNTIME_DIR"]))
    monkeypatch.setenv("XDG_RUNTIME_DIR", "")
    with _running(tmp_path / "x.db"):
        (tmp_path / "session").mkdir(mode=0o700)
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "session"))
        assert call(tmp_path / "x.db", "ledger.nav") == "100000.00000000"


def test_a_caller_whose_runtime_folder_is_too_long_for_a_socket_finds_the_fund_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rendezvous, "TEMPORARY", Path(os.environ["XDG_RUNTIME_DIR"]))
    (tmp_path / ("x" * 100)).mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    with _running(tmp_path / "x.db"):
        assert call(tmp_path / "x.db", "ledger.nav") == "100000.00000000"


def test_a_socket_that_a_dead_owner_left_is_replaced(tmp_path: Path, runtime: Path) -> None:
    prepare(tmp_path / "x.db", IDENTITY)
    path = _socket_of(tmp_path / "x.db", runtime)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
        dead.listen()
    before = path.stat().st_ctime_ns
    with pytest.raises(NobodyListens):
        call(tmp_path / "x.db", "ledger.nav")
    with _running(tmp_path / "x.db"):
        assert path.stat().st_ctime_ns != before
        assert call(tmp_path / "x.db", "ledger.nav") == "100000.00000000"
    assert not path.exists()


def test_a_file_that_is_no_socket_is_replaced_too(tmp_path: Path, runtime: Path) -> None:
    prepare(tmp_path / "x.db", IDENTITY)
    _socket_of(tmp_path / "x.db", runtime).write_text("in the way")
    with _running(tmp_path / "x.db"):
        assert call(tmp_path / "x.db", "ledger.nav") == "100000.00000000"


def test_where_nothing_can_be_bound_the_fund_runs_without_and_warns(
    tmp_path: Path, runtime: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare(tmp_path / "x.db", IDENTITY)
    _socket_of(tmp_path / "x.db", runtime).mkdir()
    with caplog.at_level(logging.WARNING, "fundops.control"), _running(tmp_path / "x.db") as fund:
        assert fund.ledger.nav() == 100_000
    assert [one.levelname for one in caplog.records] == ["WARNING"]
    assert "no control socket" in caplog.text


def test_a_socket_that_is_anothers_by_now_is_left_alone(tmp_path: Path, runtime: Path) -> None:
    with _running(tmp_path / "x.db"):
        (path,) = runtime.iterdir()
        (runtime / "new").write_text("another's")
        (runtime / "new").rename(path)
    assert path.read_text() == "another's"


def test_a_fund_that_wants_no_socket_has_none(tmp_path: Path, runtime: Path) -> None:
    with _running(tmp_path / "x.db", control_socket=False):
        assert list(runtime.iterdir()) == []
        with pytest.raises(NobodyListens):
            call(tmp_path / "x.db", "ledger.nav")
    with pytest.raises(ConfigError, match="control_socket"):
        FundConfig(total_capital=1, control_socket=1)  # type: ignore[arg-type]


def test_what_is_meant_for_a_copy_never_happens_to_the_original(
    tmp_path: Path, db: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = tmp_path / "copy.db"
    connection = apsw.Connection(str(db), flags=apsw.SQLITE_OPEN_READONLY)
    connection.execute("VACUUM INTO ?", (str(copy),))
    connection.close()
    with pytest.raises(ControlError, match="its copy"):
        call(copy, "ledger.deposit", {"amount": "1"})
    with caplog.at_level(logging.WARNING, "fundops.control"), _running(copy) as second:
        assert "another fund listens" in caplog.text
        assert second.ledger.nav() == 100_000
        with pytest.raises(ControlError, match="its copy"):
            call(copy, "ledger.deposit", {"amount": "1"})
    assert call(db, "ledger.nav") == "100000.00000000", (
        "the end of the copy did not take the original's socket along"
    )
    assert call(_uuid(db), "ledger.nav") == "100000.00000000"


def test_a_link_to_the_database_leads_to_its_fund(tmp_path: Path, db: Path) -> None:
    (tmp_path / "link.db").symlink_to(db)
    assert call(tmp_path / "link.db", "ledger.nav") == "100000.00000000"
    assert call(str(tmp_path / "link.db"), "ledger.nav") == "100000.00000000"


# -- what can be asked


def test_every_public_coroutine_of_a_door_has_a_row_in_the_table() -> None:
    public = {
        f"{part}.{name}"
        for part, door in PARTS.items()
        for name in dir(door)
        if not name.startswith("_") and inspect.iscoroutinefunction(getattr(door, name))
    }
    assert {f"{command.part}.{command.verb}" for command in COMMANDS.values()} == public


def test_the_words_of_the_command_line_are_each_used_once() -> None:
    words = [command.words for command in COMMANDS.values() if command.words]
    assert len(words) == len(set(words))


def test_only_what_tightens_may_be_asked_for_by_the_page() -> None:
    by_page = {name for name, command in COMMANDS.items() if command.reach == "page"}
    tightens = {name for name, row in COMMANDS.items() if row.effect == "tightens"}
    assert by_page == tightens - {"promotion.retire"}  # it cannot be undone
    assert "kill_switch.engage" in by_page


def test_another_process_is_told_the_commands_that_it_may_ask_for(
    fund: FundManager, db: Path
) -> None:
    with pytest.raises(UnknownCommand) as caught:
        call(db, "nosuch")
    told = str(caught.value).partition("known: ")[2].split(", ")
    assert told == sorted(name for name, row in COMMANDS.items() if row.reach != "process")
    with pytest.raises(UnknownCommand, match=r"there is no 'fund\.tick'"):
        call(db, "fund.tick")


def test_an_answer_is_what_the_door_says_with_amounts_as_decimal_text(
    fund: FundManager, db: Path
) -> None:
    posted = call(
        db,
        "ledger.deposit",
        {"amount": "2500.5", "key": "mine", "memo": "für Ann", "at": "2026-01-05"},
    )
    assert (posted["seq"], posted["key"], posted["replayed"]) == (2, "mine", False)
    entry = fund.ledger.recent_entries(1)[0]
    assert (entry.day, entry.memo, entry.hash) == ("2026-01-05", "für Ann", posted["hash"])
    sheet = call(db, "ledger.balance_sheet")
    assert {
        account: Decimal(text) for account, text in sheet.items()
    } == fund.ledger.balance_sheet()
    assert sheet["UNREALIZED_PNL"] == "0.00000000"
    assert call(db, "ledger.nav") == "102500.50000000"
    assert call(db, "ledger.recent_entries", {"limit": 1}) == [plain(entry)]
    assert call(
        db,
        "ledger.deposit",
        {"amount": "2500.5", "key": "mine", "memo": "für Ann", "at": "2026-01-05"},
    ) == {
        **posted,
        "replayed": True,
    }


def test_positions_and_explicit_legs_and_many_at_once_go_through(
    fund: FundManager, db: Path
) -> None:
    call(
        db,
        "ledger.open_position",
        {"instrument": "X", "quantity": -3, "cost": "10", "strategy": "a"},
    )
    legs = [
        {"account": "CASH", "amount": "1"},
        {"account": "EXTERNAL", "amount": "-1", "strategy": "a"},
    ]
    call(db, "ledger.post", {"entry": legs})
    events = [
        {"type": "deposit", "amount": "5", "key": "one", "at_us": 1_767_571_200_000_000},
        {"type": "post", "legs": legs},
    ]
    assert [one["seq"] for one in call(db, "ledger.post_many", {"entries": events})] == [4, 5]
    one = fund.ledger.recent_entries(2)[1]
    assert (one.key, one.day) == ("one", "2026-01-05")


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("ledger.deposit", {}, "amount: is missing"),
        ("ledger.deposit", {"amount": 0.5}, "decimal text"),
        ("ledger.deposit", {"amount": True}, "decimal text"),
        ("ledger.deposit", {"amount": None}, "decimal text"),
        ("ledger.deposit", {"amount": "1", "surplus": 1}, "surplus: is not an argument"),
        ("ledger.deposit", {"amount": "1", "self": 1}, "self: is not an argument"),
        ("ledger.deposit", {"amount": "1", "at": "yesterday"}, "not an ISO date"),
        ("ledger.deposit", {"amount": "1", "at": "2026-01-05T00:00:00"}, "no timezone"),
        ("ledger.deposit", {"amount": "1", "at": 1.5}, "not an ISO date"),
        ("ledger.deposit", {"amount": "1", "at": False}, "not an ISO date"),
        ("ledger.deposit", {"amount": "1", "strategy": 7}, "strategy: Expected"),
        ("ledger.reverse", {"seq": "1", "reason": ""}, "seq: Expected"),
        ("ledger.post", {"entry": "CASH"}, "entry: Expected"),
        ("ledger.post", {"entry": [{"account": "CASH"}]}, "entry[0].amount: is missing"),
        ("ledger.post", {"entry": [{"account": "CASH", "amount": "1", "x": 1}]}, "entry[0].x"),
        ("ledger.post", {"entry": [7]}, "entry[0]: Expected"),
        ("ledger.post", {"entry": {"type": "bogus"}}, "by its tag"),
        ("ledger.post_many", {"entries": [{"type": "bogus"}]}, "by its tag"),
        (
            "ledger.post_many",
            {"entries": [{"type": "deposit", "amount": "1"}] * 1_025},
            "at most 1024",
        ),
        ("ledger.recent_entries", {"limit": -1}, "limit"),
        ("ledger.recent_entries", {"limit": 1_001}, "open_reader"),
        ("backup", {"target": "relative.db"}, "not absolute"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_arguments_that_fit_nothing_are_refused_by_name(
    db: Path, command: str, arguments: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        call(db, command, arguments)
    assert said in str(caught.value)
    assert call(db, "ledger.nav") == "100000.00000000"


def test_every_type_that_doors_declare_can_be_made_of_json() -> None:
    amounts = tuple[int, Decimal]
    assert converted([1, "2.5"], amounts, "x") == (1, Decimal("2.5"))
    assert converted({"CASH": "5"}, dict[str, Decimal | int | str | float], "x") == {"CASH": "5"}
    assert converted("2026-01-05", dt.date | int | dt.datetime | None, "x") == dt.date(2026, 1, 5)
    assert converted("2026-01-05T10:00:00+01:00", int | dt.datetime | dt.date, "x") == dt.datetime(
        2026, 1, 5, 9, tzinfo=dt.UTC
    )
    assert converted({"type": "deposit", "amount": "5"}, Event, "x") == Deposit("5")
    assert converted({"account": "CASH", "amount": 5}, Leg, "x") == Leg("CASH", 5)
    assert converted("/tmp", Path, "x") == Path("/tmp")
    assert converted(7, Any, "x") == 7
    for value, hint in (([1], amounts), ("x", Decimal), (5, str | None), (["a"], dict[str, int])):
        with pytest.raises(ConfigError, match=r"^x"):
            converted(value, hint, "x")


def test_all_of_the_ledgers_commands_have_arguments_that_can_be_made_of_json() -> None:
    """A method added to the door is a command; `converted` must know its types."""
    for name in dir(LedgerDoor):
        method = getattr(LedgerDoor, name)
        if not name.startswith("_"):
            with pytest.raises(ConfigError, match="is not an argument"):
                bound(method, {"nosuch": 1})


def test_a_method_of_the_ledger_that_books_is_never_taken_for_a_read() -> None:
    reads = [command for command in commands_of("ledger") if command.reads]
    assert reads
    assert [c.name for c in reads if "Posted" in c.method.__annotations__["return"]] == []
    assert not COMMANDS["ledger.entries"].keyed  # its key is that of the entry to find
    assert not COMMANDS["ledger.skip_report"].keyed
    assert COMMANDS["ledger.deposit"].keyed
    assert not COMMANDS["ledger.nav"].keyed


# -- errors


def test_a_refusal_comes_back_as_the_class_it_was_with_its_facts(db: Path) -> None:
    with pytest.raises(InsufficientFunds) as caught:
        call(db, "ledger.withdraw", {"amount": "100001", "key": "k"})
    refusal = caught.value
    assert (refusal.account, refusal.requested, refusal.available) == (
        "CASH",
        Decimal(100_001),
        Decimal(100_000),
    )
    assert isinstance(refusal.available, Decimal)
    assert (refusal.outcome, getattr(refusal, "key")) == ("done", "k")  # noqa: B009  added by the door
    assert str(refusal) == "CASH has 100000.00000000 available, 100001.00000000 requested"
    with pytest.raises(AmountError) as odd:
        call(db, "ledger.deposit", {"amount": "many"})
    assert (odd.value.field, odd.value.value) == ("amount", "many")
    with pytest.raises(PositionMismatch):
        call(db, "ledger.close_position", {"instrument": "X", "quantity": 1, "proceeds": 1})
    call(db, "ledger.reverse", {"seq": 1, "reason": "r"})
    with pytest.raises(AlreadyReversed):
        call(db, "ledger.reverse", {"seq": 1, "reason": "r"})
    call(db, "ledger.deposit", {"amount": "1", "key": "k"})
    with pytest.raises(IdempotencyConflict):
        call(db, "ledger.deposit", {"amount": "2", "key": "k"})


def test_a_switched_off_ledger_says_which_switch(tmp_path: Path) -> None:
    with (
        _running(tmp_path / "x.db", ledger_enabled=False),
        pytest.raises(SubsystemDisabled, match="ledger_enabled=True") as caught,
    ):
        call(tmp_path / "x.db", "ledger.deposit", {"amount": "1"})
    assert caught.value.subsystem == "ledger"


def test_every_error_that_the_package_offers_can_be_rebuilt() -> None:
    offered = {name: getattr(fundops, name) for name in fundops.__all__}
    errors = [
        kind
        for kind in offered.values()
        if isinstance(kind, type) and issubclass(kind, FundopsError)
    ]
    assert len(errors) > 12
    assert [kind for kind in errors if type(rebuilt(kind.__name__, "odd", {})) is not kind] == []


@pytest.mark.parametrize(
    "error",
    [
        InsufficientFunds("CASH", Decimal(2), Decimal(1)),
        AmountError("amount", "x", "is odd"),
        ConfigError("field", "is odd"),
        DatabaseInUse(Path("/tmp/x.db"), "pid 5"),
        DatabaseError(Path("/tmp/x.db"), "is odd"),
        StorageDegraded("full"),
        NotAudited("ledger.deposit", "k", "full"),
        SubsystemDisabled("ledger", "x=True"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_of_ours_travels_and_arrives_as_itself(error: Exception) -> None:
    told = _error_of(server._told(error))
    again = rebuilt(told["type"], told["text"], told["facts"])
    assert (type(again), str(again)) == (type(error), str(error))
    assert {**vars(error), **vars(again)} == {**vars(again), **vars(error)}


def test_an_error_that_is_nobodys_here_is_a_control_error_with_its_name() -> None:
    error = rebuilt("TheirError", "odd", {"outcome": "done"})
    assert isinstance(error, ControlError)
    assert (error.kind, error.outcome, str(error)) == ("TheirError", "done", "TheirError: odd")
    assert isinstance(rebuilt("Exception", "odd", {}), ControlError), "nor is what only Python has"


# -- what is written down


def test_a_change_is_audited_with_who_asked_before_the_answer_comes(db: Path) -> None:
    posted = call(db, "ledger.deposit", {"amount": "5", "key": "k"}, by="ann")
    with open_reader(db) as reader:
        (row,) = reader.audit()
    assert (row.door, row.uid, row.pid, row.by) == ("control", os.getuid(), os.getpid(), "ann")
    assert (row.command, row.arguments) == ("ledger.deposit", {"amount": "5", "key": "k"})
    assert row.outcome == {"done": posted}
    assert row.at_us > 1_700_000_000_000_000


def test_a_refused_change_is_audited_and_a_question_is_not(db: Path) -> None:
    with pytest.raises(InsufficientFunds):
        call(db, "ledger.withdraw", {"amount": "100001"})
    with pytest.raises(ConfigError):
        call(db, "ledger.deposit", {"amount": 0.5})
    for question in ("nav", "balance_sheet", "income_statement", "trial_balance", "recent_entries"):
        call(db, f"ledger.{question}")
    with open_reader(db) as reader:
        odd, refused = reader.audit()
    assert refused.outcome["refused"]["type"] == "InsufficientFunds"
    assert "100001" in refused.outcome["refused"]["text"]
    assert odd.outcome["refused"]["type"] == "ConfigError"


def test_an_answer_too_long_for_ever_is_left_out_of_the_audit(db: Path) -> None:
    call(db, "ledger.post_many", {"entries": [{"type": "deposit", "amount": "1"}] * 100})
    with open_reader(db) as reader:
        (row,) = reader.audit()
    assert row.outcome["done"]["left_out_bytes"] > OUTCOME_MAX
    assert len(row.arguments["entries"]) == 100


@pytest.mark.parametrize("by", ["x" * 129, "a\nb", "a\x00b"])
def test_a_name_that_would_spoil_the_table_is_refused(db: Path, by: str) -> None:
    with pytest.raises(ConfigError, match="by"):
        call(db, "ledger.deposit", {"amount": "1"}, by=by)
    assert call(db, "ledger.nav") == "100000.00000000"


def test_audit_rows_can_be_neither_changed_nor_deleted(tmp_path: Path, db: Path) -> None:
    call(db, "ledger.deposit", {"amount": "1"})
    connection = apsw.Connection(str(db))
    try:
        for sql in ("UPDATE audit SET uid = 0", "DELETE FROM audit"):
            with pytest.raises(apsw.ConstraintError, match="audit rows are never"):
                connection.execute(sql)
    finally:
        connection.close()


def test_a_database_of_the_first_schema_gets_the_table(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    open_database(path, MIGRATIONS[:1]).close()
    prepare(path, IDENTITY)
    with open_reader(path) as reader:
        assert reader.audit() == ()
    with _running(path):
        call(path, "ledger.deposit", {"amount": "1"})
    with open_reader(path) as reader:
        assert len(reader.audit()) == 1


class _Persistence:
    """Refuses every commit."""

    async def ask(self, request: Any, *, timeout_s: float) -> None:
        raise StorageDegraded("disk full")


async def _posted(amount: str) -> Posted:
    return Posted(7, "k", False, "00")


async def _refused(amount: str) -> Posted:
    raise InsufficientFunds("CASH", Decimal(2), Decimal(1))


async def test_a_change_whose_audit_row_is_lost_is_not_called_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caller = Caller("control", 1, 2, "ann")
    with _made_up("changes", post=_posted, refuse=_refused) as made:
        assert list(made) == ["made_up.post", "made_up.refuse"]
        with pytest.raises(NotAudited, match="ask again with key 'k'") as caught:
            await made.run(caller, "made_up.post", {"amount": "1"})
        assert (caught.value.key, caught.value.outcome) == ("k", "unknown")
        with pytest.raises(InsufficientFunds):
            await made.run(caller, "made_up.refuse", {"amount": "1"})
    assert len(caplog.records) == 2


# -- who may


def test_the_kernel_says_who_is_at_the_other_end() -> None:
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there:
        assert peer_of(here) == Peer(os.getuid(), os.getpid())


def test_where_the_kernel_says_nothing_the_reason_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_PEERCRED", raising=False)
    monkeypatch.setattr(sys, "platform", "sunos5")
    unknown = peer_of(None)
    assert (unknown.uid, unknown.pid) == (None, None)
    assert "sunos5" in unknown.unknown


def test_a_mac_tells_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mac:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert level == 0
            return {1: struct.pack("=IiH", 0, 501, 1) + bytes(66), 2: struct.pack("=i", 77)}[
                option
            ][:size]

    monkeypatch.setattr(sys, "platform", "darwin")
    assert peer_of(Mac()) == Peer(501, 77)


@contextmanager
def _made_up(effect: Effect, **methods: Callable[..., Any]) -> Iterator[CommandRunner]:
    """A runner of commands that are in the table only meanwhile; their rows cannot be written."""
    door = type("Door", (), {name: staticmethod(method) for name, method in methods.items()})
    rows = {f"made_up.{name}": Command(f"made_up.{name}", effect, "socket", "") for name in methods}
    with patch.dict(COMMANDS, rows), patch.dict(PARTS, {"made_up": door}):
        yield CommandRunner({"made_up": door()}, _Persistence(), lambda: 1, _spawned)  # type: ignore[arg-type]


def _spawned(*_: Any) -> None:
    raise AssertionError("only what tightens leaves its row to a task")


@asynccontextmanager
async def _served(
    path: Path, method: Callable[..., Any], peer: Callable[[Any], Peer] = peer_of
) -> AsyncIterator[ControlServer]:
    """A server alone, whose one command `do` is a read."""
    uuid = prepare(path, IDENTITY)
    with _made_up("reads", do=method) as made, trio.fail_after(DEADLINE_S):
        server = ControlServer(uuid, path, made, peer_of=peer)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.serve)
            yield server
            await server.close()
            nursery.cancel_scope.cancel()


async def _ask(path: Path, command: str = "made_up.do", **options: Any) -> Any:
    return await trio.to_thread.run_sync(
        partial(call, path, command, **options), abandon_on_cancel=True
    )


async def test_another_user_is_refused_and_nothing_is_done(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    done = []

    async def do() -> None:
        done.append(1)

    path = tmp_path / "x.db"
    with caplog.at_level(logging.WARNING, "fundops.control"):
        async with _served(path, do, lambda _: Peer(os.getuid() + 1, 99)):
            with pytest.raises(ControlError, match=f"uid {os.getuid() + 1}"):
                await _ask(path)
    assert done == []
    assert "was refused" in caplog.text


async def test_where_the_user_is_unknown_the_folder_must_do(tmp_path: Path) -> None:
    async def do() -> str:
        return "done"

    async with _served(tmp_path / "x.db", do, lambda _: Peer(None, None, "not told")):
        assert await _ask(tmp_path / "x.db") == "done"


def test_somebody_else_who_listens_in_the_funds_place_is_not_talked_to(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "peer_of", lambda _: Peer(os.getuid() + 1, 5))
    with pytest.raises(ControlError, match="in place of this fund"):
        call(db, "ledger.deposit", {"amount": "1"})


# -- hostile clients


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"hello\n",
        b"\x00\xff\xfe\n",
        b"[]\n",
        b"null\n",
        b'{"version": 1}\n',
        b'{"version": 1, "command": 7}\n',
        b'{"version": 2, "command": "ledger.nav"}\n',
        b'{"version": 1, "command": "ledger.nav", "arguments": []}\n',
        b'{"version": 1, "command": "ledger.nav", "by": {}}\n',
        b'{"version": 1, "command": "ledger.deposit", "arguments": {"amount": "\\ud800"}}\n',
        b'{"version": 1, "command": "__class__"}\n',
        b'{"version": 1, "command": "ledger._ask"}\n',
        b'{"version": 1, "command": "ledger.new_key"}\n',
        b'{"version": 1, "command": "ledger.nav", "database": "\\u0000"}\n',
        b'{"version": 1, "command": "ledger.nav", "database": "/etc/passwd"}\n',
        b"[" * 100_000 + b"\n",
        b'{"version": 1, "command": "do", "arguments": {"x": ' + b"[" * 100_000 + b"\n",
        b'{"version": 1, "command": "ledger.nav"',
        b"x" * (rendezvous.LINE_MAX_BYTES + 200_000),
    ],
    ids=lambda line: repr(line[:50]),
)
def test_garbage_is_answered_with_an_error_and_harms_nobody(
    db: Path, runtime: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with _connected(db, runtime) as client:
        try:
            client.sendall(line)
            client.shutdown(socket.SHUT_WR)
            answer = _all_of(client)
        except (BrokenPipeError, ConnectionResetError):
            answer = b""  # it was refused while we were still talking
    if answer:
        assert answer.count(b"\n") == 1
        assert _error_of(answer)["text"]
    else:
        assert len(line) > rendezvous.LINE_MAX_BYTES
    assert call(db, "ledger.nav") == "100000.00000000"
    assert caplog.records == [], "none of it is a defect"


def test_a_client_that_leaves_without_a_word_or_without_listening_is_nothing(
    db: Path, runtime: Path
) -> None:
    for _ in range(3):
        with _connected(db, runtime):
            pass
        with _connected(db, runtime) as client:
            client.sendall(
                b'{"version": 1, "command": "ledger.deposit", "arguments": {"amount": "1"}}\n'
            )
    with open_reader(db) as reader:
        for _ in range(DEADLINE_S * 50):
            if len(reader.audit()) == 3:
                break
            threading.Event().wait(0.02)
    assert call(db, "ledger.nav") == "100003.00000000", (
        "what was asked for is done, whoever hears of it"
    )


def test_half_closed_and_byte_by_byte_is_a_request_like_any_other(db: Path, runtime: Path) -> None:
    with _connected(db, runtime) as client:
        for byte in b'{"version": 1, "command": "ledger.nav"}\n':
            client.sendall(bytes([byte]))
        client.shutdown(socket.SHUT_WR)
        assert json.loads(_all_of(client)) == {"ok": "100000.00000000"}


async def test_a_client_that_dawdles_is_cut_off_and_others_are_served_meanwhile(
    tmp_path: Path, runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "READ_DEADLINE_S", 0.2)

    async def do() -> str:
        return "done"

    path = tmp_path / "x.db"
    async with _served(path, do):
        slow = [
            await trio.open_unix_socket(str(_socket_of(path, runtime)))
            for _ in range(server.CLIENTS_MAX + 4)
        ]
        for stream in slow:
            await stream.send_all(b'{"version": 1')
        assert await _ask(path) == "done", "it waited for a place, and got one"
        answers = [await stream.receive_some() for stream in slow[:3]]
        assert all(b"no whole line within" in answer for answer in answers)
        for stream in slow:
            await stream.aclose()


async def test_no_more_clients_are_served_at_once_than_there_are_places(tmp_path: Path) -> None:
    now, most, full, gate = 0, 0, trio.Event(), trio.Event()

    async def do() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        if now == server.CLIENTS_MAX:
            full.set()
        await gate.wait()
        now -= 1

    path = tmp_path / "x.db"
    answers: list[Any] = []
    async with _served(path, do), trio.open_nursery() as nursery:

        async def one() -> None:
            answers.append(await _ask(path))

        for _ in range(server.CLIENTS_MAX + 5):
            nursery.start_soon(one)
        await full.wait()
        await trio.sleep(0.05)  # for one too many to get in, if it could
        gate.set()
    assert (most, answers) == (server.CLIENTS_MAX, [None] * (server.CLIENTS_MAX + 5))


async def test_a_defect_in_a_command_is_told_logged_and_survived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def do() -> None:
        raise ZeroDivisionError("a defect")

    async with _served(tmp_path / "x.db", do):
        for _ in range(2):
            with pytest.raises(ControlError, match="ZeroDivisionError: a defect") as caught:
                await _ask(tmp_path / "x.db")
            assert caught.value.outcome == "unknown"
    assert [one.exc_info is not None for one in caplog.records] == [True, True]


async def test_a_defect_in_the_server_itself_costs_one_client_its_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def do() -> str:
        return "done"

    failing = [ZeroDivisionError("a defect")]

    def peer(connection: Any) -> Peer:
        if failing:
            raise failing.pop()
        return peer_of(connection)

    async with _served(tmp_path / "x.db", do, peer):
        with pytest.raises(ControlError, match="no answer") as caught:
            await _ask(tmp_path / "x.db", arguments={"key": "k"})
        assert (caught.value.outcome, caught.value.key) == ("unknown", "k")
        assert await _ask(tmp_path / "x.db") == "done"
    assert "could not be served" in caplog.text


def _socket_type() -> Any:
    with trio.socket.socket() as one:
        return type(one)


async def test_a_server_that_breaks_is_closed_and_the_fund_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Any) -> Any:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(_socket_type(), "accept", broken)
    async with Fund.open(
        FundConfig(total_capital=1, db_path=tmp_path / "x.db", tick_interval_s=None)
    ) as fund:
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(NobodyListens):
            await _ask(tmp_path / "x.db")
        assert (await fund.status()).nav == 1
    assert "no command from another process gets through any more" in caplog.text


async def test_a_system_that_is_out_of_descriptors_is_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ACCEPT_AGAIN_S", 0.01)
    kind = _socket_type()
    accept, failures = kind.accept, [OSError(24, "Too many open files")] * (server.CLIENTS_MAX + 4)

    async def failing(self: Any) -> Any:
        if failures:
            raise failures.pop()
        return await accept(self)

    async def do() -> str:
        return "done"

    monkeypatch.setattr(kind, "accept", failing)
    async with _served(tmp_path / "x.db", do):
        assert await _ask(tmp_path / "x.db") == "done", "and no place was lost"
    assert "Too many open files" in caplog.text


async def test_what_was_begun_when_the_fund_stops_is_ended_and_answered(tmp_path: Path) -> None:
    begun, gate = trio.Event(), trio.Event()

    async def do() -> str:
        begun.set()
        await gate.wait()
        return "done"

    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await _ask(tmp_path / "x.db"))

    async with trio.open_nursery() as nursery, _served(tmp_path / "x.db", do) as server:
        nursery.start_soon(ask)
        await begun.wait()
        closed = trio.Event()

        async def close() -> None:
            await server.close()
            closed.set()

        async with trio.open_nursery() as closing:
            closing.start_soon(close)
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not closed.is_set()
            gate.set()
    assert answers == ["done"]


def test_long_lists_are_converted_outside_of_the_funds_own_thread(
    db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mebibyte of legs takes half a second."""
    threads = []

    def noted(method: Any, arguments: Any) -> dict[str, Any]:
        threads.append(threading.current_thread().name)
        return bound(method, arguments)

    monkeypatch.setattr(runner, "bound", noted)
    call(db, "ledger.post_many", {"entries": [{"type": "deposit", "amount": "1"}] * 1_000})
    call(db, "ledger.deposit", {"amount": "1"})
    in_thread, inline = threads
    assert (inline, in_thread != inline) == ("fundops", True)


def test_many_callers_at_once_are_all_booked_once(db: Path) -> None:
    def deposit(number: int) -> int:
        seq: int = call(db, "ledger.deposit", {"amount": "1", "key": f"k{number % 40}"})["seq"]
        return seq

    with ThreadPoolExecutor(20) as threads:
        seqs = list(threads.map(deposit, range(80)))
    assert sorted(set(seqs)) == list(range(2, 42))
    assert call(db, "ledger.nav") == "100040.00000000"
    with open_reader(db) as reader:
        assert len(reader.audit(1_000)) == 80


def test_a_request_too_long_is_refused_before_it_is_sent(db: Path) -> None:
    with pytest.raises(ConfigError, match="longer than"):
        call(db, "ledger.deposit", {"amount": "1", "memo": "x" * rendezvous.LINE_MAX_BYTES})


def test_nobody_listens_and_no_fund_at_all_are_told_apart(tmp_path: Path) -> None:
    prepare(tmp_path / "x.db", IDENTITY)
    with pytest.raises(NobodyListens):
        call(tmp_path / "x.db", "ledger.nav")
    with pytest.raises(DatabaseError, match="no such database"):
        call(tmp_path / "nosuch.db", "ledger.nav")
    open_database(tmp_path / "y.db", MIGRATIONS).close()
    with pytest.raises(ConfigError, match="not the database of a fund"):
        call(tmp_path / "y.db", "ledger.nav")


# -- in the life of a fund


def _inline(name: str) -> Worker:
    return InlineWorker()


def test_a_fund_that_breaks_takes_its_socket_along(tmp_path: Path, runtime: Path) -> None:
    config = FundConfig(total_capital=1, db_path=tmp_path / "x.db", tick_interval_s=None)
    seen = []

    async def broken() -> None:
        async with Fund.open(config, make_worker=_inline):
            seen.extend(os.listdir(runtime))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trio.run(broken)
    assert len(seen) == 1
    assert list(runtime.iterdir()) == []


def test_the_calling_end_needs_no_trio_running_and_no_fund_loaded(db: Path) -> None:
    program = (
        "import sys\nfrom fundops.control import call\n"
        "print(call(sys.argv[1], 'ledger.nav'))\nassert 'fundops.fund' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program, _uuid(db)],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "100000.00000000", "")


def test_the_head_of_the_chain_is_logged_when_a_session_ends_and_when_the_fund_stops(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "fundops"), _running(tmp_path / "x.db") as fund:
        fund.tick("2026-01-05")
        with open_reader(tmp_path / "x.db") as reader:
            first = reader.anchor()
        fund.ledger.deposit(5)
    with open_reader(tmp_path / "x.db") as reader:
        last = reader.anchor()
        assert last == (reader.recent_entries(1)[0].seq, reader.recent_entries(1)[0].hash)
    told = [one.getMessage() for one in caplog.records if "ledger anchor" in one.getMessage()]
    assert told == [f"ledger anchor {seq} {head}" for seq, head in (first, last)]


def test_an_alert_is_sent_and_read_through_the_socket(fund: FundManager, db: Path) -> None:
    given = {"level": "WARNING", "category": "GENERAL", "title": "t", "message": "m"}
    assert call(db, "alerts.send", given, by="ann")["outcome"] == "NO_CHANNEL"
    assert [one["title"] for one in call(db, "alerts.recent", {"limit": 1})["alerts"]] == ["t"]
    assert call(db, "alerts.test") == []
    with pytest.raises(ValueError, match="LOUD"):
        call(db, "alerts.send", {**given, "level": "LOUD"})


# -- an act that tightens, and its texts


class Broken:
    """An object that cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


_endless: list[Any] = []
_endless.append(_endless)
TEXTS: dict[str, Any] = {
    "surrogate": "\ud800",
    "number": 1.5,
    "huge": "x" * 2_000_000,
    "endless": _endless,
    "broken": Broken(),
    "bytes": b"\xff",
}


@pytest.mark.parametrize("owned", [True, False])
@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_no_text_stops_what_allows_less(text: Any, owned: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    with _running(path, promotion_enabled=True) as fund:
        for name in ("a", "b", "c", "d"):
            fund.promotion.adopt(name, P.Live_Small, by="ann", reason="it trades")
        if owned:
            _tightened(PromotionManager(path), text)
    if not owned:
        _tightened(PromotionManager(path), text)


def _tightened(manager: PromotionManager, text: Any) -> None:
    manager.freeze("a", by=text, reason=text)
    manager.demote("b", by=text, reason=text)
    manager.retire("c", by=text, reason=text)
    manager.set_cap("d", 0.005, by=text, reason=text)
    assert manager.snapshot("d").cap == 0.005
    if not isinstance(text, str):
        with pytest.raises(ConfigError, match="by"):
            manager.set_cap("d", 0.01, by=text, reason=text)
    assert manager.snapshot("a").frozen
    assert [manager.current_stage(name) for name in ("b", "c")] == [P.Shadow, P.Retired]
    for name in ("\ud800", "x" * 2_000):
        with pytest.raises((UnknownStrategy, ConfigError)):  # a request that cannot be sent
            manager.freeze(name)


@pytest.mark.parametrize("text", [1.5, None, ["x"], "a\nb", "x" * 5_000])
def test_a_program_that_sends_no_text_is_not_stopped_either(
    text: Any, fund: FundManager, db: Path
) -> None:
    call(db, "kill_switch.engage", {"reason": text, "by": text}, by="a\nb" * 100)
    assert fund.kill_switch.status().state != "OFF"
