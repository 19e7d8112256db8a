"""The calling end of the control socket. It runs no trio, so any tool can use it."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints
from uuid import UUID

import msgspec

from fundops import errors
from fundops.control.arguments import check_carried, converted, plain
from fundops.control.rendezvous import (
    CHUNK_BYTES,
    LINE_MAX_BYTES,
    VERSION,
    Request,
    Told,
    folders_to_look_in,
    peer_of,
    socket_name,
)
from fundops.errors import ControlError, NobodyListens
from fundops.runtime import ConfigError, FundopsError
from fundops.runtime import errors as runtime_errors
from fundops.wire import errors as wire_errors

__all__ = ["call", "rebuilt"]

# Larger than a request: a page of entries can be long, and the fund that answers is trusted.
ANSWER_MAX_BYTES = 64 * 2**20
# Longer than the deadlines of the ledger's answer and of the audit row's commit together.
ANSWER_DEADLINE_S = 120.0
CONNECT_DEADLINE_S = 10.0
_POLL_S = 0.02


def call(
    fund: Path | str,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    by: str = "",
    timeout_s: float = ANSWER_DEADLINE_S,
) -> Any:
    """Run a command in a running fund and return its answer as JSON values.

    `fund` is the path of its database or the database's uuid; `by` is the name for the audit
    table.

    Raises: `NobodyListens`; the command's own error, in its own class; `ControlError` for an error
    that has no class here, and for a lost answer: its `outcome` is then "unknown" and `key` is the
    key to ask again with.
    """
    uuid, database = _named(fund)
    given = dict(arguments or {})
    try:
        line = msgspec.json.encode(Request(VERSION, command, plain(given), by, database))
    except UnicodeEncodeError:
        check_carried({**given, "by": by})  # names the argument
        raise
    if len(line) > LINE_MAX_BYTES:
        raise ConfigError("arguments", f"are longer than {LINE_MAX_BYTES} bytes")
    with _connected(uuid) as connection:
        try:
            return _unwrapped(_exchange(connection, line + b"\n", timeout_s))
        except (OSError, msgspec.MsgspecError) as error:
            key = given.get("key")
            again = f"; ask again with key {key!r}" if key is not None else ""
            raise ControlError(
                f"no answer to {command}: {error}{again}", outcome="unknown", key=key
            ) from error


def _named(fund: Path | str) -> tuple[str, str | None]:
    if isinstance(fund, str):
        with suppress(ValueError):
            return str(UUID(fund)), None
    from fundops.file import meta  # loads apsw, which a caller with a uuid does not need

    path = Path(os.path.realpath(fund))
    uuid = meta.read_file(path).get("uuid")
    if uuid is None:
        raise ConfigError("db", f"{path} is not the database of a fund")
    return uuid, str(path)


def _connected(uuid: str) -> socket.socket:
    """A connection to the fund.

    Raises: `NobodyListens`; `ControlError` when another user listens instead.
    """
    deadline = time.monotonic() + CONNECT_DEADLINE_S
    for folder in folders_to_look_in():
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            _connect(connection, folder / socket_name(uuid), deadline)
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            continue
        except OSError as error:
            connection.close()
            raise ControlError(
                f"{folder / socket_name(uuid)} cannot be reached: {error}"
            ) from error
        peer = peer_of(connection)
        if peer.uid not in (None, os.getuid()):
            connection.close()
            raise ControlError(f"uid {peer.uid} listens in place of this fund")
        return connection
    raise NobodyListens("no running fund listens for this database")


def _connect(connection: socket.socket, path: Path, deadline: float) -> None:
    while True:
        try:
            return connection.connect(str(path))
        except OSError as error:
            # EAGAIN: the backlog is full. Every other error will not pass by waiting.
            if error.errno != errno.EAGAIN:
                raise
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _exchange(connection: socket.socket, line: bytes, timeout_s: float) -> bytes:
    connection.settimeout(timeout_s)
    with suppress(BrokenPipeError, ConnectionResetError):
        # A fund that refuses a request early closes its end; its answer can still be read.
        connection.sendall(line)
    received = bytearray()
    while not received.endswith(b"\n"):
        chunk = connection.recv(CHUNK_BYTES)
        if not chunk:
            raise ConnectionError("the fund hung up")
        received += chunk
        if len(received) > ANSWER_MAX_BYTES:
            raise ConnectionError(f"the answer is longer than {ANSWER_MAX_BYTES} bytes")
    return bytes(received)


def _unwrapped(line: bytes) -> Any:
    answer = msgspec.json.decode(line, type=dict[str, Any])
    if "error" not in answer:
        return answer.get("ok")
    told = msgspec.convert(answer["error"], Told)
    raise rebuilt(told.type, told.text, told.facts)


@cache
def _errors() -> dict[str, type[FundopsError]]:
    """Every error that a command can end with, by name. Each package has one module of them."""
    found: dict[str, type[FundopsError]] = {}
    for module in (runtime_errors, wire_errors, errors):
        found |= {
            name: kind
            for name, kind in vars(module).items()
            if isinstance(kind, type) and issubclass(kind, FundopsError)
        }
    return found


def rebuilt(name: str, text: str, facts: Mapping[str, Any]) -> FundopsError:
    """The error as the fund raised it, with its class and facts; else a `ControlError`."""
    kind = _errors().get(name)
    if kind is None:
        outcome = facts.get("outcome", "unknown")
        return ControlError(f"{name}: {text}", kind=name, outcome=outcome, key=facts.get("key"))
    error = kind.__new__(kind, text)
    Exception.__init__(error, text)
    hints = get_type_hints(kind.__init__) if "__init__" in vars(kind) else {}
    for fact, value in facts.items():
        setattr(error, fact, _as_hinted(value, hints.get(fact), fact))
    return error


def _as_hinted(value: Any, hint: Any, fact: str) -> Any:
    try:
        return value if hint is None else converted(value, hint, fact)
    except (ConfigError, TypeError):
        return value  # plain JSON is better than no fact at all
