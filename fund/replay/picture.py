"""The demo in one picture: the stages of every strategy over time, and NAV with its drawdown.

Pure functions of the figures that return SVG without script, font or request. The picture follows
the light or dark theme of its reader. Stages differ in height as well as in colour.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import Final, NamedTuple

from fundops.replay.charts import UNICODE, cut
from fundops.replay.figures import DemoReport, StrategyFigures
from fundops.replay.report import by_stage, money, real_pnl

__all__ = ["STYLE", "comparison", "story"]

WIDTH: Final = 960
LEFT: Final = 262
RIGHT: Final = 104
PLOT: Final = WIDTH - LEFT - RIGHT
ROW: Final = 22
TOP: Final = 58
NAV_HEIGHT: Final = 120
DRAWDOWN_HEIGHT: Final = 84
GAP: Final = 34
# Two pixels show a course as well as one, in half the bytes.
COLUMN: Final = 2
LABELS_MAX: Final = 4
YEAR_ROOM: Final = 36
NAME_MAX: Final = 34

HEIGHTS: Final = {"paper": 3, "shadow": 7, "live-small": 11, "live-scaled": 16, "live": 16}
LEGEND: Final = ("paper", "shadow", "live-small", "live-scaled")

STYLE: Final = """\
.demo{--panel:#fff;--ink:#1b1d20;--ink2:#50565e;--line:#e4e1db;--paper:#cfcbc3;--shadow:#9aa6ba;\
--small:#7f9cdc;--scaled:#2b5cc4;--down:#6b737e;--warn:#8a5a00;--kill:#b3261e;--other:#646a73}
@media (prefers-color-scheme:dark){.demo{--panel:#15181c;--ink:#eceef1;--ink2:#a9b0ba;\
--line:#262b31;--paper:#4a515a;--shadow:#66728a;--small:#7396d6;--scaled:#8fb4ff;--down:#8d96a3;\
--warn:#f0b860;--kill:#ff8a80;--other:#858d98}}
.demo text{font:12px Inter,ui-sans-serif,system-ui,"Segoe UI",sans-serif;fill:var(--ink2);\
font-variant-numeric:tabular-nums}
.demo .ink{fill:var(--ink)}.demo .bold{font-weight:600;fill:var(--ink)}.demo .end{text-anchor:end}
.demo .mid{text-anchor:middle}.demo .panel{fill:var(--panel)}.demo .rule{stroke:var(--line)}
.demo .paper{fill:var(--paper)}.demo .shadow{fill:var(--shadow)}
.demo .live-small{fill:var(--small)}.demo .live-scaled,.demo .live{fill:var(--scaled)}
.demo .warn{fill:var(--warn)}.demo .curve{fill:none;stroke:var(--scaled);stroke-width:1.5}
.demo .other{fill:none;stroke:var(--other);stroke-width:1.5;stroke-dasharray:5 3}
.demo .peak{fill:none;stroke:var(--ink2);stroke-dasharray:1 3}
.demo .area{fill:var(--down);fill-opacity:.35;stroke:var(--down)}
.demo .kill{stroke:var(--kill);stroke-width:1.5;stroke-dasharray:6 4}
.demo .limit{stroke:var(--ink2);stroke-width:1.5;stroke-dasharray:6 4}
"""

# The kill line is red from this part of the way to it on.
_WARN_PART: Final = 0.8


class _Scale(NamedTuple):
    """A vertical axis: values from `low` at the bottom to `high` at the top."""

    low: float
    high: float
    top: float
    height: float

    def y(self, value: float) -> float:
        span = self.high - self.low or 1.0
        return self.top + (self.high - value) / span * self.height


def story(report: DemoReport) -> str:
    """The timeline of every strategy's stages above the fund's NAV and drawdown, as SVG."""
    rows = [strategy for _, strategies in by_stage(report) for strategy in strategies]
    timeline = TOP + ROW * len(rows)
    nav_top = timeline + GAP + 20
    down_top = nav_top + NAV_HEIGHT + GAP
    height = down_top + DRAWDOWN_HEIGHT + 34
    nav = report.nav_history
    values = [float(value) for value in nav.nav]
    parts = [
        *_years(report, (TOP - 8, timeline), (nav_top, down_top + DRAWDOWN_HEIGHT)),
        *_legend(),
        *_timeline(report, rows),
        *_nav(report, values, nav_top),
        *_drawdown(
            report,
            [("area", nav.drawdown_pct)],
            down_top,
            f"down {report.drawdown_pct:.2f}%",
        ),
    ]
    return _svg(parts, height, "The demo's story", _told(report))


def comparison(report: DemoReport) -> str:
    """The fund before its fees, with the gates and had every strategy been real, as SVG."""
    nav_top = 46
    down_top = nav_top + NAV_HEIGHT + GAP
    capital = float(report.capital)
    gated = [capital + float(gain) for gain in report.nav_history.real_pnl]
    real = [capital + float(gain) for gain in report.nav_history.all_real_pnl]
    scale = _scale([*gated, *real, capital], nav_top, NAV_HEIGHT)
    last_gated, last_real = report.trading_pnl, report.all_real_pnl
    parts = [
        *_years(report, (nav_top, down_top + DRAWDOWN_HEIGHT)),
        _text(16, 24, "Before the fund's fees", "bold"),
        *_labels(scale),
        _line("curve", gated, scale),
        _line("other", real, scale),
        _text(16, nav_top + 14, "with the gates", "ink"),
        _text(16, nav_top + 32, f"{money(last_gated, sign=True)}"),
        _text(16, nav_top + 60, "every strategy real (dashed)", "ink"),
        _text(16, nav_top + 78, f"{money(last_real, sign=True)}"),
        *_drawdown(
            report,
            [("area", _drawdowns(capital, gated)), ("other", _drawdowns(capital, real))],
            down_top,
            f"worst {report.gated_drawdown_pct_max:.2f}% and"
            f" {report.all_real_drawdown_pct_max:.2f}%",
        ),
    ]
    told = (
        f"With the gates trading made {money(last_gated, sign=True)} with a worst drawdown of"
        f" {report.gated_drawdown_pct_max:.2f}%; with every strategy real from the first day"
        f" {money(last_real, sign=True)} and {report.all_real_drawdown_pct_max:.2f}%."
    )
    return _svg(parts, down_top + DRAWDOWN_HEIGHT + 34, "With the gates and without", told)


def _told(report: DemoReport) -> str:
    counts = ", ".join(f"{len(found)} {stage}" for stage, found in by_stage(report))
    return (
        f"{len(report.strategies)} strategies over {report.sessions:,} sessions:"
        f" {report.promotions} promotions and {report.demotions} demotions; at the end {counts}."
        f" NAV {money(report.nav)}, down {report.drawdown_pct:.2f}%, worst"
        f" {report.drawdown_pct_max:.2f}%; the kill switch stops at {report.kill_limit_pct:g}%."
    )


def _svg(parts: Sequence[str], height: float, title: str, description: str) -> str:
    inner = "\n".join(parts)
    named = f"<title>{escape(title)}</title>\n<desc>{escape(description)}</desc>"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="demo" width="{WIDTH}"'
        f' height="{_n(height)}" viewBox="0 0 {WIDTH} {_n(height)}"'
        f' role="img" aria-label="{escape(f"{title}. {description}")}">\n{named}\n'
        f"<style>\n{STYLE}</style>\n"
        f'<rect class="panel" width="{WIDTH}" height="{_n(height)}" rx="10"/>\n{inner}\n</svg>\n'
    )


# -- the timeline


def _x(session: float, sessions: int) -> float:
    return LEFT + PLOT * session / max(sessions, 1)


def _years(report: DemoReport, *spans: tuple[float, float]) -> Iterator[str]:
    """A line at the start of each year, with the year below the first span."""
    days = report.nav_history.sessions
    for session, day in enumerate(days):
        if session and day[:4] != days[session - 1][:4]:
            x = _n(_x(session, len(days)))
            for top, bottom in spans:
                yield f'<line class="rule" x1="{x}" x2="{x}" y1="{_n(top)}" y2="{_n(bottom)}"/>'
            if _x(session, len(days)) + YEAR_ROOM < WIDTH - RIGHT:
                yield _text(float(x) + 4, spans[0][1] + 15, day[:4])


def _legend() -> Iterator[str]:
    yield _text(16, 24, "Stages over time", "bold")
    x = float(LEFT)
    for stage in LEGEND:
        height = HEIGHTS[stage]
        yield _rect(stage, x, 26 - height, 22, height)
        yield _text(x + 28, 24, stage.replace("-", " "))
        x += 50 + 7 * len(stage)
    yield _triangle(x + 5, 13)
    yield _text(x + 16, 24, "demoted")
    yield _text(WIDTH - 16, 24, "real P&L", "end")
    yield _text(WIDTH - 16, 40, "real money in the two blues", "end")


def _timeline(report: DemoReport, rows: Sequence[StrategyFigures]) -> Iterator[str]:
    for number, strategy in enumerate(rows):
        base = TOP + ROW * (number + 1) - 4
        yield _text(16, base - 2, cut(strategy.name, NAME_MAX, UNICODE), "ink")
        yield from _stays(report, strategy, base)
        yield _text(WIDTH - 16, base - 2, real_pnl(strategy), "end")


def _stays(report: DemoReport, strategy: StrategyFigures, base: float) -> Iterator[str]:
    ends = [*(stay.session for stay in strategy.stays[1:]), report.sessions]
    for stay, end in zip(strategy.stays, ends, strict=True):
        left, right = _x(stay.session, report.sessions), _x(end, report.sessions)
        height = HEIGHTS.get(stay.stage, 3)
        yield _rect(
            stay.stage, left, base - height, right - left, height, f"{strategy.name}: {stay.stage}"
        )
    for happening in report.happenings:
        if happening.strategy != strategy.name or happening.kind == "promote":
            continue
        x = _x(happening.session, report.sessions)
        told = f"{happening.day}: {happening.reason}"
        if happening.kind == "demote":
            yield _triangle(x, base - 18, told)
        else:
            yield _rect("warn", x - 4, base - 14, 8, 8, f"{told}; breaker open")
            yield _text(x + 8, base - 6, "breaker open", "warn")


# -- curves


def _nav(report: DemoReport, values: Sequence[float], top: float) -> Iterator[str]:
    peaks, peak = [], float(report.capital)
    for value in values:
        peak = max(peak, value)
        peaks.append(peak)
    scale = _scale([*values, *peaks], top, NAV_HEIGHT)
    yield _text(16, top + 14, "NAV", "bold")
    yield _text(16, top + 32, money(report.nav), "ink")
    yield _text(16, top + 50, f"trading {money(report.trading_pnl, sign=True)}")
    yield _text(16, top + 68, f"fees {money(-report.total_fees)}")
    yield from _labels(scale)
    yield _line("peak", peaks, scale)
    yield _line("curve", values, scale)


def _drawdown(
    report: DemoReport,
    curves: Sequence[tuple[str, Sequence[float]]],
    top: float,
    told: str,
) -> Iterator[str]:
    """Drawdowns below a line at 0; the axis always reaches to the kill switch."""
    limit = report.kill_limit_pct
    worst = max((max(curve, default=0.0) for _, curve in curves), default=0.0)
    scale = _Scale(-max(limit, worst), 0.0, top, DRAWDOWN_HEIGHT)
    bottom = scale.y(-limit)
    yield _text(16, top + 14, "Drawdown", "bold")
    yield _text(16, top + 32, told, "ink")
    yield _rule(top)
    for kind, curve in curves:
        shown = [-value for value in curve]
        yield _line(kind, shown, scale, closed_at=top if kind == "area" else None)
    style = "kill" if worst >= _WARN_PART * limit else "limit"
    yield (
        f'<line class="{style}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_n(bottom)}"'
        f' y2="{_n(bottom)}"/>'
    )
    yield _text(WIDTH - RIGHT + 8, top + 4, "0%")
    yield _text(WIDTH - RIGHT + 8, bottom + 4, f"kill at {limit:g}%", "bold")


def _drawdowns(capital: float, values: Sequence[float]) -> list[float]:
    found, peak = [], capital
    for value in values:
        peak = max(peak, value)
        found.append((peak - value) / peak * 100)
    return found


def _scale(values: Sequence[float], top: float, height: float) -> _Scale:
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 1, high + 1
    return _Scale(low, high, top, height)


def _labels(scale: _Scale) -> Iterator[str]:
    """Round values of the axis, at most `LABELS_MAX`, to the right of the plot."""
    step = _round_step((scale.high - scale.low) / LABELS_MAX)
    value = step * -(-scale.low // step)
    while value <= scale.high:
        y = scale.y(value)
        yield _rule(y)
        yield _text(WIDTH - RIGHT + 8, y + 4, f"{value:,.0f}")
        value += step


def _round_step(least: float) -> float:
    power = 1.0
    while power * 10 <= least:
        power *= 10
    return next(power * part for part in (1, 2, 5, 10) if power * part >= least)


def _line(kind: str, values: Sequence[float], scale: _Scale, closed_at: float | None = None) -> str:
    """The curve with the least and the greatest value of each column."""
    if not values:
        return ""
    points = []
    per_column = max(len(values) * COLUMN / PLOT, 1.0)
    columns = max(round(len(values) / per_column), 1)
    for column in range(columns):
        first, end = (len(values) * edge // columns for edge in (column, column + 1))
        within = range(first, max(end, first + 1))
        kept = {
            min(within, key=values.__getitem__),
            max(within, key=values.__getitem__),
            within[-1],
        }
        points += [(_x(at + 0.5, len(values)), scale.y(values[at])) for at in sorted(kept)]
    path = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
    if closed_at is not None:
        first_x, last_x = _n(points[0][0]), _n(points[-1][0])
        path = f"{first_x} {_n(closed_at)}L{path}L{last_x} {_n(closed_at)}Z"
    return f'<path class="{kind}" d="M{path}"/>'


# -- elements


def _n(value: float) -> str:
    """A coordinate with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _text(x: float, y: float, text: str, style: str = "") -> str:
    named = f' class="{style}"' if style else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{named}>{escape(text)}</text>'


def _rect(style: str, x: float, y: float, width: float, height: float, told: str = "") -> str:
    size = f'x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"'
    title = f"<title>{escape(told)}</title>" if told else ""
    return f'<rect class="{escape(style)}" {size}>{title}</rect>'


def _rule(y: float) -> str:
    return f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{_n(y)}" y2="{_n(y)}"/>'


def _triangle(x: float, y: float, told: str = "") -> str:
    title = f"<title>{escape(told)}</title>" if told else ""
    points = f"{_n(x - 5)},{_n(y)} {_n(x + 5)},{_n(y)} {_n(x)},{_n(y + 9)}"
    return f'<polygon class="warn" points="{points}">{title}</polygon>'
