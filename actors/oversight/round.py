"""The state that the steps of a tick share: one frozen `Round`, and the `Effects` of a step on it.

Pure. A step reads the round and returns its effects; `applied` makes the round that the next step
reads. A step that raises has therefore changed nothing, and one that got half way returns the
effects of that half with the `fault` that stopped it.

Fields that end in `_minor` are money in minor units; instants are int microseconds (UTC).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from ...runtime import FundopsError
from ...wire.alert import AlertDraft
from ...wire.controller import FeedStatus, StrategyStatus
from ...wire.guard import Pause
from ...wire.ledger import LedgerTotals
from ...wire.oversight import NavSample
from ...wire.persistence import Statement
from ...wire.promotion import EntitlementTerms, Transition
from ..calendar import End
from ..host import Heard
from . import closing
from .schema import Ending, Memory, read_back

__all__ = [
    "Effects",
    "Round",
    "applied",
    "durable_endings",
    "figures_of",
    "joined",
    "nav_minor",
    "paid_in_minor",
]


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """All that the steps of one tick know. The next tick begins with the round of the last one."""

    # -- of this tick
    number: int = 0  # of the tick, since this life began
    now_us: int = 0  # when the tick began
    now_s: float = 0.0  # the same, monotonic
    suspect: bool = False  # the wall clock has parted from the monotonic one
    answered: bool = False  # the engine has answered in this tick
    due: tuple[End, ...] = ()  # sessions that this tick ends
    pauses: tuple[Pause, ...] = ()  # that the guard has ordered in this tick
    transitions: tuple[Transition, ...] = ()
    failed_together: frozenset[str] = frozenset()  # strategies that one alert names

    # -- of the last words
    heard: Heard
    feeds: tuple[FeedStatus, ...] = ()
    terms: Mapping[str, EntitlementTerms] | None = None  # None: promotion is off
    totals: LedgerTotals | None = None  # None: there is no ledger, or it has said nothing yet
    totals_tick: int = 0  # in which they were read
    # NAV at the guard's last look, before the fees that have accrued.
    gross_minor: int = 0
    # Deposits and P&L without a strategy, less withdrawals and posted fees, at that look.
    flows_minor: int = 0
    gap_minor: int | None = None  # the ledger's NAV less the guard's
    # The engine's word at the tick before, and when it was given; 0: not known.
    heard_before: tuple[StrategyStatus, ...] = ()
    heard_before_us: int = 0
    named: tuple[str, ...] = ()  # sessions that the host has ended and oversight has not

    # -- to be committed
    memory: Memory = Memory()
    stored: Memory = Memory()  # the memory as it is on disk
    # The engine's figures for the sessions in `Memory.ending`, as objects of this life.
    figures: Mapping[str, tuple[StrategyStatus, ...]] = {}
    alerts: tuple[AlertDraft, ...] = ()
    lines: tuple[Statement, ...] = ()  # of NAV
    minutes: tuple[NavSample, ...] = ()  # which wait for a commit of something else
    minute_us: int = 0  # the newest of them, on disk or not

    @property
    def statuses(self) -> tuple[StrategyStatus, ...]:
        """The last good status of each strategy."""
        return self.heard.statuses

    @property
    def is_heard(self) -> bool:
        """Whether the engine's last words are news: it has answered, and is not silent.

        The words of before a silence are no evidence of today.
        """
        return self.answered and not self.heard.silent

    @property
    def blind_s(self) -> float:
        """The age of the host's last word while it is silent, else 0."""
        return max(1e-6, self.heard.age_s) if self.heard.silent else 0.0


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    """The changes that one step makes to fields of the round of the same name; UNSET: none.

    `alerts`, `lines`, `minutes`, `pauses` and `transitions` are added to those of earlier steps.
    """

    alerts: tuple[AlertDraft, ...] = ()
    lines: tuple[Statement, ...] = ()
    minutes: tuple[NavSample, ...] = ()
    minute_us: int | UnsetType = UNSET
    pauses: tuple[Pause, ...] = ()
    transitions: tuple[Transition, ...] = ()
    suspect: bool | UnsetType = UNSET
    failed_together: frozenset[str] | UnsetType = UNSET
    answered: bool | UnsetType = UNSET
    due: tuple[End, ...] | UnsetType = UNSET
    heard: Heard | UnsetType = UNSET
    feeds: tuple[FeedStatus, ...] | UnsetType = UNSET
    terms: Mapping[str, EntitlementTerms] | UnsetType = UNSET
    totals: LedgerTotals | UnsetType = UNSET
    totals_tick: int | UnsetType = UNSET
    gross_minor: int | UnsetType = UNSET
    flows_minor: int | UnsetType = UNSET
    gap_minor: int | UnsetType | None = UNSET
    heard_before: tuple[StrategyStatus, ...] | UnsetType = UNSET
    heard_before_us: int | UnsetType = UNSET
    named: tuple[str, ...] | UnsetType = UNSET
    memory: Memory | UnsetType = UNSET
    stored: Memory | UnsetType = UNSET
    figures: Mapping[str, tuple[StrategyStatus, ...]] | UnsetType = UNSET
    committed_alerts: int = 0  # the oldest ones, which are on disk now
    committed_lines: int = 0
    committed_minutes: int = 0
    fault: FundopsError | None = None  # why the step did only a part of its work


_NOTHING = Effects()
_ADDED = ("alerts", "lines", "minutes", "pauses", "transitions")
_SET = tuple(
    name
    for name in Effects.__struct_fields__
    if name in Round.__struct_fields__ and name not in _ADDED
)


def applied(tick: Round, effects: Effects) -> Round:
    """The round after a step."""
    if effects == _NOTHING:  # as of most steps in most ticks
        return tick
    changes: dict[str, Any] = {
        name: value for name in _SET if (value := getattr(effects, name)) is not UNSET
    }
    for name in _ADDED:
        if added := getattr(effects, name):
            changes[name] = (*getattr(tick, name), *added)
    if effects.committed_alerts:
        changes["alerts"] = tick.alerts[effects.committed_alerts :]
    if effects.committed_lines:
        changes["lines"] = tick.lines[effects.committed_lines :]
    if effects.committed_minutes:
        changes["minutes"] = tick.minutes[effects.committed_minutes :]
    return msgspec.structs.replace(tick, **changes) if changes else tick


def joined(first: Effects, second: Effects) -> Effects:
    """The effects of two parts of one step; where both set a field, the second one stands."""
    changes: dict[str, Any] = {
        name: value for name in _SET if (value := getattr(second, name)) is not UNSET
    }
    changes |= {name: (*getattr(first, name), *getattr(second, name)) for name in _ADDED}
    return msgspec.structs.replace(first, fault=second.fault or first.fault, **changes)


def nav_minor(tick: Round, capital_minor: int) -> int:
    """NAV as it is known; before the guard's first look, the money paid in."""
    return closing.nav_minor(tick.memory, paid_in_minor(tick, capital_minor))


def paid_in_minor(tick: Round, capital_minor: int) -> int:
    """The ledger's NAV, or the capital where there is no ledger."""
    return capital_minor if tick.totals is None else tick.totals.nav_minor


def durable_endings(tick: Round) -> tuple[Ending, ...]:
    """The endings that consumers may take: those of which the commit is known."""
    stored = {ending.session for ending in tick.stored.ending}
    return tuple(ending for ending in tick.memory.ending if ending.session in stored)


def figures_of(tick: Round, ending: Ending) -> Sequence[StrategyStatus]:
    """The engine's figures for a session that has ended."""
    found = tick.figures.get(ending.session)
    return read_back(ending.statuses) if found is None else found
