"""From JSON to a method's arguments, by the types that it declares, and from its answer to JSON.

Amounts are decimal text or whole numbers; a JSON number with a fraction is refused, since reading
it makes a float. Instants are ISO dates, ISO datetimes with an offset, or microseconds since the
epoch. A Struct is an object of its fields; where several Structs are possible, its tag field says
which one it is.
"""

from __future__ import annotations

import datetime as dt
import inspect
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import Enum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from fundops.moments import Instant
from fundops.runtime import ConfigError
from fundops.wire.foreign import fitted
from fundops.wire.money import Amount, text_of

__all__ = ["bound", "check_carried", "converted", "noted", "plain"]

# The ledger decides a list without a pause, and all other requests wait meanwhile.
MEMBERS_MAX: Final = 1_024

_AMOUNT: Final = frozenset(get_args(Amount))
_INSTANT: Final = frozenset(get_args(Instant))
_SEQUENCES: Final = (Sequence, list, tuple)
_MAPPINGS: Final = (Mapping, dict)


def bound(method: Callable[..., Any], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments for `method`, converted to the types that it declares.

    Raises: `ConfigError` naming the argument that is missing, unknown or of a wrong type.
    """
    parameters, hints = _signature(getattr(method, "__func__", method))
    for name in arguments:
        if name not in parameters:
            raise ConfigError(
                name, f"is not an argument; there are {', '.join(parameters) or 'none'}"
            )
    for name, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and name not in arguments:
            raise ConfigError(name, "is missing")
    return {name: converted(value, hints.get(name, Any), name) for name, value in arguments.items()}


@cache
def _signature(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    return parameters, get_type_hints(function)


def converted(value: Any, hint: Any, field: str) -> Any:
    """A JSON value as the type `hint`. Raises: `ConfigError` naming `field`."""
    if isinstance(hint, TypeVar) or hint is Any or hint is object:
        return value
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of(value, inner, field)
    if hint is Decimal:
        return _decimal(value, field)
    if hint is Path:
        return Path(_plainly(value, str, field))
    if origin in _SEQUENCES:
        return _sequence(value, inner, field)
    if origin in _MAPPINGS:
        items = _plainly(value, dict[str, Any], field)
        return {key: converted(item, inner[1], f"{field}.{key}") for key, item in items.items()}
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return _struct(value, hint, field)
    return _plainly(value, hint, field)


def _one_of(value: Any, kinds: Sequence[Any], field: str) -> Any:
    if NoneType in kinds and value is None:
        return None
    choices = [kind for kind in kinds if kind is not NoneType]
    if set(choices) == _AMOUNT:
        return _amount(value, field)
    if dt.date in choices and set(choices) <= _INSTANT | {str}:
        return _instant(value, field)  # JSON carries a date or an instant as text
    words = [kind for kind in choices if isinstance(kind, type) and issubclass(kind, Enum)]
    if words and set(choices) == {words[0], str}:
        return _plainly(value, words[0], field)  # JSON carries its member as text
    if len(choices) == 1:
        return converted(value, choices[0], field)
    lists = [kind for kind in choices if get_origin(kind) in _SEQUENCES]
    if lists and isinstance(value, list | tuple):
        return converted(value, lists[0], field)
    structs = [
        kind for kind in choices if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    ]
    if len(structs) + len(lists) == len(choices):
        return _tagged(value, structs, field)
    return _plainly(value, Union[tuple(choices)], field)  # noqa: UP007  made of a list


def _amount(value: Any, field: str) -> str | int:
    """The amount as given. The ledger checks its value."""
    if isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    raise ConfigError(field, f"{value!r} is not an amount; amounts travel as decimal text")


def _decimal(value: Any, field: str) -> Decimal:
    try:
        return Decimal(_amount(value, field))
    except ArithmeticError:
        raise ConfigError(field, f"{value!r} is not a decimal number") from None


def _instant(value: Any, field: str) -> int | dt.datetime | dt.date:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            # `datetime.fromisoformat` would turn a plain date into its midnight.
            return (
                dt.date.fromisoformat(value)
                if len(value) <= 10
                else dt.datetime.fromisoformat(value)
            )
        except ValueError:
            pass
    problem = "is not an ISO date, an ISO datetime with an offset, or microseconds since the epoch"
    raise ConfigError(field, f"{value!r} {problem}")


def _sequence(value: Any, inner: Sequence[Any], field: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ConfigError(field, "is not a list")
    if len(value) > MEMBERS_MAX:
        raise ConfigError(field, f"has {len(value)} members; at most {MEMBERS_MAX} at once")
    kinds = [kind for kind in inner if kind is not Ellipsis] or [Any]
    if len(kinds) == 1:
        kinds *= len(value)
    elif len(kinds) != len(value):
        raise ConfigError(field, f"has {len(value)} members instead of {len(kinds)}")
    members = zip(value, kinds, strict=True)
    return tuple(
        converted(member, kind, f"{field}[{at}]") for at, (member, kind) in enumerate(members)
    )


def _struct(
    value: Any, kind: type[msgspec.Struct], field: str, *, ignored: str | None = None
) -> msgspec.Struct:
    given = _plainly(value, dict[str, Any], field)
    fields = _fields(kind)
    for name in given:
        if name not in fields and name != ignored:
            raise ConfigError(
                f"{field}.{name}", f"is no field of it; there are {', '.join(fields)}"
            )
    for name, declared in fields.items():
        if declared.required and name not in given:
            raise ConfigError(f"{field}.{name}", "is missing")
    values = {
        declared.name: converted(given[name], declared.type, f"{field}.{name}")
        for name, declared in fields.items()
        if name in given
    }
    return kind(**values)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    # Cached: looking the types up takes longer than the whole conversion.
    return {declared.encode_name: declared for declared in msgspec.structs.fields(kind)}


def _tagged(value: Any, kinds: Sequence[Any], field: str) -> msgspec.Struct:
    given = _plainly(value, dict[str, Any], field)
    for kind in kinds:
        config = kind.__struct_config__
        if config.tag_field is not None and given.get(config.tag_field) == config.tag:
            return _struct(given, kind, field, ignored=config.tag_field)
    tags = ", ".join(str(kind.__struct_config__.tag) for kind in kinds)
    raise ConfigError(field, f"does not say by its tag what it is: {tags}")


def _plainly(value: Any, hint: Any, field: str) -> Any:
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        raise ConfigError(field, str(error)) from None


def check_carried(arguments: Mapping[str, Any]) -> None:
    """Check that UTF-8 can carry all texts.

    Raises: `ConfigError` naming the argument that it cannot.
    """
    for name, value in arguments.items():
        try:
            msgspec.json.encode(plain(value))
        except UnicodeEncodeError as error:
            raise ConfigError(name, f"holds what UTF-8 cannot carry: {error.reason}") from None


def plain(value: Any) -> Any:
    """An answer as JSON values: money as plain decimal text, Structs as objects."""
    return _texts(msgspec.to_builtins(value, builtin_types=(Decimal,), str_keys=True, enc_hook=str))


def noted(value: Any) -> Any:
    """Any object of a caller's as JSON values for the audit table. Never raises."""
    try:
        told = plain(value)
        msgspec.json.encode(told)
    except Exception:  # noqa: BLE001  its own methods may raise anything
        return fitted(value)
    return told


def _texts(value: Any) -> Any:
    if isinstance(value, Decimal):
        return text_of(value)
    if isinstance(value, dict):
        return {name: _texts(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(item) for item in value]
    return value
