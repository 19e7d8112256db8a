"""Fund: a running fund behind one async front door, on trio.

async with Fund.open(FundConfig(total_capital=100_000, ledger_enabled=True)) as fund:
    await fund.ledger.deposit("2500")
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
from signal import Signals
from typing import Any

import trio

from fundops.actors.alert import told_keys
from fundops.actors.guard import KillLatch, Leases
from fundops.actors.host import Host, Place, checked_controller
from fundops.actors.oversight import ClockWatch
from fundops.actors.oversight.crashes import CrashWatch
from fundops.actors.persistence import Reader
from fundops.actors.status.board import StatusBoard
from fundops.bridge import running_loop
from fundops.config import FundConfig
from fundops.control.policy import keep_policy
from fundops.control.runner import CommandRunner
from fundops.control.server import ControlServer
from fundops.doors import (
    AlertDoor,
    FundDoor,
    KillSwitchDoor,
    LedgerDoor,
    PromotionDoor,
    RecoveryDoor,
)
from fundops.errors import NeedsTrio
from fundops.file import meta
from fundops.file.database import exchange_limits, prepare
from fundops.file.lock import OwnerLock
from fundops.limits import LIMIT, alerts_of, limits_of, loosened
from fundops.reported import Reported
from fundops.runtime import (
    FOREIGN_ERRORS,
    ActorError,
    Clock,
    Crashed,
    Event,
    Ref,
    Supervisor,
    SupervisorEscalated,
    SystemClock,
    ThreadWorker,
    VirtualClock,
    Worker,
    bare_errors,
    open_supervisor,
    run_undisturbed,
    undisturbed,
)
from fundops.signals import signal_on_trio
from fundops.tree import Parts, TreeView, channel_names, fund_tree, status_token
from fundops.wire.alert import AlertDraft, Category, Level
from fundops.wire.controller import CanStopAll, Controller
from fundops.wire.money import from_minor
from fundops.wire.oversight import CrashesHeard
from fundops.wire.stream.listening import HeldPort
from fundops.wire.stream.records import RestartEvent

__all__ = ["Fund", "started_title"]

log = logging.getLogger("fundops")

# Of a crash's error that the stream shows; the log has all of it.
CRASH_TEXT_MAX = 500
# Without a handler the logging module would print warnings to the stderr of a host that configured
# no logging.
log.addHandler(logging.NullHandler())


class Fund(FundDoor):
    """A running fund, made by `Fund.open`.

    Its parts are `ledger`, `promotion`, `alerts`, `recovery` and `kill_switch`.
    """

    def __init__(
        self,
        config: FundConfig,
        supervisor: Supervisor,
        host: Host,
        leases: Leases,
        clock: Clock,
        reported: Reported,
        make_worker: Callable[[str], Worker],
        spawn: Callable[..., None],
    ) -> None:
        def ref(name: str, *, enabled: bool) -> Ref | None:
            return supervisor.ref(name) if enabled else None

        ledger = LedgerDoor(
            ref("ledger", enabled=config.ledger_enabled),
            clock.now_us,
            config.path,
            make_worker,
            ref("oversight", enabled=config.charges_fees),
        )
        super().__init__(
            config, supervisor, host, leases, clock, reported, ledger, channel_names(config)
        )
        self.status_token = status_token(config)
        self.kill_switch = KillSwitchDoor(
            supervisor.ref("guard"), supervisor.ref("oversight"), leases.latch
        )
        self.promotion = PromotionDoor(ref("promotion", enabled=config.promotion_enabled))
        self.alerts = AlertDoor(
            ref("alert", enabled=config.alerts_enabled),
            {name: supervisor.ref(f"channel.{name}") for name in channel_names(config)},
            clock.now_us,
        )
        self.recovery = RecoveryDoor(ref("recovery", enabled=config.self_healing_enabled), host)
        # Runs the commands of other processes, and audits the calls of this one.
        self.commands = CommandRunner(
            {
                "fund": self,
                "ledger": self.ledger,
                "promotion": self.promotion,
                "alerts": self.alerts,
                "recovery": self.recovery,
                "kill_switch": self.kill_switch,
            },
            supervisor.ref("persistence"),
            clock.now_us,
            spawn,
        )
        self.commands.sign()

    @staticmethod
    def open(
        config: FundConfig,
        controller: Controller | None = None,
        *,
        clock: Clock | None = None,
        transport: Any = None,
        make_worker: Callable[[str], Worker] = ThreadWorker,
        seed: int | None = None,
        place: Place | None = None,
        on_fund_lost: Callable[[SupervisorEscalated], None] | None = None,
    ) -> AbstractAsyncContextManager[Fund]:
        """Start a fund, and stop it in order when the block is left.

        Without a `controller` the host pushes its state with `report`. `clock` drives every
        schedule of the domain, `transport` replaces the network of webhooks, `make_worker` the
        threads that use the database, and `seed` makes the uuid of a new database repeatable.
        `place` is where the controller is called, for doors of other hosts; None: on this loop.
        `on_fund_lost` is called on this loop when the fund ends because its actors could not be
        kept alive: by then every lease has ended.

        Raises: `NeedsTrio` outside a trio run; `ConfigError`, `DatabaseInUse`, `DatabaseError`;
        `PolicyError` naming a strategy whose stage the ladder lacks; `SupervisorEscalated` out of
        the block when an actor cannot be kept alive.
        """
        return _open(
            config,
            controller,
            clock or SystemClock(),
            transport,
            make_worker,
            seed,
            place,
            on_fund_lost,
        )

    async def run_until_signal(self) -> Signals:
        """The first SIGTERM or SIGINT; leave the block then, which stops the fund in order.

        A second signal ends the program at once. To be awaited in the main thread.
        """
        return await signal_on_trio()


@asynccontextmanager
async def _open(
    config: FundConfig,
    controller: Controller | None,
    clock: Clock,
    transport: Any,
    make_worker: Callable[[str], Worker],
    seed: int | None,
    place: Place | None,
    on_fund_lost: Callable[[SupervisorEscalated], None] | None,
) -> AsyncIterator[Fund]:
    _check_runs_on_trio()
    if controller is not None:
        checked_controller(controller)
    config = FundConfig.checked(config)
    reported, leases = Reported(clock), Leases(clock, KillLatch())
    with OwnerLock(config.path) as lock:
        uuid, drafts = _prepared(config, lock, clock, seed)
        _warn(config, controller, clock)
        with bare_errors(), _status_port(config) as port, _telling(on_fund_lost):
            async with trio.open_nursery() as nursery:
                host = _host(config, controller, nursery, clock, leases, reported, uuid, place)
                parts = Parts(
                    config,
                    config.path,
                    clock,
                    host,
                    leases,
                    TreeView(),
                    transport,
                    make_worker,
                    nursery,
                    CrashWatch(drafts),
                    StatusBoard(),
                    port,
                    ClockWatch(clock),
                )
                async with _running(parts, reported, uuid) as fund:
                    yield fund
                nursery.cancel_scope.cancel()


def _prepared(
    config: FundConfig, lock: OwnerLock, clock: Clock, seed: int | None
) -> tuple[str, list[AlertDraft]]:
    """The uuid of the fund's file, ready for it, and the alerts of this start."""
    path = config.path
    identity = meta.identity(config.name, config.currency, config.capital_minor)
    rules = config.ledger_rules() if config.ledger_enabled else None
    uuid = prepare(path, identity, rules=rules, seed=seed)
    lock.claim_file()
    log.info("fund %s: database %s, uuid %s", config.name, path, uuid)
    if config.promotion_enabled:
        keep_policy(path, config.promotion_rules(), clock, "process")
    limits = limits_of(config)
    looser = loosened(exchange_limits(path, limits), limits)
    for limit in looser:
        log.warning("limit %s was loosened from %s to %s", *limit)
    with Reader(path) as reader:
        return uuid, [*alerts_of(looser, told_keys(reader, LIMIT)), _started(config)]


