"""Promotion: which strategies may touch real money, decided by rules, with every decision kept."""

from .actor import PromotionActor
from .core import PromotionSettings
from .ladder import Criterion, PromotionGate

__all__ = ["Criterion", "PromotionActor", "PromotionGate", "PromotionSettings"]
