"""Commands from another process of the same user to a running fund.

Client and fund exchange one JSON line each over a unix socket, and the fund then closes the
connection:

    {"version": 1, "command": "ledger.deposit", "arguments": {"amount": "500"}, "by": "ann"}
    {"ok": {"seq": 7, ...}}    or    {"error": {"type": "InsufficientFunds", "text": "...", "facts":
    {...}}}

A request may name the `database` that it is meant for. A copy of a file has the uuid of the
original, and a request for one of them must not reach the other. The names below are loaded when
first used, so importing one module of this package does not load the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fundops.control.client import call as call
    from fundops.errors import ControlError as ControlError
    from fundops.errors import NobodyListens as NobodyListens

__all__ = ["ControlError", "NobodyListens", "call"]

_HOMES: Final = {
    "ControlError": "fundops.errors",
    "NobodyListens": "fundops.errors",
    "call": "fundops.control.client",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'fundops.control' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
