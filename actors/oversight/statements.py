"""The broker's statement of each session, compared with the books.

The controller's `statement` is asked when a session ends, and its answer is taken at the tick that
has it. Each day on which books and statement differ is one CRITICAL, with the text of the
comparison. Cash and positions are compared apart, as a statement may leave one of them out. A
statement that is wrong is set aside by name; None says nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from ...runtime import ConfigError, shown
from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.errors import AmountError, BadField, HostFault
from ...wire.ledger import Reconcile, Reconciliation, Statement
from ..host import Host
from ..ledger.entry import utc_day
from .schema import Stated

__all__ = ["DIFFERS", "WRONG", "StatementWatch"]

DIFFERS = "statement:"  # begin of the dedup key of a day's difference
WRONG = "statement"  # dedup key of a statement that cannot be taken
Kinds = tuple[Stated, Stated]  # cash and positions
# A day of a calendar in the far east has begun before that of UTC.
_AHEAD_US = 86_400_000_000


class StatementWatch:
    """Takes the broker's statements and has the ledger compare them.

    `ask` asks the ledger and returns its answer. `told` has the open dedup keys of this file.
    """

    def __init__(
        self,
        host: Host,
        ask: Callable[[Any], Awaitable[Any]],
        tolerance: float,
        told: Iterable[str] = (),
    ) -> None:
        self._host = host
        self._ask = ask
        self._tolerance = tolerance
        self._told = set(told)
        self._waiting: Statement | None = None  # taken, and not compared yet

    async def look(self, now_us: int, before: Kinds) -> tuple[Kinds, list[AlertDraft]]:
        """Compare a new statement, if there is one.

        `before` tells how cash and positions were stated so far. The answer tells it after this
        look, with the alerts. Raises: a fault of the ledger; the statement is kept.
        """
        try:
            self._waiting = self._taken(now_us) or self._waiting
        except HostFault as fault:
            return before, self._wrong("The broker's statement cannot be read", str(fault))
        except ConfigError as wrong:
            return before, self._wrong("The broker's statement is set aside", str(wrong))
        statement = self._waiting
        if statement is None:
            return before, []
        day = statement.day
        cash, positions = before
        question = Reconcile((statement,), self._tolerance, (cash.agreed, positions.agreed))
        try:
            answer: Reconciliation = await self._ask(question)
        except (AmountError, BadField) as refusal:
            self._waiting = None
            return before, self._wrong("The broker's statement is set aside", str(refusal))
        self._waiting = None
        after = (cash.after(answer.cash, day), positions.after(answer.positions, day))
        alerts = self._over([WRONG], "The broker's statement can be read again")
        if answer.differs is not None:
            title = f"Books and the broker's statement of {day} differ"
            key = f"{DIFFERS}{day}"
            return after, [*alerts, *self._tell(Level.CRITICAL, title, str(answer), key)]
        # An agreement on cash alone ends no difference of positions.
        over = [
            key
            for key in self._told
            if DIFFERS < key <= f"{DIFFERS}{day}"
            and not any(kind.is_open(key.removeprefix(DIFFERS)) for kind in after)
        ]
        text = f"Books and the broker's statement agree on {day}"
        return after, [*alerts, *self._over(over if answer.ok else (), text)]

    def _taken(self, now_us: int) -> Statement | None:
        """The statement that has come in. Raises: `HostFault`, `ConfigError`."""
        statement = self._host.statement.take()
        if statement is not None and statement.day > utc_day(now_us + _AHEAD_US):
            raise ConfigError("day", f"{shown(statement.day)} lies in the future")
        return statement

    def _wrong(self, title: str, text: str) -> list[AlertDraft]:
        return self._tell(Level.WARNING, title, text, WRONG)

    def _tell(self, level: Level, title: str, text: str, key: str) -> list[AlertDraft]:
        if key in self._told:
            return []
        self._told.add(key)
        return [AlertDraft(level, Category.GENERAL, title, text, None, key)]

    def _over(self, keys: Iterable[str], title: str) -> list[AlertDraft]:
        closed = sorted(self._told.intersection(keys))
        self._told.difference_update(closed)
        return [resolved(Category.GENERAL, title, key) for key in closed]
