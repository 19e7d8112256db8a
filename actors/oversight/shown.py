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


def strategies(
    statuses: Sequence[StrategyStatus], terms: Mapping[str, EntitlementTerms]
) -> dict[str, dict[str, Any]]:
    """The topic `strategies`: each status, with the stage that the database has for it."""
    found = {}
    for status in statuses:
        entitled = terms.get(status.name)
        stage = entitled.stage.value if entitled is not None else status.stage
        found[status.name] = {**texts(msgspec.structs.asdict(status)), "stage": stage}
    return found
