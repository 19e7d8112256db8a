"""FundReader: committed facts, from any process, while the fund runs and after it."""

from __future__ import annotations

import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from fundops import PromotionStage, open_reader
from fundops.actors.persistence import open_database
from fundops.file.database import MIGRATIONS
from fundops.testing import virtual_fund
from fundops.wire.errors import BadField, DatabaseError

DEADLINE_S = 60
EVERYTHING: dict[str, Any] = {
    "ledger_enabled": True,
    "promotion_enabled": True,
    "self_healing_enabled": True,
}


async def test_a_reader_says_what_the_running_fund_says(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with virtual_fund(db_path=path, currency="EUR", name="eu", **EVERYTHING) as world:
        fund = world.fund
        await fund.ledger.record_profit(2_000)
        await fund.ledger.open_position("X", quantity=1, cost=500, fee=1)
        await fund.ledger.mark("X", value=700)
        await fund.promotion.register("a", PromotionStage.Shadow)
        for number in range(7):
            await fund.alerts.send("INFO", "GENERAL", str(number), "")
        with open_reader(path) as reader:
            assert reader.balance_sheet() == await fund.ledger.balance_sheet()
            assert reader.income_statement() == await fund.ledger.income_statement()
            assert reader.trial_balance() == await fund.ledger.trial_balance()
            assert sum(reader.trial_balance().values()) == 0
            assert reader.recent_entries(10) == await fund.ledger.recent_entries(10)
            assert reader.recent_alerts(3) == await fund.alerts.recent(3)
            assert reader.promotion_history() == await fund.promotion.history()
            assert reader.stages() == {"a": PromotionStage.Shadow}
            assert reader.recent_alerts(0).suppressed_by_category == {"GENERAL": 2}
            assert (reader.entry_count(), reader.entry_count("mark")) == (4, 1)
            with pytest.raises(BadField, match="there is no kind 'nothing'"):
                reader.entry_count("nothing")
            noted = dict(reader.meta())
            assert '"max_fund_drawdown_pct":15.0' in noted.pop("limits")
            assert {**noted, "uuid": ""} == {
                "name": "eu",
                "currency": "EUR",
                "total_capital": "100000",
                "uuid": "",
                "ledger_rules": '{"floats":"round","floors":{}}',
            }
            await fund.ledger.deposit(1)
            assert reader.balance_sheet() == await fund.ledger.balance_sheet(), (
                "a reader is never behind"
            )


async def test_a_reader_in_another_process_sees_what_is_committed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    program = (
        "import sys; from fundops import open_reader; "
        "print(open_reader(sys.argv[1]).balance_sheet()['CASH'])"
    )
    async with virtual_fund(db_path=path, ledger_enabled=True) as world:
        await world.fund.ledger.deposit(5)
        with trio.fail_after(DEADLINE_S):
            done = await trio.run_process(
                [sys.executable, "-c", program, str(path)], capture_stdout=True
            )
    assert Decimal(done.stdout.decode().strip()) == 100_005


async def test_a_reader_can_not_write(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with virtual_fund(db_path=path, ledger_enabled=True):
        with open_reader(path) as reader, pytest.raises(apsw.ReadOnlyError):
            reader._reader.rows("DELETE FROM entry")


async def test_a_reader_is_closed_with_its_block_and_closing_twice_is_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    async with virtual_fund(db_path=path, ledger_enabled=True):
        pass
    with open_reader(str(path)) as reader:
        assert reader.entry_count() == 1
    reader.close()
    with pytest.raises(apsw.ConnectionClosedError):
        reader.entry_count()


async def test_a_snapshot_is_of_one_moment_while_the_fund_commits(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    async with virtual_fund(db_path=path, ledger_enabled=True) as world:
        with open_reader(path) as reader:
            with reader.snapshot():
                before = reader.balance_sheet()
                await world.fund.ledger.deposit(500)
                assert reader.balance_sheet() == before
                assert reader.entry_count() == 1
            assert reader.entry_count() == 2
            assert reader.balance_sheet()["CASH"] == before["CASH"] + 500


@pytest.mark.parametrize("limit", [-1, True, 1.5, "3", None], ids=repr)
async def test_a_page_size_that_is_none_is_refused(tmp_path: Path, limit: Any) -> None:
    path = tmp_path / "x.db"
    async with virtual_fund(db_path=path, ledger_enabled=True):
        with open_reader(path) as reader:
            assert reader.recent_entries(0) == ()
            assert reader.promotion_history(0) == ()
            assert reader.recent_alerts(0).alerts == ()
            for ask in (reader.recent_entries, reader.recent_alerts, reader.promotion_history):
                with pytest.raises(ValueError, match="limit"):
                    ask(limit)


def test_what_is_no_database_of_ours_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="no such database"):
        open_reader(tmp_path / "missing.db")
    assert not (tmp_path / "missing.db").exists()
    (tmp_path / "text.db").write_text("not a database at all" * 50)
    with pytest.raises(DatabaseError, match=r"text\.db"):
        open_reader(tmp_path / "text.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(DatabaseError, match=r"empty\.db"):
        open_reader(tmp_path / "empty.db")
    with pytest.raises(DatabaseError):
        open_reader(tmp_path)


def test_a_database_without_a_name_is_refused_and_not_a_key_error(tmp_path: Path) -> None:
    open_database(tmp_path / "new.db", MIGRATIONS).close()
    with (
        open_reader(tmp_path / "new.db") as reader,
        pytest.raises(DatabaseError, match="not the database of a fund"),
    ):
        reader.nav()
