"""`fundops gate`: judges the returns in a file by the rules of promotion, without a fund.

The rules are those of the default policy, or of a TOML file.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import msgspec

from fundops.actors.promotion.advisories import CONFIDENCE
from fundops.actors.promotion.capital import Capital
from fundops.actors.promotion.criteria import METRICS
from fundops.actors.promotion.evaluation import evaluate
from fundops.actors.promotion.policies import policy_of
from fundops.actors.promotion.policy import PERIODS_MAX, PERIODS_MIN, PromotionPolicy
from fundops.actors.promotion.strategy import Episode, Metric, Strategy
from fundops.actors.promotion.track import Track
from fundops.cli import screens
from fundops.cli.grammar import UsageError
from fundops.cli.returns import Series, opened_returns, read_returns
from fundops.cli.show import counted, number, print_json
from fundops.control.arguments import plain
from fundops.runtime import DAY_US, ConfigError
from fundops.wire.errors import PolicyError
from fundops.wire.promotion import Evaluation, Verdict

__all__ = ["gate"]

# In docs/commands.md too.
EXIT_CODES: Final[dict[Verdict, int]] = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 4}

WEEKDAYS: Final = 252  # sessions a year
EVERY_DAY: Final = 365
# Rows that are farther apart are no sessions of days; only a person knows how many a year has.
GAP_MAX_DAYS: Final = 4.0
# No instant of the evaluation is beyond the calendar then.
SPAN_MAX_DAYS: Final = 365_000


def gate(
    returns: Path,
    *,
    trades: int | None = None,
    wins: int | None = None,
    periods_per_year: float | None = None,
    policy: Path | None = None,
    json: bool = False,
) -> int:
    """Judge the returns in a CSV file by a promotion gate, without a fund or an engine.

    The file has one column of returns as fractions (1% is 0.01), or dates and returns, or a column
    named equity. Each row is one session. The exit code is 0 for PASS, 1 for FAIL, 4 for
    INCONCLUSIVE and 2 for a file that cannot be read.

    Parameters
    ----------
    returns
        the CSV file; - is standard input
    trades
        closed round trips of that time; without them min_trades is INCONCLUSIVE
    wins
        those of the trades that were won
    periods_per_year
        rows in a year; if not given, those of the policy file, or else 365 for dates with
        weekends and 252 for others
    policy
        a TOML file of the rules, whose lowest gate judges; the default policy if not given
    """
    _check_counts(trades, wins)
    rules = policy_of() if policy is None else _policy_in(policy)
    with opened_returns(returns) as (file, name):
        series = read_returns(file, name)
    periods = _periods(
        series, rules.periods_per_year if periods_per_year is None else periods_per_year
    )
    rules = msgspec.structs.replace(rules, periods_per_year=periods)
    evaluation = _judged(series, rules, trades, wins, str(returns))
    if json:
        print_json("gate", _record(series, periods, evaluation))
    else:
        for line in _lines(series, periods, evaluation):
            print(line)
        if trades is None:
            print("a file of returns has no count of trades: give it with --trades")
    return EXIT_CODES[evaluation.verdict]


def _policy_in(path: Path) -> PromotionPolicy:
    """The policy of a TOML file. Raises: `ConfigError` naming the file, the key and the line."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), f"is not UTF-8 text: {error}") from None
    try:
        # A text of one line could be taken for a path.
        return PromotionPolicy.from_toml(f"{text}\n")
    except PolicyError as error:
        raise ConfigError(str(path), str(error)) from None


def _check_counts(trades: int | None, wins: int | None) -> None:
    for label, count in (("--trades", trades), ("--wins", wins)):
        if count is not None and count < 0:
            raise UsageError(f"{label}: {count} is negative")
    if wins is not None and trades is None:
        raise UsageError("--wins: needs --trades, of which the wins are a part")
    if wins is not None and trades is not None and wins > trades:
        raise UsageError(f"--wins: {wins} is more than the {trades} trades")


def _periods(series: Series, given: float | None) -> float:
    """The sessions in a year, as given or by the dates. Raises: `UsageError`."""
    if given is not None:
        if not PERIODS_MIN <= given <= PERIODS_MAX:
            raise UsageError(
                f"--periods-per-year: {given:g} is not between {PERIODS_MIN} and {PERIODS_MAX:,}"
            )
        return given
    if series.span_days is None:
        return WEEKDAYS
    gap_days = series.span_days / (series.rows - 1)
    if gap_days > GAP_MAX_DAYS:
        raise UsageError(
            f"the rows are {gap_days:.0f} days apart on average; say with --periods-per-year how"
            " many there are in a year, such as 52 or 12"
        )
    # Two days of seven are at a weekend; a special session on a Saturday makes no calendar.
    return EVERY_DAY if series.weekends >= series.rows / 7 else WEEKDAYS


