"""Websocket clients in a process of their own, for the stream bench: they read and count.

`python -m fundops.bench.listeners PORT COUNT STALLED PROBES` connects COUNT clients, of which the
last STALLED read nothing after the handshake. On stdin it takes lines: "count BYTES" answers "done"
once the readers have taken so many bytes together since the answer before; "latency" answers
the ages of the probes' messages in microseconds and the number of their gaps, as JSON, and forgets
them. A message is a probe's when a client among the first PROBES gets it and it has the field
`ns`, of the monotonic clock.
"""

from __future__ import annotations

import json
import re
import selectors
import socket
import sys
import time

__all__ = ["found_in", "main"]

_REQUEST = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
_HELLO = b'{"t":"hello","topics":["alerts"]}'
# A message with its instant, or a gap; the digit after the last one may be in the next bytes.
_FOUND = re.compile(rb'"ns":(\d+)\D|"t":"gap"')
_FOUND_MAX = 32  # bytes
READ_BYTES = 256 * 1024


def main() -> None:
    """Serve the lines of stdin until it ends."""
    port, count, stalled, probes = map(int, sys.argv[1:])
    clients = [_connected(port, small=number >= count - stalled) for number in range(count)]
    selector = selectors.DefaultSelector()
    for number, client in enumerate(clients[: count - stalled]):
        selector.register(client, selectors.EVENT_READ, number)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    _say("ready")
    counted, wanted = 0, 0
    ages_us: list[int] = []
    gaps = 0
    begun = [b""] * probes  # what may be the beginning of the next match, by probe
    while True:
        for key, _ in selector.select():
            if key.data is None:
                words = sys.stdin.readline().split()
                if not words:
                    return
                if words[0] == "latency":
                    _say(json.dumps([ages_us, gaps]))
                    ages_us, gaps = [], 0
                else:
                    wanted = int(words[1])
                continue
            data = key.fileobj.recv(READ_BYTES)  # type: ignore[union-attr]
            if not data:
                selector.unregister(key.fileobj)
                continue
            counted += len(data)
            if key.data < probes:
                now_ns = time.monotonic_ns()
                stamps, begun[key.data] = found_in(begun[key.data] + data)
                gaps += stamps.count(None)
                ages_us += [(now_ns - stamp) // 1_000 for stamp in stamps if stamp is not None]
        if wanted and counted >= wanted:
            _say("done")
            counted, wanted = 0, 0


def found_in(data: bytes) -> tuple[list[int | None], bytes]:
    """The instants of the messages, None for a gap, and what may be the beginning of the next."""
    found: list[int | None] = []
    end = 0
    for match in _FOUND.finditer(data):
        found.append(None if match[1] is None else int(match[1]))
        end = match.end()
    return found, data[max(end, len(data) - _FOUND_MAX) :]


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _connected(port: int, *, small: bool) -> socket.socket:
    """A client that has said hello, and has read everything up to its welcome."""
    client = socket.socket()
    if small:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    client.connect(("127.0.0.1", port))
    client.sendall(_REQUEST)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += client.recv(1)
    # A mask of zeros is a mask, and leaves the payload readable.
    client.sendall(bytes((0x81, 0x80 | len(_HELLO))) + bytes(4) + _HELLO)
    length = client.recv(2)[1]
    if length == 126:
        length = int.from_bytes(client.recv(2), "big")
    while length:
        length -= len(client.recv(length))
    return client


if __name__ == "__main__":
    main()
