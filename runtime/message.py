"""The messages of actors: frozen msgspec Structs. A `Request[R]` also declares its answer, an `R`.

    class Add(Request[int], frozen=True):
        amount: int

To a type checker `await ref.ask(Add(1))` is then an `int`. A type may declare two properties:

    class Reload(Request[None], frozen=True):
        idempotent = True       # may run twice: after a crash the next life tries it again
        control = True          # read before all other mail, and accepted by a full mailbox

A field or property named `key` is the message's idempotency key. An error that leaves the outcome
unknown carries it, so that the caller can ask again without doing the work twice.
"""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar

import msgspec

__all__ = ["Request", "is_control", "is_idempotent", "key_of"]

# Covariant, since a request only ever hands its answer out: a `Request[bool]` serves wherever a
# `Request[int]` is asked for, and `print(await ref.ask(request))` needs no annotation.
R_co = TypeVar("R_co", covariant=True)


class Request(msgspec.Struct, Generic[R_co], frozen=True, tag=True):
    """Base of messages that are answered with an `R_co`.

    Encoded, a request carries the name of its class as a tag, so a log shows which one it was.
    """

    idempotent: ClassVar[bool] = False
    control: ClassVar[bool] = False


# A message need not subclass Request, so both properties default to false. `is True` tells the
# declaration from a field of the same name, which the class shows as a descriptor.


def is_idempotent(message_type: type) -> bool:
    """Whether a crashed message of this type may be tried again by the next life."""
    return getattr(message_type, "idempotent", False) is True


def is_control(message_type: type) -> bool:
    """Whether messages of this type use the control lane, which is read first."""
    return getattr(message_type, "control", False) is True


def key_of(message: Any) -> str | None:
    """The idempotency key of a message; None when it has none, or one that is not a text."""
    try:
        key = getattr(message, "key", None)
    except Exception:  # noqa: BLE001  a host's property may raise, and another error is being reported here
        return None
    return key if isinstance(key, str) else None
