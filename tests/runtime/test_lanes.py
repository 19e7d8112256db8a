"""Messages outside the queue's order: control, conflated, timers, ends of watched actors."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    ActorStopped,
    AskTimeout,
    ChildSpec,
    ConfigError,
    MailboxFull,
    Ref,
    Request,
    Supervisor,
    Terminated,
    Timer,
    UnknownChild,
    WrongMessage,
    WrongThread,
    handles,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]


class Note(Request[int], frozen=True):
    number: int
    key: str | None = None


class Halt(Request[str], frozen=True):
    control = True
    why: str = "halt"


class Crash(Request[None], frozen=True):
    pass


class Tick(msgspec.Struct, frozen=True):
    number: int = 0


class Plan(Request[None], frozen=True):
    """Set a timer: `every` so often, or once `after`; the life cancels it after `cancel_after`."""

    after: float = 0.0
    every: float = 0.0
    tick: Any = Tick()


class CancelPlan(Request[bool], frozen=True):
    pass


class Follow(Request[None], frozen=True):
    name: str


class Everything(Actor):
    """Logs each message with the time, and takes `seconds` for each note."""

    messages = Note | Halt | Crash | Tick | Plan | CancelPlan | Follow | Terminated

    def __init__(self, log: list[Any], seconds: float = 0.0) -> None:
        self.log = log
        self.seconds = seconds
        self.timer: Timer | None = None

    @handles(Note)
    async def note(self, message: Note) -> int:
        self.log.append(message.number)
        await trio.sleep(self.seconds)
        return message.number

    @handles(Halt)
    async def halt(self, message: Halt) -> str:
        self.log.append(message.why)
        return message.why

    @handles(Crash)
    def crash(self, message: Crash) -> None:
        raise ValueError("a bug")

    @handles(Tick)
    def tick(self, message: Tick) -> None:
        self.log.append((self.context.epoch, message.number, round(trio.current_time(), 6)))

    @handles(Plan)
    def plan(self, message: Plan) -> None:
        if message.every:
            self.timer = self.context.every(message.every, message.tick)
        else:
            self.timer = self.context.after(message.after, message.tick)

    @handles(CancelPlan)
    def cancel(self, message: CancelPlan) -> bool:
        assert self.timer is not None
        active = self.timer.active
        self.timer.cancel()
        self.timer.cancel()
        return active and not self.timer.active

    @handles(Follow)
    def follow(self, message: Follow) -> None:
        self.context.watch(message.name)

    @handles(Terminated)
    def heard(self, message: Terminated) -> None:
        self.log.append((message.name, message.reason))


class Numb(Actor):
    """Handles only requests to set timers or to watch, and not the messages these would send."""

    @handles(Plan)
    def plan(self, message: Plan) -> None:
        self.context.after(message.after, message.tick)

    @handles(Follow)
    def follow(self, message: Follow) -> None:
        self.context.watch(message.name)


def one(log: list[Any], seconds: float = 0.0, name: str = "a", **settings: Any) -> ChildSpec:
    return ChildSpec(name, lambda: Everything(log, seconds), **settings)


# -- control


async def test_a_control_message_overtakes_a_thousand_queued_ones(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise([one(log, 1.0)]) as supervisor:
        a = supervisor.ref("a")
        for number in range(1_001):
            a.tell_nowait(Note(number))
        await wait_all_tasks_blocked()  # the first is in hand
        a.tell_nowait(Halt())
        await trio.sleep(2.5)
        assert log == [0, "halt", 1, 2]
        await supervisor.stop_child("a")


@pytest.mark.parametrize("overflow", ["backpressure", "reject", "drop_oldest"])
async def test_control_gets_through_a_full_mailbox_by_every_way_of_sending(
    supervise: Supervise, autojump_clock: MockClock, overflow: str
) -> None:
    log: list[Any] = []
    async with supervise([one(log, 1.0, capacity=2, overflow=overflow)]) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        a.tell_nowait(Note(2))
        a.tell_nowait(Note(3))
        a.tell_nowait(Halt("nowait"))
        await a.tell(Halt("awaited"))
        assert await a.ask(Halt("asked")) == "asked"
        await trio.sleep(5)
        assert log == [1, "nowait", "awaited", "asked", 2, 3]
        assert supervisor.statistics()["a"].undeliverable == 0


async def test_control_from_a_thread_goes_the_same_way(supervise: Supervise) -> None:
    log: list[Any] = []

    def send(to: Ref) -> None:
        for number in range(10):
            to.tell_from_thread(Note(number))
        to.tell_from_thread(Halt())

    async with supervise([one(log, capacity=5, overflow="reject")]) as supervisor:
        await trio.to_thread.run_sync(send, supervisor.ref("a"))
        await wait_all_tasks_blocked()
        assert "halt" in log
        with pytest.raises(WrongMessage):
            await trio.to_thread.run_sync(supervisor.ref("a").tell_from_thread, 5)


async def test_an_asker_from_an_actor_gets_through_too(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    class Caller(Actor):
        @handles(Note)
        async def note(self, message: Note) -> int:
            return len(await self.context.ref("a").ask(Halt()))

    async with supervise([one([], 1.0, capacity=1), ChildSpec("b", Caller)]) as supervisor:
        supervisor.ref("a").tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        supervisor.ref("a").tell_nowait(Note(2))
        assert await supervisor.ref("b").ask(Note(0)) == 4
        assert trio.current_time() == pytest.approx(1)


async def test_the_control_lane_is_bounded_by_refusing(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise([one(log, 1.0)]) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(0))
        await wait_all_tasks_blocked()
        for number in range(1_024):
            a.tell_nowait(Halt(str(number)))
        with pytest.raises(MailboxFull) as caught:
            a.tell_nowait(Halt())
        assert caught.value.capacity == 1_024
        assert supervisor.statistics()["a"].rejected == 1
        await trio.sleep(2)
        assert log == [0, *map(str, range(1_024))]


async def test_control_keeps_its_own_order_and_survives_a_crash(supervise: Supervise) -> None:
    log: list[Any] = []
    async with supervise([one(log)]) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Crash())
        a.tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        assert a.epoch == 2
        supervisor.drill("a")
        a.tell_nowait(Note(2))
        for why in ("first", "second"):
            a.tell_nowait(Halt(why))
        await wait_all_tasks_blocked()
        assert a.epoch == 3
        assert log == [1, "first", "second", 2]


async def test_control_to_a_stopped_actor_or_from_another_thread_is_refused(
    supervise: Supervise,
) -> None:
    async with supervise([one([])]) as supervisor:
        a = supervisor.ref("a")
        with pytest.raises(WrongThread):
            await trio.to_thread.run_sync(a.tell_nowait, Halt())
        await supervisor.stop_child("a")
        with pytest.raises(ActorStopped):
            a.tell_nowait(Halt())


async def test_control_still_queued_at_the_end_has_a_final_state(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([one([], 1.0)]) as supervisor:
        supervisor.ref("a").tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        supervisor.ref("a").tell_nowait(Halt())
        await supervisor.stop_child("a")
        assert supervisor.statistics()["a"].undeliverable == 1
        assert supervisor.dead_letters[-1].message_type == "Halt"


# -- conflation


def conflating(log: list[Any], **settings: Any) -> list[ChildSpec]:
    return [one(log, 1.0, overflow="conflate", conflate_by=lambda note: note.key, **settings)]


async def test_the_newest_by_key_takes_the_place_of_an_older_one(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise(conflating(log, capacity=4)) as supervisor:
        a = supervisor.ref("a")
        a.tell_nowait(Note(0, "x"))
        await wait_all_tasks_blocked()
        for number in range(1, 101):
            await a.tell(Note(number, "xyz"[number % 3]))
        counters = supervisor.statistics()["a"]
        assert (counters.accepted, counters.queued, counters.undeliverable) == (101, 3, 97)
        assert supervisor.dead_letters[-1].reason == "conflated: a newer one came"
        await trio.sleep(10)
        # In the places of the first of their kind, which came as y, z, x.
        assert log == [0, 100, 98, 99]


async def test_what_is_in_hand_is_not_conflated(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise(conflating(log)) as supervisor:
        for number in range(3):
            supervisor.ref("a").tell_nowait(Note(number, "x"))
            await wait_all_tasks_blocked()
        await trio.sleep(5)
        assert log == [0, 2]


async def test_what_has_no_key_and_what_is_asked_stands_for_itself(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise(conflating(log, capacity=4)) as supervisor:
        a = supervisor.ref("a")
        answers: list[int] = []

        async def ask(number: int) -> None:
            answers.append(await a.ask(Note(number, "x"), timeout_s=50))

        a.tell_nowait(Note(0))
        await wait_all_tasks_blocked()
        a.tell_nowait(Note(1))
        a.tell_nowait(Note(2))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, 3)
            await wait_all_tasks_blocked()
            a.tell_nowait(Note(4, "x"))
            with pytest.raises(MailboxFull):
                await a.tell(Note(5, "y"))
            a.tell_nowait(Note(6, "x"))
        await trio.sleep(5)
        assert log == [0, 1, 2, 3, 6]
        assert answers == [3]
        assert supervisor.statistics()["a"].rejected == 1


async def test_keys_that_come_and_go_are_forgotten(supervise: Supervise) -> None:
    log: list[Any] = []
    async with supervise(
        [one(log, overflow="conflate", conflate_by=lambda note: note.key, capacity=2)]
    ) as supervisor:
        a = supervisor.ref("a")
        for number in range(100):
            a.tell_nowait(Note(number, str(number)))
            await wait_all_tasks_blocked()
        assert log == [*range(100)]
        assert len(a._mailbox._newest) <= 4


@pytest.mark.parametrize("settings", [{"overflow": "conflate"}, {"conflate_by": len}])
def test_conflation_and_its_key_go_together(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"a\.conflate_by"):
        ChildSpec("a", Numb, **settings)


# -- timers


async def test_a_timer_comes_due_once(supervise: Supervise, autojump_clock: MockClock) -> None:
    log: list[Any] = []
    async with supervise([one(log)]) as supervisor:
        await supervisor.ref("a").ask(Plan(after=2.5))
        await trio.sleep(100)
        assert log == [(1, 0, 2.5)]


async def test_a_timer_of_no_time_comes_due_at_once_and_ahead_of_the_queue(
    supervise: Supervise,
) -> None:
    log: list[Any] = []
    async with supervise([one(log)]) as supervisor:
        supervisor.ref("a").tell_nowait(Plan())
        for number in range(1_000):
            supervisor.ref("a").tell_nowait(Note(number))
        await wait_all_tasks_blocked()
        assert [type(entry) for entry in log[:100]].count(tuple) == 1


async def test_a_repeated_timer_keeps_its_beat(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise([one(log)]) as supervisor:
        await supervisor.ref("a").ask(Plan(every=0.1))
        await trio.sleep(100.05)
        assert [at for _, _, at in log] == pytest.approx([0.1 * n for n in range(1, 1_001)])


async def test_a_repeated_timer_never_piles_up_behind_a_slow_handler(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise([one(log, 10.5)]) as supervisor:
        a = supervisor.ref("a")
        await a.ask(Plan(every=1.0))
        a.tell_nowait(Note(7))
        await trio.sleep(0.5)
        assert log == [7]
        await trio.sleep(12)
        # One for all that were missed, and then in step again.
        assert log[1:] == [(1, 0, 10.5), (1, 0, 11.0), (1, 0, 12.0)]


async def test_a_timer_belongs_to_its_life(supervise: Supervise, autojump_clock: MockClock) -> None:
    log: list[Any] = []
    async with supervise([one(log)]) as supervisor:
        a = supervisor.ref("a")
        await a.ask(Plan(every=1.0))
        await trio.sleep(1.5)
        a.tell_nowait(Crash())
        await trio.sleep(10)
        assert log == [(1, 0, 1.0)]
        assert a.epoch == 2


async def test_a_timer_message_of_an_earlier_life_is_discarded(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise([one(log, 2.0)]) as supervisor:
        a = supervisor.ref("a")
        await a.ask(Plan(after=1.0))
        a.tell_nowait(Note(1))
        await trio.sleep(1.5)  # due, and unread, as the note takes two seconds
        supervisor.drill("a")
        await trio.sleep(5)
        assert a.epoch == 2
        assert log == [1]
        assert supervisor.statistics()["a"].expired == 1


async def test_a_cancelled_timer_does_not_come_due_nor_is_it_read(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise([one(log, 2.0)]) as supervisor:
        a = supervisor.ref("a")
        await a.ask(Plan(after=1.0))
        assert await a.ask(CancelPlan())
        await trio.sleep(3)
        assert log == []


async def test_many_timers_leave_nothing_behind(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    async with supervise([one(log)]) as supervisor:
        a = supervisor.ref("a")
        for number in range(10_000):
            a.tell_nowait(Plan(after=3_600.0, tick=Tick(number)))
            await a.ask(CancelPlan())
        assert len(supervisor.deadlines._heap) < 200
        await a.ask(Plan(after=1.0))
        await trio.sleep(2)
        assert len(log) == 1


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
async def test_a_timer_of_no_sensible_time_is_refused(supervise: Supervise, seconds: float) -> None:
    async with supervise([one([])], intensity=5) as supervisor:
        context = supervisor._actor("a")
        with pytest.raises(ConfigError, match="seconds"):
            context.after(seconds, Tick())
        with pytest.raises(ConfigError, match="seconds"):
            context.every(0.0 if seconds < 0 else seconds, Tick())


async def test_a_timer_or_a_watch_that_nobody_would_handle_is_refused_when_asked_for(
    supervise: Supervise,
) -> None:
    async with supervise([ChildSpec("a", Numb), one([], name="b")]) as supervisor:
        context = supervisor._actor("a")
        with pytest.raises(WrongMessage, match="does not accept Tick"):
            context.after(1, Tick())
        with pytest.raises(WrongMessage, match="does not accept Terminated"):
            context.watch("b")


# -- watching


async def test_a_watcher_hears_once_and_why(supervise: Supervise) -> None:
    log: list[Any] = []
    async with supervise([one(log), one([], name="b")]) as supervisor:
        for _ in range(2):
            await supervisor.ref("a").ask(Follow("b"))
        watch = supervisor.watch("b")
        await supervisor.stop_child("b", "no longer needed")
        await supervisor.stop_child("b", "again")
        await wait_all_tasks_blocked()
        assert log == [("b", "no longer needed")]
        assert (await watch).reason == (await watch).reason == "no longer needed"
        assert [type(event) for event in supervisor.events] == [Terminated]


async def test_whoever_watches_a_dead_actor_hears_at_once(supervise: Supervise) -> None:
    log: list[Any] = []
    async with supervise([one(log), one([], name="b", restart="temporary")]) as supervisor:
        supervisor.ref("b").tell_nowait(Crash())
        await wait_all_tasks_blocked()
        await supervisor.ref("a").ask(Follow("b"))
        await wait_all_tasks_blocked()
        assert log == [("b", "crashed: ValueError: a bug")]
        assert (await supervisor.watch("b")).name == "b"


async def test_a_restart_is_no_end(supervise: Supervise, autojump_clock: MockClock) -> None:
    log: list[Any] = []
    async with supervise([one(log), one([], name="b")]) as supervisor:
        await supervisor.ref("a").ask(Follow("b"))
        supervisor.ref("b").tell_nowait(Crash())
        with trio.move_on_after(10) as patience:
            await supervisor.watch("b")
        assert patience.cancelled_caught
        assert supervisor.ref("b").epoch == 2
        assert log == []


async def test_a_watcher_that_has_died_is_forgotten(supervise: Supervise) -> None:
    log: list[Any] = []
    async with supervise([one(log), one([], name="b")]) as supervisor:
        await supervisor.ref("a").ask(Follow("b"))
        supervisor.drill("a")
        await wait_all_tasks_blocked()
        assert not supervisor._actor("b").followers
        await supervisor.stop_child("b")
        await wait_all_tasks_blocked()
        assert log == []


async def test_the_end_of_the_tree_is_told_to_who_is_left(supervise: Supervise) -> None:
    log: list[Any] = []
    heard: list[Terminated] = []

    async with trio.open_nursery() as nursery:
        async with supervise([one(log), one([], name="b")]) as supervisor:
            await supervisor.ref("a").ask(Follow("b"))

            async def outsider() -> None:
                heard.append(await supervisor.watch("a"))

            nursery.start_soon(outsider)
            await wait_all_tasks_blocked()
        # b ends first, and a may be stopped before it reads the news.
        assert log in ([], [("b", "supervisor stopped")])
    assert [(one.name, one.reason) for one in heard] == [("a", "supervisor stopped")]


async def test_watching_a_stranger_is_refused(supervise: Supervise) -> None:
    async with supervise([one([])]) as supervisor:
        with pytest.raises(UnknownChild):
            supervisor.watch("nobody")
        with pytest.raises(UnknownChild):
            supervisor._actor("a").watch("nobody")


async def test_a_control_ask_times_out_like_any_other(
    supervise: Supervise, autojump_clock: MockClock
) -> None:
    async with supervise([one([], 5.0)]) as supervisor:
        supervisor.ref("a").tell_nowait(Note(1))
        await wait_all_tasks_blocked()
        with pytest.raises(AskTimeout) as caught:
            await supervisor.ref("a").ask(Halt(), timeout_s=1)
        assert not caught.value.started
