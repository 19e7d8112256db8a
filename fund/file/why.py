"""Why a strategy may not send real orders, as the files of a fund tell it.

For a fund that does not run, or does not answer: stages, gates, pauses, holds and breakers are
read as they were stored last. No lease is stored, so no strategy may open.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from fundops.actors.guard import KillLatch, Leases
from fundops.actors.guard.entitle import grant, in_order
from fundops.actors.guard.scope import KillScope, spared
from fundops.actors.oversight import schema as oversight_schema
from fundops.actors.persistence import Reader
from fundops.actors.promotion import PromotionPolicy, policy_of
from fundops.actors.promotion import schema as promotion_schema
from fundops.actors.promotion.capital import terms_of
from fundops.actors.promotion.desk import Desk
from fundops.actors.promotion.strategy import Strategy
from fundops.actors.recovery import RecoverySettings
from fundops.actors.recovery import schema as recovery_schema
from fundops.actors.recovery.book import Book
from fundops.file import meta
from fundops.file.release import stored_status
from fundops.file.strategies import FileBook, capital_in
from fundops.limits import decoded
from fundops.runtime import SystemClock
from fundops.why import Facts, close_names, why_of
from fundops.wire import border
from fundops.wire.controller import StrategyState, StrategyStatus
from fundops.wire.errors import PromotionError
from fundops.wire.guard import StrategyBook
from fundops.wire.promotion import PromotionSnapshot, PromotionStage, ReadSnapshot
from fundops.wire.why import Reason, Why

__all__ = ["NO_FUND", "stored_why"]

NO_FUND: Final = "no fund runs, or it has no control socket, so no lease is known"
_GATE_NOTE: Final = "the gate is judged by the default criteria: those of the fund are not stored"


def stored_why(reader: Reader, path: Path, name: str) -> Why:
    """The blockers of a strategy by the stored rows and the kill switch's marker.

    Raises: `ConfigError` when `name` is no name; `DatabaseError`.
    """
    name = border.name(name, "name")
    notes: list[str] = []
    guard = oversight_schema.load(reader).guard
    strategies = promotion_schema.load_all(reader)
    found = next((known for known in strategies if name in (known.name, known.id)), None)
    if found is not None:
        name = found.name
    recovered = {
        status.name: status
        for status in Book(RecoverySettings(), recovery_schema.records(reader)).statuses()
    }
    names = {*guard.strategies, *recovered, *(known.name for known in strategies)}
    book = guard.strategies.get(name, StrategyBook())
    clock = SystemClock()
    policy, capital = _policy(reader, strategies, notes), capital_in(reader)
    stored = FileBook(reader, policy, capital)
    terms = {known.name: terms_of(known, policy, beyond=stored.beyond) for known in strategies}
    leases = Leases(clock, KillLatch())
    leases.latch.set(stored_status(path))
    leases.latch.spared = spared(_scope(reader), guard.strategies, terms or None)
    if name in names:
        given = grant(
            book,
            _last_word(name, book),
            terms.get(name),
            promotion=bool(strategies),
            capital_minor=capital.fund_minor or 0,
            doubt=None,
            session="",
        )
        reasons = in_order(*given.reasons, Reason("lease", NO_FUND))
        leases.replace({name: given.with_reasons(reasons)})
    snapshot: PromotionSnapshot | None = None
    if found is not None:
        desk = Desk(policy, capital)
        try:
            snapshot = desk.handle(ReadSnapshot(found.id), stored, clock.now_us()).answer
        except PromotionError as problem:  # such as stages of two ladders in one file
            notes.append(f"the gate cannot be judged: {problem}")
    return why_of(
        Facts(
            name,
            clock.now_us(),
            leases.entitlement(name),
            leases.reasons(name),
            leases.latch.status,
            None,
            snapshot,
            recovery=recovered.get(name),
            known=name in names,
            close=() if name in names else close_names(name, names),
            notes=notes,
        )
    )


def _scope(reader: Reader) -> KillScope:
    """The scope of the kill switch at the last start; one that is not known stops all."""
    limits = decoded(meta.read(reader).get("limits"))
    return "live" if limits.get("kill_scope") == "live" else "all"


def _last_word(name: str, book: StrategyBook) -> StrategyStatus | None:
    """The engine's last word that the guard remembers; None: it left the list, or never spoke."""
    if not book.state or book.left:
        return None
    return StrategyStatus(name, cast(StrategyState, book.state))


def _policy(reader: Reader, strategies: Sequence[Strategy], notes: list[str]) -> PromotionPolicy:
    """The policy that the file stores, or else the default one on the strategies' ladder."""
    stored = promotion_schema.stored_policy(reader)
    if stored is not None:
        return stored.policy
    notes.append(_GATE_NOTE)
    three = any(strategy.stage is PromotionStage.Live for strategy in strategies)
    return policy_of(ladder="three-stage" if three else "four-stage")
