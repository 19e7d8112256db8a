"""Totals since the registration against a plain model, through random histories of a desk."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fundops.actors.promotion import Capital, Criterion, PromotionGate, policy_of
from fundops.wire.errors import MetricError
from fundops.wire.promotion import (
    AddGate,
    Demote,
    DiscardMetrics,
    Promote,
    PromotionStage,
    ReadSnapshot,
    RecordMetrics,
    Register,
    Transition,
    Void,
)
from tests.actors.promotion.test_desk import Office

LADDER = (PromotionStage.Paper, PromotionStage.Shadow, PromotionStage.Live_Small)
COUNTS = ("n_trades", "fills")
NAMES = st.sets(st.sampled_from(["n_trades", "fills", "returns"]), min_size=1)


@dataclasses.dataclass
class Stretch:
    """A stretch of time in one stage: what was told as it began, and what was told in it."""

    begin: dict[str, int]
    told: list[tuple[int, dict[str, int]]] = dataclasses.field(default_factory=list)

    def told_of(self, name: str) -> list[int]:
        return [totals[name] for _, totals in self.told if name in totals]

    def begin_of(self, name: str) -> int | None:
        """What was told as it began, or first in it."""
        return self.begin.get(name, next(iter(self.told_of(name)), None))

    def last(self) -> dict[str, int]:
        """What was told last in it, by name."""
        found: dict[str, int] = {}
        for _, totals in self.told:
            found |= totals
        return found


class History:
    """One strategy at a desk, and what it really did."""

    def __init__(self, folder: Path) -> None:
        self.office = Office(folder / "f.db", policy_of(), Capital())
        self.done = {"n_trades": 0, "fills": 0, "returns": 0}
        self.rank = 0
        # The stretches of the episode, of which a void adds another.
        self.stretches = [Stretch({"n_trades": 0, "fills": 0, "returns": 0})]
        # The newest transition with what was before it; None: it was voided, or there is none.
        self.newest: tuple[Transition, int, list[Stretch]] | None = None
        always = (Criterion("days", "days", ">=", 0),)
        self.office.ask(AddGate(PromotionGate(LADDER[0], always)))
        self.office.ask(AddGate(PromotionGate(LADDER[1], always)))
        self.office.ask(Register("mm"))

    def earn(self, name: str, number: int) -> None:
        self.done[name] += number

    def record(self, names: set[str], error: int) -> None:
        """What was done since the registration is told, or more than that in error."""
        totals = {name: self.done[name] + error for name in names if name != "returns"}
        metrics: dict[str, Any] = dict(totals)
        if "returns" in names and self.done["returns"]:
            totals["returns"] = self.done["returns"]
            metrics["returns"] = [return_at(n) for n in range(self.done["returns"])]
        if not metrics:
            return
        stretch = self.stretches[-1]
        begins = {name: stretch.begin_of(name) for name in totals}
        asked = RecordMetrics(
            "mm", LADDER[self.rank], metrics, self.office.now_us, cumulative_since="registration"
        )
        if any(begin is not None and totals[name] < begin for name, begin in begins.items()):
            with pytest.raises(MetricError):
                self.office.ask(asked)
            return
        self.office.ask(asked)
        stretch.told.append((self.office.now_us, totals))

    def discard(self, pick: int) -> None:
        """One record that was told in this episode, whichever stretch it was in."""
        told = [(stretch, one) for stretch in self.stretches for one in stretch.told]
        if told:
            stretch, one = told[pick % len(told)]
            stretch.told.remove(one)
            self.office.ask(DiscardMetrics("mm", one[0], "", "ann", "wrong"))

    def move(self, step: int) -> None:
        """One stage up or down."""
        if not 0 <= self.rank + step < len(LADDER):
            return
        ask: Promote | Demote = (
            Promote("mm", by="ann") if step > 0 else Demote("mm", by="ann", reason="drill")
        )
        moved = self.office.ask(ask)
        assert isinstance(moved, Transition)
        self.newest = (moved, self.rank, self.stretches)
        self.rank += step
        self.stretches = [Stretch(self.stretches[-1].last())]

    def void(self) -> None:
        """The newest transition is undone, and its episode is taken up again."""
        if self.newest is not None:
            moved, self.rank, before = self.newest
            self.newest = None
            self.office.ask(Void(moved.seq, "ann", "too early"))
            self.stretches = [*before, Stretch(self.stretches[-1].last())]

    def check(self) -> None:
        """The counts of the episode are what was told as earned within it."""
        metrics = self.office.ask(ReadSnapshot("mm")).metrics
        for name in COUNTS:
            told = any(stretch.told_of(name) for stretch in self.stretches)
            assert metrics.get(name) == (self.earned(name) if told else None)
        sessions = [return_at(n) for begin, end in self.spans("returns") for n in range(begin, end)]
        sharpe = self.office.strategy().episode.measured.get("sharpe")
        assert (None if sharpe is None else sharpe.n) == (
            len(sessions) if len(sessions) > 1 else None
        )
        fall = self.office.strategy().episode.measured.get("max_drawdown")
        assert (fall is None) is (not sessions)

    def spans(self, name: str) -> list[tuple[int, int]]:
        found = []
        for stretch in self.stretches:
            told = stretch.told_of(name)
            if told:
                begin = stretch.begin_of(name)
                assert begin is not None
                found.append((begin, max(begin, told[-1])))
        return found

    def earned(self, name: str) -> int:
        return sum(end - begin for begin, end in self.spans(name))


def return_at(session: int) -> float:
    """No two are alike."""
    return 0.001 * (session + 1)


STEP = st.one_of(
    st.tuples(
        st.just("earn"), st.sampled_from(["n_trades", "fills", "returns"]), st.integers(1, 9)
    ),
    st.tuples(st.just("record"), NAMES, st.sampled_from([0, 0, 0, 0, 50])),
    st.tuples(st.just("discard"), st.integers(0, 9)),
    st.tuples(st.just("move"), st.sampled_from([1, 1, -1])),
    st.tuples(st.just("void")),
)


@settings(max_examples=60, deadline=None)
@example(  # the first record is discarded, and the error after it is the first one now
    [
        ("earn", "n_trades", 9),
        ("move", 1),
        ("record", {"n_trades"}, 0),
        ("record", {"n_trades"}, 50),
        ("record", {"n_trades"}, 0),
        ("discard", 0),
    ]
)
@given(st.lists(STEP, min_size=5, max_size=30))
def test_an_episode_counts_what_was_earned_within_it(steps: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder))
        for step, *arguments in steps:
            history.office.now_us += 1_000_000
            getattr(history, step)(*arguments)
            history.check()
        history.office.store.close()
