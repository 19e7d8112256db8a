"""Outside tools that look at an exported book: what they refuse is a finding of ours too."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from ..persistence import Rows
from . import books

__all__ = ["judge", "judges"]

# The tool, what it reads, and what it is asked.
_JUDGES: tuple[tuple[str, Callable[[Rows], Iterator[str]], Callable[[str], list[str]]], ...] = (
    ("bean-check", books.beancount, lambda book: ["bean-check", "--no-cache", book]),
    ("hledger", books.ledger, lambda book: ["hledger", "check", "-s", "ordereddates", "-f", book]),
    ("ledger", books.ledger, lambda book: ["ledger", "--args-only", "--pedantic", "-f", book, "balance"]),
)
JUDGE_DEADLINE_S = 600.0
WORDS_MAX = 300


def judges() -> tuple[str, ...]:
    """Those that are installed."""
    return tuple(name for name, _, _ in _JUDGES if shutil.which(name))


def judge(rows: Rows) -> Iterator[str]:
    """What the installed tools have against the book, one text each."""
    with tempfile.TemporaryDirectory(prefix="fundops-judges-") as folder:
        for name, write, command in _JUDGES:
            if shutil.which(name):
                problem = _asked(Path(folder) / f"{write.__name__}.book", write(rows), command)
                if problem:
                    yield f"{name} refuses the exported book: {problem}"


def _asked(book: Path, text: Iterator[str], command: Callable[[str], list[str]]) -> str:
    if not book.exists():
        with os.fdopen(os.open(book, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.writelines(text)
    try:
        done = subprocess.run(
            command(str(book)),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=JUDGE_DEADLINE_S,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {JUDGE_DEADLINE_S:g} s"
    return "" if done.returncode == 0 else (done.stderr or done.stdout).strip()[:WORDS_MAX] or "it does not say why"
