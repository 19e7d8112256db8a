"""The supervision tree of a fund: which actors run, in which order, and what each is given.

Children start in the order of `fund_tree` and stop in reverse. The guard is first and needs no
database, so it survives every other actor. Under rest_for_one the death of persistence restarts
everything after it from the durable state; the subsystems are under a one_for_one supervisor, so
one that dies restarts alone.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import trio

from fundops import page
from fundops.actors.alert import AlertActor, ChannelActor
from fundops.actors.alert.delivery import LogDelivery, WebhookDelivery
from fundops.actors.alert.secret_url import SecretUrl
from fundops.actors.guard import GuardActor, Leases
from fundops.actors.guard.limits import WARN_AT
from fundops.actors.guard.marker import marker_of
from fundops.actors.host import Host
from fundops.actors.ledger import LedgerActor
from fundops.actors.oversight import ClockWatch, OversightActor
from fundops.actors.oversight.crashes import CrashWatch
from fundops.actors.oversight.shown import FundFace
from fundops.actors.persistence import PersistenceActor, StorageBoard
from fundops.actors.promotion import PromotionActor
from fundops.actors.recovery import RecoveryActor
from fundops.actors.status import StatusActor
from fundops.actors.status.board import StatusBoard
from fundops.actors.status.face import StatusFace
from fundops.config import FundConfig
from fundops.file.database import MIGRATIONS
from fundops.runtime import (
    Backoff,
    ChildSpec,
    ChildStatus,
    Clock,
    Supervisor,
    SupervisorSpec,
    VirtualClock,
    Worker,
)
from fundops.wire.stream.listening import HeldPort

__all__ = ["Parts", "TreeView", "channel_names", "fund_tree", "status_token"]

# A burst of bookings waits in the mailbox and shares one commit.
BURST = 8_192


class TreeView:
    """The running tree as oversight sees it; oversight is itself part of the tree.

    The supervisor is set once the tree was declared; until then the tree is empty.
    """

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None

    def __call__(self) -> tuple[ChildStatus, ...]:
        return self.supervisor.tree() if self.supervisor is not None else ()


@dataclass(frozen=True)
class Parts:
    """The settings and shared objects that the actors are made with.

    `nursery` outlives the supervisor; the status server runs in it.
    """

    config: FundConfig
    path: Path
    clock: Clock
    host: Host
    leases: Leases
    view: TreeView
    transport: Any  # replaces the network of webhooks; None: the network itself
    make_worker: Callable[[str], Worker]
    nursery: trio.Nursery
    crashes: CrashWatch
    board: StatusBoard
    port: HeldPort | None  # of the status stream; None: there is none
    clock_watch: ClockWatch
    storage: StorageBoard = field(default_factory=StorageBoard)


def fund_tree(parts: Parts) -> list[ChildSpec | SupervisorSpec]:
    """The children of the fund's supervisor, in the order of their start."""
    tree: list[ChildSpec | SupervisorSpec] = [_guard(parts), _persistence(parts)]
    subsystems = tuple(_subsystems(parts))
    if subsystems:
        tree.append(SupervisorSpec("subsystems", subsystems))
    tree.append(_oversight(parts))
    if parts.port is not None:
        tree.append(_viewers(parts, parts.port))
    return tree


def _guard(parts: Parts) -> ChildSpec:
    config, marker = parts.config, marker_of(parts.path)
    settings, capital = config.guard_settings(), config.capital_minor
    return ChildSpec(
        "guard",
        partial(GuardActor, parts.clock, parts.host, settings, parts.leases, marker, capital),
    )


def _persistence(parts: Parts) -> ChildSpec:
    worker = partial(parts.make_worker, "fundops-writer")
    actor = partial(
        PersistenceActor,
        parts.path,
        MIGRATIONS,
        make_worker=worker,
        board=parts.storage,
        on_commit=parts.board.tell,
    )
    return ChildSpec("persistence", actor, capacity=BURST)


def _subsystems(parts: Parts) -> Iterator[ChildSpec]:
    if parts.config.alerts_enabled:
        yield from _alerts(parts)
    if parts.config.ledger_enabled:
        yield _ledger(parts)
    if parts.config.promotion_enabled:
        yield _promotion(parts)
    if parts.config.self_healing_enabled:
        yield _recovery(parts)


def _alerts(parts: Parts) -> Iterator[ChildSpec]:
    names = channel_names(parts.config)
    for name in names:
        deliver = _delivery(name, parts)
        actor = partial(ChannelActor, name, parts.path, deliver, parts.clock)
        # A woken channel reads the whole outbox, so a few queued wake-ups are enough.
        yield ChildSpec(f"channel.{name}", actor, capacity=16)
    yield ChildSpec(
        "alert", partial(AlertActor, parts.path, parts.clock, parts.config.alerts, names)
    )


