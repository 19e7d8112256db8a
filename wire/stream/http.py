"""The HTTP part of the stream: the request for the websocket, the checks on it, and refusals.

A request is accepted when it names a loopback host, comes from no foreign page, and upgrades `PATH`
to a websocket. The checks are pure functions: each returns the `HttpRefusal` to answer with, or
None. The upgrade itself is the websocket library's: it gets the bytes of the request again.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

import h11
import trio

__all__ = [
    "PATH",
    "HttpRefusal",
    "RequestReader",
    "UpgradeRequest",
    "bearer_token",
    "check_source",
    "check_upgrade",
    "is_admitted",
    "read_request",
]

PATH = "/ws"

# After DNS rebinding the Host header holds the attacker's own name, so only loopback names are
# accepted. Any port is accepted, since a forwarded port differs from ours.
_OWN_HOST = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]{1,5})?")


class HttpRefusal(NamedTuple):
    """The HTTP response to a request that gets no websocket. The connection is closed after it."""

    status: HTTPStatus
    text: str  # ASCII; the body
    headers: tuple[str, ...] = ()  # whole lines, beside those that every refusal has

    def encode(self) -> bytes:
        """The response as bytes."""
        lines = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(self.text) + 1}",
            "Connection: close",
            *self.headers,
        )
        return ("\r\n".join(lines) + f"\r\n\r\n{self.text}\n").encode("ascii")


class UpgradeRequest(NamedTuple):
    """An accepted request for the websocket."""

    head: bytes  # the whole request, for the websocket library to read again
    token: str | None  # of the Authorization header; None: it has no bearer token


class RequestReader:
    """Reads one HTTP request from the bytes that are fed to it. No I/O."""

    def __init__(self, head_bytes_max: int) -> None:
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=head_bytes_max)
        self._head = b""

    def feed(self, data: bytes) -> UpgradeRequest | HttpRefusal | None:
        """Take the next bytes.

        Returns the request or its refusal; None while the request is incomplete.
        """
        self._head += data
        try:
            self._parser.receive_data(data)
            event = self._parser.next_event()
        except h11.RemoteProtocolError as error:
            return HttpRefusal(
                HTTPStatus(error.error_status_hint), "the request is not valid HTTP/1.1"
            )
        if not isinstance(event, h11.Request):
            return None
        if self._parser.trailing_data[0]:
            return HttpRefusal(HTTPStatus.BAD_REQUEST, "data before the upgrade")
        host = "".join(_values(event, b"host"))  # at most one: h11 refuses a second
        refusal = check_source(host, _values(event, b"origin")) or check_upgrade(
            event.method, event.target, _values(event, b"upgrade")
        )
        if refusal is not None:
            return refusal
        return UpgradeRequest(
            self._head, bearer_token(next(iter(_values(event, b"authorization")), ""))
        )


def _values(request: h11.Request, name: bytes) -> list[str]:
    return [value.decode("latin-1") for found, value in request.headers if found == name]


def check_source(host: str, origins: Sequence[str]) -> HttpRefusal | None:
    """Refuse foreign host names and pages of a foreign origin.

    Any page of the web can connect to a port of its reader's machine, so the loopback address alone
    protects nothing.
    """
    host = host.lower()
    if not _OWN_HOST.fullmatch(host):
        return HttpRefusal(
            HTTPStatus.MISDIRECTED_REQUEST, "the Host header must be 127.0.0.1 or localhost"
        )
    if any(origin.lower() != f"http://{host}" for origin in origins):
        return HttpRefusal(HTTPStatus.FORBIDDEN, "pages of another origin may not read this stream")
    return None


def check_upgrade(method: bytes, target: bytes, upgrades: Sequence[str]) -> HttpRefusal | None:
    """Refuse every request but a GET of `PATH` that upgrades to a websocket."""
    if target.partition(b"?")[0] != PATH.encode():
        return HttpRefusal(HTTPStatus.NOT_FOUND, f"there is only {PATH} here")
    if method != b"GET":
        return HttpRefusal(HTTPStatus.METHOD_NOT_ALLOWED, "the stream takes GET", ("Allow: GET",))
    if [upgrade.lower() for upgrade in upgrades] != ["websocket"]:
        return HttpRefusal(
            HTTPStatus.UPGRADE_REQUIRED, f"{PATH} speaks websocket", ("Upgrade: websocket",)
        )
    return None


def bearer_token(authorization: str) -> str | None:
    """The token of an Authorization header; None when it is of another scheme."""
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def is_admitted(shown: str | None, token: str | None) -> bool:
    """Whether a client that shows this token may listen.

    With no `token` (None or empty) every client may.

    The comparison takes the same time wherever the first difference is, so timing reveals nothing
    about the token.
    """
    if not token:
        return True
    return shown is not None and hmac.compare_digest(shown.encode(), token.encode())


async def read_request(
    stream: trio.abc.ReceiveStream, head_bytes_max: int
) -> UpgradeRequest | HttpRefusal:
    """Read one request from a new connection.

    Raises: `ConnectionResetError` when the client leaves before it.
    """
    reader = RequestReader(head_bytes_max)
    while True:
        data = bytes(await stream.receive_some(head_bytes_max))
        if not data:
            raise ConnectionResetError("the client left before its request")
        answer = reader.feed(data)
        if answer is not None:
            return answer
