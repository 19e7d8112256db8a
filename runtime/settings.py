"""Settings: frozen structs whose fields carry their limits and their meaning in their types.

    class Patience(Settings, frozen=True):
        deadline_s: Annotated[float, Meta(gt=0, le=60, description="seconds; how long")] = 5.0

Each instance is checked when it is made, in the same way wherever its values come from, and
`ConfigError` names the field and its limits. The same declaration gives the text that `help` shows
and the tables of the documentation. A number is always finite. Limits between two fields are
checked in the `__post_init__` of the struct that has both.

A struct that gathers the settings of several parts names them in `parts`: a field that a part
declares has the limits and the meaning that the part gives it.

A number becomes an int or a float. Objects that convert themselves by `__index__` or `__float__`,
as numpy's scalars do, are numbers too.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from .errors import FOREIGN_ERRORS, ConfigError, encodable

__all__ = [
    "COUNT_MAX",
    "DAYS_MAX",
    "SECRET",
    "YEAR_S",
    "Setting",
    "Settings",
    "settings_of",
    "shown",
]

S = TypeVar("S", bound="Settings")

# The largest values that a setting of the domain takes. In microseconds, and added to an instant,
# they still fit into an int64; a float near the largest would be infinite there.
COUNT_MAX = 1_000_000_000
YEAR_S = 31_536_000
DAYS_MAX = 36_500

SHOWN_MAX = 128  # characters of a value that an error text repeats

# For `Meta(extra=...)` of a field whose value must never be printed. Another entry that is read
# there is "of": the characters that a pattern lets through, in words.
SECRET = {"secret": True}


def shown(value: object, most: int = SHOWN_MAX) -> str:
    """The value as an error text shows it: of at most so many characters before "...", and
    encodable, also when its `__repr__` fails.
    """
    try:
        text = encodable(str.__str__(repr(value)))
    except FOREIGN_ERRORS:  # a huge int raises too
        text = f"some {type(value).__name__}"
    return text if len(text) <= most else f"{text[:most]}..."


class _Kind(NamedTuple):
    """Which values a type allows: in words, as in "3 is not a text", and as a test."""

    words: str
    allows: Callable[[Any], bool]


class Setting(NamedTuple):
    """One declared field, as documentation shows it."""

    name: str
    allowed: str  # values in words, limits included
    default: str  # as Python text; "required" without one
    meaning: str  # with its unit; "" when it was not given


class _Documented(msgspec.StructMeta):
    """Appends the fields to the docstring when it is read; their types resolve only then."""

    @property
    def __doc__(cls) -> str:  # type: ignore[override]
        summary = str(vars(cls).get("__doc__") or "").rstrip()
        lines = []
        for setting in settings_of(cls):
            lines.append(f"    {setting.name} = {setting.default}")
            lines.append(f"        {setting.allowed}; {setting.meaning}".rstrip("; "))
        return "\n".join([summary, "", "Settings:", *lines]) if lines else summary


class Settings(msgspec.Struct, frozen=True, metaclass=_Documented):
    """Base of all settings. Raises: `ConfigError` naming the field when a value is not allowed."""

    parts: ClassVar[tuple[type[Settings], ...]] = ()

    def __post_init__(self) -> None:
        for name, kind, secret in _checks(type(self)):
            value = getattr(self, name)
            own = _own_number(value)
            if own is not value and kind.allows(own):
                msgspec.structs.force_setattr(self, name, own)
            elif not kind.allows(value):
                given = "the value given" if secret else shown(value)
                raise ConfigError(self._called(name), f"{given} is not {kind.words}")

    def part(self, kind: type[S], **others: Any) -> S:
        """The settings of one part: the fields of the same names, and `others` for the rest."""
        names = [name for name in kind.__struct_fields__ if name in self.__struct_fields__]
        return kind(**{name: getattr(self, name) for name in names} | others)

    def _called(self, field: str) -> str:
        """The field's name in an error text; a nested struct may put the whole's name first."""
        return field

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Fields and values as they may be printed: a secret is hidden."""
        values = [(name, getattr(self, name), secret) for name, _, secret in _checks(type(self))]
        # A secret that is no text hides itself, and may show a part of what it holds.
        return [
            (name, "(hidden)" if secret and value and isinstance(value, str) else value)
            for name, value, secret in values
        ]

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self.__rich_repr__())
        return f"{type(self).__name__}({fields})"


def settings_of(cls: type[Any]) -> tuple[Setting, ...]:
    """The declared fields of a class of settings, in order."""
    hints = _hints(cls)
    return tuple(
        Setting(
            field.name,
            _kind(hints[field.name]).words,
            _default_of(field),
            _meaning(hints[field.name]),
        )
        for field in msgspec.structs.fields(cls)
    )


def _hints(cls: type[Any]) -> dict[str, Any]:
    """The types of the fields with their limits; those that a part declares are the part's."""
    hints = get_type_hints(cls, include_extras=True)
    for part in cls.parts:
        hints.update(_hints(part))
    return hints


@cache
def _checks(cls: type[Settings]) -> tuple[tuple[str, _Kind, bool], ...]:
    hints = _hints(cls)
    return tuple(
        (name, _kind(hints[name]), _is_secret(hints[name])) for name in cls.__struct_fields__
    )


