"""The permission of one strategy at one look, as a pure function of all that is known about it."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from ...wire.controller import StrategyStatus, stage_risk
from ...wire.entitlement import capital_minor_of, capital_of
from ...wire.guard import StrategyBook
from ...wire.money import from_minor, minor_of_float
from ...wire.promotion import EntitlementTerms
from ...wire.why import Reason, rank
from .leases import Grant, with_reason

__all__ = [
    "above",
    "after_pause",
    "after_resume",
    "grant",
    "in_order",
    "is_real",
    "stops",
    "trades_real",
]

_NONE = Decimal(0)
_NO_ROOM = Reason("capital", "the fund's capital has no room for it beside the others")
_DAILY_LOSS = Reason("daily_loss", "the fund's daily loss limit was reached in this session")


def is_real(status: StrategyStatus, terms: EntitlementTerms | None) -> bool:
    """Whether the strategy trades real money: the stage in force at the engine decides, and an
    engine that knows no stages is taken at the database's word.
    """
    if status.stage is not None:
        return stage_risk(status.stage) > 0
    return terms is not None and terms.mode == "live"


def trades_real(
    status: StrategyStatus, terms_by_name: Mapping[str, EntitlementTerms] | None
) -> bool:
    """As `is_real`, by the entitlements of all; None: promotion is off, and all money is real."""
    return terms_by_name is None or is_real(status, terms_by_name.get(status.name))


def above(status: StrategyStatus, terms: EntitlementTerms, capital_minor: int) -> str:
    """How far more is in force at the engine than the terms allow; "": it is not."""
    stage = terms.stage.value
    if status.stage is not None and stage_risk(status.stage) > stage_risk(stage):
        return f"in force {status.stage}, entitled to {stage}"
    if not is_real(status, terms):
        return ""
    entitled = capital_minor_of(terms, capital_minor)
    for field, figure in (("cap", status.capital_cap), ("allocation", status.allocated)):
        minor = None if figure is None else minor_of_float(figure)
        # A float that went through the engine's own sums may be off in its last digits.
        if minor is not None and (minor - entitled) * 1_000_000_000 > entitled:
            return (
                f"{field} in force {from_minor(minor):,.2f},"
                f" entitled to {from_minor(entitled):,.2f}"
            )
    return ""


def stops(book: StrategyBook) -> tuple[Reason, ...]:
    """The pauses that stand, a person's before the guard's."""
    if not (book.paused_by or book.paused):
        return ()
    found = []
    if book.paused_by:
        found.append(Reason("operator", f"paused by {book.paused_by}: {book.paused_why}"))
    if book.paused:
        found.append(Reason("pause", "the guard paused it"))
    return tuple(found)


def _faults(
    status: StrategyStatus | None, doubt: str | None, *, stopped: bool
) -> tuple[Reason, ...]:
    """Reasons against opening in the host's reports, or in the lack of one."""
    aside = () if doubt is None else (Reason("set_aside", doubt),)
    if status is None:
        return (*aside, Reason("engine", "the engine does not list it"))
    if status.state in ("pending", "running") or (stopped and status.state == "paused"):
        # A pause that the engine has carried out is one blocker, and one command lifts it.
        return aside
    return (*aside, Reason("engine", f"the engine reports it {status.state}"))


def grant(
    book: StrategyBook,
    status: StrategyStatus | None,
    terms: EntitlementTerms | None,
    *,
    promotion: bool,
    capital_minor: int,
    doubt: str | None,
    session: str,
    daily_loss: bool = False,
) -> Grant:
    """The permission that follows from this look, with every reason against opening, in order.

    `session` is the last one that ended; `doubt` None: no doubt; `daily_loss`: the fund has lost
    too much in the session that runs.
    """
    real = book.had_real
    stopped = stops(book)
    faults = _faults(status, doubt, stopped=bool(stopped))
    if daily_loss and (not promotion or (terms is not None and terms.mode == "live")):
        faults = (_DAILY_LOSS, *faults)
    if not promotion:  # every strategy is real
        reasons = (*stopped, *faults)
        if not reasons:
            return Grant(None, "live", from_minor(capital_minor), True)
        return Grant(None, "reduce", _NONE, True, reasons)
    if terms is None:
        why = Reason("not_registered", "it is not registered with promotion")
        reasons = in_order(*stopped, *faults, why)
        return Grant(None, "reduce" if real else "none", _NONE, real, reasons)
    stage = terms.stage.value
    beyond = above(status, terms, capital_minor) if status is not None else ""
    if beyond:
        faults = in_order(*faults, Reason("above_entitlement", beyond))
    if terms.mode == "live":
        if not terms.real_capital_fraction:
            faults = in_order(_NO_ROOM, *faults)
        reasons = (*stopped, *faults)
        if not reasons:
            return Grant(stage, "live", capital_of(terms, capital_minor), True)
        return Grant(stage, "reduce" if real else "none", _NONE, real, reasons)
    if terms.mode == "none":
        why = Reason("retired", f"its stage is {stage}")
        reasons = in_order(*stopped, why, *faults)
        return Grant(stage, "reduce" if real else "none", _NONE, real, reasons)
    closing = book.closing == session
    lost = f"its stage is {stage}: it lost its real stage this session"
    why = Reason("stage", lost if closing else f"its stage is {stage}")
    reasons = in_order(*stopped, why, *faults)
    if real and (closing or stopped or faults):
        return Grant(stage, "reduce", _NONE, True, reasons)
    return Grant(stage, terms.mode, capital_of(terms, capital_minor), real, reasons)


def after_pause(before: Grant, stop: Reason) -> Grant:
    """The permission of a strategy that was paused since the last look."""
    mode = "reduce" if before.had_real else before.mode
    capital = _NONE if mode == "reduce" else before.capital
    reasons = with_reason(before.reasons, stop)
    return Grant(before.stage, mode, capital, before.had_real, reasons)


def after_resume(before: Grant) -> Grant:
    """The permission of a strategy resumed since the last look: it has no lease yet."""
    reasons = tuple(reason for reason in before.reasons if reason.kind not in ("operator", "pause"))
    if not reasons:
        reasons = (Reason("lease", "no tick has renewed its lease since it was resumed"),)
    return Grant(before.stage, before.mode, before.capital, before.had_real, reasons)


def in_order(*reasons: Reason) -> tuple[Reason, ...]:
    """The reasons in the order in which blockers are told."""
    return tuple(sorted(reasons, key=lambda reason: rank(reason.kind)))
