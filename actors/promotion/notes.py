"""The alerts of promotion, written in one transaction with the changes that they tell. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...wire.alert import AlertDraft, Category, Level
from ...wire.entitlement import capital_of
from .capital import terms_of
from .policy import PromotionPolicy
from .strategy import Change, Strategy

__all__ = ["fired", "lapsed", "notes_of", "overdue"]


def notes_of(changes: Sequence[Change]) -> Iterator[AlertDraft]:
    """One alert for each change that people hear of, but one for all that lose real money at once:
    the rate limit must not hold back the name of any of them.
    """
    urgent = [change for change in changes if _ends_real_money(change)]
    for change in changes:
        was_ready = change.before is not None and change.before.episode.ready
        if was_ready and not change.after.episode.ready:
            yield lapsed(change.after, _story(change))
        if not _ends_real_money(change):
            yield from _note(change)
    if len(urgent) == 1:
        change = urgent[0]
        title = f"{change.after.name} demoted to {change.after.stage.value}"
        yield _draft(Level.CRITICAL, title, _story(change), change.after)
    elif urgent:
        title = f"{len(urgent)} strategies demoted from real money"
        lines = [f"{change.after.name}: {_story(change)}" for change in urgent]
        yield AlertDraft(Level.CRITICAL, Category.PROMOTION, title, "; ".join(lines))


def _note(change: Change) -> Iterator[AlertDraft]:
    name, stage = change.after.name, change.after.stage.value
    match change.kind:
        case "promote":
            yield _draft(Level.INFO, f"{name} promoted to {stage}", _story(change), change.after)
        case "demote":
            yield _draft(Level.WARNING, f"{name} demoted to {stage}", _story(change), change.after)
        case "void":
            title = f"{name} is back in {stage}: its transition was voided"
            yield _draft(Level.WARNING, title, _story(change), change.after)
        case "version" if change.before is not None and change.before.stage.is_live:
            title = f"{name} runs a new version with real money"
            text = f"{change.reason}; it is not promoted until a person unfreezes it"
            yield _draft(Level.WARNING, title, text, change.after)
        case _:
            pass


def fired(strategy: Strategy, policy: PromotionPolicy, capital_minor: int) -> AlertDraft:
    """A gate passes, and more real capital waits for a person."""
    target = policy.above(strategy.stage)
    assert target is not None
    old, new = (
        capital_of(terms_of(strategy, policy, stage), capital_minor)
        for stage in (strategy.stage, target)
    )
    return AlertDraft(
        Level.INFO,
        Category.PROMOTION,
        f"{strategy.name} is ready for {target.value}",
        f"its gate passes; real capital from {old:,.2f} to {new:,.2f} waits for a person's approve",
        strategy.name,
        _key(strategy),
    )


def lapsed(strategy: Strategy, why: str) -> AlertDraft:
    """The end of `fired`."""
    title = f"{strategy.name} is no longer ready for more real money"
    return AlertDraft(
        Level.INFO, Category.PROMOTION, title, why, strategy.name, _key(strategy), resolves=True
    )


def overdue(strategy: Strategy, max_days: float, why: str) -> AlertDraft:
    """A stage lasts longer than its policy plans."""
    title = f"{strategy.name} is in {strategy.stage.value} for {max_days:g} days without a pass"
    return _draft(Level.WARNING, title, why, strategy)


def _key(strategy: Strategy) -> str:
    return f"promotion:{strategy.name}"


def _draft(level: Level, title: str, text: str, strategy: Strategy) -> AlertDraft:
    return AlertDraft(level, Category.PROMOTION, title, text, strategy.name)


def _ends_real_money(change: Change) -> bool:
    was_live = change.before is not None and change.before.stage.is_live
    is_live = change.after.stage.is_live
    return was_live and (change.kind == "demote" or (change.kind != "retire" and not is_live))


def _story(change: Change) -> str:
    old = "nowhere" if change.before is None else change.before.stage.value
    told = f"from {old} by {change.by}: {change.reason}"
    froze = change.after.frozen and change.before is not None and not change.before.frozen
    return f"{told}; it is frozen until a person acts" if froze else told
