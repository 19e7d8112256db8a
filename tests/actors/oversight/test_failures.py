"""Alerts about failed strategies where no recovery tells them, by plain calls."""

from types import SimpleNamespace
from typing import Any

import pytest

from fundops.actors.oversight.failures import FailureWatch
from fundops.wire.alert import AlertDraft, Level
from fundops.wire.controller import StrategyStatus


def look(watch: FailureWatch, state: Any, terms: Any = None) -> list[AlertDraft]:
    return watch.look([StrategyStatus("s", state, error="boom")], terms)


@pytest.mark.parametrize("state", ["failed", "error", None, 5])
def test_a_failure_is_told_once_and_resolved_when_it_runs(state: Any) -> None:
    watch = FailureWatch()
    assert not look(watch, "running")
    [failed] = look(watch, state)
    assert (failed.level, failed.dedup_key) == (Level.CRITICAL, "failed:s")
    assert not look(watch, state)
    assert not look(watch, "pending")
    [over] = look(watch, "running")
    assert (over.resolves, over.dedup_key) == (True, "failed:s")
    assert look(watch, state)


def test_a_failure_told_by_an_earlier_life_is_resolved_by_this_one() -> None:
    watch = FailureWatch(["failed:s"])
    assert not look(watch, "failed")
    assert [alert.resolves for alert in look(watch, "stopped")] == [True]


@pytest.mark.parametrize(
    ("terms", "level"),
    [
        (None, Level.CRITICAL),
        ({}, Level.WARNING),
        ({"s": SimpleNamespace(mode="shadow")}, Level.WARNING),
        ({"s": SimpleNamespace(mode="live")}, Level.CRITICAL),
    ],
)
def test_a_failure_with_real_money_is_critical(terms: Any, level: Level) -> None:
    [failed] = look(FailureWatch(), "failed", terms)
    assert failed.level is level


@pytest.mark.parametrize(
    ("stage", "level"), [("paper", Level.WARNING), ("live", Level.CRITICAL), ("?", Level.CRITICAL)]
)
def test_the_stage_in_force_decides_whether_a_failure_costs_real_money(
    stage: str, level: Level
) -> None:
    status = StrategyStatus("s", "failed", stage=stage)
    [failed] = FailureWatch().look([status], {})
    assert failed.level is level, "it is not registered, and the engine trades it all the same"
