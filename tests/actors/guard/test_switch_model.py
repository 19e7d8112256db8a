"""A model check of the kill switch: breadth first over every state that the switch can reach in a
world of faults, with the shortest way to a state that breaks the contract.

The world is one strategy with real money, an engine that obeys, hangs, lies, answers late or
raises, a disk and a database that fail and heal, a marker made and removed by hand, a guard that
crashes, and a process that is killed and started again from the files. Each act of the switch is
carried out as the guard's actor does.

From engaging on, until a person releases it:

* the strategy may not open, and the switch is never OFF;
* the engine is asked to stop at each tick and each second until it confirms, and anew by each
  process that starts engaged;
* ENGAGED means that the engine has confirmed its stop: no orders are open under "halt", and no
  positions either under "flatten";
* a strategy that runs is told to stop at each tick, except under "freeze";
* marker and database follow as soon as they can be written, and either of them alone engages the
  next process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from fundops.actors.guard import switch as machine
from fundops.actors.guard.switch import (
    Act,
    Asked,
    Commit,
    EndLeases,
    Engage,
    Event,
    Found,
    Looked,
    Marked,
    Passed,
    ReadMarker,
    Released,
    StopAll,
    StopStrategies,
    Switch,
    SwitchRules,
    TellUnconfirmed,
    Worded,
    WriteMarker,
    release_refusal,
)
from fundops.wire.controller import KillAction, StopReport
from fundops.wire.guard import KillStatus, LatchStored, StopEnded, StopReported

Decide = Callable[[Switch, Event, float], tuple[Switch, tuple[Act, ...]]]

NAMES = ("a",)
FLATTEN_TICKS = 2
CALLS_MAX = 2  # of stop_all in flight: one that hangs past its deadline, and one after it
REPORTS = (StopReport(0, 0), StopReport(0, 1), StopReport(1, 1))
# As Marker.read answers for an empty file.
BY_HAND = KillStatus("ENGAGED", "the marker cannot be read", "fundops", None)


def _plain(status: KillStatus) -> KillStatus:
    """Statuses that differ in words, times or counts alone are one, or there would be millions."""
    if status.state == "OFF" or status == BY_HAND:
        return status
    known = None if status.open_orders is None else 0
    return KillStatus(status.state, "r", "ann", 1, known, known, "", status.action)


def _plain_switch(switch: Switch) -> Switch:
    stored = None if switch.stored is None else _plain(switch.stored)
    # An engagement is only compared with the one in force, so its number need not grow.
    return replace(switch, status=_plain(switch.status), stored=stored, engagement=1)


class Call(NamedTuple):
    """A call of `stop_all` in flight."""

    action: KillAction
    current: bool  # of the engagement that is in force
    late: bool = False
    named: bool = True  # it named the strategy


class World(NamedTuple):
    """Everything that the next event may depend on. The last three fields follow the contract."""

    switch: Switch | None  # None: the process does not run
    leased: bool = False  # the strategy's lease, apart from the latch
    heard: bool = True  # this process has heard of the strategy
    runs: bool = True  # as the engine reports it
    calls: tuple[Call, ...] = ()
    marker: KillStatus | None = None
    row: KillStatus | None = None  # the latch in the database
    committing: KillStatus | None = None
    disk: bool = True  # the marker can be written
    breaches: int = 0  # looks in a row with the drawdown at its limit, where they count
    latched: bool = False  # engaged, and not released by a person since
    proven: bool = False  # since then a report has left nothing open that the action forbids
    anew: bool = True  # this process has asked the engine

    @property
    def on(self) -> Switch:
        """The switch of a process that runs."""
        assert self.switch is not None
        return self.switch


class Broken(Exception):
    """A state that the contract forbids."""


def _must(holds: object, sentence: str) -> None:
    if not holds:
        raise Broken(sentence)


class Model:
    """The world's moves for one set of rules, and the search through them."""

    def __init__(
        self,
        rules: SwitchRules,
        decide: Decide = machine.decide,
        *,
        files: bool = True,
        engine: bool = True,
    ) -> None:
        self.rules, self.decide = rules, decide
        self.files, self.engine = files, engine
        self._known: dict[tuple[Switch, Event], tuple[Switch, tuple[Act, ...], bool]] = {}

    # -- the guard's actor

    def move(self, world: World, event: Event) -> tuple[World, tuple[Act, ...]]:
        """One event and all that follows from it at once."""
        known = self._known.get((world.on, event))
        if known is None:
            known = self._known[world.on, event] = self._decided(world.on, event)
        switch, acts, begun = known
        turned = not begun and switch.status.action != world.on.status.action
        world = world._replace(switch=switch)
        if begun:
            calls = tuple(call._replace(current=False) for call in world.calls)
            world = world._replace(calls=calls, latched=True, proven=False, anew=False)
        elif turned:
            world = world._replace(proven=False)  # to flatten, so positions must be closed too
        done = acts
        for act in acts:
            world, more = self.carry_out(world, act)
            done += more
        return world, done

    def _decided(self, switch: Switch, event: Event) -> tuple[Switch, tuple[Act, ...], bool]:
        # Time stands still but for `minute`: only the age of the last alert matters.
        after, acts = self.decide(switch, event, 0.0)
        begun = after.engagement > switch.engagement
        if after.status.reason:  # else its words come next
            after = _plain_switch(after)
        return (after if self.engine else replace(after, told_s=None)), acts, begun

    def carry_out(self, world: World, act: Act) -> tuple[World, tuple[Act, ...]]:
        match act:
            case EndLeases():
                return world._replace(leased=False), ()
            case WriteMarker():
                if world.disk:
                    world = world._replace(marker=world.on.status)
                return self.move(world, Marked(world.disk))
            case ReadMarker():
                assert world.marker is not None
                return self.engage(world)
            case StopAll(action):
                return self.call(world, action)
            case StopStrategies(names):
                return (world._replace(runs=False) if names else world), ()
            case Commit():
                begun = world._replace(committing=world.on.status)
                return (begun if self.files else self.commit_ends(begun, done=True)), ()
        return world, ()

    def call(self, world: World, action: KillAction) -> tuple[World, tuple[Act, ...]]:
        """Never twice at once; one that is late is left behind."""
        if len(world.calls) >= (CALLS_MAX if self.engine else 1) or not all(
            call.late for call in world.calls
        ):
            return world, ()
        names = NAMES if world.heard else ()
        calls = tuple(sorted((*world.calls, Call(action, current=True, named=world.heard))))
        world = world._replace(calls=calls, anew=world.heard)
        return self.move(world, Asked(frozenset(names), world.heard))

    def engage(self, world: World, *, by_itself: bool = False) -> tuple[World, tuple[Act, ...]]:
        world, acts = self.move(world, Engage(1, by_itself))
        _must(world.on.engaged and not world.leased, "engaging ends the leases first")
        world, more = self.move(world._replace(latched=True), Worded("r", "ann"))
        return world, acts + more

    def may_open(self, world: World) -> bool:
        return world.switch is not None and world.leased and not world.on.engaged

    # -- the moves

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        """Every event that can come next, by name."""
        yield from self.faults(world)
        if world.switch is None:
            yield "start", self.start(world)
            return
        yield "engage", self.engage(world)[0]
        yield "tick", self.tick(world)
        yield "tick over the limit", self.tick(world, over=True)
        yield "silent tick", self.tick(world, over=world.breaches > 0, silent=True)
        yield "second", self.second(world)
        yield from self.releases(world)
        yield from self.answers(world)
        if self.engine:
            for report in REPORTS:
                yield f"pushed {report}", self.pushed(world, report)
                yield f"pushed before {report}", self.pushed(world, report, current=False)
        if world.committing is not None:
            yield "commit ends", self.commit_ends(world, done=True)
            yield "commit refused", self.commit_ends(world, done=False)
        if world.on.told_s is not None:  # as if it had never been told
            yield "minute", world._replace(switch=replace(world.on, told_s=None))
        yield "guard crashes", self.guard_restarts(world)
        yield "killed", self.killed(world)

    def faults(self, world: World) -> Iterator[tuple[str, World]]:
        if self.engine and not world.runs:
            yield "engine starts it", world._replace(runs=True)
        if not self.files:
            return
        yield "disk", world._replace(disk=not world.disk)
        if world.marker is None:
            # For a fund that runs it counts from the next tick or second on.
            yield "marker by hand", world._replace(marker=BY_HAND)
        elif world.switch is None and world.row is not None and world.row.state != "OFF":
            yield "marker lost", world._replace(marker=None)
        elif world.switch is None and world.row is not None:
            yield "older database", world._replace(row=None)

    def tick(self, world: World, *, over: bool = False, silent: bool = False) -> World:
        told = world.on.told_s is not None
        world = world._replace(heard=world.heard or not silent)
        world, acts = self.passed(world)
        breaches = 0
        if over and self.rules.action == "flatten":
            breaches = min(world.breaches + 1, FLATTEN_TICKS)
        world = world._replace(breaches=breaches)
        names = NAMES if world.heard else ()
        running = names if world.runs else ()
        if not world.on.engaged:
            if over:
                world, acts = self.engage(world, by_itself=True)
        else:
            world, more = self.move(world, Looked(names, running, breaches, silent))
            acts += more
            self.check_asked(world)
            state = world.on.status.state
            if state == "UNCONFIRMED" and not told:
                _must(TellUnconfirmed() in acts, "told each minute that it is not confirmed")
            action = world.on.status.action
            if running and not silent and action != "freeze" and not self.rules.observing:
                _must(StopStrategies(running) in acts, "a strategy that runs is told to stop")
        if not silent and not world.on.engaged:
            world = world._replace(leased=True)
        self.check_files(world)
        return world

    def second(self, world: World) -> World:
        world, _ = self.passed(world)
        self.check_files(world)
        return world

    def passed(self, world: World) -> tuple[World, tuple[Act, ...]]:
        marked = world.marker is not None
        world, acts = self.move(world, Passed(marked))
        if marked:
            _must(world.on.engaged, "a marker means engaged")
        if world.latched and self.rules.can_stop_all:
            _must(world.anew or world.calls or self.rules.observing, "a start asks anew")
        return world, acts

    def releases(self, world: World) -> Iterator[tuple[str, World]]:
        for accept in (False, True):
            if release_refusal(world.on.status, accept_open_orders=accept) is not None:
                continue
            _must(world.proven or accept, "refused while the stop is not confirmed")
            off, _ = self.move(world._replace(marker=None), Released())
            off = off._replace(latched=False, proven=False, breaches=0)
            yield f"release{', open orders accepted' * accept}", off

    def answers(self, world: World) -> Iterator[tuple[str, World]]:
        """An engine that obeys, leaves something open, raises or lies, and one that is late."""
        for call in dict.fromkeys(world.calls):
            rest = list(world.calls)
            rest.remove(call)
            left = world._replace(calls=tuple(rest))
            for report in REPORTS:
                yield f"answer {report}", self.answered(left, call, report)
            yield "answer fails", self.answered(left, call, None)
            if self.engine and not call.late:
                late = left._replace(calls=tuple(sorted((*rest, call._replace(late=True)))))
                yield "answer late", self.answered(late, call, None)

    def answered(self, world: World, call: Call, report: StopReport | None) -> World:
        engagement = world.on.engagement - (not call.current)
        proves = call.current and call.named and call.action == world.on.status.action
        if report is not None and proves:
            world = self.with_proof(world, report)
        problem = "" if report is not None else "it hangs"
        ended = StopEnded(call.action, report, problem, engagement, NAMES if call.named else ())
        return self.move(world, ended)[0]

    def pushed(self, world: World, report: StopReport, *, current: bool = True) -> World:
        """`current` False: it was pushed before the engagement that is in force."""
        if world.on.engaged and current:
            world = self.with_proof(world, report)
        engagement = world.on.engagement - (not current)
        return self.move(world, StopReported(report, engagement))[0]

    def with_proof(self, world: World, report: StopReport) -> World:
        action = world.on.status.action
        forbidden = {
            "halt": report.open_orders,
            "flatten": report.open_orders + report.open_positions,
            "freeze": 0,
        }
        assert action is not None
        return world._replace(proven=True) if not forbidden[action] else world

    def commit_ends(self, world: World, *, done: bool) -> World:
        status = world.committing
        assert status is not None
        world = world._replace(committing=None, row=status if done else world.row)
        problem = None if done else "the database is degraded"
        return self.move(world, LatchStored(status, problem))[0]

    # -- ends and starts

    def guard_restarts(self, world: World) -> World:
        """The latch outlives the guard's actor; the rest of its switch is lost."""
        kept = Switch(self.rules, world.on.status, world.on.engagement)
        return self.started(world._replace(switch=kept, committing=None, anew=False))

    def killed(self, world: World) -> World:
        kept = world.marker is not None or (world.row is not None and world.row.state != "OFF")
        return world._replace(
            switch=None,
            leased=False,
            heard=False,
            calls=(),
            committing=None,
            breaches=0,
            latched=kept,
            proven=False,
        )

    def start(self, world: World) -> World:
        kept = world.marker is not None or (world.row is not None and world.row.state != "OFF")
        fresh = world._replace(switch=Switch(self.rules), anew=False)
        after = self.started(fresh)
        assert after.switch is not None
        _must(after.switch.engaged or not kept, "marker or database alone means engaged")
        return after

    def started(self, world: World) -> World:
        """As the actor's `on_start`, and then as it restores the stored memory."""
        if world.marker is not None:
            world, _ = self.found(world, world.marker)
        world = world._replace(switch=replace(world.on, stored=world.row))
        if world.row is not None and world.row.state != "OFF":
            world, _ = self.found(world, world.row)
        if world.on.engaged:
            world, _ = self.passed(world)
        return world

    def found(self, world: World, status: KillStatus) -> tuple[World, tuple[Act, ...]]:
        begins = not world.on.engaged
        world, acts = self.move(world, Found(status))
        # The switch writes ENGAGED only with a proof. A marker made by hand has none.
        proven = status.state == "ENGAGED" and status != BY_HAND
        return (world._replace(proven=proven) if begins else world), acts

    # -- the contract

    def check(self, world: World) -> None:
        if world.switch is None:
            return
        status = world.on.status
        _must(world.on.engaged == world.latched, "only a person's release leads to OFF")
        _must(not (world.latched and self.may_open(world)), "real money opens under the switch")
        _must(not (world.latched and world.leased), "leases have ended")
        if self.rules.observing:
            _must(status.state in ("OFF", "UNCONFIRMED", "ENGAGING"), "observing never confirms")
        if status.state == "ENGAGED":
            _must(world.proven, "ENGAGED means that the engine confirmed")

    def check_asked(self, world: World) -> None:
        asks = self.rules.can_stop_all and not self.rules.observing
        if asks and world.on.status.state != "ENGAGED":
            _must(world.calls, "asked at each tick until it confirms")

    def check_files(self, world: World) -> None:
        """After a tick or a second marker and database follow the switch as far as they can."""
        if not world.latched:
            return
        _must(world.marker is not None or not world.disk, "the marker follows")
        stored = world.row is not None and world.row.state != "OFF"
        _must(stored or world.committing is not None, "the database follows")

    # -- the search

    def explore(self) -> int:
        """The number of reachable states. Raises: `Broken` with the shortest way to the fault."""
        first = World(Switch(self.rules), leased=True, heard=False)
        before: dict[World, tuple[World, str] | None] = {first: None}
        ahead = deque([first])
        while ahead:
            world = ahead.popleft()
            event = "?"
            try:
                for event, after in self.moves(world):
                    if after not in before:
                        before[after] = (world, event)
                        self.check(after)
                        ahead.append(after)
            except Broken as broken:
                raise Broken(f"{broken}: {' > '.join(_way(before, world))} > {event}") from None
        return len(before)


