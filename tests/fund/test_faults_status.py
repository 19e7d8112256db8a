"""Faults of what a fund shows: crashed actors, the status stream, its port and its values."""

from __future__ import annotations

from pathlib import Path

import pytest
from trio.testing import wait_all_tasks_blocked

from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.alert import AlertRecord, Category, Level, SendAlert


def about_crashes(fund: VirtualFund) -> list[AlertRecord]:
    return [alert for alert in fund.sent_alerts() if alert.title.startswith("Actor ")]


@pytest.mark.parametrize("actor", ["ledger", "recovery", "alert", "oversight", "persistence"])
async def test_a_crashed_actor_is_logged_and_told(
    actor: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with virtual_fund(FakeController(), self_healing_enabled=True, ledger_enabled=True) as w:
        await w.tick()
        w.fund.drill(actor)
        await wait_all_tasks_blocked()
        await w.tick()
        told = about_crashes(w)
        assert [(one.level.value, one.category.value, one.title) for one in told] == [
            ("WARNING", "GENERAL", f"Actor {actor} crashed"),
            ("INFO", "GENERAL", f"Actor {actor} runs again"),
        ]
        assert "Drill: drill" in told[0].message
        logged = [one for one in caplog.records if one.name == "fundops.runtime"]
        assert len(logged) == 1
        assert "Traceback" in logged[0].getMessage()


async def test_a_crash_is_told_without_a_tick() -> None:
    async with virtual_fund(FakeController(), ledger_enabled=True) as w:
        w.fund.drill("ledger")
        await wait_all_tasks_blocked()
        assert about_crashes(w)[0].title == "Actor ledger crashed"


async def test_a_crash_of_an_earlier_process_is_resolved(tmp_path: Path) -> None:
    file = tmp_path / "fund.db"
    async with virtual_fund(FakeController(), ledger_enabled=True, db_path=file) as w:
        # As a process leaves it that ends before the actor runs again.
        crash = SendAlert(
            Level.WARNING, Category.GENERAL, "Actor ledger crashed", "", None, "crashed:ledger"
        )
        await w.fund._supervisor.ref("alert").ask(crash)
    async with virtual_fund(FakeController(), ledger_enabled=True, db_path=file) as w:
        await w.tick()
        assert [one.title for one in about_crashes(w)][-1] == "Actor ledger runs again"
