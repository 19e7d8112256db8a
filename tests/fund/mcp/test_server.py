"""The MCP server: a process on two pipes, beside a fund that runs or has stopped."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from mcp import Client, MCPError, StdioServerParameters, types

from fundops.config import FundConfig
from fundops.fund import Fund
from fundops.mcp import server as server_module
from fundops.promotion import PromotionManager
from fundops.wire.controller import StrategyStatus
from fundops.wire.ledger import Deposit
from fundops.wire.promotion import PromotionStage

PATIENCE_S = 30.0
# Prompt, and not the minute that a stuck thread would take; generous, as the machine may be busy.
PROMPT_S = 5.0
# Exits with 0 only when the root logger was left alone.
PROGRAM = """
import logging, sys
from pathlib import Path
import fundops.mcp.answers, fundops.mcp.server
{before}
fundops.mcp.server.serve(Path({path!r}))
root = logging.getLogger()
sys.exit(0 if not root.handlers and root.level == logging.WARNING else 3)
"""
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "0"},
    },
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def config(path: Path) -> FundConfig:
    return FundConfig(
        total_capital=100_000,
        db_path=path,
        tick_interval_s=None,
        ledger_enabled=True,
        promotion_enabled=True,
    )


async def live_through_a_day(fund: Fund) -> None:
    """The golden script of the books, two strategies, one demoted, two categories of alerts."""
    await fund.ledger.record_profit("2000", strategy="momentum")
    await fund.ledger.record_loss("500")
    await fund.ledger.withdraw("1500", memo="rent")
    await fund.ledger.open_position("XYZ", quantity=10, cost=5000)
    await fund.ledger.charge_management_fee(200)
    await fund.ledger.charge_performance_fee(100)
    await fund.promotion.register("carry")
    momentum = await fund.promotion.adopt(
        "momentum", PromotionStage.Shadow, by="ada", reason="ran before"
    )
    await fund.promotion.demote(momentum, by="ada", reason="slippage")
    for _ in range(3):
        await fund.alerts.send("INFO", "GENERAL", "Hello", "again", dedup_key="hello")
    await fund.alerts.send(
        "WARNING", "DRAWDOWN", "Drawdown", "8 % below the top", strategy="momentum"
    )


def command(path: Path, before: str = "") -> list[str]:
    return [sys.executable, "-W", "error", "-c", PROGRAM.format(path=str(path), before=before)]


@asynccontextmanager
async def assistant(path: Path, mode: str = "auto") -> AsyncIterator[Client]:
    """A client of a separate server process."""
    program, *arguments = command(path)
    with trio.fail_after(PATIENCE_S):
        # The tests keep their sockets in a folder of their own.
        env = {"XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
        async with Client(
            StdioServerParameters(command=program, args=arguments, env=env), mode=mode
        ) as client:
            yield client


async def ask(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """The structured answer, after comparing it with the text."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    [block] = result.content
    assert isinstance(block, types.TextContent)
    assert json.loads(block.text) == result.structured_content
    answer: dict[str, Any] = result.structured_content
    return answer


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    assert result.structured_content is None
    [block] = result.content
    assert isinstance(block, types.TextContent)
    return block.text


def decimals(texts: dict[str, str]) -> dict[str, Decimal]:
    assert all(re.fullmatch(r"-?\d+\.\d{8}", text) for text in texts.values())
    return {account: Decimal(text) for account, text in texts.items()}


