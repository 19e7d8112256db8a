"""The scope of the kill switch: the strategies that it stops, and those that it spares.

It spares only a strategy that is known to have no real money. An unknown one is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ...wire.guard import StrategyBook
from ...wire.promotion import EntitlementTerms

__all__ = ["KillScope", "spared"]

KillScope = Literal["live", "all"]


def spared(
    scope: KillScope,
    books: Mapping[str, StrategyBook],
    terms_by_name: Mapping[str, EntitlementTerms] | None,
) -> frozenset[str]:
    """The strategies that the switch does not stop: paper and shadow go on under "live".

    A strategy that was demoted keeps real positions until its session ends, so it is stopped until
    then. `terms_by_name` None: promotion is off, and all trade real money.
    """
    if scope == "all" or terms_by_name is None:
        return frozenset()
    live = {name for name, terms in terms_by_name.items() if terms.mode == "live"}
    real = {name for name, book in books.items() if book.real or book.closing is not None}
    return frozenset((books.keys() | terms_by_name.keys()) - live - real)
