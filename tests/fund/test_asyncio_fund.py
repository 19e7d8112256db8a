"""AsyncioFund: the same fund for hosts that run on asyncio."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import uvloop

from fundops import (
    AmountError,
    AsyncioFund,
    ConfigError,
    DatabaseInUse,
    Fund,
    FundConfig,
    FundManager,
    StrategyStatus,
    SubsystemDisabled,
    open_reader,
)
from fundops.control.commands import COMMANDS, PARTS
from fundops.errors import FundClosed, FundNotRunning, NeedsAsyncio, NeedsTrio, WrongLoop
from fundops.runtime import SupervisorEscalated

DEADLINE_S = 30

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FUNDOPS_HOME", str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _no_thread_stays_behind() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "fundops"] == []


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine on each kind of loop, within the deadline."""

    def on_loop(main: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(main, DEADLINE_S))

    return on_loop


Run = Callable[[Coroutine[Any, Any, Any]], Any]


def _config(**settings: Any) -> FundConfig:
    defaults: dict[str, Any] = {
        "total_capital": 100_000,
        "tick_interval_s": None,
        "ledger_enabled": True,
        "control_socket": False,
    }
    return FundConfig(**{**defaults, **settings})


# -- the same names


def _public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


def test_it_offers_what_the_trio_fund_offers_and_each_coroutine_is_one_here() -> None:
    # A field of Fund is a property here, and `now` and `post` are the way into its thread.
    assert _public(AsyncioFund) - {"running", "status_token", "now", "post"} == _public(Fund)
    for name in _public(Fund) - {"open"}:
        ours, theirs = getattr(AsyncioFund, name), getattr(Fund, name)
        assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs), name
        assert (
            inspect.signature(ours).parameters.keys() == inspect.signature(theirs).parameters.keys()
        )


def test_every_command_is_a_coroutine_with_the_same_signature_and_docstring(run: Run) -> None:
    async def main() -> None:
        async with AsyncioFund.open(_config()) as fund:
            for command in COMMANDS.values():
                part = fund if PARTS[command.part] is PARTS["fund"] else getattr(fund, command.part)
                method = getattr(part, command.verb)
                assert inspect.iscoroutinefunction(method), command.name
                assert inspect.signature(method) == command.signature, command.name
                assert method.__doc__ == command.method.__doc__

    run(main())


# -- calls


