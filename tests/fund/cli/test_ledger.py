"""`fundops ledger`, `backup`, `restore`: with no fund running, and with one in another process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
import trio

from fundops import (
    ConfigError,
    DatabaseInUse,
    Fund,
    FundConfig,
    FundManager,
    InsufficientFunds,
    PeriodClosed,
    open_reader,
)
from fundops.actors.ledger.judges import judges
from fundops.actors.persistence import open_database
from fundops.cli import app as cli
from fundops.control.standalone import run_command
from fundops.errors import NobodyListens
from fundops.file.database import MIGRATIONS
from fundops.file.lock import OwnerLock
from fundops.file.restore import import_book
from fundops.wire.errors import DatabaseError, OutcomeUnknown

DEADLINE_S = 60

# The contract's own numbers.
GOLDEN_SHEET = {
    "CASH": 95_000,
    "POSITIONS": 5_000,
    "FEES_RECEIVABLE": -300,
    "MANAGEMENT_FEES": 200,
    "PERFORMANCE_FEES": 100,
    "REALIZED_PNL": -1_500,
    "UNREALIZED_PNL": 0,
}
GOLDEN_INCOME = {
    "REALIZED_PNL": 1_500,
    "UNREALIZED_PNL": 0,
    "MANAGEMENT_FEES": -200,
    "PERFORMANCE_FEES": -100,
}

OWNER = """
import sys, trio
from fundops import Fund, FundConfig
async def main():
    settings = dict(total_capital=100_000, ledger_enabled=True, tick_interval_s=None)
    async with Fund.open(FundConfig(db_path=sys.argv[1], **settings)):
        print("up", flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)
trio.run(main)
"""


class Done:
    """The output and the exit code of a command."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        assert (self.code, self.err) == (0, ""), self.err
        return json.loads(self.out)


