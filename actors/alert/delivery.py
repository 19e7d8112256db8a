"""Two ways to deliver: an HTTPS POST, and the log. Neither ever shows the URL, which is a
credential.

The body is exactly five keys: level, category, title, message, timestamp. For a webhook of Slack,
known by its host, it has `text` too, without which Slack refuses the message.
"""

from __future__ import annotations

import datetime
import errno
import html
import logging
import ssl
from collections import deque

import httpx2
import msgspec
import trio

from ...wire.alert import Level, OutgoingAlert
from .channel import DeliveryFailed
from .secret_url import SecretUrl

__all__ = [
    "CONNECT_DEADLINE_S",
    "RESPONSE_MAX_BYTES",
    "LogDelivery",
    "WebhookDelivery",
    "timestamp",
]

CONNECT_DEADLINE_S = 3.0

# The answer's body is read so that a good server sees its connection end well; a bad one may not
# feed us without end.
RESPONSE_MAX_BYTES = 4 * 1024

# Slack answers a message that it took with this body alone, and some that it refused with 200 too.
SLACK_HOSTS = ("hooks.slack.com", "hooks.slack-gov.com")
SLACK_TOOK_IT = b"ok"

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def timestamp(at_us: int) -> str:
    """`at_us` as YYYY-MM-DDTHH:MM:SS.ffffffZ, always six digits."""
    instant = _EPOCH + datetime.timedelta(microseconds=at_us)
    return instant.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


# -- the webhook


class WebhookDelivery:
    """POSTs an alert as JSON; 2xx is delivered, everything else is not, and no redirect is
    followed.

    `transport` replaces the network; it is borrowed, never closed.
    """

    def __init__(
        self, url: SecretUrl, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        _silence_client_logs()
        self._url = url
        self._is_slack = httpx2.URL(url.reveal()).host.lower() in SLACK_HOSTS
        self._transport = None if transport is None else _Borrowed(transport)
        # Made once: loading the trusted certificates takes a good part of a second. Plain http
        # needs none.
        is_https = url.reveal().lower().startswith("https:")
        self._ssl = (
            httpx2.create_ssl_context(trust_env=False)
            if is_https
            else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        )

    def __repr__(self) -> str:
        return f"WebhookDelivery({self._url!r})"

    async def __call__(self, alert: OutgoingAlert) -> None:
        """Raises: `DeliveryFailed`, with the status, or the error's class and errno."""
        try:
            status, answer = await self._post(alert)
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            reason = _named(error)
        else:
            is_taken = not self._is_slack or answer.strip() == SLACK_TOOK_IT
            if 200 <= status < 300 and is_taken:
                return
            reason = f"HTTP {status}" if is_taken else f"HTTP {status}, and Slack does not say ok"
        # Outside the except block: the client's exception holds the request, and would be chained
        # to ours.
        raise DeliveryFailed(reason)

    async def _post(self, alert: OutgoingAlert) -> tuple[int, bytes]:
        """The status, and the beginning of the answer."""
        # A client for each request keeps nothing alive between deliveries that a cancellation could
        # leave half done; with the context shared it costs 60 us. Connecting alone has a
        # deadline here, the channel sets the others.
        async with (
            httpx2.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                verify=self._ssl,
                transport=self._transport,
                timeout=httpx2.Timeout(None, connect=CONNECT_DEADLINE_S),
            ) as client,
            client.stream(
                "POST",
                self._url.reveal(),
                content=_body(alert, slack=self._is_slack),
                headers=_headers(alert),
            ) as response,
        ):
            if response.is_stream_consumed:  # as it is when a transport answers out of its hand
                return response.status_code, response.content
            return response.status_code, await _read_beginning(response)


async def _read_beginning(response: httpx2.Response) -> bytes:
    received = bytearray()
    # Cancelled, not broken out of: the client's generators are nested, and only an exception from
    # within ends them all.
    with trio.CancelScope() as enough:
        async for piece in response.aiter_raw():
            received += piece
            if len(received) >= RESPONSE_MAX_BYTES:
                enough.cancel()
    return bytes(received)


def _body(alert: OutgoingAlert, *, slack: bool) -> bytes:
    keys = {
        "level": alert.level.value,
        "category": alert.category.value,
        "title": alert.title,
        "message": alert.message,
        "timestamp": timestamp(alert.at_us),
    }
    if slack:
        text = f"{alert.level.value} {alert.category.value}: {alert.title}\n{alert.message}"
        # Slack reads <...> as a link or as a mention of people.
        keys["text"] = html.escape(text, quote=False)
    return msgspec.json.encode(keys)


def _headers(alert: OutgoingAlert) -> dict[str, str]:
    return {
        "content-type": "application/json",
        "user-agent": "fundops",
        "webhook-id": alert.id,
        # The beginning of an answer is compared as it comes.
        "accept-encoding": "identity",
    }


class _Borrowed(httpx2.AsyncBaseTransport):
    """A transport that outlives the clients it is given to."""

    def __init__(self, transport: httpx2.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        return await self._transport.handle_async_request(request)


def _named(error: BaseException) -> str:
    """The error's class, and the first errno found among its causes: its text may hold the URL."""
    to_look_at: deque[BaseException | None] = deque([error])
    seen: set[int] = set()
    while to_look_at:
        one = to_look_at.popleft()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, OSError) and isinstance(one.errno, int):
            # The resolver's codes are small negative numbers, which errno has no names for.
            return f"{type(error).__name__} ({errno.errorcode.get(one.errno, one.errno)})"
        to_look_at.extend((one.__cause__, one.__context__))
        if isinstance(one, BaseExceptionGroup):
            to_look_at.extend(one.exceptions)
    return type(error).__name__


_CLIENT_LOGGERS = (
    "httpx2",
    "httpcore2",
    "httpcore2.connection",
    "httpcore2.http11",
    "httpcore2.http2",
    "httpcore2.proxy",
    "httpcore2.socks",
)


def _silence_client_logs() -> None:
    """The client logs every URL at INFO, and headers at DEBUG. The filter stays when a host
    lowers the levels.
    """
    for name in _CLIENT_LOGGERS:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        logger.addFilter(_is_warning)


def _is_warning(line: logging.LogRecord) -> bool:
    return line.levelno >= logging.WARNING


# -- the log


_LOG_LEVELS = {
    Level.INFO: logging.INFO,
    Level.WARNING: logging.WARNING,
    Level.CRITICAL: logging.CRITICAL,
}


class LogDelivery:
    """Writes an alert to a logger, at its own level."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger("fundops.alert")

    async def __call__(self, alert: OutgoingAlert) -> None:
        self._logger.log(
            _LOG_LEVELS[alert.level],
            "%s: %s: %s",
            alert.category.value,
            alert.title,
            alert.message,
        )
