"""The supervision tree as the stream shows it: flat, by path. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ...runtime import ChildStatus
from ...wire.stream.records import ActorLine, Mailbox

__all__ = ["flat"]

# A message that is in hand for longer is shown: shorter ones come and go between two looks.
BUSY_S = 1.0


def flat(tree: Sequence[ChildStatus]) -> tuple[dict[str, ActorLine], dict[str, Mailbox]]:
    """The topics `actors` and `mailboxes`."""
    actors, mailboxes = {}, {}
    for path, child in _walk(tree, ""):
        busy = child.in_hand_s is not None and child.in_hand_s > BUSY_S
        actors[path] = ActorLine(
            child.state,
            child.epoch,
            child.restarts,
            child.last_crash,
            child.in_hand if busy else None,
            "actor" if child.mailbox is not None else "supervisor",
        )
        if child.mailbox is not None:
            box = child.mailbox
            age_s = None if child.in_hand_s is None else round(child.in_hand_s, 1)
            mailboxes[path] = Mailbox(
                box.queued, box.depth_max, child.capacity or 0, age_s, box.rejected
            )
    return actors, mailboxes


def _walk(tree: Sequence[ChildStatus], above: str) -> Iterator[tuple[str, ChildStatus]]:
    for child in tree:
        path = f"{above}{child.name}"
        yield path, child
        yield from _walk(child.children, f"{path}/")
