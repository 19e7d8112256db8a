"""The ledger actor on the real database: durable before answered, once per key, crash-proof."""

import hashlib
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
import trio
from trio.testing import MockClock

from fundops.actors.ledger import LedgerActor
from fundops.actors.ledger.keys import fill_prefix
from fundops.actors.persistence import PersistenceActor, Reader, commit_batch
from fundops.file.database import MIGRATIONS
from fundops.runtime import (
    Actor,
    ActorCrashed,
    ChildSpec,
    InlineWorker,
    Rejected,
    Supervisor,
    VirtualClock,
    Worker,
    handles,
    open_supervisor,
)
from fundops.wire.alert import AlertsWaiting
from fundops.wire.controller import Fill, Settlement
from fundops.wire.errors import (
    AlreadyReversed,
    AmountError,
    BadField,
    ConstraintFailed,
    IdempotencyConflict,
    InsufficientFunds,
    LedgerDegraded,
    LedgerFailed,
    OutcomeUnknown,
    PositionMismatch,
    StorageDegraded,
    StorageFailed,
)
from fundops.wire.ledger import (
    BalanceSheet,
    Booked,
    BookFills,
    BookSettlements,
    CashFlow,
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePeriod,
    ClosePosition,
    Correct,
    Deposit,
    Entries,
    Event,
    IncomeStatement,
    LedgerTotals,
    Leg,
    Mark,
    NavPerUnit,
    NetAssetValue,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    Post,
    Posted,
    PostMany,
    ReadTotals,
    RecentEntries,
    RecordLoss,
    RecordProfit,
    Reverse,
    Settle,
    TrialBalance,
    Withdraw,
)
from fundops.wire.money import MINOR_MAX, from_minor
from fundops.wire.persistence import Commit

START_US = 1_700_000_000_000_000
GOLDEN: tuple[Event, ...] = (
    Deposit(100_000),
    RecordProfit(2_000),
    RecordLoss(500),
    Withdraw(1_500),
    OpenPosition("AAPL", 50, 5_000),
    ChargeManagementFee(200),
    ChargePerformanceFee(100),
)
NO_STRATEGY: Any = None  # a host may report a fill so, against the declared type


class Storage(PersistenceActor):
    """The real one, until the mood has another answer; with `lands` the commit happens even so."""

    def __init__(self, path: Path, mood: "Mood") -> None:
        super().__init__(path, MIGRATIONS, make_worker=lambda: mood.worker)
        self._mood = mood
        mood.worker = SlowWorker(mood)

    async def commit(self, requests: list[Commit]) -> list[Any]:
        refusal = self._mood.refusal
        if refusal is None or not any(request.statements for request in requests):
            return list(await super().commit(requests))
        if self._mood.lands:
            await super().commit(requests)
        return [refusal] * len(requests)


class Mood:
    refusal: Rejected | None = None
    lands = False
    delay_s = 0.0
    worker: "SlowWorker"


class SlowWorker(InlineWorker):
    """Takes its time before a commit."""

    def __init__(self, mood: Mood) -> None:
        super().__init__()
        self._mood = mood

    async def run(self, call: Callable[[], Any]) -> Any:
        if isinstance(call, partial) and call.func is commit_batch:
            await trio.sleep(self._mood.delay_s)
        return await super().run(call)


class Bell(Actor):
    """In the alert actor's place: counts how often it is woken."""

    rung = 0

    @handles(AlertsWaiting)
    def ring(self, _: AlertsWaiting) -> None:
        type(self).rung += 1


class Tree:
    """A running ledger."""

    def __init__(self, supervisor: Supervisor, mood: Mood) -> None:
        self.supervisor = supervisor
        self.mood = mood
        self.ledger = supervisor.ref("ledger")

    async def post(self, *events: Event) -> Posted:
        for event in events:
            posted = await self.ledger.ask(event, timeout_s=60)
        return posted

    async def sheet(self) -> dict[str, Decimal]:
        return await self.ledger.ask(BalanceSheet())

    async def totals(self) -> LedgerTotals:
        return await self.ledger.ask(ReadTotals())

    async def at_once(self, requests: Sequence[Any]) -> list[Any]:
        """The answer or refusal of each, all of them asked at the same time."""
        answers: list[Any] = [None] * len(requests)

        async def ask(number: int) -> None:
            try:
                answers[number] = await self.ledger.ask(requests[number])
            except Exception as refusal:  # noqa: BLE001  it is the result
                answers[number] = refusal

        async with trio.open_nursery() as nursery:
            for number in range(len(requests)):
                nursery.start_soon(ask, number)
        return answers


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "fund.db"