def _warn(config: FundConfig, controller: Controller | None, clock: Clock) -> None:
    """Log the settings that a person may not have meant."""
    is_real = controller is not None and isinstance(clock, SystemClock)
    if config.promotion_policy == "literal" and is_real:
        log.warning(
            "promotion_policy='literal' with a real controller: strategies get more real money"
            " without a person's word"
        )
    for setting in config.tight_limits:
        log.warning(
            "%s is %g%%: less than a day's noise may stop trading",
            setting,
            getattr(config, setting),
        )


def _host(
    config: FundConfig,
    controller: Controller | None,
    nursery: trio.Nursery,
    clock: Clock,
    leases: Leases,
    reported: Reported,
    uuid: str,
    place: Place | None,
) -> Host:
    """The port to the engine; its missing parts are logged."""
    host = Host(
        controller,
        nursery,
        clock=clock,
        latch=leases.latch,
        pushed=reported,
        host_silent_s=config.host_silent_s,
        max_blind_s=config.max_blind_s,
        tick_interval_s=config.tick_interval_s,
        restart_deadline_s=config.recovery.restart_deadline_s,
        origin=uuid,
        place=place,
        observing=config.mode == "observe",
        stale_feed_s=config.stale_feed_s,
        # In virtual time the loop may stand still between two steps.
        watch_loop=not isinstance(clock, VirtualClock),
    )
    if controller is not None and not host.can(CanStopAll):
        log.warning(
            "the controller has no stop_all: only fund.report_stopped can confirm the kill switch"
        )
    if host.missing():
        log.info("the controller lacks %s; what needs them is off", ", ".join(host.missing()))
    return host


