"""Small charts of one line of text: a strip of stages, and a spark of a curve."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from fundops.replay.figures import Stay

__all__ = ["ASCII", "UNICODE", "Signs", "cut", "spark", "stage_at", "strip"]


class Signs(NamedTuple):
    """The signs that a terminal can print."""

    stages: dict[str, str]
    spark: str  # from the lowest level to the highest
    done: str
    look: str
    breaker: str
    wrong: str
    up: str
    down: str
    ellipsis: str
    minus: str


UNICODE: Final = Signs(
    {"paper": "·", "shadow": "░", "live-small": "▒", "live-scaled": "█", "live": "█"},
    "▁▂▃▄▅▆▇█",
    *("✓", "▲", "■", "✕", "▲", "▼", "…", "\N{MINUS SIGN}"),
)
ASCII: Final = Signs(
    {"paper": ".", "shadow": ":", "live-small": "+", "live-scaled": "#", "live": "#"},
    "_.-=+*%#",
    *("ok", "!", "!", "NO", "^", "v", "~", "-"),
)


def cut(text: str, room: int, signs: Signs) -> str:
    """The text in `room` columns: a longer one loses its middle, which names rarely differ in."""
    if len(text) <= room:
        return text
    left = max(room - len(signs.ellipsis), 0)
    tail = left // 2
    return f"{text[: left - tail]}{signs.ellipsis}{text[len(text) - tail :]}"[: max(room, 0)]


def stage_at(stays: Sequence[Stay], session: int) -> str:
    """The stage in which a session ended."""
    return next((stay.stage for stay in reversed(stays) if stay.session <= session), "")


def strip(stays: Sequence[Stay], sessions: int, room: int, signs: Signs) -> str:
    """The stages over time in `room` columns, each by the last session in its part of the time."""
    ends = [max(sessions * (number + 1) // room - 1, 0) for number in range(room)]
    return "".join(signs.stages.get(stage_at(stays, end), " ") for end in ends)


def spark(values: Sequence[Decimal], room: int, signs: Signs) -> str:
    """The course of a curve in `room` columns, from its own least value to its greatest."""
    if not values:
        return " " * room
    last = len(values) - 1
    shown = [values[round(last * (number + 1) / room)] for number in range(room)]
    low, high = min(*shown, values[0]), max(*shown, values[0])
    if low == high:
        return signs.spark[0] * room
    levels = len(signs.spark)
    return "".join(
        signs.spark[min(int((value - low) * levels / (high - low)), levels - 1)] for value in shown
    )
