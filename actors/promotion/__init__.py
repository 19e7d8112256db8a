"""Promotion: which strategies may touch real money, decided by rules, with every decision kept."""

from .actor import PromotionActor
from .ladder import Criterion, PromotionGate
from .settings import PromotionSettings

__all__ = ["Criterion", "PromotionActor", "PromotionGate", "PromotionSettings"]
