"""Promotion against a plain model of its contract, through random histories.

`Model` is written from the contract: simple, slow, and without any code of promotion. The machine
drives it beside a `PromotionManager` and a fund in virtual time, and compares after each step
everything that can be read of the strategies. Both doors follow one clock and take the same calls;
only the fund ticks, so each door is compared with its own model.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import statistics
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
import trio
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from fundops import (
    Criterion,
    PromotionGate,
    PromotionManager,
    PromotionStage,
    VirtualClock,
)
from fundops.actors.promotion import policy_of
from fundops.runtime import Rejected
from fundops.testing import START_US, FakeController, virtual_fund
from fundops.wire.errors import (
    CapitalExceeded,
    Conflict,
    CoolingDown,
    GateNotPassed,
    MetricError,
    SkipRefused,
    StaleRevision,
    StrategyFrozen,
    StrategyRetired,
    UnknownStage,
    UnknownStrategy,
)

DAY_US = 86_400_000_000
CAPITAL = Decimal(100_000)
Paper, Shadow = PromotionStage.Paper, PromotionStage.Shadow
Small, Scaled = PromotionStage.Live_Small, PromotionStage.Live_Scaled
Retired = PromotionStage.Retired

LADDER = (Paper, Shadow, Small, Scaled)
CAPS = {Paper: 0.0, Shadow: 0.0, Small: 0.01, Scaled: 1.0, Retired: 0.0}
HARD_DRAWDOWN = {Shadow: 0.25, Small: 0.20, Scaled: 0.25}
HARD_LOSS = {Small: 0.05, Scaled: 0.05}
WORST = ("max_drawdown", "daily_loss")
LIVE = (Small, Scaled)


# -- the model

PolicyName = Literal["guarded", "literal"]


class Limit(NamedTuple):
    """One criterion of a gate, in canonical units."""

    name: str
    metric: str
    op: Literal[">=", "<="]
    limit: float
    required: bool = True


DEFAULT_GATE: tuple[Limit, ...] = (
    Limit("min_days", "days", ">=", 14),
    Limit("min_trades", "n_trades", ">=", 50),
    Limit("min_sharpe", "sharpe", ">=", 1.0),
    Limit("max_drawdown", "max_drawdown", "<=", 0.20),
    Limit("min_win_rate", "win_rate", ">=", 0.45, required=False),
)


class Refused(Exception):
    """The contract refuses the call; each of these errors would be right."""

    def __init__(self, *errors: type[Rejected]) -> None:
        self.errors = errors


@dataclasses.dataclass
class Record:
    """One call of `record_metrics` that was stored."""

    as_of_us: int
    source: str
    explicit: bool
    values: dict[str, float]
    returns: tuple[float, ...] | None = None


@dataclasses.dataclass
class Standing:
    """One strategy."""

    name: str
    stage: PromotionStage
    entered_us: int
    budget: Decimal | None
    episode: int = 1
    rev: int = 1
    episodes: int = 1
    frozen: bool = False
    # Days in the stage are the time since its begin, up to `stopped_us`, without `left_out_us`.
    left_out_us: int = 0
    stopped_us: int | None = None
    cooldown_us: int | None = None
    strikes_us: list[int] = dataclasses.field(default_factory=list)
    cap: float | None = None
    records: list[Record] = dataclasses.field(default_factory=list)
    stored_active_us: int = 0

    def latest(self, metric: str) -> tuple[float, int] | str:
        """Value and instant, or "missing" or "undefined".

        The newest record that has the metric counts, ties by arrival. A drawdown never falls.
        A Sharpe ratio from a series of returns beats a recorded one.
        """
        if metric == "sharpe":
            series = [(one.as_of_us, n, one.returns) for n, one in enumerate(self.records)]
            measured = [(at_us, n, found) for at_us, n, found in series if found is not None]
            if measured:
                at_us, _, returns = max(measured, key=lambda one: one[:2])
                sharpe = sharpe_of(returns)
                return "undefined" if sharpe is None else (sharpe, at_us)
        found = [
            (record.as_of_us, n, record.values[metric])
            for n, record in enumerate(self.records)
            if metric in record.values
        ]
        if metric == "max_drawdown":
            found += [
                (record.as_of_us, n, drawdown_of(record.returns))
                for n, record in enumerate(self.records)
                if record.returns is not None
            ]
        if not found:
            return "missing"
        newest_us, _, value = max(found, key=lambda one: one[:2])
        if metric in WORST:
            value = max(one[2] for one in found)
        return value, newest_us

    def active_us(self, now_us: int) -> int:
        """Time in the stage without frozen time; never less than was stored."""
        return max(self.stored_active_us, self.counted_us(now_us))

    def counted_us(self, now_us: int) -> int:
        """As the clock shows it now."""
        until_us = now_us if self.stopped_us is None else self.stopped_us
        return until_us - self.entered_us - self.left_out_us

    def go_on(self, now_us: int) -> None:
        """Days run again. A clock that was set back meanwhile gives none."""
        if self.stopped_us is not None:
            self.left_out_us += max(0, now_us - self.stopped_us)
        self.stopped_us = None


class Line(NamedTuple):
    """One line of history, with the whole record after it."""

    name: str
    kind: str
    from_stage: PromotionStage | None
    to_stage: PromotionStage
    by: str
    at_us: int
    before: Standing | None
    after: Standing
    hard: bool = False


class Model:
    """Strategies in memory. Calls answer or raise `Refused`; `now_us` is given to each."""

    def __init__(self, capital: Decimal | None, policy: PolicyName) -> None:
        self.capital = capital
        self.policy = policy
        self.gates = dict.fromkeys(LADDER[:-1], DEFAULT_GATE)
        self.strategies: dict[str, Standing] = {}
        self.lines: list[Line] = []
        self.requests: dict[str, tuple[Any, Any]] = {}

    # -- reading

    def find(self, name: str) -> Standing:
        if name not in self.strategies:
            raise Refused(UnknownStrategy)
        return self.strategies[name]

    def entitled(self, strategy: Standing, stage: PromotionStage, cap: float | None) -> Decimal:
        """The real capital of the strategy in a stage."""
        budget = strategy.budget or self.capital or Decimal(0)
        share = CAPS[stage] if cap is None else cap
        return (budget * Decimal(str(share))).quantize(Decimal("1e-8"))

    def room(self, strategy: Standing | None) -> Decimal | None:
        """The real capital that all other strategies leave."""
        if self.capital is None:
            return None
        others = (one for one in self.strategies.values() if one is not strategy)
        return self.capital - sum(self.entitled(one, one.stage, one.cap) for one in others)

    def over_capital(
        self, strategy: Standing, stage: PromotionStage, cap: float | None = None
    ) -> bool:
        room, wanted = self.room(strategy), self.entitled(strategy, stage, cap)
        return room is not None and wanted > 0 and wanted > room

    def verdict(self, strategy: Standing, limit: Limit, now_us: int) -> tuple[str, str] | None:
        """The verdict of one criterion and the word of its reason; None: it is skipped."""
        if limit.metric == "days":
            if now_us < strategy.entered_us:
                return "INCONCLUSIVE", "clock"
            passes = strategy.active_us(now_us) >= limit.limit * DAY_US
            return ("PASS", "") if passes else ("FAIL", "")
        latest = strategy.latest(limit.metric)
        if isinstance(latest, str):
            return ("INCONCLUSIVE", latest) if limit.required or latest != "missing" else None
        value, as_of_us = latest
        if now_us // DAY_US - as_of_us // DAY_US >= 2:
            return "INCONCLUSIVE", "stale"
        left, right = round(value, 9), round(limit.limit, 9)
        passes = left >= right if limit.op == ">=" else left <= right
        return ("PASS", "") if passes else ("FAIL", "")

    def verdicts(self, strategy: Standing, now_us: int) -> dict[str, tuple[str, str]]:
        """By criterion; without those that are skipped."""
        judged = {
            limit.name: self.verdict(strategy, limit, now_us)
            for limit in self.gates.get(strategy.stage, ())
        }
        return {name: verdict for name, verdict in judged.items() if verdict is not None}

    def gate(self, strategy: Standing, now_us: int) -> str:
        """Any FAIL is FAIL, else any INCONCLUSIVE; without a required criterion INCONCLUSIVE."""
        verdicts = {verdict for verdict, _ in self.verdicts(strategy, now_us).values()}
        if "FAIL" in verdicts:
            return "FAIL"
        passes = self.proves(strategy) and verdicts == {"PASS"}
        return "PASS" if passes else "INCONCLUSIVE"

    def proves(self, strategy: Standing) -> bool:
        """Whether its gate has a required criterion."""
        return any(limit.required for limit in self.gates.get(strategy.stage, ()))

    def breached(self, strategy: Standing) -> bool:
        """Whether a hard limit is breached, inclusively."""
        limits = {
            "max_drawdown": HARD_DRAWDOWN.get(strategy.stage),
            "daily_loss": HARD_LOSS.get(strategy.stage),
        }
        for metric, limit in limits.items():
            latest = strategy.latest(metric)
            if limit is not None and not isinstance(latest, str) and round(latest[0], 9) >= limit:
                return True
        return False

    def above(self, stage: PromotionStage) -> PromotionStage | None:
        return None if stage in (Scaled, Retired) else LADDER[LADDER.index(stage) + 1]

    def blocked(self, strategy: Standing, now_us: int) -> set[str]:
        """Every reason why it is not promoted by itself."""
        target = self.above(strategy.stage)
        assert target is not None
        cooling = strategy.cooldown_us is not None and now_us < strategy.cooldown_us
        reasons = {
            "limit": self.breached(strategy),
            "gate": self.gate(strategy, now_us) != "PASS" and self.proves(strategy),
            "config": self.gate(strategy, now_us) != "PASS" and not self.proves(strategy),
            "frozen": strategy.frozen,
            "cooldown": cooling,
            "capital": self.over_capital(strategy, target),
            "approval": self.policy == "guarded" and target in LIVE,
        }
        return {reason for reason, holds in reasons.items() if holds}

    def would_do(self, strategy: Standing, now_us: int) -> str:
        if self.breached(strategy):
            return "demote"
        if self.above(strategy.stage) is None:
            return "none"
        blocked = self.blocked(strategy, now_us)
        if blocked == {"approval"}:
            return "ready"
        return "none" if blocked else "promote"

    def next_possible_us(self, strategy: Standing, now_us: int) -> int | None:
        """When nothing but time is missing; None: more is."""
        if self.above(strategy.stage) is None:
            return None
        missed = {
            name for name, (word, _) in self.verdicts(strategy, now_us).items() if word != "PASS"
        }
        if missed - {"min_days"} or self.blocked(strategy, now_us) - {
            "gate",
            "cooldown",
            "approval",
        }:
            return None
        if missed and now_us < strategy.entered_us:
            return None
        days = next((one for one in self.gates[strategy.stage] if one.metric == "days"), None)
        left_us = 0
        if days is not None and missed:
            left_us = int(days.limit) * DAY_US - strategy.active_us(now_us)
        return max(now_us + left_us, strategy.cooldown_us or 0)

    def state_as_of(self, at_us: int) -> dict[str, Standing]:
        """Each strategy after the newest line that was written until then."""
        return {line.name: line.after for line in self.lines if line.at_us <= at_us}

    # -- writing

    def note(
        self,
        kind: str,
        after: Standing,
        before: Standing | None,
        by: str,
        now_us: int,
        *,
        hard: bool = False,
    ) -> None:
        """Keep the record with its line of history."""
        after.stored_active_us = max(0, after.active_us(now_us))
        self.strategies[after.name] = after
        self.lines.append(
            Line(
                after.name,
                kind,
                None if before is None else before.stage,
                after.stage,
                by,
                now_us,
                copy.deepcopy(before),
                copy.deepcopy(after),
                hard,
            )
        )

    def register(
        self, name: str, stage: PromotionStage, budget: Decimal | None, now_us: int
    ) -> None:
        if stage is Retired:
            raise Refused(UnknownStage, SkipRefused)
        known = self.strategies.get(name)
        if known is not None:
            if known.stage is Retired:
                raise Refused(StrategyRetired)
            if budget is not None and budget != known.budget:
                raise Refused(Conflict)
            return
        if stage not in (Paper, Shadow):
            raise Refused(SkipRefused)
        strategy = Standing(name, stage, now_us, budget)
        self.note("register", strategy, None, "operator", now_us)

    def adopt(
        self,
        name: str,
        stage: PromotionStage,
        budget: Decimal | None,
        over_capital: bool,
        now_us: int,
    ) -> None:
        known = self.strategies.get(name)
        if known is not None:
            raise Refused(StrategyRetired if known.stage is Retired else Conflict)
        strategy = Standing(name, stage, now_us, budget)
        if not over_capital and self.over_capital(strategy, stage):
            raise Refused(CapitalExceeded)
        self.note("adopt", strategy, None, "ann", now_us)

    def record(
        self,
        name: str,
        stage: PromotionStage,
        metrics: Mapping[str, Any],
        as_of_us: int | None,
        source: str,
        now_us: int,
    ) -> None:
        strategy = self.find(name)
        if strategy.stage is Retired:
            raise Refused(StrategyRetired, MetricError, UnknownStage)
        values, returns = canonical(metrics), series_of(metrics.get("returns"))
        at_us = now_us if as_of_us is None else as_of_us
        early = at_us < min(strategy.entered_us, now_us) - 300_000_000
        wrong = values is None or returns == "refused"
        if wrong or stage is not strategy.stage or at_us > now_us + 300_000_000 or early:
            raise Refused(MetricError, UnknownStage)
        for record in strategy.records if as_of_us is not None else ():
            if record.explicit and (record.as_of_us, record.source) == (as_of_us, source):
                if (record.values, record.returns) != (values, returns):
                    raise Refused(Conflict)
                return
        assert values is not None
        assert returns is None or isinstance(returns, tuple)
        strategy.records.append(Record(at_us, source, as_of_us is not None, values, returns))
        strategy.stored_active_us = max(0, strategy.active_us(now_us))

    def discard(self, name: str, as_of_us: int, source: str, now_us: int) -> None:
        before = self.find(name)
        key = (as_of_us, source)
        after = copy.deepcopy(before)
        after.records = [one for one in after.records if (one.as_of_us, one.source) != key]
        if before.stage is Retired or len(after.records) == len(before.records):
            raise Refused(StrategyRetired, MetricError)
        after.rev += 1
        self.note("discard", after, before, "ann", now_us)

    def move(self, strategy: Standing, to: PromotionStage, now_us: int) -> Standing:
        """In its next episode: earlier evidence, days and cap do not count there."""
        return dataclasses.replace(
            copy.deepcopy(strategy),
            stage=to,
            entered_us=now_us,
            episode=strategy.episodes + 1,
            episodes=strategy.episodes + 1,
            rev=strategy.rev + 1,
            left_out_us=0,
            stopped_us=now_us if strategy.frozen else None,
            stored_active_us=0,
            cap=None,
            records=[],
        )

    def refusals(
        self, strategy: Standing, now_us: int, to: PromotionStage | None, cap: float | None
    ) -> set[type[Rejected]]:
        """Every reason why a person's promotion is refused."""
        if strategy.stage is Retired:
            return {StrategyRetired}
        target = self.above(strategy.stage)
        if target is None or to not in (None, target):
            return {SkipRefused, UnknownStage} if to is Retired else {SkipRefused}
        blocked = self.blocked(strategy, now_us)
        found: set[type[Rejected]] = set()
        if blocked & {"gate", "config", "limit"}:
            found |= {GateNotPassed}
        if "frozen" in blocked:
            found |= {StrategyFrozen}
        if "cooldown" in blocked:
            found |= {CoolingDown}
        if self.over_capital(strategy, target, cap):
            found |= {CapitalExceeded}
        if cap is not None and not 0 < cap <= CAPS[target]:
            found |= {MetricError}
        return found

    def promote(
        self,
        name: str,
        now_us: int,
        *,
        to: PromotionStage | None = None,
        expected_rev: int | None = None,
        request_id: str | None = None,
        cap: float | None = None,
        by: str = "ann",
    ) -> tuple[str, PromotionStage, PromotionStage]:
        content = ("promote", name, to, expected_rev, cap, by)
        if request_id is not None and request_id in self.requests:
            before, outcome = self.requests[request_id]
            if before != content:
                raise Refused(Conflict)
            return outcome  # type: ignore[no-any-return]
        strategy = self.find(name)
        found = self.refusals(strategy, now_us, to, cap)
        if expected_rev not in (None, strategy.rev):
            found |= {StaleRevision}
        if found:
            raise Refused(*found)
        target = self.above(strategy.stage)
        assert target is not None
        after = self.move(strategy, target, now_us)
        after.cap = cap
        self.note("promote", after, strategy, by, now_us)
        answer = (name, strategy.stage, target)
        if request_id is not None:
            self.requests[request_id] = content, answer
        return answer

    def demote(self, name: str, to: PromotionStage | None, now_us: int) -> None:
        """A person's demotion has no cooldown and is no strike."""
        strategy = self.find(name)
        if strategy.stage is Retired:
            raise Refused(StrategyRetired, UnknownStage)
        if strategy.stage is Paper or to is Retired:
            raise Refused(SkipRefused, UnknownStage)
        rank = LADDER.index(strategy.stage)
        target = LADDER[rank - 1] if to is None else to
        if LADDER.index(target) >= rank:
            raise Refused(SkipRefused)
        self.note("demote", self.move(strategy, target, now_us), strategy, "ann", now_us)

    def fall(self, strategy: Standing, now_us: int) -> None:
        """The demotion that a hard limit orders."""
        target = Shadow if strategy.stage in LIVE else Paper
        after = self.move(strategy, target, now_us)
        recent = [at_us for at_us in strategy.strikes_us if at_us > now_us - 180 * DAY_US]
        days = min(90, 30 * 2 ** len(recent))
        after.cooldown_us = max(strategy.cooldown_us or 0, now_us + days * DAY_US)
        after.strikes_us = [*recent, now_us]
        if len(recent) + 1 >= 3:
            after.frozen, after.stopped_us = True, now_us
        self.note("demote", after, strategy, "promotion", now_us, hard=True)

    def look(self, now_us: int) -> None:
        """One tick of a fund: demotions, then promotions that wait for no person."""
        standing = [one for one in self.strategies.values() if one.stage is not Retired]
        falling = [one for one in standing if self.breached(one)]
        for strategy in falling:
            self.fall(strategy, now_us)
        for strategy in standing:
            if strategy not in falling and self.would_do(strategy, now_us) == "promote":
                self.promote(strategy.name, now_us, by="promotion")

    def freeze(self, name: str, freeze: bool, now_us: int) -> None:
        strategy = self.find(name)
        if strategy.stage is Retired:
            raise Refused(StrategyRetired)
        if strategy.frozen is freeze:
            return
        after = copy.deepcopy(strategy)
        after.rev += 1
        after.frozen = freeze
        if freeze:
            after.stopped_us = now_us
        else:
            after.go_on(now_us)
        self.note("freeze" if freeze else "unfreeze", after, strategy, "ann", now_us)

    def retire(self, name: str, now_us: int) -> None:
        strategy = self.find(name)
        if strategy.stage is Retired:
            raise Refused(StrategyRetired)
        self.note("retire", self.move(strategy, Retired, now_us), strategy, "ann", now_us)

    def set_cap(self, name: str, cap: float, now_us: int) -> None:
        """Lower at any time, higher up to the rung's cap and within the fund's capital."""
        strategy = self.find(name)
        if strategy.stage is Retired:
            raise Refused(StrategyRetired)
        if isinstance(cap, bool) or not 0 < cap <= CAPS[strategy.stage]:
            raise Refused(MetricError)
        present = CAPS[strategy.stage] if strategy.cap is None else strategy.cap
        if cap == present:
            return
        if cap > present and self.over_capital(strategy, strategy.stage, cap):
            raise Refused(CapitalExceeded)
        after = dataclasses.replace(copy.deepcopy(strategy), cap=cap, rev=strategy.rev + 1)
        self.note("cap", after, strategy, "ann", now_us)

    def void(self, seq: int, now_us: int) -> None:
        """Undo the newest transition; records since then do not count."""
        if not 1 <= seq <= len(self.lines):
            raise Refused(Conflict)
        line = self.lines[seq - 1]
        strategy = self.find(line.name)
        moves = [
            number
            for number, one in enumerate(self.lines, start=1)
            if one.name == line.name and one.kind in ("promote", "demote", "retire", "void")
        ]
        if strategy.stage is Retired or line.kind not in ("promote", "demote") or moves[-1] != seq:
            raise Refused(Conflict, StrategyRetired)
        assert line.before is not None
        after = dataclasses.replace(
            copy.deepcopy(line.before),
            rev=strategy.rev + 1,
            episodes=strategy.episodes,
            stored_active_us=line.before.active_us(line.at_us),
        )
        if after.stopped_us is None:
            after.stopped_us = line.at_us
        after.go_on(now_us)
        since = (one for one in self.lines[seq:] if one.name == line.name)
        if any(one.kind in ("freeze", "unfreeze") for one in since):
            after.frozen = strategy.frozen
        after.stopped_us = now_us if after.frozen else None
        if line.hard:
            deepest, worst = HARD_DRAWDOWN[after.stage], HARD_LOSS.get(after.stage, 2.0)
            after.records = [
                one
                for one in after.records
                if round(one.values.get("max_drawdown", 0), 9) < deepest
                and round(drawdown_of(one.returns or ()), 9) < deepest
                and round(one.values.get("daily_loss", 0), 9) < worst
            ]
        if self.over_capital(strategy, after.stage, after.cap):
            raise Refused(CapitalExceeded)
        self.note("void", after, strategy, "ann", now_us)


