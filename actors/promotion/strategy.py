"""The records of promotion: the identity of a strategy, its episode, and a change of its stage.

A *strategy* is who it is: name, family, version, revision, cooldown, demotions. An *episode* is one
stay in a stage with the evidence of that stay alone. Immutable values. Instants are int
microseconds, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import msgspec

from ...wire.promotion import Evaluation, PromotionStage, Transition
from .criteria import PromotionGate
from .totals import Stay
from .track import Track

__all__ = ["REMEMBERED_SESSIONS", "Change", "Episode", "Metric", "Strategy"]

# Ends of sessions that a record keeps, to tell how many came after a value.
REMEMBERED_SESSIONS: Final = 5

Kind = Literal[
    "register",
    "adopt",
    "promote",
    "demote",
    "void",
    "cap",
    "version",
    "freeze",
    "unfreeze",
    "discard",
    "retire",
]


class Metric(msgspec.Struct, frozen=True):
    """The value of one metric in this episode, in its canonical unit."""

    value: float
    as_of_us: int
    # "engine": from its reports; "returns" or "equity": from that series; else the recorder's name.
    source: str = ""
    n: int | None = None  # sessions behind the value; None: unknown
    # Skew and kurtosis of the returns behind a Sharpe ratio; None: unknown.
    shape: tuple[float, float] | None = None


class Episode(msgspec.Struct, frozen=True, gc=False):
    """One stay in a stage, and the evidence of it."""

    number: int
    entered_us: int  # the stage
    frozen_us: int = 0  # time that does not count as time in the stage: frozen, or voided
    active_us: int = 0  # time in the stage when the record was last stored
    track: Track = Track()  # of the engine's reports
    recorded: Mapping[str, Metric] = {}  # by others
    measured: Mapping[str, Metric] = {}  # by fundops, from the track or from a recorded series
    # Metrics that were computed and have no value, such as a Sharpe of constant returns.
    undefined: tuple[str, ...] = ()
    stays: tuple[Stay, ...] = (Stay(),)  # the totals since the registration
    ready: bool = False  # the alert says that it waits for a person
    overdue: bool = False  # the alert says that it is in the stage for longer than planned


class Strategy(msgspec.Struct, frozen=True, gc=False):
    """Everything the policy knows of one strategy."""

    id: str
    name: str
    stage: PromotionStage
    registered_us: int
    episode: Episode
    episodes: int = 1  # the highest number of an episode so far
    rev: int = 1  # rises with each line of history
    family: str | None = None  # variants of one idea; None: it is alone
    version: str | None = None  # of code and configuration, as the engine reports it; None: unknown
    versions: int = 1  # that were ever evaluated
    frozen: bool = False
    frozen_since_us: int | None = None
    cooldown_until_us: int | None = None
    demotions_us: tuple[int, ...] = ()  # automatic ones within the window, oldest first
    cap: float | None = None  # fraction of the budget, set for this stage; None: the rung's
    budget_minor: int | None = None  # capital at full size; None: the fund's capital
    # Real capital beyond the bound of all, which a person allowed; it ends with the stage.
    over_minor: int = 0
    over_bound_minor: int = 0  # the bound at that time; beyond a lower one nothing is allowed
    streak: int = 0  # sessions in a row at whose end the gate passed
    streak_gate: str = ""  # the hash of that gate
    # When the last few sessions ended that the host named, in any episode; (): a calendar says it.
    closes_us: tuple[int, ...] = ()

    def passed_in_a_row(self, gate: PromotionGate) -> int:
        """The sessions in a row at whose end this gate passed; another gate's are none of it."""
        return self.streak if self.streak and self.streak_gate == gate.hash else 0

    def active_us(self, now_us: int) -> int:
        """Time in the stage, frozen time excluded. A clock that steps back takes nothing of the
        time stored.
        """
        until_us = now_us if self.frozen_since_us is None else self.frozen_since_us
        active_us = until_us - self.episode.entered_us - self.episode.frozen_us
        return max(self.episode.active_us, active_us)

    def behind_us(self, now_us: int) -> int:
        """How long a clock that stepped back needs until the days in the stage go on."""
        since_us = now_us - self.episode.entered_us - self.episode.frozen_us
        return max(0, self.episode.active_us - since_us)

    def left_out(self, since_us: int | None, now_us: int) -> Episode:
        """The episode, where the time since then is not time in the stage.

        It is never negative: a clock that steps back pauses the days until it has caught up.
        """
        spent_us = 0 if since_us is None else max(0, now_us - since_us)
        return msgspec.structs.replace(self.episode, frozen_us=self.episode.frozen_us + spent_us)

    def stored(self, now_us: int) -> Strategy:
        """The record as it is stored now."""
        episode = msgspec.structs.replace(self.episode, active_us=self.active_us(now_us))
        return msgspec.structs.replace(self, episode=episode)


class Change(msgspec.Struct, frozen=True):
    """A decided change: the record after it, and the line of history that says why."""

    after: Strategy
    kind: Kind
    before: Strategy | None  # None: it is new
    at_us: int
    by: str
    reason: str
    evaluation: Evaluation | None = None
    hard: bool = False  # a demotion by a hard limit
    request_id: str | None = None
    request: str = ""  # digest of the request with that id
    outcome: Transition | None = None  # the answer to a repeat of the request
    voids: int | None = None  # the line of history that it undoes
    undone: Strategy | None = None  # the record to which a void returns; None: `before`

    @property
    def from_stage(self) -> PromotionStage | None:
        """The stage before; None: it is new."""
        return None if self.before is None else self.before.stage
