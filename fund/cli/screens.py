"""Answers that need words of their own: the fund at one glance, a page of the journal, an alert."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from fundops.cli.grammar import Verb
from fundops.cli.show import (
    Column,
    Whole,
    amount,
    counted,
    moment,
    number,
    pairs,
    table,
    without_empty,
)

__all__ = [
    "alerts",
    "criteria",
    "entries",
    "entries_of",
    "evaluation",
    "posted",
    "reconciled",
    "skipped",
    "status",
    "strategy",
    "unpriced",
    "why",
]

_NAME = Column("name", cut="middle")
_NO_LEG = {"account": "", "amount": "", "asset": None}


def posted(_verb: Verb, answer: dict[str, Any], _path: Path) -> list[str]:
    """One line for an entry that is booked."""
    again = " (booked before)" if answer["replayed"] else ""
    # The whole hash is with the entry and in `ledger anchor`; its beginning fits on the line.
    return [f"entry {answer['seq']}{again}  key {answer['key']}  hash {answer['hash'][:12]}"]


def skipped(_verb: Verb, answer: dict[str, Any], _path: Path) -> list[str]:
    """One line for a report that was given up."""
    return [f"given up: {answer['kind']} {answer['id']}  key {answer['key']}"]


def entries(_verb: Verb, answer: list[dict[str, Any]], path: Path) -> list[str]:
    """A page of the journal: a line for each leg, with the entry's facts on the first one."""
    return entries_of(answer, path) if answer else ["none"]


def entries_of(answer: list[dict[str, Any]], path: Path) -> list[str]:
    """The lines of at least one entry."""
    currency = _currency(path)
    rows = []
    for entry in answer:
        facts = [str(entry["seq"]), entry["day"], entry["kind"], entry["strategy"] or ""]
        memo = entry["memo"]
        for leg in entry["legs"] or [_NO_LEG]:
            other = leg["asset"] if leg["asset"] not in (None, currency) else ""
            rows.append([*facts, leg["account"], amount(leg["amount"]), other, memo])
            facts, memo = ["", "", "", ""], ""
    columns = (
        Column("seq", right=True),
        Column("day"),
        Column("kind"),
        Column("strategy", cut="middle"),
        Column("account", cut="middle"),
        Column(currency, right=True),
        Column("asset", cut="middle"),
        Column("memo", cut="end"),
    )
    return table(*without_empty(columns, rows))


def reconciled(answer: dict[str, Any], path: Path) -> list[str]:
    """The figures that differ between the books and a broker's statements, and the entries."""
    scope = [answer["scope"]] if answer["scope"] else []
    if answer["differs"] is None:
        return [f"books and statements agree on all of {counted(answer['days'], 'day')}", *scope]
    agreed = "on no day before" if answer["agreed"] is None else f"last on {answer['agreed']}"
    columns = (
        Column("figure", cut="middle"),
        Column("books", right=True),
        Column("statement", right=True),
        Column("difference", right=True),
    )
    rows = [
        [
            figure["name"],
            *(amount(figure[side]) for side in ("books", "statement")),
            amount(str(Decimal(figure["books"]) - Decimal(figure["statement"]))),
        ]
        for figure in answer["breaks"]
    ]
    between = len(answer["entries"]) + answer["entries_left_out"]
    lines = [
        f"books and statement differ on {answer['differs']} and agreed {agreed}",
        *scope,
        *("", *table(columns, rows), ""),
        f"{counted(between, 'entry', 'entries')} between",
    ]
    return lines + (entries_of(answer["entries"], path) if answer["entries"] else [])


def alerts(_verb: Verb, answer: dict[str, Any], _path: Path) -> list[str]:
    """The newest alerts, and how many were held back."""
    columns = (
        Column("time (UTC)"),
        Column("level"),
        Column("category", cut="middle"),
        Column("outcome", cut="middle"),
        Column("title", cut="end"),
    )
    rows = [
        [
            moment(alert["at_us"]),
            alert["level"],
            alert["category"],
            alert["outcome"],
            alert["title"],
        ]
        for alert in answer["alerts"]
    ]
    lines = table(columns, rows) if rows else ["none"]
    held_back = sum(answer["suppressed_by_category"].values())
    if held_back:
        told = counted(held_back, "alert")
        lines.append(f"held back by the rate limit, of the whole history: {told}")
    return lines


def evaluation(_verb: Verb, answer: dict[str, Any], _path: Path) -> list[str]:
    """The verdict on a strategy, and each criterion of its gate."""
    return _evaluated(answer)


def _evaluated(answer: dict[str, Any]) -> list[str]:
    target = answer["target"] or "no higher stage"
    lines = [f"{answer['strategy']}: {answer['stage']} to {target}: {answer['verdict']}"]
    blocked = answer["would_do"] in ("none", "demote")
    lines.append(f"not promoted: {answer['why']}" if blocked else answer["why"])
    return [*lines, *(["", *criteria(answer)] if answer["criteria"] else [])]


def criteria(answer: dict[str, Any]) -> list[str]:
    """The table of the criteria of an evaluation."""
    rows = [
        [
            criterion["name"],
            "" if criterion["observed"] is None else number(criterion["observed"]),
            f"{criterion['op']} {number(criterion['limit'])} {criterion['unit']}".strip(),
            criterion["verdict"],
            criterion["reason"],
        ]
        for criterion in answer["criteria"]
    ]
    columns = (
        Column("criterion", cut="middle"),
        Column("observed", right=True),
        Column("needed"),
        Column("verdict"),
        Column("reason", cut="end"),
    )
    return table(columns, rows)


