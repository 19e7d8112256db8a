"""From the words of a command line to a command and its values.

It loads neither trio nor the database, so that help and refusals are quick.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from fundops.cli.grammar import OPTION, Parameter, UsageError, Verb

__all__ = ["KINDS", "Call", "parsed", "verb_of"]

HELP: Final = ("--help", "-h")

_NEGATIVE = re.compile(r"-[\d.]")


class Call(NamedTuple):
    """A command as it was typed."""

    verb: Verb
    values: dict[str, Any]  # by the label of the argument; those that were given alone
    help: bool = False  # its help is asked for, and the values are not looked at


def verb_of(words: Sequence[str], verbs: Sequence[Verb]) -> tuple[Verb | None, str, list[str]]:
    """The command that the words begin with, or the group, and the words that are left.

    Raises: `UsageError` for a command that does not exist.
    """
    by_words = {verb.words: verb for verb in verbs}
    groups = {verb.group for verb in verbs}
    given = list(words)
    named = []
    while given and not given[0].startswith("-"):
        named.append(given.pop(0))
        found = by_words.get(" ".join(named))
        if found is not None:
            return found, found.group, given
        if " ".join(named) not in groups:
            raise _unknown(" ".join(named), by_words, groups)
    return None, " ".join(named), given


def _unknown(words: str, by_words: dict[str, Verb], groups: set[str]) -> UsageError:
    from difflib import get_close_matches

    group = words.partition(" ")[0] if " " in words else ""
    known = {
        name.removeprefix(f"{group} "): name
        for name in (*by_words, *groups)
        if name and (not group or name.startswith(f"{group} "))
    }
    close = get_close_matches(words.removeprefix(f"{group} "), known, 1)
    like = f"did you mean `fundops {known[close[0]]}`?" if close else ""
    all_of_them = f"`fundops {f'{group} ' if group else ''}--help` lists them all"
    return UsageError(f"there is no command {words!r}; {like or all_of_them}")


def parsed(verb: Verb, words: Sequence[str]) -> Call:
    """The values of a command's arguments and options.

    Raises: `UsageError` naming the argument or the option as it is typed.
    """
    if any(word in HELP for word in _before_the_end(words)):
        return Call(verb, {}, help=True)
    options = {parameter.label: parameter for parameter in verb.parameters if parameter.is_option}
    places = [parameter for parameter in verb.parameters if not parameter.is_option]
    texts: dict[str, list[str]] = {}
    loose: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word == OPTION:
            loose += left
            break
        if _is_loose(word):
            loose.append(word)
            continue
        label, equals, value = word.partition("=")
        parameter = options.get(label)
        if parameter is None:
            raise UsageError(
                f"there is no option {label}; `fundops {verb.words} --help` lists them all"
            )
        if label in texts and not parameter.many:
            raise UsageError(f"{label}: is given twice")
        texts.setdefault(label, []).extend(_values(parameter, value if equals else None, left))
    _place(verb, places, loose, texts)
    return Call(verb, dict(_converted(verb, texts)))


def _before_the_end(words: Sequence[str]) -> Iterator[str]:
    for word in words:
        if word == OPTION:
            return
        yield word


def _is_loose(word: str) -> bool:
    """Whether it is no option: a negative number is an argument."""
    return not word.startswith("-") or word == "-" or _NEGATIVE.match(word) is not None


def _values(parameter: Parameter, value: str | None, left: list[str]) -> list[str]:
    """The texts of one option, taken from the words that are left."""
    if parameter.kind == "flag":
        if value is not None:
            raise UsageError(f"{parameter.label}: takes no value")
        return [""]
    if value is not None:
        return [value]
    texts = []
    for _ in range(len(parameter.value.split())):
        if not left or left[0].startswith(OPTION):
            raise UsageError(f"{parameter.label}: needs a value, {parameter.value}")
        texts.append(left.pop(0))
    return texts


def _place(
    verb: Verb, places: Sequence[Parameter], loose: Sequence[str], texts: dict[str, list[str]]
) -> None:
    left = list(loose)
    for parameter in places:
        if left:
            texts[parameter.label] = left if parameter.many else [left.pop(0)]
            left = [] if parameter.many else left
    if left:
        raise UsageError(f"{left[0]!r} is one word too many; see `fundops {verb.words} --help`")


def _converted(verb: Verb, texts: dict[str, list[str]]) -> Iterator[tuple[str, Any]]:
    for parameter in verb.parameters:
        if parameter.label not in texts:
            if parameter.required:
                raise UsageError(f"{parameter.label}: is missing: {parameter.meaning}")
            continue
        given = [_value(parameter, text) for text in texts[parameter.label]]
        single = not parameter.many and len(given) == 1
        yield parameter.label, given[0] if single else given


def _value(parameter: Parameter, text: str) -> Any:
    if parameter.choices:
        for choice in parameter.choices:
            if text == str(choice):
                return choice
        known = ", ".join(map(str, parameter.choices))
        raise UsageError(f"{parameter.label}: {_shown(text)} is none of {known}")
    convert, noun = KINDS[parameter.kind]
    try:
        return convert(text)
    except ValueError:
        raise UsageError(f"{parameter.label}: {_shown(text)} is not {noun}") from None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _whole(text: str) -> int:
    if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) is None:
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


# How the text of each kind is read. A text of a "moment" or an "amount" is judged by its receiver,
# and so is that of a "json", a "leg" and the like: `fundops.cli.given` reads them.
KINDS: Final[dict[str, tuple[Callable[[str], Any], str]]] = {
    "text": (str, "a text"),
    "amount": (str, "an amount"),
    "moment": (str, "a time"),
    "json": (str, "JSON"),
    "figure": (str, "a figure"),
    "debit": (str, "a leg"),
    "credit": (str, "a leg"),
    "position": (str, "a position"),
    "anchor": (str, "an anchor"),
    "file": (Path, "a path"),
    "whole": (_whole, "a whole number"),
    "number": (_number, "a number"),
    "date": (dt.date.fromisoformat, "a date, YYYY-MM-DD"),
    "flag": (lambda _: True, "a flag"),
}
