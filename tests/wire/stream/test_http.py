"""The HTTP part by plain calls: reading a request in pieces, and each check with its refusal."""

from http import HTTPStatus

import pytest
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from fundops.wire.stream.http import (
    HttpRefusal,
    PlainRequest,
    RequestReader,
    UpgradeRequest,
    bearer_token,
    check_source,
    check_target,
    check_token,
    check_upgrade,
    is_admitted,
    read_request,
)

HEAD = (
    b"GET /ws HTTP/1.1\r\nHost: localhost:8711\r\nOrigin: http://localhost:8711\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\nAuthorization: Bearer secret\r\n\r\n"
)


@given(st.integers(1, len(HEAD)))
def test_a_request_is_read_however_its_bytes_are_cut(cut: int) -> None:
    reader = RequestReader(8_192)
    answers = [reader.feed(HEAD[at : at + cut]) for at in range(0, len(HEAD), cut)]
    assert answers == [None] * (len(answers) - 1) + [UpgradeRequest(HEAD, "secret")]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", HTTPStatus.BAD_REQUEST),
        (HEAD + b"\x81", HTTPStatus.BAD_REQUEST),
        (HEAD.replace(b"Upgrade: websocket", b"X: " + b"x" * 200), HTTPStatus(431)),
        (HEAD.replace(b"Host: localhost", b"Host: evil.example"), HTTPStatus.MISDIRECTED_REQUEST),
        (HEAD.replace(b"http://", b"https://"), HTTPStatus.FORBIDDEN),
        (HEAD.replace(b"GET", b"PUT"), HTTPStatus.METHOD_NOT_ALLOWED),
    ],
    ids=["ssh", "early-frame", "long-head", "host", "origin", "method"],
)
def test_a_request_that_breaks_a_rule_is_answered_with_its_status(
    data: bytes, status: HTTPStatus
) -> None:
    refusal = RequestReader(len(HEAD)).feed(data[: len(HEAD) + 50])
    assert isinstance(refusal, HttpRefusal)
    assert refusal.status == status


@pytest.mark.parametrize(
    ("host", "origins", "status"),
    [
        ("localhost", [], None),
        ("127.0.0.1:1", [], None),
        ("[::1]:8711", ["http://[::1]:8711"], None),
        ("[::1]", ["http://localhost"], HTTPStatus.FORBIDDEN),
        ("[::2]:8711", [], HTTPStatus.MISDIRECTED_REQUEST),
        ("::1", [], HTTPStatus.MISDIRECTED_REQUEST),
        ("LOCALHOST:8711", ["http://localhost:8711"], None),
        ("", [], HTTPStatus.MISDIRECTED_REQUEST),
        ("localhost.evil.example", [], HTTPStatus.MISDIRECTED_REQUEST),
        ("localhost:8711", ["null"], HTTPStatus.FORBIDDEN),
        ("localhost", ["http://localhost", "http://evil.example"], HTTPStatus.FORBIDDEN),
    ],
)
def test_only_loopback_hosts_and_our_own_pages_may_ask(
    host: str, origins: list[str], status: HTTPStatus | None
) -> None:
    refusal = check_source(host, origins)
    assert (refusal and refusal.status) == status


@pytest.mark.parametrize(
    ("method", "target", "upgrades", "status"),
    [
        (b"GET", b"/ws", ["WebSocket"], None),
        (b"GET", b"/ws?x=1", ["websocket"], None),
        (b"GET", b"/wss", ["websocket"], HTTPStatus.NOT_FOUND),
        (b"POST", b"/ws", ["websocket"], HTTPStatus.METHOD_NOT_ALLOWED),
        (b"HEAD", b"/ws", ["websocket"], HTTPStatus.METHOD_NOT_ALLOWED),
        (b"GET", b"/ws", [], HTTPStatus.UPGRADE_REQUIRED),
        (b"GET", b"/ws", ["h2c"], HTTPStatus.UPGRADE_REQUIRED),
    ],
)
def test_only_an_upgrade_of_the_path_is_accepted(
    method: bytes, target: bytes, upgrades: list[str], status: HTTPStatus | None
) -> None:
    refusal = check_upgrade(method, target, upgrades)
    assert (refusal and refusal.status) == status


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        (b"GET", b"/", None),
        (b"GET", b"/readyz?verbose=1", None),
        (b"HEAD", b"/", None),
        (b"PUT", b"/", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"HEAD", b"/?token=secret", HTTPStatus.BAD_REQUEST),
        (b"POST", b"/act", HTTPStatus.NOT_FOUND),
        (b"GET", b"/../etc/passwd", HTTPStatus.NOT_FOUND),
        (b"GET", b"/\xff", HTTPStatus.NOT_FOUND),
        (b"GET", b"/ws?token=secret", HTTPStatus.BAD_REQUEST),
        (b"GET", b"/?a=1&token", HTTPStatus.BAD_REQUEST),
        (b"GET", b"/ws?%74oken=secret", HTTPStatus.BAD_REQUEST),
    ],
)
def test_unknown_paths_other_methods_and_tokens_in_the_url_are_refused(
    method: bytes, target: bytes, status: HTTPStatus | None
) -> None:
    refusal = check_target(method, target)
    assert (refusal and refusal.status) == status
    assert refusal is None or "secret" not in refusal.text


