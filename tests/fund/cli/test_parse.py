"""From words to a command and its values: what is taken, and what is refused in one line."""

from __future__ import annotations

import datetime as dt
import shlex
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fundops.cli.given import arguments_of
from fundops.cli.grammar import UsageError, Verb
from fundops.cli.parse import parser_of, values_of, verb_of
from fundops.cli.verbs import VERBS
from fundops.wire.border import NAME_MAX
from fundops.wire.errors import AmountError
from fundops.wire.shell import PERSON, shell_command

BY_WORDS = {verb.words: verb for verb in VERBS}


def values(line: str) -> dict[str, Any]:
    verb, _, left = verb_of(line.split(), VERBS)
    assert verb is not None
    return values_of(verb, left)


def arguments(line: str) -> dict[str, Any]:
    verb, _, left = verb_of(line.split(), VERBS)
    assert verb is not None
    return arguments_of(verb, values_of(verb, left))


def refusal(line: str) -> str:
    with pytest.raises(UsageError) as refused:
        arguments(line)
    text = str(refused.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ledger deposit 5", {"AMOUNT": "5"}),
        ("ledger deposit -5", {"AMOUNT": "-5"}),
        ("ledger deposit -.5 --memo=--rent--", {"AMOUNT": "-.5", "--memo": "--rent--"}),
        ("ledger deposit -1e3", {"AMOUNT": "-1e3"}),
        ("ledger deposit --memo -1e3 5", {"AMOUNT": "5", "--memo": "-1e3"}),
        ("ledger deposit --memo=-x 5", {"AMOUNT": "5", "--memo": "-x"}),
        ("ledger deposit --memo=--json 5", {"AMOUNT": "5", "--memo": "--json"}),
        ("ledger deposit --memo rent 5", {"AMOUNT": "5", "--memo": "rent"}),
        ("ledger deposit --json --memo m -- -x", {"AMOUNT": "-x", "--memo": "m", "--json": True}),
        ("strategy history --limit 3 trend", {"NAME": "trend", "--limit": 3}),
        (
            "strategy history --json trend --limit 3",
            {"NAME": "trend", "--limit": 3, "--json": True},
        ),
        ("strategy history -- --trend", {"NAME": "--trend"}),
        ("ledger deposit --json -- -5", {"AMOUNT": "-5", "--json": True}),
        ("ledger deposit 5 --memo=", {"AMOUNT": "5", "--memo": ""}),
        ("ledger post --debit A=1 --debit B=2", {"--debit": ["A=1", "B=2"]}),
        ("ledger verify --level 3", {"--level": 3}),
        ("ledger verify --anchor 7 ab", {"--anchor": ["7", "ab"]}),
        ("ledger entries --after -1 --limit 3", {"--after": -1, "--limit": 3}),
        ("strategy history", {}),
        ("strategy history trend", {"NAME": "trend"}),
        ("strategy register a --stage shadow", {"NAME": "a", "--stage": "shadow"}),
        (
            "strategy record a x=1 y=2",
            {"NAME": "a", "METRIC=VALUE": ["x=1", "y=2"]},
        ),
        ("demo --start 2010-01-04", {"--start": dt.date(2010, 1, 4)}),
        ("backup x.db", {"PATH": Path("x.db")}),
        ("bench a b --scale 0.5", {"NAME": ["a", "b"], "--scale": 0.5}),
    ],
)
def test_words_are_taken_as_they_are_meant(line: str, expected: dict[str, Any]) -> None:
    assert values(line) == expected


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("ledger deposit", "the following arguments are required: AMOUNT; `fundops ledger dep"),
        ("ledger deposit 5 6", "unrecognized arguments: 6; `fundops ledger deposit --help` exp"),
        ("ledger deposit 5 -k", "unrecognized arguments: -k; `fundops ledger deposit --help`"),
        ("ledger deposit 5 --ke v", "unrecognized arguments: --ke v; `fundops ledger deposit"),
        ("ledger deposit 5 --no-json", "unrecognized arguments: --no-json; "),
        ("ledger deposit 5 --memo -x", "--memo: expected one argument; "),
        ("ledger deposit 5 --key", "--key: expected one argument; `fundops ledger deposit"),
        ("ledger deposit 5 --key --json", "--key: expected one argument; "),
        ("ledger deposit 5 --key a --key b", "--key: is given twice"),
        ("ledger deposit 5 --json=yes", "--json: ignored explicit argument 'yes'"),
        ("ledger verify --level 9", "--level: invalid choice: '9' (choose from 0, 1, 2, 3)"),
        ("ledger verify --anchor 7", "--anchor: expected 2 arguments"),
        ("ledger verify --anchor 7 a --anchor 8 b", "--anchor: is given twice"),
        ("ledger entries --limit 1.5", "--limit: '1.5' is not a whole number"),
        ("ledger entries --limit ٣", "--limit: '٣' is not a whole number"),
        ("ledger entries --limit " + "9" * 500, f"--limit: '{'9' * 80}...' is not a whole num"),
        ("bench --scale nan", "--scale: 'nan' is not a number"),
        ("demo --start 2009-13-01", "--start: '2009-13-01' is not a date, YYYY-MM-DD"),
        ("strategy promote a --to top", "--to: invalid choice: 'top' (choose from "),
        ("strategy promote a --to " + "x" * 99, f"--to: invalid choice: '{'x' * 80}...' ("),
        ("strategy adopt a top", "STAGE: invalid choice: 'top' (choose from "),
        ("ledger reverse 5", "the following arguments are required: --reason"),
        ("ledger post --debit CASH", "--debit: 'CASH' is not ACCOUNT=AMOUNT"),
        ("ledger correct 1 { --reason x", "ENTRY: '{' is not JSON: "),
        ("ledger opening-balances 1 --position X=1", "--position: 'X=1' is not INSTRUMENT=QUAN"),
        ("ledger opening-balances 1 --position 1,2", "--position: '1,2' is not INSTRUMENT=QUA"),
    ],
)
def test_a_refusal_names_the_argument_as_it_is_typed(line: str, text: str) -> None:
    assert refusal(line).startswith(text)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("nosuch", "there is no command 'nosuch'; `fundops --help` lists them all"),
        ("statis", "there is no command 'statis'; did you mean `fundops status`?"),
        ("ledgr", "there is no command 'ledgr'; did you mean `fundops ledger`?"),
        ("ledger depsit 5", "there is no command 'ledger depsit'; did you mean `fundops ledger de"),
        ("ledger zzz", "there is no command 'ledger zzz'; `fundops ledger --help` lists them"),
    ],
)
def test_an_unknown_command_is_told_with_a_similar_one(line: str, text: str) -> None:
    with pytest.raises(UsageError) as refused:
        verb_of(line.split(), VERBS)
    assert str(refused.value).startswith(text)


