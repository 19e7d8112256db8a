"""Describes every command of the command line: from the table of commands, and from own functions.

`python docs/generate.py` writes the result to `fundops.cli.verbs` and to docs/commands.md. The
command line itself reads only `verbs`: the doors, which this module looks at, load trio.
"""

from __future__ import annotations

import datetime as dt
import enum
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from fundops.cli.grammar import GROUPS, OPTION, Parameter, Verb
from fundops.cli.meanings import CHOICES, LABELS, MEANINGS, READERS
from fundops.control.commands import COMMANDS, FUND, Command
from fundops.moments import Instant
from fundops.reader import FundReader
from fundops.wire.money import Amount

__all__ = ["OWN", "described", "verbs"]

# Commands that have a function of their own, in the order of the help: words, function, effect. A
# row of the table with the same words gives way to the function, which asks for it in its own way.
OWN: Final = (
    ("demo", "fundops.cli.demo:demo", "reads"),
    ("gate", "fundops.cli.gate:gate", "reads"),
    ("mcp", "fundops.cli.tools:mcp", "reads"),
    ("bench", "fundops.cli.tools:bench", "reads"),
    ("backup", "fundops.cli.database:backup", "reads"),
    ("restore", "fundops.cli.database:restore", "changes"),
    ("migrate", "fundops.cli.database:migrate", "changes"),
    ("kill-switch status", "fundops.cli.kill_switch:status", "reads"),
    ("kill-switch engage", "fundops.cli.kill_switch:engage", "tightens"),
    ("kill-switch release", "fundops.cli.kill_switch:release", "loosens"),
    ("alerts test", "fundops.cli.alerts:try_channels", "reads"),
    ("strategy record", "fundops.cli.strategies:record", "changes"),
    ("ledger reconcile", "fundops.cli.books:reconcile", "reads"),
    ("ledger verify", "fundops.cli.books:verify", "reads"),
    ("ledger anchor", "fundops.cli.books:anchor", "reads"),
    ("ledger export", "fundops.cli.books:export", "reads"),
    ("ledger begin", "fundops.cli.books:begin", "changes"),
    ("ledger import", "fundops.cli.books:import_", "changes"),
    ("ledger import-fills", "fundops.cli.books:import_fills", "changes"),
)

_DB = Parameter("db", "--db", "file", MEANINGS["db"], value="PATH")
_JSON = Parameter("json", "--json", "flag", MEANINGS["json"])
_BY = Parameter("by", "--by", "text", MEANINGS["by"], default="$USER", value="NAME")

# Choices that are listed in place of an option's value; longer ones are listed beside it.
LISTED_MAX: Final = 20

_PLACES: Final = {
    "whole": "NUMBER",
    "number": "NUMBER",
    "amount": "AMOUNT",
    "moment": "TIME",
    "date": "DATE",
    "file": "PATH",
    "json": "JSON",
    "figure": "NAME=NUMBER",
    "debit": "ACCOUNT=AMOUNT",
    "credit": "ACCOUNT=AMOUNT",
    "position": "INSTRUMENT=QUANTITY,COST[,VALUE]",
    "anchor": "ENTRY HASH",
}


def verbs() -> tuple[Verb, ...]:
    """Every command, in the order of the help: by group, and in it questions before changes."""
    own = {words: (target, effect) for words, target, effect in OWN}
    rows = {row.words: row for row in COMMANDS.values() if row.words and row.words not in own}
    names = {row.words: row for row in COMMANDS.values()}
    found = [described(row) for row in rows.values()]
    found += [_own(words, *own[words], names.get(words)) for words in own]
    groups = [*GROUPS, *sorted({verb.group for verb in found} - set(GROUPS))]
    return tuple(sorted(found, key=lambda verb: (groups.index(verb.group), not verb.reads)))


def described(row: Command) -> Verb:
    """The command that a row of the table makes by itself."""
    hints = get_type_hints(row.method)
    parameters = [
        parameter
        for name, argument in row.signature.parameters.items()
        if not (name == "by" and not row.reads)
        for parameter in _parameters(row.name, argument, hints[name])
    ]
    common = [*(() if row.reads else (_BY,)), _DB, _JSON]
    help_, more = _told(row.method, _typed(row, [*parameters, *common]))
    return Verb(
        row.words,
        row.name,
        row.effect,
        row.reach,
        help_,
        more,
        _ordered([*parameters, *common]),
        reader=_reader_of(row),
        live=row.part == FUND,
        signed=row.signed,
        unsaid=tuple(
            name
            for name, argument in row.signature.parameters.items()
            if argument.default is inspect.Parameter.empty and _optional(hints[name])
        ),
        answer=_shape(hints.get("return", NoneType), row),
    )


