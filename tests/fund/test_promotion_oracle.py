"""Promotion against a plain model of its contract, through random histories.

`Model` is written from the contract: simple, slow, and without any code of promotion. The machine
drives it beside a `PromotionManager` and a fund in virtual time, and compares after each step
everything that can be read of the strategies. Both doors follow one clock and take the same calls;
only the fund ticks, so each door has a model of its own.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

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

from fundops import PromotionManager, PromotionStage, VirtualClock
from fundops.runtime import Rejected
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
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
LIVE = (Small, Scaled)


# -- the model


class Limit(NamedTuple):
    """One criterion of a gate, in canonical units."""

    name: str
    metric: str
    op: str
    limit: float
    required: bool = True


DEFAULT_GATE = (
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


@dataclasses.dataclass
class Standing:
    """One strategy."""

    name: str
    stage: PromotionStage
    entered_us: int
    budget: Decimal | None
    episode: int = 1
    rev: int = 1
    frozen: bool = False
    frozen_since_us: int | None = None
    frozen_us: int = 0
    cooldown_us: int | None = None
    strikes_us: list[int] = dataclasses.field(default_factory=list)
    cap: float | None = None
    records: list[Record] = dataclasses.field(default_factory=list)
    saved_active_us: int = 0

    def latest(self, metric: str) -> tuple[float, int] | None:
        """Value and instant: the newest record that has the metric, ties by arrival. A drawdown
        never falls.
        """
        found = [
            (record.as_of_us, arrival, record.values[metric])
            for arrival, record in enumerate(self.records)
            if metric in record.values
        ]
        if not found:
            return None
        newest_us, _, value = max(found, key=lambda one: one[:2])
        if metric == "max_drawdown":
            value = max(one[2] for one in found)
        return value, newest_us

    def active_us(self, now_us: int) -> int:
        """Time in the stage without frozen time; never less than was stored."""
        until_us = now_us if self.frozen_since_us is None else self.frozen_since_us
        return max(self.saved_active_us, until_us - self.entered_us - self.frozen_us)


class Line(NamedTuple):
    """One line of history, with the whole record after it."""

    name: str
    kind: str
    from_stage: PromotionStage | None
    to_stage: PromotionStage
    by: str
    reason: str
    at_us: int
    after: Standing


class Model:
    """Strategies in memory. Calls answer or raise `Refused`; `now_us` is given to each."""

    def __init__(self, capital: Decimal | None, policy: str) -> None:
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
        if latest is None:
            return ("INCONCLUSIVE", "missing") if limit.required else None
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
        required = any(limit.required for limit in self.gates.get(strategy.stage, ()))
        return "PASS" if required and verdicts == {"PASS"} else "INCONCLUSIVE"

    def breached(self, strategy: Standing) -> bool:
        """Whether a hard limit is breached, inclusively."""
        drawdown, loss = strategy.latest("max_drawdown"), strategy.latest("daily_loss")
        deepest = HARD_DRAWDOWN.get(strategy.stage)
        worst = HARD_LOSS.get(strategy.stage)
        return bool(
            (deepest is not None and drawdown and round(drawdown[0], 9) >= deepest)
            or (worst is not None and loss and round(loss[0], 9) >= worst)
        )

    def above(self, stage: PromotionStage) -> PromotionStage | None:
        return None if stage in (Scaled, Retired) else LADDER[LADDER.index(stage) + 1]

    def blocked(self, strategy: Standing, now_us: int) -> set[str]:
        """Every reason why it is not promoted by itself."""
        target = self.above(strategy.stage)
        assert target is not None
        cooling = strategy.cooldown_us is not None and now_us < strategy.cooldown_us
        reasons = {
            "gate": self.gate(strategy, now_us) != "PASS",
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

    def state_as_of(self, at_us: int) -> dict[str, Standing]:
        """Each strategy after the newest line that was written until then."""
        return {line.name: line.after for line in self.lines if line.at_us <= at_us}

    # -- writing

    def note(
        self,
        kind: str,
        strategy: Standing,
        from_stage: PromotionStage | None,
        by: str,
        reason: str,
        now_us: int,
    ) -> None:
        self.strategies[strategy.name] = strategy
        self.lines.append(
            Line(
                strategy.name,
                kind,
                from_stage,
                strategy.stage,
                by,
                reason,
                now_us,
                copy.deepcopy(strategy),
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
        self.note("register", strategy, None, "operator", "", now_us)

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
        self.note("adopt", strategy, None, "ann", "it trades", now_us)

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
        values = canonical(metrics)
        at_us = now_us if as_of_us is None else as_of_us
        early = at_us < min(strategy.entered_us, now_us) - 300_000_000
        if values is None or stage is not strategy.stage or at_us > now_us + 300_000_000 or early:
            raise Refused(MetricError, UnknownStage)
        for record in strategy.records if as_of_us is not None else ():
            if record.explicit and (record.as_of_us, record.source) == (as_of_us, source):
                if record.values != values:
                    raise Refused(Conflict)
                return
        strategy.records.append(Record(at_us, source, as_of_us is not None, values))
        self.saved(strategy, now_us)

    def saved(self, strategy: Standing, now_us: int) -> None:
        strategy.saved_active_us = max(0, strategy.active_us(now_us))

    def move(self, strategy: Standing, to: PromotionStage, now_us: int) -> Standing:
        """In its next episode: earlier evidence, days and cap do not count there."""
        return dataclasses.replace(
            copy.deepcopy(strategy),
            stage=to,
            entered_us=now_us,
            episode=strategy.episode + 1,
            rev=strategy.rev + 1,
            frozen_us=0,
            frozen_since_us=now_us if strategy.frozen else None,
            cap=None,
            records=[],
            saved_active_us=0,
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
        if "gate" in blocked or self.breached(strategy):
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
        self.note("promote", after, strategy.stage, by, "", now_us)
        answer = (name, strategy.stage, target)
        if request_id is not None:
            self.requests[request_id] = content, answer
        return answer

    def demote(self, name: str, to: PromotionStage | None, now_us: int) -> None:
        """A person's demotion has no cooldown and is no strike."""
        strategy = self.find(name)
        if strategy.stage is Retired:
            raise Refused(StrategyRetired)
        if strategy.stage is Paper or to is Retired:
            raise Refused(SkipRefused, UnknownStage)
        rank = LADDER.index(strategy.stage)
        target = LADDER[rank - 1] if to is None else to
        if LADDER.index(target) >= rank:
            raise Refused(SkipRefused)
        self.note(
            "demote", self.move(strategy, target, now_us), strategy.stage, "ann", "drill", now_us
        )

    def fall(self, strategy: Standing, now_us: int) -> None:
        """The demotion that a hard limit orders."""
        target = Shadow if strategy.stage in LIVE else Paper
        after = self.move(strategy, target, now_us)
        recent = [at_us for at_us in strategy.strikes_us if at_us > now_us - 180 * DAY_US]
        days = min(90, 30 * 2 ** len(recent))
        after.cooldown_us = max(strategy.cooldown_us or 0, now_us + days * DAY_US)
        after.strikes_us = [*recent, now_us]
        if len(recent) + 1 >= 3 and not after.frozen:
            after.frozen, after.frozen_since_us = True, now_us
        self.note("demote", after, strategy.stage, "promotion", "", now_us)

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
            after.frozen_since_us = now_us
        else:
            assert after.frozen_since_us is not None
            after.frozen_us += max(0, now_us - after.frozen_since_us)
            after.frozen_since_us = None
        self.saved(after, now_us)
        kind = "freeze" if freeze else "unfreeze"
        self.note(kind, after, strategy.stage, "ann", "drill", now_us)

    def retire(self, name: str, now_us: int) -> None:
        strategy = self.find(name)
        if strategy.stage is Retired:
            raise Refused(StrategyRetired)
        after = self.move(strategy, Retired, now_us)
        self.note("retire", after, strategy.stage, "ann", "drill", now_us)


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
        if given is None:
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
    """A `PromotionManager` on a file of its own."""

    capital: Decimal | None = None
    ticks = False

    def __init__(self, folder: Path, clock: SteppingClock, policy: str) -> None:
        self.manager = PromotionManager(folder / "promotion.db", policy=policy, clock=clock)

    def call(self, method: str, *arguments: Any, **more: Any) -> Any:
        return getattr(self.manager, method)(*arguments, **more)

    def close(self) -> None:
        pass