def _way(before: dict[World, tuple[World, str] | None], world: World) -> list[str]:
    way = []
    step = before[world]
    while step is not None:
        world, event = step
        way.append(event)
        step = before[world]
    return way[::-1]


def _rules(action: KillAction, *, stop_all: bool = True, observing: bool = False) -> SwitchRules:
    return SwitchRules(action, FLATTEN_TICKS, stop_all, observing)


# All faults at once, where that has few states; else those of the engine with files that never
# fail, and those of the files with an engine that only obeys, fails or leaves something open.
QUICK = [
    pytest.param(_rules("halt"), True, False, 1_000, id="halt, engine"),
    pytest.param(_rules("halt"), False, True, 10_000, id="halt, files"),
    pytest.param(_rules("freeze"), True, False, 100, id="freeze, engine"),
    pytest.param(_rules("halt", stop_all=False), True, True, 1_000, id="halt, no stop_all"),
    pytest.param(_rules("halt", observing=True), True, True, 100, id="halt, observing"),
]
LONG = [
    pytest.param(_rules("flatten"), True, False, 10_000, id="flatten, engine"),
    pytest.param(_rules("flatten", stop_all=False), True, True, 1_000, id="flatten, no stop_all"),
    pytest.param(_rules("freeze"), False, True, 1_000, id="freeze, files"),
    pytest.param(_rules("flatten"), False, True, 10_000, id="flatten, files"),
]


