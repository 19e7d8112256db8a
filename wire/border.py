"""The border: values of a host's objects, checked and converted to types of our own.

One function for each type that enters. A number is an int, a float, a Decimal, or any object that
converts itself by `__index__` or `__float__`, as numpy's scalars do; text is never a number. A name
must be valid; a free text is repaired. A wrong name or figure raises `ConfigError`, whose `field`
names it. An unknown word fails closed: an unknown state counts as failed and an unknown stage as
real money, and the caller gets a sentence that names it.
"""

from __future__ import annotations

import operator
from decimal import Decimal
from typing import Any, NamedTuple, cast

from ..runtime import ConfigError, shown
from .controller import FeedStatus, StopReport, StrategyState, StrategyStatus, stage_risk
from .errors import BadRequest
from .money import MINOR_MAX, MINOR_PER_UNIT

__all__ = [
    "NAME_MAX",
    "Checked",
    "feed_status",
    "fitted",
    "given",
    "name",
    "number",
    "stop_report",
    "strategy_status",
    "whole",
]

NAME_MAX = 128
TEXT_MAX = 1_000
# The largest amount that the books can hold; the sum of two still fits in an int64.
NUMBER_MAX = MINOR_MAX // MINOR_PER_UNIT
INSTANT_MAX_US = 2**62

STATES = frozenset(("pending", "running", "paused", "stopped", "failed", "retired"))
_OWN_NUMBERS = frozenset((int, float, Decimal))


class Checked(NamedTuple):
    """A status of our own types, and the sentence that names its unknown words; "": none."""

    status: StrategyStatus
    doubt: str


def number(value: Any, field: str) -> Decimal | float:
    """The value as an int, a float or a Decimal, finite and small enough for the books.

    Raises: `ConfigError` for text, bool, other objects, NaN, infinity, and larger values.
    """
    own = value if type(value) in _OWN_NUMBERS else _converted(value, field)
    try:
        # NaN is neither above nor below a limit; a Decimal NaN raises when it is compared.
        if -NUMBER_MAX <= own <= NUMBER_MAX:
            return own
    except ArithmeticError:
        pass
    raise ConfigError(field, f"{shown(value)} is not between -{NUMBER_MAX} and {NUMBER_MAX}")


def _converted(value: Any, field: str) -> Decimal | float:
    kind = type(value)
    if isinstance(value, bool) or kind.__name__.startswith("bool"):
        raise ConfigError(field, f"{shown(value)} is not a number")
    try:
        if isinstance(value, Decimal):
            return Decimal(value)
        if hasattr(kind, "__index__"):
            return operator.index(value)
        if hasattr(kind, "__float__"):
            # Not `float(value)`: it would read a number out of text too.
            return float.__float__(kind.__float__(value))
    except Exception as error:  # noqa: BLE001  a caller's class may raise anything
        raise ConfigError(field, f"{shown(value)} is not a number: {fitted(error)}") from None
    raise ConfigError(field, f"{shown(value)} is not a number")


def whole(value: Any, field: str, *, most: int = INSTANT_MAX_US) -> int:
    """The value as an int from 0 to `most`. Raises: `ConfigError`, also for a whole float."""
    if type(value) is int and 0 <= value <= most:
        return value
    try:
        if not isinstance(value, bool) and 0 <= (own := operator.index(value)) <= most:
            return int(own)
    except Exception:  # noqa: BLE001  a caller's class may raise anything
        pass
    raise ConfigError(field, f"{shown(value)} is not a whole number from 0 to {most}")


def name(value: Any, field: str) -> str:
    """The value as a name of 1 to 128 printable characters. Raises: `ConfigError`."""
    if isinstance(value, str) and 1 <= len(value) <= NAME_MAX and value.isprintable():
        own = str.__str__(value)
        if own.strip() == own:
            return own
    raise ConfigError(
        field, f"{shown(value)} is not a name of 1 to {NAME_MAX} printable characters"
    )


def fitted(value: Any, most: int = TEXT_MAX) -> str:
    """Any value as text that can be stored and sent: surrogates replaced, cut to `most`.

    Never raises.
    """
    try:
        text = value if type(value) is str else "" if value is None else str(value)
        return text[:most].encode("utf-8", "replace").decode()
    except Exception:  # noqa: BLE001  a caller's class may raise anything
        return f"some {type(value).__name__}"[:most]


