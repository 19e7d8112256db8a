"""The bot of docs/embedding.md, as printed: a host on asyncio with everything that fundops does."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvloop

from fundops import FundConfig, RecoverySettings, open_reader

PAGE = Path(__file__).parent.parent.parent / "docs" / "embedding.md"
DEADLINE_S = 60
DAY_S = 0.004


@pytest.fixture
def bot() -> dict[str, Any]:
    """The names of the printed program, which does not run here by itself."""
    [source, *_] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    names: dict[str, Any] = {"__name__": "bot"}
    exec(compile(source, "bot.py", "exec"), names)
    return names


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of alerts on a free port, and the bodies that it got."""
    received: list[dict[str, Any]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            received.append(json.loads(self.rfile.read(length)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/", received
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_printed_bot_is_short() -> None:
    [source, *_] = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    body = source.partition("class Bot:")[2].partition("async def main")[0]
    assert len([line for line in body.splitlines() if line.strip()]) <= 40


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_bot_trades_is_booked_restarted_told_of_and_stopped_from_another_process(
    loop: Callable[[], asyncio.AbstractEventLoop],
    bot: dict[str, Any],
    webhook: tuple[str, list[dict[str, Any]]],
    tmp_path: Path,
) -> None:
    url, received = webhook
    path = tmp_path / "fund.db"
    config = FundConfig(
        total_capital=100_000,
        ledger_enabled=True,
        self_healing_enabled=True,
        db_path=path,
        alert_webhook_url=url,
        tick_interval_s=0.02,
        recovery_every_ticks=1,
        lease_s=5,
        recovery=RecoverySettings(base_cooldown_s=0.02, probation_s=0, max_starts_per_day=None),
    )
    made: list[Any] = []
    kinds = bot["Bot"]

    class Watched(kinds):  # type: ignore[misc,valid-type]
        """Ends its run once the kill switch has stopped it."""

        def __init__(self) -> None:
            super().__init__()
            self.restarts, self.stopped = 0, asyncio.Event()
            made.append(self)

        async def restart(self, name: str, *, attempt_id: str) -> None:
            self.restarts += 1
            await super().restart(name, attempt_id=attempt_id)

        async def stop_all(self, reason: str, action: str, strategies: Sequence[str]) -> Any:
            self.stopped.set()
            return await super().stop_all(reason, action, strategies)

    bot["Bot"] = Watched
    entitled: list[bool] = []

    async def main() -> None:
        async def pulled() -> None:
            await _until(lambda: made and made[0].restarts >= 2 and len(made[0].trades) >= 6)
            engaged = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "fundops", "kill-switch", "engage"),
                *("--reason", "drill", "--by", "ann", "--db", str(path)),
                stdout=subprocess.DEVNULL,
            )
            assert await engaged.wait() == 0
            await made[0].stopped.wait()
            trades = len(made[0].trades)
            await asyncio.sleep(20 * DAY_S)
            entitled.append(len(made[0].trades) > trades + 1)  # one sale may close what is open
            await _until(lambda: any(alert["category"] == "KILL_SWITCH" for alert in received))
            await _until(lambda: _fills_booked(path) == len(made[0].trades))

        running = asyncio.create_task(bot["main"](config, DAY_S))
        await asyncio.wait_for(pulled(), DEADLINE_S)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())
    assert entitled == [False], "it opens nothing under the kill switch"
    assert {alert["category"] for alert in received} >= {"KILL_SWITCH", "STRATEGY_FAILURE"}
    with open_reader(path) as reader:
        assert reader.verify().ok
        assert sum(reader.trial_balance().values()) == 0
        assert sum(lot.quantity for lot in reader.positions()) == made[0].held
        assert reader.nav() == 100_000 + made[0].realized
        row = next(row for row in reader.audit() if row.command == "kill_switch.engage")
    assert (row.by, row.door) == ("ann", "control")


async def _until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  the bot knows no events
        await asyncio.sleep(0.02)


def _fills_booked(path: Path) -> int:
    with open_reader(path) as reader:
        return len(reader.entries(kind="fill", limit=1_000))
