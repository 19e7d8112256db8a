"""A program that runs a fund until it is asked to end, in a process of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fundops import open_reader

DEADLINE_S = 60

# It tells when a signal would be heard, and at the end who hears the next one.
FRAME = """
import signal, sys, threading, time
def tell():
    while signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        time.sleep(0.01)
    print("waits", flush=True)
threading.Thread(target=tell, daemon=True).start()
def end(heard):
    print(heard.name, signal.getsignal(signal.SIGTERM).name, flush=True)
"""
SYNCHRONOUS = """
from fundops import FundConfig, FundManager
fund = FundManager(FundConfig(total_capital=1000, ledger_enabled=True, db_path=sys.argv[1]))
end(fund.run_until_signal())
"""
TRIO = """
import trio
from fundops import Fund, FundConfig
async def main():
    config = FundConfig(total_capital=1000, ledger_enabled=True, db_path=sys.argv[1])
    async with Fund.open(config) as fund:
        heard = await fund.run_until_signal()
    end(heard)
trio.run(main)
"""
ASYNCIO = """
import asyncio
from fundops import AsyncioFund, FundConfig
async def main():
    config = FundConfig(total_capital=1000, ledger_enabled=True, db_path=sys.argv[1])
    async with AsyncioFund.open(config) as fund:
        heard = await fund.run_until_signal()
    end(heard)
asyncio.run(main())
"""
PROGRAMS = {"synchronous": SYNCHRONOUS, "trio": TRIO, "asyncio": ASYNCIO}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("host", PROGRAMS)
def test_a_signal_stops_the_fund_in_order(
    host: str, number: signal.Signals, tmp_path: Path
) -> None:
    path = tmp_path / "x.db"
    with subprocess.Popen(
        [sys.executable, "-c", FRAME + PROGRAMS[host], str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        process.send_signal(number)
        told, errors = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, told, errors) == (0, f"{number.name} SIG_DFL\n", "")
    assert not list(tmp_path.glob("*-wal")), "the last connection was closed in order"
    with open_reader(path) as reader:
        assert reader.verify().ok
