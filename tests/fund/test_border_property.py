"""Arbitrary objects at every border, beside one honest strategy that must keep all it has.

An engine, a venue or a caller may hand over anything: a wrong type, a figure that is no number, a
class whose methods raise. Each example opens a fund with real money, lets the wrong values in
through one border for some ticks, and compares the honest strategy with a run without them: its
lease at each tick, its bookings, its evidence for promotion. No actor may crash.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from copy import copy
from decimal import Decimal
from functools import cache, partial
from typing import Any, NamedTuple

import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec.structs import astuple
from trio.testing import MockClock

from fundops import ConfigError
from fundops.runtime import FOREIGN_ERRORS, ActorError, ChildStatus, FundopsError
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import (
    CashEvent,
    FeedStatus,
    Fill,
    Settlement,
    StopReport,
    StrategyState,
    StrategyStatus,
)
from fundops.wire.promotion import PromotionStage

D = Decimal
HONEST = "honest"
SILENT = object()  # in place of an answer: the call raises
DAY_S = 86_400
RIGHT_TICKS = 2  # without wrong values, at the end of each example
SETTINGS: dict[str, Any] = {
    "ledger_enabled": True,
    "promotion_enabled": True,
    "self_healing_enabled": True,
    "management_fee_bps": 0,
    "performance_fee_pct": 0,
}


# -- wrong values


class NoTruth:
    """As the answer of a comparison of two numpy arrays: neither true nor false."""

    def __bool__(self) -> bool:
        raise ValueError("the truth value is ambiguous")


BASES: dict[type, tuple[Any, ...]] = {
    object: (),
    str: ("text",),
    float: (1.5,),
    int: (7,),
    Decimal: ("1.5",),
    list: ([1],),
    dict: ({"a": 1},),
}
METHODS = (
    "__bool__",
    "__class__",
    "__eq__",
    "__float__",
    "__getattribute__",
    "__hash__",
    "__index__",
    "__iter__",
    "__len__",
    "__lt__",
    "__ne__",
    "__repr__",
    "__str__",
)
NONSENSE = (True, None, -1, "\ud800", "nan", float("nan"), 10**30, NoTruth(), str)


class Breach(NamedTuple):
    """A class of one base with one method that raises, or answers with nonsense."""

    base: type
    method: str
    answer: object  # an exception is raised

    def made(self) -> Any:
        def answered(*_: object) -> Any:
            if isinstance(self.answer, BaseException):
                raise self.answer
            return self.answer

        member: Any = property(answered) if self.method == "__class__" else answered
        return type("Hostile", (self.base,), {self.method: member})(*BASES[self.base])


class Indexed:
    """As numpy.int64: no subclass of int."""

    def __index__(self) -> int:
        return 7


class Floating:
    """As numpy.float32: no subclass of float."""

    def __float__(self) -> float:
        return 1.5


class OwnText(str):
    """As numpy.str_: a subclass of str."""


class OwnFloat(float):
    """As numpy.float64: a subclass of float."""


class OwnInt(int):
    """As an IntEnum or a pandas integer: a subclass of int."""


class Made(NamedTuple):
    """A value that is made anew for each use, since a generator can be read only once."""

    what: str
    make: Callable[[], Any]

    def __repr__(self) -> str:
        return self.what


def nested(depth: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(depth):
        inner = [inner]
    return inner


def loud(right: Any) -> Any:
    """A Struct whose fields raise when they are read."""

    def raising(self: object, field: str) -> Any:
        raise RuntimeError(f"{field} cannot be read")

    kind: Any = type("Loud", (type(right),), {"__getattribute__": raising})
    return kind(*astuple(right))


RIGHT: dict[type, Any] = {
    # Real money at the engine: its figures count in the NAV.
    StrategyStatus: StrategyStatus("junk", "running", stage="live"),
    FeedStatus: FeedStatus("junk", START_US),
    Fill: Fill("j", "junk", "J", D(1), D(1), D(0), START_US),
    Settlement: Settlement("j", "J", "junk", D(1), D(1)),
    CashEvent: CashEvent("j", "interest", D(1), START_US),
    StopReport: StopReport(0, 0),
}
PLAIN: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    7,
    1.5,
    -1.5,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e300,
    5e-324,
    10**30,
    -(10**30),
    2**63,
    1j,
    D("NaN"),
    D("sNaN"),
    D("-Infinity"),
    D("1e400"),
    D("1e-400"),
    D("1." + "1" * 300),
    "",
    " ",
    "junk",
    "1.5",
    "nan",
    "running",
    "live",
    "a\0b",
    "\0",
    "a\nb",
    "\ud800",
    "a\udfffb",
    "\U0010ffff",
    "x" * 129,
    b"\xff",
    bytearray(b"x"),
    (),
    [],
    [1, "x"],
    {},
    {"a": 1},
    {1: None},
    {"x": float("nan")},
    set(),
    object(),
    object,
    len,
    Ellipsis,
    NotImplemented,
    ValueError("\ud800"),
    Indexed(),
    Floating(),
    OwnText("junk"),
    OwnText("\ud800"),
    OwnFloat(1.5),
    OwnFloat("nan"),
    OwnInt(7),
    NoTruth(),
    range(3),
)
FRESH = (
    Made("a generator", lambda: (number for number in range(3))),
    Made("an iterator", lambda: iter([1])),
    Made("a huge integer", lambda: 10**5_000),  # too long to be shown
    Made("a long text", lambda: "x" * 100_000),
    Made("a deep list", partial(nested, 50_000)),
    *(Made(f"a {kind.__name__}", partial(copy, right)) for kind, right in RIGHT.items()),
    *(Made(f"a loud {kind.__name__}", partial(loud, right)) for kind, right in RIGHT.items()),
)
RAISED = (RuntimeError("no"), AttributeError("no"), SystemExit(3), ValueError("\ud800"))

breaches = st.builds(
    Breach,
    st.sampled_from(list(BASES)),
    st.sampled_from(METHODS),
    st.sampled_from(NONSENSE) | st.sampled_from(RAISED),
)
# Those that a product must meet first: what numbers and texts are asked for.
COMMON = [
    *(Breach(object, method, error) for method in ("__float__", "__index__") for error in RAISED),
    *(Breach(str, method, RAISED[0]) for method in ("__eq__", "__hash__", "__len__")),
    *(Breach(object, method, RAISED[0]) for method in ("__class__", "__repr__", "__str__")),
]
wrong_values = (
    st.sampled_from(PLAIN) | st.sampled_from(FRESH) | st.sampled_from(COMMON) | breaches | breaches
)


def made(recipe: Any) -> Any:
    """The value that a recipe stands for; any other object stands for itself."""
    if type(recipe) is Breach:
        return recipe.made()
    return recipe.make() if type(recipe) is Made else recipe


# -- the honest strategy and its fund


def honest_status(tick: int, state: StrategyState = "running") -> StrategyStatus:
    equity = 1000 + tick % 3
    return StrategyStatus(
        HONEST, state, equity, 1000, equity - 1000, 0, tick, tick // 2, "live-small", 1000
    )


def honest_fill(tick: int) -> Fill:
    return Fill(f"h{tick}", HONEST, "X", D(1), D(2), D("0.01"), START_US, str(tick))


class Engine(FakeController):
    """Has one honest strategy and its fills, and beside them what `beside` and `whole` hold."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = 0
        self.beside: dict[str, list[Any]] = {}  # by call: items of its answer
        self.whole: dict[str, Any] = {}  # by call: its answer
        self.stops = 0
        self.state: StrategyState = "running"

    def _answer(self, call: str, *honest: Any) -> Any:
        if call in self.whole:
            if self.whole[call] is SILENT:
                raise RuntimeError("the engine is busy")
            return self.whole[call]
        items = self.beside.get(call, [])
        half = len(items) // 2
        return [*items[:half], *honest, *items[half:]]

    def strategies(self) -> Any:
        return self._answer("strategies", honest_status(self.ticks, self.state))

    def feeds(self) -> Any:
        return self._answer("feeds", FeedStatus("prices", None, None))

    def fills(self, after: str) -> Any:
        return self._answer("fills", *map(honest_fill, range(1, self.ticks + 1)))

    def settlements(self, after: str) -> Any:
        return self._answer("settlements", Settlement("h", "M", HONEST, D(5), D(8)))

    def cash_events(self, after: str) -> Any:
        return self._answer("cash_events", CashEvent("h", "interest", D(2), START_US))

    async def stop_all(self, reason: str, action: Any, strategies: Sequence[str]) -> Any:
        self.stops += 1
        self.state = "stopped"
        return self.whole.get("stop_all", StopReport(0, 0))


