"""The house itself: packages listed, imports pointing one way, nothing heavy loaded by accident."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
# An import may stay on its floor or go to the left.
FLOORS = ("runtime", "wire", "actors", "fund", "bench")
# The command line may import every floor.
ROOF = ("fundops.cli", "fundops.__main__")
# The rooms of `fund/`: an import may stay in its room or go to one before it.
ROOMS = (
    *("errors", "moments", "signals", "reported", "bridge", "config", "limits", "why", "page"),
    *("file", "doors", "control", "reader"),
    *("tree", "fund", "faces", "promotion", "hosted", "manager", "asyncio_fund"),
    *("conformance", "testing"),
    *("replay", "mcp"),
    *("cli", "__main__"),
)
DEADLINE_S = 60
MEMBER_KINDS = (staticmethod, classmethod, property)


class Import(NamedTuple):
    """One name that a module imports, as the module or the package it comes from."""

    target: str
    line: int
    # In a function, or for type checkers alone, so that it cannot close a cycle.
    deferred: bool


def _config() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]  # type: ignore[no-any-return]


def _sources() -> list[Path]:
    return sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def _module(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(["fundops", *(parts[1:] if parts[0] == "fund" else parts)])


MODULES = {_module(path): path for path in _sources()}


def _floor(module: str) -> int:
    part = module.split(".")[1] if "." in module else "fund"
    return FLOORS.index(part) if part in FLOORS else FLOORS.index("fund")


def _room(module: str) -> str | None:
    """The room of `fund/` that a module is in; None for the other floors and for the lazy front
    door itself.
    """
    parts = module.split(".")
    return None if len(parts) < 2 or parts[1] in FLOORS[:3] or parts[1] == "bench" else parts[1]


def _on_roof(module: str) -> bool:
    return any(f"{module}.".startswith(f"{roof}.") for roof in ROOF)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def _imports(module: str) -> Iterator[Import]:
    path = MODULES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node, deferred in _walk(_tree(path), deferred=False):
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, node.lineno, deferred) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            )
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                yield Import(inner if inner in MODULES else source, node.lineno, deferred)


def _walk(node: ast.AST, *, deferred: bool) -> Iterator[tuple[ast.AST, bool]]:
    for child in ast.iter_child_nodes(node):
        later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
            isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test)
        )
        yield child, deferred
        yield from _walk(child, deferred=deferred or later)


def _own(module: str) -> Iterator[Import]:
    return (found for found in _imports(module) if f"{found.target}.".startswith("fundops."))


# -- what is shipped


def test_every_folder_with_python_files_is_a_listed_package() -> None:
    folders = {_module(path / "__init__.py") for path in {source.parent for source in _sources()}}
    assert folders <= set(_config()["packages"])  # type: ignore[call-overload]


def test_no_package_is_listed_twice_and_each_has_its_folder() -> None:
    config = _config()
    packages: list[str] = config["packages"]  # type: ignore[assignment]
    places: dict[str, str] = config["package-dir"]  # type: ignore[assignment]
    assert [name for name, count in Counter(packages).items() if count > 1] == []
    for package in packages:
        homes = (name for name in places if f"{package}.".startswith(f"{name}."))
        home = max(homes, key=len)
        folder = ROOT / places[home] / package[len(home) + 1 :].replace(".", "/")
        assert folder.is_dir(), package


def test_the_five_folders_are_mapped_to_one_import_name() -> None:
    assert _config()["package-dir"] == {
        "fundops": "fund",
        **{f"fundops.{floor}": floor for floor in FLOORS if floor != "fund"},
    }


# -- how it hangs together


def _findings(wrong: Callable[[str, Import], bool]) -> list[str]:
    return [
        f"{name}:{found.line} imports {found.target}"
        for name in MODULES
        for found in _own(name)
        if wrong(name, found)
    ]


def test_no_import_runs_upwards() -> None:
    def wrong(name: str, found: Import) -> bool:
        return not _on_roof(name) and _floor(found.target) > _floor(name)

    assert _findings(wrong) == []


def test_every_room_of_the_fund_is_known_and_no_other() -> None:
    assert {room for room in map(_room, MODULES) if room is not None} == set(ROOMS)


def test_no_room_imports_a_later_one() -> None:
    def wrong(name: str, found: Import) -> bool:
        room, target = _room(name), _room(found.target)
        return room is not None and target is not None and ROOMS.index(target) > ROOMS.index(room)

    assert _findings(wrong) == []


def test_no_module_imports_the_command_line() -> None:
    assert _findings(lambda name, found: not _on_roof(name) and _on_roof(found.target)) == []


def test_every_import_within_the_package_names_a_module_that_exists() -> None:
    assert _findings(lambda _, found: found.target not in MODULES) == []


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {
        name: {found.target for found in _own(name) if not found.deferred} - {name}
        for name in MODULES
    }
    # Remove the modules that import no remaining module, until there is none. The rest are in
    # circles.
    while leaves := {name for name, wanted in graph.items() if not wanted & graph.keys()}:
        graph = {name: wanted for name, wanted in graph.items() if name not in leaves}
    assert graph == {}


def test_the_check_for_circles_can_fail() -> None:
    source = "import a\nif TYPE_CHECKING:\n    import b\ndef f():\n    import c\n"
    found = {
        node.names[0].name: later
        for node, later in _walk(ast.parse(source), deferred=False)
        if isinstance(node, ast.Import)
    }
    assert found == {"a": False, "b": True, "c": True}


# -- how it is written


def test_every_module_says_what_it_is() -> None:
    assert [
        name for name, path in MODULES.items() if not (ast.get_docstring(_tree(path)) or "").strip()
    ] == []


def test_every_public_name_exists_and_is_named_once() -> None:
    for module in MODULES:
        loaded = import_module(module)
        names = list(getattr(loaded, "__all__", ()))
        assert [name for name in names if not hasattr(loaded, name)] == [], module
        assert len(names) == len(set(names)), module


def test_the_front_door_lists_what_it_offers() -> None:
    fundops = import_module("fundops")
    assert set(fundops.__all__) <= set(dir(fundops))
    with pytest.raises(AttributeError, match="no attribute 'nothing_of_that_name'"):
        getattr(fundops, "nothing_of_that_name")  # noqa: B009  mypy would refuse the plain spelling


def test_type_checkers_see_at_the_front_door_the_names_that_are_loaded() -> None:
    """The names under TYPE_CHECKING and the table of homes are two lists of one thing."""
    seen: dict[str, str | None] = {}
    for node, deferred in _walk(_tree(ROOT / "fund" / "__init__.py"), deferred=False):
        if (
            deferred
            and isinstance(node, ast.ImportFrom)
            and str(node.module).startswith("fundops.")
        ):
            seen |= {alias.name: node.module for alias in node.names}
    homes = vars(import_module("fundops"))["_HOMES"]
    assert seen == homes


LAZY = sorted(
    name
    for name, path in MODULES.items()
    if path.name == "__init__.py" and "= lazy(" in path.read_text()
)


@pytest.mark.parametrize("package", LAZY)
def test_names_that_are_loaded_when_first_used_are_those_that_type_checkers_see(
    package: str,
) -> None:
    tree = _tree(MODULES[package])
    [branch] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        (str(node.module), alias.name)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    [assignment] = branch.orelse
    assert isinstance(assignment, ast.Assign)
    assert isinstance(assignment.value, ast.Call)
    homes: dict[str, tuple[str, ...]] = ast.literal_eval(assignment.value.args[1])
    assert seen == {(module, name) for module, names in homes.items() for name in names}
    modules = {name.rpartition(".")[2] for name in MODULES if name.startswith(f"{package}.")}
    # A module that was imported would be found in place of the name.
    assert {name for _, name in seen} & modules == set()
    for module, name in seen:
        loaded = getattr(import_module(package), name)
        assert loaded is getattr(import_module(f"{package}.{module}"), name)


def test_every_exported_name_has_a_docstring() -> None:
    """Classes with their public methods and properties; an overriding method may inherit it."""
    silent = set()
    for module in MODULES:
        loaded = import_module(module)
        exported = (getattr(loaded, name) for name in getattr(loaded, "__all__", ()))
        for value in exported:
            named = isinstance(value, type) or inspect.isfunction(value)
            if not named or not value.__module__.startswith("fundops"):
                continue
            if not value.__doc__:
                silent.add(f"{value.__module__}.{value.__qualname__}")
            for name in _public_members(value):
                if not inspect.getdoc(getattr(value, name)):
                    silent.add(f"{value.__module__}.{value.__qualname__}.{name}")
    assert sorted(silent) == []


def _public_members(value: object) -> list[str]:
    """The methods and properties that a class defines itself; none of a function."""
    if not isinstance(value, type):
        return []
    return [
        name
        for name, member in vars(value).items()
        if not name.startswith("_")
        and (inspect.isfunction(member) or isinstance(member, MEMBER_KINDS))
    ]


def test_every_handler_has_a_docstring() -> None:
    handlers = [
        (f"{module}.{node.name}", ast.get_docstring(node))
        for module, path in MODULES.items()
        for node in ast.walk(_tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(map(_is_handler_mark, node.decorator_list))
    ]
    assert len(handlers) > 50
    assert [name for name, text in handlers if not text] == []


def _is_handler_mark(decorator: ast.expr) -> bool:
    call = decorator.func if isinstance(decorator, ast.Call) else decorator
    return isinstance(call, ast.Name) and call.id in ("handles", "handles_batch")


def test_no_mark_is_left_for_later() -> None:
    marks = re.compile(
        r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")) + r")\b"
    )
    assert [name for name, path in MODULES.items() if marks.search(path.read_text())] == []


def test_a_broad_except_raises_again_or_explains_itself() -> None:
    unexplained = []
    for module, path in MODULES.items():
        lines = path.read_text().splitlines()
        for node in ast.walk(_tree(path)):
            if isinstance(node, ast.ExceptHandler) and _is_broad(node.type):
                _, mark, reason = lines[node.lineno - 1].partition("noqa: BLE001")
                above = lines[node.lineno - 2].strip()
                # The reason stands after the mark or in the line above.
                explained = mark and (reason.strip() or above.startswith("#"))
                if not explained and not isinstance(node.body[-1], ast.Raise):
                    unexplained.append(f"{module}:{node.lineno}")
    assert unexplained == []


def _is_broad(kind: ast.expr | None) -> bool:
    names = (
        {node.id for node in ast.walk(kind) if isinstance(node, ast.Name)}
        if kind is not None
        else {"Exception"}
    )
    return bool(names & {"Exception", "BaseException"})


# -- what is loaded


def _loaded_by(statement: str) -> set[str]:
    """The modules a fresh interpreter holds after `statement`."""
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=True,
        cwd="/",
    )
    return set(done.stderr.split())


def test_the_runtime_alone_loads_neither_database_nor_http_client_nor_fund() -> None:
    loaded = _loaded_by("import fundops.runtime")
    assert "fundops.runtime" in loaded
    assert loaded & {"apsw", "httpx2", "mcp", "rich", "fundops.fund", "fundops.config"} == set()
    assert [name for name in loaded if name.startswith(("fundops.wire", "fundops.actors"))] == []


def test_the_control_room_alone_loads_neither_trio_nor_the_database() -> None:
    loaded = _loaded_by("import fundops.control")
    assert {name for name in loaded if name.startswith("fundops.")} == {"fundops.control"}
    assert loaded & {"trio", "apsw", "msgspec"} == set()


def test_the_package_alone_loads_nothing_else() -> None:
    loaded = _loaded_by("import fundops")
    assert {name for name in loaded if name.startswith("fundops.")} == set()
    assert loaded & {"trio", "apsw", "httpx2", "msgspec"} == set()


@pytest.mark.parametrize("arguments", [["--help"], ["demo", "--help"], ["--version"]], ids=" ".join)
def test_help_loads_neither_trio_nor_mcp_nor_the_database(arguments: list[str]) -> None:
    loaded = _loaded_by(
        f"sys.argv = ['fundops', *{arguments!r}]\nfrom fundops.__main__ import main\n"
        "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 0, ended.code"
    )
    assert "fundops.cli.app" in loaded
    assert "fundops.doors" not in loaded
    assert loaded & {"trio", "mcp", "apsw", "httpx2", "fundops.fund", "fundops.mcp"} == set()


def test_a_question_to_the_file_loads_neither_trio_nor_the_doors(tmp_path: Path) -> None:
    from fundops.file.database import prepare

    path = tmp_path / "x.db"
    prepare(path, {"name": "fund", "currency": "USD", "total_capital": "1"})
    for words in ("ledger nav", "ledger entries", "alerts list", "strategy history"):
        loaded = _loaded_by(
            f"sys.argv = ['fundops', *{words.split()!r}, '--db', {str(path)!r}]\n"
            "from fundops.__main__ import main\n"
            "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 0, ended.code"
        )
        assert "apsw" in loaded
        assert loaded & {"trio", "rich", "httpx2", "fundops.doors", "fundops.fund"} == set()