async def check_every_answer(client: Client) -> None:
    ledger = await ask(client, "fund_ledger")
    assert ledger["currency"] == "USD"
    sheet = ledger["balance_sheet"]
    assert decimals(sheet["assets"]) == {"CASH": 95_000, "POSITIONS": 5_000}
    assert decimals(sheet["liabilities"]) == {"FEES_RECEIVABLE": 300}
    totals = (sheet["total_assets"], sheet["total_liabilities"], sheet["net_asset_value"])
    assert [Decimal(text) for text in totals] == [100_000, 300, 99_700]
    assert decimals(ledger["accounts"]) == {
        "CASH": 95_000,
        "POSITIONS": 5_000,
        "FEES_RECEIVABLE": -300,
        "MANAGEMENT_FEES": 200,
        "PERFORMANCE_FEES": 100,
        "REALIZED_PNL": -1_500,
        "UNREALIZED_PNL": 0,
    }
    assert decimals(ledger["income_statement"]) == {
        "REALIZED_PNL": 1_500,
        "UNREALIZED_PNL": 0,
        "MANAGEMENT_FEES": -200,
        "PERFORMANCE_FEES": -100,
    }
    kinds = [
        "performance_fee",
        "management_fee",
        "open_position",
        "withdrawal",
        "loss",
        "profit",
        "deposit",
    ]
    assert [entry["kind"] for entry in ledger["entries"]] == kinds
    assert [entry["seq"] for entry in ledger["entries"]] == [7, 6, 5, 4, 3, 2, 1]
    withdrawal = ledger["entries"][3]
    assert withdrawal["memo"] == "rent"
    assert withdrawal["legs"][1]["account"] == "CASH"
    assert withdrawal["legs"][1]["amount"] == "-1500.00000000"
    recorded = datetime.fromisoformat(withdrawal["at"])
    assert recorded.tzinfo is not None
    assert recorded.date().isoformat() == withdrawal["day"]

    alerts = await ask(client, "fund_alerts", limit=50)
    assert alerts["by_category"]["DRAWDOWN"] == 1
    assert alerts["by_category"]["GENERAL"] == 3
    assert alerts["by_outcome"]["DEDUPED"] == 2
    assert sum(alerts["by_outcome"].values()) == sum(alerts["by_category"].values())
    assert alerts["suppressed_by_category"] == {}
    assert [alert["title"] for alert in alerts["alerts"]][:2] == ["Drawdown", "Hello"]
    newest = alerts["alerts"][0]
    assert (newest["strategy"], newest["level"]) == ("momentum", "WARNING")

    promotion = await ask(client, "fund_promotion_status")
    assert promotion["stages"] == {"carry": "paper", "momentum": "paper"}
    newest = promotion["history"][0]
    assert (newest["strategy"], newest["kind"]) == ("momentum", "demote")
    assert (newest["from_stage"], newest["to_stage"]) == ("shadow", "paper")
    assert (newest["by"], newest["reason"]) == ("ada", "slippage")


async def test_it_answers_the_same_while_the_fund_runs_and_after_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    async with Fund.open(config(path)) as fund:
        await live_through_a_day(fund)
        async with assistant(path) as client:
            await check_every_answer(client)
            # It also sees commits made after its start.
            await fund.ledger.deposit(1)
            assert (await ask(client, "fund_ledger", limit=1))["entries"][0]["seq"] == 8
            await fund.ledger.reverse(8, reason="a test")
            newest = (await ask(client, "fund_ledger", limit=1))["entries"][0]
            assert (newest["kind"], newest["reverses"]) == ("reversal", 8)
    other = tmp_path / "other.db"
    async with Fund.open(config(other)) as fund:
        await live_through_a_day(fund)
    # The other era of the protocol, for the sake of older assistants.
    async with assistant(other, mode="legacy") as client:
        await check_every_answer(client)


async def test_the_tools_are_four_and_say_that_they_only_read(tmp_path: Path) -> None:
    async with Client(server_module._server(tmp_path / "none.db")) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert client.server_info is not None
        assert client.server_info.name == "fundops"
    assert set(tools) == {"fund_alerts", "fund_ledger", "fund_promotion_status", "fund_why"}
    for tool in tools.values():
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint is True
        assert tool.annotations.destructive_hint is False
        assert tool.description
        assert tool.input_schema["type"] == "object"
        assert tool.input_schema["additionalProperties"] is False
        assert tool.output_schema is not None
        assert tool.output_schema["type"] == "object"
    assert tools["fund_alerts"].input_schema["properties"]["limit"]["default"] == 50
    assert tools["fund_ledger"].input_schema["properties"]["limit"]["default"] == 50
    assert tools["fund_promotion_status"].input_schema["properties"] == {}


