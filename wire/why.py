"""Why a strategy may not send real orders now: each blocker, with the command that lifts it.

The guard knows some of the reasons and keeps them with each lease. A fund adds those of recovery
and promotion. Both use the kinds and the order of this file, so the first reason of an entitlement
is the first blocker that the guard knows.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final, Literal, NamedTuple, get_args

import msgspec

__all__ = ["BLOCKER_KINDS", "Blocker", "BlockerKind", "Reason", "Why", "rank"]

# In the order in which they are told: a person's and the guard's acts first, then the way up to
# real money, then the faults of the host.
BlockerKind = Literal[
    "kill_switch",  # engaged, confirmed or not
    "operator",  # a person paused the strategy
    "retired",  # by a person, which cannot be undone
    "hold",  # recovery holds it and does not restart it
    "breaker",  # recovery gave it up, or waits for the next attempt
    "pause",  # the guard paused it at its drawdown limit
    "daily_loss",  # the fund lost too much in this session
    "frozen",  # not promoted until a person unfreezes it
    "cooldown",  # not promoted for some days after a demotion
    "gate",  # one criterion of its gate that is not met
    "capital",  # the other strategies leave too little of the fund's capital
    "stage",  # its stage trades no real money
    "lease",  # ran out: no tick renewed it, or the host is silent
    "set_aside",  # its last status is wrong
    "not_registered",  # with promotion, which is on
    "above_entitlement",  # more is in force at the engine than its stage allows
    "engine",  # the engine does not run it
    "unknown",  # no part of the fund knows the name
]
BLOCKER_KINDS: Final[tuple[str, ...]] = get_args(BlockerKind)
_RANKS: Final = {kind: place for place, kind in enumerate(BLOCKER_KINDS)}


def rank(kind: str) -> int:
    """The place of this kind of blocker in the order in which blockers are told."""
    return _RANKS[kind]


class Reason(NamedTuple):
    """One reason of the guard why a strategy may not open."""

    kind: BlockerKind
    text: str


class Blocker(msgspec.Struct, frozen=True):
    """One obstacle between a strategy and real orders."""

    kind: BlockerKind
    text: str
    lift: str  # the command that lifts it, or in words the event that does


class Why(msgspec.Struct, frozen=True):
    """The permission of one strategy now, and every blocker between it and real orders, in order.

    The flags speak of real orders. A strategy that may not open has at least one blocker.
    """

    strategy: str
    may_open: bool  # orders that add risk
    may_close: bool  # orders that only reduce risk
    stage: str | None  # None: promotion is off, or the stage is unknown
    mode: Literal["paper", "shadow", "live", "reduce", "none"]
    capital: Decimal  # the most real capital that it may use; 0 in the modes reduce and none
    blockers: tuple[Blocker, ...]
    notes: tuple[str, ...] = ()  # what blocks no order now, and parts that did not answer
