"""The reports that the ledger books or compares, as the engine gave them.

Fills, settlements and cash events are read after a cursor; the broker's statement is asked for when
a session ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...runtime import ConfigError
from ...wire.border_reports import Problem, checked_statement
from ...wire.controller import CanGiveStatement
from ...wire.ledger import Statement
from .calls import Call, Calls
from .questions import Asked

__all__ = ["BrokerStatement", "Reports"]


class Reports:
    """One reporting part that answers after a cursor. An answer belongs to the cursor asked with.

    The stored cursor moves as reports are booked. An answer for another cursor would hold reports
    twice, so it is dropped and asked anew; the engine keeps the reports, so none is lost.
    `needed` is the Protocol of the part.
    """

    def __init__(self, part: str, needed: type, calls: Calls) -> None:
        self._part = part
        self._needed = needed
        self._calls = calls
        self._after = ""
        self._call: Call | None = None

    def read(self, after: str) -> Sequence[Any] | None:
        """The reports after this cursor, oldest first; empty without that part.

        None: the answer is awaited, and a later call with the same cursor gives it. The items may
        be of any kind: the ledger checks each by itself. Raises: `HostFault`.
        """
        if not self._calls.can(self._needed):
            return ()
        if self._call is not None and self._call.is_ended and self._after != after:
            self._call = None
        if self._call is None:
            self._call = self._calls.begin(self._part, after)
            self._after = after
        if self._call.is_late:
            raise self._call.lateness()
        if not self._call.is_ended:
            return None
        ended, self._call = self._call, None
        reports: tuple[Any, ...] = ended.answer()
        return reports


class BrokerStatement:
    """The broker's statement of the last closed day."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._question = Asked("statement", calls)

    def ask(self) -> None:
        """Ask for the statement; nothing without that part."""
        if self._calls.can(CanGiveStatement):
            self._question.ask()

    def take(self) -> Statement | None:
        """The statement that has come in since the last call; None: none, or the broker has none.

        Raises: `HostFault` once when there is no answer; `ConfigError` for one that is wrong.
        """
        problem = self._question.take_problem()
        if problem is not None:
            raise problem
        taken = self._question.take()
        answer = None if taken is None else taken.answer()
        if answer is None:
            return None
        checked = checked_statement(answer)
        if isinstance(checked, Problem):
            raise ConfigError(checked.field, checked.text)
        return checked
