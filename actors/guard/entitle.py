"""The permission of one strategy at one look, as a pure function of all that is known about it."""

from __future__ import annotations

from decimal import Decimal

from ...wire.controller import StrategyStatus, stage_risk
from ...wire.entitlement import capital_of
from ...wire.guard import StrategyBook
from ...wire.money import from_minor, minor_of_float
from ...wire.promotion import EntitlementTerms
from .leases import Grant

__all__ = ["above", "grant", "is_real", "permitted"]

_NONE = Decimal(0)


def is_real(status: StrategyStatus, terms: EntitlementTerms | None) -> bool:
    """Whether the strategy trades real money: the stage in force at the engine decides, and an
    engine that knows no stages is taken at the database's word.
    """
    if status.stage is not None:
        return stage_risk(status.stage) > 0
    return terms is not None and terms.mode == "live"


def above(status: StrategyStatus, terms: EntitlementTerms, capital_minor: int) -> str:
    """How far more is in force at the engine than the terms allow; "": it is not."""
    stage = terms.stage.value
    if status.stage is not None and stage_risk(status.stage) > stage_risk(stage):
        return f"in force {status.stage}, entitled to {stage}"
    if not is_real(status, terms):
        return ""
    capital = capital_of(terms, capital_minor)
    for field, figure in (("cap", status.capital_cap), ("allocation", status.allocated)):
        minor = None if figure is None else minor_of_float(figure)
        # A float that went through the engine's own sums may be off in its last digits.
        if minor is not None and from_minor(minor) > capital + capital / 1_000_000_000:
            return f"{field} in force {from_minor(minor):,.2f}, entitled to {capital:,.2f}"
    return ""


def permitted(book: StrategyBook, status: StrategyStatus | None, doubt: str | None) -> str:
    """Why a strategy with a real stage may not open now; "": it may."""
    if doubt is not None:
        return doubt
    if status is None:
        return "the engine does not list it"
    if book.paused:
        return "the guard paused it"
    if status.state not in ("pending", "running"):
        return f"it is {status.state}"
    return ""


def grant(
    book: StrategyBook,
    status: StrategyStatus | None,
    terms: EntitlementTerms | None,
    *,
    promotion: bool,
    capital_minor: int,
    doubt: str | None,
    session: str,
) -> Grant:
    """The permission that follows from this look.

    `session` is the last one that ended; `doubt` None: no doubt.
    """
    real = book.had_real or book.real
    blocked = permitted(book, status, doubt)
    if not promotion:  # every strategy is real
        if not blocked:
            return Grant(None, "live", from_minor(capital_minor), True)
        return Grant(None, "reduce", _NONE, True, blocked)
    if terms is None:
        why = "it is not registered with promotion"
        return Grant(None, "reduce" if real else "none", _NONE, real, why)
    stage = terms.stage.value
    beyond = above(status, terms, capital_minor) if status is not None else ""
    if terms.mode == "live":
        blocked = blocked or beyond
        if not blocked:
            return Grant(stage, "live", capital_of(terms, capital_minor), True)
        return Grant(stage, "reduce" if real else "none", _NONE, real, blocked)
    if terms.mode == "none":
        return Grant(stage, "reduce" if real else "none", _NONE, real, f"its stage is {stage}")
    if real:
        closing = book.closing is not None and book.closing == session
        blocked = beyond or blocked or ("it lost its real stage this session" if closing else "")
        if blocked:
            return Grant(stage, "reduce", _NONE, True, blocked)
    why = f"its stage is {stage}"
    return Grant(stage, terms.mode, capital_of(terms, capital_minor), real, why)
