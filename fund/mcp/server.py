"""The protocol: requests on stdin, answers on stdout, in a separate process.

Importing it raises `FundopsError` when the package `mcp` is not installed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import trio

from fundops.mcp.answers import TOOLS, answer, checked, schema
from fundops.runtime import FundopsError

try:
    import anyio
    from mcp import MCPError, types
    from mcp.server import Server, ServerRequestContext
    from mcp.shared.message import SessionMessage
except ImportError as missing:
    raise FundopsError("the MCP server needs a package: pip install 'fundops[mcp]'") from missing

__all__ = ["serve"]

# The time to deliver the last answers after the client has closed our stdin.
FLUSH_DEADLINE_S = 1.0


def serve(path: Path) -> None:
    """Answer on stdin and stdout until stdin ends, SIGINT or SIGTERM.

    Call it from the main thread.
    """
    # Ctrl-C may also come before our signal handlers are installed.
    with suppress(KeyboardInterrupt):
        trio.run(_serve, path)


def _server(path: Path) -> Server[Any]:
    return Server(
        "fundops",
        version=version("fundops"),
        instructions="Read-only questions about one trading fund: "
        "its alerts, its books, its strategies' promotion, and what keeps one from trading.",
        on_list_tools=_list_tools,
        on_call_tool=partial(_call_tool, path),
    )


async def _list_tools(
    _: ServerRequestContext[Any], __: types.PaginatedRequestParams | None
) -> types.ListToolsResult:
    hints = types.ToolAnnotations(
        read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False
    )
    tools = [
        types.Tool(
            name=name,
            description=tool.description,
            input_schema=schema(tool.arguments),
            output_schema=schema(tool.answer),
            annotations=hints,
        )
        for name, tool in TOOLS.items()
    ]
    return types.ListToolsResult(tools=tools)


async def _call_tool(
    path: Path, _: ServerRequestContext[Any], params: types.CallToolRequestParams
) -> types.CallToolResult:
    """Run one tool.

    An error that a model can correct, as a wrong argument, is sent as a result: the protocol asks
    for that.
    """
    tool = TOOLS.get(params.name)
    if tool is None:
        raise MCPError(
            types.INVALID_PARAMS, f"name: no tool {params.name!r}; there are {', '.join(TOOLS)}"
        )
    try:
        arguments = checked(tool.arguments, params.arguments)
        # In a thread, so that Ctrl-C need not wait for a busy database.
        found = await trio.to_thread.run_sync(answer, path, tool, arguments, abandon_on_cancel=True)
    except FundopsError as error:
        return types.CallToolResult(content=[types.TextContent(text=str(error))], is_error=True)
    return types.CallToolResult(
        content=[types.TextContent(text=msgspec.json.encode(found).decode())],
        structured_content=msgspec.to_builtins(found),
    )


async def _serve(path: Path) -> None:
    # Not the stock transport: it reads in a thread that no signal reaches and so ignores Ctrl-C
    # until stdin ends.
    incoming, requests = anyio.create_memory_object_stream[SessionMessage | Exception]()
    answers, outgoing = anyio.create_memory_object_stream[SessionMessage]()
    server = _server(path)
    with (
        trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals,
        _wire() as (stdin_fd, stdout_fd),
    ):
        async with (
            trio.lowlevel.FdStream(stdin_fd) as stdin,
            trio.lowlevel.FdStream(stdout_fd) as stdout,
            trio.open_nursery() as all_of_it,
        ):
            all_of_it.start_soon(_stop_on_signal, signals, all_of_it.cancel_scope)
            all_of_it.start_soon(_receive, stdin, incoming)
            async with trio.open_nursery() as sending:
                sending.start_soon(_send, outgoing, stdout, all_of_it.cancel_scope)
                await server.run(requests, answers, server.create_initialization_options())
                sending.cancel_scope.deadline = trio.current_time() + FLUSH_DEADLINE_S
            all_of_it.cancel_scope.cancel()


@contextmanager
def _wire() -> Iterator[tuple[int, int]]:
    """Duplicates of stdin and stdout, for the caller to close.

    Meanwhile stray prints go to stderr.
    """
    sys.stdout.flush()
    saved = os.dup(1)
    try:
        stdin, stdout = os.dup(0), os.dup(1)
        os.dup2(2, 1)
        yield stdin, stdout
    finally:
        sys.stdout.flush()
        os.dup2(saved, 1)
        os.close(saved)


async def _stop_on_signal(signals: AsyncIterator[int], scope: trio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _receive(
    stdin: trio.abc.ReceiveStream, messages: anyio.abc.ObjectSendStream[SessionMessage | Exception]
) -> None:
    # A broken resource: the terminal hung up or the server ended. Reading is over in either case.
    with suppress(trio.BrokenResourceError, anyio.BrokenResourceError):
        async with messages:
            rest = b""
            async for chunk in stdin:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    await messages.send(_message(line))
            if rest:
                await messages.send(_message(rest))


def _message(line: bytes) -> SessionMessage | Exception:
    try:
        return SessionMessage(types.jsonrpc_message_adapter.validate_json(line, by_name=False))
    except ValueError as error:
        return error  # the session answers it, as with the stock transport


async def _send(
    messages: anyio.abc.ObjectReceiveStream[SessionMessage],
    stdout: trio.abc.SendStream,
    scope: trio.CancelScope,
) -> None:
    try:
        async with messages:
            async for message in messages:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                await stdout.send_all(text.encode() + b"\n")
    except trio.BrokenResourceError:
        scope.cancel()  # the client has closed its end
