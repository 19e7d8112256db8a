"""Draws docs/demo.svg, the picture in the README: `python docs/picture.py`; needs the package.

It is a pure function of the figures of the default demo, which are stored in
tests/fund/replay/demo.json. `--replay` runs the demo first and stores its figures anew.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fundops.replay.figures import DemoReport
from fundops.replay.picture import story

__all__ = ["FIGURES", "PICTURE", "stored"]

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "tests" / "fund" / "replay" / "demo.json"
PICTURE = ROOT / "docs" / "demo.svg"


def stored(report: str) -> str:
    """The figures as they are stored: without the time that they took, a line for each of them."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}"
        for name, value in {**json.loads(report), "wall_s": 0}.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    """Draw the picture."""
    if "--replay" in sys.argv:
        demo = [sys.executable, "-m", "fundops", "demo", "--no-serve", "--json"]
        done = subprocess.run(demo, check=True, stdout=subprocess.PIPE, text=True)
        FIGURES.write_text(stored(done.stdout), encoding="utf-8")
    report = DemoReport.from_json(FIGURES.read_text(encoding="utf-8"))
    PICTURE.write_text(story(report), encoding="utf-8")


if __name__ == "__main__":
    main()
