"""The demo's report: the text, the page and the picture say the same, from the same figures."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from fundops.replay.charts import ASCII, UNICODE, cut, spark, strip
from fundops.replay.figures import DemoReport, Happening, Stay
from fundops.replay.page import page
from fundops.replay.picture import comparison, story
from fundops.replay.report import by_stage, money, proofs, render, told

ROOT = Path(__file__).parents[3]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def report() -> DemoReport:
    """The figures of the default demo."""
    return DemoReport.from_json((Path(__file__).parent / "demo.json").read_bytes())


def _text(report: DemoReport, width: int = 80, *, ascii_only: bool = False) -> str:
    return "\n".join(line.plain for line in render(report, width, ascii_only=ascii_only))


# -- the figures


def test_json_carries_everything_that_the_text_has(report: DemoReport) -> None:
    assert DemoReport.from_json(report.as_json()) == report


def test_money_in_json_never_has_an_exponent(report: DemoReport) -> None:
    zero = msgspec.structs.replace(report, trial_balance=Decimal("0E-8"))
    assert b'"trial_balance":"0.00000000"' in zero.as_json()


def test_real_results_of_strategies_sum_to_the_books(report: DemoReport) -> None:
    assert sum(strategy.real_pnl for strategy in report.strategies) == report.trading_pnl
    assert report.nav_history.real_pnl[-1] == report.trading_pnl
    assert report.nav == report.capital + report.trading_pnl - report.total_fees


def test_every_move_was_heard_as_it_happened(report: DemoReport) -> None:
    kinds = [happening.kind for happening in report.happenings]
    assert kinds.count("promote") == report.promotions
    assert kinds.count("demote") == report.demotions
    assert kinds.count("breaker") == len(report.open_breakers) == 1


def test_each_strategys_stays_end_in_its_stage(report: DemoReport) -> None:
    for strategy in report.strategies:
        assert strategy.stays[0] == Stay(0, "paper")
        assert strategy.stays[-1].stage == strategy.stage


# -- the text


def test_the_proof_comes_first(report: DemoReport) -> None:
    text = _text(report)
    for sentence in (
        "✓ 4,969 entries, trial balance 0.00",
        "✓ 3,968 of 3,968 fills booked once",
        "✓ 64 of 64 alerts delivered",
        "▲ 1 breaker open: broken",
    ):
        assert 0 < text.index(sentence) < text.index("NAV 1,140,431.41")
    assert "trading made +33,360.00, fees took 92,928.59" in text
    assert "fees of 2% a year and 20% of gains" in text


def test_a_proof_that_fails_is_said_to_be_wrong(report: DemoReport) -> None:
    alerts = msgspec.structs.replace(report.alerts, delivered=63)
    broken = msgspec.structs.replace(
        report,
        trial_balance=Decimal("0.01"),
        fills_booked=3_967,
        alerts=alerts,
        actor_restarts=1,
        kill_switch="ENGAGED",
        open_breakers=(),
    )
    assert [state for state, _ in proofs(broken)] == ["wrong"] * 3 + ["done"] + ["wrong"] * 2
    text = _text(broken)
    assert "✕ 4,969 entries, trial balance 0.01" in text
    assert "✕ kill switch ENGAGED" in text


def test_the_counterfactual_stands_beside_the_fund(report: DemoReport) -> None:
    text = _text(report)
    assert re.search(r"with the gates .* 1,233,360\.00 +3\.10%", text)
    assert re.search(r"every strategy real from day one .* 1,748,076\.89 +9\.89%", text)
    assert "the gates cost 514,716.90 in these sessions" in text


@pytest.mark.parametrize("width", [40, 60, 79, 80, 100, 120, 200])
@pytest.mark.parametrize("ascii_only", [False, True])
def test_no_line_is_wider_than_the_terminal(
    report: DemoReport, width: int, ascii_only: bool
) -> None:
    lines = render(report, width, ascii_only=ascii_only)
    assert all(len(line) <= width for line in lines)
    assert all("\n" not in line.plain for line in lines)
    assert not ascii_only or all(line.plain.isascii() for line in lines)


def test_a_name_is_cut_in_its_middle_and_never_folded(report: DemoReport) -> None:
    lines = _text(report).splitlines()
    [row] = [line for line in lines if "+6,858.20" in line]
    assert row.startswith("  session_abo…nd_below_w5 ····░░░░░░▒▒▒▒▒▒████████ ")


def test_the_reason_stands_below_at_80_and_beside_at_120(report: DemoReport) -> None:
    reason = "12 of 50 trades, Sharpe −0.14"
    narrow, wide = _text(report, 80).splitlines(), _text(report, 120).splitlines()
    [row] = [at for at, line in enumerate(narrow) if line.startswith("  momentum_w10")]
    assert narrow[row + 1] == f"    {reason} of 1.00"
    [beside] = [line for line in wide if line.startswith("  momentum_w10")]
    assert reason in beside


def test_a_live_strategy_with_a_bad_sharpe_names_the_limit_it_has_not_reached(
    report: DemoReport,
) -> None:
    [strategy] = [one for one in report.strategies if one.name == "session_above_w10"]
    assert (strategy.sharpe or 0) < 0
    assert strategy.reason == (
        "Sharpe −0.41 does not demote, drawdown does: 16.9% of 20%, 3.1 points left"
    )


def test_a_strategy_without_real_money_has_a_dash_and_no_zero(report: DemoReport) -> None:
    [row] = [line for line in _text(report).splitlines() if line.startswith("  buy_and_hold")]
    assert "–" in row
    assert "0.00" not in row


def test_the_highest_stage_comes_first(report: DemoReport) -> None:
    assert [stage for stage, _ in by_stage(report)] == ["live-scaled", "shadow", "paper"]


def test_money_has_a_minus_sign_and_zero_has_none() -> None:
    assert money(Decimal("-1234.565")) == "−1,234.56"
    assert money(Decimal("0.001"), sign=True) == "0.00"
    assert money(Decimal("-0.001")) == "0.00"
    assert money(Decimal(5), sign=True) == "+5.00"


# -- what happens while it runs


def test_each_happening_is_one_line_that_fits() -> None:
    long = Happening(5, "2011-08-08", "breaker", "x" * 100, reason="y" * 100)
    assert len(told(long, 60)) == 60
    down = Happening(5, "2011-08-08", "demote", "trend", "live-small", "shadow", "drawdown 11%")
    assert told(down, 80).plain == "2011-08-08 ▼ trend live-small → shadow: drawdown 11%"
    plain = told(down, 80, ascii_only=True).plain
    assert plain == "2011-08-08 v trend live-small -> shadow: drawdown 11%"
    up = msgspec.structs.replace(down, kind="promote", reason="gate passed")
    assert told(up, 80).plain == "2011-08-08 ▲ trend live-small → shadow"
    killed = Happening(5, "2011-08-08", "kill switch", reason="drawdown 15.2%")
    assert told(killed, 80).plain == "2011-08-08 ✕ kill switch: drawdown 15.2%"


# -- charts of text


def test_a_strip_shows_the_stage_at_the_end_of_each_part() -> None:
    stays = (Stay(0, "paper"), Stay(4, "shadow"), Stay(8, "live-small"), Stay(9, "live-scaled"))
    assert strip(stays, 10, 5, UNICODE) == "··░░█"
    assert strip(stays, 10, 10, ASCII) == "....::::+#"
    assert strip(stays, 1, 3, ASCII) == "..."


def test_a_spark_goes_from_its_least_to_its_greatest() -> None:
    values = [Decimal(number) for number in range(8)]
    assert spark(values, 7, UNICODE) == "▂▃▄▅▆▇█"
    assert spark([Decimal(3)] * 4, 3, ASCII) == "___"
    assert spark([], 3, ASCII) == "   "


def test_a_cut_name_keeps_both_ends() -> None:
    assert cut("session_above_w100", 9, UNICODE) == "sess…w100"
    assert cut("short", 9, UNICODE) == "short"
    assert cut("long", 0, UNICODE) == ""


# -- the picture and the page


def test_the_readmes_picture_is_drawn_from_these_figures(report: DemoReport) -> None:
    drawn = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    assert drawn == story(report), "docs/demo.svg is stale: run `python docs/picture.py`"


def test_the_picture_shows_every_stay_and_every_demotion(report: DemoReport) -> None:
    root = ElementTree.fromstring(story(report))
    titles = [title.text or "" for title in root.iter(f"{SVG}title")]
    for strategy in report.strategies:
        shown = [title for title in titles if title.startswith(f"{strategy.name}: ")]
        assert shown == [f"{strategy.name}: {stay.stage}" for stay in strategy.stays]
    assert sum("reached its hard limit" in title for title in titles) == report.demotions
    assert (root.findtext(f"{SVG}desc") or "").startswith("13 strategies over 1,000 sessions")


def test_the_kill_line_is_red_only_when_it_is_near(report: DemoReport) -> None:
    assert '<line class="kill"' not in story(report)
    nav = msgspec.structs.replace(
        report.nav_history, drawdown_pct=(*report.nav_history.drawdown_pct[:-1], 12.5)
    )
    assert '<line class="kill"' in story(msgspec.structs.replace(report, nav_history=nav))


@pytest.mark.parametrize("sessions", [1, 2, 3])
def test_a_short_demo_is_drawn_too(report: DemoReport, sessions: int) -> None:
    nav = report.nav_history
    short = msgspec.structs.replace(
        report,
        sessions=sessions,
        happenings=(),
        strategies=tuple(
            msgspec.structs.replace(strategy, stays=(Stay(0, strategy.stage),))
            for strategy in report.strategies
        ),
        nav_history=msgspec.structs.replace(
            nav, **{name: getattr(nav, name)[:sessions] for name in nav.__struct_fields__}
        ),
    )
    for svg in (story(short), comparison(short)):
        assert "nan" not in svg
        ElementTree.fromstring(svg)
    assert _text(short)


class _Parsed(HTMLParser):
    """The tags of a page, the addresses that it would load, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_page_loads_nothing_and_runs_nothing(report: DemoReport) -> None:
    text = page(report)
    parsed = _Parsed(text)
    assert parsed.addresses == []
    assert not {"script", "link", "img", "iframe"} & {*parsed.tags}
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert parsed.tags.count("svg") == 2
    assert parsed.tags.count("h1") == 1


def test_the_page_says_what_the_text_says(report: DemoReport) -> None:
    words = " ".join(_Parsed(page(report)).words)
    for strategy in report.strategies:
        assert strategy.name in words
        assert strategy.reason in words
    for _, sentence in proofs(report):
        assert sentence in words
    for account in report.balance_sheet:
        assert account in words


def test_a_long_name_on_the_page_is_cut_and_whole_in_its_title(report: DemoReport) -> None:
    name = "n" * 60 + "m" * 60
    renamed = msgspec.structs.replace(report.strategies[0], name=name)
    text = page(msgspec.structs.replace(report, strategies=(renamed,)))
    assert f'title="{name}">{"n" * 20}…{"m" * 19}</th>' in text


def test_hostile_names_stay_text(report: DemoReport) -> None:
    name = "<script>alert('x')</script>&\"]]>"
    hostile = msgspec.structs.replace(
        report,
        strategies=(
            msgspec.structs.replace(report.strategies[0], name=name, reason=name),
            *report.strategies[1:],
        ),
        open_breakers=(name,),
    )
    assert "script" not in _Parsed(page(hostile)).tags
    assert name in "".join(_Parsed(page(hostile)).words)
    ElementTree.fromstring(story(hostile))
