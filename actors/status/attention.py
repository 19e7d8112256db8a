"""Rows of things that wait for a person, made from the records of the other topics. Pure.

A row has a title, the reason, and the command to copy into a shell. NAME and TEXT stand for the
person's own words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ...wire.shell import PERSON, shell_command
from ...wire.stream.records import (
    ActorLine,
    Attention,
    Channel,
    Feed,
    Kill,
    PromotionBrief,
    Recovery,
    Storage,
)

__all__ = ["Aside", "Known", "attention"]

REASON_MAX = 80  # characters: a row is read at a glance
ROWS_MAX = 200  # no person reads more; a fund may have 10,000 strategies


class Aside(NamedTuple):
    """The reports of the engine that could not be booked and wait."""

    waiting: int = 0
    key: str = ""  # of the oldest
    reason: str = ""  # of the oldest
    since_us: int | None = None


class Known(NamedTuple):
    """The newest record of each topic; empty: nothing was published yet."""

    fund: Mapping[str, Any] = {}
    strategies: Mapping[str, Any] = {}
    promotion: Mapping[str, PromotionBrief] = {}
    recovery: Mapping[str, Recovery] = {}
    feeds: Mapping[str, Feed] = {}
    channels: Mapping[str, Channel] = {}
    actors: Mapping[str, ActorLine] = {}
    aside: Aside = Aside()


def attention(known: Known, since_us: Mapping[str, int], now_us: int) -> dict[str, Attention]:
    """The rows by id, the most urgent first.

    `since_us` has the instant of each row that was there before; a row that has no instant
    yet gets it, or `now_us`.
    """
    order = {"CRITICAL": 0, "WARNING": 1, "INFO": 2}
    rows = list(_rows(known))
    rows.sort(key=lambda row: order[row[1].level])
    found = {}
    for key, row in rows[:ROWS_MAX]:
        seen_us = row.since_us if row.since_us is not None else since_us.get(key, now_us)
        found[key] = Attention(row.level, row.title, row.why, row.command, seen_us, row.strategy)
    return found


def _rows(known: Known) -> Iterator[tuple[str, Attention]]:
    yield from _fund(known.fund)
    yield from _actors(known.actors)
    yield from _channels(known.channels)
    yield from _aside(known.aside)
    yield from _recovery(known.recovery, known.strategies)
    yield from _strategies(known.strategies)
    yield from _ready(known.promotion)
    yield from _feeds(known.feeds)


def _fund(fund: Mapping[str, Any]) -> Iterator[tuple[str, Attention]]:
    kill = fund.get("kill")
    if isinstance(kill, Kill) and kill.state != "OFF":
        yield "kill_switch", _kill_switch(kill)
    storage = fund.get("storage")
    if isinstance(storage, Storage) and storage.state not in ("ok", None):
        command = "fundops storage"
        yield (
            "storage",
            Attention(
                "CRITICAL", f"Storage is {storage.state}", storage.reason or "", command, None
            ),
        )
    # In a replay each step of the time is longer than an engine may be silent.
    if fund.get("stale") and fund.get("clock") != "driven":
        why = "the figures are those of its last word, and the leases of real money end"
        yield "stale", Attention("CRITICAL", "The engine is silent", why, "", fund.get("data_us"))
    if fund.get("clock_suspect"):
        why = "the wall clock has jumped: no session ends, fees and promotions wait"
        command = f"fundops confirm clock {PERSON}"
        yield "clock", Attention("WARNING", "The clock is suspect", why, command, None)


def _kill_switch(kill: Kill) -> Attention:
    why = f"by {kill.by or 'unknown'}: {kill.reason or 'no reason given'}"
    if kill.state == "ENGAGING":
        why += " (the engine has not answered yet)"
    elif kill.state == "UNCONFIRMED":
        problem = kill.problem or "the engine has not confirmed the stop"
        why += f" ({problem}; until it is confirmed a release needs --accept-open-orders)"
    command = f"fundops kill-switch release {PERSON}"
    return Attention("CRITICAL", "Trading is stopped", why, command, kill.at_us)


def _actors(actors: Mapping[str, ActorLine]) -> Iterator[tuple[str, Attention]]:
    for path, actor in actors.items():
        # One that restarts needs no person: it is told in an alert when it crashes.
        if actor.kind == "actor" and actor.state in ("stuck", "stopped"):
            why = actor.last_crash or f"it is {actor.state}"
            title = f"Actor {path} is {actor.state}"
            yield f"actor:{path}", Attention("CRITICAL", title, why, "fundops status", None)


def _channels(channels: Mapping[str, Channel]) -> Iterator[tuple[str, Attention]]:
    for name, channel in channels.items():
        if channel.state == "failing":
            why = channel.error or "the last alert did not arrive"
            title = f"Channel {name} does not deliver"
            yield f"channel:{name}", Attention("WARNING", title, why, "fundops alerts test", None)


def _aside(aside: Aside) -> Iterator[tuple[str, Attention]]:
    if aside.waiting:
        more = f", and {aside.waiting - 1} more" if aside.waiting > 1 else ""
        title = f"{aside.waiting} report{'s are' if aside.waiting > 1 else ' is'} not booked"
        why = f"{aside.key}: {aside.reason}{more}"
        yield (
            "reports_aside",
            Attention("WARNING", title, why, "fundops ledger reports-aside", aside.since_us),
        )


def _recovery(
    recovery: Mapping[str, Recovery], strategies: Mapping[str, Any]
) -> Iterator[tuple[str, Attention]]:
    for name, record in recovery.items():
        if record.breaker_open:
            why = _breaker(record)
            if name in strategies:
                real = strategies[name]["real"]
                why += f". {'It holds real money' if real else 'No real money in it'}."
            command = shell_command("recovery reset", name)
            yield (
                f"breaker:{name}",
                Attention("WARNING", f"{name} stays down", why, command, record.since_us, name),
            )


def _breaker(record: Recovery) -> str:
    """Why it is open, in one short line: the errors are in the alerts and events of recovery."""
    if record.attempts >= record.max:
        return f"{record.attempts} of {record.max} restarts failed, the breaker is open"
    # A remark in brackets is often an id, which tells a person nothing.
    reason = (record.reason or "the breaker is open").partition("\n")[0].partition(" (")[0]
    return reason if len(reason) <= REASON_MAX else f"{reason[: REASON_MAX - 1]}…"


def _strategies(strategies: Mapping[str, Any]) -> Iterator[tuple[str, Attention]]:
    for name, record in strategies.items():
        if record["paused"]:
            by = record["paused_by"]
            why = (
                f"by {by}: {record['paused_why']}" if by else "by the guard, at its drawdown limit"
            )
            command = shell_command("strategy resume", name, PERSON)
            row = Attention("WARNING", f"{name} is paused", why, command, None, name)
            yield f"paused:{name}", row
        if record["counters_restarted"]:
            why = "the engine's counters fell; until a person confirms it, it gets no lease"
            command = shell_command("confirm counters", name, PERSON)
            title = f"The counters of {name} restarted"
            yield f"counters:{name}", Attention("WARNING", title, why, command, None, name)


def _ready(promotion: Mapping[str, PromotionBrief]) -> Iterator[tuple[str, Attention]]:
    for name, record in promotion.items():
        if record.would_do == "ready":
            command = shell_command("strategy approve", name)
            row = Attention("INFO", f"{name} may rise", record.why, command, None, name)
            yield f"ready:{name}", row


def _feeds(feeds: Mapping[str, Feed]) -> Iterator[tuple[str, Attention]]:
    for name, record in feeds.items():
        if record.stale:
            why = f"no data for over {record.stale_after_s:g} s"
            yield (
                f"feed:{name}",
                Attention("WARNING", f"Feed {name} is stale", why, "", record.last_data_us),
            )
