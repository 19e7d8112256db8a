"""The gates an alert passes, in order: validate, dedup, rate. Pure: no I/O, no clock, no tasks.

Each alert is decided at its own instant, so the result depends on the order of the alerts and never
on when the code runs. Decisions are made on a `Draft`; `Gates.apply` makes them true once they are
durable, and a draft that is dropped leaves no trace.

Only an alert that goes out changes the state of a dedup key: a firing that the rate gate held back
was not heard, so it must not silence the next one. It waits instead, and goes out as soon as its
lane has room, unless its key is resolved first; so does a resolution. An emitter with a key tells a
change of state once, and the alert is heard. Of several alerts that wait, the highest level goes
first.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import ChainMap
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

from ...runtime import YEAR_S, Settings, shown
from ...wire.alert import AlertOutcome, Category, Level, SendAlert
from ...wire.errors import AlertRefused

__all__ = [
    "MESSAGE_MAX",
    "NAME_MAX",
    "NO_CHANGES",
    "OPEN_KEYS_MAX",
    "TITLE_MAX",
    "WAITING_MAX",
    "Alert",
    "AlertSettings",
    "Changes",
    "Decided",
    "Draft",
    "Gates",
    "OpenKey",
    "Suppressed",
    "accepted",
    "cleaned",
    "repaired",
]

# Characters.
TITLE_MAX = 256
MESSAGE_MAX = 4_096
NAME_MAX = 256  # of a strategy's name, and of a dedup key

# Keys that are not resolved would gather without end. Beyond this the one that was sent longest ago
# is forgotten, which costs one repeated alert.
OPEN_KEYS_MAX = 10_000

# Alerts with a key that wait for room. At five a minute they take hours to go out; beyond this the
# oldest of the lowest level is given up, and stays in the history.
WAITING_MAX = 1_000

# The key under which the guard tells that the kill switch is engaged. It is open until the release.
KILL_KEY = "kill"

TITLES_MAX = 3  # of the suppressed alerts that a summary names

_SEVERITY = {Level.INFO: 0, Level.WARNING: 1, Level.CRITICAL: 2}


class AlertSettings(Settings, frozen=True):
    """The limits of the gates that every alert passes."""

    per_category: Annotated[
        int, Meta(ge=1, le=1_000_000, description="alerts of one category admitted in any window")
    ] = 5
    window_s: Annotated[
        float, Meta(gt=0, le=YEAR_S, description="seconds; length of the half-open rate window")
    ] = 60.0
    critical_lane: Annotated[
        Literal["own", "shared"],
        Meta(description="'shared': CRITICAL alerts count against the budget of their category"),
    ] = "own"
    repeat_s: Annotated[
        float,
        Meta(
            gt=0,
            le=YEAR_S,
            description="seconds; an open dedup key that fires again after this is sent again",
        ),
    ] = 14_400.0
    suppression_summary: Annotated[
        bool, Meta(description="send a summary of the alerts that the rate limit held back")
    ] = True
    queue_max: Annotated[
        int,
        Meta(
            ge=1,
            le=1_000_000,
            description="pending deliveries of a channel; beyond it the oldest INFO goes, then the"
            " oldest WARNING, never a CRITICAL",
        ),
    ] = 256


# -- validate


class Alert(msgspec.Struct, frozen=True):
    """One alert whose texts are clean and whose enums are certain."""

    at_us: int
    level: Level
    category: Category
    title: str
    message: str
    strategy: str | None = None
    dedup_key: str | None = None
    resolves: bool = False


_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def cleaned(text: str, limit: int) -> str:
    """`text` with at most `limit` characters, cut visibly; line breaks and tabs become blanks,
    and other control characters and lone surrogates the replacement character.
    """
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    return _UNPRINTABLE.sub(lambda found: " " if found[0] in "\t\n\r" else "\ufffd", text)


def accepted(request: SendAlert, at_us: int) -> Alert:
    """The alert of a request. Raises: `AlertRefused` naming the field."""
    if not isinstance(request.level, Level):
        raise AlertRefused("level", f"{shown(request.level)} is not a Level")
    if not isinstance(request.category, Category):
        raise AlertRefused("category", f"{shown(request.category)} is not a Category")
    for field in ("title", "message"):
        if not isinstance(getattr(request, field), str):
            raise AlertRefused(field, f"{shown(getattr(request, field))} is not a text")
    for field in ("strategy", "dedup_key"):
        if not isinstance(getattr(request, field), str | None):
            raise AlertRefused(
                field, f"{shown(getattr(request, field))} is neither a text nor None"
            )
    if not request.title.strip():
        raise AlertRefused("title", "is empty; say in a few words what happened")
    if request.resolves and not request.dedup_key:
        raise AlertRefused(
            "dedup_key", "is missing; an alert that resolves needs the key it closes"
        )
    return repaired(
        Alert(
            at_us,
            request.level,
            request.category,
            request.title,
            request.message,
            request.strategy,
            request.dedup_key,
            bool(request.resolves),
        )
    )


def repaired(alert: Alert) -> Alert:
    """`alert` with acceptable values: one that is stored already can no longer be refused."""
    return Alert(
        alert.at_us,
        alert.level,
        alert.category,
        cleaned(alert.title, TITLE_MAX) if alert.title.strip() else alert.category.value,
        cleaned(alert.message, MESSAGE_MAX),
        None if alert.strategy is None else cleaned(alert.strategy, NAME_MAX),
        _key(alert.dedup_key) if alert.dedup_key else None,
        alert.resolves and bool(alert.dedup_key),
    )


def _key(key: str) -> str:
    """A key that had to be changed keeps a digest of itself: two keys must never become one."""
    short = cleaned(key, NAME_MAX)
    if short == key:
        return key
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{short[: NAME_MAX - 1 - len(digest)]}~{digest}"


# -- what the gates remember


class OpenKey(msgspec.Struct, frozen=True):
    """A dedup key that has been sent and not resolved."""

    level: Level  # of the last one sent
    sent_us: int
    fired: int  # how often, held back ones included


class Suppressed(msgspec.Struct, frozen=True):
    """The alerts of one category that the rate gate has held back since its last summary."""

    first_us: int
    count: int
    levels: tuple[int, int, int] = (0, 0, 0)  # of them INFO, WARNING and CRITICAL
    titles: tuple[str, ...] = ()  # the first ones

    def also(self, alert: Alert) -> Suppressed:
        """With one more alert."""
        levels = list(self.levels)
        levels[_SEVERITY[alert.level]] += 1
        return Suppressed(
            min(self.first_us, alert.at_us),
            self.count + 1,
            (levels[0], levels[1], levels[2]),
            (*self.titles, alert.title)[:TITLES_MAX],
        )


class Decided(msgspec.Struct, frozen=True):
    """The decision on one alert."""

    alert: Alert
    outcome: AlertOutcome
    count: int  # firings of its key while open; 1 without a key
    in_budget: bool  # whether it takes a place in the rate window


class Changes(msgspec.Struct, frozen=True):
    """The changes of a draft that the database must learn; None: the entry is gone."""

    keys: Mapping[str, OpenKey | None]
    suppressed: Mapping[Category, Suppressed | None]
    waiting: Mapping[str, Alert | None]  # held back by the rate gate, by key

    def then(self, later: Changes) -> Changes:
        """Both, the later one last."""
        return Changes(
            {**self.keys, **later.keys},
            {**self.suppressed, **later.suppressed},
            {**self.waiting, **later.waiting},
        )


NO_CHANGES = Changes({}, {}, {})

_Lane = tuple[Category, bool]  # the flag marks the one of CRITICAL alone
_Times = tuple[int, ...]


class Gates:
    """The durable state of dedup and rate, in memory."""

    def __init__(self, settings: AlertSettings) -> None:
        self.settings = settings
        self._admitted: dict[_Lane, _Times] = {}
        self._keys: dict[str, OpenKey | None] = {}  # the one sent longest ago is first
        self._suppressed: dict[Category, Suppressed | None] = {}
        self._waiting: dict[str, Alert | None] = {}

    def restore(self, admissions: Iterable[tuple[Category, Level, int]], changes: Changes) -> None:
        """Become what history says: admissions in the order decided, keys in the order sent."""
        draft = self.draft(AlertOutcome.QUEUED)
        for category, level, at_us in admissions:
            draft._admit(category, level, at_us)
        self.apply(draft)
        self._adopt(changes)

    def draft(self, admitted_as: AlertOutcome) -> Draft:
        """A provisional continuation of this state. Only the newest draft may be applied."""
        return Draft(
            self.settings,
            admitted_as,
            self._admitted,
            self._keys,
            self._suppressed,
            self._waiting,
        )

    def apply(self, draft: Draft) -> None:
        """Make the draft's decisions true."""
        self._admitted.update(draft._admitted.maps[0])
        self._adopt(draft.changes)

    def _adopt(self, changes: Changes) -> None:
        for key, known in changes.keys.items():
            earlier = self._keys.get(key)
            if earlier is None or known is None or earlier.sent_us != known.sent_us:
                self._keys.pop(key, None)  # so that one sent again moves to the end
            if known is not None:
                self._keys[key] = known
        for category, held_back in changes.suppressed.items():
            self._suppressed[category] = held_back
        for key, alert in changes.waiting.items():
            if alert is None:
                self._waiting.pop(key, None)
            else:
                self._waiting[key] = alert


