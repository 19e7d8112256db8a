"""`fundops mcp` and `fundops bench`: programs of which the command line only starts one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fundops.cli.grammar import UsageError

__all__ = ["bench", "mcp"]


def mcp(*, db: Path | None = None) -> int:
    """Answer an assistant's questions about a fund, over stdio, read-only."""
    from fundops.cli.run import database, opened
    from fundops.mcp.server import serve

    path = database(db).absolute()
    # A wrong file is refused now: an assistant would be told only in the answer of each tool.
    with opened(path):
        pass
    serve(path)
    return 0


def bench(*, names: Sequence[str] = (), scale: float = 1.0, json: bool = False) -> int:
    """Measure fundops against its peers and the physical limit, in the same run.

    Parameters
    ----------
    names
        the benches to run: messaging, supervision, ledger, growth, embedding, stream, promotion,
        transitions, luck, oversight, kill_latency; all of them if none is named
    scale
        the size of each bench; 0.01 is a smoke test
    """
    from importlib import import_module

    from fundops.bench import BENCHES
    from fundops.bench.harness import table

    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise UsageError(f"there is no bench {unknown[0]!r}; known: {', '.join(BENCHES)}")
    if not 0 < scale <= 100:
        raise UsageError(f"--scale: {scale} is not between 0 and 100")
    results = {}
    for name in names or BENCHES:
        results[name] = import_module(f"fundops.bench.{name}").run(scale)
        if not json:
            print(table(results[name]))
    if json:
        from fundops.cli.show import print_json

        print_json("bench", results)
    return 0
