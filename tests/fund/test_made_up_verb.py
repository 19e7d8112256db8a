"""A verb is written once: a made-up one is found behind every door."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import trio

from fundops import AsyncioFund, Fund, FundConfig, FundManager, open_reader
from fundops.control import call
from fundops.control.commands import COMMANDS, Command
from fundops.doors import PromotionDoor
from fundops.errors import UnknownCommand
from fundops.faces import asyncio_face, sync_face

DOCS = Path(__file__).parent.parent.parent / "docs"
NAME = "promotion.applaud"


async def applaud(self: PromotionDoor, strategy_id: str, *, times: int = 1, by: str) -> str:
    """Applaud a strategy."""
    return f"{by} applauds {strategy_id} {times} times"


@pytest.fixture(autouse=True)
def _verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PromotionDoor, "applaud", applaud, raising=False)
    row = Command(NAME, "changes", "socket", "strategy applaud")
    monkeypatch.setitem(COMMANDS, NAME, row)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FundConfig:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return FundConfig(
        total_capital=1, db_path=tmp_path / "x.db", promotion_enabled=True, tick_interval_s=None
    )


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("stubs", DOCS / "stubs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _audited(config: FundConfig) -> list[tuple[str, str, dict[str, Any]]]:
    with open_reader(config.path) as reader:
        return [(row.door, row.by, row.arguments) for row in reversed(reader.audit())]


def test_it_is_behind_the_trio_door_and_audited(config: FundConfig) -> None:
    async def main() -> str:
        async with Fund.open(config) as fund:
            told: str = await fund.promotion.applaud("s", by="ann")  # type: ignore[attr-defined]
            return told

    assert trio.run(main) == "ann applauds s 1 times"
    assert _audited(config) == [("process", "ann", {"strategy_id": "s", "by": "ann"})]


def test_it_is_behind_the_synchronous_door_and_the_socket(config: FundConfig) -> None:
    with FundManager(config) as fund:
        fund.promotion = sync_face("promotion", "SyncPromotion")(fund)  # type: ignore[assignment]
        assert fund.promotion.applaud("s", times=2, by="bob") == "bob applauds s 2 times"  # type: ignore[attr-defined]
        assert call(config.path, NAME, {"strategy_id": "s", "by": "eve"}, by="eve").startswith(
            "eve"
        )
        with pytest.raises(UnknownCommand):
            call(config.path, "promotion.applause")
    assert [(door, by) for door, by, _ in _audited(config)] == [
        ("process", "bob"),
        ("control", "eve"),
    ]


def test_it_is_behind_the_asyncio_door(config: FundConfig) -> None:
    async def main() -> str:
        async with AsyncioFund.open(config) as fund:
            door: Any = asyncio_face("promotion", "AsyncioPromotion")(fund)
            assert inspect.iscoroutinefunction(door.applaud)
            told: str = await door.applaud("s", by="ann")
            return told

    assert asyncio.run(main()) == "ann applauds s 1 times"


def test_it_is_in_the_stub_as_a_call_and_as_a_coroutine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    stub = _generator().stub()
    head = "def applaud(self: PromotionDoor, strategy_id: str, *, times: int=1, by: str) -> str:"
    assert stub.count(head) == 2
    assert stub.count(f"async {head}") == 1
