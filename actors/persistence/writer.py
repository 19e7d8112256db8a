"""The one way an actor commits, and the base of every actor whose state is rows of the database.

The rhythm is decide -> append -> apply: a handler decides on a draft, `append` makes its rows
durable, and only then does the handler apply the draft to its state. Each outcome of a commit is
mapped here, once:

* done: None. The rows are on disk.
* `StorageDegraded`: none of the rows was written, and none will be. The database cannot be written
  now, the writer did not begin within the deadline, or it is not running.
* `StorageFailed`: none was written, and none will be until a person has looked.
* `OutcomeUnknown`: the rows may be on disk. The actor's state is loaded again from the file before
  anything else is written.
* a broken constraint: `StateDiverged`. The actor alone writes its tables, so its memory is wrong.
  It crashes, and its next life loads the state afresh.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from ...runtime import Actor, ActorCrashed, ActorError, ActorStopped, AskTimeout, MailboxFull, Ref
from ...wire.errors import ConstraintFailed, OutcomeUnknown, StorageDegraded, StorageFailed
from ...wire.persistence import COMMIT_DEADLINE_S, Commit, Statement
from .reader import Reader

__all__ = ["DurableActor", "Refusal", "StateDiverged", "Writer"]

Refusal = StorageDegraded | StorageFailed | OutcomeUnknown


class _NoAnswer(OutcomeUnknown):
    """Persistence did not answer, so the commit may still be in flight."""


class StateDiverged(RuntimeError):
    """An actor's rows break a constraint, so its memory differs from the file."""


class Writer:
    """Appends statements through the persistence actor."""

    def __init__(self, persistence: Ref, deadline_s: float = COMMIT_DEADLINE_S) -> None:
        self._persistence = persistence
        self._deadline_s = deadline_s

    async def append(self, statements: Sequence[Statement]) -> Refusal | None:
        """None once all statements are on disk, in one transaction; else why they are not.

        Statements without rows are left out. Raises: `StateDiverged`.
        """
        rows = tuple(statement for statement in statements if statement.rows)
        if not rows:
            return None
        try:
            await self._persistence.ask(Commit(rows), timeout_s=self._deadline_s)
        except (StorageDegraded, StorageFailed, OutcomeUnknown) as refusal:
            return refusal
        except ConstraintFailed as broken:
            raise StateDiverged(f"memory is not what is stored: {broken}") from broken
        except (AskTimeout, ActorCrashed, ActorStopped, MailboxFull) as silence:
            return _of_silence(silence)
        return None

    async def earlier_commits(self) -> Refusal | None:
        """Return when every commit asked for before has ended; or why that cannot be known.

        An earlier life may have left a commit in flight, and a reader that does not wait for it
        reads a state that is about to change. Persistence works in order, so its answer to an empty
        commit comes after all of them; whether it can write that commit does not matter.
        """
        try:
            await self._persistence.ask(Commit(()), timeout_s=COMMIT_DEADLINE_S)
        except (StorageDegraded, StorageFailed, OutcomeUnknown):
            return None
        except (AskTimeout, ActorCrashed, ActorStopped, MailboxFull) as silence:
            return _NoAnswer(f"storage does not answer: {silence}")
        return None


def _of_silence(silence: ActorError) -> Refusal:
    if silence.outcome == "unknown":
        return _NoAnswer(f"storage does not answer: {silence}")
    return StorageDegraded(f"storage did not take it: {silence}")


class DurableActor(Actor):
    """Base of an actor whose state is rows of the database at `path`, written by it alone.

    It needs the actor ``persistence``. Subclasses build their state in `load` and may go on in
    `begin`.
    """

    append_deadline_s: ClassVar[float] = COMMIT_DEADLINE_S

    def __init__(self, path: Path) -> None:
        self._path = path
        self._resources = ExitStack()  # closed in `on_stop`, the latest first
        self._reader: Reader
        self._writer: Writer
        # A commit may be on disk without our knowledge: the state is loaded again before the next.
        self._stale = False

    async def on_start(self) -> None:
        """Load the state, once the commits of an earlier life have ended. Raises: `Refusal`."""
        self._writer = Writer(self.context.ref("persistence"), self.append_deadline_s)
        silence = await self._writer.earlier_commits()
        if silence is not None:
            raise silence
        self._reader = self._resources.enter_context(Reader(self._path))
        self.load()
        await self.begin()

    async def on_stop(self, reason: str) -> None:
        """Close the reader and the other resources of this life."""
        self._resources.close()

    def load(self) -> None:
        """Build the state from the committed rows: at the start, and when they may have changed."""

    async def begin(self) -> None:
        """Go on with the start; the state is loaded."""

    async def append(self, statements: Sequence[Statement]) -> Refusal | None:
        """As `Writer.append`. When the outcome is unknown, the state is loaded again.

        Until that has succeeded nothing is appended, since it was decided on a state that may not
        be the file's.
        """
        if self._stale:
            silence = await self.load_again()
            return silence or StorageDegraded(
                "decided before an earlier outcome was known; ask again"
            )
        refusal = await self._writer.append(statements)
        if isinstance(refusal, _NoAnswer):
            self._stale = True
        elif isinstance(refusal, OutcomeUnknown):
            self.load()  # at once: persistence has answered, so the commit has ended
        return refusal

    async def load_again(self) -> Refusal | None:
        """Load the state if it may not be the file's; or why that cannot be done yet."""
        if not self._stale:
            return None
        silence = await self._writer.earlier_commits()
        if silence is None:
            self.load()
            self._stale = False
        return silence
