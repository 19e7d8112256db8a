"""The output of commands: one JSON object, or tables that fit the terminal.

An answer arrives as JSON values, and its shape from `fundops.cli.describe`:

| shape | answer |
|---|---|
| `("done",)` | none |
| `("flag", text)` | a truth; `text` says when a change answers False |
| `("value", kind)` | one figure or text |
| `("pairs", kind)` | figures by name |
| `("table", struct, fields)` | records, a line each; `fields` are pairs of name and kind |
| `("record", struct, fields)` | one record |

Kinds: amount, number, whole, flag, text, word (one of a few), time (microseconds), and nested,
which has no column. The printing functions return the exit code 0, so that a command can end with
one of them.
"""

from __future__ import annotations

import datetime as dt
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final, NamedTuple

from fundops.cli.grammar import Verb

__all__ = [
    "NOTES",
    "Column",
    "Whole",
    "amount",
    "counted",
    "error_json",
    "error_line",
    "moment",
    "number",
    "pairs",
    "print_answer",
    "print_json",
    "print_lines",
    "print_note",
    "print_pairs",
    "print_table",
    "table",
    "width",
    "without_empty",
]

WIDTH: Final = 80
# A column of names is not cut below this; a table that is still too wide is printed as pairs.
NAME_MIN: Final = 7
PROSE_MIN: Final = 12
GAP: Final = "  "

# The columns of a table by the class of its records, in this order; "a.b" is a text in a nested
# record. Other records have a column for each field that is not nested.
COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    "AsideReport": ("kind", "id", "key", "reason"),
    "ChannelTest": ("channel", "delivered", "error"),
    "HistoryEntry": (
        "seq",
        "effective_us",
        "strategy",
        "kind",
        "from_stage",
        "to_stage",
        "by",
        "reason",
    ),
    "NavSample": ("session", "nav", "drawdown_pct", "missed"),
    "PromotionSnapshot": ("name", "stage", "days_in_stage", "evaluation.why"),
    "RecoveryEvent": ("at_us", "target", "action", "attempt", "success", "by", "error"),
    "RecoveryStatus": ("name", "phase", "attempts", "due_us", "reason"),
}
HEADS: Final = {
    "at_us": "time (UTC)",
    "cooldown_until": "cooling until (UTC)",
    "days_in_stage": "days",
    "due_us": "due (UTC)",
    "effective_us": "time (UTC)",
    "evaluation.why": "why",
    "from_stage": "from",
    "to_stage": "to",
    "drawdown_pct": "drawdown %",
}
# Instants without the suffix, and quantities, which are no money.
KINDS: Final = {"cooldown_until": "time", "quantity": "quantity"}
# Cut at their end and not in the middle.
PROSE: Final = {"evaluation.why", "reason", "memo", "title", "message", "error", "problem", "text"}
# Typed again in another command, so never cut.
WHOLE: Final = {"key", "hash", "id"}

# Answers that need words of their own, by class: a function of the command, the answer and the path
# that prints it, or one of the answer alone that gives its lines.
SCREENS: Final[dict[str, str]] = {
    "AlertPage": "fundops.cli.screens:alerts",
    "AsideReport": "fundops.cli.screens:skipped",
    "Entry": "fundops.cli.screens:entries",
    "Evaluation": "fundops.cli.screens:evaluation",
    "FundStatus": "fundops.cli.screens:status",
    "Posted": "fundops.cli.screens:posted",
    "PromotionSnapshot": "fundops.cli.screens:strategy",
    "Why": "fundops.cli.screens:why",
}
# By command: a function of the path and the values given, whose text is printed on stderr.
NOTES: Final = {"ledger.nav": "fundops.cli.screens:unpriced"}


# -- JSON