def sharpe_of(returns: Sequence[float]) -> float | None:
    """Of a year of 365 sessions; None: undefined."""
    if len(returns) < 2:
        return None
    sd = statistics.stdev(returns)
    return None if sd < 1e-12 else math.sqrt(365) * statistics.fmean(returns) / sd


def drawdown_of(returns: Sequence[float]) -> float:
    """The deepest fall from an earlier peak, which the base is too."""
    equity = peak = 1.0
    deepest = 0.0
    for change in returns:
        equity *= 1 + change
        peak = max(peak, equity)
        deepest = max(deepest, 1 - equity / peak)
    return deepest


def series_of(given: Any) -> tuple[float, ...] | str | None:
    """A series of returns; None: there is none."""
    if given is None:
        return None
    numbers = [plain(value) for value in given]
    if not numbers or None in numbers:
        return "refused"
    return tuple(number for number in numbers if number is not None)


FRACTIONS = ("max_drawdown", "win_rate", "daily_loss", "tracking_error")


def plain(value: Any) -> float | None:
    """A number as a float; None when it is none."""
    if isinstance(value, bool | np.bool_ | str | bytes | list | np.ndarray | complex):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def canonical(metrics: Mapping[str, Any]) -> dict[str, float] | None:
    """In fractions, without missing values; None when the contract refuses them."""
    values: dict[str, float] = {}
    for name, given in metrics.items():
        if given is None or name == "returns":
            continue
        number = plain(given)
        if number is None:
            return None
        values[name] = number
    if "max_drawdown_pct" in values:
        fraction = values.pop("max_drawdown_pct") / 100
        if round(values.get("max_drawdown", fraction) - fraction, 9):
            return None
        values.setdefault("max_drawdown", round(fraction, 12))
    for name in FRACTIONS:
        if not 0 <= values.get(name, 0) <= 1:
            return None
    for name in ("n_trades", "fills"):
        if values.get(name, 0) < 0 or values.get(name, 0) % 1:
            return None
    return values


