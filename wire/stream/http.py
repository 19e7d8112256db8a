"""The HTTP part of the port: requests on one connection, the checks on them, and their answers.

A request is accepted when it names a host of ours, comes from no foreign page, and has no token in
its URL. A GET of `PATH` that upgrades to a websocket ends the HTTP part: the websocket library gets
the bytes of that request again. The checks are pure functions: each returns the `HttpRefusal` to
answer with, or None. A refusal closes the connection, an answer keeps it.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Sequence
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import parse_qs

import h11
import trio

from .site import NEEDS_TOKEN, PATHS, HttpAnswer

__all__ = [
    "PATH",
    "HttpRefusal",
    "PlainRequest",
    "RequestReader",
    "UpgradeRequest",
    "bearer_token",
    "check_source",
    "check_target",
    "check_token",
    "check_upgrade",
    "encode_answer",
    "is_admitted",
    "read_request",
]

PATH = "/ws"

# After DNS rebinding the Host header holds the attacker's own name, so only loopback names and the
# configured ones are accepted. Any port is accepted, since a forwarded port differs from ours.
_HOST = re.compile(r"([a-z0-9.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
_OWN = frozenset({"127.0.0.1", "[::1]", "localhost"})


class HttpRefusal(NamedTuple):
    """The HTTP response to a request that gets no websocket. The connection is closed after it."""

    status: HTTPStatus
    text: str  # ASCII; the body
    headers: tuple[str, ...] = ()  # whole lines, beside those that every refusal has
    has_body: bool = True  # False: the request was a HEAD

    def encode(self) -> bytes:
        """The response as bytes."""
        lines = (
            f"HTTP/1.1 {self.status.value} {self.status.phrase}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(self.text) + 1}",
            "X-Content-Type-Options: nosniff",
            "Cache-Control: no-store",
            "Connection: close",
            *self.headers,
        )
        body = f"{self.text}\n" if self.has_body else ""
        return ("\r\n".join(lines) + f"\r\n\r\n{body}").encode("ascii")


class UpgradeRequest(NamedTuple):
    """An accepted request for the websocket."""

    head: bytes  # the whole request, for the websocket library to read again
    token: str | None  # of the Authorization header; None: it has no bearer token


class PlainRequest(NamedTuple):
    """An accepted GET or HEAD that is no upgrade."""

    path: str
    host: str  # the Host header, in lower case
    token: str | None  # of the Authorization header
    keeps: bool  # the client keeps the connection for another request
    left: bytes  # the beginning of the next request
    wants_body: bool = True  # False: a HEAD


class RequestReader:
    """Reads one HTTP request from the bytes that are fed to it. No I/O."""

    def __init__(self, head_bytes_max: int, hosts: Collection[str] = ()) -> None:
        self._parser = h11.Connection(h11.SERVER, max_incomplete_event_size=head_bytes_max)
        self._hosts = hosts
        self._head = b""

    def feed(self, data: bytes) -> UpgradeRequest | PlainRequest | HttpRefusal | None:
        """Take the next bytes.

        Returns the request or its refusal; None while the request is incomplete.
        """
        self._head += data
        try:
            self._parser.receive_data(data)
            event = self._parser.next_event()
            if not isinstance(event, h11.Request):
                return None
            return self._judge(event)
        except h11.RemoteProtocolError as error:
            return HttpRefusal(
                HTTPStatus(error.error_status_hint), "the request is not valid HTTP/1.1"
            )

    def _judge(self, request: h11.Request) -> UpgradeRequest | PlainRequest | HttpRefusal:
        answer = self._checked(request)
        if isinstance(answer, HttpRefusal):
            return answer._replace(has_body=request.method != b"HEAD")
        return answer

    def _checked(self, request: h11.Request) -> UpgradeRequest | PlainRequest | HttpRefusal:
        # At most one: h11 refuses a second.
        host = "".join(_values(request, b"host")).lower()
        path = request.target.partition(b"?")[0].decode("latin-1")
        refusal = check_source(host, _values(request, b"origin"), self._hosts) or check_target(
            request.method, request.target
        )
        if refusal is not None:
            return refusal
        token = bearer_token(next(iter(_values(request, b"authorization")), ""))
        if path == PATH:
            if self._parser.trailing_data[0]:
                return HttpRefusal(HTTPStatus.BAD_REQUEST, "data before the upgrade")
            refusal = check_upgrade(request.method, request.target, _values(request, b"upgrade"))
            return refusal or UpgradeRequest(self._head, token)
        if not isinstance(self._parser.next_event(), h11.EndOfMessage):
            return HttpRefusal(HTTPStatus.BAD_REQUEST, "a request has no body here")
        keeps = self._parser.their_state is h11.DONE
        wants_body = request.method == b"GET"
        return PlainRequest(path, host, token, keeps, self._parser.trailing_data[0], wants_body)


def _values(request: h11.Request, name: bytes) -> list[str]:
    return [value.decode("latin-1") for found, value in request.headers if found == name]


def check_source(
    host: str, origins: Sequence[str], hosts: Collection[str] = ()
) -> HttpRefusal | None:
    """Refuse foreign host names and pages of a foreign origin.

    `hosts` are names that are ours beside the loopback ones, as those of a proxy with TLS. Any page
    of the web can connect to a port of its reader's machine, so the loopback address alone protects
    nothing.
    """
    host = host.lower()
    match = _HOST.fullmatch(host)
    if match is None or not (match[1] in _OWN or match[1] in hosts):
        return HttpRefusal(
            HTTPStatus.MISDIRECTED_REQUEST, "the Host header must be 127.0.0.1, [::1] or localhost"
        )
    schemes = ("http", "https") if match[1] in hosts else ("http",)
    ours = {f"{scheme}://{host}" for scheme in schemes}
    if any(origin.lower() not in ours for origin in origins):
        return HttpRefusal(HTTPStatus.FORBIDDEN, "pages of another origin may not read this stream")
    return None


def check_target(method: bytes, target: bytes) -> HttpRefusal | None:
    """Refuse unknown paths, other methods than GET and HEAD, and a token in the URL.

    A URL ends in histories, logs and the Referer header, so a token in it is no secret any more.
    """
    path, _, query = target.partition(b"?")
    if path.decode("latin-1") not in (PATH, *PATHS):
        return HttpRefusal(HTTPStatus.NOT_FOUND, f"there is only {PATH} here")
    if method not in (b"GET", b"HEAD"):
        return HttpRefusal(
            HTTPStatus.METHOD_NOT_ALLOWED, "this port takes GET and HEAD", ("Allow: GET, HEAD",)
        )
    if "token" in parse_qs(query.decode("latin-1"), keep_blank_values=True):
        return HttpRefusal(
            HTTPStatus.BAD_REQUEST,
            "the token belongs in the hello or the Authorization header, never in the URL",
        )
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


def check_token(path: str, *, admitted: bool) -> HttpRefusal | None:
    """Refuse a path that needs the token to a request without it."""
    if admitted or path not in NEEDS_TOKEN:
        return None
    return HttpRefusal(
        HTTPStatus.UNAUTHORIZED, "the token is missing or wrong", ("WWW-Authenticate: Bearer",)
    )


def encode_answer(answer: HttpAnswer, *, keeps: bool, has_body: bool = True) -> bytes:
    """The answer as bytes; without `keeps` the connection is to be closed after it.

    Without a body, the headers are still those of the body.
    """
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}"]
    lines += [f"{name}: {value}" for name, value in answer.headers()]
    lines.append(f"Connection: {'keep-alive' if keeps else 'close'}")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")
    return head + answer.body if has_body else head


async def read_request(
    stream: trio.abc.ReceiveStream,
    head_bytes_max: int,
    hosts: Collection[str] = (),
    begun: bytes = b"",
) -> UpgradeRequest | PlainRequest | HttpRefusal:
    """Read one request from a connection; `begun` are bytes of it that were read before.

    Raises: `ConnectionResetError` when the client leaves before it.
    """
    reader = RequestReader(head_bytes_max, hosts)
    answer = reader.feed(begun) if begun else None
    while answer is None:
        data = bytes(await stream.receive_some(head_bytes_max))
        if not data:
            raise ConnectionResetError("the client left before its request")
        answer = reader.feed(data)
    return answer
