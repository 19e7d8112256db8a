"""Where client and fund meet: the place of the socket, the lines exchanged, the peer's identity.

The socket lies in the user's runtime folder: XDG_RUNTIME_DIR, else /tmp/fundops-<uid>. A folder
counts only if it belongs to the user and no other user can enter it. The socket's name is a hash of
the database's uuid, since a path beyond about 104 bytes cannot be bound.
"""

from __future__ import annotations

import hashlib
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from fundops.errors import ControlError
from fundops.file.private import TEMPORARY, made_folder, problem_with, shared_folder

__all__ = [
    "CHUNK_BYTES",
    "LINE_MAX_BYTES",
    "SOCKETS",
    "VERSION",
    "Peer",
    "Request",
    "Told",
    "folder_to_listen_in",
    "folders_to_look_in",
    "peer_of",
    "socket_name",
]

VERSION: Final = 1  # of the protocol
LINE_MAX_BYTES: Final = 2**20  # of a request
CHUNK_BYTES: Final = 65_536  # read at once
SOCKETS: Final = "fundops-*.sock"  # the names that `socket_name` makes

# macOS has the shortest limit: 104 bytes, with the terminating zero.
PATH_MAX_BYTES = 103

# From Darwin's <sys/un.h> and <sys/ucred.h>; Python has no names for them.
_SOL_LOCAL, _LOCAL_PEERCRED, _LOCAL_PEERPID = 0, 1, 2
_XUCRED_BYTES = 76


class Request(msgspec.Struct, frozen=True):
    """The line that a client sends."""

    version: int
    command: str
    arguments: dict[str, Any] = {}
    by: str = ""  # the name that the caller gives
    database: str | None = None  # path of the file that is meant; None: the one with the uuid


class Told(msgspec.Struct, frozen=True):
    """An error as the fund sends it back."""

    type: str  # name of its class
    text: str
    facts: dict[str, Any] = {}  # its attributes


class Peer(NamedTuple):
    """The process at the other end."""

    uid: int | None  # None: the system does not tell; `unknown` says why
    pid: int | None
    unknown: str = ""


def peer_of(connection: Any) -> Peer:
    """The process at the other end, as the kernel reports it.

    `connection` is a socket of the standard library or of trio.
    """
    try:
        if sys.platform == "darwin":
            _, uid = struct.unpack_from(
                "=Ii", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, _XUCRED_BYTES)
            )
            (pid,) = struct.unpack("=i", connection.getsockopt(_SOL_LOCAL, _LOCAL_PEERPID, 4))
            return Peer(uid, pid)
        if hasattr(socket, "SO_PEERCRED"):
            pid, uid, _ = struct.unpack(
                "=iii", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
            )
            return Peer(uid, pid)
    except (OSError, struct.error) as error:
        return Peer(None, None, f"the system would not tell: {error}")
    return Peer(None, None, f"{sys.platform} has no way to tell that we know")


def socket_name(uuid: str) -> str:
    """The file name of the socket of the fund whose database has this uuid."""
    return f"fundops-{hashlib.sha256(uuid.encode()).hexdigest()[:16]}.sock"


def _shared() -> Path:
    return shared_folder(TEMPORARY)


def _runtime_folders() -> list[Path]:
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    return [Path(named)] if named.startswith("/") else []


def _fits(folder: Path) -> bool:
    return len(os.fsencode(folder / (socket_name("") + ".12345678"))) <= PATH_MAX_BYTES


def folder_to_listen_in() -> Path:
    """The user's runtime folder, made if it is missing.

    Raises: `ControlError` when none is safe.
    """
    for folder in _runtime_folders():
        if problem_with(folder) is None and os.access(folder, os.W_OK) and _fits(folder):
            return folder
    folder = _shared()
    problem = made_folder(folder)
    if problem is not None:
        raise ControlError(f"{folder} {problem}; a control socket there would not be safe")
    return folder


def folders_to_look_in() -> list[Path]:
    """The folders where the fund may listen.

    Its environment may differ from ours, as under cron or as a service; its user is the same.
    """
    every = [*_runtime_folders(), Path(f"/run/user/{os.getuid()}"), _shared()]
    return [
        folder for folder in dict.fromkeys(every) if _fits(folder) and problem_with(folder) is None
    ]
