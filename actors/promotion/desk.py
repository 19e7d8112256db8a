"""The desk: every request to promotion, decided by pure functions over the stored rows.

`Desk.handle` gives the answer, the rows to commit, and the changes that move capital. Three doors
share it: the actor commits by message, `PromotionManager` under the file's lock, and the control
socket by way of the actor. It writes nothing and tells no engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import msgspec

from ...runtime import DAY_US, FundopsError, Request, shown
from ...wire.entitlement import capital_of
from ...wire.errors import Conflict, MetricError, PromotionDefect, StageTooLow
from ...wire.foreign import fitted
from ...wire.paging import checked_limit
from ...wire.persistence import Statement
from ...wire.promotion import (
    AddGate,
    Adopt,
    Approve,
    Demote,
    DemoteAutomatically,
    DiscardMetrics,
    Evaluate,
    Evaluation,
    Freeze,
    HistoryEntry,
    Promote,
    PromotionHistory,
    PromotionSnapshot,
    PromotionStage,
    ReadSnapshot,
    ReadStrategies,
    ReadTerms,
    RecordMetrics,
    Register,
    Require,
    Retire,
    SetCap,
    StateAsOf,
    Transition,
    Void,
)
from ..persistence import Rows
from . import core, schema
from .capital import Capital, check_capital, entitled_minor, excess_minor, terms_of
from .criteria import PromotionGate
from .evaluation import evaluate
from .evidence import (
    Record,
    StoredRecord,
    check_evidence,
    refolded,
    values_of,
    with_record,
    worst_of,
)
from .metrics import canonical_metrics, count_of, figure_of
from .policy import PromotionPolicy, with_gate
from .strategy import Change, Strategy
from .texts import check_name, check_request_id, check_source, loosening
from .words import instant

__all__ = ["BY_THE_RULES", "DEFECTS", "Book", "Decided", "Desk", "snapshot"]

SNAPSHOT_HISTORY: Final = 20
_ONCE: Final = "\n"  # begins a key of an automatic demotion, and no id that a person may give
BY_THE_RULES: Final = "promotion"  # `by` of a change that the policy decides

# Errors of a computation at one strategy. An error of the storage concerns all strategies.
DEFECTS: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


class Book(Protocol):
    """The strategies and the stored rows that a request is decided on."""

    @property
    def rows(self) -> Rows:
        """The file, for history and records."""
        ...

    def by_name(self) -> Sequence[Strategy]:
        """All strategies, in the order of their names."""
        ...

    def known(self, name: str) -> Strategy | None:
        """The strategy that has this name or this id."""
        ...

    def find(self, id_or_name: object) -> Strategy:
        """As `known`. Raises: `UnknownStrategy`."""
        ...

    def others_minor(self, strategy: Strategy) -> int:
        """The real capital that all other strategies are entitled to."""
        ...

    @property
    def beyond(self) -> frozenset[str]:
        """The ids of those that have no real capital, since all together are beyond the bound."""
        ...

    def trials(self, strategy: Strategy) -> int:
        """The versions of its family that were ever evaluated."""
        ...

    def trial_variance(self, strategy: Strategy, periods_per_year: float) -> float | None:
        """The variance of the Sharpe ratios of its family, per session; None: unknown."""
        ...


class Decided(msgspec.Struct, frozen=True):
    """The decision on a request. Nothing of it is done yet."""

    answer: Any
    statements: tuple[Statement, ...] = ()  # to commit in one transaction
    saved: tuple[Strategy, ...] = ()  # the records after it, which `statements` store
    changes: tuple[Change, ...] = ()  # those of them that history tells; they may move capital
    policy: PromotionPolicy | None = None  # in force from now on; None: as before


class Desk:
    """Decides by one policy and one capital.

    While the wall clock is `suspect` no stage is raised, not even by a person.
    """

    def __init__(
        self,
        policy: PromotionPolicy,
        capital: Capital,
        base: str = "",
        suspect: Callable[[], bool] = lambda: False,
    ) -> None:
        self.policy = policy
        self.capital = capital
        self._base = base or policy.hash  # hash of the policy before gates were added
        self._suspect = suspect

    def handle(self, request: Request[Any], book: Book, now_us: int) -> Decided:
        """Decide one request.

        Raises: its refusal; `PromotionDefect` when it cannot be computed; TypeError for another
            request.
        """
        name = type(request).__name__
        decide = _DECIDES.get(type(request))
        if decide is None:
            raise TypeError(f"promotion takes no {name}")
        try:
            return decide(self, request, book, now_us)
        except FundopsError:
            raise
        except DEFECTS as defect:
            raise PromotionDefect(name, f"{type(defect).__name__}: {fitted(defect)}") from defect

    def with_policy(self, policy: PromotionPolicy) -> Desk:
        """The desk with another policy, that this one became by a gate."""
        return Desk(policy, self.capital, self._base, self._suspect)

    def evaluate(self, strategy: Strategy, book: Book, now_us: int) -> Evaluation:
        """The verdict of the policy now."""
        return evaluate(
            strategy,
            self.policy,
            now_us,
            capital=self.capital,
            others_minor=book.others_minor(strategy),
            trials=book.trials(strategy),
            trial_variance=book.trial_variance(strategy, self._periods()),
            suspect=self._suspect(),
        )

    def entitled_minor(self, strategy: Strategy) -> int:
        """The real capital of the strategy in its stage."""
        return entitled_minor(strategy, self.policy, self.capital)

    def changed(
        self, answer: Any, changes: Sequence[Change], book: Book, now_us: int, *more: Statement
    ) -> Decided:
        """These changes with their rows."""
        saved = tuple(change.after.stored(now_us) for change in changes)
        first_seq = schema.next_seq(book.rows)
        lines = schema.changed(changes, self.policy, first_seq, now_us)
        return Decided(answer, (schema.saved(saved), lines, *more), saved, tuple(changes))

    def moved(self, change: Change, book: Book, now_us: int, *more: Statement) -> Decided:
        """One change of stage; the answer is its `Transition`."""
        transition = self.transition(change, schema.next_seq(book.rows))
        return self.changed(transition, (change,), book, now_us, *more)

    def transition(self, change: Change, seq: int) -> Transition:
        """A change of stage as callers hear of it, once it is committed."""
        before, after = change.before, change.after
        assert before is not None
        assert change.kind in ("promote", "demote", "void")
        fund_minor = self.capital.fund_minor
        capitals = (
            None
            if fund_minor is None and strategy.budget_minor is None
            else capital_of(terms_of(strategy, self.policy), fund_minor or 0)
            for strategy in (before, after)
        )
        return Transition(
            after.name,
            change.kind,
            before.stage,
            after.stage,
            change.reason,
            change.hard,
            after.rev,
            seq,
            *capitals,
        )

    # -- registering

    def _register(self, request: Register, book: Book, now_us: int) -> Decided:
        known = self._registered(request, book)
        if known is not None:
            return Decided(core.repeated(known, request.name, request.family, request.budget_minor))
        return self._entered(self._beginning(request, now_us), book, now_us)

    def _adopt(self, request: Adopt, book: Book, now_us: int) -> Decided:
        known = self._registered(request, book)
        if known is not None:
            core.repeated(known, request.name, None, None)
            raise Conflict(f"{request.name} is registered already")
        change = self._beginning(request, now_us, adopt=True, reason=request.reason)
        after, others_minor = change.after, book.others_minor(change.after)
        if not request.over_capital:
            check_capital(None, after, self.policy, self.capital, others_minor)
        after = msgspec.structs.replace(
            after,
            over_minor=excess_minor(after, self.policy, self.capital, others_minor),
            over_bound_minor=self.capital.room_minor(0) or 0,
        )
        return self._entered(msgspec.structs.replace(change, after=after), book, now_us)

    def _registered(self, request: Register | Adopt, book: Book) -> Strategy | None:
        """The strategy that has the name already. Raises: `MetricError`, `UnknownStage`."""
        check_name(request.name)
        self.policy.stage(request.stage)
        return book.known(request.name)

    def _beginning(
        self, request: Register | Adopt, now_us: int, *, adopt: bool = False, reason: str = ""
    ) -> Change:
        return core.registered(
            request.name,
            self.policy.stage(request.stage),
            now_us,
            by=request.by,
            adopt=adopt,
            reason=reason,
            family=request.family,
            budget_minor=request.budget_minor,
        )

    def _entered(self, change: Change, book: Book, now_us: int) -> Decided:
        return self.changed(change.after.id, (change,), book, now_us)

    # -- evidence

    def _record(self, request: RecordMetrics, book: Book, now_us: int) -> Decided:
        strategy = book.find(request.strategy_id)
        explicit = request.as_of_us is not None
        as_of_us = now_us if request.as_of_us is None else request.as_of_us
        check_evidence(strategy, self.policy.stage(request.stage), as_of_us, now_us)
        if request.cumulative_since not in (None, "registration"):
            raise MetricError(
                "cumulative_since", request.cumulative_since, "is not 'registration' or None"
            )
        record = Record(
            canonical_metrics(request.metrics),
            as_of_us,
            check_source(request.source),
            request.cumulative_since is not None,
        )
        known = schema.record_of(book.rows, strategy, as_of_us, record.source) if explicit else None
        if known == record:
            return Decided(None)
        if known is not None:
            raise Conflict(
                f"{strategy.name} has other metrics recorded as of {instant(as_of_us)} from"
                f" {record.source!r}; discard those first"
            )
        after = with_record(strategy, record, self._periods(), now_us).stored(now_us)
        stored = schema.recorded(strategy, record, explicit=explicit)
        return Decided(None, (schema.saved((after,)), stored), (after,))

    def _discard(self, request: DiscardMetrics, book: Book, now_us: int) -> Decided:
        by, reason = loosening(request.by, request.reason, why=True)
        source = check_source(request.source)
        strategy = core.movable(book.find(request.strategy_id))
        key = (request.as_of_us, source)
        found = schema.records(book.rows, strategy, strategy.episode.number)
        gone = [known for known in found if (known.record.as_of_us, known.record.source) == key]
        if not gone:
            raise MetricError(
                "as_of",
                request.as_of_us,
                f"has no record from {source!r} in this stage",
                shown_as=instant(request.as_of_us),
            )
        after = self._without(strategy, found, gone, now_us)
        change = core.noted("discard", strategy, after, now_us, by=by, reason=reason)
        return self.changed(
            None, (change,), book, now_us, schema.discarded(gone, now_us, by, reason)
        )

    def _periods(self) -> float:
        return self.policy.sessions_per_year

    # -- transitions

    def _promote(self, request: Promote, book: Book, now_us: int) -> Decided:
        request_id = check_request_id(request.request_id)
        known = None if request_id is None else schema.requested(book.rows, request_id)
        if known is not None:
            digest, outcome = known
            if digest != _asked(request, book):
                raise Conflict(f"request {request_id!r} asked for something else before")
            return Decided(outcome)
        strategy = book.find(request.strategy_id)
        change = core.promoted(
            strategy,
            self.policy,
            self.evaluate(strategy, book, now_us),
            now_us,
            capital=self.capital,
            others_minor=book.others_minor(strategy),
            to=None if request.to is None else self._target(strategy, request.to),
            by=request.by,
            reason=request.reason,
            expected_rev=request.expected_rev,
            cap=request.cap,
        )
        if request_id is not None:
            outcome = self.transition(change, schema.next_seq(book.rows))
            change = msgspec.structs.replace(
                change, request_id=request_id, request=_asked(request, book), outcome=outcome
            )
        return self.moved(change, book, now_us)

    def _target(self, strategy: Strategy, to: object) -> PromotionStage:
        """The stage; "live" is the next one with real money, on a ladder that has several."""
        live = to is PromotionStage.Live or to == PromotionStage.Live.value
        if live and PromotionStage.Live not in {rung.stage for rung in self.policy.rungs}:
            ranks = [rung.stage for rung in self.policy.rungs]
            above = ranks[self.policy.rank(strategy.stage) + 1 :] if strategy.stage in ranks else []
            return next((stage for stage in above if stage.is_live), self.policy.rungs[-1].stage)
        return self.policy.stage(to)

    def _approve(self, request: Approve, book: Book, now_us: int) -> Decided:
        strategy = book.find(request.strategy_id)
        change = core.promoted(
            strategy,
            self.policy,
            self.evaluate(strategy, book, now_us),
            now_us,
            capital=self.capital,
            others_minor=book.others_minor(strategy),
            by=request.by,
            reason="approved",
            cap=request.cap,
        )
        return self.moved(change, book, now_us)

    def _demote(self, request: Demote, book: Book, now_us: int) -> Decided:
        change = core.demoted(
            book.find(request.strategy_id),
            self.policy,
            now_us,
            to=None if request.to is None else self.policy.stage(request.to),
            by=request.by,
            reason=request.reason,
            expected_rev=request.expected_rev,
        )
        return self.moved(change, book, now_us)

    def _demote_automatically(
        self, request: DemoteAutomatically, book: Book, now_us: int
    ) -> Decided:
        once = None if request.once is None else f"{_ONCE}{request.once}"
        known = None if once is None else schema.requested(book.rows, once)
        if known is not None:
            return Decided(known[1])
        strategy = core.movable(book.find(request.strategy_id))
        integrity = request.cause == "integrity"
        lowest = self.policy.rungs[0].stage
        below = self.policy.below(strategy.stage)
        if below is None:
            if not integrity or strategy.frozen:
                return Decided(None)
            frozen = core.frozen(
                strategy, now_us, freeze=True, by=request.by, reason=request.reason
            )
            assert frozen is not None
            return self.changed(None, (frozen,), book, now_us)
        change = core.demoted_automatically(
            strategy,
            self.policy,
            now_us,
            to=lowest if integrity else below,
            hard=integrity,
            freeze=integrity,
            by=request.by,
            reason=request.reason,
        )
        if once is not None:
            outcome = self.transition(change, schema.next_seq(book.rows))
            change = msgspec.structs.replace(change, request_id=once, outcome=outcome)
        return self.moved(change, book, now_us)

    def _void(self, request: Void, book: Book, now_us: int) -> Decided:
        seq = count_of(request.transition_seq)
        line = None if seq is None else schema.line(book.rows, seq)
        if line is None:
            raise Conflict(f"{shown(request.transition_seq)} is no transition of a strategy")
        strategy = book.find(line.strategy_id)
        if schema.newest_move(book.rows, strategy.id) != line.seq:
            raise Conflict(f"{line.seq} is not the newest transition of {strategy.name}")
        if schema.voided_already(book.rows, line.seq):
            raise Conflict(f"{line.seq} was voided already")
        if line.before is None:
            raise Conflict(f"{line.seq} was written by an older fundops, which kept no more of it")
        earlier, gone = self._without_cause(line, line.before, book, now_us)
        # A later freeze or unfreeze is an act of its own, and stays.
        keeps = schema.freeze_changed_since(book.rows, line)
        change = core.voided(
            strategy,
            earlier,
            self.policy,
            now_us,
            moved_us=line.effective_us,
            after_record=schema.newest_record(book.rows, strategy),
            seq=line.seq,
            frozen=(strategy if keeps else earlier).frozen,
            capital=self.capital,
            others_minor=book.others_minor(strategy),
            by=request.by,
            reason=request.reason,
        )
        return self.changed(
            self.transition(change, schema.next_seq(book.rows)),
            self._with_version(change, strategy.version, now_us),
            book,
            now_us,
            schema.discarded(gone, now_us, change.by, change.reason),
        )

    def _with_version(self, void: Change, version: str | None, now_us: int) -> tuple[Change, ...]:
        """The void, and what a version that came since means to the stage that it returns to.

        Raises: `Conflict` where that version may not be in this stage.
        """
        if version is None or version == void.after.version:
            return (void,)
        found = core.newly_versioned(void.after, version, self.policy, now_us, is_new=False)
        if isinstance(found, Strategy):
            return (msgspec.structs.replace(void, after=found),)
        if found.after.stage is not void.after.stage:
            raise Conflict(
                f"version {version} came since, which goes to {found.after.stage.value} and not"
                f" to {void.after.stage.value}"
            )
        return (void, found)

    def _without_cause(
        self, line: schema.Line, earlier: Strategy, book: Book, now_us: int
    ) -> tuple[Strategy, list[StoredRecord]]:
        """The earlier record without the records that demoted it, and those."""
        if not line.hard or line.by != BY_THE_RULES:
            return earlier, []
        hard = self.policy.rung(earlier.stage).hard
        limits = {"max_drawdown": hard.drawdown, "daily_loss": hard.session_loss}
        found = schema.records(book.rows, earlier, earlier.episode.number)
        gone = [known for known in found if _reaches(known.record, limits)]
        return (self._without(earlier, found, gone, now_us) if gone else earlier), gone

    def _without(
        self,
        strategy: Strategy,
        found: Sequence[StoredRecord],
        gone: Sequence[StoredRecord],
        now_us: int,
    ) -> Strategy:
        """The strategy by the records that were found, but for those that are gone."""
        kept = [known for known in found if known not in gone]
        return refolded(strategy, kept, self._periods(), now_us)

    def _retire(self, request: Retire, book: Book, now_us: int) -> Decided:
        strategy = book.find(request.strategy_id)
        change = core.retired(strategy, now_us, by=request.by, reason=request.reason)
        return self.changed(None, (change,), book, now_us)

    # -- within a stage

    def _freeze(self, request: Freeze, book: Book, now_us: int) -> Decided:
        change = core.frozen(
            book.find(request.strategy_id),
            now_us,
            freeze=request.frozen,
            by=request.by,
            reason=request.reason,
        )
        return Decided(None) if change is None else self.changed(None, (change,), book, now_us)

    def _set_cap(self, request: SetCap, book: Book, now_us: int) -> Decided:
        strategy = book.find(request.strategy_id)
        change = core.capped(
            strategy,
            request.cap,
            self.policy,
            now_us,
            capital=self.capital,
            others_minor=book.others_minor(strategy),
            by=request.by,
            reason=request.reason,
        )
        return Decided(None) if change is None else self.changed(None, (change,), book, now_us)

    def _add_gate(self, request: AddGate, _: Book, now_us: int) -> Decided:
        if not isinstance(request.gate, PromotionGate):
            raise MetricError("gate", request.gate, "is not a PromotionGate")
        policy = with_gate(self.policy, request.gate)
        if policy.hash == self.policy.hash:
            return Decided(None)
        return Decided(None, schema.policy_stored(policy, self._base, now_us), policy=policy)

    # -- questions

    def _evaluate(self, request: Evaluate, book: Book, now_us: int) -> Decided:
        return Decided(self.evaluate(book.find(request.strategy_id), book, now_us))

    def _snapshot(self, request: ReadSnapshot, book: Book, now_us: int) -> Decided:
        strategy = book.find(request.strategy_id)
        newest_first = schema.history(book.rows, strategy.id, SNAPSHOT_HISTORY)
        return Decided(self.snapshot(strategy, book, now_us, tuple(reversed(newest_first))))

    def snapshot(
        self, strategy: Strategy, book: Book, now_us: int, history: tuple[HistoryEntry, ...] = ()
    ) -> PromotionSnapshot:
        """The record as people see it."""
        evaluation = self.evaluate(strategy, book, now_us)
        if strategy.id in book.beyond:
            strategy = msgspec.structs.replace(strategy, cap=0.0)
        return snapshot(strategy, evaluation, now_us, history)

    def _strategies(self, _: ReadStrategies, book: Book, now_us: int) -> Decided:
        return Decided(tuple(self.snapshot(strategy, book, now_us) for strategy in book.by_name()))

    def _history(self, request: PromotionHistory, book: Book, _: int) -> Decided:
        asked = request.strategy_id
        strategy_id = None if asked is None else book.find(asked).id
        return Decided(schema.history(book.rows, strategy_id, checked_limit(request.limit)))

    def _state_as_of(self, request: StateAsOf, book: Book, _: int) -> Decided:
        return Decided(schema.state_as_of(book.rows, request.at_us))

    def _terms(self, request: ReadTerms, book: Book, _: int) -> Decided:
        strategy = book.find(request.strategy_id)
        return Decided(terms_of(strategy, self.policy, beyond=book.beyond))

    def _require(self, request: Require, book: Book, _: int) -> Decided:
        strategy = book.find(request.strategy_id)
        stage, needed = strategy.stage, self.policy.stage(request.at_least)
        if stage is PromotionStage.Retired or self.policy.rank(stage) < self.policy.rank(needed):
            raise StageTooLow(f"{strategy.name} is in {stage.value}; this run needs {needed.value}")
        return Decided(stage)


def snapshot(
    strategy: Strategy,
    evaluation: Evaluation,
    now_us: int,
    history: tuple[HistoryEntry, ...] = (),
) -> PromotionSnapshot:
    """The record as people see it. Days in stage exclude frozen time."""
    return PromotionSnapshot(
        strategy_id=strategy.id,
        name=strategy.name,
        stage=strategy.stage,
        days_in_stage=strategy.active_us(now_us) / DAY_US,
        rev=strategy.rev,
        frozen=strategy.frozen,
        cooldown_until=strategy.cooldown_until_us,
        metrics=values_of(strategy),
        evaluation=evaluation,
        history=history,
        family=strategy.family,
        version=strategy.version,
        cap=strategy.cap,
    )


def _reaches(record: Record, limits: dict[str, float | None]) -> bool:
    """Whether one of the record's worst values reaches its hard limit."""
    return any(
        limit is not None and round(worst_of(record, name), 9) >= round(limit, 9)
        for name, limit in limits.items()
    )