def test_a_configured_host_may_come_through_a_proxy_with_tls() -> None:
    hosts = {"fund.example"}
    assert check_source("fund.example", ["https://fund.example"], hosts) is None
    assert check_source("fund.example:8443", [], hosts) is None
    refusal = check_source("fund.example.evil", [], hosts)
    assert refusal is not None
    assert refusal.status == HTTPStatus.MISDIRECTED_REQUEST
    refusal = check_source("fund.example", ["https://evil.example"], hosts)
    assert refusal is not None
    assert refusal.status == HTTPStatus.FORBIDDEN


def test_only_the_schema_needs_the_token_in_the_header() -> None:
    assert check_token("/", admitted=False) is None
    assert check_token("/readyz", admitted=False) is None
    assert check_token("/schema.json", admitted=True) is None
    refusal = check_token("/schema.json", admitted=False)
    assert refusal is not None
    assert refusal.status == HTTPStatus.UNAUTHORIZED


def test_what_follows_a_plain_request_begins_the_next_one() -> None:
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert RequestReader(8_192).feed(get + get[:9]) == PlainRequest(
        "/healthz", "localhost", None, keeps=True, left=get[:9]
    )
    closing = get.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    request = RequestReader(8_192).feed(closing)
    assert isinstance(request, PlainRequest)
    assert not request.keeps


def test_a_get_with_a_body_is_refused() -> None:
    request = b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi"
    refusal = RequestReader(8_192).feed(request)
    assert isinstance(refusal, HttpRefusal)
    assert refusal.status == HTTPStatus.BAD_REQUEST


def test_a_head_is_answered_as_a_get_without_its_body() -> None:
    asked = b"HEAD /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request = RequestReader(8_192).feed(asked)
    assert request == PlainRequest("/healthz", "localhost", None, True, b"", wants_body=False)
    refusal = RequestReader(8_192).feed(asked.replace(b"/healthz", b"/nothing"))
    assert isinstance(refusal, HttpRefusal)
    assert refusal.encode().startswith(b"HTTP/1.1 404 ")
    assert refusal.encode().endswith(b"\r\n\r\n")


def test_a_refusal_says_its_length_and_closes() -> None:
    refusal = HttpRefusal(HTTPStatus.METHOD_NOT_ALLOWED, "the stream takes GET", ("Allow: GET",))
    assert refusal.encode() == (
        b"HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\n"
        b"Content-Length: 21\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n"
        b"Connection: close\r\nAllow: GET\r\n\r\nthe stream takes GET\n"
    )


@pytest.mark.parametrize(
    ("authorization", "token"),
    [("Bearer secret", "secret"), ("bearer  x ", "x"), ("Basic eDp5", None), ("", None)],
)
def test_a_bearer_token_is_taken_from_its_header(authorization: str, token: str | None) -> None:
    assert bearer_token(authorization) == token


@pytest.mark.parametrize(
    ("shown", "token", "admitted"),
    [
        (None, None, True),
        ("anything", "", True),
        ("secret", "secret", True),
        ("sécret", "sécret", True),
        ("secret ", "secret", False),
        ("", "secret", False),
        (None, "secret", False),
    ],
)
def test_a_token_admits_only_itself(shown: str | None, token: str | None, admitted: bool) -> None:
    assert is_admitted(shown, token) is admitted


async def test_a_client_that_leaves_before_its_request_resets_the_connection() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(HEAD[:20])
    await theirs.send_eof()
    with pytest.raises(ConnectionResetError, match="before its request"):
        await read_request(ours, 8_192)
