"""The supervision bench at smoke size: its rows count what happened. No figure of speed."""

from __future__ import annotations

import builtins
from typing import Any, cast

import msgspec
import pytest

from fundops.bench import supervision
from fundops.bench.harness import Result, table
from fundops.runtime import Context

RAW_FEW = "RAW: 20 trio tasks"
RAW_MANY = "RAW: 200 trio tasks"
SPAWNED_FEW = "spawn and stop, 20 children"
SPAWNED_MANY = "spawn and stop, 200 children"
OWN = {
    supervision.RAW,
    supervision.CRASHED,
    RAW_FEW,
    SPAWNED_FEW,
    "asyncio.TaskGroup, 20 tasks",
    RAW_MANY,
    SPAWNED_MANY,
}
PYKKA = {"pykka start and stop, 20 actors"}
FIGURES = {
    "crashes served per second of CPU time": "/s",
    "spawn and stop at 20": "us/actor",
    "spawn and stop at 200": "us/actor",
    "growth from 20 to 200": "x",
    "growth of a bare trio nursery": "x",
}


@pytest.fixture(scope="module")
def result() -> Result:
    return supervision.run(scale=0.02)


def test_every_case_and_every_peer_has_its_row(result: Result) -> None:
    names = [row.name for row in result.rows]
    assert len(names) == len(set(names))
    assert set(names) == (OWN if result.skipped else OWN | PYKKA)


def test_every_crash_was_followed_by_a_life_that_served(result: Result) -> None:
    for name in (supervision.RAW, supervision.CRASHED):
        assert result.row(name).messages == 100
        assert result.row(name).checksum == 100


def test_a_life_that_serves_two_messages_counts_its_crash_once() -> None:
    record = supervision.Record(3)
    life = supervision.Fragile(record)
    life.context = _context(2)
    for _ in range(3):
        life.serve(supervision.SERVE)
    assert (record.checksum, record.complete.is_set()) == (1, True)


def test_the_first_life_has_survived_no_crash() -> None:
    record = supervision.Record(1)
    life = supervision.Fragile(record)
    life.context = _context(1)
    life.serve(supervision.SERVE)
    assert record.checksum == 0


def test_every_child_was_started_served_and_stopped(result: Result) -> None:
    for row in result.rows:
        assert row.checksum == row.messages, row.name


def test_every_row_compares_with_the_bare_tasks_of_its_size(result: Result) -> None:
    for row in result.rows:
        assert row.per_s > 0
        assert row.cpu_us_per_message_p99 >= row.cpu_us_per_message > 0
        assert row.ratio is not None
        assert row.ratio > 0
    for name in (supervision.RAW, RAW_FEW, RAW_MANY):
        assert result.row(name).ratio == 1.0


def test_the_figures_are_those_of_the_rows(result: Result) -> None:
    assert {figure.name: figure.unit for figure in result.figures} == FIGURES
    few, many = (result.row(name).cpu_us_per_message for name in (SPAWNED_FEW, SPAWNED_MANY))
    assert result.figure("growth from 20 to 200") == many / few
    raw_few, raw_many = (result.row(name).cpu_us_per_message for name in (RAW_FEW, RAW_MANY))
    assert result.figure("growth of a bare trio nursery") == raw_many / raw_few
    crash_us = result.row(supervision.CRASHED).cpu_us_per_message
    assert result.figure("crashes served per second of CPU time") == 1e6 / crash_us


def test_the_result_reads_as_a_table_and_survives_json(result: Result) -> None:
    text = table(result)
    assert text.startswith(result.question)
    for row in result.rows:
        assert row.name in text
    for name in FIGURES:
        assert name in text
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result


def test_without_pykka_its_row_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_pykka(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pykka":
            raise ModuleNotFoundError("No module named 'pykka'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pykka)
    result = supervision.run(scale=0.0001)
    assert result.skipped == ("pykka start and stop: No module named 'pykka'",)
    assert "skipped: pykka" in table(result)


def test_however_small_there_are_ten_times_as_many_of_the_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "CHILDREN_MIN", 3)
    names = {row.name for row in supervision.run(scale=0.0001).rows}
    assert {"spawn and stop, 3 children", "spawn and stop, 30 children"} <= names


def test_a_larger_scale_means_more_crashes_and_no_more_children(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervision, "CHILDREN", 3)
    monkeypatch.setattr(supervision, "CHILDREN_MIN", 3)
    monkeypatch.setattr(supervision, "CRASHES", 10)
    result = supervision.run(scale=2.0)
    assert result.row(supervision.CRASHED).messages == 20
    assert result.row("spawn and stop, 3 children").messages == 3
    assert result.row("spawn and stop, 30 children").messages == 30


class _Epoch:
    """As much of a context as `Fragile` looks at."""

    name = "fragile"

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def ref(self, name: str) -> Any:
        raise NotImplementedError

    def stop(self, reason: str = "ended") -> None:
        raise NotImplementedError


def _context(epoch: int) -> Context:
    return cast("Context", _Epoch(epoch))
