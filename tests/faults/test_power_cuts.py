"""The power fails at any moment of a running ledger: nothing that was acknowledged is lost, nothing
is half there.

Disk images are made from a record of every write: what was synced is there, and of the rest
nothing, everything, a random part, or a random part of its sectors.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
import trio

from fundops.actors.persistence import database
from fundops.wire.ledger import Deposit, OpenPosition, RecordLoss, Withdraw

DAMAGES = ("dropped", "kept", "thinned", "torn 512", "torn 4096")
EVENTS = (
    Deposit(1_000),
    Withdraw(250),
    RecordLoss(31),
    OpenPosition("AAPL", 3, 100),
    Deposit("0.00000001"),
)
ROUNDS = 60


async def work(path: Path, disk: Any, running: Any) -> None:
    """Some callers at a time, alone and together; each acknowledgement is noted when it is
    heard.
    """
    rng = random.Random(1)
    async with running(path) as supervisor:
        ledger = supervisor.ref("ledger")

        async def post(event: Any) -> None:
            disk.events.append(await ledger.ask(event))

        for _ in range(ROUNDS):
            async with trio.open_nursery() as nursery:
                for number in range(rng.choice((1, 1, 2, 8))):
                    nursery.start_soon(post, EVENTS[number % len(EVENTS)])


def losses(disk: Any, checked: Callable[..., int], folder: Path, cuts: int, seed: int = 0) -> int:
    """In how many of so many power cuts an acknowledged entry was lost or the book was not in
    order.
    """
    folder.mkdir()
    rng = random.Random(seed)
    lost = 0
    for number in range(cuts):
        until = rng.randint(0, len(disk.events))
        for file in folder.iterdir():
            file.unlink()
        for name, content in disk.image(until, DAMAGES[number % len(DAMAGES)], rng).items():
            (folder / name).write_bytes(content)
        try:
            checked(folder / "fund.db", disk.acknowledged(until))
        except (AssertionError, apsw.Error):
            lost += 1
    return lost


def files(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def synced(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    """Another setting than ours."""
    settings = (*database._SETTINGS, lambda connection: connection.pragma("synchronous", mode))
    monkeypatch.setattr(database, "_SETTINGS", settings)


@pytest.fixture(autouse=True)
def _checkpoints_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the cuts fall into checkpoints and into logs that begin anew, too."""
    monkeypatch.setattr(database, "WAL_AUTOCHECKPOINT_PAGES", 60)


@pytest.mark.parametrize("cuts", [100, pytest.param(5_000, marks=pytest.mark.soak)])
async def test_no_power_cut_loses_what_was_acknowledged(
    path: Path, disk: Any, running: Any, checked: Any, tmp_path: Path, cuts: int
) -> None:
    await work(path, disk, running)
    assert len(disk.acknowledged(len(disk.events))) > ROUNDS
    assert sum(type(event).__name__ == "Truncate" for event in disk.events) >= 1
    assert (
        sum(type(event).__name__ == "Sync" and event.file == "fund.db" for event in disk.events) > 3
    ), "checkpoints"
    assert losses(disk, checked, tmp_path / "cut", cuts) == 0


@pytest.mark.parametrize("mode", ["off", "normal"])
async def test_the_simulation_finds_the_losses_of_weaker_settings(
    path: Path,
    disk: Any,
    running: Any,
    checked: Any,
    tmp_path: Path,
    mode: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synced(monkeypatch, mode)
    await work(path, disk, running)
    assert losses(disk, checked, tmp_path / "cut", 100) > 20


async def test_the_image_without_a_power_cut_is_the_file_itself(
    path: Path, disk: Any, running: Any, checked: Any, tmp_path: Path
) -> None:
    await work(path, disk, running)
    assert disk.image(len(disk.events), "kept", random.Random(0)) == files(path.parent)
