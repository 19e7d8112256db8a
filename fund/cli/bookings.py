"""Bookings of `fundops ledger` that are rarer than deposits and profits; one function each.

Each is sent to the fund that runs on the database, or made here under the owner's lock when none
runs, and leaves an audit row either way. Amounts are decimal text.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from cyclopts import Parameter

from fundops.cli.options import Booking, Money, given
from fundops.cli.show import print_json

__all__ = ["BOOKINGS", "book"]


def book(booking: Booking | None, method: str, **content: Any) -> int:
    """Book by a method of the ledger, print the entry, and return the exit code."""
    from fundops.control.standalone import run_command

    how = booking or Booking()
    asked = {
        **content,
        **given(key=how.key, strategy=how.strategy, at=how.at, memo=how.memo or None),
    }
    posted = run_command(how.path, f"ledger.{method}", asked, author(how.by))
    if how.json:
        return print_json(posted)
    again = " (booked before)" if posted["replayed"] else ""
    print(f"entry {posted['seq']}{again}  key {posted['key']}  hash {posted['hash']}")
    return 0


def author(by: str | None) -> str:
    """The name for the audit table: the one that was given, or the user's."""
    return by if by is not None else os.environ.get("USER", "")


def pay_fees(amount: Money, /, *, booking: Booking | None = None) -> int:
    """Pay out fees that were charged: FEES_RECEIVABLE / CASH. Refused beyond what is owed.

    Parameters
    ----------
    amount
        How much.
    """
    return book(booking, "pay_fees", amount=amount)


def book_income(
    amount: Money, /, *, instrument: str | None = None, booking: Booking | None = None
) -> int:
    """Book dividends, coupons or interest: CASH / INCOME; negative when a short pays them.

    Parameters
    ----------
    amount
        How much.
    instrument
        For which instrument.
    """
    return book(booking, "income", amount=amount, **given(instrument=instrument))


def financing(
    amount: Money, /, *, instrument: str | None = None, booking: Booking | None = None
) -> int:
    """Book borrow fees, funding or interest paid: FINANCING / CASH; negative when received.

    Parameters
    ----------
    amount
        How much.
    instrument
        For which instrument.
    """
    return book(booking, "financing", amount=amount, **given(instrument=instrument))


def split(
    instrument: str, ratio: Money, /, *, cash: Money | None = None, booking: Booking | None = None
) -> int:
    """Multiply the quantity of every open lot of an instrument; lots keep their cost.

    Parameters
    ----------
    instrument
        The instrument.
    ratio
        New units for an old one: a number, or NEW:OLD such as 3:2.
    cash
        Received for the fraction of a unit that is left; without it, fractions stay.
    """
    return book(booking, "split", instrument=instrument, ratio=ratio, **given(cash=cash))


def rename(instrument: str, to: str, /, *, booking: Booking | None = None) -> int:
    """Move every open lot of an instrument to another name.

    Parameters
    ----------
    instrument
        The name until now.
    to
        The name from now on.
    """
    return book(booking, "rename", instrument=instrument, to=to)


def transfer(
    instrument: str,
    quantity: Money,
    /,
    *,
    from_strategy: str | None = None,
    to_strategy: str | None = None,
    booking: Booking | None = None,
) -> int:
    """Move the oldest lots of a strategy to another, which pays their cost.

    Parameters
    ----------
    instrument
        The instrument.
    quantity
        How much, with the sign of the position.
    from_strategy
        The strategy that has the lots; the fund as a whole by default.
    to_strategy
        The strategy that gets them; the fund as a whole by default.
    """
    return book(
        booking,
        "transfer",
        instrument=instrument,
        quantity=quantity,
        from_strategy=from_strategy,
        to_strategy=to_strategy,
    )


