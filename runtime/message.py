"""What can be sent: any frozen msgspec Struct. A `Request[R]` also says what the answer is.

    class Add(Request[int], frozen=True):
        amount: int

`await ref.ask(Add(1))` is then an `int` to a type checker.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

__all__ = ["Request"]

R = TypeVar("R")


class Request(msgspec.Struct, Generic[R], frozen=True, tag=True):
    """Base of messages that are answered with an `R`. Tagged with the name of its class, so that a log tells which."""
