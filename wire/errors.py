"""Every error that the wire layer defines. Refusals of a subsystem are raised by its actor.

A refusal is a `Rejected`: the actor lives on, and the asker gets the error. Facts are attributes.
`outcome` tells whether the request ran: "done" (it ran and was refused), "not_executed" (it never
ran) or "unknown" (it may have run: ask again with the same idempotency key).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from ..runtime import ConfigError, FundopsError, Outcome, Rejected, shown

# Not for type checkers alone: the control client reads the annotations of an error to rebuild it.
from .promotion import Evaluation

__all__ = [
    "AlertRefused",
    "AlreadyReversed",
    "AmountError",
    "BadField",
    "BadLimit",
    "BadMessage",
    "BadRequest",
    "CapitalExceeded",
    "Conflict",
    "ConstraintFailed",
    "CoolingDown",
    "DatabaseError",
    "EntryRefused",
    "GateNotPassed",
    "HostFault",
    "HostLate",
    "IdempotencyConflict",
    "InsufficientFunds",
    "JournalDamaged",
    "KillSwitchEngaged",
    "KillSwitchNotEngaged",
    "LedgerDegraded",
    "LedgerFailed",
    "MetricError",
    "NotRetryable",
    "OutcomeUnknown",
    "PeriodClosed",
    "PolicyError",
    "PortTaken",
    "PositionMismatch",
    "PromotionDefect",
    "PromotionError",
    "SkipRefused",
    "StageTooLow",
    "StaleRevision",
    "StatusClosed",
    "StopNotConfirmed",
    "StorageDegraded",
    "StorageFailed",
    "StrategyFrozen",
    "StrategyRetired",
    "UnbalancedEntry",
    "UnknownAccount",
    "UnknownEntry",
    "UnknownReport",
    "UnknownStage",
    "UnknownStrategy",
    "UnmanagedStrategy",
]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class BadLimit(Rejected, ConfigError):
    """A page size is negative, or not a whole number."""


class AmountError(Rejected, ValueError):
    """An amount that cannot be booked; `field` and `value` are the given ones."""

    def __init__(self, field: str, value: object, problem: str) -> None:
        super().__init__(f"{field}: {shown(value)} {problem}")
        self.field, self.value, self.problem = field, value, problem


# -- the host's side


class HostFault(Rejected):
    """The controller raised, hung, or gave an invalid answer; `call` names the method.

    It does not crash the actor that made the call.
    """

    outcome: Outcome = "unknown"

    def __init__(self, call: str, problem: str) -> None:
        super().__init__(f"controller.{call}: {problem}")
        self.call, self.problem = call, problem


class HostLate(HostFault):
    """The controller did not answer within its deadline, or a late call has not come back yet.

    The part is named in one alert until it answers, so a step of the tick that fails for this
    reason sends none.
    """


class NotRetryable(FundopsError):
    """Raised by a controller's `restart` when another attempt cannot help.

    The reason is a wrong configuration, refused credentials or a failed reconciliation.
    """


# -- storage


class DatabaseError(FundopsError):
    """This version of fundops may not open, copy or replace the file at `path`."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class ConstraintFailed(Rejected):
    """The statements break a constraint of the schema, or hold a value that no column can hold.

    Other requests of the batch committed.
    """

    outcome: Outcome = "not_executed"


class StorageDegraded(Rejected):
    """The database cannot be written now (full, read-only, locked). Nothing was written.

    Reads still work, and writes work again once the cause is gone.
    """

    outcome: Outcome = "not_executed"


class StorageFailed(Rejected):
    """The database is damaged, or its disk fails. Writes are refused until a person checked it."""

    outcome: Outcome = "not_executed"


class OutcomeUnknown(Rejected):
    """COMMIT failed, and so did the check whether the rows are on disk.

    Check later, or ask again with the same idempotency key.
    """

    outcome: Outcome = "unknown"


# -- the ledger


class EntryRefused(Rejected):
    """Base of the ledger's refusals; `key` is the key to repeat the request with."""

    outcome: Outcome = "done"


class UnbalancedEntry(EntryRefused):
    """The legs of one asset do not sum to zero, or there are fewer than two."""


class UnknownAccount(EntryRefused):
    """The chart of accounts has no account of this name."""

    def __init__(self, account: str) -> None:
        super().__init__(f"there is no account {shown(account)}")
        self.account = account


class InsufficientFunds(EntryRefused):
    """The entry would take the account below its floor. Amounts are in the fund's currency."""

    def __init__(self, account: str, requested: Decimal, available: Decimal) -> None:
        super().__init__(f"{account} has {available:f} available, {requested:f} requested")
        self.account, self.requested, self.available = account, requested, available


