"""A webhook endpoint on loopback for the demo: it counts requests and answers 204."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import h11
import trio

from fundops.runtime import bare_errors

__all__ = ["Endpoint", "open_endpoint"]

REQUEST_DEADLINE_S = 10.0
BODY_MAX = 16 * 1024


class Endpoint:
    """A listening endpoint; `received` counts the alerts that arrived."""

    def __init__(self) -> None:
        self.received = 0
        self.port = 0

    @property
    def url(self) -> str:
        """The address to configure as webhook."""
        return f"http://127.0.0.1:{self.port}/alerts"

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer one request on one connection. A malformed request closes the connection."""
        connection = h11.Connection(h11.SERVER)
        async with stream:
            try:
                with trio.move_on_after(REQUEST_DEADLINE_S):
                    if await self._read_request(connection, stream):
                        self.received += 1
                        answer = connection.send(
                            h11.Response(status_code=204, headers=[(b"connection", b"close")])
                        )
                        await stream.send_all(
                            (answer or b"") + (connection.send(h11.EndOfMessage()) or b"")
                        )
            except (trio.BrokenResourceError, h11.RemoteProtocolError):
                pass

    async def _read_request(self, connection: h11.Connection, stream: trio.SocketStream) -> bool:
        size = 0
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(4096))
            elif isinstance(event, h11.Data):
                size += len(event.data)
                if size > BODY_MAX:
                    return False
            elif isinstance(event, h11.EndOfMessage):
                return True
            elif isinstance(event, h11.ConnectionClosed):
                return False


@asynccontextmanager
async def open_endpoint() -> AsyncIterator[Endpoint]:
    """Listen on a free port of 127.0.0.1 until the block is left."""
    endpoint = Endpoint()
    with bare_errors():
        async with trio.open_nursery() as nursery:
            listeners = await nursery.start(
                partial(trio.serve_tcp, endpoint.serve, 0, host="127.0.0.1")
            )
            endpoint.port = listeners[0].socket.getsockname()[1]
            yield endpoint
            nursery.cancel_scope.cancel()
