"""One look at all strategies, the work of a tick: see, demote, judge, and what to commit of it.

Demotions come first: the capital that they free counts for the promotions. A strategy makes at most
one transition in a look, and is evaluated at most once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ...runtime import DAY_US
from ...wire.alert import AlertDraft
from ...wire.controller import StrategyStatus
from ...wire.persistence import Statement
from ...wire.promotion import Evaluation, Observe, PromotionStage
from ..persistence import Rows
from . import core, evidence, notes, schema
from .desk import BY_THE_RULES, Decided, Desk
from .limits import breach
from .metrics import amount_of, count_of
from .roster import Roster
from .strategy import Change, Strategy
from .track import Reading, Sample

__all__ = ["Look"]

# The looks of one tick, a plain one and the end of a session, are this close together.
SAME_TICK_US: Final = 1_000_000

_STAGES: Final = {stage.value for stage in PromotionStage}
_MOVES: Final = ("promote", "demote")


class Look:
    """Decides one look. `looked_us` is the instant of the last one within a session.

    The caller goes through the strategies, so that it can pause between them: `see` for all that
    are `to_see`, `demote` for those `to_demote`, `judge` for those `to_judge`, and `keep` for all
    `to_keep`.
    """

    def __init__(
        self, desk: Desk, roster: Roster, request: Observe, now_us: int, looked_us: int
    ) -> None:
        self._desk = desk
        self._roster = roster
        self._request = request
        self._now_us = now_us
        # A session that is told late is no later for it.
        self._ended_us = now_us if request.ended_us is None else min(request.ended_us, now_us)
        # A plain look that came just before may know newer figures than these.
        self._is_same_tick = 0 <= now_us - looked_us < SAME_TICK_US
        self._statuses = {
            status.name: status for status in request.statuses if status.name in roster
        }
        self._before: dict[str, Strategy] = {}  # this look, by id
        self._after: dict[str, Strategy] = {}
        self._noted: set[str] = set()  # records that changed otherwise than by a status
        self._saved: list[Strategy] = []
        self._saved_rows: list[tuple[Any, ...]] = []
        self._moved: set[str] = set()
        self._changes: list[Change] = []
        self._samples: list[tuple[Strategy, Sample]] = []
        self._notes: list[AlertDraft] = []
        self._total_minor = roster.total_minor

    # -- as the book of the desk, with the changes of this look

    @property
    def rows(self) -> Rows:
        """The file."""
        return self._roster.rows

    def by_name(self) -> list[Strategy]:
        """The strategies before this look."""
        return self._roster.by_name()

    def known(self, name: str) -> Strategy | None:
        """The strategy before this look."""
        return self._roster.known(name)

    def find(self, id_or_name: object) -> Strategy:
        """The strategy before this look. Raises: `UnknownStrategy`."""
        return self._roster.find(id_or_name)

    def others_minor(self, strategy: Strategy) -> int:
        """The real capital of all others, after the changes so far."""
        return self._total_minor - self._desk.entitled_minor(strategy)

    @property
    def beyond(self) -> frozenset[str]:
        """Those without real capital before this look."""
        return self._roster.beyond

    def trials(self, strategy: Strategy) -> int:
        """The versions of its family that were ever evaluated."""
        return self._roster.trials(strategy)

    def trial_variance(self, strategy: Strategy, periods_per_year: float) -> float | None:
        """The variance of the Sharpe ratios of its family, per session; None: unknown."""
        return self._roster.trial_variance(strategy, periods_per_year)

    # -- the steps

    def to_see(self) -> Iterator[Strategy]:
        """Those that report, and at a session's end all."""
        for strategy in self._roster:
            due = strategy.name in self._statuses or self._request.session is not None
            if due and strategy.stage is not PromotionStage.Retired:
                yield strategy

    def see(self, strategy: Strategy) -> None:
        """Take the status, and end the session. Where it fails nothing of it is decided."""
        self._before[strategy.id] = strategy
        status = self._statuses.get(strategy.name)
        versioned = self._versioned(strategy, status)
        after = versioned.after if isinstance(versioned, Change) else versioned
        reading = None if status is None else _reading(after, status, self._now_us)
        track = after.episode.track
        if reading is not None and self._request.session is not None and self._is_same_tick:
            reading = track.at_close(reading)
        if reading is not None:
            after = evidence.seen(after, reading)
        if after.rev == strategy.rev:
            # Kept whether or not storage takes this look: a fall that was seen once has happened.
            self._roster.take(after)
        if self._request.session is not None:
            after = self._ended(after, reading, self._request.session)
        if isinstance(versioned, Change):
            self._note_change(versioned)
        elif versioned is not strategy:
            self._noted.add(strategy.id)
        self._after[strategy.id] = after

    def _versioned(self, strategy: Strategy, status: StrategyStatus | None) -> Change | Strategy:
        """The strategy with the version that its engine reports."""
        version = None if status is None else status.version
        if version is None or version == strategy.version:
            return strategy
        is_new = not schema.was_version(self.rows, strategy, version)
        return core.newly_versioned(
            strategy, version, self._desk.policy, self._now_us, is_new=is_new
        )

    def _ended(self, strategy: Strategy, reading: Reading | None, session: str) -> Strategy:
        """The record at the end of a session, and its sample."""
        track, policy = strategy.episode.track, self._desk.policy
        # At the very first status nothing has been earned or lost yet.
        before = self._before[strategy.id].episode.track
        begins = reading is not None and (
            not before.is_begun
            or (before.is_base(reading) and self._now_us - before.base_us < SAME_TICK_US)
        )
        after = evidence.session_ended(
            strategy,
            session,
            self._ended_us,
            policy,
            measured=reading is not None,
            begins=begins,
            named=self._request.ended_us is None,
            periods_per_year=policy.periods_per_year or self._request.periods_per_year,
        )
        sampled = reading is not None and after.episode.track.sessions > track.sessions
        if after is not strategy:
            after = self._in_a_row(after, sampled=sampled)
        if reading is not None and sampled:
            figures = (reading.equity, reading.allocated, reading.n_trades, reading.n_wins)
            self._samples.append((after, Sample(session, *figures)))
        return after

    def _in_a_row(self, strategy: Strategy, *, sampled: bool) -> Strategy:
        """The record with the sessions in a row; one that gave no sample has not passed."""
        gate = self._desk.policy.rung(strategy.stage).gate
        if gate is None or gate.streak < 2:
            return msgspec.structs.replace(strategy, streak=0) if strategy.streak else strategy
        passed = sampled and self._evaluate(strategy).verdict == "PASS"
        streak = strategy.passed_in_a_row(gate) + 1 if passed else 0
        return msgspec.structs.replace(strategy, streak=streak, streak_gate=gate.hash)

    def to_demote(self) -> Iterator[Strategy]:
        """All of them, as they are after `see`: a recorded loss demotes without a report, too."""
        if not self._request.act:
            return
        for known in self._roster:
            yield self._after.get(known.id, known)

    def demote(self, strategy: Strategy) -> None:
        """Move it down where a limit is breached; soft limits only when gates are evaluated."""
        found = breach(strategy, self._desk.policy)
        if found is None or not (found.hard or self._request.evaluate):
            return
        try:
            evaluation = self._evaluate(strategy)
        except (ArithmeticError, ValueError):
            evaluation = None  # it explains the demotion, and must not prevent it
        change = core.demoted_automatically(
            strategy,
            self._desk.policy,
            self._now_us,
            to=found.to,
            hard=found.hard,
            by=BY_THE_RULES,
            reason=found.reason,
            evaluation=evaluation,
        )
        before = self._before.get(strategy.id, strategy)
        if found.hard and before.rev == strategy.rev:
            # To void it means that the observation of this look did not happen.
            change = msgspec.structs.replace(change, undone=before)
        self._note_change(change)

    def to_judge(self) -> Iterator[Strategy]:
        """Those that stay and report, wait for a person, or may be overdue."""
        if not self._request.evaluate:
            return
        policy = self._desk.policy
        for known in self._roster:
            strategy = self._after.get(known.id, known)
            if strategy.id in self._moved or strategy.stage is PromotionStage.Retired:
                continue
            if (
                strategy.name in self._statuses
                or strategy.episode.ready
                or policy.rung(strategy.stage).max_days is not None
            ):
                yield strategy

    def judge(self, strategy: Strategy) -> None:
        """Promote it where the policy does so by itself; else tell that it waits for a person, or
        that mode observe holds it back.
        """
        evaluation = self._evaluate(strategy)
        if not self._request.act and evaluation.would_do in ("promote", "demote"):
            self._notes.append(notes.withheld(strategy, evaluation))
            return
        if evaluation.would_do == "promote" and strategy.name in self._statuses:
            change = core.promoted(
                strategy,
                self._desk.policy,
                evaluation,
                self._now_us,
                capital=self._desk.capital,
                others_minor=self.others_minor(strategy),
                by=BY_THE_RULES,
                reason="gate passed",
            )
            self._note_change(change)
            return
        self._flag(strategy, evaluation)

    def _flag(self, strategy: Strategy, evaluation: Evaluation) -> None:
        policy, episode = self._desk.policy, strategy.episode
        ready = evaluation.would_do == "ready"
        if ready and not episode.ready:
            fund_minor = self._desk.capital.fund_minor or 0
            self._notes.append(notes.fired(strategy, policy, fund_minor))
        elif episode.ready and not ready:
            self._notes.append(notes.lapsed(strategy, evaluation.why))
        max_days = policy.rung(strategy.stage).max_days
        late = max_days is not None and strategy.active_us(self._now_us) >= max_days * DAY_US
        overdue = episode.overdue or (late and evaluation.verdict != "PASS")
        if overdue and not episode.overdue:
            assert max_days is not None
            self._notes.append(notes.overdue(strategy, max_days, evaluation.why))
        if (ready, overdue) != (episode.ready, episode.overdue):
            flagged = msgspec.structs.replace(episode, ready=ready, overdue=overdue)
            self._after[strategy.id] = msgspec.structs.replace(strategy, episode=flagged)
            self._noted.add(strategy.id)

    def _evaluate(self, strategy: Strategy) -> Evaluation:
        return self._desk.evaluate(strategy, self, self._now_us)

    def _note_change(self, change: Change) -> None:
        assert change.before is not None
        entitled_minor = self._desk.entitled_minor
        self._total_minor += entitled_minor(change.after) - entitled_minor(change.before)
        self._changes.append(change)
        self._after[change.after.id] = change.after
        self._noted.add(change.after.id)
        if change.kind in _MOVES:
            self._moved.add(change.after.id)

    # -- what to commit

    def to_keep(self) -> Iterator[Strategy]:
        """Those that were looked at, as they are now."""
        yield from self._after.values()

    def keep(self, strategy: Strategy) -> None:
        """Make its row, if the news of it must outlive a crash."""
        if strategy.id in self._noted or self._is_worth_saving(strategy):
            stored = strategy.stored(self._now_us)
            row = schema.saved_row(stored)
            self._saved.append(stored)
            self._saved_rows.append(row)

    def decided(self) -> tuple[Decided, list[AlertDraft]]:
        """The transitions with all rows to commit, and the alerts beside those of the changes."""
        statements: list[Statement] = [
            schema.saved_rows(self._saved_rows),
            schema.sampled(self._samples),
        ]
        transitions = []
        if self._changes:
            seq = schema.next_seq(self.rows)
            policy = self._desk.policy
            statements.append(schema.changed(self._changes, policy, seq, self._now_us))
            transitions = [
                self._desk.transition(change, seq + place)
                for place, change in enumerate(self._changes)
                if change.kind in _MOVES
            ]
        decided = Decided(
            tuple(transitions), tuple(statements), tuple(self._saved), tuple(self._changes)
        )
        return decided, self._notes

    def _is_worth_saving(self, after: Strategy) -> bool:
        """Small moves within a session stay in memory: a commit for each tick of each strategy
        would be most of the fund's writing.
        """
        saved = self._roster.saved(after.id)
        return after.closes_us != saved.closes_us or after.episode.track.is_worth_saving(
            saved.episode.track
        )


def _reading(strategy: Strategy, status: StrategyStatus, now_us: int) -> Reading | None:
    """The figures of one status; None when it is no evidence.

    A strategy whose figures are no numbers, or that has nothing allocated, proves nothing. An
    episode begins when the engine has its stage in force: an earlier status belongs to the stage
    before, with another allocation.
    """
    if (
        not strategy.episode.track.is_begun
        and status.stage in _STAGES
        and status.stage != strategy.stage.value
    ):
        return None
    equity, allocated = amount_of(status.equity), amount_of(status.allocated)
    n_trades, n_wins = count_of(status.n_trades), count_of(status.n_wins)
    if equity is None or allocated is None or n_trades is None or n_wins is None:
        return None
    if not allocated > 0 or n_wins > n_trades:
        return None
    return Reading(
        equity,
        allocated,
        n_trades,
        n_wins,
        amount_of(status.realized_pnl),
        amount_of(status.unrealized_pnl),
        status.run if isinstance(status.run, str) else None,
        now_us,
    )
