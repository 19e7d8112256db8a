"""The command line. Each command loads what it needs when it runs, so that `--help` is quick.

Exit codes: 0 done, 1 refused, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

if TYPE_CHECKING:
    from fundops.fund import Fund
    from fundops.replay.demo import DemoReport, Options

__all__ = ["app", "main"]

DEMO_PORT = 8711

app = App(
    name="fundops",
    help="The operations crew of a trading fund.",
    version_flags=["--version"],
    suppress_keyboard_interrupt=False,  # `main` says it, like everything else that ends a command
)


@app.command
def demo(
    *,
    start: date | None = None,
    sessions: int | None = None,
    seed: int = 1,
    db: Path | None = None,
    keep: bool = False,
    prices: Path | None = None,
    serve: bool = False,
    hold: bool = False,
    port: int = DEMO_PORT,
    json: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """Run a fund's operations over real market prices, from paper to live and back.

    Parameters
    ----------
    start
        First session, YYYY-MM-DD; the default window begins 2009-03-02.
    sessions
        How many sessions to replay; 1000 unless told otherwise.
    seed
        Where the troubles fall, and the identity of the database.
    db
        The database file to make. Without it a temporary one is made, and deleted at the end.
    keep
        Keep the temporary database and name it.
    prices
        Daily prices of your own (CSV: date, open, high, low, close, volume) instead of the bundled indices.
    serve
        Serve the status stream while it runs, and stay up at the end.
    hold
        Stay up at the end, with the status stream, until interrupted.
    port
        Port of the status stream on 127.0.0.1; 0 takes a free one.
    json
        Print the report as one JSON object.
    """
    import tempfile
    from contextlib import ExitStack

    from fundops.replay.demo import Options
    from fundops.replay.lineup import DEFAULT_SESSIONS, DEFAULT_START
    from fundops.replay.prices import SYMBOLS, bundled, read_csv

    bars = {symbol: bundled(symbol) for symbol in SYMBOLS} if prices is None else {prices.stem: read_csv(prices)}
    if start is None:
        # The window is an index's; in a file of one's own the first price is as good as any.
        start = DEFAULT_START if prices is None else next(iter(bars.values()))[0].day
    with ExitStack() as stack:
        path = db
        if path is None and keep:
            path = Path(tempfile.mkdtemp(prefix="fundops-")) / "demo.db"
        elif path is None:
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fundops-"))) / "demo.db"
        elif path.exists():
            return _usage(f"--db: {path} exists; the demo makes a new database")
        stream = serve or hold
        options = Options(bars, start, sessions or DEFAULT_SESSIONS, seed, path, port if stream else None)
        if sessions is not None and sessions < 1:
            return _usage(f"--sessions: {sessions} is not a positive number")
        try:
            _run_demo(options, as_json=json, stay=stream)
        finally:
            if path.exists() and (keep or db is not None):
                print(f"database kept: {path}", file=sys.stderr)
    return 0


def _run_demo(options: Options, *, as_json: bool, stay: bool) -> None:
    import logging
    import signal
    from functools import partial

    import trio
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from fundops.replay.demo import run_demo, window_of
    from fundops.replay.report import render

    logging.basicConfig(format="fundops: %(message)s", level=logging.WARNING)
    messages = Console(stderr=True)
    total = len(window_of(next(iter(options.bars.values())), options.start, options.sessions))

    async def say_where(fund: Fund) -> None:
        if options.port is not None:
            port = await fund.status_port()
            token = fund.status_token
            messages.print(f"status stream: ws://127.0.0.1:{port}/ws token {token}", soft_wrap=True, highlight=False)

    async def show(report: DemoReport, _: Fund) -> None:
        progress.stop()
        if as_json:
            print(report.as_json().decode(), flush=True)
        else:
            Console().print(render(report))
        if stay:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                messages.print("staying up; Ctrl-C ends it", highlight=False)
                await anext(aiter(signals))

    columns = (TextColumn("sessions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        bar = progress.add_task("sessions", total=total)

        def on_session(done: int) -> None:
            progress.update(bar, completed=done)

        # Ctrl-C reaches the block that runs the fund, never one of its actors: the fund then stops in order.
        run = partial(run_demo, options, on_session=on_session, on_ready=say_where, on_report=show)
        trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)


@app.command
def mcp(*, db: Path | None = None) -> int:
    """Answer an assistant's questions about a fund, over stdio, read-only.

    Parameters
    ----------
    db
        The fund's database; ~/.fundops/fund.db unless told otherwise.
    """
    from fundops.config import home
    from fundops.mcp import serve

    serve(db if db is not None else home() / "fund.db")
    return 0


@app.command
def bench(*names: str, scale: float = 1.0, json: Annotated[bool, Parameter(name="--json")] = False) -> int:
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
        return _usage(f"there is no bench {unknown[0]!r}; known: {', '.join(BENCHES)}")
    if not 0 < scale <= 100:
        return _usage(f"--scale: {scale} is not between 0 and 100")
    results = {}
    for name in names or BENCHES:
        results[name] = import_module(f"fundops.bench.{name}").run(scale)
        if not json:
            print(table(results[name]))
    if json:
        print(msgspec.json.encode(results).decode())
    return 0


# By their import paths: the modules are loaded when one of them runs, or is asked for its own help.
app.command("fundops.cli_ledger:app", name="ledger", help="Book and read the double-entry ledger.")
app.command("fundops.cli_ledger:backup", name="backup", help="Copy a fund's database, while it runs or not.")
app.command("fundops.cli_ledger:restore", name="restore", help="Put a backup in a database's place.")
app.command("fundops.cli_ledger:migrate", name="migrate", help="Bring a fund's database up to date.")


def _usage(problem: str) -> int:
    print(f"fundops: {problem}", file=sys.stderr)
    return 2


def _usage_errors() -> tuple[type[Exception], ...]:
    from fundops.replay.prices import PricesError
    from fundops.runtime import ConfigError

    return (ConfigError, PricesError)


def _refusals() -> tuple[type[Exception], ...]:
    from fundops.runtime import FundopsError

    return (FundopsError, OSError)


def _again(error: Exception) -> str:
    """How to find out what became of it, where that is not known."""
    key = getattr(error, "key", None) if getattr(error, "outcome", None) == "unknown" else None
    return f"; ask again with --key {key}" if key is not None and f"key {key!r}" not in str(error) else ""


def _run() -> int:
    # An except clause looks its classes up only once something was raised, so that `--help` loads none of them.
    try:
        code = app(sys.argv[1:], result_action="return_value")
    except KeyboardInterrupt:
        print("fundops: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0  # whoever read our output has left; nothing more can be said to them
    except _usage_errors() as error:
        return _usage(str(error))
    except _refusals() as error:
        print(f"fundops: {error}{_again(error)}", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """The `fundops` command."""
    code = _run()
    try:
        sys.stdout.flush()
    except OSError as error:
        if not code and not isinstance(error, BrokenPipeError):
            print(f"fundops: {error}", file=sys.stderr)
            code = 1
        # What is still buffered would fail once again as the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
