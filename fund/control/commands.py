"""The table of commands: every verb of a fund, written once.

The synchronous and asyncio doors, the control socket, the command line, their documentation and the
audit are made from it. A verb is a coroutine of a door (`fundops.doors`); its row has its meaning
and its callers. A public coroutine without a row fails a test.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Final, Literal

import msgspec

from fundops.doors import (
    AlertDoor,
    FundDoor,
    KillSwitchDoor,
    LedgerDoor,
    PromotionDoor,
    RecoveryDoor,
)
from fundops.wire.foreign import fitted

__all__ = ["BY_MAX", "COMMANDS", "FUND", "PARTS", "Command", "Effect", "Reach", "commands_of"]

BY_MAX: Final = 128  # characters
REASON_MAX: Final = 4_096

# The parts of a fund by name, with the class of their door. FUND is the fund as a whole.
FUND: Final = "fund"
PARTS: Final[Mapping[str, type]] = {
    FUND: FundDoor,
    "ledger": LedgerDoor,
    "promotion": PromotionDoor,
    "alerts": AlertDoor,
    "recovery": RecoveryDoor,
    "kill_switch": KillSwitchDoor,
}

# "tightens" reduces what strategies may do, "loosens" allows more, "either" does one or the other
# by its arguments; all are changes. The page may ask for the first alone, and not where it cannot
# be undone.
Effect = Literal["reads", "changes", "tightens", "loosens", "either"]
# The farthest caller that may ask: this process; another process of the same user, by the control
# socket; a client of the status port that shows its token. Each includes those before it.
Reach = Literal["process", "socket", "page"]


class Command(msgspec.Struct, frozen=True, dict=True):
    """One verb of a fund."""

    name: str  # "ledger.deposit"; without a dot it belongs to the fund as a whole
    effect: Effect
    reach: Reach
    words: str  # on the command line, after `fundops`; "": not offered there

    @property
    def part(self) -> str:
        """The part of the fund that has this verb."""
        return self.name.rpartition(".")[0] or FUND

    @property
    def verb(self) -> str:
        """The name of its method."""
        return self.name.rpartition(".")[2]

    @property
    def reads(self) -> bool:
        """Whether it only reads. Every other command leaves an audit row."""
        return self.effect == "reads"

    @property
    def may_tighten(self) -> bool:
        """Whether it may reduce what strategies may do, so that no text stops it."""
        return self.effect in ("tightens", "either")

    @cached_property
    def method(self) -> Callable[..., Any]:
        """The coroutine function of the door's class."""
        method: Callable[..., Any] = getattr(PARTS[self.part], self.verb)
        return method

    @cached_property
    def signature(self) -> inspect.Signature:
        """The method's signature without `self`."""
        signature = inspect.signature(self.method)
        parameters = [
            parameter for name, parameter in signature.parameters.items() if name != "self"
        ]
        return signature.replace(parameters=parameters)

    @property
    def signed(self) -> bool:
        """Whether it is a change by a person, who gives a name with `by`."""
        return not self.reads and "by" in self.signature.parameters

    def fit(self, arguments: Mapping[str, Any], by: str) -> tuple[dict[str, Any], str]:
        """The arguments and the name of the caller. An act that may tighten is never stopped by a
        text, so its texts become such as can be stored and sent. Never raises.
        """
        if not self.may_tighten:
            return dict(arguments), by
        fit = dict(arguments)
        for name, most in (("by", BY_MAX), ("reason", REASON_MAX)):
            if name in fit:
                # An object that is no text must not become the name of a person who allows more.
                is_taken = self.effect == "tightens" or type(fit[name]) is str
                fit[name] = fitted(fit[name], most) if is_taken else ""
        return fit, fitted(by, BY_MAX)

    @property
    def keyed(self) -> bool:
        """Whether it takes an idempotency key, so that it can safely be asked twice."""
        # The key of a question, or of `skip_report`, is that of the entry or report to find.
        key = self.signature.parameters.get("key")
        return not self.reads and key is not None and key.default is None


_PROCESS, _SOCKET, _PAGE = "process", "socket", "page"
_READS, _CHANGES = "reads", "changes"
_TIGHTENS, _LOOSENS, _EITHER = "tightens", "loosens", "either"

