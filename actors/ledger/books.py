"""The ledger as a book for other tools: beancount, and one text for both ledger-cli and hledger.

A book is a stream of text that ends with the entry that was the last when it began; one page of
entries is in memory at a time. Amounts have all digits of the scale. Entries are read from their
payloads, the closing balances from the `balance` table, so a tool that adds the book up compares
the two.

How a book names things:

* An account goes below one of the roots in `ROOTS`, with `-` for `_`: ``Assets:FEES-RECEIVABLE``.
  An account that is not in the table goes below Equity. Marks stay a part of positions:
  ``Assets:POSITIONS:MTM``.
* A strategy has its account below: ``Assets:CASH:Strategy-mean-reversion``. So the balance of an
  account here is the balance there of that account and all below it. ASCII letters and digits stay,
  `_` becomes `-`, any other character becomes ``--HEX-`` with its number. The exact text is in the
  entry's `strategy`.
* An asset of capital letters, digits, `.`, `_` and `-` stays. Any other gets the nearest legal
  name, followed by its UTF-8 in hexadecimal, or by the SHA-256 of it from 32 bytes on: ``btc`` is
  ``BTC'627463``.

Two different names never become the same one.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from ...wire.money import text_of
from ..persistence import Rows, meta
from .accounts import (
    CASH,
    CONVERSIONS,
    EXTERNAL,
    FEES_RECEIVABLE,
    FINANCING,
    HOLDERS,
    INCOME,
    MANAGEMENT_FEES,
    MARKS,
    PERFORMANCE_FEES,
    POSITIONS,
    REALIZED_PNL,
    RETAINED,
    TRADING_FEES,
    UNITS,
    UNREALIZED_PNL,
)
from .entry import BalanceKey, Entry
from .journal import PAGE, amount_text, decode_entry, instant_text
from .prices import price_of, prices_as_of

__all__ = ["ROOTS", "account_name", "beancount", "commodity_name", "ledger"]

ROOTS: Mapping[str, str] = {
    CASH: "Assets",
    POSITIONS: "Assets",
    MARKS: "Assets",
    FEES_RECEIVABLE: "Assets",
    MANAGEMENT_FEES: "Expenses",
    PERFORMANCE_FEES: "Expenses",
    TRADING_FEES: "Expenses",
    FINANCING: "Expenses",
    REALIZED_PNL: "Income",
    UNREALIZED_PNL: "Income",
    INCOME: "Income",
    RETAINED: "Equity",
    CONVERSIONS: "Equity",
    EXTERNAL: "Equity",
    UNITS: "Equity",
    HOLDERS: "Equity",
}

# ledger-cli refuses a line of more than 4,096 bytes, and escapes can make a memo three times as
# long.
LINE_MAX = 1_000
PRICE = "price"  # the kind of the entries that price an asset
NO_CURRENCY = "CURRENCY"  # of a database that does not know its own
# The last day that Python and the tools know: no assertion can be placed on the day after it.
LAST_DAY = date.max.isoformat()

_PLAIN_COMMODITY = re.compile(r"[A-Z][A-Z0-9._-]*[A-Z0-9]")
_RESERVED = frozenset({"TRUE", "FALSE", "NULL"})  # beancount reads them as values


# -- beancount


def beancount(rows: Rows) -> Iterator[str]:
    """A beancount file, by day and then seq, that ``bean-check`` accepts.

    It ends with an assertion of every balance, to the last digit, on the day after the last entry;
    the balance of an account there includes all accounts below it. The assertions are left out when
    the last entry is on the last day of the year 9999.
    """
    closing = _closing(rows)
    identity = meta.read(rows)
    yield (
        f'option "title" {_quoted(identity.get("name", ""))}\n'
        'option "inferred_tolerance_default" "*:0"\n'
        + (
            f'option "operating_currency" "{commodity_name(identity["currency"])}"\n'
            if "currency" in identity
            else ""
        )
    )
    if not closing.days:
        return
    first, last = min(closing.days), max(closing.days)
    for asset in closing.assets:
        yield f"{first} commodity {commodity_name(asset)}\n  name: {_quoted(asset)}\n"
    for name in closing.names:
        yield f"{first} open {name}\n"
    for entry in _by_day(rows, closing.days):
        yield _beancount_entry(entry)
        if entry.kind == PRICE:
            asset, value = _priced(entry)
            yield f"{entry.day} price {commodity_name(asset)}  {value} {closing.currency}\n"
    if last == LAST_DAY:
        yield "\n; No closing balances: there is no day after the last entry.\n"
        return
    after = (date.fromisoformat(last) + timedelta(days=1)).isoformat()
    yield "\n"
    for (name, asset), minor in sorted(closing.inclusive().items()):
        # "~ 0" sets the tolerance: the default would accept a difference in the last digit.
        yield f"{after} balance {name}  {amount_text(minor)} ~ 0 {commodity_name(asset)}\n"


def _beancount_entry(entry: Entry) -> str:
    lines = [
        f"\n{entry.day} * {_quoted(entry.kind)} {_quoted(entry.memo)}",
        f"  seq: {entry.seq}",
        f"  key: {_quoted(entry.key)}",
        f'  recorded: "{instant_text(entry.recorded_us)}"',
    ]
    if entry.strategy is not None:
        lines.append(f"  strategy: {_quoted(entry.strategy)}")
    if entry.reverses is not None:
        lines.append(f"  reverses: {entry.reverses}")
    lines += [
        f"  {account_name(account, strategy)}  {amount_text(minor)} {commodity_name(asset)}"
        for account, strategy, asset, minor in entry.legs
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A beancount string on one line; control characters are shown by their number."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\t", "\\t")
    if not escaped.isprintable():
        escaped = "".join(
            character if character.isprintable() else f"\\\\u{ord(character):04x}"
            for character in escaped
        )
    return f'"{escaped}"'


# -- ledger-cli and hledger


def ledger(rows: Rows) -> Iterator[str]:
    """One text for ledger-cli (``--pedantic``) and hledger (``check -s ordereddates``).

    Transactions come by day and then seq; their code is the entry's seq. The last one moves
    nothing: it asserts every balance. Texts are JSON strings in ASCII, since both tools give a
    meaning to some characters in comments and hledger needs a locale for others; a long text
    continues in the next comment line.
    """
    closing = _closing(rows)
    identity = meta.read(rows)
    yield f"; The journal of {_comment(identity.get('name', ''))}\n\n"
    digits = "0" * len(amount_text(0)[2:])
    for asset in closing.assets:
        # hledger would not check the digits after those of this format.
        yield f"commodity {_symbol(asset)}\n    format 1000.{digits} {_symbol(asset)}\n"
    for name in closing.names:
        yield f"account {name}\n"
    for tag in ("key", "memo", "recorded", "reverses", "strategy"):
        yield f"tag {tag}\n"
    for entry in _by_day(rows, closing.days):
        yield _ledger_entry(entry)
        if entry.kind == PRICE:
            asset, value = _priced(entry)
            yield f"P {entry.day} {_symbol(asset)} {value} {_symbol(closing.currency)}\n"
    if closing.balances:
        yield f"\n{max(closing.days)} * closing balances\n"
        for (account, strategy, asset), minor in closing.balances.items():
            name, symbol = account_name(account, strategy), _symbol(asset)
            yield f"    {name}    {amount_text(0)} {symbol} = {amount_text(minor)} {symbol}\n"


def _ledger_entry(entry: Entry) -> str:
    parts = [f"\n{entry.day} * ({entry.seq}) {entry.kind}\n", _tag("key", entry.key)]
    parts.append(_tag("recorded", instant_text(entry.recorded_us)))
    if entry.strategy is not None:
        parts.append(_tag("strategy", entry.strategy))
    if entry.reverses is not None:
        parts.append(f"    ; reverses: {entry.reverses}\n")
    if entry.memo:
        parts.append(_tag("memo", entry.memo))
    parts += [
        f"    {account_name(account, strategy)}    {amount_text(minor)} {_symbol(asset)}\n"
        for account, strategy, asset, minor in entry.legs
    ]
    return "".join(parts)


def _tag(name: str, text: str) -> str:
    whole = _comment(text)
    pieces = [whole[start : start + LINE_MAX] for start in range(0, len(whole), LINE_MAX)]
    return f"    ; {name}: " + "\n    ; ".join(pieces) + "\n"


# In a comment a colon makes a tag, a comma ends one, a bracket may hold a date, and a semicolon
# begins another comment.
_MEANINGFUL = str.maketrans({mark: f"\\u{ord(mark):04x}" for mark in ":,;[]\x7f"})


def _comment(text: str) -> str:
    return json.dumps(text).translate(_MEANINGFUL)


def _symbol(asset: str) -> str:
    name = commodity_name(asset)
    return name if name.isalpha() else f'"{name}"'


def _priced(entry: Entry) -> tuple[str, str]:
    """The asset that an entry prices, and the decimal text of its price."""
    asset, value = price_of(entry.request)
    return asset, text_of(value)


# -- names


@lru_cache(maxsize=4_096)
def account_name(account: str, strategy: str | None) -> str:
    """The name in a book of an account, or of a strategy's part of it."""
    parts = (ROOTS.get(account, "Equity"), *(_component(part) for part in account.split(":")))
    name = ":".join(parts)
    # The ledger's accounts are all capitals, so none of them has this name.
    return name if strategy is None else f"{name}:Strategy-{_component(strategy)}"


