"""The promotion actor: keeps every strategy's record, looks at all of them each tick, moves them by
policy.

Real capital is cut before a demotion is committed and raised only after a promotion is: at every
instant the engine may use at most what the database allows.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from decimal import Decimal
from pathlib import Path

import msgspec

from ...runtime import Clock, Ref, handles
from ...wire.alert import Category, Level
from ...wire.border import NAME_MAX
from ...wire.controller import StrategyStatus
from ...wire.entitlement import capital_of
from ...wire.errors import Conflict, HostFault, OutcomeUnknown, UnknownStrategy
from ...wire.foreign import fitted
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
from ...wire.status import ShowPromotion
from ...wire.stream.records import PromotionFull
from ..alert.requests import alert_ref, alert_request, wake_alerts
from ..guard import Leases
from ..host import Host
from ..persistence import DurableActor
from . import core, gate, schema, shown
from .metrics import Reading, Sample, canonical_metrics, count_of, figure_of
from .settings import PromotionSettings
from .strategy import Change, Rules, Strategy, terms_of

__all__ = ["PromotionActor"]

log = logging.getLogger("fundops.promotion")

SNAPSHOT_HISTORY = 20
# The looks of one tick, a plain one and the end of a session, are this close together.
SAME_TICK_US = 1_000_000

_STAGES = {stage.value for stage in PromotionStage}


class PromotionActor(DurableActor):
    """Keeps the record of each strategy and moves it between stages.

    `capital_minor` is the fund's: the budget of a strategy without its own, and the bound of all
    entitlements together.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        host: Host,
        settings: PromotionSettings,
        capital_minor: int,
        leases: Leases | None = None,
    ) -> None:
        super().__init__(path)
        self._clock = clock
        self._host = host
        self._leases = leases or Leases(clock)
        self._rules = Rules(settings, capital_minor=capital_minor)
        self._capital_minor = capital_minor
        self._strategies: dict[str, Strategy] = {}  # by id
        self._saved: dict[str, Strategy] = {}  # by id; as they are on disk
        self._ids: dict[str, str] = {}  # by name
        self._entitled_minor = 0  # the real capital of all strategies together
        self._looked_us = 0  # at the last look within a session
        self._alert: Ref | None = None
        self._moves: dict[str, HistoryEntry] = {}  # the last one of each strategy, by id

    def load(self) -> None:
        """All strategies, as they are on disk, with their leases limited to it."""
        strategies = schema.load_all(self._reader)
        core.check_on_ladder(strategies, self._rules)
        self._apply(strategies)
        self._limit(strategies)

    async def begin(self) -> None:
        """Find the alert actor, if the tree has one."""
        self._alert = alert_ref(self.context)
        room_minor = self._rules.room_minor(self._entitled_minor)
        if room_minor is not None and room_minor < 0:
            log.warning("the strategies are entitled to more than max_total_entitlement_pct allows")

    def _apply(self, strategies: Iterable[Strategy]) -> None:
        for strategy in strategies:
            self._saved[strategy.id] = strategy
            self._ids[strategy.name] = strategy.id
            self._take(strategy)

    def _take(self, strategy: Strategy) -> None:
        """Keep the record in memory, where it may be newer than on disk."""
        before = self._strategies.get(strategy.id)
        if before is None or before.stage is not strategy.stage:
            self._entitled_minor += self._rules.entitled_minor(strategy)
            if before is not None:
                self._entitled_minor -= self._rules.entitled_minor(before)
        self._strategies[strategy.id] = strategy

    def _others_minor(self, strategy: Strategy) -> int:
        """The real capital that all other strategies are entitled to."""
        return self._entitled_minor - self._rules.entitled_minor(strategy)

    def _find(self, id_or_name: object) -> Strategy:
        if not isinstance(id_or_name, str):  # a list would crash the look-up, and the actor
            raise UnknownStrategy(fitted(id_or_name, NAME_MAX))
        strategy = self._strategies.get(self._ids.get(id_or_name, id_or_name))
        if strategy is None:
            raise UnknownStrategy(id_or_name)
        return strategy

    async def _save(self, strategies: Sequence[Strategy], *statements: Statement) -> None:
        """Append the strategies and the statements, then apply. Raises: the storage's refusal."""
        refusal = await self.append((schema.saved(strategies), *statements))
        if refusal is not None:
            if not isinstance(refusal, OutcomeUnknown):  # `load` tells what is stored
                # A demotion has lowered its limit, and is not stored.
                self._limit(self._saved[one.id] for one in strategies if one.id in self._saved)
            raise refusal
        self._apply(strategies)

    # -- people and programs

    def _known(self, name: str) -> Strategy | None:
        """The strategy that has this name or this id."""
        return self._strategies.get(self._ids.get(name, name))

    @handles(Register)
    async def register(self, request: Register) -> str:
        """Register a strategy; the same name again gives the same id."""
        core.check_name(request.name)
        stage = self._rules.stage(request.stage)
        known = self._known(request.name)
        if known is not None:
            return core.repeated(known, request.name, request.budget_minor)
        change = core.registered(
            request.name,
            stage,
            self._clock.now_us(),
            by=request.by,
            adopt=False,
            budget_minor=request.budget_minor,
        )
        await self._save((change.after,), schema.changed((change,)))
        return change.after.id

    @handles(Adopt)
    async def adopt(self, request: Adopt) -> str:
        """Register a strategy that trades already, at any stage. Raises: `Conflict`."""
        core.check_name(request.name)
        stage = self._rules.stage(request.stage)
        known = self._known(request.name)
        if known is not None:
            core.repeated(known, request.name, None)
            raise Conflict(f"{request.name} is registered already")
        change = core.registered(
            request.name,
            stage,
            self._clock.now_us(),
            by=request.by,
            adopt=True,
            reason=request.reason,
            budget_minor=request.budget_minor,
        )
        if not request.over_capital:
            core.check_capital(change.after, stage, self._rules, self._entitled_minor)
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
        values, source = canonical_metrics(request.metrics), core.check_source(request.source)
        explicit = request.as_of_us is not None
        before = (
            schema.recorded_before(self._reader, strategy, as_of_us, source) if explicit else None
        )
        if before is not None:
            if before != values:
                raise Conflict(
                    f"{strategy.name} has other metrics recorded as of {as_of_us} from {source!r}"
                )
            return
        after = core.with_metrics(strategy, request.metrics, as_of_us)
        await self._save(
            (after,), schema.recorded(strategy, values, as_of_us, source, explicit=explicit)
        )

    @handles(Evaluate)
    def evaluate(self, request: Evaluate) -> Evaluation:
        """The verdict of the rules now; nothing is written."""
        return self._evaluate(self._find(request.strategy_id), self._clock.now_us())

    def _evaluate(self, strategy: Strategy, now_us: int) -> Evaluation:
        return gate.evaluate(strategy, self._rules, now_us, self._others_minor(strategy))

    @handles(Promote)
    async def promote(self, request: Promote) -> Transition:
        """One stage up, on a gate that passes now."""
        strategy = self._find(request.strategy_id)
        change = core.promoted(
            strategy,
            self._rules,
            self._clock.now_us(),
            to=None if request.to is None else self._rules.stage(request.to),
            by=request.by,
            reason=request.reason,
            expected_rev=request.expected_rev,
            others_minor=self._others_minor(strategy),
        )
        return (await self._move([change]))[0]

    @handles(Demote)
    async def demote(self, request: Demote) -> Transition:
        """Down, also a frozen or cooling strategy."""
        change = core.demoted(
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
        """Block or allow promotion. Raises: `UnknownStrategy`, `StrategyRetired`."""
        strategy, now_us = self._find(request.strategy_id), self._clock.now_us()
        change = core.frozen(
            strategy, now_us, freeze=request.frozen, by=request.by, reason=request.reason
        )
        if change is not None:
            await self._save((change.after,), schema.changed((change,)))

    @handles(Retire)
    async def retire(self, request: Retire) -> None:
        """Retire a strategy, which cannot be undone. Raises: `StrategyRetired`."""
        strategy, now_us = self._find(request.strategy_id), self._clock.now_us()
        change = core.retired(strategy, now_us, by=request.by, reason=request.reason)
        await self._set_stage(change.after)
        await self._save((change.after,), schema.changed((change,)))

    # -- the tick

    @handles(Observe)
    async def observe(self, request: Observe) -> Observed:
        """One look at all strategies: their figures and hard limits at each look, a sample at a
        session's end, gates when asked to.
        """
        now_us = self._clock.now_us()
        statuses = {status.name: status for status in request.statuses if status.name in self._ids}
        looks = [
            self._look(strategy, statuses.get(strategy.name), request, now_us)
            for strategy in self._strategies.values()
            if strategy.stage is not PromotionStage.Retired
            and (strategy.name in statuses or request.session is not None)
        ]
        if request.session is None:
            self._looked_us = now_us
        looked_at = [look for look, _ in looks]
        samples = [(look, sample) for look, sample in looks if sample is not None]
        reported = [look for look in looked_at if look.name in statuses]
        changes = self._decide(reported, now_us, evaluate=request.evaluate)
        moving = {change.after.id for change in changes}
        staying = [look for look in reported if look.id not in moving]
        ready = self._newly_ready(staying, now_us) if request.evaluate else []
        transitions = await self._move(changes, looked_at, ready, schema.sampled(samples))
        return Observed(tuple(transitions), self.terms())

    def _is_same_tick(self, now_us: int) -> bool:
        """Whether a plain look came just before: then newer figures than these may be known."""
        return 0 <= now_us - self._looked_us < SAME_TICK_US

    def _look(
        self,
        strategy: Strategy,
        status: StrategyStatus | None,
        request: Observe,
        now_us: int,
    ) -> tuple[Strategy, Sample | None]:
        """The record after this look, and the sample when it ends a session."""
        track = strategy.track
        reading = None if status is None else _reading(strategy, status, now_us)
        if reading is not None and request.session is not None and self._is_same_tick(now_us):
            reading = track.at_close(reading)
        after = strategy if reading is None else core.seen(strategy, reading)
        # Kept whether or not storage takes this look: a fall that was seen once has happened.
        self._take(after)
        if request.session is None:
            return after, None
        # At the very first status nothing has been earned or lost yet.
        begins = reading is not None and (
            not track.is_begun or (track.is_base(reading) and now_us - track.base_us < SAME_TICK_US)
        )
        after = core.session_ended(
            after,
            request.session,
            now_us,
            self._rules.settings,
            measured=reading is not None and not begins,
            periods_per_year=request.periods_per_year,
        )
        if reading is None or after.track.sessions == track.sessions:
            return after, None
        sample = Sample(
            request.session, reading.equity, reading.allocated, reading.n_trades, reading.n_wins
        )
        return after, sample

    def _decide(self, reported: Sequence[Strategy], now_us: int, *, evaluate: bool) -> list[Change]:
        """Demotions first: the capital that they free counts for the promotions."""
        entitled_minor = self._rules.entitled_minor
        total_minor, changes, staying = self._entitled_minor, [], []
        for strategy in reported:
            down = gate.breach(strategy, self._rules)
            if down is None or not (down[1] or evaluate):
                staying.append(strategy)
                continue
            reason, hard = down
            change = core.demoted(
                strategy, self._rules, now_us, by="promotion", reason=reason, hard=hard
            )
            total_minor += entitled_minor(change.after) - entitled_minor(strategy)
            changes.append(change)
        for strategy in staying if evaluate else ():
            others_minor = total_minor - entitled_minor(strategy)
            evaluation = gate.evaluate(strategy, self._rules, now_us, others_minor)
            if evaluation.would_do == "promote":
                change = core.promoted(
                    strategy,
                    self._rules,
                    now_us,
                    by="promotion",
                    reason="gate passed",
                    others_minor=others_minor,
                )
                total_minor = others_minor + entitled_minor(change.after)
                changes.append(change)
        return changes

    def _newly_ready(self, staying: Sequence[Strategy], now_us: int) -> list[Strategy]:
        return [
            msgspec.structs.replace(strategy, ready_alerted=True)
            for strategy in staying
            if not strategy.ready_alerted and self._evaluate(strategy, now_us).would_do == "ready"
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
        touched = {look.id: look for look in looked_at if self._is_worth_saving(look)}
        touched |= {strategy.id: strategy for strategy in ready}
        touched |= {change.after.id: change.after for change in changes}
        notes = [*self._notes(changes), *[self._ready_note(strategy) for strategy in ready]]
        if self._alert is None:
            notes = []
        await self._save(list(touched.values()), *statements, schema.changed(changes), *notes)
        for look in looked_at:
            if look.id not in touched:
                self._take(look)
        for change in changes:
            if change.kind == "promote":
                await self._set_stage(change.after)
        if notes:
            wake_alerts(self._alert)
        return [core.transition_of(change) for change in changes]

    def _is_worth_saving(self, look: Strategy) -> bool:
        """Small moves within a session stay in memory: a commit for each tick of each strategy
        would be most of the fund's writing.
        """
        saved = self._saved[look.id]
        return look.closes_us != saved.closes_us or look.track.is_worth_saving(saved.track)

    async def _set_stage(self, strategy: Strategy) -> None:
        """Limit the lease and tell the engine; if it does not listen, reconciliation repeats it."""
        cap = self._capital(strategy)
        self._limit((strategy,))
        try:
            await self._host.set_stage(strategy.name, strategy.stage.value, cap)
        except HostFault as fault:
            log.warning("stage of %s not taken: %s", strategy.name, fault)

    def _limit(self, strategies: Iterable[Strategy]) -> None:
        """Limit the leases to what these stages allow, at once and not at the next tick."""
        self._leases.limit({strategy.name: self._capital(strategy) for strategy in strategies})

    def _capital(self, strategy: Strategy) -> Decimal:
        """The real capital that its stage allows."""
        return capital_of(terms_of(strategy, self._rules), self._capital_minor)

    def _notes(self, changes: Sequence[Change]) -> list[Statement]:
        """One alert for each change, but one for all that lose real money at once: the rate limit
        must not hold back the name of any of them.
        """
        urgent = [change for change in changes if _ends_real_money(change)]
        notes = [self._note(change) for change in changes if not _ends_real_money(change)]
        if len(urgent) == 1:
            notes.append(self._note(urgent[0]))
        elif urgent:
            lines = [f"{change.after.name}: {_story(change)}" for change in urgent]
            note = alert_request(
                urgent[0].at_us,
                Level.CRITICAL,
                Category.PROMOTION,
                f"{len(urgent)} strategies demoted from real money",
                "; ".join(lines),
            )
            notes.append(note)
        return notes

    def _note(self, change: Change) -> Statement:
        up = change.kind == "promote"
        level = Level.INFO if up else Level.WARNING
        return alert_request(
            change.at_us,
            Level.CRITICAL if _ends_real_money(change) else level,
            Category.PROMOTION,
            f"{change.after.name} {'promoted' if up else 'demoted'} to {change.after.stage.value}",
            _story(change),
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
        """The terms of each strategy's stage, by name."""
        return {
            strategy.name: terms_of(strategy, self._rules) for strategy in self._strategies.values()
        }

    # -- questions

    def _history(self, strategy_id: str) -> tuple[HistoryEntry, ...]:
        return tuple(reversed(schema.history(self._reader, strategy_id, SNAPSHOT_HISTORY)))

    @handles(ReadSnapshot)
    def snapshot(self, request: ReadSnapshot) -> PromotionSnapshot:
        """One strategy now, with its newest changes, oldest first. Raises: `UnknownStrategy`."""
        strategy = self._find(request.strategy_id)
        return self._snapshot(strategy, self._clock.now_us(), self._history(strategy.id))

    def _snapshot(
        self, strategy: Strategy, now_us: int, history: tuple[HistoryEntry, ...]
    ) -> PromotionSnapshot:
        others_minor = self._others_minor(strategy)
        return core.snapshot(strategy, self._rules, now_us, history, others_minor)

    @handles(ReadStrategies)
    def strategies(self, _: ReadStrategies) -> tuple[PromotionSnapshot, ...]:
        """All strategies, by name, without their history."""
        now_us = self._clock.now_us()
        ordered = sorted(self._strategies.values(), key=lambda strategy: strategy.name)
        return tuple(self._snapshot(strategy, now_us, ()) for strategy in ordered)

    @handles(ShowPromotion)
    def show(self, _: ShowPromotion) -> dict[str, PromotionFull]:
        """All strategies as the status stream shows them, by name; nothing is written."""
        now_us = self._clock.now_us()
        ordered = sorted(self._strategies.values(), key=lambda strategy: strategy.name)
        return {
            strategy.name: shown.full(
                strategy,
                self._evaluate(strategy, now_us),
                self._rules,
                now_us,
                self._last_move(strategy),
            )
            for strategy in ordered
        }

    def _last_move(self, strategy: Strategy) -> HistoryEntry | None:
        known = self._moves.get(strategy.id)
        if known is None or known.rev != strategy.rev:
            known = schema.move_of(self._reader, strategy)
            if known is not None:
                self._moves[strategy.id] = known
        return known

    @handles(PromotionHistory)
    def history(self, request: PromotionHistory) -> tuple[HistoryEntry, ...]:
        """Changes of one strategy or of all, newest first. Raises: `UnknownStrategy`."""
        strategy_id = None if request.strategy_id is None else self._find(request.strategy_id).id
        return schema.history(self._reader, strategy_id, checked_limit(request.limit))


def _ends_real_money(change: Change) -> bool:
    was_live = change.from_stage is not None and change.from_stage.is_live
    return change.kind == "demote" and was_live


def _story(change: Change) -> str:
    old = change.from_stage.value if change.from_stage else "nowhere"
    return f"from {old} by {change.by}: {change.reason}"


def _reading(strategy: Strategy, status: StrategyStatus, now_us: int) -> Reading | None:
    """The figures of one status; None when it is no evidence.

    A strategy whose figures are no numbers, or that has nothing allocated, proves nothing. An
    episode begins when the engine has its stage in force: an earlier status belongs to the stage
    before, with another allocation.
    """
    if (
        not strategy.track.is_begun
        and status.stage in _STAGES
        and status.stage != strategy.stage.value
    ):
        return None
    equity, allocated = figure_of(status.equity), figure_of(status.allocated)
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
        figure_of(status.realized_pnl),
        figure_of(status.unrealized_pnl),
        status.run if isinstance(status.run, str) else None,
        now_us,
    )
