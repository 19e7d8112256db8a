"""The status page in a real browser, played by a scripted fund: every state in both themes at four
widths, the keyboard, hostile names, exact money, and connections that break.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from fundops import page as status_page
from fundops.wire.stream import records

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.page.conftest import Seen, Stage

WIDTHS = (1440, 900, 390, 320)
THEMES = ("dark", "light")
# The conformance levels of WCAG 2.2 AA, and what axe calls best practice.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# The panels and dialogs whose content is wider than they are, so that a figure may be cut.
CUT = """[...document.querySelectorAll('.panel, .tw, .nav, .bk, .att, dialog[open]')]
    .filter(box => box.scrollWidth > box.clientWidth).map(box => box.id || box.className)"""
PAGE_BYTES_MAX = 90 * 1024
NAME = "session_below_w5"
SVG = "http://www.w3.org/2000/svg"


def _quiet(stage: Stage) -> None:
    stage.states["attention"] = {}


def _stale(stage: Stage) -> None:
    stage.tick_age_s = 41.0


def _silent(stage: Stage) -> None:
    stage.silent = True


def _empty(stage: Stage) -> None:
    stage.empty()


def _replay(stage: Stage) -> None:
    stage.states["fund"]["clock"] = "driven"


def _replay_ended(stage: Stage) -> None:
    stage.states["fund"] |= {"clock": "driven", "running": False}
    stage.tick_age_s = 300.0


def _wrong_token(stage: Stage) -> None:
    stage.token = "right"


def _kill(state: str) -> Callable[[Stage], None]:
    return lambda stage: stage.engage(state)


def _cut_off(stage: Stage) -> None:
    stage.open = False
    stage.cut()


def _busy(stage: Stage) -> None:
    """Everything that can be wrong at once, but for the kill switch."""
    for number in range(7):
        record: dict[str, Any] = {
            "level": "WARNING",
            "title": f"thing {number}",
            "why": "why",
            "command": "true",
        }
        stage.states["attention"][f"x{number}"] = {**record, "since_us": None, "strategy": None}
    names = list(stage.states["strategies"])
    now = stage.now_us
    recovery: dict[str, Any] = {"attempts": 1, "max": 3, "reason": "x", "episode": 2}
    recovery |= {"since_us": now - 90_000_000, "breaker_open": False, "held_by": None}
    for name, phase in zip(names, ("COOLDOWN", "RESTARTING", "PROBATION", "HELD"), strict=False):
        record = {**recovery, "phase": phase, "due_us": now + 30_000_000}
        stage.states["recovery"][name] = record
    stage.states["promotion"][names[5]]["frozen"] = True
    stage.states["strategies"][names[6]] |= {"paused": True, "paused_by": "ann", "paused_why": "x"}
    stage.states["channels"]["webhook"] |= {"state": "failing", "pending": 3, "failed": 2}
    stage.states["feeds"]["nasdaq"]["stale"] = True
    stage.states["actors"]["guard"]["state"] = "restarting"
    stage.states["fund"]["storage"] = {"state": "degraded", "reason": "disk", "commit_ms": 900.0}
    stage.states["fund"] |= {"ledger_gap": "0.02", "drawdown_pct": 12.4}
    for state, next_us in (("FAILED", now + 1), ("PENDING", None), ("UNKNOWN", None)):
        alert = stage.happen("alerts", at_us=now, level="CRITICAL", category="X", title=state)
        delivery = {"alert_id": alert, "channel": "webhook", "state": state, "attempts": 2}
        stage.happen("deliveries", **delivery, error="timeout", next_us=next_us)


# The fund before the page is opened, an event after that, and the sentence of the page.
STATES: dict[str, tuple[Callable[[Stage], None] | None, Callable[[Stage], None] | None, str]] = {
    "loading": (_silent, None, "Connecting to the fund"),
    "waiting": (None, None, "2 things wait for you"),
    "quiet": (_quiet, None, "All quiet"),
    "stale": (_stale, None, "Last known: 2 things waiting"),
    "engaging": (None, _kill("ENGAGING"), "Trading is being stopped"),
    "engaged": (None, _kill("ENGAGED"), "Trading is stopped"),
    "unconfirmed": (None, _kill("UNCONFIRMED"), "The stop is not confirmed"),
    "empty": (_empty, None, "Ready for the first strategy"),
    "replay": (_replay, None, "2 things wait for you"),
    "replay ended": (_replay_ended, None, "2 things wait for you"),
    "wrong token": (_wrong_token, None, "The page is locked"),
    "disconnected": (None, _cut_off, "Last known: 2 things waiting"),
    "busy": (_busy, None, "9 things wait for you"),
}


def _says(page: Page, text: str) -> None:
    page.wait_for_function("text => document.querySelector('h1').textContent === text", arg=text)


def _card(page: Page, name: str) -> Any:
    return page.locator(".st", has=page.locator(f"text='{name}'")).first


# Everything but the colours; and the colours of one text of each kind: two texts with the same font
# and the same colours up to the page have the same contrast, and axe takes a second for them all.
STRUCTURE = """tags => axe.run(document, {
    runOnly: tags,
    rules: {'color-contrast': {enabled: false}, 'link-in-text-block': {enabled: false}},
    resultTypes: ['violations'],
})"""
COLOURS = """() => {
    const kinds = new Map();
    for (const node of document.querySelectorAll('body *')) {
        const text = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
        if (!(text || node.matches('input')) || !node.checkVisibility()) continue;
        const {color, fontSize, fontWeight} = getComputedStyle(node);
        const kind = [color, fontSize, fontWeight];
        for (let up = node; up; up = up.parentElement) {
            const {backgroundColor, backgroundImage, opacity} = getComputedStyle(up);
            kind.push(backgroundColor, backgroundImage, opacity);
        }
        kinds.set(kind.join(), node);
    }
    return axe.run({include: [...kinds.values()]}, {
        runOnly: {type: 'rule', values: ['color-contrast', 'link-in-text-block']},
        resultTypes: ['violations'],
    });
}"""


def _violations(found: dict[str, Any]) -> list[str]:
    return [
        f"{broken['id']}: {node['target']} {node['failureSummary']}"
        for broken in found["violations"]
        for node in broken["nodes"]
    ]


def _look(page: Page, axe: str) -> None:
    """No violation and no overflow, in both themes at every width.

    The structure depends on the width alone, and the colours on the theme; these are checked at one
    wide and one narrow width.
    """
    page.evaluate(axe)
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 1000 if width > 640 else 844})
        for theme in THEMES:
            page.evaluate("theme => document.documentElement.dataset.theme = theme", theme)
            page.evaluate("() => new Promise(done => requestAnimationFrame(done))")
            size = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert size == [width, width], (theme, width)
            assert page.evaluate(CUT) == [], (theme, width)
            if width in (1440, 390):
                assert _violations(page.evaluate(COLOURS)) == [], (theme, width)
        assert _violations(page.evaluate(STRUCTURE, TAGS)) == [], width


# -- every state


@pytest.mark.parametrize("state", STATES)
def test_every_state_is_accessible_at_every_width(
    state: str, seen: Seen, stage: Stage, axe: str
) -> None:
    before, after, sentence = STATES[state]
    if before is not None:
        before(stage)
    page = seen.open()
    if after is not None:
        page.wait_for_function("document.body.dataset.s === 'live'")
        after(stage)
    _says(page, sentence)
    _look(page, axe)


def test_the_drawer_and_the_keys_are_accessible_too(seen: Seen, axe: str) -> None:
    page = seen.live()
    _card(page, NAME).click()
    page.wait_for_selector("#dr .hist li")
    _look(page, axe)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    page.wait_for_selector("#help[open]")
    _look(page, axe)


def test_the_check_for_violations_can_fail(seen: Seen, axe: str) -> None:
    page = seen.live()
    page.evaluate(axe)
    # One of many texts of a kind, and neither the first nor the last of them.
    page.evaluate("document.querySelectorAll('#journal td.n')[3].style.color = '#eee'")
    page.evaluate("document.documentElement.dataset.theme = 'light'")
    page.evaluate("document.querySelector('#theme').removeAttribute('aria-label')")
    assert "color-contrast" in " ".join(_violations(page.evaluate(COLOURS)))
    assert "button-name" in " ".join(_violations(page.evaluate(STRUCTURE, TAGS)))


def test_an_unknown_figure_is_a_dash_and_never_zero(seen: Seen, stage: Stage) -> None:
    stage.silent = True
    page = seen.open()
    _says(page, "Connecting to the fund")
    for panel in ("#vit", "#nav .nav", "#board .cols", "#alerts", "#recovery", "#books", "#actors"):
        text = page.inner_text(panel)
        assert not any(sign.isdigit() for sign in text), text
    assert page.inner_text("#navf") == "–"


def test_a_page_without_connection_keeps_its_figures_undimmed(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    nav = page.inner_text("#navf")
    _cut_off(stage)
    page.wait_for_function("document.body.dataset.s === 'off'")
    assert page.inner_text("#navf") == nav == "1,142,411.80"
    assert "No connection to the fund for" in page.inner_text("#banner")
    assert "Trying again in" in page.inner_text("#banner")
    style = "e => [getComputedStyle(e).opacity, getComputedStyle(e).borderTopStyle]"
    assert page.locator("#board").evaluate(style) == ["1", "dashed"]
    assert page.title().startswith("(2) no connection")


def test_a_replay_that_has_ended_is_not_stale(seen: Seen, stage: Stage) -> None:
    _replay_ended(stage)
    page = seen.live()
    assert page.inner_text("#replay") == "replay ended"
    assert page.locator("#banner").is_hidden()


def test_a_host_that_calls_the_ticks_makes_no_stale_fund(seen: Seen, stage: Stage) -> None:
    stage.states["fund"]["host_ticks"] = True
    stage.tick_age_s = 300.0
    page = seen.live()
    assert page.locator("#banner").is_hidden()


def test_the_silence_of_the_engine_names_the_end_of_the_leases(seen: Seen, stage: Stage) -> None:
    # A fund says the age beside the instant; the page needs it until the first heartbeat.
    silent = {"stale": True, "data_us": stage.now_us - 41_000_000, "data_age_s": 41.0}
    stage.states["fund"] |= silent
    page = seen.open()
    page.wait_for_function("document.body.dataset.s === 'stale'")
    banner = page.inner_text("#banner")
    assert banner.startswith("The engine has been silent for 41 s; leases ended at 40 s.")


# -- the kill switch


def test_the_kill_switch_is_on_screen_within_a_quarter_of_a_second(
    seen: Seen, stage: Stage
) -> None:
    seen.page.add_init_script("""
        const Real = WebSocket;
        window.WebSocket = function (...given) {
            const socket = new Real(...given);
            socket.addEventListener('message', e => {
                if (!window.cameAt && e.data.includes('ENGAGED')) window.cameAt = performance.now();
            });
            return socket;
        };
        const look = () => {
            const shown = document.body?.classList.contains('kill');
            if (shown && document.querySelector('h1').textContent === 'Trading is stopped')
                window.shownAt ??= performance.now();
            requestAnimationFrame(look);
        };
        look();
    """)
    page = seen.live()
    stage.engage()
    page.wait_for_function("window.shownAt")
    # The promise is 250 ms; a busy machine of a test gets four times that.
    assert page.evaluate("window.shownAt - window.cameAt") < 1000
    assert page.inner_text("#mode") == "kill switch engaged, 14:31 by the guard"
    assert page.inner_text("#alarm") == "Trading is stopped: drawdown 15.02 % reached 15 %"
    assert page.inner_text("#att li >> nth=0").startswith("Kill switch engaged")


def test_the_kill_switch_stops_the_cards_with_real_money_alone(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    stage.engage()
    _says(page, "Trading is stopped")
    assert page.inner_text(".col[data-k=live-scaled]").count("stopped by the kill switch") == 4
    assert page.inner_text(".col[data-k=live-small]").count("stopped by the kill switch") == 1
    assert "kill switch" not in page.inner_text(".col[data-k=paper]")
    assert "kill switch" not in page.inner_text(".col[data-k=shadow]")


def test_a_held_page_draws_nothing_until_the_kill_switch_acts(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    page.keyboard.press("p")
    assert page.locator("#held").is_visible()
    stage.show("fund", "nav", "7.00")
    page.wait_for_timeout(150)
    assert page.inner_text("#navf") == "1,142,411.80"
    stage.engage()
    _says(page, "Trading is stopped")
    assert page.locator("#held").is_hidden()
    assert page.inner_text("#navf") == "1,019,760.11"


# -- the connection


def _journal(page: Page) -> list[int]:
    """The numbers of the entries that the page shows, with all of them shown."""
    page.locator("#journal .foot-more button").click()
    page.wait_for_function("document.querySelectorAll('#journal tr.r').length === 50")
    numbers = page.locator("#journal tr.r td:first-child").all_inner_texts()
    return [int(number) for number in numbers]


def test_a_cut_socket_resumes_without_a_gap_or_a_double(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    entry = {**stage.events["journal"][-1], "legs": [["CASH", "1.00"]]}
    first = stage.happen("journal", **entry)
    page.wait_for_function(f"document.querySelector('#jn').textContent.startsWith('{first:,}')")
    stage.cut()
    for _ in range(3):
        last = stage.happen("journal", **entry)
    page.wait_for_function(f"document.querySelector('#jn').textContent.startsWith('{last:,}')")
    page.wait_for_function("fundops.link === 'on'")
    hello = [message for message in stage.heard if message["t"] == "hello"][-1]
    assert hello["since"]["journal"] == first
    assert hello["epoch"] == stage.epoch
    assert "nav" not in hello["since"]
    assert _journal(page) == list(range(last, last - 50, -1))
    # An event that comes twice is shown once.
    stage.say({"t": "event", "topic": "journal", "seq": last, "data": entry})
    page.wait_for_timeout(100)
    assert page.evaluate("fundops.count('journal')") == 54


def test_another_database_makes_a_new_page(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    stage.cut()
    stage.epoch = "00000000-0000-0000-0000-000000000000"
    stage.empty()
    _says(page, "Ready for the first strategy")
    assert page.evaluate("fundops.count('journal')") == 0
    assert page.locator(".st").count() == 0


def test_events_that_the_server_no_longer_holds_are_counted(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    newest = stage.events["journal"][-1]["seq"]
    gap = {"t": "gap", "topic": "journal", "from": newest + 1, "to": newest + 7}
    stage.say(gap)
    page.wait_for_function("document.querySelector('#jg').textContent === '7 older ones not shown'")


def test_a_patch_changes_only_its_fields_and_in_place(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    card = _card(page, NAME)
    page.evaluate("card => { card.mine = true; }", card.element_handle())
    stage.patch("strategies", NAME, {"pnl": "-12.60"})
    page.wait_for_function(
        "card => card.querySelector('.pnl').textContent === '−13'", arg=card.element_handle()
    )
    assert "down" in str(card.locator(".pnl").get_attribute("class"))
    assert card.evaluate("card => card.mine")
    assert card.locator(".why").inner_text() == "41 of 50 trades, and 1 more"


def test_the_token_leaves_the_address_and_the_history(seen: Seen, stage: Stage) -> None:
    stage.token = "s3cret/+="
    page = seen.open("#token=s3cret%2F%2B%3D")
    page.wait_for_function("document.body.dataset.s === 'live'")
    assert page.url == stage.url
    assert stage.heard[0]["token"] == "s3cret/+="
    assert "s3cret" not in page.content()
    page.goto("about:blank")
    page.go_back()
    page.wait_for_function("document.body.dataset.s === 'live'")
    assert page.url == stage.url
    assert all("s3cret" not in path for path in stage.requests)


def test_a_wrong_token_is_asked_for_again(seen: Seen, stage: Stage) -> None:
    stage.token = "right"
    page = seen.open("#token=wrong")
    page.locator("#banner b >> text=The fund does not know this token.").wait_for()
    page.wait_for_timeout(1200)
    assert sum(message["t"] == "hello" for message in stage.heard) == 1
    page.get_by_label("Token of the fund").fill("right")
    page.keyboard.press("Enter")
    _says(page, "2 things wait for you")
    assert page.locator("#banner").is_hidden()


def test_the_page_asks_for_nothing_but_itself_and_its_stream(
    browser: Any, seen: Seen, stage: Stage
) -> None:
    """Under the policy of the fund, which a context obeys unless it is told not to."""
    context = browser.new_context()
    page = context.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto(stage.url)
    _says(page, "2 things wait for you")
    _card(page, NAME).click()
    page.wait_for_selector("#dr .hist li")
    context.close()
    assert refused == []
    assert stage.requests == ["/", "/ws"]


def test_the_page_is_one_small_file() -> None:
    html = status_page.html()
    text = html.decode()
    assert len(html) <= PAGE_BYTES_MAX
    assert text.count("<style>") == text.count("<script>") == text.count("<canvas") == 1
    assert " style=" not in text
    assert [url for url in ("http://", "https://") if url in text.replace(SVG, "")] == []


def test_the_pictures_of_the_docs_are_small() -> None:
    pictures = list((Path(__file__).parents[2] / "docs").glob("page-*.png"))
    assert len(pictures) == 4
    assert max(picture.stat().st_size for picture in pictures) <= 300_000


# -- what others wrote

HOSTILE = {
    "markup": "<img src=x onerror=alert(1)>",
    "script": "</script><script>alert(1)</script>",
    "right to left": "\u05d0\u05d1\u05d2_\u202eevil",
    "long": "w" * 128,
    "emoji": "👩‍👩‍👧‍👦 rocket 🚀 fund",
    "an option": "--it",
    "quotes": """it's "quoted" `$(rm -rf)`""",
}


