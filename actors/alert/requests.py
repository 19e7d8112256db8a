"""How another subsystem asks for an alert: one row in its own transaction, so that fact and alert
are one commit.

It never writes an alert itself. The alert actor reads these rows in order, after its cursor, and
alone decides what becomes of them; after the commit it is told with `AlertsWaiting`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from ...runtime import ActorError, Context, Ref, UnknownChild
from ...wire.alert import AlertDraft, AlertsWaiting, Category, Level
from ...wire.persistence import Statement

__all__ = ["alert_ref", "alert_request", "requested", "wake_alerts"]


def alert_request(
    at_us: int,
    level: Level,
    category: Category,
    title: str,
    message: str,
    *,
    strategy: str | None = None,
    dedup_key: str | None = None,
    resolves: bool = False,
) -> Statement:
    """The row. With `resolves` it closes the dedup key instead of firing it."""
    texts = (_encodable(text) for text in (title, message, strategy, dedup_key))
    return Statement(
        "INSERT INTO alert_request(at_us, level, category, title, message, strategy, dedup_key,"
        " resolves)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((at_us, level.value, category.value, *texts, int(resolves)),),
    )


def requested(at_us: int, drafts: Iterable[AlertDraft]) -> list[Statement]:
    """The rows of several alerts, in this order."""
    return [
        alert_request(
            at_us,
            draft.level,
            draft.category,
            draft.title,
            draft.message,
            strategy=draft.strategy,
            dedup_key=draft.dedup_key,
            resolves=draft.resolves,
        )
        for draft in drafts
    ]


def _encodable(text: str | None) -> str | None:
    """An engine's error text may hold a lone surrogate, which would fail the whole transaction
    it is told in.
    """
    return text if text is None else text.encode("utf-8", "replace").decode()


def alert_ref(context: Context) -> Ref | None:
    """The alert actor, or None in a tree that has none: then no alerts are asked for."""
    with suppress(UnknownChild):
        return context.ref("alert")
    return None


def wake_alerts(alert: Ref | None) -> None:
    """After the commit. A full mailbox or a stopped actor does not matter: the rows are found at
    the next wake-up.
    """
    if alert is not None:
        with suppress(ActorError):
            alert.tell_nowait(AlertsWaiting())
