"""The doors: one small class of async methods per subsystem, which a host calls.

The synchronous front door offers the methods of each door under the same names.
"""

from fundops.doors.alerts import AlertDoor
from fundops.doors.fund import FundDoor
from fundops.doors.kill_switch import KillSwitchDoor
from fundops.doors.ledger import LedgerDoor
from fundops.doors.promotion import PromotionDoor
from fundops.doors.recovery import RecoveryDoor

__all__ = ["AlertDoor", "FundDoor", "KillSwitchDoor", "LedgerDoor", "PromotionDoor", "RecoveryDoor"]
