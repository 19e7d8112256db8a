"""The answers of the port beside the stream: the page, liveness, readiness and the schema. Pure.

Every answer forbids sniffing and storing. The page may run its own inline script and style, named
by their hashes, and connect to its own origin; nothing else is loaded by it, or frames it.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from .protocol import schema

__all__ = ["HttpAnswer", "Readiness", "Site", "answer", "content_security_policy"]

_INLINE = re.compile(rb"<(script|style)\b[^>]*>(.*?)</\1\s*>", re.DOTALL | re.IGNORECASE)
_NOTHING = "default-src 'none'; frame-ancestors 'none'"


class Readiness(msgspec.Struct, frozen=True):
    """The answer of `GET /readyz`: 200 when `ready`, else 503."""

    ready: bool
    actors: Mapping[str, str]  # the state of each actor, by path
    storage: str  # ok, degraded, failed or unknown
    tick_age_s: float | None  # since the last tick; None: no tick yet
    kill_switch: str  # it never makes the fund unready
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """The parts that the owner of the port adds to the stream."""

    page: Callable[[], bytes] | None = None  # None: there is no page
    readiness: Callable[[], Readiness] | None = None  # None: nothing can tell
    hosts: frozenset[str] = field(default_factory=frozenset)  # accepted beside the loopback names


class HttpAnswer(NamedTuple):
    """The answer to a request that is neither refused nor an upgrade."""

    status: HTTPStatus
    body: bytes
    content_type: str
    policy: str = _NOTHING  # the Content-Security-Policy

    def headers(self) -> list[tuple[str, str]]:
        """The headers, with those that every answer has."""
        return [
            ("Content-Type", self.content_type),
            ("Content-Length", str(len(self.body))),
            ("Content-Security-Policy", self.policy),
            ("X-Content-Type-Options", "nosniff"),
            ("Cache-Control", "no-store"),
            ("Referrer-Policy", "no-referrer"),
            ("Cross-Origin-Resource-Policy", "same-origin"),
        ]


PATHS = ("/", "/healthz", "/readyz", "/schema.json")
NEEDS_TOKEN = frozenset({"/schema.json"})


def answer(site: Site, path: str, host: str) -> HttpAnswer | None:
    """The answer to a GET of `path`; None: there is nothing.

    `host` is the accepted Host header: the page connects to it.
    """
    if path == "/" and site.page is not None:
        page = site.page()
        policy = content_security_policy(page, host)
        return HttpAnswer(HTTPStatus.OK, page, "text/html; charset=utf-8", policy)
    if path == "/healthz":
        return HttpAnswer(HTTPStatus.OK, b"ok\n", "text/plain; charset=utf-8")
    if path == "/readyz" and site.readiness is not None:
        readiness = site.readiness()
        status = HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return HttpAnswer(status, msgspec.json.encode(readiness), "application/json")
    if path == "/schema.json":
        return HttpAnswer(HTTPStatus.OK, msgspec.json.encode(schema()), "application/json")
    return None


def content_security_policy(page: bytes, host: str) -> str:
    """The policy under which the inline scripts and styles of `page`, and no others, run."""
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for match in _INLINE.finditer(page):
        digest = base64.b64encode(hashlib.sha256(match[2]).digest()).decode()
        hashes[match[1].decode().lower()].append(f"'sha256-{digest}'")
    # Not every browser takes 'self' to cover the websocket of the same origin.
    parts = [
        "default-src 'none'",
        f"connect-src 'self' ws://{host} wss://{host}",
        *(f"{kind}-src {' '.join(found)}" for kind, found in hashes.items() if found),
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return "; ".join(parts)
