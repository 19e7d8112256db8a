"""kill -9 at any moment: what was acknowledged on the pipe is in the file, with its hash, and
the book is in order.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fundops.wire.ledger import Posted

CALLERS = 8

FUND = f"""
import sys
from functools import partial
from pathlib import Path
import msgspec, trio
from fundops.actors.ledger import LedgerActor
from fundops.actors.persistence import PersistenceActor
from fundops.file.database import MIGRATIONS
from fundops.runtime import ChildSpec, SystemClock, open_supervisor
from fundops.wire.ledger import Deposit, RecordLoss, RecordProfit

path = Path(sys.argv[1])
EVENTS = (Deposit(1_000), RecordProfit(250), RecordLoss(31))

async def post(ledger, caller):
    while True:
        posted = await ledger.ask(EVENTS[caller % 3])
        sys.stdout.buffer.write(msgspec.json.encode(posted) + b"\\n")
        sys.stdout.buffer.flush()
        caller += 1

async def main():
    children = [
        ChildSpec("persistence", partial(PersistenceActor, path, MIGRATIONS)),
        ChildSpec("ledger", partial(LedgerActor, path, SystemClock(), "USD")),
    ]
    async with (
        open_supervisor(children, strategy="rest_for_one") as supervisor,
        trio.open_nursery() as nursery,
    ):
        for caller in range({CALLERS}):
            nursery.start_soon(post, supervisor.ref("ledger"), caller)

trio.run(main)
"""


def acknowledged_until_killed(path: Path, rng: random.Random) -> list[Posted]:
    """Run the fund, and kill it within a commit or two of some acknowledgement."""
    with subprocess.Popen([sys.executable, "-c", FUND, str(path)], stdout=subprocess.PIPE) as fund:
        assert fund.stdout is not None
        lines = [fund.stdout.readline() for _ in range(rng.randint(1, 120))]
        time.sleep(rng.uniform(0, 0.004))
        os.kill(fund.pid, signal.SIGKILL)
        lines += fund.stdout.readlines()
    assert fund.returncode == -signal.SIGKILL
    # The last line may have been cut off in the middle; then nobody has heard it.
    return [msgspec.json.decode(line, type=Posted) for line in lines if line.endswith(b"\n")]


@pytest.mark.parametrize("loops", [8, pytest.param(200, marks=pytest.mark.soak)])
def test_kill_9_loses_no_acknowledged_entry(path: Path, checked: Any, loops: int) -> None:
    rng = random.Random(loops)
    acknowledged: list[Posted] = []
    for _ in range(loops):
        acknowledged += acknowledged_until_killed(path, rng)
        entries = checked(path, acknowledged)
        # One batch was on its way to its callers, another on its way to the disk.
        assert len(acknowledged) <= entries
    assert len({posted.seq for posted in acknowledged}) == len(acknowledged) > 10 * loops
