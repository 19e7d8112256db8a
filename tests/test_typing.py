"""The public interfaces as a type checker shows them to an embedder."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "typing"


def _mypy(tmp_path: Path, name: str, source: str) -> str:
    """Strict mypy's findings in `source`, with the runtime alone laid out as it is installed."""
    package = tmp_path / "fundops"
    shutil.copytree(ROOT / "runtime", package / "runtime")
    (package / "__init__.py").touch()
    (package / "py.typed").touch()
    module = tmp_path / name
    module.write_text(source)
    cache = str(tmp_path / "cache")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", cache]
    checked = subprocess.run(
        [*command, str(module)], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert not checked.stderr, checked.stderr
    return checked.stdout


def test_asks_are_typed_by_their_requests_and_mistakes_are_found(tmp_path: Path) -> None:
    source = (CASES / "asks.py").read_text()
    output = _mypy(tmp_path, "asks.py", source)
    found = {
        (int(line), kind)
        for line, kind in re.findall(r"asks\.py:(\d+): error: .*\[([a-z-]+)\]", output)
    }
    expected = {
        (number, mark[1])
        for number, text in enumerate(source.splitlines(), start=1)
        if (mark := re.search(r"# error: ([a-z-]+)$", text))
    }
    assert len(expected) > 5
    assert found == expected, output


def test_the_first_example_of_the_runtime_is_strictly_typed(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "runtime.md").read_text()
    example = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)[0]
    assert "await counter.ask(" in example
    assert _mypy(tmp_path, "example.py", example) == ""