class Draft:
    """Decides alerts one after the other on top of a `Gates`, whose own state stays as it is."""

    def __init__(
        self,
        settings: AlertSettings,
        admitted_as: AlertOutcome,
        admitted: dict[_Lane, _Times],
        keys: dict[str, OpenKey | None],
        suppressed: dict[Category, Suppressed | None],
        waiting: dict[str, Alert | None],
    ) -> None:
        self.decided: list[Decided] = []  # in the order of the history
        self._settings = settings
        self._window_us = round(settings.window_s * 1_000_000)
        self._admitted_as = admitted_as
        self._admitted: ChainMap[_Lane, _Times] = ChainMap({}, admitted)
        self._keys: ChainMap[str, OpenKey | None] = ChainMap({}, keys)
        self._suppressed: ChainMap[Category, Suppressed | None] = ChainMap({}, suppressed)
        self._waiting: ChainMap[str, Alert | None] = ChainMap({}, waiting)
        self._waiting_count = len(waiting)
        # No lane with a waiting alert has room before this instant. A rough bound is enough.
        self._room_us: float = -math.inf if waiting else math.inf
        self._opened = 0

    @property
    def changes(self) -> Changes:
        """The keys, the suppressed counts and the waiting alerts that this draft changes."""
        return Changes(self._keys.maps[0], self._suppressed.maps[0], self._waiting.maps[0])

    @property
    def next_us(self) -> float:
        """The instant of the next summary or of the next room for a waiting alert; infinite when
        there is neither. Right after `pass_time`.
        """
        summaries = self._suppressed.values() if self._settings.suppression_summary else ()
        due = (held_back.first_us + self._window_us for held_back in summaries if held_back)
        return min([self._room_us, *due])

    def pass_time(self, at_us: int) -> None:
        """Decide the summaries that are due by `at_us` and the waiting alerts that have room by
        then, each at its own instant.
        """
        for due_us, category in self._due_summaries(at_us):
            self.let_out(due_us - 1)
            held_back = self._suppressed[category]
            assert held_back is not None
            self._suppressed[category] = None
            summary = _summary(due_us, category, held_back, self._settings)
            self.decided.append(Decided(summary, self._admitted_as, 1, in_budget=False))
        self.let_out(at_us)

    def _due_summaries(self, at_us: int) -> list[tuple[int, Category]]:
        if not (self._suppressed and self._settings.suppression_summary):
            return []
        due = [
            (held_back.first_us + self._window_us, category)
            for category in Category
            if (held_back := self._suppressed.get(category))
            and held_back.first_us + self._window_us <= at_us
        ]
        return sorted(due, key=lambda one: one[0])

    def decide(self, alert: Alert) -> Decided | None:
        """The outcome at the alert's own instant; None when it resolves a key that is not open."""
        key = alert.dedup_key
        known = self._keys.get(key) if key is not None else None
        held = self._waiting.get(key) if key is not None else None
        if key is not None and held is not None and held.resolves and not alert.resolves:
            # The end of the state before was not heard, so for people the key is still open. At
            # which level is not known any more, and the lowest lets a higher one out again.
            self._give_up(held)
            known = self._keys[key] = OpenKey(Level.INFO, held.at_us, 0)
        if alert.resolves and known is None:
            if held is not None and not held.resolves:
                self._give_up(held)  # it is over before it was heard
            return None
        fired = 1 if known is None else known.fired + (not alert.resolves)
        if known is not None and not alert.resolves and not self._heard_again(known, alert):
            outcome = AlertOutcome.DEDUPED
        else:
            outcome = self._rate(alert, known)
        if key is not None:
            self._note_key(key, alert, known, fired, outcome)
            self._note_waiting(key, alert, outcome)
        decided = Decided(alert, outcome, fired, in_budget=outcome is self._admitted_as)
        self.decided.append(decided)
        return decided

    # -- dedup

    def _heard_again(self, known: OpenKey, alert: Alert) -> bool:
        """A higher level, or the repeat. A clock that was set back must not silence a key until
        it has caught up.
        """
        higher = _SEVERITY[alert.level] > _SEVERITY[known.level]
        return higher or abs(alert.at_us - known.sent_us) >= round(
            self._settings.repeat_s * 1_000_000
        )

    def _note_key(
        self, key: str, alert: Alert, known: OpenKey | None, fired: int, outcome: AlertOutcome
    ) -> None:
        if alert.resolves:
            # Also when the rate gate held it back: the condition is over, and its next firing is a
            # new one.
            self._keys[key] = None
        elif outcome is self._admitted_as:
            if known is None:
                self._make_room()
            self._keys[key] = OpenKey(alert.level, alert.at_us, fired)
        elif known is not None:
            self._keys[key] = OpenKey(known.level, known.sent_us, fired)

    def _make_room(self) -> None:
        stored = self._keys.maps[1]
        self._opened += 1
        if len(stored) + self._opened > OPEN_KEYS_MAX:
            oldest = next((key for key in stored if key not in self._keys.maps[0]), None)
            if oldest is not None:
                self._keys[oldest] = None
                self._opened -= 1

    # -- rate

    def _rate(self, alert: Alert, known: OpenKey | None) -> AlertOutcome:
        has_room = self._count(self._lane(alert), alert.at_us) < self._settings.per_category
        if has_room or self._begins_a_kill(alert, known):
            self._admit(alert.category, alert.level, alert.at_us)
            return self._admitted_as
        held_back = self._suppressed.get(alert.category) or Suppressed(alert.at_us, 0)
        self._suppressed[alert.category] = held_back.also(alert)
        return AlertOutcome.RATE_SUPPRESSED

    def _lane(self, alert: Alert) -> _Lane:
        critical = alert.level is Level.CRITICAL
        return alert.category, critical and self._settings.critical_lane == "own"

    def _begins_a_kill(self, alert: Alert, known: OpenKey | None) -> bool:
        """Whether this is the first CRITICAL about a kill switch that was off.

        A host may send alerts of this category, so an empty lane alone would not tell.
        """
        if alert.level is not Level.CRITICAL or alert.category is not Category.KILL_SWITCH:
            return False
        is_first = alert.dedup_key == KILL_KEY and known is None
        return is_first or not self._count((alert.category, True), alert.at_us)

    def _count(self, lane: _Lane, at_us: int) -> int:
        """Admissions less than a window away, on either side: the limit then holds for instants
        in any order, and a clock that was set back does not wait for the future to pass.
        """
        return sum(abs(at_us - one) < self._window_us for one in self._admitted.get(lane, ()))

    def _admit(self, category: Category, level: Level, at_us: int) -> None:
        # Three windows' worth, so that the count is exact while instants are out of order by up to
        # one window.
        keep = 3 * self._settings.per_category
        lanes = {(category, level is Level.CRITICAL)}
        if self._settings.critical_lane == "shared":
            # CRITICAL alerts keep a second lane, which tells whether an episode continues.
            lanes.add((category, False))
        for lane in lanes:
            self._admitted[lane] = (*self._admitted.get(lane, ()), at_us)[-keep:]

    # -- waiting

    def let_out(self, at_us: int, *, only: Level | None = None) -> list[Decided]:
        """Admit the waiting alerts for which there is room by `at_us`, each at the first instant
        with room. With `only`, those of one level.
        """
        let_out: list[Decided] = []
        while self._room_us <= at_us:
            lanes: dict[_Lane, list[Alert]] = {}
            for alert in self._waiting.values():
                if alert is not None and (only is None or alert.level is only):
                    lanes.setdefault(self._lane(alert), []).append(alert)
            free = [
                (self._room_at(lane, min(alert.at_us for alert in alerts), at_us), place, alerts)
                for place, (lane, alerts) in enumerate(sorted(lanes.items(), key=_lane_order))
            ]
            room_us, _, alerts = min(free, default=(math.inf, 0, []))
            if only is None:
                self._room_us = room_us
            if room_us > at_us:
                break
            let_out.append(self._let_out(min(alerts, key=_urgency), int(room_us)))
        return let_out

    def _let_out(self, held: Alert, at_us: int) -> Decided:
        key = held.dedup_key
        assert key is not None
        at_us = max(at_us, held.at_us)
        note = f" (held back for {(at_us - held.at_us) / 1e6:g} s by the rate limit)"
        message = (cleaned(held.message, MESSAGE_MAX - len(note)) + note).lstrip()
        alert = replace(held, at_us=at_us, message=message)
        self._give_up(held)
        known = self._keys.get(key)
        fired = 1 if known is None else known.fired
        self._admit(alert.category, alert.level, at_us)
        if not alert.resolves:
            self._note_key(key, alert, known, fired, self._admitted_as)
        decided = Decided(alert, self._admitted_as, fired, in_budget=True)
        self.decided.append(decided)
        return decided

    def _note_waiting(self, key: str, alert: Alert, outcome: AlertOutcome) -> None:
        held = self._waiting.get(key)
        if outcome is AlertOutcome.RATE_SUPPRESSED:
            if held is not None:
                if not alert.resolves and _SEVERITY[alert.level] < _SEVERITY[held.level]:
                    return  # the worse news is heard first
                self._give_up(held)
            self._wait(key, alert)
        elif outcome is self._admitted_as and held is not None:
            self._give_up(held)

    def _wait(self, key: str, alert: Alert) -> None:
        if self._waiting_count >= WAITING_MAX:
            waiting = (held for held in self._waiting.values() if held is not None)
            self._give_up(min(waiting, key=lambda held: (_SEVERITY[held.level], held.at_us)))
        self._waiting[key] = alert
        self._waiting_count += 1
        self._room_us = min(
            self._room_us, self._room_at(self._lane(alert), alert.at_us, alert.at_us)
        )

    def _give_up(self, held: Alert) -> None:
        assert held.dedup_key is not None
        self._waiting[held.dedup_key] = None
        self._waiting_count -= 1

    def _room_at(self, lane: _Lane, from_us: int, until_us: int) -> int:
        """The first instant from `from_us` on at which the lane has room.

        It does not lie before the lane's latest admission up to `until_us`, since not all of the
        earlier ones are still known.
        """
        admitted = self._admitted.get(lane, ())
        from_us = max([from_us, *(one for one in admitted if one <= until_us)])
        later = (one + self._window_us for one in admitted)
        instants = sorted({from_us, *(one for one in later if one > from_us)})
        limit = self._settings.per_category
        return next(one for one in instants if self._count(lane, one) < limit)


def _lane_order(entry: tuple[_Lane, list[Alert]]) -> tuple[str, bool]:
    (category, critical), _ = entry
    return category.value, critical


def _urgency(alert: Alert) -> tuple[int, int, str]:
    return -_SEVERITY[alert.level], alert.at_us, alert.dedup_key or ""


def _summary(
    at_us: int, category: Category, held_back: Suppressed, settings: AlertSettings
) -> Alert:
    alerts = "1 alert was" if held_back.count == 1 else f"{held_back.count} alerts were"
    levels = ", ".join(
        f"{count} {level.value}"
        for level, count in zip(Level, held_back.levels, strict=True)
        if count
    )
    first = "; ".join(held_back.titles)
    return Alert(
        at_us,
        Level.WARNING,
        category,
        f"{held_back.count} {category.value} suppressed",
        cleaned(
            f"{alerts} held back in the last {settings.window_s:g} s, since more than"
            f" {settings.per_category} came within {settings.window_s:g} s: {levels}. The first:"
            f" {first}. Alerts about a state that lasts follow as the limit allows; all are in the"
            " history of alerts.",
            MESSAGE_MAX,
        ),
    )
