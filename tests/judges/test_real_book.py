"""A real book: six years of a long-short account, booked fill by fill and compared with what was
published about it.

The judge is pyfolio-reloaded 0.9.9 (Apache-2.0), whose source archive carries `test_txn.csv.gz`
(9,367 fills of whole shares in seven stocks, no fees), `test_pos.csv.gz` (the value of each
position and the cash after each of 1,506 days, 2004-01-09 to 2009-12-31) and `test_returns.csv.gz`
(the account's daily returns). None of it comes from our code, and none of it is in this repository:
pip fetches the archive once, into pytest's cache.

The first deposit is in no file but follows from them: published cash plus everything paid for
shares so far is 100,000.00 on every day, from the first (-6,192.36 after 106,192.36 of purchases)
to the last, within 0.00001. So the account began with 100,000 and saw no other flow; the published
returns, the first of them 0 on 100,000, agree.

Cash is negative after 752 of the days (bought on margin) and 1,156 fills leave a short: all of it
has to be booked.

The engine computed in floats, and 67 prices are published with 9 to 11 decimals (9.55741999999). An
engine must hand in a float, which the ledger rounds half-even, or a Decimal of at most 8 decimals;
both are done here. What that rounding moves is far below a cent.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
import trio

from fundops.actors.ledger import LedgerActor
from fundops.actors.persistence import PersistenceActor
from fundops.file.database import MIGRATIONS
from fundops.runtime import ChildSpec, Ref, VirtualClock, open_supervisor
from fundops.wire.controller import Fill
from fundops.wire.ledger import (
    Booked,
    BookFill,
    BookFills,
    Deposit,
    Event,
    LedgerTotals,
    Mark,
    PostMany,
    ReadTotals,
    RecentEntries,
    TrialBalance,
)
from fundops.wire.money import from_minor

PACKAGE, VERSION = "pyfolio-reloaded", "0.9.9"
SHA256 = "4dcd0bc6e07249458685e6591a105daafaa87c6b79a0680f71ba8e58435b5c0c"
# Fetched and booked in some twenty seconds.
pytestmark = pytest.mark.soak

FIRST_DEPOSIT = 100_000
STRATEGY = "long-short"
HALF_A_CENT = Decimal("0.005")


class Trade(NamedTuple):
    """One published fill. `price` has up to 11 decimals."""

    day: str
    symbol: str
    quantity: int
    price: Decimal

    @property
    def fill(self) -> Fill:
        at_us = instant_us(self.day)
        name = f"{self.day}:{self.symbol}"  # at most one fill of a symbol in a day
        quantity, price = Decimal(self.quantity), round(self.price, 8)
        return Fill(name, STRATEGY, self.symbol, quantity, price, Decimal(0), at_us, cursor=name)

    @property
    def event(self) -> BookFill:
        """As an engine that computes in floats reports it."""
        return BookFill(
            self.symbol,
            float(self.quantity),
            float(round(self.price, 8)),
            0.0,
            key=f"fill:{self.day}:{self.symbol}",
            strategy=STRATEGY,
            at_us=instant_us(self.day),
        )


class Day(NamedTuple):
    """One published row: what everything was worth after the day's fills. A short is worth less
    than nothing.
    """

    day: str
    trades: tuple[Trade, ...]
    values: dict[str, Decimal]
    cash: Decimal
    daily_return: float

    @property
    def equity(self) -> Decimal:
        return sum(self.values.values(), self.cash)


Published = tuple[Day, ...]


class Evening(NamedTuple):
    """What our book says after a day."""

    totals: LedgerTotals
    trial_balance: dict[str, Decimal]

    @property
    def cash(self) -> Decimal:
        return self.totals.balance_sheet["CASH"]

    @property
    def quantities(self) -> dict[str, Decimal]:
        return {one.instrument: one.quantity for one in self.totals.positions}


def trades_of(days: Published) -> list[Trade]:
    return [trade for day in days for trade in day.trades]


def instant_us(day: str) -> int:
    """16:00 UTC of an ISO date."""
    return round(datetime.fromisoformat(f"{day}T16:00:00+00:00").timestamp()) * 1_000_000


# -- the archive


def fetched(folder: Path) -> Path:
    """The source archive, fetched by pip unless an earlier run has it."""
    path = folder / f"{PACKAGE.replace('-', '_')}-{VERSION}.tar.gz"
    if not path.exists():
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--retries",
            "1",
        ]
        command += [
            "--no-deps",
            "--no-binary",
            PACKAGE,
            "--dest",
            str(folder),
            f"{PACKAGE}=={VERSION}",
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"pip took too long to fetch {PACKAGE} {VERSION}")
        if done.returncode or not path.exists():
            reasons = done.stderr.strip().splitlines() or ["pip said nothing"]
            pytest.skip(f"pip cannot fetch the sources of {PACKAGE} {VERSION}: {reasons[-1]}")
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SHA256
    return path


def rows_in(archive: tarfile.TarFile, name: str) -> list[list[str]]:
    """The lines of one published table, without its head."""
    member = archive.extractfile(f"pyfolio_reloaded-{VERSION}/tests/test_data/{name}")
    assert member is not None
    return list(csv.reader(io.StringIO(gzip.decompress(member.read()).decode())))


@pytest.fixture(scope="module")
def published(pytestconfig: pytest.Config) -> Published:
    with tarfile.open(fetched(pytestconfig.cache.mkdir("judges"))) as archive:
        fills, values, returns = (
            rows_in(archive, f"test_{name}.csv.gz") for name in ("txn", "pos", "returns")
        )
    trades = (
        Trade(at[:10], symbol, int(quantity), Decimal(price))
        for at, quantity, price, _, symbol, _ in fills[1:]
    )
    by_day = {day: tuple(group) for day, group in groupby(trades, key=lambda trade: trade.day)}
    symbols = values[0][1:-1]
    return_of = {at[:10]: float(figure) for at, figure in returns}
    days = []
    for at, *figures, cash in values[1:]:
        worth = dict(zip(symbols, map(Decimal, figures), strict=True))
        days.append(Day(at[:10], by_day.pop(at[:10]), worth, Decimal(cash), return_of[at[:10]]))
    assert not by_day
    return tuple(days)


# -- the book


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Ref]:
    """A ledger on a real file, written by the real persistence in its own thread."""
    clock = VirtualClock(instant_us("2010-01-01"))
    children = [
        ChildSpec("persistence", lambda: PersistenceActor(path, MIGRATIONS)),
        ChildSpec("ledger", lambda: LedgerActor(path, clock, "USD")),
    ]
    async with open_supervisor(children) as supervisor:
        yield supervisor.ref("ledger")


async def book_day(ledger: Ref, day: Day) -> Evening:
    """The day's fills in one commit, then a mark of everything held at its published value."""
    fills = tuple(trade.fill for trade in day.trades)
    assert await ledger.ask(BookFills(fills)) == Booked(len(fills), fills[-1].cursor)
    at_us = instant_us(day.day)
    marks = [
        Mark(name, abs(value), strategy=STRATEGY, at_us=at_us)
        for name, value in day.values.items()
        if value
    ]
    await ledger.ask(PostMany(tuple(marks)))
    return Evening(await ledger.ask(ReadTotals()), await ledger.ask(TrialBalance()))


