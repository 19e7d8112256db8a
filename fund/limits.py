"""Limits of a fund, and which of them are looser than at its last start. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from fundops.config import FundConfig
from fundops.wire.alert import AlertDraft, Category, Level, resolved

__all__ = ["LIMIT", "Loosened", "alerts_of", "decoded", "limits_of", "loosened"]

LIMIT = "limit:"  # dedup keys are this and the setting's name

Side = Literal["higher", "lower"] | tuple[str, ...]

# The side on which each limit is looser; for words, from the strictest to the loosest. None, where
# a setting may be that, switches the limit off.
_LOOSER: Final[Mapping[str, Side]] = {
    "max_fund_drawdown_pct": "higher",
    "max_strategy_drawdown_pct": "higher",
    "max_daily_loss_pct": "higher",
    "max_total_entitlement_pct": "higher",
    "max_correlation": "higher",
    "var_budget": "higher",
    "break_tolerance": "higher",
    "kill_confirm_ticks": "higher",
    "flatten_confirm_ticks": "higher",
    "lease_s": "higher",
    "host_silent_s": "higher",
    "max_blind_s": "higher",
    "stale_feed_s": "higher",
    "max_drawdown_pct": "higher",
    "min_paper_days": "lower",
    "min_trades": "lower",
    "min_sharpe": "lower",
    "min_win_rate": "lower",
    "on_blind": ("kill", "reduce"),
    "kill_scope": ("all", "live"),
    "promotion_policy": ("guarded", "literal"),
    "mode": ("observe", "act"),
}


class Loosened(NamedTuple):
    """A limit that is looser than at the last start."""

    setting: str
    before: Any
    after: Any


def limits_of(config: FundConfig) -> dict[str, Any]:
    """The limits of this configuration, by the names of their settings."""
    fields = FundConfig.__struct_fields__
    return {name: getattr(config, name) for name in _LOOSER if name in fields}


def loosened(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Loosened, ...]:
    """The limits that are looser now; one that was not known before is none of them."""
    return tuple(
        Loosened(name, before[name], now)
        for name, now in after.items()
        if name in before and _is_looser(_LOOSER[name], before[name], now)
    )


def _is_looser(side: Side, before: Any, now: Any) -> bool:
    if before == now:
        return False
    if isinstance(side, tuple):
        # A word of another version says nothing about strictness.
        return before in side and now in side and side.index(now) > side.index(before)
    if not isinstance(before, int | float):
        return False
    return bool(now is None or (now > before if side == "higher" else now < before))


def alerts_of(found: Sequence[Loosened], open_keys: Iterable[str]) -> list[AlertDraft]:
    """The WARNING about each limit, after the end of those that an earlier start left open.

    Each start compares with the last one, so it ends what that one told. A limit that is loosened
    once more is heard again.
    """
    return [*(_over(key) for key in sorted(open_keys)), *(_told(limit) for limit in found)]


def _told(limit: Loosened) -> AlertDraft:
    before, after = (_text(value) for value in limit[1:])
    return AlertDraft(
        Level.WARNING,
        Category.GENERAL,
        f"Limit {limit.setting} was loosened",
        f"from {before} to {after} since the last start",
        None,
        f"{LIMIT}{limit.setting}",
    )


def _over(key: str) -> AlertDraft:
    title = f"Limit {key.removeprefix(LIMIT)} was compared again at this start"
    return resolved(Category.GENERAL, title, key)


def _text(value: Any) -> str:
    return "off" if value is None else value if isinstance(value, str) else f"{value:g}"


def decoded(text: str | None) -> dict[str, Any]:
    """The limits as they are stored; none where nothing that can be read is."""
    try:
        found = msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}
