"""Metrics of one episode, that is one stay of a strategy in one stage.

Two sources: metrics that others record are checked here, and fundops measures its own from the
engine's reports. One canonical unit, the fraction: `max_drawdown` 0.08 and `max_drawdown_pct` 8.0
are the same metric. None means missing, never zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from ...runtime import FOREIGN_ERRORS
from ...wire.errors import MetricError
from ...wire.foreign import plain_number, plain_text

__all__ = ["WORST", "Reading", "Sample", "Track", "canonical_metrics", "count_of", "figure_of"]

# Below this a standard deviation is rounding noise: the ratio over it means nothing.
_SD_FLOOR = 1e-12

_FRACTIONS = frozenset({"max_drawdown", "win_rate", "daily_loss", "tracking_error"})
_COUNTS = frozenset({"n_trades", "fills"})

# Metrics of which only the worst value of an episode counts: a loss is not undone by a later day.
WORST = frozenset({"max_drawdown", "daily_loss"})

_FIGURE_MAX = 1e18  # of equity; beyond it a float is no amount of money
_COUNT_MAX = 2**62

# A peak or a drawdown that moved by less is written at the next session's end: an actor that
# crashes in between judges by at most this much less.
_DURABLE_STEP = 0.001


def canonical_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The recorded metrics in canonical units, missing ones left out.

    Raises: `MetricError` naming the field, with nothing recorded.
    """
    try:
        given = dict(metrics.items()) if issubclass(type(metrics), Mapping) else None
    except FOREIGN_ERRORS:
        given = None
    if given is None:
        raise MetricError("metrics", metrics, "is not a mapping of names to numbers")
    values = {
        (name := _name(key)): _number(name, value)
        for key, value in given.items()
        if value is not None
    }
    if "max_drawdown_pct" in values:
        fraction = round(values.pop("max_drawdown_pct") / 100, 12)
        if round(values.setdefault("max_drawdown", fraction) - fraction, 9):
            raise MetricError(
                "max_drawdown_pct", given["max_drawdown_pct"], "disagrees with max_drawdown"
            )
    for name, value in values.items():
        if name in _FRACTIONS and not 0 <= value <= 1:
            hint = (
                "; percent goes into max_drawdown_pct"
                if name == "max_drawdown" and value > 1
                else ""
            )
            raise MetricError(name, value, f"is not a fraction between 0 and 1{hint}")
        if name in _COUNTS and (value < 0 or value != int(value)):
            raise MetricError(name, value, "is not a whole number >= 0")
    return values


def _name(key: object) -> str:
    name = plain_text(key)
    if name is None or not 1 <= len(name) <= 64 or not name.isprintable():
        raise MetricError("metrics", key, "is not a metric's name of 1 to 64 characters")
    return name


def _number(name: str, value: object) -> float:
    own = plain_number(value)
    if own is None:
        raise MetricError(name, value, "is not a number")
    number = figure_of(value, limit=math.inf)
    if number is None:
        raise MetricError(name, "a huge integer" if type(own) is int else value, "is not finite")
    return number


def figure_of(value: object, *, limit: float = _FIGURE_MAX) -> float | None:
    """A figure from outside as a float; None when it is no number, not finite or too large."""
    own = plain_number(value, methods=("__float__", "__index__"))
    if own is None:
        return None
    try:
        number = float(own)
    except (OverflowError, ValueError):  # a huge int; a signalling NaN
        return None
    return number if math.isfinite(number) and abs(number) <= limit else None


def count_of(value: object) -> int | None:
    """A count from outside as an int; None when it is no whole number >= 0."""
    count = plain_number(value)
    return count if type(count) is int and 0 <= count < _COUNT_MAX else None


class Reading(msgspec.Struct, frozen=True):
    """The figures of one status, in the fund's currency. Counts are cumulative at the engine."""

    equity: float
    allocated: float
    n_trades: int
    n_wins: int
    realized: float | None = None  # cumulative at the engine; None: unknown
    unrealized: float | None = None  # None: unknown
    run: str | None = None  # changes when the engine's counters start anew; None: unknown
    at_us: int = 0  # when promotion looked

    @property
    def adds_up(self) -> bool:
        """Whether equity is the allocation plus the P&L of the engine's present run."""
        if self.realized is None or self.unrealized is None:
            return False
        parts = self.allocated + self.realized + self.unrealized
        return abs(self.equity - parts) <= 1e-9 * max(1.0, abs(self.equity), abs(parts))


