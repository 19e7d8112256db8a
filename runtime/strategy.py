"""The restart strategies: the pure choice of the children that restart together after one failed.

After Erlang/OTP. `one_for_one` restarts the failed child; `one_for_all` all children;
`rest_for_one` the failed child and all that are declared after it.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Literal, TypeVar

__all__ = ["Strategy", "restart_together"]

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]

C = TypeVar("C", bound=Hashable)


def restart_together(
    strategy: Strategy, order: Sequence[C], failed: C, under_way: Collection[Collection[C]]
) -> list[C]:
    """The children that restart with `failed`, in the order of their declaration, `order`.

    `under_way` are the groups already waiting for their restart, no two with a common member. A
    group that shares a member with the new one becomes part of it, so that no child is started
    twice.
    """
    if strategy == "one_for_one":
        together = {failed}
    elif strategy == "one_for_all":
        together = set(order)
    else:
        together = set(order[order.index(failed) :])
    # One pass is enough: a merged group cannot overlap with another one under way.
    for group in under_way:
        if not together.isdisjoint(group):
            together.update(group)
    return [child for child in order if child in together]