def test_hostile_names_are_only_text(seen: Seen, stage: Stage) -> None:
    dialogs: list[str] = []
    seen.page.on("dialog", lambda dialog: dialogs.append(dialog.message))
    for topic in ("strategies", "promotion"):
        record = stage.states[topic][NAME]
        for name in HOSTILE.values():
            stage.states[topic][name] = {**record, **({"name": name} if "name" in record else {})}
    for name in HOSTILE.values():
        alert = {"at_us": 1, "level": "INFO", "category": name, "title": name, "message": name}
        stage.happen("alerts", **alert, strategy=name)
        entry = {"recorded_us": 1, "day": name, "kind": name, "legs": [[name, name, name]]}
        stage.happen("journal", **entry, strategy=name)
        stage.happen("recovery_events", at_us=1, action=name, target=name, error=name)
        stage.states["feeds"][name] = {**stage.states["feeds"]["nasdaq"], "name": name}
        stage.states["actors"][name] = {"state": name, "epoch": 1, "restarts": 0, "kind": "actor"}
        stage.states["attention"][name] = {"level": name, "title": name, "why": name}
        stage.states["attention"][name] |= {"command": name, "since_us": None}
    stage.states["fund"] |= {"name": HOSTILE["markup"], "currency": HOSTILE["script"]}
    page = seen.live()
    for name in HOSTILE.values():
        page.evaluate(
            "name => [...document.querySelectorAll('.st')].find(b => b._key === name).click()", name
        )
        assert page.inner_text("#drt") == name
        page.keyboard.press("Escape")
    assert page.locator("img, main script, iframe").count() == 0
    for name, typed in (
        (HOSTILE["quotes"], """fundops why 'it'\\''s "quoted" `$(rm -rf)`'"""),
        (HOSTILE["an option"], "fundops why -- --it"),
    ):
        quoted = page.evaluate(
            """name => {
                [...document.querySelectorAll('.st')].find(b => b._key === name).click();
                return document.querySelector('#dr .cmds :last-child').textContent;
            }""",
            name,
        )
        assert quoted == typed
        page.keyboard.press("Escape")
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") == width
    assert dialogs == []


