"""What the guard thinks, by plain calls: NAV, drawdowns, and when to stop everything."""

import math
from decimal import Decimal
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fundops.actors.guard import GuardSettings
from fundops.actors.guard.core import Look, look, rearmed, released
from fundops.runtime import ConfigError, at_once
from fundops.wire.alert import Level
from fundops.wire.controller import StrategyState, StrategyStatus
from fundops.wire.guard import FeeTerms, GuardState, KillStatus, PricedFlow, StrategyBook
from fundops.wire.promotion import EntitlementTerms, PromotionStage

UNIT = 10**8
CAPITAL = 100_000
DEFAULTS = GuardSettings()
STAGES = {
    "paper": (PromotionStage.Paper, "paper", 0.0),
    "shadow": (PromotionStage.Shadow, "shadow", 0.0),
    "live-small": (PromotionStage.Live_Small, "live", 0.01),
    "live-scaled": (PromotionStage.Live_Scaled, "live", 1.0),
}


def status(
    name: str = "mm", pnl: Any = 0, *, unrealized: Any = 0, allocated: Any = 1_000, **more: Any
) -> StrategyStatus:
    figures = {"realized_pnl": pnl, "unrealized_pnl": unrealized, "allocated": allocated}
    return StrategyStatus(name, "running", **figures, **more)


def terms(**stages: str) -> dict[str, EntitlementTerms]:
    """Names and their stages."""
    found: dict[str, Any] = {
        name: STAGES[stage.replace("_", "-")] for name, stage in stages.items()
    }
    return {name: EntitlementTerms(name, *one) for name, one in found.items()}


class Fund:
    """Looks one after the other, each on the state of the one before."""

    def __init__(self, settings: GuardSettings = DEFAULTS, capital: float = CAPITAL) -> None:
        self.settings = settings
        self.state = GuardState()
        self.capital = self.external = capital
        self.posted: float = 0
        self.accrued: float = 0
        self.earned: float = 0
        self.last: Look
        if capital:
            self.look()

    def look(
        self,
        *statuses: StrategyStatus,
        terms: dict[str, EntitlementTerms] | None = None,
        blind_s: float = 0.0,
        session: str = "",
        observing: bool = False,
        flows: tuple[PricedFlow, ...] = (),
        news: bool = True,
    ) -> Look:
        looking = look(
            self.state,
            self.settings,
            statuses,
            terms,
            external_minor=round(self.external * UNIT),
            posted_fees_minor=round(self.posted * UNIT),
            accrued_fees_minor=round(self.accrued * UNIT),
            earned_minor=round(self.earned * UNIT),
            blind_s=blind_s,
            session=session,
            capital_minor=round(self.capital * UNIT),
            flows=flows,
            news=news,
            observing=observing,
        )
        self.last = at_once(looking)
        self.state = self.last.state
        return self.last

    @property
    def nav(self) -> float:
        return self.state.nav_minor / UNIT

    @property
    def notes(self) -> list[tuple[str, str | None, bool]]:
        """Level, key, and whether it resolves, of the last look's alerts."""
        return [(one.level.value, one.dedup_key, one.resolves) for one in self.last.alerts]


@pytest.fixture
def fund() -> Fund:
    return Fund()


# -- net asset value


def test_nav_is_capital_and_pnl_of_all_strategies_ever_reported_less_fees(fund: Fund) -> None:
    fund.look(status("a", 500, unrealized=-200), status("b", "-50"))
    assert fund.nav == 100_250
    fund.look(status("b", -50))  # a is gone; what it made is not
    assert fund.nav == 100_250
    fund.posted, fund.accrued = 100, 20
    found = fund.look(status("a", 600, unrealized=-200), status("b", -50))
    assert fund.nav == 100_230
    assert found.gross_minor == 100_250 * UNIT


def test_paper_and_shadow_pnl_is_hypothetical(fund: Fund) -> None:
    for made in (0, 1):
        fund.look(
            status("p", 9_999 * made),
            status("s", 9_999 * made),
            status("l", 100 * made),
            terms=terms(p="paper", s="shadow", l="live_small"),
        )
    assert fund.nav == 100_100
    assert [fund.state.strategies[name].real_pnl_minor for name in "psl"] == [0, 0, 100 * UNIT]


