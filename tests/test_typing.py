"""The public interfaces as a type checker shows them to a host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fundops

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "typing"
DEADLINE_S = 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's folder in which the package lies as it is installed; its mypy cache is shared."""
    folder = tmp_path_factory.mktemp("host")
    package = folder / "fundops"
    without_caches = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "fund", package, ignore=without_caches)
    for floor in ("runtime", "wire", "actors", "bench"):
        shutil.copytree(ROOT / floor, package / floor, ignore=without_caches)
    assert (package / "py.typed").exists()
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard"}')
    return folder


def _run(folder: Path, *command: str) -> str:
    # The wrapper of pyright would look on the network for a newer version.
    quiet = {**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    checked = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env=quiet,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert not checked.stderr, checked.stderr
    return checked.stdout


def _mypy(folder: Path, name: str, source: str) -> str:
    """Strict mypy's findings in `source` and in the package."""
    (folder / name).write_text(source)
    return _run(folder, "mypy", "--strict", "--no-error-summary", "--cache-dir", "cache", name)


def _pyright(folder: Path, name: str, source: str) -> list[tuple[int, str]]:
    """The lines that pyright finds wrong in `source`, each with its message."""
    (folder / name).write_text(source)
    found = json.loads(
        _run(folder, "pyright", "--pythonpath", sys.executable, "--outputjson", name)
    )
    assert found["summary"]["filesAnalyzed"] == 1
    return [
        (finding["range"]["start"]["line"] + 1, finding["message"])
        for finding in found["generalDiagnostics"]
    ]


def _marked(source: str) -> set[tuple[int, str]]:
    """The lines marked as errors, with mypy's code for each."""
    return {
        (number, mark[1])
        for number, text in enumerate(source.splitlines(), start=1)
        if (mark := re.search(r"# error: ([a-z-]+)$", text))
    }


@pytest.mark.parametrize(("name", "marks"), [("asks.py", 7), ("front_door.py", 45)])
def test_mypy_finds_every_mistake_and_nothing_else(folder: Path, name: str, marks: int) -> None:
    source = (CASES / name).read_text()
    output = _mypy(folder, name, source)
    found = re.findall(r"^(.*):(\d+): error: .*\[([a-z-]+)\]$", output, re.M)
    assert len(_marked(source)) >= marks
    assert {(name, str(line), code) for line, code in _marked(source)} == set(found), output


@pytest.mark.parametrize("name", ["asks.py", "front_door.py"])
def test_pyright_finds_every_mistake_and_nothing_else(folder: Path, name: str) -> None:
    pytest.importorskip("pyright")
    source = (CASES / name).read_text()
    found = _pyright(folder, name, source)
    assert {line for line, _ in found} == {line for line, _ in _marked(source)}, found


def test_every_public_name_can_be_imported_under_strict_checks(folder: Path) -> None:
    names = ", ".join(fundops.__all__)
    source = f"from fundops import {names}\n\nprint({names})\n"
    assert _mypy(folder, "names.py", source) == ""


def test_the_first_example_of_the_runtime_is_strictly_typed(folder: Path) -> None:
    page = (ROOT / "docs" / "runtime.md").read_text()
    example = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0]
    assert "await counter.ask(" in example
    assert _mypy(folder, "example.py", example) == ""
