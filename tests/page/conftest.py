"""A fund on a stage: an HTTP and websocket server that plays the script of a test to the page.

The figures are recorded ones of the demo, with a strategy that waits for a person. The server
speaks the protocol in its own words, so that a fault in `wire/stream` does not hide one here.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

from fundops import page

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FIGURES = json.loads(Path(__file__).with_name("figures.json").read_text())
SUBPROTOCOL = Subprotocol("fund.status.v1+json")
DURABLE = ("alerts", "journal", "promotions", "recovery_events")
BEAT_S = 0.5
AXE = "axe-core@4.11.0"


def policy(html: bytes) -> str:
    """The content security policy of the fund: only the page's own script and style, by hash."""

    def hashed(tag: str) -> str:
        found = re.findall(rf"<{tag}>(.*?)</{tag}>".encode(), html, re.DOTALL)
        return " ".join(
            f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in found
        )

    return (
        f"default-src 'none'; connect-src 'self'; script-src {hashed('script')}; "
        f"style-src {hashed('style')}; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _lean(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as the protocol has it: a field without a value is left out."""
    return {field: value for field, value in record.items() if value is not None}


def _event(topic: str, event: Mapping[str, Any]) -> dict[str, Any]:
    """The message about a recorded event, whose number stands beside its data."""
    data = {field: value for field, value in event.items() if field != "seq"}
    return {"t": "event", "topic": topic, "seq": event["seq"], "data": data}


class Stage:
    """One fund: its states and events, and the connections that follow them."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.heard: list[dict[str, Any]] = []  # every message of every client
        self.requests: list[str] = []  # paths, in order
        self._lock = threading.RLock()
        self._ended = threading.Event()
        self.reset()
        self._server = serve(
            self._serve,
            "127.0.0.1",
            0,
            process_request=self._answer,
            subprotocols=[SUBPROTOCOL],
            compression=None,
        )
        self.port: int = self._server.socket.getsockname()[1]
        self._threads = [
            threading.Thread(target=run) for run in (self._server.serve_forever, self._beat)
        ]
        for thread in self._threads:
            thread.start()

    def reset(self) -> None:
        """The recorded fund; the connections are cut."""
        with self._lock:
            self.states: dict[str, dict[str, Any]] = copy.deepcopy(FIGURES["states"])
            self.events: dict[str, list[dict[str, Any]]] = copy.deepcopy(FIGURES["events"])
            self.series: dict[str, list[Any]] = copy.deepcopy(FIGURES["series"])
            self.epoch: str = FIGURES["epoch"]
            self.now_us: int = FIGURES["now_us"]
            self.tick_age_s: float | None = 0.4
            self.token = ""  # "": every client may listen
            self.silent = False  # connections are taken, and never answered
            self.open = True  # False: connections are refused
            self.heard.clear()
            self.requests.clear()
        self.cut()

    def close(self) -> None:
        """End the server and its threads."""
        self._ended.set()
        self._server.shutdown()
        self.cut()
        for thread in self._threads:
            thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    # -- what a test has the fund say

    def empty(self) -> None:
        """A fund that runs and has no strategy yet."""
        for topic in ("strategies", "promotion", "recovery", "feeds", "attention", "balances"):
            self.states[topic] = {}
        self.events = {topic: [] for topic in DURABLE}
        self.series = {column: [] for column in self.series}
        fund = self.states["fund"]
        fund |= {"nav": fund["total_capital"], "nav_open": None, "drawdown_pct": 0.0}
        fund |= {"total_fees": "0", "headroom": "180000", "breakers_open": 0}
        self.states["channels"]["webhook"]["delivered"] = 0

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a message to all clients, also to one that is being welcomed."""
        text = json.dumps(message)
        with self._lock:
            for connection in list(self.connections):
                with suppress(ConnectionClosed):
                    connection.send(text)

    def show(self, topic: str, key: str, value: Any) -> None:
        """A state has a new value; None removes it."""
        value = _lean(value) if isinstance(value, dict) else value
        with self._lock:
            if value is None:
                self.states[topic].pop(key, None)
            else:
                self.states[topic][key] = value
            self.say({"t": "delta", "topic": topic, "seq": 1, "key": key, "value": value})

    def patch(self, topic: str, key: str, value: Mapping[str, Any]) -> None:
        """Fields of a record have new values."""
        with self._lock:
            self.states[topic][key] = _lean({**self.states[topic][key], **value})
            self.say({"t": "patch", "topic": topic, "seq": 1, "key": key, "value": value})

    def happen(self, topic: str, **data: Any) -> int:
        """An event; it has the next seq of its topic."""
        with self._lock:
            events = self.events.setdefault(topic, [])
            seq = int(events[-1]["seq"]) + 1 if events else 1
            events.append({**_lean(data), "seq": seq})
            self.say(_event(topic, events[-1]))
        return seq

    def engage(self, state: str = "ENGAGED", **more: Any) -> None:
        """The kill switch acts: drawdown 15.02 %."""
        now = self.now_us - 8 * 60_000_000
        reason = "drawdown 15.02 % reached 15 %"
        record = {"state": state, "reason": reason, "by": "guard", "at_us": now, "problem": ""}
        self.show("fund", "kill", {**record, "open_orders": None, "open_positions": None, **more})
        fund = {"nav": "1019760.11", "drawdown_pct": 15.02, "headroom": "0.00"}
        for field, value in fund.items():
            self.show("fund", field, value)
        self.happen("nav", at_us=self.now_us, nav="1019760.11", drawdown_pct=15.02)
        attention = {
            "level": "CRITICAL",
            "title": f"Kill switch {state.lower()}",
            "why": f"{reason}. Strategies with real money are stopped; only a person releases it.",
            "command": 'fundops kill-switch release --reason "…"',
            "since_us": now,
            "strategy": None,
        }
        self.show("attention", "kill_switch", attention)
        for name, strategy in self.states["strategies"].items():
            if strategy["real"]:
                self.patch("strategies", name, {"state": "stopped"})

    def cut(self) -> None:
        """The network breaks all connections."""
        with self._lock:
            for connection in self.connections:
                with suppress(OSError):
                    connection.socket.shutdown(2)
            self.connections.clear()

    # -- the server

    def _answer(self, connection: ServerConnection, request: Request) -> Response | None:
        self.requests.append(request.path)
        if request.path == "/ws":
            return None if self.open else connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")
        if request.path != "/":
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        html = page.html()
        headers = Headers(
            {
                "Content-Type": "text/html; charset=utf-8",
                "Content-Length": str(len(html)),
                "Content-Security-Policy": policy(html),
                "Cache-Control": "no-store",
                "Connection": "close",
            }
        )
        return Response(200, "OK", headers, html)

    def _serve(self, connection: ServerConnection) -> None:
        with suppress(ConnectionClosed, OSError):
            for text in connection:
                message = json.loads(text)
                self.heard.append(message)
                if not self.silent and not self._reply(connection, message):
                    return

    def _reply(self, connection: ServerConnection, message: Mapping[str, Any]) -> bool:
        def send(**fields: Any) -> None:
            connection.send(json.dumps(fields))

        with self._lock:
            match message["t"]:
                case "hello" if self.token and message.get("token") != self.token:
                    connection.close(4401, "wrong token")
                    return False
                case "hello":
                    topics = [*self.states, *self.events]
                    send(
                        t="welcome",
                        protocol="fund.status.v1",
                        epoch=self.epoch,
                        server_time_us=self.now_us,
                        topics=topics,
                    )
                    for topic, state in self.states.items():
                        send(t="snapshot", topic=topic, seq=1, state=state)
                    self._recall(connection, message)
                    self._beat_once(connection)
                    self.connections.append(connection)
                case "sub":
                    for name in message.get("keys", {}).get("promotion", ()):
                        full = {
                            **self.states["promotion"].get(name, {}),
                            **FIGURES["full"].get(name, {}),
                        }
                        send(t="delta", topic="promotion", seq=1, key=name, value=full)
                case "get":
                    days = re.match(r"\d+", message["range"])
                    first = 0
                    if days and self.series["at_us"]:
                        since = self.series["at_us"][-1] - int(days[0]) * 86_400_000_000
                        first = sum(at < since for at in self.series["at_us"])
                    columns = {name: values[first:] for name, values in self.series.items()}
                    send(t="series", series="nav", range=message["range"], **columns)
                case _:
                    pass
        return True

    def _recall(self, connection: ServerConnection, hello: Mapping[str, Any]) -> None:
        """The newest events, or those after the last one that the client has seen."""
        since = hello.get("since", {}) if hello.get("epoch") == self.epoch else {}
        for topic, events in self.events.items():
            after = since.get(topic)
            kept = events[-int(hello["backlog"]) :]
            if after is not None and topic in DURABLE:
                kept = [event for event in events if event["seq"] > after]
                resumed = {"t": "resumed", "topic": topic, "from": after + 1, "seq": after}
                connection.send(json.dumps(resumed))
            for event in kept:
                connection.send(json.dumps(_event(topic, event)))

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            for connection in list(self.connections):
                with suppress(ConnectionClosed, OSError):
                    self._beat_once(connection)

    def _beat_once(self, connection: ServerConnection) -> None:
        beat = {"t": "heartbeat", "server_time_us": self.now_us, "wall_us": self.now_us}
        connection.send(json.dumps({**beat, "tick_age_s": self.tick_age_s}))


@pytest.fixture(scope="module")
def _stage() -> Iterator[Stage]:
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture
def stage(_stage: Stage) -> Stage:
    """The recorded fund, as it was at first."""
    _stage.reset()
    return _stage


def _chromium() -> str | None:
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((path for path in map(shutil.which, names) if path), None)


# Not for the session: Playwright keeps an event loop in this thread, which a FundManager warns of.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One Chromium for all tests of a module."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = _chromium()
    if path is None:
        pytest.skip("no chromium in PATH")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="session")