Command = Callable[..., Done]


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="fo", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path))
        monkeypatch.setenv("USER", "ann")
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.chdir(tmp_path)
        yield


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, on the default database."""

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["fundops", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    return run


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """The default database, made by a fund that has stopped."""
    path = tmp_path / "fund.db"

    async def make() -> None:
        config = FundConfig(
            total_capital=100_000, ledger_enabled=True, db_path=path, tick_interval_s=None
        )
        async with Fund.open(config):
            pass

    trio.run(make)
    return path


@contextmanager
def _owner(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A fund on the database, in another process."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", OWNER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            yield process
            if process.poll() is None:
                process.communicate("", DEADLINE_S)
                assert process.returncode == 0
        finally:
            process.kill()


@pytest.fixture(params=["no owner", "an owner in another process"])
def owned(request: pytest.FixtureRequest, db: Path) -> Iterator[bool]:
    if request.param == "no owner":
        yield False
    else:
        with _owner(db):
            yield True


def _numbers(report: dict[str, str]) -> dict[str, Decimal]:
    return {account: Decimal(amount) for account, amount in report.items()}


def _golden(command: Command) -> None:
    for arguments in (
        ["profit", "2000"],
        ["loss", "500"],
        ["withdraw", "1500"],
        ["post", "--debit", "POSITIONS=5000", "--credit", "CASH=5000"],
        ["post", "--debit", "MANAGEMENT_FEES=200", "--credit", "FEES_RECEIVABLE=200"],
        ["post", "--debit", "PERFORMANCE_FEES=100", "--credit", "FEES_RECEIVABLE=100"],
    ):
        done = command("ledger", *arguments)
        assert (done.code, done.err) == (0, "")


# -- the whole, with and without an owner


def test_the_golden_script_gives_the_contracts_numbers(
    command: Command, owned: bool, db: Path
) -> None:
    _golden(command)
    assert _numbers(command("ledger", "balance-sheet", "--json").json) == GOLDEN_SHEET
    assert _numbers(command("ledger", "income", "--json").json) == GOLDEN_INCOME
    trial = _numbers(command("ledger", "trial", "--json").json)
    assert trial == {**GOLDEN_SHEET, "EXTERNAL": -98_500}
    assert sum(trial.values()) == 0
    assert command("ledger", "nav", "--json").json == {"nav": "99700.00000000"}
    with open_reader(db) as reader:
        rows = reader.audit()
    assert [row.command for row in reversed(rows)] == [
        "ledger.record_profit",
        "ledger.record_loss",
        "ledger.withdraw",
        *["ledger.post"] * 3,
    ]
    assert {(row.door, row.by, row.uid, row.pid) for row in rows} == {
        ("control" if owned else "standalone", "ann", os.getuid(), os.getpid())
    }
    assert all("done" in row.outcome for row in rows)


def test_a_position_and_fees_as_the_door_books_them_give_the_same_numbers(
    command: Command, owned: bool, db: Path
) -> None:
    for name, arguments in (
        ("record_profit", {"amount": "2000"}),
        ("record_loss", {"amount": "500"}),
        ("withdraw", {"amount": "1500"}),
        ("open_position", {"instrument": "X", "quantity": "100", "cost": "5000"}),
        ("charge_management_fee", {"amount": "200"}),
        ("charge_performance_fee", {"amount": "100"}),
    ):
        run_command(db, f"ledger.{name}", arguments)
    assert _numbers(command("ledger", "balance-sheet", "--json").json) == GOLDEN_SHEET
    assert command("ledger", "nav").out == "99,700.00 USD\n"


@pytest.mark.parametrize("option", ["--memo", "--key", "--strategy", "--by"])
def test_bytes_that_are_no_text_are_refused_by_name(
    command: Command, owned: bool, db: Path, option: str
) -> None:
    done = command("ledger", "deposit", "1", option, "\udcff")
    assert (done.code, option[2:] in done.err, "Traceback" in done.err) == (2, True, False)
    done = command("ledger", "income", "--strategy", "\udcff")
    assert (done.code > 0, "strategy" in done.err, "Traceback" in done.err) == (True, True, False)
    assert command("ledger", "nav").out == "100,000.00 USD\n"


def test_an_export_that_fails_leaves_no_half_of_a_book(
    command: Command, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks_off(_: object) -> Iterator[str]:
        yield "one line"
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fundops.actors.ledger.journal.jsonl", breaks_off)
    assert command("ledger", "export", "--output", str(tmp_path / "book.jsonl")).code > 0
    assert not list(tmp_path.glob("book.jsonl*"))


def test_an_export_has_its_name_only_once_it_is_whole(
    command: Command, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def looks(_: object) -> Iterator[str]:
        yield "one line"
        seen.append((tmp_path / "book.jsonl").exists())
        (tmp_path / "taken.jsonl").write_text("somebody else's")

    monkeypatch.setattr("fundops.actors.ledger.journal.jsonl", looks)
    (tmp_path / "book.jsonl.part").write_text(
        "of an export that was killed, and longer than this one"
    )
    assert command("ledger", "export", "--output", str(tmp_path / "book.jsonl")).code == 0
    assert (seen, (tmp_path / "book.jsonl").read_text()) == ([False], "one line\n")
    (tmp_path / "taken.jsonl").unlink()
    assert command("ledger", "export", "--output", str(tmp_path / "taken.jsonl")).code == 1
    assert (tmp_path / "taken.jsonl").read_text() == "somebody else's"


def test_an_imported_book_has_its_name_only_once_it_is_whole(
    db: Path, tmp_path: Path, command: Command
) -> None:
    command("ledger", "export", "--output", str(tmp_path / "book.jsonl"))
    new, seen = tmp_path / "new.db", []

    def lines() -> Iterator[str]:
        for line in (tmp_path / "book.jsonl").read_text().splitlines(keepends=True):
            seen.append(new.exists())
            yield line

    for left in ("", "-wal", "-shm"):  # of an import that was killed
        (tmp_path / f"new.db.importing{left}").write_bytes(b"half")
    import_book(new, lines())
    assert (len(seen), any(seen)) == (2, False)
    assert [one.name for one in tmp_path.glob("new.db*")] == ["new.db"]
    assert command("ledger", "verify", "--db", str(new)).code == 0
    assert new.stat().st_mode & 0o777 == 0o600


def test_an_import_that_fails_leaves_no_database_behind(
    command: Command, db: Path, tmp_path: Path
) -> None:
    command("ledger", "export", "--output", str(tmp_path / "book.jsonl"))
    whole = (tmp_path / "book.jsonl").read_bytes()
    for content in (
        whole[:-40],
        whole.replace(b"opening", b"open\xffing"),
        whole.decode().encode("utf-16"),
        b"\x1f\x8b",
    ):
        (tmp_path / "bad.jsonl").write_bytes(content)
        done = command(
            "ledger", "import", str(tmp_path / "bad.jsonl"), "--db", str(tmp_path / "new.db")
        )
        assert (done.code, "Traceback" in done.err) == (1, False)
        assert not list(tmp_path.glob("new.db*")) or [
            one.name for one in tmp_path.glob("new.db*")
        ] == ["new.db.lock"]


def test_the_floors_of_the_fund_hold_when_it_does_not_run(command: Command, tmp_path: Path) -> None:
    """Those that it had when it ran last."""
    for floor, code in ((99_900, 1), (99_000, 0)):
        floors = {"CASH": floor}
        config = FundConfig(
            total_capital=100_000,
            ledger_enabled=True,
            account_floors=floors,
            db_path=tmp_path / "f.db",
        )
        with FundManager(config):
            pass
        done = command("ledger", "withdraw", "500", "--db", str(tmp_path / "f.db"))
        assert (done.code, "100.00000000 available" in done.err) == (code, bool(code))


def test_a_deposit_says_what_it_booked_and_the_same_key_books_once(
    command: Command, owned: bool, db: Path
) -> None:
    asked = (
        "ledger",
        "deposit",
        "5",
        "--key",
        "k",
        "--strategy",
        "a",
        "--at",
        "2026-01-05",
        "--memo",
        "m",
    )
    first = command(*asked, "--by", "bob", "--json").json
    assert (first["seq"], first["key"], first["replayed"]) == (2, "k", False)
    assert command(*asked, "--json").json == {**first, "replayed": True}
    shown = command(*asked).out
    assert shown == f"entry 2 (booked before)  key k  hash {first['hash'][:12]}\n"
    with open_reader(db) as reader:
        (entry, _) = reader.recent_entries()
        actors = [row.by for row in reversed(reader.audit())]
    assert (entry.day, entry.strategy, entry.memo) == ("2026-01-05", "a", "m")
    assert actors == ["bob", "ann", "ann"]
    minted = command("ledger", "deposit", "5").out
    assert minted.startswith("entry 3  key ")


def test_a_refusal_is_one_line_and_ends_with_one(command: Command, owned: bool, db: Path) -> None:
    done = command("ledger", "withdraw", "100001")
    assert (done.code, done.out) == (1, "")
    assert done.err == "fundops: CASH has 100000.00000000 available, 100001.00000000 requested\n"
    with open_reader(db) as reader:
        assert reader.audit()[0].outcome["refused"]["type"] == "InsufficientFunds"
    with pytest.raises(InsufficientFunds):
        run_command(db, "ledger.withdraw", {"amount": "100001"})


@pytest.mark.parametrize("amount", ["-5", "0", "many", "nan", "1.000000001", "1e30"])
def test_an_amount_that_cannot_be_booked_is_wrong_usage(
    command: Command, db: Path, amount: str
) -> None:
    done = command("ledger", "deposit", amount)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("fundops: AMOUNT: ")
    assert command("ledger", "nav").out == "100,000.00 USD\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deposit"], "AMOUNT"),
        (["deposit", "5", "6"], "6"),
        (["deposit", "5", "--at", "yesterday"], "at"),
        (["deposit", "5", "--at", "2026-01-05T10:00:00"], "at"),
        (["deposit", "5", "--by", "x" * 200], "by"),
        (["post", "--debit", "CASH"], "--debit"),
        (["post", "--credit", "=5"], "--credit"),
        (["balance-sheet", "--as-of", "yesterday"], "--as-of"),
        (["income", "--start", "2026-13-01"], "--start"),
        (["cash-flow", "--end", "2026-01-05T10:00:00"], "--end"),
        (["verify", "--level", "9"], "--level"),
        (["export", "--format", "pdf"], "--format"),
        (["nosuch"], "nosuch"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else "",
)
def test_wrong_usage_ends_with_two_and_says_what(
    command: Command, db: Path, arguments: list[str], said: str
) -> None:
    done = command("ledger", *arguments)
    assert done.code == 2
    assert said in done.out + done.err
    assert command("ledger", "nav").out == "100,000.00 USD\n"


def test_legs_that_do_not_sum_to_zero_or_name_no_account_are_refused(
    command: Command, db: Path
) -> None:
    assert command("ledger", "post", "--debit", "CASH=5", "--credit", "EXTERNAL=4").code == 1
    assert command("ledger", "post", "--debit", "CASH=5").code == 1
    assert command("ledger", "post").code == 2
    assert "NOSUCH" in command("ledger", "post", "--debit", "NOSUCH=5", "--credit", "CASH=5").err
    assert "CASH: " in command("ledger", "post", "--debit", "CASH=-5", "--credit", "EXTERNAL=5").err


def test_a_report_is_an_aligned_table(command: Command, db: Path) -> None:
    lines = command("ledger", "trial").out.splitlines()
    assert lines[0] == "                          USD"
    assert lines[1] == "CASH               100,000.00"
    assert lines[-1] == "EXTERNAL          -100,000.00"
    assert len({len(line) for line in lines}) == 1


def test_the_anchor_is_the_newest_entry(command: Command, db: Path) -> None:
    posted = command("ledger", "deposit", "1", "--json").json
    assert command("ledger", "anchor").out == f"2 {posted['hash']}\n"
    assert command("ledger", "anchor", "--json").json == {"seq": 2, "hash": posted["hash"]}


def test_another_database_is_named_with_db_and_the_default_is_in_the_home_folder(
    command: Command, db: Path, tmp_path: Path
) -> None:
    db.rename(tmp_path / "other.db")
    done = command("ledger", "nav")
    assert (done.code, "fund.db: there is no such database" in done.err) == (1, True)
    assert command("ledger", "deposit", "1").code == 1
    assert not db.exists(), "a command makes no database"
    assert command("ledger", "nav", "--db", "other.db").out == "100,000.00 USD\n"
    assert command("ledger", "deposit", "1", "--db", "other.db").code == 0


def test_a_file_that_is_no_funds_is_refused(command: Command, tmp_path: Path) -> None:
    (tmp_path / "fund.db").write_text("precious " * 1_000)
    assert command("ledger", "nav").code == 1
    assert command("ledger", "deposit", "1").code == 1
    open_database(tmp_path / "promotion.db", MIGRATIONS).close()
    done = command("ledger", "deposit", "1", "--db", "promotion.db")
    assert (done.code, "not the database of a fund" in done.err) == (2, True)


def test_the_help_of_each_command_loads_no_database_and_explains_every_option() -> None:
    program = (
        "import sys\nsys.argv = ['fundops', *sys.argv[1:]]\nfrom fundops.__main__ import main\n"
        "try:\n    main()\nfinally:\n"
        "    assert not {'trio', 'apsw', 'fundops.fund'} & set(sys.modules)\n"
    )
    names = ["deposit", "export", "entries", "post"]
    for arguments in (
        ["ledger", "--help"],
        *(["ledger", name, "--help"] for name in names),
        ["backup", "--help"],
    ):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *arguments],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env={**os.environ, "COLUMNS": "200"},
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        for line in done.stdout.splitlines():
            words = line.strip("│ ").split()
            assert not words or not words[0].startswith("--") or len(words) > 3, line


# -- one writer


def test_reports_are_read_while_another_has_the_lock(command: Command, db: Path) -> None:
    with OwnerLock(db):
        assert command("ledger", "nav").out == "100,000.00 USD\n"


def test_a_change_waits_for_a_short_write_and_then_names_the_owner(db: Path) -> None:
    with OwnerLock(db), pytest.raises(DatabaseInUse, match="this process"):
        run_command(db, "ledger.deposit", {"amount": "1"}, wait_s=0.1)
    assert run_command(db, "ledger.deposit", {"amount": "1"})["seq"] == 2


def test_two_tools_at_once_take_turns(db: Path) -> None:
    program = (
        "import sys\nfrom pathlib import Path\nfrom fundops.control.standalone import run_command\n"
        "run_command(Path(sys.argv[1]), 'ledger.deposit', {'amount': '1'}, wait_s=30)\n"
    )
    tools = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", program, str(db)]) for _ in range(3)
    ]
    assert [tool.wait(DEADLINE_S) for tool in tools] == [0, 0, 0]
    assert run_command(db, "ledger.nav") == "100003.00000000"


def test_an_owner_that_was_killed_is_in_nobodys_way(command: Command, db: Path) -> None:
    with _owner(db) as process:
        assert command("ledger", "deposit", "1").code == 0
        process.kill()
        process.wait(DEADLINE_S)
    done = command("ledger", "deposit", "1")
    assert (done.code, done.out.split()[1]) == (0, "3")
    with open_reader(db) as reader:
        assert [row.door for row in reader.audit()] == ["standalone", "control"]


def test_standing_alone_brings_up_nothing_but_the_ledger(db: Path, tmp_path: Path) -> None:
    before = {one.name for one in tmp_path.iterdir()}
    run_command(db, "ledger.deposit", {"amount": "1"})
    assert {one.name for one in tmp_path.iterdir()} == before, "no marker, no token"
    with open_reader(db) as reader:
        assert reader.recent_alerts().alerts == ()


def test_a_book_that_is_still_empty_begins_with_the_capital(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def make() -> None:
        async with Fund.open(
            FundConfig(total_capital="100000.50", db_path=path, tick_interval_s=None)
        ):
            pass

    async def again() -> None:
        config = FundConfig(
            total_capital=100_000.5, ledger_enabled=True, db_path=path, tick_interval_s=None
        )
        async with Fund.open(config) as fund:
            assert [one.key for one in await fund.ledger.recent_entries()] == ["k", "opening"]

    trio.run(make)
    assert run_command(path, "ledger.deposit", {"amount": "1", "key": "k"})["seq"] == 2
    trio.run(again)


def test_a_key_is_made_before_a_change_is_sent_so_that_it_can_be_asked_for_again(
    db: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    async def lost(path: Path, meta: Any, name: str, arguments: Any, actor: str) -> None:
        asked.append(arguments)
        error = OutcomeUnknown("commit failed")
        error.key = arguments["key"]  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr("fundops.control.standalone._alone", lost)
    done = command("ledger", "deposit", "5")
    assert (done.code, done.err) == (
        1,
        f"fundops: commit failed; ask again with --key {asked[0]['key']}\n",
    )
    command("ledger", "deposit", "5", "--key", "mine")
    assert asked[1]["key"] == "mine"


# -- reports, pages, and the book as a whole


def test_options_of_a_report_reach_the_book(command: Command, db: Path) -> None:
    command("ledger", "profit", "7", "--strategy", "a", "--at", "2020-01-05")
    command("ledger", "loss", "2", "--strategy", "a", "--at", "2020-01-07T12:00:00+00:00")
    assert (
        command("ledger", "balance-sheet", "--as-of", "2020-01-05", "--json").json["CASH"]
        == "7.00000000"
    )
    assert command("ledger", "nav", "--as-of", "2020-01-07T11:59:59+00:00").out == "7.00 USD\n"
    assert command("ledger", "nav", "--as-of", "2020-01-07T12:00:00+00:00").out == "5.00 USD\n"
    assert command("ledger", "nav-per-unit").out == "1.00005 USD\n"
    assert (
        command("ledger", "trial", "--asset", "UNITS", "--json").json["HOLDERS"]
        == "100000.00000000"
    )
    income = command("ledger", "income", "--start", "2020-01-06", "--strategy", "a", "--json").json
    assert income["REALIZED_PNL"] == "-2.00000000"
    assert (
        command("ledger", "trial", "--as-of", "2019-12-31", "--json").json["EXTERNAL"]
        == "0.00000000"
    )
    flow = command("ledger", "cash-flow", "--end", "2020-01-06", "--json").json
    assert (flow["PROFIT_AND_LOSS"], flow["CLOSING"]) == ("7.00000000", "7.00000000")


def test_entries_are_filtered_paged_and_shown_with_their_legs(command: Command, db: Path) -> None:
    command("ledger", "withdraw", "1", "--memo", "rent")
    for number in ("1", "2", "3"):
        command("ledger", "profit", number)
    lines = command(
        "ledger", "entries", "--account", "EXTERNAL", "--kind", "withdrawal", "--limit", "3"
    ).out
    assert lines.splitlines()[0].split() == [
        *("seq", "day", "kind", "account", "USD", "asset", "memo")
    ]
    assert lines.splitlines()[1].split()[3:] == ["EXTERNAL", "1.00", "rent"]
    assert lines.splitlines()[2].split() == ["CASH", "-1.00"]
    assert lines.splitlines()[4].split() == ["UNITS", "1.00", "UNITS"]
    seqs = [
        one["seq"]
        for one in command("ledger", "entries", "--kind", "profit", "--limit", "2", "--json").json[
            "entries"
        ]
    ]
    assert seqs == [5, 4]
    older = command("ledger", "entries", "--after", "4", "--json").json["entries"]
    assert [one["seq"] for one in older] == [3, 2, 1]


def test_verify_ends_with_one_when_something_is_wrong(command: Command, db: Path) -> None:
    anchor = command("ledger", "anchor").out.split()
    assert command("ledger", "verify").out == (
        f"1 entry checked at level 2\nanchor: {' '.join(anchor)}\nnothing is wrong\n"
    )
    assert command("ledger", "verify", "--anchor", *anchor).code == 0
    assert command("ledger", "verify", "--anchor", "1", "ab" * 32).code == 1
    connection = apsw.Connection(str(db))
    connection.execute("UPDATE balance SET amount_minor = amount_minor + 1 WHERE account = 'CASH'")
    connection.close()
    done = command("ledger", "verify", "--level", "1", "--json")
    told = json.loads(done.out)
    assert (done.code, told["level"]) == (1, 1)
    assert told["findings"][0]["problem"].startswith("all balances in USD sum to 1 minor units")
    assert "balance: " in command("ledger", "verify").out


def test_verify_at_level_three_asks_outside_tools(command: Command, db: Path) -> None:
    command("ledger", "profit", "7", "--strategy", "mean_reversion")
    done = command("ledger", "verify", "--level", "3")
    if judges():
        assert (done.code, done.out.splitlines()[-1]) == (0, "nothing is wrong")
        assert all(f"asked: {name}" in done.out for name in judges())
        connection = apsw.Connection(str(db))
        connection.execute(
            "UPDATE balance SET amount_minor = amount_minor + 1 WHERE account = 'CASH'"
        )
        connection.close()
        assert (
            f"judge: {judges()[0]} refuses the exported book"
            in command("ledger", "verify", "--level", "3").out
        )
    else:
        assert "judge: none of bean-check, hledger and ledger is installed" in done.out


def test_an_export_goes_to_stdout_or_into_a_new_file_of_ones_own(
    command: Command, db: Path, tmp_path: Path
) -> None:
    header, entry = command("ledger", "export").out.splitlines()
    assert json.loads(header)["format"] == "fundops.journal"
    assert '"opening"' in json.loads(entry)["payload"]
    assert command("ledger", "export", "--format", "ledger", "--output", "x.txt").code == 0
    written = (tmp_path / "x.txt").read_text()
    assert "account Assets:CASH" in written
    assert (tmp_path / "x.txt").stat().st_mode & 0o777 == 0o600
    again = command("ledger", "export", "--output", "x.txt")
    assert (again.code, (tmp_path / "x.txt").read_text()) == (1, written)
    for form in ("csv", "beancount"):
        assert "CASH" in command("ledger", "export", "--format", form).out


def test_an_exported_journal_is_imported_into_a_database_that_goes_on(
    command: Command, db: Path, tmp_path: Path
) -> None:
    command("ledger", "profit", "7", "--strategy", "a", "--key", "k")
    command("ledger", "export", "--output", "book.jsonl")
    told = command("ledger", "import", "book.jsonl", "--db", "new.db", "--json").json
    assert told == {"entries": 2, "hash": command("ledger", "anchor", "--json").json["hash"]}
    assert command("ledger", "trial", "--db", "new.db").out == command("ledger", "trial").out
    assert command("ledger", "verify", "--db", "new.db").code == 0
    assert (
        "(booked before)"
        in command("ledger", "profit", "7", "--strategy", "a", "--key", "k", "--db", "new.db").out
    )
    assert command("ledger", "import", "book.jsonl", "--db", "new.db").code == 1
    with open_reader(db) as old, open_reader(tmp_path / "new.db") as new:
        assert new.meta()["forked_from"] == old.meta()["uuid"] != new.meta()["uuid"]
        assert new.meta()["total_capital"] == old.meta()["total_capital"]
    lines = (tmp_path / "book.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "cut.jsonl").write_text("".join(lines[:-1]))
    cut = command("ledger", "import", "cut.jsonl", "--db", "cut.db")
    assert (cut.code, "entry 2: it is missing" in cut.err) == (1, True)


def test_a_backup_is_made_while_the_fund_runs_and_restored_with_the_kill_switch_engaged(
    command: Command, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OwnerLock(db):
        assert command("backup", "b.db").code == 0, "no permission is needed"
    assert (tmp_path / "b.db").stat().st_mode & 0o777 == 0o600
    assert command("backup", "b.db").code == 1, "never over what is there"
    command("ledger", "profit", "7")
    refused = command("restore", "b.db")
    assert (refused.code, "overwritten only when asked to" in refused.err) == (1, True)
    assert not (tmp_path / "fund.db.kill").exists()
    monkeypatch.setattr("fundops.cli.database.LOCK_WAIT_S", 0.0)
    with OwnerLock(db):
        assert command("restore", "b.db", "--replace").code == 1
    with open_reader(db) as reader:
        before = reader.meta()["uuid"]
    done = command("restore", "b.db", "--replace")
    assert (done.code, "the kill switch is engaged" in done.out) == (0, True)
    assert command("ledger", "nav").out == "100,000.00 USD\n"
    assert command("ledger", "verify").code == 0
    with open_reader(db) as reader:
        meta = reader.meta()
    assert meta["forked_from"] == before != meta["uuid"]
    assert meta["forked_at_entry"].startswith("1 ")

    async def started() -> str:
        config = FundConfig(
            total_capital=100_000, ledger_enabled=True, db_path=db, tick_interval_s=None
        )
        async with Fund.open(config) as fund:
            return (await fund.kill_switch.status()).state

    assert trio.run(started) == "UNCONFIRMED", "it has no controller that could confirm the stop"
    with pytest.raises(NobodyListens, match=r"no fund runs on .* and backup needs one that does"):
        run_command(db, "backup", {"target": str(tmp_path / "c.db")})


def test_migrate_says_what_it_takes_and_does_it(command: Command, db: Path, tmp_path: Path) -> None:
    told = command("migrate", "--check", "--json").json
    assert (told["schema"], told["newest"], told["needs_bytes"]) == (
        len(MIGRATIONS),
        len(MIGRATIONS),
        0,
    )
    old = tmp_path / "old.db"
    open_database(old, MIGRATIONS[:1]).close()
    check = command("migrate", "--check", "--db", "old.db", "--json").json
    assert (check["schema"], check["needs_bytes"] > 0) == (1, True)
    assert not (tmp_path / "old.db.v1.bak").exists()
    with OwnerLock(old):
        assert command("migrate", "--check", "--db", "old.db").code == 0, (
            "looking needs no permission"
        )
    assert command("migrate", "--db", "old.db", "--json").json["schema"] == len(MIGRATIONS)
    assert (tmp_path / "old.db.v1.bak").exists()


def test_migrate_ends_with_one_when_there_is_no_room_for_the_copy(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_database(tmp_path / "old.db", MIGRATIONS[:1]).close()
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=10, used=10, free=0))
    assert command("migrate", "--check", "--db", "old.db").code == 1
    done = command("migrate", "--db", "old.db")
    assert (done.code, "needs" in done.err) == (1, True)


def test_a_backup_that_is_none_restores_nothing(command: Command, db: Path, tmp_path: Path) -> None:
    (tmp_path / "b.db").write_text("not a database")
    for name in ("b.db", "nosuch.db"):
        done = command("restore", name, "--db", "new.db")
        assert done.code == 1
        assert not (tmp_path / "new.db").exists()
        assert not (tmp_path / "new.db.kill").exists()


def test_periods_and_corrections_go_through_the_table_too(db: Path) -> None:
    posted = run_command(db, "ledger.record_profit", {"amount": "5", "at": "2020-01-05"})
    entry = {"type": "profit", "amount": "6", "at_us": 1_578_182_400_000_000}
    corrected = run_command(
        db, "ledger.correct", {"seq": posted["seq"], "entry": entry, "reason": "typo"}
    )
    assert corrected["seq"] == posted["seq"] + 2
    run_command(db, "ledger.close_period", {"day": "2020-01-05"})
    with pytest.raises(PeriodClosed):
        run_command(db, "ledger.record_profit", {"amount": "5", "at": "2020-01-05"})
    run_command(db, "ledger.reopen_period", {"day": "2020-01-05", "reason": "late", "by": "ann"})
    sheet = run_command(db, "ledger.balance_sheet", {"as_of": "2020-01-05"})
    assert sheet["REALIZED_PNL"] == "-6.00000000"
    assert run_command(db, "ledger.verify", {"level": 2})["findings"] == []


def test_what_a_command_line_may_raise_is_known(db: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no"):
        run_command(db, "nosuch")
    with pytest.raises(DatabaseError):
        run_command(tmp_path / "nosuch.db", "ledger.deposit", {"amount": "1"})


# -- reports of the engine

FILLS = """id,at,strategy,instrument,quantity,price,fee,fee_asset
1,2024-01-05T10:00:00+00:00,mm,X,40000000000,0.000000004,-0.5,
2,2024-01-05,mm,X,0,10,0,
3,2024-01-06,mm,Y,1,-37.63,0.001,BNB
"""


def test_fills_of_a_file_are_booked_once_and_the_wrong_one_set_aside(
    command: Command, owned: bool, db: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fills.csv"
    file.write_text(FILLS, encoding="utf-8")
    done = command("ledger", "import-fills", str(file))
    assert done.code == 1
    assert done.out.startswith("2 entries booked, 1 fill set aside\n2: quantity: ")
    again = json.loads(command("ledger", "import-fills", str(file), "--json").out)
    assert (again["new"], [report["id"] for report in again["aside"]]) == (0, ["2"])
    sheet = json.loads(command("ledger", "balance-sheet", "--json").out)
    assert (Decimal(sheet["POSITIONS"]), Decimal(sheet["TRADING_FEES"])) == (
        Decimal("122.37"),
        Decimal("-0.5"),
    )


def test_a_report_aside_is_listed_and_given_up_with_an_audit_row(
    command: Command, owned: bool, db: Path, tmp_path: Path
) -> None:
    file = tmp_path / "fills.csv"
    file.write_text(FILLS, encoding="utf-8")
    command("ledger", "import-fills", str(file))
    (aside,) = command("ledger", "reports-aside", "--json").json["reports_aside"]
    assert aside["key"] in command("ledger", "reports-aside").out
    skipped = command("ledger", "skip-report", aside["key"], "--reason", "typo", "--by", "bob")
    assert skipped.out == f"given up: fill 2  key {aside['key']}\n"
    assert command("ledger", "reports-aside", "--json").json == {"reports_aside": []}
    again = command("ledger", "skip-report", aside["key"], "--reason", "typo")
    assert (again.code, "is set aside" in again.err) == (1, True)
    with open_reader(db) as reader:
        refused, done, *_ = reader.audit()
    assert (done.command, done.by) == ("ledger.skip_report", "bob")
    assert (refused.by, "refused" in refused.outcome) == ("ann", True)
    assert command("ledger", "import-fills", str(file)).code == 0


# -- every booking by its name, and every question


def test_every_booking_has_a_command(command: Command, owned: bool) -> None:
    for words in (
        ["post", "--debit", "MANAGEMENT_FEES=5", "--credit", "FEES_RECEIVABLE=5"],
        ["pay-fees", "5"],
        ["book-income", "-2.5", "--instrument", "X"],
        ["financing", "1"],
        ["convert", "100", "USD", "90", "EUR", "--fee", "1"],
        ["price", "EUR", "1.1"],
        ["profit", "50", "--at", "2024-01-02"],
        ["reverse", "8", "--reason", "never"],
        ["correct", "2", '{"type": "profit", "amount": "1"}', "--reason", "it was a profit"],
        ["close-period", "2024-01-31"],
        ["reopen-period", "2024-01-31", "--reason", "late"],
    ):
        done = command("ledger", *words)
        assert (done.code, done.err) == (0, ""), words
    assert command("ledger", "verify").code == 0
    assert command("ledger", "prices").out.split() == ["USD", "EUR", "1.10"]
    by_hand = command("ledger", "entries", "--kind", "period_reopen", "--json").json
    assert by_hand["entries"][0]["memo"] == "late (by ann)"


def test_positions_are_opened_split_moved_and_listed(command: Command, db: Path) -> None:
    for words in (
        ["opening-balances", "99000", "--position", "X=10,100,120", "--position", "A=B=-1,50"],
        ["split", "X", "3:2"],
        ["transfer", "X", "5", "--to-strategy", "a"],
        ["rename", "A=B", "AB"],
    ):
        done = command("ledger", *words)
        assert (done.code, done.err) == (0, ""), words
    found = command("ledger", "positions", "--json").json["positions"]
    assert [(one["strategy"], one["instrument"], one["quantity"]) for one in found] == [
        (None, "AB", "-1.00000000"),
        (None, "X", "10.00000000"),
        ("a", "X", "5.00000000"),
    ]
    assert "66.66666667" in command("ledger", "positions").out
    assert len(command("ledger", "lots", "--instrument", "X", "--json").json["lots"]) == 2
    assert command("ledger", "lots", "--strategy", "a").out.splitlines()[2].split()[:3] == [
        "a",
        "X",
        "2",
    ]
    assert command("ledger", "realized", "--by", "instrument", "--json").json == {}
    assert (
        command("ledger", "entries", "--instrument", "AB", "--json").json["entries"][0]["kind"]
        == "rename"
    )


def test_an_unknown_strategy_is_refused_by_name(command: Command, db: Path) -> None:
    for question in ("balance-sheet", "income", "trial", "cash-flow", "entries", "positions"):
        done = command("ledger", question, "--strategy", "nobody")
        assert (done.code, done.out) == (1, "")
        assert "there is no strategy 'nobody'" in done.err
    done = command("ledger", "balance-sheet", "--asset", "EUR")
    assert (done.code, done.out) == (2, "")
    assert "the book has no asset 'EUR'" in done.err
    for words in (["--account", "SLUSH"], ["--kind", "deposits"]):
        done = command("ledger", "entries", *words)
        assert done.code != 0
        assert words[1] in done.err


def test_a_nav_names_the_assets_that_it_does_not_count(command: Command, db: Path) -> None:
    command("ledger", "convert", "100", "USD", "90", "EUR")
    done = command("ledger", "nav")
    assert (done.code, done.out) == (0, "99,900.00 USD\n")
    assert "not counted, without a price: EUR" in done.err


def test_a_statement_file_is_compared_with_the_books(
    command: Command, db: Path, tmp_path: Path
) -> None:
    command("ledger", "opening-balances", "99000", "--position", "X=10,100")
    today = command("ledger", "entries", "--json").json["entries"][0]["day"]
    path = tmp_path / "broker.csv"
    path.write_text(f"\ufeffday, cash,instrument,quantity\n2020-01-01,0,,\n{today},99000,X,10\n")
    done = command("ledger", "reconcile", str(path))
    assert (done.code, done.out) == (0, "books and statements agree on all of 2 days\n")
    path.write_text(
        f"day,cash,instrument,quantity\n2020-01-01,0,,\n{today},98999.5,X,9\n{today},,Y,1\n"
    )
    done = command("ledger", "reconcile", str(path))
    assert done.code == 1
    assert f"differ on {today} and agreed last on 2020-01-01" in done.out
    assert "\nX           10.00       9.00        1.00\n" in done.out
    assert "opening_balances" in done.out
    answer = json.loads(command("ledger", "reconcile", str(path), "--json").out)
    assert (answer["ok"], answer["agreed"]) == (False, "2020-01-01")
    path.write_text(f"day,cash\n{today},98999.5\n")
    done = command("ledger", "reconcile", str(path), "--tolerance", "0.5")
    assert done.code == 0
    assert done.out.endswith("\ncompared: cash of 1 day, positions of no days\n")
    for nothing in ("day,cash\n", f"day,cash\n{today},\n"):
        path.write_text(nothing)
        done = command("ledger", "reconcile", str(path))
        assert (done.code, done.out) == (2, "")
        assert "states neither cash nor positions of any day" in done.err


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: has no column id, at"),
        ("id,at,strategy,instrument,quantity,price\n", "line 1: has no column fee"),
        (FILLS.replace("fee_asset", "venue"), "line 1: has an unknown column venue"),
        (FILLS.replace(",-37.63,", ",cheap,"), "line 4: price 'cheap' is not a decimal number"),
        (FILLS.replace("2024-01-06", "yesterday"), "line 4: at 'yesterday'"),
        (FILLS.replace(",BNB", ""), "line 4: has not as many cells"),
        (FILLS.replace("BNB", "\udcff"), "cannot be read"),
    ],
    ids=lambda text: text[:40].encode("ascii", "replace").decode(),
)
def test_a_file_with_a_line_that_cannot_be_read_books_nothing(
    command: Command, db: Path, tmp_path: Path, text: str, problem: str
) -> None:
    file = tmp_path / "fills.csv"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    done = command("ledger", "import-fills", str(file))
    assert done.code == 2
    assert problem in done.err
    assert command("ledger", "nav").out == "100,000.00 USD\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "needs a first line"),
        ("date,cash\n", "needs a first line"),
        ("day,cash\n2024-01-01,1,2\n", "has more cells"),
        ("day,cash\n2024-01-01,1\n2024-01-01,2\n", "states another cash"),
        ("day,instrument,quantity\n2024-01-01,X,\n", "needs an instrument with its quantity"),
        ("day,instrument,quantity\n2024-01-01,X,1\n2024-01-01,X,1\n", "names 'X' twice"),
        ("day,cash\n01.01.2024,1\n", "is not a date"),
        ("day,cash\n2024-01-01,much\n", "is not a decimal number"),
        ('day,cash\n"2024', "cannot be read"),
    ],
)
def test_a_statement_file_that_cannot_be_read_names_its_line(
    command: Command, db: Path, tmp_path: Path, text: str, problem: str
) -> None:
    (tmp_path / "broker.csv").write_text(text)
    done = command("ledger", "reconcile", str(tmp_path / "broker.csv"))
    assert done.code in (1, 2)
    assert problem in done.err


def test_malformed_bookings_name_their_argument(command: Command, db: Path) -> None:
    for words, problem in (
        (["correct", "1", "{", "--reason", "x"], "ENTRY: '{' is not JSON"),
        (["opening-balances", "1", "--position", "X=1"], "--position: 'X=1' is not"),
        (["split", "X", "2"], "there is none"),
        (["pay-fees", "1"], "FEES_RECEIVABLE has"),
        (["transfer", "X", "1", "--strategy", "a"], "strategy"),
    ):
        done = command("ledger", *words)
        assert done.code in (1, 2)
        assert problem in done.err, words
