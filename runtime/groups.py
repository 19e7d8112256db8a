"""Exception groups unwrapped: a nursery wraps every error, and callers want the error itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import trio

from .errors import ActorError, SupervisorEscalated

__all__ = ["bare_errors", "leaf_of"]

E = TypeVar("E", bound=BaseException)


def leaf_of(error: E) -> E:
    """The one exception inside nested groups of one; a group of several is returned as it is."""
    leaf: BaseException = error
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    return cast(E, leaf)  # a group of Exceptions holds Exceptions only


@contextmanager
def bare_errors() -> Iterator[None]:
    """Unwrap the errors of a block with a nursery inside.

    The block raises the one exception that matters if there is one, otherwise one flat group.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        error = _bare(group)
        # `from error.__cause__` keeps the cause of the exception; `from None` would drop it.
        raise error from error.__cause__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from _leaves(member)
    else:
        yield error


def _bare(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The exception that caused all others of a group; a flat group when there is no such one.

    An escalation or an interrupt is the cause of the errors that the host's own asks got from it.
    """
    every = [*_leaves(group)]
    # A cancellation is left out: its own scope catches it, and raising it here would leave a group
    # of one behind.
    leaves = [leaf for leaf in every if not isinstance(leaf, trio.Cancelled)] or every
    causes = [
        leaf
        for leaf in leaves
        if isinstance(leaf, SupervisorEscalated) or not isinstance(leaf, Exception)
    ]
    consequences = [leaf for leaf in leaves if isinstance(leaf, ActorError)]
    if len(leaves) == 1 or (len(causes) == 1 and {*causes, *consequences} == {*leaves}):
        return (causes or leaves)[0]
    return BaseExceptionGroup("several errors left one block", leaves)