def _ordered(parameters: Sequence[Parameter]) -> tuple[Parameter, ...]:
    """Arguments first, then the options without which the command is refused, then the others."""
    return tuple(
        sorted(parameters, key=lambda parameter: (parameter.is_option, not parameter.required))
    )


def _own(words: str, target: str, effect: str, row: Command | None) -> Verb:
    module, _, name = target.partition(":")
    function = getattr(import_module(module), name)
    hints = get_type_hints(function)
    help_, more = _told(function, {})
    meanings = _sections(function)
    parameters = []
    for argument in inspect.signature(function).parameters.values():
        common = {parameter.name: parameter for parameter in (_DB, _JSON, _BY)}
        if argument.name in common and argument.name not in meanings:
            parameters.append(common[argument.name])
        else:
            parameters += _parameters(words, argument, hints[argument.name], meanings)
    return Verb(
        words,
        "" if row is None else row.name,
        effect if row is None else row.effect,
        "" if row is None else row.reach,
        help_,
        more,
        _ordered(parameters),
        run=target,
    )


# -- texts


def _told(function: Callable[..., Any], typed: Mapping[str, str]) -> tuple[str, str]:
    """The first sentence of a docstring, and the rest of it up to its sections.

    `typed` has the words that a person types for names of Python.
    """
    text = inspect.getdoc(function) or ""
    text = re.split(r"^Parameters\n-+", text, maxsplit=1, flags=re.M)[0]
    paragraphs = [_plain(" ".join(part.split()), typed) for part in text.strip().split("\n\n")]
    first = re.split(r"(?<=[.])\s+(?=[A-Z])", paragraphs[0], maxsplit=1)
    sentence = re.split(r"; False\b", first[0])[0]  # told where it is so
    return f"{sentence.rstrip('.')}.", "\n\n".join(filter(None, [*first[1:], *paragraphs[1:]]))


def _plain(text: str, typed: Mapping[str, str]) -> str:
    """The text as a person at a terminal reads it: without the names of Python."""
    text = re.sub(r"\s*\bRaises: .*$|^Returns [^.]*\.\s*", "", text)
    return re.sub(r"`([^`]+)`", lambda found: typed.get(found[1], found[1]), text)


def _typed(row: Command, parameters: Sequence[Parameter]) -> dict[str, str]:
    """The words that a person types, by the names of Python that a docstring may use."""
    verbs = {other.verb: other.words for other in COMMANDS.values() if other.part == row.part}
    return {
        **{verb: f"`fundops {words}`" for verb, words in verbs.items() if words},
        **{parameter.name: parameter.label for parameter in parameters},
    }


def _sections(function: Callable[..., Any]) -> dict[str, str]:
    """The meaning of each argument, from the docstring's section on parameters."""
    _, _, section = (inspect.getdoc(function) or "").partition("Parameters\n----------\n")
    found = re.findall(r"^(\w+)\n((?:    .*\n?)+)", section, re.M)
    return {name: " ".join(text.split()) for name, text in found}


# -- arguments


def _parameters(
    command: str,
    argument: inspect.Parameter,
    hint: Any,
    meanings: Mapping[str, str] | None = None,
) -> Iterator[Parameter]:
    """The words and options of one argument: usually one of them."""
    if (command, argument.name) == ("ledger.post", "entry"):
        for kind in ("debit", "credit"):
            meaning = _meaning(command, kind)
            place = _PLACES[kind]
            yield Parameter(argument.name, f"{OPTION}{kind}", kind, meaning, many=True, value=place)
        return
    kind, choices, many = _kind(hint)
    choices = CHOICES.get((command, argument.name), choices)
    meaning = (meanings or {}).get(argument.name) or _meaning(command, argument.name)
    needed = argument.default is inspect.Parameter.empty
    # A value that may be None is asked for in Python, where leaving it out could be a slip.
    required = needed and not _optional(hint) and argument.kind is not argument.VAR_POSITIONAL
    label, _, place = _label(command, argument, required=required).partition(" ")
    yield Parameter(
        argument.name,
        label,
        kind,
        meaning,
        required=required,
        default="" if needed else _default(argument.default),
        choices=choices,
        many=many or argument.kind is argument.VAR_POSITIONAL,
        value=place or _place(label, kind, choices),
    )


def _meaning(command: str, name: str) -> str:
    found = MEANINGS.get(f"{command}:{name}") or MEANINGS.get(name)
    if found is None:
        raise LookupError(f"{command} has an argument {name!r} without a meaning")
    return found


def _label(command: str, argument: inspect.Parameter, *, required: bool) -> str:
    named = LABELS.get(f"{command}:{argument.name}")
    if named is not None:
        return named
    in_order = argument.kind in (argument.POSITIONAL_ONLY, argument.VAR_POSITIONAL) or (
        argument.kind is argument.POSITIONAL_OR_KEYWORD and required
    )
    if in_order:
        return LABELS.get(argument.name, argument.name.upper().replace("_", "-"))
    return OPTION + argument.name.rstrip("_").replace("_", "-")


