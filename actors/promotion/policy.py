"""The policy of promotion, as one value: stages, the gate up from each, limits that demote.

A policy is data. `guarded` and `literal` are two such values (`policies`), not branches in the
code. Its hash is its name in every evaluation and every line of history, and equal policies have
equal hashes. Limits of drawdown and loss are fractions: 8 percent is 0.08. Nothing here reads a
clock or a strategy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from ...runtime import COUNT_MAX, DAYS_MAX, ConfigError, Settings
from ...wire.errors import PolicyError, UnknownStage
from ...wire.promotion import PromotionStage
from ..calendar import calendar_of
from .criteria import Approval, PromotionGate

__all__ = [
    "PERIODS_MAX",
    "PERIODS_MIN",
    "Cooldowns",
    "Fraction",
    "HardLimit",
    "HardLimits",
    "Mode",
    "OnNewVersion",
    "PeriodsPerYear",
    "PromotionPolicy",
    "Rung",
    "SoftLimits",
    "SoftWindow",
    "with_gate",
]

Mode = Literal["paper", "shadow", "live"]
OnNewVersion = Literal["freeze", "shadow"]
Fraction = Annotated[float, Meta(ge=0, le=1)]
# Sessions in a year, from one to one a minute. Of fewer no ratio of a year can be told.
PERIODS_MIN: Final = 1
PERIODS_MAX: Final = 1_000_000
PeriodsPerYear = Annotated[float, Meta(ge=PERIODS_MIN, le=PERIODS_MAX)]
# A limit of 0 would demote at the first status.
HardLimit = Annotated[float, Meta(gt=0, le=1)]


class HardLimits(Settings, frozen=True, forbid_unknown_fields=True):
    """Limits that demote on one observation. They are reached at equality."""

    drawdown: Annotated[
        HardLimit | None,
        Meta(description="fraction below the peak of the episode; None: no limit"),
    ] = None
    session_loss: Annotated[
        HardLimit | None, Meta(description="fraction lost within one session; None: no limit")
    ] = None


class SoftLimits(Settings, frozen=True, forbid_unknown_fields=True):
    """Limits that demote when they are exceeded in enough sessions, as `SoftWindow` counts."""

    drawdown: Annotated[
        Fraction | None,
        Meta(description="fraction below the peak of the episode; None: no limit"),
    ] = None


class SoftWindow(Settings, frozen=True, forbid_unknown_fields=True):
    """How long a soft limit must be exceeded before it demotes."""

    sessions: Annotated[
        int, Meta(ge=1, le=1_000, description="sessions that the soft limits look back over")
    ] = 5
    breaches: Annotated[
        int, Meta(ge=1, le=1_000, description="breached sessions among them that demote")
    ] = 3
    min_sessions: Annotated[
        int, Meta(ge=0, le=COUNT_MAX, description="sessions in a stage before the soft limits hold")
    ] = 20


class Cooldowns(Settings, frozen=True, forbid_unknown_fields=True):
    """How long a demoted strategy is not promoted. Each demotion in the window doubles it."""

    soft_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days without promotion after a soft demotion")
    ] = 7
    hard_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days without promotion after a hard demotion")
    ] = 30
    max_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days; the longest that a cooldown grows to")
    ] = 90
    freeze_after: Annotated[
        int,
        Meta(ge=1, le=COUNT_MAX, description="demotions within the window that freeze a strategy"),
    ] = 3
    freeze_window_days: Annotated[
        float, Meta(ge=0, le=DAYS_MAX, description="days; that window")
    ] = 180


class Rung(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One stage of a ladder: its capital, the gate up from it, and the limits that demote."""

    stage: PromotionStage
    mode: Mode
    real_capital_cap: Fraction  # real capital, at most, as a fraction of the strategy's budget
    notional_cap: Fraction  # simulated capital, as a fraction of the budget
    gate: PromotionGate | None = None  # the way up; None: the top of the ladder
    keep: SoftLimits = SoftLimits()
    hard: HardLimits = HardLimits()
    approval: Approval = "auto"  # of the way up; "manual": it waits for a person
    # Reached without a PASS: one WARNING; None: no such limit.
    max_days: Annotated[float, Meta(gt=0, le=DAYS_MAX)] | None = None