@asynccontextmanager
async def opened(
    path: Path, *, alerts: bool = False, make_worker: Callable[[], Worker] = InlineWorker
) -> AsyncIterator[Tree]:
    mood, clock = Mood(), VirtualClock(START_US)
    Bell.rung = 0
    children = [
        ChildSpec("persistence", lambda: Storage(path, mood)),
        *([ChildSpec("alert", Bell)] if alerts else []),
        ChildSpec("ledger", lambda: LedgerActor(path, clock, "USD", make_worker=make_worker)),
    ]
    async with open_supervisor(children) as supervisor:
        yield Tree(supervisor, mood)


def rows(path: Path, sql: str) -> list[Any]:
    with Reader(path) as reader:
        return reader.rows(sql)


def count(path: Path) -> int:
    return int(rows(path, "SELECT count(*) FROM entry")[0][0])


def audited(path: Path) -> int:
    """Recompute all derived tables from the payloads, independently of the ledger."""
    head = bytes(32)
    balances: dict[tuple[str, str, str], int] = defaultdict(int)
    lots: dict[tuple[str, str, int], tuple[int, int, int]] = {}
    postings = []
    entries = rows(path, "SELECT seq, key, kind, payload, hash FROM entry ORDER BY seq")
    for number, (seq, key, kind, payload, stored) in enumerate(entries, start=1):
        head = hashlib.sha256(head + payload.encode()).digest()
        entry = json.loads(payload)
        assert (seq, stored) == (number, head)
        assert (entry["seq"], entry["key"], entry["kind"]) == (seq, key, kind)
        for leg, (account, strategy, asset, amount) in enumerate(entry["legs"]):
            balances[account, strategy or "", asset] += amount
            postings.append((seq, leg, account, strategy, asset, amount))
        for strategy, instrument, lot, *image in entry["lots"]:
            lots[strategy or "", instrument, lot] = (image[0], image[1], image[2])
    assert sum(balances.values()) == 0
    assert {row[:3]: row[3] for row in rows(path, "SELECT * FROM balance")} == balances
    assert {row[:3]: row[3:] for row in rows(path, "SELECT * FROM lot")} == {
        k: v for k, v in lots.items() if v[0]
    }
    assert rows(path, "SELECT * FROM posting ORDER BY entry, leg") == postings
    return len(entries)


# -- reports


async def test_the_golden_script_gives_both_examples_of_the_documentation(path: Path) -> None:
    async with opened(path) as tree:
        await tree.post(*GOLDEN)
        sheet = {
            "CASH": 95_000,
            "POSITIONS": 5_000,
            "FEES_RECEIVABLE": -300,
            "MANAGEMENT_FEES": 200,
            "PERFORMANCE_FEES": 100,
            "REALIZED_PNL": -1_500,
            "UNREALIZED_PNL": 0,
        }
        assert await tree.sheet() == sheet
        assert await tree.ledger.ask(IncomeStatement()) == {
            "REALIZED_PNL": 1_500,
            "UNREALIZED_PNL": 0,
            "MANAGEMENT_FEES": -200,
            "PERFORMANCE_FEES": -100,
        }
        assert await tree.ledger.ask(TrialBalance()) == {**sheet, "EXTERNAL": -98_500}
        totals = await tree.totals()
        assert (totals.nav_minor, totals.external_minor, totals.fees_minor, totals.entries) == (
            99_700 * 10**8,
            98_500 * 10**8,
            300 * 10**8,
            7,
        )
        await tree.post(Mark("AAPL", 5_250))
        assert (await tree.totals()).nav_minor == 99_950 * 10**8
        (position,) = (await tree.totals()).positions
        assert (position.instrument, position.quantity, position.cost, position.value) == (
            "AAPL",
            Decimal(50),
            Decimal(5_000),
            Decimal(5_250),
        )
    assert audited(path) == 8


async def test_recent_entries_come_newest_first_and_only_as_many_as_asked_for(path: Path) -> None:
    async with opened(path) as tree:
        posted = [await tree.post(event) for event in GOLDEN]
        recent = await tree.ledger.ask(RecentEntries(3))
        assert [one.seq for one in recent] == [7, 6, 5]
        assert [one.kind for one in recent] == [
            "performance_fee",
            "management_fee",
            "open_position",
        ]
        assert [one.hash for one in recent] == [one.hash for one in posted[:-4:-1]]
        assert [(leg.account, leg.amount, leg.asset) for leg in recent[0].legs] == [
            ("PERFORMANCE_FEES", 100, "USD"),
            ("FEES_RECEIVABLE", -100, "USD"),
        ]
        assert len(await tree.ledger.ask(RecentEntries())) == 7
        assert await tree.ledger.ask(RecentEntries(0)) == ()
        with pytest.raises(ValueError, match="limit"):
            await tree.ledger.ask(RecentEntries(-1))


# -- idempotency


