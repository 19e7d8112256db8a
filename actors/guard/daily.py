"""The loss of one session: at its limit no strategy takes new risk until the next session.

It is measured on NAV per unit, so that a deposit or a withdrawal is no performance. It is no latch:
the next session lifts it by itself.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.guard import GuardState
from .limits import OBSERVED

__all__ = ["DailyLoss", "judge_daily_loss", "opened"]

KEY = "daily"
OBSERVED_KEY = f"{OBSERVED}{KEY}"


class DailyLoss(NamedTuple):
    """The guard's memory after the look, and the alerts that follow."""

    state: GuardState
    alerts: tuple[AlertDraft, ...]


def opened(
    state: GuardState, session: str, opening_nav_minor: int | None, per_unit: float
) -> GuardState:
    """The memory with the opening of the session that runs now, known at its first look.

    `state` is as of the look before, and `session` the last one that ended. `opening_nav_minor`
    None: the NAV of that look; of a fund without one, `per_unit` now.
    """
    if state.opening_session == session:
        return state
    nav_minor = state.nav_minor if opening_nav_minor is None else opening_nav_minor
    opening = nav_minor / state.units if state.units > 0 else per_unit
    return replace(state, opening_session=session, opening_per_unit=opening)


def judge_daily_loss(
    state: GuardState, per_unit: float, session: str, limit_pct: float | None, *, observing: bool
) -> DailyLoss:
    """Whether the loss since the opening has reached the limit in this session; None: no limit."""
    of_observing = state.loss_observed and not observing
    if state.loss_session is not None and (state.loss_session != session or of_observing):
        title = "A new session lifts the daily loss limit"
        if state.loss_session == session:
            title = "The daily loss limit is in force from now on, in mode act"
        key = OBSERVED_KEY if state.loss_observed else KEY
        over = resolved(Category.RISK_LIMIT, title, key)
        judged = judge_daily_loss(
            replace(state, loss_session=None), per_unit, session, limit_pct, observing=observing
        )
        return DailyLoss(judged.state, (over, *judged.alerts))
    reached = state.loss_session == session
    if reached or limit_pct is None or state.opening_per_unit <= 0:
        return DailyLoss(state, ())
    # To 9 decimals, as a drawdown is: 2% is 2%.
    loss = round(100 * (1 - per_unit / state.opening_per_unit), 9)
    if loss < limit_pct:
        return DailyLoss(state, ())
    act = "would be allowed to reduce only" if observing else "may only reduce"
    text = f"loss {loss:.1f}% of the session's opening NAV, limit {limit_pct:.1f}%"
    note = AlertDraft(
        Level.CRITICAL,
        Category.RISK_LIMIT,
        "Daily loss limit reached",
        f"{text}: real money {act} until the next session",
        None,
        OBSERVED_KEY if observing else KEY,
    )
    return DailyLoss(replace(state, loss_session=session, loss_observed=observing), (note,))
