"""The four sentences that end the alert of a kill, a pause, an open breaker, a demotion or a
release: what is stopped, what stays open, what happens next by itself, and how to undo it. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NAMES_MAX", "NO_STRATEGY", "aftermath", "names_of"]

NAMES_MAX = 10  # an alert names so many strategies; the rest is a number

NO_STRATEGY = "none"


def names_of(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    if not names:
        return NO_STRATEGY
    listed = ", ".join(names[:NAMES_MAX])
    more = len(names) - NAMES_MAX
    return f"{listed} and {more:,} more" if more > 0 else listed


def aftermath(
    *,
    stopped: Sequence[str] | str,
    open_orders: int | None = None,
    open_positions: int | None = None,
    protective_orders: int = 0,
    next_act: str,
    undo: str,
) -> str:
    """The four sentences.

    `stopped` are the names of the strategies, or words for all of them, such as "all with real
    money". Counts of None are not known yet. `next_act` and `undo` are clauses without a full
    stop: "none; it stays paused", "fundops strategy resume mm --by NAME --reason TEXT".
    """
    who = stopped if isinstance(stopped, str) else names_of(stopped)
    return (
        f"Stopped: {who}. {_open(open_orders, open_positions, protective_orders)}"
        f" Next by itself: {next_act}. To undo: {undo}."
    )


def _open(orders: int | None, positions: int | None, protective: int) -> str:
    if orders is None or positions is None:
        return "Open orders and positions: not known yet."
    kept = f", {_counted(protective, 'protective order')}" if protective else ""
    return f"Open: {_counted(orders, 'order')}, {_counted(positions, 'position')}{kept}."


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
