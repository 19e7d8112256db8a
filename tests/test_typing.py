"""What a type checker makes of the public interfaces, as an embedder would see it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CASES = ROOT / "tests" / "typing"


def test_asks_are_typed_by_their_requests_and_mistakes_are_found(tmp_path: Path) -> None:
    # The runtime alone, laid out as it is installed.
    package = tmp_path / "fundops"
    shutil.copytree(ROOT / "runtime", package / "runtime")
    (package / "__init__.py").touch()
    (package / "py.typed").touch()
    cases = tmp_path / "asks.py"
    source = (CASES / "asks.py").read_text()
    cases.write_text(source)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--cache-dir", str(tmp_path / "cache")]
    checked = subprocess.run([*command, str(cases)], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert not checked.stderr, checked.stderr
    found = {(int(line), kind) for line, kind in re.findall(r"asks\.py:(\d+): error: .*\[([a-z-]+)\]", checked.stdout)}
    expected = {
        (number, mark[1])
        for number, text in enumerate(source.splitlines(), start=1)
        if (mark := re.search(r"# error: ([a-z-]+)$", text))
    }
    assert len(expected) > 5
    assert found == expected, checked.stdout
