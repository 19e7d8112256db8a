"""A broker's statements from a CSV file: day, cash, instrument, quantity."""

from __future__ import annotations

import csv
from pathlib import Path

from fundops.runtime import ConfigError
from fundops.wire.ledger import Statement
from fundops.wire.money import Amount

__all__ = ["read_statements"]

_COLUMNS = ("day", "cash", "instrument", "quantity")


def read_statements(path: Path) -> list[Statement]:
    """One statement for each day of the file, whose lines may come in any order.

    Raises: `ConfigError` naming the line that cannot be read; `OSError`.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, strict=True)
        try:
            columns = [name.strip() for name in lines.fieldnames or ()]
            if "day" not in columns or not set(columns) <= set(_COLUMNS):
                raise ConfigError(
                    str(path), f"needs a first line with the columns {','.join(_COLUMNS)}"
                )
            lines.fieldnames = columns
            statements = _statements(path, lines, "instrument" in columns)
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"{path}:{max(lines.line_num, 1)}"
            raise ConfigError(where, f"cannot be read: {error}") from None
    if all(one.cash is None and one.positions is None for one in statements):
        raise ConfigError(str(path), "states neither cash nor positions of any day")
    return statements


def _statements(path: Path, lines: csv.DictReader[str], lists_positions: bool) -> list[Statement]:
    cash: dict[str, str | None] = {}
    positions: dict[str, dict[str, Amount]] = {}
    for line in lines:
        where = f"{path}:{lines.line_num}"
        cells = {name: (text or "").strip() for name, text in line.items() if name in _COLUMNS}
        if None in line:
            raise ConfigError(where, "has more cells than the first line has names")
        day = cells["day"]
        stated = cells.get("cash") or None
        if stated is not None and cash.get(day) not in (None, stated):
            raise ConfigError(where, f"states another cash for {day}: {stated} and {cash[day]}")
        cash[day] = stated if stated is not None else cash.get(day)
        held = positions.setdefault(day, {})
        instrument, quantity = cells.get("instrument", ""), cells.get("quantity", "")
        if bool(instrument) != bool(quantity):
            raise ConfigError(where, "needs an instrument with its quantity, or neither")
        if instrument in held:
            raise ConfigError(where, f"names {instrument!r} twice for {day}")
        if instrument:
            held[instrument] = quantity
    return [Statement(day, cash[day], positions[day] if lists_positions else None) for day in cash]