@pytest.mark.parametrize(("rules", "engine", "files", "at_least"), QUICK)
def test_no_reachable_state_lets_real_money_run_under_the_switch(
    rules: SwitchRules, engine: bool, files: bool, at_least: int
) -> None:
    states = Model(rules, engine=engine, files=files).explore()
    print(f"{states:,} states")  # noqa: T201  shown by `pytest -rP`
    assert states >= at_least, "the world lost its faults"


@pytest.mark.soak
@pytest.mark.parametrize(("rules", "engine", "files", "at_least"), LONG)
def test_no_reachable_state_of_the_rarer_rules_lets_real_money_run_under_the_switch(
    rules: SwitchRules, engine: bool, files: bool, at_least: int
) -> None:
    states = Model(rules, engine=engine, files=files).explore()
    print(f"{states:,} states")  # noqa: T201  shown by `pytest -rP`
    assert states >= at_least, "the world lost its faults"


# -- a broken table is found


def _without(event: type, *acts: type) -> Decide:
    """A table that forgets these acts at this event."""

    def decide(switch: Switch, happened: Event, now_s: float) -> tuple[Switch, tuple[Act, ...]]:
        after, done = machine.decide(switch, happened, now_s)
        if isinstance(happened, event):
            done = tuple(act for act in done if not isinstance(act, acts))
        return after, done

    return decide


