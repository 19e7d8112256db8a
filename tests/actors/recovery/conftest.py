"""Records in mid-life, and the table applied to them by a plain call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from fundops.actors.recovery.record import Decision, Input, Occasion, Record
from fundops.actors.recovery.settings import RecoverySettings
from fundops.actors.recovery.table import decide
from fundops.wire.recovery import RecoveryPhase as P

SECOND = 1_000_000


@pytest.fixture(scope="session")
def typical() -> Mapping[P, Record]:
    """A record in each phase: first episode, one attempt of three made at 100 s.

    The input comes at 1,000 s.
    """
    return {
        phase: Record(
            "alpha",
            phase=phase,
            beneath=P.COOLDOWN if phase is P.HELD else None,
            kill=phase is P.HELD,
            held_by="ann" if phase is P.HELD else None,
            episode=1,
            attempts=0 if phase is P.HEALTHY else 1,
            due_us=500 * SECOND if phase in (P.COOLDOWN, P.PROBATION, P.HELD) else None,
            restarted_us=100 * SECOND,
            starts=(100 * SECOND,),
            reason="boom" if phase in (P.COOLDOWN, P.OPEN, P.HELD) else None,
            failure_told=phase in (P.COOLDOWN, P.OPEN, P.RESTARTING, P.RESTARTING_LATE, P.HELD),
            recovery_told=phase is not P.HEALTHY,
        )
        for phase in P
    }


@pytest.fixture(scope="session")
def occur() -> Callable[..., Decision]:
    """`decide` with an error, a person and a failed strategy, unless the test says otherwise."""

    def decided(
        record: Record,
        what: Input,
        at_s: float = 1_000,
        settings: RecoverySettings = RecoverySettings(),  # noqa: B008  frozen
        **given: Any,
    ) -> Decision:
        usual: dict[str, Any] = {"error": "boom", "person": "ann", "seen": Input.SEEN_FAILED}
        return decide(record, Occasion(what, round(at_s * SECOND), **usual | given), settings)

    return decided
