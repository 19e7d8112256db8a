"""`fundops kill-switch`: a way in that needs neither a running loop nor its socket.

`engage` writes the marker file first and asks the fund afterwards, so it works for a fund that does
not answer, and for one that does not run.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from fundops.cli.run import author, checked, database, existing, quiet
from fundops.cli.show import moment, print_json, print_pairs

__all__ = ["engage", "release", "status"]

ANSWER_S = 15.0


def status(*, db: Path | None = None, json: bool = False) -> int:
    """Tell the state of the kill switch, from the fund or from its files."""
    from fundops.errors import ControlError
    from fundops.wire.errors import DatabaseError

    path = database(db)
    marked = _marked(path)
    if marked is None:
        existing(path)  # OFF would be a wrong answer for a path that was misspelt
    answer, told = None, ""
    try:
        answer = _asked(path, "status", {})
    except DatabaseError:
        # On a full disk SQLite cannot even read; the marker alone means engaged.
        if marked is None:
            raise
    except ControlError as error:
        if error.outcome == "not_executed":
            raise  # the files of a copy tell nothing of the fund that runs
        told = f"read from the files; {error}"
    return _print("status", answer or _stored(path), told, as_json=json)


def engage(*, reason: str, by: str = "", db: Path | None = None, json: bool = False) -> int:
    """Stop all trading now. The marker is written before the fund is asked.

    Parameters
    ----------
    reason
        why; told in the alert
    """
    from fundops.actors.guard.marker import Marker, marker_of
    from fundops.errors import ControlError
    from fundops.runtime import FundopsError, SystemClock
    from fundops.wire.foreign import fitted
    from fundops.wire.guard import KillStatus

    path = database(db)
    person = by or author(None)
    marker = Marker(marker_of(path))
    failure: OSError | None = None
    # `Marker.exists` takes a folder that cannot be read for a marker.
    if not os.path.lexists(marker.path):
        now_us = SystemClock().now_us()
        try:
            marker.write(KillStatus("ENGAGING", fitted(reason), fitted(person), now_us))
        except OSError as error:
            failure = error  # on a full disk, for example: the fund is asked nevertheless
    written = os.path.lexists(marker.path)
    try:
        answer = _asked(path, "engage", {"reason": fitted(reason), "by": fitted(person)})
    except (FundopsError, OSError) as error:
        if not written:
            raise failure or error from None
        if isinstance(error, ControlError) and error.outcome == "not_executed":
            # The fund of a copy's original, for example, looks for another marker.
            heeded = f"a fund heeds {marker.path} only if it runs or starts on {path}"
            problem = f"the marker is written, but no fund confirms it: {error}; {heeded}"
            raise ControlError(problem) from error
        # A damaged file or a loop that is stuck, for example. The marker counts nevertheless.
        told = f"the marker is written, and a fund that runs or starts heeds it; {error}"
        return _print("engage", _marked(path), told, as_json=json)
    if answer is not None:
        return _print("engage", answer, "", as_json=json)
    if not written and failure is not None:
        raise failure
    told = "the marker is written; no fund answers, and one that runs or starts heeds it"
    if not path.is_file():
        told = f"the marker is written, but there is no database {path}: is this the fund's path?"
    return _print("engage", _marked(path), told, as_json=json)


def release(
    *,
    by: str,
    reason: str,
    rearm: Literal["from_current_nav", "keep_peak"] = "from_current_nav",
    accept_open_orders: bool = False,
    db: Path | None = None,
    json: bool = False,
) -> int:
    """Allow trading again. Refused while the stop is not confirmed.

    Strategies that the switch stopped stay stopped until a person starts them.

    Parameters
    ----------
    by
        the name of the person who decides
    reason
        why it is safe
    rearm
        measure the drawdown from the present NAV, or keep the peak
    accept_open_orders
        also when the engine has not confirmed that it stopped
    """
    from fundops.cli.database import owned
    from fundops.file.release import release_stored

    path = existing(database(db))
    given: dict[str, Any] = {
        "by": by,
        "reason": reason,
        "rearm": rearm,
        "accept_open_orders": accept_open_orders,
    }
    answer = _asked(path, "release", given)
    if answer is None:
        quiet()
        with owned(path):
            answer = release_stored(path, **given)
    return _print("release", answer, "", as_json=json)


def _asked(path: Path, method: str, arguments: dict[str, Any]) -> Any:
    """The fund's answer; None when no fund listens.

    Raises: the fund's refusal; `ControlError`, whose outcome is "unknown" for a lost answer and
        "not_executed" where the request came to another fund or to none.
    """
    from fundops.control.client import call
    from fundops.errors import NobodyListens

    if not path.is_file():
        return None
    by = str(arguments.get("by", ""))
    try:
        return call(path, f"kill_switch.{method}", arguments, by=by, timeout_s=ANSWER_S)
    except NobodyListens:
        return None


def _marked(path: Path) -> Any:
    from fundops.actors.guard.marker import Marker, marker_of
    from fundops.actors.guard.switch import as_found

    found = Marker(marker_of(path)).read()
    return None if found is None else as_found(found)


def _stored(path: Path) -> Any:
    from fundops.file.release import stored_status

    if path.is_file() and _marked(path) is None:
        checked(path)  # a newer version may keep its latch in another place
    return stored_status(path)


def _print(word: str, answer: Any, told: str, *, as_json: bool) -> int:
    from fundops.control.arguments import plain

    shown = plain(answer)
    if as_json:
        return print_json(f"kill-switch {word}", shown)
    at_us = shown.pop("at_us", None)
    if at_us is not None:
        shown["since"] = f"{moment(at_us)} UTC"
    print_pairs({name: value for name, value in shown.items() if value not in (None, "")})
    if told:
        print(told)
    return 0
