"""Writes all that is made from declarations: `python docs/generate.py`; needs the package.

* docs/settings.md, from the declarations of the settings. The page has one table for each class of
  settings that a public package exports, so a class that is added there appears by itself.
* docs/commands.md and fund/cli/verbs.py, from the table of commands. A new row appears by itself.
* fund/faces.pyi, from the same table, by `stubs.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from stubs import stub

from fundops.cli.describe import verbs
from fundops.cli.grammar import GROUPS, Verb
from fundops.cli.help import usage_of
from fundops.file.database import MIGRATIONS
from fundops.runtime import Settings, settings_of

__all__ = ["PRODUCTS", "commands_page", "page", "product", "settings_classes", "verbs_module"]

ROOT = Path(__file__).parent.parent

# The packages that users import settings from. Settings of a part that FundConfig repeats, such as
# GuardSettings, are exported by none of them.
PUBLIC = ("fundops", "fundops.wire.stream.limits", "fundops.runtime")
# Readers look for these first. The others follow in the order of the packages.
FIRST = ("FundConfig", "AlertSettings", "RecoverySettings", "PromotionSettings", "Criterion")

OPENING = """\
# Settings

This page is made from the declarations in the code; `python docs/generate.py` writes it anew. Each
value is checked when its object is made, and `ConfigError` names the setting that is refused and
the values that are allowed. `help(FundConfig)` in Python shows the same text.

All subsystems of a fund are off by default. Percentages end in `_pct`, basis points in `_bps`,
seconds in `_s`. A setting without a default is marked as *required*.
"""


def settings_classes() -> list[tuple[str, type[Settings]]]:
    """Each public class of settings with the package that exports it, in the order of the page."""
    found: dict[type[Settings], str] = {}
    for package in PUBLIC:
        module = import_module(package)
        for name in module.__all__:
            exported = getattr(module, name)
            if isinstance(exported, type) and issubclass(exported, Settings):
                found.setdefault(exported, package)
    found.pop(Settings)  # the base: it has no settings
    ranks = {name: rank for rank, name in enumerate(FIRST)}
    ordered = sorted(found, key=lambda cls: ranks.get(cls.__name__, len(FIRST)))
    return [(found[cls], cls) for cls in ordered]


def page() -> str:
    """The text of docs/settings.md."""
    return "\n".join([OPENING, *[_section(package, cls) for package, cls in settings_classes()]])


def _section(package: str, cls: type[Settings]) -> str:
    rows = [
        f"| `{setting.name}` | {_cell(setting.allowed)} | {_default(setting.default)} |"
        f" {_cell(setting.meaning)} |"
        for setting in settings_of(cls)
    ]
    lines = [
        f"## {cls.__name__}",
        "",
        f"{_opening(cls)} Import it from `{package}`.",
        "",
        "| setting | values | default | meaning |",
        "|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _opening(cls: type[Settings]) -> str:
    """The first sentence of the class's docstring."""
    # `cls.__doc__` would also list the settings, which the table shows.
    text = " ".join(str(vars(cls)["__doc__"]).split())
    return re.split(r"(?<=\.) ", text, maxsplit=1)[0]


def _default(default: str) -> str:
    return "*required*" if default == "required" else f"`{_without_bars(default)}`"


def _cell(text: str) -> str:
    # Markdown takes `<name>` for a tag and would not show it.
    return re.sub(r"<(?=\w)", r"\\<", _without_bars(text))


def _without_bars(text: str) -> str:
    """The text with its bars escaped, since a bar ends a cell of a table, in code too."""
    return text.replace("|", r"\|")


# -- commands

COMMANDS_OPENING = """\
# Commands

This page is made from the table of commands; `python docs/generate.py` writes it anew. `fundops
COMMAND --help` shows the same text, with the meaning of each argument.

Every command has `--db PATH` (`~/.fundops/fund.db` if not given) and `--json`, which prints one
object on one line, with amounts as decimal text; the tables leave both out. A change has `--by
NAME` too: the name for the audit table, `$USER` if not given.

A question that the database answers is read from the file, whether the fund runs or not. The other
questions need a running fund, and so does a change, but for one of the books: those can be worked
on while no fund runs. The effect says what a change does to trading: *tightens* allows less,
*loosens* allows more, *either* does one or the other by its arguments. The last column names the
farthest caller that may ask: a program of the same user by the control socket, or a client of the
status port with its token.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | refused, or a check has found something |
| 2 | wrong usage or configuration |
| 3 | the command needs a running fund, and none runs |
| 4 | a gate that was asked for its verdict is INCONCLUSIVE |
| 130, 143 | interrupted, terminated |
"""

