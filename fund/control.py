"""The control socket: how another process of the same user asks a running fund to do something.

One JSON line each way, and the connection is over:

    {"version": 1, "command": "ledger.deposit", "arguments": {"amount": "500"}, "actor": "ann"}
    {"ok": {"seq": 7, ...}}    or    {"error": {"type": "InsufficientFunds", "text": "...", "facts": {...}}}

A request may name the `database` it is meant for: a copy of a file has the uuid of the original, and what is meant for
the one must not happen to the other. Whoever connects is of the same user, by the kernel's word; everything else about
it is taken for hostile. Nothing that goes wrong here stops the fund.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final, get_type_hints
from uuid import UUID

import msgspec
import trio

from fundops.arguments import check_carried, converted, plain
from fundops.audit import Caller
from fundops.commands import CommandTable
from fundops.rendezvous import ControlError, Peer, folder_to_listen_in, folders_to_look_in, peer_of, socket_name
from fundops.runtime import ConfigError, FundopsError

__all__ = ["ControlError", "ControlServer", "NobodyListens", "call"]

log = logging.getLogger("fundops.control")

VERSION = 1
LINE_MAX_BYTES = 2**20
# An answer is made by a fund, and as long as what it was asked for.
ANSWER_MAX_BYTES = 64 * 2**20
CHUNK_BYTES = 65_536
# People and their tools; those beyond it wait in the backlog for at most a few deadlines.
CLIENTS_MAX = 16
BACKLOG = 64
READ_DEADLINE_S = 5.0
SEND_DEADLINE_S = 10.0
# Commands in hand when the fund stops may end.
CLOSE_DEADLINE_S = 5.0
# Longer than an answer of the ledger and a commit of the audit row together.
ANSWER_DEADLINE_S = 120.0
CONNECT_DEADLINE_S = 10.0
ACCEPT_AGAIN_S = 1.0
_POLL_S = 0.02


class NobodyListens(ControlError):
    """There is no control socket of this fund: it is not running, or runs without one."""


class _Request(msgspec.Struct, frozen=True):
    version: int
    command: str
    arguments: dict[str, Any] = {}
    actor: str = ""
    database: str | None = None  # None: whichever has the uuid


# -- the fund's end


class ControlServer:
    """Listens for one fund. `serve` runs until cancelled; `close` first lets the commands in hand end."""

    def __init__(
        self, uuid: str, database: Path, commands: CommandTable, *, peer_of: Callable[[Any], Peer] = peer_of
    ) -> None:
        self._uuid = uuid
        self._database = database
        self._commands = commands
        self._peer_of = peer_of
        self._accepting = trio.CancelScope()
        self._slots = trio.Semaphore(CLIENTS_MAX)
        self._in_hand = 0
        self._idle = trio.Event()
        self.path: Path | None = None  # where it listens; None: it does not

    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Started once it listens, or once it is known that it never will: that is a warning and not an error."""
        try:
            path = folder_to_listen_in() / socket_name(self._uuid)
            listening = _listen(path)
            inode = path.stat().st_ino
        except (ControlError, OSError, ValueError) as error:
            log.warning("no control socket, so no command from another process gets through: %s", error)
            task_status.started()
            return
        self.path = path
        try:
            with trio.socket.from_stdlib_socket(listening) as ours:
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    with self._accepting:
                        await self._accept_for_ever(ours, nursery)
        except Exception as error:  # noqa: BLE001  a fund without a socket is better than none
            _log_defect("it is closed, and no command from another process gets through any more", error)
        finally:
            self.path = None
            with suppress(OSError):
                # By now it may be another's: whoever opened the same database after us.
                if path.stat().st_ino == inode:
                    path.unlink()

    async def close(self) -> None:
        """Accept nobody more, and wait a moment for what was begun. Idempotent; also when cancelled."""
        self._accepting.cancel()
        with trio.move_on_after(CLOSE_DEADLINE_S, shield=True):
            while self._in_hand:
                await self._idle.wait()

    async def _accept_for_ever(self, ours: Any, nursery: trio.Nursery) -> None:
        while True:
            await self._slots.acquire()
            try:
                connection, _ = await ours.accept()
            except OSError as error:
                # Out of descriptors, most likely, which passes.
                self._slots.release()
                log.warning("control socket: %s", error)
                await trio.sleep(ACCEPT_AGAIN_S)
            except BaseException:
                self._slots.release()
                raise
            else:
                nursery.start_soon(self._attend, connection)

    async def _attend(self, connection: Any) -> None:
        try:
            with connection:
                stream = trio.SocketStream(connection)
                answer = await self._answer(stream)
                if answer is not None:
                    with trio.move_on_after(SEND_DEADLINE_S):
                        await stream.send_all(answer + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # they have left, and what they asked for is done all the same
        except Exception as error:  # noqa: BLE001  in front of one client; the next may fare better, the fund goes on
            _log_defect("a client could not be served", error)
        finally:
            self._slots.release()

    async def _answer(self, stream: trio.SocketStream) -> bytes | None:
        peer = self._peer_of(stream.socket)
        if peer.uid is not None and peer.uid != os.getuid():
            log.warning("control socket: uid %s (pid %s) was refused", peer.uid, peer.pid)
            return _told(ControlError(f"uid {peer.uid} is not the user of this fund"))
        try:
            with trio.fail_after(READ_DEADLINE_S):
                line = await _line(stream)
            if line is None:
                return None
            request = _parsed(line)
            self._check_meant_for_us(request)
        except trio.TooSlowError:
            return _told(ControlError(f"no whole line within {READ_DEADLINE_S:g} s"))
        except FundopsError as error:
            return _told(error)
        if self._accepting.cancel_called:
            return _told(ControlError("the fund is stopping"))
        return await self._run(request, Caller("control", peer.uid, peer.pid, request.actor))

    def _check_meant_for_us(self, request: _Request) -> None:
        if request.version != VERSION:
            raise ControlError(f"version {request.version} of the protocol is not spoken here; {VERSION} is")
        if request.database is not None:
            try:
                ours = os.path.samefile(request.database, self._database)
            except (OSError, ValueError):
                ours = False
            if not ours:
                raise ControlError(f"this fund's database is {self._database}, not {request.database}, its copy")

    async def _run(self, request: _Request, caller: Caller) -> bytes:
        self._in_hand += 1
        try:
            return msgspec.json.encode({"ok": await self._commands.run(caller, request.command, request.arguments)})
        except FundopsError as error:
            return _told(error)
        except Exception as error:  # noqa: BLE001  its caller hears it; the fund has other things to do
            _log_defect(f"{request.command} failed", error)
            return _told(error)
        finally:
            self._in_hand -= 1
            idle, self._idle = self._idle, trio.Event()
            idle.set()


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, 0600 before anybody can connect, in place of one that a dead owner left."""
    if _somebody_answers(path):
        raise ControlError(f"another fund listens at {path}; is its database a copy of this one, or this one of it?")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        listening.bind(str(made))
        made.chmod(0o600)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        # A rename replaces the dead one in one step: nobody ever finds nothing there.
        made.rename(path)
    except BaseException:
        listening.close()
        made.unlink(missing_ok=True)
        raise
    return listening


def _somebody_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except (BlockingIOError, TimeoutError):
            return True  # its backlog is full
        return True


async def _line(stream: trio.SocketStream) -> bytes | None:
    """One line; None when they left without a word. Raises: `ControlError` for a huge or a broken-off one."""
    received, searched = bytearray(), 0
    while (end := received.find(b"\n", searched)) < 0:
        searched = len(received)
        if searched > LINE_MAX_BYTES:
            raise ControlError(f"the line is longer than {LINE_MAX_BYTES} bytes")
        chunk = await stream.receive_some(CHUNK_BYTES)
        if not chunk:
            if received:
                raise ControlError("the line broke off")
            return None
        received += chunk
    return bytes(received[:end])


def _parsed(line: bytes) -> _Request:
    try:
        return msgspec.json.decode(line, type=_Request)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ControlError(f"not a request: {error}") from None


def _log_defect(what: str, error: Exception) -> None:
    log.error("control socket: %s", what, exc_info=error)


def _told(error: Exception) -> bytes:
    facts = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    if hasattr(error, "outcome"):
        facts["outcome"] = error.outcome
    told = {"type": type(error).__name__, "text": str(error), "facts": _as_json(facts)}
    return msgspec.json.encode({"error": told})


def _as_json(facts: Mapping[str, Any]) -> dict[str, Any]:
    shown = {}
    for name, value in facts.items():
        try:
            shown[name] = plain(value)
            msgspec.json.encode(shown[name])
        except (TypeError, ValueError, RecursionError):
            shown[name] = repr(value)
    return shown


# -- the other end: no trio, so that a tool needs none


def call(
    fund: Path | str,
    command: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    actor: str = "",
    timeout_s: float = ANSWER_DEADLINE_S,
) -> Any:
    """The answer of a running fund, as JSON has it. `fund` is the path of its database, or the database's uuid.

    Raises: `NobodyListens`; the command's own error, as the class it has here; else a `ControlError`.
    """
    uuid, database = _named(fund)
    given = dict(arguments or {})
    request = {"version": VERSION, "command": command, "arguments": plain(given), "actor": actor, "database": database}
    try:
        line = msgspec.json.encode(request)
    except UnicodeEncodeError:
        check_carried({**given, "actor": actor})  # says which it is
        raise
    if len(line) > LINE_MAX_BYTES:
        raise ConfigError("arguments", f"are longer than {LINE_MAX_BYTES} bytes")
    with _connected(uuid) as connection:
        try:
            return _unwrapped(_exchange(connection, line + b"\n", timeout_s))
        except (OSError, msgspec.MsgspecError) as error:
            key = given.get("key")
            again = f"; ask again with key {key!r}" if key is not None else ""
            raise ControlError(f"no answer to {command}: {error}{again}", outcome="unknown", key=key) from error


def _named(fund: Path | str) -> tuple[str, str | None]:
    if isinstance(fund, str):
        with suppress(ValueError):
            return str(UUID(fund)), None
    from fundops.reader import open_reader  # loads the database, which a caller with a uuid does without

    path = Path(fund).resolve()
    with open_reader(path) as reader:
        uuid = reader.meta().get("uuid")
    if uuid is None:
        raise ConfigError("db", f"{path} is not the database of a fund")
    return uuid, str(path)


def _connected(uuid: str) -> socket.socket:
    """Raises: `NobodyListens`; `ControlError` when it is somebody else who does."""
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
            raise ControlError(f"{folder / socket_name(uuid)} cannot be reached: {error}") from error
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
            # A path that cannot even be a socket's is nobody's.
            if error.errno != errno.EAGAIN:
                raise
            if time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _exchange(connection: socket.socket, line: bytes, timeout_s: float) -> bytes:
    connection.settimeout(timeout_s)
    with suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(line)  # who refuses in the middle of it has already said why
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
    told = msgspec.convert(answer["error"], _Told)
    raise rebuilt(told.type, told.text, told.facts)


class _Told(msgspec.Struct, frozen=True):
    type: str
    text: str
    facts: dict[str, Any] = {}


# Where the errors are that a command can end with.
_ERROR_MODULES: Final = (
    "fundops.actors.host",
    "fundops.actors.persistence",
    "fundops.commands",
    "fundops.doors",
    "fundops.lock",
    "fundops.wire.errors",
)


@cache
def _errors() -> dict[str, type[FundopsError]]:
    for module in _ERROR_MODULES:
        import_module(module)
    found: dict[str, type[FundopsError]] = {}
    waiting: list[type[FundopsError]] = [FundopsError]
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith("fundops."):
            found.setdefault(kind.__name__, kind)
    return found


def rebuilt(name: str, text: str, facts: Mapping[str, Any]) -> FundopsError:
    """The error as it was raised at the other end: its class, its text, its facts as attributes."""
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
        return value  # what it was declared to be is a courtesy
