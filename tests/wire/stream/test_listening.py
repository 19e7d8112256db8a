"""The port that its owner keeps while one server follows another."""

import socket

import pytest

from fundops.runtime import ConfigError
from fundops.wire.stream.listening import HeldPort


async def test_a_free_port_stays_the_same_over_listeners() -> None:
    held = HeldPort(0)
    assert held.number is None
    port = held.take()
    for _ in range(3):
        listener = held.listener()
        assert listener.socket.getsockname() == ("127.0.0.1", port)
        await listener.aclose()
        with pytest.raises(OSError, match="in use"):
            socket.create_server(("127.0.0.1", port))
    held.close()
    assert held.number is None
    socket.create_server(("127.0.0.1", port)).close()


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1:{port} cannot be bound"):
            HeldPort(port).take()


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_cannot_be_is_refused(port: int) -> None:
    with pytest.raises(ConfigError, match="not between 0 and 65535"):
        HeldPort(port)