def test_money_beyond_the_floats_is_exact(seen: Seen, stage: Stage) -> None:
    stage.states["fund"] |= {
        "nav": "90071992547409.93",
        "nav_open": "90071992547409.92",
        "headroom": "12345678901234567.49",
        "total_capital": "0.00",
        "total_fees": "0.005",
    }
    stage.states["balances"] = {
        "CASH": "90071992547409.92",
        "POSITIONS": "0.01000000",
        "FEES_RECEIVABLE": "0",
        "REALIZED_PNL": "-90071992547409.93",
    }
    stage.states["strategies"][NAME]["pnl"] = "-9007199254740993.51"
    page = seen.live()
    assert page.inner_text("#navf") == "90,071,992,547,409.93"
    assert page.inner_text("#today").startswith("+0.01 today")
    assert page.inner_text("#mroom").startswith("12,345,678,901,234,567 to the kill switch")
    assert "+90,071,992,547,409.93" in page.inner_text("#navkv")
    assert page.inner_text("#navkv dd >> nth=3") == "0.01"
    assert page.inner_text("#bb .tot >> nth=1") == "90,071,992,547,409.93"
    assert page.inner_text("#bb .tot >> nth=3") == "+90,071,992,547,409.93"
    assert _card(page, NAME).locator(".pnl").inner_text() == "−9,007,199,254,740,994"
    _card(page, NAME).click()
    assert "−9,007,199,254,740,993.51" in page.inner_text("#dr")