def print_json(words: str, answer: Any) -> int:
    """Print one JSON object. An answer that is none is wrapped under the command's last word."""
    import msgspec

    from fundops.control.arguments import plain

    told = plain(answer)
    if not isinstance(told, dict):
        told = {words.rpartition(" ")[2].replace("-", "_"): told}
    text = msgspec.json.encode(told).decode()
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        import json

        text = json.dumps(msgspec.json.decode(text), separators=(",", ":"))  # in ASCII
    print(text)
    return 0


def error_json(facts: Mapping[str, Any]) -> str:
    """An error as one line of JSON."""
    import json

    return json.dumps({"error": facts}, separators=(",", ":"))


def error_line(text: str) -> str:
    """An error as one line of text."""
    return f"fundops: {_clean(' '.join(text.split()))}"


# -- figures and texts


def width() -> int:
    """The columns to print in: the terminal's, or 80 where there is none."""
    if sys.stdout is None or not sys.stdout.isatty():  # None: it is closed
        return WIDTH
    return max(20, shutil.get_terminal_size((WIDTH, 24)).columns)


def amount(text: str, decimals_min: int = 2) -> str:
    """Decimal text with thousands separators, and as many decimals as it needs."""
    sign, digits = ("-", text[1:]) if text.startswith("-") else ("", text)
    whole, _, decimals = digits.partition(".")
    if not whole.isdecimal() or (decimals and not decimals.isdecimal()):
        return text
    decimals = decimals.rstrip("0").ljust(decimals_min, "0")
    return f"{sign}{int(whole):,}{'.' if decimals else ''}{decimals}"


def moment(at_us: int) -> str:
    """An instant to the second, UTC."""
    try:
        at = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(microseconds=at_us)
    except OverflowError:
        return str(at_us)
    return at.strftime("%Y-%m-%d %H:%M:%S")


def counted(count: int, noun: str, nouns: str = "") -> str:
    """A number with its noun, such as "1 entry" or "2,000 entries"."""
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def number(value: float) -> str:
    """A number that is no money, with at most four decimals."""
    text = f"{value:,.2f}" if abs(value) >= 1_000 else f"{value:.4f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _figure(value: Any, kind: str) -> str:
    if value is None:
        return ""
    if kind == "amount":
        return amount(str(value))
    if kind == "quantity":
        return amount(str(value), 0)
    if kind == "time":
        return moment(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}" if kind != "plain" else str(value)
    if isinstance(value, float):
        return number(value)
    return _clean(str(value))


def _clean(text: str) -> str:
    """The text without what would move a terminal's cursor, or cannot be printed on it."""
    text = "".join(sign if sign.isprintable() else " " for sign in text)
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    return text.encode(encoding, "replace").decode(encoding)


def _ellipsis() -> str:
    try:
        "…".encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return "~"
    return "…"


# -- pairs and tables


class Whole(str):
    """A figure or a key: it is never cut, since a part of it would be another one."""


