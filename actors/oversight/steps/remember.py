"""The step `remember`: one commit of the record, the lines of NAV and the alerts asked for."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import ClassVar

from msgspec.structs import astuple, replace

from ....runtime import FundopsError, in_pieces
from ....wire.alert import AlertDraft, Level, SendAlert
from ...alert.requests import requested
from .. import schema
from ..round import Effects, Round
from .step import Step

__all__ = ["RememberAgainStep", "RememberStep"]


# Samples of NAV by the minute that wait for a commit; a commit each minute would be the only one
# of a quiet fund.
MINUTES_MAX = 15


class RememberStep(Step):
    """Commits the alerts, lines and record of the steps before it."""

    name: ClassVar[str] = "remember"

    async def run(self, tick: Round) -> Effects:
        """One commit: alerts, the record when it matters, the lines of ended sessions.

        A refused commit is tried again at the next one. Its rows may be on disk without our
        knowledge, so the record is then read again.
        """
        memory, statements, ports = tick.memory, list(tick.lines), self.ports
        must = (
            bool(statements)
            or tick.number == 1
            or len(tick.minutes) >= MINUTES_MAX
            or await in_pieces(schema.must_remember(memory, tick.stored))
        )
        minutes = tick.minutes if must else ()
        if must:
            record = await in_pieces(schema.remembered(memory))
            statements += [record, *schema.minute_lines(minutes)]
        crashes = ports.crashes.ready()
        if ports.settings.alerts_enabled:
            statements += requested(ports.clock.now_us(), [*crashes, *tick.alerts])
        refusal = await ports.append(statements)
        if refusal is not None:
            await self._send(tick.alerts)
            return Effects(stored=schema.load(ports.rows), fault=refusal)
        ports.sent.clear()
        ports.crashes.committed(len(crashes))
        committed = Effects(
            committed_minutes=len(minutes),
            committed_alerts=len(tick.alerts),
            committed_lines=len(tick.lines),
        )
        return replace(committed, stored=memory) if must else committed

    async def _send(self, alerts: Sequence[AlertDraft]) -> None:
        """Let the CRITICAL ones leave from memory, once; the commit of them is still to come."""
        if not self.ports.settings.alerts_enabled:
            return
        for alert in alerts:
            if alert.level is Level.CRITICAL and alert not in self.ports.sent:
                self.ports.sent.add(alert)
                with suppress(FundopsError):
                    await self.ports.ask("alert", SendAlert(*astuple(alert)))


class RememberAgainStep(RememberStep):
    """Commits the work of the consumers of ended sessions, and the alerts that followed."""

    def is_due(self, tick: Round) -> bool:
        """Whether there is something to commit."""
        return bool(tick.due or tick.alerts)
