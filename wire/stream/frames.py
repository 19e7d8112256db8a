"""Frames between socket and websocket library: measured coming in, sent whole going out.

`FrameStream` is the `trio.abc.Stream` that trio-websocket reads and writes. It refuses to send
after a send that was cut off, because half a frame may be on the line; it ends clients that take no
bytes; and it passes each inbound byte through a `FrameMeter` before the library parses it.

A server's frame is not masked, so `frame_of` encodes a message once for all clients. The library
sends the handshake, the control frames and the close; whole batches of frames go past it, one after
the other with its own.

Times are seconds on trio's clock. Nothing here parses or keeps the payload of a frame.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import trio

from .limits import ServerLimits
from .protocol import CloseCode, Verdict

__all__ = [
    "FrameHeader",
    "FrameMeter",
    "FrameStream",
    "frame_of",
    "header_bytes",
    "parse_header",
    "payload_of",
]

_MASK_BYTES = 4  # the library refuses a client that sends no mask
_LENGTH_BYTES = {126: 2, 127: 8}  # of the extended length, by the 7-bit length


_TEXT_WHOLE = 0x81  # a text frame that is the whole message


def frame_of(payload: bytes) -> bytes:
    """The server's text frame with this payload (RFC 6455, section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((_TEXT_WHOLE, length)) + payload
    if length < 65_536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload


def payload_of(frame: bytes) -> bytes:
    """The payload of a frame that `frame_of` made."""
    return frame[2 + _LENGTH_BYTES.get(frame[1], 0) :]


class FrameHeader(NamedTuple):
    """The fields of a frame header that the limits depend on."""

    is_control: bool  # close, ping or pong; it may come between the frames of a message
    is_last: bool  # the last frame of its message
    payload_bytes: int


def header_bytes(begun: bytes) -> int:
    """Size of the client frame header that begins with these bytes (RFC 6455, section 5.2).

    The second byte decides the size, so the answer is 2 until the first two bytes are there.
    """
    return 2 if len(begun) < 2 else 2 + _LENGTH_BYTES.get(begun[1] & 0x7F, 0) + _MASK_BYTES


def parse_header(header: bytes) -> FrameHeader:
    """The fields of a complete client frame header."""
    length = header[1] & 0x7F
    if length in _LENGTH_BYTES:
        length = int.from_bytes(header[2 : 2 + _LENGTH_BYTES[length]], "big")
    return FrameHeader(bool(header[0] & 0x08), bool(header[0] & 0x80), length)


class FrameMeter:
    """Measures the frames of one client by their headers, before anything is parsed or stored.

    trio-websocket counts only payload, in characters, and nothing for empty frames. Without this
    meter a client could fill memory with the frames of an endless message, or keep the loop busy
    with pings.
    """

    def __init__(self, limits: ServerLimits, now_s: float) -> None:
        self._limits = limits
        self._header = b""
        self._payload_left = 0
        self._message_bytes = 0
        self._message_frames = 0
        # A token bucket: one message takes one, and `messages_per_s` come back each second.
        self._allowance = float(limits.messages_per_s)
        self._allowed_at_s = now_s

    def feed(self, data: bytes | bytearray, now_s: float) -> Verdict | None:
        """Take the next bytes from the client.

        Returns the verdict on the limit that they exceed, or None.
        """
        at = 0
        while at < len(data):
            if self._payload_left:
                step = min(self._payload_left, len(data) - at)
                self._payload_left -= step
                at += step
                continue
            step = header_bytes(self._header) - len(self._header)
            self._header += data[at : at + step]
            at += step
            if len(self._header) == header_bytes(self._header):
                header, self._header = parse_header(self._header), b""
                verdict = self._begin_frame(header, now_s)
                if verdict is not None:
                    return verdict
        return None

    def _begin_frame(self, header: FrameHeader, now_s: float) -> Verdict | None:
        self._payload_left = header.payload_bytes
        if header.is_control:
            return self._count_message(now_s)
        limits = self._limits
        self._message_bytes += header.payload_bytes
        self._message_frames += 1
        if self._message_bytes > limits.message_bytes:
            return Verdict(
                CloseCode.TOO_LARGE, f"a message has more than {limits.message_bytes} bytes"
            )
        if self._message_frames > limits.message_frames:
            return Verdict(
                CloseCode.TOO_LARGE, f"a message has more than {limits.message_frames} frames"
            )
        if header.is_last:
            self._message_bytes = self._message_frames = 0
            return self._count_message(now_s)
        return None

    def _count_message(self, now_s: float) -> Verdict | None:
        rate = self._limits.messages_per_s
        self._allowance = (
            min(float(rate), self._allowance + (now_s - self._allowed_at_s) * rate) - 1
        )
        self._allowed_at_s = now_s
        if self._allowance < 0:
            return Verdict(CloseCode.TOO_MANY, f"more than {rate} messages per second")
        return None


