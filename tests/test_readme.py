"""Every command and snippet of the README is run as written."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
TIMEOUT_S = 120


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


COMMANDS = [line for block in blocks("sh") for line in block.strip().splitlines()]
SETUPS = [line for line in COMMANDS if line.startswith("python3 -m venv")]
PLAIN = [line for line in COMMANDS if line.startswith("fundops ")]


def command(line: str) -> list[str]:
    """A README line, run by the interpreter of this test."""
    return [sys.executable, "-m", *shlex.split(line)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which a reader follows the README from top to bottom."""
    return tmp_path_factory.mktemp("reader")


def run_snippet(source: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def refusal(folder: Path) -> str:
    """The output of the first example, which leaves the database that a later command reads."""
    return run_snippet(blocks("python")[0], folder)


def test_the_first_example_ends_in_the_printed_refusal(refusal: str) -> None:
    printed = blocks("python")[0].splitlines()[-1]
    assert refusal == printed.removeprefix("# ") + "\n"


def test_the_lines_for_a_bot_run_inside_one(folder: Path) -> None:
    # Some ticks give the strategy its lease first.
    lines = blocks("python")[1].replace("    if", "    await asyncio.sleep(0.3)\n    if", 1)
    program = f"""
import asyncio
from fundops import AsyncioFund, FundConfig, StrategyStatus

class Engine:
    bought = []

    def strategies(self):
        return [StrategyStatus("trend", "running")]

    async def buy(self, instrument, amount):
        self.bought.append((instrument, amount))

config = FundConfig(total_capital=100_000, tick_interval_s=0.01, lease_s=5, db_path="bot.db")
engine = Engine()

async def main():
{textwrap.indent(lines, "    ")}

asyncio.run(main())
print(engine.bought)
"""
    assert run_snippet(program, folder) == "[('SPY', Decimal('100000.00000000'))]\n"


def test_every_command_is_accounted_for() -> None:
    assert len(SETUPS) == 2
    assert sorted([*SETUPS, *PLAIN]) == sorted(COMMANDS)


def test_the_two_set_up_commands_are_what_ci_reads_out_and_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    demo, test = SETUPS
    assert demo.endswith("/fundops demo")
    assert test.endswith("-m pytest -n auto")
    assert "command_with '-m pytest'" in ci
    assert "command_with '/fundops demo'" in ci
    # The patterns find these lines and no others before them.
    assert next(line for line in README.splitlines() if "-m pytest" in line) == test
    assert next(line for line in README.splitlines() if "/fundops demo" in line) == demo


@pytest.mark.parametrize("line", [line for line in PLAIN if "--hold" not in line])
def test_a_command_runs_as_written(line: str, folder: Path, refusal: str) -> None:
    done = subprocess.run(
        command(line),
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    if "--json" in line:
        assert json.loads(done.stdout)["trial_balance"] == "0.00000000"


@pytest.mark.parametrize("line", [line for line in PLAIN if "--hold" in line])
def test_a_command_that_stays_up_ends_at_an_interrupt(line: str, folder: Path) -> None:
    with subprocess.Popen(
        command(line), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        seen = []
        for said in process.stderr:
            seen.append(said)
            if "staying up" in said:
                process.send_signal(signal.SIGINT)
                break
        seen += process.stderr.readlines()
        assert process.wait(TIMEOUT_S) == 0, seen
        assert any("ws://127.0.0.1:" in said for said in seen)


def test_it_stays_short() -> None:
    prose = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    assert len(prose.split()) <= 520