class Column(NamedTuple):
    """One column of a table."""

    head: str
    right: bool = False  # aligned, as figures are
    cut: str = ""  # "middle" or "end" of its texts, where there is no room; "": never

    def fitted(self, text: str, room: int) -> str:
        """The text in `room` columns."""
        if len(text) > room:
            mark = _ellipsis()
            left = room - len(mark)
            if self.cut == "end":
                return f"{text[:left].rstrip()}{mark}"
            tail = left // 2
            return f"{text[: left - tail]}{mark}{text[len(text) - tail :]}"
        return text.rjust(room) if self.right else text.ljust(room)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table that is no wider than the terminal.

    Names are cut, figures never. Where that is not enough, columns without a value are left out,
    and then each row becomes a block of pairs.
    """
    widths = _widths(columns, rows)
    if widths is None and rows:
        columns, rows = without_empty(columns, rows)
        widths = _widths(columns, rows)
    if widths is None:
        return _blocks(columns, rows)
    lines = []
    for cells in ([column.head for column in columns], *rows):
        fitted = [
            column.fitted(cell, room)
            for column, cell, room in zip(columns, cells, widths, strict=True)
        ]
        lines.append(GAP.join(fitted).rstrip())
    return lines


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int] | None:
    """The width of each column; None where the terminal is too narrow for them."""
    widths = [
        max([len(column.head), *(len(row[at]) for row in rows)])
        for at, column in enumerate(columns)
    ]
    room = width() - len(GAP) * (len(columns) - 1)
    while sum(widths) > room:
        cuttable = [
            at
            for at, column in enumerate(columns)
            if column.cut and widths[at] > max(NAME_MIN, len(column.head))
        ]
        if not cuttable:
            return None
        # Prose gives way before names do.
        prose = [at for at in cuttable if columns[at].cut == "end" and widths[at] > PROSE_MIN]
        widths[max(prose or cuttable, key=lambda at: widths[at])] -= 1
    return widths


def without_empty(
    columns: Sequence[Column], rows: Sequence[Sequence[str]]
) -> tuple[list[Column], list[list[str]]]:
    """The table without the columns that are empty in every row."""
    kept = [at for at in range(len(columns)) if any(row[at] for row in rows)]
    return [columns[at] for at in kept], [[row[at] for at in kept] for row in rows]


def _blocks(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[str]:
    heads = [column.head for column in columns]
    blocks = [
        pairs(
            [
                (head, cell if column.cut else Whole(cell))
                for head, column, cell in zip(heads, columns, row, strict=True)
                if cell
            ]
        )
        for row in rows
    ]
    return [line for block in blocks for line in [*block, ""]][:-1]


def pairs(
    found: Iterable[tuple[str, str]], *, right: bool = False, wrapped: bool = False
) -> list[str]:
    """The lines of names and values in two columns.

    `right` aligns the values as figures; `wrapped` breaks a long text over lines and cuts nothing.
    """
    shown = list(found)
    value_width = max((len(value) for _, value in shown), default=0)
    name_width = max((len(name) for name, _ in shown), default=0)
    room = width()
    if not right:
        name_width = min(name_width, max(NAME_MIN, room // 3))
        names, texts = Column("", cut="middle"), Column("", cut="end")
        left = max(room - name_width - len(GAP), NAME_MIN)
        lines = []
        for name, value in shown:
            parts = [value if isinstance(value, Whole) else texts.fitted(value, left)]
            if wrapped and not isinstance(value, Whole):
                parts = textwrap.wrap(value, left) or [""]
            heads = [names.fitted(name, name_width), *[" " * name_width] * (len(parts) - 1)]
            lines += [GAP.join(line).rstrip() for line in zip(heads, parts, strict=True)]
        return lines
    name_width = min(name_width, max(room - value_width - len(GAP), NAME_MIN))
    names = Column("", cut="middle")
    return [
        f"{names.fitted(name, name_width)}{GAP}{value.rjust(value_width)}" for name, value in shown
    ]


def print_pairs(found: Mapping[str, Any]) -> int:
    """Print one line for each name and value; None is left out."""
    shown = [
        (name.replace("_", " "), _figure(value, "whole"))
        for name, value in found.items()
        if value is not None
    ]
    return print_lines(pairs(shown, wrapped=True))


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> int:
    """Print a table, or that it has no rows."""
    return print_lines(table(columns, rows) if rows else ["none"])


def print_lines(lines: Iterable[str]) -> int:
    """Print them, without what would move a terminal's cursor."""
    for line in lines:
        print(_clean(line))
    return 0


def print_note(target: str, path: Path, given: Mapping[str, Any]) -> None:
    """Print a remark on the answer on stderr, if there is one."""
    text = _function(target)(path, given)
    if text:
        print(f"fundops: {text}", file=sys.stderr)


# -- answers by their shape


