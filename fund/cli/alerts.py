"""`fundops alerts test`: a test alert through each channel of the running fund."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fundops.cli.run import database, existing
from fundops.cli.show import Column, print_json, print_table

__all__ = ["try_channels"]


def try_channels(*, db: Path | None = None, json: bool = False) -> int:
    """Send a test alert through each channel, and say which of them delivered it.

    It is no part of the history. The exit code is 1 unless all channels delivered it.
    """
    from fundops.control.client import call

    tests: list[dict[str, Any]] = call(existing(database(db)), "alerts.test")
    delivered = bool(tests) and all(test["delivered"] for test in tests)
    if json:
        print_json("alerts test", tests)
    elif tests:
        columns = (Column("channel", cut="middle"), Column("result"), Column("error", cut="end"))
        rows = [
            [test["channel"], "delivered" if test["delivered"] else "failed", test["error"] or ""]
            for test in tests
        ]
        print_table(columns, rows)
    else:
        print("the fund has no channel; set alert_webhook_url or alert_log")
    return 0 if delivered else 1
