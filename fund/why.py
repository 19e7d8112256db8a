"""The blockers between a strategy and real orders, each with the command that lifts it.

Pure functions: the caller gathers the facts, from a running fund or from its file. Commands are
told as a person types them; NAME, TEXT and VALUE stand for the person's own words.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Final, NamedTuple

from fundops.runtime import DAY_US
from fundops.wire.guard import Entitlement, KillStatus
from fundops.wire.promotion import CriterionResult, Evaluation, PromotionSnapshot, PromotionStage
from fundops.wire.recovery import RecoveryPhase, RecoveryStatus
from fundops.wire.shell import PERSON, shell_command
from fundops.wire.why import Blocker, Reason, Why, rank

__all__ = ["Facts", "HostFacts", "close_names", "lines_of", "why_of"]

CLOSE_NAMES_MAX: Final = 3
# How alike two names must be to be taken for a slip of the finger, as `difflib` measures it.
CLOSE: Final = 0.6
KILL_SWITCH: Final = "kill switch"  # the reason of recovery for its own hold under the switch

_RELEASE_SWITCH = f"fundops kill-switch release {PERSON}"
_UPHELD = ("pending", "running")


class HostFacts(NamedTuple):
    """The facts that the host port knows at this moment."""

    state: str | None  # of the strategy, by the last good status; None: never reported
    silent: bool
    age_s: float  # of the host's last word
    pushes: bool  # the host calls `fund.report`; False: it is asked
    ticks: bool  # the host calls `fund.tick`; False: the fund does
    error: str = ""  # of a failed strategy
    doubt: str = ""  # why the strategy's last status was set aside; "": it was not
    lapsed: str = ""  # why it gets no lease at the next tick; "": it gets one


class Facts(NamedTuple):
    """Everything that is known of one strategy, each fact from the part that owns it."""

    name: str
    now_us: int
    entitlement: Entitlement
    reasons: Sequence[Reason]  # of the guard
    latch: KillStatus
    host: HostFacts | None  # None: no fund runs
    promotion: PromotionSnapshot | None = None  # None: off, or not registered
    promotes_every_ticks: int | None = None  # None: not known
    recovery: RecoveryStatus | None = None  # None: off, or never seen
    heals: bool = False  # self-healing is on
    known: bool = True  # any part knows the name
    close: Sequence[str] = ()  # similar names, of an unknown one
    notes: Sequence[str] = ()  # parts that did not answer


def why_of(facts: Facts) -> Why:
    """The permission with every blocker in the order of `BlockerKind`."""
    held, snapshot = facts.entitlement, facts.promotion
    notes = list(facts.notes)
    blockers = [
        *_by_the_guard(facts),
        *_by_recovery(facts, notes),
        *_by_promotion(facts, notes),
        *_by_the_host(facts, notes),
    ]
    blockers.sort(key=lambda blocker: rank(blocker.kind))
    return Why(
        facts.name,
        held.may_open,
        held.may_close,
        held.stage if snapshot is None else snapshot.stage.value,
        held.mode,
        held.capital,
        tuple(blockers),
        tuple(notes),
    )


def close_names(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """The names that `name` may be a misspelling of, the most similar first."""
    by_folded = {known.casefold(): known for known in names}
    found = get_close_matches(name.casefold(), by_folded, CLOSE_NAMES_MAX, CLOSE)
    return tuple(by_folded[folded] for folded in found)


# -- the guard


def _by_the_guard(facts: Facts) -> Iterator[Blocker]:
    for reason in facts.reasons:
        yield _of_reason(reason, facts)


def _of_reason(reason: Reason, facts: Facts) -> Blocker:
    kind, text = reason
    host = facts.host
    resume = shell_command("strategy resume", facts.name, PERSON)
    match kind:
        case "kill_switch":
            return _kill_switch(text, facts.latch)
        case "operator":
            return Blocker(kind, text, resume)
        case "pause":
            return Blocker(kind, f"{text} at its drawdown limit", resume)
        case "daily_loss":
            return Blocker(kind, text, "the next session lifts it")
        case "retired":
            return Blocker(kind, text, "nothing: register its successor under another name")
        case "stage":
            return _stage(text, facts)
        case "lease":
            return _lease(text, facts)
        case "set_aside":
            if host is not None and host.lapsed == text and not host.doubt:
                return Blocker("lease", text, "its engine must report a newer heartbeat")
            return Blocker(kind, text, _right_status(text))
        case "not_registered":
            register = shell_command("strategy register", facts.name)
            adopt = shell_command("strategy adopt", facts.name, PERSON, more="STAGE")
            return Blocker(kind, text, adopt if facts.entitlement.may_close else register)
        case "above_entitlement":
            lift = "the engine must take the stage and the cap that set_stage gives it at each tick"
            return Blocker(kind, text, lift)
        case "unknown" if facts.known:
            return Blocker("engine", text, _must_report(host))
        case "unknown":
            close = ", ".join(repr(name) for name in facts.close)
            like = f"; did you mean {close}?" if close else ""
            problem = f"there is no strategy {facts.name!r}{like}"
            return Blocker(kind, problem, _must_report(host))
        case _:
            error = f": {host.error}" if host is not None and host.error else ""
            return Blocker(kind, f"{text}{error}", _engine_lift(facts))


def _kill_switch(text: str, latch: KillStatus) -> Blocker:
    since = "" if latch.at_us is None else f" since {_moment(latch.at_us)}"
    told = f"{text}{since}, by {latch.by or 'unknown'}: {latch.reason or 'no reason given'}"
    if latch.state == "UNCONFIRMED":
        problem = latch.problem or "the engine has not confirmed the stop"
        told += f" ({problem}; until it is confirmed a release needs --accept-open-orders)"
    elif latch.state == "ENGAGING":
        told += " (the engine has not answered yet)"
    return Blocker("kill_switch", told, _RELEASE_SWITCH)


def _must_report(host: HostFacts | None) -> str:
    if host is None:
        return "its engine must report it to a running fund"
    if host.pushes:
        return "fund.report must be called for it"
    return "the controller's strategies() must list it"


def _right_status(problem: str) -> str:
    field = problem.partition(":")[0]
    if problem != field and field.isidentifier():
        return f"its next status must have a right {field}"
    return "its next status must be right"


def _lease(text: str, facts: Facts) -> Blocker:
    host = facts.host
    if host is None:
        return Blocker("lease", text, "the fund's program must run")
    if host.silent:
        return Blocker("lease", f"{text}: {_silence(host)}", _must_speak(host))
    if host.ticks:
        return Blocker("lease", text, "fund.tick must be called again")
    return Blocker("lease", text, "the next tick that works renews it; fundops status tells more")


def _silence(host: HostFacts) -> str:
    return f"the host is silent, its last word is {host.age_s:.0f} s old"


def _must_speak(host: HostFacts) -> str:
    if host.pushes:
        return "fund.report must be called again"
    return "the controller's strategies() must answer again"


def _engine_lift(facts: Facts) -> str:
    state = None if facts.host is None else facts.host.state
    if facts.host is not None and state is None:
        return _must_report(facts.host)
    if state == "failed" and facts.heals:
        return "recovery must restart it, or a person must start it at the engine"
    if state == "failed":
        return "a person must start it at the engine: self-healing is off"
    return "a person must start it at the engine"


# -- recovery


def _by_recovery(facts: Facts, notes: list[str]) -> Iterator[Blocker]:
    status = facts.recovery
    if status is None:
        return
    runs = facts.host is not None and facts.host.state in _UPHELD
    for blocker in _of_recovery(status, facts):
        if runs:  # it trades, and is not restarted if it fails
            notes.append(f"{blocker.text}, but it runs; {blocker.lift}")
        else:
            yield blocker


def _of_recovery(status: RecoveryStatus, facts: Facts) -> Iterator[Blocker]:
    reset = shell_command("recovery reset", facts.name)
    why = f": {status.reason}" if status.reason else ""
    match status.phase:
        case RecoveryPhase.HELD:
            held = [reason for reason in (status.reason or "").split(", ") if reason != KILL_SWITCH]
            if any(held):  # the kill switch is a blocker already
                text = f"recovery does not restart it: {', '.join(held)}"
                yield Blocker("hold", text, shell_command("recovery release", facts.name))
            if status.breaker_open:
                yield Blocker("breaker", "its circuit breaker is open", reset)
        case RecoveryPhase.OPEN:
            text = f"its circuit breaker is open after {_count(status.attempts, 'attempt')}{why}"
            yield Blocker("breaker", text, reset)
        case RecoveryPhase.COOLDOWN:
            text = f"it waits for a restart, {_count(status.attempts, 'attempt')} so far{why}"
            due_us = status.due_us or facts.now_us
            left_s = max(0, due_us - facts.now_us) / 1_000_000
            lift = f"the next attempt is due in {left_s:.0f} s: {_moment(due_us)}"
            yield Blocker("breaker", text, lift)
        case RecoveryPhase.RESTARTING | RecoveryPhase.RESTARTING_LATE:
            late = " and is past its deadline" if status.phase.value.endswith("LATE") else ""
            text = f"its restart is running{late}, attempt {status.attempts}"
            yield Blocker("breaker", text, "the restart must return")
        case _:
            return


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


# -- promotion


def _by_promotion(facts: Facts, notes: list[str]) -> Iterator[Blocker]:
    snapshot = facts.promotion
    if snapshot is None or snapshot.stage is PromotionStage.Retired:
        if snapshot is not None and not any(kind == "retired" for kind, _ in facts.reasons):
            lift = "nothing: register its successor under another name"
            yield Blocker("retired", "its stage is retired", lift)
        return
    obstacles = [*_frozen(snapshot, facts), *_cooldown(snapshot, facts.now_us)]
    if snapshot.stage.is_live:  # it trades, and its capital does not grow
        notes += [f"{obstacle.text}; {obstacle.lift}" for obstacle in obstacles]
        return
    yield from obstacles
    evaluation = snapshot.evaluation
    if evaluation.verdict != "PASS":
        for criterion in evaluation.criteria:
            if criterion.verdict != "PASS":
                yield _criterion(criterion, evaluation, facts)
        if not evaluation.criteria:
            text = f"the gate out of {snapshot.stage.value} has no criterion that proves anything"
            yield Blocker("gate", text, "its configuration must name one")
    for blocker in evaluation.blocked_by:
        if blocker.startswith("capital"):
            lift = "other strategies must give up capital, or max_total_entitlement_pct must rise"
            yield Blocker("capital", blocker.removeprefix("capital: "), lift)
    if not any(kind == "stage" for kind, _ in facts.reasons):
        yield _stage(f"its stage is {snapshot.stage.value}", facts)


def _frozen(snapshot: PromotionSnapshot, facts: Facts) -> Iterator[Blocker]:
    if snapshot.frozen:
        lift = shell_command("strategy unfreeze", facts.name)
        yield Blocker("frozen", "it is frozen, so it is not promoted", lift)


def _cooldown(snapshot: PromotionSnapshot, now_us: int) -> Iterator[Blocker]:
    until_us = snapshot.cooldown_until
    if until_us is not None and now_us < until_us:
        text = f"it was demoted and is not promoted before {_moment(until_us)}"
        yield Blocker("cooldown", text, f"{_left(until_us - now_us)}: {_day(until_us)}")


def _criterion(result: CriterionResult, evaluation: Evaluation, facts: Facts) -> Blocker:
    target = "the next stage" if evaluation.target is None else evaluation.target.value
    limit = f"{result.op} {_figure(result.limit, result.unit)}"
    observed = "not known" if result.observed is None else _figure(result.observed, result.unit)
    text = f"gate to {target}: {result.name} is {observed}, needs {limit}: {_lacking(result)}"
    return Blocker("gate", text, _criterion_lift(result, limit, facts))


def _lacking(result: CriterionResult) -> str:
    """The missing part, in words."""
    if result.verdict == "INCONCLUSIVE" or result.unit == "days" or result.margin is None:
        words = {"missing": "no value of it was measured or recorded", "undefined": "it has none"}
        return words.get(result.reason, result.reason)
    lack = -result.margin
    if result.op == "<=":
        return f"{_figure(lack, result.unit)} too much"
    return f"{_figure(lack, result.unit)} to go"


def _criterion_lift(result: CriterionResult, limit: str, facts: Facts) -> str:
    if result.unit == "days" and result.margin is not None and result.op == ">=":
        left_us = round(-result.margin * DAY_US)
        return f"{_left(left_us)}: {_day(facts.now_us + left_us)} at the earliest"
    if result.verdict == "INCONCLUSIVE":
        record = shell_command(
            "strategy record", facts.name, more=f"{_METRICS.get(result.name, 'METRIC')}=VALUE"
        )
        return f"a session that measures it must end, or: {record}"
    return f"{result.name} must be {limit}"


# The metric that each default criterion judges; a gate of the user names its criteria itself.
_METRICS: Mapping[str, str] = {
    "min_trades": "n_trades",
    "min_sharpe": "sharpe",
    "max_drawdown": "max_drawdown",
    "min_win_rate": "win_rate",
}


def _figure(value: float, unit: str) -> str:
    if unit == "fraction":
        return f"{_number(100 * value)}%"
    return _number(value) if unit == "annual" else f"{_number(value)} {unit}"


def _number(value: float) -> str:
    """To 5 decimals, a second of a day, and never with an exponent."""
    return f"{value:.5f}".rstrip("0").rstrip(".")


def _stage(text: str, facts: Facts) -> Blocker:
    """The stage is the last step: the way from it to a stage with real money."""
    snapshot = facts.promotion
    if snapshot is None:
        return Blocker("stage", text, shell_command("strategy promote", facts.name))
    if snapshot.stage.is_live:  # promoted since the last tick
        told = f"{text} as of the last tick, and it was promoted to {snapshot.stage.value} since"
        return Blocker("lease", told, "the next tick gives it one")
    evaluation = snapshot.evaluation
    target = evaluation.target
    if target is None:
        return Blocker("stage", text, "nothing: the ladder has no higher stage")
    up = shell_command("strategy promote", facts.name, f"--to {target.value}")
    further = "" if target.is_live else "; from there a further gate leads on to real money"
    match evaluation.would_do:
        case "ready":
            told = f"{text}; its gate passes, and it waits for a person"
            return Blocker("stage", told, shell_command("strategy approve", facts.name))
        case "promote":
            every = facts.promotes_every_ticks
            ticks = "" if every is None else f", which comes every {every} ticks"
            told = f"{text}; its gate to {target.value} passes{further}"
            return Blocker("stage", told, f"promotion's next look{ticks}, or: {up}")
        case "demote":
            told = f"{text}; a limit of that stage is breached"
            return Blocker("stage", told, "promotion's next look demotes it; then its gate counts")
        case _:
            return Blocker("stage", f"{text}{further}", f"once nothing stands before it: {up}")


# -- the host


def _by_the_host(facts: Facts, notes: list[str]) -> Iterator[Blocker]:
    """Facts of this moment that the last tick has not seen."""
    host = facts.host
    if host is None:
        return
    kinds = {kind for kind, _ in facts.reasons}
    if host.silent and "lease" not in kinds and facts.known:
        if facts.entitlement.may_open:
            notes.append(f"{_silence(host)}; its lease is not renewed; {_must_speak(host)}")
        else:
            yield Blocker("lease", _silence(host), _must_speak(host))
    if host.lapsed and "set_aside" not in kinds:
        notes.append(f"at the next tick its lease ends: {host.lapsed}")
    if host.state == "pending":
        notes.append("the engine has not begun to run it: it is pending")


# -- showing


def lines_of(why: Why) -> tuple[str, ...]:
    """The answer as plain lines, for a terminal or a log."""
    stage = "" if why.stage is None else f"stage {why.stage}, "
    head = f"{_one_line(why.strategy)}: {stage}mode {why.mode}, capital {why.capital:,.2f}"
    flags = f"real orders: {_may(why.may_open)} open, {_may(why.may_close)} close"
    lines = [head, flags]
    if not why.blockers:
        lines.append("no blocker")
    for number, blocker in enumerate(why.blockers, 1):
        kind = blocker.kind.replace("_", " ")
        lines.append(f"{number}. {kind}: {_one_line(blocker.text)}")
        lines.append(f"   lifted by: {_one_line(blocker.lift)}")
    lines += [f"note: {_one_line(note)}" for note in why.notes]
    return tuple(lines)


def _may(flag: bool) -> str:
    return "may" if flag else "may not"


def _one_line(text: str) -> str:
    """A text of an engine on one line, without what would move a terminal's cursor."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


_LAST_US: Final = 253_402_300_799_000_000  # the last second of the year 9999


def _instant(at_us: int) -> dt.datetime:
    return _EPOCH + dt.timedelta(microseconds=min(at_us, _LAST_US))


def _moment(at_us: int) -> str:
    return f"{_instant(at_us):%Y-%m-%d %H:%M:%S} UTC"


def _day(at_us: int) -> str:
    return f"{_instant(at_us):%Y-%m-%d}"


def _left(left_us: int) -> str:
    if left_us >= DAY_US:
        return f"{left_us / DAY_US:.7g} days to go"
    return f"{left_us / 1_000_000:.0f} seconds to go"
