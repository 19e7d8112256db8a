"""Options that several commands share: the fund's database, the form of the output, and how an event is booked."""

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
    """Which fund, and how to print."""

    db: Path | None = None
    "The fund's database; ~/.fundops/fund.db unless told otherwise."

    json: Json = False
    "Print one JSON value, amounts as decimal text."

    @property
    def path(self) -> Path:
        """The database. `~` and links are the shell's and the system's business."""
        from fundops.config import home

        return self.db if self.db is not None else home() / "fund.db"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Booking(Source):
    """How something is booked."""

    key: str | None = None
    "Idempotency key: the same key with the same content is booked once."

    strategy: str | None = None
    "The strategy it belongs to."

    at: str | None = None
    "When it happened: YYYY-MM-DD, or a time with its offset. Now, unless told otherwise."

    memo: str = ""
    "A note kept with the entry."

    actor: str | None = None
    "Who asks, for the audit table; $USER unless told otherwise."


def given(**options: Any) -> dict[str, Any]:
    """Those that were given: what is left out is for the question itself to decide."""
    return {name: value for name, value in options.items() if value is not None}


def instant(option: str, text: str | None) -> Any:
    from fundops.control.arguments import converted
    from fundops.moments import Instant, instant_us

    at = None if text is None else converted(text, Instant, f"--{option}")
    instant_us(f"--{option}", at)  # an instant without an offset is nobody's
    return at
