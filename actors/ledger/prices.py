"""The prices of other assets, read from the journal: a price is an entry that moves nothing."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from ..persistence import Rows
from .book import PriceAt
from .entry import amount_of, utc_day
from .schema import Moment

__all__ = ["SCHEMA_4", "price_of", "prices_as_of"]

# Without it, every start would go through the whole journal.
SCHEMA_4 = "CREATE INDEX entry_price ON entry (seq) WHERE kind = 'price';"

_SQL = """
SELECT coalesce(json_extract(payload, '$.at_us'), recorded_us) AS at,
    json_extract(payload, '$.request'), day
FROM entry WHERE kind = 'price' ORDER BY at, seq
"""


def prices_as_of(rows: Rows, as_of: Moment = None) -> dict[str, PriceAt]:
    """The last price of each asset at the end of that day, or at that instant."""
    prices: dict[str, PriceAt] = {}
    # Of two prices of one instant the one that was booked later counts.
    for at_us, request, day in rows.each(_SQL):
        if isinstance(as_of, str):
            counts = day <= as_of
        else:
            counts = as_of is None or (day <= utc_day(as_of) and at_us <= as_of)
        if counts:
            asset, value = price_of(request)
            prices[asset] = PriceAt(at_us, value)
    return prices


def price_of(request: str) -> tuple[str, Decimal]:
    """Asset and value of the price that a canonical request books."""
    _, content = msgspec.json.decode(request)
    if "entry" in content:  # a correction holds the event that it books
        _, content = content["entry"]
    return content["asset"], amount_of(content["value"])
