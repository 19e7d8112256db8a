"""The meter and the stream between socket and library, by plain calls and in virtual time."""

import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from fundops.wire.stream.frames import (
    FrameHeader,
    FrameMeter,
    FrameStream,
    frame_of,
    header_bytes,
    parse_header,
    payload_of,
)
from fundops.wire.stream.limits import ServerLimits
from fundops.wire.stream.protocol import CloseCode, Verdict

TEXT, CLOSE, PING = 1, 8, 9


def frame(opcode: int, payload: bytes = b"", *, last: bool = True) -> bytes:
    """A client's frame; its mask is zero, so the payload is legible."""
    size = len(payload)
    length = (
        bytes([0x80 | size])
        if size < 126
        else struct.pack("!BH" if size < 2**16 else "!BQ", 0xFE | (size >= 2**16), size)
    )
    return bytes([opcode | (0x80 if last else 0)]) + length + bytes(4) + payload


# -- headers


@pytest.mark.parametrize(
    ("payload_bytes", "size"), [(0, 6), (125, 6), (126, 8), (65_535, 8), (65_536, 14)]
)
def test_a_header_is_as_long_as_its_second_byte_says(payload_bytes: int, size: int) -> None:
    line = frame(TEXT, bytes(payload_bytes))
    assert [header_bytes(line[:begun]) for begun in (0, 1)] == [2, 2]
    assert {header_bytes(line[:begun]) for begun in range(2, size + 1)} == {size}
    assert parse_header(line[:size]) == FrameHeader(False, True, payload_bytes)


@pytest.mark.parametrize("opcode", [CLOSE, PING])
def test_control_frames_and_unfinished_messages_are_recognised(opcode: int) -> None:
    assert parse_header(frame(opcode, b"x")) == FrameHeader(True, True, 1)
    assert parse_header(frame(TEXT, b"xy", last=False)) == FrameHeader(False, False, 2)


# -- the meter and the stream


class Wire(trio.abc.Stream):
    """A socket that takes bytes only when let."""

    def __init__(self) -> None:
        self.sent = b""
        self.open = trio.Event()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += bytes(data[:1])
        await self.open.wait()
        self.sent += bytes(data[1:])

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.sleep_forever()

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


def stream_on(wire: Wire) -> FrameStream:
    return FrameStream(wire, b"", ServerLimits(send_s=10.0), lambda verdict: None)


async def test_after_a_cancelled_send_nothing_follows(
    autojump_clock: trio.testing.MockClock,
) -> None:
    wire = Wire()
    stream = stream_on(wire)
    with trio.move_on_after(1):
        await stream.send_all(b"first")
    assert stream.broken
    assert not stream.stalled
    wire.open.set()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"second")
    assert wire.sent == b"f"


async def test_a_send_that_takes_too_long_is_a_stall(
    autojump_clock: trio.testing.MockClock,
) -> None:
    stream = stream_on(Wire())
    with pytest.raises(trio.BrokenResourceError, match="no bytes for 10 s"):
        await stream.send_all(b"first")
    assert stream.broken
    assert stream.stalled
    assert trio.current_time() == 10


async def test_a_send_cancelled_before_its_first_byte_leaves_the_line_whole() -> None:
    wire = Wire()
    wire.open.set()
    stream = stream_on(wire)
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.send_all(b"first")
    assert not stream.broken
    await stream.send_all(b"second")
    assert wire.sent == b"second"


pieces = st.lists(
    st.tuples(st.sampled_from([0, 1, 2, 8, 9, 10]), st.integers(0, 300), st.booleans()), max_size=30
)


@given(pieces, st.integers(1, 50))
def test_the_meter_does_not_care_how_the_bytes_are_cut(
    parts: list[tuple[int, int, bool]], cut: int
) -> None:
    limits = ServerLimits(message_bytes=500, message_frames=5, messages_per_s=8)
    line = b"".join(frame(opcode, bytes(size), last=last) for opcode, size, last in parts)
    whole = FrameMeter(limits, 0.0).feed(line, 0.0)
    meter = FrameMeter(limits, 0.0)
    verdicts = (meter.feed(line[at : at + cut], 0.0) for at in range(0, len(line), cut))
    assert next((verdict for verdict in verdicts if verdict is not None), None) == whole


