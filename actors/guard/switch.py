"""The kill switch as a pure state machine: no clock, no files, no tasks, no engine.

`decide` takes the switch, one event and the monotonic time, and gives the switch after it and the
acts that follow, in their order. The actor sets the shared latch to `Switch.status` first, then
carries out the acts. Their results come back as further events. Nothing else changes the state of
the switch.

Three rules hold in each state. Only `Released` leads to OFF. ENGAGED means that the engine, or a
host that pushes its state, reported the stop of every strategy that the last call named. A stop
that is not confirmed is asked for again at each look.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, assert_never

import msgspec
from msgspec.structs import replace

from ...wire.controller import KillAction, StopReport
from ...wire.errors import KillSwitchNotEngaged, StopNotConfirmed
from ...wire.guard import KillStatus, LatchStored, StopEnded, StopReported
from .latch import OFF

__all__ = [
    "NOT_NAMED",
    "NOT_TOLD",
    "NO_STOP_ALL",
    "REPEAT_S",
    "Act",
    "Asked",
    "Commit",
    "EndLeases",
    "Engage",
    "Event",
    "Found",
    "Looked",
    "Marked",
    "Passed",
    "ReadMarker",
    "Released",
    "StopAll",
    "StopStrategies",
    "Switch",
    "SwitchRules",
    "TellConfirmed",
    "TellEngaged",
    "TellUnconfirmed",
    "Worded",
    "WriteMarker",
    "as_found",
    "decide",
    "release_refusal",
]

REPEAT_S: Final = 60.0  # between two alerts that a stop is not confirmed
NO_STOP_ALL: Final = "the controller has no stop_all, so it cannot confirm the stop"
NOT_NAMED: Final = "the engine answers, but has not said which strategies it runs"
NOT_TOLD: Final = "mode is observe, so the engine was not told to stop"


class SwitchRules(msgspec.Struct, frozen=True):
    """The settings and the parts of the controller that the switch depends on."""

    action: KillAction = "halt"  # as configured; one in force is in `KillStatus.action`
    flatten_confirm_ticks: int = 3
    can_stop_all: bool = True  # the controller has `stop_all`
    observing: bool = False  # the engine is told nothing


class Switch(msgspec.Struct, frozen=True):
    """The kill switch: its public state, and the memory that the next moves need."""

    rules: SwitchRules = SwitchRules()
    status: KillStatus = OFF
    engagement: int = 0  # counts how often it was engaged; an answer belongs to one of them
    # The strategies that the last call of `stop_all` named. None: this life has asked for none, and
    # the engine may have started anew since an earlier one did.
    asked: frozenset[str] | None = None
    looked: bool = False  # a look has told the running strategies to stop
    running: tuple[str, ...] = ()  # those that ran at the last look although they were told
    untold: bool = False  # a file engaged it, and this life has not told so
    told_s: float | None = None  # when it was told last that the stop is not confirmed; None: never
    marked: bool = True  # False: the last write of the marker failed
    stored: KillStatus | None = None  # as it is in the database; None: never stored
    storing: bool = False  # a commit is in flight

    @property
    def engaged(self) -> bool:
        """Whether trading is stopped, confirmed by the engine or not."""
        return self.status.state != "OFF"


# -- events


class Engage(msgspec.Struct, frozen=True):
    """A person, a program or the guard itself stops trading. `Worded` follows at once."""

    at_us: int
    by_itself: bool = False  # the guard does; one bad print must not sell the book


class Worded(msgspec.Struct, frozen=True):
    """The texts of an engagement. They are made after the leases have ended, so they come apart."""

    reason: str
    by: str


class Found(msgspec.Struct, frozen=True):
    """The marker or the database says that the switch is engaged."""

    status: KillStatus


class Looked(msgspec.Struct, frozen=True):
    """One look of the tick, while the switch is engaged."""

    names: Collection[str]  # strategies in scope
    running: tuple[str, ...]  # those that the engine reports running
    breaches: int = 0  # looks in a row with the fund's drawdown at its limit
    silent: bool = False  # the host is, so `running` is no news


class Passed(msgspec.Struct, frozen=True):
    """A second, or a tick, has passed."""

    marker_there: bool


class Asked(msgspec.Struct, frozen=True):
    """A call of `stop_all` has begun."""

    strategies: frozenset[str]
    heard: bool = True  # the engine has named its strategies in this life


class Marked(msgspec.Struct, frozen=True):
    """A write of the marker has ended."""

    done: bool


class Released(msgspec.Struct, frozen=True):
    """A person has released it, and the marker is gone."""


Event = (
    Engage
    | Worded
    | Found
    | Looked
    | Passed
    | Asked
    | Marked
    | Released
    | StopEnded
    | StopReported
    | LatchStored
)


# -- acts


class EndLeases(msgspec.Struct, frozen=True):
    """End the leases in scope."""


class WriteMarker(msgspec.Struct, frozen=True):
    """Write the status into the marker file; answers with `Marked`."""


class ReadMarker(msgspec.Struct, frozen=True):
    """Read the marker, and engage with its reason."""


class StopAll(msgspec.Struct, frozen=True):
    """Call `stop_all`, unless a call is in flight; answers with `Asked`, later `StopEnded`."""

    action: KillAction


class StopStrategies(msgspec.Struct, frozen=True):
    """Call `stop` for each of these strategies."""

    names: tuple[str, ...]


class Commit(msgspec.Struct, frozen=True):
    """Store the status in the database; answers with `LatchStored`."""


class TellEngaged(msgspec.Struct, frozen=True):
    """Alert that the switch was engaged."""


class TellUnconfirmed(msgspec.Struct, frozen=True):
    """Alert that the stop is not confirmed, past every gate against repetition."""


class TellConfirmed(msgspec.Struct, frozen=True):
    """Tell that the stop is confirmed."""


Act = (
    EndLeases
    | WriteMarker
    | ReadMarker
    | StopAll
    | StopStrategies
    | Commit
    | TellEngaged
    | TellUnconfirmed
    | TellConfirmed
)
Step = tuple[Switch, tuple[Act, ...]]


def decide(switch: Switch, event: Event, now_s: float) -> Step:
    """The switch after this event, and the acts that follow, in order. `now_s` is monotonic."""
    match event:
        case Engage():
            return _engage(switch, event)
        case Worded(reason, by):
            return _worded(switch, reason, by, now_s)
        case Found(status):
            return _found(switch, status)
        case Looked():
            return _looked(switch, event, now_s)
        case Passed(marker_there):
            return _passed(switch, marker_there, now_s)
        case Asked(strategies, heard):
            # Before the engine's first word a call that names none has asked for nothing.
            return replace(switch, asked=strategies if strategies or heard else None), ()
        case Marked(done):
            return replace(switch, marked=done), ()
        case Released():
            return _released(switch)
        case StopEnded() | StopReported() if not _of_now(switch, event):
            return switch, ()
        case StopEnded():
            return _answered(switch, event, now_s)
        case StopReported(report):
            return _judged(switch, report, now_s, covers=True)
        case LatchStored(status, problem):
            return _stored(switch, status, problem)
        case _:
            assert_never(event)


def release_refusal(
    status: KillStatus, *, accept_open_orders: bool
) -> KillSwitchNotEngaged | StopNotConfirmed | None:
    """Why a person may not release it now; None: they may."""
    if status.state == "OFF":
        return KillSwitchNotEngaged("the kill switch is not engaged")
    if status.state != "ENGAGED" and not accept_open_orders:
        return StopNotConfirmed(status.state, status.problem)
    return None


# -- engaging


def _engage(switch: Switch, event: Engage) -> Step:
    if not switch.engaged:
        flattens = switch.rules.action == "flatten"
        action: KillAction = "halt" if flattens and event.by_itself else switch.rules.action
        status = KillStatus("ENGAGING", "", "", event.at_us, action=action)
        return _begun(switch, status), (EndLeases(),)
    if not event.by_itself and _may_flatten(switch):
        # The guard halted, and now a person stops trading: the first reason stays.
        after, acts = _moved(switch, _flattening(switch.status))
        after, asks = _ask(after)
        return after, (*acts, *asks)
    return switch, ()


def _begun(switch: Switch, status: KillStatus) -> Switch:
    # One that is off remembers nothing of an earlier engagement.
    return replace(switch, status=status, engagement=switch.engagement + 1)


def _worded(switch: Switch, reason: str, by: str, now_s: float) -> Step:
    if switch.status.state != "ENGAGING" or switch.status.reason:
        return switch, ()  # it was engaged before, and its first words stay
    rules = switch.rules
    stops: tuple[Act, ...] = ()
    status = replace(switch.status, reason=reason or "no reason given", by=by or "unknown")
    if _can_ask(rules):
        stops = (StopAll(status.action or rules.action),)
    else:
        status = replace(status, state="UNCONFIRMED", problem=_why_not(rules))
    switch, commits = _committed(replace(switch, status=status))
    switch, tells = _repeated(switch, now_s)
    return switch, (WriteMarker(), *stops, *commits, TellEngaged(), *tells)


def _found(switch: Switch, status: KillStatus) -> Step:
    """Engaged according to a file. Marker and engine follow when a second has passed."""
    if switch.engaged:
        return switch, ()
    action = status.action
    if action is None:
        # A person's "flatten" is one at once; what fundops itself concluded sells nothing.
        by_itself = status.by == "fundops" and switch.rules.action == "flatten"
        action = "halt" if by_itself else switch.rules.action
    switch = _begun(switch, replace(as_found(status), action=action))
    return replace(switch, untold=True), (EndLeases(),)


def as_found(status: KillStatus) -> KillStatus:
    """The status of a switch that a file engages.

    ENGAGED stays only with the counts of the report that confirmed it: a marker made by hand, or
    one that cannot be read, confirms nothing.
    """
    confirmed = status.state == "ENGAGED" and status.open_orders is not None
    if confirmed or status.state == "UNCONFIRMED":
        return status
    return replace(status, state="ENGAGING")


# -- each look, and each second


def _looked(switch: Switch, look: Looked, now_s: float) -> Step:
    if not switch.engaged:
        return switch, ()
    acts: tuple[Act, ...] = ()
    if look.breaches >= switch.rules.flatten_confirm_ticks and _may_flatten(switch):
        switch, acts = _moved(switch, _flattening(switch.status))
    if not look.silent:
        switch, more = _heard(switch, look, now_s)
        acts = (*acts, *more)
    elif switch.status.state == "ENGAGING" and switch.status.open_orders is not None:
        switch, more = _unconfirmed(switch, switch.status, NOT_NAMED, now_s)
        acts = (*acts, *more)
    confirmed = switch.status.state == "ENGAGED"
    if not (confirmed and switch.asked is not None and switch.asked.issuperset(look.names)):
        switch, asks = _ask(switch)
        acts = (*acts, *asks)
    switch, tells = _repeated(switch, now_s)
    return switch, (*acts, *tells)


def _may_flatten(switch: Switch) -> bool:
    return switch.rules.action == "flatten" and switch.status.action == "halt"


def _flattening(status: KillStatus) -> KillStatus:
    return replace(status, state="ENGAGING", action="flatten", problem="")


def _heard(switch: Switch, look: Looked, now_s: float) -> Step:
    """Stop what runs under the switch.

    A halted engine may still call its strategies running at the first look, by a word that is older
    than the stop. One that runs after it was told was started again, or does not obey.
    """
    if switch.rules.observing or switch.status.action == "freeze":
        return switch, ()
    again = look.running if switch.looked else ()
    fresh = not set(again) <= set(switch.running)
    told_s = None if fresh else switch.told_s  # news is told, whenever the last alert was
    switch = replace(switch, looked=True, running=again, told_s=told_s)
    acts: tuple[Act, ...] = (StopStrategies(look.running),) if look.running else ()
    if again:
        problem = f"{', '.join(again)} running under the kill switch"
        switch, more = _unconfirmed(switch, switch.status, problem, now_s)
        acts = (*acts, *more)
    return switch, acts


def _passed(switch: Switch, marker_there: bool, now_s: float) -> Step:
    if not switch.engaged:
        acts: tuple[Act, ...] = (ReadMarker(),) if marker_there else ()
        switch, commits = _committed(switch) if switch.stored is not None else (switch, ())
        return switch, (*acts, *commits)
    acts = () if marker_there and switch.marked else (WriteMarker(),)
    switch, commits = _committed(switch)
    asks: tuple[Act, ...] = ()
    if switch.asked is None:
        switch, asks = _ask(switch)
    switch, tells = _repeated(switch, now_s)
    return switch, (*acts, *asks, *commits, *tells)


def _ask(switch: Switch) -> Step:
    """Tell the engine to stop; without a way to tell it the stop is never confirmed."""
    rules, status = switch.rules, switch.status
    if _can_ask(rules):
        return switch, (StopAll(status.action or rules.action),)
    if status.state == "ENGAGING" or rules.observing:
        return _moved(switch, replace(status, state="UNCONFIRMED", problem=_why_not(rules)))
    return switch, ()


def _can_ask(rules: SwitchRules) -> bool:
    return rules.can_stop_all and not rules.observing


def _why_not(rules: SwitchRules) -> str:
    return NOT_TOLD if rules.observing else NO_STOP_ALL


# -- answers of the engine


def _of_now(switch: Switch, told: StopEnded | StopReported) -> bool:
    """Whether the call began, or the report was pushed, under the engagement in force."""
    return switch.engaged and told.engagement == switch.engagement


def _answered(switch: Switch, ended: StopEnded, now_s: float) -> Step:
    if ended.action != switch.status.action:
        return switch, ()  # of the halt before a flatten
    if ended.report is None:
        return _unconfirmed(switch, switch.status, ended.problem, now_s)
    covers = switch.asked is not None and switch.asked.issubset(ended.strategies)
    return _judged(switch, ended.report, now_s, covers=covers)


def _judged(switch: Switch, report: StopReport, now_s: float, *, covers: bool) -> Step:
    """`covers` False: the call did not name all that were asked for, so it confirms nothing."""
    counted = replace(
        switch.status,
        open_orders=report.open_orders,
        open_positions=report.open_positions,
        protective_orders=report.protective_orders,
    )
    left = _left_open(report, switch.status.action)
    if left:
        return _unconfirmed(switch, counted, f"{left} still open", now_s)
    if not covers or switch.running or switch.rules.observing:
        return replace(switch, status=counted), ()
    was = switch.status.state
    switch, acts = _moved(switch, replace(counted, state="ENGAGED", problem=""))
    tells = () if was == "ENGAGED" else (TellConfirmed(),)
    return replace(switch, told_s=None), (*acts, *tells)


def _left_open(report: StopReport, action: KillAction | None) -> str:
    """The open orders and positions that this action must close; "": there are none."""
    left = []
    if action != "freeze" and report.open_orders:
        left.append(f"{report.open_orders} orders")
    if action == "flatten" and report.open_positions:
        left.append(f"{report.open_positions} positions")
    return " and ".join(left)


def _unconfirmed(switch: Switch, status: KillStatus, problem: str, now_s: float) -> Step:
    unconfirmed = replace(status, state="UNCONFIRMED", problem=problem)
    switch, acts = _moved(switch, unconfirmed)
    switch, tells = _told(switch, now_s)
    return switch, (*acts, *tells)


def _repeated(switch: Switch, now_s: float) -> Step:
    """Tell an engagement that was found, and again each minute that the stop is not confirmed."""
    acts: tuple[Act, ...] = (TellEngaged(),) if switch.untold else ()
    switch = replace(switch, untold=False)
    if switch.status.state != "UNCONFIRMED":
        return switch, acts
    switch, tells = _told(switch, now_s)
    return switch, (*acts, *tells)


def _told(switch: Switch, now_s: float) -> Step:
    if switch.told_s is not None and now_s - switch.told_s < REPEAT_S:
        return switch, ()
    return replace(switch, told_s=now_s), (TellUnconfirmed(),)


# -- durability


def _moved(switch: Switch, status: KillStatus) -> Step:
    """The switch with this status; the files follow when more than counts have changed."""
    before = switch.status
    switch = replace(switch, status=status)
    if (before.state, before.action, before.reason) == (
        status.state,
        status.action,
        status.reason,
    ):
        return switch, ()
    switch, commits = _committed(switch)
    return switch, (WriteMarker(), *commits)


def _committed(switch: Switch) -> Step:
    if switch.storing or switch.stored == switch.status:
        return switch, ()  # when a commit in flight ends, a later change is stored
    return replace(switch, storing=True), (Commit(),)


def _stored(switch: Switch, status: KillStatus, problem: str | None) -> Step:
    switch = replace(switch, storing=False)
    if problem is not None:
        return switch, ()  # tried again when a second has passed
    return _committed(replace(switch, stored=status))


def _released(switch: Switch) -> Step:
    off = Switch(
        rules=switch.rules,
        engagement=switch.engagement,
        stored=switch.stored,
        storing=switch.storing,
    )
    return _committed(off)
