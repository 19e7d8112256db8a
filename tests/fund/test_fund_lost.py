"""A host hears that its fund ended by itself."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from fundops.config import FundConfig
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
