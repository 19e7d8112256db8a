"""Options that several commands share: the database, the form of output, details of a booking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

__all__ = ["Booking", "Json", "Money", "Source", "given", "instant"]

Json = Annotated[bool, Parameter(name="--json", negative="")]
Money = Annotated[str, Parameter(allow_leading_hyphen=True)]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Source:
    """The fund to ask, and the form of the output."""

    db: Path | None = None
    "The fund's database; ~/.fundops/fund.db by default."

    json: Json = False
    "Print one JSON value, amounts as decimal text."

    @property
    def path(self) -> Path:
        """The database's path as given: the shell expands `~`, the system follows links."""
        from fundops.config import home

        return self.db if self.db is not None else home() / "fund.db"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Booking(Source):
    """The details of a booking."""

    key: str | None = None
    "Idempotency key: the same key with the same content is booked once."

    strategy: str | None = None
    "The strategy it belongs to."

    at: str | None = None
    "The time of the event: YYYY-MM-DD, or a time with its offset. Now by default."

    memo: str = ""
    "A note kept with the entry."

    by: str | None = None
    "The name for the audit table; $USER by default."


def given(**options: Any) -> dict[str, Any]:
    """The options that were given. For the others the called method has its own defaults."""
    return {name: value for name, value in options.items() if value is not None}


def instant(option: str, text: str | None) -> Any:
    """A date or a time with its offset, from the text of an option. Raises: `ConfigError`."""
    from fundops.control.arguments import converted
    from fundops.moments import Instant, instant_us

    at = None if text is None else converted(text, Instant, f"--{option}")
    instant_us(f"--{option}", at)  # refuses a time without an offset
    return at