def test_paper_pnl_stays_out_after_a_promotion_and_real_pnl_in_after_a_demotion(
    fund: Fund,
) -> None:
    fund.look(status(pnl=5_000), terms=terms(mm="shadow"))
    fund.look(status(pnl=5_000), terms=terms(mm="live_small"))
    assert fund.nav == 100_000
    fund.look(status(pnl=5_300), terms=terms(mm="live_small"))
    assert fund.nav == 100_300
    fund.look(status(pnl=5_250), terms=terms(mm="shadow"))  # closing out cost real money
    assert fund.nav == 100_250
    fund.look(status(pnl=9_000), terms=terms(mm="shadow"))
    assert fund.nav == 100_250


@pytest.mark.parametrize(
    "end",
    [
        (status(pnl=-450), "shadow"),
        (status(unrealized=-450), "live_small"),
        (msgspec.structs.replace(status(unrealized=-450), state="retired"), "shadow"),
    ],
    ids=["gone", "real again", "retired"],
)
def test_real_positions_that_outlast_the_session_of_a_demotion_are_told_until_their_end(
    fund: Fund, end: tuple[StrategyStatus, str]
) -> None:
    told = "uncounted:mm"
    fund.look(status(), terms=terms(mm="live_small"), session="1")
    for unrealized in (-200, -300):
        fund.look(status(unrealized=unrealized), terms=terms(mm="shadow"), session="1")
        assert fund.notes == []
    found = fund.look(status(unrealized=-400), terms=terms(mm="shadow"), session="2")
    assert fund.notes == [("CRITICAL", told, False)]
    assert "unrealized P&L of -400.00" in found.alerts[0].message
    for session in ("2", "3"):
        fund.look(status(unrealized=-450), terms=terms(mm="shadow"), session=session)
        assert fund.notes == []
    over, stage = end
    fund.look(over, terms=terms(mm=stage), session="3")
    assert fund.notes == [("INFO", told, True)]
    fund.look(over, terms=terms(mm=stage), session="3")
    assert fund.notes == []


def test_a_position_that_is_opened_on_paper_is_not_told_as_real(fund: Fund) -> None:
    for unrealized, stage in ((-100, "live_small"), (-100, "shadow"), (0, "shadow")):
        fund.look(status(unrealized=unrealized), terms=terms(mm=stage), session="1")
    for session in ("1", "2"):
        fund.look(status(unrealized=-400), terms=terms(mm="shadow"), session=session)
        assert (fund.notes, fund.nav) == ([], 100_100)  # P&L counts from the first look


@pytest.mark.parametrize(
    ("looks", "lost"),
    [
        # Realized, unrealized and session after a demotion with 100 of loss open.
        ([(0, -400, "1"), (-450, 0, "1"), (-900, 0, "1"), (-900, -500, "1")], 450),
        ([(0, -400, "1"), (0, -450, "2"), (0, -900, "2")], 450),
        ([(-100, 0, "1"), (-900, -50, "1"), (-900, -90, "1")], 100),
    ],
    ids=["until they are gone", "until the session ends", "closed at once"],
)
def test_after_a_demotion_pnl_is_real_until_the_positions_are_gone(
    fund: Fund, looks: list[tuple[int, int, str]], lost: int
) -> None:
    fund.look(status(unrealized=-100), terms=terms(mm="live_small"), session="1")
    fund.look(status(unrealized=-200), terms=terms(mm="live_small"), session="1")
    fund.look(status(unrealized=-200), terms=terms(mm="shadow"), session="1")
    for realized, unrealized, session in looks:
        told = status(pnl=realized, unrealized=unrealized)
        fund.look(told, terms=terms(mm="shadow"), session=session)
    assert fund.nav == 100_100 - lost


def test_the_stage_in_force_at_the_engine_decides_what_is_real(fund: Fund) -> None:
    fund.look(status(pnl=0, stage="live-small"), terms=terms(mm="shadow"))
    fund.look(status(pnl=-70, stage="live-small"), terms=terms(mm="shadow"))
    assert fund.nav == 99_930
    fund.look(status("other", 70, stage="paper"), terms=terms(mm="shadow", other="live_scaled"))
    assert fund.nav == 99_930


def test_a_strategy_nobody_registered_is_real_only_if_the_engine_says_so(fund: Fund) -> None:
    fund.look(status("stranger"), status("rogue", stage="live"), terms=terms())
    fund.look(status("stranger", 500), status("rogue", -500, stage="live"), terms=terms())
    assert fund.nav == 99_500


