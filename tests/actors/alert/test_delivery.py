"""What leaves the process, byte by byte, and what of the URL is ever seen."""

import copy
import errno
import json
import logging
import pickle
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx2
import pytest
import trio
from msgspec.structs import replace

from fundops.actors.alert import DeliveryFailed
from fundops.actors.alert.delivery import LogDelivery, WebhookDelivery, timestamp
from fundops.actors.alert.secret_url import SecretUrl
from fundops.runtime import ConfigError
from fundops.wire.alert import Category, Level, OutgoingAlert

TOKEN = "T0K3N-that-nobody-may-see"
AT_US = 1_773_412_200_000_000  # 2026-03-13 14:30:00
ALERT = OutgoingAlert(
    "17",
    AT_US,
    Level.CRITICAL,
    Category.KILL_SWITCH,
    "Kill switch activated",
    "Fund drawdown 15.2% exceeded 15.0% – ü",
)


class Hook:
    """A server on this machine that remembers its requests and gives every one the same answer."""

    def __init__(self, answer: bytes) -> None:
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.sent_bytes = 0
        self.connections_open = 0
        self.port = 0
        self._answer = answer

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/services/{TOKEN}?key={TOKEN}"

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections_open += 1
        try:
            async with stream:
                self.requests.append(await _read_request(stream))
                for start in range(0, len(self._answer), 1_024):
                    await stream.send_all(self._answer[start : start + 1_024])
                    self.sent_bytes += 1_024
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # the client has gone, as it may
        finally:
            self.connections_open -= 1


async def _read_request(stream: trio.SocketStream) -> tuple[str, dict[str, str], bytes]:
    received = b""
    while b"\r\n\r\n" not in received:
        received += await stream.receive_some(65_536)
    head, _, body = received.partition(b"\r\n\r\n")
    line, *rest = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in rest)}
    while len(body) < int(headers["content-length"]):
        body += await stream.receive_some(65_536)
    return line, headers, body


@asynccontextmanager
async def hook(answer: bytes = b"HTTP/1.1 204 No Content\r\n\r\n") -> AsyncIterator[Hook]:
    server = Hook(answer)
    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_tcp, server.serve, 0, host="127.0.0.1")
        )
        server.port = listener.socket.getsockname()[1]
        yield server
        nursery.cancel_scope.cancel()


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} Whatever", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*head, "", ""]).encode() + body


async def failure(delivery: WebhookDelivery) -> str:
    with pytest.raises(DeliveryFailed) as caught:
        await delivery(ALERT)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    return caught.value.reason


def closed_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
    return port


# -- the request


async def test_a_webhook_posts_exactly_the_five_keys() -> None:
    async with hook() as server:
        await WebhookDelivery(SecretUrl(server.url))(ALERT)
    ((line, headers, body),) = server.requests
    assert line == f"POST /services/{TOKEN}?key={TOKEN} HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == "17"
    assert json.loads(body) == {
        "level": "CRITICAL",
        "category": "KILL_SWITCH",
        "title": "Kill switch activated",
        "message": "Fund drawdown 15.2% exceeded 15.0% – ü",
        "timestamp": "2026-03-13T14:30:00.000000Z",
    }


@pytest.mark.parametrize(
    ("at_us", "text"),
    [
        (AT_US, "2026-03-13T14:30:00.000000Z"),
        (AT_US + 1, "2026-03-13T14:30:00.000001Z"),
        (AT_US + 123_000, "2026-03-13T14:30:00.123000Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (-1, "1969-12-31T23:59:59.999999Z"),
    ],
)
def test_a_timestamp_always_has_six_digits(at_us: int, text: str) -> None:
    assert timestamp(at_us) == text


@pytest.mark.parametrize("status", [200, 201, 204, 299])
async def test_any_success_is_delivered(status: int) -> None:
    body = b"" if status == 204 else b"ok"
    async with hook(answer(status, body)) as server:
        await WebhookDelivery(SecretUrl(server.url))(ALERT)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [300, 304, 400, 404, 410, 429, 500, 503])
async def test_anything_else_is_a_failure_named_by_its_status(status: int) -> None:
    async with hook(answer(status)) as server:
        assert await failure(WebhookDelivery(SecretUrl(server.url))) == f"HTTP {status}"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(status: int) -> None:
    async with hook() as target, hook() as unused:
        location = f"location: http://127.0.0.1:{target.port}/"
        async with hook(answer(status, b"", location)) as server:
            assert await failure(WebhookDelivery(SecretUrl(server.url))) == f"HTTP {status}"
    assert len(server.requests) == 1
    assert target.requests == unused.requests == []