REACHES = {"": "a shell", "process": "the process", "socket": "socket", "page": "socket, token"}


def commands_page(found: tuple[Verb, ...] | None = None) -> str:
    """The text of docs/commands.md."""
    found = verbs() if found is None else found
    groups = dict.fromkeys(verb.group for verb in found)
    sections = [_commands(group, GROUPS.get(group, ""), found) for group in groups]
    return "\n".join([COMMANDS_OPENING, *sections])


def _commands(group: str, text: str, found: tuple[Verb, ...]) -> str:
    rows = [
        f"| `fundops {_without_bars(_usage(verb))}` | {_cell(verb.help)} | {_options(verb)} |"
        f" {verb.effect} | {REACHES[verb.reach]} |"
        for verb in found
        if verb.group == group
    ]
    lines = [
        f"## {group or 'fundops'}",
        "",
        *([f"{text[0].upper()}{text[1:].rstrip('.')}.", ""] if text else []),
        "| command | meaning | options | effect | who may ask |",
        "|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def _usage(verb: Verb) -> str:
    return usage_of(verb).removesuffix(" [OPTION ...]")


def _options(verb: Verb) -> str:
    return ", ".join(
        f"`{parameter.label}`"
        for parameter in verb.parameters
        if parameter.is_option
        and not parameter.required
        and parameter.name not in ("db", "json", "by")
    )


VERBS_OPENING = '''\
"""Every command of the command line as data, so that its help needs neither trio nor the doors.

Made from the table of commands: `python docs/generate.py` writes it anew.
"""

from __future__ import annotations

from typing import Final

from fundops.cli.grammar import Parameter as P
from fundops.cli.grammar import Verb as V

__all__ = ["SCHEMA", "VERBS"]

# fmt: off
# ruff: noqa: E501
'''


def verbs_module() -> str:
    """The text of fund/cli/verbs.py."""
    lines = [
        "# The newest schema of a database that this version can read.",
        f"SCHEMA: Final = {len(MIGRATIONS)}",
        "",
        "VERBS: Final[tuple[V, ...]] = (",
    ]
    for verb in verbs():
        lines.append("    V(")
        for name in Verb._fields:
            value = getattr(verb, name)
            if value == Verb._field_defaults.get(name, None):
                continue
            if name == "parameters":
                lines.append("        parameters=(")
                lines += [f"            {_literal(parameter, 'P')}," for parameter in value]
                lines.append("        ),")
            else:
                lines.append(f"        {name}={value!r},")
        lines.append("    ),")
    return VERBS_OPENING + "\n".join([*lines, ")", ""])


def _literal(value: tuple[object, ...], name: str) -> str:
    """A named tuple as Python text, without the fields that have their defaults."""
    defaults: dict[str, object] = type(value)._field_defaults  # type: ignore[attr-defined]
    fields: dict[str, object] = value._asdict()  # type: ignore[attr-defined]
    parts = [
        f"{field}={given!r}" if field in defaults else repr(given)
        for field, given in fields.items()
        if field not in defaults or given != defaults[field]
    ]
    return f"{name}({', '.join(parts)})"


# The files that this script writes, from the root of the project, with what makes their text.
PRODUCTS: Mapping[str, Callable[[], str]] = {
    "docs/settings.md": page,
    "docs/commands.md": commands_page,
    "fund/cli/verbs.py": verbs_module,
    "fund/faces.pyi": stub,
}


def product(path: str) -> str:
    """The text of one file, formatted where it is a stub."""
    text = PRODUCTS[path]()
    if not path.endswith(".pyi"):
        return text
    text = _by_ruff(text, path, "check", "--select", "I", "--fix")
    return _by_ruff(text, path, "format")


def _by_ruff(text: str, path: str, *command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *command, "-q", "-", "--stdin-filename", str(ROOT / path)],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


if __name__ == "__main__":
    for name in PRODUCTS:
        (ROOT / name).write_text(product(name), encoding="utf-8")
