"""The status-stream protocol `fund.status.v1`: every message as a frozen Struct, an object tagged by `t` on the wire.

State topics are conflated: whoever falls behind gets the latest value of each key, and never what lay between. Events
are never conflated: each has the rowid of its SQLite row as its seq, and what a client can no longer be given is
named in a `Gap`. The stream is read-only: nothing in it changes the fund.

Instants are int microseconds since the Unix epoch (UTC); money is decimal text. A client skips messages whose tag it
does not know, and fields it does not know, so both may be added without a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

import msgspec

from ...runtime import FundopsError, Request
from ..alert import Level

__all__ = [
    "EVENT_TOPICS",
    "PROTOCOL",
    "STATE_TOPICS",
    "SUBPROTOCOL_JSON",
    "TOPICS",
    "TOPICS_MAX",
    "BadMessage",
    "Bye",
    "ClientMessage",
    "CloseCode",
    "Delta",
    "Error",
    "Event",
    "EventTopic",
    "EventsCommitted",
    "Gap",
    "Heartbeat",
    "Hello",
    "Ping",
    "PublishStatus",
    "ServerMessage",
    "Snapshot",
    "StateTopic",
    "StatusPort",
    "Sub",
    "Unsub",
    "Welcome",
    "decode_client",
    "decode_server",
    "encode",
    "schema",
]

PROTOCOL = "fund.status.v1"
SUBPROTOCOL_JSON = f"{PROTOCOL}+json"

StateTopic = Literal["fund", "strategies", "promotion", "recovery", "feeds", "balances", "actors"]
EventTopic = Literal["alerts", "journal", "promotions", "recovery_events"]

STATE_TOPICS: tuple[StateTopic, ...] = get_args(StateTopic)
EVENT_TOPICS: tuple[EventTopic, ...] = get_args(EventTopic)
TOPICS: tuple[str, ...] = (*STATE_TOPICS, *EVENT_TOPICS)

# Far above the topics there are, so that newer clients can ask older servers; far below what would be an attack.
TOPICS_MAX = 64

TopicNames = Annotated[tuple[str, ...], msgspec.Meta(max_length=TOPICS_MAX)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class CloseCode:
    """Why the server ended a connection: 4000 plus the HTTP status that means the same, or 1001."""

    GOING_AWAY = 1001  # the server stops; reconnect
    BAD_MESSAGE = 4400
    BAD_TOKEN = 4401
    FORBIDDEN = 4403
    UNKNOWN_TOPIC = 4404  # never a close: what is known of the `Sub` is followed
    WRONG_SUBPROTOCOL = 4406
    TOO_SLOW = 4408  # no hello, no pong, or bytes not taken in time
    CONFLICT = 4409  # a second hello
    TOO_LARGE = 4413
    TOO_MANY = 4429


# -- client to server


class Hello(msgspec.Struct, frozen=True, tag_field="t", tag="hello", omit_defaults=True):
    """The first message, exactly once."""

    token: str | None = None  # None: none is asked for, or it went in the Authorization header
    epoch: str | None = None  # of the last welcome; `since` counts only when it is still the server's
    since: Annotated[Mapping[str, Seq], msgspec.Meta(max_length=TOPICS_MAX)] = {}  # last seq seen, by event topic
    topics: TopicNames | None = None  # None: all; those the server does not know are missing from its welcome
    min_level: Level | None = None  # alerts below it are left out; None: all


class Sub(msgspec.Struct, frozen=True, tag_field="t", tag="sub"):
    """Follow these topics too; those already followed go on as they are."""

    topics: TopicNames


class Unsub(msgspec.Struct, frozen=True, tag_field="t", tag="unsub"):
    """Stop following these topics. What was already on its way still arrives."""

    topics: TopicNames


class Ping(msgspec.Struct, frozen=True, tag_field="t", tag="ping"):
    """Answered with a `Heartbeat`: for clients that cannot send websocket pings, such as browsers."""


ClientMessage = Hello | Sub | Unsub | Ping


# -- server to client


class Welcome(msgspec.Struct, frozen=True, tag_field="t", tag="welcome"):
    """The answer to `Hello`. `epoch` names the database that the event seqs belong to."""

    protocol: str
    epoch: str
    server_time_us: int
    topics: tuple[str, ...]  # the followed ones


class Snapshot(msgspec.Struct, frozen=True, tag_field="t", tag="snapshot"):
    """All of a state topic; it replaces what the client holds."""

    topic: str
    seq: int  # of the newest change it contains; 0: nothing was ever published
    state: Mapping[str, Any]


class Delta(msgspec.Struct, frozen=True, tag_field="t", tag="delta"):
    """One key of a state topic has a new value. Seqs rise, with holes where values were overtaken."""

    topic: str
    seq: int
    key: str
    value: Any  # None: the key is gone


class Event(msgspec.Struct, frozen=True, tag_field="t", tag="event"):
    """Something that happened, durable before it was sent. Seqs rise; a hole without a `Gap` means nothing."""

    topic: str
    seq: int
    data: Any


class Gap(msgspec.Struct, frozen=True, tag_field="t", tag="gap"):
    """Events with these seqs, both ends included, are no longer held: read them from the database if they matter."""

    topic: str
    from_seq: int = msgspec.field(name="from")
    to_seq: int = msgspec.field(name="to")


class Heartbeat(msgspec.Struct, frozen=True, tag_field="t", tag="heartbeat"):
    """Nothing else was to be said for a while, or the client sent a `Ping`."""

    server_time_us: int


class Error(msgspec.Struct, frozen=True, tag_field="t", tag="error"):
    """What the client did wrong. The close with the same code follows, except for `CloseCode.UNKNOWN_TOPIC`."""

    code: int
    message: str


class Bye(msgspec.Struct, frozen=True, tag_field="t", tag="bye"):
    """The server ends the connection through no fault of the client."""

    reason: str
    retry_after_s: float


ServerMessage = Welcome | Snapshot | Delta | Event | Gap | Heartbeat | Error | Bye


# -- what the status actor is told and asked


class PublishStatus(msgspec.Struct, frozen=True, tag=True):
    """Told: the whole of these state topics as they are now. Keys that are missing, or None, are gone.

    Values are whatever msgspec encodes; money must be Decimal or text, never float. Topics that are not named stay.
    """

    states: Mapping[str, Mapping[str, Any]]


class EventsCommitted(msgspec.Struct, frozen=True, tag=True):
    """Told after a commit: there may be new rows in the tables behind the event topics."""


class StatusPort(Request[int], frozen=True):
    """The port that the stream is served on."""


# -- encoding


class BadMessage(FundopsError, ValueError):
    """Bytes that are no message of the protocol; the text says where and why."""


_encoder = msgspec.json.Encoder()
_client_decoder = msgspec.json.Decoder(ClientMessage)
_server_decoder = msgspec.json.Decoder(ServerMessage)


class _Tagged(msgspec.Struct):
    t: str


_tag_decoder = msgspec.json.Decoder(_Tagged)
_SERVER_TAGS = frozenset(kind.__struct_config__.tag for kind in get_args(ServerMessage))


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """One message as JSON. A `msgspec.Raw` inside is JSON already and goes out as it is."""
    return _encoder.encode(message)


def decode_client(text: str | bytes) -> ClientMessage:
    """Raises: `BadMessage`, also for tags this version does not know: a client must not believe it was heard."""
    try:
        message: ClientMessage = _client_decoder.decode(text)
    # The decoder recurses: a hostile depth of brackets is a RecursionError and no MsgspecError.
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadMessage(str(error)) from error
    return message


def decode_server(text: str | bytes) -> ServerMessage | None:
    """The message, or None when its tag is of a newer server and is to be skipped. Raises: `BadMessage`."""
    try:
        message: ServerMessage = _server_decoder.decode(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        if _has_unknown_tag(text):
            return None
        raise BadMessage(str(error)) from error
    return message


def _has_unknown_tag(text: str | bytes) -> bool:
    try:
        return _tag_decoder.decode(text).t not in _SERVER_TAGS
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return False


def schema() -> dict[str, Any]:
    """JSON Schema of the protocol, generated from the types: `client` and `server` are what each side may send."""
    (client, server), components = msgspec.json.schema_components(
        (ClientMessage, ServerMessage), ref_template="#/$defs/{name}"
    )
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": PROTOCOL,
        "properties": {"client": client, "server": server},
        "$defs": components,
    }
