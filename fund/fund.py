"""Fund: everything running, behind one async front door on trio.

async with Fund.open(FundConfig(total_capital=100_000, ledger_enabled=True)) as fund:
    await fund.ledger.deposit("2500")
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import trio

from fundops.actors.alert import AlertActor, ChannelActor
from fundops.actors.alert.delivery import LogDelivery, SecretUrl, WebhookDelivery
from fundops.actors.guard import GuardActor, Leases
from fundops.actors.host import Host
from fundops.actors.ledger import LedgerActor
from fundops.actors.oversight import OversightActor
from fundops.actors.persistence import PersistenceActor
from fundops.actors.promotion import PromotionActor
from fundops.actors.recovery import RecoveryActor
from fundops.actors.status import StatusActor
from fundops.commands import CommandTable, fund_commands
from fundops.config import FundConfig
from fundops.control import ControlServer
from fundops.database import MIGRATIONS, prepare
from fundops.doors import ANSWER_DEADLINE_S, AlertDoor, LedgerDoor, PromotionDoor, RecoveryDoor
from fundops.lock import OwnerLock
from fundops.reported import Reported
from fundops.runtime import (
    ActorError,
    ChildSpec,
    ChildStatus,
    Clock,
    Ref,
    Rejected,
    Request,
    Supervisor,
    SupervisorSpec,
    SystemClock,
    ThreadWorker,
    Worker,
    bare_errors,
    open_supervisor,
)
from fundops.wire.alert import PendingDeliveries
from fundops.wire.controller import Controller, StrategyStatus
from fundops.wire.guard import (
    EngageKillSwitch,
    Entitlement,
    KillStatus,
    ReadKillSwitch,
    ReleaseKillSwitch,
    ResumeStrategy,
)
from fundops.wire.money import from_minor
from fundops.wire.oversight import FundStatus, NavHistory, NavSample, ReadFundStatus, RememberGuard, Tick, TickReport
from fundops.wire.status import StatusPort

__all__ = ["Fund"]

R = TypeVar("R")

log = logging.getLogger("fundops")
# A host that configures no logging hears nothing of ours on its stderr.
log.addHandler(logging.NullHandler())

TICK_DEADLINE_S = 120.0
FLUSH_POLL_S = 0.02


class Fund:
    """A running fund. Made by `Fund.open`; its parts are `ledger`, `promotion`, `alerts` and `recovery`."""

    def __init__(
        self,
        config: FundConfig,
        supervisor: Supervisor,
        host: Host,
        leases: Leases,
        clock: Clock,
        reported: Reported,
        make_worker: Callable[[str], Worker],
    ) -> None:
        self.config = config
        self.clock = clock
        self.host = host
        self._supervisor = supervisor
        self._leases = leases
        self._reported = reported
        self.status_token = _token(config.path, config.status_token) if config.status_port is not None else ""
        self._last_day = _utc_day(clock)
        self.ledger = LedgerDoor(self._maybe("ledger"), clock.now_us, config.path, make_worker)
        self.promotion = PromotionDoor(self._maybe("promotion"))
        self.alerts = AlertDoor(self._maybe("alert"))
        self.recovery = RecoveryDoor(self._maybe("recovery"), host)
        # What another process may ask for by name; a host can add commands of its own.
        self.commands: CommandTable = fund_commands(
            config.path, supervisor.ref("persistence"), self.ledger, clock.now_us
        )

    @staticmethod
    def open(
        config: FundConfig,
        controller: Controller | None = None,
        *,
        clock: Clock | None = None,
        transport: Any = None,
        make_worker: Callable[[str], Worker] = ThreadWorker,
        seed: int | None = None,
    ) -> AbstractAsyncContextManager[Fund]:
        """Start a fund, and stop it in order when the block is left.

        Without a `controller` the host pushes what it knows with `report`. `clock` drives every schedule of the
        domain, `transport` replaces the network of webhooks, `make_worker` the threads that touch the database, and
        `seed` makes the identity of a new database repeatable.

        Raises: `ConfigError`, `DatabaseInUse`, `DatabaseError`; `SupervisorEscalated` out of the block when an actor
        cannot be kept alive.
        """
        return _open(config, controller, clock or SystemClock(), transport, make_worker, seed)

    def _maybe(self, name: str) -> Ref | None:
        enabled = {
            "ledger": self.config.ledger_enabled,
            "promotion": self.config.promotion_enabled,
            "alert": self.config.alerts_enabled,
            "recovery": self.config.self_healing_enabled,
        }[name]
        return self._supervisor.ref(name) if enabled else None

    async def _ask(self, actor: str, request: Request[R]) -> R:
        return await self._supervisor.ref(actor).ask(request, timeout_s=ANSWER_DEADLINE_S)

    # -- what the host tells and asks; any thread, no await

    def report(self, status: StrategyStatus) -> None:
        """Push one strategy's status. The newest one counts at the next tick."""
        self._reported.report(status)

    def may_trade(self, name: str) -> bool:
        """Whether `name` may send real orders now."""
        return self._leases.may_trade(name)

    def entitlement(self, name: str) -> Entitlement:
        """Stage, mode and capital of `name`, and until when they hold."""
        return self._leases.entitlement(name)

    # -- the fund as a whole

    async def tick(self, session: str | None = None) -> TickReport:
        """One round of oversight, for hosts that drive time themselves. Answers when its commits are durable."""
        report = await self._supervisor.ref("oversight").ask(Tick(session), timeout_s=TICK_DEADLINE_S)
        if session is not None and self.config.ledger_enabled:
            await self._log_anchor()
        return report

    async def _log_anchor(self) -> None:
        """The head of the hash chain, outside the file: a journal whose end was cut off looks whole from inside."""
        try:
            newest = await self.ledger.recent_entries(1)
        except (Rejected, ActorError) as refusal:
            log.warning("the ledger's anchor is not known: %s", refusal)
        else:
            for entry in newest:
                log.info("ledger anchor %d %s", entry.seq, entry.hash)

    async def tick_now(self) -> TickReport:
        """A tick that also ends the UTC day when one has passed since the last."""
        today = _utc_day(self.clock)
        ended, self._last_day = self._last_day, today
        return await self.tick(ended if ended != today else None)

    async def status(self) -> FundStatus:
        """The fund at its last tick."""
        return await self._ask("oversight", ReadFundStatus())

    async def nav_history(self, limit: int = 100) -> tuple[NavSample, ...]:
        """One line per session, newest first."""
        return await self._ask("oversight", NavHistory(limit))

    async def engage_kill_switch(self, reason: str, actor: str) -> KillStatus:
        """Stop everything now. Answers after the engine was told; state UNCONFIRMED if it did not confirm."""
        return await self._ask("guard", EngageKillSwitch(reason, actor))

    async def release_kill_switch(self, actor: str, reason: str) -> KillStatus:
        """A person's decision; drawdown is measured from this moment's NAV on.

        If the database cannot remember it now, the next tick tries again; a restart before that finds it engaged.
        """
        status = await self._ask("guard", ReleaseKillSwitch(actor, reason))
        try:
            await self._ask("oversight", RememberGuard())
        except (Rejected, ActorError) as refusal:
            log.warning("the release is not in the database yet: %s", refusal)
        return status

    async def kill_switch(self) -> KillStatus:
        return await self._ask("guard", ReadKillSwitch())

    async def resume(self, strategy: str, actor: str) -> bool:
        """Let a strategy that the guard paused go on; False when it was not paused."""
        return await self._ask("guard", ResumeStrategy(strategy, actor))

    def tree(self) -> tuple[ChildStatus, ...]:
        """The supervision tree at this instant."""
        return self._supervisor.tree()

    def drill(self, actor: str) -> None:
        """Crash one actor on purpose before its next message, to see it come back. Raises: `UnknownChild`."""
        self._supervisor.drill(actor)

    async def status_port(self) -> int:
        """The port of the status stream. Raises: `UnknownChild` when none is configured."""
        return await self._ask("status", StatusPort())

    async def flush_alerts(self, timeout_s: float) -> bool:
        """Wait until every stored alert has been delivered or given up; False when time runs out first."""
        with trio.move_on_after(timeout_s):
            for name in _channels(self.config):
                ref = self._supervisor.ref(f"channel.{name}")
                while await ref.ask(PendingDeliveries(), timeout_s=ANSWER_DEADLINE_S):  # noqa: ASYNC110  another task's
                    await trio.sleep(FLUSH_POLL_S)
            return True
        return False


