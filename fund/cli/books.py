"""The book as a whole: begin it, check it, compare it with a broker, write it out, read it in."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, TextIO

from fundops.cli import screens
from fundops.cli.database import owned
from fundops.cli.grammar import UsageError
from fundops.cli.run import author, checked, database, existing, opened
from fundops.cli.show import amount, counted, print_json, print_lines, print_pairs
from fundops.wire.money import Amount

__all__ = [
    "anchor",
    "begin",
    "export",
    "import_",
    "import_fills",
    "reconcile",
    "verify",
]


def begin(
    total_capital: Amount,
    *,
    name: str = "fund",
    currency: str = "USD",
    db: Path | None = None,
    by: str | None = None,
    json: bool = False,
) -> int:
    """Make a new database and book the capital of the fund in it.

    A fund that is opened on it later must have the same name, currency and total_capital.

    Parameters
    ----------
    total_capital
        the money that the fund begins with
    name
        the name of the fund
    currency
        the currency of its books
    db
        the file to make; ~/.fundops/<name>.db if not given
    """
    from fundops.config import FundConfig
    from fundops.control.standalone import run_command
    from fundops.file import meta
    from fundops.file.database import prepare
    from fundops.wire.errors import DatabaseError

    config = FundConfig(
        total_capital=total_capital, name=name, currency=currency, db_path=db, ledger_enabled=True
    ).located()
    path = config.path
    with owned(path):
        if path.exists():
            raise DatabaseError(path, "exists already, and a book is begun only once")
        identity = meta.identity(config.name, config.currency, config.capital_minor)
        try:
            prepare(path, identity, rules=config.ledger_rules())
        except BaseException:
            # An unfinished file would be taken for a book that has been begun.
            for suffix in ("", "-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            raise
    asked = {"amount": identity["total_capital"], "key": "opening", "memo": "total capital"}
    posted: dict[str, Any] = run_command(path, "ledger.deposit", asked, author(by))
    if json:
        return print_json("ledger begin", {"db": str(path), **identity, "entry": posted})
    print(f"{path}: the book of {name!r} begins with {amount(identity['total_capital'])}", end=" ")
    print(currency)
    return 0


def reconcile(
    path: Path, *, tolerance: Amount = "0", db: Path | None = None, json: bool = False
) -> int:
    """Compare the books with a broker's statements; the exit code is 1 when they differ.

    The file has the columns day, cash, instrument, quantity. A line without an instrument has only
    cash; a file without the last two columns compares only cash.

    Parameters
    ----------
    path
        a CSV file of statements
    tolerance
        differences of cash up to this amount are none
    """
    from fundops.cli.statements import read_statements
    from fundops.control.arguments import plain

    where = existing(database(db))
    statements = read_statements(path)
    with opened(where) as reader:
        answer = reader.reconcile(statements, tolerance=tolerance)
    if json:
        print_json("ledger reconcile", {"ok": answer.ok, **plain(answer)})
    else:
        print_lines(screens.reconciled({**plain(answer), "scope": answer.scope}, where))
    return 0 if answer.ok else 1


def anchor(*, db: Path | None = None, json: bool = False) -> int:
    """Number and hash of the newest entry. Kept elsewhere, they detect a truncated journal."""
    with opened(database(db)) as reader:
        seq, head = reader.anchor()
    if json:
        return print_json("ledger anchor", {"seq": seq, "hash": head})
    print(seq, head)
    return 0


def verify(
    *,
    level: Literal[0, 1, 2, 3] = 2,
    anchor: tuple[int, str] | None = None,
    db: Path | None = None,
    json: bool = False,
) -> int:
    """Check the journal and everything derived from it; the exit code is 1 when a fault is found.

    Parameters
    ----------
    level
        0 that it opens; 1 the pages and the trial balance; 2 the whole chain; 3 outside tools too
    anchor
        number and hash of an earlier newest entry, as `ledger anchor` printed them: it must still
        be there
    """
    with opened(database(db)) as reader:
        report = reader.verify(level, anchor=None if anchor is None else _anchor(*anchor))
    if json:
        print_json("ledger verify", report)
    else:
        print(f"{counted(report.entries, 'entry', 'entries')} checked at level {report.level}")
        print(f"anchor: {report.seq} {report.hash}")
        for name in report.judges:
            print(f"asked: {name}")
        for finding in report.findings:
            print(finding)
        print("nothing is wrong" if report.ok else counted(len(report.findings), "finding"))
    return 0 if report.ok else 1


def _anchor(seq: object, head: str) -> Any:
    from fundops.actors.ledger.verify import Anchor

    if not str(seq).isdecimal():
        raise UsageError(f"--anchor: {str(seq)[:80]!r} is not the number of an entry")
    return Anchor(int(str(seq)), head)


def import_fills(
    path: Path, *, by: str | None = None, db: Path | None = None, json: bool = False
) -> int:
    """Book the fills of a CSV file, each once; the exit code is 1 when one could not be booked.

    The first line names the columns: id, at, strategy, instrument, quantity, price, fee, and
    perhaps fee_asset and revision. `at` is YYYY-MM-DD, or a time with its offset.

    Parameters
    ----------
    path
        the CSV file, in UTF-8
    """
    from fundops.cli.fills import fills_of
    from fundops.control.standalone import run_command

    where = existing(database(db))
    new, aside = 0, list[dict[str, Any]]()
    for fills in fills_of(path):
        booked = run_command(where, "ledger.import_fills", {"fills": fills}, author(by))
        new += booked["new"]
        aside += booked["aside"]
    if json:
        print_json("ledger import-fills", {"new": new, "aside": aside})
    else:
        booked_now = counted(new, "entry", "entries")
        print(f"{booked_now} booked, {counted(len(aside), 'fill')} set aside")
        for report in aside:
            print(f"{report['id']}: {report['reason']}  key {report['key']}")
    return 1 if aside else 0


# -- the whole journal


def export(
    *,
    format: Literal["jsonl", "csv", "beancount", "ledger"] = "jsonl",
    output: Path | None = None,
    db: Path | None = None,
    json: bool = False,
) -> int:
    """Write the whole journal as text, for other tools or for `ledger import`.

    Parameters
    ----------
    format
        jsonl can be imported again; beancount, ledger (hledger reads it too) and csv are for others
    output
        a new file to write; standard output if not given
    json
        with --output, print the path as one JSON object
    """
    from fundops.actors.ledger import books, journal
    from fundops.actors.persistence import Reader

    if json and output is None:
        raise UsageError("--json: needs --output, since the journal itself is printed without it")
    writers = {
        "jsonl": journal.jsonl,
        "csv": journal.csv,
        "beancount": books.beancount,
        "ledger": books.ledger,
    }
    with Reader(checked(database(db))) as rows, rows.snapshot():
        lines = writers[format](rows)
        if output is None:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(encoding="utf-8")  # as in a file: it is read by programs
            _write_lines(sys.stdout, lines)
        else:
            _write_new(output, lines)
    return print_json("ledger export", {"output": str(output), "format": format}) if json else 0


def _write_new(output: Path, lines: Iterable[str]) -> None:
    """Write a new file, readable by its owner alone, that has its name only once it is whole."""
    _refuse_to_overwrite(output)
    part = output.with_name(f"{output.name}.part")
    try:
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


def import_(path: Path, *, db: Path | None = None, json: bool = False) -> int:
    """Make a new database from an exported jsonl, checking the hash chain line by line.

    Parameters
    ----------
    path
        the jsonl file
    db
        the database to make; ~/.fundops/fund.db if not given
    """
    from fundops.file.restore import import_book

    where = database(db)
    # A line that is not UTF-8 is no entry; the import refuses it with its number.
    with owned(where), path.open(encoding="utf-8", errors="replace") as lines:
        header = import_book(where, lines)
    told = {"entries": header.seq, "hash": header.hash}
    return print_json("ledger import", told) if json else print_pairs(told)