def test_the_meter_never_stops_a_steady_client() -> None:
    meter = FrameMeter(ServerLimits(), 0.0)
    message = frame(TEXT, bytes(4_096))
    assert all(meter.feed(message, second / 10) is None for second in range(1_000))
    assert meter.feed(message * 11, 100.0) == Verdict(4429, "more than 10 messages per second")


def test_the_meter_saves_up_no_more_than_a_second() -> None:
    meter = FrameMeter(ServerLimits(messages_per_s=3), 0.0)
    assert meter.feed(frame(PING) * 3, 1_000.0) is None
    assert meter.feed(frame(PING), 1_000.0) == Verdict(4429, "more than 3 messages per second")


def test_pings_between_the_pieces_of_a_message_are_not_part_of_it() -> None:
    meter = FrameMeter(ServerLimits(message_frames=2), 0.0)
    assert meter.feed(frame(TEXT, b"a", last=False) + frame(PING) + frame(0, b"b"), 0.0) is None
    assert meter.feed(frame(TEXT, b"a", last=False) + frame(0, b"b", last=False), 0.0) is None
    assert meter.feed(frame(0, b"c"), 0.0) == Verdict(4413, "a message has more than 2 frames")


async def test_received_bytes_come_first_and_are_not_measured() -> None:
    wire = Wire()
    stream = FrameStream(wire, b"GET /ws", ServerLimits(), lambda verdict: None)
    assert [await stream.receive_some(4), await stream.receive_some(100)] == [b"GET ", b"/ws"]


async def test_a_verdict_ends_the_client_and_discards_the_rest() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    verdicts: list[Verdict] = []
    stream = FrameStream(ours, b"", ServerLimits(message_bytes=2), verdicts.append)
    await theirs.send_all(frame(TEXT, b"abc") + b"more")
    await theirs.send_all(b"and more")
    await theirs.send_eof()
    assert await stream.receive_some() == b""
    assert verdicts == [Verdict(CloseCode.TOO_LARGE, "a message has more than 2 bytes")]


# -- sending without waiting


@asynccontextmanager
async def a_socket_pair(
    send_s: float = 60.0, receive_buffer: int = 4_096
) -> AsyncIterator[tuple[FrameStream, trio.SocketStream]]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    async with (
        listener,
        await trio.testing.open_stream_to_socket_listener(listener) as ours,
        await listener.accept() as theirs,
    ):
        yield FrameStream(ours, b"", ServerLimits(send_s=send_s), lambda _: None), theirs


async def test_a_small_frame_leaves_at_once() -> None:
    async with a_socket_pair() as (frames, client):
        assert frames.send_now(frame_of(b"hi"))
        assert await client.receive_some() == b"\x81\x02hi"


async def test_bytes_that_were_left_go_before_all_others() -> None:
    big, small = frame_of(b"x" * 3_000_000), frame_of(b"y")
    async with a_socket_pair() as (frames, client):
        assert not frames.send_now(big)
        assert not frames.send_now(small), "nothing may pass the rest"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(frames.send_all, b"\x8a\x00")
            received = b""
            while len(received) < len(big) + len(small) + 2:
                received += await client.receive_some()
        assert received == big + small + b"\x8a\x00"
        assert frames.send_now(small)


async def test_a_rest_that_is_not_taken_breaks_the_stream() -> None:
    async with a_socket_pair(send_s=0.2) as (frames, _):
        assert not frames.send_now(frame_of(b"x" * 30_000_000))
        with pytest.raises(trio.BrokenResourceError):
            await frames.send_all(b"")
        assert frames.stalled
        assert not frames.send_now(frame_of(b"hi"))


async def test_a_closed_socket_takes_nothing_and_raises_nothing() -> None:
    async with a_socket_pair() as (frames, _):
        await frames.aclose()
        assert not frames.send_now(frame_of(b"hi"))
        with pytest.raises(trio.ClosedResourceError):
            await frames.send_all(b"")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 200_000])
def test_a_frame_is_the_one_that_libraries_make(size: int) -> None:
    payload = b"x" * size
    assert frame_of(payload) == Frame(Opcode.TEXT, payload).serialize(mask=False)
    assert payload_of(frame_of(payload)) == payload
