"""Many processes that promote the same strategies at once, with and without a fund on the file."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from fundops import FundConfig, FundManager, PromotionManager, PromotionStage, VirtualClock
from fundops.actors.persistence import Reader
from fundops.runtime import Rejected
from fundops.testing import START_US, FakeController

DAY_US = 86_400_000_000
DEADLINE_S = 300
GOOD = {"sharpe": 1.2, "max_drawdown": 0.08, "n_trades": 150}

# Each racer promotes all strategies in the order of their names, on the revision that all know.
RACER = """
import sys
from fundops import PromotionManager, VirtualClock
from fundops.runtime import Rejected

path, now_us, count, racer = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
manager = PromotionManager(path, clock=VirtualClock(now_us))
print("ready", flush=True)
sys.stdin.readline()
for number in range(count):
    try:
        manager.promote(f"s{number:04}", by=racer, expected_rev=1)
    except Rejected as refusal:
        print(number, type(refusal).__name__)
    else:
        print(number, "promoted")
"""


def strategies(manager: PromotionManager, clock: VirtualClock, count: int) -> None:
    """As many in paper, with revision 1 and a gate that passes."""
    names = [f"s{number:04}" for number in range(count)]
    for name in names:
        manager.register(name)
    clock.advance_to(clock.now_us() + 14 * DAY_US)
    for name in names:
        manager.record_metrics(name, PromotionStage.Paper, GOOD)


def race(path: Path, now_us: int, count: int, racers: int) -> list[Counter[str]]:
    """The outcomes of each strategy's promotions."""
    command = [sys.executable, "-c", RACER, str(path), str(now_us), str(count)]
    processes = [
        subprocess.Popen(
            [*command, f"racer{number}"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for number in range(racers)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    # Read while they run: a pipe that is full would stop its racer.
    outcomes: list[str] = []
    readers = [
        threading.Thread(target=lambda one=process: outcomes.append(one.communicate("\n")[0]))
        for process in processes
    ]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join(DEADLINE_S)
    assert [process.returncode for process in processes] == [0] * racers
    found = [Counter[str]() for _ in range(count)]
    for line in "".join(outcomes).splitlines():
        number, outcome = line.split()
        found[int(number)][outcome] += 1
    return found


def promotions(path: Path) -> list[tuple[str, int, str]]:
    """Strategy, revision and person of each promotion in the history."""
    with Reader(path) as rows:
        return [
            (strategy, rev, by)
            for strategy, rev, by in rows.rows(
                'SELECT strategy, rev, "by" FROM promotion_history'
                " WHERE kind = 'promote' ORDER BY strategy"
            )
        ]


def check(path: Path, outcomes: Sequence[Counter[str]], racers: int) -> None:
    """Of each strategy's promotions one went through, and it is one line of history."""
    assert set(map(frozenset, (one.items() for one in outcomes))) == {
        frozenset({("promoted", 1), ("StaleRevision", racers - 1)})
    }
    lines = promotions(path)
    assert [(name, rev) for name, rev, _ in lines] == [
        (f"s{number:04}", 2) for number in range(len(outcomes))
    ]


@pytest.mark.parametrize(
    ("racers", "count"),
    [
        (2, 60),
        pytest.param(2, 1_000, marks=pytest.mark.soak),
        pytest.param(6, 1_000, marks=pytest.mark.soak),
    ],
)
def test_of_processes_that_promote_the_same_revision_one_writes_one_line(
    tmp_path: Path, racers: int, count: int
) -> None:
    path, clock = tmp_path / "promotion.db", VirtualClock(START_US)
    strategies(PromotionManager(path, clock=clock), clock, count)
    outcomes = race(path, clock.now_us(), count, racers)
    check(path, outcomes, racers)


@pytest.mark.parametrize(
    ("racers", "count"), [(2, 30), pytest.param(4, 1_000, marks=pytest.mark.soak)]
)
def test_managers_beside_a_running_fund_write_through_it(
    tmp_path: Path, racers: int, count: int
) -> None:
    """The fund is one of the racers; each of its strategies moves once, and the engine is told."""
    path, clock, engine = tmp_path / "fund.db", VirtualClock(START_US), FakeController()
    config = FundConfig(
        total_capital=100_000, db_path=path, promotion_enabled=True, tick_interval_s=None
    )
    with FundManager(config, engine, clock=clock) as fund:
        beside = PromotionManager(path, clock=clock)
        strategies(beside, clock, count)
        here = Counter[str]()

        def promote_here() -> None:
            for number in range(count):
                try:
                    fund.promotion.promote(f"s{number:04}", by="fund", expected_rev=1)
                except Rejected as refusal:
                    here[type(refusal).__name__] += 1
                else:
                    here["promoted"] += 1

        racer = threading.Thread(target=promote_here)
        racer.start()
        outcomes = race(path, clock.now_us(), count, racers)
        racer.join()
        promoted = sum(one["promoted"] for one in outcomes)
        refused = sum(one["StaleRevision"] for one in outcomes)
        assert promoted + here["promoted"] == count
        assert promoted + refused + here["promoted"] + here["StaleRevision"] == count * (racers + 1)
        assert [(name, rev) for name, rev, _ in promotions(path)] == [
            (f"s{number:04}", 2) for number in range(count)
        ]
        told = Counter(call[1:3] for call in engine.calls if call[0] == "set_stage")
        assert {(f"s{number:04}", "shadow"): 1 for number in range(count)}.items() <= told.items()
        assert {one.stage for one in beside.strategies()} == {PromotionStage.Shadow}
        assert {one.rev for one in fund.promotion.strategies()} == {2}


OPENER = """
import sys
from fundops import PromotionManager

print("ready", flush=True)
sys.stdin.readline()
manager = PromotionManager(sys.argv[1])
print(manager.register(sys.argv[2]), manager.register("shared"))
"""


def test_processes_that_open_a_new_file_at_once_share_it(tmp_path: Path) -> None:
    path = tmp_path / "promotion.db"
    openers = [
        subprocess.Popen(
            [sys.executable, "-c", OPENER, str(path), f"own{number}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    for opener in openers:
        assert opener.stdout is not None
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write("\n")
        opener.stdin.flush()
    told = [opener.communicate(timeout=DEADLINE_S)[0].split() for opener in openers]
    assert [opener.returncode for opener in openers] == [0] * 4
    assert len({shared for _, shared in told}) == 1
    assert {one.name for one in PromotionManager(path).strategies()} == {
        "own0",
        "own1",
        "own2",
        "own3",
        "shared",
    }