# -- the two doors


class SteppingClock(VirtualClock):
    """A clock whose wall time can be set back. Monotonic time only runs forward."""

    def step_back(self, seconds: int) -> None:
        self._start_us -= seconds * 1_000_000
        self._now_us -= seconds * 1_000_000


class ManagerDoor:
    """A `PromotionManager` with its own file."""

    capital: Decimal | None = None
    ticks = False

    def __init__(self, folder: Path, clock: SteppingClock, policy: PolicyName) -> None:
        path = folder / "promotion.db"
        self.manager = PromotionManager(path, policy=policy_of(policy), clock=clock)

    def call(self, method: str, *arguments: Any, **more: Any) -> Any:
        return getattr(self.manager, method)(*arguments, **more)

    def close(self) -> None:
        pass


class FundDoor:
    """The promotion of a fund, whose trio loop runs in another thread."""

    capital: Decimal | None = CAPITAL
    ticks = True

    def __init__(self, folder: Path, clock: SteppingClock, policy: PolicyName) -> None:
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._live, args=(folder, clock, policy))
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def _live(self, folder: Path, clock: SteppingClock, policy: PolicyName) -> None:
        try:
            trio.run(self._opened, folder, clock, policy)
        except BaseException as failure:  # noqa: BLE001  raised in the thread that waits for it
            self._failure = failure
        finally:
            self._ready.set()

    async def _opened(self, folder: Path, clock: SteppingClock, policy: PolicyName) -> None:
        async with virtual_fund(
            FakeController(),
            clock=clock,
            promotion_enabled=True,
            promotion_policy=policy,
            promotion_every_ticks=1,
            total_capital=CAPITAL,
            db_path=folder / "fund.db",
        ) as self.world:
            self._token = trio.lowlevel.current_trio_token()
            self._closing = trio.Event()
            self._ready.set()
            await self._closing.wait()

    def call(self, method: str, *arguments: Any, **more: Any) -> Any:
        async def ask() -> Any:
            return await getattr(self.world.fund.promotion, method)(*arguments, **more)

        return trio.from_thread.run(ask, trio_token=self._token)

    def tick(self, names: list[str]) -> None:
        """One tick, in which the engine lists the strategies without any figure."""

        async def tick() -> None:
            for name in names:
                self.world.controller.set(name)
            await self.world.tick()

        trio.from_thread.run(tick, trio_token=self._token)

    def close(self) -> None:
        trio.from_thread.run_sync(self._closing.set, trio_token=self._token)
        self._thread.join()
        if self._failure is not None:
            raise self._failure