@pytest.mark.parametrize("first", [5_000, -20_000])
@pytest.mark.parametrize("registered", [True, False])
def test_pnl_of_before_the_first_status_counts_only_while_promotion_is_off(
    first: int, registered: bool
) -> None:
    live = terms(mm="live_small") if registered else terms()
    trading, new = Fund(), Fund()
    # A person may pause a strategy that is registered and not reported yet.
    books = {"mm": StrategyBook(paused_by="ann")} if registered else {}
    trading.state = msgspec.structs.replace(trading.state, strategies=books)
    assert trading.look(status(pnl=first, stage="live-small"), terms=live).kill is None
    assert trading.nav == 100_000
    trading.look(status(pnl=first + 300, stage="live-small"), terms=live)
    assert trading.nav == 100_300
    new.look(status(pnl=first))
    assert new.nav == 100_000 + first


@pytest.mark.parametrize(
    "broken", [math.nan, math.inf, -math.inf, Decimal("NaN"), "x", True, 1e300]
)
@pytest.mark.parametrize("field", ["realized_pnl", "unrealized_pnl", "allocated", "equity"])
def test_a_figure_that_is_no_number_leaves_the_last_good_ones(
    fund: Fund, field: str, broken: Any
) -> None:
    fund.look(status(pnl=300))
    before = fund.state.strategies["mm"]
    sick = msgspec.structs.replace(status(pnl=300), **{field: broken})
    found = fund.look(sick, status("sound", 10))
    assert (found.pauses, found.alerts, found.kill) == ((), (), None)
    assert (fund.nav, fund.state.strategies["mm"]) == (100_310, before)
    fund.look(status(pnl=200), status("sound", 10))
    assert fund.nav == 100_210


# -- deposits and withdrawals


def test_deposits_and_withdrawals_are_not_performance(fund: Fund) -> None:
    fund.look(status(pnl=10_000))
    fund.external = 600_000
    fund.look(status(pnl=10_000))
    assert fund.nav == 610_000
    assert fund.state.drawdown == pytest.approx(0, abs=1e-9)
    fund.external = 50_000
    fund.look(status(pnl=10_000))
    assert fund.nav == 60_000
    assert fund.state.drawdown == pytest.approx(0, abs=1e-9)
    fund.look(status(pnl=7_000))
    assert fund.state.drawdown == pytest.approx(5.0)


@given(
    st.lists(
        st.tuples(st.integers(-50_000, 200_000), st.floats(-0.02, 0.02)),
        max_size=30,
    )
)
def test_drawdown_is_that_of_the_returns_whatever_flows(history: list[tuple[int, float]]) -> None:
    fund, pnl, index, peak = Fund(), 0.0, 1.0, 1.0
    for flow, change in history:
        if fund.nav + flow > 1_000:
            fund.external += flow
            fund.look(status(pnl=pnl))
        gain = round(fund.nav * change, 6)
        index *= 1 + gain / fund.nav
        peak = max(peak, index)
        pnl += gain
        fund.look(status(pnl=pnl))
        assert fund.state.drawdown == pytest.approx(100 * (1 - index / peak), abs=1e-6)


def test_withdrawing_everything_is_no_loss_and_a_later_deposit_begins_without_one(
    fund: Fund,
) -> None:
    fund.look(status(pnl=10_000))
    fund.external = -10_000
    found = fund.look(status(pnl=10_000))
    assert (fund.nav, fund.state.drawdown, found.kill) == (0, 0, None)
    assert fund.look(status(pnl=10_000)).kill is None
    fund.external = 40_000
    found = fund.look(status(pnl=10_000))
    assert (fund.nav, fund.state.drawdown, found.kill) == (50_000, 0, None)
    fund.look(status(pnl=5_000))
    assert fund.state.drawdown == pytest.approx(10.0)


def test_withdrawing_everything_keeps_the_drawdown_for_the_next_deposit(fund: Fund) -> None:
    fund.look(status(pnl=-10_000))
    for external in (10_000, -5_000, 20_000, 10_000, 110_000):
        fund.external = external
        found = fund.look(status(pnl=-10_000))
        assert (fund.nav, found.kill) == (external - 10_000, None)
        assert fund.state.drawdown == pytest.approx(10)


