"""The protocol: tags, tolerance towards newer peers, and none towards nonsense."""

from decimal import Decimal
from typing import get_args

import msgspec
import pytest

from fundops.wire.alert import Level
from fundops.wire.errors import BadMessage
from fundops.wire.stream.protocol import (
    EVENT_TOPICS,
    STATE_TOPICS,
    SUBPROTOCOL_JSON,
    TOPICS_MAX,
    Bye,
    ClientMessage,
    Delta,
    Error,
    Event,
    Gap,
    Get,
    Heartbeat,
    Hello,
    Patch,
    Ping,
    Resumed,
    Series,
    ServerMessage,
    Snapshot,
    Sub,
    Unsub,
    Welcome,
    decode_client,
    decode_server,
    encode,
    schema,
)

FROM_CLIENTS: list[ClientMessage] = [
    Hello(),
    Hello("secret", "e1", {"alerts": 7}, ("fund", "alerts"), Level.WARNING),
    Hello(backlog=0),
    Sub(("fund",)),
    Sub(keys={"promotion": ("a", "b")}),
    Get("nav", "30d", 500),
    Unsub(("fund", "journal")),
    Ping(),
]
FROM_SERVERS: list[ServerMessage] = [
    Welcome("fund.status.v1", "e1", 1, ("fund", "alerts"), {"alerts": 3}),
    Snapshot("fund", 3, {"nav": "100.00"}),
    Delta("fund", 4, "nav", None, 9),
    Patch("strategies", 5, "a", {"n_trades": 4}, 9),
    Resumed("alerts", 5, 9),
    Series("nav", "all", (1, 2), ("1.00", "2.00"), (0.0, 0.5)),
    Event("alerts", 5, {"title": "hello"}),
    Gap("alerts", 6, 9),
    Heartbeat(2),
    Heartbeat(2, 3, 0.4),
    Error(4400, "no"),
    Bye("the server stops", 1.0),
]


@pytest.mark.parametrize("message", FROM_CLIENTS)
def test_a_client_message_comes_back_as_it_went(message: ClientMessage) -> None:
    assert decode_client(encode(message)) == message


@pytest.mark.parametrize("message", FROM_SERVERS)
def test_a_server_message_comes_back_as_it_went(message: ServerMessage) -> None:
    assert decode_server(encode(message)) == message


def test_every_message_has_its_example_here() -> None:
    assert {type(message) for message in FROM_CLIENTS} == set(get_args(ClientMessage))
    assert {type(message) for message in FROM_SERVERS} == set(get_args(ServerMessage))


def test_the_wire_form_is_the_one_of_the_contract() -> None:
    assert encode(Hello()) == b'{"t":"hello"}'
    assert (
        encode(Delta("fund", 4, "nav", None, 7))
        == b'{"t":"delta","topic":"fund","seq":4,"key":"nav","value":null,"wall_us":7}'
    )
    assert (
        encode(Patch("fund", 4, "nav", {"a": 1}, 7))
        == b'{"t":"patch","topic":"fund","seq":4,"key":"nav","value":{"a":1},"wall_us":7}'
    )
    assert encode(Resumed("alerts", 5, 9)) == b'{"t":"resumed","topic":"alerts","from":5,"seq":9}'
    assert encode(Gap("alerts", 6, 9)) == b'{"t":"gap","topic":"alerts","from":6,"to":9}'
    assert encode(Bye("x", 1.5)) == b'{"t":"bye","reason":"x","retry_after_s":1.5}'
    assert SUBPROTOCOL_JSON == "fund.status.v1+json"


def test_what_is_encoded_already_goes_out_as_it_is() -> None:
    value = msgspec.json.encode({"nav": Decimal("1.50")})
    assert encode(Event("journal", 1, msgspec.Raw(value))).endswith(b'"data":{"nav":"1.50"}}')


def test_money_is_decimal_text() -> None:
    assert b'"value":"0.10"' in encode(Delta("balances", 1, "cash", Decimal("0.10")))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"t":"hello"',
        '{"t":7}',
        '{"t":"post"}',
        '{"t":"welcome"}',
        '{"t":"sub"}',
        '{"t":"sub","topics":"fund"}',
        '{"t":"get"}',
        '{"t":"get","series":"nav","points":0}',
        '{"t":"get","series":"nav","points":1501}',
        '{"t":"hello","backlog":-1}',
        '{"t":"hello","token":"\\ud800"}',
        '{"t":"hello","min_level":"LOUD"}',
        '{"t":"hello","since":{"alerts":-1}}',
        '{"t":"hello","since":{"alerts":9223372036854775808}}',
        '{"t":"ping","x":' + "[" * 4_000,
        b'{"t":"\xff"}',
    ],
)
def test_nonsense_from_a_client_is_a_bad_message(text: str | bytes) -> None:
    with pytest.raises(BadMessage):
        decode_client(text)


def test_a_client_may_not_ask_for_endless_topics() -> None:
    most = tuple(str(number) for number in range(TOPICS_MAX))
    assert decode_client(encode(Sub(most))) == Sub(most)
    with pytest.raises(BadMessage):
        decode_client(encode(Sub((*most, "one more"))))


def test_fields_of_a_newer_peer_are_ignored() -> None:
    assert decode_client('{"t":"ping","colour":"blue"}') == Ping()
    assert decode_server('{"t":"heartbeat","server_time_us":1,"mood":[1,{}]}') == Heartbeat(1)


def test_tags_of_a_newer_server_are_skipped() -> None:
    assert decode_server('{"t":"merged","topics":[]}') is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"t":"heartbeat"}', '{"t":"heartbeat","server_time_us":"x"}']
)
def test_nonsense_from_a_server_is_a_bad_message_and_not_skipped(text: str) -> None:
    with pytest.raises(BadMessage):
        decode_server(text)


def test_the_schema_names_every_message_by_its_tag() -> None:
    generated = schema()
    msgspec.json.encode(generated)
    for side, union in (("client", ClientMessage), ("server", ServerMessage)):
        mapping = generated["properties"][side]["discriminator"]["mapping"]
        assert mapping == {
            kind.__name__.lower(): f"#/$defs/{kind.__name__}" for kind in get_args(union)
        }
        assert all(
            reference.removeprefix("#/$defs/") in generated["$defs"]
            for reference in mapping.values()
        )


def test_no_topic_is_both_state_and_event() -> None:
    assert not set(STATE_TOPICS) & set(EVENT_TOPICS)