def _utc_day(clock: Clock) -> str:
    return datetime.fromtimestamp(clock.now_us() // 1_000_000, UTC).date().isoformat()


def _channels(config: FundConfig) -> tuple[str, ...]:
    webhook = ("webhook",) if config.alert_webhook_url is not None else ()
    return (*webhook, *(("log",) if config.alert_log else ()))


@asynccontextmanager
async def _open(
    config: FundConfig,
    controller: Controller | None,
    clock: Clock,
    transport: Any,
    make_worker: Callable[[str], Worker],
    seed: int | None,
) -> AsyncIterator[Fund]:
    path = config.path
    reported = Reported()
    identity = {
        "name": config.name,
        "currency": config.currency,
        "total_capital": f"{from_minor(config.capital_minor).normalize():f}",
    }
    with OwnerLock(path):
        uuid = prepare(path, identity, rules=config.ledger_rules() if config.ledger_enabled else None, seed=seed)
        log.info("fund %s: database %s, uuid %s", config.name, path, uuid)
        leases = Leases(clock)
        tree = _Tree()
        with bare_errors():
            async with trio.open_nursery() as nursery:
                host = Host(controller or reported, nursery)
                if host.missing():
                    log.info("the controller lacks %s; what needs them is off", ", ".join(host.missing()))
                specs = _specs(config, path, clock, host, leases, tree, transport, make_worker, nursery)
                async with open_supervisor(specs, strategy="rest_for_one", name=config.name) as supervisor:
                    tree.supervisor = supervisor
                    fund = Fund(config, supervisor, host, leases, clock, reported, make_worker)
                    if config.ledger_enabled:
                        await fund.ledger.deposit(from_minor(config.capital_minor), key="opening", memo="total capital")
                    control = ControlServer(uuid, path, fund.commands)
                    if config.control_socket:
                        await nursery.start(control.serve)
                    ticking = trio.CancelScope()
                    if config.tick_interval_s is not None:
                        nursery.start_soon(_tick_for_ever, fund, config.tick_interval_s, ticking)
                    try:
                        yield fund
                    finally:
                        leases.end_all()
                        ticking.cancel()
                        await control.close()
                nursery.cancel_scope.cancel()


class _Tree:
    """Lets the tick see the tree it is part of, which exists only after it was declared."""

    def __init__(self) -> None:
        self.supervisor: Supervisor | None = None

    def __call__(self) -> tuple[ChildStatus, ...]:
        return self.supervisor.tree() if self.supervisor is not None else ()


def _specs(
    config: FundConfig,
    path: Path,
    clock: Clock,
    host: Host,
    leases: Leases,
    tree: _Tree,
    transport: Any,
    make_worker: Callable[[str], Worker],
    nursery: trio.Nursery,
) -> list[ChildSpec | SupervisorSpec]:
    """The tree: started downwards, stopped upwards."""
    capital = config.capital_minor
    marker = path.with_name(path.name + ".kill")
    subsystems: list[ChildSpec] = []
    if config.alerts_enabled:
        names = _channels(config)
        for name in names:
            deliver = _delivery(name, config, transport)
            # A woken channel looks at the outbox, so one wake-up waiting is as good as a thousand.
            spec = ChildSpec(f"channel.{name}", partial(ChannelActor, name, path, deliver, clock), capacity=16)
            subsystems.append(spec)
        subsystems.append(ChildSpec("alert", partial(AlertActor, path, clock, config.alerts, names)))
    if config.ledger_enabled:
        thread = partial(make_worker, "fundops-ledger")
        ledger = partial(LedgerActor, path, clock, config.currency, config.ledger_rules(), make_worker=thread)
        subsystems.append(ChildSpec("ledger", ledger, capacity=8_192))
    if config.promotion_enabled:
        promotion = partial(PromotionActor, path, clock, host, config.promotion_settings(), capital)
        subsystems.append(ChildSpec("promotion", promotion))
    if config.self_healing_enabled:
        subsystems.append(ChildSpec("recovery", partial(RecoveryActor, path, clock, host, config.recovery)))
    worker = partial(make_worker, "fundops-writer")
    oversight = partial(OversightActor, path, clock, host, config.oversight_settings(), capital, tree)
    specs: list[ChildSpec | SupervisorSpec] = [
        ChildSpec("guard", partial(GuardActor, clock, host, config.guard_settings(), leases, marker, capital)),
        ChildSpec("persistence", partial(PersistenceActor, path, MIGRATIONS, make_worker=worker), capacity=8_192),
    ]
    if subsystems:
        specs.append(SupervisorSpec("subsystems", tuple(subsystems)))
    specs.append(ChildSpec("oversight", oversight, grace_s=15.0))
    if config.status_port is not None:
        reader = partial(make_worker, "fundops-status-reader")
        token = _token(path, config.status_token)
        status = partial(StatusActor, path, clock, config.status_port, token, nursery=nursery, make_worker=reader)
        specs.append(ChildSpec("status", status, overflow="drop_oldest"))
    return specs


def _delivery(name: str, config: FundConfig, transport: Any) -> Any:
    if name == "log":
        return LogDelivery()
    assert isinstance(config.alert_webhook_url, SecretUrl)
    return WebhookDelivery(config.alert_webhook_url, transport=transport)


def _token(path: Path, configured: str | None) -> str:
    """The stream's token: as configured, or made once and kept beside the database, readable by its owner alone."""
    if configured is not None:
        return configured
    file = path.with_name(path.name + ".token")
    # An empty one is what a crash left behind; taken for a token, it would let everybody listen.
    if not file.exists() or not file.read_text().strip():
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24))
    return file.read_text().strip()


async def _tick_for_ever(fund: Fund, interval_s: float, ticking: trio.CancelScope) -> None:
    """Ticks that were missed are skipped, not piled up."""
    with ticking:
        while True:
            begun = trio.current_time()
            try:
                await fund.tick_now()
            except ActorError as error:
                log.error("tick failed: %s", error)
            await trio.sleep_until(max(begun + interval_s, trio.current_time()))
