"""The alerts of a silent host. Pure: the state is told once, and its end once."""

from __future__ import annotations

from msgspec.structs import replace

from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.guard import GuardState
from .settings import GuardSettings

__all__ = ["judge_silence"]


def judge_silence(
    state: GuardState, settings: GuardSettings, blind_s: float, *, any_live: bool, spoken: bool
) -> tuple[GuardState, list[AlertDraft]]:
    """Tell a silence once, that it lasts too long once, and its end.

    A silence of before a restart goes on until the host has `spoken`.
    """
    blind = blind_s >= settings.max_blind_s and any_live
    notes: list[AlertDraft] = []
    if blind_s and not state.silent:
        text = f"its last word is {blind_s:.0f} s old; no lease is renewed and NAV stands still"
        notes.append(
            AlertDraft(Level.WARNING, Category.GENERAL, "Host silent", text, None, "silent")
        )
    if blind and not state.blind:
        act = (
            "the kill switch engages" if settings.on_blind == "kill" else "only reducing is allowed"
        )
        text = f"no word for {blind_s:.0f} s, limit {settings.max_blind_s:.0f} s: {act}"
        notes.append(
            AlertDraft(
                Level.CRITICAL,
                Category.GENERAL,
                "Host silent with real money live",
                text,
                None,
                "blind",
            )
        )
    over = not blind_s and spoken
    if over:
        if state.silent:
            notes.append(resolved(Category.GENERAL, "Host reports again", "silent"))
        if state.blind:
            notes.append(resolved(Category.GENERAL, "Host reports again", "blind"))
    silent_told = bool(blind_s) or (state.silent and not over)
    blind_told = blind or (state.blind and not over)
    return replace(state, silent=silent_told, blind=blind_told), notes
