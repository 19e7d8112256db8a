"""The errors of the front door; those of the actors are in `fundops.wire` and `fundops.runtime`.

All of them are `FundopsError`s. Texts are lower case and carry the values; facts are attributes.
`outcome`, where an error has it, says whether the request was executed: ``"done"``,
``"not_executed"`` or ``"unknown"``.
"""

from __future__ import annotations

from pathlib import Path

from fundops.runtime import ConfigError, FundopsError, Outcome, Rejected

__all__ = [
    "ControlError",
    "DatabaseInUse",
    "FundClosed",
    "FundNotRunning",
    "NeedsAsyncio",
    "NeedsTrio",
    "NobodyListens",
    "NotAudited",
    "SubsystemDisabled",
    "UnknownCommand",
    "WrongLoop",
]


# -- the fund


class SubsystemDisabled(FundopsError):
    """The subsystem is switched off; `switch` is the setting that turns it on."""

    def __init__(self, subsystem: str, switch: str) -> None:
        super().__init__(f"{subsystem} is disabled; set {switch} in FundConfig")
        self.subsystem, self.switch = subsystem, switch


class FundNotRunning(FundopsError):
    """The synchronous fund is not running, or was called from its own thread.

    Call `start()` first.
    """


class FundClosed(FundopsError):
    """The fund stopped. If it stopped by itself, the reason is chained as `__cause__`."""


class NeedsTrio(FundopsError, RuntimeError):
    """`Fund.open` was entered outside a trio run. Nothing was started, and no file was made."""


class NeedsAsyncio(FundopsError, RuntimeError):
    """`AsyncioFund.open` was entered outside an asyncio loop. Nothing was started."""


class WrongLoop(FundopsError, RuntimeError):
    """An AsyncioFund was called on another event loop than the one that opened it."""


# -- the database file


class DatabaseInUse(FundopsError):
    """Another owner holds the database; `owner` is its pid, or "this process"."""

    def __init__(self, path: Path, owner: str) -> None:
        super().__init__(f"{path} is in use by {owner}; a database has one owner at a time")
        self.path, self.owner = path, owner


# -- the control socket and its commands


class ControlError(FundopsError):
    """A command did not reach the fund, or failed with an error that this process has no class for.

    `kind` names the other side's error class, `key` the idempotency key to ask again with.
    """

    outcome: Outcome = "not_executed"

    def __init__(
        self,
        problem: str,
        *,
        kind: str = "ControlError",
        outcome: Outcome = "not_executed",
        key: str | None = None,
    ) -> None:
        super().__init__(problem)
        self.kind, self.outcome, self.key = kind, outcome, key


class NobodyListens(ControlError):
    """The fund has no control socket: it is not running, or runs without one."""


class UnknownCommand(Rejected, ConfigError):
    """The fund has no command of this name."""

    outcome: Outcome = "not_executed"


class NotAudited(Rejected):
    """The change is durable, its audit row is not.

    Asking again with `key` books nothing twice and writes the row.
    """

    outcome: Outcome = "unknown"

    def __init__(self, command: str, key: str | None, problem: str) -> None:
        again = "" if key is None else f"; ask again with key {key!r}"
        super().__init__(
            f"{command} was done, but its audit row could not be written: {problem}{again}"
        )
        self.command, self.key, self.problem = command, key, problem
