"""The demo's report as one HTML page that needs no other file, no script and no request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from html import escape
from typing import Final

from fundops.replay.charts import UNICODE, cut
from fundops.replay.figures import DemoReport, StrategyFigures
from fundops.replay.picture import comparison, story
from fundops.replay.report import by_stage, gates_told, money, proofs, real_pnl

__all__ = ["page"]

_STYLE: Final = """\
:root{color-scheme:light dark;--bg:#f6f5f2;--panel:#fff;--line:#e4e1db;--ink:#1b1d20;\
--ink2:#50565e;--warn:#8a5a00;--crit:#b3261e;--accent:#2b5cc4}
@media (prefers-color-scheme:dark){:root{--bg:#0e1013;--panel:#15181c;--line:#262b31;\
--ink:#eceef1;--ink2:#a9b0ba;--warn:#f0b860;--crit:#ff8a80;--accent:#8fb4ff}}
body{margin:0;background:var(--bg);color:var(--ink);\
font:14px/20px Inter,ui-sans-serif,system-ui,"Segoe UI",sans-serif;\
font-variant-numeric:tabular-nums}
main{max-width:1080px;margin:0 auto;padding:24px 16px;display:grid;gap:16px}
section{background:var(--panel);border:1px solid var(--line);border-radius:10px;padding:16px;\
min-width:0}
h1{font-size:24px;line-height:32px;font-weight:600;margin:0}
h2{font-size:13px;line-height:20px;font-weight:600;margin:0 0 8px}
p{margin:4px 0 0;color:var(--ink2)}
.nav{font-size:38px;line-height:44px;font-weight:600;color:var(--ink)}
ul{list-style:none;margin:0;padding:0;display:grid;gap:4px;\
grid-template-columns:repeat(auto-fit,minmax(260px,1fr))}
.look{color:var(--warn)}.wrong{color:var(--crit);font-weight:600}
.wide{overflow-x:auto}.wide:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.wide svg{display:block;width:100%;min-width:720px;height:auto}
table{border-collapse:collapse;width:100%}
table.broad{min-width:760px}
th,td{text-align:left;padding:6px 12px 6px 0;border-top:1px solid var(--line);\
vertical-align:top}
thead th{border-top:0;color:var(--ink2);font-size:12px;line-height:16px;font-weight:400}
td:nth-child(2){white-space:nowrap}
tbody th{font-weight:400;white-space:nowrap}
.figure{text-align:right;white-space:nowrap}
"""
# A table of more columns is scrolled on a phone, where its prose would become one word wide.
BROAD: Final = 3
NAME_MAX: Final = 40
_MARKS: Final = {"done": "✓", "look": "▲", "wrong": "✕"}

Cells = Sequence[str]


def page(report: DemoReport) -> str:
    """The whole page."""
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy"'
            " content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>fundops demo: {report.sessions:,} sessions</title>",
            f"<style>\n{_STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *_opening(report),
            *_charts("The story: stages, NAV and drawdown", story(report)),
            *_strategies(report),
            *_charts("With the gates and without", comparison(report), gates_told(report)),
            *_demotions(report),
            *_books(report),
            *_counts(report),
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _opening(report: DemoReport) -> Iterator[str]:
    yield "<section>"
    yield (
        f"<h1>{report.sessions:,} sessions, {escape(report.first_session)} to"
        f" {escape(report.last_session)}</h1>"
    )
    yield (
        f"<p>Replayed in {report.wall_s:.1f} s, seed {report.seed}, policy literal, default"
        f" criteria, fees of {report.management_fee_bps / 100:g}% a year and"
        f" {report.performance_fee_pct:g}% of gains.</p>"
    )
    yield f'<p class="nav">{money(report.nav)}</p>'
    yield (
        f"<p>NAV, {money(report.nav - report.capital, sign=True)}: trading made"
        f" {money(report.trading_pnl, sign=True)}, fees took {money(report.total_fees)}. Down"
        f" {report.drawdown_pct:.2f}%, worst {report.drawdown_pct_max:.2f}%; the kill switch stops"
        f" at {report.kill_limit_pct:g}%.</p>"
    )
    yield "</section>"
    yield "<section><h2>Proof</h2><ul>"
    for state, sentence in proofs(report):
        yield f'<li class="{state}">{_MARKS[state]} {escape(sentence)}</li>'
    yield "</ul></section>"


def _charts(title: str, svg: str, told: str = "") -> Iterator[str]:
    yield f"<section><h2>{escape(title)}</h2>"
    yield f'<div class="wide" tabindex="0" role="group" aria-label="{escape(title)}">'
    yield svg
    yield "</div>"
    if told:
        yield f"<p>{escape(told[0].upper() + told[1:])}.</p>"
    yield "</section>"


def _strategies(report: DemoReport) -> Iterator[str]:
    rows = [_row(stage, strategy) for stage, found in by_stage(report) for strategy in found]
    heads = ("Strategy", "Stage", "Why", "Days", "Trades", "Sharpe", "Drawdown", "Real P&L")
    yield from _table("Strategies", heads, rows, figures=5)


def _row(stage: str, strategy: StrategyFigures) -> Cells:
    sharpe = "–" if strategy.sharpe is None else f"{strategy.sharpe:.2f}".replace("-", "−")
    return (
        strategy.name,
        stage,
        strategy.reason,
        f"{strategy.days_in_stage:.0f}",
        str(strategy.n_trades),
        sharpe,
        f"{strategy.drawdown_pct:.1f}%",
        real_pnl(strategy),
    )


def _demotions(report: DemoReport) -> Iterator[str]:
    rows = [
        (move.strategy, move.day, f"{move.from_stage} to {move.to_stage}", move.reason)
        for move in report.happenings
        if move.kind == "demote"
    ]
    if rows:
        yield from _table("Demotions", ("Strategy", "Day", "Move", "Reason"), rows)


def _books(report: DemoReport) -> Iterator[str]:
    def shown(amount: Decimal | None) -> str:
        return "" if amount is None else money(amount)

    rows = [
        (
            account,
            shown(report.balance_sheet.get(account)),
            shown(report.income_statement.get(account)),
        )
        for account in dict.fromkeys([*report.balance_sheet, *report.income_statement])
    ]
    yield from _table("Books", ("Account", "Balance sheet", "Income"), rows, figures=2)


def _counts(report: DemoReport) -> Iterator[str]:
    alerts, recovery = report.alerts, report.recovery
    rows = [
        ("Alerts sent", str(alerts.sent)),
        ("Alerts held back by the rate limit", str(alerts.suppressed)),
        ("Repeated alerts", str(alerts.repeats)),
        *((f"Alerts: {category}", str(count)) for category, count in alerts.by_category.items()),
        *((f"Recovery: {name.replace('_', ' ')}", str(count)) for name, count in recovery.items()),
        ("Restarts of fundops' own actors", str(report.actor_restarts)),
    ]
    yield from _table("Counts", ("Of", "Count"), rows, figures=1)


def _table(title: str, heads: Cells, rows: Sequence[Cells], figures: int = 0) -> Iterator[str]:
    """A table whose last `figures` columns are aligned as figures."""
    first_figure = len(heads) - figures

    def style(column: int) -> str:
        return ' class="figure"' if column >= first_figure else ""

    yield f"<section><h2>{escape(title)}</h2>"
    yield f'<div class="wide" tabindex="0" role="group" aria-label="{escape(title)}">'
    yield '<table class="broad">' if len(heads) > BROAD else "<table>"
    cells = "".join(
        f'<th scope="col"{style(column)}>{escape(head)}</th>' for column, head in enumerate(heads)
    )
    yield f"<thead><tr>{cells}</tr></thead><tbody>"
    for name, *others in rows:
        cells = "".join(
            f"<td{style(column)}>{escape(cell)}</td>" for column, cell in enumerate(others, 1)
        )
        shown = cut(name, NAME_MAX, UNICODE)
        title = f' title="{escape(name)}"' if shown != name else ""
        yield f'<tr><th scope="row"{title}>{escape(shown)}</th>{cells}</tr>'
    yield "</tbody></table></div></section>"