def test_after_the_close_the_result_of_the_last_session_is_told(seen: Seen, stage: Stage) -> None:
    fund = stage.states["fund"]
    page = seen.live()
    assert page.inner_text("#today").startswith("+868.48 today")
    stage.show("fund", "nav_open", fund["nav"])
    change = Decimal(fund["nav"]) - Decimal(stage.series["nav"][-2])
    shown = f"{change:+,.2f}".replace("-", "−")
    page.wait_for_function(
        "text => document.querySelector('#today').textContent.startsWith(text)",
        arg=f"{shown} last session",
    )


def test_a_replay_asks_again_for_the_sessions_that_it_skipped(seen: Seen, stage: Stage) -> None:
    stage.states["fund"]["clock"] = "driven"
    page = seen.live()
    last = len(stage.series["at_us"]) - 1
    page.wait_for_function(f"document.querySelector('#plot').ariaValueMax === '{last}'")
    for column, values in stage.series.items():
        values += [values[-1] + 86_400_000_000 if column == "at_us" else values[-1]] * 3
    stage.happen("nav", at_us=stage.series["at_us"][-1], nav="1.00", drawdown_pct=14.0)
    page.wait_for_function(f"document.querySelector('#plot').ariaValueMax === '{last + 3}'")
    gets = [message for message in stage.heard if message["t"] == "get"]
    assert len(gets) == 2


