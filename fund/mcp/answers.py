"""The tools: each question, its arguments, and its answer read from the database.

Every call opens the database read-only and closes it again, so it works whether the fund runs or
not; what only a running fund knows is asked of its control socket first. All parts of one answer
show the same moment, even while the fund commits. Money is exact decimal text in the fund's
currency, times are ISO 8601 in UTC, lists are newest first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from fundops.actors.ledger import accounts
from fundops.control import call
from fundops.errors import ControlError, UnknownCommand
from fundops.file.why import NO_FUND
from fundops.reader import FundReader, open_reader
from fundops.runtime import ConfigError, FundopsError
from fundops.wire.alert import AlertOutcome, AlertRecord, Category, Level
from fundops.wire.ledger import Entry
from fundops.wire.promotion import HistoryEntry, PromotionStage
from fundops.wire.why import Blocker, Why

__all__ = ["TOOLS", "Tool", "answer", "checked", "schema"]

LIMIT_MAX = 1_000
HISTORY_LINES = 100
# Of a running fund; after it the database must do.
SOCKET_ANSWER_S = 5.0

_ASSETS = frozenset((accounts.CASH, accounts.POSITIONS, accounts.FEES_RECEIVABLE))

Money = Annotated[str, msgspec.Meta(pattern=r"^-?\d+(\.\d+)?$", description="exact decimal text")]
Instant = Annotated[datetime, msgspec.Meta(tz=True, description="UTC")]
Limit = Annotated[
    int, msgspec.Meta(description="how many of the newest to list; clamped to 1..1000")
]


# -- arguments


class Page(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The number of items to list."""

    limit: Limit = 50

    @property
    def size(self) -> int:
        """The limit, clamped to 1..1000."""
        return max(1, min(self.limit, LIMIT_MAX))


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """No arguments."""


