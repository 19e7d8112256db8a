"""The guard: drawdown, the kill switch, and the leases that let a live strategy trade. It needs
no database.
"""

from typing import TYPE_CHECKING

from ...runtime.lazy import lazy
from .latch import KillLatch
from .leases import Leases
from .settings import GuardSettings

# Loaded when first used: see `runtime.lazy`.
if TYPE_CHECKING:
    from .actor import GuardActor as GuardActor
else:
    __getattr__ = lazy(__name__, {"actor": ("GuardActor",)})

__all__ = ["GuardActor", "GuardSettings", "KillLatch", "Leases"]