def test_deliveries_are_told_in_words(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    alert = {"at_us": stage.now_us, "category": "RISK", "title": "disk", "message": "full"}
    number = stage.happen("alerts", **alert, level="CRITICAL")
    again = stage.now_us + 18 * 60_000_000
    delivery = {"alert_id": number, "channel": "webhook", "attempts": 1}
    stage.happen("deliveries", **delivery, state="FAILED", error="timeout", next_us=again)
    page.get_by_text("webhook ✕ timeout, again 14:57").wait_for()
    stage.happen("deliveries", **delivery, state="DELIVERED", error=None, next_us=None)
    page.wait_for_function("document.querySelector('.al .dl').textContent === 'webhook ✓'")
    stage.happen("alerts", **alert, level="INFO", outcome="RATE_SUPPRESSED")
    page.get_by_text("held back by the rate limit").wait_for()


# -- hands


def _focused(page: Page) -> str:
    return str(page.evaluate("document.activeElement._key || document.activeElement.id || ''"))


def test_a_keyboard_does_all(seen: Seen) -> None:
    page = seen.live()
    press = page.keyboard.press
    press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    press("Enter")
    press("j")
    first = _focused(page)
    assert first == "broken"
    press("j")
    press("j")
    press("k")
    assert _focused(page) == "bollinger_mr_w20"
    press("Enter")
    assert page.inner_text("#drt") == "bollinger_mr_w20"
    for _ in range(12):
        press("Tab")
        assert page.evaluate(
            "document.activeElement === document.body || document.querySelector('#dr')"
            ".contains(document.activeElement)"
        )
    press("Escape")
    assert page.locator("#dr").is_hidden()
    assert _focused(page) == "bollinger_mr_w20"
    assert page.locator(".st[tabindex='0']").count() == 1
    press("/")
    page.keyboard.type("above")
    page.wait_for_function("document.querySelector('#bn').textContent === '4 of 13'")
    press("Escape")
    page.wait_for_function("document.querySelector('#bn').textContent === '13'")
    press("g")
    press("j")
    assert _focused(page) == "journal"
    press("Tab")
    press("ArrowDown")
    press("Enter")
    assert page.inner_text("tr.sub") != ""
    theme = page.evaluate("document.documentElement.dataset.theme")
    press("t")
    assert page.evaluate("document.documentElement.dataset.theme") != theme
    press("2")
    assert page.inner_text("#range [aria-pressed=true]") == "3M"
    press("?")
    assert page.locator("#help").is_visible()
    press("Escape")
    assert page.locator("#help").is_hidden()


def test_a_finger_finds_every_target(seen: Seen) -> None:
    page = seen.live()
    page.set_viewport_size({"width": 390, "height": 844})
    _card(page, NAME).click()
    page.wait_for_selector("#dr .cmd")
    small = """[...document.querySelectorAll('button, a[href], input')]
        .map(target => target.classList.contains('row') ? target.closest('tr') : target)
        .filter(target => target.checkVisibility() && target.className !== 'skip')
        .filter(target => target.getBoundingClientRect().height < 43.5)
        .map(target => target.outerHTML)"""
    assert page.evaluate(small) == []


def test_keys_of_one_letter_can_be_switched_off(seen: Seen) -> None:
    page = seen.live()
    theme = page.evaluate("document.documentElement.dataset.theme")
    page.keyboard.press("?")
    page.get_by_label("Keys of one letter are on").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("t")
    page.keyboard.press("?")
    assert page.evaluate("document.documentElement.dataset.theme") == theme
    assert page.locator("#help").is_hidden()


def test_a_command_is_copied(seen: Seen, stage: Stage) -> None:
    seen.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=stage.url)
    page = seen.live()
    page.locator("#att .cmd").nth(1).click()
    page.wait_for_selector("#att .cmd.done")
    copied = "navigator.clipboard.readText()"
    assert page.evaluate(copied) == "fundops strategy approve session_after_down_k1"
    page.locator("h1").click()
    page.keyboard.press("c")
    page.wait_for_function(f"{copied}.then(text => text === 'fundops recovery reset broken')")