Door = ManagerDoor | FundDoor


# -- the machine

NAMES = ("alpha", "beta", "gamma")
NAME = st.sampled_from(NAMES)
STAGE = st.sampled_from(LADDER)
GOOD: dict[str, Any] = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}

# Values at each limit, one step beside it, of other libraries, and such as are no figures.
SHARPES = st.sampled_from([1.0, 0.9999999999, 0.99, 2, Decimal("1.5"), np.float32(1.5), -3.0])
DRAWDOWNS = st.sampled_from([0.0, 0.08, 0.2, 0.2000000001, 0.21, 0.25, 0.24999, np.float64(0.3), 1])
PERCENTS = st.sampled_from([8.0, 0.07 * 100, 20, 20.0000001, 25.0, 100])
COUNTS = st.sampled_from([0, 49, 50, 150.0, np.int64(60), Decimal(77)])
RATES = st.sampled_from([0.45, 0.4499, 0.6, np.float16(0.5), 0, 1])
RETURNS = st.sampled_from(
    [
        [0.01, -0.002, 0.004, 0.003],
        (0.01, -0.3, 0.004),
        np.array([0.01, -0.002, 0.004]),
        [0.001] * 5,
        [0.01],
        [0.01, math.nan],
    ]
)
LOSSES = st.sampled_from([0.0, 0.04, 0.05, 0.0499, 0.2])
BAD = st.sampled_from(
    [
        math.nan,
        -math.inf,
        True,
        np.bool_(True),
        np.float64("nan"),
        "1.2",
        -0.08,
        8.5,
        [1.0],
        np.array([1.0]),
        1j,
        10**400,
    ]
)
METRICS = st.fixed_dictionaries(
    {},
    optional={
        "sharpe": st.none() | SHARPES,
        "max_drawdown": st.none() | DRAWDOWNS,
        "max_drawdown_pct": PERCENTS,
        "n_trades": st.none() | COUNTS,
        "win_rate": RATES,
        "daily_loss": LOSSES,
        "returns": RETURNS,
        "of_ones_own": st.just(7.5),
    },
)
BAD_METRICS = st.tuples(
    METRICS,
    st.sampled_from(["max_drawdown", "n_trades", "win_rate", "daily_loss", "max_drawdown_pct"]),
    BAD,
).map(lambda made: {**made[0], made[1]: made[2]})
# A day less and a day, seven and fourteen days, each to the microsecond.
STEPS_US = st.sampled_from(
    [1, 1_000_000, 3_600_000_000, DAY_US, 2 * DAY_US, 7 * DAY_US, 14 * DAY_US - 1, 14 * DAY_US]
)
REQUEST = st.none() | st.sampled_from(["r1", "r2", "r3"])


