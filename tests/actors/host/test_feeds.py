"""The last good word about each feed."""

from __future__ import annotations

import pytest

from fundops import FeedStatus
from fundops.wire.errors import HostFault
from tests.actors.host.conftest import Clock, make_world


async def test_a_feed_is_well_again_with_its_answer(autojump_clock: Clock) -> None:
    async with make_world() as world:
        world.engine.feeds = lambda: 1 / 0
        world.host.feeds.ask()
        await world.place.come_back("feeds")
        with pytest.raises(HostFault, match="ZeroDivisionError"):
            await world.host.feeds.hear()
        del world.engine.feeds
        world.host.feeds.ask()
        await world.place.come_back("feeds")
        assert await world.host.feeds.hear() == ()


async def test_the_last_good_status_of_a_feed_set_aside_stands_and_its_name_is_told() -> None:
    good = [FeedStatus("a", 1, 5.0), FeedStatus("b", 2, 5.0)]
    wrong = FeedStatus("a", "now", 5.0)  # type: ignore[arg-type]
    new = FeedStatus("c", 3, 5.0)
    async with make_world(inline=True) as world:
        for answer, doubtful in (
            (good, []),
            ([wrong, good[1]], ["a"]),
            ([*good, good[0]], ["a"]),
            ([*good, None], ["item 3"]),
            ([*good, new, new], ["c"]),  # of which no good one is known
            (good, []),
        ):
            world.engine.feed_statuses = answer
            assert await world.host.feeds.now() == tuple(good)
            assert list(world.host.feeds.doubts) == doubtful
