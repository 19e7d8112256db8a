"""Trading rules: pure functions from the bars so far to the exposure of the next session.

A rule sees the bars up to and including the last close and answers a target in [-1, 1]: the
fraction of equity to hold, negative for short. The target is traded at the open of the next
session. A rule never sees that session, keeps no state between calls, and reads only the last
`warmup` bars, so a call costs the same in the first year and in the twentieth. Rules with a memory
(a band entered, a channel broken) rebuild it from those bars; they forget an entry older than their
window, which is also their time stop.

There are two kinds, told apart by `flat_at_close`. A session rule (True) enters at the open and
leaves at the close of the same session: flat overnight, one round trip for each session traded. A
holding rule (False) keeps its position until the target changes. Prices are in cents and windows in
sessions; sums stay integers, so no comparison rests on rounding. Rules know nothing of costs,
capital or stages.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from fundops.replay.prices import Bar


class Rule(Protocol):
    """The port between the engine and a rule."""

    @property
    def name(self) -> str:
        """The family and its windows, as in `bollinger_mr_w20`; `named` makes the rule from it."""
        ...

    @property
    def flat_at_close(self) -> bool:
        """True: entered at the open, left at the close. False: held until the target changes."""
        ...

    @property
    def warmup(self) -> int:
        """The number of bars that the rule reads; with fewer its target is 0."""
        ...

    def target(self, history: Sequence[Bar]) -> float:
        """The exposure of the next session, in [-1, 1], from the bars up to the last close."""
        ...


class UnknownRule(ValueError):
    """A rule's name was not understood.

    Attributes:
        name: the name as given.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        forms = ", ".join(FAMILIES)
        return (
            f"no rule is named {self.name!r};"
            f" the forms are {forms}, and session rules joined by _and_"
        )


class _Holding(msgspec.Struct, frozen=True):
    """The base of holding rules."""

    @property
    def flat_at_close(self) -> bool:
        """False: the position is held until the target changes."""
        return False


class _Session(msgspec.Struct, frozen=True):
    """The base of session rules."""

    @property
    def flat_at_close(self) -> bool:
        """True: the position is left at the close of the session that it was entered in."""
        return True


class BollingerReversion(_Holding, frozen=True):
    """Long from a close below the lower Bollinger band until one at or above the middle one.

    The bands are the mean of the last `window` closes plus and minus two standard deviations of the
    population, as J. Bollinger, "Bollinger on Bollinger Bands" (2001), has them. An entry not
    renewed within `window` sessions is given up.
    """

    window: int
    """Sessions of mean and deviation, >= 6: of five values none is over two deviations away."""

    def __post_init__(self) -> None:
        _require("window", self.window, 6)

    @property
    def name(self) -> str:
        """`bollinger_mr_w20` for 20 sessions."""
        return f"bollinger_mr_w{self.window}"

    @property
    def warmup(self) -> int:
        """Two windows: one for the bands, one in which an entry is remembered."""
        return 2 * self.window

    def target(self, history: Sequence[Bar]) -> float:
        """1 while an entry stands, else 0."""
        if len(history) < self.warmup:
            return 0.0
        closes = _closes(history, self.warmup)
        total = sum(closes[self.window :])
        squares = sum(close * close for close in closes[self.window :])
        # From the last close backwards to the first one that decides; the sums follow the window.
        for last in range(self.warmup - 1, self.window - 1, -1):
            # The distance of the close from the mean, times the window; then the variance, times
            # its square.
            distance = self.window * closes[last] - total
            if distance >= 0:
                return 0.0
            if distance * distance > 4 * (self.window * squares - total * total):
                return 1.0
            leaving, entering = closes[last], closes[last - self.window]
            total += entering - leaving
            squares += entering * entering - leaving * leaving
        return 0.0


class SmaCross(_Holding, frozen=True):
    """Long while the mean of the last `fast` closes is above that of the last `slow` ones."""

    fast: int
    """Sessions of the quick mean, >= 1."""
    slow: int
    """Sessions of the slow mean, more than `fast`."""

    def __post_init__(self) -> None:
        _require("fast", self.fast, 1)
        _require("slow", self.slow, self.fast + 1)

    @property
    def name(self) -> str:
        """`sma_cross_f20_s50` for 20 and 50 sessions."""
        return f"sma_cross_f{self.fast}_s{self.slow}"

    @property
    def warmup(self) -> int:
        """The slow window."""
        return self.slow

    def target(self, history: Sequence[Bar]) -> float:
        """1 while the quick mean is above the slow one, else 0."""
        if len(history) < self.warmup:
            return 0.0
        closes = _closes(history, self.slow)
        return float(sum(closes[-self.fast :]) * self.slow > sum(closes) * self.fast)


