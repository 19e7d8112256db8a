"""Ctrl-C and the tasks of a fund.

Python may raise KeyboardInterrupt between any two instructions of the main thread. In the middle of
a mailbox or of a commit it would leave a message without its final state, and its asker waiting. So
it is kept out of these tasks: trio then raises it in the main task of the program, whose blocks end
in order. A handler that never returns cannot be interrupted by Ctrl-C, therefore; the watchdog
names it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

__all__ = ["run_undisturbed", "undisturbed"]

# Marks a coroutine function: Ctrl-C is not raised in it, nor in what it calls.
undisturbed = trio.lowlevel.enable_ki_protection


@undisturbed
async def run_undisturbed(function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
    """Run a coroutine function as a whole task, without Ctrl-C in it."""
    return await function(*arguments)