@pytest.mark.parametrize("confirm", [1, 3])
def test_a_loss_without_units_stands_until_the_switch_engages_and_after_it(confirm: int) -> None:
    fund = Fund(GuardSettings(kill_confirm_ticks=confirm))
    fund.external = -1
    assert fund.look(status()).kill is None
    kills = [fund.look(status(pnl=-90_000)).kill is not None for _ in range(confirm + 1)]
    assert kills == [False] * (confirm - 1) + [True, True]
    assert (fund.nav, fund.state.drawdown) == (-90_001, 100)
    fund.external = 149_999  # units are bought back at the price of the last one
    fund.look(status(pnl=-90_000))
    assert fund.nav == 59_999
    assert fund.state.drawdown == pytest.approx(60.0, abs=1e-3)


def test_the_fees_of_a_tick_are_no_loss_of_a_fund_without_units(fund: Fund) -> None:
    fund.external, fund.accrued = 0, 0.1
    assert (fund.look().kill, fund.state.drawdown) == (None, 0)
    fund.accrued = 0.11
    assert fund.look().kill is not None


def test_a_flow_is_priced_at_nav_before_it(fund: Fund) -> None:
    fund.external = 200_000
    flows = (PricedFlow(100_000 * UNIT, 80_000 * UNIT, 2),)  # a loss of 20,000 was booked before it
    found = fund.look(status(pnl=-20_000), flows=flows)
    assert fund.state.drawdown == pytest.approx(20)
    assert found.kill is not None


def test_a_flow_that_is_told_again_is_not_taken_again(fund: Fund) -> None:
    fund.external = 200_000
    fund.look(status(pnl=0))
    fund.look(status(pnl=-28_000))
    fund.state = msgspec.structs.replace(fund.state, seq=2)
    told_again = (PricedFlow(100_000 * UNIT, 100_000 * UNIT, 2),)
    fund.look(status(pnl=-28_000), flows=told_again)
    assert fund.state.drawdown == pytest.approx(14)


def test_a_flow_that_is_not_named_comes_before_those_that_are(fund: Fund) -> None:
    fund.external = 150_000
    flows = (PricedFlow(-50_000 * UNIT, 180_000 * UNIT, 2),)
    fund.look(status(pnl=-20_000), flows=flows)
    assert fund.state.units / UNIT == pytest.approx(200_000 * (1 - 50 / 180))


def test_a_fund_without_money_has_no_drawdown() -> None:
    empty = Fund(capital=0)
    assert empty.look().kill is None
    empty.external = 1_000
    empty.look()
    assert (empty.state.units, empty.state.drawdown) == (1_000 * UNIT, 0)


# -- the fund's limit


def test_the_kill_comes_at_the_limit_and_not_before_it(fund: Fund) -> None:
    assert fund.look(status(pnl="-14999.99")).kill is None
    assert fund.look(status(pnl=-15_000)).kill == "Fund drawdown 15.0% reached its limit 15.0%"
    assert fund.look(status(pnl=-15_200)).kill == "Fund drawdown 15.2% reached its limit 15.0%"


@pytest.mark.parametrize("limit", [5, 10, 20, 30, 33, 70])
def test_exactly_the_limit_is_the_limit_whatever_floats_make_of_it(limit: int) -> None:
    fund = Fund(GuardSettings(max_fund_drawdown_pct=limit, max_strategy_drawdown_pct=limit))
    found = fund.look(status(pnl=0, allocated=100_000), terms=None)
    found = fund.look(status(pnl=-1_000 * limit, allocated=100_000))
    assert found.kill is not None
    assert [one.strategy for one in found.pauses] == ["mm"]


def test_the_limit_must_hold_for_as_many_looks_in_a_row_as_configured() -> None:
    fund = Fund(GuardSettings(kill_confirm_ticks=3))
    pnls = [-16_000, -16_000, -14_000, -16_000, -16_000, -15_000]
    assert [fund.look(status(pnl=pnl)).kill is not None for pnl in pnls] == [False] * 5 + [True]


