"""The messages of the protocol `fund.status.v1`: frozen Structs, on the wire objects tagged by `t`.

State topics are conflated: a client that falls behind gets the latest value of each key and none of
the values before it. Events are never conflated: the seq of an event is the rowid of its SQLite
row, and a `Gap` names the seqs of events that the server no longer holds. The topics `nav`,
`deliveries` and `restarts` have no rows: a process numbers them anew, and they are never resumed.
The stream is read-only: no message changes the fund. The values are in `records.py`.

Instants are int microseconds since the Unix epoch (UTC); money is decimal text. A client skips
messages with an unknown tag, and unknown fields, so both can be added without a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

import msgspec

from ..alert import Level
from ..errors import BadMessage

__all__ = [
    "BACKLOG",
    "EVENT_TOPICS",
    "POINTS_MAX",
    "PROCESS_TOPICS",
    "PROTOCOL",
    "STATE_TOPICS",
    "SUBPROTOCOL_JSON",
    "TOPICS",
    "TOPICS_MAX",
    "Bye",
    "ClientMessage",
    "CloseCode",
    "Delta",
    "Error",
    "Event",
    "EventTopic",
    "Gap",
    "Get",
    "Heartbeat",
    "Hello",
    "Patch",
    "Ping",
    "Resumed",
    "Series",
    "ServerMessage",
    "Snapshot",
    "StateTopic",
    "Sub",
    "Unsub",
    "Verdict",
    "Welcome",
    "decode_client",
    "decode_server",
    "encode",
    "schema",
]

PROTOCOL = "fund.status.v1"
SUBPROTOCOL_JSON = f"{PROTOCOL}+json"

StateTopic = Literal[
    "fund",
    "strategies",
    "promotion",
    "recovery",
    "feeds",
    "balances",
    "actors",
    "mailboxes",
    "channels",
    "attention",
]
EventTopic = Literal[
    "alerts", "journal", "promotions", "recovery_events", "nav", "deliveries", "restarts"
]

STATE_TOPICS: tuple[StateTopic, ...] = get_args(StateTopic)
EVENT_TOPICS: tuple[EventTopic, ...] = get_args(EventTopic)
TOPICS: tuple[str, ...] = (*STATE_TOPICS, *EVENT_TOPICS)
# Their seqs are of one process, so a client cannot resume them in another one.
PROCESS_TOPICS: frozenset[str] = frozenset({"nav", "deliveries", "restarts"})

BACKLOG = 50  # newest events per topic that a new client gets, unless it asks for another number
POINTS_MAX = 1_500  # of a series: more than a chart has pixels
KEYS_MAX = 64  # full records per topic that a client follows

# Far above the number of topics, so that newer clients can ask older servers, and low enough to
# bound the work of one message.
TOPICS_MAX = 64

TopicNames = Annotated[tuple[str, ...], msgspec.Meta(max_length=TOPICS_MAX)]
Seq = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Keys = Annotated[
    Mapping[str, Annotated[tuple[str, ...], msgspec.Meta(max_length=KEYS_MAX)]],
    msgspec.Meta(max_length=TOPICS_MAX),
]
Points = Annotated[int, msgspec.Meta(ge=1, le=POINTS_MAX)]


class CloseCode:
    """The server's close codes: 4000 plus the HTTP status of the same meaning, or 1001."""

    GOING_AWAY = 1001  # the server stops; the client may reconnect
    BAD_MESSAGE = 4400
    BAD_TOKEN = 4401
    FORBIDDEN = 4403
    UNKNOWN_TOPIC = (
        4404  # sent in an `Error` without a close: the known topics of the `Sub` are followed
    )
    WRONG_SUBPROTOCOL = 4406
    TOO_SLOW = 4408  # no hello, no pong, or bytes not taken in time
    CONFLICT = 4409  # a second hello
    TOO_LARGE = 4413
    TOO_MANY = 4429


class Verdict(NamedTuple):
    """The server's reason to end a connection."""

    code: int  # one of `CloseCode`
    reason: str  # for the client


# -- client to server


class Hello(msgspec.Struct, frozen=True, tag_field="t", tag="hello", omit_defaults=True):
    """The first message, sent exactly once."""

    token: str | None = None  # None: the server wants none, or it is in the Authorization header
    epoch: str | None = (
        None  # of the last welcome; `since` is ignored when the server's epoch differs
    )
    since: Annotated[
        Mapping[str, Seq], msgspec.Meta(max_length=TOPICS_MAX)
    ] = {}  # last seq seen, by event topic
    topics: TopicNames | None = (
        None  # None: all; the welcome leaves out those that the server does not know
    )
    min_level: Level | None = None  # alerts below it are left out; None: all are sent
    # The newest events per topic to begin with, where nothing is resumed. At most the server's
    # ring of 1,024 is held.
    backlog: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = BACKLOG


class Sub(msgspec.Struct, frozen=True, tag_field="t", tag="sub", omit_defaults=True):
    """Follow these topics too. Topics that are followed already continue unchanged."""

    topics: TopicNames = ()
    # Of these keys the full records are sent; the names replace those of before for their topic.
    # Only `promotion` has full records. The topic must be followed.
    keys: Keys = {}

    def __post_init__(self) -> None:
        if not self.topics and not self.keys:
            raise ValueError("a sub names topics or keys")


class Unsub(msgspec.Struct, frozen=True, tag_field="t", tag="unsub"):
    """Stop following these topics. Messages that were already sent still arrive."""

    topics: TopicNames


class Ping(msgspec.Struct, frozen=True, tag_field="t", tag="ping"):
    """Asks for a `Heartbeat`; for clients that cannot send websocket pings, such as browsers."""


