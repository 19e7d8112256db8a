"""`fundops strategy record`: metrics of the present stage, as words or as a file of returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fundops.cli.given import figures_of
from fundops.cli.grammar import UsageError
from fundops.cli.returns import opened_returns, returns_of
from fundops.cli.run import asked, author, checked, database, existing, quiet
from fundops.cli.show import print_json
from fundops.runtime import ConfigError

__all__ = ["record"]


def record(
    strategy_id: str,
    metrics: Sequence[str] = (),
    *,
    returns: Path | None = None,
    stage: str | None = None,
    as_of: str | None = None,
    source: str = "",
    since_registration: bool = False,
    db: Path | None = None,
    by: str | None = None,
    json: bool = False,
) -> int:
    """Record metrics of the present stage.

    Sharpe ratio and drawdown are measured from a file of returns; measured values count before
    recorded ones.

    Parameters
    ----------
    returns
        a CSV file of returns as fractions, with or without dates, or with a column of equity; - is
        standard input
    stage
        the stage in which they were observed; the present one if not given
    as_of
        when they were true: YYYY-MM-DD, or a time with its offset; now if not given
    since_registration
        counts and returns began when it was registered, and not with its stage
    """
    given: dict[str, Any] = {**figures_of("METRIC=VALUE", metrics)}
    if returns is not None:
        given["returns"] = _returns_in(returns)
    if not given:
        raise UsageError("METRIC=VALUE: give a metric, such as sharpe=1.2, or --returns FILE")
    quiet()
    path = checked(existing(database(db), "promotion.record_metrics"))
    named = {"strategy_id": strategy_id}
    wanted: dict[str, Any] = {
        **named,
        "stage": stage or asked(path, "promotion.current_stage", named, ""),
        "metrics": given,
        "source": source,
    }
    if as_of is not None:
        wanted["as_of"] = as_of
    if since_registration:
        wanted["cumulative_since"] = "registration"
    answer = asked(path, "promotion.record_metrics", wanted, author(by))
    if json:
        return print_json("strategy record", answer)
    print("done")
    return 0


def _returns_in(path: Path) -> list[float]:
    """The returns of a file, in the forms that `fundops gate` reads. Raises: `ConfigError`."""
    with opened_returns(path) as (file, name):
        found = [row.change for row in returns_of(file, name) if row.change is not None]
    if not found:
        raise ConfigError(str(path), "has no returns")
    return found
