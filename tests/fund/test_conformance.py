"""`check_controller`: a conformant controller has no fault, and each fault is a sentence."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
import trio
import trio.lowlevel

from fundops import CashEvent, FeedStatus, Fill, Settlement, StrategyStatus, conformance
from fundops.replay.engine import ReplayEngine
from fundops.replay.lineup import Strategy
from fundops.replay.rules import BuyAndHold
from fundops.runtime import SystemClock
from fundops.testing import FakeController, check_controller
from fundops.wire.controller import StopReport
from fundops.wire.ledger import Statement

ONE = Decimal(1)
AT_US = 1_767_571_200_000_000
SHORT_S = 0.05


def _fill(number: int, **changes: Any) -> Fill:
    facts: dict[str, Any] = {"cursor": str(number), "price": ONE} | changes
    return Fill(str(number), "a", "X", ONE, facts["price"], Decimal(0), AT_US, facts["cursor"])


def _engine(kind: type[FakeController] = FakeController) -> Any:
    engine = kind(StrategyStatus("a", "running"), StrategyStatus("b", "failed"))
    engine.feed_statuses = [FeedStatus("prices", None)]
    engine.fill_list = [_fill(1), _fill(2), _fill(3)]
    engine.settlement_list = [Settlement("s", "M", "a", ONE, ONE, cursor="1")]
    engine.cash_event_list = [CashEvent("c", "fee", -ONE, AT_US, cursor="1")]
    return engine


def _faults(**parts: Any) -> tuple[str, ...]:
    """Of a whole controller with these parts in the place of its own."""
    return check_controller(_with(parts))


def _faults_soon(**parts: Any) -> tuple[str, ...]:
    """As `_faults`, with a short deadline for parts that hang."""
    return check_controller(_with(parts), deadline_s=SHORT_S)


def _with(parts: dict[str, Any]) -> Any:
    methods = {name: part for name, part in parts.items() if callable(part)}
    return _engine(type("Engine", (FakeController,), methods))


@pytest.fixture(autouse=True)
def _no_thread_stays_behind() -> Iterator[None]:
    yield
    for thread in threading.enumerate():
        if thread.name == "fundops-check":
            thread.join(2)
            assert not thread.is_alive()


# -- conformant


def test_the_fake_controller_conforms() -> None:
    assert check_controller(FakeController()) == ()
    assert check_controller(_engine()) == ()
    assert check_controller(_engine(), runner="asyncio") == ()


def test_every_part_is_called_and_the_idempotent_ones_twice() -> None:
    engine = _engine()
    check_controller(engine)
    counts = {part: [call[0] for call in engine.calls].count(part) for part in _PARTS}
    assert counts["restart"] == 1
    assert min(count for part, count in counts.items() if part != "restart") >= 2
    assert {call[2] for call in engine.calls if call[0] == "stop_all"} == {
        *("freeze", "halt", "flatten")
    }
    assert [call[1] for call in engine.calls if call[0] == "restart"] == ["b"], "the failed one"
    assert {call[2:] for call in engine.calls if call[0] == "set_stage"} == {
        *(("paper", None), ("live-small", Decimal(1_000)))
    }
    assert engine.alive_until_us > SystemClock().now_us()


def test_an_emergency_stop_is_called_in_a_thread_of_its_own() -> None:
    threads = dict[str, set[threading.Thread]]()

    def note(part: str) -> list[FeedStatus]:
        threads.setdefault(part, set()).add(threading.current_thread())
        return []

    assert (
        _faults(
            emergency_stop=lambda self: note("emergency_stop"),
            feeds=lambda self: note("feeds"),
        )
        == ()
    )
    assert not threads["emergency_stop"] & threads["feeds"]


def test_a_keep_alive_that_raises_is_named() -> None:
    engine = _engine()
    engine.failures["keep_alive"] = RuntimeError("no venue")
    assert check_controller(engine) == ("keep_alive: it raised RuntimeError: no venue",)


_PARTS = ("restart", "pause", "resume", "stop", "stop_all", "set_stage", "emergency_stop")


class Plain:
    """Plain functions for every part."""

    def __init__(self) -> None:
        self.status = StrategyStatus("a", "running")

    def strategies(self) -> tuple[StrategyStatus, ...]:
        return (self.status,)

    def restart(self, name: str, *, attempt_id: str) -> None: ...
    def pause(self, name: str, reason: str) -> None: ...
    def resume(self, name: str) -> None: ...
    def stop(self, name: str, reason: str) -> None: ...
    def set_stage(self, name: str, stage: str, capital_cap: Decimal | None) -> None: ...
    def keep_alive(self, until_us: int) -> None: ...
    def emergency_stop(self) -> None: ...

    def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:
        return StopReport(0, 0)

    def feeds(self) -> list[FeedStatus]:
        return []

    def fills(self, after: str) -> Iterator[Fill]:
        yield from ()

    settlements = cash_events = fills

    def statement(self) -> None:
        return None


def test_a_controller_of_plain_functions_conforms() -> None:
    assert check_controller(Plain()) == ()


@pytest.mark.parametrize("runner", ["trio", "asyncio"])
def test_a_controller_of_coroutines_conforms_on_its_own_loop(runner: Any) -> None:
    def later(method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            await (trio if runner == "trio" else asyncio).sleep(0)
            return method(self, *args, **kwargs)

        return call

    plain = {name: part for name, part in vars(Plain).items() if not name.startswith("_")}
    parts = {name: later(part) for name, part in plain.items() if name != "emergency_stop"}
    assert check_controller(type("Later", (Plain,), parts)(), runner=runner) == ()


async def test_it_can_be_called_from_a_running_loop() -> None:
    assert check_controller(_engine()) == ()


def test_one_asyncio_loop_serves_the_whole_check() -> None:
    class Bound(FakeController):
        """Its lock belongs to the loop that used it first."""

        lock = asyncio.Lock()

        async def pause(self, name: str, reason: str) -> None:
            async with self.lock:
                await asyncio.sleep(0)

        async def stop(self, name: str, reason: str) -> None:
            await self.pause(name, reason)

    assert check_controller(_engine(Bound), runner="asyncio") == ()


def test_the_replay_engine_lacks_only_what_it_says() -> None:
    bars: dict[str, Any] = {}
    engine = ReplayEngine([Strategy("hold", "SPX", BuyAndHold())], bars, 0, 10**13, lambda: AT_US)
    assert check_controller(engine) == (
        "it has no settlements: settlements are not booked automatically",
        "it has no cash_events: cash events are not booked automatically",
        "it has no statement: the books are not compared with the broker's",
    )


# -- refused as a whole


def test_an_object_that_is_no_controller_is_one_sentence() -> None:
    (sentence,) = check_controller(object())
    assert "no part of a controller" in sentence
    (sentence,) = check_controller(FakeController)
    assert "FakeController is a class" in sentence
    (sentence,) = _faults(stop_all=lambda self: None)
    assert "cannot be called as stop_all(reason, action, strategies)" in sentence


def test_missing_parts_are_named_with_what_is_off() -> None:
    class Small:
        def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:
            return StopReport(0, 0)

        def pause(self, name: str, reason: str) -> None: ...

    assert check_controller(Small()) == (
        "it has no restart: failed strategies are not restarted",
        "it has no resume and stop: no strategy is paused at its limits, nor stopped",
        "it has no emergency_stop: an engine that does not react is stopped by the end of its"
        " leases alone",
        "it has no keep_alive: orders that a dead host leaves resting are not cancelled",
        "it has no set_stage: promotions are not put in force at the engine",
        "it has no feeds: stale feeds are not noticed",
        "it has no fills: fills are not booked automatically",
        "it has no settlements: settlements are not booked automatically",
        "it has no cash_events: cash events are not booked automatically",
        "it has no statement: the books are not compared with the broker's",
        "it has no strategies: the host must push its state with fund.report",
    )


def test_a_missing_stop_is_named_with_its_consequence() -> None:
    class Unstoppable:
        def strategies(self) -> list[StrategyStatus]:
            return []

    assert "it has no stop_all: only fund.report_stopped can confirm the kill switch" in (
        check_controller(Unstoppable())
    )


# -- one fault each


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda self: {}, "strategies: it answered a dict, not a list"),
        (lambda self: None, "strategies: it answered a NoneType, not a list"),
        (lambda self: [None], "strategies: item 1 is set aside: status: a NoneType is not a"),
        (
            lambda self: [StrategyStatus("a", "running", equity=float("nan"))],
            "strategies: item 1 is set aside: equity: nan is not between",
        ),
        (
            lambda self: [StrategyStatus("", "running")],
            "strategies: item 1 is set aside: name: '' is not a name",
        ),
        (
            lambda self: [StrategyStatus("a", "alive")],  # type: ignore[arg-type]
            "strategies: a reports the unknown state 'alive'",
        ),
        (
            lambda self: [StrategyStatus("a", "running", at_us=int(time.time()))],
            "strategies: item 1 is set aside: at_us: ",
        ),
        (
            lambda self: [StrategyStatus("a", "running", heartbeat_us=time.time_ns())],
            "strategies: item 1 is set aside: heartbeat_us: ",
        ),
        (
            lambda self: [StrategyStatus("a", "running")] * 2,
            "strategies: a is listed twice",
        ),
        (
            lambda self: [StrategyStatus(str(one), "running") for one in range(10_001)],
            "strategies: it lists 10001; at most 10000 are managed",
        ),
        (lambda self: 1 / 0, "strategies: it raised ZeroDivisionError: division by zero"),
        (lambda self: exit(), "strategies: it raised SystemExit"),
    ],
)
def test_a_fault_of_the_strategies_is_named(answer: Any, fault: str) -> None:
    assert any(sentence.startswith(fault) for sentence in _faults(strategies=answer))


def test_strategies_that_are_given_once_alone_are_named() -> None:
    class Once(FakeController):
        def strategies(self) -> list[StrategyStatus]:
            found, self.statuses = list(self.statuses.values()), {}
            return found

    assert "strategies: the second time it left out a, b" in check_controller(_engine(Once))


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (lambda self: "prices", "feeds: it answered a str, not a list"),
        (lambda self: [FeedStatus("", 1)], "feeds: item 1 is set aside: name: "),
        (lambda self: [FeedStatus("f", None)] * 2, "feeds: f is listed twice"),
        (lambda self: [FeedStatus("f", time.time_ns() // 10**6)], "feeds: f: last_data_us: "),
    ],
)
def test_a_fault_of_the_feeds_is_named(answer: Any, fault: str) -> None:
    (sentence,) = _faults(feeds=answer)
    assert sentence.startswith(fault)


@pytest.mark.parametrize(
    ("fills", "fault"),
    [
        ([_fill(1, price="1")], "fills: row 1 cannot be booked: price: '1' is text"),
        ([_fill(1), None], "fills: row 2 cannot be booked: report: None is not a Fill"),
        ([_fill(1), _fill(2, cursor="")], "fills: its last row has no cursor, so every tick"),
    ],
)
def test_a_row_that_cannot_be_booked_is_named(fills: Any, fault: str) -> None:
    sentences = _faults(fills=lambda self, after: [] if after else fills)
    assert any(sentence.startswith(fault) for sentence in sentences)


def test_a_cursor_that_gives_the_same_rows_again_is_named() -> None:
    rows = [_fill(1), _fill(2), _fill(3)]
    assert _faults(fills=lambda self, after: rows[max(0, int(after or 0) - 1) :]) == (
        "fills: after the cursor '1' it gives rows again that were before it",
        "fills: after the cursor '3' it gives rows again that were before it",
    )


def test_a_cursor_that_skips_rows_is_named() -> None:
    rows = [_fill(1), _fill(2), _fill(3)]
    assert _faults(fills=lambda self, after: rows[int(after or -1) + 1 :]) == (
        "fills: after the cursor '1' it leaves out rows that come after it",
    )


def test_rows_that_share_a_cursor_are_in_order() -> None:
    rows = [_fill(1), _fill(2, cursor="1"), _fill(3)]
    assert _faults(fills=lambda self, after: rows[{"": 0, "1": 2, "3": 3}[after] :]) == ()


@pytest.mark.parametrize("part", ["fills", "settlements", "cash_events"])
def test_reading_that_removes_rows_is_named(part: str) -> None:
    def once(self: Any, after: str) -> list[Any]:
        rows: list[Any] = vars(self).pop(f"{part[:-1]}_list", [])
        return rows

    assert _faults(**{part: once}) == (
        f"{part}: the same cursor gave other rows the second time; reading must remove none",
    )


@pytest.mark.parametrize("part", ["pause", "resume", "stop", "set_stage"])
def test_an_act_that_raises_the_second_time_is_named(part: str) -> None:
    done = set[Any]()

    async def once(self: Any, *args: Any) -> None:
        if args in done:
            raise ValueError("already done")
        done.add(args)

    assert _faults(**{part: once}) == (
        f"{part}: it raised ValueError: already done when it was called a second time",
    )


def test_acts_are_not_judged_by_a_strategy_that_does_not_exist() -> None:
    class Empty(FakeController):
        async def pause(self, name: str, reason: str) -> None:
            raise KeyError(name)

    assert check_controller(Empty()) == (
        "pause: it raised KeyError: 'check-controller'; it lists no strategy that could be named",
    )


def test_a_restart_that_returns_without_running_is_named() -> None:
    async def restart(self: Any, name: str, *, attempt_id: str) -> None: ...

    assert _faults(restart=restart) == ("restart: it returned, and b is failed, not running",)


def test_a_restart_may_refuse_but_not_be_unwritten() -> None:
    async def refuse(self: Any, name: str, *, attempt_id: str) -> None:
        raise RuntimeError("no credentials")

    async def unwritten(self: Any, name: str, *, attempt_id: str) -> None:
        raise NotImplementedError

    assert _faults(restart=refuse) == ()
    assert _faults(restart=unwritten) == ("restart: it raised NotImplementedError: ",)


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (Statement("2026-01-05", Decimal(1), {}), None),
        (Statement("5.1.2026", Decimal(1), {}), "statement: day:"),
        (Statement("2026-01-05", "much", {}), "statement: cash:"),  # type: ignore[arg-type]
        ("agreed", "statement: "),
    ],
)
def test_a_statement_that_is_wrong_is_named_by_its_field(statement: Any, fault: str | None) -> None:
    engine = _engine()
    engine.broker_statement = statement
    found = check_controller(engine, deadline_s=0.3)
    assert [text.startswith(fault or "") for text in found] == ([] if fault is None else [True])


def test_a_stop_that_leaves_an_order_open_is_named() -> None:
    engine = _engine()
    engine.open_orders = 1  # asked again until the deadline
    assert check_controller(engine, deadline_s=0.3) == (
        'stop_all: it leaves 1 order open under "halt"',
        'stop_all: it leaves 1 order open under "flatten"',
    )


def test_a_flatten_that_leaves_a_position_open_is_named_and_a_halt_may() -> None:
    engine = _engine()
    engine.open_positions = 2
    assert check_controller(engine, deadline_s=0.3) == (
        'stop_all: it leaves 2 positions open under "flatten"',
    )


def test_a_stop_that_counts_more_than_its_scope_is_named() -> None:
    """Orders of a paper strategy would keep a stop of real money unconfirmed without end."""

    class All(FakeController):
        async def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:
            if action != "freeze":
                self.open_orders = self.open_positions = 0
            return StopReport(self.open_orders, self.open_positions)

    engine = _engine(All)
    engine.open_orders, engine.open_positions = 1, 3
    assert check_controller(engine) == (
        "stop_all: it was given no strategy, and counts 1 order and 3 positions",
    )


def test_a_stop_that_takes_some_calls_conforms() -> None:
    class Slow(FakeController):
        async def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> StopReport:
            if action == "halt":
                self.open_orders = max(0, self.open_orders - 1)
            return StopReport(self.open_orders if strategies else 0, 0)

    engine = _engine(Slow)
    engine.open_orders = 3
    assert check_controller(engine) == ()


@pytest.mark.parametrize("answer", [None, (0, 0), StopReport(-1, 0)])
def test_a_stop_that_answers_no_report_is_named(answer: Any) -> None:
    (sentence,) = _faults(stop_all=lambda self, reason, action, strategies: answer)
    assert sentence.startswith("stop_all: ")


# -- deadlines and loops


async def _hang_trio(self: Any, *args: Any) -> None:
    await trio.sleep_forever()


def test_a_part_that_hangs_is_not_called_again() -> None:
    calls = 0

    async def hang(self: Any, name: str, stage: str, capital_cap: Decimal | None) -> None:
        nonlocal calls
        calls += 1
        await trio.sleep_forever()

    assert _faults_soon(set_stage=hang) == ("set_stage: it did not answer within 0.05 s",)
    assert calls == 1


def test_a_restart_and_a_stop_have_longer_than_other_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conformance, "CALL_DEADLINE_S", SHORT_S)

    class Slow(FakeController):
        async def restart(self, name: str, *, attempt_id: str) -> None:
            await trio.sleep(2 * SHORT_S)
            await super().restart(name, attempt_id=attempt_id)

        async def stop_all(self, reason: str, action: Any, strategies: Sequence[str]) -> StopReport:
            await trio.sleep(2 * SHORT_S)
            return await super().stop_all(reason, action, strategies)

        async def resume(self, name: str) -> None:
            await trio.sleep(2 * SHORT_S)

    assert check_controller(_engine(Slow)) == ("resume: it did not answer within 0.05 s",)


def test_a_coroutine_that_hangs_is_named_and_the_rest_is_checked() -> None:
    assert _faults_soon(pause=_hang_trio, feeds=lambda self: "x") == (
        "feeds: it answered a str, not a list",
        "pause: it did not answer within 0.05 s",
    )


def test_a_plain_function_that_blocks_is_named_and_the_rest_is_checked() -> None:
    assert _faults_soon(feeds=lambda self: time.sleep(0.5), stop=_hang_trio) == (
        "feeds: it did not answer within 0.05 s",
        "feeds: it cannot be ended, and would hold up what calls it",
        "stop: it did not answer within 0.05 s",
    )


def test_a_coroutine_that_hangs_on_asyncio_is_named() -> None:
    class Hung(FakeController):
        async def pause(self, name: str, reason: str) -> None:
            await asyncio.sleep(3600)

        def feeds(self) -> Any:
            time.sleep(0.5)

    assert check_controller(_engine(Hung), runner="asyncio", deadline_s=SHORT_S) == (
        "feeds: it did not answer within 0.05 s",
        "feeds: it cannot be ended, and would hold up what calls it",
        "pause: it did not answer within 0.05 s",
    )


def test_the_other_loop_is_proposed_when_the_error_shows_it() -> None:
    class OnAsyncio(FakeController):
        async def pause(self, name: str, reason: str) -> None:
            await asyncio.sleep(0.001)

    class OnTrio(FakeController):
        async def pause(self, name: str, reason: str) -> None:
            await trio.lowlevel.checkpoint()

    (sentence,) = check_controller(_engine(OnAsyncio))
    assert sentence.endswith('pass runner="asyncio"')
    assert check_controller(_engine(OnAsyncio), runner="asyncio") == ()
    (sentence,) = check_controller(_engine(OnTrio), runner="asyncio")
    assert sentence.endswith('pass runner="trio"')