class Breakout(_Holding, frozen=True):
    """Long from a close above the Donchian channel until one below a channel of half the window.

    The exit on the shorter channel is that of the "turtles" (C. Faith, "Way of the Turtle", 2007).
    A breakout not renewed within `window` sessions is given up.
    """

    window: int
    """Sessions of the channel to break upwards, >= 2; the exit's is half of it, rounded down."""

    def __post_init__(self) -> None:
        _require("window", self.window, 2)

    @property
    def name(self) -> str:
        """`breakout_w20` for 20 sessions."""
        return f"breakout_w{self.window}"

    @property
    def warmup(self) -> int:
        """Two windows: one for the channel, one in which a breakout is remembered."""
        return 2 * self.window

    def target(self, history: Sequence[Bar]) -> float:
        """1 while a breakout stands, else 0."""
        if len(history) < self.warmup:
            return 0.0
        bars = history[-self.warmup :]
        highs = [bar.high_cents for bar in bars]
        lows = [bar.low_cents for bar in bars]
        for last in range(self.warmup - 1, self.window - 1, -1):
            # The channel ends with the session before, since no close is above the high of its
            # session.
            close = bars[last].close_cents
            if close < min(lows[last - self.window // 2 : last]):
                return 0.0
            if close > max(highs[last - self.window : last]):
                return 1.0
        return 0.0


class Momentum(_Holding, frozen=True):
    """Long while the last close is above the one `window` sessions before it."""

    window: int
    """Sessions looked back, >= 1."""

    def __post_init__(self) -> None:
        _require("window", self.window, 1)

    @property
    def name(self) -> str:
        """`momentum_w10` for 10 sessions."""
        return f"momentum_w{self.window}"

    @property
    def warmup(self) -> int:
        """The window and the close it is compared with."""
        return self.window + 1

    def target(self, history: Sequence[Bar]) -> float:
        """1 after a rise over the window, else 0."""
        if len(history) < self.warmup:
            return 0.0
        return float(history[-1].close_cents > history[-self.warmup].close_cents)


class BuyAndHold(_Holding, frozen=True):
    """Long always: the benchmark, and a round trip that never closes."""

    @property
    def name(self) -> str:
        """`buy_and_hold`."""
        return "buy_and_hold"

    @property
    def warmup(self) -> int:
        """None needed."""
        return 0

    def target(self, history: Sequence[Bar]) -> float:
        """1."""
        return 1.0


class SessionAbove(_Session, frozen=True):
    """Long for the session after a close above the mean of the last `window` closes."""

    window: int
    """Sessions of the mean, that of the close included, >= 2."""

    def __post_init__(self) -> None:
        _require("window", self.window, 2)

    @property
    def name(self) -> str:
        """`session_above_w50` for 50 sessions."""
        return f"session_above_w{self.window}"

    @property
    def warmup(self) -> int:
        """The window."""
        return self.window

    def target(self, history: Sequence[Bar]) -> float:
        """1 above the mean, else 0."""
        if len(history) < self.warmup:
            return 0.0
        closes = _closes(history, self.window)
        return float(closes[-1] * self.window > sum(closes))


class SessionBelow(_Session, frozen=True):
    """Long for the session after a close below the mean of the last `window` closes."""

    window: int
    """Sessions of the mean, that of the close included, >= 2."""

    def __post_init__(self) -> None:
        _require("window", self.window, 2)

    @property
    def name(self) -> str:
        """`session_below_w5` for 5 sessions."""
        return f"session_below_w{self.window}"

    @property
    def warmup(self) -> int:
        """The window."""
        return self.window

    def target(self, history: Sequence[Bar]) -> float:
        """1 below the mean, else 0."""
        if len(history) < self.warmup:
            return 0.0
        closes = _closes(history, self.window)
        return float(closes[-1] * self.window < sum(closes))


class SessionAfterDown(_Session, frozen=True):
    """Long for the session after `days` closes in a row, each below the one before it."""

    days: int
    """Falling closes in a row, >= 1."""

    def __post_init__(self) -> None:
        _require("days", self.days, 1)

    @property
    def name(self) -> str:
        """`session_after_down_k1` for one falling close."""
        return f"session_after_down_k{self.days}"

    @property
    def warmup(self) -> int:
        """The falling closes and the one the first of them fell from."""
        return self.days + 1

    def target(self, history: Sequence[Bar]) -> float:
        """1 after the falls, else 0."""
        if len(history) < self.warmup:
            return 0.0
        return float(all(change < 0 for change in _changes(history, self.days)))


class SessionAfterUp(_Session, frozen=True):
    """Long for the session after `days` closes in a row, each above the one before it."""

    days: int
    """Rising closes in a row, >= 1."""

    def __post_init__(self) -> None:
        _require("days", self.days, 1)

    @property
    def name(self) -> str:
        """`session_after_up_k1` for one rising close."""
        return f"session_after_up_k{self.days}"

    @property
    def warmup(self) -> int:
        """The rising closes and the one the first of them rose from."""
        return self.days + 1

    def target(self, history: Sequence[Bar]) -> float:
        """1 after the rises, else 0."""
        if len(history) < self.warmup:
            return 0.0
        return float(all(change > 0 for change in _changes(history, self.days)))


class AllOf(_Session, frozen=True):
    """Several session rules at once: long only where all of them are, by their least target."""

    rules: tuple[Rule, ...]
    """Two session rules or more."""

    def __post_init__(self) -> None:
        _require("rules", len(self.rules), 2)
        for rule in self.rules:
            # A holding rule that is asked only once a session would lose its exit.
            if not rule.flat_at_close:
                raise ValueError(f"rules: {rule.name} holds overnight")

    @property
    def name(self) -> str:
        """`session_above_w100_and_below_w5`: the later rules without their prefix."""
        first, *rest = (rule.name for rule in self.rules)
        return "_and_".join([first, *(name.removeprefix("session_") for name in rest)])

    @property
    def warmup(self) -> int:
        """The longest warm-up of its rules."""
        return max(rule.warmup for rule in self.rules)

    def target(self, history: Sequence[Bar]) -> float:
        """The least of their targets, 0 until all of them are warm."""
        if len(history) < self.warmup:
            return 0.0
        return min(rule.target(history) for rule in self.rules)


FAMILIES: Final[Mapping[str, Callable[..., Rule]]] = {
    "bollinger_mr_w#": BollingerReversion,
    "sma_cross_f#_s#": SmaCross,
    "breakout_w#": Breakout,
    "momentum_w#": Momentum,
    "buy_and_hold": BuyAndHold,
    "session_above_w#": SessionAbove,
    "session_below_w#": SessionBelow,
    "session_after_down_k#": SessionAfterDown,
    "session_after_up_k#": SessionAfterUp,
}
"""The forms that `named` understands, with `#` for a whole number, and the rules they make."""

# One spelling for each rule: no zero, no leading zero, no sign.
_PATTERNS: Final = tuple(
    (re.compile(form.replace("#", "([1-9][0-9]{0,3})")), family)
    for form, family in FAMILIES.items()
)


def named(name: str) -> Rule:
    """The rule of that name. A line-up can thus be plain data; `named(rule.name)` equals `rule`.

    Raises:
        UnknownRule: no form of `FAMILIES` fits, a number is too small for its family, or `_and_`
        joins a holding rule.
    """
    first, *rest = name.split("_and_") if name != "buy_and_hold" else [name]
    if not rest:
        return _single(name, first)
    try:
        return AllOf((_single(name, first), *(_single(name, f"session_{part}") for part in rest)))
    except UnknownRule:
        raise
    except ValueError as error:
        raise UnknownRule(name) from error


def _single(name: str, part: str) -> Rule:
    """The rule of one part of `name`."""
    for pattern, family in _PATTERNS:
        found = pattern.fullmatch(part)
        if found is None:
            continue
        try:
            return family(*(int(number) for number in found.groups()))
        except ValueError as error:
            raise UnknownRule(name) from error
    raise UnknownRule(name)


def _require(field: str, value: int, least: int) -> None:
    """Refuse a size too small to mean anything."""
    if value < least:
        raise ValueError(f"{field}: {value} is below {least}")


def _closes(history: Sequence[Bar], count: int) -> list[int]:
    """The last `count` closes in cents, oldest first."""
    return [bar.close_cents for bar in history[-count:]]


def _changes(history: Sequence[Bar], count: int) -> list[int]:
    """The last `count` changes from close to close in cents, oldest first."""
    closes = _closes(history, count + 1)
    return [after - before for before, after in itertools.pairwise(closes)]
