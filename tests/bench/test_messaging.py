"""The messaging bench at smoke size: every row is there and every message was handled. Never a figure of speed."""

from __future__ import annotations

import builtins
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


@pytest.fixture(scope="module")
def result() -> Result:
    return messaging.run(scale=0.005)


def test_every_case_and_every_peer_has_its_row(result: Result) -> None:
    names = [row.name for row in result.rows]
    assert len(names) == len(set(names))
    assert set(names) == (OWN if result.skipped else OWN | PYKKA)


def test_every_message_of_every_case_was_handled(result: Result) -> None:
    for row in result.rows:
        assert row.messages >= 64
        assert row.checksum == row.messages, row.name


def test_every_row_has_its_figures_and_the_baseline_compares_to_itself_as_one(result: Result) -> None:
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


def test_without_pykka_its_rows_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without_pykka(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pykka":
            raise ModuleNotFoundError("No module named 'pykka'")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_pykka)
    result = messaging.run(scale=0.0001)
    assert {row.name for row in result.rows} == OWN
    assert result.skipped == ("pykka tell, pykka ask: No module named 'pykka'",)
    assert "skipped: pykka" in table(result)
