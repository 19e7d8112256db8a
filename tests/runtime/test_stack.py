"""The traceback of a crash: logged once, kept in the record and in the tree, bounded."""

from __future__ import annotations

import logging

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from fundops.runtime import (
    Actor,
    ActorCrashed,
    ChildSpec,
    Crashed,
    Request,
    SupervisorSpec,
    handles,
    open_supervisor,
)
from fundops.runtime.stack import TRACEBACK_BYTES, traceback_of


class Fail(Request[None], frozen=True):
    pass


def deep_in_a_library() -> None:
    raise LookupError("no such order")


class Worker(Actor):
    @handles(Fail)
    def fail(self, _: Fail) -> None:
        try:
            deep_in_a_library()
        except LookupError as error:
            raise RuntimeError("broken") from error


async def test_a_crash_is_logged_once_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fundops.runtime")
    nested = SupervisorSpec("inner", (ChildSpec("worker", Worker),))
    async with open_supervisor([nested]) as tree:
        with pytest.raises(ActorCrashed):
            await tree.ref("worker").ask(Fail())
        await wait_all_tasks_blocked()
        (record,) = caplog.records
        assert (record.name, record.levelname) == ("fundops.runtime", "ERROR")
        assert "worker (epoch 1): RuntimeError: broken" in record.getMessage()
        (crash,) = [event for event in tree.events if isinstance(event, Crashed)]
        for text in ("in deep_in_a_library", "LookupError: no such order", "in fail"):
            assert text in record.getMessage()
            assert text in crash.traceback
        assert tree.tree()[0].children[0].last_traceback == crash.traceback
        assert tree.tree()[0].last_traceback is None


async def test_a_crash_of_a_start_has_its_traceback() -> None:
    class Broken(Actor):
        async def on_start(self) -> None:
            deep_in_a_library()

    lives: list[type[Actor]] = [Broken, Worker]

    async with open_supervisor([ChildSpec("a", lambda: lives.pop()())]) as tree:
        lives.insert(0, Worker)
        with pytest.raises(ActorCrashed):
            await tree.ref("a").ask(Fail())
        await wait_all_tasks_blocked()
        crashes = [event for event in tree.events if isinstance(event, Crashed)]
        assert "deep_in_a_library" in crashes[1].traceback


def endless(depth: int) -> None:
    endless(depth + 1)


@pytest.mark.parametrize("text", ["x" * 100_000, "\u20ac" * 50_000, "\ud800" * 30_000])
def test_a_traceback_has_at_most_16_kib(text: str) -> None:
    kept = traceback_of(ValueError(text))
    assert len(kept.encode()) <= TRACEBACK_BYTES
    assert msgspec.json.decode(msgspec.json.encode(kept)) == kept


def test_a_recursion_keeps_its_last_frames_and_error() -> None:
    with pytest.raises(RecursionError) as caught:
        endless(0)
    kept = traceback_of(caught.value)
    assert len(kept.encode()) <= TRACEBACK_BYTES
    assert "in endless" in kept
    assert kept.rstrip().splitlines()[-1].startswith("RecursionError")


def test_an_error_that_cannot_be_shown_has_frames() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(Mute) as caught:
        raise Mute
    assert "in test_an_error_that_cannot_be_shown_has_frames" in traceback_of(caught.value)


def test_a_ring_of_errors_is_cut() -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__context__, second.__context__ = second, first
    assert "ValueError: first" in traceback_of(first)


def test_a_group_shows_each_of_its_errors() -> None:
    group = ExceptionGroup("two", [ValueError("one"), trio.TooSlowError("other")])
    assert "ValueError: one" in traceback_of(group)
    assert "TooSlowError" in traceback_of(group)
