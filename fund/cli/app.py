"""The command `fundops` and its exit codes.

Commands import their modules when they run, so `--help` is quick.

Exit codes: 0 done, 1 refused, 2 wrong usage, 130 interrupted, 143 terminated. With `--json` an
error is also one JSON object on stdout: {"error": {"type", "text", "key", "outcome"}}.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from fundops.cli.show import usage

__all__ = ["app", "main"]

app = App(
    name="fundops",
    help="The operations crew of a trading fund.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # `main` reports it, as it reports every error
)


@app.command
def mcp(*, db: Path | None = None) -> int:
    """Answer an assistant's questions about a fund, over stdio, read-only.

    Parameters
    ----------
    db
        The fund's database; ~/.fundops/fund.db by default.
    """
    from fundops.config import home
    from fundops.mcp.server import serve
    from fundops.reader import open_reader

    path = (db if db is not None else home() / "fund.db").absolute()
    # A wrong path is refused now: an assistant would be told only in the answer of each tool.
    open_reader(path).close()
    serve(path)
    return 0


@app.command
def bench(
    *names: str, scale: float = 1.0, json: Annotated[bool, Parameter(name="--json")] = False
) -> int:
    """Measure fundops against its peers and the physical limit, in the same run.

    Parameters
    ----------
    names
        Which benches to run: messaging, supervision, ledger, growth, embedding. All of them
        without a name.
    scale
        Size of each bench; 0.01 is a smoke test.
    json
        Print the results as one JSON object.
    """
    from importlib import import_module

    import msgspec

    from fundops.bench import BENCHES
    from fundops.bench.harness import table

    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        return usage(f"there is no bench {unknown[0]!r}; known: {', '.join(BENCHES)}")
    if not 0 < scale <= 100:
        return usage(f"--scale: {scale} is not between 0 and 100")
    results = {}
    for name in names or BENCHES:
        results[name] = import_module(f"fundops.bench.{name}").run(scale)
        if not json:
            print(table(results[name]))
    if json:
        print(msgspec.json.encode(results).decode())
    return 0


# Given by import path: a module is loaded when one of its commands runs or shows its help.
app.command(
    "fundops.cli.demo:demo",
    name="demo",
    help="Run a fund's operations over real market prices, from paper to live and back.",
)
app.command("fundops.cli.ledger:app", name="ledger", help="Book and read the double-entry ledger.")
app.command(
    "fundops.cli.alerts:app",
    name="alerts",
    help="Read a fund's alerts, and test the channels that deliver them.",
)
app.command(
    "fundops.cli.kill_switch:app",
    name="kill-switch",
    help="Stop all trading of a fund, and let it start again.",
)
app.command(
    "fundops.cli.database:backup",
    name="backup",
    help="Copy a fund's database, while it runs or not.",
)
app.command(
    "fundops.cli.database:restore", name="restore", help="Put a backup in a database's place."
)
app.command(
    "fundops.cli.database:migrate", name="migrate", help="Bring a fund's database up to date."
)


def _usage_errors() -> tuple[type[Exception], ...]:
    from fundops.replay.prices import PricesError
    from fundops.runtime import ConfigError

    return (ConfigError, PricesError)


def _refusals() -> tuple[type[Exception], ...]:
    from fundops.runtime import FundopsError

    return (FundopsError, OSError)


def _again(error: Exception) -> str:
    """The advice to ask again with the key, for an error whose outcome is unknown."""
    key = getattr(error, "key", None) if getattr(error, "outcome", None) == "unknown" else None
    return (
        f"; ask again with --key {key}"
        if key is not None and f"key {key!r}" not in str(error)
        else ""
    )


def _worded(error: Exception) -> str:
    """The error for a person: a refusal of the system names its file and has no number."""
    if isinstance(error, OSError) and error.strerror:
        problem = error.strerror
        if problem[1:2].islower():
            problem = problem[0].lower() + problem[1:]
        return f"{error.filename}: {problem}" if error.filename else problem
    return str(error)


def _told(error: Exception) -> None:
    """Print the error as JSON too, for a program that asked for JSON."""
    if "--json" not in sys.argv:
        return
    import msgspec

    facts: dict[str, str | None] = {"type": type(error).__name__, "text": _worded(error)}
    for fact in ("key", "outcome"):
        facts[fact] = getattr(error, fact, None)
    with suppress(OSError):  # the error itself may be that stdout cannot be written
        print(msgspec.json.encode({"error": facts}).decode())


@contextmanager
def _terminated_in_order() -> Iterator[list[int]]:
    """Let SIGTERM end a command as Ctrl-C does: a fund stops, temporary files are removed.

    Yields the list of its arrivals. In a program that handles either signal itself, nothing
    changes.
    """
    arrivals: list[int] = []
    ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )

    def interrupt(number: int, _frame: Any) -> None:
        arrivals.append(number)
        signal.raise_signal(signal.SIGINT)

    if ours:
        signal.signal(signal.SIGTERM, interrupt)
    try:
        yield arrivals
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _run(terminations: list[int]) -> int:
    # The classes in an except clause are looked up only after an error, so `--help` loads none of
    # them.
    try:
        code = app(sys.argv[1:], result_action="return_value")
    except KeyboardInterrupt:
        print(f"fundops: {'terminated' if terminations else 'interrupted'}", file=sys.stderr)
        return 128 + (terminations[0] if terminations else signal.SIGINT)
    except BrokenPipeError:
        return 0  # the reader of our output has closed it
    except _usage_errors() as error:
        _told(error)
        return usage(str(error))
    except _refusals() as error:
        _told(error)
        print(f"fundops: {_worded(error)}{_again(error)}", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the `fundops` command and exit: 0 done, 1 refused, 2 wrong usage, 130 interrupted."""
    with _terminated_in_order() as terminations:
        code = _run(terminations)
    try:
        sys.stdout.flush()
    except OSError as error:
        if not code and not isinstance(error, BrokenPipeError):
            print(f"fundops: {_worded(error)}", file=sys.stderr)
            code = 1
        # The rest of the buffer would fail again when the interpreter flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
