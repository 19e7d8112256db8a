"""Writes what is made from the declarations in the code: `python docs/generate.py`.

docs/settings.md has one table for each class of settings that a public package exports, so a class
that is added there appears on the page by itself. The package must be installed.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from stubs import stub

from fundops.runtime import Settings, settings_of

__all__ = ["PRODUCTS", "page", "product", "settings_classes"]

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


# The files that this script writes, from the root of the project, with what makes their text.
PRODUCTS: Mapping[str, Callable[[], str]] = {
    "docs/settings.md": page,
    "fund/faces.pyi": stub,
}


def product(path: str) -> str:
    """The text of one file, formatted as the project's code where it is code."""
    text = PRODUCTS[path]()
    if not path.endswith((".py", ".pyi")):
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