def print_answer(verb: Verb, answer: Any, path: Path, given: Mapping[str, Any]) -> int:
    """Print an answer for a person. `given` has the values of the arguments by their labels."""
    shape, *rest = verb.answer
    if shape in ("table", "record") and answer is not None:
        screen = SCREENS.get(rest[0])
        if screen is not None and (shape == "record") != (rest[0] in _LISTED):
            return print_lines(_function(screen)(verb, answer, path))
    asset = str(given.get("--asset") or "")
    return print_lines(_SHAPES[shape](verb, answer, asset or _Currency(path), *rest))


# Screens of lists; every other one is that of a single record.
_LISTED: Final = {"Entry"}


def _function(target: str) -> Callable[..., Any]:
    module, _, name = target.partition(":")
    found: Callable[..., Any] = getattr(import_module(module), name)
    return found


class _Currency:
    """The currency of a database, read only where an amount is shown."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        from fundops.file import meta

        return meta.read_file(self._path).get("currency", "")


def _done(_verb: Verb, _answer: Any, _asset: Any) -> list[str]:
    return ["done"]


def _flag(verb: Verb, answer: Any, _asset: Any, when_false: str) -> list[str]:
    if verb.reads:
        return ["yes" if answer else "no"]
    return ["done" if answer else f"nothing changed: {when_false or 'there was nothing to do'}"]


def _value(_verb: Verb, answer: Any, asset: Any, kind: str) -> list[str]:
    text = _figure(answer, kind)
    return [f"{text} {asset}" if kind == "amount" else text]


def _pairs(verb: Verb, answer: Any, asset: Any, kind: str) -> list[str]:
    if not answer:
        return ["none"]
    shown = [
        (_clean(name) or "(the fund)", "none" if value is None else _figure(value, kind))
        for name, value in answer.items()
    ]
    head = [("", str(asset))] if kind == "amount" else []
    return pairs([*head, *shown], right=True)


Fields = Sequence[tuple[str, str]]


def _record(_verb: Verb, answer: Any, asset: Any, _name: str, fields: Fields) -> list[str]:
    if answer is None:
        return ["none"]
    kinds = dict(fields)
    shown = []
    for name, value in answer.items():
        kind = KINDS.get(name, kinds.get(name, "text"))
        if value is None or value == "" or kind == "nested":
            continue
        unit = f" {asset}" if kind == "amount" else ""
        text = f"{_figure(value, kind)}{unit}"
        cut = kind == "text" and name not in WHOLE
        shown.append((_head(name), text if cut else Whole(text)))
    return pairs(shown, wrapped=True)


def _table(_verb: Verb, answer: Any, asset: Any, name: str, fields: Fields) -> list[str]:
    if not answer:
        return ["none"]
    chosen = COLUMNS.get(name, ())
    kinds = {field: "text" for field in chosen if "." in field}
    kinds |= {field: KINDS.get(field, kind) for field, kind in fields}
    names = [field for field in chosen or kinds if kinds.get(field, "nested") != "nested"]
    columns = [_column(field, kinds[field]) for field in names]
    rows = [[_figure(_within(row, field), kinds[field]) for field in names] for row in answer]
    in_money = [f"in {asset}"] if "amount" in {kinds[field] for field in names} else []
    return [*in_money, *table(columns, rows)]


def _within(row: Any, field: str) -> Any:
    for part in field.split("."):
        row = row.get(part)
    return row


def _head(field: str) -> str:
    return HEADS.get(field, field.removesuffix("_us").replace("_", " "))


def _column(field: str, kind: str) -> Column:
    right = kind in ("amount", "quantity", "number", "whole")
    cut = "" if right or kind in ("time", "flag", "word") or field in WHOLE else "middle"
    return Column(_head(field), right, "end" if field in PROSE else cut)


_SHAPES: Final[dict[str, Callable[..., list[str]]]] = {
    "done": _done,
    "flag": _flag,
    "value": _value,
    "pairs": _pairs,
    "record": _record,
    "table": _table,
}
