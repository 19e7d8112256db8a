"""Each drill of the operating guide is walked through as a person does, command by command, with
the guide's own practice fund in a process beside.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

GUIDE = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
[DRILLS] = re.findall(r"^## Drills\n(.*?)^## ", GUIDE, re.M | re.S)
[PRACTICE] = re.findall(r"^```python\n(.*?)^```", DRILLS, re.M | re.S)
DEADLINE_S = 30


class Drill:
    """One folder with a practice fund, and a shell in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fund: subprocess.Popen[str] | None = None
        (folder / "practice.py").write_text(PRACTICE)
        # `fundops` and `kill` as a shell finds them.
        shell = folder / "bin"
        shell.mkdir()
        (shell / "fundops").write_text(f'#!/bin/sh\nexec {sys.executable} -m fundops "$@"\n')
        (shell / "fundops").chmod(0o700)
        self._environment = {**os.environ, "PATH": f"{shell}:{os.environ['PATH']}"}

    def start(self) -> None:
        """`python practice.py` in the other shell."""
        if self.fund is not None:
            self.fund.wait(DEADLINE_S)  # a drill has ended it
            self.end()
        self.fund = subprocess.Popen(
            [sys.executable, "practice.py"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.fund.stdout is not None
        assert self.fund.stdout.readline() == "the fund runs\n"

    def end(self) -> None:
        if self.fund is not None:
            self.fund.kill()
            self.fund.wait(DEADLINE_S)
            assert self.fund.stdout is not None
            self.fund.stdout.close()
            self.fund = None

    def run(self, line: str, *shown: str) -> str:
        """Type one line. Its output must contain these words.

        A question is repeated until it does, since a drill may take some seconds.
        """
        until_s = time.monotonic() + DEADLINE_S
        while True:
            done = subprocess.run(
                ["sh", "-c", line],
                cwd=self.folder,
                env=self._environment,
                capture_output=True,
                text=True,
                timeout=DEADLINE_S,
                check=False,
            )
            assert done.returncode == 0, (line, done.stdout, done.stderr)
            said = " ".join(done.stdout.split())
            missing = [words for words in shown if words not in said]
            if not missing:
                return said
            words = shlex.split(line)
            asks = {"why", "status", "list"} & set(words)
            assert asks, (line, missing, said)
            assert time.monotonic() < until_s, (line, missing, said)


@pytest.fixture
def drill(tmp_path: Path) -> Iterator[Drill]:
    drill = Drill(tmp_path)
    drill.start()
    yield drill
    drill.end()


def commands(heading: str) -> list[list[str]]:
    """The lines of each block of commands under a heading."""
    sections = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", DRILLS, re.M | re.S))
    blocks = re.findall(r"^```sh\n(.*?)^```", sections[heading], re.M | re.S)
    assert blocks, heading
    return [block.splitlines() for block in blocks]


def walk(drill: Drill, lines: Sequence[str], expected: Sequence[Sequence[str]]) -> None:
    for line, shown in zip(lines, expected, strict=True):
        drill.run(line, *shown)


STOPPED = ("state ENGAGED", "open orders 0")
TRADES = ("may open", "no blocker")


def test_kill_and_release(drill: Drill) -> None:
    [kill] = commands("Kill")
    walk(
        drill,
        kill,
        [
            ("reason a drill", "by ann"),
            STOPPED,
            (
                "may not open, may close",
                "by ann: a drill",
                "fundops kill-switch release --by NAME --reason TEXT",
            ),
            ("CRITICAL KILL_SWITCH", "Kill switch activated", "Kill switch: stop confirmed"),
        ],
    )
    assert (drill.folder / "practice.db.kill").exists()
    [release] = commands("Release")
    walk(drill, release, [STOPPED, ("state OFF", "next stop nav 850"), (), TRADES])
    assert not (drill.folder / "practice.db.kill").exists()


def test_silence(drill: Drill) -> None:
    [silence] = commands("Silence")
    walk(
        drill,
        silence,
        [
            ("NAV 1,000.00", "1 running"),
            (),
            ("NAV 1,000.00", "last tick 0 s ago; the host is silent"),
            ("may not open, may close", "the host is silent"),
            ("CRITICAL GENERAL", "WARNING GENERAL", "Host silent"),
            (),
            ("kill switch OFF", "last tick"),
            TRADES,
        ],
    )
    assert "silent" not in drill.run("fundops status --db practice.db")


def test_restore(drill: Drill) -> None:
    before, after = commands("Restore")
    walk(
        drill,
        before[:2],
        [("path backup.db",), ()],
    )
    assert drill.fund is not None
    assert drill.fund.wait(DEADLINE_S) != 0
    walk(
        drill,
        before[2:],
        [
            ("the kill switch is engaged",),
            ("nothing is wrong",),
            ("state ENGAGING", "restored from backup.db"),
        ],
    )
    drill.start()
    walk(drill, after, [STOPPED, ("state OFF",), (), TRADES])


def test_a_lost_host(drill: Drill) -> None:
    before, after = commands("A lost host")
    walk(drill, before[:1], [()])
    assert drill.fund is not None
    assert drill.fund.wait(DEADLINE_S) == -signal.SIGKILL
    walk(
        drill,
        before[1:],
        [
            ("state ENGAGING", "the host is lost", "no fund answers"),
            ("nothing is wrong",),
        ],
    )
    drill.start()
    walk(drill, after, [(*STOPPED, "the host is lost"), ("state OFF",), (), TRADES])


def test_each_drill_is_walked_through() -> None:
    assert re.findall(r"^### (.*)$", DRILLS, re.M) == [
        "Kill",
        "Release",
        "Silence",
        "Restore",
        "A lost host",
    ]
