"""The page as a fund serves it: its own server, policy, token and stream, in a real browser."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fundops import FundConfig, FundManager, StrategyStatus
from fundops.testing import FakeController

if TYPE_CHECKING:
    from playwright.sync_api import Browser

TOKEN = "of/a+fund"
DEADLINE_MS = 60_000
STAGES = ("paper", "shadow", "live-small", "live-scaled")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., FundConfig]:
    """A configuration that serves the page."""

    def made(**more: Any) -> FundConfig:
        return FundConfig(
            name="north",
            currency="EUR",
            total_capital=1_000_000,
            db_path=tmp_path / "north.db",
            status_port=_free_port(),
            status_token=TOKEN,
            control_socket=False,
            **more,
        )

    return made


def test_a_fund_serves_its_page_from_its_first_second_to_the_kill_switch(
    browser: Browser, config: Callable[..., FundConfig]
) -> None:
    # The host calls the ticks, and calls two: whatever comes after it needs none.
    settings = config(ledger_enabled=True, promotion_enabled=True, tick_interval_s=None)
    engine = FakeController(StrategyStatus("swing", "running", equity=5_000, allocated=4_000))
    # The functions that the test waits for are evaluated in the page, which its policy refuses.
    context = browser.new_context(bypass_csp=True)
    context.set_default_timeout(DEADLINE_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    url = f"http://127.0.0.1:{settings.status_port}/"
    # Playwright runs an event loop in this thread, and a FundManager warns of calls from one.
    with FundManager(settings, engine) as fund, ThreadPoolExecutor(1) as thread:
        page.goto(f"{url}#token=of%2Fa%2Bfund")
        thread.submit(fund.tick).result()
        thread.submit(fund.tick).result()  # the engine's answer may come after the first one
        page.wait_for_selector(".st >> text=swing")
        assert page.url == url
        assert page.inner_text("#fund") == "north"
        assert page.inner_text("#cur") == "EUR"
        thread.submit(fund.ledger.deposit, 1_000_000).result()
        page.wait_for_function("document.querySelector('#jn').textContent === '2 entries'")
        thread.submit(fund.kill_switch.engage, reason="a <b>drill</b>", by="ann").result()
        page.wait_for_function("document.body.classList.contains('kill')")
        page.wait_for_function("document.querySelector('#mode').textContent.endsWith('by ann')")
        assert "a <b>drill</b>" in page.inner_text("#att li >> nth=0")
        thread.submit(fund.kill_switch.release, by="ann", reason="it was a drill").result()
        page.wait_for_function("!document.body.classList.contains('kill')")
    page.wait_for_function("document.body.dataset.s === 'off'")
    context.close()
    assert [error for error in errors if "WebSocket connection to" not in error] == []


def test_the_page_of_a_fund_obeys_its_policy(
    browser: Browser, config: Callable[..., FundConfig]
) -> None:
    settings = config()
    context = browser.new_context()
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text))
    with FundManager(settings):
        page.goto(f"http://127.0.0.1:{settings.status_port}/#token=of%2Fa%2Bfund")
        page.locator("h1 >> text=Ready for the first strategy").wait_for()
        page.keyboard.press("t")
        page.wait_for_timeout(100)
        context.close()
    assert errors == []


def test_the_page_shows_the_whole_demo_while_it_runs(browser: Browser) -> None:
    sessions = 60
    demo = [sys.executable, "-m", "fundops", "demo", "--hold", "--json", "--port", "0"]
    with subprocess.Popen(
        [*demo, "--sessions", str(sessions)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            url = process.stderr.readline().split()[-1]
            context = browser.new_context(bypass_csp=True)
            context.set_default_timeout(DEADLINE_MS)
            page = context.new_page()
            page.goto(url)
            page.wait_for_function("document.body.dataset.s === 'live'")
            days: set[str] = set()
            ended = ThreadPoolExecutor(1).submit(process.stdout.readline)
            while not ended.done():
                days.add(page.inner_text("#clock")[:10])
                assert page.inner_text("#replay") == "replay"
                assert not page.locator("#banner").is_visible()
                told = page.inner_text("#att")
                assert "silent" not in told
                assert "sp500" not in told, "it always has data"
                page.wait_for_timeout(100)
            report = json.loads(ended.result())
            nav = f"{Decimal(report['nav']):,.2f}"
            page.wait_for_function(
                "([nav, entries]) => document.querySelector('#navf').textContent === nav"
                " && document.querySelector('#jn').textContent === entries",
                arg=[nav, f"{report['entries']:,} entries"],
            )
            assert len(days) > 1, "its time went on"
            stages = Counter(strategy["stage"] for strategy in report["strategies"])
            for stage in STAGES:
                count = page.locator(f".col[data-k={stage}] .ch span").first
                assert count.inner_text() == str(stages[stage])
            assert "broken stays down" in page.inner_text("#att")
            # Sessions of a replay may be shorter than a second; the chart has them all in the end.
            newest = f"document.querySelector('#plot').ariaValueMax === '{sessions - 1}'"
            page.wait_for_function(newest)
            gaps = [page.inner_text(panel) for panel in ("#jg", "#an")]
            assert not any("not shown" in text for text in gaps), gaps
            context.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE_MS / 1_000) == 0
        finally:
            process.kill()
