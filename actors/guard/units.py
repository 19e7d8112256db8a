"""Units of the fund: a deposit buys them and a withdrawal redeems them, at NAV per unit. Pure.

So a flow changes the worth of the fund, and not that of a unit. The ledger counts its own units for
the books; these are counted without a database.
"""

from __future__ import annotations

__all__ = ["after_flow"]


def after_flow(units: float, nav_minor: int, price: float, flow_minor: int) -> float:
    """The units after a flow into a fund worth `nav_minor`.

    Where no unit is in issue one costs `price`, which is that of the last one; the first one 1.
    Beyond NAV a withdrawal leaves fewer than none: the deposit that paid for it may be reported
    later, and then buys them back at the same price. In a fund that has lost everything a unit
    costs 1, as in the ledger.
    """
    if units <= 0:
        return units + flow_minor / (price or 1.0)
    if nav_minor > 0:
        return units * (1 + flow_minor / nav_minor)
    return units + max(0, flow_minor)