async def test_no_proxy_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    async with hook() as proxy, hook() as server:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        await WebhookDelivery(SecretUrl(server.url))(ALERT)
    assert (len(server.requests), len(proxy.requests)) == (1, 0)


async def test_only_the_beginning_of_an_endless_answer_is_read() -> None:
    # 64 MiB would take a while, and more than any socket buffer.
    async with hook(answer(200, b"x" * 2**26)) as server:
        await WebhookDelivery(SecretUrl(server.url))(ALERT)
    assert server.sent_bytes < 2**25


async def test_an_answer_that_is_not_http_is_a_failure() -> None:
    async with hook(b"SSH-2.0-OpenSSH\r\n\r\n") as server:
        assert await failure(WebhookDelivery(SecretUrl(server.url))) == "RemoteProtocolError"


async def test_a_refused_connection_is_named_by_class_and_errno() -> None:
    url = SecretUrl(f"http://127.0.0.1:{closed_port()}/{TOKEN}")
    assert await failure(WebhookDelivery(url)) == "ConnectError (ECONNREFUSED)"


async def test_a_name_that_does_not_resolve_is_named_by_class_and_code() -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        cause = socket.gaierror(socket.EAI_NONAME, f"no such host for {request.url}")
        raise httpx2.ConnectError(f"cannot resolve {request.url}", request=request) from cause

    delivery = WebhookDelivery(
        SecretUrl(f"https://hooks.example.com/{TOKEN}"), transport=httpx2.MockTransport(fail)
    )
    assert await failure(delivery) == f"ConnectError ({int(socket.EAI_NONAME)})"


async def test_a_transport_is_borrowed_and_used_again() -> None:
    closed: list[bool] = []

    class Transport(httpx2.MockTransport):
        async def aclose(self) -> None:
            closed.append(True)

    delivery = WebhookDelivery(
        SecretUrl("https://hooks.example.com/x"),
        transport=Transport(lambda request: httpx2.Response(200)),
    )
    await delivery(ALERT)
    await delivery(ALERT)
    assert closed == []


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"]
)
async def test_a_cancelled_delivery_closes_its_connection(sent: bytes) -> None:
    arrived, gone = trio.Event(), trio.Event()

    async def stall(stream: trio.SocketStream) -> None:
        async with stream:
            await _read_request(stream)
            if sent:
                await stream.send_all(sent)
            arrived.set()
            with suppress(trio.BrokenResourceError):
                assert await stream.receive_some(1) == b""
            gone.set()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, stall, 0, host="127.0.0.1"))
        delivery = WebhookDelivery(
            SecretUrl(f"http://127.0.0.1:{listener.socket.getsockname()[1]}/")
        )
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as deliveries:
                deliveries.start_soon(delivery, ALERT)
                await arrived.wait()
                scope.cancel()
        assert scope.cancelled_caught
        with trio.fail_after(5):
            await gone.wait()
        nursery.cancel_scope.cancel()


# -- Slack


def slack(answer: httpx2.Response, seen: list[httpx2.Request]) -> WebhookDelivery:
    def take(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return answer

    url = SecretUrl(f"https://hooks.slack.com/services/{TOKEN}")
    return WebhookDelivery(url, transport=httpx2.MockTransport(take))


async def test_slack_gets_a_text_beside_the_five_keys() -> None:
    seen: list[httpx2.Request] = []
    await slack(httpx2.Response(200, text="ok"), seen)(replace(ALERT, title="a <!channel> & b"))
    body = json.loads(seen[0].content)
    assert set(body) == {"level", "category", "title", "message", "timestamp", "text"}
    assert body["title"] == "a <!channel> & b"
    assert body["text"] == (
        "CRITICAL KILL_SWITCH: a &lt;!channel&gt; &amp; b\nFund drawdown 15.2% exceeded 15.0% – ü"
    )


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx2.Response(400, text="no_text"), "HTTP 400, and Slack does not say ok"),
        (httpx2.Response(200, text="invalid_token"), "HTTP 200, and Slack does not say ok"),
        (httpx2.Response(200), "HTTP 200, and Slack does not say ok"),
    ],
)
async def test_slack_took_a_message_only_when_it_says_ok(
    answer: httpx2.Response, reason: str
) -> None:
    assert await failure(slack(answer, [])) == reason


