"""Writes fund/faces.pyi, which tells type checkers and editors what the faces of a fund offer.

The faces are made from the table of commands at run time. Names, arguments, answers and docstrings
are copied from the source of the doors, with the imports that they need.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Final

from fundops.control.commands import FUND, PARTS, commands_of
from fundops.faces import plain_methods

__all__ = ["stub"]

OPENING = '''\
"""The doors of a fund in another thread, for type checkers; `python docs/generate.py` writes it."""
'''

# The name of each part in the names of its classes.
NAMES: Final = {
    FUND: "Verbs",
    "ledger": "Ledger",
    "promotion": "Promotion",
    "alerts": "Alerts",
    "recovery": "Recovery",
    "kill_switch": "KillSwitch",
}
Method = ast.FunctionDef | ast.AsyncFunctionDef
BASES: Final = {"Sync": "SyncFace", "Asyncio": "AsyncioFace"}
CLOSING: Final = '''
class Waits(Protocol):
    """The way into the thread of a fund: `wait` runs a function there and waits for its answer."""

    def wait(self, verb: str, function: Callable[[Fund], Awaitable[Any]]) -> Any: ...
    def now(self) -> Fund: ...

class Posts(Protocol):
    """The way into the thread of a fund from an asyncio loop."""

    async def post(self, function: Callable[[Fund], Awaitable[Any]]) -> Any: ...
    def now(self) -> Fund: ...

class Asked:
    """One call of a verb, to be made on the fund."""

    command: Command
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __init__(
        self, command: Command, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> None: ...
    async def __call__(self, fund: Fund) -> Any: ...
    def named(self) -> dict[str, Any]: ...

class SyncFace:
    """One part of a fund, with its verbs as plain calls. Each waits for its answer."""

    def __init__(self, way: Waits) -> None: ...

class AsyncioFace:
    """One part of a fund, with its verbs as coroutines for an asyncio loop."""

    def __init__(self, way: Posts) -> None: ...

def sync_face(part: str, name: str) -> type[SyncFace]: ...
def asyncio_face(part: str, name: str) -> type[AsyncioFace]: ...
def plain_methods(part: str) -> tuple[str, ...]: ...
'''
IMPORTS: Final = (
    "from collections.abc import Awaitable, Callable, Mapping",
    "from fundops.control.commands import Command",
    "from typing import Any, Protocol",
    "from fundops.fund import Fund",
)


def stub() -> str:
    """The text of fund/faces.pyi, before it is formatted."""
    needed = set(IMPORTS)
    classes = []
    for kind, base in BASES.items():
        for part, name in NAMES.items():
            methods = []
            for method in _methods(part):
                needed |= set(_imports_of(part, method))
                methods.append(_stubbed(method, is_async=kind == "Asyncio"))
            body = textwrap.indent("\n".join(methods), "    ")
            classes.append(f"class {kind}{name}({base}):\n{body}\n")
    return "\n".join([OPENING, *sorted(needed), CLOSING, *classes])


def _methods(part: str) -> Iterator[Method]:
    methods = [command.method for command in commands_of(part)]
    if part != FUND:
        methods += [getattr(PARTS[part], name) for name in plain_methods(part)]
    for method in methods:
        [node] = ast.parse(textwrap.dedent(inspect.getsource(method))).body
        assert isinstance(node, Method)
        yield node


def _stubbed(method: Method, *, is_async: bool) -> str:
    """One method with its docstring, as a coroutine where it is one and the face is asyncio's."""
    docstring = ast.get_docstring(method, clean=False)
    assert docstring is not None
    assert method.returns is not None
    prefix = "async " if is_async and isinstance(method, ast.AsyncFunctionDef) else ""
    head = f"{prefix}def {method.name}({ast.unparse(method.args)}) -> "
    text = textwrap.indent(inspect.cleandoc(docstring), "    ").strip()
    quoted = f'"""{text}"""' if "\n" not in text else f'"""{text}\n    """'
    return f"{head}{ast.unparse(method.returns)}:\n    {quoted}\n"


def _imports_of(part: str, method: Method) -> Iterator[str]:
    """The import statements of the door's module that the method's signature needs."""
    names = {
        node.id
        for part_of in (method.args, method.returns)
        for node in ast.walk(part_of)  # type: ignore[arg-type]
        if isinstance(node, ast.Name)
    }
    module = inspect.getmodule(PARTS[part])
    assert module is not None
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if (alias.asname or alias.name) in names:
                    yield f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if alias.name in names:
                    yield f"from {node.module} import {alias.name}"
