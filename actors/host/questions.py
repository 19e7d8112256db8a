"""Questions to the reporting parts of a controller, each with its last answer.

A question that awaits its answer is not asked again. Lateness and failure of a question are its
problem, which stands until the next answer.
"""

from __future__ import annotations

from contextlib import suppress

from ...wire.errors import HostFault, HostLate
from .calls import Call, Calls

__all__ = ["Asked"]


class Asked:
    """One reporting part of the controller, and its last answer."""

    def __init__(self, part: str, calls: Calls) -> None:
        self._part = part
        self._calls = calls
        self._problem: HostFault | None = None
        self._answer: Call | None = None
        self._call: Call | None = None  # the last one, until it was looked at
        # The last one that was taken. A reader that goes in pieces may be overtaken by another.
        self.taken: Call | None = None

    def ask(self) -> None:
        """Ask, unless an answer is awaited. A plain method inline has answered on return."""
        self._look()
        if self._call is None:
            try:
                self._call = self._calls.begin(self._part)
            except HostLate as late:
                self._problem = late
            self._look()

    def _look(self) -> None:
        """Take the end of the call, if it has ended."""
        if self._call is None or not self._call.is_ended:
            return
        ended, self._call = self._call, None
        try:
            ended.answer()
        except HostFault as fault:
            self._problem = fault
        else:
            self._answer, self._problem = ended, None

    async def wait(self) -> None:
        """Wait until the last question has its answer, at most for the deadline."""
        if self._call is not None:
            with suppress(HostFault):  # it is the problem of the question, too
                await self._call.in_time()

    def take(self) -> Call | None:
        """The newest call with an answer that was not taken yet; None: there is none."""
        self._look()
        taken, self._answer = self._answer, None
        self.taken = taken or self.taken
        return taken

    def take_problem(self) -> HostFault | None:
        """Why the last question has no answer, told once; None: it has, or it is awaited."""
        self._look()
        problem, self._problem = self._problem, None
        return problem

    @property
    def problem(self) -> HostFault | None:
        """Why the last question has no answer; None: it has, or it is awaited in time."""
        self._look()
        if self._call is not None and self._call.is_late:
            return self._call.lateness()
        return self._problem

    @problem.setter
    def problem(self, fault: HostFault) -> None:
        self._problem = fault

    @property
    def is_late(self) -> bool:
        """Whether the part hangs, or hung at the last question."""
        return isinstance(self.problem, HostLate)
