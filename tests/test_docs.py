"""Every snippet in docs/ is run as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
SNIPPETS = [
    pytest.param(source, id=f"{page.stem}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, source in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S))
]
PRINTED = {
    "runtime-0": "3",
    "runtime-1": "halt\nSPY 999.0",
    "runtime-2": "life 2 uploaded first\nlife 5 uploaded last\n1 quarantined after 3 attempts: OSError",
    "runtime-3": "True 64",
    "runtime-4": "[('store', 1), ('subsystems', 1)]",
    "runtime-5": "feed is gone: market closed\nmarket closed",
    "runtime-6": "Divide crashed: ZeroDivisionError\nCrashed divider\nRestarted divider\n"
    "<Supervisor root: divider running#2> ZeroDivisionError: division by zero\nTerminated divider",
}


@pytest.mark.parametrize("source", SNIPPETS)
def test_a_snippet_runs_and_prints_what_it_should(source: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == PRINTED[request.node.callspec.id]
