"""The promotion actor: keeps every strategy's record, looks at all of them each tick, moves them by
policy.

Real capital is cut before a demotion is committed and raised only after a promotion is: at every
instant the engine may use at most what the database allows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ...runtime import Clock, Ref, handles
from ...wire.alert import Category, Level
from ...wire.controller import StrategyStatus
from ...wire.errors import Conflict, HostFault, UnknownStrategy
from ...wire.money import fraction_of, from_minor, minor_of_float
from ...wire.paging import checked_limit
from ...wire.persistence import Statement
from ...wire.promotion import (
    Adopt,
    Demote,
    EntitlementTerms,
    Evaluate,
    Evaluation,
    Freeze,
    HistoryEntry,
    Observe,
    Observed,
    Promote,
    PromotionHistory,
    PromotionSnapshot,
    PromotionStage,
    ReadSnapshot,
    ReadStrategies,
    RecordMetrics,
    Register,
    Retire,
    Transition,
)
from ..alert.requests import alert_ref, alert_request, wake_alerts
from ..host import Host
from ..persistence import DurableActor
from . import core, schema
from .core import Change, Rules, Strategy
from .metrics import Sample, Track, canonical_metrics
from .settings import PromotionSettings

__all__ = ["PromotionActor"]

log = logging.getLogger("fundops.promotion")

SNAPSHOT_HISTORY = 20


class PromotionActor(DurableActor):
    """The one that decides. `capital_minor` is the fund's: what a stage's fraction is taken of."""

    def __init__(
        self, path: Path, clock: Clock, host: Host, settings: PromotionSettings, capital_minor: int
    ) -> None:
        super().__init__(path)
        self._clock = clock
        self._host = host
        self._rules = Rules(settings)
        self._capital_minor = capital_minor
        self._strategies: dict[str, Strategy] = {}  # by id
        self._ids: dict[str, str] = {}  # by name
        self._alert: Ref | None = None

    def load(self) -> None:
        """All strategies, as they are on disk."""
        self._apply(schema.load_all(self._reader))

    async def begin(self) -> None:
        """Find the alert actor, if the tree has one."""
        self._alert = alert_ref(self.context)

    def _apply(self, strategies: Sequence[Strategy]) -> None:
        for strategy in strategies:
            self._strategies[strategy.id] = strategy
            self._ids[strategy.name] = strategy.id

    def _find(self, id_or_name: str) -> Strategy:
        strategy = self._strategies.get(self._ids.get(id_or_name, id_or_name))
        if strategy is None:
            raise UnknownStrategy(id_or_name)
        return strategy

    async def _save(self, strategies: Sequence[Strategy], *statements: Statement) -> None:
        """Append the strategies and the statements, then apply. Raises: the storage's refusal."""
        refusal = await self.append((schema.saved(strategies), *statements))
        if refusal is not None:
            raise refusal
        self._apply(strategies)

    # -- people and programs

    @handles(Register)
    async def register(self, request: Register) -> str:
        """Register a strategy and answer with its id; a known name gives the id that it has."""
        if request.name in self._ids:
            return self._ids[request.name]
        stage = self._rules.stage(request.stage)
        change = core.registered(
            request.name, stage, self._clock.now_us(), by=request.by, adopt=False
        )
        await self._save((change.after,), schema.changed((change,)))
        return change.after.id

    @handles(Adopt)
    async def adopt(self, request: Adopt) -> str:
        """Register a strategy that trades already, at any stage. Raises: `Conflict`."""
        if request.name in self._ids:
            raise Conflict(f"{request.name} is registered already")
        stage = self._rules.stage(request.stage)
        now_us = self._clock.now_us()
        change = core.registered(
            request.name, stage, now_us, by=request.by, adopt=True, reason=request.reason
        )
        await self._save((change.after,), schema.changed((change,)))
        return change.after.id

    @handles(RecordMetrics)
    async def record_metrics(self, request: RecordMetrics) -> None:
        """Record metrics of the current stage.

        The same record again changes nothing. Raises: `UnknownStrategy`, `StrategyRetired`,
        `MetricError`, `Conflict`.
        """
        now_us = self._clock.now_us()
        strategy = self._find(request.strategy_id)
        as_of_us = now_us if request.as_of_us is None else request.as_of_us
        core.check_evidence(strategy, self._rules.stage(request.stage), as_of_us, now_us)
        values = canonical_metrics(request.metrics)
        explicit = request.as_of_us is not None
        before = (
            schema.recorded_before(self._reader, strategy, as_of_us, request.source)
            if explicit
            else None
        )
        if before is not None:
            if before != values:
                raise Conflict(
                    f"{strategy.name} has other metrics recorded as of {as_of_us}"
                    f" from {request.source!r}"
                )
            return
        after = core.with_metrics(strategy, request.metrics, as_of_us)
        await self._save(
            (after,), schema.recorded(strategy, values, as_of_us, request.source, explicit=explicit)
        )

    @handles(Evaluate)
    def evaluate(self, request: Evaluate) -> Evaluation:
        """The rules' verdict on a strategy now. Writes nothing. Raises: `UnknownStrategy`."""
        return core.evaluate(self._find(request.strategy_id), self._rules, self._clock.now_us())

    @handles(Promote, Demote)
    async def move(self, request: Promote | Demote) -> Transition:
        """Promote or demote a strategy, and tell the engine.

        A demotion reaches the engine before it is durable, a promotion only afterwards. Raises: the
        refusals of `Promote` and `Demote`.
        """
        decide = core.promoted if isinstance(request, Promote) else core.demoted
        change = decide(
            self._find(request.strategy_id),
            self._rules,
            self._clock.now_us(),
            to=None if request.to is None else self._rules.stage(request.to),
            by=request.by,
            reason=request.reason,
            expected_rev=request.expected_rev,
        )
        return (await self._move([change]))[0]

    @handles(Freeze)
    async def freeze(self, request: Freeze) -> None:
        """Block or allow a strategy's promotion. Raises: `UnknownStrategy`, `StrategyRetired`."""
        strategy, now_us = self._find(request.strategy_id), self._clock.now_us()
        change = core.frozen(
            strategy, now_us, freeze=request.frozen, by=request.by, reason=request.reason
        )
        await self._save((change.after,), schema.changed((change,)))

    @handles(Retire)
    async def retire(self, request: Retire) -> None:
        """Retire a strategy. This cannot be undone.

        Raises: `UnknownStrategy`, `StrategyRetired`.
        """
        strategy, now_us = self._find(request.strategy_id), self._clock.now_us()
        change = core.retired(strategy, now_us, by=request.by, reason=request.reason)
        await self._set_stage(change.after)
        await self._save((change.after,), schema.changed((change,)))

    # -- the tick

    @handles(Observe)
    async def observe(self, request: Observe) -> Observed:
        """One look at all strategies: samples at the end of a session, hard limits always, gates
        when asked to.
        """
        now_us = self._clock.now_us()
        looked_at = [
            (self._strategies[self._ids[status.name]], status)
            for status in request.statuses
            if status.name in self._ids
        ]
        looked_at = [
            (one, status) for one, status in looked_at if one.stage is not PromotionStage.Retired
        ]
        samples = _samples(request.session, looked_at) if request.session is not None else []
        settings = self._rules.settings
        fresh = {one.id: core.with_sample(one, sample, now_us, settings) for one, sample in samples}
        looked_at = [(fresh.get(one.id, one), status) for one, status in looked_at]
        changes = self._decide(looked_at, now_us, evaluate=request.evaluate)
        moving = {change.after.id for change in changes}
        staying = [one for one, _ in looked_at if one.id not in moving]
        ready = self._newly_ready(staying, now_us) if request.evaluate else []
        transitions = await self._move(
            changes, [one for one, _ in looked_at], ready, schema.sampled(samples)
        )
        return Observed(tuple(transitions), self.terms())

    def _decide(
        self, looked_at: Sequence[tuple[Strategy, StrategyStatus]], now_us: int, *, evaluate: bool
    ) -> list[Change]:
        changes = []
        for strategy, status in looked_at:
            worth = _worth(strategy.track, status) if strategy.track.sessions else None
            down = core.breach(strategy, self._rules, worth)
            if down is not None and (down[1] or evaluate):
                reason, hard = down
                changes.append(
                    core.demoted(
                        strategy, self._rules, now_us, by="promotion", reason=reason, hard=hard
                    )
                )
            elif evaluate and core.evaluate(strategy, self._rules, now_us).would_do == "promote":
                changes.append(
                    core.promoted(
                        strategy, self._rules, now_us, by="promotion", reason="gate passed"
                    )
                )
        return changes

    def _newly_ready(self, staying: Sequence[Strategy], now_us: int) -> list[Strategy]:
        return [
            msgspec.structs.replace(strategy, ready_alerted=True)
            for strategy in staying
            if not strategy.ready_alerted
            and core.evaluate(strategy, self._rules, now_us).would_do == "ready"
        ]

    async def _move(
        self,
        changes: Sequence[Change],
        looked_at: Sequence[Strategy] = (),
        ready: Sequence[Strategy] = (),
        *statements: Statement,
    ) -> list[Transition]:
        """Commit all of it in one transaction, cutting capital before and raising it after."""
        for change in changes:
            if change.kind == "demote":
                await self._set_stage(change.after)
        touched = {one.id: one for one in looked_at if one is not self._strategies.get(one.id)}
        touched |= {one.id: one for one in ready}
        touched |= {change.after.id: change.after for change in changes}
        notes = [self._note(change) for change in changes] + [
            self._ready_note(one) for one in ready
        ]
        if self._alert is None:
            notes = []
        await self._save(list(touched.values()), *statements, schema.changed(changes), *notes)
        for change in changes:
            if change.kind == "promote":
                await self._set_stage(change.after)
        if notes:
            wake_alerts(self._alert)
        return [core.transition_of(change) for change in changes]

    async def _set_stage(self, strategy: Strategy) -> None:
        """Tell the engine. If it does not listen, the tick's reconciliation tells it again."""
        terms = terms_of(strategy, self._rules)
        cap = fraction_of(self._capital_minor, terms.real_capital_fraction)
        try:
            await self._host.set_stage(strategy.name, strategy.stage.value, cap)
        except HostFault as fault:
            log.warning("stage of %s not taken: %s", strategy.name, fault)

    def _note(self, change: Change) -> Statement:
        up = change.kind == "promote"
        old = change.from_stage.value if change.from_stage else "nowhere"
        return alert_request(
            change.at_us,
            Level.INFO if up else Level.WARNING,
            Category.PROMOTION,
            f"{change.after.name} {'promoted' if up else 'demoted'} to {change.after.stage.value}",
            f"from {old} by {change.by}: {change.reason}",
            strategy=change.after.name,
        )

    def _ready_note(self, strategy: Strategy) -> Statement:
        target = self._rules.ladder.above(strategy.stage)
        return alert_request(
            self._clock.now_us(),
            Level.INFO,
            Category.PROMOTION,
            f"{strategy.name} is ready for {target.value if target else 'nothing'}",
            "its gate passes; more real money waits for a person's promote",
            strategy=strategy.name,
        )

    def terms(self) -> dict[str, EntitlementTerms]:
        """What each strategy's stage allows, by name."""
        return {one.name: terms_of(one, self._rules) for one in self._strategies.values()}

    # -- questions

    def _history(self, strategy_id: str) -> tuple[HistoryEntry, ...]:
        return tuple(reversed(schema.history(self._reader, strategy_id, SNAPSHOT_HISTORY)))

    @handles(ReadSnapshot)
    def snapshot(self, request: ReadSnapshot) -> PromotionSnapshot:
        """One strategy now, with its newest changes, oldest first. Raises: `UnknownStrategy`."""
        strategy = self._find(request.strategy_id)
        return core.snapshot(
            strategy, self._rules, self._clock.now_us(), self._history(strategy.id)
        )

    @handles(ReadStrategies)
    def strategies(self, _: ReadStrategies) -> tuple[PromotionSnapshot, ...]:
        """All strategies in the order of their names, without their history."""
        now_us = self._clock.now_us()
        ordered = sorted(self._strategies.values(), key=lambda one: one.name)
        return tuple(core.snapshot(one, self._rules, now_us, ()) for one in ordered)

    @handles(PromotionHistory)
    def history(self, request: PromotionHistory) -> tuple[HistoryEntry, ...]:
        """Changes of one strategy or of all, newest first. Raises: `UnknownStrategy`."""
        strategy_id = None if request.strategy_id is None else self._find(request.strategy_id).id
        return schema.history(self._reader, strategy_id, checked_limit(request.limit))