class PositionMismatch(EntryRefused):
    """There is no such position, it is too small to be closed so far, or it has the other sign."""

    def __init__(self, instrument: str, strategy: str | None, problem: str) -> None:
        super().__init__(
            f"position in {shown(instrument)} of strategy {shown(strategy)}: {problem}"
        )
        self.instrument, self.strategy, self.problem = instrument, strategy, problem


class IdempotencyConflict(EntryRefused):
    """The key belongs to entry `seq`, whose content differs.

    `seq` None: it belongs to another event of the same request.
    """

    def __init__(self, key: str, seq: int | None) -> None:
        belongs_to = "another event of this request" if seq is None else f"entry {seq}"
        super().__init__(f"key {shown(key)} belongs to {belongs_to}, whose content differs")
        self.key, self.seq = key, seq


class PeriodClosed(EntryRefused):
    """The entry's day lies in a closed period, whose last day is `closed`."""

    def __init__(self, day: str, closed: str) -> None:
        super().__init__(f"{day} is closed: the book is closed up to {closed}")
        self.day, self.closed = day, closed


class LedgerDegraded(EntryRefused, StorageDegraded):
    """The database cannot be written now. Nothing was booked; reads still work."""

    outcome: Outcome = "not_executed"


class LedgerFailed(EntryRefused, StorageFailed):
    """The database is damaged, or its disk fails. Nothing is booked until a person checked it."""

    outcome: Outcome = "not_executed"


class AlreadyReversed(EntryRefused):
    """Entry `by` has reversed the entry `seq` already.

    `by` None: another event of the same request reverses it.
    """

    def __init__(self, seq: int, by: int | None) -> None:
        reversed_by = "another event of this request" if by is None else f"entry {by}"
        super().__init__(f"entry {seq} was reversed already by {reversed_by}")
        self.seq, self.by = seq, by


class UnknownEntry(EntryRefused):
    """The journal has no entry of this number."""

    def __init__(self, seq: int) -> None:
        super().__init__(f"there is no entry {shown(seq)}")
        self.seq = seq


class UnknownReport(EntryRefused):
    """No report of this key waits aside."""

    def __init__(self, report: str) -> None:
        super().__init__(f"no report {shown(report)} is set aside")
        self.report = report


class BadField(EntryRefused, ConfigError):
    """A text, instant or part of a request is missing, malformed or too long; `field` names it."""


class JournalDamaged(FundopsError):
    """A journal differs from the one that was booked.

    `seq` names the first bad entry, 0 the header of an export; `problem` describes the fault.
    """

    def __init__(self, seq: int, problem: str) -> None:
        super().__init__(f"{f'entry {seq}' if seq else 'header'}: {problem}")
        self.seq, self.problem = seq, problem


# -- alerts


class AlertRefused(Rejected, ValueError):
    """A field of the request is not acceptable; `field` names it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field, self.problem = field, problem


# -- the guard


class BadRequest(Rejected, ConfigError):
    """A field of a request is missing or malformed; `field` names it."""

    outcome: Outcome = "done"


class KillSwitchEngaged(Rejected):
    """The kill switch is engaged, so no strategy is resumed; `state` is the switch's."""

    outcome: Outcome = "done"

    def __init__(self, state: str) -> None:
        super().__init__(f"the kill switch is {state}: release it before a strategy is resumed")
        self.state = state


class KillSwitchNotEngaged(Rejected):
    """The kill switch is not engaged, so it cannot be released."""


class StopNotConfirmed(Rejected):
    """The engine has not confirmed that it stopped, so the kill switch is not released.

    `accept_open_orders=True` releases it nevertheless.
    """

    outcome: Outcome = "done"

    def __init__(self, state: str, problem: str) -> None:
        why = problem or "the engine has not answered yet"
        super().__init__(
            f"the kill switch is {state}: {why}; accept_open_orders releases it anyway"
        )
        self.state, self.problem = state, problem


# -- recovery


