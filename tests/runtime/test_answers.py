"""Handlers by the answers that they are annotated to return: which are refused, and which pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Generic, Literal, NoReturn, Protocol, TypedDict, TypeVar

import msgspec
import pytest

from fundops.runtime import (
    Actor,
    ConfigError,
    Rejected,
    Request,
    Terminated,
    handles,
    handles_batch,
)
from fundops.runtime.answers import check_answer

T = TypeVar("T")


class Count(Request[int], frozen=True):
    pass


class Rate(Request[float], frozen=True):
    pass


class Quiet(Request[None], frozen=True):
    pass


class Names(Request[tuple[str, ...]], frozen=True):
    pass


class Either(Request[int | str], frozen=True):
    pass


class Table(Request[Mapping[str, int]], frozen=True):
    pass


class Anything(Request[Any], frozen=True):
    pass


class Plain(msgspec.Struct, frozen=True):
    """Declares no answer."""


class Page(Request[list[T]], Generic[T], frozen=True):
    pass


class Numbers(Page[int], frozen=True):
    pass


class MoreNumbers(Numbers, frozen=True):
    """Its answer is declared two classes above."""


class Forward(Request["Later"], frozen=True):
    pass


class Later:
    pass


class Refused(Rejected):
    pass


class Sized(Protocol):
    def size(self) -> int: ...


class Shaped(Request[Sized], frozen=True):
    pass


class Row(TypedDict):
    name: str


class ReadRow(Request[Row], frozen=True):
    pass


def returning(annotation: Any) -> Callable[..., Any]:
    def handler(self: object, message: object) -> None: ...

    handler.__annotations__["return"] = annotation
    return handler


@pytest.mark.parametrize(
    ("message_type", "annotation"),
    [
        (Count, "int"),
        (Count, bool),
        (Count, Annotated[int, "seconds"]),
        (Count, Literal[3]),
        (Count, NoReturn),
        (Count, Any),
        (Count, T),
        (Count, "int | Refused"),
        (Count, Refused),
        (Count, "NotYetDefined"),
        (Count, "1 +"),
        (Rate, int),
        (Quiet, None),
        (Names, tuple[str, ...]),
        (Names, tuple),
        (Names, "tuple[str, str]"),
        (Either, int),
        (Either, str | int),
        (Table, dict[str, int]),
        (Anything, str),
        (Plain, str),
        (Terminated, int),
        (Page, list[str]),
        (Numbers, list[bool]),
        (MoreNumbers, list[int]),
        (Forward, Later),
        (Shaped, str),
        (ReadRow, Row),
        (ReadRow, dict[str, str]),
    ],
)
def test_an_answer_that_may_be_right_is_accepted(message_type: type, annotation: Any) -> None:
    check_answer(returning(annotation), [message_type], batch=False)


@pytest.mark.parametrize(
    ("message_type", "annotation", "problem"),
    [
        (Count, "str", "is annotated to answer str, but Count asks for int"),
        (Count, float, "is annotated to answer float, but Count asks for int"),
        (Count, None, "is annotated to answer None, but Count asks for int"),
        (Count, object, "is annotated to answer object, but Count asks for int"),
        (Count, int | None, "is annotated to answer int | None, but no None is an answer to Count"),
        (Quiet, bool, "is annotated to answer bool, but Quiet asks for None"),
        (Names, list[str], r"answer list\[str\], but Names asks for tuple\[str, ...\]"),
        (Names, tuple[int, ...], r"answer tuple\[int, ...\], but Names asks for tuple\[str, ...\]"),
        (Either, bytes, r"but Either asks for int \| str"),
        (Numbers, list[str], r"but Numbers asks for list\[int\]"),
        (MoreNumbers, list[str], r"but MoreNumbers asks for list\[int\]"),
        (Forward, str, "but Forward asks for Later"),
    ],
)
def test_an_answer_that_is_certainly_wrong_is_refused(
    message_type: type, annotation: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem.replace("int | None", r"int \| None")):
        check_answer(returning(annotation), [message_type], batch=False)


def test_a_handler_of_several_types_answers_each() -> None:
    check_answer(returning(int | tuple[str, ...]), [Count, Names], batch=False)
    check_answer(returning("int | str"), [Count, Plain], batch=False)
    with pytest.raises(ConfigError, match=r"Names asks for tuple\[str, ...\]"):
        check_answer(returning(int), [Count, Names], batch=False)
    with pytest.raises(ConfigError, match="no bytes is an answer to Count, Names"):
        check_answer(returning(int | tuple[str, ...] | bytes), [Count, Names], batch=False)


@pytest.mark.parametrize(
    "annotation",
    [list[int], Sequence[int], Iterable[int], tuple[int, ...], list[int | Refused], list, "list"],
)
def test_a_batch_handler_returns_many_answers(annotation: Any) -> None:
    check_answer(returning(annotation), [Count], batch=True)


@pytest.mark.parametrize(
    ("annotation", "problem"),
    [
        (int, "answer int, but a batch is answered with a list"),
        (None, "answer None, but a batch is answered with a list"),
        (list[str], "answer str, but Count asks for int"),
        (tuple[int, str], "no str is an answer to Count"),
    ],
)
def test_a_batch_handler_with_wrong_items_is_refused(annotation: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        check_answer(returning(annotation), [Count], batch=True)


def test_a_decorated_handler_is_left_to_type_checkers() -> None:
    def as_number(function: Callable[..., str]) -> Callable[..., int]:
        @functools.wraps(function)
        def wrapper(*arguments: Any) -> int:
            return int(function(*arguments))

        return wrapper

    class Decorated(Actor):
        @handles(Count)
        @as_number
        def count(self, message: Count) -> str:
            return "3"

    assert Count in Decorated._handlers


def test_a_handler_without_annotations_is_accepted() -> None:
    class Bare(Actor):
        @handles(Count)
        def count(self, message):  # type: ignore[no-untyped-def]
            return message

    assert Count in Bare._handlers


def test_a_wrong_answer_is_refused_when_the_class_is_created() -> None:
    with pytest.raises(ConfigError, match=r"Wrong\.count: is annotated to answer str"):

        class Wrong(Actor):
            @handles(Count)
            async def count(self, message: Count) -> str:
                return "3"

    with pytest.raises(ConfigError, match=r"WrongBatch\.count: is annotated to answer str"):

        class WrongBatch(Actor):
            @handles_batch(Count)
            def count(self, messages: list[Count]) -> list[str]:
                return ["3"]


def test_an_override_with_a_wrong_answer_is_refused() -> None:
    class Right(Actor):
        @handles(Count)
        def count(self, message: Count) -> int:
            return 3

    with pytest.raises(ConfigError, match="Count asks for int"):

        class Wrong(Right):
            def count(self, message: Count) -> str:  # type: ignore[override]
                return "3"
