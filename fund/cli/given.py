"""Arguments that are no plain text: legs, positions, metrics and JSON, as a person types them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from fundops.cli.grammar import Parameter, UsageError, Verb

__all__ = ["arguments_of", "figures_of"]


def arguments_of(verb: Verb, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as the command takes them, by the name of the argument.

    Raises: `UsageError` naming the argument as it is typed; `AmountError` naming the account.
    """
    found: dict[str, Any] = dict.fromkeys(verb.unsaid)
    for parameter in verb.parameters:
        if parameter.label not in values:
            continue
        value = values[parameter.label]
        read = _READERS.get(parameter.kind)
        if read is not None:
            value = read(parameter, value)
        # The debits and the credits of an entry are two options of one argument.
        before = found.get(parameter.name)
        found[parameter.name] = [*before, *value] if isinstance(before, list) else value
    return found


def _json(parameter: Parameter, text: str) -> Any:
    import msgspec

    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise UsageError(f"{parameter.label}: {text[:80]!r} is not JSON: {error}") from None


def _figures(parameter: Parameter, texts: Sequence[str]) -> dict[str, float]:
    return figures_of(parameter.label, texts)


def figures_of(label: str, texts: Sequence[str]) -> dict[str, float]:
    """Figures by name, from words such as sharpe=1.2. Raises: `UsageError` naming the word."""
    figures: dict[str, float] = {}
    for text in texts:
        name, equals, figure = text.partition("=")
        if not (name and equals):
            raise UsageError(f"{label}: {text!r} is not NAME=NUMBER")
        if name in figures:
            raise UsageError(f"{label}: {name!r} is given twice")
        try:
            number = float(figure)
        except ValueError:
            raise UsageError(f"{label}: {text!r} is not NAME=NUMBER") from None
        if not math.isfinite(number):
            # JSON has no such number, so it would arrive as "not measured".
            raise UsageError(f"{label}: {text!r} is not a finite number")
        figures[name] = number
    return figures


def _debits(parameter: Parameter, texts: Sequence[str]) -> list[dict[str, str]]:
    return [_leg(parameter, text, "") for text in texts]


def _credits(parameter: Parameter, texts: Sequence[str]) -> list[dict[str, str]]:
    return [_leg(parameter, text, "-") for text in texts]


def _leg(parameter: Parameter, text: str, sign: str) -> dict[str, str]:
    from fundops.wire.money import from_minor, positive_minor, text_of

    account, equals, amount = text.partition("=")
    if not (account and equals):
        raise UsageError(f"{parameter.label}: {text!r} is not ACCOUNT=AMOUNT")
    minor = positive_minor(amount, account).minor
    return {"account": account, "amount": f"{sign}{text_of(from_minor(minor))}"}


def _positions(parameter: Parameter, texts: Sequence[str]) -> list[dict[str, str]]:
    return [_position(parameter, text) for text in texts]


def _position(parameter: Parameter, text: str) -> dict[str, str]:
    instrument, _, figures = text.rpartition("=")
    amounts = figures.split(",")
    if not instrument or not 2 <= len(amounts) <= 3:
        problem = f"{text!r} is not INSTRUMENT=QUANTITY,COST or INSTRUMENT=QUANTITY,COST,VALUE"
        raise UsageError(f"{parameter.label}: {problem}")
    named = zip(("quantity", "cost", "value"), amounts, strict=False)
    return {"instrument": instrument, **dict(named)}


_READERS: Final[dict[str, Callable[[Parameter, Any], Any]]] = {
    "json": _json,
    "figure": _figures,
    "debit": _debits,
    "credit": _credits,
    "position": _positions,
}
