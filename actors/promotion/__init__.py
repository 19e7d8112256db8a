"""Promotion: which strategies may touch real money, decided by rules, with every decision kept."""

from typing import TYPE_CHECKING

from ...runtime.lazy import lazy
from .ladder import Criterion, PromotionGate
from .settings import PromotionSettings

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import PromotionActor as PromotionActor
else:
    __getattr__ = lazy(__name__, {"actor": ("PromotionActor",)})

__all__ = ["Criterion", "PromotionActor", "PromotionGate", "PromotionSettings"]
