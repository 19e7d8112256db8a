"""Outside judges on the journal: beancount, ledger-cli and hledger add it up for themselves.

ledger and hledger are Debian packages; without them their tests are skipped.
"""

from __future__ import annotations

import csv as csv_format
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from fundops.actors.ledger import books
from fundops.actors.ledger.book import Book, Draft
from fundops.actors.ledger.entry import Entry, Original, utc_day
from fundops.actors.ledger.schema import rows_of
from fundops.actors.persistence import Reader, Store, commit_batch
from fundops.file.database import MIGRATIONS
from fundops.runtime import DAY_US, Rejected
from fundops.wire.ledger import (
    BookFill,
    BookSettlement,
    ChargeManagementFee,
    ChargePerformanceFee,
    ClosePeriod,
    ClosePosition,
    Convert,
    Deposit,
    Event,
    Financing,
    Income,
    Leg,
    Mark,
    OpeningBalances,
    OpeningPosition,
    OpenPosition,
    PayFees,
    Post,
    Price,
    RecordLoss,
    RecordProfit,
    Rename,
    ReopenPeriod,
    Reverse,
    Settle,
    Split,
    Transfer,
    Withdraw,
)
from fundops.wire.money import from_minor
from fundops.wire.persistence import Committed

ENTRIES = 10_000
FEW = 500
SEED = 20_260_101
NOW_US = 1_700_000_000_000_000
RUN = 250  # entries in one draft; looking a reversal up in a draft is a walk
DEADLINE_S = 120
STRATEGIES = (
    None,
    "mean_reversion",
    "mean-reversion",
    "Mean Reversion",
    "MTM",
    '"; drop',
    "動量:β, [x]",
    "_",
    "__",
    "-",
    "\U0010ffff" * 128,
)
INSTRUMENTS = ("SPY", "EUR/USD", "will it rain?")
ASSETS = ("BTC", "btc", "TRUE", "P", "EUR-2024", "s&p 500", "金", "\U0010ffff" * 128, "a" * 128)
TEXTS = (
    "",
    "rent",
    'say "hi" \\ bye',
    "date: tomorrow, [2020-13-45]; (odd) =5 @ 3 {9}",
    "line one\n  Assets:CASH  5 USD\r\n\n\ttab",
    "; key:: 1/0\n:tag:other:",
    "Grüße, 世界 🎈\u2028\x85\x7f\x00\x1b[31m",
    "\\n is not a newline \\",
    "|{{}}%$#~*!",
    "🎈" * 1_024,
    "\n" * 200,
)


# -- a journal of everything


