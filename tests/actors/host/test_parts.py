"""A controller is looked at once: a part that could not be called later is refused by name."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fundops.actors.host import checked_controller
from fundops.actors.host.parts import FEATURES, lacks, offers
from fundops.runtime import ConfigError
from fundops.testing import FakeController


def _refused(controller: object) -> str:
    with pytest.raises(ConfigError) as refused:
        checked_controller(controller)
    assert refused.value.field == "controller"
    return str(refused.value)


def _with(**parts: Any) -> object:
    return type("Engine", (), {name: staticmethod(part) for name, part in parts.items()})()


def test_a_whole_controller_passes() -> None:
    checked_controller(FakeController())


def test_one_part_is_enough() -> None:
    checked_controller(_with(stop_all=lambda reason, action, strategies: None))


def test_an_object_without_any_part_is_refused() -> None:
    assert "no part of a controller" in _refused(object())


def test_a_class_is_refused_by_its_name() -> None:
    assert "FakeController is a class; give an instance" in _refused(FakeController)


def test_a_part_that_is_no_method_is_refused() -> None:
    engine = FakeController()
    engine.pause = "later"  # type: ignore[assignment,method-assign]
    assert "its pause is not a method" in _refused(engine)


def test_a_part_that_cannot_be_read_is_refused() -> None:
    class Torn:
        @property
        def feeds(self) -> Any:
            raise RuntimeError("not connected")

    assert "its feeds cannot be read: not connected" in _refused(Torn())


@pytest.mark.parametrize(
    ("part", "call"),
    [
        (lambda: None, "stop_all(reason, action, strategies)"),
        (lambda reason: None, "stop_all(reason, action, strategies)"),
        (lambda reason, action, strategies, why: None, "stop_all(reason, action, strategies)"),
        (lambda *, reason, action, strategies: None, "stop_all(reason, action, strategies)"),
    ],
)
def test_a_part_with_another_signature_is_refused_with_the_call(part: Any, call: str) -> None:
    text = _refused(_with(stop_all=part))
    assert "its stop_all(" in text
    assert f"cannot be called as {call}: " in text


def test_keyword_arguments_are_part_of_the_signature() -> None:
    assert "restart(name, attempt_id=...)" in _refused(_with(restart=lambda name: None))
    assert "restart(name, attempt_id=...)" in _refused(_with(restart=lambda name, /: None))
    checked_controller(_with(restart=lambda name, *, attempt_id: None))
    checked_controller(_with(restart=lambda name, **more: None))


@pytest.mark.parametrize(
    "part",
    [
        lambda *args, **kwargs: None,
        lambda name, reason="": None,
        functools.partial(lambda more, name, reason: None, 1),
        functools.lru_cache(lambda name, reason: None),
        print,
    ],
)
def test_every_callable_that_takes_the_arguments_is_accepted(part: Any) -> None:
    checked_controller(_with(pause=part))


def test_a_method_without_a_readable_signature_is_accepted() -> None:
    checked_controller(_with(pause=dict.update))


def test_an_async_generator_is_refused() -> None:
    async def strategies() -> AsyncIterator[Any]:
        yield None

    assert "its strategies is an async generator" in _refused(_with(strategies=strategies))


def test_the_missing_methods_of_a_feature_are_named() -> None:
    features = {feature.methods[0]: feature for feature in FEATURES}
    half = _with(pause=lambda name, reason: None)
    assert lacks(half, features["pause"]) == "resume and stop"
    assert not offers(half, features["pause"])
    assert lacks(object(), features["pause"]) == "pause, resume and stop"
    assert lacks(object(), features["feeds"]) == "feeds"
    assert lacks(FakeController(), features["pause"]) == ""


def test_an_emergency_stop_that_is_a_coroutine_function_is_refused() -> None:
    class Later(FakeController):
        async def emergency_stop(self) -> None:  # type: ignore[override]
            """Never called."""

    assert "must be a plain one" in _refused(Later())
