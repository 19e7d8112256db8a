"""The public interfaces as a type checker shows them to a host."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import fundops

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "typing"
DEADLINE_S = 300
# The cases, and the least number of mistakes that each of them marks.
MARKS = {"asks.py": 7, "front_door.py": 45}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host's folder in which the package lies as it is installed."""
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


def _mypy(folder: Path, sources: Mapping[str, str]) -> str:
    """Strict mypy's findings in these files and in the package."""
    _write(folder, sources)
    return _run(folder, "mypy", "--strict", "--no-error-summary", *sources)


def _pyright(folder: Path, sources: Mapping[str, str]) -> list[tuple[str, int]]:
    """The lines that pyright finds wrong in these files."""
    _write(folder, sources)
    found = json.loads(
        _run(folder, "pyright", "--pythonpath", sys.executable, "--outputjson", *sources)
    )
    assert found["summary"]["filesAnalyzed"] == len(sources)
    return [
        (Path(finding["file"]).name, finding["range"]["start"]["line"] + 1)
        for finding in found["generalDiagnostics"]
    ]


def _write(folder: Path, sources: Mapping[str, str]) -> None:
    for name, source in sources.items():
        (folder / name).write_text(source)


def _marked(source: str) -> set[tuple[int, str]]:
    """The lines marked as errors, with mypy's code for each."""
    return {
        (number, mark[1])
        for number, text in enumerate(source.splitlines(), start=1)
        if (mark := re.search(r"# error: ([a-z-]+)$", text))
    }


# Each checker reads the whole package first, which takes longer than all that follows: one run of
# each answers every question.


def test_mypy_finds_every_mistake_and_nothing_else(folder: Path) -> None:
    cases = _cases()
    others = {"names.py": _every_public_name(), "example.py": _first_example()}
    output = _mypy(folder, cases | others)
    found = re.findall(r"^(.*):(\d+): error: .*\[([a-z-]+)\]$", output, re.M)
    marked = {(name, str(line), code) for name in cases for line, code in _marked(cases[name])}
    assert marked == set(found), output
    # Nothing is said of the public names, of the example, or of the package itself.
    assert not [line for line in output.splitlines() if line.split(":")[0] not in cases], output


def test_pyright_finds_every_mistake_and_nothing_else(folder: Path) -> None:
    pytest.importorskip("pyright")
    cases = _cases()
    found = _pyright(folder, cases)
    assert set(found) == {(name, line) for name in cases for line, _ in _marked(cases[name])}, found


@pytest.mark.parametrize("name", MARKS)
def test_a_case_marks_so_many_mistakes_at_least(name: str) -> None:
    assert len(_marked(_cases()[name])) >= MARKS[name]


def _cases() -> dict[str, str]:
    return {name: (CASES / name).read_text() for name in MARKS}


def _every_public_name() -> str:
    names = ", ".join(fundops.__all__)
    return f"from fundops import {names}\n\nprint({names})\n"


def _first_example() -> str:
    """The first example of the runtime."""
    page = (ROOT / "docs" / "runtime.md").read_text()
    example: str = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0]
    assert "await counter.ask(" in example
    return example