def test_it_books_and_reports_and_stops_in_order(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def main() -> None:
        async with AsyncioFund.open(_config(db_path=path)) as fund:
            assert (await fund.ledger.deposit("2500")).seq == 2
            fund.report(StrategyStatus("mm", "running"))
            await fund.tick()
            assert fund.may_trade("mm")
            assert (await fund.status()).nav == 102_500
            assert len(fund.ledger.new_key()) > 10
            assert {child.name for child in fund.tree()} >= {"guard", "oversight"}
        assert not fund.running
        assert not fund.may_trade("mm")
        assert fund.may_close("mm"), "what had real money may close after the fund"
        assert fund.entitlement("mm").mode == "reduce"
        with pytest.raises(FundNotRunning):
            await fund.status()

    run(main())
    with open_reader(path) as reader:
        assert reader.nav() == 102_500


def test_refusals_reach_the_caller_as_they_are(run: Run) -> None:
    async def main() -> None:
        async with AsyncioFund.open(_config()) as fund:
            with pytest.raises(AmountError, match="amount"):
                await fund.ledger.deposit("x")
            with pytest.raises(SubsystemDisabled):
                await fund.promotion.strategies()

    run(main())


def test_a_config_that_is_none_is_refused(run: Run) -> None:
    async def main() -> None:
        async with AsyncioFund.open(None):  # type: ignore[arg-type]
            raise AssertionError

    with pytest.raises(ConfigError, match="config: None is not a FundConfig"):
        run(main())


def test_a_thousand_calls_at_once_are_all_answered(run: Run) -> None:
    async def main() -> None:
        async with AsyncioFund.open(_config()) as fund:
            posted = await asyncio.gather(*(fund.ledger.deposit(1) for _ in range(1_000)))
            assert sorted(entry.seq for entry in posted) == list(range(2, 1_002))

    run(main())


def test_cancelling_the_caller_cancels_the_call_in_the_funds_thread(run: Run) -> None:
    async def main() -> None:
        async with AsyncioFund.open(_config()) as fund:
            begun, cancelled = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            async def hang(_: Fund) -> None:
                loop.call_soon_threadsafe(begun.set)
                try:
                    await trio.sleep_forever()
                except trio.Cancelled:
                    loop.call_soon_threadsafe(cancelled.set)
                    raise

            task = asyncio.create_task(fund.post(hang))
            await begun.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await cancelled.wait()
            assert (await fund.status()).ticks == 0, "the fund goes on"

    run(main())


def test_context_variables_of_the_caller_are_seen_in_the_funds_thread(run: Run) -> None:
    request = contextvars.ContextVar[str]("request")

    async def main() -> None:
        async with AsyncioFund.open(_config()) as fund:

            async def seen(_: Fund) -> str:
                return request.get()

            request.set("r1")
            assert await fund.post(seen) == "r1"

    run(main())


def test_a_host_that_blocks_its_loop_does_not_stop_the_fund(run: Run) -> None:
    async def main() -> None:
        async with AsyncioFund.open(_config(tick_interval_s=0.01, lease_s=1)) as fund:
            before = (await fund.status()).ticks
            done = threading.Event()
            fund._bridge.post(_ticked(before + 3), lambda *_: done.set())
            assert done.wait(DEADLINE_S), "waits without the loop"

    run(main())


def _ticked(count: int) -> Callable[[Fund], Awaitable[None]]:
    async def wait(fund: Fund) -> None:
        while (await fund.status()).ticks < count:  # noqa: ASYNC110  the fund's own ticks
            await trio.sleep(0.002)

    return wait


# -- its end


def test_a_fund_that_died_fails_every_pending_call_with_the_cause(run: Run) -> None:
    async def crash(fund: Fund) -> None:
        while True:
            fund.drill("guard")
            await trio.lowlevel.checkpoint()

    async def hang(_: Fund) -> None:
        await trio.sleep_forever()

    async def main() -> None:
        async with AsyncioFund.open(_config()) as fund:
            pending = [asyncio.create_task(fund.post(hang)) for _ in range(3)]
            for call in (fund.post(crash), *pending):
                with pytest.raises(FundClosed) as caught:
                    await call
                assert isinstance(caught.value.__cause__, SupervisorEscalated)
            with pytest.raises(FundClosed, match="by itself"):
                await fund.status()

    with pytest.raises(FundClosed) as ended:
        run(main())
    assert isinstance(ended.value.__cause__, SupervisorEscalated)


def test_an_error_in_the_block_comes_out_and_the_fund_is_stopped(run: Run) -> None:
    async def main() -> None:
        async with AsyncioFund.open(_config()):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(main())


def test_a_cancelled_host_still_stops_its_fund_in_order(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def host(opened: asyncio.Event) -> None:
        async with AsyncioFund.open(_config(db_path=path)):
            opened.set()
            await asyncio.sleep(3_600)

    async def main() -> None:
        opened = asyncio.Event()
        task = asyncio.create_task(host(opened))
        await opened.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with FundManager(_config(db_path=path)) as again:  # its lock was given back
            assert again.running

    run(main())


def test_an_opening_that_is_refused_raises_the_refusal(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def main() -> None:
        async with AsyncioFund.open(_config(db_path=path)):
            with pytest.raises(DatabaseInUse):
                async with AsyncioFund.open(_config(db_path=path)):
                    raise AssertionError("two owners")

    run(main())


def test_two_funds_on_one_loop_share_nothing(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            AsyncioFund.open(_config(db_path=tmp_path / "a.db")) as one,
            AsyncioFund.open(_config(db_path=tmp_path / "b.db")) as other,
        ):
            await one.ledger.deposit(5)
            assert await one.ledger.nav() == 100_005
            assert await other.ledger.nav() == 100_000

    run(main())


# -- misuse


def test_on_trio_or_without_a_loop_it_says_what_to_use(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def opened() -> None:
        async with AsyncioFund.open(_config(db_path=path)):
            raise AssertionError("opened")

    with pytest.raises(NeedsAsyncio, match="use Fund on trio"):
        trio.run(opened)
    with pytest.raises(NeedsAsyncio, match="use FundManager"):
        opened().send(None)
    assert not path.exists()


def test_the_trio_fund_under_asyncio_names_this_one_and_makes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "x.db"

    async def main() -> None:
        with pytest.raises(NeedsTrio, match=r"AsyncioFund\.open has the same names"):
            async with Fund.open(_config(db_path=path)):
                raise AssertionError("opened")

    asyncio.run(main())
    assert not path.exists()


def test_a_call_from_another_loop_is_refused() -> None:
    refused: list[str] = []

    async def main() -> None:
        async with AsyncioFund.open(_config()) as fund:

            def elsewhere() -> None:
                async def ask() -> None:
                    with pytest.raises(WrongLoop) as caught:
                        await fund.status()
                    refused.append(str(caught.value))

                asyncio.run(ask())

            await asyncio.to_thread(elsewhere)

    asyncio.run(main())
    assert "another event loop" in refused[0]


def test_a_loop_that_is_closed_first_leaves_a_fund_that_ends_with_the_program(
    tmp_path: Path,
) -> None:
    program = f"""
import asyncio
from fundops import AsyncioFund, FundConfig
path = {str(tmp_path / "x.db")!r}
config = FundConfig(total_capital=1000, ledger_enabled=True, tick_interval_s=None, db_path=path)
loop = asyncio.new_event_loop()
opening = AsyncioFund.open(config)
fund = loop.run_until_complete(opening.__aenter__())
loop.run_until_complete(fund.ledger.deposit(5))
loop.close()
print("closed", fund.running)
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed True\n", "")
    with open_reader(tmp_path / "x.db") as reader:
        assert reader.nav() == 1_005


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_a_forked_child_is_told_where_the_fund_runs(tmp_path: Path) -> None:
    program = f"""
import asyncio, os, sys, warnings
from fundops import AsyncioFund, FundConfig, FundNotRunning
warnings.simplefilter("ignore")
path = {str(tmp_path / "x.db")!r}
config = FundConfig(total_capital=1000, tick_interval_s=None, db_path=path)

async def main():
    async with AsyncioFund.open(config) as fund:
        child = os.fork()
        if child == 0:
            try:
                fund.tree()
            except FundNotRunning as error:
                os.write(1, str(error).encode())
                os._exit(0 if not fund.may_trade("a") else 2)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        await fund.status()

asyncio.run(main())
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "from which this one was forked" in done.stdout
