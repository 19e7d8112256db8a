"""Every snippet and command in docs/ runs as written, and each file that a page names exists."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fundops import AlertSettings, FundConfig, RecoverySettings
from fundops.actors.persistence import open_database
from fundops.bench import BENCHES
from fundops.cli.parse import verb_of
from fundops.cli.verbs import VERBS
from fundops.control.rendezvous import VERSION, Request
from fundops.file.database import MIGRATIONS
from fundops.replay.prices import bundled
from fundops.runtime import ConfigError

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md"))]
# Programs that run until they are stopped: tests/e2e/test_bot.py and tests/test_drills.py do so.
ELSEWHERE = ("embedding-0", "operations-1")
SNIPPETS = [
    pytest.param(source, id=f"{page.stem}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, source in enumerate(
        re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)
    )
    if f"{page.stem}-{number}" not in ELSEWHERE
]
PRINTED = {
    "embedding-1": "",
    "ledger-0": "CASH 95000\nPOSITIONS 5000\nFEES_RECEIVABLE -300\nMANAGEMENT_FEES 200\n"
    "PERFORMANCE_FEES 100\nREALIZED_PNL -1500\nUNREALIZED_PNL 0\nNAV 99700 True",
    "ledger-1": "2024-12-31 is closed: the book is closed up to 2024-12-31\n50.00000000",
    "operations-0": "2 1500.00\nprices look wrong\nOFF",
    "promotion-0": "10 0.42\n14 0.41\n90 0.28\n252 0.16",
    "runtime-0": "3",
    "runtime-1": "halt\nSPY 999.0",
    "runtime-2": "life 2 uploaded first\nlife 5 uploaded last\n"
    "1 quarantined after 3 attempts: OSError",
    "runtime-3": "True 64",
    "runtime-4": "[('store', 1), ('subsystems', 1)]",
    "runtime-5": "feed is gone: market closed\nmarket closed",
    "runtime-6": "Divide crashed: ZeroDivisionError\nCrashed divider\nRestarted divider\n"
    "<Supervisor root: divider running#2> ZeroDivisionError: division by zero\nTerminated divider",
    "status-stream-0": "deposit 1000.00 CASH",
    "status-stream-1": "stopped: a drill",
}


@pytest.mark.parametrize("source", SNIPPETS)
def test_a_snippet_runs_and_prints_what_it_should(
    source: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == PRINTED[request.node.callspec.id]


def test_the_commands_of_the_ledger_run_as_written_on_the_book_of_its_first_snippet(
    tmp_path: Path,
) -> None:
    page = (DOCS / "ledger.md").read_text()
    [snippet, *_] = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    [commands] = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    subprocess.run(
        [sys.executable, "-c", snippet], cwd=tmp_path, check=True, capture_output=True, timeout=60
    )
    said: dict[str, str] = {}
    for line in commands.strip().splitlines():
        words = [sys.executable, "-m", *shlex.split(line)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), (line, done.stdout, done.stderr)
        said[line] = done.stdout
    assert len(said) > 9
    assert said["fundops ledger verify --db fund.db"].endswith("nothing is wrong\n")
    assert all(
        (tmp_path / name).exists()
        for name in ("fund.beancount", "again.db", "copy.db", "restored.db")
    )


def test_the_commands_of_promotion_print_what_the_page_shows(tmp_path: Path) -> None:
    page = (DOCS / "promotion.md").read_text()
    bench, gate = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    [shown] = re.findall(r"^```text\n(.*?)^```", page, re.M | re.S)
    changes = [
        (bar.day, bar.close_cents / before.close_cents - 1)
        for before, bar in itertools.pairwise(bundled("sp500"))
    ]
    held = [
        f"{day},{change if before < 0 else 0.0:.6f}"
        for (_, before), (day, change) in itertools.pairwise(changes)
        if day.year == 2016
    ]
    (tmp_path / "returns.csv").write_text("\n".join(["date,return", *held]))
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(gate)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, shown, "")
    # tests/bench/test_luck.py runs the bench; here it must only be one that exists.
    assert shlex.split(bench)[:3] == ["fundops", "bench", "luck"]
    assert "luck" in BENCHES


def test_what_is_made_from_declarations_is_what_they_say(tmp_path: Path) -> None:
    # A copy of the scripts writes into its own tree, so the checkout stays as it is.
    (tmp_path / "docs").mkdir()
    (tmp_path / "fund" / "cli").mkdir(parents=True)
    for name in (*(f"docs/{script.name}" for script in DOCS.glob("*.py")), "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    given = {path for path in tmp_path.rglob("*") if path.is_file()}
    script = tmp_path / "docs" / "generate.py"
    subprocess.run(
        [sys.executable, "-W", "error", str(script)], check=True, capture_output=True, timeout=60
    )
    settings = (tmp_path / "docs" / "settings.md").read_text(encoding="utf-8")
    assert "| `lease_s` | a finite number > 0 and <= 86,400 | `30.0` | seconds;" in settings
    commands = (tmp_path / "docs" / "commands.md").read_text(encoding="utf-8")
    assert "| `fundops ledger deposit AMOUNT` | Book money that comes in" in commands
    made = {path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    assert len(made - given) == 4
    for product in made - given:
        path = product.relative_to(tmp_path)
        assert (ROOT / path).read_text(encoding="utf-8") == product.read_text(encoding="utf-8"), (
            f"{path} is stale: run `python docs/generate.py`"
        )


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_a_page_names_only_commands_that_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":
        return  # it tells of commands that have other words by now
    text = " ".join(page.read_text().split())
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S)
    shells = [found for block in blocks for found in re.findall(r"\bfundops (.*)", block)]
    for line in [*re.findall(r"`fundops ([^`]+)`", text), *shells]:
        words = [*itertools.takewhile(re.compile(r"[a-z-]+\Z").match, line.split())]
        if words and not words[0].startswith("-"):
            verb_of(words, VERBS)  # refuses a command that does not exist


def test_the_line_for_the_control_socket_has_the_fields_of_a_request() -> None:
    page = (DOCS / "operations.md").read_text()
    [line] = re.findall(r"^```json\n(.*?)^```", page, re.M | re.S)
    # Decoding ignores a field that a request does not have, so the names are compared.
    assert set(msgspec.json.decode(line)) <= set(Request.__struct_fields__)
    request = msgspec.json.decode(line, type=Request)
    assert (request.version, request.command, request.by) == (VERSION, "ledger.deposit", "ann")


def test_the_table_of_growth_has_every_table_of_the_database(tmp_path: Path) -> None:
    page = (DOCS / "operations.md").read_text()
    [section] = re.findall(r"^## Growth and retention\n(.*?)^## ", page, re.M | re.S)
    first_cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("|")]
    told = {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}
    with closing(open_database(tmp_path / "fund.db", MIGRATIONS)) as connection:
        sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        tables = {name for (name,) in connection.execute(sql)}
    assert tables - told == set(), "these grow, and no bound is told"
    assert len(tables) > 20


def test_each_switch_back_is_a_setting_that_changes_a_default() -> None:
    rows = (DOCS / "decisions.md").read_text().splitlines()
    switches = [row.split("|")[3].strip(" `") for row in rows if row.startswith("|") and "=" in row]
    assert len(switches) >= 7
    names = {
        "AlertSettings": AlertSettings,
        "FundConfig": FundConfig,
        "RecoverySettings": RecoverySettings,
    }
    default = FundConfig(total_capital=1)
    literal = msgspec.to_builtins(FundConfig.literal(total_capital=1))
    named: set[tuple[str, ...]] = set()
    for switch in switches:
        config = eval(f"FundConfig(total_capital=1, {switch})", names)
        assert config != default, switch
        for place, value in _changed(msgspec.to_builtins(default), msgspec.to_builtins(config)):
            assert _at(literal, place) == value, switch
            named.add(place)
    changed = _changed(msgspec.to_builtins(default), literal)
    assert {place for place, _ in changed} == named  # and the page names all that it sets


def _changed(before: Any, after: Any, *at: str) -> list[tuple[tuple[str, ...], Any]]:
    """The settings that differ, nested ones too, with their new values."""
    if not isinstance(after, dict):
        return [] if before == after else [(at, after)]
    return [found for name in after for found in _changed(before[name], after[name], *at, name)]


def _at(config: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        config = config[name]
    return config


def test_a_setting_that_is_given_wins_over_the_literal_one() -> None:
    config = FundConfig.literal(total_capital=1, promotion_ladder="four-stage")
    assert (config.promotion_ladder, config.promotion_policy) == ("four-stage", "literal")
    with pytest.raises(ConfigError, match="total_capital"):
        FundConfig.literal(total_capital=0)


@pytest.mark.parametrize("page", [pytest.param(page, id=page.name) for page in PAGES])
def test_a_page_names_only_files_that_exist(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    links = [page.parent / link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    folders = r"`((?:runtime|wire|actors|fund|tests|bench|docs)/[\w./]*)`"
    paths = [*links, *(ROOT / path for path in re.findall(folders, text))]
    assert [str(path) for path in paths if not path.exists()] == []


def test_the_commands_of_the_contribution_guide_name_scripts_that_parse() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    set_up, check = re.findall(r"^```sh\n(.*?)^```", guide, re.M | re.S)
    # Setting up needs a network, so only its parts are checked.
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    [extra] = re.findall(r"-e '\.\[(\w+)\]'", set_up)
    assert extra in settings["project"]["optional-dependencies"]
    assert check == "bash .ci/check\n"
    scripts = set(re.findall(r"\bbash ([\w./]+)", guide))
    assert {".ci/check", ".ci/run"} <= scripts
    for script in scripts:
        parsed = subprocess.run(
            ["bash", "-n", str(ROOT / script)], capture_output=True, text=True, timeout=60
        )
        assert (parsed.returncode, parsed.stderr) == (0, ""), script
    for module in re.findall(r"\bpython (\w+/\w+\.py)", guide):
        compile((ROOT / module).read_text(), module, "exec")


def test_the_checks_run_each_tool_and_the_whole_run_contains_the_checks() -> None:
    check, run = ((ROOT / ".ci" / name).read_text() for name in ("check", "run"))
    for tool in ("ruff check", "ruff format --check", "mypy", "pyright", "pytest"):
        assert f'"$python" -m {tool}' in check, tool
    assert "bash .ci/check static" in run
