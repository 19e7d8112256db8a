"""Fills from a CSV file, in parts that one command can carry."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from fundops.control.arguments import converted
from fundops.moments import Instant, instant_us
from fundops.runtime import ConfigError, shown

__all__ = ["fills_of"]

# Fills in one command: a list of at most 1,024 members is accepted, in a mebibyte.
PART = 1_000

_NEEDED = ("id", "at", "strategy", "instrument", "quantity", "price", "fee")
_POSSIBLE = (*_NEEDED, "fee_asset", "revision")


def fills_of(path: Path) -> Iterator[list[dict[str, Any]]]:
    """The fills as the command `ledger.import_fills` takes them.

    The whole file is read first, so a line that cannot be read books nothing.

    Raises: `ConfigError` naming the line; OSError.
    """
    fills = _read(path)
    for start in range(0, len(fills), PART):
        yield fills[start : start + PART]


def _read(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            columns = list(rows.fieldnames or ())
            _check_columns(columns)
            return [_fill(rows.line_num, row) for row in rows]
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"line {max(rows.line_num, 1)}"
            raise ConfigError(where, f"cannot be read: {error}") from None


def _check_columns(columns: list[str]) -> None:
    missing = [name for name in _NEEDED if name not in columns]
    if missing:
        raise ConfigError("line 1", f"has no column {', '.join(missing)}")
    unknown = [name for name in columns if name not in _POSSIBLE]
    if unknown:
        raise ConfigError("line 1", f"has an unknown column {', '.join(unknown)}")


def _fill(line: int, row: dict[Any, Any]) -> dict[str, Any]:
    where = f"line {line}"
    if None in row or None in row.values():
        raise ConfigError(where, "has not as many cells as there are columns")
    return {
        "id": row["id"],
        "strategy": row["strategy"],
        "instrument": row["instrument"],
        **{name: _number(where, name, row[name]) for name in ("quantity", "price", "fee")},
        "at_us": _at_us(where, row["at"]),
        "fee_asset": row.get("fee_asset") or None,
        "revision": _revision(where, row.get("revision") or "0"),
    }


def _number(where: str, name: str, text: str) -> str:
    try:
        Decimal(text)
    except InvalidOperation:
        raise ConfigError(where, f"{name} {shown(text)} is not a decimal number") from None
    return text.strip()


def _revision(where: str, text: str) -> int:
    # Python refuses to read a number of thousands of digits.
    if not text.strip().isdecimal() or len(text) > 18:
        raise ConfigError(where, f"revision {shown(text)} is not a whole number")
    return int(text)


def _at_us(where: str, text: str) -> int:
    try:
        at_us = instant_us(where, converted(text, Instant, "at"))
    except ConfigError as wrong:
        raise ConfigError(where, f"at {shown(text)}: {wrong}") from None
    assert at_us is not None
    return at_us
