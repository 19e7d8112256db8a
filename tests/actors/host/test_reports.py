"""Reports after a cursor: an answer belongs to the cursor that it was asked with."""

from __future__ import annotations

from decimal import Decimal

import pytest
import trio
import trio.testing

from fundops import Fill
from fundops.wire.errors import HostFault, HostLate
from tests.actors.host.conftest import Clock, make_world


def _fill(number: int) -> Fill:
    one = Decimal(1)
    return Fill(str(number), "a", "X", one, one, Decimal(0), 0, str(number))


async def test_an_answer_belongs_to_the_cursor_it_was_asked_with(autojump_clock: Clock) -> None:
    async with make_world() as world:
        world.engine.fill_list = [_fill(1), _fill(2)]
        assert world.host.fills.read("") is None
        await world.place.come_back("fills")
        assert world.host.fills.read("1") is None, "the answer held the first fill again"
        await world.place.come_back("fills")
        assert world.host.fills.read("1") == (_fill(2),)


async def test_an_answer_in_flight_for_an_old_cursor_is_dropped_when_it_comes(
    autojump_clock: Clock,
) -> None:
    async with make_world() as world:
        world.engine.fill_list = [_fill(1), _fill(2)]
        assert world.host.fills.read("") is None
        assert world.host.fills.read("1") is None
        assert world.place.made == ["fills"], "never twice at once"
        await world.place.come_back("fills")
        assert world.host.fills.read("1") is None
        await world.place.come_back("fills")
        assert world.host.fills.read("1") == (_fill(2),)


async def test_an_answer_is_given_once(autojump_clock: Clock) -> None:
    async with make_world() as world:
        assert world.host.fills.read("") is None
        await world.place.come_back("fills")
        assert world.host.fills.read("") == ()
        assert world.host.fills.read("") is None
        assert world.place.made == ["fills", "fills"]


async def test_reports_that_are_late_are_a_fault_until_they_come(autojump_clock: Clock) -> None:
    async with make_world() as world:
        assert world.host.fills.read("") is None
        await trio.sleep(1.5)
        for _ in range(2):
            with pytest.raises(HostLate, match="did not answer within 1 s"):
                world.host.fills.read("")
        assert world.host.late() == {"fills": "did not answer within 1 s"}
        await world.place.come_back("fills")
        assert world.host.fills.read("") == ()


async def test_an_error_of_a_report_is_raised_once_and_asked_anew(autojump_clock: Clock) -> None:
    async with make_world() as world:
        world.engine.fill_list = [_fill(1)]
        world.engine.fills = lambda after: 1 / 0
        assert world.host.fills.read("") is None
        await world.place.come_back("fills")
        with pytest.raises(HostFault, match="ZeroDivisionError"):
            world.host.fills.read("")
        del world.engine.fills
        assert world.host.fills.read("") is None
        await world.place.come_back("fills")
        assert world.host.fills.read("") == (_fill(1),)
