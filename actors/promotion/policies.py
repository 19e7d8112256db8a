"""The policies that come with fundops, and how settings change them.

`guarded` waits for a person where real capital grows; `literal` promotes through every gate by
itself. Both guard each transition with the same five criteria.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal, TypeVar

import msgspec

from ...runtime import ConfigError, shown
from ...wire.errors import PolicyError
from ...wire.promotion import PromotionStage
from .criteria import Approval, Criterion, DefaultCriteria, PromotionGate
from .lint import entry_ceiling, lint
from .policy import HardLimits, PromotionPolicy, Rung, SoftLimits
from .settings import GateSettings, PromotionSettings, StageName, StageSettings

T = TypeVar("T")

__all__ = ["LadderName", "PolicyName", "checked", "policy_from", "policy_of"]

LadderName = Literal["four-stage", "three-stage"]
PolicyName = Literal["guarded", "literal"]

_HARD_DRAWDOWN: Final = 0.25
_HARD_SESSION_LOSS: Final = 0.05

# The place of a rung in an error of msgspec, such as " - at `$.rungs[2].real_capital_cap`".
_IN_RUNG: Final = re.compile(r" - at `\$\.rungs\[(?P<rank>\d+)\]\.(?P<field>\w+)[^`]*`")

_Stage = PromotionStage

# Each stage without its gate and its soft limit, which follow from the criteria.
_BARE: Final = {
    rung.stage: rung
    for rung in (
        Rung(_Stage.Paper, "paper", 0.0, 1.0),
        Rung(_Stage.Shadow, "shadow", 0.0, 1.0, hard=HardLimits(_HARD_DRAWDOWN)),
        # In live-small the entry ceiling takes the place of the 25 percent.
        Rung(_Stage.Live_Small, "live", 0.01, 0.0, hard=HardLimits(None, _HARD_SESSION_LOSS)),
        Rung(
            _Stage.Live_Scaled,
            "live",
            1.0,
            0.0,
            hard=HardLimits(_HARD_DRAWDOWN, _HARD_SESSION_LOSS),
        ),
        Rung(_Stage.Live, "live", 1.0, 0.0, hard=HardLimits(_HARD_DRAWDOWN, _HARD_SESSION_LOSS)),
    )
}

_LADDERS: Final[dict[str, tuple[PromotionStage, ...]]] = {
    "four-stage": (_Stage.Paper, _Stage.Shadow, _Stage.Live_Small, _Stage.Live_Scaled),
    "three-stage": (_Stage.Paper, _Stage.Shadow, _Stage.Live),
}


def policy_of(
    name: PolicyName = "guarded",
    *,
    ladder: LadderName = "four-stage",
    min_paper_days: float = 14,
    min_trades: int = 50,
    min_sharpe: float = 1.0,
    max_drawdown_pct: float = 20.0,
    min_win_rate: float = 0.45,
    settings: PromotionSettings = PromotionSettings(),  # noqa: B008  frozen
) -> PromotionPolicy:
    """A policy by its name, with these limits in its default criteria.

    Raises: `ConfigError` naming the setting; `PolicyError` naming the place that makes no sense.
    """
    criteria = DefaultCriteria(
        min_paper_days=min_paper_days,
        min_trades=min_trades,
        min_sharpe=min_sharpe,
        max_drawdown_pct=max_drawdown_pct,
        min_win_rate=min_win_rate,
    )
    return policy_from(name, ladder, criteria, settings)


def checked(policy: PromotionPolicy) -> PromotionPolicy:
    """A whole policy that was put together in Python, after the checks of one from a file.

    Raises: `PolicyError` naming the place.
    """
    try:
        exact = PromotionPolicy.decode(policy.encode())
    except PolicyError as error:
        found = _IN_RUNG.search(error.problem)
        if found is None:
            raise
        stage = policy.rungs[int(found["rank"])].stage
        name = stage.value if isinstance(stage, PromotionStage) else shown(stage)
        problem = error.problem[: found.start()]
        raise PolicyError(f"stages.{name}.{found['field']}", problem) from error
    if exact != policy:
        place, value = _first_difference(policy, exact)
        raise PolicyError(place, f"{shown(value)} is no value that a file can keep")
    lint(exact)
    return policy


def _first_difference(given: PromotionPolicy, exact: PromotionPolicy) -> tuple[str, object]:
    """The place of a value that JSON keeps as another one, such as infinity, and that value."""
    for rung, kept in zip(given.rungs, exact.rungs, strict=True):
        for field in Rung.__struct_fields__:
            if getattr(rung, field) != getattr(kept, field):
                return f"stages.{kept.stage.value}.{field}", getattr(rung, field)
    for field in PromotionPolicy.__struct_fields__:
        if getattr(given, field) != getattr(exact, field):
            return field, getattr(given, field)
    return "policy", given


def policy_from(
    name: PolicyName,
    ladder: LadderName,
    criteria: DefaultCriteria,
    settings: PromotionSettings,
    *,
    calendar: str = "UTC day",
) -> PromotionPolicy:
    """A policy from its settings; `calendar` counts where they name none.

    Raises: as `policy_of`.
    """
    if name not in ("guarded", "literal"):
        raise ConfigError("promotion_policy", f"{shown(name)} is not 'guarded' or 'literal'")
    if ladder not in tuple(_LADDERS):  # a list, for example, is no key
        raise ConfigError(
            "promotion_ladder", f"{shown(ladder)} is not one of {', '.join(_LADDERS)}"
        )
    order = (
        _LADDERS[ladder] if settings.order is None else tuple(map(PromotionStage, settings.order))
    )
    _check_stages(settings, order)
    default = criteria.criteria(win_rate_required=ladder == "three-stage")
    default_ceiling = next(item.limit for item in default if item.metric == "max_drawdown")
    rungs: list[Rung] = []
    for rank, stage in enumerate(order):
        above = order[rank + 1] if rank + 1 < len(order) else None
        ceiling = None
        if rungs:
            ceiling = entry_ceiling(rungs[-1])
            ceiling = default_ceiling if ceiling is None else ceiling
        rungs.append(_rung(stage, above, name, ceiling, default, settings))
    _check_ceiling(criteria.max_drawdown_pct, default, rungs)
    policy = PromotionPolicy(
        name=name,
        ladder=ladder if settings.order is None else "own",
        rungs=tuple(rungs),
        soft=settings.soft,
        cooldowns=settings.cooldowns,
        calendar=settings.calendar or calendar,
        periods_per_year=settings.periods_per_year,
        metrics=dict(settings.metrics),
        on_new_version=settings.on_new_version,
    )
    lint(policy)
    return policy


def _check_stages(settings: PromotionSettings, order: Sequence[PromotionStage]) -> None:
    """Refuse settings of a stage that the ladder lacks, and a gate that leads up from its top."""
    names = [stage.value for stage in order]
    for key, given, allowed in (
        ("stages", settings.stages, names),
        ("gates", settings.gates, names[:-1]),
    ):
        for name in given:
            if name not in allowed:
                raise PolicyError(
                    f"{key}.{name}", f"is not on the ladder; there are {', '.join(allowed)}"
                )


def _rung(
    stage: PromotionStage,
    above: PromotionStage | None,
    name: PolicyName,
    ceiling: float | None,
    default: tuple[Criterion, ...],
    settings: PromotionSettings,
) -> Rung:
    bare = _BARE[stage]
    given = _of(settings.stages, stage, StageSettings())
    own = _of(settings.gates, stage, GateSettings())
    waits = name == "guarded" and above is not None and above.is_live
    approval: Approval = own.approval or ("manual" if waits else "auto")
    gate = None
    if above is not None:
        gate = PromotionGate(stage, own.criteria or default, approval, own.streak)
    return msgspec.structs.replace(
        bare,
        real_capital_cap=_given(given.real_capital_cap, bare.real_capital_cap),
        notional_cap=_given(given.notional_cap, bare.notional_cap),
        gate=gate,
        keep=SoftLimits(_given(given.keep_drawdown, ceiling)),
        hard=_hard(bare, given, ceiling),
        approval=approval,
        max_days=given.max_days,
    )


def _check_ceiling(
    ceiling_pct: float, default: tuple[Criterion, ...], rungs: Sequence[Rung]
) -> None:
    """Refuse a default ceiling above the hard limit behind its gate, by the name of the ceiling:
    `lint` would name the limit, which the user may not have given.
    """
    for lower, higher in pairwise(rungs):
        is_default = lower.gate is not None and lower.gate.criteria == default
        ceiling, hard = entry_ceiling(lower), higher.hard.drawdown
        if is_default and hard is not None and ceiling is not None and ceiling > hard:
            raise PolicyError(
                "max_drawdown_pct",
                f"{ceiling_pct:g} is above the hard limit of {higher.stage.value}, {hard * 100:g};"
                " equal is allowed",
            )


def _hard(bare: Rung, given: StageSettings, ceiling: float | None) -> HardLimits:
    drawdown = bare.hard.drawdown
    if bare.stage is PromotionStage.Live_Small:
        # A ceiling of 0 would demote at the first status.
        drawdown = ceiling or _HARD_DRAWDOWN
    return HardLimits(
        drawdown if given.hard_drawdown is None else given.hard_drawdown,
        bare.hard.session_loss if given.hard_session_loss is None else given.hard_session_loss,
    )


def _of(settings: Mapping[StageName, T], stage: PromotionStage, default: T) -> T:
    return next((one for name, one in settings.items() if name == stage.value), default)


def _given(value: float | None, otherwise: T) -> float | T:
    return otherwise if value is None else value