class Pushing:
    """The honest engine of a host that pushes its state: it has no `strategies`."""

    def __init__(self, engine: Engine) -> None:
        self.fills = engine.fills
        self.settlements = engine.settlements
        self.cash_events = engine.cash_events
        self.stop_all = engine.stop_all


class Standing(NamedTuple):
    """All that the honest strategy has after some ticks."""

    positions: Any
    balance_sheet: dict[str, Decimal]
    balance: Decimal
    entries: list[str]
    evidence: Any


class Stage:
    """A running fund with an honest engine."""

    def __init__(self, world: VirtualFund, engine: Engine, *, pushes: bool) -> None:
        self.world = world
        self.fund = world.fund
        self.engine = engine
        self.pushes = pushes

    async def tick(self, *, leased: bool = True) -> tuple[str, ...]:
        """One tick, with a new honest fill and status; every second one ends a session."""
        self.engine.ticks += 1
        number = self.engine.ticks
        self.world.clock.advance(1)
        if self.pushes:
            self.fund.report(honest_status(number))
        session = None if number % 2 else f"2026-01-{5 + number // 2:02}"
        failed = (await self.world.tick(session)).failed
        assert self.fund.may_trade(HONEST) is leased, self.fund.entitlement(HONEST)
        assert [status for status in self.fund.host.heard().statuses if not is_sound(status)] == []
        return failed

    async def standing(self) -> Standing:
        ledger = self.fund.ledger
        snapshot = await self.fund.promotion.snapshot(HONEST)
        return Standing(
            await ledger.positions(strategy=HONEST),
            await ledger.balance_sheet(strategy=HONEST),
            sum((await ledger.trial_balance()).values(), D(0)),
            sorted(entry.key for entry in await ledger.entries(strategy=HONEST, limit=1_000)),
            (snapshot.stage, snapshot.rev, snapshot.metrics),
        )

    async def settle(self, *, leased: bool = True) -> None:
        """The engine is right again, and so must the fund be."""
        self.engine.beside.clear()
        self.engine.whole.clear()
        for _ in range(RIGHT_TICKS):
            failed = await self.tick(leased=leased)
        assert failed == ()
        assert list(crashes(self.fund.tree())) == []


