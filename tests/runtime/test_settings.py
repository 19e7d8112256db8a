"""Settings: checked when they are made, and documented by their own declaration."""

from __future__ import annotations

import inspect
import math
import pydoc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from fundops.runtime import SECRET, ConfigError, Settings, settings_of


class Patience(Settings, frozen=True):
    """How long to wait."""

    deadline_s: Annotated[float, Meta(gt=0, le=60, description="seconds; until an answer")] = 5.0
    retries: Annotated[int, Meta(ge=0, le=1_000)] = 3


class Everything(Settings, frozen=True):
    flag: bool = False
    share: Annotated[float, Meta(ge=0, le=1)] = 0.5
    ratio: float = 1.0
    floor: Annotated[int, Meta(ge=1)] = 1
    pause_s: Annotated[float | None, Meta(gt=0)] = None
    mode: Literal["act", "observe"] = "act"
    name: Annotated[str, Meta(min_length=1, max_length=8, pattern=r"^\w+\Z")] = "fund"
    place: str | Path | None = None
    make: Callable[[], object] = object
    floors: Mapping[str, float] = {}
    many: Sequence[Patience] = ()
    patience: Patience = Patience()
    token: Annotated[str, Meta(max_length=9, extra=SECRET)] = ""


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("flag", 1, "flag: 1 is not True or False"),
        ("share", 1.5, "share: 1.5 is not a finite number from 0 to 1"),
        ("share", math.nan, "share: nan is not a finite number from 0 to 1"),
        ("ratio", math.inf, "ratio: inf is not a finite number"),
        ("ratio", 10**400, None),
        ("ratio", True, "ratio: True is not a finite number"),
        ("floor", 0, "floor: 0 is not a whole number >= 1"),
        ("floor", 1.0, "floor: 1.0 is not a whole number >= 1"),
        ("pause_s", 0, "pause_s: 0 is not a finite number > 0 or None"),
        ("mode", "sleep", "mode: 'sleep' is not 'act' or 'observe'"),
        ("mode", ["act"], "mode: ['act'] is not 'act' or 'observe'"),
        ("name", "", "name: '' is not a text of 1 to 8 characters"),
        ("name", "a b", "name: 'a b' is not a text of 1 to 8 characters"),
        ("name", 5, "name: 5 is not a text of 1 to 8 characters"),
        ("place", 5, "place: 5 is not a text or a Path or None"),
        ("make", 5, "make: 5 is not a function"),
        ("floors", [], "floors: [] is not a mapping of a text to a finite number"),
        ("floors", {"a": "1"}, "floors: {'a': '1'} is not a mapping of a text to a finite number"),
        ("many", (1,), "many: (1,) is not a list of a Patience"),
        ("many", "ab", "many: 'ab' is not a list of a Patience"),
        ("patience", None, "patience: None is not a Patience"),
        ("token", "far too long", "token: the value given is not a text of 0 to 9 characters"),
    ],
)
def test_a_value_outside_its_limits_is_refused_by_name(field: str, value: Any, says: str) -> None:
    with pytest.raises(ConfigError) as refused:
        Everything(**{field: value})
    assert refused.value.field == field
    assert says is None or str(refused.value) == says


def test_values_at_their_limits_are_taken_as_given() -> None:
    made = Everything(share=1, floor=1, pause_s=0.1, name="a" * 8, place=Path("x"), floors={"a": 1})
    assert (made.share, made.pause_s, made.floors) == (1, 0.1, {"a": 1})


@given(st.one_of(st.floats(), st.integers(), st.text(), st.none(), st.booleans()))
def test_no_value_passes_that_its_limits_exclude(value: Any) -> None:
    allowed = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= 60
    if allowed:
        Patience(deadline_s=value)
        return
    with pytest.raises(ConfigError) as refused:
        Patience(deadline_s=value)
    assert refused.value.field == "deadline_s"


def test_a_changed_copy_is_checked_as_well() -> None:
    with pytest.raises(ConfigError, match=r"^retries: -1 is not a whole number from 0 to 1,000$"):
        msgspec.structs.replace(Patience(), retries=-1)


def test_a_converted_mapping_is_checked_in_the_same_words() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"retries|1000"):
        msgspec.convert({"retries": 1_001}, Patience)
    assert msgspec.convert({"retries": 7}, Patience) == Patience(retries=7)


def test_a_secret_appears_in_no_text() -> None:
    assert "hunter2" not in repr(Everything(token="hunter2"))
    assert "token=''" in repr(Everything())


def test_an_error_of_a_values_own_repr_does_not_escape() -> None:
    class Unprintable:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(ConfigError, match="floor: some Unprintable is not a whole number"):
        Everything(floor=Unprintable())  # type: ignore[arg-type]


# -- the parts of a whole


class Whole(Settings, frozen=True):
    """Gathers the settings of a part."""

    parts = (Patience,)

    name: str = "fund"
    deadline_s: float = 5.0
    tries: int = 3


def test_a_field_of_a_part_has_the_parts_limits_and_meaning() -> None:
    with pytest.raises(ConfigError, match="deadline_s: 61 is not a finite number > 0 and <= 60"):
        Whole(deadline_s=61)
    assert settings_of(Whole)[1].meaning == "seconds; until an answer"


def test_a_part_is_made_of_the_fields_of_its_name() -> None:
    whole = Whole(deadline_s=2.0, tries=9)
    assert whole.part(Patience, retries=whole.tries) == Patience(deadline_s=2.0, retries=9)


# -- what people read


# The stubs of the standard library lack it.
PLAIN_TEXT: Any = vars(pydoc)["plaintext"]


def test_help_shows_limits_default_and_meaning_of_each_field() -> None:
    text = pydoc.render_doc(Patience, renderer=PLAIN_TEXT)
    assert "How long to wait." in text
    assert "deadline_s = 5.0" in text
    assert "a finite number > 0 and <= 60; seconds; until an answer" in text
    assert list(inspect.signature(Patience).parameters) == ["deadline_s", "retries"]