def terms_of(strategy: Strategy, rules: Rules) -> EntitlementTerms:
    """What the stage of one strategy allows."""
    if strategy.stage is PromotionStage.Retired:
        return EntitlementTerms(strategy.name, strategy.stage, "none", 0.0)
    rung = rules.ladder.rung(strategy.stage)
    return EntitlementTerms(strategy.name, strategy.stage, rung.mode, rung.real_capital)


def _worth(track: Track, status: StrategyStatus) -> float | None:
    """Equity as reported just now; None when it is unknown or no number, which is the guard's to
    act upon.
    """
    try:
        return (
            None
            if status.equity is None
            else track.rebased(float(status.equity), float(status.allocated))
        )
    except (TypeError, ValueError, OverflowError):
        return None


def _samples(
    session: str, looked_at: Sequence[tuple[Strategy, StrategyStatus]]
) -> list[tuple[Strategy, Sample]]:
    """One per strategy whose figures are numbers: one whose books are broken proves nothing.

    A session that was sampled before is not sampled again: a tick that failed halfway is repeated
    as a whole.
    """
    samples = []
    for strategy, status in looked_at:
        if strategy.track.session == session:
            continue
        equity = None if status.equity is None else minor_of_float(status.equity)
        allocated = minor_of_float(status.allocated)
        counted = (
            _is_count(status.n_trades)
            and _is_count(status.n_wins)
            and status.n_wins <= status.n_trades
        )
        if equity is not None and allocated is not None and allocated > 0 and counted:
            worth, given = float(from_minor(equity)), float(from_minor(allocated))
            samples.append(
                (strategy, Sample(session, worth, given, status.n_trades, status.n_wins))
            )
    return samples


def _is_count(value: object) -> bool:
    return isinstance(value, int) and 0 <= value < 2**62