class Get(msgspec.Struct, frozen=True, tag_field="t", tag="get", omit_defaults=True):
    """Asks for one `Series`."""

    series: str  # "nav" is the only one
    range: str = "all"  # days back from now, as "30d", or "all"
    points: Points = POINTS_MAX  # at most as many; of each stretch the lowest and highest are kept


ClientMessage = Hello | Sub | Unsub | Get | Ping


# -- server to client


class Welcome(msgspec.Struct, frozen=True, tag_field="t", tag="welcome"):
    """The answer to `Hello`."""

    protocol: str
    epoch: str  # the uuid of the database that the event seqs belong to
    server_time_us: int
    topics: tuple[str, ...]  # those now followed
    # By durable event topic, the seq after which its events follow: the one to resume from while
    # none of them has come.
    since: Mapping[str, int]


class Snapshot(msgspec.Struct, frozen=True, tag_field="t", tag="snapshot"):
    """A whole state topic. It replaces the client's copy."""

    topic: str
    seq: int  # of the newest change that it contains; 0: nothing was published yet
    state: Mapping[str, Any]


class Delta(msgspec.Struct, frozen=True, tag_field="t", tag="delta"):
    """One key of a state topic has a new value.

    Seqs rise, and skip values that newer ones replaced.
    """

    topic: str
    seq: int
    key: str
    value: Any  # None: the key was removed
    wall_us: int = 0  # the real time at which the server published it


class Patch(msgspec.Struct, frozen=True, tag_field="t", tag="patch"):
    """Fields of one record of a state topic have new values; its other fields stay.

    A null gives the field its default, as if the record had left it out.
    The patch follows on the value that the server sent before for the key.
    """

    topic: str
    seq: int
    key: str
    value: Mapping[str, Any]  # the changed fields
    wall_us: int = 0  # the real time at which the server published it


class Event(msgspec.Struct, frozen=True, tag_field="t", tag="event"):
    """One event, durable before it was sent.

    Seqs rise; a missing seq without a `Gap` was never used.
    """

    topic: str
    seq: int
    data: Any


class Gap(msgspec.Struct, frozen=True, tag_field="t", tag="gap"):
    """The server no longer holds the events with these seqs, both ends included.

    They are still in the database.
    """

    topic: str
    from_seq: int = msgspec.field(name="from")
    to_seq: int = msgspec.field(name="to")


class Resumed(msgspec.Struct, frozen=True, tag_field="t", tag="resumed"):
    """An event topic goes on after the `since` of the client; its missing events follow."""

    topic: str
    from_seq: int = msgspec.field(name="from")  # the first seq that may follow
    seq: int  # the newest one


class Series(msgspec.Struct, frozen=True, tag_field="t", tag="series"):
    """The answer to `Get`: columns of equal length, oldest first."""

    series: str
    range: str
    at_us: tuple[int, ...]
    nav: tuple[str, ...]  # decimal text
    drawdown_pct: tuple[float, ...]


class Heartbeat(msgspec.Struct, frozen=True, tag_field="t", tag="heartbeat"):
    """Sent each second, and as the answer to a `Ping`."""

    server_time_us: int  # the domain's time: a replay drives it
    wall_us: int = 0  # the real time
    tick_age_s: float | None = None  # since the fund's last tick; None: no tick yet


class Error(msgspec.Struct, frozen=True, tag_field="t", tag="error"):
    """The client broke a rule.

    A close with the same code follows, except for `CloseCode.UNKNOWN_TOPIC`.
    """

    code: int
    message: str


class Bye(msgspec.Struct, frozen=True, tag_field="t", tag="bye"):
    """The server ends the connection, and the client broke no rule."""

    reason: str
    retry_after_s: float


ServerMessage = (
    Welcome | Snapshot | Delta | Patch | Event | Series | Resumed | Gap | Heartbeat | Error | Bye
)


# -- encoding


_encoder = msgspec.json.Encoder()
_client_decoder = msgspec.json.Decoder(ClientMessage)
_server_decoder = msgspec.json.Decoder(ServerMessage)


class _Tagged(msgspec.Struct):
    t: str


_tag_decoder = msgspec.json.Decoder(_Tagged)
_SERVER_TAGS = frozenset(kind.__struct_config__.tag for kind in get_args(ServerMessage))


def encode(message: ClientMessage | ServerMessage) -> bytes:
    """One message as JSON. A `msgspec.Raw` inside it is copied unchanged."""
    return _encoder.encode(message)


def decode_client(text: str | bytes) -> ClientMessage:
    """The decoded message of a client.

    Raises: `BadMessage`, also for unknown tags: a client must not believe that the server
    understood it.
    """
    try:
        message: ClientMessage = _client_decoder.decode(text)
    # The decoder recurses, so very deep brackets raise RecursionError instead of MsgspecError.
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise BadMessage(str(error)) from error
    return message


def decode_server(text: str | bytes) -> ServerMessage | None:
    """The decoded message of a server; None for an unknown tag.

    A newer server may send one, and a client skips it.

    Raises: `BadMessage`.
    """
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
    """JSON Schema of the messages of each side and of the records, generated from the types.

    `client` and `server` are the messages; `states` and `events` name the record of each topic.
    """
    from .records import EVENTS, STATES, PromotionFull

    records = [*STATES.values(), *EVENTS.values(), PromotionFull]
    (client, server, *found), components = msgspec.json.schema_components(
        (ClientMessage, ServerMessage, *records), ref_template="#/$defs/{name}"
    )
    refs = dict(zip(records, found, strict=True))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": PROTOCOL,
        "properties": {"client": client, "server": server},
        "states": {topic: refs[record] for topic, record in STATES.items()},
        "events": {topic: refs[record] for topic, record in EVENTS.items()},
        "$defs": components,
    }