async def test_the_same_key_and_content_gives_the_first_entry_again(path: Path) -> None:
    async with opened(path) as tree:
        first = await tree.post(Deposit(5, key="k"))
        again = await tree.post(Deposit("5.0", key="k"))
        assert (first.replayed, again.replayed) == (False, True)
        assert (again.seq, again.key, again.hash) == (first.seq, "k", first.hash)
        assert count(path) == 1
    async with opened(path) as tree:
        assert (await tree.post(Deposit(5, key="k"))).replayed
        assert (await tree.sheet())["CASH"] == 5
    assert audited(path) == 1


async def test_the_same_key_with_other_content_is_a_conflict_that_names_the_entry(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(5, key="k"))
        for other in (Deposit(6, key="k"), Withdraw(5, key="k"), Deposit(5, key="k", memo="5")):
            with pytest.raises(IdempotencyConflict) as conflict:
                await tree.post(other)
            assert (conflict.value.key, conflict.value.seq) == ("k", 1)
        assert (await tree.sheet())["CASH"] == 5


async def test_one_key_twice_in_one_batch_is_booked_once(path: Path) -> None:
    async with opened(path) as tree:
        requests = [Deposit(5, key="k"), Deposit(5, key="k"), Deposit(6, key="k")]
        answers = await tree.at_once(requests)
        fives = [one for one in answers if isinstance(one, Posted)]
        assert sorted(one.replayed for one in fives) in ([False, True], [False])
        assert sum(isinstance(one, IdempotencyConflict) for one in answers) in (1, 2)
        assert count(path) == 1


async def test_one_key_twice_in_post_many_is_booked_once_or_refused_whole(path: Path) -> None:
    async with opened(path) as tree:
        posted = await tree.ledger.ask(
            PostMany((Deposit(5, key="k"), Deposit(5, key="k"), Deposit(1)))
        )
        assert [(one.seq, one.replayed) for one in posted] == [(1, False), (1, True), (2, False)]
        with pytest.raises(IdempotencyConflict):
            await tree.ledger.ask(PostMany((Deposit(2, key="n"), Deposit(3, key="n"))))
        assert not (await tree.post(Deposit(3, key="n"))).replayed
        assert (await tree.sheet())["CASH"] == 9
    assert audited(path) == 3


async def test_a_rejection_does_not_consume_the_key(path: Path) -> None:
    async with opened(path) as tree:
        with pytest.raises(InsufficientFunds):
            await tree.post(Withdraw(5, key="k"))
        await tree.post(Deposit(5))
        assert not (await tree.post(Withdraw(5, key="k"))).replayed


async def test_no_key_means_a_fresh_one_each_time(path: Path) -> None:
    async with opened(path) as tree:
        keys = {(await tree.post(Deposit(5))).key for _ in range(3)}
        assert len(keys) == 3
        assert (await tree.sheet())["CASH"] == 15


# -- all or nothing


async def test_post_many_books_all_or_nothing(path: Path) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(10))
        with pytest.raises(InsufficientFunds):
            await tree.ledger.ask(PostMany((Deposit(5), OpenPosition("X", 1, 3), Withdraw(13))))
        assert (await tree.sheet())["CASH"] == 10
        assert (await tree.totals()).positions == ()
        posted = await tree.ledger.ask(
            PostMany((Deposit(5), OpenPosition("X", 1, 3), Withdraw(12)))
        )
        assert [one.seq for one in posted] == [2, 3, 4]
        assert await tree.ledger.ask(PostMany(())) == ()
    assert audited(path) == 4


async def test_a_refusal_in_a_batch_leaves_the_others_alone(path: Path) -> None:
    async with opened(path) as tree:
        requests = [
            Deposit(1, key="a"),
            Deposit(float("nan")),
            PostMany((Deposit(100), Withdraw(1_000))),
            Deposit(1, key="b"),
            Reverse(2**70, "none"),
            Deposit(1, at_us=10**30),
            Deposit(1, key="\ud800"),
            Deposit(1, key="a", memo="\ud800"),
        ]
        answers = await tree.at_once(requests)
        assert [type(one) is Posted for one in answers] == [True, False, False, True] + [False] * 4
        assert [type(answers[1]), type(answers[2])] == [AmountError, InsufficientFunds]
        assert all(isinstance(one, Rejected) for one in answers if not isinstance(one, Posted))
        assert tree.ledger.epoch == 1
        assert (await tree.sheet())["CASH"] == 2
    assert audited(path) == 2