def _component(text: str) -> str:
    name = ""
    for character in text:
        if character.isascii() and character.isalnum():
            name += character
        # A second "-" in a row would look like the beginning of an escape.
        elif character == "_" and not name.endswith("-"):
            name += "-"
        else:
            name += f"--{ord(character):x}-"
    return name


def _path(name: str) -> list[str]:
    """The account and those above it, without the root."""
    parts = name.split(":")
    return [":".join(parts[:depth]) for depth in range(2, len(parts) + 1)]


@lru_cache(maxsize=4_096)
def commodity_name(asset: str) -> str:
    """The name in a book of an asset; ledger and hledger need quotes around it."""
    if _PLAIN_COMMODITY.fullmatch(asset) and asset not in _RESERVED:
        return asset
    readable = re.sub(r"[^A-Z0-9]+", "-", asset.upper())[:64].strip("-")
    exact = asset.encode()
    # ledger-cli reads at most 255 characters of a commodity.
    suffix = exact if len(exact) < 32 else sha256(exact).digest()
    return f"{readable if readable[:1].isalpha() else f'X{readable}'}'{suffix.hex().upper()}"


# -- reading


class _Closing(NamedTuple):
    """The balances at one moment, and the entries up to it."""

    balances: dict[BalanceKey, int]
    days: dict[str, array[int]]  # the seqs of each day, ascending
    priced: frozenset[str]  # assets that have a price, held or not
    currency: str  # in which prices are

    @property
    def assets(self) -> list[str]:
        currency = {self.currency} if self.priced else set()
        return sorted({asset for _, _, asset in self.balances} | self.priced | currency)

    @property
    def names(self) -> list[str]:
        """Every account to open, including the accounts above it."""
        return sorted(
            {
                name
                for account, strategy, _ in self.balances
                for name in _path(account_name(account, strategy))
            }
        )

    def inclusive(self) -> dict[tuple[str, str], int]:
        """Balances by account and asset, each including all accounts below."""
        totals: dict[tuple[str, str], int] = {}
        for (account, strategy, asset), minor in self.balances.items():
            for name in _path(account_name(account, strategy)):
                totals[name, asset] = totals.get((name, asset), 0) + minor
        return totals


