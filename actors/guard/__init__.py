"""The guard: drawdown, the kill switch, and the leases that let a live strategy trade. It needs
no database.
"""

from .actor import GuardActor
from .core import GuardSettings
from .latch import KillLatch
from .leases import Leases

__all__ = ["GuardActor", "GuardSettings", "KillLatch", "Leases"]
