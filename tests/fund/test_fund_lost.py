"""A host hears that its fund ended by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fundops import AsyncioFund, FundManager, StrategyStatus
from fundops.config import FundConfig
from fundops.errors import FundClosed
from fundops.fund import Fund
from fundops.runtime import InlineWorker, SupervisorEscalated, Worker


def _inline(name: str) -> Worker:
    return InlineWorker()


@asynccontextmanager
async def opened(
    folder: Path, on_fund_lost: Callable[[SupervisorEscalated], None]
) -> AsyncIterator[Fund]:
    config = FundConfig(
        total_capital=1_000,
        db_path=folder / "fund.db",
        tick_interval_s=None,
        control_socket=False,
    )
    async with Fund.open(config, make_worker=_inline, on_fund_lost=on_fund_lost) as fund:
        yield fund


async def lose(fund: Fund) -> None:
    """Crash the guard until its supervisor gives up."""
    for _ in range(100):
        fund.drill("guard")
        await trio.sleep(0.1)


async def test_a_fund_that_gives_up_calls_on_fund_lost_once_with_the_reason(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    lost: list[SupervisorEscalated] = []
    with pytest.raises(SupervisorEscalated) as raised:
        async with opened(tmp_path, lost.append) as fund:
            await lose(fund)
    assert lost == [raised.value]


async def test_an_error_of_the_callback_does_not_hide_the_loss(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    def broken(_: SupervisorEscalated) -> None:
        raise ZeroDivisionError

    with pytest.raises(SupervisorEscalated):
        async with opened(tmp_path, broken) as fund:
            await lose(fund)


async def test_an_orderly_end_and_an_error_of_the_host_call_nothing(tmp_path: Path) -> None:
    lost: list[SupervisorEscalated] = []
    async with opened(tmp_path, lost.append):
        pass
    with pytest.raises(ZeroDivisionError):
        async with opened(tmp_path, lost.append):
            raise ZeroDivisionError
    assert lost == []


# -- through the other doors


def _config(folder: Path) -> FundConfig:
    return FundConfig(
        total_capital=1_000,
        db_path=folder / "fund.db",
        tick_interval_s=None,
        control_socket=False,
    )


async def _lose(fund: Fund) -> None:
    """Crash the guard as fast as its supervisor starts it, until that gives up."""
    while True:
        fund.drill("guard")
        await trio.sleep(0.005)


def test_a_synchronous_host_hears_the_loss_once_and_may_only_reduce(tmp_path: Path) -> None:
    lost: list[SupervisorEscalated] = []
    allowed: list[bool] = []

    def hear(reason: SupervisorEscalated) -> None:
        lost.append(reason)
        allowed.append(manager.may_trade("s"))

    manager = FundManager(_config(tmp_path), on_fund_lost=hear)
    manager.start()
    manager.report(StrategyStatus("s", "running", 1_000, 1_000))
    manager.tick()
    assert manager.may_trade("s")
    with pytest.raises(FundClosed) as closed:
        manager.wait("lose", _lose)
    assert [str(reason) for reason in lost] == [str(closed.value.__cause__)]
    assert allowed == [False], "every lease has ended when the host hears it"
    assert not manager.may_trade("s")
    assert manager.may_close("s")
    with pytest.raises(FundClosed, match="stopped by itself"):
        manager.stop()
    assert len(lost) == 1


def test_a_synchronous_host_hears_nothing_of_an_orderly_end(tmp_path: Path) -> None:
    lost: list[SupervisorEscalated] = []
    with FundManager(_config(tmp_path), on_fund_lost=lost.append) as manager:
        manager.tick()
    assert lost == []


async def _asyncio_host(folder: Path, *, loses: bool) -> list[tuple[str, bool]]:
    """The reasons that an asyncio host heard, and whether each came on its own thread."""
    heard: list[tuple[str, bool]] = []
    own = threading.get_ident()

    def hear(reason: SupervisorEscalated) -> None:
        heard.append((str(reason), threading.get_ident() == own))

    ends: AbstractContextManager[Any] = pytest.raises(FundClosed) if loses else nullcontext()
    with ends:
        async with AsyncioFund.open(_config(folder), on_fund_lost=hear) as fund:
            if loses:
                await fund.post(_lose)
    return heard


def test_an_asyncio_host_hears_the_loss_once_on_its_own_loop(tmp_path: Path) -> None:
    [(reason, on_loop)] = asyncio.run(_asyncio_host(tmp_path, loses=True))
    assert "guard" in reason
    assert on_loop


def test_an_asyncio_host_hears_nothing_of_an_orderly_end(tmp_path: Path) -> None:
    assert asyncio.run(_asyncio_host(tmp_path, loses=False)) == []