class FrameStream(trio.abc.Stream):
    """The client's socket as trio-websocket sees it.

    `received` are bytes already read from the socket (the HTTP request), which the library reads
    first. `end` is called with the verdict when inbound frames exceed a limit.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        received: bytes,
        limits: ServerLimits,
        end: Callable[[Verdict], None],
    ) -> None:
        self._stream = stream
        self._received = received
        self._limits = limits
        self._meter = FrameMeter(limits, trio.current_time())
        self._end = end
        # None: not a socket, so nothing is sent without waiting.
        self._descriptor = stream.socket.fileno() if isinstance(stream, trio.SocketStream) else None
        self._left = b""  # whole frames, or the end of one that is on the line in part
        self._turn = trio.Lock()  # of those that send: the library and the fan-out
        self.broken = False  # half a frame may be on the line
        self.stalled = False  # `broken`, because the client took no bytes in time
        self.on_close: Callable[[], None] = lambda: None

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send whole frames within `send_s`, after the bytes that `send_now` left.

        Raises: `trio.BrokenResourceError`, now and from every later call.
        """
        async with self._turn:
            if self.broken:
                raise trio.BrokenResourceError("half a frame is on the line: nothing can follow it")
            # A cancellation is delivered here, before the first byte, where it leaves the line
            # whole.
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._left:
                data, self._left = self._left + data, b""
            self.broken = True  # until all bytes are sent, however the send ends
            with trio.move_on_after(self._limits.send_s) as deadline:
                await self._stream.send_all(data)
                self.broken = False
            if deadline.cancelled_caught:
                self.stalled = True
                raise trio.BrokenResourceError(
                    f"the client took no bytes for {self._limits.send_s:g} s"
                )

    def send_now(self, data: bytes) -> bool:
        """Send whole frames as far as the socket takes them without waiting.

        Returns whether all are sent. The rest goes before the next `send_all`, which the caller
        must see to.
        """
        if self._descriptor is None or self.broken or self._left or self._turn.locked():
            self._left += data
            return False
        try:
            sent = os.write(self._descriptor, data)
        # Full, or closed: `send_all` waits, or raises.
        except OSError:
            sent = 0
        self._left = data[sent:]
        return not self._left

    async def wait_send_all_might_not_block(self) -> None:
        """As of the socket."""
        await self._stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """The next bytes from the client; empty when it has closed, or has exceeded a limit."""
        if self._received:
            await trio.lowlevel.checkpoint()
            taken = self._received[:max_bytes]
            self._received = self._received[len(taken) :]
            return taken
        data = await self._stream.receive_some(max_bytes)
        verdict = self._meter.feed(data, trio.current_time())
        if verdict is not None:
            self._end(verdict)
            # Discard the rest: unread bytes turn our close into a reset, and the client would lose
            # the reason.
            while data:
                data = await self._stream.receive_some(max_bytes)
        return data

    async def aclose(self) -> None:
        """Call `on_close`, then close the socket."""
        self.on_close()
        self._descriptor = None  # the system may give its number to another file
        await self._stream.aclose()
