"""The fund's end of the control socket.

A connecting process belongs to the same user, as the kernel says; everything else about it is
treated as hostile. No error in here stops the fund.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

import msgspec
import trio

from fundops.control.arguments import plain
from fundops.control.audit import Caller
from fundops.control.rendezvous import (
    CHUNK_BYTES,
    LINE_MAX_BYTES,
    VERSION,
    Peer,
    Request,
    folder_to_listen_in,
    peer_of,
    socket_name,
)
from fundops.control.runner import CommandRunner
from fundops.errors import ControlError
from fundops.runtime import FundopsError, undisturbed

__all__ = ["ControlServer"]

log = logging.getLogger("fundops.control")

# Enough for people and their tools. Further clients wait in the backlog, at most a few deadlines.
CLIENTS_MAX = 16
BACKLOG = 64
READ_DEADLINE_S = 5.0
SEND_DEADLINE_S = 10.0
# For commands that are running when the fund stops.
CLOSE_DEADLINE_S = 5.0
ACCEPT_AGAIN_S = 1.0


class ControlServer:
    """Listens for one fund.

    `serve` runs until cancelled; `close` first lets running commands end.
    """

    def __init__(
        self,
        uuid: str,
        database: Path,
        commands: CommandRunner,
        *,
        peer_of: Callable[[Any], Peer] = peer_of,
    ) -> None:
        self._uuid = uuid
        self._database = database
        self._commands = commands
        self._peer_of = peer_of
        self._accepting = trio.CancelScope()
        self._slots = trio.Semaphore(CLIENTS_MAX)
        self._in_hand = 0
        self._idle = trio.Event()
        self.path: Path | None = None  # of the socket; None: not listening

    @undisturbed
    async def serve(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and serve until cancelled.

        Reports itself started once it listens. A fund without a socket is better than none, so a
        socket that cannot be made is logged as a warning and `serve` returns.
        """
        try:
            path = folder_to_listen_in() / socket_name(self._uuid)
            listening = _listen(path)
            inode = path.stat().st_ino
        except (ControlError, OSError, ValueError) as error:
            log.warning(
                "no control socket, so no command from another process gets through: %s", error
            )
            task_status.started()
            return
        self.path = path
        try:
            with trio.socket.from_stdlib_socket(listening) as ours:
                async with trio.open_nursery() as nursery:
                    task_status.started()
                    with self._accepting:
                        await self._accept(ours, nursery)
        except Exception as error:  # noqa: BLE001  the fund runs on without its socket
            _log_defect(
                "it is closed, and no command from another process gets through any more", error
            )
        finally:
            self.path = None
            with suppress(OSError):
                # A fund that opened the same database after us may have replaced the socket.
                if path.stat().st_ino == inode:
                    path.unlink()

    async def close(self) -> None:
        """Accept no further client and wait up to 5 s for running commands. Idempotent.

        The wait is shielded from cancellation.
        """
        self._accepting.cancel()
        with trio.move_on_after(CLOSE_DEADLINE_S, shield=True):
            while self._in_hand:
                await self._idle.wait()

    async def _accept(self, ours: Any, nursery: trio.Nursery) -> None:
        while True:
            await self._slots.acquire()
            try:
                connection, _ = await ours.accept()
            except OSError as error:
                # Most likely the process is out of file descriptors, which passes.
                self._slots.release()
                log.warning("control socket: %s", error)
                await trio.sleep(ACCEPT_AGAIN_S)
            except BaseException:
                self._slots.release()
                raise
            else:
                nursery.start_soon(self._attend, connection)

    @undisturbed
    async def _attend(self, connection: Any) -> None:
        try:
            with connection:
                stream = trio.SocketStream(connection)
                answer = await self._answer(stream)
                if answer is not None:
                    with trio.move_on_after(SEND_DEADLINE_S):
                        await stream.send_all(answer + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has left; its command was run
        except Exception as error:  # noqa: BLE001  one client lost; others are served
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
        return await self._run(request, Caller("control", peer.uid, peer.pid, request.by))

    def _check_meant_for_us(self, request: Request) -> None:
        if request.version != VERSION:
            raise ControlError(
                f"version {request.version} of the protocol is not spoken here; {VERSION} is"
            )
        if request.database is not None:
            try:
                ours = os.path.samefile(request.database, self._database)
            except (OSError, ValueError):
                ours = False
            if not ours:
                raise ControlError(
                    f"this fund's database is {self._database}, not {request.database}, its copy"
                )

    async def _run(self, request: Request, caller: Caller) -> bytes:
        self._in_hand += 1
        try:
            return msgspec.json.encode(
                {"ok": await self._commands.run(caller, request.command, request.arguments)}
            )
        except FundopsError as error:
            return _told(error)
        except Exception as error:  # noqa: BLE001  sent to the caller; the fund goes on
            _log_defect(f"{request.command} failed", error)
            return _told(error)
        finally:
            self._in_hand -= 1
            idle, self._idle = self._idle, trio.Event()
            idle.set()


def _listen(path: Path) -> socket.socket:
    """A listening socket at `path`, of mode 0600, in place of one that a dead owner left."""
    if _is_answered(path):
        raise ControlError(
            f"another fund listens at {path};"
            " is its database a copy of this one, or this one of it?"
        )
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        listening.bind(str(made))
        made.chmod(0o600)
        listening.listen(BACKLOG)
        listening.setblocking(False)
        _listening.add(listening)
        # A rename replaces the dead socket in one step, so there is no moment without one.
        made.rename(path)
    except BaseException:
        listening.close()
        made.unlink(missing_ok=True)
        raise
    return listening


_listening: WeakSet[socket.socket] = WeakSet()


def _close_in_child() -> None:
    # Open in a forked child, the socket would still take clients after the fund's end, and none of
    # them would be answered.
    for listening in _listening:
        listening.close()


os.register_at_fork(after_in_child=_close_in_child)


def _is_answered(path: Path) -> bool:
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
    """One line; None when the client left without sending.

    Raises: `ControlError` for a line too long or cut off.
    """
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


def _parsed(line: bytes) -> Request:
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise ControlError(f"not a request: {error}") from None


def _log_defect(what: str, error: Exception) -> None:
    log.error("control socket: %s", what, exc_info=error)


def _told(error: Exception) -> bytes:
    facts = {name: value for name, value in vars(error).items() if not name.startswith("_")}
    outcome = getattr(error, "outcome", None)
    if outcome is not None:
        facts["outcome"] = outcome
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
