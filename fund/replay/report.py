"""The demo's report for a person, as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from fundops.replay.demo import MANAGEMENT_FEE_BPS, PERFORMANCE_FEE_PCT, DemoReport
from fundops.runtime import ChildStatus
from fundops.wire.promotion import CriterionResult, HistoryEntry, PromotionSnapshot, PromotionStage

__all__ = ["render"]

_HIGHEST_FIRST = (
    PromotionStage.Live_Scaled,
    PromotionStage.Live,
    PromotionStage.Live_Small,
    PromotionStage.Shadow,
    PromotionStage.Paper,
    PromotionStage.Retired,
)


def render(report: DemoReport) -> RenderableType:
    """The report as rich draws it."""
    return Group(
        Text(
            f"\n{report.sessions} sessions, {report.first} to {report.last},"
            f" replayed in {report.wall_s:.1f} s"
            f" (seed {report.seed}, policy literal, default criteria, fees of"
            f" {MANAGEMENT_FEE_BPS / 100:g}% a year and {PERFORMANCE_FEE_PCT:g}% of gains)",
            style="bold",
        ),
        _fund(report),
        _strategies(report.strategies, report.history),
        _moves(report.history),
        _books("Balance sheet", report.balance_sheet),
        _books("Income statement", report.income_statement),
        _alerts(report),
        _recovery(report),
        _tree(report.tree),
        Text(_verdict(report), style="bold"),
    )


def _money(value: Decimal) -> str:
    return f"{value:,.2f}"


def _table(title: str, *columns: str) -> Table:
    """Columns whose heading begins with a space are figures."""
    table = Table(
        title=title, title_justify="left", title_style="bold", header_style="dim", box=SIMPLE_HEAD
    )
    for column in columns:
        table.add_column(
            column.strip(), justify="right" if column.startswith(" ") else "left", overflow="fold"
        )
    return table


def _fund(report: DemoReport) -> Table:
    status = report.status
    table = _table("Fund", " capital", " NAV", " drawdown", " fees", "kill switch")
    table.add_row(
        _money(status.total_capital),
        _money(status.nav),
        f"{status.drawdown_pct:.2f}%",
        _money(status.total_fees),
        status.kill_switch,
    )
    return table


def _strategies(strategies: Sequence[PromotionSnapshot], history: Sequence[HistoryEntry]) -> Table:
    table = _table(
        "Strategies by stage",
        "stage",
        "strategy, and why it is there",
        " days",
        " trades",
        " Sharpe",
        " drawdown",
    )

    def rank(snapshot: PromotionSnapshot) -> tuple[int, str]:
        return _HIGHEST_FIRST.index(snapshot.stage), snapshot.name

    for snapshot in sorted(strategies, key=rank):
        last = next(line for line in history if line.strategy == snapshot.name)
        sharpe = snapshot.metrics.get("sharpe")
        table.add_row(
            snapshot.stage.value,
            Text.assemble(snapshot.name, (f"\n{_why(snapshot, last)}", "dim")),
            f"{snapshot.days_in_stage:.0f}",
            f"{snapshot.metrics.get('n_trades', 0):.0f}",
            "-" if sharpe is None else f"{sharpe:.2f}",
            f"{snapshot.metrics.get('max_drawdown', 0):.1%}",
        )
    return table


def _why(snapshot: PromotionSnapshot, last: HistoryEntry) -> str:
    """The reason for its present stage, and the obstacles to the next one."""
    if snapshot.evaluation.target is None:
        return f"{last.reason}; top of the ladder"
    came = f"{last.reason}; " if last.kind == "demote" else ""
    missed = [_missed(result) for result in snapshot.evaluation.criteria if result.reason]
    return came + (", ".join(missed) or snapshot.evaluation.blocked_by or "gate passes")


def _missed(result: CriterionResult) -> str:
    observed = (
        result.reason
        if result.margin is None or result.observed is None
        else f"{result.observed:.4g}"
    )
    return f"{result.name} {observed} (needs {result.op} {result.limit:g})"


def _moves(history: Sequence[HistoryEntry]) -> Table:
    table = _table("Demotions", "strategy", "from", "to", "reason")
    for line in reversed(history):
        if line.kind == "demote" and line.from_stage is not None:
            table.add_row(line.strategy, line.from_stage.value, line.to_stage.value, line.reason)
    return table


def _books(title: str, books: Mapping[str, Decimal]) -> Table:
    table = _table(title, "account", " amount")
    for account, amount in books.items():
        table.add_row(account, _money(amount))
    return table


def _alerts(report: DemoReport) -> Table:
    table = _table("Alerts", "category", " decided", " suppressed")
    for category, count in report.alerts.by_category.items():
        table.add_row(
            category, str(count), str(report.alerts.suppressed_by_category.get(category, 0))
        )
    outcomes = report.alerts.by_outcome
    table.caption = (
        f"{outcomes.get('QUEUED', 0)} sent,"
        f" {outcomes.get('RATE_SUPPRESSED', 0)} held back by the rate limit,"
        f" {outcomes.get('DEDUPED', 0)} repeats; the webhook received {report.delivered}"
    )
    table.caption_justify = "left"
    return table


def _recovery(report: DemoReport) -> Table:
    table = _table("Recovery", *(f" {name}" for name in report.recovery))
    table.add_row(*(str(value) for value in report.recovery.values()))
    return table


def _tree(statuses: Sequence[ChildStatus]) -> Tree:
    tree = Tree(Text("Supervision tree", style="bold"))
    _grow(tree, statuses)
    return tree


def _grow(tree: Tree, statuses: Sequence[ChildStatus]) -> None:
    for status in statuses:
        restarts = (
            f", {status.restarts} restart{'s' if status.restarts != 1 else ''}"
            if status.restarts
            else ""
        )
        handled = f", {status.mailbox.done:,} messages" if status.mailbox is not None else ""
        _grow(tree.add(f"{status.name} ({status.state}{handled}{restarts})"), status.children)


def _verdict(report: DemoReport) -> str:
    return "\n".join(_sentences(report))


def _sentences(report: DemoReport) -> Iterator[str]:
    balanced = "balances to 0" if not report.trial_balance else f"IS OFF BY {report.trial_balance}"
    yield f"{report.entries:,} journal entries; the trial balance {balanced}."
    yield f"{report.fills_booked:,} of {report.fills:,} real fills are in the journal, once each."
    drilled = ", ".join(report.drilled)
    yield f"Crashed on purpose: {drilled}; actor restarts: {report.actor_restarts}."
