"""The alerts of promotion, written in one transaction with the changes that they tell. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from ...wire.aftermath import NOT_KNOWN, aftermath, listed
from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.entitlement import capital_of
from ...wire.money import from_minor
from ...wire.promotion import Evaluation
from ...wire.shell import PERSON
from .capital import terms_of
from .policy import PromotionPolicy
from .strategy import Change, Strategy
from .words import date_time

__all__ = [
    "ASIDE_KEY",
    "BOUND_KEY",
    "beyond_bound",
    "counted_anew",
    "fired",
    "judged_again",
    "lapsed",
    "notes_of",
    "overdue",
    "set_aside",
    "withheld",
]

ASIDE_KEY: Final = "promotion_aside"  # dedup key of the alert about strategies it cannot judge
# Dedup keys of one strategy are these and its name.
FROZEN: Final = "frozen:"
OVERDUE: Final = "overdue:"
BOUND_KEY: Final = "entitlement_bound"  # dedup key of the alert about the capital of all


def notes_of(changes: Sequence[Change], first_seq: int) -> Iterator[AlertDraft]:
    """One alert for each change that people hear of, but one for all that lose real money at once:
    the rate limit must not hold back the name of any of them.

    The changes have the numbers from `first_seq` on in the history.
    """
    urgent = []
    for seq, change in enumerate(changes, start=first_seq):
        yield from _ends(change)
        if _ends_real_money(change):
            urgent.append((seq, change))
        else:
            yield from _note(change, seq)
        if change.kind == "demote" and _froze(change):
            title = f"{change.after.name} is frozen until a person acts"
            yield _draft(Level.WARNING, title, _story(change), change.after, FROZEN)
    if len(urgent) == 1:
        seq, change = urgent[0]
        title = f"{change.after.name} demoted to {change.after.stage.value}"
        yield _draft(Level.CRITICAL, title, _demotion(change, seq), change.after)
    elif urgent:
        title = f"{len(urgent)} strategies demoted from real money"
        lines = "; ".join(f"{change.after.name}: {_story(change)}" for _, change in urgent)
        text = aftermath(
            [change.after.name for _, change in urgent],
            left_open=NOT_KNOWN,
            next_act="none; each is in cooldown or frozen, as fundops strategy status shows",
            undo=f"fundops strategy void SEQ {PERSON}, for each of"
            f" {', '.join(str(seq) for seq, _ in urgent)}",
        )
        yield AlertDraft(Level.CRITICAL, Category.PROMOTION, title, f"{lines}. {text}")


def _ends(change: Change) -> Iterator[AlertDraft]:
    """The ends of the open alerts about the strategy that the change brings with it."""
    before, after = change.before, change.after
    if before is None:
        return
    name, story = after.name, _story(change)
    if before.episode.ready and not after.episode.ready:
        yield lapsed(after, story)
    if before.episode.overdue and not after.episode.overdue:
        title = f"{name} has left {before.stage.value}, or begins anew in it"
        yield _draft(Level.INFO, title, story, after, OVERDUE, resolves=True)
    if before.frozen and (not after.frozen or change.kind == "retire"):
        yield _draft(Level.INFO, f"{name} is no longer frozen", story, after, FROZEN, resolves=True)


def _note(change: Change, seq: int) -> Iterator[AlertDraft]:
    name, stage = change.after.name, change.after.stage.value
    match change.kind:
        case "promote":
            yield _draft(Level.INFO, f"{name} promoted to {stage}", _story(change), change.after)
        case "demote":
            title = f"{name} demoted to {stage}"
            yield _draft(Level.WARNING, title, _demotion(change, seq), change.after)
        case "void":
            title = f"{name} is back in {stage}: its transition was voided"
            yield _draft(Level.WARNING, title, _story(change), change.after)
        case "version" if change.before is not None and change.before.stage.is_live:
            title = f"{name} runs a new version with real money"
            text = f"{change.reason}; it is not promoted until a person unfreezes it"
            yield _draft(Level.WARNING, title, text, change.after, FROZEN if _froze(change) else "")
        case _:
            pass


def _demotion(change: Change, seq: int) -> str:
    """The story of a demotion, with the four sentences that end it."""
    after = change.after
    if after.frozen:
        next_act = "none; it is frozen until a person acts"
    elif after.cooldown_until_us is not None and after.cooldown_until_us > change.at_us:
        next_act = f"none before its cooldown ends at {date_time(after.cooldown_until_us)}"
    else:
        next_act = "its gate is judged again"
    left_open = NOT_KNOWN if _ends_real_money(change) else "nothing, it had no real money"
    text = aftermath(
        (after.name,),
        left_open=left_open,
        next_act=next_act,
        undo=f"fundops strategy void {seq} {PERSON}",
    )
    return f"{_story(change)}. {text}"


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
    return resolved(Category.PROMOTION, title, _key(strategy), strategy.name, why)


def overdue(strategy: Strategy, max_days: float, why: str) -> AlertDraft:
    """A stage lasts longer than its policy plans."""
    title = f"{strategy.name} is in {strategy.stage.value} for {max_days:g} days without a pass"
    return _draft(Level.WARNING, title, why, strategy, OVERDUE)


def beyond_bound(names: Sequence[str], total_minor: int, bound_minor: int) -> AlertDraft:
    """A new policy or bound leaves more capital entitled than the fund has for all."""
    text = aftermath(
        names,
        left_open=NOT_KNOWN,
        next_act="as others give up capital they open again, the oldest in its stage first",
        undo="demote a strategy or lower a cap, or open the fund with the policy and the"
        " max_total_entitlement_pct of before",
    )
    return AlertDraft(
        Level.CRITICAL,
        Category.PROMOTION,
        "the strategies are entitled to more than the fund allows",
        f"{from_minor(total_minor):,.2f} of {from_minor(bound_minor):,.2f}; the newest in their"
        f" stages open nothing. {text}",
        dedup_key=BOUND_KEY,
    )


def counted_anew(*, fits: bool) -> AlertDraft:
    """The end of `beyond_bound`: all fit, or others than it named open nothing."""
    result = "they fit" if fits else "not all fit"
    return resolved(
        Category.PROMOTION,
        f"the capital of the strategies was counted anew: {result}",
        BOUND_KEY,
    )


def set_aside(names: Sequence[str]) -> AlertDraft:
    """Promotion fails at these strategies, by a defect; it judges all others."""
    return AlertDraft(
        Level.CRITICAL,
        Category.PROMOTION,
        f"promotion cannot judge {len(names):,} of the strategies",
        f"{listed(names)}: a step of promotion fails for them, as the log says. A limit of theirs"
        " that it cannot compute demotes nothing: watch them yourself. All others are judged",
        dedup_key=ASIDE_KEY,
    )


def judged_again(names: Sequence[str]) -> AlertDraft:
    """The end of `set_aside`; `names` are those that are set aside now."""
    title = f"the strategies set aside by promotion are others now: {listed(names)}"
    return resolved(Category.PROMOTION, title, ASIDE_KEY)


def withheld(strategy: Strategy, evaluation: Evaluation) -> AlertDraft:
    """In mode observe the policy's act is told and not done."""
    name, act = strategy.name, evaluation.would_do
    title = f"Mode observe: {name} was not {act}d"
    text = f"in mode act the policy would {act} it from {strategy.stage.value}: {evaluation.why}"
    key = f"observe:{act}:{name}:{strategy.episode.number}"
    return AlertDraft(Level.INFO, Category.PROMOTION, title, text, name, key)


def _key(strategy: Strategy) -> str:
    return f"promotion:{strategy.name}"


def _draft(
    level: Level,
    title: str,
    text: str,
    strategy: Strategy,
    prefix: str = "",
    *,
    resolves: bool = False,
) -> AlertDraft:
    """An alert about one strategy; with a `prefix` its dedup key is that and the name."""
    key = f"{prefix}{strategy.name}" if prefix else None
    return AlertDraft(level, Category.PROMOTION, title, text, strategy.name, key, resolves)


def _ends_real_money(change: Change) -> bool:
    was_live = change.before is not None and change.before.stage.is_live
    is_live = change.after.stage.is_live
    return was_live and (change.kind == "demote" or (change.kind != "retire" and not is_live))


def _story(change: Change) -> str:
    old = "nowhere" if change.before is None else change.before.stage.value
    told = f"from {old} by {change.by}: {change.reason}"
    return f"{told}; it is frozen until a person acts" if _froze(change) else told


def _froze(change: Change) -> bool:
    return change.after.frozen and change.before is not None and not change.before.frozen