def test_help_is_given_although_the_rest_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    verb = BY_WORDS["ledger deposit"]
    for words in (["--nosuch", "--help"], ["-h"], ["5", "--help", "6"]):
        with pytest.raises(SystemExit) as ended:
            values_of(verb, words)
        assert ended.value.code == 0
        assert capsys.readouterr().out == parser_of(verb).format_help()
    assert values_of(verb, ["--", "-h"]) == {"AMOUNT": "-h"}


def test_a_long_refusal_is_cut_and_stays_one_line() -> None:
    text = refusal("ledger deposit 5 " + "6 " * 1000)
    assert len(text) < 400
    assert text.endswith("...; `fundops ledger deposit --help` explains it")
    with pytest.raises(UsageError, match="unrecognized arguments: a b; "):
        values_of(BY_WORDS["ledger deposit"], ["5", "a\nb"])


def test_the_values_are_as_the_commands_take_them() -> None:
    assert arguments("ledger post --credit EXTERNAL=5 --debit CASH=5 --memo m") == {
        "entry": [
            {"account": "CASH", "amount": "5.00000000"},
            {"account": "EXTERNAL", "amount": "-5.00000000"},
        ],
        "memo": "m",
    }
    assert arguments("ledger opening-balances 9 --position A=B=-1,50 --position X=1,2,3") == {
        "cash": "9",
        "positions": [
            {"instrument": "A=B", "quantity": "-1", "cost": "50"},
            {"instrument": "X", "quantity": "1", "cost": "2", "value": "3"},
        ],
    }
    assert arguments('ledger correct 2 {"type":"profit","amount":"1"} --reason x') == {
        "seq": 2,
        "entry": {"type": "profit", "amount": "1"},
        "reason": "x",
    }
    # Python asks for these two, where leaving them out could be a slip.
    assert arguments("ledger transfer X 5 --to-strategy a") == {
        "instrument": "X",
        "quantity": "5",
        "from_strategy": None,
        "to_strategy": "a",
    }
    with pytest.raises(AmountError, match="CASH: "):
        arguments("ledger post --debit CASH=-5 --credit EXTERNAL=5")


def test_the_words_of_a_command_do_not_begin_another() -> None:
    def taken(words: str) -> Verb | None:
        return verb_of(words.split(), VERBS)[0]

    for verb in VERBS:
        assert taken(verb.words) is verb


# Each command that an answer or an alert tells to type for one strategy, as it is told.
TOLD = [
    ("why", "", ""),
    ("strategy resume", PERSON, ""),
    ("strategy register", "", ""),
    ("strategy adopt", PERSON, "paper"),
    ("strategy record", "", "METRIC=VALUE"),
    ("strategy promote", "--to live", ""),
    ("strategy approve", "", ""),
    ("strategy unfreeze", "", ""),
    ("recovery reset", "--by NAME", ""),
    ("recovery release", "", ""),
    ("confirm counters", PERSON, ""),
]
NAMES = st.text(min_size=1, max_size=NAME_MAX).filter(
    lambda name: name.isprintable() and name.strip() == name
)


@pytest.mark.parametrize(("words", "options", "more"), TOLD)
@given(name=NAMES | NAMES.map("-{}".format))
@example(name="-x")
@example(name="--all")
@example(name="--")
@example(name="-1")
@example(name="--by=x")
@example(name="it's $(rm -rf)")
def test_a_command_that_is_told_names_its_strategy_whatever_the_name(
    words: str, options: str, more: str, name: str
) -> None:
    program, *typed = shlex.split(shell_command(words, name, options, more=more))
    verb, _, left = verb_of(typed, VERBS)
    assert (program, verb) == ("fundops", BY_WORDS[words])
    assert verb is not None
    found = values_of(verb, left)
    place = next(parameter for parameter in verb.parameters if not parameter.is_option)
    assert found.pop(place.label) == name
    option = shlex.split(options)
    assert {label: found.pop(label) for label in option[::2]} == dict(
        zip(option[::2], option[1::2], strict=True)
    )
    assert found == {label: value for label, value in found.items() if more}
