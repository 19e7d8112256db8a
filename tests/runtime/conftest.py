"""The fixture of all runtime tests: a supervisor whose counters are checked after every step."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import trio

from fundops.runtime import (
    ChildSpec,
    MailboxStatistics,
    Supervisor,
    SupervisorSpec,
    open_supervisor,
)

Supervise = Callable[..., AbstractAsyncContextManager[Supervisor]]

# Checking a thousand mailboxes after every step would take longer than the test, so larger trees
# are checked only at the end.
CHECKED_EACH_STEP_MAX = 40


def missing(counters: MailboxStatistics) -> int:
    """The number of accepted messages without a state.

    It is zero at every instant, unless the runtime has lost or doubled a message.
    """
    final = (
        counters.done
        + counters.crashed
        + counters.interrupted
        + counters.expired
        + counters.quarantined
    )
    final += counters.undeliverable
    return counters.accepted - final - counters.queued - counters.in_hand


class Auditor(trio.abc.Instrument):
    """Checks every mailbox between any two steps.

    An instrument must not raise, so the findings are kept for the end of the test.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.findings: list[str] = []

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        for name, counters in self.supervisor.statistics().items():
            if missing(counters):
                self.findings.append(f"{name} after a step of {task.name}: {counters}")


@pytest.fixture
def supervise() -> Supervise:
    """`open_supervisor`, with counters checked at every step and all messages final at the end."""

    @asynccontextmanager
    async def opened(
        children: Sequence[ChildSpec | SupervisorSpec], **options: Any
    ) -> AsyncIterator[Supervisor]:
        auditor: Auditor | None = None
        watched: list[Supervisor] = []
        try:
            async with open_supervisor(children, **options) as supervisor:
                watched.append(supervisor)
                if len(supervisor.statistics()) <= CHECKED_EACH_STEP_MAX:
                    auditor = Auditor(supervisor)
                    trio.lowlevel.add_instrument(auditor)
                yield supervisor
        finally:
            if auditor is not None:
                trio.lowlevel.remove_instrument(auditor)
                assert not auditor.findings
            for supervisor in watched:
                for name, counters in supervisor.statistics().items():
                    assert missing(counters) == 0, (name, counters)
                    assert counters.queued == 0, (name, counters)
                    assert counters.in_hand == 0, (name, counters)

    return opened
