"""What can be sent: any frozen msgspec Struct. A `Request[R]` also says what the answer is.

    class Add(Request[int], frozen=True):
        amount: int

`await ref.ask(Add(1))` is then an `int` to a type checker. A type may declare two things about itself:

    class Reload(Request[None], frozen=True):
        idempotent = True       # may run twice: after a crash the next life tries again
        control = True          # read before all other mail, also through a full mailbox

A field or property named `key` is its idempotency key: an error that leaves the outcome unknown carries it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import msgspec

__all__ = ["Request", "is_control", "is_idempotent", "key_of"]

R = TypeVar("R")


class Request(msgspec.Struct, Generic[R], frozen=True, tag=True):
    """Base of messages that are answered with an `R`. Tagged with the name of its class, so that a log tells which."""

    idempotent: ClassVar[bool] = False
    control: ClassVar[bool] = False


# Messages need no base of ours, so what they do not declare is looked up as false.


def is_idempotent(message_type: type) -> bool:
    return getattr(message_type, "idempotent", False) is True  # and not a field of that name


def is_control(message_type: type) -> bool:
    return getattr(message_type, "control", False) is True


def key_of(message: Any) -> str | None:
    """The key with which to ask again without doing the work twice."""
    try:
        key = getattr(message, "key", None)
    except Exception:  # noqa: BLE001  a property of somebody else's, asked for while an error is being reported
        return None
    return key if isinstance(key, str) else None