# -- the secret


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T/B/X",
        "HTTPS://example.com",
        "https://example.com:8443/x?y=z",
        "https://10.0.0.7/",
        "https://[2001:db8::1]/",
        "http://127.0.0.1:8080/x",
        "http://127.255.255.254/",
        "http://[::1]:80/",
        "http://localhost:9/",
    ],
)
def test_https_anywhere_and_http_to_this_machine_are_accepted(url: str) -> None:
    assert SecretUrl(url).reveal() == url


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "http://2852039166/",
        "https://u:p@h/",
        "https://u@h/",
        "ftp://h/",
        "http://example.com/",
        "http://10.0.0.7/",
        "http://127.0.0.1.example.com/",
        "http://localhost.example.com/",
        "http://2130706433/",
        "https://h/#fragment",
        "https:///path",
        "https://",
        "https://h:port/",
        "https://169.254.169.254/",
        "https://2852039166/",
        "https://0xA9FEA9FE/",
        "https://[::ffff:169.254.169.254]/",
        "https://[fe80::1]/",
        "https://0.0.0.0/",
        "https://[::]/",
        "https://224.0.0.1/",
        "https://h/\n",
        "//h/",
        "h",
        "",
        " https://h/",
        "javascript:alert(1)",
    ],
)
def test_every_other_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SecretUrl(url)
    assert caught.value.field == "alert_webhook_url"
    assert caught.value.__context__ is None


def test_http_to_others_must_be_allowed_by_name_and_still_not_everywhere() -> None:
    assert SecretUrl("http://example.com/", allow_http=True).reveal() == "http://example.com/"
    for url in ("http://169.254.169.254/", "http://2852039166/", "ftp://h/", "http://u:p@h/"):
        with pytest.raises(ConfigError):
            SecretUrl(url, allow_http=True)


def test_a_refusal_does_not_show_the_secret() -> None:
    for url in (
        f"http://example.com/{TOKEN}",
        f"https://u:{TOKEN}@h/",
        f"https://h/{TOKEN}\n",
        TOKEN,
        f"https://h/#{TOKEN}",
    ):
        with pytest.raises(ConfigError) as caught:
            SecretUrl(url)
        assert TOKEN not in str(caught.value)
        assert TOKEN not in repr(caught.value)


def test_a_secret_url_shows_scheme_and_host_alone() -> None:
    url = SecretUrl(f"https://hooks.slack.com/services/{TOKEN}?a={TOKEN}")
    assert str(url) == "https://hooks.slack.com/…"
    for shown in (repr(url), f"{url}", str([url]), repr(WebhookDelivery(url))):
        assert TOKEN not in shown
        assert "hooks.slack.com" in shown
    assert url == SecretUrl(url.reveal())
    assert hash(url) == hash(SecretUrl(url.reveal()))
    assert url != SecretUrl("https://hooks.slack.com/")


def test_a_secret_url_is_not_pickled() -> None:
    url = SecretUrl(f"https://h/{TOKEN}")
    with pytest.raises(TypeError):
        pickle.dumps(url)
    with pytest.raises(TypeError):
        copy.deepcopy(url)


async def test_the_token_is_in_no_log_however_verbose_the_loggers_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with (
        hook(answer(200, b"ok")) as good,
        hook(answer(500, b"", f"location: /{TOKEN}")) as bad,
    ):
        urls = [good.url, bad.url, f"http://127.0.0.1:{closed_port()}/{TOKEN}"]
        deliveries = [WebhookDelivery(SecretUrl(url)) for url in urls]
        levels = {}
        for name in [
            "",
            *logging.root.manager.loggerDict,
        ]:  # after the deliveries were made: the harder case
            levels[name] = logging.getLogger(name).level
            logging.getLogger(name).setLevel(logging.DEBUG)
        try:
            await deliveries[0](ALERT)
            reasons = [await failure(delivery) for delivery in deliveries[1:]]
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
    assert reasons == ["HTTP 500", f"ConnectError ({errno.errorcode[errno.ECONNREFUSED]})"]
    assert TOKEN not in caplog.text


def test_the_clients_loggers_are_quiet_by_level_too() -> None:
    WebhookDelivery(SecretUrl("http://localhost/"))
    for name in ("httpx2", "httpcore2", "httpcore2.connection", "httpcore2.http11"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)


# -- the log


@pytest.mark.parametrize("level", list(Level))
async def test_the_log_channel_writes_one_line_at_the_same_level(
    level: Level, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "fundops.alert")
    await LogDelivery()(OutgoingAlert("1", 0, level, Category.DRAWDOWN, "80% reached", "of 15% %s"))
    assert caplog.record_tuples == [
        ("fundops.alert", getattr(logging, level.value), "DRAWDOWN: 80% reached: of 15% %s")
    ]


async def test_the_log_channel_writes_to_the_logger_it_is_given(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await LogDelivery(logging.getLogger("fundops.other"))(ALERT)
    assert [line.name for line in caplog.records] == ["fundops.other"]
