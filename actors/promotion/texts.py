"""Names and texts that people give, checked where they enter.

An act that allows more needs a person's name. A text that is wrong never stops an act that allows
less: it is made fit instead.
"""

from __future__ import annotations

from typing import Final

from ...runtime import shown
from ...wire.errors import MetricError
from ...wire.foreign import plain_text

__all__ = [
    "check_family",
    "check_name",
    "check_request_id",
    "check_source",
    "loosening",
    "tightening",
]

BY_MAX: Final = 128  # characters
NAME_MAX: Final = 128
REASON_MAX: Final = 4_096
SOURCE_MAX: Final = 1_024


def check_name(name: object, field: str = "strategy_name") -> str:
    """Raises: `MetricError` naming the field."""
    if not isinstance(name, str) or not 1 <= len(name) <= NAME_MAX or not name.isprintable():
        raise MetricError(field, name, f"is not a printable text of 1 to {NAME_MAX} characters")
    if name != name.strip():
        raise MetricError(field, name, "begins or ends with a space")
    return name


def check_family(family: object) -> str | None:
    """Raises: `MetricError` naming the field."""
    return None if family is None else check_name(family, "family")


def check_request_id(request_id: object) -> str | None:
    """Raises: `MetricError` naming the field."""
    return None if request_id is None else check_name(request_id, "request_id")


def check_source(source: object) -> str:
    """The name of the program that records metrics. Raises: `MetricError`."""
    text = plain_text(source)
    if text is None or len(text) > SOURCE_MAX or _repaired(text) != text:
        raise MetricError("source", source, f"is not a text of at most {SOURCE_MAX} characters")
    return text


def loosening(by: object, reason: object, *, why: bool = False) -> tuple[str, str]:
    """The person and the reason of an act that allows more. With `why` a reason must be given.

    Raises: `MetricError` naming the field.
    """
    if not isinstance(by, str) or not by.strip() or len(by) > BY_MAX or not by.isprintable():
        raise MetricError("by", by, f"is not a printable text of 1 to {BY_MAX} characters")
    if not isinstance(reason, str) or len(reason) > REASON_MAX or _repaired(reason) != reason:
        raise MetricError("reason", reason, f"is not a text of at most {REASON_MAX} characters")
    if why and not reason.strip():
        raise MetricError("reason", reason, "is empty; say why")
    return by, reason


def tightening(by: object, reason: object) -> tuple[str, str]:
    """The person and the reason of an act that allows less, which no wrong text may stop."""
    return _repaired(by)[:BY_MAX], _repaired(reason)[:REASON_MAX]


def _repaired(text: object) -> str:
    if not isinstance(text, str):
        text = "" if text is None else shown(text)
    return text.encode("utf-8", "replace").decode()
