"""The records of the stream: what may be left out, and that it is."""

from types import NoneType
from typing import get_args

import msgspec
import pytest

from fundops.wire.stream.protocol import schema
from fundops.wire.stream.records import (
    EVENTS,
    STATES,
    Criterion,
    KeepLimit,
    Kill,
    Leg,
    Move,
    PromotionFull,
    Storage,
)

NESTED = (Criterion, KeepLimit, Kill, Leg, Move, PromotionFull, Storage)


@pytest.mark.parametrize("record", [*STATES.values(), *EVENTS.values(), *NESTED])
def test_a_field_that_may_be_none_may_be_left_out(record: type) -> None:
    nullable = [
        field for field in msgspec.structs.fields(record) if NoneType in get_args(field.type)
    ]
    assert [field.name for field in nullable if field.default is not None] == []
    asked = schema()["$defs"][record.__name__].get("required", [])
    assert [field.name for field in nullable if field.name in asked] == []


def test_a_record_leaves_out_what_has_its_default() -> None:
    assert msgspec.json.encode(Storage("ok")) == b'{"state":"ok"}'
    assert msgspec.json.encode(Kill("OFF", "", "")) == b'{"state":"OFF","reason":"","by":""}'
    assert msgspec.json.decode(b'{"state":"ok"}', type=Storage) == Storage("ok")