def is_sound(status: StrategyStatus) -> bool:
    """Whether a status that was let in has exact types, finite figures and whole counts."""
    values = astuple(status)
    numbers = [value for value in values if type(value) in (int, float, Decimal)]
    return (
        {type(value) for value in values} <= {str, bool, int, float, Decimal, type(None)}
        and all(-(10**11) < number < 2**62 + 1 for number in numbers)
        and 0 <= status.n_wins <= status.n_trades
    )


def crashes(children: Sequence[ChildStatus]) -> Iterator[str]:
    for child in children:
        if child.restarts or child.last_crash:
            yield f"{child.name}: {child.last_traceback}"
        yield from crashes(child.children)


@asynccontextmanager
async def stage(*, pushes: bool = False) -> AsyncIterator[Stage]:
    engine = Engine()
    controller: Any = Pushing(engine) if pushes else engine
    async with virtual_fund(controller, **SETTINGS) as world:
        for name in (HONEST, "other"):
            await world.fund.promotion.adopt(
                name, PromotionStage.Live_Small, by="ann", reason="it trades"
            )
        play = Stage(world, engine, pushes=pushes)
        assert await play.tick() == ()
        yield play


def played(act: Callable[[], Awaitable[Any]]) -> Any:
    return trio.run(act, clock=MockClock(autojump_threshold=0))


@cache
def undisturbed(ticks: int, mute: bool = False) -> Standing:
    """What the honest strategy has after so many ticks without a wrong value.

    `mute`: the engine raises when it is asked for its strategies, as no answer counts the same as a
    wrong one.
    """

    async def run() -> Standing:
        async with stage() as play:
            while play.engine.ticks < ticks:
                if mute and play.engine.ticks < ticks - RIGHT_TICKS:
                    play.engine.whole["strategies"] = SILENT
                else:
                    play.engine.whole.clear()
                await play.tick()
            return await play.standing()

    found: Standing = played(run)
    assert found.balance == 0
    return found


def check(
    act: Callable[[Stage], Awaitable[None]], *, pushes: bool = False, mute: bool = False
) -> None:
    """Play an act of wrong values, and compare the honest strategy with a run without them."""

    async def run() -> tuple[int, Standing]:
        async with stage(pushes=pushes) as play:
            await act(play)
            await play.settle()
            return play.engine.ticks, await play.standing()

    ticks, standing = played(run)
    assert standing == undisturbed(ticks, mute)