def test_a_word_that_was_counted_is_not_counted_again() -> None:
    fund = Fund(GuardSettings(kill_confirm_ticks=3))
    told = [(-16_000, True), (-16_000, False), (-16_000, False), (-16_000, True)]
    for pnl, news in told:
        assert fund.look(status(pnl=pnl), news=news).kill is None
    assert fund.state.breaches == 2
    fund.accrued = 1  # a fee that accrues is said by nobody
    assert fund.look(status(pnl=-16_000), news=False).kill is None
    fund.earned = -1  # a loss in the books is news, whatever the engine says
    assert fund.look(status(pnl=-16_000), news=False).kill is not None


def test_a_breach_counts_at_once_without_a_word_of_the_host() -> None:
    fund = Fund()
    fund.accrued = 15_000
    assert fund.look(news=False).kill is not None


def test_the_warning_comes_once_at_80_percent_and_is_resolved_below_75(fund: Fund) -> None:
    said = []
    for loss in (11_999, 12_000, 13_000, 11_500, 12_500, 11_251, 11_249, 11_000, 12_000):
        fund.look(status(pnl=-loss, allocated=1_000_000))
        said.append([one for one in fund.notes if one[1] == "drawdown:fund"])
    warned, over = [("WARNING", "drawdown:fund", False)], [("INFO", "drawdown:fund", True)]
    assert said == [[], warned, [], [], [], [], over, [], warned]


# -- a strategy's limit


def test_a_strategy_is_warned_about_paused_once_and_not_again() -> None:
    fund = Fund(capital=10**9)
    said = []
    for pnl in (0, -190, -200, -240, -250, -300, -100, 100, 100):
        found = fund.look(status(pnl=pnl))
        said.append(([one.strategy for one in found.pauses], fund.notes))
    assert said == [
        ([], []),
        ([], []),
        ([], [("WARNING", "drawdown:mm", False)]),
        ([], []),
        (["mm"], [("WARNING", "paused:mm", False)]),
        ([], []),
        ([], []),
        ([], []),
        ([], []),
    ]
    assert fund.state.strategies["mm"].paused, "a new peak resumes nothing"


def test_an_engine_that_names_another_stage_ends_no_pause() -> None:
    fund, live = Fund(capital=10**9), terms(mm="live_small")
    for pnl, stage in ((0, "live-small"), (-250, "live-small"), (-250, "paper")):
        fund.look(status(pnl=pnl, stage=stage), terms=live)
    assert fund.notes == []
    fund.look(status(pnl=-250, stage="live-small"), terms=live)
    assert fund.state.strategies["mm"].paused
    assert fund.notes == []
    fund.look(status(pnl=-250, stage="paper"), terms=live)
    fund.look(status(pnl=-250, stage="paper"), terms=terms(mm="paper"))
    assert not fund.state.strategies["mm"].paused
    assert ("INFO", "paused:mm", True) in fund.notes


@pytest.mark.parametrize("equity", [Decimal(800), None])
def test_an_engine_that_names_another_stage_forgets_no_peak(equity: Decimal | None) -> None:
    fund, live = Fund(capital=10**9), terms(mm="live_small")
    fund.look(status(pnl=0, stage="live-small"), terms=live)
    paper = StrategyStatus("mm", "running", equity, 0 if equity is None else 1_000, stage="paper")
    fund.look(paper, terms=live)
    found = fund.look(status(pnl=-260, stage="live-small"), terms=live)
    assert [one.strategy for one in found.pauses] == ["mm"]


def test_each_real_stage_that_promotion_begins_has_a_peak_of_its_own() -> None:
    fund, live, shadow = Fund(capital=10**9), terms(mm="live_small"), terms(mm="shadow")
    for pnl, stage, entitled in (
        (0, "shadow", shadow),
        (0, "shadow", live),  # promoted, and the engine has not heard
        (-200, "shadow", live),
        (-200, "live-small", live),
        (-390, "live-small", live),  # 24% below the peak of this stage
        (-390, "shadow", shadow),
        (-500, "live-small", live),
    ):
        found = fund.look(status(pnl=pnl, stage=stage), terms=entitled)
        assert found.pauses == ()
    assert fund.state.strategies["mm"].peak_minor == 500 * UNIT


def test_a_strategy_that_trades_real_money_unentitled_is_judged_from_its_highest(
    fund: Fund,
) -> None:
    for pnl, stage in ((0, "paper"), (-240, "paper"), (-240, "live"), (-250, "live")):
        found = fund.look(status(pnl=pnl, stage=stage), terms=terms(mm="paper"))
    assert [one.strategy for one in found.pauses] == ["mm"]