class FundDoor:
    """The promotion of a fund that lives in a trio loop of its own thread."""

    capital: Decimal | None = CAPITAL
    ticks = True

    def __init__(self, folder: Path, clock: SteppingClock, policy: str) -> None:
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._live, args=(folder, clock, policy))
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    def _live(self, folder: Path, clock: SteppingClock, policy: str) -> None:
        try:
            trio.run(self._opened, folder, clock, policy)
        except BaseException as failure:
            self._failure = failure
        finally:
            self._ready.set()

    async def _opened(self, folder: Path, clock: SteppingClock, policy: str) -> None:
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
            report = await self.world.tick()
            assert report.faults == ()

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

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = SteppingClock(START_US)
        self.sides: list[Side] = []

    @initialize(policy=st.sampled_from(["guarded", "literal"]))
    def opened(self, policy: str) -> None:
        for door in (ManagerDoor, FundDoor):
            made = door(Path(self.folder.name), self.clock, policy)
            self.sides.append(Side(made, Model(made.capital, policy)))

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
        try:
            due = expected(trial)
        except Refused as refused:
            due_errors = tuple(error.__name__ for error in refused.errors)
            assert refusal is not None, (method, arguments, more, "not refused", due_errors)
            assert isinstance(refusal, refused.errors), (refusal, due_errors)
            return
        assert refusal is None, (method, arguments, more, refusal)
        self.sides[index] = Side(door, trial)
        if due is not None:
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
        assert evaluation == door.call("evaluate", shown.strategy_id)
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
        if model.above(strategy.stage) is not None:
            assert words(evaluation.blocked_by) == model.blocked(strategy, now_us)
        promotes = evaluation.would_do in ("promote", "ready")
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

    @rule(name=NAME, stage=st.sampled_from([*LADDER, Retired]), budget=st.sampled_from([None, 40_000]))
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
                expected=lambda model, at=at: model.record(
                    name, at, metrics, as_of_us, source, self.now_us
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
                expected=lambda model, rev=rev: model.promote(
                    name, self.now_us, to=to, expected_rev=rev
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
                expected=lambda model, stage=stage: model.record(
                    name, stage, GOOD, None, "", self.now_us
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
            expected=lambda model: model.promote(
                name, self.now_us, by=by, request_id=request_id
            ),
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

    @rule(seconds=st.sampled_from([1, 30, 59]))
    def the_wall_clock_is_set_back(self, seconds: int) -> None:
        """By less than makes a fund doubt its clock."""
        self.clock.step_back(seconds)
        self.compare()

    @rule()
    def the_fund_ticks(self) -> None:
        for side in self.sides:
            if isinstance(side.door, FundDoor):
                side.door.tick(list(side.model.strategies))
                side.model.look(self.now_us)
        self.compare()


@pytest.mark.parametrize(
    ("examples", "steps"), [(15, 30), pytest.param(400, 60, marks=pytest.mark.soak)]
)
def test_any_history_agrees_with_the_model(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Histories,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
