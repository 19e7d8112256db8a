"""PromotionManager: the lifecycle of strategies without a fund around it, for synchronous code.

    manager = PromotionManager(db_path="promotions.db")
    strategy_id = manager.register("bollinger_mr_w20")

It keeps no state between calls and takes the writer's lock only for the length of one write, so
several processes may share a file. The rules and the tables are the fund's own. A file that a
running fund owns can be read, and every write is refused with the owner's pid.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from fundops.actors.persistence import Reader, Rows, Store, commit_batch
from fundops.actors.promotion import (
    Capital,
    PromotionGate,
    PromotionPolicy,
    core,
    policy_of,
    schema,
    with_gate,
)
from fundops.actors.promotion.capital import terms_of
from fundops.actors.promotion.evaluation import evaluate
from fundops.actors.promotion.metrics import canonical_metrics
from fundops.actors.promotion.strategy import Change, Strategy
from fundops.config import home, is_file_path
from fundops.file.database import MIGRATIONS
from fundops.file.lock import OwnerLock
from fundops.moments import Instant, instant_us
from fundops.runtime import Clock, ConfigError, SystemClock, shown
from fundops.wire.entitlement import capital_of
from fundops.wire.errors import Conflict, DatabaseError, StageTooLow, UnknownStrategy
from fundops.wire.guard import Entitlement
from fundops.wire.money import Amount, from_minor, positive_minor
from fundops.wire.paging import checked_limit
from fundops.wire.persistence import Committed, Statement
from fundops.wire.promotion import (
    Evaluation,
    HistoryEntry,
    PromotionSnapshot,
    PromotionStage,
    Transition,
)

__all__ = ["PromotionManager"]

T = TypeVar("T")

LOCK_WAIT_S = 5.0
SNAPSHOT_HISTORY = 20
FOR_EVER_US = 2**62
BUDGET = 100_000  # of a strategy that was registered without one


class PromotionManager:
    """Strategies may be named by their id or by their name. Refusals are in
    `fundops.wire.errors`.
    """

    def __init__(
        self,
        db_path: str | Path | None = None,
        *,
        policy: PromotionPolicy | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`db_path` None: promotion.db in the home folder. `policy` None: `policy_of("guarded")`.

        Raises: `DatabaseError`; `ConfigError` for a name that is no file; `PolicyError` naming a
        strategy whose stage the ladder lacks.
        """
        if db_path is not None and not is_file_path(db_path):
            problem = f"{shown(db_path)} is no file; the strategies of a call are read by the next"
            raise ConfigError("db_path", problem)
        # Located once: the working folder may change between two calls.
        path = Path(db_path) if db_path is not None else home() / "promotion.db"
        self._path = Path(os.path.realpath(path))
        self._policy = policy_of() if policy is None else policy
        self._clock = clock or SystemClock()
        # One call at a time: the connection is opened for each, but two threads would fight over
        # the file's lock.
        self._turn = threading.Lock()
        if not _is_made(self._path):
            with self._writing():
                pass  # the file exists, and is ours, from here on
        self._read(lambda file: core.check_on_ladder(schema.load_all(file.rows), self._policy))

    # -- gates

    def add_gate(self, gate: PromotionGate) -> None:
        """Replace the criteria that guard the way up from the gate's stage.

        Raises: `UnknownStage`; `ConfigError` for an object that is no gate; `PolicyError` naming
            the criterion that makes no sense.
        """
        if not isinstance(gate, PromotionGate):
            raise ConfigError("gate", f"{shown(gate)} is not a PromotionGate")
        self._policy = with_gate(self._policy, gate)

    # -- registering and recording

    def register(
        self,
        strategy_name: str,
        initial_stage: PromotionStage = PromotionStage.Paper,
        *,
        budget: Amount | None = None,
    ) -> str:
        """The strategy's id; the same name again gives the same id.

        `budget` is its capital at full size, in units of the currency; None: what `entitlement` is
        asked with, or the capital of the fund that opens the file.

        Raises: `SkipRefused` above shadow, `StrategyRetired`, `MetricError` for the name,
        `AmountError` for the budget; `Conflict` for another strategy's id or another budget.
        """
        stage = self._policy.stage(initial_stage)
        core.check_name(strategy_name)
        budget_minor = _minor_of(budget)
        with self._writing() as file:
            known = schema.find(file.rows, strategy_name)
            if known is not None:
                return core.repeated(known, strategy_name, budget_minor)
            change = core.registered(
                strategy_name,
                stage,
                self._clock.now_us(),
                by="operator",
                adopt=False,
                budget_minor=budget_minor,
            )
            return file.change(change).after.id

    def adopt(
        self,
        name: str,
        stage: PromotionStage,
        *,
        by: str,
        reason: str,
        budget: Amount | None = None,
        over_capital: bool = False,
    ) -> str:
        """Take over a strategy that is already trading, at any stage.

        The manager knows no capital, so it has no bound that `over_capital` would lift.

        Raises: `Conflict` when it is registered, `StrategyRetired`; `MetricError` for the name,
        `by` or `reason`; `AmountError` for the budget.
        """
        core.check_name(name)
        found = self._policy.stage(stage)
        budget_minor = _minor_of(budget)
        with self._writing() as file:
            known = schema.find(file.rows, name)
            if known is not None:
                core.repeated(known, name, None)
                raise Conflict(f"{name} is registered already")
            change = core.registered(
                name,
                found,
                self._clock.now_us(),
                by=by,
                adopt=True,
                reason=reason,
                budget_minor=budget_minor,
            )
            return file.change(change).after.id

    def record_metrics(
        self,
        strategy_id: str,
        stage: PromotionStage,
        metrics: Mapping[str, Any],
        *,
        as_of: Instant | None = None,
        source: str = "",
    ) -> None:
        """Record metrics of the running stage so far.

        A value that a fund measured counts before a recorded one. Among records the newest `as_of`
        counts for each metric, and a worst value such as `max_drawdown` never falls.

        Raises: `MetricError` naming the field, `Conflict`.
        """
        explicit_us = instant_us("as_of", as_of)
        values, source = canonical_metrics(metrics), core.check_source(source)
        with self._writing() as file:
            now_us = self._clock.now_us()
            as_of_us = now_us if explicit_us is None else explicit_us
            strategy = file.find(strategy_id)
            core.check_evidence(strategy, self._policy.stage(stage), as_of_us, now_us)
            core.check_source(source)
            before = (
                schema.recorded_before(file.rows, strategy, as_of_us, source)
                if explicit_us is not None
                else None
            )
            if before is not None and before != values:
                raise Conflict(
                    f"{strategy.name} has other metrics recorded as of {as_of_us} from {source!r}"
                )
            if before is None:
                after = core.with_metrics(strategy, metrics, as_of_us)
                evidence = schema.recorded(
                    strategy, values, as_of_us, source, explicit=explicit_us is not None
                )
                file.write(schema.saved((after,)), evidence)

    # -- deciding

    def evaluate(self, strategy_id: str) -> Evaluation:
        """The verdict of the policy now; writes nothing."""
        strategy = self._read(lambda file: file.find(strategy_id))
        return evaluate(strategy, self._policy, self._clock.now_us(), capital=Capital())

    def should_promote(self, strategy_id: str) -> bool:
        """Whether `promote` would go through now."""
        return self.evaluate(strategy_id).would_do in ("promote", "ready")

    def should_demote(self, strategy_id: str) -> bool:
        """Whether a hard limit is breached, or a soft one for long enough."""
        return self.evaluate(strategy_id).would_do == "demote"

    def promote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """One stage up, on a current PASS. Raises: `GateNotPassed` with the evaluation, and
        other refusals.
        """
        return self._move(
            core.promoted, strategy_id, to, by=by, reason=reason, expected_rev=expected_rev
        )

    def demote(
        self,
        strategy_id: str,
        *,
        to: PromotionStage | None = None,
        by: str = "operator",
        reason: str = "",
        expected_rev: int | None = None,
    ) -> Transition:
        """One stage down, or to the lower one named. Raises: `SkipRefused`, `StaleRevision`,
        `StrategyRetired`.
        """
        return self._move(
            core.demoted, strategy_id, to, by=by, reason=reason, expected_rev=expected_rev
        )

    def freeze(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """No promotion until unfrozen; demotion still works. A second call changes nothing."""
        self._change(
            strategy_id,
            lambda strategy, now_us: core.frozen(
                strategy, now_us, freeze=True, by=by, reason=reason
            ),
        )

    def unfreeze(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Promotion is allowed again. A second call changes nothing."""
        self._change(
            strategy_id,
            lambda strategy, now_us: core.frozen(
                strategy, now_us, freeze=False, by=by, reason=reason
            ),
        )

    def retire(self, strategy_id: str, *, by: str = "operator", reason: str = "") -> None:
        """Retire the strategy. This cannot be undone."""
        self._change(
            strategy_id,
            lambda strategy, now_us: core.retired(strategy, now_us, by=by, reason=reason),
        )

    # -- reading

    def current_stage(self, strategy_id: str) -> PromotionStage:
        """The strategy's current stage. Raises: `UnknownStrategy`."""
        return self._read(lambda file: file.find(strategy_id)).stage

    def snapshot(self, strategy_id: str) -> PromotionSnapshot:
        """Stage, days in it, metrics, evaluation, and the last 20 lines of history, oldest
        first.
        """

        def read(file: _File) -> tuple[Strategy, tuple[HistoryEntry, ...]]:
            strategy = file.find(strategy_id)
            return strategy, schema.history(file.rows, strategy.id, SNAPSHOT_HISTORY)

        strategy, newest_first = self._read(read)
        return core.snapshot(
            strategy, self._policy, self._clock.now_us(), tuple(reversed(newest_first))
        )

    def strategies(self) -> tuple[PromotionSnapshot, ...]:
        """All of them, by name, without their history."""
        now_us = self._clock.now_us()
        found = self._read(lambda file: schema.load_all(file.rows))
        return tuple(core.snapshot(strategy, self._policy, now_us, ()) for strategy in found)

    def history(self, strategy_id: str | None = None, limit: int = 50) -> tuple[HistoryEntry, ...]:
        """Newest first."""
        count = checked_limit(limit)

        def read(file: _File) -> tuple[HistoryEntry, ...]:
            return schema.history(
                file.rows, file.find(strategy_id).id if strategy_id is not None else None, count
            )

        return self._read(read)

    # -- as a check before a run

    def require(self, strategy_id: str, *, at_least: PromotionStage) -> PromotionStage:
        """The current stage. Raises: `StageTooLow` when it is below `at_least`, `UnknownStage`."""
        stage = self.current_stage(strategy_id)
        needed = self._policy.rank(self._policy.stage(at_least))
        if stage is PromotionStage.Retired or self._policy.rank(stage) < needed:
            raise StageTooLow(f"{strategy_id} is in {stage.value}; this run needs {at_least.value}")
        return stage

    def entitlement(
        self, strategy_id: str, budget: Amount | msgspec.UnsetType = msgspec.UNSET
    ) -> Entitlement:
        """Mode and capital of the current stage, of a full budget: live-small gets 1% of it,
        paper and shadow none of it for real, but all of it as the notional they trade with.

        Without `budget` it is the one that the strategy was registered with, or 100,000.

        Raises: `AmountError` for no budget at all.
        """
        strategy = self._read(lambda file: file.find(strategy_id))
        if budget is msgspec.UNSET:
            given = strategy.budget_minor
            budget_minor = positive_minor(BUDGET).minor if given is None else given
        else:
            budget_minor = positive_minor(budget, "budget").minor
        sized = msgspec.structs.replace(strategy, budget_minor=budget_minor)
        terms = terms_of(sized, self._policy)
        notional = from_minor(budget_minor if terms.mode in ("paper", "shadow") else 0)
        live = terms.mode == "live"
        capital = capital_of(terms, 0) if live else notional
        return Entitlement(terms.stage.value, terms.mode, capital, FOR_EVER_US, live, live)

    # -- one call, one look at the file

    def _move(
        self, rule: Callable[..., Change], strategy_id: str, to: PromotionStage | None, **how: Any
    ) -> Transition:
        target = None if to is None else self._policy.stage(to)
        change = self._change(
            strategy_id,
            lambda strategy, now_us: rule(strategy, self._policy, now_us, to=target, **how),
        )
        assert change is not None
        return core.transition_of(change)

    def _change(
        self, strategy_id: str, decide: Callable[[Strategy, int], Change | None]
    ) -> Change | None:
        with self._writing() as file:
            change = decide(file.find(strategy_id), self._clock.now_us())
            return None if change is None else file.change(change)

    def _read(self, question: Callable[[_File], T]) -> T:
        # The writer's connection, without the lock: a read needs no permission, and the same code
        # finds the rows.
        with self._turn, _opened(self._path) as file:
            return question(file)

    @contextmanager
    def _writing(self) -> Iterator[_File]:
        lock = OwnerLock(self._path)
        with self._turn:
            lock.acquire(wait_s=LOCK_WAIT_S)
            try:
                with _opened(self._path) as file:
                    yield file
            finally:
                lock.release()


class _File:
    """An open database, for the length of one call."""

    def __init__(self, rows: Rows, write: Callable[[tuple[Statement, ...]], None]) -> None:
        self.rows = rows
        self._write = write

    def find(self, id_or_name: str) -> Strategy:
        """Raises: `UnknownStrategy`."""
        found = schema.find(self.rows, id_or_name) if isinstance(id_or_name, str) else None
        if found is None:
            raise UnknownStrategy(id_or_name)
        return found

    def change(self, change: Change) -> Change:
        self.write(schema.saved((change.after,)), schema.changed((change,)))
        return change

    def write(self, *statements: Statement) -> None:
        """All of them, durable on return. Raises: the storage's refusal."""
        self._write(statements)


def _minor_of(budget: Amount | None) -> int | None:
    return None if budget is None else positive_minor(budget, "budget").minor


def _is_made(path: Path) -> bool:
    """Whether the file is a database of this version already: then nothing is written to begin
    with it, and one that a running fund owns can be read.
    """
    try:
        with Reader(path) as reader:
            return bool(reader.row("PRAGMA user_version")[0] == len(MIGRATIONS))
    except DatabaseError:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    store = Store(path, MIGRATIONS)

    def write(statements: tuple[Statement, ...]) -> None:
        answer = commit_batch(store, [statements])[0]
        if not isinstance(answer, Committed):
            raise answer

    try:
        yield _File(Rows(store.connection), write)
    finally:
        store.connection.close()
