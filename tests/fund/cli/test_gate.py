"""`fundops gate` on real returns: verdicts, exit codes, advisories, refusals."""

from __future__ import annotations

import io
import json
import math
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import scipy.stats

from fundops.cli import app as cli
from fundops.replay.prices import Bar, bundled

EXAMPLE = Path(__file__).parents[3] / "docs" / "policy.toml"
YEAR_2013 = [bar for bar in bundled("sp500") if bar.day.year == 2013]
YEAR_2008 = [bar for bar in bundled("sp500") if bar.day.year == 2008]


class Gate:
    """Runs `fundops gate` in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        self.path = folder / "returns.csv"

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["fundops", "gate", *words])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = self._capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, out, err

    def judged(self, text: str, *words: str) -> tuple[int, dict[str, Any]]:
        self.path.write_text(text)
        code, out, err = self(str(self.path), *words, "--json")
        assert err == ""
        found: dict[str, Any] = json.loads(out)
        return code, found


@pytest.fixture
def gate(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Gate:
    return Gate(monkeypatch, capsys, tmp_path)


def dated(bars: list[Bar]) -> str:
    rows = [
        f"{after.day},{after.close_cents / before.close_cents - 1!r}"
        for before, after in pairwise(bars)
    ]
    return "\n".join(["date,return", *rows]) + "\n"


def undated(bars: list[Bar]) -> str:
    return "\n".join(line.partition(",")[2] for line in dated(bars).splitlines()) + "\n"


def verdicts(found: dict[str, Any]) -> dict[str, str]:
    return {criterion["name"]: criterion["verdict"] for criterion in found["criteria"]}


# -- verdicts


def test_a_good_year_with_its_trades_passes(gate: Gate) -> None:
    code, found = gate.judged(dated(YEAR_2013), "--trades", "60", "--wins", "27")
    assert (code, found["verdict"], found["stage"], found["target"]) == (
        0,
        "PASS",
        "paper",
        "shadow",
    )
    assert set(verdicts(found).values()) == {"PASS"}
    observed = {row["name"]: row["observed"] for row in found["criteria"]}
    assert observed["min_win_rate"] == 0.45, "exactly the limit"
    assert [*verdicts(found)] == [
        "min_days",
        "min_trades",
        "min_sharpe",
        "max_drawdown",
        "min_win_rate",
    ]
    assert (found["returns"], found["periods_per_year"]) == (251, 252)
    assert (found["first"], found["last"]) == ("2013-01-03", "2013-12-31")


def test_a_bad_year_fails_by_its_sharpe_ratio_and_drawdown(gate: Gate) -> None:
    code, found = gate.judged(dated(YEAR_2008), "--trades", "60")
    assert (code, found["verdict"]) == (1, "FAIL")
    failed = [name for name, verdict in verdicts(found).items() if verdict == "FAIL"]
    assert failed == ["min_sharpe", "max_drawdown"]


def test_without_a_count_of_trades_nothing_is_proved(gate: Gate) -> None:
    code, found = gate.judged(dated(YEAR_2013))
    assert (code, found["verdict"]) == (4, "INCONCLUSIVE")
    assert verdicts(found)["min_trades"] == "INCONCLUSIVE"
    assert "give it with --trades" in gate(str(gate.path))[1]


def test_a_failed_criterion_outweighs_a_missing_one(gate: Gate) -> None:
    assert gate.judged(dated(YEAR_2008))[0] == 1


@pytest.mark.parametrize(
    ("words", "failed"),
    [
        (["--trades", "49"], "min_trades"),
        (["--trades", "60", "--wins", "26"], "min_win_rate"),
        (["--trades", "0", "--wins", "0"], "min_trades"),
    ],
)
def test_the_counts_are_judged(gate: Gate, words: list[str], failed: str) -> None:
    code, found = gate.judged(dated(YEAR_2013), *words)
    assert code == 1
    assert [name for name, verdict in verdicts(found).items() if verdict == "FAIL"] == [failed]


def test_constant_returns_prove_nothing(gate: Gate) -> None:
    code, found = gate.judged("0.001\n" * 30, "--trades", "60")
    assert (code, found["verdict"]) == (4, "INCONCLUSIVE")
    assert [row["reason"] for row in found["criteria"] if row["name"] == "min_sharpe"] == [
        "undefined"
    ]
    told = ("se_sharpe", "psr", "min_trl", "p_pass_without_skill")
    assert [found["advisories"][name] for name in told] == [None] * 4
    assert "without skill" not in gate(str(gate.path))[1]


@pytest.mark.parametrize(("sessions", "days"), [(9, 11), (10, 15)])
def test_days_are_those_of_the_calendar_with_the_first_session(
    gate: Gate, sessions: int, days: int
) -> None:
    # From Tuesday 2013-01-08 to Friday the 18th, and to Tuesday the 22nd after a holiday.
    start = next(at for at, bar in enumerate(YEAR_2013) if str(bar.day) == "2013-01-08")
    code, found = gate.judged(dated(YEAR_2013[start - 1 : start + sessions]), "--trades", "60")
    [criterion] = [row for row in found["criteria"] if row["name"] == "min_days"]
    assert (criterion["observed"], code) == (days, 0 if days >= 14 else 1)


def test_an_equity_counts_its_days_from_its_first_row(gate: Gate) -> None:
    rows = [f"{bar.day},{bar.close_cents}" for bar in YEAR_2013]
    _, found = gate.judged("\n".join(["date,equity", *rows]), "--trades", "60")
    [criterion] = [row for row in found["criteria"] if row["name"] == "min_days"]
    assert criterion["observed"] == (YEAR_2013[-1].day - YEAR_2013[0].day).days
    assert found["advisories"] == gate.judged(dated(YEAR_2013))[1]["advisories"]


def test_without_dates_the_days_follow_from_the_rows_in_a_year(gate: Gate) -> None:
    _, found = gate.judged(undated(YEAR_2013[:13]), "--periods-per-year", "365")
    [criterion] = [row for row in found["criteria"] if row["name"] == "min_days"]
    assert criterion["observed"] == 12
    assert (found["first"], found["last"]) == (None, None)


# -- advisories


def test_the_chance_without_skill_is_the_one_of_the_readme_after_14_sessions(gate: Gate) -> None:
    _, found = gate.judged(undated(YEAR_2013[:15]))
    assert found["returns"] == 14
    assert found["advisories"]["p_pass_without_skill"] == pytest.approx(0.4087, abs=5e-5)
    text = gate(str(gate.path))[1]
    assert "a strategy without skill passes this with 41% (min_sharpe, in one look" in text


def test_the_advisories_are_those_of_an_independent_computation(gate: Gate) -> None:
    _, found = gate.judged(undated(YEAR_2013))
    returns = [float(line) for line in undated(YEAR_2013).splitlines()[1:]]
    n = len(returns)
    mean = sum(returns) / n
    sharpe = mean / math.sqrt(sum((value - mean) ** 2 for value in returns) / (n - 1))
    skew = float(scipy.stats.skew(returns))
    kurtosis = float(scipy.stats.kurtosis(returns, fisher=False))
    variance = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    error = math.sqrt(variance / (n - 1))
    advisories = found["advisories"]
    assert advisories["se_sharpe"] == pytest.approx(error * math.sqrt(252))
    assert advisories["psr"] == pytest.approx(float(scipy.stats.norm.cdf(sharpe / error)))
    z = float(scipy.stats.norm.ppf(0.95))
    assert advisories["min_trl"] == pytest.approx(1 + variance * (z / sharpe) ** 2)
    [criterion] = [row for row in found["criteria"] if row["name"] == "min_sharpe"]
    assert criterion["observed"] == pytest.approx(sharpe * math.sqrt(252), abs=1e-8)


def test_no_length_shows_a_sharpe_ratio_below_zero(gate: Gate) -> None:
    _, found = gate.judged(dated(YEAR_2008))
    assert found["advisories"]["min_trl"] is None
    assert "returns needed to show it with 95%: no number of them" in gate(str(gate.path))[1]


def test_no_probability_reads_as_certain(gate: Gate) -> None:
    gate.path.write_text("0.01\n0.02\n" * 300)
    text = gate(str(gate.path))[1]
    assert "above 0: more than 99.9%" in text
    gate.path.write_text("0.01\n-0.02\n" * 10_000)
    text = gate(str(gate.path))[1]
    assert "above 0: less than 0.1%" in text
    assert "a strategy without skill passes this with less than 0.1%" in text


# -- calendars


def test_dates_with_weekends_have_365_sessions_a_year(gate: Gate) -> None:
    rows = [f"2024-01-{day:02},{day % 3 / 100}" for day in range(1, 32)]
    assert gate.judged("\n".join(rows))[1]["periods_per_year"] == 365


def test_one_special_session_on_a_saturday_makes_no_calendar(gate: Gate) -> None:
    rows = [f"2024-01-{day:02},{day % 3 / 100}" for day in (2, 3, 4, 5, 6, 8, 9, 10, 11, 12)]
    assert gate.judged("\n".join(rows))[1]["periods_per_year"] == 252


def test_rows_of_months_need_their_number_in_a_year(gate: Gate) -> None:
    gate.path.write_text("\n".join(f"2013-{month:02}-28,0.0{month % 4}" for month in range(1, 13)))
    code, _, err = gate(str(gate.path))
    assert code == 2
    assert "the rows are 30 days apart on average" in err
    assert gate(str(gate.path), "--periods-per-year", "12", "--trades", "60")[0] == 0


# -- input and refusals


def test_standard_input_is_read_for_a_dash(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(dated(YEAR_2013).encode())))
    code, out, _ = gate("-", "--trades", "60")
    assert code == 0
    assert "251 returns from 2013-01-03 to 2013-12-31, 252 a year" in out
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"0.1\nx\n")))
    assert "stdin:2: column 1: 'x' is not a number" in gate("-")[2]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trades", "-1"], "--trades: -1 is negative"),
        (["--trades", "5", "--wins", "-1"], "--wins: -1 is negative"),
        (["--trades", "5", "--wins", "6"], "--wins: 6 is more than the 5 trades"),
        (["--wins", "6"], "--wins: needs --trades"),
        (["--periods-per-year", "0"], "--periods-per-year: 0 is not between"),
        (["--periods-per-year", "1e-300"], "--periods-per-year: 1e-300 is not between 1 and"),
        (["--periods-per-year", "nan"], "--periods-per-year: 'nan' is not a number"),
        (["--periods-per-year", "1e9"], "--periods-per-year: 1e+09 is not between"),
    ],
)
def test_a_wrong_option_is_named(gate: Gate, words: list[str], said: str) -> None:
    gate.path.write_text(dated(YEAR_2013))
    code, out, err = gate(str(gate.path), *words)
    assert (code, out) == (2, "")
    assert said in err


@pytest.mark.parametrize(
    "text", ["date,returns\n0001-01-01,0.1\n9999-12-31,0.1\n", "0.01\n-0.01\n" * 5_000]
)
def test_returns_of_thousands_of_years_are_refused(gate: Gate, text: str) -> None:
    gate.path.write_text(text)
    code, out, err = gate(str(gate.path), "--periods-per-year", "1")
    assert (code, out) == (2, "")
    assert "the returns span 10,0" in err


def test_a_file_that_cannot_be_read_is_no_verdict(gate: Gate) -> None:
    code, out, err = gate(str(gate.path))
    assert (code, out) == (2, "")
    assert "returns.csv: cannot be read: No such file or directory" in err
    code, _, err = gate(str(gate.path.parent))
    assert code == 2
    assert "cannot be read: Is a directory" in err
    assert gate()[0] == 2


# -- a policy of one's own


def test_a_policy_file_brings_its_own_lowest_gate(gate: Gate, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        'ladder = ["shadow", "live-small"]\nperiods_per_year = 365\n'
        '[[gates.shadow.criteria]]\nname = "skill"\nmetric = "sharpe"\nop = ">="\nlimit = 9\n'
        '[[gates.shadow.criteria]]\nname = "some"\nmetric = "sharpe"\nop = ">="\nlimit = 1\n'
    )
    code, found = gate.judged(dated(YEAR_2013), "--policy", str(rules))
    assert code == 1
    assert (found["stage"], found["target"]) == ("shadow", "live-small")
    assert verdicts(found) == {"skill": "FAIL", "some": "PASS"}
    assert found["periods_per_year"] == 365
    _, out, _ = gate(str(gate.path), "--policy", str(rules), "--periods-per-year", "252")
    assert ", 252 a year\n" in out
    assert "a strategy without skill passes this with less than 0.1% (skill, in one look" in out


def test_the_example_of_a_policy_judges_a_file(gate: Gate) -> None:
    code, found = gate.judged(dated(YEAR_2013), "--trades", "99", "--policy", str(EXAMPLE))
    assert code == 1
    assert verdicts(found)["min_trades"] == "FAIL"


def test_a_gate_that_asks_for_no_sharpe_ratio_has_no_chance_of_luck(
    gate: Gate, tmp_path: Path
) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text(
        '[[gates.paper.criteria]]\nname = "few"\nmetric = "n_trades"\nop = ">="\nlimit = 1\n'
    )
    gate.path.write_text(dated(YEAR_2013))
    code, out, _ = gate(str(gate.path), "--trades", "1", "--policy", str(rules))
    assert code == 0
    assert "standard error of the Sharpe ratio" in out
    assert "without skill" not in out


def test_the_default_policy_as_a_file_judges_as_without_it(gate: Gate, tmp_path: Path) -> None:
    rules = tmp_path / "rules.toml"
    rules.write_text('policy = "guarded"')
    gate.path.write_text(dated(YEAR_2013))
    words = (str(gate.path), "--trades", "60", "--wins", "40")
    assert gate(*words, "--policy", str(rules)) == gate(*words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "rules.toml: cannot be read: No such file or directory"),
        (b"\xff", "rules.toml: is not UTF-8 text: "),
        (b"[criteria]\nmin_trades = -5", "rules.toml: criteria.min_trades: line 2: "),
        (b"ladder = ", "rules.toml: ladder: line 1: "),
        (b"rules.toml", "rules.toml: toml: line 1: "),
        (b"periods_per_year = 1e-300", "rules.toml: --periods-per-year: line 1: "),
        (b"calendar = " + b"9" * 5_000, "rules.toml: toml: cannot be read: Exceeds"),
        (b"calendar = " + b"[" * 5_000, "rules.toml: toml: cannot be read: maximum recursion"),
    ],
)
def test_a_broken_policy_file_names_its_place(
    gate: Gate, tmp_path: Path, text: bytes | None, said: str
) -> None:
    rules = tmp_path / "rules.toml"
    if text is not None:
        rules.write_bytes(text)
    gate.path.write_text(dated(YEAR_2013))
    code, out, err = gate(str(gate.path), "--policy", str(rules))
    assert (code, out) == (2, "")
    assert said in err


def test_an_error_is_one_json_object_where_it_is_asked_for(gate: Gate) -> None:
    gate.path.write_text("0.1\nabc\n")
    code, out, _ = gate(str(gate.path), "--json")
    assert code == 2
    assert json.loads(out)["error"]["text"].endswith(
        "returns.csv:2: column 1: 'abc' is not a number"
    )


def test_the_help_shows_percent_signs_as_they_are(gate: Gate) -> None:
    code, out, _ = gate("--help")
    assert code == 0
    assert "returns as fractions (1% is 0.01)" in out