def axe() -> str:
    """The script of axe-core, from npm; it is fetched once and stays in a temporary folder."""
    folder = Path(tempfile.gettempdir()) / f"fundops-{AXE}"
    script = folder / "package" / "axe.min.js"
    if not script.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("axe-core needs npm, which is not in PATH")
        folder.mkdir(exist_ok=True)
        # Each process fetches into another folder, as several may do so at once.
        with tempfile.TemporaryDirectory(dir=folder) as own:
            fetched = subprocess.run(
                [npm, "pack", "--silent", AXE], cwd=own, capture_output=True, timeout=60
            )
            packed = next(Path(own).glob("*.tgz"), None)
            if fetched.returncode or packed is None:
                pytest.skip("npm cannot fetch axe-core")
            with tarfile.open(packed) as archive:
                archive.extract("package/axe.min.js", own, filter="data")
            script.parent.mkdir(exist_ok=True)
            (Path(own) / "package" / "axe.min.js").replace(script)
    return script.read_text()


class Seen:
    """A page in the browser, and the errors that its console has shown."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._note)
        self._url = url

    def _note(self, message: Any) -> None:
        # A refused connection is logged by the browser itself, and no script can prevent it.
        if message.type == "error" and "WebSocket connection to" not in message.text:
            self.errors.append(message.text)

    def open(self, fragment: str = "") -> Page:
        """Load the page, without waiting for the fund."""
        self.page.goto(self._url + fragment)
        return self.page

    def live(self) -> Page:
        """Load the page, and wait until it shows the fund."""
        page = self.open()
        page.wait_for_function("document.body.dataset.s === 'live'")
        page.wait_for_function("document.querySelector('#foot').textContent.includes('epoch')")
        return page


@pytest.fixture
def seen(browser: Browser, stage: Stage) -> Iterator[Seen]:
    """A page at 1440 x 1000. The test fails when its console shows an error."""
    context = browser.new_context(
        bypass_csp=True, viewport={"width": 1440, "height": 1000}, reduced_motion="reduce"
    )
    context.set_default_timeout(10_000)
    seen = Seen(context.new_page(), stage.url)
    yield seen
    context.close()
    assert seen.errors == []
