"""The demo's report for a person, as lines of text: the proof first, then one row a strategy.

No line is wider than asked for, down to 40 columns: names are cut in the middle, prose is wrapped,
figures are never cut. Amber asks a person to look, red says that it is wrong; a good result has no
colour.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Final

from rich.text import Text

from fundops.replay.charts import ASCII, UNICODE, Signs, cut, spark, strip
from fundops.replay.figures import DemoReport, Happening, StrategyFigures

__all__ = [
    "HIGHEST_FIRST",
    "WIDE",
    "by_stage",
    "gates_told",
    "money",
    "proofs",
    "real_pnl",
    "render",
    "told",
]

HIGHEST_FIRST: Final = ("live-scaled", "live", "live-small", "shadow", "paper", "retired")
WIDE: Final = 120
"""The columns from which the reason stands beside its strategy."""
NARROW: Final = 80
"""The columns below which a strategy has no chart."""
LINE_MAX: Final = 160
"""Longer lines are hard to follow, also where there is room."""

LOOK, WRONG, FAINT, HEAD = "yellow", "bold red", "dim", "bold"
_DASHES = str.maketrans("\N{MINUS SIGN}\N{EN DASH}", "--")
_STAGE_STYLES = {"█": "blue", "▒": "blue", "#": "blue", "+": "blue"}


def render(report: DemoReport, width: int = 80, *, ascii_only: bool = False) -> list[Text]:
    """The lines of the report, none with a line break."""
    signs = ASCII if ascii_only else UNICODE
    width = min(max(width, 40), LINE_MAX)
    lines = [
        Text(),
        *_opening(report, width),
        *_proofs(report, width, signs),
        Text(),
        *_fund(report, width, signs),
        *_strategies(report, width, signs),
        *_demotions(report, width, signs),
        *_books(report, width, signs),
        *_rest(report, width),
    ]
    return [_printable(line, signs) for line in lines]


def told(happening: Happening, width: int = 80, *, ascii_only: bool = False) -> Text:
    """One line for a thing that has just happened."""
    signs = ASCII if ascii_only else UNICODE
    match happening.kind:
        case "kill switch":
            mark, style, text = signs.wrong, WRONG, f"kill switch: {happening.reason}"
        case "breaker":
            mark, style = signs.breaker, LOOK
            text = f"{happening.strategy} stays down: {happening.reason}"
        case "promote" | "demote":
            rises = happening.kind == "promote"
            mark, style = (signs.up, "") if rises else (signs.down, LOOK)
            why = "" if rises else f": {happening.reason}"
            text = (
                f"{happening.strategy} {happening.from_stage} {'->' if ascii_only else '→'}"
                f" {happening.to_stage}{why}"
            )
    room = max(width - len(happening.day) - len(mark) - 2, 10)
    if len(text) > room:
        text = text[: room - len(signs.ellipsis)].rstrip() + signs.ellipsis
    line = Text.assemble((happening.day, FAINT), " ", (f"{mark} {text}", style))
    return _printable(line, signs)


def money(value: Decimal, *, sign: bool = False) -> str:
    """Two decimals with thousands separators; zero has no sign."""
    rounded = round(value, 2)
    text = f"{abs(rounded):,.2f}"
    if rounded < 0:
        return f"\N{MINUS SIGN}{text}"
    return f"+{text}" if sign and rounded else text


def real_pnl(strategy: StrategyFigures) -> str:
    """Its P&L with real money; a dash where it never had any."""
    had_real = any(stay.stage.startswith("live") for stay in strategy.stays)
    return money(strategy.real_pnl, sign=True) if had_real else "\N{EN DASH}"


def by_stage(report: DemoReport) -> Iterator[tuple[str, list[StrategyFigures]]]:
    """The strategies of each stage that has any, the highest stage first, by name."""
    for stage in HIGHEST_FIRST:
        found = [strategy for strategy in report.strategies if strategy.stage == stage]
        if found:
            yield stage, sorted(found, key=lambda strategy: strategy.name)


def _printable(line: Text, signs: Signs) -> Text:
    """The line with signs that every terminal has, where only those can be printed."""
    line.rstrip()
    if signs is UNICODE:
        return line
    plain = line.plain.translate(_DASHES).encode("ascii", "replace").decode()
    replaced = line.copy()
    replaced.plain = plain  # signs are replaced one for one, so the styles stay in place
    return replaced


def _wrapped(text: str, width: int, style: str = "", indent: str = "") -> list[Text]:
    lines = textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent)
    return [Text(line, style=style) for line in lines]


# -- the opening and the proofs


def _opening(report: DemoReport, width: int) -> list[Text]:
    return [
        *_wrapped(
            f"{report.sessions:,} sessions, {report.first_session} to {report.last_session},"
            f" in {report.wall_s:.1f} s, seed {report.seed}, literal",
            width,
            HEAD,
        ),
        *_wrapped(
            f"default criteria, fees of {report.management_fee_bps / 100:g}% a year and"
            f" {report.performance_fee_pct:g}% of gains",
            width,
            FAINT,
        ),
    ]


def proofs(report: DemoReport) -> list[tuple[str, str]]:
    """What must hold: each as its state ("done", "look" or "wrong") and its sentence."""
    balance, alerts = report.trial_balance, report.alerts
    opened = ", ".join(report.open_breakers)
    count = len(report.open_breakers)
    crashed = ", ".join(report.drilled)
    return [
        (
            "wrong" if balance else "done",
            f"{report.entries:,} entries, trial balance {balance:.2f}",
        ),
        (
            "done" if report.fills == report.fills_booked else "wrong",
            f"{report.fills_booked:,} of {report.fills:,} fills booked once",
        ),
        (
            "done" if alerts.delivered == alerts.sent else "wrong",
            f"{alerts.delivered} of {alerts.sent} alerts delivered",
        ),
        ("look", f"{count} breaker{'s' * (count != 1)} open: {opened}")
        if count
        else ("done", "no breaker open"),
        (
            "done" if report.actor_restarts >= len(report.drilled) else "wrong",
            f"crashed on purpose and back: {crashed}",
        ),
        ("done", "kill switch off")
        if report.kill_switch == "OFF"
        else ("wrong", f"kill switch {report.kill_switch}"),
    ]


def _proofs(report: DemoReport, width: int, signs: Signs) -> Iterator[Text]:
    """Two in a row where both fit into their half."""
    half = width // 2
    waiting: Text | None = None
    for state, sentence in proofs(report):
        mark, style = {
            "done": (signs.done, ""),
            "look": (signs.look, LOOK),
            "wrong": (signs.wrong, WRONG),
        }[state]
        shown = Text(cut(f"{mark} {sentence}", width, signs), style=style)
        if len(shown) >= half:
            if waiting is not None:
                yield waiting
            yield shown
            waiting = None
        elif waiting is None:
            waiting = shown
        else:
            waiting.pad_right(half - len(waiting))
            yield Text.assemble(waiting, shown)
            waiting = None
    if waiting is not None:
        yield waiting


# -- the fund


def _fund(report: DemoReport, width: int, signs: Signs) -> Iterator[Text]:
    yield from _wrapped(
        f"NAV {money(report.nav)}   {money(report.nav - report.capital, sign=True)}   down"
        f" {report.drawdown_pct:.2f}%, worst {report.drawdown_pct_max:.2f}%, kill switch at"
        f" {report.kill_limit_pct:g}%",
        width,
        HEAD,
    )
    yield from _wrapped(
        f"trading made {money(report.trading_pnl, sign=True)},"
        f" fees took {money(report.total_fees)}",
        width,
    )
    yield Text()
    rows = (
        (
            "with the gates",
            report.nav_history.real_pnl,
            report.trading_pnl,
            report.gated_drawdown_pct_max,
        ),
        (
            "every strategy real from day one",
            report.nav_history.all_real_pnl,
            report.all_real_pnl,
            report.all_real_drawdown_pct_max,
        ),
    )
    # Two spaces before each column, 12 for a figure of money, 6 for the drawdown.
    left = width - 2 - 16 - 2 - 8
    charted = width >= NARROW
    chart = min(24, width - 2 - 40 - 26) if charted else 0
    chart = max(chart, 0)
    name = min(left - (chart + 2 if chart else 0), 40)
    yield _head("BEFORE FEES", name + (chart + 2 if chart else 0), "NAV", "worst")
    for label, curve, gain, worst in rows:
        yield Text.assemble(
            f"  {cut(label, name - 2, signs):<{name - 2}}",
            (f"  {spark(curve, chart, signs)}" if chart else "", FAINT),
            f"{money(report.capital + gain):>16}",
            f"{worst:>9.2f}%",
        )
    yield from _wrapped(gates_told(report), width, FAINT, "  ")


def gates_told(report: DemoReport) -> str:
    """The price of the gates in this window, and the risk that they took away."""
    cost = report.all_real_pnl - report.trading_pnl
    less = report.all_real_drawdown_pct_max - report.gated_drawdown_pct_max
    return (
        f"the gates {'cost' if cost > 0 else 'saved'} {money(abs(cost))} in these sessions, and the"
        f" worst drawdown was {abs(less):.2f} points {'smaller' if less >= 0 else 'larger'}"
    )


def _head(title: str, room: int, *columns: str) -> Text:
    widths = (16, 10)
    heads = "".join(f"{column:>{wide}}" for column, wide in zip(columns, widths, strict=True))
    return Text.assemble((f"{title[:room]:<{room}}", HEAD), (heads, FAINT))


# -- the strategies


def _strategies(report: DemoReport, width: int, signs: Signs) -> Iterator[Text]:
    beside = width >= WIDE
    # name, strip, spark, money, drawdown, each with a space before it
    if width >= NARROW:
        name_room, strip_room, spark_room = 23, 24, 8
    else:
        name_room, strip_room, spark_room = width - 22, 0, 0
    if beside:
        name_room = 33
    used = 2 + name_room + (strip_room + 1 if strip_room else 0)
    used += spark_room + 1 if spark_room else 0
    charts = f"{'stages over time':<{strip_room + 1}}result" if strip_room else ""
    heads = Text(f"{charts:<{max(used - name_room - 3, 0)}}     real P&L  down", style=FAINT)
    yield Text()
    if strip_room:
        yield from _legend(report, width, signs)
    for stage, strategies in by_stage(report):
        yield Text()
        title = f"{stage.upper().replace('-', ' ')} {len(strategies)}"
        yield Text.assemble((f"{cut(title, name_room + 2, signs):<{name_room + 3}}", HEAD), heads)
        heads = Text()
        for strategy in strategies:
            row = Text.assemble(
                f"  {cut(strategy.name, name_room, signs):<{name_room}}",
                *(_charts(strategy, report.sessions, strip_room, spark_room, signs)),
                f"{real_pnl(strategy):>13}",
                (f"{strategy.drawdown_pct:>5.1f}%", LOOK if _is_near(strategy) else ""),
            )
            style = LOOK if strategy.name in report.open_breakers else FAINT
            if not beside:
                yield row
                yield from _wrapped(strategy.reason, width, style, "    ")
                continue
            yield from _beside(row, _wrapped(strategy.reason, width - len(row) - 2, style))
    yield Text()


def _is_near(strategy: StrategyFigures) -> bool:
    """Whether four fifths of the way to its limit are gone, as the guard warns."""
    return strategy.limit_pct is not None and strategy.drawdown_pct >= 0.8 * strategy.limit_pct


def _charts(
    strategy: StrategyFigures, sessions: int, strip_room: int, spark_room: int, signs: Signs
) -> Iterator[Text | tuple[str, str] | str]:
    if not strip_room:
        return
    drawn = strip(strategy.stays, sessions, strip_room, signs)
    yield " "
    for sign in drawn:
        yield (sign, _STAGE_STYLES.get(sign, FAINT))
    yield (f" {spark(strategy.curve, spark_room, signs)}", FAINT)


def _beside(row: Text, reasons: Sequence[Text]) -> Iterator[Text]:
    room = len(row)
    for number, reason in enumerate(reasons or [Text()]):
        yield Text.assemble(row if not number else " " * room, "  ", reason)


def _legend(report: DemoReport, width: int, signs: Signs) -> list[Text]:
    shown = ("paper", "shadow", "live-small", "live-scaled")
    drawn = "   ".join(f"{signs.stages[stage] * 2} {stage}" for stage in shown)
    return _wrapped(f"{drawn}   from {report.first_session} on", width, FAINT)


def _demotions(report: DemoReport, width: int, signs: Signs) -> Iterator[Text]:
    moves = [happening for happening in report.happenings if happening.kind == "demote"]
    if not moves:
        return
    yield Text(f"DEMOTIONS {len(moves)}", style=HEAD)
    for move in moves:
        way = f"{move.from_stage} to {move.to_stage}"
        name = min(33, width - 2 - 11 - len(way) - 2)
        yield Text.assemble(
            f"  {move.day} {cut(move.strategy, name, signs):<{name}}  {way}"[:width]
        )
        yield from _wrapped(move.reason, width, FAINT, "    ")
    yield Text()


# -- the books, and the counts


def _books(report: DemoReport, width: int, signs: Signs) -> Iterator[Text]:
    name = min(22, width - 32)
    yield Text.assemble(
        (f"{cut('BOOKS', name, signs):<{name}}", HEAD),
        (f"{'balance sheet':>16}{'income':>16}", FAINT),
    )
    accounts = dict.fromkeys([*report.balance_sheet, *report.income_statement])

    def shown(amount: Decimal | None) -> str:
        return "" if amount is None else money(amount)

    for account in accounts:
        yield Text(
            f"  {cut(account, name - 2, signs):<{name - 2}}"
            f"{shown(report.balance_sheet.get(account)):>16}"
            f"{shown(report.income_statement.get(account)):>16}".rstrip()
        )
    yield Text()


def _rest(report: DemoReport, width: int) -> Iterator[Text]:
    alerts, recovery = report.alerts, report.recovery
    yield from _counts("Alerts", alerts.by_category, width)
    yield from _wrapped(
        f"{alerts.sent} sent, {alerts.suppressed} held back by the rate limit,"
        f" {alerts.repeats} repeats",
        width,
        FAINT,
        "  ",
    )
    yield from _counts(
        "Recovery", {key.replace("_", " "): count for key, count in recovery.items()}, width
    )
    yield from _counts("Actors of fundops", {"restarts": report.actor_restarts}, width)


def _counts(title: str, counts: Mapping[str, int], width: int) -> list[Text]:
    listed = ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"
    lines = _wrapped(f"{title}: {listed}", width)
    lines[0].stylize(HEAD, 0, len(title))
    return lines