async def test_a_key_given_twice_in_one_request_names_no_entry_since_there_is_none(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(1, key="old"))
        for key, seq in (("new", None), ("old", 1)):
            with pytest.raises(IdempotencyConflict) as conflict:
                await tree.ledger.ask(PostMany((Deposit(5, key="new"), Deposit(6, key=key))))
            assert (conflict.value.key, conflict.value.seq) == (key, seq)
        assert "another event of this request" in str(IdempotencyConflict("new", None))
        with pytest.raises(
            AlreadyReversed, match=r"^entries\[2\]: .*another event of this request"
        ) as reversed_twice:
            await tree.ledger.ask(PostMany((Deposit(5), Reverse(1, "no"), Reverse(1, "no"))))
        assert (reversed_twice.value.seq, reversed_twice.value.by) == (1, None)
        await tree.post(Reverse(1, "yes"))
        with pytest.raises(AlreadyReversed, match=r"^entries\[0\]: .*by entry 2"):
            await tree.ledger.ask(PostMany((Reverse(1, "no"),)))
    assert audited(path) == 2


async def test_the_refusal_of_one_of_many_says_which(path: Path) -> None:
    async with opened(path) as tree:
        for number in (0, 1_023, 1_500):
            events: list[Any] = [RecordProfit(1) for _ in range(2_000)]
            events[number] = RecordProfit(-1)
            with pytest.raises(
                AmountError, match=rf"^entries\[{number}\]: amount: -1 must be greater"
            ) as refused:
                await tree.ledger.ask(PostMany(tuple(events)))
            assert refused.value.field == "amount"


async def test_more_than_can_be_booked_in_time_is_refused_before_it_is_begun(path: Path) -> None:
    async with opened(path) as tree:
        with pytest.raises(BadField, match="100,001 are more than 100,000 at once"):
            await tree.ledger.ask(PostMany((RecordProfit(1),) * 100_001))
        assert await tree.ledger.ask(RecentEntries()) == ()