def test_a_strategys_warning_is_resolved_below_75_percent_of_its_limit() -> None:
    fund = Fund(capital=10**9)
    for pnl in (0, -200, -188):
        fund.look(status(pnl=pnl))
        assert not any(resolves for _, _, resolves in fund.notes)
    fund.look(status(pnl=-187))
    assert fund.notes == [("INFO", "drawdown:mm", True)]


def test_a_strategys_drawdown_is_from_its_peak_whatever_is_taken_from_it() -> None:
    fund = Fund(capital=10**9)
    fund.look(status(pnl=0))
    fund.look(status(pnl=1_000))  # worth 2,000
    assert fund.look(status(pnl=501)).pauses == ()
    assert fund.look(status(pnl=501, allocated=900)).pauses == ()
    assert [one.strategy for one in fund.look(status(pnl=150, allocated=900)).pauses] == ["mm"]


def test_capital_that_is_taken_away_whole_and_given_again_erases_no_drawdown() -> None:
    fund = Fund(capital=10**9)
    for round_pnl in (-120, -240):
        fund.look(status(pnl=round_pnl + 120, allocated=1_000, equity=1_000.0))
        assert not fund.state.strategies["mm"].paused
        found = fund.look(status(pnl=round_pnl, allocated=1_000, equity=880.0))
        for _ in range(2):
            idle = fund.look(status(pnl=round_pnl, allocated=0, equity=0.0))
            assert idle.pauses == ()
    assert found.pauses == ()  # 0.88 of 0.88 of the peak: 22.56%
    fund.look(status(pnl=-240, allocated=500, equity=500.0))
    assert [
        one.strategy for one in fund.look(status(pnl=-290, allocated=500, equity=450.0)).pauses
    ] == ["mm"]


def test_an_allocation_taken_away_beside_an_equity_that_stays_erases_no_drawdown() -> None:
    fund = Fund(capital=10**9)
    fund.look(status(equity=1_000.0))
    fund.look(status(equity=760.0))
    fund.look(status(allocated=0, equity=760.0))
    assert [one.strategy for one in fund.look(status(allocated=0, equity=740.0)).pauses] == ["mm"]


def test_reported_equity_is_believed_over_allocated_and_pnl() -> None:
    fund = Fund(capital=10**9)
    fund.look(status(equity=1_000.0))
    assert [one.strategy for one in fund.look(status(equity=750.0)).pauses] == ["mm"]


def test_paper_and_shadow_strategies_are_never_paused(fund: Fund) -> None:
    fund.look(status(pnl=0), terms=terms(mm="shadow"))
    found = fund.look(status(pnl=-900), terms=terms(mm="shadow"))
    assert (found.pauses, found.alerts) == ((), ())


def test_losing_its_real_money_ends_a_pause_and_its_alerts() -> None:
    fund = Fund(capital=10**9)
    fund.look(status(pnl=0), terms=terms(mm="live_scaled"))
    fund.look(status(pnl=-200), terms=terms(mm="live_scaled"))
    fund.look(status(pnl=-300), terms=terms(mm="live_scaled"))
    assert fund.state.strategies["mm"].paused
    fund.look(status(pnl=-300), terms=terms(mm="shadow"))
    assert not fund.state.strategies["mm"].paused
    ended = ("paused:mm", "observe:paused:mm", "drawdown:mm")
    assert fund.notes == [("INFO", key, True) for key in ended]
    fund.look(status(pnl=-300), terms=terms(mm="shadow"))
    assert fund.notes == []


# -- a silent engine


def test_a_silent_engine_changes_nothing_until_it_was_silent_too_long(fund: Fund) -> None:
    fund.look(status(pnl=-500))
    before = fund.state.strategies
    for blind_s in (10, 30, 59.999, 60.0, 600.0):
        found = fund.look(status(pnl=9_999), blind_s=blind_s)
        assert (found.kill, fund.nav, fund.state.strategies) == (None, 99_500, before)


def test_a_silent_host_is_the_kill_switch_only_where_it_is_asked_for() -> None:
    fund = Fund(GuardSettings(on_blind="kill"))
    fund.look(status(pnl=-500))
    assert fund.look(blind_s=59.999).kill is None
    assert fund.look(blind_s=60.0).kill == "host silent for 60 s with real money live, limit 60 s"


