"""Promotion: which strategies may touch real money, decided by rules, with every decision kept."""

from typing import TYPE_CHECKING

from ...runtime.lazy import lazy
from .capital import Capital
from .criteria import Criterion, DefaultCriteria, PromotionGate
from .policies import checked, policy_from, policy_of
from .policy import Cooldowns, PromotionPolicy, SoftWindow, with_gate
from .settings import GateSettings, PromotionSettings, StageSettings

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import PromotionActor as PromotionActor
else:
    __getattr__ = lazy(__name__, {"actor": ("PromotionActor",)})

__all__ = [
    "Capital",
    "Cooldowns",
    "Criterion",
    "DefaultCriteria",
    "GateSettings",
    "PromotionActor",
    "PromotionGate",
    "PromotionPolicy",
    "PromotionSettings",
    "SoftWindow",
    "StageSettings",
    "checked",
    "policy_from",
    "policy_of",
    "with_gate",
]
