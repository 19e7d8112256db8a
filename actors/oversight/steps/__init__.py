"""The steps of a tick, in their order. A new step is a file here and a line in this list.

The guard comes before all that may wait for a disk or for the engine, so that a slow ledger costs
no lease.
"""

from __future__ import annotations

from ....wire.alert import AlertDraft, Category, resolved
from .alert import AlertStep
from .breaks import BreaksStep
from .clock import ClockStep
from .engine import DoubtsStep, EngineStep, FeedsStep
from .failures import FailuresStep
from .fees import FeesStep
from .guard import GuardStep
from .ledger import LedgerStep
from .marks import MarksStep
from .minutes import MinutesStep
from .pauses import PausesStep
from .promotion import PromotionStep, SampleStep
from .reach import ReachStep
from .reconcile import ReconcileStep
from .recovery import RecoveryStep
from .relapses import RelapsesStep
from .remember import RememberAgainStep, RememberStep
from .risk import RiskStep
from .sessions import CloseStep, SessionsStep
from .statement import StatementStep
from .step import STEP, Ports, Step
from .storage import StorageStep
from .totals import TotalsStep

__all__ = ["STEPS", "Ports", "Step", "over_without_step", "steps_of"]

STEPS: tuple[type[Step], ...] = (
    ClockStep,
    EngineStep,
    FeedsStep,
    DoubtsStep,
    SessionsStep,
    FailuresStep,
    # Fees of an earlier tick or life: NAV counts one as booked by the totals, or as owed.
    FeesStep,
    TotalsStep,
    GuardStep,
    PausesStep,
    ReachStep,
    LedgerStep,
    PromotionStep,
    ReconcileStep,
    CloseStep,
    MinutesStep,
    RiskStep,
    RecoveryStep,
    RelapsesStep,
    RememberStep,
    # The consumers of what that commit says.
    SampleStep,
    FeesStep,
    MarksStep,
    BreaksStep,
    StatementStep,
    RememberAgainStep,
    StorageStep,
    AlertStep,
)


def steps_of(ports: Ports) -> tuple[Step, ...]:
    """The steps of one life of oversight, for a fund with these settings."""
    return tuple(step(ports) for step in STEPS if step.serves(ports.settings))


def over_without_step(ports: Ports) -> tuple[AlertDraft, ...]:
    """The end of the alerts of steps that a fund with these settings does not have.

    An earlier start had them, and no later tick would end them.
    """
    names = {step.name for step in STEPS if step.serves(ports.settings)}
    failed = [key for key in ports.told(STEP) if key.removeprefix(STEP) not in names]
    absent = [step for step in STEPS if step.name not in names]
    open_keys = dict.fromkeys(failed, Category.GENERAL)
    for step in absent:
        for prefix, category in step.tells.items():
            open_keys |= dict.fromkeys(ports.told(prefix), category)
    return tuple(
        resolved(category, f"{key}: not watched any more, its part of the fund is off", key)
        for key, category in sorted(open_keys.items())
    )
