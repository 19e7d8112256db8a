"""The alerts of the kill switch and of pauses by people, as pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ...wire.aftermath import NOT_KNOWN, aftermath
from ...wire.alert import AlertDraft, Category, Level, resolved
from ...wire.guard import KillStatus, Released, Withheld
from ...wire.shell import PERSON, shell_command
from .switch import SwitchRules

__all__ = [
    "ENGAGED_KEY",
    "confirmed",
    "engaged",
    "paused_by_person",
    "released",
    "resumed",
    "unconfirmed",
    "withheld",
]

RELEASE: Final = f"fundops kill-switch release {PERSON}"
ENGAGED_KEY: Final = "kill"


def engaged(
    status: KillStatus, rules: SwitchRules, stopped: Sequence[str], mover: str
) -> AlertDraft:
    """The kill switch was engaged. `mover` is the strategy that lowered NAV most; "": none."""
    why = f"{status.reason}; {mover} lowered NAV most at that look" if mover else status.reason
    text = f"{why}. {_aftermath(status, rules, stopped)}"
    return _critical("Kill switch activated", text, ENGAGED_KEY)


def unconfirmed(status: KillStatus, rules: SwitchRules, stopped: Sequence[str]) -> AlertDraft:
    """The stop is not confirmed. Without a key: no gate may drop it as told already."""
    text = f"{status.problem}; engaged by {status.by}: {status.reason}."
    title = "Kill switch activated, stop not confirmed"
    return _critical(title, f"{text} {_aftermath(status, rules, stopped)}", None)


def confirmed(status: KillStatus, rules: SwitchRules, stopped: Sequence[str]) -> AlertDraft:
    """The engine has confirmed that it stopped."""
    text = _aftermath(status, rules, stopped)
    title = "Kill switch: stop confirmed"
    return AlertDraft(Level.INFO, Category.KILL_SWITCH, title, text)


def released(answer: Released, before: KillStatus, by: str, reason: str) -> AlertDraft:
    """A person has released the kill switch."""
    text = f"{reason}. {_next_stop(answer)}. " + aftermath(
        (),
        left_open=_left_open(before),
        next_act="the next tick renews the leases; what was stopped waits for a person",
        undo="fundops kill-switch engage --reason TEXT",
    )
    return resolved(
        Category.KILL_SWITCH, f"Kill switch released by {by}", ENGAGED_KEY, message=text
    )


def _next_stop(answer: Released) -> str:
    if answer.next_stop_nav is None or answer.next_stop_below_peak_pct is None:
        return "The NAV of the next stop is known after the next tick"
    below = answer.next_stop_below_peak_pct
    return f"The next stop is at NAV {answer.next_stop_nav:,.2f}, {below:.1f}% below the peak"


def paused_by_person(name: str, by: str, reason: str, *, observing: bool) -> AlertDraft:
    """A person paused a strategy."""
    told = (
        "none: mode is observe, so the engine is not told"
        if observing
        else ("the engine is told to pause it at each tick while it runs")
    )
    text = f"{reason}. " + aftermath(
        (name,),
        left_open=NOT_KNOWN,
        next_act=told,
        undo=shell_command("strategy resume", name, PERSON),
    )
    title = f"{name} paused by {by}"
    return AlertDraft(Level.WARNING, Category.GENERAL, title, text, name, f"operator:{name}")


def resumed(name: str, by: str, reason: str) -> AlertDraft:
    """A person resumed a strategy that a person had paused."""
    return resolved(Category.GENERAL, f"{name} resumed by {by}", f"operator:{name}", name, reason)


def withheld(act: Withheld) -> AlertDraft:
    """Mode "observe" kept an act from the engine."""
    title, key = f"Mode observe: {act.part} was not called", f"observe:{act.part}:{act.strategy}"
    text = f"in mode act the engine would have been told: {act.call}"
    return AlertDraft(Level.INFO, Category.GENERAL, title, text, act.strategy or None, key)


def _aftermath(status: KillStatus, rules: SwitchRules, stopped: Sequence[str]) -> str:
    undo = RELEASE
    if status.state == "UNCONFIRMED":
        undo += " --accept-open-orders, or without that option once the stop is confirmed"
    return aftermath(
        stopped, left_open=_left_open(status), next_act=_next_act(status, rules), undo=undo
    )


def _left_open(status: KillStatus) -> str:
    if status.open_orders is None:
        return NOT_KNOWN
    counts = [
        (status.open_orders, "order"),
        (status.open_positions or 0, "position"),
        (status.protective_orders or 0, "protective order"),
    ]
    return ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)


def _next_act(status: KillStatus, rules: SwitchRules) -> str:
    if rules.observing:
        return "none: mode is observe, so a person must stop the engine"
    later = ""
    if rules.action == "flatten" and status.action == "halt":
        ticks = rules.flatten_confirm_ticks
        later = f"positions are closed once the breach has stood for {ticks} ticks"
    if status.state == "ENGAGED":
        return later or "none"
    if not rules.can_stop_all:
        return "none: fund.report_stopped must confirm the stop"
    again = "stop_all is called at each tick until the stop is confirmed"
    return f"{again}; {later}" if later else again


def _critical(title: str, text: str, key: str | None) -> AlertDraft:
    return AlertDraft(Level.CRITICAL, Category.KILL_SWITCH, title, text, None, key)