class Sample(msgspec.Struct, frozen=True):
    """One strategy at the end of one session, as it is stored."""

    session: str
    equity: float
    allocated: float
    n_trades: int
    n_wins: int


class Track(msgspec.Struct, frozen=True):
    """The measurements of one episode, counted from its base.

    The base is the first status of the episode: earlier profits, trades and falls are no evidence
    of this stage. `seen` takes every status, so that hard limits hold within a session; `ended`
    takes the end of a session, one step each, so that a thousand sessions cost no more than one.

    Capital given or taken is no performance: a change d of the allocation at equity e multiplies
    the session's opening equity and the peak by (e + d) / e. Mean and sum of squares follow Welford
    (1962), which does not cancel digits away as sums of squares do.
    """

    sessions: int = 0
    session: str = ""  # the last one that ended, of this episode or the one before
    mean: float = 0.0
    m2: float = 0.0
    equity: float = 0.0  # as last seen
    allocated: float = 0.0
    peak: float = 0.0
    max_drawdown: float = 0.0  # the worst at any status of the episode
    last_return: float = 0.0  # of the last session that ended
    base_trades: int = 0  # the engine's count less this episode's; negative after its restart
    base_wins: int = 0
    trades: int = 0  # of this episode
    wins: int = 0
    breaches: tuple[
        bool, ...
    ] = ()  # of the soft drawdown limit, the last few sessions, oldest first
    begun: bool = False  # whether the base was captured
    base_equity: float = 0.0  # as reported when the episode began
    base_allocated: float = 0.0
    base_realized: float | None = None
    base_us: int = 0
    opening: float = 0.0  # equity at the beginning of the running session, after capital changes
    loss: float = 0.0  # the worst of the running session, as a fraction of its opening equity
    between: bool = False  # a session ended, and no status of the next one was seen
    realized: float | None = None  # at the engine, as last seen
    run: str | None = None
    added_up: bool = False  # `Reading.adds_up` of the last status

    def seen(self, reading: Reading) -> Track:
        """The track after one status within a session."""
        if not self.is_begun:
            return self._beginning(reading)
        if not self.begun:  # it was written before the base was, at the end of a session
            return msgspec.structs.replace(self, begun=True, opening=self.equity).seen(reading)
        if self._shows(reading):
            return self
        new_run = None not in (self.run, reading.run) and self.run != reading.run
        flow = reading.allocated - self.allocated
        if (
            self.added_up
            and reading.adds_up
            and self.realized
            and (new_run or reading.realized == 0)
        ):
            # The engine's P&L began anew, and an equity computed from it lost the earlier P&L too.
            flow -= self.realized
        opening, peak = self._after_flow(flow)
        peak = max(peak, reading.equity)
        drawdown = max(0.0, 1 - reading.equity / peak) if peak > 0 else 0.0
        loss = max(0.0, 1 - reading.equity / opening) if opening > 0 else 0.0
        return msgspec.structs.replace(
            self,
            equity=reading.equity,
            allocated=reading.allocated,
            opening=opening,
            peak=peak,
            max_drawdown=max(self.max_drawdown, drawdown),
            loss=loss if self.between else max(self.loss, loss),
            between=False,
            realized=reading.realized if reading.realized is not None else self.realized,
            run=reading.run if reading.run is not None else self.run,
            added_up=reading.adds_up,
            **self._counted(reading, new_run=new_run),
        )

    @property
    def is_begun(self) -> bool:
        """Whether there is a base. Before it was written, the first session was the sign of it."""
        return self.begun or self.sessions > 0

    def _beginning(self, reading: Reading) -> Track:
        return Track(
            session=self.session,
            begun=True,
            base_equity=reading.equity,
            base_allocated=reading.allocated,
            base_realized=reading.realized,
            base_us=reading.at_us,
            base_trades=reading.n_trades,
            base_wins=reading.n_wins,
            equity=reading.equity,
            allocated=reading.allocated,
            opening=reading.equity,
            peak=reading.equity,
            realized=reading.realized,
            run=reading.run,
            added_up=reading.adds_up,
        )

    def at_close(self, reading: Reading) -> Reading:
        """The figures of a session's end, without counts that are behind those seen since.

        A session's end may be told late, with figures of then. A count that seems to fall there is
        no restart of the engine, which an ordinary look finds.
        """
        if not self.begun or reading.n_trades >= self.base_trades + self.trades:
            return reading
        return msgspec.structs.replace(
            reading,
            n_trades=self.base_trades + self.trades,
            n_wins=self.base_wins + self.wins,
            realized=self.realized,
            run=self.run,
        )

    def is_base(self, reading: Reading) -> bool:
        """Whether the status is the one that the episode began with, told once more."""
        return (
            self.sessions == 0
            and (reading.equity, reading.allocated) == (self.base_equity, self.base_allocated)
            and self.trades == 0
        )

    def _shows(self, reading: Reading) -> bool:
        """Whether the status says nothing new."""
        return (
            not self.between
            and self.equity == reading.equity
            and self.allocated == reading.allocated
            and self.base_trades + self.trades == reading.n_trades
            and self.base_wins + self.wins == reading.n_wins
            and self.realized == reading.realized
            and self.run == reading.run
            and self.added_up == reading.adds_up
        )

    def _counted(self, reading: Reading, *, new_run: bool) -> dict[str, int]:
        """Trades and wins of the episode. A count that starts anew is carried over: 40, 3 and 13
        are 53.
        """
        base_trades, base_wins = self.base_trades, self.base_wins
        if new_run or reading.n_trades < base_trades + self.trades:
            base_trades, base_wins = -self.trades, -self.wins
        # A count of wins that falls by itself was corrected, which is no new win.
        base_wins = min(base_wins, reading.n_wins - self.wins)
        return {
            "base_trades": base_trades,
            "base_wins": base_wins,
            "trades": reading.n_trades - base_trades,
            "wins": reading.n_wins - base_wins,
        }

    def _after_flow(self, flow: float) -> tuple[float, float]:
        """Opening equity and peak after capital was given to the strategy or taken from it."""
        if not flow:
            return self.opening, self.peak
        base = self.equity + flow
        if self.equity > 0 and base > 0:
            return self.opening * base / self.equity, self.peak * base / self.equity
        # Nothing was left to compare with, so the new capital is a new beginning.
        return max(base, 0.0), max(base, 0.0)

    def ended(
        self, session: str, *, measured: bool, soft_drawdown: float, remembered: int
    ) -> Track:
        """The track at the end of a session. Not `measured`: no status was seen at its end.

        The session in which the episode began counts from the base, unless it began at the very
        end.
        """
        if not measured or not self.begun or not self.opening > 0:
            return msgspec.structs.replace(self, session=session)
        change = self.equity / self.opening - 1
        sessions = self.sessions + 1
        mean = self.mean + (change - self.mean) / sessions
        drawdown = max(0.0, 1 - self.equity / self.peak) if self.peak > 0 else 0.0
        breaches = (*self.breaches, round(drawdown, 9) > round(soft_drawdown, 9))[-remembered:]
        return msgspec.structs.replace(
            self,
            sessions=sessions,
            session=session,
            mean=mean,
            m2=self.m2 + (change - self.mean) * (change - mean),
            opening=self.equity,
            last_return=change,
            between=True,
            breaches=breaches,
        )

    def is_worth_saving(self, saved: Track) -> bool:
        """Whether what changed since `saved` must outlive a crash before the session ends."""
        return (
            (self.begun, self.sessions, self.session, self.run, self.allocated)
            != (saved.begun, saved.sessions, saved.session, saved.run, saved.allocated)
            or (self.base_trades, self.base_wins) != (saved.base_trades, saved.base_wins)
            or self.max_drawdown >= saved.max_drawdown + _DURABLE_STEP
            or self.loss >= saved.loss + _DURABLE_STEP
            or self.peak > saved.peak * (1 + _DURABLE_STEP)
        )

    def next_episode(self) -> Track:
        """An empty track, which waits for the first status of the next episode."""
        return Track(session=self.session)

    def sharpe(self, periods_per_year: float) -> float | None:
        """sqrt(periods a year) mean/sd of session returns, sd with n - 1; None where it is
        undefined, never infinite.
        """
        if self.sessions < 2:
            return None
        sd = math.sqrt(self.m2 / (self.sessions - 1))
        return None if sd < _SD_FLOOR else math.sqrt(periods_per_year) * self.mean / sd

    def metrics(self, periods_per_year: float) -> dict[str, float]:
        """The canonical metrics; undefined ones are left out. Break-evens count in the win
        rate's denominator.
        """
        values: dict[str, float] = {
            "max_drawdown": min(1.0, self.max_drawdown),
            "n_trades": float(self.trades),
        }
        sharpe = self.sharpe(periods_per_year)
        if sharpe is not None:
            values["sharpe"] = sharpe
        if self.trades >= max(1, self.wins):
            values["win_rate"] = self.wins / self.trades
        return values
