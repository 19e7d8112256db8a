"""The command `fundops` and its exit codes.

Commands import their modules when they run, so `--help` is quick.

Exit codes: 0 done, 1 refused, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

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

    serve(db if db is not None else home() / "fund.db")
    return 0


@app.command
def bench(
    *names: str, scale: float = 1.0, json: Annotated[bool, Parameter(name="--json")] = False
) -> int:
    """Measure fundops against its peers and the physical limit, in the same run.

    Parameters
    ----------
    names
        Which benches to run: messaging, supervision, ledger, growth. All of them without a name.
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


def _run() -> int:
    # The classes in an except clause are looked up only after an error, so `--help` loads none of
    # them.
    try:
        code = app(sys.argv[1:], result_action="return_value")
    except KeyboardInterrupt:
        print("fundops: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # the reader of our output has closed it
    except _usage_errors() as error:
        return usage(str(error))
    except _refusals() as error:
        print(f"fundops: {error}{_again(error)}", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the `fundops` command and exit: 0 done, 1 refused, 2 wrong usage, 130 interrupted."""
    code = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        if not code and not isinstance(error, BrokenPipeError):
            print(f"fundops: {error}", file=sys.stderr)
            code = 1
        # The rest of the buffer would fail again when the interpreter flushes it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
