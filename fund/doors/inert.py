"""Requests without foreign code: the caller's values become exact types before an actor sees them.

An actor that calls a method of a caller's class, be it `__eq__` or `__hash__`, crashes when that
raises, with the work of all other callers. So a subclass of text or of a number becomes a plain
one. Any other object, and a value of a type that its field is not declared with, becomes a
`Foreign`, which no actor takes for a value and every refusal can show.
"""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from fundops.runtime import FOREIGN_ERRORS, shown
from fundops.wire.foreign import plain_list, plain_number, plain_text

__all__ = ["Foreign", "inert"]

R = TypeVar("R")

_NUMBERS = frozenset((int, float, Decimal))
_INERT = _NUMBERS | {NoneType, bool, str, bytes, dt.date, dt.datetime, msgspec.UnsetType}
_TEXTS = frozenset((str, NoneType, msgspec.UnsetType))
_DEPTH_MAX = 8  # of containers; no request has as many


class Foreign:
    """Stands for an object of a caller's class. Its `repr` is that of the object, as it was."""

    __slots__ = ("_text",)

    def __init__(self, value: object) -> None:
        self._text = shown(value)

    def __repr__(self) -> str:
        return self._text


class _Field(NamedTuple):
    name: str
    types: frozenset[type]  # exact types of its values
    has_parts: bool  # whether it may also hold containers, or anything


def inert(request: R, *, strict: bool = False) -> R:
    """The request with values of exact types alone. Never raises.

    `strict`: a subclass of text in a field of text becomes a `Foreign` too, so it is refused.
    """
    return _struct(request, 0, strict)  # type: ignore[no-any-return]


# The types of the values of requests that were found to need no change. They are finitely many,
# and looking them up costs half as much as going through the fields.
_unchanged: set[tuple[type, ...]] = set()


def _struct(struct: Any, depth: int, strict: bool) -> Any:
    kind: Any = type(struct)
    values = msgspec.structs.astuple(struct)
    types = (kind, *map(type, values))
    if types in _unchanged:
        return struct
    changes, exact = {}, True
    for field, value in zip(_fields_of(kind), values, strict=True):
        if type(value) not in field.types:
            exact = False
            if field.has_parts:
                own = _value(value, depth, strict)
            elif strict and field.types <= _TEXTS:
                own = Foreign(value)
            else:
                own = _plain(value, field.types)
            if own is not value:
                changes[field.name] = own
    if exact:
        _unchanged.add(types)
    return msgspec.structs.replace(struct, **changes) if changes else struct


def _plain(value: Any, types: frozenset[type]) -> Any:
    """The value as one of these types, or its stand-in."""
    own: Any = plain_text(value)
    if own is None:
        own = plain_number(value)
    if own is None and types <= {bool, NoneType}:
        own = _truth(value)
    return own if type(own) in types and own is not None else Foreign(value)


def _truth(value: Any) -> bool:
    """As Python has it, but False for an object that cannot say."""
    try:
        return bool(value)
    except FOREIGN_ERRORS:
        return False


def _value(value: Any, depth: int, strict: bool) -> Any:
    kind = type(value)
    if kind in _INERT or (issubclass(kind, enum.Enum) and kind.__module__.startswith("fundops.")):
        return value
    if depth < _DEPTH_MAX:
        try:
            if issubclass(kind, tuple | list):
                parts = [_value(part, depth + 1, strict) for part in value]
                return parts if issubclass(kind, list) else tuple(parts)
            if issubclass(kind, Mapping):
                return {
                    _plain(key, _INERT): _value(part, depth + 1, strict)
                    for key, part in value.items()
                }
            if issubclass(kind, msgspec.Struct) and kind.__module__.startswith("fundops."):
                return _struct(value, depth + 1, strict)
            items = plain_list(value)
            if items is not None:
                return [_value(item, depth + 1, strict) for item in items]
        except FOREIGN_ERRORS:
            pass
    return _plain(value, _INERT)


@lru_cache
def _fields_of(kind: type) -> tuple[_Field, ...]:
    fields = []
    for field in msgspec.structs.fields(kind):
        types = frozenset(_types_of(field.type))
        fields.append(_Field(field.name, types, object in types))
    return tuple(fields)


def _types_of(declared: Any) -> set[type]:
    """The exact types that a declared type allows; `object` stands for all that is no scalar."""
    origin = get_origin(declared)
    if origin is Annotated:
        return _types_of(get_args(declared)[0])
    if origin in (Union, UnionType):
        return set().union(*map(_types_of, get_args(declared)))
    if origin is Literal:
        return {type(value) for value in get_args(declared)}
    if declared in _NUMBERS - {int}:
        return set(_NUMBERS)
    if isinstance(declared, type) and issubclass(declared, enum.Enum):
        return {declared, str}
    return {declared} if declared in _INERT else {object}