def _off_after_a_failure(
    switch: Switch, event: Event, now_s: float
) -> tuple[Switch, tuple[Act, ...]]:
    if isinstance(event, StopEnded) and event.report is None and switch.engaged:
        return machine.decide(switch, Released(), now_s)
    return machine.decide(switch, event, now_s)


def _any_answer_confirms(
    switch: Switch, event: Event, now_s: float
) -> tuple[Switch, tuple[Act, ...]]:
    after, acts = machine.decide(switch, event, now_s)
    if isinstance(event, StopEnded) and after.engaged:
        after = replace(after, status=replace(after.status, state="ENGAGED", problem=""))
    return after, acts


def _earlier_count(kind: type[StopEnded | StopReported]) -> Decide:
    """A table to which a report of an earlier engagement is one of this."""

    def decide(switch: Switch, event: Event, now_s: float) -> tuple[Switch, tuple[Act, ...]]:
        if isinstance(event, StopEnded | StopReported) and isinstance(event, kind):
            event = replace(event, engagement=switch.engagement)
        return machine.decide(switch, event, now_s)

    return decide


def _stored_confirmations_suffice(
    switch: Switch, event: Event, now_s: float
) -> tuple[Switch, tuple[Act, ...]]:
    after, acts = machine.decide(switch, event, now_s)
    return (replace(after, asked=frozenset(NAMES)) if isinstance(event, Found) else after), acts


