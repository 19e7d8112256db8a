"""The words of one command, as `fundops.cli.verbs` lists them. It imports nothing heavy.

A command consists of words (`ledger deposit`), of arguments that stand in their order (AMOUNT), and
of options (`--memo TEXT`), which may stand anywhere. `--` ends the options.
"""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["GROUPS", "OPTION", "Parameter", "UsageError", "Verb"]

OPTION = "--"

# By the first word of their commands, in the order of the help. A group that is missing here comes
# last and has no text.
GROUPS = {
    "": "the fund as a whole",
    "strategy": "Strategies: their stages, their metrics, their history.",
    "ledger": "Read the double-entry ledger, and book in it.",
    "alerts": "Read a fund's alerts, and test the channels that deliver them.",
    "recovery": "Failed strategies: their restarts, and a person's hold on them.",
    "kill-switch": "Stop all trading of a fund, and let it start again.",
    "confirm": "Say that something in doubt is right after all.",
}


class UsageError(Exception):
    """The command line cannot be understood; the text names the fault in one line."""


class Parameter(NamedTuple):
    """One argument or option of a command."""

    name: str  # of the method's or function's argument
    label: str  # as it is typed: "AMOUNT", or "--as-of"
    kind: str  # of its text: see `fundops.cli.parse.KINDS`
    meaning: str
    required: bool = False
    default: str = ""  # as it is shown; "": none
    choices: tuple[Any, ...] = ()
    many: bool = False  # an option that may be repeated, or an argument that takes all words left
    value: str = ""  # the value's place in the help of an option, such as "TEXT"

    @property
    def is_option(self) -> bool:
        """Whether it is an option, and no argument that stands in its order."""
        return self.label.startswith(OPTION)


class Verb(NamedTuple):
    """One command."""

    words: str  # after `fundops`
    command: str  # its name in the table of commands; "": the command line's own
    effect: str  # "reads", "changes", "tightens", "loosens" or "either"
    reach: str  # the farthest caller that may ask: "process", "socket" or "page"; "": a shell
    help: str  # one sentence
    more: str  # the rest of its description
    parameters: tuple[Parameter, ...]
    run: str = ""  # "module:function" that runs it; "": by the table alone
    reader: str = ""  # the method of `FundReader` that answers it from the file; "": none
    live: bool = False  # the running fund is asked first, and the file only when none runs
    signed: bool = False  # the method itself takes `by`
    # Arguments of the method that have no default, and are None when they are not given.
    unsaid: tuple[str, ...] = ()
    answer: tuple[Any, ...] = ()  # the answer's shape: see `fundops.cli.show`

    @property
    def group(self) -> str:
        """The first word of a command with several words, else ""."""
        return self.words.partition(" ")[0] if " " in self.words else ""

    @property
    def reads(self) -> bool:
        """Whether it changes nothing."""
        return self.effect == "reads"