def _asked(request: Promote, book: Book) -> str:
    """Digest of the request, the same by its name or its id, and from each door: one gives a stage
    as text or a cap as Decimal, another does not.
    """
    name: object = request.strategy_id
    known = book.known(name) if isinstance(name, str) else None
    to, rev, cap = request.to, count_of(request.expected_rev), figure_of(request.cap)
    facts = (
        name if known is None else known.id,
        to.value if isinstance(to, PromotionStage) else to,
        request.by,
        request.reason,
        request.expected_rev if rev is None else rev,
        request.cap if cap is None else cap,
    )
    # Not as JSON, which has no lone surrogate.
    return hashlib.blake2b(repr(facts).encode(), digest_size=12).hexdigest()


_Decide = Callable[[Desk, Any, Book, int], Decided]
_DECIDES: Final[dict[type, _Decide]] = {
    Register: Desk._register,
    Adopt: Desk._adopt,
    RecordMetrics: Desk._record,
    DiscardMetrics: Desk._discard,
    Promote: Desk._promote,
    Approve: Desk._approve,
    Demote: Desk._demote,
    DemoteAutomatically: Desk._demote_automatically,
    Void: Desk._void,
    Retire: Desk._retire,
    Freeze: Desk._freeze,
    SetCap: Desk._set_cap,
    AddGate: Desk._add_gate,
    Evaluate: Desk._evaluate,
    ReadSnapshot: Desk._snapshot,
    ReadStrategies: Desk._strategies,
    PromotionHistory: Desk._history,
    StateAsOf: Desk._state_as_of,
    ReadTerms: Desk._terms,
    Require: Desk._require,
}