def _ledger(parts: Parts) -> ChildSpec:
    config, worker = parts.config, partial(parts.make_worker, "fundops-ledger")
    currency, rules = config.currency, config.ledger_rules()
    actor = partial(LedgerActor, parts.path, parts.clock, currency, rules, make_worker=worker)
    return ChildSpec("ledger", actor, capacity=BURST)


def _promotion(parts: Parts) -> ChildSpec:
    policy, capital = parts.config.promotion_rules(), parts.config.promotion_capital()
    actor = partial(
        PromotionActor,
        parts.path,
        parts.clock,
        parts.host.acts,
        policy,
        capital,
        parts.leases,
        parts.clock_watch.is_suspect,
    )
    return ChildSpec("promotion", actor)


def _recovery(parts: Parts) -> ChildSpec:
    settings, latch = parts.config.recovery, parts.leases.latch
    return ChildSpec(
        "recovery",
        partial(RecoveryActor, parts.path, parts.clock, parts.host.acts, settings, latch=latch),
    )


def _oversight(parts: Parts) -> ChildSpec:
    settings, capital = parts.config.oversight_settings(), parts.config.capital_minor
    actor = partial(
        OversightActor,
        parts.path,
        parts.clock,
        parts.host,
        settings,
        capital,
        parts.clock_watch,
        parts.storage,
        parts.crashes,
        parts.board if parts.port is not None else None,
        _face(parts),
    )
    return ChildSpec("oversight", actor, grace_s=15.0)


def _face(parts: Parts) -> FundFace:
    config, guard = parts.config, parts.config.guard_settings()
    return FundFace(
        name=config.name,
        currency=config.currency,
        clock="driven" if isinstance(parts.clock, VirtualClock) else "system",
        tick_interval_s=config.tick_interval_s,
        lease_s=config.lease_s,
        kill_limit_pct=guard.max_fund_drawdown_pct,
        warn_pct=round(WARN_AT * guard.max_fund_drawdown_pct, 6),
        strategy_limit_pct=guard.max_strategy_drawdown_pct,
    )


def _viewers(parts: Parts, port: HeldPort) -> SupervisorSpec:
    # The stream only shows the fund, so no number of its failures may end the fund. It is tried
    # again without end, at growing intervals.
    return SupervisorSpec(
        "viewers",
        (_status(parts, port),),
        intensity=sys.maxsize,
        max_consecutive=sys.maxsize,
        backoff=Backoff(min_s=0.05, max_s=30.0),
    )


def _status(parts: Parts, port: HeldPort) -> ChildSpec:
    actor = partial(
        StatusActor,
        parts.path,
        parts.clock,
        port,
        status_token(parts.config),
        nursery=parts.nursery,
        board=parts.board,
        tree=parts.view,
        face=StatusFace(
            currency=parts.config.currency,
            tick_interval_s=parts.config.tick_interval_s,
            attempts_max=parts.config.recovery.attempts_max
            if parts.config.self_healing_enabled
            else None,
            channels=channel_names(parts.config),
            ledger=parts.config.ledger_enabled,
        ),
        page=page.html,
        hosts=parts.config.status_names,
        make_worker=partial(parts.make_worker, "fundops-status-reader"),
    )
    return ChildSpec("status", actor)


# -- from settings to what the actors need


def channel_names(config: FundConfig) -> tuple[str, ...]:
    """The channels that deliver alerts; each is the actor `channel.<name>`."""
    webhook = ("webhook",) if config.alert_webhook_url is not None else ()
    return (*webhook, *(("log",) if config.alert_log else ()))


def _delivery(name: str, parts: Parts) -> Any:
    if name == "log":
        return LogDelivery()
    url = parts.config.alert_webhook_url
    assert isinstance(url, SecretUrl)
    return WebhookDelivery(url, transport=parts.transport)


def status_token(config: FundConfig) -> str:
    """The token of the status stream; "" when there is no stream, or when it asks for none.

    A token that is not configured is made once and kept beside the database, readable by its owner
    alone.
    """
    if config.status_port is None:
        return ""
    if config.status_token is not None:
        return config.status_token
    file = config.path.with_name(config.path.name + ".token")
    # A crash can leave an empty file. An empty token would admit every client.
    if not file.exists() or not file.read_text().strip():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24))
    return file.read_text().strip()
