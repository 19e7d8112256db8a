"""Outside accounting tools as judges of an exported book: a book that one refuses is a finding."""

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

# The tool, the format that it reads, and its command line.
_JUDGES: tuple[tuple[str, Callable[[Rows], Iterator[str]], Callable[[str], list[str]]], ...] = (
    ("bean-check", books.beancount, lambda book: ["bean-check", "--no-cache", book]),
    ("hledger", books.ledger, lambda book: ["hledger", "check", "-s", "ordereddates", "-f", book]),
    (
        "ledger",
        books.ledger,
        lambda book: ["ledger", "--args-only", "--pedantic", "-f", book, "balance"],
    ),
)
JUDGE_DEADLINE_S = 600.0
# Characters of a tool's output that a finding quotes.
OUTPUT_MAX = 300


def judges() -> tuple[str, ...]:
    """The tools that are installed."""
    return tuple(tool for tool, _, _ in _JUDGES if shutil.which(tool))


def judge(rows: Rows) -> Iterator[str]:
    """The problems that the installed tools find in the book, one text per tool."""
    with tempfile.TemporaryDirectory(prefix="fundops-judges-") as folder:
        for tool, write, command in _JUDGES:
            if shutil.which(tool):
                problem = _ask(Path(folder) / f"{write.__name__}.book", write(rows), command)
                if problem:
                    yield f"{tool} refuses the exported book: {problem}"


def _ask(book: Path, text: Iterator[str], command: Callable[[str], list[str]]) -> str:
    """The problem that a tool finds in a book; empty when it accepts the book."""
    # hledger and ledger read the same text, which is written once.
    if not book.exists():
        with os.fdopen(
            os.open(book, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8"
        ) as file:
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
    if done.returncode == 0:
        return ""
    return (done.stderr or done.stdout).strip()[:OUTPUT_MAX] or "it gives no reason"
