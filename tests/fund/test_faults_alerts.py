"""Alerts in a whole fund: heard in the end, and by no stranger's leave."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
import trio
from trio.testing import MockClock

from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.runtime import InlineWorker
from fundops.testing import FakeController, VirtualFund, virtual_fund
from fundops.wire.alert import AlertOutcome, Level
from fundops.wire.controller import StrategyStatus
from fundops.wire.errors import AlertRefused

WEBHOOK = "https://hooks.example.com/x"


class Hook:
    """The network of webhooks: keeps each request, and answers as told."""

    def __init__(self, status: int = 200, text: str = "ok") -> None:
        self.requests: list[httpx2.Request] = []
        self._status, self._text = status, text
        self.transport = httpx2.MockTransport(self._take)

    def _take(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return httpx2.Response(self._status, text=self._text)

    @property
    def ids(self) -> list[str]:
        return [request.headers["webhook-id"] for request in self.requests]


async def ticks(world: VirtualFund, count: int, seconds: float = 1) -> None:
    for _ in range(count):
        world.clock.advance(seconds)
        await world.tick()


async def test_fifty_failures_at_once_are_all_heard_and_the_summary_names_some() -> None:
    names = [f"s{number:02}" for number in range(50)]
    controller = FakeController(*(StrategyStatus(name, "running") for name in names))
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        for name in names:
            controller.set(name, state="failed", retryable=False)
        await ticks(world, 15, 60)
        heard = [alert for alert in world.sent_alerts() if alert.level is Level.CRITICAL]
        assert {alert.strategy for alert in heard} == set(names)
        [summary] = [
            alert for alert in world.sent_alerts() if alert.title == "45 RECOVERY suppressed"
        ]
        assert "45 CRITICAL" in summary.message
        assert "s05: given up, breaker open; s06: " in summary.message


async def test_an_alert_that_waits_for_room_is_heard_without_a_tick(
    autojump_clock: MockClock,
) -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        for number in range(7):
            await world.fund.alerts.send(
                "WARNING", "GENERAL", f"{number}", "m", dedup_key=f"{number}"
            )
        world.clock.advance(60)
        await trio.sleep(61)
        heard = [alert.title for alert in world.sent_alerts()]
        assert heard == ["0", "1", "2", "3", "4", "2 GENERAL suppressed", "5", "6"]


@pytest.mark.parametrize("drills", [1, 20])
async def test_a_callers_key_never_silences_the_kill_switch(drills: int) -> None:
    controller = FakeController(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        await ticks(world, 1)
        for _ in range(drills):
            sent = await world.fund.alerts.send(
                "CRITICAL", "KILL_SWITCH", "drill", "m", dedup_key="kill" if drills == 1 else None
            )
        assert drills > 1 or sent.outcome is AlertOutcome.NO_CHANNEL
        await world.fund.kill_switch.engage(reason="margin call", by="me")
        await ticks(world, 1)
        [killed] = [
            alert
            for alert in world.sent_alerts()
            if alert.title.startswith("Kill switch activated")
        ]
        assert killed.level is Level.CRITICAL


async def test_a_callers_key_never_silences_the_guards_kill() -> None:
    controller = FakeController(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(controller, self_healing_enabled=True) as world:
        await ticks(world, 1)
        for key in ("kill", "drawdown:fund"):
            await world.fund.alerts.send("CRITICAL", "KILL_SWITCH", "drill", "m", dedup_key=key)
        controller.set("s", realized_pnl=-20_000)
        await ticks(world, 2)
        titles = [alert.title for alert in world.sent_alerts()]
        assert titles.count("Kill switch activated") == 1
        assert titles.count("Fund approaches its drawdown limit") == 1


async def test_a_callers_key_is_still_one_key() -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        outcomes = [
            (await world.fund.alerts.send("INFO", "GENERAL", "t", "m", dedup_key="k")).outcome
            for _ in range(2)
        ]
        assert outcomes == [AlertOutcome.NO_CHANNEL, AlertOutcome.DEDUPED]


async def test_two_funds_with_one_webhook_never_send_the_same_id(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    hook = Hook()
    for number in range(2):
        config = FundConfig(
            total_capital=1,
            db_path=tmp_path / f"{number}.db",
            tick_interval_s=None,
            control_socket=False,
            alert_webhook_url=WEBHOOK,
        )
        async with Fund.open(
            config,
            FakeController(),
            transport=hook.transport,
            make_worker=lambda name: InlineWorker(),
        ) as fund:
            await fund.alerts.send("CRITICAL", "GENERAL", "t", "m")
            assert await fund.flush_alerts(10)
            await fund.alerts.test()
    assert len(hook.ids) == len(set(hook.ids)) == 4


async def test_a_webhook_of_slack_gets_a_text(autojump_clock: MockClock) -> None:
    hook = Hook()
    slack = "https://hooks.slack.com/services/T/B/X"
    async with virtual_fund(transport=hook.transport, alert_webhook_url=slack) as world:
        await world.fund.alerts.send("CRITICAL", "GENERAL", "title", "message")
        assert await world.fund.flush_alerts(10)
    body = json.loads(hook.requests[0].content)
    assert set(body) == {"level", "category", "title", "message", "timestamp", "text"}
    assert body["text"] == "CRITICAL GENERAL: title\nmessage"


async def test_a_strategy_that_fails_without_self_healing_is_told() -> None:
    controller = FakeController(StrategyStatus("s", "running", equity=1000, allocated=1000))
    async with virtual_fund(controller, ledger_enabled=True) as world:
        await ticks(world, 2)
        controller.set("s", state="failed", error="boom")
        await ticks(world, 3)
        controller.set("s", state="running", error=None)
        await ticks(world, 2)
        told = [(one.title, one.category.value) for one in world.sent_alerts() if one.strategy]
        assert told == [("s: failed", "STRATEGY_FAILURE"), ("s: running again", "STRATEGY_FAILURE")]


@pytest.mark.parametrize(("status", "error"), [(200, None), (410, "HTTP 410")])
async def test_a_test_alert_says_what_became_of_it_in_each_channel(
    status: int, error: str | None, autojump_clock: MockClock
) -> None:
    hook = Hook(status)
    async with virtual_fund(
        transport=hook.transport, alert_webhook_url=WEBHOOK, alert_log=True
    ) as world:
        found = await world.fund.alerts.test()
        assert [(one.channel, one.delivered, one.error) for one in found] == [
            ("webhook", error is None, error),
            ("log", True, None),
        ]
        assert world.sent_alerts() == []
        await world.fund.alerts.test()
    assert json.loads(hook.requests[0].content)["title"] == "Test alert"
    assert len(set(hook.ids)) == 2


async def test_a_hanging_channel_fails_its_test_and_no_other(autojump_clock: MockClock) -> None:
    class Hanging(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            await trio.sleep_forever()
            raise AssertionError

    async with virtual_fund(
        transport=Hanging(), alert_webhook_url=WEBHOOK, alert_log=True
    ) as world:
        found = await world.fund.alerts.test()
        assert [(one.channel, one.delivered) for one in found] == [
            ("webhook", False),
            ("log", True),
        ]
        assert found[0].error == "TooSlowError: not done within 10 s"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("level", ("CRIT", "GENERAL")),
        ("level", (5, "GENERAL")),
        ("category", ("INFO", "DRAWDOWNS")),
        ("category", ("INFO", None)),
    ],
)
async def test_an_unknown_word_of_a_callers_alert_is_refused_by_name(
    field: str, words: tuple[Any, Any]
) -> None:
    async with virtual_fund(ledger_enabled=True) as world:
        with pytest.raises(AlertRefused, match="is not one of") as refusal:
            await world.fund.alerts.send(*words, "t", "m")
        assert refusal.value.field == field
