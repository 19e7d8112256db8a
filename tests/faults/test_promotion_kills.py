"""A fund that dies at any step of a transition finds the old or the new state and tells its engine.

One transition is recorded with every write to the disk and every stage told to the engine. Then the
process dies after each of these steps: a kill -9 keeps all writes, a power cut keeps the synced
ones. A new fund on these files must have the old or the new stage with the history of that stage.
Its engine must get that stage, and must never have had more capital than the file allowed.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fundops import PromotionStage, VirtualClock
from fundops.actors.persistence import Reader
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund

Paper, Shadow = PromotionStage.Paper, PromotionStage.Shadow
Small, Scaled = PromotionStage.Live_Small, PromotionStage.Live_Scaled
CAPS = {
    "paper": Decimal(0),
    "shadow": Decimal(0),
    "live-small": Decimal(1_000),
    "live-scaled": Decimal(100_000),
    "retired": Decimal(0),
}
GOOD = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}
SETTINGS: dict[str, Any] = {"promotion_enabled": True, "promotion_every_ticks": 1}


class Told(NamedTuple):
    """The engine was told a stage."""

    stage: str
    cap: Decimal


class NotingEngine(FakeController):
    """Notes each stage among the events of the disk."""

    def __init__(self, events: list[Any]) -> None:
        super().__init__()
        self._events = events

    async def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None:
        await super().set_stage(name, stage, capital_cap)
        self._events.append(Told(stage, capital_cap or Decimal(0)))


async def promoted(world: VirtualFund) -> None:
    await world.fund.promotion.promote("a", by="ann")


async def demoted_by_a_person(world: VirtualFund) -> None:
    await world.fund.promotion.demote("a", by="ann", reason="drill")


async def demoted_by_a_limit(world: VirtualFund) -> None:
    stage = await world.fund.promotion.current_stage("a")
    await world.fund.promotion.record_metrics("a", stage, {"max_drawdown": 0.3})
    await world.tick()


async def retired(world: VirtualFund) -> None:
    await world.fund.promotion.retire("a", by="ann", reason="drill")


def lines_of(path: Path) -> list[tuple[str, str, int]]:
    with Reader(path) as rows:
        return [
            (kind, to_stage, rev)
            for kind, to_stage, rev in rows.rows(
                "SELECT kind, to_stage, rev FROM promotion_history ORDER BY seq"
            )
        ]


async def transition(
    path: Path, disk: Any, old: PromotionStage, act: Callable[[VirtualFund], Awaitable[None]]
) -> tuple[VirtualClock, list[tuple[str, str, int]]]:
    """Record the act on a strategy in stage `old`; the clock, and the history after it."""
    clock, engine = VirtualClock(START_US), NotingEngine(disk.events)
    async with virtual_fund(engine, clock=clock, db_path=path, **SETTINGS) as world:
        await world.fund.promotion.adopt("a", old, by="ann", reason="it trades")
        engine.set("a")
        clock.advance(14 * 86_400)
        await world.tick()
        await world.fund.promotion.record_metrics("a", old, GOOD)
        await world.tick()
        disk.begin(path)
        await act(world)
        recorded = list(disk.events)
    disk.events[:] = recorded
    return clock, lines_of(path)


class Left(NamedTuple):
    """A new fund on the files of the dead one."""

    stage: str
    lines: list[tuple[str, str, int]]
    later: str  # the stage two ticks later
    told: tuple[str | None, Any]  # stage and cap of the engine then


def restored(folder: Path, files: dict[str, bytes]) -> Path:
    for file in folder.iterdir():
        file.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "fund.db"


async def reopened(path: Path, clock: VirtualClock, told: Told) -> Left:
    engine = FakeController()
    engine.set("a", stage=told.stage, capital_cap=told.cap)
    with Reader(path) as rows:
        (stored,) = rows.row("SELECT stage FROM promotions WHERE strategy = 'a'")
    lines = lines_of(path)
    # As the dead one left it: a fund that starts demotes at once for a record beyond a limit.
    assert told.cap <= CAPS[stored]
    async with virtual_fund(engine, clock=clock, db_path=path, **SETTINGS) as world:
        found = await world.fund.promotion.snapshot("a")
        assert found.rev == len(found.history)
        await world.tick()
        await world.tick()
        later = await world.fund.promotion.current_stage("a")
    status = engine.statuses["a"]
    return Left(stored, lines, later.value, (status.stage, status.capital_cap))


@pytest.mark.parametrize(
    ("old", "act"),
    [
        (Shadow, promoted),
        (Small, promoted),
        (Scaled, demoted_by_a_person),
        (Scaled, demoted_by_a_limit),
        (Small, retired),
    ],
)
@pytest.mark.parametrize("damage", ["kept", "dropped"])
async def test_a_death_at_any_step_leaves_the_old_or_the_new_stage(
    path: Path,
    disk: Any,
    tmp_path: Path,
    old: PromotionStage,
    act: Callable[[VirtualFund], Awaitable[None]],
    damage: str,
) -> None:
    clock, after = await transition(path, disk, old, act)
    steps = list(disk.events)
    disk.unregister()  # the funds that follow are not recorded
    before, new = after[:-1], after[-1][1]
    (tmp_path / "left").mkdir()
    seen = set()
    for until in range(len(steps) + 1):
        if 0 < until < len(steps) and not _matters(steps[until - 1], damage):
            continue
        words = [step for step in steps[:until] if isinstance(step, Told)]
        told = words[-1] if words else Told(old.value, CAPS[old.value])
        disk.events[:] = [step for step in steps[:until] if not isinstance(step, Told)]
        files = disk.image(len(disk.events), damage, random.Random(0))
        left = await reopened(restored(tmp_path / "left", files), clock, told)
        seen.add(left.stage)
        assert (left.stage, left.lines) in ((old.value, before), (new, after))
        # The engine never had more than the file allowed, and has the file's stage in the end.
        assert left.told == (left.later, CAPS[left.later])
        # A limit that was reached holds at the next tick too.
        assert left.later == left.stage or act is demoted_by_a_limit
    assert seen == {old.value, new}


def _matters(step: Any, damage: str) -> bool:
    """Whether a death after this step may leave something else than one before it."""
    return isinstance(step, Told) or damage == "kept" or type(step).__name__ == "Sync"
