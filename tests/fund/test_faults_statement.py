"""The broker's statement of each session, compared with the books of a whole fund."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fundops import Statement
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import Fill, StrategyStatus

D = Decimal
DAY = "2026-01-05"  # the first one of the virtual clock
NEXT = "2026-01-06"


class Engine(FakeController):
    """Counts the questions for the statement; `answer` may be anything."""

    def __init__(self) -> None:
        super().__init__(StrategyStatus("s", "running", equity=1000, allocated=1000))
        self.answer: Any = None
        self.asked = 0

    def statement(self) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class AsyncEngine(Engine):
    """As engines whose every part is a coroutine function."""

    async def statement(self) -> Any:  # type: ignore[override]
        return super().statement()


def fund(engine: Engine, **settings: Any) -> Any:
    return virtual_fund(engine, **{"ledger_enabled": True, **settings})


async def end_session(w: VirtualFund) -> tuple[str, ...]:
    w.clock.advance(86_400)
    return (await w.tick()).failed


def told(w: VirtualFund) -> list[tuple[str, str]]:
    return [(alert.level.value, alert.title) for alert in w.sent_alerts()]


def says(day: str, cash: Any, positions: Mapping[str, Any] | None = None) -> Statement:
    return Statement(day, cash, {} if positions is None else positions)


DIFFERS = ("CRITICAL", f"Books and the broker's statement of {DAY} differ")


@pytest.mark.parametrize("kind", [Engine, AsyncEngine])
async def test_the_statement_is_asked_once_at_each_sessions_end(kind: type[Engine]) -> None:
    engine = kind()
    async with fund(engine) as w:
        for _ in range(3):
            w.clock.advance(1)
            await w.tick()
        assert engine.asked == 0
        for number in (1, 2):
            engine.answer = says(DAY, 100_000)
            assert await end_session(w) == ()
            await w.tick()
            assert engine.asked == number
        assert told(w) == []


@pytest.mark.parametrize("kind", [Engine, AsyncEngine])
async def test_a_difference_is_one_critical_that_names_it(kind: type[Engine]) -> None:
    engine = kind()
    async with fund(engine) as w:
        engine.fill_list = [Fill("1", "s", "X", D(5), D(10), D(0), START_US, "1")]
        engine.answer = says(DAY, 99_000, {"X": 4, "Y": 1})
        for _ in range(3):
            assert await end_session(w) == ()
        assert told(w) == [DIFFERS]
        (alert,) = w.sent_alerts()
        assert alert.message == (
            f"books and statement differ on {DAY} and agreed on no day before: "
            "CASH: books 99950.00000000, statement 99000.00000000, difference +950.00000000; "
            "X: books 5.00000000, statement 4.00000000, difference +1.00000000; "
            "Y: books 0.00000000, statement 1.00000000, difference -1.00000000; 2 entries between"
        )


async def test_each_day_that_differs_is_told_until_one_agrees(tmp_path: Path) -> None:
    engine, path = Engine(), tmp_path / "x.db"
    async with fund(engine, db_path=path) as w:
        engine.answer = says("2026-01-04", 0)
        await end_session(w)
        engine.answer = says(DAY, 1)
        await end_session(w)
        assert told(w) == [DIFFERS]
        clock = w.clock
    async with fund(engine, db_path=path, clock=clock) as w:
        engine.answer = says(DAY, 2)  # the same day, told before this start
        await end_session(w)
        engine.answer = says(NEXT, 2)
        await end_session(w)
        texts = [alert.message for alert in w.sent_alerts()]
        assert [text.partition(":")[0] for text in texts] == [
            f"books and statement differ on {DAY} and agreed last on 2026-01-04",
            f"books and statement differ on {NEXT} and agreed last on 2026-01-04",
        ]
        engine.answer = says(NEXT, "100000")
        await end_session(w)  # text is no number
        engine.answer = says(NEXT, 100_000.0)
        await end_session(w)
        assert told(w)[2:] == [
            ("WARNING", "The broker's statement is set aside"),
            ("INFO", "The broker's statement can be read again"),
            *[("INFO", f"Books and the broker's statement agree on {NEXT}")] * 2,
        ]


def closed(w: VirtualFund) -> list[str]:
    return [title for level, title in told(w) if level == "INFO"]


@pytest.mark.parametrize("cash", [None, 99_950], ids=["nothing", "cash alone"])
async def test_a_statement_without_positions_ends_no_difference_of_them(
    cash: int | None, tmp_path: Path
) -> None:
    engine, path = Engine(), tmp_path / "x.db"
    engine.fill_list = [Fill("1", "s", "X", D(5), D(10), D(0), START_US, "1")]
    async with fund(engine, db_path=path) as w:
        engine.answer = says(DAY, 99_950, {"X": 4})
        await end_session(w)
        assert told(w) == [DIFFERS]
        clock = w.clock
    async with fund(engine, db_path=path, clock=clock) as w:
        engine.answer = Statement(NEXT, cash, None)
        await end_session(w)
        assert told(w) == [DIFFERS]
        engine.answer = says("2026-01-07", 99_950, {"X": 4})
        await end_session(w)
        assert " and agreed on no day before: X: " in w.sent_alerts()[1].message
        engine.answer = says("2026-01-08", 1, {"X": 5})
        await end_session(w)
        assert closed(w) == []
        engine.answer = Statement("2026-01-09", 99_950, None)
        await end_session(w)
        assert closed(w) == ["Books and the broker's statement agree on 2026-01-09"] * 3


async def test_a_broker_who_never_states_positions_ends_a_difference_of_cash() -> None:
    engine = Engine()
    async with fund(engine) as w:
        for day, cash in ((DAY, 1), (NEXT, 100_000)):
            engine.answer = Statement(day, cash, None)
            await end_session(w)
        assert told(w) == [DIFFERS, ("INFO", f"Books and the broker's statement agree on {NEXT}")]
        assert w.sent_alerts()[0].message.endswith(
            "; compared: cash of 1 day, positions of no days"
        )


async def test_none_says_nothing_and_cents_are_no_difference() -> None:
    engine = Engine()
    async with fund(engine) as w:
        await w.fund.ledger.record_profit("0.00499")
        for answer in (
            None,
            says(DAY, D("100000.00")),
            Statement(DAY, None, None),
            says(NEXT, 100_000),
        ):
            engine.answer = answer
            assert await end_session(w) == ()
        assert told(w) == []


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("99,000", "is not a Statement"),
        ([], "is not a Statement"),
        (says("5 January", 1), "day: '5 January' is not a date"),
        (says("2027-01-01", 1), "day: '2027-01-01' lies in the future"),
        (Statement(None, 1, None), "day: None is not a text"),  # type: ignore[arg-type]
        (says(DAY, "1"), "cash: '1' is text, not a number"),
        (says(DAY, float("nan")), "cash"),
        (says(DAY, 10**30), "cash"),
        (says(DAY, 1, {"X": None}), "positions of 'X': None is not a number"),
        (says(DAY, 1, {"": 1}), "positions"),
        (Statement(DAY, 1, [("X", 1)]), "positions"),  # type: ignore[arg-type]
        (RuntimeError("no line to the broker"), "no line to the broker"),
    ],
    ids=str,
)
async def test_a_wrong_statement_is_set_aside_and_named(answer: Any, text: str) -> None:
    engine = Engine()
    async with fund(engine) as w:
        engine.answer = answer
        for _ in range(2):
            assert await end_session(w) == ()
        (alert,) = w.sent_alerts()
        assert alert.level.value == "WARNING"
        assert text in alert.message
        engine.answer = says(DAY, 7)
        await end_session(w)
        assert told(w)[1:] == [("INFO", "The broker's statement can be read again"), DIFFERS]


async def test_without_a_ledger_no_statement_is_asked() -> None:
    engine = Engine()
    async with virtual_fund(engine, self_healing_enabled=True) as w:
        await end_session(w)
        assert engine.asked == 0
