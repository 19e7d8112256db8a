"""The command line of the ledger: `fundops ledger ...`.

A long file that is one list: a short function for each word, whose docstring is its help text.

Reports are read from the file, whether a fund owns it or not. A change is sent to the fund that
runs on the database, or made here under the owner's lock when none runs; either way it leaves an
audit row. Amounts are decimal text.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from cyclopts import App, Parameter

from fundops.cli.bookings import BOOKINGS, author, book
from fundops.cli.database import owned
from fundops.cli.options import Booking, Money, Source, given, instant
from fundops.cli.show import plain, print_json, print_pairs, print_table, signed

__all__ = ["app"]

app = App(name="ledger", help="Book and read the double-entry ledger.")


# -- reports


@app.command(name="balance-sheet")
def balance_sheet(
    *,
    as_of: str | None = None,
    strategy: str | None = None,
    asset: str | None = None,
    source: Source | None = None,
) -> int:
    """Debits minus credits per account.

    Parameters
    ----------
    as_of
        At the end of this day (YYYY-MM-DD), or at this time; now by default.
    strategy
        Only of this strategy.
    asset
        In this asset, such as UNITS; the fund's currency by default.
    """
    return _report(
        source, "balance_sheet", as_of=instant("as-of", as_of), strategy=strategy, asset=asset
    )


@app.command
def income(
    *,
    start: str | None = None,
    end: str | None = None,
    strategy: str | None = None,
    asset: str | None = None,
    source: Source | None = None,
) -> int:
    """Income positive, expense negative.

    Parameters
    ----------
    start
        First day (YYYY-MM-DD) or time; the beginning by default.
    end
        Last day or time, which is included; now by default.
    strategy
        Only of this strategy.
    asset
        In this asset; the fund's currency by default.
    """
    span = {"start": instant("start", start), "end": instant("end", end)}
    return _report(source, "income_statement", **span, strategy=strategy, asset=asset)


@app.command
def trial(
    *,
    as_of: str | None = None,
    strategy: str | None = None,
    asset: str | None = None,
    source: Source | None = None,
) -> int:
    """Debits minus credits of every account, EXTERNAL too; the sum is zero.

    Parameters
    ----------
    as_of
        At the end of this day (YYYY-MM-DD), or at this time; now by default.
    strategy
        Only of this strategy.
    asset
        In this asset, such as UNITS; the fund's currency by default.
    """
    return _report(
        source, "trial_balance", as_of=instant("as-of", as_of), strategy=strategy, asset=asset
    )


@app.command(name="cash-flow")
def cash_flow(
    *,
    start: str | None = None,
    end: str | None = None,
    strategy: str | None = None,
    source: Source | None = None,
) -> int:
    """Changes of cash by their purpose.

    Parameters
    ----------
    start
        First day (YYYY-MM-DD) or time; the beginning by default.
    end
        Last day or time, which is included; now by default.
    strategy
        Only of this strategy.
    """
    span = {"start": instant("start", start), "end": instant("end", end)}
    return _report(source, "cash_flow", **span, strategy=strategy)


@app.command
def nav(
    *,
    as_of: str | None = None,
    per_unit: Annotated[bool, Parameter(negative="")] = False,
    source: Source | None = None,
) -> int:
    """Net asset value by the books.

    Parameters
    ----------
    as_of
        At the end of this day (YYYY-MM-DD), or at this time; now by default.
    per_unit
        Of one unit, which deposits and withdrawals do not change.
    """
    at = instant("as-of", as_of)
    _name_unpriced(source, at)
    return _report(source, "nav_per_unit" if per_unit else "nav", as_of=at)


def _name_unpriced(source: Source | None, as_of: Any) -> None:
    """Say on stderr which assets the NAV does not count, so that the output stays a figure."""
    with _reader(source or Source()) as reader:
        prices = reader.prices(**given(as_of=as_of))
    unpriced = [asset for asset, price in prices.items() if price is None]
    if unpriced:
        print(f"fundops: not counted, without a price: {', '.join(unpriced)}", file=sys.stderr)


@app.command
def positions(
    *, as_of: str | None = None, strategy: str | None = None, source: Source | None = None
) -> int:
    """Open positions by strategy and instrument.

    Parameters
    ----------
    as_of
        At the end of this day (YYYY-MM-DD), or at this time; now by default.
    strategy
        Only of this strategy.
    """
    asked = given(as_of=instant("as-of", as_of), strategy=strategy)
    heads = ("strategy", "instrument", "quantity", "cost", "value")
    return _table(source, "positions", heads, **asked)


@app.command
def lots(
    *, strategy: str | None = None, instrument: str | None = None, source: Source | None = None
) -> int:
    """Open lots, oldest first: the order in which they are closed.

    Parameters
    ----------
    strategy
        Only of this strategy.
    instrument
        Only of this instrument.
    """
    asked = given(strategy=strategy, instrument=instrument)
    heads = ("strategy", "instrument", "opened", "day", "quantity", "cost", "value")
    return _table(source, "lots", heads, **asked)


@app.command
def realized(
    *,
    start: str | None = None,
    end: str | None = None,
    by: Literal["strategy", "instrument"] = "strategy",
    source: Source | None = None,
) -> int:
    """Realized P&L; a gain is positive.

    Parameters
    ----------
    start
        First day (YYYY-MM-DD) or time; the beginning by default.
    end
        Last day or time, which is included; now by default.
    by
        One line for each strategy, or for each instrument.
    """
    span = {"start": instant("start", start), "end": instant("end", end)}
    return _report(source, "realized", **span, by=by)


@app.command
def prices(*, as_of: str | None = None, source: Source | None = None) -> int:
    """The last price of every other asset; null for one that is held and has none.

    Parameters
    ----------
    as_of
        At the end of this day (YYYY-MM-DD), or at this time; now by default.
    """
    return _report(source, "prices", as_of=instant("as-of", as_of))


@app.command
def reconcile(path: Path, /, *, tolerance: Money = "0", source: Source | None = None) -> int:
    """Compare the books with a broker's statements; the exit code is 1 when they differ.

    Parameters
    ----------
    path
        A CSV file with the columns day, cash, instrument, quantity. A line without an instrument
        has only cash; a file without the last two columns compares only cash.
    tolerance
        Differences of cash up to this amount are none.
    """
    from fundops.cli.statements import read_statements

    where = source or Source()
    statements = read_statements(path)
    with _reader(where) as reader:
        answer = reader.reconcile(statements, tolerance=tolerance)
    if where.json:
        print_json({"ok": answer.ok, **plain(answer)})
    else:
        print(answer)
        if answer.entries:
            _print_entries(answer.entries)
    return 0 if answer.ok else 1


@app.command
def entries(
    *,
    account: str | None = None,
    strategy: str | None = None,
    kind: str | None = None,
    after: int | None = None,
    limit: int = 20,
    key: str | None = None,
    day: str | None = None,
    instrument: str | None = None,
    source: Source | None = None,
) -> int:
    """Journal entries, newest first.

    Parameters
    ----------
    account
        Only entries with a leg in this account.
    strategy
        Only of this strategy.
    kind
        Only entries of this kind: deposit, withdrawal, profit, loss, ...
    after
        Only entries older than this number, such as the last one of the page before.
    limit
        The largest number of entries to list.
    key
        Only the entry with this key.
    day
        Only of this day (YYYY-MM-DD).
    instrument
        Only entries that moved lots of this instrument, or name it.
    """
    where = source or Source()
    asked = given(account=account, strategy=strategy, kind=kind, after_seq=after)
    asked |= given(key=key, day=day, instrument=instrument)
    with _reader(where) as reader:
        found = reader.entries(**asked, limit=limit)
    return print_json(found) if where.json else _print_entries(found)


def _print_entries(found: Iterable[Any]) -> int:
    rows = [
        (
            str(entry.seq),
            entry.day,
            entry.kind,
            entry.strategy or "",
            " ".join(f"{leg.account}{signed(leg.amount)}" for leg in entry.legs),
            entry.memo,
        )
        for entry in found
    ]
    return print_table(("seq", "day", "kind", "strategy", "legs", "memo"), rows)


@app.command
def anchor(*, source: Source | None = None) -> int:
    """Number and hash of the newest entry. Kept elsewhere, they detect a truncated journal."""
    where = source or Source()
    with _reader(where) as reader:
        seq, head = reader.anchor()
    if where.json:
        return print_json({"seq": seq, "hash": head})
    print(seq, head)
    return 0


@app.command
def verify(
    *,
    level: Literal[0, 1, 2, 3] = 2,
    anchor: tuple[int, str] | None = None,
    source: Source | None = None,
) -> int:
    """Check the journal and everything derived from it; the exit code is 1 when something is wrong.

    Parameters
    ----------
    level
        0 that it opens; 1 the pages and the trial balance; 2 the whole chain; 3 outside tools too.
    anchor
        Number and hash of an earlier newest entry, as `anchor` printed them: it must still be
        there.
    """
    from fundops.actors.ledger.verify import Anchor

    where = source or Source()
    with _reader(where) as reader:
        report = reader.verify(level, anchor=None if anchor is None else Anchor(*anchor))
    if where.json:
        print_json(report)
    else:
        print(
            f"{report.entries} entries looked over at level {report.level};"
            f" the last is {report.seq} {report.hash}"
        )
        for name in report.judges:
            print(f"asked: {name}")
        for finding in report.findings:
            print(finding)
        print("nothing is wrong" if report.ok else f"{len(report.findings)} findings")
    return 0 if report.ok else 1


# -- changes


@app.command
def deposit(amount: Money, /, *, booking: Booking | None = None) -> int:
    """Book money that comes in from outside: CASH / EXTERNAL.

    Parameters
    ----------
    amount
        How much.
    """
    return book(booking, "deposit", amount=amount)


@app.command
def withdraw(amount: Money, /, *, booking: Booking | None = None) -> int:
    """Book money that leaves the fund: EXTERNAL / CASH. Refused when there is too little.

    Parameters
    ----------
    amount
        How much.
    """
    return book(booking, "withdraw", amount=amount)


@app.command
def profit(amount: Money, /, *, booking: Booking | None = None) -> int:
    """Book a realized gain: CASH / REALIZED_PNL.

    Parameters
    ----------
    amount
        How much.
    """
    return book(booking, "record_profit", amount=amount)


@app.command
def loss(amount: Money, /, *, booking: Booking | None = None) -> int:
    """Book a realized loss, given as a positive amount: REALIZED_PNL / CASH.

    Parameters
    ----------
    amount
        How much.
    """
    return book(booking, "record_loss", amount=amount)


@app.command
def post(
    *,
    debit: Annotated[list[str] | None, Parameter(negative="")] = None,
    credit: Annotated[list[str] | None, Parameter(negative="")] = None,
    booking: Booking | None = None,
) -> int:
    """Book an entry of explicit legs, at least two, whose sum is zero.

    Parameters
    ----------
    debit
        ACCOUNT=AMOUNT, as often as needed.
    credit
        ACCOUNT=AMOUNT, as often as needed.
    """
    legs = [_leg("debit", text, "") for text in debit or ()] + [
        _leg("credit", text, "-") for text in credit or ()
    ]
    return book(booking, "post", entry=legs)


def _leg(option: str, text: str, sign: str) -> dict[str, str]:
    from fundops.runtime import ConfigError
    from fundops.wire.money import from_minor, positive_minor, text_of

    account, equals, amount = text.partition("=")
    if not (account and equals):
        raise ConfigError(f"--{option}", f"{text!r} is not ACCOUNT=AMOUNT")
    return {
        "account": account,
        "amount": f"{sign}{text_of(from_minor(positive_minor(amount, account).minor))}",
    }


for word, command in BOOKINGS.items():
    app.command(command, name=word)


# -- reports of the engine


@app.command(name="reports-aside")
def reports_aside(*, limit: int = 100, source: Source | None = None) -> int:
    """Reports of the engine that could not be booked, the oldest first.

    Parameters
    ----------
    limit
        The largest number of reports to list.
    """
    where = source or Source()
    with _reader(where) as reader:
        found = reader.reports_aside(limit)
    if where.json:
        return print_json(found)
    rows = [(report.kind, report.id, report.key, report.reason) for report in found]
    return print_table(("kind", "id", "key", "reason"), rows)


@app.command(name="skip-report")
def skip_report(
    key: str, /, *, reason: str, by: str | None = None, source: Source | None = None
) -> int:
    """Give up a report that was set aside: it is not tried and not told again.

    Parameters
    ----------
    key
        Its key, as `reports-aside` lists it, or its id where no other report aside has it.
    reason
        Why, for the audit table.
    by
        The name for the audit table; $USER by default.
    """
    from fundops.control.standalone import run_command

    where, who = source or Source(), author(by)
    asked = {"key": key, "reason": reason, "by": who}
    skipped = run_command(where.path, "ledger.skip_report", asked, who)
    if where.json:
        return print_json(skipped)
    print(f"given up: {skipped['kind']} {skipped['id']}  key {skipped['key']}")
    return 0


@app.command(name="import-fills")
def import_fills(path: Path, /, *, by: str | None = None, source: Source | None = None) -> int:
    """Book the fills of a CSV file, each once; the exit code is 1 when one could not be booked.

    The first line names the columns: id, at, strategy, instrument, quantity, price, fee, and
    perhaps fee_asset and revision. `at` is YYYY-MM-DD, or a time with its offset.

    Parameters
    ----------
    path
        The CSV file, in UTF-8.
    by
        The name for the audit table; $USER by default.
    """
    from fundops.cli.fills import fills_of
    from fundops.control.standalone import run_command

    where = source or Source()
    new, aside = 0, list[dict[str, Any]]()
    for fills in fills_of(path):
        booked = run_command(where.path, "ledger.import_fills", {"fills": fills}, author(by))
        new += booked["new"]
        aside += booked["aside"]
    if where.json:
        print_json({"new": new, "aside": aside})
    else:
        print(f"{new} entries booked, {len(aside)} fills set aside")
        for report in aside:
            print(f"{report['id']}: {report['reason']}  key {report['key']}")
    return 1 if aside else 0


# -- the whole journal


@app.command
def export(
    *,
    format: Literal["jsonl", "csv", "beancount", "ledger"] = "jsonl",
    output: Path | None = None,
    source: Source | None = None,
) -> int:
    """Write the whole journal as text, for other tools or for `import`.

    Parameters
    ----------
    format
        jsonl can be imported again; beancount, ledger (hledger reads it too) and csv are for
        others.
    output
        A new file to write; standard output by default.
    """
    from fundops.actors.ledger import books, journal
    from fundops.actors.persistence import Reader

    where = source or Source()
    writers = {
        "jsonl": journal.jsonl,
        "csv": journal.csv,
        "beancount": books.beancount,
        "ledger": books.ledger,
    }
    with Reader(where.path) as rows, rows.snapshot():
        lines = writers[format](rows)
        if output is None:
            _write_lines(sys.stdout, lines)
        else:
            _write_new(output, lines)
    return 0


def _write_new(output: Path, lines: Iterable[str]) -> None:
    """Write a new file, readable by its owner alone, that has its name only once it is whole."""
    part = output.with_name(f"{output.name}.part")
    try:
        _refuse_to_overwrite(output)
        with open(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            _write_lines(file, lines)
            file.flush()
            os.fsync(file.fileno())
        _refuse_to_overwrite(output)
        part.rename(output)
    finally:
        part.unlink(missing_ok=True)


def _refuse_to_overwrite(output: Path) -> None:
    if output.exists() or output.is_symlink():
        problem = "exists already, and an export never overwrites"
        raise FileExistsError(errno.EEXIST, problem, str(output))


def _write_lines(file: TextIO, lines: Iterable[str]) -> None:
    for line in lines:
        file.write(line if line.endswith("\n") else f"{line}\n")


@app.command(name="import")
def import_(path: Path, /, *, source: Source | None = None) -> int:
    """Make a new database from an exported jsonl, checking the hash chain line by line.

    Parameters
    ----------
    path
        The jsonl file.
    """
    from fundops.file.restore import import_book

    where = source or Source()
    # A line that is not UTF-8 is no entry; the import refuses it with its number.
    with owned(where.path), path.open(encoding="utf-8", errors="replace") as lines:
        header = import_book(where.path, lines)
    told = {"entries": header.seq, "hash": header.hash}
    return print_json(told) if where.json else print_pairs(told)


# -- asking


def _reader(where: Source) -> AbstractContextManager[Any]:
    from fundops.reader import open_reader

    return open_reader(where.path)


def _report(source: Source | None, question: str, **options: Any) -> int:
    where = source or Source()
    with _reader(where) as reader:
        answer = getattr(reader, question)(**given(**options))
    if where.json:
        return print_json(answer)
    shown = plain(answer)
    if isinstance(shown, Mapping):
        return print_pairs(shown)
    print(shown)
    return 0


def _table(source: Source | None, question: str, heads: Sequence[str], **asked: Any) -> int:
    """Print a list of records, a line each, or as JSON."""
    where = source or Source()
    with _reader(where) as reader:
        found = getattr(reader, question)(**asked)
    if where.json:
        return print_json(found)
    cells = [
        ["" if record[head] is None else str(record[head]) for head in heads]
        for record in plain(found)
    ]
    return print_table(heads, cells)
