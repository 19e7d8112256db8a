"""The URL of a webhook, checked once and kept as a secret: its path is the credential."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, NoReturn

from ...runtime import ConfigError

if TYPE_CHECKING:
    import httpx2

__all__ = ["SecretUrl"]


class SecretUrl:
    """A checked webhook URL whose text is a secret: str and repr show scheme and host alone.

    The scheme is https, or http to this machine; `allow_http` permits http to others. A user name,
    a fragment, and a literal link-local, multicast or unspecified address are refused: no webhook
    has such an address, and the metadata service of a cloud does.

    Raises: `ConfigError` for the field ``alert_webhook_url``, which shows nothing of the URL.
    """

    __slots__ = ("_shown", "_text")

    def __init__(self, text: str, *, allow_http: bool = False) -> None:
        url = _parsed(text)
        problem = "is not a URL" if url is None else _problem(url, allow_http)
        if url is None or problem is not None:
            raise ConfigError("alert_webhook_url", problem or "")
        self._text = text
        self._shown = f"{url.scheme}://{url.host}/…"

    def reveal(self) -> str:
        """The whole URL, for the request line alone."""
        return self._text

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"SecretUrl({self._shown!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretUrl) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a SecretUrl is not to be pickled or copied to disk")


def _parsed(text: str) -> httpx2.URL | None:
    import httpx2  # not at the top: it takes a tenth of a second, and settings are read without it

    # Parsed by the client that will use it: two parsers that disagree about the host are a hole.
    if not isinstance(text, str):
        return None
    try:
        return httpx2.URL(text)
    except (httpx2.InvalidURL, UnicodeError, ValueError):
        # Not chained: the text of these errors shows the URL.
        return None


def _problem(url: httpx2.URL, allow_http: bool) -> str | None:
    if url.scheme not in ("http", "https"):
        return "must begin with https://"
    if not url.host or "%" in url.host:  # the parser escapes what no host can hold
        return "has no host, or one that cannot be"
    if url.port is not None and not 1 <= url.port <= 65_535:
        return "has a port that cannot be"
    if url.userinfo:
        return "must not hold a user name or password"
    if url.fragment:
        return "must not hold a fragment (#...)"
    if _is_forbidden(url.host):
        return "must not point to a link-local, multicast or unspecified address"
    if url.scheme == "http" and not (allow_http or _is_loopback(url.host)):
        return "must begin with https:// (http is for this machine alone, or with allow_http)"
    return None


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _is_forbidden(host: str) -> bool:
    address = _address(host) or _legacy_address(host)
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address is not None and (
        address.is_link_local or address.is_multicast or address.is_unspecified
    )


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _legacy_address(host: str) -> ipaddress.IPv4Address | None:
    """The address that a resolver makes of old notations: 2852039166, 0xA9FEA9FE, 169.254.43518."""
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None
