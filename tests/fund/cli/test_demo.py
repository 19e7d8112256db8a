"""The demo goes on where its page cannot be served."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from fundops import FundopsError
from fundops.cli.demo import _free_port, _served
from fundops.runtime import ConfigError


def test_a_free_port_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    assert _free_port(port) == port
    assert capsys.readouterr().err == ""


def test_a_taken_port_gives_way_to_a_free_one(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert _free_port(port) == 0
    said = "address already in use, so the status page takes a free port\n"
    assert capsys.readouterr().err == f"fundops: --port {port}: {said}"


def test_without_any_port_there_is_no_page(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "create_server", refused)
    assert _free_port(8711) is None
    assert capsys.readouterr().err.endswith("permission denied, so no page is served\n")


def _fund(status_port: Any) -> Any:
    return SimpleNamespace(status_port=status_port, status_token="secret")


async def test_the_page_and_its_stream_are_told_with_the_token() -> None:
    async def port() -> int:
        return 8711

    assert await _served(_fund(port)) == [
        "status page: http://127.0.0.1:8711/#token=secret",
        "status stream: ws://127.0.0.1:8711/ws token secret",
    ]


@pytest.mark.parametrize("error", [FundopsError("down"), ConfigError("status_port", "is taken")])
async def test_a_status_actor_that_is_down_gives_no_address(error: FundopsError) -> None:
    async def port() -> int:
        raise error

    assert await _served(_fund(port)) == []


async def test_a_status_actor_that_hangs_gives_no_address(
    autojump_clock: MockClock,
) -> None:
    assert await _served(_fund(trio.sleep_forever)) == []
