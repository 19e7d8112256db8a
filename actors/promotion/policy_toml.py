"""A policy from a TOML file. `docs/policy.toml` shows each table.

    policy = "guarded"
    ladder = "four-stage"

    [criteria]
    min_trades = 100

    [stages.live-small]
    real_capital_cap = 0.02

A refusal names the key and the line, as "stages.live-small.real_capital_cap: line 8: ...".
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, get_args

import msgspec

from ...runtime import ConfigError, Settings, shown
from ...wire.errors import PolicyError
from .criteria import DefaultCriteria
from .policies import LadderName, PolicyName, policy_from
from .policy import PromotionPolicy
from .settings import GateSettings, PromotionSettings, StageName, StageSettings

__all__ = ["policy_from_toml"]

S = TypeVar("S", bound=Settings)

_PLACE: Final = re.compile(r"^(?P<problem>.*?)(?: - at `\$?\.?(?P<key>[^`]*)`)?$", re.DOTALL)
_UNKNOWN: Final = re.compile(r"unknown field `(?P<key>[^`]*)`")
_AT: Final = re.compile(r" \(at line (?P<line>\d+), column \d+\)$")
_AT_END: Final = " (at end of document)"
_HEADER: Final = re.compile(r"\s*(?P<open>\[\[?)\s*(?P<path>[^\[\]]+?)\s*\]")
_KEY: Final = re.compile(r"""\s*(?P<path>[\w."'-]+)\s*=""")


def policy_from_toml(source: Path | str) -> PromotionPolicy:
    """The policy of a file, or of a text. Raises: `PolicyError`."""
    text = _text(source)
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _no_toml(error, text) from error
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise PolicyError("toml", f"cannot be read: {error}") from error
    try:
        return _policy(tables)
    except ConfigError as error:
        key = _key_of(error.field)
        raise PolicyError(key, error.problem, line=_line_of(key, text)) from error


def _no_toml(error: tomllib.TOMLDecodeError, text: str) -> PolicyError:
    """The refusal of a text that is no TOML, with the key of its line as far as it has one."""
    problem, line = str(error), None
    at = _AT.search(problem)
    if at is not None:
        problem, line = problem[: at.start()], int(at["line"])
    elif problem.endswith(_AT_END):
        # The text ends within a value: its last line has the beginning of it.
        problem = problem.removesuffix(_AT_END)
        line = len(text.rstrip().splitlines()) or None
    key = "" if line is None else _key_at(line, text)
    return PolicyError(key or "toml", problem, line=line)


def _text(source: Path | str) -> str:
    if isinstance(source, str) and ("\n" in source or not source.endswith(".toml")):
        return source
    try:
        return Path(source).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:  # no file, or no text
        raise PolicyError("toml", f"{source} cannot be read: {error}") from error


def _policy(tables: dict[str, Any]) -> PromotionPolicy:
    rest = dict(tables)
    name = _word(rest.pop("policy", "guarded"), "policy", get_args(PolicyName))
    ladder = rest.pop("ladder", "four-stage")
    if isinstance(ladder, list):
        rest["order"], ladder = ladder, "four-stage"
    ladder = _word(ladder, "ladder", get_args(LadderName))
    criteria = _converted(rest.pop("criteria", {}), DefaultCriteria, "criteria")
    stages = _by_stage(rest.pop("stages", {}), StageSettings, "stages")
    gates = _by_stage(rest.pop("gates", {}), GateSettings, "gates")
    settings = _converted(rest, PromotionSettings, "")
    settings = msgspec.structs.replace(settings, stages=stages, gates=gates)
    return policy_from(name, ladder, criteria, settings)


def _word(value: object, key: str, words: tuple[Any, ...]) -> Any:
    if value not in words:
        raise PolicyError(key, f"{shown(value)} is not {' or '.join(map(repr, words))}")
    return value


def _by_stage(tables: object, kind: type[S], key: str) -> Mapping[StageName, S]:
    if not isinstance(tables, dict):
        raise PolicyError(key, f"{shown(tables)} is not a table of stages")
    names = get_args(StageName)
    for name in tables:
        if name not in names:
            raise PolicyError(f"{key}.{name}", f"is no stage; there are {', '.join(names)}")
    return {name: _converted(table, kind, f"{key}.{name}") for name, table in tables.items()}


def _converted(table: object, kind: type[S], key: str) -> S:
    """The settings of one table. Raises: `PolicyError` naming the key within the whole."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        found = _PLACE.match(str(error))
        assert found is not None
        problem, inner = found["problem"], found["key"] or ""
        unknown = _UNKNOWN.search(problem)
        if unknown is not None:
            inner = ".".join(part for part in (inner, unknown["key"]) if part)
            problem = "there is no such key"
        cause = error.__cause__
        if isinstance(cause, ConfigError):
            problem = str(cause)
        raise PolicyError(".".join(part for part in (key, inner) if part), problem) from error


# -- places


def _key_of(field: str) -> str:
    """The key of a file for the name of a setting."""
    if field in DefaultCriteria.__struct_fields__:
        return f"criteria.{field}"
    return f"ladder{field.removeprefix('order')}" if field.startswith("order") else field


def _line_of(key: str, text: str) -> int | None:
    """The line of a key, or of the innermost table around it that the text has; None: of neither.

    Reads headers and keys at the beginning of lines, as TOML has them; a key within an inline
    table is found at the line where that table begins.
    """
    wanted = tuple(re.findall(r"[^.\[\]]+", key))
    best: tuple[int, int | None] = (0, None)
    prefix: tuple[str, ...] = ()
    counts: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        header = _HEADER.match(line)
        if header is not None:
            prefix = path = _parts(header["path"])
            if header["open"] == "[[":
                index = counts[path] = counts.get(path, -1) + 1
                prefix = path = (*path, str(index))
        else:
            assigned = _KEY.match(line)
            if assigned is None:
                continue
            path = (*prefix, *_parts(assigned["path"]))
        depth = len(path)
        if path == wanted[:depth] and depth > best[0]:
            best = (depth, number)
    return best[1]


def _key_at(line: int, text: str) -> str:
    """The key that a line assigns, within its table; "": none is to be seen there."""
    table: tuple[str, ...] = ()
    for number, words in enumerate(text.splitlines()[:line], 1):
        header, assigned = _HEADER.match(words), _KEY.match(words)
        if header is not None:
            table = _parts(header["path"])
        if number == line and assigned is not None:
            return ".".join((*table, *_parts(assigned["path"])))
    return ""


def _parts(path: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in path.split("."))