async def book_all(path: Path, days: Sequence[Day]) -> list[Evening]:
    """Every day in turn; the books are closed and opened again at each new year."""
    evenings = []
    for year, in_year in groupby(days, key=lambda day: day.day[:4]):
        async with opened(path) as ledger:
            if year == days[0].day[:4]:
                await ledger.ask(Deposit(FIRST_DEPOSIT, at_us=instant_us(days[0].day)))
            evenings += [await book_day(ledger, day) for day in in_year]
    return evenings


@pytest.fixture(scope="module")
def evenings(published: Published, tmp_path_factory: pytest.TempPathFactory) -> list[Evening]:
    return trio.run(book_all, tmp_path_factory.mktemp("book") / "fund.db", published)


def both(published: Published, evenings: list[Evening]) -> Iterator[tuple[Day, Evening]]:
    return zip(published, evenings, strict=True)


# -- what was published holds in our book


def test_the_first_deposit_follows_from_the_published_cash(published: Published) -> None:
    assert (len(published), len(trades_of(published))) == (1_506, 9_367)
    paid = Decimal(0)
    for day in published:
        paid += sum(trade.quantity * trade.price for trade in day.trades)
        assert abs(day.cash + paid - FIRST_DEPOSIT) < Decimal("0.00001"), day.day


def test_cash_after_every_day_is_the_published_cash_to_the_cent(
    published: Published, evenings: list[Evening]
) -> None:
    for day, evening in both(published, evenings):
        assert abs(evening.cash - day.cash) < HALF_A_CENT, day.day
    assert sum(evening.cash < 0 for evening in evenings) == 752


def test_positions_after_every_day_are_the_sum_of_the_fills_and_worth_what_was_published(
    published: Published, evenings: list[Evening]
) -> None:
    held: dict[str, int] = defaultdict(int)
    shorts = 0
    for day, evening in both(published, evenings):
        for trade in day.trades:
            held[trade.symbol] += trade.quantity
            # What was published, at the price of the day's fill, is that many shares.
            assert abs(day.values[trade.symbol] - held[trade.symbol] * trade.price) < HALF_A_CENT, (
                day.day,
                trade,
            )
            shorts += held[trade.symbol] < 0
        assert evening.quantities == {
            name: quantity for name, quantity in held.items() if quantity
        }, day.day
        worth = {one.instrument: one.value for one in evening.totals.positions}
        assert worth == {name: value for name, value in day.values.items() if value}, day.day
    assert shorts == 1_156


