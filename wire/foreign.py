"""Values of classes that are not ours: read once, as the exact types of Python and of this package.

A subclass or a foreign class may raise, or answer anything, whenever one of its methods runs. So a
type is asked for with `type`, never with `isinstance`, which believes the `__class__` of a value;
and a text or a number becomes a plain one before anything else is done with it.
"""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import Any

from ..runtime import FOREIGN_ERRORS

__all__ = ["TEXT_MAX", "field_of", "fitted", "plain_list", "plain_number", "plain_text"]

TEXT_MAX = 1_000

_OWN_NUMBERS = frozenset((int, float, Decimal))


def plain_text(value: Any) -> str | None:
    """The text as a plain `str`; None when the value is no text. Never raises."""
    if type(value) is str:
        return value
    return str.__str__(value) if issubclass(type(value), str) else None


def plain_number(
    value: Any, *, methods: tuple[str, ...] = ("__index__", "__float__")
) -> int | float | Decimal | None:
    """The number as an exact int, float or Decimal; None when the value is none. Never raises.

    Of a foreign class the first of these methods counts that it has.

    numpy's scalars are numbers, by `__index__` or `__float__`. Texts, truth values (numpy's have
    their own type) and arrays, also of one element, are none.
    """
    kind: Any = type(value)
    if kind in _OWN_NUMBERS:
        return value  # type: ignore[no-any-return]
    try:
        if kind.__name__.startswith("bool") or hasattr(kind, "__len__"):
            return None
        if issubclass(kind, Decimal):
            return Decimal(value)
        if issubclass(kind, float):
            return float.__float__(value)
        method = next((method for method in methods if hasattr(kind, method)), None)
        if method == "__index__":
            return operator.index(value)
        if method == "__float__":
            return float.__float__(kind.__float__(value))
    except FOREIGN_ERRORS:
        pass
    return None


def plain_list(value: Any) -> list[Any] | None:
    """The items of a list, a tuple, a numpy array or a pandas Series; None for anything else.

    Never raises.
    """
    kind: Any = type(value)
    try:
        if issubclass(kind, list | tuple):
            return list(value)
        items = kind.tolist(value) if hasattr(kind, "tolist") else None
    except FOREIGN_ERRORS:
        return None
    return items if type(items) is list else None


def fitted(value: Any, most: int = TEXT_MAX) -> str:
    """Any value as text that can be stored and sent: surrogates replaced, cut to `most`.

    Never raises.
    """
    try:
        text = "" if value is None else value if type(value) is str else str.__str__(str(value))
    except FOREIGN_ERRORS:
        text = f"some {type(value).__name__}"
    return text[:most].encode("utf-8", "replace").decode()


def field_of(value: Any, field: str) -> Any:
    """A field of a foreign object; None when it has none, or one that cannot be read."""
    try:
        return getattr(value, field, None)
    except FOREIGN_ERRORS:
        return None
