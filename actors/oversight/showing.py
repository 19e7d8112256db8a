"""The fund's own status, `FundStatus`, and the states of the status stream.

Nothing here decides anything. The stream is optional, so no error of it fails a tick.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import trio

from ...runtime import DAY_US, FundopsError
from ...runtime.errors import text_of
from ...wire.ledger import ReadTotals
from ...wire.money import from_minor, to_minor
from ...wire.oversight import FundStatus
from ...wire.recovery import RecoveryPhase
from ...wire.status import ShowPromotion
from ...wire.stream.records import PromotionFull
from ..status.board import StatusBoard
from . import schema, shown
from .round import Round, nav_minor
from .steps import Ports

__all__ = ["Showing"]

log = logging.getLogger("fundops.oversight")

# The stream can wait for the next refresh, and the next tick cannot wait for the stream.
SHOW_DEADLINE_S = 1.0
SHOW_EVERY_S = 0.25  # the shortest time between the states of two ticks
# Gates are judged for the stream once a second at most, and for a twentieth of the time at most: a
# thousand of them take a tenth of a second.
PROMOTION_EVERY_S = 1.0
PROMOTION_SHARE = 20


class Showing:
    """Shows the round that `read` gives. `board` None: there is no stream."""

    def __init__(
        self,
        ports: Ports,
        board: StatusBoard | None,
        face: shown.FundFace,
        read: Callable[[], Round],
        step_failures: Callable[[], Mapping[str, int]],
    ) -> None:
        self._ports = ports
        self._board = board
        self._face = face
        self._read = read
        self._step_failures = step_failures
        self._ticked_s: float | None = None  # monotonic end of the last tick; None: no tick yet
        self._ticked_us: int | None = None  # the domain's time of it
        self._published_s = -math.inf  # on trio's clock
        self._unshown: dict[str, str] = {}  # topics that cannot be shown, and why
        self._promotion: Mapping[str, PromotionFull] | None = None  # as it is shown
        self._ask_promotion_s = -math.inf  # on trio's clock: not asked again before it
        self._nav_open: tuple[str, int | None] | None = None  # session, NAV at its end
        self._balance_sheet: Mapping[str, Any] | None = None  # as it is shown
        self._waiting = False  # the kill switch is about to be shown

    # -- the status

    def status(self) -> FundStatus:
        """The fund as of its last tick, with the alerts and the open breakers of now."""
        tick, ports = self._read(), self._ports
        guard, fee, heard = tick.memory.guard, tick.memory.fees, ports.host.heard()
        by_stage: dict[str, int] = {}
        for terms in (tick.terms or {}).values():
            by_stage[terms.stage.value] = by_stage.get(terms.stage.value, 0) + 1
        has_ticked = self._ticked_s is not None
        return FundStatus(
            running=True,
            total_capital=from_minor(ports.capital_minor),
            nav=from_minor(nav_minor(tick, ports.capital_minor)),
            drawdown_pct=round(guard.drawdown, 6),
            high_water_mark=from_minor(round(fee.mark_per_unit * guard.units)),
            running_strategies=sum(status.state == "running" for status in tick.statuses),
            total_fees=from_minor(tick.memory.fees_minor),
            kill_switch=ports.host.acts.latch.status.state,
            mode=ports.settings.mode,
            strategies_by_stage=by_stage,
            alerts_24h=self._count_alerts(),
            breakers_open=self._count_breakers(),
            ticks=tick.number,
            nav_difference=None if tick.gap_minor is None else from_minor(tick.gap_minor),
            clock_suspect=ports.clock_watch.is_suspect(),
            data_age_s=round(heard.age_s, 3) if has_ticked else None,
            # A host without strategies, such as one that keeps books alone, misses no word; the
            # strategies of one that has never answered are not known.
            stale=heard.silent and (bool(guard.strategies) or not tick.answered),
            tick_age_s=self._tick_age_s(),
            step_failures=dict(self._step_failures()),
        )

    def _tick_age_s(self) -> float | None:
        if self._ticked_s is None:
            return None
        return round(self._ports.clock.monotonic_s() - self._ticked_s, 3)

    # Read from the file when they are shown: others write these rows, and a value kept here would
    # be as old as the last question.

    def _count_alerts(self) -> int:
        since_us = self._ports.clock.now_us() - DAY_US
        query = "SELECT count(*) FROM alert WHERE at_us > ?"
        return int((self._ports.rows.row(query, (since_us,)) or (0,))[0])

    def _count_breakers(self) -> int:
        if not self._ports.settings.self_healing_enabled:
            return 0
        query = "SELECT count(*) FROM recovery_state WHERE phase = ?"
        return int((self._ports.rows.row(query, (RecoveryPhase.OPEN.value,)) or (0,))[0])

    # -- the stream

    def ticked(self) -> None:
        """Show the states after a tick, unless they were shown just now.

        A replay ticks a thousand times a second, and the status actor has them refreshed anyway.
        """
        self._ticked_s = self._ports.clock.monotonic_s()
        self._ticked_us = self._ports.clock.now_us()
        totals = self._read().totals
        if totals is not None:
            self._balance_sheet = totals.balance_sheet
        if self._board is not None:
            self._board.ticked_s = self._ticked_s
            if trio.current_time() >= self._published_s + SHOW_EVERY_S:
                self._publish()

    async def refresh(self) -> None:
        """Show the states between two ticks, with the balances and the gates of now."""
        if self._read().totals is not None:
            with suppress(FundopsError):  # then those of the last tick stand
                with trio.move_on_after(SHOW_DEADLINE_S):
                    totals = await self._ports.ask("ledger", ReadTotals())
                    self._balance_sheet = totals.balance_sheet
        await self._look_at_promotion()
        self._publish()

    def latch_changed(self) -> None:
        """Show the kill switch soon, and not at the next tick."""
        if self._board is not None and not self._waiting:
            self._waiting = True
            self._ports.host.spawn(self._show_fund)

    async def _show_fund(self) -> None:
        """Show the kill switch; the engine is told first, so this waits for its turn."""
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        self._waiting = False
        self._publish(urgent=True)

    def _publish(self, *, urgent: bool = False) -> None:
        """Show the states of now."""
        if self._board is None:
            return
        states = {}
        for topic, state in self._states().items():
            try:
                states[topic] = state()
            except Exception as error:  # noqa: BLE001  what is shown comes from outside in part
                text = text_of(error)
                if self._unshown.get(topic) != text:  # once, and not at every tick
                    self._unshown[topic] = text
                    log.error("status stream, topic %s: %s", topic, text)
            else:
                self._unshown.pop(topic, None)
        self._published_s = trio.current_time()
        details = None if self._promotion is None else {"promotion": self._promotion}
        self._board.ticked_s = self._ticked_s
        self._board.publish(states, details=details, urgent=urgent)

    async def _look_at_promotion(self) -> None:
        """Have the gates judged for the stream, at the rate that their number allows."""
        begun_s = trio.current_time()
        if not self._ports.settings.promotion_enabled or begun_s < self._ask_promotion_s:
            return
        taken_s = time.perf_counter()
        with suppress(FundopsError), trio.move_on_after(SHOW_DEADLINE_S):
            self._promotion = await self._ports.ask("promotion", ShowPromotion())
        taken_s = time.perf_counter() - taken_s
        self._ask_promotion_s = begun_s + max(PROMOTION_EVERY_S, PROMOTION_SHARE * taken_s)

    def _states(self) -> dict[str, Callable[[], Mapping[str, Any]]]:
        """How each topic is made. One that fails, for a value from outside, hides no other."""
        tick = self._read()
        guard, statuses, terms = tick.memory.guard, tick.statuses, tick.terms or {}
        states: dict[str, Callable[[], Mapping[str, Any]]] = {
            "fund": self._fund,
            "strategies": lambda: shown.strategies(statuses, terms, guard),
            "feeds": lambda: shown.feeds(tick.feeds, tick.now_us),
        }
        if (balances := self._balance_sheet) is not None:
            states["balances"] = lambda: shown.texts(balances)
        if (promotion := self._promotion) is not None:
            states["promotion"] = lambda: shown.briefs(promotion)
        return states

    def _fund(self) -> dict[str, Any]:
        tick, ports = self._read(), self._ports
        heard, now_us = ports.host.heard(), ports.clock.now_us()
        data_us = now_us - round(heard.age_s * 1_000_000)
        return shown.fund(
            self.status(),
            tick.memory.guard,
            self._face,
            ports.host.acts.latch.status,
            ports.storage.read(),
            now_us=now_us,
            tick_us=self._ticked_us,
            data_us=None if self._ticked_us is None else data_us,
            nav_open_minor=self._nav_at_open(tick.stored.session),
        )

    def _nav_at_open(self, session: str) -> int | None:
        """NAV at the end of the last session that is stored; None: none is."""
        if self._nav_open is None or self._nav_open[0] != session:
            newest = schema.nav_history(self._ports.rows, 1)
            minor = to_minor(newest[0].nav).minor if newest else None
            self._nav_open = (session, minor)
        return self._nav_open[1]