_ROWS: Final[tuple[tuple[str, Any, Any, str], ...]] = (
    # the fund as a whole
    ("fund.status", _READS, _SOCKET, "status"),
    ("fund.why", _READS, _SOCKET, "why"),
    ("fund.nav_history", _READS, _SOCKET, "nav-history"),
    ("fund.pnl_attribution", _READS, _SOCKET, "pnl"),
    ("fund.storage", _READS, _SOCKET, "storage"),
    ("fund.status_port", _READS, _SOCKET, ""),
    ("fund.flush_alerts", _READS, _PROCESS, ""),
    ("fund.tick", _CHANGES, _PROCESS, ""),
    ("fund.pause", _TIGHTENS, _PAGE, "strategy pause"),
    ("fund.resume", _LOOSENS, _SOCKET, "strategy resume"),
    ("fund.confirm_clock", _LOOSENS, _SOCKET, "confirm clock"),
    ("fund.confirm_counters", _LOOSENS, _SOCKET, "confirm counters"),
    ("backup", _CHANGES, _SOCKET, "backup"),
    # the kill switch
    ("kill_switch.status", _READS, _SOCKET, "kill-switch status"),
    ("kill_switch.engage", _TIGHTENS, _PAGE, "kill-switch engage"),
    ("kill_switch.release", _LOOSENS, _SOCKET, "kill-switch release"),
    # strategies and their stages
    ("promotion.strategies", _READS, _SOCKET, "strategy status"),
    ("promotion.snapshot", _READS, _SOCKET, "strategy show"),
    ("promotion.current_stage", _READS, _SOCKET, "strategy stage"),
    ("promotion.evaluate", _READS, _SOCKET, "strategy evaluate"),
    ("promotion.should_promote", _READS, _SOCKET, ""),
    ("promotion.should_demote", _READS, _SOCKET, ""),
    ("promotion.history", _READS, _SOCKET, "strategy history"),
    ("promotion.state_as_of", _READS, _SOCKET, "strategy state-as-of"),
    ("promotion.require", _READS, _SOCKET, ""),
    ("promotion.entitlement", _READS, _SOCKET, ""),
    ("promotion.register", _CHANGES, _SOCKET, "strategy register"),
    ("promotion.adopt", _LOOSENS, _SOCKET, "strategy adopt"),
    ("promotion.record_metrics", _CHANGES, _SOCKET, "strategy record"),
    ("promotion.discard_metrics", _CHANGES, _SOCKET, "strategy discard"),
    ("promotion.promote", _LOOSENS, _SOCKET, "strategy promote"),
    ("promotion.approve", _LOOSENS, _SOCKET, "strategy approve"),
    ("promotion.set_cap", _EITHER, _SOCKET, "strategy set-cap"),
    ("promotion.demote", _TIGHTENS, _PAGE, "strategy demote"),
    ("promotion.void", _LOOSENS, _SOCKET, "strategy void"),
    ("promotion.add_gate", _CHANGES, _SOCKET, ""),
    ("promotion.freeze", _TIGHTENS, _PAGE, "strategy freeze"),
    ("promotion.unfreeze", _LOOSENS, _SOCKET, "strategy unfreeze"),
    ("promotion.retire", _TIGHTENS, _SOCKET, "strategy retire"),
    # failures and restarts
    ("recovery.statuses", _READS, _SOCKET, "recovery status"),
    ("recovery.event_history", _READS, _SOCKET, "recovery events"),
    ("recovery.stats", _READS, _SOCKET, "recovery stats"),
    ("recovery.check_strategies", _CHANGES, _SOCKET, "recovery check"),
    ("recovery.check_feeds", _CHANGES, _SOCKET, "recovery check-feeds"),
    ("recovery.hold", _TIGHTENS, _PAGE, "recovery hold"),
    ("recovery.release", _LOOSENS, _SOCKET, "recovery release"),
    ("recovery.reset", _LOOSENS, _SOCKET, "recovery reset"),
    # alerts
    ("alerts.recent", _READS, _SOCKET, "alerts list"),
    ("alerts.test", _READS, _SOCKET, "alerts test"),
    ("alerts.send", _CHANGES, _SOCKET, "alerts send"),
    # the books: reports
    ("ledger.balance_sheet", _READS, _SOCKET, "ledger balance-sheet"),
    ("ledger.income_statement", _READS, _SOCKET, "ledger income"),
    ("ledger.trial_balance", _READS, _SOCKET, "ledger trial"),
    ("ledger.cash_flow", _READS, _SOCKET, "ledger cash-flow"),
    ("ledger.nav", _READS, _SOCKET, "ledger nav"),
    ("ledger.nav_per_unit", _READS, _SOCKET, "ledger nav-per-unit"),
    ("ledger.positions", _READS, _SOCKET, "ledger positions"),
    ("ledger.lots", _READS, _SOCKET, "ledger lots"),
    ("ledger.realized", _READS, _SOCKET, "ledger realized"),
    ("ledger.prices", _READS, _SOCKET, "ledger prices"),
    ("ledger.entries", _READS, _SOCKET, "ledger entries"),
    ("ledger.entries_after", _READS, _SOCKET, ""),
    ("ledger.recent_entries", _READS, _SOCKET, ""),
    ("ledger.reports_aside", _READS, _SOCKET, "ledger reports-aside"),
    ("ledger.reconcile", _READS, _SOCKET, "ledger reconcile"),
    ("ledger.verify", _READS, _SOCKET, "ledger verify"),
    # the books: events
    ("ledger.deposit", _CHANGES, _SOCKET, "ledger deposit"),
    ("ledger.withdraw", _CHANGES, _SOCKET, "ledger withdraw"),
    ("ledger.record_profit", _CHANGES, _SOCKET, "ledger profit"),
    ("ledger.record_loss", _CHANGES, _SOCKET, "ledger loss"),
    ("ledger.open_position", _CHANGES, _SOCKET, "ledger open-position"),
    ("ledger.close_position", _CHANGES, _SOCKET, "ledger close-position"),
    ("ledger.mark", _CHANGES, _SOCKET, "ledger mark"),
    ("ledger.settle", _CHANGES, _SOCKET, "ledger settle"),
    ("ledger.charge_management_fee", _CHANGES, _SOCKET, "ledger charge-management-fee"),
    ("ledger.charge_performance_fee", _CHANGES, _SOCKET, "ledger charge-performance-fee"),
    ("ledger.pay_fees", _CHANGES, _SOCKET, "ledger pay-fees"),
    ("ledger.income", _CHANGES, _SOCKET, "ledger book-income"),
    ("ledger.financing", _CHANGES, _SOCKET, "ledger financing"),
    ("ledger.opening_balances", _CHANGES, _SOCKET, "ledger opening-balances"),
    ("ledger.reverse", _CHANGES, _SOCKET, "ledger reverse"),
    ("ledger.correct", _CHANGES, _SOCKET, "ledger correct"),
    ("ledger.close_period", _CHANGES, _SOCKET, "ledger close-period"),
    ("ledger.reopen_period", _CHANGES, _SOCKET, "ledger reopen-period"),
    ("ledger.split", _CHANGES, _SOCKET, "ledger split"),
    ("ledger.rename", _CHANGES, _SOCKET, "ledger rename"),
    ("ledger.transfer", _CHANGES, _SOCKET, "ledger transfer"),
    ("ledger.convert", _CHANGES, _SOCKET, "ledger convert"),
    ("ledger.price", _CHANGES, _SOCKET, "ledger price"),
    ("ledger.post", _CHANGES, _SOCKET, "ledger post"),
    ("ledger.post_many", _CHANGES, _SOCKET, ""),
    ("ledger.import_fills", _CHANGES, _SOCKET, "ledger import-fills"),
    ("ledger.skip_report", _CHANGES, _SOCKET, "ledger skip-report"),
)

COMMANDS: Final[dict[str, Command]] = {row[0]: Command(*row) for row in _ROWS}


def commands_of(part: str) -> tuple[Command, ...]:
    """The commands of one part, in the order of the table."""
    return tuple(command for command in COMMANDS.values() if command.part == part)
