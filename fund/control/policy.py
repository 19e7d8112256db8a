"""The policy of promotion that a file stores, compared at every open.

The caller holds the owner's lock. A policy that changed is one audit row and one alert; the earlier
ones stay, since the history names them by their hashes.
"""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path

from fundops.actors.alert.requests import alert_request
from fundops.actors.persistence import Rows, Store, commit_batch, errors_named
from fundops.actors.promotion import PromotionPolicy, policy_of, schema
from fundops.actors.promotion.core import check_on_ladder
from fundops.actors.promotion.lint import lint
from fundops.control.audit import Caller, audited
from fundops.file.database import MIGRATIONS
from fundops.runtime import Clock
from fundops.wire.alert import Category, Level
from fundops.wire.errors import PolicyError
from fundops.wire.persistence import Committed, Statement

__all__ = ["commit", "is_kept", "keep_policy", "policy_in"]

_COMMAND = "promotion.policy"  # no verb: it changes by opening the file with another one


def policy_in(rows: Rows, given: PromotionPolicy | None) -> schema.StoredPolicy:
    """The policy by which the file is judged: the given one, unless the stored one comes from it.

    None given: the stored one, or `guarded` where none is. Raises: `PolicyError`.
    """
    stored = _stored(rows, given)
    if stored is not None and (given is None or stored.comes_from(given)):
        return stored
    policy = policy_of() if given is None else given
    return schema.StoredPolicy(policy, policy.hash)


def is_kept(rows: Rows, given: PromotionPolicy | None) -> bool:
    """Whether the file stores this policy already, on whose ladder its strategies stand.

    Raises: `PolicyError`.
    """
    stored, found = _stored(rows, given), policy_in(rows, given)
    check_on_ladder(schema.load_all(rows), found.policy)
    return stored is not None and stored.policy.hash == found.policy.hash


def keep_policy(path: Path, given: PromotionPolicy | None, clock: Clock, door: str) -> None:
    """Store the policy where it is another one than before.

    Raises: `PolicyError` naming a strategy whose stage its ladder lacks, with nothing stored;
        `DatabaseError`; a refusal of the storage.
    """
    with errors_named(path), closing(Store(path, MIGRATIONS)) as store:
        rows, now_us = Rows(store.connection), clock.now_us()
        if is_kept(rows, given):
            return
        before, found = _stored(rows, given), policy_in(rows, given)
        statements = list(schema.policy_stored(found.policy, found.base, now_us))
        if before is not None:
            statements += _told(before.policy, found.policy, now_us, door)
        commit(store, statements)


def _stored(rows: Rows, given: PromotionPolicy | None) -> schema.StoredPolicy | None:
    try:
        stored = schema.stored_policy(rows)
        if stored is not None:
            lint(stored.policy)
        return stored
    except PolicyError:
        # Of another version of fundops: it is replaced where there is another one.
        if given is None:
            raise
        return None


def _told(
    before: PromotionPolicy, after: PromotionPolicy, now_us: int, door: str
) -> tuple[Statement, ...]:
    caller = Caller(door, os.getuid(), os.getpid(), "")
    text = f"from {before.name} ({before.hash}) to {after.name} ({after.hash})"
    return (
        audited(now_us, caller, _COMMAND, {"policy": after.hash}, {"done": text}),
        alert_request(
            now_us, Level.INFO, Category.PROMOTION, "the policy of promotion changed", text
        ),
    )


def commit(store: Store, statements: list[Statement]) -> None:
    """All of them in one transaction, durable on return. Raises: the storage's refusal."""
    answer = commit_batch(store, [tuple(statements)])[0]
    if not isinstance(answer, Committed):
        raise answer
