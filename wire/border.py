"""The border: values of a host's objects, checked and converted to types of our own.

One function for each type that enters. A number is an int, a float, a Decimal, or any object that
converts itself by `__index__` or `__float__`, as numpy's scalars do; text is never a number. A name
must be valid; a free text is repaired. A wrong name or figure raises `ConfigError`, whose `field`
names it. An unknown word fails closed: an unknown state counts as failed and an unknown stage as
real money, and the caller gets a sentence that names it.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar, cast

from msgspec import UNSET

from ..runtime import FOREIGN_ERRORS, ConfigError, shown
from .controller import FeedStatus, StopReport, StrategyState, StrategyStatus, stage_risk
from .errors import BadRequest
from .foreign import fitted, plain_number, plain_text
from .money import MINOR_MAX, MINOR_PER_UNIT

__all__ = [
    "NAME_MAX",
    "REASON_MAX",
    "Checked",
    "feed_status",
    "given",
    "name",
    "number",
    "reason",
    "stop_report",
    "strategy_status",
    "whole",
]

NAME_MAX = 128
REASON_MAX = 500  # characters
# The largest amount that the books can hold; the sum of two still fits in an int64.
NUMBER_MAX = MINOR_MAX // MINOR_PER_UNIT
INSTANT_MAX_US = 2**62

STATES = frozenset(("pending", "running", "paused", "stopped", "failed", "retired"))

V = TypeVar("V")
S = TypeVar("S")


class Checked(NamedTuple):
    """A status of our own types, and the sentence that names its unknown words; "": none."""

    status: StrategyStatus
    doubt: str


def number(value: Any, field: str) -> Decimal | float:
    """The value as an int, a float or a Decimal, finite and small enough for the books.

    Raises: `ConfigError` for text, bool, other objects, NaN, infinity, and larger values.
    """
    own = plain_number(value)
    if own is None:
        raise ConfigError(field, f"{shown(value)} is not a number")
    try:
        # NaN is neither above nor below a limit; a Decimal NaN raises when it is compared.
        if -NUMBER_MAX <= own <= NUMBER_MAX:
            return own
    except ArithmeticError:
        pass
    raise ConfigError(field, f"{shown(value)} is not between -{NUMBER_MAX} and {NUMBER_MAX}")


def whole(value: Any, field: str, *, most: int = INSTANT_MAX_US) -> int:
    """The value as an int from 0 to `most`. Raises: `ConfigError`, also for a whole float."""
    own = plain_number(value)
    if type(own) is int and 0 <= own <= most:
        return own
    raise ConfigError(field, f"{shown(value)} is not a whole number from 0 to {most}")


def name(value: Any, field: str) -> str:
    """The value as a name of 1 to 128 printable characters. Raises: `ConfigError`."""
    own = plain_text(value)
    if own and len(own) <= NAME_MAX and own.isprintable() and own.strip() == own:
        return own
    raise ConfigError(
        field, f"{shown(value)} is not a name of 1 to {NAME_MAX} printable characters"
    )


def given(value: object, field: str, most: int = NAME_MAX) -> str:
    """A person's word, cut to `most`; without it nothing is loosened. Raises: `BadRequest`."""
    text = fitted(plain_text(value), most).strip()
    if not text:
        raise BadRequest(field, f"{shown(value)} is no text; what allows more needs one")
    return text


def reason(value: object) -> str:
    """A person's reason, cut to `REASON_MAX`. Raises: `BadRequest`."""
    return given(value, "reason", REASON_MAX)


def strategy_status(value: Any) -> Checked:
    """The status in types of our own. Raises: `ConfigError` naming the field."""
    return _read(value, StrategyStatus, "status", _strategy_status)


def _strategy_status(value: StrategyStatus) -> Checked:
    own_name = name(value.name, "name")
    state, stage = plain_text(value.state), plain_text(value.stage)
    error, doubts = None if value.error is None else fitted(value.error), []
    if state not in STATES:
        unknown = shown(value.state)
        doubts.append(f"the unknown state {unknown}, which counts as failed")
        error = error or f"the engine reports the unknown state {unknown}"
        state = "failed"
    if value.stage is not None and (stage is None or stage_risk(stage) > stage_risk("live")):
        doubts.append(f"the unknown stage {shown(value.stage)}, which counts as real money")
        stage = fitted(stage or shown(value.stage), NAME_MAX)
    n_trades, n_wins = whole(value.n_trades, "n_trades"), whole(value.n_wins, "n_wins")
    if n_wins > n_trades:
        raise ConfigError("n_wins", f"{n_wins} is more than the {n_trades} of n_trades")
    status = StrategyStatus(
        own_name,
        cast(StrategyState, state),
        _optional(value.equity, "equity"),
        number(value.allocated, "allocated"),
        number(value.realized_pnl, "realized_pnl"),
        number(value.unrealized_pnl, "unrealized_pnl"),
        n_trades,
        n_wins,
        stage,
        _optional(value.capital_cap, "capital_cap"),
        error,
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
    return _read(value, FeedStatus, "feed", _feed_status)


def _feed_status(value: FeedStatus) -> FeedStatus:
    if value.stale_after_s is UNSET:
        last_us = _instant(value.last_data_us, "last_data_us")
        return FeedStatus(name(value.name, "name"), last_us)
    after_s = _optional(value.stale_after_s, "stale_after_s")
    if after_s is not None and after_s <= 0:
        raise ConfigError("stale_after_s", f"{shown(value.stale_after_s)} is not above zero")
    last_us = _instant(value.last_data_us, "last_data_us")
    own_after_s = None if after_s is None else float(after_s)
    return FeedStatus(name(value.name, "name"), last_us, own_after_s)


def stop_report(value: Any) -> StopReport:
    """The report with whole numbers from 0. Raises: `ConfigError` naming the field."""
    return _read(value, StopReport, "report", _stop_report)


def _stop_report(value: StopReport) -> StopReport:
    return StopReport(
        whole(value.open_orders, "open_orders"),
        whole(value.open_positions, "open_positions"),
        whole(value.protective_orders, "protective_orders"),
    )


def _read(value: Any, kind: type[V], field: str, convert: Callable[[V], S]) -> S:
    """The value as `convert` reads it. Raises: `ConfigError`, also when it cannot be read."""
    if not issubclass(type(value), kind):
        raise ConfigError(field, f"a {type(value).__name__} is not a {kind.__name__}")
    try:
        return convert(value)
    except ConfigError:
        raise
    except FOREIGN_ERRORS as error:
        raise ConfigError(field, f"it cannot be read: {fitted(error)}") from None


def _optional(value: Any, field: str) -> Decimal | float | None:
    return None if value is None else number(value, field)


def _instant(value: Any, field: str) -> int | None:
    return None if value is None else whole(value, field)


def _yes(value: Any) -> bool:
    """False only for a value that says so: a restart too few is worse than one too many."""
    try:
        return bool(value) or plain_text(value) is not None
    except FOREIGN_ERRORS:
        return True
