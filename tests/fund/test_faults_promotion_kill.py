"""Promotion and a process that is killed: the old or the new state, and the engine told again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fundops import open_reader
from fundops.wire.promotion import PromotionStage

DEADLINE_S = 60

# The engine keeps its stage in a file, since a real one is another process. `where` is the step at
# which this process ends as by kill -9.
PROGRAM = """
import json, os, sys
import trio
from fundops import Fund, FundConfig, StrategyStatus
from fundops.actors.persistence import store
from fundops.wire.promotion import PromotionStage

path, memory, act, where = sys.argv[1:]

class Engine:
    def strategies(self):
        now = json.load(open(memory))
        return [StrategyStatus("s", "running", equity=1000, allocated=1000, stage=now["stage"],
                               capital_cap=now["cap"])]

    async def set_stage(self, name, stage, capital_cap):
        if where == "before the engine":
            os._exit(9)
        json.dump({"stage": stage, "cap": float(capital_cap)}, open(memory, "w"))
        told.append(stage)
        if where == "after the engine":
            os._exit(9)

told = []

def ending(connection, mark):
    if armed and where == "before the commit":
        os._exit(9)

armed = []

async def main():
    config = FundConfig(
        total_capital=100_000, db_path=path, promotion_enabled=True, tick_interval_s=None,
        min_paper_days=0, control_socket=False,
    )
    async with Fund.open(config, controller=Engine()) as fund:
        if act == "settle":
            await fund.tick()
            await fund.tick()
            stage = (await fund.promotion.current_stage("s")).value
            print(json.dumps({"stored": stage, "engine": json.load(open(memory))["stage"]}))
            return
        if act == "adopt":
            await fund.promotion.adopt("s", PromotionStage.Shadow, by="ann", reason="x")
            await fund.promotion.record_metrics(
                "s", PromotionStage.Shadow, {"sharpe": 2.0, "max_drawdown": 0.0, "n_trades": 99})
            await fund.tick()
            return
        armed.append(True)
        if act == "promote":
            await fund.promotion.promote("s", by="ann")
        else:
            await fund.promotion.demote("s", by="ann", reason="x")
        if where == "after all":
            os._exit(9)

original = store.Store.__init__
def patched(self, path, migrations, before_commit=None):
    original(self, path, migrations, ending)
store.Store.__init__ = patched
trio.run(main)
"""


def run(path: Path, act: str, where: str = "") -> str:
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path / "f.db"), str(path / "engine"), act, where],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ended.returncode == (9 if where else 0), ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "where", ["before the engine", "after the engine", "before the commit", "after all"]
)
@pytest.mark.parametrize(
    ("act", "old", "new"), [("promote", "shadow", "live-small"), ("demote", "shadow", "paper")]
)
def test_a_kill_at_any_step_leaves_the_old_or_the_new_stage_and_the_engine_follows(
    tmp_path: Path, act: str, old: str, new: str, where: str
) -> None:
    engine = tmp_path / "engine"
    engine.write_text(json.dumps({"stage": "shadow", "cap": 0.0}))
    run(tmp_path, "adopt")
    run(tmp_path, act, where)
    with open_reader(tmp_path / "f.db") as reader:
        stored = reader.current_stage("s")
        lines = [line.kind for line in reader.promotion_history()]
    # Real money is never in force before the database allows it.
    in_force = json.loads(engine.read_text())["stage"]
    assert in_force != "live-small" or stored is PromotionStage.Live_Small
    assert (stored.value, lines) in ((old, ["adopt"]), (new, [act, "adopt"]))
    settled = json.loads(run(tmp_path, "settle"))
    assert settled == {"stored": stored.value, "engine": stored.value}
