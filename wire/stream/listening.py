"""The port of the status stream, which its owner keeps while one server follows another.

The owner holds the listening socket itself. Each server gets a duplicate, so no other process can
take the port between two servers, and a free port that was chosen once stays the same.
"""

from __future__ import annotations

import socket

import trio

from ...runtime import ConfigError

__all__ = ["HeldPort"]

# Clients that wait to be accepted; the system allows fewer.
_BACKLOG = 1_024


class HeldPort:
    """A port of this machine, free for others until `take` and after `close`. 0 takes any free one.

    `host` is the IP address that it is bound to.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        if not 0 <= port <= 65_535:  # the resolver would silently take it modulo 65,536
            raise ConfigError("port", f"{port!r} is not between 0 and 65535")
        self._wanted, self._host = port, host
        self._socket: socket.socket | None = None

    @property
    def number(self) -> int | None:
        """The port that is held; None while none is."""
        return None if self._socket is None else int(self._socket.getsockname()[1])

    def take(self) -> int:
        """Hold the port, and return it. Idempotent. Raises: `OSError` when it cannot be bound."""
        if self._socket is None:
            try:
                self._socket = socket.create_server(
                    (self._host, self._wanted),
                    family=socket.AF_INET6 if ":" in self._host else socket.AF_INET,
                    backlog=_BACKLOG,
                )
            except OSError as error:
                host = f"[{self._host}]" if ":" in self._host else self._host
                text = f"{host}:{self._wanted} cannot be bound: {error.strerror or error}"
                raise OSError(error.errno, text) from error
        number = self.number
        assert number is not None
        return number

    def listener(self) -> trio.SocketListener:
        """A new listener on the port, for one server to close. Raises: `OSError`."""
        self.take()
        assert self._socket is not None
        return trio.SocketListener(trio.socket.from_stdlib_socket(self._socket.dup()))

    def close(self) -> None:
        """Leave the port to others. Idempotent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
