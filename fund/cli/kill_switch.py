"""`fundops kill-switch`: a way in that needs neither a running loop nor its socket.

`engage` writes the marker file first and asks the fund afterwards, so it works for a fund that does
not answer, and for one that does not run.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter

from fundops.cli.options import Source
from fundops.cli.show import plain, print_json, print_pairs

__all__ = ["app"]

ANSWER_S = 15.0

app = App(name="kill-switch", help="Stop all trading of a fund, and let it start again.")


@app.command
def status(*, source: Source | None = None) -> int:
    """Tell the state of the kill switch, from the fund or from its files."""
    where = source or Source()
    return _print(where, _asked(where.path, "status", {}) or _stored(where.path), "")


@app.command
def engage(*, reason: str, by: str = "", source: Source | None = None) -> int:
    """Stop all trading now. The marker is written before the fund is asked.

    Parameters
    ----------
    reason
        Why; told in the alert.
    by
        The name of the person who decides; $USER by default.
    """
    from fundops.actors.guard.marker import Marker, marker_of
    from fundops.runtime import FundopsError, SystemClock
    from fundops.wire.foreign import fitted
    from fundops.wire.guard import KillStatus

    where = source or Source()
    person = by or getpass.getuser()
    marker = Marker(marker_of(where.path))
    if not marker.exists():
        now_us = SystemClock().now_us()
        marker.write(KillStatus("ENGAGING", fitted(reason), fitted(person), now_us))
    try:
        answer = _asked(where.path, "engage", {"reason": reason, "by": person})
    except (FundopsError, OSError) as error:
        # A damaged file, for example. The marker counts nevertheless.
        return _print(where, _marked(where.path), f"the marker is written; the fund said: {error}")
    if answer is not None:
        return _print(where, answer, "")
    told = "the marker is written; no fund answers, and one that runs or starts heeds it"
    return _print(where, _marked(where.path), told)


@app.command
def release(
    *,
    by: str,
    reason: str,
    rearm: Literal["from_current_nav", "keep_peak"] = "from_current_nav",
    accept_open_orders: Annotated[bool, Parameter(negative="")] = False,
    source: Source | None = None,
) -> int:
    """Allow trading again. Refused while the stop is not confirmed.

    Parameters
    ----------
    by
        The name of the person who decides.
    reason
        Why it is safe.
    rearm
        Measure the drawdown from the present NAV, or keep the peak.
    accept_open_orders
        Also when the engine has not confirmed that it stopped.
    """
    from fundops.cli.database import owned
    from fundops.file.release import release_stored

    where = source or Source()
    given: dict[str, Any] = {
        "by": by,
        "reason": reason,
        "rearm": rearm,
        "accept_open_orders": accept_open_orders,
    }
    answer = _asked(where.path, "release", given)
    if answer is None:
        with owned(where.path):
            release_stored(where.path, **given)
        answer = _stored(where.path)
    return _print(where, answer, "")


def _asked(path: Path, method: str, arguments: dict[str, Any]) -> Any:
    """The fund's answer; None when no fund answers. Raises: the fund's refusal."""
    from fundops.control import call
    from fundops.errors import ControlError

    if not path.exists():
        return None
    by = str(arguments.get("by", ""))
    try:
        return call(path, f"kill_switch.{method}", arguments, by=by, timeout_s=ANSWER_S)
    except ControlError as error:
        # Without a socket, or with a loop that is stuck. A refusal has another class.
        if error.kind == "ControlError":
            return None
        raise


def _marked(path: Path) -> Any:
    from fundops.actors.guard.marker import Marker, marker_of

    return Marker(marker_of(path)).read()


def _stored(path: Path) -> Any:
    from fundops.file.release import stored_status

    return stored_status(path)


def _print(where: Source, answer: Any, told: str) -> int:
    shown = plain(answer)
    if where.json:
        return print_json(shown)
    print_pairs({name: value for name, value in shown.items() if value not in (None, "")})
    if told:
        print(told)
    return 0