class UnmanagedStrategy(Rejected, KeyError):
    """Recovery has never seen a strategy of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"recovery knows no strategy {shown(name)}")
        self.name = name

    __str__ = Exception.__str__  # KeyError would show the repr of the text


# -- promotion


class PromotionError(Rejected):
    """Base of the refusals of promotion."""


class UnknownStrategy(PromotionError, KeyError):
    """No strategy has that id. `reports`: an engine reports it, and it is not registered."""

    def __init__(self, strategy_id: str, *, reports: bool = False) -> None:
        known = "; the engine reports it, so register or adopt it" if reports else ""
        super().__init__(f"there is no strategy {shown(strategy_id)}{known}")
        self.strategy_id, self.reports = strategy_id, reports

    __str__ = Exception.__str__  # KeyError would show the repr of the text


class UnknownStage(PromotionError, ValueError):
    """The stage is not one of this ladder; `stages` lists those that are."""

    def __init__(self, stage: object, stages: Sequence[str]) -> None:
        super().__init__(
            f"{shown(stage)} is not a stage of this ladder; its stages are {', '.join(stages)}"
        )
        self.stage, self.stages = stage, tuple(stages)


class MetricError(PromotionError, ConfigError):
    """A metric cannot be recorded; `field` names it, `value` is the given one."""

    def __init__(
        self, field: str, value: object, problem: str, *, shown_as: str | None = None
    ) -> None:
        """`shown_as` is the value in words, where its own text would not be read."""
        ConfigError.__init__(self, field, f"{shown_as or shown(value)} {problem}")
        self.value = value


class GateNotPassed(PromotionError):
    """The strategy does not pass its gate now; `evaluation` has each criterion with its margin."""

    def __init__(self, evaluation: Evaluation) -> None:
        missed = [
            f"{criterion.name} ({criterion.reason})"
            for criterion in evaluation.criteria
            if criterion.reason
        ]
        # A gate can refuse although each of its criteria passes.
        missed += [
            blocker
            for blocker in evaluation.blocked_by
            if blocker.split(":")[0] in ("clock", "config", "streak", "limit")
        ]
        super().__init__(
            f"{evaluation.strategy} does not pass its gate in {evaluation.stage.value}:"
            f" {', '.join(missed)}"
        )
        self.evaluation = evaluation


class SkipRefused(PromotionError):
    """The promotion would skip a stage, which is never allowed."""


class StrategyFrozen(PromotionError):
    """The strategy is frozen, so it is not promoted. It can still be demoted."""


class CoolingDown(PromotionError):
    """The strategy was demoted, and is not promoted before `until_us` (microseconds, UTC)."""

    def __init__(self, strategy: str, until_us: int) -> None:
        until = _EPOCH + timedelta(microseconds=until_us + 999_999)  # it is over by that second
        super().__init__(
            f"{strategy} was demoted and cools down until {until:%Y-%m-%d %H:%M:%S} UTC;"
            " a void of that demotion ends it"
        )
        self.strategy, self.until_us = strategy, until_us


class StrategyRetired(PromotionError):
    """The strategy is retired: it takes no more metrics and no more transitions."""


class StaleRevision(PromotionError):
    """The strategy changed since the caller read it: `expected` is the caller's revision."""

    def __init__(self, expected: int, current: int) -> None:
        super().__init__(f"revision {shown(expected)} was expected, the strategy is at {current}")
        self.expected, self.current = expected, current


class Conflict(PromotionError):
    """The same key was recorded before with other content."""


class CapitalExceeded(PromotionError):
    """The strategies together would be entitled to more than the fund's capital allows.

    Amounts are in units of the currency.
    """

    def __init__(self, strategy: str, stage: str, wanted: Decimal, left: Decimal) -> None:
        super().__init__(
            f"{strategy} in {stage} would be entitled to {wanted:,.2f};"
            f" the other strategies leave {max(left, Decimal(0)):,.2f}"
        )
        self.strategy, self.stage, self.wanted, self.left = strategy, stage, wanted, left


class PolicyError(PromotionError, ConfigError):
    """The rules of promotion contradict themselves, or do not fit a strategy.

    `field` names the setting, or the key of a file; then `line` is its line in the file, and None
    where the file has no such line, or no file was read.
    """

    def __init__(self, field: str, problem: str, *, line: int | None = None) -> None:
        ConfigError.__init__(self, field, problem if line is None else f"line {line}: {problem}")
        self.line = line


class PromotionDefect(PromotionError):
    """A request that promotion cannot compute, by a defect of fundops. Nothing was changed.

    `request` is its type, `problem` the error.
    """

    def __init__(self, request: str, problem: str) -> None:
        super().__init__(f"promotion cannot compute {request}, by a defect: {problem}")
        self.request, self.problem = request, problem


class StageTooLow(PromotionError):
    """The strategy has not reached the stage that this run requires."""


# -- the status stream


class BadMessage(FundopsError, ValueError):
    """The bytes are not a message of the protocol; the text says where and why."""


class PortTaken(Rejected):
    """The port of the status stream cannot be bound. The fund runs, and it is tried again."""

    outcome: Outcome = "not_executed"

    def __init__(self, reason: str) -> None:
        super().__init__(f"status stream: {reason}")
        self.reason = reason


class StatusClosed(FundopsError):
    """The stream cannot be reached, or ended without a normal close.

    `code` is an HTTP status or a close code of the websocket.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"status stream: {reason} ({code})")
        self.code, self.reason = code, reason