def convert(
    amount: Money,
    asset: str,
    to_amount: Money,
    to_asset: str,
    /,
    *,
    fee: Money = "0",
    booking: Booking | None = None,
) -> int:
    """Change cash of one asset into another. Refused when there is too little.

    Parameters
    ----------
    amount
        How much is given away.
    asset
        Of which asset, such as USD.
    to_amount
        How much is received.
    to_asset
        Of which asset, such as EUR.
    fee
        In the asset that is given away.
    """
    return book(
        booking,
        "convert",
        amount=amount,
        asset=asset,
        to_amount=to_amount,
        to_asset=to_asset,
        fee=fee,
    )


def price(asset: str, value: Money, /, *, booking: Booking | None = None) -> int:
    """Say what one unit of another asset is worth; the NAV counts it at its last price.

    Parameters
    ----------
    asset
        The asset, such as EUR.
    value
        Its price in the fund's currency.
    """
    return book(booking, "price", asset=asset, value=value)


def reverse(seq: int, /, *, reason: str, booking: Booking | None = None) -> int:
    """Book the opposite of an entry, once.

    Parameters
    ----------
    seq
        The number of the entry.
    reason
        Why.
    """
    return book(booking, "reverse", seq=seq, reason=reason)


def correct(seq: int, entry: str, /, *, reason: str, booking: Booking | None = None) -> int:
    """Reverse an entry and book another in its place, both or neither.

    Parameters
    ----------
    seq
        The number of the entry.
    entry
        The event in its place as JSON, such as {"type": "deposit", "amount": "250"}.
    reason
        Why.
    """
    import msgspec

    from fundops.runtime import ConfigError

    try:
        event = msgspec.json.decode(entry)
    except msgspec.DecodeError as error:
        raise ConfigError("ENTRY", f"{entry[:80]!r} is not JSON: {error}") from None
    return book(booking, "correct", seq=seq, entry=event, reason=reason)


def close_period(day: str, /, *, booking: Booking | None = None) -> int:
    """Book the revenue up to the end of a day into RETAINED and lock that time.

    Parameters
    ----------
    day
        The last day (YYYY-MM-DD).
    """
    return book(booking, "close_period", day=day)


def reopen_period(day: str, /, *, reason: str, booking: Booking | None = None) -> int:
    """Undo the last close, which must be of this day.

    Parameters
    ----------
    day
        The day of that close (YYYY-MM-DD).
    reason
        Why.
    """
    by = author((booking or Booking()).by)
    return book(booking, "reopen_period", day=day, by=by, reason=reason)


def opening_balances(
    cash: Money,
    /,
    *,
    position: Annotated[list[str] | None, Parameter(negative="")] = None,
    booking: Booking | None = None,
) -> int:
    """Book the cash and positions of a fund that already trades, before any other entry.

    Parameters
    ----------
    cash
        All cash, including the capital.
    position
        INSTRUMENT=QUANTITY,COST or INSTRUMENT=QUANTITY,COST,VALUE, as often as needed.
    """
    positions = [_position(text) for text in position or ()]
    return book(booking, "opening_balances", cash=cash, positions=positions)


def _position(text: str) -> dict[str, str]:
    from fundops.runtime import ConfigError

    instrument, _, figures = text.rpartition("=")
    names = ("quantity", "cost", "value")
    amounts = figures.split(",")
    if not instrument or not 2 <= len(amounts) <= 3:
        problem = f"{text!r} is not INSTRUMENT=QUANTITY,COST or INSTRUMENT=QUANTITY,COST,VALUE"
        raise ConfigError("--position", problem)
    return {"instrument": instrument, **dict(zip(names, amounts, strict=False))}


# By the word on the command line; `income` is the statement.
BOOKINGS: Mapping[str, Callable[..., int]] = {
    "pay-fees": pay_fees,
    "book-income": book_income,
    "financing": financing,
    "split": split,
    "rename": rename,
    "transfer": transfer,
    "convert": convert,
    "price": price,
    "reverse": reverse,
    "correct": correct,
    "close-period": close_period,
    "reopen-period": reopen_period,
    "opening-balances": opening_balances,
}