def _closing(rows: Rows) -> _Closing:
    # One statement reads one moment, so the balances are those after the last entry.
    found = rows.rows(
        "SELECT head.seq, account, strategy, asset, amount_minor "
        "FROM (SELECT coalesce(max(seq), 0) AS seq FROM entry) AS head LEFT JOIN balance"
    )
    balances = {
        (account, strategy or None, asset): minor
        for _, account, strategy, asset, minor in found
        if account is not None
    }
    priced = frozenset(prices_as_of(rows))
    currency = meta.read(rows).get("currency", NO_CURRENCY)
    return _Closing(balances, _days(rows, found[0][0]), priced, currency)


def _days(rows: Rows, last: int) -> dict[str, array[int]]:
    """The seqs of each day, in eight bytes per entry: sorting entries would hold all of them."""
    days: dict[str, array[int]] = {}
    seq = 0
    while page := rows.rows(
        "SELECT seq, day FROM entry WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?",
        (seq, last, PAGE),
    ):
        for seq, day in page:
            days.setdefault(day, array("q")).append(seq)
    return days


def _by_day(rows: Rows, days: Mapping[str, array[int]]) -> Iterator[Entry]:
    """The entries by day and then seq."""
    for day in sorted(days):
        for start in range(0, len(days[day]), PAGE):
            wanted = json.dumps(days[day][start : start + PAGE].tolist())
            page = rows.rows(
                "SELECT seq, payload FROM entry "
                "WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq",
                (wanted,),
            )
            for seq, payload in page:
                yield decode_entry(seq, payload)
