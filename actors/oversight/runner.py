"""Runs the steps of a tick, each able to fail alone.

A step that raises, or is past its deadline, leaves the round as it was. It is counted by its name
and told once until it works again; a step may ask for its alert to be repeated. The other steps
run.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping

import trio

from ...runtime import FundopsError
from ...runtime.errors import text_of
from ...wire.alert import AlertDraft, Category, resolved
from ...wire.errors import HostLate
from ..persistence import StateDiverged
from .round import Effects, Round, applied
from .steps.step import STEP, Step

__all__ = ["STEP", "Runner", "StepLate"]

log = logging.getLogger("fundops.oversight")


class StepLate(FundopsError):
    """A step was still running at its deadline, and was cancelled."""


class StepBroken(FundopsError):
    """A step raised an error that is none of ours."""


class Runner:
    """Remembers the failing steps, their counts, and the alerts that are open."""

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}  # steps, and why
        self._told_s: dict[str, float] = {}  # steps with an open alert, and when it was last told
        self._counts: dict[str, int] = {}

    def recall(self, told: Iterable[str]) -> None:
        """Take the keys that an earlier life left open; an alert that repeats is due at once."""
        self._told_s |= {key.removeprefix(STEP): -math.inf for key in told}

    @property
    def failing(self) -> tuple[str, ...]:
        """The steps that failed when they last ran."""
        return tuple(self._failing)

    @property
    def counts(self) -> Mapping[str, int]:
        """How often each step has failed since this life began."""
        return self._counts

    async def run(self, step: Step, tick: Round) -> Round:
        """The round after this step, with the alert about it.

        Raises: `StateDiverged`, since the memory of this life is then wrong.
        """
        effects = await _effects(step, tick)
        alerts = self._judge(step, effects.fault, tick.now_s)
        after = applied(tick, effects)
        return applied(after, Effects(alerts=alerts)) if alerts else after

    def _judge(
        self, step: Step, fault: FundopsError | None, now_s: float
    ) -> tuple[AlertDraft, ...]:
        name, key = step.name, f"{STEP}{step.name}"
        if fault is None:
            self._failing.pop(name, None)
            if self._told_s.pop(name, None) is None:
                return ()
            return (resolved(Category.GENERAL, f"Oversight step {name} works again", key),)
        if name not in self._failing:
            log.error("step %s failed: %s", name, fault, exc_info=fault.__cause__)
        self._failing[name] = str(fault)
        self._counts[name] = self._counts.get(name, 0) + 1
        told_s = self._told_s.get(name)
        # A part that is late has an alert by its name.
        if step.tells_itself or (isinstance(fault, HostLate) and told_s is None):
            return ()
        repeats = told_s is not None and step.repeat_s is not None
        if told_s is not None and not (repeats and now_s - told_s >= (step.repeat_s or 0)):
            return ()
        self._told_s[name] = now_s
        title = f"Oversight step {name} fails"
        # Without a key: no gate may drop a repeated alert as told already.
        told_key = None if repeats else key
        return (AlertDraft(step.level, Category.GENERAL, title, str(fault), None, told_key),)


async def _effects(step: Step, tick: Round) -> Effects:
    """The effects of the step, with its fault. Raises: `StateDiverged`."""
    try:
        if step.deadline_s is None:
            return await step.run(tick)
        # `fail_after` is two context managers more, which a tick of some twenty steps would notice.
        with trio.CancelScope(deadline=trio.current_time() + step.deadline_s):
            return await step.run(tick)
        return Effects(fault=StepLate(f"not done after {step.deadline_s:g} s"))
    except FundopsError as fault:
        return Effects(fault=fault)
    except StateDiverged:
        raise
    # A step that is wrong must not take the guard's step and the others with it.
    except Exception as error:  # noqa: BLE001
        broken = StepBroken(text_of(error))
        broken.__cause__ = error
        return Effects(fault=broken)
