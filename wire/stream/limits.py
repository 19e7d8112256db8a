"""Limits of the stream's server: durations in seconds on trio's clock, sizes in bytes, counts."""

from __future__ import annotations

import msgspec

from ...runtime import ConfigError

__all__ = ["ServerLimits"]


class ServerLimits(msgspec.Struct, frozen=True):
    """Deadlines and sizes that the server enforces for each client. All must be greater than zero.

    Raises: `ConfigError` naming the field.
    """

    handshake_s: float = 5.0  # from the connect to the accepted upgrade
    hello_s: float = 5.0  # from the upgrade to the hello
    send_s: float = 10.0  # for a client to take the bytes of one message
    heartbeat_s: float = 5.0  # without another message; then a heartbeat is sent
    ping_s: float = 15.0  # between websocket pings
    pong_s: float = 10.0  # from a ping to its pong
    close_s: float = 2.0  # for the last message and the closing handshake
    connections: int = 1_024  # open at once
    head_bytes: int = 8_192  # of the HTTP request
    message_bytes: int = 4_096  # of one message from a client
    message_frames: int = (
        64  # of one message; endless empty frames would pass a limit on bytes alone
    )
    messages_per_s: int = 10  # messages and control frames together; a burst may have as many

    def __post_init__(self) -> None:
        for field in self.__struct_fields__:
            if not getattr(self, field) > 0:  # written so that NaN is refused too
                raise ConfigError(field, f"{getattr(self, field)!r} is not greater than zero")