async def test_why_is_asked_of_the_running_fund_and_else_read_from_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fund.db"
    async with Fund.open(config(path)) as fund:
        await fund.promotion.adopt("s", PromotionStage.Live_Small, by="ada", reason="r")
        fund.report(StrategyStatus("s", "running", 1000, 1000, stage="live-small"))
        await fund.tick()
        await fund.tick()
        async with assistant(path) as client:
            free = await ask(client, "fund_why", strategy="s")
            assert (free["fund_answers"], free["may_open"], free["blockers"]) == (True, True, [])
            assert (free["stage"], Decimal(free["capital"])) == ("live-small", Decimal(1000))
            await fund.pause("s", by="ada", reason="night")
            [blocker] = (await ask(client, "fund_why", strategy="s"))["blockers"]
            assert blocker == {
                "kind": "operator",
                "text": "paused by ada: night",
                "lift": "fundops strategy resume s --by NAME --reason TEXT",
            }
            assert (await refusal(client, "fund_why", strategy="")).startswith("name: ")
            assert "`strategy`" in await refusal(client, "fund_why")
        await fund.tick()
    async with assistant(path) as client:
        stored = await ask(client, "fund_why", strategy="s")
        assert (stored["fund_answers"], stored["may_open"], stored["mode"]) == (
            False,
            False,
            "reduce",
        )
        assert [blocker["kind"] for blocker in stored["blockers"]] == ["operator", "lease"]
        assert stored["notes"][-1].startswith("no fund runs")
        [unknown] = (await ask(client, "fund_why", strategy="nobody"))["blockers"]
        assert unknown["kind"] == "unknown"