class OneStrategy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The name of a strategy."""

    strategy: str


# -- answers


class Alert(msgspec.Struct, frozen=True):
    """One alert. QUEUED and NO_CHANNEL were stored; UNPERSISTED was sent without being stored."""

    id: int
    at: Instant
    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None
    outcome: AlertOutcome


class Alerts(msgspec.Struct, frozen=True):
    """The newest alerts. The counts cover the whole history, suppressed alerts included."""

    alerts: tuple[Alert, ...]
    by_category: Mapping[str, int]
    by_outcome: Mapping[str, int]
    suppressed_by_category: Mapping[str, int]


class JournalLeg(msgspec.Struct, frozen=True):
    """One posting: debit positive, credit negative."""

    account: str
    amount: Money
    strategy: str | None
    asset: str | None


class JournalEntry(msgspec.Struct, frozen=True):
    """One balanced entry; `reverses` is the number of the reversed entry, `day` the booking day."""

    seq: int
    key: str
    at: Instant
    day: str
    kind: str
    strategy: str | None
    legs: tuple[JournalLeg, ...]
    reverses: int | None
    memo: str


class Sheet(msgspec.Struct, frozen=True):
    """Assets against liabilities, all positive; a negative asset account counts as a liability."""

    assets: Mapping[str, Money]
    liabilities: Mapping[str, Money]
    total_assets: Money
    total_liabilities: Money
    net_asset_value: Money  # assets less liabilities


class Ledger(msgspec.Struct, frozen=True):
    """The books. `accounts` are debits less credits; income is positive, expense negative."""

    currency: str
    entries: tuple[JournalEntry, ...]
    balance_sheet: Sheet
    accounts: Mapping[str, Money]
    income_statement: Mapping[str, Money]


class PromotionLine(msgspec.Struct, frozen=True):
    """One change of a strategy; `from_stage` is null for its first."""

    seq: int
    at: Instant
    strategy: str
    kind: str
    from_stage: PromotionStage | None
    to_stage: PromotionStage
    by: str
    reason: str
    metrics: Mapping[str, float]


class Promotions(msgspec.Struct, frozen=True):
    """The stage of every strategy by name, and the newest 100 changes."""

    stages: Mapping[str, PromotionStage]
    history: tuple[PromotionLine, ...]


class Blockers(msgspec.Struct, frozen=True):
    """The permission of one strategy now, and every blocker between it and real orders, in order.

    `lift` is the command that lifts a blocker, for a person to type. `fund_answers` false: read
    from the database, which holds no leases, so no strategy may open by it.
    """

    strategy: str
    fund_answers: bool
    may_open: bool
    may_close: bool
    stage: str | None
    mode: str
    capital: Money
    blockers: tuple[Blocker, ...]
    notes: tuple[str, ...]


def _money(amount: Decimal) -> str:
    return f"{amount:f}"


def _texts(amounts: Mapping[str, Decimal]) -> dict[str, str]:
    return {account: _money(amount) for account, amount in amounts.items()}


def _instant(at_us: int) -> datetime:
    seconds, micros = divmod(at_us, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=micros)


def _sheet(balances: Mapping[str, Decimal]) -> Sheet:
    held = {account: amount for account, amount in balances.items() if account in _ASSETS}
    assets = {account: amount for account, amount in held.items() if amount >= 0}
    owed = {account: -amount for account, amount in held.items() if amount < 0}
    return Sheet(
        assets=_texts(assets),
        liabilities=_texts(owed),
        total_assets=_money(sum(assets.values(), Decimal())),
        total_liabilities=_money(sum(owed.values(), Decimal())),
        net_asset_value=_money(sum(held.values(), Decimal())),
    )


def _alert(record: AlertRecord) -> Alert:
    return Alert(
        id=record.id,
        at=_instant(record.at_us),
        level=record.level,
        category=record.category,
        title=record.title,
        message=record.message,
        strategy=record.strategy,
        outcome=record.outcome,
    )


def _entry(entry: Entry) -> JournalEntry:
    return JournalEntry(
        seq=entry.seq,
        key=entry.key,
        at=_instant(entry.recorded_us),
        day=entry.day,
        kind=entry.kind,
        strategy=entry.strategy,
        # The reader gives Decimal; the type of a leg also allows the other types that callers may
        # pass.
        legs=tuple(
            JournalLeg(leg.account, _money(Decimal(leg.amount)), leg.strategy, leg.asset)
            for leg in entry.legs
        ),
        reverses=entry.reverses,
        memo=entry.memo,
    )


def _line(entry: HistoryEntry) -> PromotionLine:
    return PromotionLine(
        seq=entry.seq,
        at=_instant(entry.effective_us),
        strategy=entry.strategy,
        kind=entry.kind,
        from_stage=entry.from_stage,
        to_stage=entry.to_stage,
        by=entry.by,
        reason=entry.reason,
        metrics=entry.metrics,
    )


# -- the tools


def _alerts(reader: FundReader, page: Page) -> Alerts:
    found = reader.recent_alerts(page.size)
    return Alerts(
        alerts=tuple(_alert(record) for record in found.alerts),
        by_category=found.by_category,
        by_outcome=found.by_outcome,
        suppressed_by_category=found.suppressed_by_category,
    )


def _ledger(reader: FundReader, page: Page) -> Ledger:
    currency = reader.meta().get("currency")
    if currency is None:
        raise FundopsError("the database has no fund in it yet: start the fund once")
    balances = reader.balance_sheet()
    return Ledger(
        currency=currency,
        entries=tuple(_entry(entry) for entry in reader.recent_entries(page.size)),
        balance_sheet=_sheet(balances),
        accounts=_texts(balances),
        income_statement=_texts(reader.income_statement()),
    )


def _promotions(reader: FundReader, _: Nothing) -> Promotions:
    return Promotions(
        stages=reader.stages(),
        history=tuple(_line(entry) for entry in reader.promotion_history(HISTORY_LINES)),
    )


def _blockers(why: Why, *notes: str, fund_answers: bool) -> Blockers:
    return Blockers(
        strategy=why.strategy,
        fund_answers=fund_answers,
        may_open=why.may_open,
        may_close=why.may_close,
        stage=why.stage,
        mode=why.mode,
        capital=_money(why.capital),
        blockers=why.blockers,
        notes=(*why.notes, *notes),
    )


def _why(reader: FundReader, asked: OneStrategy) -> Blockers:
    return _blockers(reader.why(asked.strategy), NO_FUND, fund_answers=False)


def _why_of_the_fund(path: Path, asked: OneStrategy) -> Blockers | None:
    """The answer of the running fund; None when none answers."""
    try:
        answer = call(
            path, "fund.why", {"name": asked.strategy}, by="mcp", timeout_s=SOCKET_ANSWER_S
        )
    except UnknownCommand:  # a fund of an earlier version
        return None
    except ConfigError as error:
        if error.field != "db":
            raise
        return None  # a file in which no fund has run, such as one of promotion alone
    except ControlError as error:
        if error.kind != "ControlError":  # an error of the fund
            raise
        return None
    return _blockers(msgspec.convert(answer, Why), fund_answers=True)


class Tool(NamedTuple):
    """A question with the types of its arguments and its answer.

    `ask` asks the running fund; without it, or when it gives None, the database is read.
    """

    description: str
    arguments: type[msgspec.Struct]
    answer: type[msgspec.Struct]
    read: Callable[[FundReader, Any], msgspec.Struct]
    ask: Callable[[Path, Any], msgspec.Struct | None] | None = None


TOOLS = {
    "fund_alerts": Tool(
        "Recent alerts of the fund with counts by category and by outcome. "
        "Use this to check what happened while you were idle.",
        Page,
        Alerts,
        _alerts,
    ),
    "fund_ledger": Tool(
        "Recent journal entries, the balance sheet (assets against liabilities) "
        "and the income statement.",
        Page,
        Ledger,
        _ledger,
    ),
    "fund_promotion_status": Tool(
        "The promotion stage of every strategy, and the history of promotions and demotions.",
        Nothing,
        Promotions,
        _promotions,
    ),
    "fund_why": Tool(
        "Every blocker between one strategy and real orders, in order, each with the command with "
        "which a person lifts it.",
        OneStrategy,
        Blockers,
        _why,
        _why_of_the_fund,
    ),
}


def schema(kind: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of `kind`, with the object itself at its root, as MCP requires."""
    made = msgspec.json.schema(kind)
    definitions = made.pop("$defs")
    root: dict[str, Any] = definitions.pop(made["$ref"].rpartition("/")[2])
    return {**root, "$defs": definitions} if definitions else root


def checked(kind: type[msgspec.Struct], given: Mapping[str, Any] | None) -> msgspec.Struct:
    """The arguments as a checked `kind`. Raises: `ConfigError` naming the wrong one.

    A number without a fraction is an integer in JSON Schema, also when it is written as 5.0.
    """
    whole = {
        name: int(value) if isinstance(value, float) and value.is_integer() else value
        for name, value in (given or {}).items()
    }
    try:
        return msgspec.convert(whole, kind)
    except msgspec.ValidationError as error:
        problem, _, where = str(error).partition(" - at `$.")
        raise ConfigError(where.rstrip("`") or "arguments", problem) from None


def answer(path: Path, tool: Tool, arguments: msgspec.Struct) -> msgspec.Struct:
    """The tool's answer, from the running fund or from its database. Raises: `FundopsError`."""
    if tool.ask is not None:
        found = tool.ask(path, arguments)
        if found is not None:
            return found
    with open_reader(path) as reader, reader.snapshot():
        return tool.read(reader, arguments)
