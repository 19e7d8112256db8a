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
    SOCKETS,
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
from fundops.wire.errors import DatabaseError

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
    table. The fund of a damaged file, whose uuid cannot be read, is found by asking all that listen
    whose file it is.

    Raises: `NobodyListens`; `DatabaseError`; the command's own error, in its own class;
    `ControlError` for an error that has no class here, and for a lost answer: its `outcome` is then
    "unknown" and `key` is the key to ask again with.
    """
    sockets, database, absent = _found(fund)
    given = dict(arguments or {})
    try:
        line = msgspec.json.encode(Request(VERSION, command, plain(given), by, database))
    except UnicodeEncodeError:
        check_carried({**given, "by": by})  # names the argument
        raise
    if len(line) > LINE_MAX_BYTES:
        raise ConfigError("arguments", f"are longer than {LINE_MAX_BYTES} bytes")
    for path in sockets:
        try:
            return _answer(path, line + b"\n", timeout_s, command, given.get("key"))
        except NobodyListens:
            continue
        except ControlError as error:
            if isinstance(absent, NobodyListens):
                raise
            # With a damaged file, the refusal of another fund is expected. One that does not answer
            # may be the fund that is meant.
            if error.outcome == "unknown":
                absent = error
    raise absent


def _found(fund: Path | str) -> tuple[list[Path], str | None, FundopsError]:
    """Where the fund may listen, the file that is meant, and the error when none of them is it."""
    absent: FundopsError = NobodyListens("no running fund listens for this database")
    folders = folders_to_look_in()
    if isinstance(fund, str):
        with suppress(ValueError):
            name = socket_name(str(UUID(fund)))
            return [folder / name for folder in folders], None, absent
    from fundops.file import meta  # loads apsw, which a caller with a uuid does not need

    path = Path(os.path.realpath(fund))
    try:
        uuid = meta.read_file(path).get("uuid")
    except DatabaseError as error:
        every = [listener for folder in folders for listener in sorted(folder.glob(SOCKETS))]
        return every if path.is_file() else [], str(path), error
    if uuid is None:
        raise ConfigError("db", f"{path} is not the database of a fund")
    return [folder / socket_name(uuid) for folder in folders], str(path), absent


def _answer(path: Path, line: bytes, timeout_s: float, command: str, key: Any) -> Any:
    """The answer of the fund that listens at `path`. Raises: as `call`."""
    with _connected(path) as connection:
        try:
            return _unwrapped(_exchange(connection, line, timeout_s))
        except (OSError, msgspec.MsgspecError) as error:
            again = f"; ask again with key {key!r}" if key is not None else ""
            raise ControlError(
                f"no answer to {command}: {error}{again}", outcome="unknown", key=key
            ) from error


def _connected(path: Path) -> socket.socket:
    """A connection to the fund that listens at `path`.

    Raises: `NobodyListens`; `ControlError` when another user listens instead.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(connection, path, time.monotonic() + CONNECT_DEADLINE_S)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        connection.close()
        raise NobodyListens(f"nothing listens at {path}") from error
    except OSError as error:
        connection.close()
        raise ControlError(f"{path} cannot be reached: {error}") from error
    peer = peer_of(connection)
    if peer.uid not in (None, os.getuid()):
        connection.close()
        raise ControlError(f"uid {peer.uid} listens in place of this fund")
    return connection


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