async def test_why_is_read_from_the_file_when_the_fund_has_no_socket(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    silent = msgspec.structs.replace(config(path), control_socket=False)
    async with Fund.open(silent) as fund:
        await fund.promotion.register("young")
        await fund.kill_switch.engage(reason="a drill", by="ada")
        async with Client(server_module._server(path)) as client:
            told = await ask(client, "fund_why", strategy="young")
    assert not told["fund_answers"]
    kinds = [blocker["kind"] for blocker in told["blockers"]]
    assert kinds[0] == "gate"
    assert "kill_switch" not in kinds, "it spares a strategy without real money"


async def test_why_is_read_from_a_file_of_promotion_alone(tmp_path: Path) -> None:
    path = tmp_path / "promotion.db"
    PromotionManager(path).register("young")
    async with Client(server_module._server(path)) as client:
        told = await ask(client, "fund_why", strategy="young")
    assert told["blockers"][0]["kind"] == "gate"
    assert told["stage"] == "paper"


async def test_a_limit_is_clamped_to_1_and_1000(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    async with Fund.open(config(path)) as fund:
        await fund.ledger.post_many([Deposit(1) for _ in range(1_100)])
    async with Client(server_module._server(path)) as client:
        for limit, given in (
            (-5, 1),
            (0, 1),
            (1, 1),
            (7, 7),
            (7.0, 7),  # an integer in JSON Schema
            (1_000, 1_000),
            (1_001, 1_000),
            (10**30, 1_000),
        ):
            assert len((await ask(client, "fund_ledger", limit=limit))["entries"]) == given
        assert len((await ask(client, "fund_ledger"))["entries"]) == 50


async def test_a_bad_argument_is_an_error_that_names_it(tmp_path: Path) -> None:
    async with Client(server_module._server(tmp_path / "none.db")) as client:
        assert (
            await refusal(client, "fund_ledger", limit="ten") == "limit: Expected `int`, got `str`"
        )
        assert (await refusal(client, "fund_alerts", limit=True)).startswith("limit: ")
        assert (await refusal(client, "fund_alerts", limit=2.5)).startswith("limit: ")
        assert "`limits`" in await refusal(client, "fund_alerts", limits=5)
        assert "`strategy`" in await refusal(client, "fund_promotion_status", strategy="momentum")


async def test_an_unknown_tool_is_an_error_that_names_it_and_the_ones_there_are(
    tmp_path: Path,
) -> None:
    async with Client(server_module._server(tmp_path / "none.db")) as client:
        with pytest.raises(
            MCPError, match=r"name: no tool 'fund_order'; there are fund_alerts, fund_ledger"
        ) as caught:
            await client.call_tool("fund_order", {})
    assert caught.value.error.code == types.INVALID_PARAMS


async def test_a_missing_database_is_an_answer_and_it_may_appear_later(tmp_path: Path) -> None:
    path = tmp_path / "fund.db"
    async with assistant(path) as client:
        for tool in ("fund_alerts", "fund_ledger", "fund_promotion_status"):
            assert await refusal(client, tool) == f"{path}: there is no such database"
        async with Fund.open(config(path)):
            pass
        assert (await ask(client, "fund_ledger"))["balance_sheet"][
            "net_asset_value"
        ] == "100000.00000000"


async def test_a_file_that_is_no_fund_is_an_answer_too(tmp_path: Path) -> None:
    text, empty = tmp_path / "text.db", tmp_path / "empty.db"
    text.write_text("not a database " * 1_000)
    empty.touch()
    for path in (text, empty):
        async with Client(server_module._server(path)) as client:
            assert str(path) in await refusal(client, "fund_ledger")


# -- the process


@asynccontextmanager
async def process(path: Path, before: str = "") -> AsyncIterator[trio.Process]:
    """A server that has shaken hands, its stdin open."""
    with trio.fail_after(PATIENCE_S):
        one = await trio.lowlevel.open_process(
            command(path, before),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert one.stdin is not None
        assert one.stdout is not None
        assert one.stderr is not None
        async with one.stdin, one.stdout, one.stderr:
            try:
                await one.stdin.send_all(
                    f"{json.dumps(INITIALIZE)}\n{json.dumps(READY)}\n".encode()
                )
                assert (await answer(one))["result"]["serverInfo"]["name"] == "fundops"
                yield one
            finally:
                if one.returncode is None:
                    one.kill()
                await one.wait()


async def answer(one: trio.Process) -> dict[str, Any]:
    """The next line of stdout, which must be a message of the protocol."""
    assert one.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        byte = await one.stdout.receive_some(1)
        assert byte, "stdout ended"
        line += byte
    message: dict[str, Any] = json.loads(line)
    assert message["jsonrpc"] == "2.0"
    return message


async def rest_of(stream: trio.abc.ReceiveStream | None) -> bytes:
    assert stream is not None
    return b"".join([chunk async for chunk in stream])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_it_while_stdin_stays_open(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with process(tmp_path / "none.db") as one:
        one.send_signal(number)
        with trio.fail_after(PROMPT_S):
            assert await one.wait() == 0
        assert await rest_of(one.stdout) == b""
        assert await rest_of(one.stderr) == b""


async def test_the_end_of_stdin_ends_it(tmp_path: Path) -> None:
    async with process(tmp_path / "none.db") as one:
        assert one.stdin is not None
        await one.stdin.aclose()
        with trio.fail_after(PROMPT_S):
            assert await one.wait() == 0
        assert await rest_of(one.stderr) == b""


async def test_it_ends_when_nobody_reads_its_answers(tmp_path: Path) -> None:
    async with process(tmp_path / "none.db") as one:
        assert one.stdin is not None
        assert one.stdout is not None
        await one.stdout.aclose()
        await one.stdin.send_all(b'{"jsonrpc": "2.0", "id": 2, "method": "ping"}\n')
        with trio.fail_after(PROMPT_S):
            assert await one.wait() == 0
        assert await rest_of(one.stderr) == b""


async def test_nothing_but_protocol_is_on_stdout(tmp_path: Path) -> None:
    noisy = """
import os
_open = fundops.mcp.answers.open_reader
def noisy(path):
    print("a stray print")
    os.write(1, b"a stray write\\n")
    return _open(path)
fundops.mcp.answers.open_reader = noisy
"""
    call = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "fund_alerts"}}
    async with process(tmp_path / "none.db", noisy) as one:
        assert one.stdin is not None
        # Garbage is not answered, and does not end the session; a message may come in two parts.
        half, other_half = json.dumps(call)[:20], json.dumps(call)[20:]
        await one.stdin.send_all(f"garbage\n\n{half}".encode())
        await one.stdin.send_all(f"{other_half}\n".encode())
        assert (await answer(one))["result"]["isError"] is True
        await one.stdin.aclose()
        assert await one.wait() == 0
        assert await rest_of(one.stdout) == b""
        assert sorted((await rest_of(one.stderr)).splitlines()) == [
            b"a stray print",
            b"a stray write",
        ]


def test_without_its_package_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['mcp'] = None; from fundops.mcp.server import serve; serve(None)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 1
    assert "FundopsError: the MCP server needs a package: pip install 'fundops[mcp]'" in done.stderr
    assert done.stdout == ""