def strategy(_verb: Verb, answer: dict[str, Any], _path: Path) -> list[str]:
    """One strategy: its stage, its metrics, the verdict on it, and its last changes."""
    facts = [
        ("strategy", answer["name"]),
        ("id", Whole(answer["strategy_id"])),
        ("stage", f"{answer['stage']} for {answer['days_in_stage']:,.2f} days"),
        ("revision", str(answer["rev"])),
    ]
    if answer["frozen"]:
        facts.append(("frozen", "yes: it is not promoted"))
    if answer["cooldown_until"] is not None:
        facts.append(("cooling until", f"{moment(answer['cooldown_until'])} UTC"))
    lines = [*pairs(facts), "", *_evaluated(answer["evaluation"])]
    if answer["metrics"]:
        metrics = [(name, number(value)) for name, value in answer["metrics"].items()]
        lines += ["", "metrics:", *pairs(metrics, right=True)]
    if answer["history"]:
        rows = [
            [moment(line["effective_us"]), line["kind"], line["to_stage"], line["by"]]
            for line in answer["history"]
        ]
        columns = (
            Column("time (UTC)"),
            Column("change"),
            Column("stage"),
            Column("by", cut="middle"),
        )
        lines += ["", *table(columns, rows)]
    return lines


def why(_verb: Verb, answer: dict[str, Any], _path: Path) -> list[str]:
    """Every blocker between a strategy and real orders, with the command that lifts it."""
    stage = f"stage {answer['stage']}, " if answer["stage"] else ""
    may = {True: "may", False: "may not"}
    lines = [
        f"{answer['strategy']}: {stage}mode {answer['mode']}, capital {amount(answer['capital'])}",
        f"real orders: {may[answer['may_open']]} open, {may[answer['may_close']]} close",
    ]
    for place, blocker in enumerate(answer["blockers"], 1):
        lines.append(f"{place}. {blocker['kind'].replace('_', ' ')}: {blocker['text']}")
        lines.append(f"   lifted by: {blocker['lift']}")
    if not answer["blockers"]:
        lines.append("no blocker")
    return [*lines, *(f"note: {note}" for note in answer["notes"])]


def unpriced(path: Path, given: Mapping[str, Any]) -> str:
    """The assets that the NAV does not count."""
    from fundops.cli.run import opened
    from fundops.control.arguments import bound

    as_of = {"as_of": given["--as-of"]} if "--as-of" in given else {}
    with opened(path) as reader:
        prices = reader.prices(**bound(reader.prices, as_of))
    names = [asset for asset, price in prices.items() if price is None]
    return f"not counted, without a price: {', '.join(names)}" if names else ""


# -- the fund at one glance


def status(_verb: Verb, answer: dict[str, Any], path: Path) -> list[str]:
    """The fund on one screen, and a line for each strategy."""
    from fundops.file import meta

    identity = meta.read_file(path)
    stages = ", ".join(f"{count} {stage}" for stage, count in answer["strategies_by_stage"].items())
    strategies = f"{answer['running_strategies']} running"
    ticked_s, age_s = answer["tick_age_s"], answer["data_age_s"]
    silent = f"; the host is silent, its data {_age(age_s or 0)} old" if answer["stale"] else ""
    last = "none yet" if ticked_s is None else f"{_age(ticked_s)} ago{silent}"
    doubt = [("clock", "in doubt: `fundops confirm clock`")] if answer["clock_suspect"] else []
    currency = identity.get("currency", "")
    shown = [
        ("fund", identity.get("name", "")),
        ("NAV", Whole(f"{amount(answer['nav'])} {currency}")),
        ("drawdown", f"{answer['drawdown_pct']:.2f} %"),
        ("kill switch", answer["kill_switch"]),
        ("mode", answer["mode"]),
        ("strategies", f"{strategies}; {stages}" if stages else strategies),
        ("breakers open", str(answer["breakers_open"])),
        ("alerts in 24 h", str(answer["alerts_24h"])),
        ("fees", Whole(amount(answer["total_fees"]))),
        ("last tick", last),
        *doubt,
    ]
    return [*pairs(shown), *_strategies(path)]


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3_600:,.0f} h"


def _strategies(path: Path) -> list[str]:
    stages = {row["name"]: row for row in _asked(path, "promotion.strategies")}
    phases = {row["name"]: row for row in _asked(path, "recovery.statuses")}
    rows = []
    for name in sorted({*stages, *phases}):
        stage, phase = stages.get(name), phases.get(name)
        rows.append(
            [
                name,
                stage["stage"] if stage else "",
                f"{stage['days_in_stage']:,.1f}" if stage else "",
                phase["phase"] if phase else "",
                _standing(stage),
            ]
        )
    columns = (
        _NAME,
        Column("stage"),
        Column("days", right=True),
        Column("recovery"),
        Column("promotion", cut="end"),
    )
    return ["", *table(*without_empty(columns, rows))] if rows else []


def _standing(stage: dict[str, Any] | None) -> str:
    if stage is None:
        return ""
    return str(stage["evaluation"]["why"])


def _asked(path: Path, command: str) -> list[dict[str, Any]]:
    """The fund's answer; none where the subsystem is off."""
    from fundops.control.client import call
    from fundops.errors import SubsystemDisabled

    try:
        answer: list[dict[str, Any]] = call(path, command)
    except SubsystemDisabled:
        return []
    return answer


def _currency(path: Path) -> str:
    from fundops.file import meta

    return meta.read_file(path).get("currency", "")
