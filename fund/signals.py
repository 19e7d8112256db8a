"""Waits for the signal that asks a program to end: SIGTERM or SIGINT (Ctrl-C).

The handlers of before are back when the wait ends, so a second signal ends the program at once.
Only the main thread can wait.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from typing import Final

import trio

__all__ = ["signal_here", "signal_on_asyncio", "signal_on_trio"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
LOOK_S: Final = 1.0


async def signal_on_trio() -> signal.Signals:
    """The first signal, awaited on a trio loop."""
    with trio.open_signal_receiver(*SIGNALS) as received:
        return signal.Signals(await anext(aiter(received)))


async def signal_on_asyncio() -> signal.Signals:
    """The first signal, awaited on an asyncio loop."""
    loop = asyncio.get_running_loop()
    first: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for number in SIGNALS:
        loop.add_signal_handler(number, first.put_nowait, number)
    try:
        return await first.get()
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)


def signal_here(look: Callable[[], object]) -> signal.Signals:
    """The first signal, waited for in the main thread; `look` is called each second meanwhile.

    Raises: ValueError in another thread; what `look` raises.
    """
    heard: list[signal.Signals] = []
    came = threading.Event()

    def hear(number: int, _frame: object) -> None:
        heard.append(signal.Signals(number))
        came.set()

    before = {number: signal.signal(number, hear) for number in SIGNALS}
    try:
        while not came.wait(LOOK_S):
            look()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return heard[0]
