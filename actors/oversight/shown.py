"""The state topics of the status stream, as they are shown: money is decimal text. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from ...wire.controller import StrategyStatus
from ...wire.money import text_of
from ...wire.promotion import EntitlementTerms

__all__ = ["strategies", "texts"]


def texts(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with money as decimal text; a browser rounds large numbers."""
    return {
        name: text_of(value) if isinstance(value, Decimal) else value
        for name, value in values.items()
    }


# The figures of a status, which an engine may report as any kind of number.
_MONEY = ("equity", "allocated", "realized_pnl", "unrealized_pnl", "capital_cap", "twin_equity")


def strategies(
    statuses: Sequence[StrategyStatus], terms: Mapping[str, EntitlementTerms]
) -> dict[str, dict[str, Any]]:
    """The topic `strategies`: each status, with the stage that the database has for it."""
    found = {}
    for status in statuses:
        entitled = terms.get(status.name)
        stage = entitled.stage.value if entitled is not None else status.stage
        money = {field: _money(getattr(status, field)) for field in _MONEY}
        found[status.name] = {**msgspec.structs.asdict(status), **money, "stage": stage}
    return found


def _money(value: Decimal | float | None) -> str | None:
    """The shortest decimal text that names the number."""
    return None if value is None else text_of(Decimal(str(value)))
