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
    from fundops.replay.demo import Options
    from fundops.replay.figures import DemoReport, Happening

__all__ = ["demo"]

DEMO_PORT = 8711
PORT_MAX = 65_535
# Another program may take the port before the fund does; the demo does not wait for it.
PAGE_DEADLINE_S = 5.0


def demo(
    *,
    start: date | None = None,
    sessions: int | None = None,
    seed: int = 1,
    db: Path | None = None,
    keep: bool = False,
    prices: Path | None = None,
    no_serve: bool = False,
    hold: bool = False,
    port: int = DEMO_PORT,
    html: Path | None = None,
    json: bool = False,
) -> int:
    """Run a fund's operations over real market prices, from paper to live and back.

    While it runs, the status page and its stream are served on 127.0.0.1, at the address that it
    prints. At the end a demo whose output is a terminal stays up until Ctrl-C, so the page can
    be read; one whose output is piped ends.

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
    no_serve
        serve no status page
    hold
        stay up at the end until interrupted, also where the output is piped
    port
        the port of the status page on 127.0.0.1; 0 takes a free one, and so does a port that is
        taken
    html
        a new file for the report as one page, with the picture of every strategy's stages
    json
        print the report as one JSON object
    """
    import tempfile
    from contextlib import ExitStack

    if sessions is not None and sessions < 1:
        raise UsageError(f"--sessions: {sessions} is not a positive number")
    if not 0 <= port <= PORT_MAX:
        raise UsageError(f"--port: {port} is not between 0 and {PORT_MAX}")
    if hold and no_serve:
        raise UsageError("--hold: with --no-serve there is nothing to stay up for")
    if html is not None and (html.exists() or not html.absolute().parent.is_dir()):
        problem = "exists; the demo makes a new file" if html.exists() else "its folder is missing"
        raise UsageError(f"--html: {html}: {problem}")

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
        served = None if no_serve else _free_port(port)
        options = Options(bars, start, sessions or DEFAULT_SESSIONS, seed, path, served)
        stay = served is not None and (hold or sys.stdout.isatty())
        try:
            _run_demo(options, as_json=json, stay=stay, html=html)
        finally:
            if path.exists() and (keep or db is not None):
                print(f"database kept: {path}", file=sys.stderr)
    return 0


def _free_port(port: int) -> int | None:
    """This port, or 0 for any free one where it is taken, or None where none can be had.

    The demo never fails for want of a port: it says on stderr how it goes on.
    """
    import socket

    for tried, instead in ((port, "the status page takes a free port"), (0, "no page is served")):
        try:
            socket.create_server(("127.0.0.1", tried)).close()
        except OSError as error:
            problem = os.strerror(error.errno or 0).lower()
            print(f"fundops: --port {tried}: {problem}, so {instead}", file=sys.stderr)
        else:
            return tried
    return None


def _run_demo(options: Options, *, as_json: bool, stay: bool, html: Path | None) -> None:
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
    from fundops.replay.report import render, told

    logging.basicConfig(format="fundops: %(message)s", level=logging.WARNING)
    messages = Console(stderr=True)
    say = partial(messages.print, soft_wrap=True, highlight=False, markup=False)
    total = len(window_of(next(iter(options.bars.values())), options.start, options.sessions))
    if total < options.sessions:
        say(
            f"fundops: the prices have {total:,} sessions from {options.start} on, so {total:,} are"
            f" replayed and not {options.sessions:,}"
        )
    page: list[str] = []  # its address, once it is known

    async def say_where(fund: Fund) -> None:
        if options.port is not None:
            page.extend(await _served(fund))
            for line in page or ["fundops: the status page does not answer; the demo goes on"]:
                say(line)

    def on_event(happening: Happening) -> None:
        # A program that reads JSON finds them in the report.
        if not as_json:
            ascii_only = messages.options.ascii_only
            say(told(happening, messages.width, ascii_only=ascii_only))

    async def show(report: DemoReport, _: Fund) -> None:
        progress.stop()
        if html is not None:
            _write_page(report, html)
        if as_json:
            print(report.as_json().decode(), flush=True)
        else:
            console = Console()
            lines = render(report, console.width, ascii_only=console.options.ascii_only)
            for line in lines:
                console.print(line, soft_wrap=True, highlight=False)
        if stay and page:
            with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                say(f"staying up: {page[0]}; Ctrl-C ends it")
                await anext(aiter(signals))

    columns = (TextColumn("sessions"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=messages, transient=True, disable=not messages.is_terminal
    ) as progress:
        bar = progress.add_task("sessions", total=total)

        def on_session(done: int) -> None:
            progress.update(bar, completed=done)

        run = partial(
            run_demo,
            options,
            on_session=on_session,
            on_event=on_event,
            on_ready=say_where,
            on_report=show,
        )
        with _without_drills():
            # Ctrl-C reaches the block that runs the fund and never an actor, so the fund stops in
            # order.
            trio.run(run, restrict_keyboard_interrupt_to_checkpoints=True)


async def _served(fund: Fund) -> list[str]:
    """The addresses of the page and of its stream; empty where the port cannot be had."""
    import trio

    from fundops.runtime import FundopsError

    with trio.move_on_after(PAGE_DEADLINE_S):
        try:
            port, token = await fund.status_port(), fund.status_token
        except FundopsError:
            return []
        return [
            f"status page: http://127.0.0.1:{port}/#token={token}",
            f"status stream: ws://127.0.0.1:{port}/ws token {token}",
        ]
    return []


def _write_page(report: DemoReport, path: Path) -> None:
    """Write the page. A file that was made meanwhile is left as it is. Raises: `OSError`."""
    from fundops.replay.page import page

    with path.open("x", encoding="utf-8") as file:
        file.write(page(report))


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