def test_the_chart_is_read_with_arrows(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    page.wait_for_function("document.querySelector('#plot').getAttribute('aria-valuemax') > 100")
    page.locator("#plot").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#tip:not([hidden])")
    words = page.locator("#plot").get_attribute("aria-valuetext")
    assert (
        words
        == page.locator("#tip").text_content()
        == "2009-03-03  NAV 1,199,933.84  down 0.01\u2009%"
    )
    assert page.locator("#chartsum").text_content().startswith("1,000 sessions from 2009-03-02")  # type: ignore[union-attr]
    stage.happen("nav", at_us=stage.now_us + 86_400_000_000, nav="1.00", drawdown_pct=14.0)
    page.wait_for_function("document.querySelector('#plot').getAttribute('aria-valuemax') == 1000")
    # A later point of the same day takes the place of the earlier one.
    stage.happen("nav", at_us=stage.now_us + 86_400_000_001, nav="2.00", drawdown_pct=14.0)
    page.keyboard.press("End")
    page.wait_for_function("document.querySelector('#tip').textContent.includes('NAV 2.00')")
    assert page.locator("#plot").get_attribute("aria-valuemax") == "1000"


def test_the_full_record_is_followed_while_the_drawer_is_open(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    _card(page, NAME).click()
    page.wait_for_selector("#dr td >> text=no evidence")
    page.keyboard.press("Escape")
    page.wait_for_timeout(100)
    subs = [message["keys"]["promotion"] for message in stage.heard if message["t"] == "sub"]
    assert [NAME in names for names in subs] == [False, True, False]


# -- work


def test_a_hidden_tab_draws_nothing_and_keeps_its_title(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.evaluate(hide, True)
    page.wait_for_timeout(50)
    before = page.evaluate("fundops.drawn")
    stage.show("fund", "nav", "7.00")
    stage.engage()
    page.wait_for_function("document.title.includes('Trading is stopped')")
    page.wait_for_timeout(600)
    assert page.evaluate("fundops.drawn") == before
    assert page.inner_text("#navf") == "1,142,411.80"
    page.evaluate(hide, False)
    _says(page, "Trading is stopped")
    assert page.inner_text("#navf") == "1,019,760.11"


def test_many_messages_are_drawn_in_few_frames(seen: Seen, stage: Stage) -> None:
    page = seen.live()
    before = page.evaluate("fundops.drawn")
    began = time.monotonic()
    for number in range(500):
        stage.patch("strategies", NAME, {"pnl": f"{number}.00"})
    page.wait_for_function(
        "document.querySelector('.col[data-k=live-small] .pnl').textContent === '+499'"
    )
    frames = page.evaluate("fundops.drawn") - before
    assert frames <= 65 * (time.monotonic() - began) + 5


def test_the_figures_of_the_stage_have_the_fields_of_the_protocol(stage: Stage) -> None:
    for topic, record in records.STATES.items():
        state = stage.states[topic]
        for value in [state] if topic == "fund" else state.values():
            told = msgspec.json.encode(msgspec.convert(value, record))
            assert msgspec.json.decode(told) == value, topic
    for topic, events in stage.events.items():
        for event in events:
            fields = {field for field in event if field != "seq"}
            known = {field.name for field in msgspec.structs.fields(records.EVENTS[topic])}
            assert fields <= known, topic
            msgspec.json.decode(json.dumps(event), type=records.EVENTS[topic])