class Random:
    """Events of all kinds from one seed, some of them to be refused."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._makers: tuple[Callable[[], Event], ...] = (
            lambda: Deposit(self.amount(), **self.about()),
            lambda: Withdraw(self.amount(), **self.about()),
            lambda: RecordProfit(self.amount(), **self.about()),
            lambda: RecordLoss(self.amount(), **self.about()),
            lambda: OpenPosition(
                self.instrument(), self.quantity(), self.amount(), self.fee(), **self.about()
            ),
            lambda: ClosePosition(
                self.instrument(), self.quantity(), self.amount(), self.fee(), **self.about()
            ),
            lambda: Mark(self.instrument(), self.amount(), **self.about()),
            lambda: Settle(self.instrument(), self.amount(), **self.about()),
            lambda: ChargeManagementFee(self.amount(), **self.about()),
            lambda: ChargePerformanceFee(self.amount(), **self.about()),
            lambda: PayFees(self.amount(), **self.about()),
            lambda: Reverse(
                self._dice.randrange(1, self.seq + 2), self._dice.choice(TEXTS) or "error"
            ),
            self.post,
            lambda: BookFill(
                self.instrument(), self.quantity(), self.price(), self.fee(), **self.about()
            ),
            lambda: BookFill(self.instrument(), "0.00000001", "0.1", 0, **self.about()),  # dust
            lambda: BookSettlement(self.instrument(), self.amount(), self.amount(), **self.about()),
            lambda: Income(self.quantity(), self.instrument(), **self.about()),
            lambda: Financing(self.quantity(), self.instrument(), **self.about()),
            lambda: Split(self.instrument(), self._dice.choice((2, "3:2", "0.5")), **self.about()),
            lambda: Rename(self.instrument(), self.instrument(), **self.about()),
            lambda: Transfer(
                self.instrument(),
                self.quantity(),
                self._dice.choice(STRATEGIES),
                self._dice.choice(STRATEGIES),
                memo=self._dice.choice(TEXTS),
            ),
            lambda: Convert(
                self.amount(), self.asset(), self.amount(), self.asset(), self.fee(), **self.about()
            ),
            lambda: Price(self.asset(), self.price(), **self.about()),
        )
        self.seq = 0

    def event(self) -> Event:
        return self._dice.choice(self._makers)()

    def key(self) -> str:
        return f"{self._dice.choice(TEXTS)[:100]}#{self.seq + 1}"

    def about(self) -> dict[str, Any]:
        backdated = self._dice.random() < 0.3
        return {
            "strategy": self._dice.choice(STRATEGIES),
            "memo": self._dice.choice(TEXTS),
            "at_us": NOW_US - self._dice.randrange(1_000) * DAY_US if backdated else None,
        }

    def amount(self) -> Decimal:
        return from_minor(self._dice.randrange(1, 10 ** self._dice.randrange(1, 14)))

    def fee(self) -> Decimal:
        return self._dice.choice((from_minor(0), self.amount()))

    def price(self) -> Decimal:
        return from_minor(self._dice.randrange(10**10))

    def quantity(self) -> Decimal:
        return self._dice.choice((1, -1)) * from_minor(
            self._dice.randrange(1, 10 ** self._dice.randrange(1, 11))
        )

    def instrument(self) -> str:
        return self._dice.choice(INSTRUMENTS)

    def asset(self) -> str:
        return self._dice.choice(("USD", *ASSETS))

    def post(self) -> Post:
        """Up to three assets at once, each balanced."""
        legs: list[Leg] = []
        accounts = sorted(
            books.ROOTS.keys() & {"CASH", "EXTERNAL", "RETAINED", "POSITIONS:MTM", "TRADING_FEES"}
        )
        for asset in self._dice.sample((None, *ASSETS), self._dice.randrange(1, 4)):
            amounts = [self.amount() for _ in range(self._dice.randrange(1, 4))]
            for amount in (*amounts, -sum(amounts, Decimal(0))):
                legs.append(
                    Leg(self._dice.choice(accounts), amount, self._dice.choice(STRATEGIES), asset)
                )
        return Post(tuple(legs), **self.about())


class Journal:
    """A book and its entries, as the ledger actor keeps them."""

    def __init__(self) -> None:
        self.book = Book("USD")
        self.entries: list[Entry] = []
        self._reversed_by: dict[int, int] = {}

    def original(self, seq: int) -> Original | None:
        if not 1 <= seq <= len(self.entries):
            return None
        return Original(self.entries[seq - 1], self._reversed_by.get(seq))

    def keep(self, draft: Draft) -> None:
        self.book.apply(draft)
        for entry in draft.entries:
            self.entries.append(entry)
            if entry.reverses is not None:
                self._reversed_by[entry.reverses] = entry.seq


def write_random(path: Path, entries: int, seed: int) -> Journal:
    journal, source = Journal(), Random(seed)
    store = Store(path, MIGRATIONS)
    store.connection.execute(
        "INSERT INTO meta VALUES ('name', 'a \"fund\"; of: odd, things'), ('currency', 'USD')"
    )
    while journal.book.seq < entries:
        # Nothing is dated later than the day that is closed, so its balances are those of now.
        draft = Draft(journal.book, journal.original, lambda _: journal.book.balances)
        while draft.seq < min(journal.book.seq + RUN, entries):
            source.seq, now_us = draft.seq, NOW_US + draft.seq * 1_000_000
            try:
                draft.decide(
                    _framed(source, draft.seq, entries, utc_day(now_us)), source.key(), now_us
                )
            except Rejected:
                continue
        assert isinstance(commit_batch(store, [rows_of(draft)])[0], Committed)
        journal.keep(draft)
    store.close()
    return journal


def _framed(source: Random, seq: int, entries: int, today: str) -> Event:
    """Opening balances first, and last a period that is closed, reopened and closed again."""
    if seq == 0:
        positions = (
            OpeningPosition("SPY", 3, 30, 33, "mean_reversion"),
            OpeningPosition("EUR/USD", "-0.5", 10),
        )
        return OpeningBalances("1000.00000001", positions)
    if seq in (entries - 3, entries - 1):
        return ClosePeriod(today)
    return ReopenPeriod(today, "late trade", "ann") if seq == entries - 2 else source.event()


# -- what is judged


class Names(NamedTuple):
    """Theirs of an account and asset."""

    account: str
    asset: str


class Exported(NamedTuple):
    journal: Journal
    beancount: Path
    ledger: Path

    def balances(self) -> dict[Names, Decimal]:
        """Our stored balances under the names of the books, without the zeros that judges omit."""
        return {
            Names(books.account_name(account, strategy), books.commodity_name(asset)): from_minor(
                minor
            )
            for (account, strategy, asset), minor in self.journal.book.balances.items()
            if minor
        }


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_random(tmp_path_factory.mktemp("judged"), ENTRIES)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_random(tmp_path_factory.mktemp("few"), FEW)


def export_random(folder: Path, entries: int) -> Exported:
    journal = write_random(folder / "fund.db", entries, SEED)
    one = Exported(journal, folder / "fund.beancount", folder / "fund.ledger")
    with Reader(folder / "fund.db") as reader:
        one.beancount.write_text("".join(books.beancount(reader)), encoding="utf-8", newline="")
        one.ledger.write_text("".join(books.ledger(reader)), encoding="ascii", newline="")
    return one


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    # The plainest locale: an export must not need another one.
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "LC_ALL": "C"}
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=DEADLINE_S,
        env=environment,
        check=False,
    )


def answer(*command: str | Path) -> str:
    done = run(*command)
    assert done.returncode == 0, done.stdout[-2_000:] + done.stderr[-2_000:]
    return done.stdout


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {name!r})")
    return found


def bean_check(file: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "-m", "beancount.scripts.check", "--no-cache", file)


def hledger_check(file: Path) -> subprocess.CompletedProcess[str]:
    return run(tool("hledger"), "-f", file, "check", "-s", "ordereddates")


def ledger_check(file: Path) -> subprocess.CompletedProcess[str]:
    return run(tool("ledger"), "--pedantic", "-f", file, "balance")


JUDGES = {"beancount": bean_check, "hledger": hledger_check, "ledger": ledger_check}


def test_the_random_journal_has_entries_of_every_kind_and_every_oddity(exported: Exported) -> None:
    entries = exported.journal.entries
    assert len(entries) == ENTRIES
    kinds = {str(kind.__struct_config__.tag) for kind in Event.__args__}
    assert {entry.kind for entry in entries} == kinds
    assert any(not entry.legs for entry in entries)
    assert any(image.quantity < 0 for entry in entries for image in entry.lots)
    assert any(entry.day < before.day for before, entry in pairwise(entries))
    assert {entry.memo for entry in entries} >= set(TEXTS)
    assert {strategy for entry in entries for _, strategy, _, _ in entry.legs} == set(STRATEGIES)
    assert {asset for entry in entries for _, _, asset, _ in entry.legs} == {
        "USD",
        "UNITS",
        *ASSETS,
    }


# -- balances


def _beancount_balances(file: Path) -> Iterator[tuple[Names, Decimal]]:
    code = (
        "import json, sys, collections\n"
        "from beancount import loader\n"
        "from beancount.core.data import Transaction\n"
        "entries, errors, _ = loader.load_file(sys.argv[1])\n"
        "assert not errors, errors[:3]\n"
        "sums = collections.Counter()\n"
        "for entry in entries:\n"
        "    for one in entry.postings if isinstance(entry, Transaction) else ():\n"
        "        sums[one.account, one.units.currency] += one.units.number\n"
        "json.dump([[*names, str(amount)] for names, amount in sums.items()], sys.stdout)\n"
    )
    for account, asset, amount in json.loads(answer(sys.executable, "-c", code, file)):
        yield Names(account, asset), Decimal(amount)


def _hledger_balances(file: Path) -> Iterator[tuple[Names, Decimal]]:
    options = ("balance", "--flat", "--no-total", "--empty", "--layout=bare", "-O", "csv")
    table = answer(tool("hledger"), "-f", file, *options)
    for row in csv_format.DictReader(table.splitlines()):
        yield Names(row["account"], row["commodity"]), Decimal(row["balance"])


def _ledger_balances(file: Path) -> Iterator[tuple[Names, Decimal]]:
    options = (
        "balance",
        "--flat",
        "--no-total",
        "--empty",
        "--format",
        "%(account)\t%(join(amount))\n",
    )
    for line in answer(tool("ledger"), "-f", file, *options).splitlines():
        account, amounts = line.split("\t")
        for amount in amounts.split("\\n"):
            number, _, symbol = amount.partition(" ")
            yield Names(account, symbol.strip('"')), Decimal(number)


@pytest.mark.parametrize("judge", ["beancount", "hledger", "ledger"])
def test_a_judge_accepts_the_export_and_finds_our_balances_to_the_last_digit(
    exported: Exported, judge: str
) -> None:
    file = exported.beancount if judge == "beancount" else exported.ledger
    checked = JUDGES[judge](file)
    assert checked.returncode == 0, checked.stdout[-2_000:] + checked.stderr[-2_000:]
    assert judge == "ledger" or checked.stdout + checked.stderr == ""
    found = {
        "beancount": _beancount_balances,
        "hledger": _hledger_balances,
        "ledger": _ledger_balances,
    }[judge](file)
    assert {names: amount for names, amount in found if amount} == exported.balances()


# -- refusals


def _one_leg_changed(text: str) -> str:
    """One minor unit more in the first posting of the middle of the book."""
    middle = text.index("Assets:CASH", len(text) // 2)
    return text[:middle] + re.sub(r"(-?\d+\.\d{7})(\d)", _next_digit, text[middle:], count=1)


def _next_digit(found: re.Match[str]) -> str:
    return f"{found[1]}{(int(found[2]) + 1) % 10}"


def _whole_entry_changed(text: str) -> str:
    """A deposit of twice the amount: it balances, and only the closing balances know."""
    found = re.search(r'^\S+ \* (?:"deposit".*|\(\d+\) deposit)\n(?:.+\n)+', text, re.MULTILINE)
    assert found is not None
    doubled = re.sub(r"-?\d+\.\d{8}(?= USD)", lambda amount: str(2 * Decimal(amount[0])), found[0])
    assert doubled != found[0]
    return text[: found.start()] + doubled + text[found.end() :]


def _closing_balance_changed(text: str) -> str:
    """By one minor unit, as if the balance table had lost it."""
    changed, count = re.subn(
        r"((?: balance \S+  | = )-?\d+\.\d{7})([0-8])(?=\s)", _next_digit, text, count=1
    )
    assert count
    return changed


@pytest.mark.parametrize(
    "tamper", [_one_leg_changed, _whole_entry_changed, _closing_balance_changed]
)
@pytest.mark.parametrize("judge", ["beancount", "hledger", "ledger"])
def test_a_judge_refuses_an_export_with_a_changed_amount(
    few: Exported, judge: str, tamper: Callable[[str], str], tmp_path: Path
) -> None:
    original = (few.beancount if judge == "beancount" else few.ledger).read_text(encoding="utf-8")
    changed = tmp_path / "changed"
    changed.write_text(tamper(original), encoding="utf-8", newline="")
    refused = JUDGES[judge](changed)
    assert refused.returncode != 0
    assert "balance" in (refused.stdout + refused.stderr).lower()


@pytest.mark.parametrize("judge", ["beancount", "hledger", "ledger"])
def test_a_judge_accepts_the_export_of_an_empty_journal(judge: str, tmp_path: Path) -> None:
    Store(tmp_path / "fund.db", MIGRATIONS).close()
    with Reader(tmp_path / "fund.db") as reader:
        text = "".join((books.beancount if judge == "beancount" else books.ledger)(reader))
    (tmp_path / "book").write_text(text)
    checked = JUDGES[judge](tmp_path / "book")
    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("judge", ["beancount", "hledger", "ledger"])
def test_a_judge_accepts_a_journal_of_the_first_and_the_last_day_there_are(
    judge: str, tmp_path: Path
) -> None:
    store = Store(tmp_path / "fund.db", MIGRATIONS)
    draft = Draft(Book("USD"), lambda _: None)
    for key, now_us in (("last", 253_402_300_799_999_999), ("first", 0)):
        draft.decide(Deposit(1), key, now_us)
    commit_batch(store, [rows_of(draft)])
    store.close()
    with Reader(tmp_path / "fund.db") as reader:
        text = "".join((books.beancount if judge == "beancount" else books.ledger)(reader))
    assert "1970-01-01 *" in text
    assert "9999-12-31 *" in text
    (tmp_path / "book").write_text(text)
    checked = JUDGES[judge](tmp_path / "book")
    assert checked.returncode == 0, checked.stderr
