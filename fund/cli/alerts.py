"""The command line of alerts: `fundops alerts ...`."""

from __future__ import annotations

from typing import Any

from cyclopts import App

from fundops.cli.options import Source
from fundops.cli.show import plain, print_json, print_table

__all__ = ["app"]

app = App(name="alerts", help="Read a fund's alerts, and test the channels that deliver them.")


@app.command
def recent(*, limit: int = 50, source: Source | None = None) -> int:
    """The newest alerts first, read from the file, whether the fund runs or not.

    Parameters
    ----------
    limit
        At most this many.
    """
    from fundops.reader import open_reader

    where = source or Source()
    with open_reader(where.path) as reader:
        page = reader.recent_alerts(limit)
    if where.json:
        return print_json(page)
    rows = [
        (
            _instant(alert.at_us),
            alert.level.value,
            alert.category.value,
            alert.outcome.value,
            alert.title,
        )
        for alert in page.alerts
    ]
    print_table(("time (UTC)", "level", "category", "outcome", "title"), rows)
    suppressed = sum(page.suppressed_by_category.values())
    if suppressed:
        print(f"{suppressed} alerts of the whole history were held back by the rate limit")
    return 0


@app.command(name="test")
def try_channels(*, source: Source | None = None) -> int:
    """Send a test alert through each channel of the running fund, and say what became of it.

    Ends with 1 unless all channels delivered it.
    """
    from fundops.control import call

    where = source or Source()
    tests: list[dict[str, Any]] = call(where.path, "alerts.test")
    delivered = bool(tests) and all(test["delivered"] for test in tests)
    if where.json:
        print_json(plain(tests))
    elif tests:
        results = [
            (test["channel"], "delivered" if test["delivered"] else "failed", test["error"] or "")
            for test in tests
        ]
        print_table(("channel", "result", "error"), results)
    else:
        print("the fund has no channel; set alert_webhook_url or alert_log")
    return 0 if delivered else 1


def _instant(at_us: int) -> str:
    from datetime import UTC, datetime, timedelta

    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return moment.strftime("%Y-%m-%d %H:%M:%S")
