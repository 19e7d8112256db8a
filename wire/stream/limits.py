"""Limits of the stream's server: durations in seconds on trio's clock, sizes in bytes, counts."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from ...runtime import Settings

__all__ = ["ServerLimits"]


class ServerLimits(Settings, frozen=True):
    """Deadlines and sizes that the server enforces for each client."""

    handshake_s: Annotated[
        float, Meta(gt=0, description="seconds from the connect to the accepted upgrade")
    ] = 5.0
    hello_s: Annotated[float, Meta(gt=0, description="seconds from there to the hello")] = 5.0
    send_s: Annotated[
        float, Meta(gt=0, description="seconds for a client to take the bytes of one batch")
    ] = 10.0
    heartbeat_s: Annotated[float, Meta(gt=0, description="seconds between two heartbeats")] = 1.0
    ping_s: Annotated[float, Meta(gt=0, description="seconds between two websocket pings")] = 15.0
    pong_s: Annotated[float, Meta(gt=0, description="seconds from a ping to its pong")] = 10.0
    close_s: Annotated[
        float, Meta(gt=0, description="seconds for the last message and the closing handshake")
    ] = 2.0
    connections: Annotated[int, Meta(ge=1, description="open at once")] = 1_024
    head_bytes: Annotated[int, Meta(ge=1, description="bytes of the HTTP request")] = 8_192
    message_bytes: Annotated[int, Meta(ge=1, description="bytes of one message from a client")] = (
        4_096
    )
    message_frames: Annotated[
        int,
        Meta(
            ge=1,
            description="frames of one message; endless empty frames would pass a limit on bytes",
        ),
    ] = 64
    messages_per_s: Annotated[
        int,
        Meta(
            ge=1,
            description="messages and control frames a second; a burst may have as many",
        ),
    ] = 10
