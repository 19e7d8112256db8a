"""The paper engine's books, by hand on a few made-up sessions, and beside a fund."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fundops import (
    Fund,
    FundConfig,
    FundopsError,
    PromotionStage,
    StrategyStatus,
    VirtualClock,
    open_reader,
)
from fundops.replay.engine import (
    TICKS_PER_SESSION,
    Crash,
    ReplayEngine,
    RestartRefused,
    Script,
    session_open_us,
)
from fundops.replay.lineup import Strategy
from fundops.replay.prices import Bar
from fundops.replay.run import replay
from fundops.runtime import InlineWorker, Worker
from fundops.testing import virtual_fund
from fundops.wire.controller import Fill
from fundops.wire.money import from_minor
from fundops.wire.oversight import TickReport

CAPITAL_MINOR = 1_000 * 10**8
COST = Decimal("0.000025")  # of the notional, each side
MONDAY = dt.date(2026, 1, 5)


class Plan(NamedTuple):
    """A rule that follows a list: the target of each session, by the number of bars before it."""

    targets: tuple[float, ...]
    flat_at_close: bool
    warmup: int = 100
    name: str = "plan"

    def target(self, history: Sequence[Bar]) -> float:
        return self.targets[len(history)]


def _bars(*prices: tuple[float, float]) -> tuple[Bar, ...]:
    """Sessions of (open, close), in currency units."""
    return tuple(
        Bar(
            day=MONDAY + dt.timedelta(days=number),
            open_cents=round(opened * 100),
            high_cents=round(max(opened, closed) * 100),
            low_cents=round(min(opened, closed) * 100),
            close_cents=round(closed * 100),
            volume=1,
        )
        for number, (opened, closed) in enumerate(prices)
    )


class Market:
    """An engine on its own, driven session by session."""

    def __init__(
        self,
        prices: Sequence[tuple[float, float]],
        targets: Sequence[float],
        *,
        flat_at_close: bool = False,
        script: Script | None = None,
        symbols: Sequence[str] = ("X",),
    ) -> None:
        self.bars = _bars(*prices)
        self.clock = VirtualClock(session_open_us(self.bars[0]))
        plan = Plan(tuple(targets), flat_at_close)
        line_up = [Strategy(f"on-{symbol}", symbol, plan) for symbol in symbols]
        by_symbol = dict.fromkeys(symbols, self.bars)
        self.engine = ReplayEngine(
            line_up,
            by_symbol,
            0,
            CAPITAL_MINOR * len(symbols),
            self.clock.now_us,
            script or Script(),
        )
        self.engine.may_trade = lambda _: True

    def ticks(self, session: int, first: int = 1, last: int = TICKS_PER_SESSION) -> None:
        for tick in range(first, last + 1):
            self.clock.advance_to(session_open_us(self.bars[session]) + (tick - 1) * 60_000_000)
            self.engine.before_tick(session, tick)
            self.engine.after_tick(session, tick)

    @property
    def status(self) -> StrategyStatus:
        return self.engine.strategies()[0]


def _money(status: StrategyStatus) -> tuple[Decimal, Decimal, Decimal]:
    """Equity, realized and unrealized P&L."""
    assert isinstance(status.equity, Decimal)
    return status.equity, Decimal(status.realized_pnl), Decimal(status.unrealized_pnl)


# -- by hand


def test_before_anything_happens_everybody_runs_on_paper_with_their_share() -> None:
    market = Market([(100, 100)], [0], symbols=("X", "Y"))
    assert [one.name for one in market.engine.strategies()] == ["on-X", "on-Y"]
    for status in market.engine.strategies():
        assert (status.state, status.stage, status.n_trades) == ("running", "paper", 0)
        assert (status.allocated, status.equity) == (1_000, 1_000)


def test_a_long_position_is_bought_at_the_open_marked_at_the_close_and_sold_at_the_next_open() -> (
    None
):
    market = Market([(100, 110), (108, 50)], [1, 0])
    market.ticks(0, 1, 1)
    assert _money(market.status) == (Decimal("999.975"), Decimal("-0.025"), Decimal(0))
    market.ticks(0, 2, 9)
    assert _money(market.status)[2] == 0, "within the session nothing but the open is known"
    market.ticks(0, 10)
    assert _money(market.status) == (Decimal("1099.975"), Decimal("-0.025"), Decimal(100))
    market.ticks(1, 1, 1)
    gain = Decimal(80) - Decimal("0.025") - 1_080 * COST
    assert _money(market.status) == (1_000 + gain, gain, Decimal(0))
    assert (market.status.n_trades, market.status.n_wins) == (1, 1)
    market.ticks(1, 2)
    assert _money(market.status)[0] == 1_000 + gain, "flat, whatever the close"


def test_a_short_session_rule_sells_at_the_open_and_buys_back_at_the_close() -> None:
    market = Market([(100, 90), (90, 99)], [-1, 0], flat_at_close=True)
    market.ticks(0)
    gain = Decimal(100) - Decimal("0.025") - 900 * COST
    assert _money(market.status) == (1_000 + gain, gain, Decimal(0))
    assert (market.status.n_trades, market.status.n_wins) == (1, 1)
    market.ticks(1)
    assert _money(market.status) == (1_000 + gain, gain, Decimal(0))
    assert market.status.n_trades == 1, "a session without a target is no round trip"


def test_a_session_rule_makes_one_round_trip_for_each_session_it_trades() -> None:
    market = Market([(100, 101)] * 3, [1, 1, 1], flat_at_close=True)
    for session in range(3):
        market.ticks(session)
    assert market.status.n_trades == 3


def test_a_holding_rule_keeps_its_position_while_the_target_stays() -> None:
    market = Market([(100, 110), (120, 130), (125, 125)], [1, 1, 0])
    for session in range(3):
        market.ticks(session)
    gain = 10 * (Decimal(125) - 100) - 1_000 * COST - 1_250 * COST
    assert _money(market.status) == (1_000 + gain, gain, Decimal(0))
    assert market.status.n_trades == 1


def test_a_target_that_turns_round_is_one_trade_closed_and_the_other_side_opened() -> None:
    market = Market([(100, 100), (100, 90)], [1, -1])
    market.ticks(0)
    market.ticks(1)
    assert (market.status.n_trades, market.status.n_wins) == (1, 0)
    assert _money(market.status)[2] == pytest.approx(Decimal(100), rel=Decimal("0.001"))


def test_half_a_target_is_half_the_equity_in_whole_lots() -> None:
    market = Market([(300, 330)], [0.5])
    market.ticks(0)
    assert _money(market.status)[2] == Decimal("1.6666") * 30


def test_a_trade_that_only_pays_its_costs_is_no_win() -> None:
    market = Market([(100, 100)], [1], flat_at_close=True)
    market.ticks(0)
    assert (market.status.n_trades, market.status.n_wins) == (1, 0)
    assert _money(market.status)[1] == -2 * 1_000 * COST


def test_a_trade_is_won_only_above_the_costs_of_both_of_its_fills() -> None:
    for close, wins in ((300.01, 0), (300.02, 1)):  # a fill costs a quarter of a basis point
        market = Market([(300, close)], [1], flat_at_close=True)
        market.ticks(0)
        assert (market.status.n_trades, market.status.n_wins) == (1, wins)


def test_a_strategy_that_has_lost_everything_buys_nothing() -> None:
    market = Market([(100, 250), (250, 100)], [-1, 1], flat_at_close=True)
    market.ticks(0)
    assert _money(market.status)[0] < 0
    market.ticks(1)
    assert market.status.n_trades == 1


def test_a_rule_sees_the_closes_before_its_session_and_no_more_than_it_asked_for() -> None:
    seen: list[list[int]] = []

    class Curious:
        name, flat_at_close, warmup = "curious", True, 2

        def target(self, history: Sequence[Bar]) -> float:
            seen.append([bar.close_cents for bar in history])
            return 0.0

    bars = _bars((1, 2), (3, 4), (5, 6), (7, 8))
    engine = ReplayEngine([Strategy("a", "X", Curious())], {"X": bars}, 1, CAPITAL_MINOR, lambda: 1)
    for session in range(3):
        for tick in range(1, TICKS_PER_SESSION + 1):
            engine.before_tick(session, tick)
            engine.after_tick(session, tick)
    assert seen == [[200], [200, 400], [400, 600]]


# -- real money


async def test_only_the_fills_of_a_live_stage_are_reported_and_each_once() -> None:
    market = Market([(100, 110)] * 3, [1, 1, 1], flat_at_close=True)
    engine = market.engine
    market.ticks(0)
    assert engine.fills("") == []
    await engine.set_stage("on-X", "live-small", Decimal(100))
    market.ticks(1)
    first, second = engine.fills("")
    assert (first.quantity, first.price, first.fee) == (Decimal(1), Decimal(100), Decimal("0.0025"))
    assert (second.quantity, second.price, second.fee) == (
        Decimal(-1),
        Decimal(110),
        Decimal("0.00275"),
    )
    assert (first.strategy, first.instrument) == ("on-X", "X")
    assert first.at_us == session_open_us(market.bars[1])
    assert second.at_us == first.at_us + 9 * 60_000_000
    market.ticks(2)
    later = engine.fills(second.cursor)
    assert len(later) == 2
    assert engine.fills(later[-1].cursor) == []
    assert len({fill.id for fill in engine.fills("")}) == engine.fill_count == 4
    assert engine.fills("") == [first, second, *later], "asking takes nothing away"


async def test_an_entry_with_real_money_needs_the_funds_word_and_an_exit_does_not() -> None:
    market = Market([(100, 110)] * 4, [0, 1, 1, 0])
    engine = market.engine
    await engine.set_stage("on-X", "live-scaled", None)
    engine.may_trade = lambda _: False
    market.ticks(1)
    assert engine.fills("") == []
    asked: list[str] = []
    engine.may_trade = lambda name: not asked.append(name)  # type: ignore[func-returns-value]
    market.ticks(2)
    assert asked == ["on-X"]
    assert len(engine.fills("")) == 1
    engine.may_trade = lambda _: False
    market.ticks(3)
    assert [fill.quantity > 0 for fill in engine.fills("")] == [True, False]
    assert _money(market.status)[2] == 0


async def test_a_hypothetical_position_is_forgotten_at_its_mark_when_the_stage_changes() -> None:
    market = Market([(100, 110), (110, 110)], [1, 0])
    market.ticks(0)
    before = _money(market.status)
    await market.engine.set_stage("on-X", "live-small", Decimal(10))
    assert market.engine.fills("") == []
    assert _money(market.status) == (Decimal(10), before[1] + before[2], Decimal(0))
    assert market.status.allocated == 10
    assert market.status.n_trades == 0, "what was not closed is no round trip"


async def test_results_part_real_money_from_the_rest_and_scale_both_to_full_size() -> None:
    market = Market([(100, 110), (100, 90), (100, 105)], [1, 1, 1], flat_at_close=True)
    market.ticks(0)
    [paper] = market.engine.results().values()
    assert paper.real_minor == 0
    assert from_minor(paper.full_size_minor) == market.status.realized_pnl > 0
    # A tenth of the share: the loss is a tenth as large, and as large as before at full size.
    await market.engine.set_stage("on-X", "live-small", Decimal(100))
    _, before, _ = _money(market.status)
    market.ticks(1)
    [small] = market.engine.results().values()
    assert from_minor(small.real_minor) == _money(market.status)[1] - before < 0
    assert small.full_size_minor - paper.full_size_minor == 10 * small.real_minor
    await market.engine.set_stage("on-X", "shadow", None)
    market.ticks(2)
    [shadow] = market.engine.results().values()
    assert shadow.real_minor == small.real_minor
    assert shadow.full_size_minor > small.full_size_minor


async def test_a_real_position_is_sold_when_the_stage_changes() -> None:
    market = Market([(100, 110)], [1])
    await market.engine.set_stage("on-X", "live-scaled", Decimal(500))
    market.ticks(0)
    await market.engine.set_stage("on-X", "shadow", Decimal(0))
    bought, sold = market.engine.fills("")
    assert (bought.quantity, sold.quantity, sold.price) == (Decimal(5), Decimal(-5), Decimal(110))
    assert _money(market.status) == (Decimal(1_000), 50 - 500 * COST - 550 * COST, Decimal(0))
    assert (market.status.stage, market.status.allocated) == ("shadow", 1_000)


async def test_the_same_stage_again_changes_nothing() -> None:
    market = Market([(100, 110)], [1])
    await market.engine.set_stage("on-X", "live-scaled", None)
    market.ticks(0)
    before = market.status
    await market.engine.set_stage("on-X", "live-scaled", None)
    assert market.status == before


async def test_a_cap_above_the_share_gives_no_more_than_the_share() -> None:
    market = Market([(100, 110)], [1])
    await market.engine.set_stage("on-X", "live-scaled", Decimal(10**6))
    assert market.status.allocated == 1_000


# -- trouble


async def test_a_strategy_that_crashes_trades_no_more_until_it_is_restarted() -> None:
    script = Script(crashes=(Crash("on-X", 1, 3, recovers=True),))
    market = Market([(100, 110)] * 4, [1, 1, 1, 1], flat_at_close=True, script=script)
    market.ticks(0)
    market.ticks(1, 1, 2)
    assert market.status.state == "running"
    market.ticks(1, 3)
    assert (market.status.state, market.status.error) == (
        "failed",
        "ZeroDivisionError: division by zero",
    )
    market.ticks(2)
    assert market.status.n_trades == 2, (
        "the position it had was closed at the close; no new one was made"
    )
    await market.engine.restart("on-X", attempt_id="1")
    assert (market.status.state, market.status.error) == ("running", None)
    market.ticks(3)
    assert market.status.n_trades == 3


async def test_a_strategy_that_is_broken_for_good_refuses_every_restart() -> None:
    market = Market(
        [(100, 110)], [1], script=Script(crashes=(Crash("on-X", 0, 1, recovers=False),))
    )
    market.ticks(0)
    for number in range(3):
        with pytest.raises(RestartRefused, match=f"attempt-{number}"):
            await market.engine.restart("on-X", attempt_id=f"attempt-{number}")
    assert market.status.state == "failed"


def test_a_feed_that_goes_silent_is_as_old_as_its_last_session() -> None:
    script = Script(silent_feed="X", silent_from=1, silent_sessions=2)
    market = Market([(100, 110)] * 4, [0] * 4, script=script, symbols=("X", "Y"))
    assert [feed.last_data_us for feed in market.engine.feeds()] == [None, None]
    market.ticks(0)
    last = market.clock.now_us()
    assert [feed.last_data_us for feed in market.engine.feeds()] == [last, last]
    for session in (1, 2):
        market.ticks(session)
        assert [feed.last_data_us for feed in market.engine.feeds()] == [
            last,
            market.clock.now_us(),
        ]
    market.ticks(3)
    assert len({feed.last_data_us for feed in market.engine.feeds()}) == 1


async def test_a_paused_strategy_is_flat_and_stays_so_until_it_goes_on() -> None:
    market = Market([(100, 110)] * 3, [1, 1, 1])
    market.ticks(0)
    await market.engine.pause("on-X", "drawdown")
    assert market.status.state == "paused"
    assert _money(market.status)[2] == 0
    market.ticks(1)
    assert market.status.n_trades == 1
    await market.engine.resume("on-X")
    market.ticks(2)
    assert _money(market.status)[2] > 0


@pytest.mark.parametrize(("action", "left"), [("halt", 1), ("flatten", 0)])
async def test_after_a_stop_nothing_new_is_opened(action: Any, left: int) -> None:
    market = Market([(100, 110)] * 2, [1, -1])
    market.ticks(0)
    report = await market.engine.stop_all("test", action, ("on-X",))
    assert (report.open_orders, report.open_positions) == (0, left)
    before = market.status.n_trades
    market.ticks(1)
    assert market.status.n_trades == before


async def test_a_stop_touches_the_strategies_in_its_scope_alone() -> None:
    market = Market([(100, 110)] * 2, [1, 1], symbols=("X", "Y"))
    market.ticks(0)
    report = await market.engine.stop_all("test", "flatten", ("on-X", "no such"))
    assert (report.open_orders, report.open_positions) == (0, 0)
    on_x, on_y = market.engine.strategies()
    assert (on_x.state, on_y.state) == ("stopped", "running")
    assert _money(on_x)[2] == 0
    assert _money(on_y)[2] > 0
    await market.engine.stop("on-Y", "test")
    assert _money(market.engine.strategies()[1])[2] == 0


async def test_a_freeze_touches_nothing() -> None:
    market = Market([(100, 110)] * 2, [1, 1])
    market.ticks(0)
    before = market.status
    report = await market.engine.stop_all("test", "freeze", ("on-X",))
    assert (report.open_orders, report.open_positions) == (0, 1)
    assert market.status == before
    assert before.state == "running"


# -- money is conserved

_PRICE = st.integers(1, 400).map(lambda cents: cents * 25 / 100)
_STAGE = st.sampled_from(["paper", "shadow", "live-small", "live-scaled"])


async def _run(
    sessions: Sequence[tuple[float, float, float, str, bool]], *, flat_at_close: bool
) -> tuple[Market, list[tuple[Decimal, Decimal]]]:
    """Sessions of (open, close, target, stage afterwards, may trade); P&L of engine and fills."""
    market = Market(
        [(opened, closed) for opened, closed, *_ in sessions],
        [target for _, _, target, *_ in sessions],
        flat_at_close=flat_at_close,
    )
    compared = []
    real = Decimal(0)  # made while the stage was live
    for number, (_, closed, _, stage, allowed) in enumerate(sessions):
        market.engine.may_trade = lambda _, allowed=allowed: allowed  # type: ignore[misc]
        before = sum(_money(market.status)[1:], Decimal(0))
        live = str(market.status.stage).startswith("live")
        market.ticks(number)
        await market.engine.set_stage("on-X", stage, Decimal(700))
        if live:
            real += sum(_money(market.status)[1:], Decimal(0)) - before
        fills = market.engine.fills("")
        cash = -sum((fill.quantity * fill.price + fill.fee for fill in fills), Decimal(0))
        held = sum((fill.quantity for fill in fills), Decimal(0))
        compared.append((real, cash + held * Decimal(str(closed))))
    return market, compared


@settings(max_examples=60)
@given(
    sessions=st.lists(
        st.tuples(
            _PRICE, _PRICE, st.sampled_from([-1.0, -0.5, 0.0, 0.3, 1.0]), _STAGE, st.booleans()
        ),
        min_size=1,
        max_size=12,
    ),
    flat_at_close=st.booleans(),
)
def test_what_the_engine_says_it_made_with_real_money_is_what_its_fills_amount_to(
    sessions: list[tuple[float, float, float, str, bool]], flat_at_close: bool
) -> None:
    import trio

    market, compared = trio.run(lambda: _run(sessions, flat_at_close=flat_at_close))
    for engine, fills in compared:
        assert engine == fills
    status = market.status
    assert 0 <= status.n_wins <= status.n_trades
    equity, realized, unrealized = _money(status)
    assert isinstance(status.allocated, Decimal)
    assert status.stage is not None
    if status.stage == "paper" and {stage for *_, stage, _ in sessions} == {"paper"}:
        assert equity == status.allocated + realized + unrealized


# -- beside a fund


def _inline(_: str) -> Worker:
    return InlineWorker()


PRICES = (
    (100, 104),
    (103, 99),
    (99, 99.5),
    (99, 105),
    (106, 101),
    (101, 108),
    (107, 107),
    (107, 112),
)


class Beside(NamedTuple):
    """The result of a replay beside a fund."""

    path: Path
    engine: ReplayEngine
    nav: Decimal
    ledger_nav: Decimal


async def _beside(
    path: Path,
    *,
    drills: dict[int, str] | None = None,
    script: Script | None = None,
    stage: PromotionStage = PromotionStage.Live_Scaled,
    patch: Callable[[ReplayEngine], None] = lambda _: None,
) -> Beside:
    bars = _bars(*PRICES)
    targets = (
        0.3,
        0.3,
        -0.3,
        0.3,
        0.1,
        -0.2,
        0.0,
        0.3,
    )  # small: no session loses what would demote
    line_up = [
        Strategy("holding", "X", Plan(targets, flat_at_close=False)),
        Strategy("session", "X", Plan(tuple(-one for one in targets), flat_at_close=True)),
    ]
    clock = VirtualClock(session_open_us(bars[0]) - 3_600_000_000)
    config = FundConfig(
        total_capital=100_000,
        ledger_enabled=True,
        promotion_enabled=True,
        self_healing_enabled=True,
        db_path=path,
        tick_interval_s=None,
        recovery_every_ticks=1,
        promotion_every_ticks=10,
        management_fee_bps=200,
        lease_s=90,
    )
    engine = ReplayEngine(
        line_up, {"X": bars}, 0, config.capital_minor, clock.now_us, script or Script()
    )
    patch(engine)
    async with Fund.open(config, engine, clock=clock, make_worker=_inline, seed=1) as fund:
        for one in line_up:
            await fund.promotion.adopt(
                one.name, stage, by="ann", reason="test", budget=engine.share
            )
        await replay(fund, engine, clock, bars, drills=drills)
        return Beside(path, engine, (await fund.status()).nav, await fund.ledger.nav())


def _journal(path: Path) -> list[Mapping[str, Any]]:
    with open_reader(path) as reader:
        return [
            {
                "kind": one.kind,
                "day": one.day,
                "strategy": one.strategy,
                "legs": one.legs,
                "key": one.key,
            }
            for one in reader.recent_entries(10_000)
        ]


async def test_every_real_fill_is_in_the_journal_once_and_both_navs_agree(tmp_path: Path) -> None:
    done = await _beside(tmp_path / "x.db")
    assert done.engine.fill_count > 10
    with open_reader(done.path) as reader:
        assert reader.entry_count("fill") == done.engine.fill_count
        assert sum(reader.trial_balance().values()) == 0
        assert not [
            one for one in reader.recent_alerts(100).alerts if one.level.value == "CRITICAL"
        ]
    assert abs(done.nav - done.ledger_nav) < 1
    pnl = sum(
        (
            Decimal(one.realized_pnl) + Decimal(one.unrealized_pnl)
            for one in done.engine.strategies()
        ),
        Decimal(0),
    )
    with open_reader(done.path) as reader:
        books = reader.income_statement()
        fees = books["MANAGEMENT_FEES"] + books["PERFORMANCE_FEES"]
        assert sum(books.values()) - fees == pnl, "to the last digit"


@pytest.mark.parametrize("actor", ["ledger", "promotion", "alert", "recovery"])
async def test_a_replay_with_a_crash_of_our_own_books_what_one_without_it_books(
    tmp_path: Path, actor: str
) -> None:
    plain = await _beside(tmp_path / "plain.db")
    drilled = await _beside(tmp_path / "drilled.db", drills={2: actor, 5: actor})
    assert _journal(drilled.path) == _journal(plain.path)
    assert drilled.nav == plain.nav


@pytest.mark.parametrize("actor", ["persistence", "oversight"])
async def test_a_crash_of_the_tick_itself_books_every_fill_and_moves_a_fee_by_less_than_a_cent(
    tmp_path: Path, actor: str
) -> None:
    """Within a session the accrual is in memory: a new life accrues the gap on an older NAV."""
    plain = await _beside(tmp_path / "plain.db")
    drilled = await _beside(tmp_path / "drilled.db", drills={2: actor, 5: actor})
    pairs = list(zip(_journal(plain.path), _journal(drilled.path), strict=True))
    assert pairs
    for one, other in pairs:
        assert one["key"] == other["key"]
        assert one == other or one["kind"] == "management_fee"
    assert abs(drilled.nav - plain.nav) < Decimal("0.01")


async def test_a_session_is_ten_ticks_a_minute_apart_and_then_the_market_is_closed() -> None:
    bars = _bars(*PRICES)
    clock = VirtualClock(session_open_us(bars[0]) - 3_600_000_000)
    line_up = [Strategy("s", "X", Plan((0.3,) * len(bars), flat_at_close=False))]
    engine = ReplayEngine(line_up, {"X": bars}, 0, 10_000_000, clock.now_us, Script())
    seen: dict[int, list[float]] = {}

    async def on_tick(session: int, report: TickReport) -> None:
        since_us = clock.now_us() - session_open_us(bars[session])
        seen.setdefault(session, []).append(since_us / 60_000_000)

    async with virtual_fund(engine, clock=clock) as world:  # type: ignore[arg-type]
        await replay(world.fund, engine, clock, bars, on_tick=on_tick)
        history = await world.fund.nav_history()
    assert seen == {session: [*range(10)] for session in range(len(bars))}
    assert [one.session for one in reversed(history)] == [bar.day.isoformat() for bar in bars]


async def test_a_paper_replay_leaves_no_trace_in_the_books(tmp_path: Path) -> None:
    done = await _beside(tmp_path / "x.db", stage=PromotionStage.Paper)
    assert done.engine.fill_count == 0
    assert {line["kind"] for line in _journal(done.path)} == {"deposit", "management_fee"}


async def test_a_crashed_strategy_is_restarted_and_a_broken_one_given_up_in_the_middle_of_a_replay(
    tmp_path: Path,
) -> None:
    script = Script(
        crashes=(Crash("holding", 1, 2, recovers=True), Crash("session", 2, 2, recovers=False)),
        silent_feed="X",
        silent_from=4,
        silent_sessions=1,
    )
    done = await _beside(tmp_path / "x.db", script=script)
    assert [one.state for one in done.engine.strategies()] == ["running", "failed"]
    with open_reader(done.path) as reader:
        categories = {one.category.value for one in reader.recent_alerts(100).alerts}
        assert sum(reader.trial_balance().values()) == 0
        assert reader.entry_count("fill") == done.engine.fill_count
    assert {"RECOVERY", "STRATEGY_FAILURE", "GENERAL"} <= categories


async def test_a_replay_whose_tick_fails_stops_there_and_says_what_it_could_not_do(
    tmp_path: Path,
) -> None:
    def break_fills(engine: ReplayEngine) -> None:
        def fills(after: str) -> Sequence[Fill]:
            raise OSError("no fills today")

        engine.fills = fills  # type: ignore[method-assign]

    with pytest.raises(
        FundopsError, match=r"replay stopped on 2026-01-05, tick 1: cannot do ledger"
    ):
        await _beside(tmp_path / "x.db", patch=break_fills)


def test_minor_units_and_decimals_are_the_same_money() -> None:
    assert from_minor(CAPITAL_MINOR) == 1_000


async def test_an_emergency_stop_ends_real_orders_and_leaves_paper_alone() -> None:
    line_up = [Strategy(name, "X", Plan((), False)) for name in ("live", "paused", "paper")]
    engine = ReplayEngine(line_up, {}, 0, CAPITAL_MINOR, lambda: 1)
    for name in ("live", "paused"):
        await engine.set_stage(name, "live-small", None)
    await engine.pause("paused", "a test")
    for _ in range(2):
        engine.emergency_stop()
        states = {status.name: status.state for status in engine.strategies()}
        assert states == {"live": "stopped", "paused": "paused", "paper": "running"}


async def test_the_engine_hears_how_long_the_leases_last(tmp_path: Path) -> None:
    line_up = [Strategy("a", "X", Plan((), False))]
    engine = ReplayEngine(line_up, {}, 0, CAPITAL_MINOR, lambda: 1)
    clock = VirtualClock(session_open_us(_bars((1, 1))[0]))
    config = FundConfig(
        total_capital=1_000,
        db_path=tmp_path / "fund.db",
        tick_interval_s=None,
        control_socket=False,
    )
    async with Fund.open(config, engine, clock=clock, make_worker=_inline) as fund:
        assert engine.alive_until_us is None
        await fund.tick()
        assert engine.alive_until_us == clock.now_us() + 30_000_000
