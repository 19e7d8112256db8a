"""Changes in process to which a person gives a name: each leaves an audit row."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from fundops import FundopsError, PromotionStage, SubsystemDisabled, open_reader
from fundops.actors.persistence import actor as persistence_actor
from fundops.control.audit import AuditRow
from fundops.control.commands import COMMANDS, FUND
from fundops.testing import VirtualFund, virtual_fund
from fundops.wire.errors import BadRequest, KillSwitchNotEngaged, StorageDegraded


def _rows(world: VirtualFund) -> list[AuditRow]:
    with open_reader(world.fund.config.path) as reader:
        return list(reversed(reader.audit()))


async def test_a_signed_change_in_process_leaves_a_row_with_its_outcome() -> None:
    async with virtual_fund(promotion_enabled=True) as world:
        await world.fund.promotion.adopt("s", PromotionStage.Shadow, by="ann", reason="trades")
        await world.fund.promotion.freeze("s", by="bob")
        await world.fund.commands.finish()
        adopted, frozen = _rows(world)
    assert (adopted.door, adopted.uid, adopted.pid) == ("process", os.getuid(), os.getpid())
    assert (adopted.by, adopted.command) == ("ann", "promotion.adopt")
    assert adopted.arguments == {"name": "s", "stage": "shadow", "by": "ann", "reason": "trades"}
    assert "done" in adopted.outcome
    assert (frozen.by, frozen.command, frozen.outcome) == (
        "bob",
        "promotion.freeze",
        {"done": None},
    )


@pytest.mark.parametrize("name", [one.name for one in COMMANDS.values() if one.signed])
async def test_every_signed_change_in_process_leaves_a_row(name: str) -> None:
    """By its `by`, whether it is done or refused."""
    command = COMMANDS[name]
    given: dict[str, Any] = {
        parameter.name: "text"
        for parameter in command.signature.parameters.values()
        if parameter.default is parameter.empty
    }
    async with virtual_fund() as world:
        door = world.fund if command.part == FUND else getattr(world.fund, command.part)
        with suppress(FundopsError):
            await getattr(door, command.verb)(**{**given, "by": "ann"})
        await world.fund.commands.finish()
        (row,) = _rows(world)
    assert (row.door, row.command, row.by) == ("process", name, "ann")


async def test_a_refused_change_leaves_a_row_too_and_raises_as_before() -> None:
    async with virtual_fund() as world:
        with pytest.raises(KillSwitchNotEngaged):
            await world.fund.kill_switch.release(by="ann", reason="calm")
        with pytest.raises(SubsystemDisabled):
            await world.fund.promotion.freeze("s", by="ann")
        with pytest.raises(BadRequest, match=r"^by"):
            await world.fund.confirm_clock(by="", reason="looked")
        rows = _rows(world)
    assert [row.outcome["refused"]["type"] for row in rows] == [
        "KillSwitchNotEngaged",
        "SubsystemDisabled",
        "BadRequest",
    ]


async def test_a_booking_in_process_leaves_no_row_since_the_journal_has_it() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        await world.fund.ledger.deposit("5")
        await world.fund.ledger.balance_sheet()
        assert _rows(world) == []


@pytest.mark.parametrize("text", ["\ud800", None, 7, ValueError("margin call"), "x" * 10_000])
async def test_any_object_that_engages_the_kill_switch_is_audited_as_text(text: Any) -> None:
    async with virtual_fund() as world:
        await world.fund.kill_switch.engage(reason=text, by=text)
        await world.fund.commands.finish()
        (row,) = _rows(world)
    assert row.command == "kill_switch.engage"
    assert len(row.by) <= 128


async def test_a_row_that_cannot_be_written_fails_no_change_that_was_done(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(_: Any, batch: Sequence[Any]) -> list[Any]:
        return [StorageDegraded("no space") for _ in batch]

    async with virtual_fund() as world:
        with monkeypatch.context() as patched:
            patched.setattr(persistence_actor, "commit_batch", full)
            status = await world.fund.kill_switch.engage(reason="drill", by="ann")
            assert status.state == "ENGAGING"
            await world.fund.commands.finish()
        assert "kill_switch.engage by Caller" in caplog.text
        assert _rows(world) == []


async def test_a_fund_that_stops_waits_for_the_rows_that_no_caller_waits_for(
    tmp_path: Path,
) -> None:
    async with virtual_fund(db_path=tmp_path / "x.db") as world:
        await world.fund.kill_switch.engage(reason="drill", by="ann")
    with open_reader(tmp_path / "x.db") as reader:
        assert [row.by for row in reader.audit()] == ["ann"]
