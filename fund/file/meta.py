"""The identity of a fund's database: the keys of its table `meta`.

| key | value |
|---|---|
| name, currency, total_capital | as configured at the first start; the capital is decimal text |
| uuid | made with the file |
| ledger_rules | the ledger's rules of the last run, as JSON |
| limits | the limits of the last run, as JSON |
| forked_from | uuid of the database that this one was restored or imported from |
| forked_at_us, forked_at_entry | time of a restore; number and hash of the last entry taken over |
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from fundops.actors.ledger.events import Rules
from fundops.actors.persistence import Reader
from fundops.actors.persistence.meta import SCHEMA, read, write
from fundops.wire.money import from_minor

__all__ = ["SCHEMA", "identity", "read", "read_file", "rules_of", "with_rules", "write"]

_RULES: Final = "ledger_rules"


def identity(name: str, currency: str, capital_minor: int) -> dict[str, str]:
    """The three values that every start of the fund must agree with.

    `capital_minor` is in minor units.
    """
    capital = f"{from_minor(capital_minor).normalize():f}"
    return {"name": name, "currency": currency, "total_capital": capital}


def read_file(path: Path) -> dict[str, str]:
    """All keys and values of the database at `path`. Raises: `DatabaseError`."""
    with Reader(path) as reader:
        return read(reader)


def rules_of(values: Mapping[str, str]) -> Rules:
    """The ledger's rules of the fund's last run, or the default rules."""
    return Rules(**msgspec.json.decode(values.get(_RULES, "{}")))


def with_rules(rules: Rules) -> dict[str, str]:
    """The ledger's rules as a value of this table."""
    return {_RULES: msgspec.json.encode(rules._asdict()).decode()}