def _place(label: str, kind: str, choices: tuple[Any, ...]) -> str:
    """The value's place in the help of an option; "" of an argument, or where it has no value."""
    if kind == "flag" or not label.startswith(OPTION):
        return ""
    if choices:
        listed = "|".join(map(str, choices))
        return listed if len(listed) <= LISTED_MAX else label.removeprefix(OPTION).upper()
    return _PLACES.get(kind, "TEXT")


def _default(value: Any) -> str:
    if isinstance(value, enum.Enum):
        value = value.value
    return "" if value is None or value is False or value in ("", ()) else str(value)


def _optional(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType) and NoneType in get_args(hint)


def _kind(hint: Any) -> tuple[str, tuple[Any, ...], bool]:
    """The kind of a type, its choices, and whether it is a list."""
    inner = tuple(kind for kind in get_args(hint) if kind is not NoneType)
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _kind_of_one(inner)
    if origin is Literal:
        return "text", inner, False
    if origin in (list, tuple, Sequence):
        if origin is tuple and len(inner) > 1 and Ellipsis not in inner:
            return "anchor", (), False  # an entry and its hash
        member = inner[0] if inner else str
        if member in (str, Path):
            return _kind(member)[0], (), True
        return _STRUCTS.get(member, "json"), (), member in _STRUCTS
    if origin in (dict, Mapping):
        return "figure", (), True
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return "text", tuple(member.value for member in hint), False
    return _PLAIN.get(hint, "json"), (), False


def _kind_of_one(kinds: tuple[Any, ...]) -> tuple[str, tuple[Any, ...], bool]:
    if set(kinds) == set(get_args(Amount)):
        return "amount", (), False
    if len(kinds) > 1 and dt.date in kinds and set(kinds) <= {*get_args(Instant), str}:
        return "moment", (), False
    enums = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, enum.Enum)]
    if enums:
        return _kind(enums[0])
    return _kind(kinds[0]) if len(kinds) == 1 else ("json", (), False)


_PLAIN: Final[dict[Any, str]] = {
    str: "text",
    int: "whole",
    float: "number",
    bool: "flag",
    Path: "file",
    dt.date: "date",
    Decimal: "amount",
    Any: "text",
}


@cache
def _structs() -> dict[Any, str]:
    from fundops.wire.ledger import OpeningPosition

    return {OpeningPosition: "position"}


_STRUCTS: Final = _structs()


# -- answers


def _reader_of(row: Command) -> str:
    """The method of `FundReader` that answers the same question, or ""."""
    if not row.reads:
        return ""
    name = READERS.get(row.name, row.verb)
    method = getattr(FundReader, name, None)
    if method is None or name in ("close", "snapshot", "meta", "schema"):
        return ""
    taken = set(inspect.signature(method).parameters)
    return name if set(row.signature.parameters) <= taken else ""


def _shape(hint: Any, row: Command) -> tuple[Any, ...]:
    origin = get_origin(hint)
    inner = tuple(kind for kind in get_args(hint) if kind not in (NoneType, Ellipsis))
    if hint in (None, NoneType):
        return ("done",)
    if hint is bool:
        return ("flag", "" if row.reads else _when_false(row.method))
    if origin in (Union, UnionType):
        return _shape(inner[0], row)
    if origin in (tuple, list, Sequence) and inner and _is_struct(inner[0]):
        return ("table", inner[0].__name__, _fields(inner[0]))
    if origin in (dict, Mapping):
        return ("pairs", _figure(inner[1]))
    if _is_struct(hint):
        return ("record", hint.__name__, _fields(hint))
    return ("value", _figure(hint))


def _is_struct(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, msgspec.Struct)


def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (field.encode_name, "time" if field.name.endswith("_us") else _figure(field.type))
        for field in msgspec.structs.fields(kind)
    )


def _figure(hint: Any) -> str:
    """The kind of a figure: amount, number, whole, flag, word, text; "nested" for anything else."""
    inner = [kind for kind in get_args(hint) if kind is not NoneType]
    if get_origin(hint) in (Union, UnionType):
        if Decimal in inner:
            return "amount"
        return _figure(inner[0])
    if get_origin(hint) is Literal or (isinstance(hint, type) and issubclass(hint, enum.Enum)):
        return "word"
    names = {Decimal: "amount", float: "number", int: "whole", bool: "flag", str: "text"}
    return names.get(hint, "nested")


def _when_false(method: Callable[..., Any]) -> str:
    """The case in which a change answers False, from its docstring."""
    text = " ".join((inspect.getdoc(method) or "").split())
    found = re.search(r"\bFalse(?: when|:) ([^.;]+)", text)
    return found.group(1) if found else ""
