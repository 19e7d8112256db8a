"""Promotion's tables: a file of an earlier version keeps all that it tells."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from fundops.actors.persistence import Reader, open_database
from fundops.actors.promotion import schema
from fundops.actors.promotion.strategy import Metric
from fundops.file.database import MIGRATIONS
from fundops.wire.promotion import PromotionStage

T0 = 1_700_000_000_000_000

# As the version before episodes wrote a strategy.
RECORD = """{
"budget_minor": 500, "closes_us": [5, 6], "cooldown_until_us": 9, "demotions_us": [3],
"entered_us": 1700000000000000, "episode": 4, "frozen": true, "frozen_since_us": 8, "frozen_us": 7,
"id": "s1", "measured": {"sharpe": {"as_of_us": 6, "value": 1.25}},
"metrics": {"n_trades": {"as_of_us": 5, "value": 60.0}}, "name": "mm", "ready_alerted": true,
"registered_us": 1699000000000000, "rev": 11, "stage": "live-small",
"track": {"sessions": 3, "session": "2026-01-05", "mean": 0.001, "m2": 0.0002, "trades": 12,
"wins": 5, "begun": true, "equity": 101.5, "peak": 102.0, "breaches": [false, true]},
"undefined": ["win_rate"]}"""
# As an even earlier one wrote it, without what came later.
EARLY = """{"id": "s2", "name": "young", "stage": "paper", "registered_us": 1,
"entered_us": 2, "episode": 1, "rev": 1}"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "f.db"
    open_database(file, MIGRATIONS[:4]).close()
    connection = apsw.Connection(str(file))
    for number, (name, record) in enumerate((("mm", RECORD), ("young", EARLY)), start=1):
        connection.execute(
            "INSERT INTO promotions VALUES (?, ?, 'paper', 1, 2, ?)", (f"s{number}", name, record)
        )
    connection.execute(
        "INSERT INTO promotion_history VALUES"
        " (7, 's1', 'mm', 'promote', 'shadow', 'live-small', 20, 'ann', 'x', '{\"sharpe\": 1.1}',"
        ' \'{"id": "e1"}\', 11)'
    )
    connection.execute(
        "INSERT INTO promotion_metrics VALUES (1, 's1', 4, 5, 'nightly', 1, '{\"n_trades\": 60.0}')"
    )
    connection.close()
    open_database(file, MIGRATIONS).close()
    return file


def test_the_evidence_of_an_earlier_file_is_that_of_the_episode(path: Path) -> None:
    with Reader(path) as reader:
        strategy, young = schema.load_all(reader)
    episode = strategy.episode
    assert (strategy.stage, strategy.rev, strategy.episodes) == (PromotionStage.Live_Small, 11, 4)
    assert (strategy.frozen, strategy.frozen_since_us, strategy.cooldown_until_us) == (True, 8, 9)
    assert (strategy.demotions_us, strategy.budget_minor, strategy.versions) == ((3,), 500, 1)
    assert (episode.number, episode.entered_us, episode.frozen_us) == (4, T0, 7)
    assert episode.recorded == {"n_trades": Metric(60.0, 5)}
    assert episode.measured == {"sharpe": Metric(1.25, 6)}
    assert episode.undefined == ("win_rate",)
    track = episode.track
    assert (track.sessions, track.mean, track.m2, track.trades, track.wins) == (
        3,
        0.001,
        0.0002,
        12,
        5,
    )
    assert (track.begun, track.equity, track.peak, track.breaches) == (
        True,
        101.5,
        102.0,
        (False, True),
    )
    assert (young.episode.number, young.episode.entered_us, young.episode.recorded) == (1, 2, {})


def test_a_line_of_an_earlier_file_tells_what_it_knows(path: Path) -> None:
    with Reader(path) as reader:
        (line,) = schema.history(reader, None, 10)
        (state,) = schema.state_as_of(reader, 20)
        assert schema.state_as_of(reader, 19) == ()
        undone = schema.line(reader, 7)
    assert (line.seq, line.evaluation_id, line.recorded_us, line.policy) == (7, "e1", 20, "")
    assert (line.cap_before, line.cap_after, line.version) == (None, None, None)
    assert (state.name, state.stage, state.rev) == ("mm", PromotionStage.Live_Small, 11)
    assert (state.frozen, state.episode) == (None, None)
    assert undone is not None
    assert undone.before is None, "so it cannot be voided"


def test_a_record_of_an_earlier_file_keeps_its_key(path: Path) -> None:
    with Reader(path) as reader:
        strategy = schema.find(reader, "mm")
        assert strategy is not None
        record = schema.record_of(reader, strategy, 5, "nightly")
        assert [stored.record for stored in schema.records(reader, strategy, 4)] == [record]
        assert schema.stored_policy(reader) is None
    assert record is not None
    assert record.metrics == {"n_trades": 60.0}


def test_the_next_line_follows_the_newest(path: Path) -> None:
    with Reader(path) as reader:
        assert schema.next_seq(reader) == 8