SAMPLE = 5
MANY = 60  # wrong values of an example, where one costs little
EXAMPLES = [
    pytest.param(SAMPLE, id="sample"),
    pytest.param(600, id="many", marks=pytest.mark.soak),
]
any_number_of_examples = pytest.mark.parametrize("examples", EXAMPLES)


def explore(
    examples: int,
    wrongs: st.SearchStrategy[Any],
    act: Callable[[Stage, Any], Awaitable[None]],
    *,
    pushes: bool = False,
    mute: bool = False,
) -> None:
    """Play the act with many lists of wrong values: in a sample always the same ones."""

    def property_of(drawn: Any) -> None:
        check(lambda play: act(play, drawn), pushes=pushes, mute=mute)

    settings(
        max_examples=examples,
        phases=[Phase.generate] if examples == SAMPLE else [Phase.generate, Phase.shrink],
        derandomize=examples == SAMPLE,
        database=None,
        suppress_health_check=list(HealthCheck),
    )(given(wrongs)(property_of))()


def some(wrong: st.SearchStrategy[Any], *, most: int = 12) -> st.SearchStrategy[list[Any]]:
    # Opening the fund costs more than a wrong value, so an example has several.
    return st.lists(wrong, min_size=most // 2, max_size=most)


# -- reports of the engine


class Field(NamedTuple):
    """A Struct that is right but for one field."""

    right: Any
    field: str
    wrong: Any

    def made(self) -> Any:
        values = {name: getattr(self.right, name) for name in self.right.__struct_fields__}
        return type(self.right)(**{**values, self.field: made(self.wrong)})


def items_of(kind: type) -> st.SearchStrategy[Any]:
    """Items of an answer: no Struct of this kind, or one with a wrong field."""
    right = RIGHT[kind]
    fields = st.builds(
        Field, st.just(right), st.sampled_from(right.__struct_fields__), wrong_values
    )
    unreadable = st.just(Made(f"a loud {kind.__name__}", partial(loud, right)))
    return fields | fields | fields | fields | wrong_values | unreadable


def item(recipe: Any) -> Any:
    return recipe.made() if type(recipe) is Field else made(recipe)


@any_number_of_examples
def test_no_pushed_status_touches_the_honest_strategy(examples: int) -> None:
    async def act(play: Stage, wrongs: list[Any]) -> None:
        for first in range(0, len(wrongs), 10):
            for wrong in wrongs[first : first + 10]:
                with suppress(ConfigError):
                    play.fund.report(item(wrong))
            await play.tick()

    explore(examples, some(items_of(StrategyStatus), most=MANY), act, pushes=True)


LISTS: tuple[tuple[str, type], ...] = (
    ("strategies", StrategyStatus),
    ("feeds", FeedStatus),
    ("fills", Fill),
    ("settlements", Settlement),
    ("cash_events", CashEvent),
)


@any_number_of_examples
@pytest.mark.parametrize(("call", "kind"), LISTS)
def test_no_item_of_an_answer_touches_those_beside_it(examples: int, call: str, kind: type) -> None:
    async def act(play: Stage, wrongs: list[Any]) -> None:
        for few in (wrongs[::2], wrongs[1::2], wrongs):
            play.engine.beside[call] = [item(wrong) for wrong in few]
            assert await play.tick() == ()
            (held,) = await play.fund.ledger.positions(strategy=HONEST)
            assert held.quantity == play.engine.ticks

    explore(examples, some(items_of(kind), most=MANY), act)


def is_list(value: Any) -> bool:
    """Whether the value can be read as a list, hence is an answer."""
    try:
        tuple(value)
        return not isinstance(value, str | bytes | Mapping)
    except FOREIGN_ERRORS:
        return False


@any_number_of_examples
@pytest.mark.parametrize(("call", "kind"), LISTS)
def test_no_answer_as_a_whole_touches_the_honest_strategy(
    examples: int, call: str, kind: type
) -> None:
    async def act(play: Stage, wrongs: list[Any]) -> None:
        # Fewer ticks than make the host silent.
        for wrong in wrongs:
            play.engine.whole[call] = made(wrong)
            await play.tick()

    if call == "strategies":
        # A list without the honest one would say that it has left the engine.
        answers = wrong_values.filter(lambda recipe: not is_list(made(recipe)))
        explore(examples, some(answers, most=8), act, mute=True)
    else:
        explore(examples, some(wrong_values, most=8), act)


# -- the kill switch


async def released(play: Stage) -> None:
    play.engine.state = "running"  # as a person starts it again
    await play.fund.kill_switch.release(by="ann", reason="all is well", rearm="keep_peak")
    assert not (await play.fund.kill_switch.status()).reason


@any_number_of_examples
def test_no_answer_of_stop_all_confirms_or_crashes_the_kill_switch(examples: int) -> None:
    async def act(play: Stage, wrongs: list[Any]) -> None:
        play.engine.whole["stop_all"] = item(wrongs[0])
        assert (await play.fund.kill_switch.engage(reason="drill", by="ann")).state != "OFF"
        for wrong in wrongs:
            play.engine.whole["stop_all"] = item(wrong)
            assert await play.tick(leased=False) == ()
            state = (await play.fund.status()).kill_switch
            assert state != "OFF"
            assert state != "ENGAGED" or type(item(wrong)) is StopReport
            with suppress(ConfigError):
                play.fund.report_stopped(item(wrong))
        assert play.engine.stops
        await play.settle(leased=False)
        assert (await play.fund.kill_switch.status()).state == "ENGAGED"
        await released(play)

    explore(examples, some(items_of(StopReport), most=10), act)


@any_number_of_examples
def test_any_reason_and_name_engage_the_kill_switch_at_once(examples: int) -> None:
    async def act(play: Stage, wrongs: list[Any]) -> None:
        for reason, by, rearm in wrongs:
            stops = play.engine.stops
            status = await play.fund.kill_switch.engage(reason=made(reason), by=made(by))
            assert status.state == "ENGAGING"
            assert not play.fund.may_trade(HONEST)
            await trio.testing.wait_all_tasks_blocked()
            assert play.engine.stops == stops + 1
            status = await play.fund.kill_switch.status()
            assert (status.state, bool(status.reason), bool(status.by)) == ("ENGAGED", True, True)
            for words in ({"by": "ann", "reason": "r", "rearm": made(rearm)}, {"by": made(by)}):
                with suppress(FundopsError):
                    await play.fund.kill_switch.release(**{"reason": made(reason), **words})
                if (await play.fund.kill_switch.status()).state == "OFF":
                    await play.fund.kill_switch.engage(reason="again", by="ann")
            assert await play.tick(leased=False) == ()
            await released(play)

    explore(examples, some(st.tuples(wrong_values, wrong_values, wrong_values), most=4), act)


# -- words of people and programs


class Call(NamedTuple):
    """A call of a door with right arguments but for one or two."""

    door: str
    method: str
    right: dict[str, Any]
    wrong: dict[str, Any]

    async def made(self, play: Stage) -> None:
        door = getattr(play.fund, self.door) if self.door else play.fund
        arguments = self.right | {field: item(wrong) for field, wrong in self.wrong.items()}
        try:
            answer = getattr(door, self.method)(**arguments)
            if inspect.isawaitable(answer):
                await answer
        except ActorError as fault:
            raise AssertionError(f"{self.door}.{self.method}: {fault}") from fault
        except (FundopsError, ValueError, TypeError, LookupError):
            pass  # refused


NOW = START_US
WORDS: dict[str, Any] = {"by": "ann", "reason": "a drill"}
# Each method with arguments that are right. Those that would lock, stop or retire the honest
# strategy, when they hit it, name another one.
CALLS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("", "resume", {"strategy": "other", "by": "ann"}),
    ("", "confirm_counters", {"strategy": "other", **WORDS}),
    ("", "confirm_clock", WORDS),
    ("", "nav_history", {"limit": 5}),
    ("", "tick", {"session": None}),
    ("alerts", "recent", {"limit": 5}),
    ("recovery", "reset", {"name": "other", "by": "ann"}),
    ("recovery", "hold", {"name": "other", "by": "ann"}),
    ("recovery", "release", {"name": "other", "by": "ann"}),
    ("recovery", "event_history", {"limit": 5}),
    ("promotion", "register", {"strategy_name": "new", "initial_stage": None, "budget": 5}),
    ("promotion", "adopt", {"name": "new", "stage": None, "budget": 5, **WORDS}),
    ("promotion", "evaluate", {"strategy_id": "other"}),
    ("promotion", "should_promote", {"strategy_id": "other"}),
    ("promotion", "promote", {"strategy_id": "other", "to": None, "expected_rev": 1, **WORDS}),
    ("promotion", "demote", {"strategy_id": "other", "to": None, "expected_rev": 9, **WORDS}),
    ("promotion", "freeze", {"strategy_id": "other", **WORDS}),
    ("promotion", "unfreeze", {"strategy_id": "other", **WORDS}),
    ("promotion", "snapshot", {"strategy_id": "other"}),
    ("promotion", "history", {"strategy_id": "other", "limit": 5}),
    ("ledger", "balance_sheet", {"as_of": None, "strategy": "other", "asset": None}),
    ("ledger", "income_statement", {"start": None, "end": None, "strategy": "other"}),
    ("ledger", "nav", {"as_of": NOW, "strategy": "other"}),
    ("ledger", "entries", {"account": "CASH", "strategy": "other", "kind": "fill", "limit": 5}),
    ("ledger", "entries", {"after_seq": 3, "key": "k", "day": "2026-01-05", "instrument": "X"}),
    ("ledger", "entries_after", {"seq": 0, "limit": 5}),
    ("ledger", "positions", {"as_of": NOW, "strategy": "other"}),
    ("ledger", "lots", {"strategy": "other", "instrument": "X"}),
    ("ledger", "realized", {"start": NOW, "end": NOW, "by": "strategy"}),
    ("ledger", "prices", {"as_of": NOW}),
    ("ledger", "reconcile", {"statements": [], "tolerance": 1}),
    ("ledger", "recent_entries", {"limit": 5}),
    ("ledger", "skip_report", {"key": "k", **WORDS}),
)
METRICS = {
    "strategy_id": "other",
    "stage": PromotionStage.Live_Small,
    "metrics": {"sharpe": 1.5},
    "as_of": None,
    "source": "",
}
ALERT = {
    "level": "INFO",
    "category": "GENERAL",
    "title": "a title",
    "message": "a message",
    "strategy": "other",
    "dedup_key": "key",
}
EVENT: dict[str, Any] = {"key": None, "strategy": "other", "at": NOW, "memo": ""}
EVENTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("deposit", {"amount": 1}),
    ("withdraw", {"amount": 1}),
    ("record_profit", {"amount": 1}),
    ("record_loss", {"amount": 1}),
    ("open_position", {"instrument": "O", "quantity": 1, "cost": 1, "fee": 0}),
    ("close_position", {"instrument": "O", "quantity": 1, "proceeds": 1, "fee": 0}),
    ("mark", {"instrument": "O", "value": 1}),
    ("settle", {"market": "O", "payoff": 1}),
    ("charge_management_fee", {"amount": 1}),
    ("pay_fees", {"amount": 1}),
    ("income", {"amount": 1}),
    ("financing", {"amount": 1}),
    ("reverse", {"seq": 1}),
    ("post", {"entry": []}),
)