def _judged(
    series: Series, policy: PromotionPolicy, trades: int | None, wins: int | None, name: str
) -> Evaluation:
    """The verdict of the policy on a strategy that spent the time of the file in its lowest stage.

    The file stands for the reports of an engine.
    """
    periods = policy.sessions_per_year
    now_us, found = round(_days(series, periods) * DAY_US), series.moments
    values = {
        "sharpe": None if found.sharpe is None else found.sharpe * math.sqrt(periods),
        "max_drawdown": series.max_drawdown,
        "n_trades": None if trades is None else float(trades),
        "win_rate": None if wins is None or not trades else wins / trades,
    }
    episode = Episode(
        number=1,
        entered_us=0,
        track=Track(
            sessions=found.n,
            mean=found.mean,
            m2=found.m2,
            m3=found.m3,
            m4=found.m4,
            trades=trades or 0,
            wins=wins or 0,
        ),
        measured={
            metric: Metric(value, now_us, "engine", found.n)
            for metric, value in values.items()
            if value is not None
        },
        undefined=("sharpe",) if found.sharpe is None else (),
    )
    strategy = Strategy(name, name, policy.rungs[0].stage, registered_us=0, episode=episode)
    return evaluate(strategy, policy, now_us, capital=Capital())


def _days(series: Series, periods: float) -> float:
    """The days that the returns took: by the dates, with the first one's own session.

    Raises: `UsageError` for more than a thousand years.
    """
    if series.span_days is None:
        days = series.moments.n * EVERY_DAY / periods
    else:
        days = series.span_days + (1 if series.rows == series.moments.n else 0)
    if days > SPAN_MAX_DAYS:
        raise UsageError(
            f"the returns span {days / EVERY_DAY:,.0f} years: are the dates and --periods-per-year"
            " right?"
        )
    return days


def _record(series: Series, periods: float, evaluation: Evaluation) -> dict[str, Any]:
    judged = plain(evaluation)
    return {
        "file": evaluation.strategy,
        "returns": series.moments.n,
        "first": None if series.first is None else str(series.first),
        "last": None if series.last is None else str(series.last),
        "periods_per_year": periods,
        "stage": judged["stage"],
        "target": judged["target"],
        "verdict": judged["verdict"],
        "criteria": judged["criteria"],
        "advisories": judged["advisories"],
    }


def _lines(series: Series, periods: float, evaluation: Evaluation) -> list[str]:
    n = series.moments.n
    dated = "" if series.first is None else f" from {series.first} to {series.last}"
    judged, advice = plain(evaluation), evaluation.advisories
    lines = [
        f"{evaluation.strategy}: {judged['stage']} to {judged['target']}: {evaluation.verdict}",
        "",
        *screens.criteria(judged),
        "",
        f"{counted(n, 'return')}{dated}, {periods:g} a year",
    ]
    error, psr, chance = advice.se_sharpe, advice.psr, advice.p_pass_without_skill
    if error is None or psr is None:
        return lines
    length = advice.min_trl
    lines += [
        f"standard error of the Sharpe ratio: {number(error)}",
        f"probability that the true Sharpe ratio is above 0: {_percent(psr)}",
        f"returns needed to show it with {CONFIDENCE:.0%}: "
        + ("no number of them" if length is None else f"{math.ceil(length):,}"),
    ]
    floors = [
        criterion
        for criterion in evaluation.criteria
        if criterion.unit == METRICS["sharpe"] and criterion.op == ">="
    ]
    if chance is not None and floors:
        highest = max(floors, key=lambda floor: floor.limit).name
        lines.append(
            f"a strategy without skill passes this with {_percent(chance)}"
            f" ({highest}, in one look after {counted(n, 'return')})"
        )
    return lines


def _percent(probability: float) -> str:
    """A probability for a person, which never reads as certain."""
    if probability < 0.001:
        return "less than 0.1%"
    if probability > 0.999:
        return "more than 99.9%"
    return f"{probability:.1%}" if not 0.1 <= probability <= 0.9 else f"{probability:.0%}"
