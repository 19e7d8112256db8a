"""The step `recovery`: failures and stale feeds are found, and failed strategies restarted."""

from __future__ import annotations

from typing import ClassVar

from ....wire.recovery import CheckFeeds, CheckStrategies
from ..round import Effects, Round
from ..settings import OversightSettings
from .step import Step

__all__ = ["RecoveryStep"]


class RecoveryStep(Step):
    """Has recovery look for new failures and stale feeds at the first tick and every few ticks from
    then on, and go on with the known failures at each.
    """

    name: ClassVar[str] = "recovery"

    @classmethod
    def serves(cls, settings: OversightSettings) -> bool:
        """Without self-healing nothing is restarted."""
        return settings.self_healing_enabled

    async def run(self, tick: Round) -> Effects:
        """One check. Raises: `FundopsError`."""
        heard, ask = tick.heard, self.ports.ask
        # The age of the last word, when there is no instant of an answer: a host that was never
        # heard has listed nothing, which is no news about a strategy.
        heard_us = tick.now_us - round(heard.age_s * 1_000_000)
        if heard.at_us is not None:
            heard_us = heard.at_us
        discover = (tick.number - 1) % self.ports.settings.recovery_every_ticks == 0
        killed = self.ports.host.acts.latch.engaged
        books = tick.memory.guard.strategies
        real = frozenset(name for name, book in books.items() if book.real)
        check = CheckStrategies(
            heard.statuses, killed, heard_us, discover, tick.failed_together, real
        )
        await ask("recovery", check)
        if discover:
            await ask("recovery", CheckFeeds(tick.feeds))
        return Effects()
