"""The track of one episode: the engine's reports, from the base of the episode on. Pure values.

Sessions are the samples: returns run from close to close, the first one from the base.
"""

from __future__ import annotations

from typing import Final

import msgspec

from .metrics import sharpe_of
from .statistics import Moments

__all__ = ["Reading", "Sample", "Track"]

# A peak or a drawdown that moved by less is written at the next session's end: an actor that
# crashes in between judges by at most this much less.
_DURABLE_STEP: Final = 0.001


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


class Track(msgspec.Struct, frozen=True, gc=False):
    """The measurements of one episode, counted from its base.

    The base is the first status of the episode: earlier profits, trades and falls are no evidence
    of this stage. `seen` takes every status, so that hard limits hold within a session; `ended`
    takes the end of a session, one step each, so that a thousand sessions cost no more than one.

    Capital given or taken is no performance: a change d of the allocation at equity e multiplies
    the session's opening equity and the peak by (e + d) / e.
    """

    sessions: int = 0
    session: str = ""  # the last one that ended, of this episode or the one before
    mean: float = 0.0
    m2: float = 0.0  # sums of powers of the deviations from the mean, as in `Moments`
    m3: float = 0.0
    m4: float = 0.0
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
    # Equity at the beginning of the running session, after capital changes; 0: not seen yet.
    opening: float = 0.0
    # Where its return begins, if no status was seen when it opened; 0: at the opening.
    close: float = 0.0
    loss: float = 0.0  # the worst of the running session, as a fraction of its opening equity
    between: bool = False  # a session ended, and no status of the next one was seen
    realized: float | None = None  # at the engine, as last seen
    run: str | None = None
    added_up: bool = False  # `Reading.adds_up` of the last status
    resumes: bool = False  # the next status ends a time that was spent in another stage

    def seen(self, reading: Reading) -> Track:
        """The track after one status within a session."""
        if not self.is_begun:
            return self._beginning(reading)
        if not self.begun:  # it was written before the base was, at the end of a session
            return msgspec.structs.replace(self, begun=True, opening=self.equity).seen(reading)
        if self.resumes:
            return self._resuming(reading)
        if self._shows(reading):
            return self
        runs_known = None not in (self.run, reading.run)
        new_run = runs_known and self.run != reading.run
        fewer_trades = reading.n_trades < self.base_trades + self.trades
        flow = reading.allocated - self.allocated
        if self.added_up and reading.adds_up and self.realized:
            # A P&L of exactly 0 alone may be the loss of all that was gained. A loss stays one.
            at_zero = reading.realized == 0 and (fewer_trades or self.realized < 0)
            if new_run or (at_zero and not runs_known):
                # The P&L began anew, and an equity computed from it lost the earlier P&L too.
                flow -= self.realized
        opening, peak = self._after_flow(self.opening, flow), self._after_flow(self.peak, flow)
        # Capital taken from below the losses leaves nothing, and then any fall is a total loss.
        fell = float(reading.equity < self.equity + flow)
        if opening <= 0 < reading.equity:
            opening = reading.equity
        peak = max(peak, reading.equity)
        drawdown = max(0.0, 1 - reading.equity / peak) if peak > 0 else fell
        loss = max(0.0, 1 - reading.equity / opening) if opening > 0 else fell
        return msgspec.structs.replace(
            self,
            equity=reading.equity,
            allocated=reading.allocated,
            opening=opening,
            close=self._after_flow(self.close, flow),
            peak=peak,
            max_drawdown=max(self.max_drawdown, drawdown),
            loss=loss if self.between else max(self.loss, loss),
            between=False,
            realized=reading.realized if reading.realized is not None else self.realized,
            run=reading.run if reading.run is not None else self.run,
            added_up=reading.adds_up,
            **self._counted(reading, anew=new_run or fewer_trades),
        )

    @property
    def moments(self) -> Moments:
        """The moments of the session returns."""
        return Moments(self.sessions, self.mean, self.m2, self.m3, self.m4)

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

    def interrupted(self, meanwhile: Track) -> Track:
        """The track of an episode that is taken up again after `meanwhile` in another stage.

        The time between is no evidence. A session that ended then does not end again, and was
        missed here.
        """
        track = self if meanwhile.session == self.session else self.missed(meanwhile.session)
        return msgspec.structs.replace(track, resumes=self.is_begun)

    def _resuming(self, reading: Reading) -> Track:
        """The time since the last status was in another stage: opening and peak move with the
        equity, and the counts go on from here.
        """
        moved = reading.equity / self.equity if self.equity > 0 and reading.equity > 0 else 1.0
        return msgspec.structs.replace(
            self,
            equity=reading.equity,
            allocated=reading.allocated,
            opening=self.opening * moved if self.opening > 0 else max(0.0, reading.equity),
            close=self.close * moved,
            peak=self.peak * moved,
            base_trades=reading.n_trades - self.trades,
            base_wins=reading.n_wins - self.wins,
            realized=reading.realized,
            run=reading.run,
            added_up=reading.adds_up,
            resumes=False,
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

    def _counted(self, reading: Reading, *, anew: bool) -> dict[str, int]:
        """Trades and wins of the episode. A count that starts anew is carried over: 40, 3 and 13
        are 53.
        """
        base_trades, base_wins = self.base_trades, self.base_wins
        if anew:
            base_trades, base_wins = -self.trades, -self.wins
        # A count of wins that falls by itself was corrected, which is no new win.
        base_wins = min(base_wins, reading.n_wins - self.wins)
        return {
            "base_trades": base_trades,
            "base_wins": base_wins,
            "trades": reading.n_trades - base_trades,
            "wins": reading.n_wins - base_wins,
        }

    def _after_flow(self, equity: float, flow: float) -> float:
        """An earlier equity after capital was given to the strategy or taken from it."""
        if not flow:
            return equity
        base = self.equity + flow
        if self.equity > 0 and base > 0:
            return equity * base / self.equity
        # Nothing was left to compare with, so the new capital is a new beginning.
        return max(base, 0.0)

    def missed(self, session: str) -> Track:
        """The track after a session at whose end no status was seen, which gives no sample.

        The next status opens the session that runs then. A change of equity meanwhile is no
        loss of that session, and belongs to the next return.
        """
        if not self.begun:
            return msgspec.structs.replace(self, session=session)
        return msgspec.structs.replace(
            self, session=session, opening=0.0, close=self._return_base, between=True
        )

    @property
    def _return_base(self) -> float:
        return self.close if self.close > 0 else self.opening

    def ended(
        self, session: str, *, measured: bool, soft_drawdown: float | None, remembered: int
    ) -> Track:
        """The track at the end of a session. Not `measured`: the episode began at the very end.

        The session in which the episode began counts from the base.
        """
        if not measured or not self.begun:
            return msgspec.structs.replace(self, session=session)
        base = self._return_base
        if base <= 0:  # no return can be told
            opening = max(0.0, self.equity)
            return msgspec.structs.replace(self, session=session, opening=opening, between=True)
        change = self.equity / base - 1
        moments = self.moments.after(change)
        drawdown = max(0.0, 1 - self.equity / self.peak) if self.peak > 0 else 0.0
        beyond = soft_drawdown is not None and round(drawdown, 9) > round(soft_drawdown, 9)
        breaches = (*self.breaches, beyond)[-remembered:]
        return msgspec.structs.replace(
            self,
            sessions=moments.n,
            session=session,
            mean=moments.mean,
            m2=moments.m2,
            m3=moments.m3,
            m4=moments.m4,
            opening=self.equity,
            close=0.0,
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
            or self.opening > 0 >= saved.opening
        )

    def next_episode(self) -> Track:
        """An empty track, which waits for the first status of the next episode."""
        return Track(session=self.session)

    def sharpe(self, periods_per_year: float) -> float | None:
        """sqrt(periods a year) mean/sd of session returns, sd with n - 1; None where it is
        undefined, never infinite.
        """
        return sharpe_of(self.moments, periods_per_year)

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