def given(value: object, field: str, most: int = TEXT_MAX) -> str:
    """A person's word, cut to `most`; without it nothing is loosened. Raises: `BadRequest`."""
    text = fitted(value, most).strip() if isinstance(value, str) else ""
    if not text:
        raise BadRequest(field, f"{shown(value)} is no text; what allows more needs one")
    return text


def strategy_status(value: Any) -> Checked:
    """The status in types of our own. Raises: `ConfigError` naming the field."""
    if not isinstance(value, StrategyStatus):
        raise ConfigError("status", f"a {type(value).__name__} is not a StrategyStatus")
    own_name = name(value.name, "name")
    state, error, stage, doubts = value.state, value.error, value.stage, []
    # An unhashable value is in no set, so its type is asked for first.
    if not isinstance(state, str) or state not in STATES:
        doubts.append(f"the unknown state {shown(state)}, which counts as failed")
        error = error or f"the engine reports the unknown state {shown(state)}"
        state = "failed"
    if isinstance(stage, str) and stage_risk(stage) <= stage_risk("live"):
        stage = str.__str__(stage)
    elif stage is not None:
        doubts.append(f"the unknown stage {shown(stage)}, which counts as real money")
        stage = fitted(stage if isinstance(stage, str) and stage else shown(stage), NAME_MAX)
    n_trades, n_wins = whole(value.n_trades, "n_trades"), whole(value.n_wins, "n_wins")
    if n_wins > n_trades:
        raise ConfigError("n_wins", f"{n_wins} is more than the {n_trades} of n_trades")
    status = StrategyStatus(
        own_name,
        cast(StrategyState, str.__str__(state)),
        _optional(value.equity, "equity"),
        number(value.allocated, "allocated"),
        number(value.realized_pnl, "realized_pnl"),
        number(value.unrealized_pnl, "unrealized_pnl"),
        n_trades,
        n_wins,
        stage,
        _optional(value.capital_cap, "capital_cap"),
        None if error is None else fitted(error),
        _yes(value.retryable),
        _instant(value.heartbeat_us, "heartbeat_us"),
        _instant(value.at_us, "at_us"),
        None if value.version is None else fitted(value.version, NAME_MAX),
        None if value.run is None else fitted(value.run, NAME_MAX),
        _optional(value.twin_equity, "twin_equity"),
    )
    return Checked(status, f"reports {' and '.join(doubts)}" if doubts else "")


def feed_status(value: Any) -> FeedStatus:
    """The feed's status in types of our own. Raises: `ConfigError` naming the field."""
    if not isinstance(value, FeedStatus):
        raise ConfigError("feed", f"a {type(value).__name__} is not a FeedStatus")
    after_s = _optional(value.stale_after_s, "stale_after_s")
    if after_s is not None and after_s <= 0:
        raise ConfigError("stale_after_s", f"{shown(value.stale_after_s)} is not above zero")
    last_us = _instant(value.last_data_us, "last_data_us")
    own_after_s = None if after_s is None else float(after_s)
    return FeedStatus(name(value.name, "name"), last_us, own_after_s)


def stop_report(value: Any) -> StopReport:
    """The report with whole numbers from 0. Raises: `ConfigError` naming the field."""
    if not isinstance(value, StopReport):
        raise ConfigError("report", f"a {type(value).__name__} is not a StopReport")
    return StopReport(
        whole(value.open_orders, "open_orders"),
        whole(value.open_positions, "open_positions"),
        whole(value.protective_orders, "protective_orders"),
    )


def _optional(value: Any, field: str) -> Decimal | float | None:
    return None if value is None else number(value, field)


def _instant(value: Any, field: str) -> int | None:
    return None if value is None else whole(value, field)


def _yes(value: Any) -> bool:
    """False only for a value that says so: a restart too few is worse than one too many."""
    try:
        return bool(value) if not isinstance(value, str) else True
    except Exception:  # noqa: BLE001  a caller's class may raise anything
        return True