class Side(NamedTuple):
    """One door with the model of it."""

    door: Door
    model: Model


def words(blocked_by: Any) -> set[str]:
    """The first word of each reason."""
    return {str(reason).split()[0].rstrip(":") for reason in blocked_by}


class Histories(RuleBasedStateMachine):
    """Each rule asks both doors and their models, and compares answers and all that can be read."""

    doors: tuple[type[Door], ...] = (ManagerDoor, FundDoor)

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = SteppingClock(START_US)
        self.sides: list[Side] = []
        self.steps = 0

    @initialize(policy=st.sampled_from(["guarded", "literal"]), stage=STAGE)
    def opened(self, policy: PolicyName, stage: PromotionStage) -> None:
        """Two strategies from the beginning, one of them at any stage."""
        for door in self.doors:
            made = door(Path(self.folder.name), self.clock, policy)
            self.sides.append(Side(made, Model(made.capital, policy)))
        self.register("alpha", Paper, None)
        self.adopt("beta", stage, None, False)

    def teardown(self) -> None:
        for side in self.sides:
            side.door.close()
        self.folder.cleanup()

    @property
    def now_us(self) -> int:
        return self.clock.now_us()

    # -- comparing

    def one(
        self,
        index: int,
        method: str,
        *arguments: Any,
        expected: Callable[[Model], Any],
        **more: Any,
    ) -> None:
        """A call at one door; what its model says of it must come out."""
        door, trial = self.sides[index].door, copy.deepcopy(self.sides[index].model)
        refusal: Rejected | None = None
        answer: Any = None
        try:
            answer = door.call(method, *arguments, **more)
        except Rejected as raised:
            refusal = raised
        errors: tuple[type[Rejected], ...] = ()
        due: Any = None
        try:
            due = expected(trial)
        except Refused as refused:
            errors = refused.errors
        if errors:
            assert isinstance(refusal, errors), (method, arguments, more, refusal, errors)
            return
        assert refusal is None, (method, arguments, more, refusal)
        self.sides[index] = Side(door, trial)
        if isinstance(due, tuple):
            assert (answer.strategy, answer.from_stage, answer.to_stage) == due

    def both(
        self, method: str, *arguments: Any, expected: Callable[[Model], Any], **more: Any
    ) -> None:
        """The same call at each door."""
        for index in range(len(self.sides)):
            self.one(index, method, *arguments, expected=expected, **more)
        self.compare()

    def compare(self) -> None:
        for door, model in self.sides:
            shown = {one.name: one for one in door.call("strategies")}
            assert shown.keys() == model.strategies.keys()
            for name, strategy in model.strategies.items():
                self.compare_one(door, model, strategy, shown[name])
            self.steps += 1
            if model.strategies:
                # One of them in turn, since each call opens the file.
                names = sorted(model.strategies)
                strategy = model.strategies[names[self.steps % len(names)]]
                self.compare_calls(door, model, strategy, shown[strategy.name])
            self.compare_history(door, model)

    def compare_one(self, door: Door, model: Model, strategy: Standing, shown: Any) -> None:
        now_us, evaluation = self.now_us, shown.evaluation
        days = max(0, strategy.active_us(now_us)) / DAY_US
        assert (shown.stage, shown.rev, shown.frozen) == (
            strategy.stage,
            strategy.rev,
            strategy.frozen,
        )
        assert shown.cooldown_until == strategy.cooldown_us
        assert shown.days_in_stage == pytest.approx(days, abs=1e-9)
        assert evaluation.episode == strategy.episode
        judged = {
            one.name: (one.verdict, one.reason.split()[0].rstrip(":") if one.reason else "")
            for one in evaluation.criteria
        }
        due = model.verdicts(strategy, now_us)
        assert {name: verdict for name, (verdict, _) in judged.items()} == {
            name: verdict for name, (verdict, _) in due.items()
        }
        for name, (verdict, reason) in due.items():
            if verdict == "INCONCLUSIVE":
                assert judged[name][1] == reason
        assert evaluation.verdict == model.gate(strategy, now_us)
        assert evaluation.would_do == model.would_do(strategy, now_us)
        if not model.breached(strategy):
            assert evaluation.next_possible_us == model.next_possible_us(strategy, now_us)
        if model.above(strategy.stage) is not None:
            assert words(evaluation.blocked_by) == model.blocked(strategy, now_us)

    def compare_calls(self, door: Door, model: Model, strategy: Standing, shown: Any) -> None:
        """The calls for one strategy say the same."""
        promotes = shown.evaluation.would_do in ("promote", "ready")
        assert door.call("evaluate", shown.strategy_id) == shown.evaluation
        assert door.call("should_promote", strategy.name) is promotes
        assert door.call("should_demote", strategy.name) is model.breached(strategy)
        assert door.call("current_stage", strategy.name) is strategy.stage
        self.compare_capital(door, model, strategy)

    def compare_capital(self, door: Door, model: Model, strategy: Standing) -> None:
        """The entitlement of a stage is cap times budget."""
        budget = strategy.budget or CAPITAL
        modes = {Paper: "paper", Shadow: "shadow", Retired: "none"}
        terms = door.call("entitlement", strategy.name, budget=budget)
        assert terms.mode == modes.get(strategy.stage, "live")
        share = CAPS[strategy.stage] if strategy.cap is None else strategy.cap
        if strategy.stage in (Paper, Shadow):
            share = 1.0
        assert terms.capital == budget * Decimal(str(share))

    def compare_history(self, door: Door, model: Model) -> None:
        lines = list(reversed(door.call("history", limit=10_000)))
        assert [
            (line.strategy, line.kind, line.from_stage, line.to_stage, line.effective_us, line.rev)
            for line in lines
        ] == [
            (line.name, line.kind, line.from_stage, line.to_stage, line.at_us, line.after.rev)
            for line in model.lines
        ]
        assert all(line.by == due.by for line, due in zip(lines, model.lines, strict=True))

    # -- the rules

    @rule(
        name=NAME, stage=st.sampled_from([*LADDER, Retired]), budget=st.sampled_from([None, 40_000])
    )
    def register(self, name: str, stage: PromotionStage, budget: int | None) -> None:
        due = None if budget is None else Decimal(budget)
        self.both(
            "register",
            name,
            stage,
            budget=budget,
            expected=lambda model: model.register(name, stage, due, self.now_us),
        )

    @rule(name=NAME, stage=STAGE, budget=st.sampled_from([None, 60_000]), over=st.booleans())
    def adopt(self, name: str, stage: PromotionStage, budget: int | None, over: bool) -> None:
        due = None if budget is None else Decimal(budget)
        self.both(
            "adopt",
            name,
            stage,
            by="ann",
            reason="it trades",
            budget=budget,
            over_capital=over,
            expected=lambda model: model.adopt(name, stage, due, over, self.now_us),
        )

    @rule(
        name=NAME,
        stage=st.none() | STAGE,
        metrics=METRICS | BAD_METRICS | st.just(GOOD),
        ago_us=st.sampled_from([None, None, 0, 1, DAY_US, 3 * DAY_US, -200_000_000, -400_000_000]),
        source=st.sampled_from(["", "backtest"]),
    )
    def record_metrics(
        self,
        name: str,
        stage: PromotionStage | None,
        metrics: dict[str, Any],
        ago_us: int | None,
        source: str,
    ) -> None:
        as_of_us = None if ago_us is None else self.now_us - ago_us
        for index, side in enumerate(self.sides):
            known = side.model.strategies.get(name)
            # None: the stage in which the strategy is.
            at = stage or (known.stage if known is not None else Paper)
            self.one(
                index,
                "record_metrics",
                name,
                at,
                metrics,
                as_of=as_of_us,
                source=source,
                expected=partial(
                    Model.record,
                    name=name,
                    stage=at,
                    metrics=metrics,
                    as_of_us=as_of_us,
                    source=source,
                    now_us=self.now_us,
                ),
            )
        self.compare()

    @rule(name=NAME, offset=st.sampled_from([None, None, 0, 0, 1, -1]), to=st.none() | STAGE)
    def promote(self, name: str, offset: int | None, to: PromotionStage | None) -> None:
        for index, side in enumerate(self.sides):
            known = side.model.strategies.get(name)
            rev = None if offset is None or known is None else known.rev + offset
            self.one(
                index,
                "promote",
                name,
                to=to,
                by="ann",
                expected_rev=rev,
                expected=partial(
                    Model.promote, name=name, now_us=self.now_us, to=to, expected_rev=rev
                ),
            )
        self.compare()

    @rule(name=NAME)
    def climb(self, name: str) -> None:
        """Fourteen days with good figures, and a person's promotion: the way up is not rare."""
        self.clock.advance_to(self.now_us + 14 * DAY_US)
        for index, side in enumerate(self.sides):
            known = side.model.strategies.get(name)
            if known is None or known.stage is Retired:
                continue
            stage = known.stage
            self.one(
                index,
                "record_metrics",
                name,
                stage,
                GOOD,
                expected=partial(
                    Model.record,
                    name=name,
                    stage=stage,
                    metrics=GOOD,
                    as_of_us=None,
                    source="",
                    now_us=self.now_us,
                ),
            )
        self.both(
            "promote", name, by="ann", expected=lambda model: model.promote(name, self.now_us)
        )

    @rule(name=NAME, request_id=st.sampled_from(["r1", "r2"]), by=st.sampled_from(["ann", "bob"]))
    def promote_once(self, name: str, request_id: str, by: str) -> None:
        """The same id again gives the first outcome, or is a Conflict when its content differs."""
        self.both(
            "promote",
            name,
            by=by,
            request_id=request_id,
            expected=lambda model: model.promote(name, self.now_us, by=by, request_id=request_id),
        )

    @rule(name=NAME, to=st.none() | st.sampled_from([*LADDER, Retired]))
    def demote(self, name: str, to: PromotionStage | None) -> None:
        self.both(
            "demote",
            name,
            to=to,
            by="ann",
            reason="drill",
            expected=lambda model: model.demote(name, to, self.now_us),
        )

    @rule(name=NAME, freeze=st.booleans())
    def freeze(self, name: str, freeze: bool) -> None:
        self.both(
            "freeze" if freeze else "unfreeze",
            name,
            by="ann",
            reason="drill",
            expected=lambda model: model.freeze(name, freeze, self.now_us),
        )

    @precondition(lambda self: self.sides[0].model.policy == "guarded")
    @rule(name=NAME, cap=st.sampled_from([None, None, 0.01, 0.005, 0.5, 1.0, 0, -1, 1.5]))
    def approve(self, name: str, cap: float | None) -> None:
        """A person's approval of an increase of real money."""
        for index, side in enumerate(self.sides):
            known = side.model.strategies.get(name)
            if known is not None and side.model.above(known.stage) not in LIVE:
                continue
            self.one(
                index,
                "approve",
                name,
                by="ann",
                cap=cap,
                expected=lambda model: model.promote(name, self.now_us, cap=cap),
            )
        self.compare()

    @rule(name=NAME, cap=st.sampled_from([0.01, 0.005, 0.5, 1.0, 0, -1, 1.5, math.nan, True]))
    def set_cap(self, name: str, cap: float) -> None:
        self.both(
            "set_cap",
            name,
            cap,
            by="ann",
            reason="drill",
            expected=lambda model: model.set_cap(name, cap, self.now_us),
        )

    @rule(back=st.sampled_from([0, 0, 0, 1, 2, 5]))
    def void(self, back: int) -> None:
        """The newest transition of all, or one before it, or a line that is none."""
        for index, side in enumerate(self.sides):
            moves = [
                seq
                for seq, line in enumerate(side.model.lines, start=1)
                if line.kind in ("promote", "demote")
            ]
            seq = moves[-1 - back] if len(moves) > back else 0
            self.one(
                index,
                "void",
                seq,
                by="ann",
                reason="a wrong record",
                expected=partial(Model.void, seq=seq, now_us=self.now_us),
            )
        self.compare()

    @rule(name=NAME, pick=st.integers(0, 3))
    def discard_metrics(self, name: str, pick: int) -> None:
        for index, side in enumerate(self.sides):
            known = side.model.strategies.get(name)
            records = [] if known is None else known.records
            as_of_us, source = (
                (records[pick].as_of_us, records[pick].source)
                if pick < len(records)
                else (self.now_us, "nowhere")
            )
            self.one(
                index,
                "discard_metrics",
                name,
                as_of_us,
                source,
                by="ann",
                reason="a wrong record",
                expected=partial(
                    Model.discard, name=name, as_of_us=as_of_us, source=source, now_us=self.now_us
                ),
            )
        self.compare()

    @rule(stage=st.sampled_from([Shadow, Small]), which=st.sampled_from(["few", "none", "own"]))
    def add_gate(self, stage: PromotionStage, which: str) -> None:
        """A gate of one's own guards the way up from its stage."""
        limits: tuple[Limit, ...] = {
            "few": (Limit("few_trades", "n_trades", ">=", 10.0),),
            "none": (Limit("some_wins", "win_rate", ">=", 0.4, required=False),),
            "own": DEFAULT_GATE,
        }[which]
        criteria = tuple(Criterion(*limit) for limit in limits)
        for index in range(len(self.sides)):
            self.one(
                index,
                "add_gate",
                PromotionGate(stage, criteria),
                expected=lambda model: model.gates.update({stage: limits}),
            )
        self.compare()

    @precondition(lambda self: self.sides[0].model.lines)
    @rule(ago_us=st.integers(-1, 40 * DAY_US))
    def past(self, ago_us: int) -> None:
        """The state as of an instant agrees with the history."""
        at_us = self.now_us - ago_us
        for door, model in self.sides:
            assert {
                one.name: (one.stage, one.rev, one.frozen, one.cooldown_until, one.episode, one.cap)
                for one in door.call("state_as_of", at_us)
            } == {
                name: (
                    one.stage,
                    one.rev,
                    one.frozen,
                    one.cooldown_us,
                    one.episode,
                    one.cap,
                )
                for name, one in model.state_as_of(at_us).items()
            }

    @rule(name=st.sampled_from(["gamma", "delta"]))
    def retire(self, name: str) -> None:
        self.both(
            "retire",
            name,
            by="ann",
            reason="drill",
            expected=lambda model: model.retire(name, self.now_us),
        )

    @rule(step_us=STEPS_US)
    def time_passes(self, step_us: int) -> None:
        self.clock.advance_to(self.now_us + step_us)
        self.compare()

    @rule()
    def the_fund_ticks(self) -> None:
        for side in self.sides:
            if isinstance(side.door, FundDoor):
                side.door.tick(list(side.model.strategies))
                side.model.look(self.now_us)
        self.compare()


class HistoriesOfManager(Histories):
    """A manager alone, whose clock is also set back: a fund would doubt such a clock."""

    doors = (ManagerDoor,)

    @rule(seconds=st.sampled_from([1, 3_600, 90_000]))
    def the_wall_clock_is_set_back(self, seconds: int) -> None:
        self.clock.step_back(seconds)
        self.compare()


@pytest.mark.parametrize(
    ("machine", "examples", "steps"),
    [
        (Histories, 5, 25),
        (HistoriesOfManager, 8, 25),
        pytest.param(Histories, 300, 60, marks=pytest.mark.soak),
        pytest.param(HistoriesOfManager, 500, 60, marks=pytest.mark.soak),
    ],
)
def test_any_history_agrees_with_the_model(
    machine: type[Histories], examples: int, steps: int
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            # The same histories at each run; the long runs look for new ones.
            derandomize=examples < 100,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