class PromotionPolicy(msgspec.Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """All rules of promotion. Build one with `policy_of` or `PromotionPolicy.from_toml`."""

    name: str  # of the policy that it began as, such as "guarded"
    ladder: str  # "four-stage", "three-stage" or "own"
    rungs: tuple[Rung, ...]  # from the lowest to the highest
    soft: SoftWindow = SoftWindow()
    cooldowns: Cooldowns = Cooldowns()
    calendar: str = "UTC day"  # as the setting `session`; counts the sessions that make stale
    periods_per_year: PeriodsPerYear | None = None  # None: those of the calendar
    metrics: Mapping[str, str] = {}  # declared beside the known ones: name to unit
    on_new_version: OnNewVersion = "freeze"  # the effect of a new version in a live stage

    # -- the ladder

    def stage(self, value: object) -> PromotionStage:
        """A stage of this ladder, from the enum or its value. Raises: `UnknownStage`."""
        try:
            found = PromotionStage(value)
            self.rank(found)
        except ValueError:
            raise UnknownStage(value, self.names()) from None
        return found

    def rank(self, stage: PromotionStage) -> int:
        """The place on the ladder, 0 at the bottom.

        Raises: `PolicyError` (a ValueError) for a stage that this ladder lacks.
        """
        # Not by a dict: the hash of an enum member costs more than the few steps.
        for rank, rung in enumerate(self.rungs):
            if rung.stage is stage:
                return rank
        raise PolicyError("promotion_ladder", f"{self.ladder!r} has no stage {stage.value}")

    def rung(self, stage: PromotionStage) -> Rung:
        """The rung of a stage. Raises: `PolicyError` for one that this ladder lacks."""
        return self.rungs[self.rank(stage)]

    def above(self, stage: PromotionStage) -> PromotionStage | None:
        """The next higher stage; None at the top."""
        rank = self.rank(stage) + 1
        return self.rungs[rank].stage if rank < len(self.rungs) else None

    def below(self, stage: PromotionStage) -> PromotionStage | None:
        """The next lower stage; None at the bottom."""
        rank = self.rank(stage)
        return self.rungs[rank - 1].stage if rank else None

    def names(self) -> list[str]:
        """The values of the stages, from the lowest to the highest."""
        return [rung.stage.value for rung in self.rungs]

    @cached_property
    def sessions_per_year(self) -> float:
        """`periods_per_year`, or the sessions of the calendar in a year."""
        return self.periods_per_year or calendar_of(self.calendar).periods_per_year

    # -- as bytes

    def encode(self) -> bytes:
        """Canonical JSON: equal policies give equal bytes."""
        # Decoding makes a float of the int that a field of floats was given.
        exact = type(self).decode(msgspec.json.encode(self))
        return msgspec.json.encode(
            _without_signed_zeros(msgspec.to_builtins(exact)), order="sorted"
        )

    @classmethod
    def decode(cls, encoded: bytes | str) -> PromotionPolicy:
        """The policy that `encode` wrote. Raises: `PolicyError` naming the place."""
        try:
            return msgspec.json.decode(encoded, type=cls)
        except (msgspec.DecodeError, ConfigError) as error:
            raise PolicyError("policy", str(error)) from error

    @cached_property
    def hash(self) -> str:
        """The name of these rules: a hash of `encode`, 24 hexadecimal digits."""
        return hashlib.blake2b(self.encode(), digest_size=12).hexdigest()

    # -- from a file

    @classmethod
    def from_toml(cls, source: Path | str) -> PromotionPolicy:
        """The policy of a TOML file, or of a TOML text.

        A text of one line that ends in ".toml" is a path.

        Raises: `PolicyError` whose field is the key, with the line in its text.
        """
        from .policy_toml import policy_from_toml

        return policy_from_toml(source)


def with_gate(policy: PromotionPolicy, gate: PromotionGate) -> PromotionPolicy:
    """The policy with this gate in place of the one that leads up from the same stage.

    Limits of the next stage that were the ceiling of the old gate become that of the new one.

    Raises: `UnknownStage`; `PolicyError` naming the place that makes no sense.
    """
    from .lint import entry_ceiling, lint

    rank = policy.rank(policy.stage(gate.transition))
    if rank == len(policy.rungs) - 1:
        stage = gate.transition.value
        raise PolicyError(f"gates.{stage}", f"{stage} is the top of {policy.ladder!r}: no way up")
    rung = policy.rungs[rank]
    replaced = msgspec.structs.replace(rung, gate=gate, approval=gate.approval or rung.approval)
    above = _following(policy.rungs[rank + 1], entry_ceiling(rung), entry_ceiling(replaced))
    rungs = (*policy.rungs[:rank], replaced, above, *policy.rungs[rank + 2 :])
    changed = msgspec.structs.replace(policy, rungs=rungs)
    lint(changed)
    return changed


def _following(rung: Rung, before: float | None, ceiling: float | None) -> Rung:
    """The rung with this entry ceiling. Without one its limits stay: a gate that says nothing of
    the drawdown takes no protection away.
    """
    if not ceiling or ceiling > 1:  # more than 1 is refused, as a criterion
        return rung
    keep, hard = rung.keep, rung.hard
    if keep.drawdown == before:
        keep = SoftLimits(ceiling)
    if rung.stage is PromotionStage.Live_Small and hard.drawdown == before:
        hard = HardLimits(ceiling, hard.session_loss)
    return msgspec.structs.replace(rung, keep=keep, hard=hard)


def _without_signed_zeros(value: Any) -> Any:
    """The value with 0.0 for each -0.0, which equals it and is written in another way."""
    match value:
        case float():
            return value + 0.0
        case dict():
            return {name: _without_signed_zeros(item) for name, item in value.items()}
        case list() | tuple():
            return [_without_signed_zeros(item) for item in value]
        case _:
            return value
