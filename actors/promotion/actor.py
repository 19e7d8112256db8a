"""The promotion actor: keeps every strategy's record, looks at all of them each tick, and commits
the decisions of the desk.

Real capital is cut before a change is committed and raised only after it is, so the engine never
has more in force than the database allows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final, TypeVar

import trio

from ...runtime import Clock, Ref, Request, handles
from ...wire.alert import AlertDraft
from ...wire.entitlement import capital_of
from ...wire.errors import HostFault, OutcomeUnknown
from ...wire.promotion import (
    AddGate,
    Adopt,
    Approve,
    Demote,
    DemoteAutomatically,
    DiscardMetrics,
    Evaluate,
    Freeze,
    HistoryEntry,
    Observe,
    Observed,
    Promote,
    PromotionHistory,
    PromotionSnapshot,
    ReadSnapshot,
    ReadStrategies,
    ReadTerms,
    RecordMetrics,
    Register,
    Require,
    Retire,
    SetCap,
    StateAsOf,
    Void,
)
from ...wire.status import ShowPromotion
from ...wire.stream.records import PromotionFull
from ..alert import told_keys
from ..alert.requests import alert_ref, requested, wake_alerts
from ..guard import Leases
from ..host import Acts, each
from ..persistence import DurableActor
from . import schema, shown
from .capital import Capital, terms_of
from .core import check_on_ladder
from .desk import DEFECTS, Decided, Desk
from .look import Look
from .notes import (
    ASIDE_KEY,
    BOUND_KEY,
    beyond_bound,
    counted_anew,
    judged_again,
    notes_of,
    set_aside,
)
from .policy import PromotionPolicy
from .roster import Roster
from .strategy import Change, Strategy

__all__ = ["PromotionActor"]

log = logging.getLogger("fundops.promotion")

T = TypeVar("T")

# Strategies that are judged before other tasks run: half a millisecond of them.
SLICE: Final = 6


class PromotionActor(DurableActor):
    """Keeps the record of each strategy and moves it between stages.

    The policy that the file stores counts when it comes from the given one: it may have more
    gates.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        acts: Acts,
        policy: PromotionPolicy,
        capital: Capital,
        leases: Leases | None = None,
        suspect: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__(path)
        self._clock = clock
        self._acts = acts
        self._leases = leases or Leases(clock)
        self._given = policy
        self._capital = capital
        self._desk = Desk(policy, capital, suspect=suspect)
        self._suspect = suspect
        self._roster: Roster
        self._alert: Ref | None = None
        self._looked_us = 0  # at the last look within a session
        self._moves: dict[str, HistoryEntry] = {}  # the last one of each strategy, by id
        # Those beyond the bound of all capital as the alert named them. An alert of an earlier
        # life is found by its key, which is no id: it ends, and those of now are named.
        self._told_beyond: frozenset[str] = frozenset()
        self._told_aside: frozenset[str] = frozenset()  # in the same way
        self._aside: set[tuple[str, str]] = set()  # steps that failed, with the strategy's id

    def load(self) -> None:
        """All strategies, as they are on disk, with their leases limited to it."""
        stored = schema.stored_policy(self._reader)
        if stored is not None and stored.comes_from(self._given):
            self._desk = Desk(stored.policy, self._capital, stored.base, self._suspect)
        strategies = schema.load_all(self._reader)
        check_on_ladder(strategies, self._desk.policy)
        self._roster = self._new_roster(strategies)
        self._limit(strategies)

    def _new_roster(self, strategies: Iterable[Strategy]) -> Roster:
        roster = Roster(self._reader, self._desk.policy, self._capital)
        for strategy in strategies:
            roster.apply(strategy)
        return roster

    async def begin(self) -> None:
        """Find the alert actor, if the tree has one."""
        self._alert = alert_ref(self.context)
        if self._alert is not None:
            self._told_beyond = frozenset(told_keys(self._reader, BOUND_KEY))
            self._told_aside = frozenset(told_keys(self._reader, ASIDE_KEY))

    # -- people and programs

    @handles(
        Register,
        Adopt,
        RecordMetrics,
        DiscardMetrics,
        Promote,
        Approve,
        Demote,
        DemoteAutomatically,
        Void,
        Retire,
        Freeze,
        SetCap,
        AddGate,
    )
    async def change(self, request: Request[T]) -> T:
        """Carry out one request. Raises: its refusal, or that of the storage."""
        decided = self._desk.handle(request, self._roster, self._clock.now_us())
        await self._commit(decided)
        answer: T = decided.answer
        return answer

    @handles(Evaluate, ReadSnapshot, PromotionHistory, StateAsOf, ReadTerms, Require)
    def answer(self, request: Request[T]) -> T:
        """Answer one question; nothing is written."""
        answer: T = self._desk.handle(request, self._roster, self._clock.now_us()).answer
        return answer

    async def _commit(self, decided: Decided, notes: Iterable[AlertDraft] = ()) -> None:
        """Commit all of it in one transaction, cutting capital before and raising it after.

        Raises: the storage's refusal.
        """
        cuts = [change for change in decided.changes if self._cuts(change)]
        await self._tell_engine(cuts)
        drafts: list[AlertDraft] = []
        if self._alert is not None:
            # Most looks change nothing, and then no number of the history is asked for.
            first_seq = schema.next_seq(self._reader) if decided.changes else 0
            drafts = [*notes_of(decided.changes, first_seq), *notes]
        statements = (*decided.statements, *requested(self._clock.now_us(), drafts))
        refusal = await self.append(statements)
        if refusal is not None:
            if not isinstance(refusal, OutcomeUnknown):  # else `load` tells
                # A demotion has lowered its limit, and is not stored.
                self._limit(change.before for change in cuts if change.before is not None)
            raise refusal
        if decided.policy is not None:
            self._desk = self._desk.with_policy(decided.policy)
            self._roster = self._new_roster(self._roster)
        beyond = self._roster.beyond
        for place, strategy in enumerate(decided.saved):
            await _pause_at(place)
            self._roster.apply(strategy)
        self._limit(map(self._roster.find, beyond ^ self._roster.beyond))
        await self._tell_engine([change for change in decided.changes if self._raises(change)])
        if drafts:
            wake_alerts(self._alert)

    def _cuts(self, change: Change) -> bool:
        """Whether the engine must hear of it before it is committed: it allows less."""
        before, after = change.before, change.after
        if before is None or (before.stage, before.cap) == (after.stage, after.cap):
            return False
        return change.kind in ("demote", "retire") or (
            self._desk.entitled_minor(after) < self._desk.entitled_minor(before)
        )

    def _raises(self, change: Change) -> bool:
        before, after = change.before, change.after
        moves = before is not None and (before.stage, before.cap) != (after.stage, after.cap)
        return moves and not self._cuts(change)

    async def _tell_engine(self, changes: Sequence[Change]) -> None:
        """Limit the leases and put the stages in force. If the engine does not listen, or may not
        be told under the kill switch, the tick's reconciliation tells it again.
        """
        if changes:
            self._limit(change.after for change in changes)
            await each(self._set_stage, [(change.after,) for change in changes])

    async def _set_stage(self, strategy: Strategy) -> None:
        if self._leases.latch.freezes(strategy.name):
            return
        try:
            await self._acts.set_stage(
                strategy.name, strategy.stage.value, self._capital_of(strategy)
            )
        except HostFault as fault:
            log.warning("stage of %s not taken: %s", strategy.name, fault)

    def _limit(self, strategies: Iterable[Strategy]) -> None:
        """Limit the leases to what these stages allow, at once and not at the next tick."""
        self._leases.limit({strategy.name: self._capital_of(strategy) for strategy in strategies})

    def _capital_of(self, strategy: Strategy) -> Decimal:
        """The real capital that its stage and the bound of all allow."""
        terms = terms_of(strategy, self._desk.policy, beyond=self._roster.beyond)
        return capital_of(terms, self._capital.fund_minor or 0)

    # -- the tick

    @handles(Observe)
    async def observe(self, request: Observe) -> Observed:
        """One look at all strategies: their figures and hard limits at each look, a sample at a
        session's end, gates when asked to.
        """
        now_us = self._clock.now_us()
        look = Look(self._desk, self._roster, request, now_us, self._looked_us)
        if request.session is None:
            self._looked_us = now_us
        if request.statuses:
            self._roster.reported = {status.name for status in request.statuses}
        steps = (
            (look.to_see, look.see),
            (look.to_demote, look.demote),
            (look.to_judge, look.judge),
            (look.to_keep, look.keep),
        )
        for due, step in steps:
            for place, strategy in enumerate(due()):
                await _pause_at(place)
                self._attempt(step, strategy)
        decided, notes = look.decided()
        beyond = self._roster.beyond
        aside = frozenset(strategy_id for _, strategy_id in self._aside)
        await self._commit(decided, [*notes, *self._told_anew(beyond, aside)])
        self._told_beyond, self._told_aside = beyond, aside
        return Observed(decided.answer, self._roster.terms())

    def _attempt(self, step: Callable[[Strategy], T], strategy: Strategy) -> T | None:
        """Do a step, or set the strategy aside where it fails: the others go on. It is well again
        once the same step succeeds.
        """
        key = (step.__name__, strategy.id)
        try:
            done = step(strategy)
        except DEFECTS:
            if key not in self._aside:
                log.exception("promotion cannot %s %s", step.__name__, strategy.name)
            self._aside.add(key)
            return None
        if self._aside:
            self._aside.discard(key)
        return done

    def _told_anew(self, beyond: frozenset[str], aside: frozenset[str]) -> Iterator[AlertDraft]:
        """Tell those that open nothing since all are beyond the bound, those that are set aside,
        and the end of both.
        """
        if beyond != self._told_beyond:
            if self._told_beyond:
                yield counted_anew(fits=not beyond)
            bound_minor = self._capital.room_minor(0)
            if beyond and bound_minor is not None:
                yield beyond_bound(self._names(beyond), self._roster.total_minor, bound_minor)
        if aside != self._told_aside:
            if self._told_aside:
                yield judged_again(self._names(aside))
            if aside:
                yield set_aside(self._names(aside))

    def _names(self, ids: Iterable[str]) -> list[str]:
        return sorted(self._roster.find(known).name for known in ids)

    # -- all strategies at once

    @handles(ReadStrategies)
    async def strategies(self, _: ReadStrategies) -> tuple[PromotionSnapshot, ...]:
        """All strategies, by name, without their history."""
        now_us, found = self._clock.now_us(), []

        def snapshot(strategy: Strategy) -> PromotionSnapshot:
            return self._desk.snapshot(strategy, self._roster, now_us)

        for place, strategy in enumerate(self._roster.by_name()):
            await _pause_at(place)
            found.append(self._attempt(snapshot, strategy))
        return tuple(shot for shot in found if shot is not None)

    @handles(ShowPromotion)
    async def show(self, _: ShowPromotion) -> dict[str, PromotionFull]:
        """All strategies as the status stream shows them, by name; nothing is written."""
        now_us, found = self._clock.now_us(), {}

        def show(strategy: Strategy) -> PromotionFull:
            evaluation = self._desk.evaluate(strategy, self._roster, now_us)
            move = self._last_move(strategy)
            return shown.full(strategy, evaluation, self._desk.policy, now_us, move)

        for place, strategy in enumerate(self._roster.by_name()):
            await _pause_at(place)
            full = self._attempt(show, strategy)
            if full is not None:
                found[strategy.name] = full
        return found

    def _last_move(self, strategy: Strategy) -> HistoryEntry | None:
        known = self._moves.get(strategy.id)
        if known is None or known.rev != strategy.rev:
            known = schema.move_of(self._reader, strategy)
            if known is not None:
                self._moves[strategy.id] = known
        return known


async def _pause_at(place: int) -> None:
    """Let other tasks run after every few strategies. No other request is handled meanwhile."""
    if place % SLICE == SLICE - 1:
        await trio.lowlevel.checkpoint()