def _default_of(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is msgspec.NODEFAULT:
        assert field.default_factory is not msgspec.NODEFAULT
        return repr(field.default_factory())
    is_group = isinstance(field.default, Settings)
    return f"{type(field.default).__name__}()" if is_group else repr(field.default)


def _metas(hint: Any) -> list[Meta]:
    return [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, Meta)]


def _meaning(hint: Any) -> str:
    return next((meta.description for meta in _metas(hint) if meta.description), "")


def _is_secret(hint: Any) -> bool:
    return any((meta.extra or {}).get("secret") for meta in _metas(hint))


# -- from types to checks


def _kind(hint: Any, limits: Meta = Meta()) -> _Kind:  # noqa: B008  immutable
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _kind(arguments[0], next(iter(_metas(hint)), limits))
    if origin in (Union, UnionType):
        return _any_of([_kind(argument, limits) for argument in arguments])
    if origin is Literal:
        return _one_of(arguments)
    if origin is not None and issubclass(origin, Mapping):
        return _mapping(*[_kind(argument) for argument in arguments])
    if origin is not None and issubclass(origin, Sequence):
        return _sequence(_kind(arguments[0]))
    if origin is not None:
        return _Kind("a function", callable)
    return _plain(hint, limits)


def _plain(kind: type, limits: Meta) -> _Kind:
    if kind is NoneType:
        return _Kind("None", lambda value: value is None)
    if kind is bool:
        return _Kind("True or False", lambda value: isinstance(value, bool))
    if kind is int:
        return _Kind(
            f"a whole number{_range(limits)}",
            lambda value: _is_whole(value) and _within(value, limits),
        )
    if kind is float:
        return _Kind(
            f"a finite number{_range(limits)}",
            lambda value: _is_finite(value) and _within(value, limits),
        )
    if kind is str:
        return _text(limits)
    article = "an" if kind.__name__[0] in "AEIOU" else "a"
    return _Kind(f"{article} {kind.__name__}", lambda value: isinstance(value, kind))


def _any_of(kinds: Sequence[_Kind]) -> _Kind:
    words = " or ".join(dict.fromkeys(kind.words for kind in kinds))
    return _Kind(words, lambda value: any(kind.allows(value) for kind in kinds))


def _one_of(values: tuple[Any, ...]) -> _Kind:
    types = {type(value) for value in values}

    def allows(value: Any) -> bool:
        # The type first: True equals 1, and an array compares to an array.
        return type(value) in types and value in values

    return _Kind(" or ".join(map(repr, values)), allows)


def _mapping(key: _Kind, value: _Kind) -> _Kind:
    def allows(mapping: Any) -> bool:
        return isinstance(mapping, Mapping) and all(
            key.allows(k) and value.allows(v) for k, v in mapping.items()
        )

    return _Kind(f"a mapping of {key.words} to {value.words}", allows)


def _sequence(member: _Kind) -> _Kind:
    def allows(sequence: Any) -> bool:
        is_list = isinstance(sequence, Sequence) and not isinstance(sequence, str)
        return is_list and all(member.allows(item) for item in sequence)

    return _Kind(f"a list of {member.words}", allows)


def _text(limits: Meta) -> _Kind:
    least, most = limits.min_length or 0, limits.max_length or math.inf
    pattern = re.compile(limits.pattern or "")
    words = "a text"
    if limits.max_length:
        words += f" of {least} to {most} {(limits.extra or {}).get('of', 'characters')}"

    def allows(value: Any) -> bool:
        return (
            isinstance(value, str) and least <= len(value) <= most and bool(pattern.search(value))
        )

    return _Kind(words, allows)


def _own_number(value: Any) -> Any:
    """An int or a float for the number of another class; every other value as it is."""
    kind = type(value)
    if kind in _OWN or isinstance(value, Decimal) or kind.__name__.startswith("bool"):
        return value
    try:
        if hasattr(kind, "__index__"):
            return operator.index(value)
        if hasattr(kind, "__float__"):
            return float(value)
    except Exception:  # noqa: BLE001  a caller's class may raise anything
        pass
    return value


_OWN = frozenset((bool, int, float, str, NoneType))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # an int that no float holds breaks arithmetic as infinity does
        return False


def _within(value: float, limits: Meta) -> bool:
    return (
        (limits.ge is None or value >= limits.ge)
        and (limits.gt is None or value > limits.gt)
        and (limits.le is None or value <= limits.le)
        and (limits.lt is None or value < limits.lt)
    )


def _range(limits: Meta) -> str:
    if limits.ge is not None and limits.le is not None:
        return f" from {_figure(limits.ge)} to {_figure(limits.le)}"
    bounds = [(">=", limits.ge), (">", limits.gt), ("<=", limits.le), ("<", limits.lt)]
    named = [f"{sign} {_figure(bound)}" for sign, bound in bounds if bound is not None]
    return f" {' and '.join(named)}" if named else ""


def _figure(bound: float) -> str:
    return f"{int(bound):,}" if bound == int(bound) else f"{bound:g}"