@asynccontextmanager
async def _running(parts: Parts, reported: Reported, uuid: str) -> AsyncIterator[Fund]:
    """The fund while its actors run; at the end the leases end first."""
    config, host, leases, nursery = parts.config, parts.host, parts.leases, parts.nursery

    def spawn(function: Callable[..., Any], *arguments: Any) -> None:
        nursery.start_soon(run_undisturbed, function, *arguments)

    async with open_supervisor(
        fund_tree(parts), strategy="rest_for_one", name=config.name
    ) as supervisor:
        parts.view.supervisor = supervisor
        _tell_crashes(supervisor, parts.crashes, parts.board, parts.clock)
        if parts.port is not None:
            parts.board.status = supervisor.ref("status")
        fund = Fund(
            config, supervisor, host, leases, parts.clock, reported, parts.make_worker, spawn
        )
        if config.ledger_enabled:
            await fund.ledger.deposit(
                from_minor(config.capital_minor), key="opening", memo="total capital"
            )
        control = ControlServer(uuid, config.path, fund.commands)
        if config.control_socket:
            await nursery.start(control.serve)
        ticking = trio.CancelScope()
        if config.tick_interval_s is not None:
            nursery.start_soon(_keep_ticking, fund, config.tick_interval_s, ticking)
        try:
            yield fund
        finally:
            leases.end_all()
            ticking.cancel()
            await control.close()
            await fund.commands.finish()
            await host.stopping.finish()


def _started(config: FundConfig) -> AlertDraft:
    """That the fund has started; it leaves with the first tick, so the fund runs by then.

    It has no key: nothing ends it, and an open key would hide the next start.
    """
    switches = ("ledger", "promotion", "self_healing")
    on = [name.replace("_", "-") for name in switches if getattr(config, f"{name}_enabled")]
    text = f"mode {config.mode}, with {', '.join(on) or 'no subsystem'}"
    return AlertDraft(Level.INFO, Category.GENERAL, started_title(config.name), text)


def started_title(name: str) -> str:
    """The title of the alert that a fund has started."""
    return f"Fund {name} has started"


@contextmanager
def _telling(on_fund_lost: Callable[[SupervisorEscalated], None] | None) -> Iterator[None]:
    """Tell the host that the root supervisor gave up."""
    try:
        yield
    except BaseException as error:
        lost = error
        while isinstance(lost, BaseExceptionGroup) and len(lost.exceptions) == 1:
            lost = lost.exceptions[0]
        if isinstance(lost, SupervisorEscalated) and on_fund_lost is not None:
            try:
                on_fund_lost(lost)
            except FOREIGN_ERRORS:  # the host still gets the fund's error
                log.exception("on_fund_lost raised")
        raise


def _check_runs_on_trio() -> None:
    """Raises: `NeedsTrio`, before anything was started or a file was made."""
    loop = running_loop()
    if loop == "trio":
        return
    if loop == "asyncio":
        raise NeedsTrio(
            "Fund.open needs trio, and this is asyncio; AsyncioFund.open has the same names"
        )
    raise NeedsTrio(
        "Fund.open needs a trio run, and there is none; FundManager needs no event loop"
    )


@contextmanager
def _status_port(config: FundConfig) -> Iterator[HeldPort | None]:
    """The port of the status stream, held until the fund has stopped; None without a stream."""
    if config.status_port is None:
        yield None
        return
    port = HeldPort(config.status_port, config.status_host)
    try:
        # A port that is taken does not stop the fund; the status actor tries it again.
        with suppress(OSError):
            port.take()
        yield port
    finally:
        port.close()


def _tell_crashes(
    supervisor: Supervisor, crashes: CrashWatch, board: StatusBoard, clock: Clock
) -> None:
    """Let oversight tell the crashes of actors; at its tick, if its queue is full."""
    oversight = supervisor.ref("oversight")

    def hear(event: Event) -> None:
        if isinstance(event, Crashed):
            error = event.error[:CRASH_TEXT_MAX]
            board.crashed(RestartEvent(event.name, event.epoch, error, clock.now_us()))
        if crashes.hear(event):
            with suppress(ActorError):
                oversight.tell_nowait(CrashesHeard())

    supervisor.events.subscribe(hear)


@undisturbed
async def _keep_ticking(fund: Fund, interval_s: float, ticking: trio.CancelScope) -> None:
    """Tick at each interval; ticks that were missed are skipped, so they never pile up."""
    with ticking:
        while True:
            begun = trio.current_time()
            try:
                await fund.tick()
            except ActorError as error:
                log.error("tick failed: %s", error)
            await trio.sleep_until(max(begun + interval_s, trio.current_time()))