def wrong_calls(*methods: tuple[str, str, dict[str, Any]]) -> st.SearchStrategy[Call]:
    """Calls with one or two wrong arguments."""

    def of(chosen: tuple[str, str, dict[str, Any]]) -> st.SearchStrategy[Call]:
        door, method, right = chosen
        wrong = st.dictionaries(st.sampled_from(list(right)), wrong_values, min_size=1, max_size=2)
        return st.builds(Call, st.just(door), st.just(method), st.just(right), wrong)

    return st.sampled_from(methods).flatmap(of)


async def call_all(play: Stage, wrongs: list[Call]) -> None:
    for wrong in wrongs:
        await wrong.made(play)
    assert await play.tick() == ()


@any_number_of_examples
def test_no_argument_of_a_question_or_an_order_crashes_an_actor(examples: int) -> None:
    explore(examples, some(wrong_calls(*CALLS), most=100), call_all)


@any_number_of_examples
def test_no_recorded_metric_touches_the_evidence_of_another(examples: int) -> None:
    values = wrong_values | st.dictionaries(
        st.sampled_from(("sharpe", "n_trades", "max_drawdown_pct", "\ud800", "")), wrong_values
    )
    wrongs = st.dictionaries(st.sampled_from(list(METRICS)), values, min_size=1, max_size=2)
    explore(
        examples,
        some(
            st.builds(Call, *map(st.just, ("promotion", "record_metrics", METRICS)), wrongs),
            most=MANY,
        ),
        call_all,
    )


@any_number_of_examples
def test_no_alert_of_a_caller_crashes_an_actor(examples: int) -> None:
    explore(examples, some(wrong_calls(("alerts", "send", ALERT)), most=30), call_all)


@any_number_of_examples
def test_no_event_of_a_caller_unbalances_the_books(examples: int) -> None:
    methods = [("ledger", method, right | EVENT) for method, right in EVENTS]
    explore(examples, some(wrong_calls(*methods), most=MANY), call_all)
