"""From the words of a command line to a command and its values.

The parser is argparse's, made from the data of the one command that the words name, so that no
other command costs anything at the start. Neither trio nor the database is loaded, so that help and
refusals are quick.
"""

from __future__ import annotations

import argparse
import datetime as dt
import math
import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn

from fundops.cli.grammar import Parameter, UsageError, Verb
from fundops.cli.help import WIDTH_MAX, meaning_of, usage_of
from fundops.cli.show import width

__all__ = ["KINDS", "parser_of", "values_of", "verb_of"]

SAID_MAX: Final = 300


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
    return UsageError(f"there is no command {_shown(words)}; {like or all_of_them}")


def values_of(verb: Verb, words: Sequence[str]) -> dict[str, Any]:
    """The values of a command's arguments and options that were given, by their labels.

    Raises: `UsageError` naming the argument as it is typed; `SystemExit` after the help was shown.
    """
    return vars(parser_of(verb).parse_args(words))


def parser_of(verb: Verb) -> argparse.ArgumentParser:
    """The parser of one command, which also formats its help."""
    parser = _Parser(verb)
    places = [parameter for parameter in verb.parameters if not parameter.is_option]
    if places:
        arguments = parser.add_argument_group("Arguments")
        for parameter in places:
            arguments.add_argument(
                parameter.label,
                nargs=_NUMBERS[parameter.required, parameter.many],
                metavar=parameter.label,
                type=_reader_of(parameter),
                choices=parameter.choices or None,
                help=meaning_of(parameter),
            )
    options = parser.add_argument_group("Options")
    for parameter in verb.parameters:
        if parameter.is_option:
            _add_option(options, parameter)
    options.add_argument("-h", "--help", action="help", help="show this help")
    return parser


# By whether the argument is required, and whether it takes all words that are left.
_NUMBERS: Final = {(True, False): None, (False, False): "?", (True, True): "+", (False, True): "*"}


def _add_option(options: argparse._ArgumentGroup, parameter: Parameter) -> None:
    label = parameter.label
    told = meaning_of(parameter)
    if parameter.kind == "flag":
        options.add_argument(label, dest=label, action="store_true", help=told)
        return
    places = tuple(parameter.value.split())
    options.add_argument(
        label,
        dest=label,
        action="append" if parameter.many else _Once,
        nargs=len(places) if len(places) > 1 else None,
        metavar=places if len(places) > 1 else parameter.value,
        type=_reader_of(parameter),
        choices=parameter.choices or None,
        required=parameter.required,
        help=told,
    )


class _Parser(argparse.ArgumentParser):
    """One command's parser: a fault is raised in one line, and no option is ever abbreviated."""

    def __init__(self, verb: Verb) -> None:
        wide = min(width(), WIDTH_MAX)
        paragraphs = [textwrap.fill(text, wide) for text in (verb.help, *verb.more.split("\n\n"))]
        usage = textwrap.fill(f"{_USAGE}fundops {usage_of(verb)}", wide, subsequent_indent="  ")
        super().__init__(
            prog=f"fundops {verb.words}",
            usage=usage.removeprefix(_USAGE).replace("%", "%%"),
            description="\n\n".join(filter(None, paragraphs)),
            formatter_class=_Formatter,
            argument_default=argparse.SUPPRESS,
            add_help=False,
            allow_abbrev=False,
        )
        # argparse's own expression does not take "-1e3" for a negative number before Python 3.14.
        self._negative_number_matcher = re.compile(r"-[\d.]")

    def error(self, message: str) -> NoReturn:
        """Raises: `UsageError` with the message in one line."""
        text = " ".join(message.removeprefix("argument ").split())
        if len(text) > SAID_MAX:
            text = f"{text[:SAID_MAX]}..."
        raise UsageError(f"{text}; `{self.prog} --help` explains it")


_USAGE: Final = "Usage: "


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Help in the columns of the terminal."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=min(width(), WIDTH_MAX))

    def add_usage(self, usage: Any, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """The first line, which begins as that of every other help."""
        super().add_usage(usage, actions, groups, prefix or _USAGE)


class _Once(argparse.Action):
    """An option whose second value is refused: argparse's own takes the last one without a word."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: Any, _option: object = None
    ) -> None:
        if hasattr(namespace, self.dest):
            raise argparse.ArgumentError(self, "is given twice")
        setattr(namespace, self.dest, values)


# -- values


def _reader_of(parameter: Parameter) -> Callable[[str], Any]:
    if parameter.choices:
        choices = {str(choice): choice for choice in parameter.choices}
        return lambda text: choices.get(text, _cut(text))
    return KINDS[parameter.kind]


def _read(convert: Callable[[str], Any], noun: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return convert(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{_shown(text)} is not {noun}") from None

    return read


def _cut(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}..."


def _shown(text: str) -> str:
    return repr(_cut(text))


def _whole(text: str) -> int:
    if re.fullmatch(r"[+-]?\d{1,18}", text, re.ASCII) is None:
        raise ValueError(text)
    return int(text)


def _path(text: str) -> Path:
    if not text:
        raise ValueError(text)  # "" would be the current folder
    text.encode()  # SQLite takes only names that are UTF-8; the error is a ValueError
    return Path(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


# How the text of each kind is read. A text of a "moment" or an "amount" is judged by its receiver,
# and so is that of a "json", a "leg" and the like: `fundops.cli.given` reads them.
KINDS: Final[dict[str, Callable[[str], Any]]] = {
    "text": str,
    "amount": str,
    "moment": str,
    "json": str,
    "figure": str,
    "debit": str,
    "credit": str,
    "position": str,
    "anchor": str,
    "file": _read(_path, "a path"),
    "whole": _read(_whole, "a whole number"),
    "number": _read(_number, "a number"),
    "date": _read(dt.date.fromisoformat, "a date, YYYY-MM-DD"),
    "flag": bool,
}
