"""Exception groups on their way out: a nursery wraps whatever went wrong, and callers want what went wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import trio

from .errors import ActorError, SupervisorEscalated

__all__ = ["bare_errors", "leaf_of"]

E = TypeVar("E", bound=BaseException)


def leaf_of(error: E) -> E:
    """The only exception inside nested groups of one; the group itself when there are several."""
    leaf: BaseException = error
    while isinstance(leaf, BaseExceptionGroup) and len(leaf.exceptions) == 1:
        leaf = leaf.exceptions[0]
    return cast(E, leaf)  # a group of Exceptions holds Exceptions only


@contextmanager
def bare_errors() -> Iterator[None]:
    """Around a block with a nursery inside: what leaves it is one leaf if it can be, else one group of leaves."""
    try:
        yield
    except BaseExceptionGroup as group:
        error = _bare(group)
        # A leaf keeps its own cause; `from None` would drop it.
        raise error from error.__cause__


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _bare(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """An escalation, or an interrupt, stands for what the host's own asks have heard of it."""
    # Who was cancelled as well needs no telling: the scope knows, and would leave a group of one behind.
    every = [*_leaves(group)]
    leaves = [one for one in every if not isinstance(one, trio.Cancelled)] or every
    causes = [
        one
        for one in leaves
        if isinstance(one, SupervisorEscalated) or not isinstance(one, Exception)
    ]
    consequences = [one for one in leaves if isinstance(one, ActorError)]
    if len(leaves) == 1 or (len(causes) == 1 and {*causes, *consequences} == {*leaves}):
        return (causes or leaves)[0]
    return BaseExceptionGroup("several errors left one block", leaves)