FULL, HALF = from_minor(MINOR_MAX), from_minor(MINOR_MAX // 2)


LONG_AGO_US = 631_238_400_000_000  # 1990-01-02


@pytest.mark.parametrize(
    ("there", "back", "times"),
    [
        (RecordLoss(FULL), RecordProfit(FULL), 1),  # 2^63 of debit does not fit, of credit it does
        (
            Post((Leg("CASH", HALF), Leg("TRADING_FEES", HALF), Leg("EXTERNAL", -FULL))),
            Post((Leg("CASH", -HALF), Leg("TRADING_FEES", -HALF), Leg("EXTERNAL", FULL))),
            2,
        ),
    ],
    ids=["debits", "credits"],
)
async def test_what_no_column_can_hold_is_refused_alone_and_crashes_nobody(
    path: Path, there: Event, back: Event, times: int
) -> None:
    past = msgspec.structs.replace(there, at_us=LONG_AGO_US)
    async with opened(path) as tree:
        for day in range(1, 1 + times):  # all is as before, but not on that day
            await tree.post(
                past, msgspec.structs.replace(back, at_us=LONG_AGO_US + day * 86_400_000_000)
            )
        named = msgspec.structs.replace(past, key="past")
        others = [RecordProfit(1, key=f"k{number}") for number in range(9)]
        answers = await tree.at_once([*others[:4], named, *others[4:]])
        assert [type(one) for one in answers] == [Posted] * 4 + [AmountError] + [Posted] * 5
        assert "1990-01-02" in str(answers[4])
        with pytest.raises(AmountError):
            await tree.ledger.ask(PostMany((RecordProfit(2, key="c"), named)))
        assert tree.ledger.epoch == 1
        assert not (
            await tree.post(RecordLoss(1, key="past"))
        ).replayed  # a refusal does not consume the key
    assert audited(path) == 2 * times + 10


class HeldWorker(InlineWorker):
    """Counts its calls, and holds them up until `may_go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.may_go = trio.Event()
        self.may_go.set()

    async def run(self, call: Callable[[], Any]) -> Any:
        self.calls += 1
        await self.may_go.wait()
        return await super().run(call)


@pytest.mark.parametrize("kind", [RecordProfit, Deposit], ids=["moves", "deposits"])
async def test_a_long_run_is_worked_on_in_the_thread(
    path: Path, kind: type[RecordProfit] | type[Deposit]
) -> None:
    worker = HeldWorker()
    async with opened(path, make_worker=lambda: worker) as tree:
        events = tuple(kind(1, key=f"k{number}") for number in range(1_025))
        assert [one.seq for one in await tree.ledger.ask(PostMany(events[:-1]))] == list(
            range(1, 1_025)
        )
        assert worker.calls == 0
        answers = await tree.ledger.ask(PostMany(events))
        assert [one.replayed for one in answers] == [True] * 1_024 + [False]
        assert worker.calls == 3  # decided, made into rows, answered
        with pytest.raises(AmountError):
            await tree.ledger.ask(PostMany((*(kind(1) for _ in range(1_024)), kind("x"))))
        await tree.ledger.ask(BookFills(tuple(fill(number, "1") for number in range(1_025))))
        assert (
            worker.calls == 8
        )  # of the refused run: decided, made into no rows, answered; two of the fills
        assert (await tree.sheet())["CASH"] == 1_025 - 1_025 * 10
    assert audited(path) == 2_050


@pytest.mark.parametrize(
    "long",
    [
        Post(
            tuple(
                Leg("CASH" if number else "EXTERNAL", 1 if number else -1_024)
                for number in range(1_025)
            )
        ),
        OpeningBalances(
            0, positions=tuple(OpeningPosition(f"X{number}", 1, 1) for number in range(1_025))
        ),
        PostMany(tuple(Mark("X", 10) for _ in range(4))),
        PostMany(tuple(OpenPosition("Y", 1, 1) for _ in range(50))),
        BookFills(
            tuple(
                Fill(f"g{n}", "mm", "X", Decimal(1), Decimal(1), Decimal(0), START_US)
                for n in range(4)
            )
        ),
        BookSettlements(
            tuple(Settlement(f"s{n}", "m", "mm", Decimal(1), Decimal(2), 0, "") for n in range(65))
        ),
        Settle("X", 5),
        ClosePosition("X", 1, 1),
        Reverse(1, "who knows how long it is"),
        Correct(1, RecordProfit(5), "it neither"),
        ClosePeriod("2020-01-01"),
        ReadTotals(),
        BalanceSheet(as_of="2030-01-01"),
        BalanceSheet(strategy="mm"),
        TrialBalance(asset="EUR"),
        NetAssetValue(as_of=START_US),
        NavPerUnit(),
        IncomeStatement(start="2020-01-01"),
        CashFlow(),
        Entries(kind="mark"),
        RecentEntries(1),
    ],
    ids=lambda request: type(request).__name__,
)
async def test_long_work_leaves_the_loop_to_other_actors(path: Path, long: Any) -> None:
    worker = HeldWorker()
    async with opened(path, alerts=True, make_worker=lambda: worker) as tree:
        if not isinstance(long, OpeningBalances):
            await tree.post(Deposit(10_000))
            await tree.ledger.ask(PostMany(tuple(OpenPosition("X", 1, 1) for _ in range(1_025))))
        worker.calls, worker.may_go = 0, trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tree.at_once, [long])
            await trio.testing.wait_all_tasks_blocked()
            assert worker.calls == 1
            await tree.supervisor.ref("alert").tell(AlertsWaiting())
            await trio.testing.wait_all_tasks_blocked()
            assert Bell.rung == 1
            worker.may_go.set()
        assert tree.ledger.epoch == 1
    audited(path)


async def test_short_work_stays_on_the_loop(path: Path) -> None:
    worker = HeldWorker()
    async with opened(path, make_worker=lambda: worker) as tree:
        await tree.post(
            *GOLDEN, Mark("AAPL", 5_250), ClosePosition("AAPL", 1, 1), Settle("AAPL", 5)
        )
        await tree.ledger.ask(BookFills((fill(1, "1"),)))
        await tree.ledger.ask(BookSettlements((settlement("s", "1", "2"),)))
        await tree.totals()
        await tree.sheet()
        assert worker.calls == 0
    assert worker._stopped


async def test_each_life_ends_its_thread(path: Path) -> None:
    lives: list[HeldWorker] = []

    def another() -> HeldWorker:
        lives.append(HeldWorker())
        return lives[-1]

    async with opened(path, make_worker=another) as tree:
        for _ in range(3):
            tree.supervisor.drill("ledger")
            await trio.testing.wait_all_tasks_blocked()
        assert [life._stopped for life in lives] == [True, True, True, False]
    assert lives[-1]._stopped


async def test_64_callers_that_withdraw_at_once_never_overdraw(path: Path) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(1_000))
        answers = await tree.at_once([Withdraw(30) for _ in range(64)])
        assert sum(isinstance(one, Posted) for one in answers) == 33
        assert sum(isinstance(one, InsufficientFunds) for one in answers) == 31
        assert (await tree.sheet())["CASH"] == 10
    assert audited(path) == 34


# -- fills and settlements


def fill(
    number: int, quantity: str, price: str = "10", fee: str = "0", strategy: str = "mm"
) -> Fill:
    return Fill(
        f"f{number}",
        strategy,
        "X",
        Decimal(quantity),
        Decimal(price),
        Decimal(fee),
        at_us=START_US + number,
        cursor=str(number),
    )


def settlement(
    name: str, cost: str, payoff: str, revision: int = 0, cursor: str = ""
) -> Settlement:
    return Settlement(
        name, f"market {name}", "mm", Decimal(cost), Decimal(payoff), revision, cursor
    )


async def test_fills_are_booked_once_and_the_cursor_moves_with_them(path: Path) -> None:
    fills = (fill(1, "10", fee="1"), fill(2, "-15", "12"), fill(3, "5", "11"))
    async with opened(path) as tree:
        assert await tree.ledger.ask(BookFills(fills[:2])) == Booked(2, "2")
        assert await tree.ledger.ask(BookFills(fills)) == Booked(1, "3")
        assert await tree.ledger.ask(BookFills(())) == Booked(0, "3")
        totals = await tree.totals()
        assert totals.cursors == {"fills": "3"}
        assert totals.positions == ()
        assert totals.nav_minor == (-1 + 20 + 5) * 10**8
        entry = (await tree.ledger.ask(RecentEntries(1)))[0]
        key = fill_prefix("mm", "X", "f3") + "0"
        assert (entry.key, entry.strategy, entry.day) == (key, "mm", "2023-11-14")
    async with opened(path) as tree:
        assert await tree.ledger.ask(BookFills(fills)) == Booked(0, "3")
    assert audited(path) == 3


async def test_a_fill_that_cannot_be_booked_is_set_aside_alone(path: Path) -> None:
    async with opened(path) as tree:
        await tree.ledger.ask(BookFills((fill(1, "10"),)))
        booked = await tree.ledger.ask(BookFills((fill(2, "10"), fill(3, "NaN"), fill(1, "11"))))
        assert (booked.new, booked.cursor) == (1, "1")
        assert [one.id for one in booked.aside] == ["f3", "f1"]
        assert "NaN" in booked.aside[0].reason
        assert "whose content differs" in booked.aside[1].reason
        assert (await tree.totals()).cursors == {"fills": "1"}
        assert count(path) == 2


async def test_dust_does_not_block_the_fills_behind_it(path: Path) -> None:
    async with opened(path) as tree:
        booked = await tree.ledger.ask(BookFills((fill(1, "0.00000001", "0.1"), fill(2, "1"))))
        assert booked.new == 2
        (position,) = (await tree.totals()).positions
        assert position.quantity == Decimal("1.00000001")
    assert audited(path) == 2


async def test_a_settlement_is_booked_once_and_announced_with_it(path: Path) -> None:
    async with opened(path, alerts=True) as tree:
        one = settlement("m", "5", "8", cursor="c1")
        assert await tree.ledger.ask(BookSettlements((one,))) == Booked(1, "c1")
        assert await tree.ledger.ask(BookSettlements((one,))) == Booked(0, "c1")
        assert (await tree.totals()).nav_minor == 3 * 10**8
        await trio.testing.wait_all_tasks_blocked()
        assert Bell.rung == 1
    requests = rows(path, "SELECT level, category, title, message, strategy FROM alert_request")
    assert requests == [
        ("INFO", "SETTLEMENT", "Settlement booked: market m", "mm: cost 5, payoff 8", "mm")
    ]


async def test_a_new_revision_reverses_the_one_before(path: Path) -> None:
    async with opened(path) as tree:
        await tree.ledger.ask(BookSettlements((settlement("m", "5", "8"),)))
        await tree.ledger.ask(BookSettlements((settlement("m", "5", "4", revision=1),)))
        assert (await tree.totals()).nav_minor == -1 * 10**8
        await tree.ledger.ask(BookSettlements((settlement("m", "5", "6", revision=5),)))
        assert (await tree.totals()).nav_minor == 1 * 10**8
        kinds = [one.kind for one in await tree.ledger.ask(RecentEntries())]
        assert kinds == ["market_settlement", "reversal"] * 2 + ["market_settlement"]
        for known in (0, 1, 5):
            again = settlement("m", "5", "999", revision=known)
            assert (await tree.ledger.ask(BookSettlements((again,)))).new == 0
    assert audited(path) == 5


async def test_two_revisions_in_one_report_count_once(path: Path) -> None:
    async with opened(path) as tree:
        revisions = (
            settlement("m", "5", "8"),
            settlement("m", "5", "6", revision=1),
            settlement("m:1", "1", "3"),
        )
        assert (await tree.ledger.ask(BookSettlements(revisions))).new == 4
        assert (await tree.totals()).nav_minor == 3 * 10**8
        assert (await tree.ledger.ask(BookSettlements(revisions))).new == 0
    assert audited(path) == 4


async def test_an_older_revision_that_arrives_late_changes_nothing(path: Path) -> None:
    async with opened(path) as tree:
        await tree.ledger.ask(
            BookSettlements((settlement("m", "5", "6", 1_700_000_000), settlement("m", "5", "8")))
        )
        assert (await tree.totals()).nav_minor == 1 * 10**8


async def test_a_revision_that_pays_what_it_cost_takes_the_one_before_back_once(path: Path) -> None:
    async with opened(path, alerts=True) as tree:
        await tree.ledger.ask(BookSettlements((settlement("m", "5", "8"),)))
        even = settlement("m", "5", "5", revision=1)
        for _ in range(3):
            await tree.ledger.ask(BookSettlements((even,)))
            assert (await tree.totals()).nav_minor == 0
        assert len(rows(path, "SELECT * FROM alert_request")) == 2
        await tree.ledger.ask(BookSettlements((settlement("m", "5", "9", revision=2),)))
        assert (await tree.totals()).nav_minor == 4 * 10**8
    assert audited(path) == 5


@pytest.mark.parametrize("bad", ["m\ud800", 5, "x" * 200])
async def test_a_report_whose_id_or_cursor_cannot_be_stored_is_set_aside_by_name(
    path: Path, bad: Any
) -> None:
    async with opened(path) as tree:
        for report in (
            BookSettlements((settlement(bad, "5", "8"),)),
            BookFills((msgspec.structs.replace(fill(1, "1"), id=bad),)),
            BookSettlements((settlement("m", "5", "8", cursor=bad),)),
            BookFills((msgspec.structs.replace(fill(1, "1"), cursor=bad),)),
        ):
            (aside,) = (await tree.ledger.ask(report)).aside
            assert aside.reason.startswith(("id: ", "cursor: "))
        assert tree.ledger.epoch == 1
        assert (await tree.totals()).entries == 0
        assert (await tree.totals()).cursors == {"fills": "1"}  # of the one with a bad id


async def test_a_market_that_pays_what_it_cost_is_booked_once_without_a_leg(path: Path) -> None:
    async with opened(path, alerts=True) as tree:
        even = settlement("m", "5", "5")
        assert [(await tree.ledger.ask(BookSettlements((even,)))).new for _ in range(3)] == [
            1,
            0,
            0,
        ]
        (entry,) = await tree.ledger.ask(RecentEntries())
        assert (entry.key, entry.legs) == ("settlement:m:0", ())
        assert (
            await tree.ledger.ask(BookSettlements((settlement("m", "5", "8", revision=1),)))
        ).new == 2
        assert (await tree.totals()).nav_minor == 3 * 10**8
    assert audited(path) == 3


async def test_a_key_as_the_ledger_mints_them_is_known_whenever_it_was_made(path: Path) -> None:
    """Keys after the newest one on disk are not looked up; all others are, also after a restart."""
    early, late, odd = "0006" + "a" * 29, "0006" + "b" * 29, "0zz"
    async with opened(path) as tree:
        for key, amount in ((late, 1), (early, 2), ("k", 3), ("fill", 4)):
            assert not (await tree.post(Deposit(amount, key=key))).replayed
        await tree.post(Deposit(9))
        for _ in range(2):
            assert (await tree.post(Deposit(2, key=early))).replayed
            assert (await tree.post(Deposit(1, key=late))).replayed
            assert (await tree.post(Deposit(3, key="k"))).replayed
            with pytest.raises(IdempotencyConflict):
                await tree.post(Deposit(8, key=early))
        assert not (await tree.post(Deposit(7, key=odd))).replayed
    async with opened(path) as tree:
        assert (await tree.post(Deposit(7, key=odd))).replayed
        assert (await tree.post(Deposit(2, key=early))).replayed
        assert not (await tree.post(Deposit(2, key=early + "c"))).replayed
        assert not (await tree.post(Deposit(6))).replayed
        answers = await tree.ledger.ask(
            PostMany((Deposit(2, key=early), Deposit(6, key="1"), Deposit(6, key="0zzz")))
        )
        assert [one.replayed for one in answers] == [True, False, False]


# -- storage


@pytest.mark.parametrize(
    "refusal", [StorageDegraded("full"), StorageFailed("damaged"), OutcomeUnknown("fsync")]
)
async def test_when_storage_refuses_nothing_is_applied_and_the_same_request_succeeds_later(
    path: Path, refusal: Rejected
) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(10, key="first"))
        tree.mood.refusal = refusal
        requests: list[Any] = [
            Deposit(5, key="k"),
            Deposit(5, key="k"),
            Deposit(10, key="first"),
            PostMany((OpenPosition("X", 1, 1, key="p"),)),
            Withdraw(15),
            Withdraw(1),
            Deposit(1, key=""),
        ]
        answers = await tree.at_once(requests)
        expected = {StorageDegraded: LedgerDegraded, StorageFailed: LedgerFailed}.get(
            type(refusal), OutcomeUnknown
        )
        assert [type(one) for one in answers] == [
            expected,
            expected,  # as little on disk as the one whose key it shares
            Posted,
            expected,
            expected,
            expected,  # refused only because of the one before, which has never been
            BadField,
        ]
        with pytest.raises(expected):
            await tree.ledger.ask(BookFills((fill(1, "1"),)))
        assert (await tree.sheet())["CASH"] == 10
        assert (await tree.totals()).positions == ()
        assert (await tree.totals()).cursors == {}

        tree.mood.refusal = None
        assert not (await tree.post(Deposit(5, key="k"))).replayed
        assert (await tree.ledger.ask(BookFills((fill(1, "1"),)))).new == 1
        assert tree.ledger.epoch == 1
    assert audited(path) == 3


async def test_a_commit_of_unknown_outcome_that_landed_is_found_by_its_key(path: Path) -> None:
    async with opened(path) as tree:
        tree.mood.refusal, tree.mood.lands = OutcomeUnknown("fsync"), True
        with pytest.raises(OutcomeUnknown) as unknown:
            await tree.post(Deposit(5, key="k"))
        assert unknown.value.outcome == "unknown"
        assert (await tree.sheet())["CASH"] == 5
        with pytest.raises(OutcomeUnknown):
            await tree.ledger.ask(BookFills((fill(1, "1"),)))
        assert (await tree.totals()).cursors == {"fills": "1"}
        tree.mood.refusal = None
        assert (await tree.post(Deposit(5, key="k"))).replayed
        assert (await tree.ledger.ask(BookFills((fill(1, "1"),)))).new == 0
        await tree.post(Deposit(1))
    assert audited(path) == 3


async def test_a_book_that_storage_contradicts_is_read_afresh(path: Path) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(5))
        tree.mood.refusal = ConstraintFailed("UNIQUE constraint failed: entry.seq")
        with pytest.raises(ActorCrashed):
            await tree.post(Deposit(5))
        tree.mood.refusal = None
        await tree.post(Deposit(1))
        assert (await tree.sheet())["CASH"] == 6
        assert tree.ledger.epoch == 2


async def test_a_commit_that_outlives_its_asker_is_found_in_the_book(
    path: Path, autojump_clock: MockClock
) -> None:
    async with opened(path) as tree:
        tree.mood.delay_s = 45.0
        with pytest.raises(OutcomeUnknown, match="does not answer"):
            await tree.post(Deposit(5, key="slow"))
        assert tree.ledger.epoch == 1
        tree.mood.delay_s = 0.0
        await tree.post(Deposit(1))
        assert (await tree.post(Deposit(5, key="slow"))).replayed
        assert (await tree.sheet())["CASH"] == 6
    assert audited(path) == 2


async def test_a_commit_whose_time_was_up_before_it_was_begun_is_a_refusal_and_no_crash(
    path: Path, autojump_clock: MockClock
) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(1))
        tree.mood.delay_s = 45.0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                partial(tree.supervisor.ref("persistence").ask, Commit(()), timeout_s=60)
            )
            await trio.sleep(1)
            with pytest.raises(LedgerDegraded, match="did not take it") as refused:
                await tree.post(Deposit(5, key="late"))
            assert refused.value.outcome == "not_executed"
        assert tree.ledger.epoch == 1
        tree.mood.delay_s = 0.0
        assert not (await tree.post(Deposit(5, key="late"))).replayed
    assert audited(path) == 2


async def test_a_crash_by_drill_leaves_every_answer_as_it_was(path: Path) -> None:
    async with opened(path) as tree:
        await tree.post(*GOLDEN, Mark("AAPL", 5_250), OpenPosition("X", -3, 10, strategy="mm"))
        await tree.ledger.ask(BookFills((fill(1, "1"),)))
        before = (
            await tree.totals(),
            await tree.ledger.ask(TrialBalance()),
            await tree.ledger.ask(RecentEntries()),
        )
        tree.supervisor.drill("ledger")
        await trio.testing.wait_all_tasks_blocked()
        assert tree.ledger.epoch == 2
        assert before == (
            await tree.totals(),
            await tree.ledger.ask(TrialBalance()),
            await tree.ledger.ask(RecentEntries()),
        )
        assert (await tree.post(ClosePosition("AAPL", 50, 6_000))).seq == 11
        with pytest.raises(PositionMismatch):
            await tree.post(ClosePosition("AAPL", 1, 1))
    assert audited(path) == 11


async def test_callers_who_wait_while_the_ledger_crashes_are_answered_by_its_next_life(
    path: Path,
) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(100))
        tree.supervisor.drill("ledger")
        answers = await tree.at_once([Withdraw(1, key=f"w{number}") for number in range(20)])
        assert all(isinstance(one, Posted) for one in answers)
        assert (await tree.sheet())["CASH"] == 80
    assert audited(path) == 21


# -- for ever


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE entry SET payload = '{}' WHERE seq = 1",
        "DELETE FROM entry",
        "UPDATE posting SET amount_minor = 1",
        "DELETE FROM posting WHERE entry = 1",
    ],
)
async def test_the_journal_refuses_to_be_changed(path: Path, sql: str) -> None:
    async with opened(path) as tree:
        await tree.post(Deposit(5))
    connection = apsw.Connection(str(path))
    with pytest.raises(apsw.ConstraintError, match=r"never (changed|deleted)"):
        connection.execute(sql)
    connection.close()
    assert audited(path) == 1
