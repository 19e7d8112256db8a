"""The output of commands: JSON, pairs, tables, and one line for a wrong usage.

The printing functions return the exit code 0, so that a command can end with one of them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["plain", "print_json", "print_pairs", "print_table", "signed", "usage"]


def usage(problem: str) -> int:
    """Say on stderr why the command cannot run; returns the exit code 2."""
    print(f"fundops: {problem}", file=sys.stderr)
    return 2


def plain(value: Any) -> Any:
    """An answer as JSON values: money as plain decimal text, Structs as objects."""
    from fundops.control import arguments

    return arguments.plain(value)


def signed(amount: Any) -> str:
    """An amount with its sign, + too."""
    from fundops.wire.money import text_of

    return f"{'' if amount < 0 else '+'}{text_of(amount)}"


def print_json(value: Any) -> int:
    """Print one line of JSON."""
    import msgspec

    print(msgspec.json.encode(plain(value)).decode())
    return 0


def print_pairs(pairs: Mapping[str, Any]) -> int:
    """Print one line for each name and value, in two aligned columns."""
    shown = {
        name: value if isinstance(value, str) else _compact(value) for name, value in pairs.items()
    }
    name_width = max((len(name) for name in shown), default=0)
    value_width = max((len(value) for value in shown.values()), default=0)
    for name, value in shown.items():
        print(f"{name:<{name_width}}  {value:>{value_width}}")
    return 0


def _compact(value: Any) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Print the heads and the rows in aligned columns."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in (heads, *rows):
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )
    return 0