@pytest.mark.parametrize("on_blind", ["kill", "reduce"])
@pytest.mark.parametrize(
    ("listed", "stage"), [((status(),), "paper"), ((), "live_small")], ids=["paper", "left"]
)
def test_a_silent_engine_with_nothing_live_is_no_reason_to_stop(
    on_blind: Any, listed: tuple[StrategyStatus, ...], stage: str
) -> None:
    fund, stages = Fund(GuardSettings(on_blind=on_blind)), terms(mm=stage)
    fund.look(status(), terms=stages)
    fund.look(*listed, terms=stages)
    found = fund.look(blind_s=3_600, terms=stages)
    assert (found.kill, found.emergency) == (None, "")
    assert fund.notes == [("WARNING", "silent", False)]


@pytest.mark.parametrize("state", get_args(StrategyState))
def test_a_strategy_with_real_money_that_leaves_the_list_is_told_unless_it_had_stopped(
    fund: Fund, state: StrategyState
) -> None:
    fund.look(msgspec.structs.replace(status(), state=state))
    fund.look()
    told = [] if state in ("stopped", "retired") else [("CRITICAL", "left:mm", False)]
    assert fund.notes == told
    fund.look()
    assert fund.notes == []


def test_a_silence_is_told_once_and_its_end_once(fund: Fund) -> None:
    fund.look(status())
    said = []
    for blind_s in (11.0, 12.0, 13.0, 0.0, 0.0):
        fund.look(*([] if blind_s else [status()]), blind_s=blind_s)
        said.append(fund.notes)
    assert said == [[("WARNING", "silent", False)], [], [], [("INFO", "silent", True)], []]


def test_a_fund_that_observes_tells_once_what_it_would_pause() -> None:
    fund = Fund(capital=10**9)
    said = []
    for pnl in (0, -250, -260, -100, -270):
        found = fund.look(status(pnl=pnl), observing=True)
        assert found.pauses == ()
        said.append([note for note in fund.notes if note[1] == "observe:paused:mm"])
    told, over = [("WARNING", "observe:paused:mm", False)], [("INFO", "observe:paused:mm", True)]
    assert said == [[], told, [], over, told]


@pytest.mark.parametrize("stage", ["paper", "shadow"])
def test_a_strategy_without_real_money_may_leave_without_a_word(fund: Fund, stage: str) -> None:
    fund.look(status(), terms=terms(mm=stage))
    fund.look(terms=terms(mm=stage))
    assert (fund.notes, fund.state.strategies["mm"].left) == ([], False)


@pytest.mark.parametrize(
    ("in_force", "entitled", "had_real"),
    [
        ("shadow", "live_small", True),  # the engine has not heard of its promotion yet
        ("live-small", "shadow", True),
        ("shadow", "shadow", False),
    ],
)
def test_real_money_in_force_or_allowed_is_remembered(
    fund: Fund, in_force: str, entitled: str, had_real: bool
) -> None:
    fund.look(status(stage=in_force), terms=terms(mm=entitled))
    fund.look(status(stage="paper"), terms=terms(mm="paper"))
    assert fund.state.strategies["mm"].had_real == had_real


def test_pnl_is_carried_over_each_restart_of_the_counters(fund: Fund) -> None:
    for run, pnl, nav in (
        ("a", 500, 100_500),
        ("b", 0, 100_500),
        ("b", -200, 100_300),
        ("c", 0, 100_300),
        ("c", 50, 100_350),
        ("d", -50, 100_300),
        (None, -50, 100_300),
        (None, -60, 100_290),
        ("d", -60, 100_290),
    ):
        fund.look(status(pnl=pnl, run=run))
        assert fund.nav == nav, (run, pnl)


def test_a_release_names_the_next_stop_only_where_units_are_in_issue(fund: Fund) -> None:
    fund.look(status(pnl=-20_000))
    off = KillStatus("OFF", "", "", 0)
    again = released(rearmed(fund.state, keep_peak=False), off)
    assert (again.next_stop_nav, again.next_stop_below_peak_pct) == (Decimal(68_000), 32.0)
    fund.external = 20_000
    fund.look(status(pnl=-20_000))
    assert (fund.nav, fund.state.units) == (0, 0)
    assert released(rearmed(fund.state, keep_peak=False), off).next_stop_nav is None


