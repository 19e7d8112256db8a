"""The messaging bench at smoke size: all rows exist, all messages are handled. No speed."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fundops.bench import messaging
from fundops.bench.harness import Result, table

OWN = {
    messaging.RAW,
    "tell, burst",
    "tell, paced",
    "tell, awaited with backpressure",
    "tell, 8 producers with backpressure",
    "ask, one caller",
    "ask, 64 callers",
    "asyncio.Queue of 128",
}
PYKKA = {"pykka tell", "pykka ask"}
RAY = {"Ray tell", "Ray ask"}
NO_RAY = "Ray tell, Ray ask: "


@pytest.fixture(scope="module")
def result() -> Result:
    with pytest.MonkeyPatch.context() as monkeypatch:
        _hide_ray(monkeypatch)
        return messaging.run(scale=0.005)


def _hide_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processes take seconds to start; one test has them."""
    monkeypatch.setitem(sys.modules, "ray", None)


def test_every_case_and_every_peer_has_its_row(result: Result) -> None:
    names = [row.name for row in result.rows]
    assert len(names) == len(set(names))
    without_pykka = any(reason.startswith("pykka") for reason in result.skipped)
    assert set(names) == (OWN if without_pykka else OWN | PYKKA)


def test_every_message_of_every_case_was_handled(result: Result) -> None:
    for row in result.rows:
        assert row.messages >= 64
        assert row.checksum == row.messages, row.name


def test_every_row_has_its_figures_and_the_baseline_compares_to_itself_as_one(
    result: Result,
) -> None:
    for row in result.rows:
        assert row.per_s > 0
        assert row.cpu_us_per_message_p99 >= row.cpu_us_per_message > 0
        assert row.ratio is not None
        assert row.ratio > 0
        assert row.repetitions == 7
    assert result.row(messaging.RAW).ratio == 1.0


def test_scale_says_how_many_messages_are_sent(result: Result) -> None:
    assert result.row("tell, burst").messages == 512
    assert result.row("ask, 64 callers").messages == 128


def test_the_result_reads_as_a_table_and_survives_json(result: Result) -> None:
    text = table(result)
    assert text.startswith(result.question)
    for row in result.rows:
        assert row.name in text
    assert msgspec.json.decode(msgspec.json.encode(result), type=Result) == result


def test_without_pykka_its_rows_are_skipped_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = builtins.__import__

    def without_pykka(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pykka":
            raise ModuleNotFoundError("No module named 'pykka'")
        return original(name, *args, **kwargs)

    _hide_ray(monkeypatch)
    monkeypatch.setattr(builtins, "__import__", without_pykka)
    result = messaging.run(scale=0.0001)
    assert {row.name for row in result.rows} == OWN
    assert result.skipped[0] == "pykka tell, pykka ask: No module named 'pykka'"
    assert "skipped: pykka" in table(result)


def test_without_ray_its_rows_and_figures_are_missing_with_the_reason(result: Result) -> None:
    assert result.figures == ()
    assert result.skipped[-1].startswith(NO_RAY)
    assert f"skipped: {NO_RAY}" in table(result)


def test_ray_is_compared_by_wall_time_alone_and_leaves_nothing_running(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("HOME", str(tmp_path))  # for its token
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")  # the bench sets it too; here it is put back
    result = messaging.run(scale=0.0001)
    rows = [result.row(name) for name in sorted(RAY)]
    assert not any(reason.startswith(NO_RAY) for reason in result.skipped)
    assert [(row.messages, row.checksum, row.ratio) for row in rows] == [(64, 64, None)] * 2
    assert {figure.name for figure in result.figures} == {
        f"{name}, wall time over RAW" for name in RAY
    }
    assert all(figure.value > 0 for figure in result.figures)
    assert not ray.is_initialized()
