"""The commands as they come out of the table: each of them complete, and a new row by itself."""

from __future__ import annotations

import inspect
import json
import re
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from decimal import Decimal
from importlib import import_module, util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fundops import FundConfig, FundManager, open_reader
from fundops.cli import app as cli
from fundops.cli import describe, help, meanings
from fundops.cli.grammar import GROUPS, Verb
from fundops.cli.parse import KINDS, parser_of
from fundops.cli.show import _SHAPES, COLUMNS, NOTES, SCREENS
from fundops.cli.verbs import VERBS
from fundops.control import call
from fundops.control.commands import COMMANDS, Command
from fundops.doors import LedgerDoor
from fundops.reader import FundReader

DEADLINE_S = 60
ROOT = Path(__file__).parents[3]
EACH = [pytest.param(verb, id=verb.words) for verb in VERBS]


@pytest.fixture(autouse=True)
def _places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="fo", dir="/tmp") as runtime:
        monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
        monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path))
        monkeypatch.setenv("USER", "ann")
        monkeypatch.setenv("LOGNAME", "ann")
        yield


def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["fundops", *words])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        cli.main()
    out, err = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, out, err


def generator(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs")  # as for any script: it imports one beside it
    spec = util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- complete


def test_the_data_is_what_the_table_and_the_functions_say() -> None:
    assert describe.verbs() == VERBS, "stale: run `python docs/generate.py`"


def test_each_row_with_words_is_a_command_and_no_two_have_the_same() -> None:
    words = [verb.words for verb in VERBS]
    assert len(words) == len(set(words))
    assert {row.words for row in COMMANDS.values() if row.words} <= set(words)
    assert {verb.group for verb in VERBS} == set(GROUPS)
    # A command with the words of a group could not be told from it.
    assert not set(words) & set(GROUPS)


@pytest.mark.parametrize("verb", EACH)
def test_each_argument_has_a_meaning_a_kind_and_a_label_of_its_own(verb: Verb) -> None:
    labels = [parameter.label for parameter in verb.parameters]
    assert len(labels) == len(set(labels))
    for parameter in verb.parameters:
        assert parameter.meaning
        assert parameter.kind in KINDS
        assert parameter.is_option or parameter.label.isupper()
        # A default is told once.
        assert "default" not in parameter.meaning or not parameter.default
    assert {"--db", "--json"} <= set(labels) or verb.words in ("gate", "mcp", "bench")
    assert "--by" in labels or verb.reads or verb.run


@pytest.mark.parametrize("verb", EACH)
def test_each_command_can_be_run_and_its_answer_be_shown(verb: Verb) -> None:
    if verb.run:
        module, _, name = verb.run.partition(":")
        assert callable(getattr(import_module(module), name))
        return
    assert verb.answer[0] in _SHAPES
    row = COMMANDS[verb.command]
    if verb.reader:
        taken = inspect.signature(getattr(FundReader, verb.reader)).parameters
        assert set(row.signature.parameters) <= set(taken)


def test_an_argument_without_a_meaning_is_refused_when_the_data_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(meanings.MEANINGS, "amount")
    with pytest.raises(LookupError, match="has an argument 'amount' without a meaning"):
        describe.verbs()


def test_no_meaning_is_left_over() -> None:
    names = {
        name
        for row in COMMANDS.values()
        if row.words
        for argument in row.signature.parameters
        for name in (argument, f"{row.name}:{argument}")
    }
    ours = {"db", "json", "by", "debit", "credit"}
    assert set(meanings.MEANINGS) - names == ours - names
    own = {
        f"{words}:{name}"
        for words, *_ in describe.OWN
        for name in ("total_capital", "names", "metrics")
    }
    assert set(meanings.LABELS) - names - own == set()
    assert {f"{command}:{name}" for command, name in meanings.CHOICES} <= names
    assert set(meanings.READERS) <= set(COMMANDS)


def test_words_of_their_own_are_for_answers_that_exist() -> None:
    answers = {verb.answer[1] for verb in VERBS if verb.answer[:1] in (("table",), ("record",))}
    # The answers of commands with a function of their own, and of one that is to come.
    others = {"ChannelTest", "Why"}
    assert set(SCREENS) | set(COLUMNS) <= answers | others
    for target in (*SCREENS.values(), *NOTES.values()):
        module, _, name = target.partition(":")
        assert callable(getattr(import_module(module), name))
    fields = {verb.answer[1]: dict(verb.answer[2]) for verb in VERBS if len(verb.answer) == 3}
    for name, columns in COLUMNS.items():
        outermost = {column.partition(".")[0] for column in columns}
        assert name not in fields or outermost <= set(fields[name])


# -- help


@pytest.mark.parametrize("group", GROUPS)
def test_the_help_of_a_group_has_one_line_for_each_command(group: str) -> None:
    text = help.group_help(group, VERBS) if group else help.overview(VERBS)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    for verb in VERBS:
        if verb.group == group:
            word = verb.words.removeprefix(f"{group} ") if group else verb.words
            assert len([line for line in lines if line.split()[:1] == [word]]) == 1


@pytest.mark.parametrize("verb", EACH)
def test_the_help_of_a_command_explains_it_in_eighty_columns(verb: Verb) -> None:
    text = parser_of(verb).format_help()
    assert text.startswith("Usage: fundops ")
    assert max(map(len, text.splitlines())) <= 80
    # A flag is off by default, so none is made to switch it off. The demo's own one is none.
    assert "--no-" not in text.replace("--no-serve", "")
    for parameter in verb.parameters:
        assert f"\n  {parameter.label}" in text
    # Words of Python are none of a person at a terminal.
    for word in ("Raises", "Parameters", "Returns", "await", "`to`"):
        assert word not in text


def test_help_and_questions_start_within_fifteen_times_a_bare_interpreter(tmp_path: Path) -> None:
    def cpu_s(*arguments: str) -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    def is_quick(*words: str) -> bool:
        # Other work on the machine makes a start dearer, and none makes it cheaper.
        return any(cpu_s("-m", "fundops", *words) < 15 * bare_s for _ in range(8))

    with FundManager(FundConfig(total_capital=1_000, ledger_enabled=True, tick_interval_s=None)):
        pass
    bare_s = max(min(cpu_s("-c", "pass") for _ in range(3)), 0.01)
    assert is_quick("ledger", "--help")
    assert is_quick("ledger", "deposit", "--help")
    assert is_quick("ledger", "nav", "--db", str(tmp_path / "fund.db"))


# -- a new row


def test_a_new_verb_is_on_the_command_line_behind_the_socket_and_in_the_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def greet(
        self: LedgerDoor, name: str, *, amount: Decimal, twice: bool = False, by: str
    ) -> dict[str, Decimal]:
        """Greet a strategy with an amount.

        Nothing is booked.
        """
        return {f"{name} from {by}": amount * (1 + twice)}

    # The annotations above are text, and are looked up in the module of the function.
    monkeypatch.setattr(LedgerDoor, "greet", greet, raising=False)
    monkeypatch.setitem(
        COMMANDS, "ledger.greet", Command("ledger.greet", "changes", "socket", "ledger greet")
    )
    monkeypatch.setitem(meanings.MEANINGS, "twice", "greet it two times")
    monkeypatch.setattr("fundops.cli.verbs.VERBS", describe.verbs())

    text = run(capsys, monkeypatch, "ledger", "greet", "--help")[1]
    assert text.splitlines()[0].startswith("Usage: fundops ledger greet NAME --amount AMOUNT")
    assert "Greet a strategy with an amount." in text
    assert re.search(r"^  --twice +greet it two times$", text, re.M)
    assert "\n  greet  " in run(capsys, monkeypatch, "ledger", "--help")[1]
    page = generator(monkeypatch).commands_page()
    assert (
        "| `fundops ledger greet NAME --amount AMOUNT` | Greet a strategy with an amount. |" in page
    )

    path = tmp_path / "fund.db"
    config = FundConfig(total_capital=1_000, ledger_enabled=True, tick_interval_s=None)
    words = ("ledger", "greet", "trend", "--amount", "1000.5", "--twice")
    with FundManager(config):
        asked = {"name": "trend", "amount": "1", "by": "bob"}
        assert call(path, "ledger.greet", asked, by="bob") == {"trend from bob": "1"}
        assert run(capsys, monkeypatch, *words) == (
            0,
            "                     USD\ntrend from ann  2,001.00\n",
            "",
        )
    code, out, _ = run(capsys, monkeypatch, *words, "--by", "eve", "--json")
    assert (code, json.loads(out)) == (0, {"trend from eve": "2001.0"})
    with open_reader(path) as reader:
        rows = [(row.command, row.door, row.by) for row in reader.audit()]
    assert rows == [
        ("ledger.greet", "standalone", "eve"),
        ("ledger.greet", "control", "ann"),
        ("ledger.greet", "control", "bob"),
    ]


def test_a_row_without_words_is_not_on_the_command_line() -> None:
    assert COMMANDS["ledger.post_many"].words == ""
    assert "ledger.post_many" not in {verb.command for verb in VERBS}


def test_a_new_group_comes_last_and_needs_no_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = Command("fund.storage", "reads", "socket", "file show")
    monkeypatch.setitem(COMMANDS, "fund.storage", row)
    found = describe.verbs()
    monkeypatch.setattr("fundops.cli.verbs.VERBS", found)
    assert found[-1].words == "file show"
    assert run(capsys, monkeypatch, "file")[1].startswith("Usage: fundops file COMMAND")
    assert "\n  file" in run(capsys, monkeypatch, "--help")[1]
    assert "## file\n\n| command" in generator(monkeypatch).commands_page()


def test_every_kind_of_argument_has_a_form(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that no row has yet."""

    async def strange(
        self: LedgerDoor,
        seq: int,
        metrics: Mapping[str, Any],
        *,
        level: float | None,
        title: list[str] | None = None,
        source: Any = None,
    ) -> tuple[int, ...]:
        """Do a strange thing."""
        return ()

    monkeypatch.setattr(LedgerDoor, "strange", strange, raising=False)
    row = Command("ledger.strange", "reads", "socket", "ledger strange")
    found = describe.described(row)
    forms = {
        parameter.name: (parameter.label, parameter.kind, parameter.required, parameter.many)
        for parameter in found.parameters
    }
    assert forms == {
        "seq": ("SEQ", "whole", True, False),
        "metrics": ("METRIC=VALUE", "figure", True, True),
        "level": ("--level", "number", False, False),
        "title": ("--title", "text", False, True),
        "source": ("--source", "text", False, False),
        "db": ("--db", "file", False, False),
        "json": ("--json", "flag", False, False),
    }
    assert found.unsaid == ("level",)
    assert found.answer == ("value", "nested")
