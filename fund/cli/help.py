"""The help of the command line: every command in one line, which argparse cannot do.

The help of one command is argparse's; this module gives it the texts.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from fundops.cli.grammar import GROUPS, Parameter, Verb
from fundops.cli.show import width

__all__ = ["WIDTH_MAX", "group_help", "meaning_of", "overview", "usage_of"]

WIDTH_MAX: Final = 100

_KINDS: Final = {"reads": "Questions", "changes": "Changes"}


def overview(verbs: Sequence[Verb]) -> str:
    """The help of `fundops` itself."""
    alone = [verb for verb in verbs if not verb.group]
    groups = [(group, GROUPS.get(group, "")) for group in _groups(verbs) if group]
    return "\n".join(
        [
            "Usage: fundops COMMAND [ARGUMENT ...] [OPTION ...]",
            "",
            "The operations crew of a trading fund.",
            "",
            "Commands:",
            *_columns([(verb.words, verb.help) for verb in alone]),
            "",
            "Groups of commands:",
            *_columns(groups),
            "",
            "`fundops GROUP --help` lists the commands of a group, and `--help` after any",
            "command explains it. `fundops --version` prints the version.",
        ]
    )


def _groups(verbs: Sequence[Verb]) -> list[str]:
    return list(dict.fromkeys(verb.group for verb in verbs))


def group_help(group: str, verbs: Sequence[Verb]) -> str:
    """The help of one group: its commands, a line each, questions before changes."""
    lines = [f"Usage: fundops {group} COMMAND [ARGUMENT ...] [OPTION ...]"]
    if group in GROUPS:
        lines += ["", GROUPS[group]]
    for kind, title in _KINDS.items():
        found = [
            (verb.words.removeprefix(f"{group} "), verb.help)
            for verb in verbs
            if verb.group == group and verb.reads == (kind == "reads")
        ]
        if found:
            lines += ["", f"{title}:", *_columns(found)]
    return "\n".join([*lines, "", f"`fundops {group} COMMAND --help` explains a command."])


def usage_of(verb: Verb) -> str:
    """The words of a command with its arguments, such as `ledger deposit AMOUNT [OPTION ...]`."""
    parts = [verb.words]
    for parameter in verb.parameters:
        if parameter.is_option and not parameter.required:
            continue
        text = f"{parameter.label} {parameter.value}" if parameter.is_option else parameter.label
        more = " ..." if parameter.many else ""
        parts.append(f"{text}{more}" if parameter.required else f"[{text}{more}]")
    if any(parameter.is_option and not parameter.required for parameter in verb.parameters):
        parts.append("[OPTION ...]")
    return " ".join(parts)


def meaning_of(parameter: Parameter) -> str:
    """The meaning of an argument with its choices and its default, as a text for argparse."""
    text = parameter.meaning
    if parameter.choices and "|" not in parameter.value:
        text += f": {', '.join(map(str, parameter.choices))}"
    if parameter.required and parameter.is_option:
        text += " (required)"
    if parameter.default:
        text += f" (default: {parameter.default})"
    return text.replace("%", "%%")


def _columns(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names and texts, one line each: a text that is too long is cut at a word."""
    found = list(rows)
    left = max(len(name) for name, _ in found) + 4
    room = max(min(width(), WIDTH_MAX) - left, 20)
    for name, text in found:
        yield f"  {name}".ljust(left) + _shortened(text, room)


def _shortened(text: str, room: int) -> str:
    """The sentence, or its first clauses that there is room for."""
    text = text.rstrip(".")
    while len(text) > room:
        clause = max(text.rfind(mark) for mark in (";", ":", ",", " ("))
        if clause < 12:
            return textwrap.shorten(text, room, placeholder=" ...")
        text = text[:clause]
    return text
