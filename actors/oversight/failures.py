"""Alerts about failed strategies in a fund without self-healing, where recovery does not tell them.

Pure. A failure is told when it is first seen, and resolved once the engine reports another state.
A state that is not known counts as failed, and a strategy that only starts has not come back yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import get_args

from ...runtime import shown
from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.controller import StrategyState, StrategyStatus
from ...wire.promotion import EntitlementTerms
from ..guard.entitle import trades_real

__all__ = ["FAILED", "FailureWatch"]

FAILED = "failed:"  # dedup keys are this and the strategy's name

# A tuple, because a state from outside may be of any type.
_HARMLESS = tuple(state for state in get_args(StrategyState) if state != "failed")


class FailureWatch:
    """The strategies whose failure was told. `told` are the dedup keys that are still open."""

    def __init__(self, told: Iterable[str] = ()) -> None:
        self._told = {key.removeprefix(FAILED) for key in told}

    def look(
        self,
        statuses: Sequence[StrategyStatus],
        terms: Mapping[str, EntitlementTerms] | None,
        together: Set[str] = frozenset(),
    ) -> list[AlertDraft]:
        """The alerts of one look at all strategies; CRITICAL for one with real money.

        `terms` are the entitlements by name; None: promotion is off, and all money is real. Those
        in `together` are told by an alert that names them all.
        """
        alerts: list[AlertDraft] = []
        for status in statuses:
            name, state = status.name, status.state
            if state not in _HARMLESS:
                if name not in self._told:
                    self._told.add(name)
                    if name in together:
                        continue
                    alerts.append(_failed(status, is_real=trades_real(status, terms)))
            elif name in self._told and state != "pending":
                self._told.discard(name)
                alerts.append(_over(name, state))
        return alerts


def _failed(status: StrategyStatus, *, is_real: bool) -> AlertDraft:
    reason = status.error if status.state == "failed" else f"its state is {shown(status.state)}"
    return AlertDraft(
        Level.CRITICAL if is_real else Level.WARNING,
        Category.STRATEGY_FAILURE,
        f"{status.name}: failed",
        f"{reason or 'the engine gave no reason'}; nothing restarts it, since self-healing is off",
        status.name,
        f"{FAILED}{status.name}",
    )


def _over(name: str, state: str) -> AlertDraft:
    title = f"{name}: {'running again' if state == 'running' else state}"
    return resolved(
        Category.STRATEGY_FAILURE,
        title,
        f"{FAILED}{name}",
        name,
        "it is not failed any more",
    )