def _silence_confirms(switch: Switch, event: Event, now_s: float) -> tuple[Switch, tuple[Act, ...]]:
    if isinstance(event, Asked):
        event = replace(event, heard=True)
    return machine.decide(switch, event, now_s)


@pytest.mark.parametrize(
    ("decide", "sentence"),
    [
        (_without(Engage, EndLeases), "engaging ends the leases first"),
        (_without(Found, EndLeases), "leases have ended"),
        (_without(Passed, ReadMarker), "a marker means engaged"),
        (_without(Looked, StopAll), "asked at each tick until it confirms"),
        (_without(Looked, StopStrategies), "a strategy that runs is told to stop"),
        (_without(Worded, WriteMarker), "the marker follows"),
        (_without(Passed, WriteMarker), "the marker follows"),
        (_without(Passed, Commit), "the database follows"),
        (_off_after_a_failure, "only a person's release leads to OFF"),
        (_any_answer_confirms, "ENGAGED means that the engine confirmed"),
        (_earlier_count(StopEnded), "ENGAGED means that the engine confirmed"),
        (_earlier_count(StopReported), "ENGAGED means that the engine confirmed"),
        (_stored_confirmations_suffice, "a start asks anew"),
        (_silence_confirms, "ENGAGED means that the engine confirmed"),
    ],
)
def test_a_broken_table_is_found_with_the_way_to_its_fault(decide: Decide, sentence: str) -> None:
    def explore() -> None:
        for engine in (True, False):
            Model(_rules("halt"), decide, engine=engine, files=not engine).explore()

    with pytest.raises(Broken, match=sentence):
        explore()