def test_the_trial_balance_is_zero_after_every_day(
    published: Published, evenings: list[Evening]
) -> None:
    for day, evening in both(published, evenings):
        assert sum(evening.trial_balance.values()) == 0, day.day
        assert evening.trial_balance["EXTERNAL"] == -FIRST_DEPOSIT


def test_net_asset_value_gives_the_published_return_of_every_day(
    published: Published, evenings: list[Evening]
) -> None:
    before = Decimal(FIRST_DEPOSIT)
    for day, evening in both(published, evenings):
        nav = from_minor(evening.totals.nav_minor)
        assert abs(nav - day.equity) < HALF_A_CENT, day.day
        assert float(nav / before - 1) == pytest.approx(day.daily_return, abs=1e-9), day.day
        before = nav


def first_in_first_out(trades: Sequence[Trade]) -> tuple[Decimal, dict[str, Decimal]]:
    """What was realized, and the cost of what is left, by a queue of shares: whole shares never
    need rounding.
    """
    realized, queues = Decimal(0), defaultdict[str, deque[list[Decimal]]](deque)
    for trade in trades:
        left, price, queue = Decimal(trade.quantity), trade.fill.price, queues[trade.symbol]
        while left and queue and queue[0][0] * left < 0:
            taken = min(abs(left), abs(queue[0][0])).copy_sign(queue[0][0])
            realized += taken * (price - queue[0][1])
            queue[0][0] -= taken
            left += taken
            if not queue[0][0]:
                queue.popleft()
        if left:
            queue.append([left, price])
    costs = {
        name: sum(quantity * price for quantity, price in queue)
        for name, queue in queues.items()
        if queue
    }
    return realized, {name: Decimal(cost) for name, cost in costs.items()}


def test_realized_and_unrealized_profit_are_what_the_account_has_won(
    published: Published, evenings: list[Evening]
) -> None:
    last, totals = published[-1], evenings[-1].totals
    realized, costs = first_in_first_out(trades_of(published))
    unrealized = sum(last.values.values()) - sum(costs.values())
    assert {one.instrument: one.cost for one in totals.positions} == costs
    assert -totals.balance_sheet["REALIZED_PNL"] == realized
    assert -totals.balance_sheet["UNREALIZED_PNL"] == unrealized
    assert from_minor(totals.nav_minor) - FIRST_DEPOSIT == realized + unrealized
    assert abs(realized + unrealized - (last.equity - FIRST_DEPOSIT)) < HALF_A_CENT


# -- however the fills come in


async def test_the_same_fills_as_floats_in_large_batches_make_the_same_book(
    published: Published, evenings: list[Evening], tmp_path: Path
) -> None:
    trades = (
        msgspec.structs.replace(one.event, key=f"by hand, {one.event.key}")
        for one in trades_of(published)
    )
    events: list[Event] = [Deposit(FIRST_DEPOSIT), *trades]
    async with opened(tmp_path / "fund.db") as ledger:
        for start in range(0, len(events), 1_024):
            posted = await ledger.ask(PostMany(tuple(events[start : start + 1_024])), timeout_s=60)
            assert not any(one.replayed for one in posted)
        totals: LedgerTotals = await ledger.ask(ReadTotals())
        assert (await ledger.ask(RecentEntries(1)))[0].seq == len(events)
    expected = evenings[-1].totals
    assert totals.entries == len(events)
    for account in ("CASH", "REALIZED_PNL"):
        assert totals.balance_sheet[account] == expected.balance_sheet[account]
    assert [(one.instrument, one.quantity, one.cost) for one in totals.positions] == [
        (one.instrument, one.quantity, one.cost) for one in expected.positions
    ]


async def test_a_price_finer_than_the_scale_is_multiplied_exactly(
    published: Published, tmp_path: Path
) -> None:
    fine = [trade for trade in trades_of(published) if trade.price != round(trade.price, 8)]
    assert len(fine) == 67
    as_published = tuple(msgspec.structs.replace(trade.fill, price=trade.price) for trade in fine)
    async with opened(tmp_path / "as published.db") as ledger:
        assert (await ledger.ask(BookFills(as_published))).new == 67
        sheet = (await ledger.ask(ReadTotals())).balance_sheet
    assert sheet["CASH"] == -sum(round(trade.quantity * trade.price, 8) for trade in fine)
