"""The meaning of each argument of the commands, and the few that are typed in a way of their own.

A key is the name of an argument, or `command:argument` where a command means something else by it.
`fundops.cli.describe` refuses an argument that has no meaning here.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["CHOICES", "LABELS", "MEANINGS", "READERS"]

MEANINGS: Final[dict[str, str]] = {
    # of all commands
    "db": "the fund's database; ~/.fundops/fund.db if not given",
    "json": "print one JSON object on one line, amounts as decimal text",
    "by": "the name of the person who decides, for the audit table",
    "reason": "why, for the record",
    "limit": "list at most this many",
    "every": "at the end of each session, or of each minute of the last month",
    # of bookings
    "amount": "how much",
    "key": "idempotency key: the same key with the same content is booked once",
    "strategy": "the strategy that it belongs to",
    "at": "when it happened: YYYY-MM-DD, or a time with its offset; now if not given",
    "memo": "a note that is kept with the entry",
    "instrument": "the instrument",
    "quantity": "how much, with the sign of the position: a short is negative",
    "cost": "the total cost; for a short the amount received",
    "proceeds": "the total received, or paid to buy a short back",
    "fee": "the fee; negative is a rebate",
    "value": "its value now",
    "market": "the market that was resolved",
    "payoff": "the payoff in total; for a short, the amount paid",
    "cash": "all cash, including the capital",
    "positions": "a position held, as often as needed",
    "seq": "the number of the entry",
    "debit": "an account to debit and its amount, as often as needed",
    "credit": "an account to credit and its amount, as often as needed",
    "day": "the last day, YYYY-MM-DD",
    "ratio": "new units for an old one: a number, or NEW:OLD such as 3:2",
    "to": "the new name",
    "from_strategy": "the strategy that has the lots; the fund as a whole if not given",
    "to_strategy": "the strategy that gets them; the fund as a whole if not given",
    "asset": "the asset, such as EUR",
    "to_amount": "how much is received",
    "to_asset": "of which asset, such as EUR",
    "ledger.income:instrument": "the instrument that pays it",
    "ledger.financing:instrument": "the instrument that it is paid for",
    "ledger.mark:value": "the value of the whole position; of a short, its price to buy it back",
    "ledger.price:value": "its price in the fund's currency",
    "ledger.split:cash": "received for the fraction of a unit that is left; else fractions stay",
    "ledger.rename:instrument": "the name until now",
    "ledger.split:strategy": "only the lots of this strategy",
    "ledger.rename:strategy": "only the lots of this strategy",
    "ledger.convert:amount": "how much is given away",
    "ledger.convert:asset": "of which asset, such as USD",
    "ledger.convert:fee": "the fee, in the asset that is given away",
    "ledger.correct:entry": 'the event in its place, such as {"type": "deposit", "amount": "250"}',
    "ledger.reopen_period:day": "the day of the last close, YYYY-MM-DD",
    "ledger.skip_report:key": "its key, as `ledger reports-aside` lists it, or its own id",
    # of reports
    "as_of": "at the end of this day (YYYY-MM-DD), or at this time; now if not given",
    "start": "the first day (YYYY-MM-DD) or time; the beginning if not given",
    "end": "the last day or time, which is included; now if not given",
    "after_seq": "only entries older than this number: the last one of the page before",
    "account": "only entries with a leg in this account",
    "kind": "only entries of this kind: deposit, withdrawal, profit, loss, ...",
    "ledger.entries:key": "only the entry with this key",
    "ledger.entries:day": "only entries of this day, YYYY-MM-DD",
    "ledger.entries:instrument": "only entries that moved lots of this instrument, or name it",
    "ledger.lots:instrument": "only of this instrument",
    "ledger.realized:by": "a line for each strategy, or for each instrument",
    "ledger.balance_sheet:asset": "in this asset, such as UNITS; the fund's currency if not given",
    "ledger.trial_balance:asset": "in this asset, such as UNITS; the fund's currency if not given",
    "ledger.income_statement:asset": "in this asset; the fund's currency if not given",
    **{
        f"ledger.{report}:strategy": "only of this strategy"
        for report in (
            "balance_sheet",
            "income_statement",
            "trial_balance",
            "cash_flow",
            "nav",
            "entries",
            "positions",
            "lots",
        )
    },
    # of strategies
    "strategy_id": "the strategy, by its name or its id",
    "strategy_name": "the name of the strategy",
    "name": "the name of the strategy",
    "fund.confirm_counters:strategy": "the name of the strategy",
    "initial_stage": "the stage to begin in",
    "budget": "its capital at full size; the fund's capital if not given",
    "stage": "the stage in which it trades already",
    "promotion.record_metrics:stage": "the stage that it is in now",
    "metrics": "metrics, such as sharpe=1.2 max_drawdown=0.08",
    "promotion.record_metrics:as_of": "when they were true: YYYY-MM-DD, or a time with its offset",
    "source": "where they come from; with --as-of, the same source is recorded once",
    "family": "the idea of which it is a variant; its variants count as trials of one another",
    "cumulative_since": "counts and series began when it was registered, and not with its stage",
    "promotion.discard_metrics:as_of": "the instant that was recorded: YYYY-MM-DD, or a time",
    "promotion.discard_metrics:source": "the source that was recorded",
    "cap": "the fraction of its budget that it may use for real, such as 0.01",
    "request_id": "a repeat with it gives the first outcome",
    "transition_seq": "the number of the transition in the history",
    "t": "the instant: YYYY-MM-DD, or a time with its offset",
    "over_capital": "also when all strategies together then exceed the fund's limit of capital",
    "promotion.promote:to": "the stage, instead of the next one",
    "promotion.demote:to": "a lower stage, instead of the one below",
    "expected_rev": "refuse when the strategy has another revision",
    "promotion.history:strategy_id": "the strategy, by its name or its id; all if not given",
    # of alerts
    "level": "how urgent it is",
    "category": "what it is about",
    "title": "the first line",
    "message": "the text",
    "alerts.send:strategy": "the strategy that it is about",
    "dedup_key": "an alert with a key that is open already is counted and not sent",
}

# As it is typed; after an option its value's place may follow. Other arguments are typed by their
# names: in their order in capitals, or as options.
LABELS: Final[dict[str, str]] = {
    "strategy_id": "NAME",
    "strategy_name": "NAME",
    "strategy": "NAME",
    "to_amount": "TO-AMOUNT",
    "metrics": "METRIC=VALUE",
    "strategy record:metrics": "METRIC=VALUE",
    "promotion.register:initial_stage": "--stage",
    "promotion.history:strategy_id": "NAME",
    "promotion.promote:to": "--to STAGE",
    "promotion.demote:to": "--to STAGE",
    "promotion.void:transition_seq": "SEQ",
    "promotion.state_as_of:t": "TIME",
    "ledger.entries:after_seq": "--after",
    "ledger.opening_balances:cash": "CASH",
    "ledger.opening_balances:positions": "--position",
    "ledger begin:total_capital": "CAPITAL",
    "bench:names": "NAME",
}

# Arguments whose type is a text, of which only some are known.
CHOICES: Final[dict[tuple[str, str], tuple[Any, ...]]] = {
    ("ledger.realized", "by"): ("strategy", "instrument"),
}

# The method of `FundReader` where it has another name than the verb.
READERS: Final[dict[str, str]] = {
    "alerts.recent": "recent_alerts",
    "promotion.history": "promotion_history",
    "recovery.event_history": "recovery_events",
}
