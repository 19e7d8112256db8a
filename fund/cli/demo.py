"""`fundops demo`: the replay over real market prices, with its progress and its report."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from fundops.cli.grammar import UsageError

if TYPE_CHECKING:
    from fundops.fund import Fund
    from fundops.replay.demo import DemoReport, Options

__all__ = ["demo"]

DEMO_PORT = 8711
PORT_MAX = 65_535


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
    json: bool = False,
) -> int:
    """Run a fund's operations over real market prices, from paper to live and back.

    Parameters
    ----------
    start
        the first session, YYYY-MM-DD; the default window begins 2009-03-02
    sessions
        how many sessions to replay; 1000 if not given
    seed
        where the troubles fall, and the identity of the database
    db
        the database file to make; if not given, a temporary one that is deleted at the end
    keep
        keep the temporary database and name it
    prices
        a CSV file of daily prices (date, open, high, low, close, volume) instead of the bundled
        indices
    serve
        serve the status stream while it runs, and stay up at the end
    hold
        stay up at the end, with the status stream, until interrupted
    port
        the port of the status stream on 127.0.0.1; 0 takes a free one
    json
        print the report as one JSON object
    """
    import tempfile
    from contextlib import ExitStack

    if sessions is not None and sessions < 1:
        raise UsageError(f"--sessions: {sessions} is not a positive number")
    if not 0 <= port <= PORT_MAX:
        raise UsageError(f"--port: {port} is not between 0 and {PORT_MAX}")
    if serve or hold:
        _check_free(port)

    from fundops.replay.demo import Options
    from fundops.replay.lineup import DEFAULT_SESSIONS, DEFAULT_START
    from fundops.replay.prices import SYMBOLS, bundled, read_csv

    bars = (
        {symbol: bundled(symbol) for symbol in SYMBOLS}
        if prices is None
        else {prices.stem: read_csv(prices)}
    )
    if start is None:
        # The default start belongs to the bundled indices; a file of prices is replayed from its
        # first day.
        start = DEFAULT_START if prices is None else next(iter(bars.values()))[0].day
    with ExitStack() as stack:
        path = db
        if path is None and keep:
            path = Path(tempfile.mkdtemp(prefix="fundops-")) / "demo.db"
        elif path is None:
            path = (
                Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fundops-")))
                / "demo.db"
            )
        elif path.exists():
            raise UsageError(f"--db: {path} exists; the demo makes a new database")
        stream = serve or hold
        options = Options(
            bars, start, sessions or DEFAULT_SESSIONS, seed, path, port if stream else None
        )
        try:
            _run_demo(options, as_json=json, stay=stream)
        finally:
            if path.exists() and (keep or db is not None):
                print(f"database kept: {path}", file=sys.stderr)
    return 0


def _check_free(port: int) -> None:
    """Refuse a port that is taken: a fund would start without its stream and try again."""
    import socket

    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError as error:
        problem = os.strerror(error.errno or 0).lower()
        raise OSError(error.errno, f"cannot be listened on: {problem}", f"--port {port}") from None


def _run_demo(options: Options, *, as_json: bool, stay: bool) -> None:
    import logging
    import signal
    from functools import partial

    import trio
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from fundops.replay.demo import run_demo, window_of
    from fundops.replay.report import render

    logging.basicConfig(format="fundops: %(message)s", level=logging.WARNING)
    messages = Console(stderr=True)
    total = len(window_of(next(iter(options.bars.values())), options.start, options.sessions))
    if total < options.sessions:
        messages.print(
            f"fundops: the prices have {total:,} sessions from {options.start} on, so {total:,} are"
            f" replayed and not {options.sessions:,}",
            soft_wrap=True,
            highlight=False,
        )

    async def say_where(fund: Fund) -> None:
        if options.port is not None:
            port = await fund.status_port()
            token = fund.status_token
            messages.print(
                f"status stream: ws://127.0.0.1:{port}/ws token {token}",
                soft_wrap=True,
                highlight=False,
            )

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
    with Progress(
        *columns, console=messages, transient=True, disable=not messages.is_terminal
    ) as progress:
        bar = progress.add_task("sessions", total=total)

        def on_session(done: int) -> None:
            progress.update(bar, completed=done)

        run = partial(run_demo, options, on_session=on_session, on_ready=say_where, on_report=show)
        with _without_drills():
            # Ctrl-C reaches the block that runs the fund and never an actor, so the fund stops in
            # order.
            trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)


@contextmanager
def _without_drills() -> Iterator[None]:
    """A block in which drills are not logged: the demo's report tells them."""
    import logging

    def is_none(record: logging.LogRecord) -> bool:
        return "Drill: " not in str(record.args)

    log = logging.getLogger("fundops.runtime")
    log.addFilter(is_none)
    try:
        yield
    finally:
        log.removeFilter(is_none)