# -- settings and state


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_fund_drawdown_pct", 0),
        ("max_fund_drawdown_pct", 101),
        ("max_fund_drawdown_pct", math.nan),
        ("max_strategy_drawdown_pct", -1),
        ("max_strategy_drawdown_pct", True),
        ("lease_s", math.inf),
        ("max_blind_s", "60"),
        ("kill_confirm_ticks", 0),
        ("kill_confirm_ticks", 1.5),
        ("kill_confirm_ticks", True),
        ("kill_action", "hope"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(ConfigError) as refusal:
        GuardSettings(**{field: value})
    assert refusal.value.field == field


@given(
    st.lists(
        st.tuples(
            st.floats() | st.integers(-(10**6), 10**6) | st.decimals() | st.none(),
            st.floats() | st.integers(-100, 10**6),
            st.booleans(),
        ),
        max_size=15,
    )
)
def test_no_report_whatsoever_crashes_a_look_or_makes_its_state_unstorable(
    history: list[Any],
) -> None:
    fund = Fund()
    for pnl, allocated, live in history:
        stages = terms(mm="live_scaled" if live else "paper")
        found = fund.look(status(pnl=pnl, allocated=allocated), terms=stages)
        assert math.isfinite(fund.state.drawdown)
        assert math.isfinite(fund.state.units)
        assert msgspec.json.decode(msgspec.json.encode(fund.state), type=GuardState) == fund.state
        critical = {one.dedup_key for one in found.alerts if one.level is Level.CRITICAL}
        assert critical <= {"counters:mm"}


def test_capital_given_or_taken_moves_the_peak_and_hides_no_drawdown() -> None:
    fund = Fund()
    fund.look(status(pnl=0, allocated=1_000))
    fund.look(status(pnl=-100, allocated=1_000))
    fund.look(status(pnl=-100, allocated=500))  # 900 became 400
    book = fund.state.strategies["mm"]
    assert 1 - book.worth_minor / book.peak_minor == pytest.approx(0.1, abs=1e-6)
    fund.look(status(pnl=-100, allocated=5_000))
    book = fund.state.strategies["mm"]
    assert 1 - book.worth_minor / book.peak_minor == pytest.approx(0.1, abs=1e-6)


@given(
    st.lists(st.integers(-60_000, 300_000), max_size=6),
    st.integers(-60_000, 300_000),
    st.integers(0, 500_000),
    st.floats(0, 100),
    st.floats(0.5, 3),
)
def test_no_rise_of_pnl_ever_raises_the_drawdown(
    history: list[int], pnl: int, rise: int, performance_pct: float, mark: float
) -> None:
    fees = FeeTerms(performance_pct, mark)

    def at(state: GuardState, figure: int) -> Look:
        looking = look(
            state,
            DEFAULTS,
            (status(pnl=figure, run="1"),),  # so that a figure of 0 is no new run
            None,
            external_minor=CAPITAL * UNIT,
            posted_fees_minor=0,
            accrued_fees_minor=3 * UNIT,
            fees=fees,
            capital_minor=CAPITAL * UNIT,
        )
        return at_once(looking)

    state = GuardState()
    for figure in history:
        state = at(state, figure).state
    low, high = at(state, pnl), at(state, pnl + rise)
    assert high.state.drawdown <= low.state.drawdown + 1e-8
    risen = at(low.state, pnl + rise)
    assert risen.state.drawdown <= low.state.drawdown + 1e-8
    # The figures of one look agree: standing still afterwards is no loss.
    assert at(risen.state, pnl + rise).state.drawdown == risen.state.drawdown
    assert risen.gross_minor - 3 * UNIT - risen.performance_minor == risen.state.nav_minor


def test_nav_beyond_the_database_leaves_the_state_of_the_fund() -> None:
    fund = Fund()
    before = fund.look(status(pnl=1_000)).state
    found = fund.look(*(status(name, 4e10) for name in "abc"))
    assert found.problem.startswith("NAV 120,000,101,000.00 is beyond")
    assert (found.state.nav_minor, found.state.peak_per_unit) == (
        before.nav_minor,
        before.peak_per_unit,
    )
    assert found.kill is None
    fund.look(*(status(name, 0) for name in "abc"))
    assert fund.state.drawdown == 0
