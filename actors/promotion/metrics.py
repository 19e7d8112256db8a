"""Metrics of a stage episode: checking what others record, and computing our own from daily equity.

One canonical unit, the fraction: `max_drawdown` 0.08 and `max_drawdown_pct` 8.0 are the same
metric. None means missing, never zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from ...wire.errors import MetricError

__all__ = ["SESSIONS_PER_YEAR", "Sample", "Track", "canonical_metrics"]

SESSIONS_PER_YEAR = 252
# Below this a standard deviation is rounding noise: the ratio over it means nothing.
_SD_FLOOR = 1e-12

_FRACTIONS = frozenset({"max_drawdown", "win_rate"})


def canonical_metrics(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The recorded metrics in canonical units, missing ones left out.

    Raises: `MetricError` naming the field, with nothing recorded.
    """
    if not isinstance(metrics, Mapping):
        raise MetricError("metrics", metrics, "is not a mapping of names to numbers")
    values = {
        _name(key): _number(key, value) for key, value in metrics.items() if value is not None
    }
    if "max_drawdown_pct" in values:
        fraction = round(values.pop("max_drawdown_pct") / 100, 12)
        if round(values.setdefault("max_drawdown", fraction) - fraction, 9):
            raise MetricError(
                "max_drawdown_pct", metrics["max_drawdown_pct"], "disagrees with max_drawdown"
            )
    for name, value in values.items():
        if name in _FRACTIONS and not 0 <= value <= 1:
            hint = (
                "; percent goes into max_drawdown_pct"
                if name == "max_drawdown" and value > 1
                else ""
            )
            raise MetricError(name, value, f"is not a fraction between 0 and 1{hint}")
        if name == "n_trades" and (value < 0 or value != int(value)):
            raise MetricError(name, value, "is not a whole number >= 0")
    return values


def _name(key: object) -> str:
    if not isinstance(key, str) or not 1 <= len(key) <= 64:
        raise MetricError("metrics", key, "is not a metric's name of 1 to 64 characters")
    return key


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise MetricError(name, value, "is not a number")
    try:
        number = float(value)
    except OverflowError:
        raise MetricError(name, "a huge integer", "is not finite") from None
    if not math.isfinite(number):
        raise MetricError(name, value, "is not finite")
    return number


class Sample(msgspec.Struct, frozen=True):
    """One strategy at the end of one session. Trades and wins are cumulative, as the engine
    counts them.
    """

    session: str
    equity: float
    allocated: float
    n_trades: int
    n_wins: int


class Track(msgspec.Struct, frozen=True):
    """What an episode's samples amount to; one step per session, so a thousand sessions cost no
    more than one.

    The episode begins at the capital allocated to it; capital given or taken later is no
    performance, and scales the peak as it scales the equity. Mean and sum of squares follow Welford
    (1962), which does not cancel digits away as sums of squares do.
    """

    sessions: int = 0
    session: str = ""  # the last one sampled, of this episode or the one before
    mean: float = 0.0
    m2: float = 0.0
    equity: float = 0.0
    allocated: float = 0.0
    peak: float = 0.0
    max_drawdown: float = 0.0
    last_return: float = 0.0
    base_trades: int = 0
    base_wins: int = 0
    trades: int = 0
    wins: int = 0
    breaches: tuple[
        bool, ...
    ] = ()  # of the soft drawdown limit, the last few sessions, oldest first

    def after(self, sample: Sample, *, soft_drawdown: float, remembered: int) -> Track:
        """The track one session later."""
        before, peak = self._base(sample.allocated)
        if not before > 0:
            return msgspec.structs.replace(self, session=sample.session)
        change = sample.equity / before - 1
        sessions = self.sessions + 1
        mean = self.mean + (change - self.mean) / sessions
        peak = max(peak, before, sample.equity)
        drawdown = max(0.0, 1 - sample.equity / peak)
        breaches = (*self.breaches, round(drawdown, 9) > round(soft_drawdown, 9))[-remembered:]
        return msgspec.structs.replace(
            self,
            sessions=sessions,
            session=sample.session,
            mean=mean,
            m2=self.m2 + (change - self.mean) * (change - mean),
            equity=sample.equity,
            allocated=sample.allocated,
            peak=peak,
            max_drawdown=max(self.max_drawdown, drawdown),
            last_return=change,
            trades=sample.n_trades - self.base_trades,
            wins=sample.n_wins - self.base_wins,
            breaches=breaches,
        )

    def _base(self, allocated: float) -> tuple[float, float]:
        """Equity and peak before the coming session, after what was given to the strategy or
        taken from it.
        """
        if not self.sessions:
            return allocated, allocated
        base = self.equity + allocated - self.allocated
        return base, self.peak * base / self.equity if self.equity > 0 else self.peak

    def rebased(self, equity: float, allocated: float) -> float:
        """`equity` as if nothing had been given or taken since the last session."""
        base, _ = self._base(allocated)
        return (
            equity * self.equity / base
            if self.sessions and base > 0 and self.equity > 0
            else equity
        )

    def drawdown_at(self, equity: float) -> float:
        """Drawdown from the episode's peak if equity were this now."""
        peak = max(self.peak, equity)
        return 0.0 if peak <= 0 else max(0.0, 1 - equity / peak)

    def next_episode(self, trades: int, wins: int) -> Track:
        """An empty track that counts trades from here."""
        return Track(session=self.session, base_trades=trades, base_wins=wins)

    def sharpe(self) -> float | None:
        """sqrt(252) mean/sd of session returns, sd with n - 1; None where it is undefined, never
        infinite.
        """
        if self.sessions < 2:
            return None
        sd = math.sqrt(self.m2 / (self.sessions - 1))
        return None if sd < _SD_FLOOR else math.sqrt(SESSIONS_PER_YEAR) * self.mean / sd

    def metrics(self) -> dict[str, float]:
        """The canonical metrics; undefined ones are left out. Break-evens count in the win
        rate's denominator.
        """
        values: dict[str, float] = {
            "max_drawdown": self.max_drawdown,
            "n_trades": float(self.trades),
        }
        sharpe = self.sharpe()
        if sharpe is not None:
            values["sharpe"] = sharpe
        if self.trades > 0:
            values["win_rate"] = self.wins / self.trades
        return values
