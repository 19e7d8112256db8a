"""Tasks that run beside the actors, so that no actor waits for the engine."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import trio

from ...runtime import run_undisturbed

__all__ = ["Tasks"]


class Tasks:
    """Starts tasks in `nursery`.

    Each runs in the context in which this object was made: a handler that begins a task does not
    ask the task's questions.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._context = copy_context()

    def start(self, function: Callable[..., Any], *arguments: Any, name: str = "") -> None:
        """Run a coroutine function that handles its own errors; `name` "": its own name."""

        def begin() -> None:
            self._nursery.start_soon(
                run_undisturbed, function, *arguments, name=name or function.__qualname__
            )

        self._context.copy().run(begin)
