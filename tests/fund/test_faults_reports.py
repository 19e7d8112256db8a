"""Faults found by use: what engines and venues report, on a whole fund."""

from __future__ import annotations

import shlex
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from fundops import ConfigError
from fundops.testing import START_US, FakeController, VirtualFund, virtual_fund
from fundops.wire.controller import CashEvent, Fill, Settlement, StrategyStatus
from fundops.wire.errors import UnknownReport
from fundops.wire.promotion import PromotionStage

D = Decimal


def F(fill_id: str, quantity: str, price: str, /, **more: Any) -> Fill:
    plain = Fill(fill_id, "s", "X", D(quantity), D(price), D(0), START_US, fill_id)
    return msgspec.structs.replace(plain, **more)


def engine() -> FakeController:
    return FakeController(StrategyStatus("s", "running", equity=1000, allocated=1000))


async def t(world: VirtualFund) -> tuple[str, ...]:
    world.clock.advance(1)
    return (await world.tick()).failed


async def sheet(world: VirtualFund) -> dict[str, Decimal]:
    return await world.fund.ledger.balance_sheet()


def criticals(world: VirtualFund) -> list[str]:
    return [alert.title for alert in world.sent_alerts() if alert.level.value == "CRITICAL"]


async def test_a_bad_fill_never_stops_those_behind_it() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F("1", "1", "100")]
        assert await t(w) == ()
        c.fill_list += [F("2", "1", "100", fee=None), F("3", "1", "100")]
        for _ in range(3):
            assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 200
        assert criticals(w) == ["Fill 2 is set aside"]
        (aside,) = await w.fund.ledger.reports_aside()
        assert (aside.kind, aside.id, aside.reason) == ("fill", "2", "fee: None is not a number")


@pytest.mark.parametrize(
    "bad",
    [
        {"fee": None},
        {"quantity": D(0)},
        {"quantity": D("1e11")},
        {"quantity": 1e11},
        {"quantity": D("1.23e-16")},
        {"quantity": 1.23e-16},
        {"price": D("1e11")},
        {"id": "x" * 129},
        {"instrument": ""},
    ],
    ids=lambda bad: str(bad)[:30],
)
async def test_one_bad_fill_of_a_report_is_set_aside_by_name(bad: dict[str, Any]) -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F("1", "1", "10"), F("2", "1", "10", **bad), F("3", "1", "10")]
        assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 20
        (aside,) = await w.fund.ledger.reports_aside()
        assert (aside.kind, aside.id) == ("fill", bad.get("id", "2")[:128])
        assert criticals(w) == [f"Fill {aside.id} is set aside"]
        assert next(iter(bad)) in aside.reason or "price" in bad
        assert await t(w) == ()
        assert len(criticals(w)) == 1


async def test_a_report_aside_can_be_given_up_by_a_person() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F("1", "0", "100", cursor=""), F("2", "0", "100", cursor="")]
        await t(w)
        one, two = await w.fund.ledger.reports_aside()
        for bad in ({"reason": "", "by": "ann"}, {"reason": "typo", "by": ""}):
            with pytest.raises(ConfigError):
                await w.fund.ledger.skip_report(one.key, **bad)
        assert (await w.fund.ledger.skip_report(one.key, reason="typo", by="ann")).skipped_by
        assert (await w.fund.ledger.skip_report(two.id, reason="typo", by="ann")).key == two.key
        with pytest.raises(UnknownReport, match="no report '1' is set aside"):
            await w.fund.ledger.skip_report("1", reason="typo", by="ann")
        assert await t(w) == ()
        assert await w.fund.ledger.reports_aside() == ()
        assert len(criticals(w)) == 2


async def test_a_fill_that_is_put_right_is_booked_and_the_alert_resolved() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F("1", "1", "NaN")]
        await t(w)
        c.fill_list.append(F("1", "1", "10", cursor="2"))
        await t(w)
        assert (await sheet(w))["POSITIONS"] == 10
        assert await w.fund.ledger.reports_aside() == ()
        assert "Fill 1 is no longer set aside" in [alert.title for alert in w.sent_alerts()]


async def test_asides_and_those_given_up_outlive_a_restart(tmp_path: Any) -> None:
    c = engine()
    c.fill_list = [F("1", "0", "1", cursor=""), F("2", "0", "1", cursor="")]
    for left in (2, 1):
        async with virtual_fund(c, ledger_enabled=True, db_path=tmp_path / "x.db") as w:
            await t(w)
            assert len(await w.fund.ledger.reports_aside()) == left
            await w.fund.ledger.skip_report("1" if left == 2 else "2", reason="typo", by="ann")
            assert len(criticals(w)) == 2


async def test_fills_settlements_and_cash_events_do_not_wait_for_each_other() -> None:
    c = engine()

    def raising(after: str) -> list[Any]:
        raise RuntimeError("venue is down")

    def nothing(after: str) -> Any:
        return None

    async with virtual_fund(c, ledger_enabled=True) as w:
        c.settlement_list = [Settlement("a", "M", "s", D(5), D(8), 0, "1")]
        c.cash_event_list = [CashEvent("a", "interest", D(2), START_US, cursor="1")]
        c.fills = raising  # type: ignore[method-assign]
        assert await t(w) == ("ledger",)
        assert (await sheet(w))["CASH"] == 100_005
        c.settlements = nothing  # type: ignore[method-assign]
        c.cash_event_list.append(CashEvent("b", "interest", D(2), START_US, cursor="2"))
        assert await t(w) == ("ledger",)
        assert (await sheet(w))["CASH"] == 100_007


async def test_an_item_that_is_no_fill_at_all_is_set_aside() -> None:
    c = engine()
    items: list[Any] = [None, F("1", "1", "10"), "a fill", {"id": 2}]
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fills = lambda after: items  # type: ignore[method-assign]
        assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 10
        assert len(await w.fund.ledger.reports_aside()) == 3


async def test_a_long_report_is_booked_in_runs_over_several_ticks() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F(str(number), "1", "1") for number in range(1, 20_002)]
        assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 20_000
        assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 20_001
        assert await t(w) == ()


async def test_prices_of_dust_are_not_rounded_before_they_are_multiplied() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F("1", "40000000000", "0.000000004")]
        await t(w)
        assert (await sheet(w))["POSITIONS"] == 160
        c.fill_list += [
            F("2", "-40000000000", "0.0000000049"),
            F("3", "1000000000", "0.0000012345", instrument="Y"),
        ]
        await t(w)
        balances = await sheet(w)
        assert (balances["REALIZED_PNL"], balances["POSITIONS"]) == (D(-36), D("1234.5"))


async def test_rebates_negative_prices_and_marks_are_booked() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [
            F("1", "1", "10"),
            F("2", "1", "-37.63", instrument="CL", fee=D("-0.5")),
            F("3", "1", "10"),
        ]
        await t(w)
        assert (await sheet(w))["POSITIONS"] == D("-17.63")
        assert (await sheet(w))["TRADING_FEES"] == D("-0.5")
        await w.fund.ledger.open_position("Z", quantity=1, cost=10, fee="-0.5")
        await w.fund.ledger.mark("Z", value=-5)
        assert (await sheet(w))["POSITIONS"] == D("-22.63")


async def test_ids_are_unique_for_a_market_only() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F("7", "1", "10"), F("7", "1", "10", instrument="Y", cursor="8")]
        assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 20


@pytest.mark.parametrize("other", [{"fee": D(1)}, {"at_us": START_US + 1_000}], ids=str)
async def test_a_booked_id_with_another_content_is_told_and_blocks_nothing(
    other: dict[str, Any],
) -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F("1", "1", "10")]
        await t(w)
        c.fill_list += [F("1", "1", "10", cursor="2", **other), F("3", "1", "10")]
        assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 20
        assert criticals(w) == ["Fill 1 is set aside"]


async def test_an_id_repeated_in_one_report_is_booked_once_and_told() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F("1", "5", "0.32"), F("1", "5", "0.32", cursor="2")]
        await t(w)
        assert (await sheet(w))["POSITIONS"] == D("1.6")
        assert [alert.title for alert in w.sent_alerts()] == ["Fill 1 came twice in one report"]


@pytest.mark.parametrize("number", [6_000, 20_001])
async def test_an_id_repeated_in_a_long_report_is_told(number: int) -> None:
    """The two are booked in different runs, and the latter in another tick."""
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.fill_list = [F(str(place), "1", "1") for place in range(1, number + 1)]
        c.fill_list.append(F("7", "1", "1", cursor=str(number + 1)))
        for _ in range(2):
            assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == number
        assert [alert.title for alert in w.sent_alerts()] == ["Fill 7 came twice in one report"]
        c.fill_list.append(F("8", "1", "1", cursor=str(number + 2)))
        await t(w)
        assert len(w.sent_alerts()) == 1, "a later report may repeat what an earlier one had"


async def test_an_id_repeated_in_an_import_is_told() -> None:
    async with virtual_fund(engine(), ledger_enabled=True) as w:
        fills = [F(str(place), "1", "1") for place in range(6_000)]
        await w.fund.ledger.import_fills([*fills, fills[0]])
        await t(w)
        assert [alert.title for alert in w.sent_alerts()] == ["Fill 0 came twice in one report"]


@pytest.mark.parametrize("restart", [False, True])
async def test_a_bust_that_comes_before_its_fill_takes_it_back(
    restart: bool, tmp_path: Any
) -> None:
    c, path = engine(), tmp_path / "x.db"
    bust = F("1", "0", "10", revision=1, cursor="1")
    async with virtual_fund(c, ledger_enabled=True, db_path=path) as w:
        c.fill_list = [bust]
        await t(w)
        assert criticals(w) == ["Fill 1 is set aside"]
        if not restart:
            await _fill_of_the_bust(w)
    if restart:
        async with virtual_fund(c, ledger_enabled=True, db_path=path) as w:
            await _fill_of_the_bust(w)


async def _fill_of_the_bust(w: VirtualFund) -> None:
    fills = w.controller.fill_list
    fills.append(F("1", "5", "10", cursor="2"))
    for _ in range(2):
        assert await t(w) == ()
    balances = await sheet(w)
    assert (balances["POSITIONS"], balances["CASH"]) == (D(0), D(100_000))
    assert await w.fund.ledger.reports_aside() == ()
    titles = [alert.title for alert in w.sent_alerts()]
    assert titles == ["Fill 1 is set aside", "Fill 1 is no longer set aside"]
    fills.append(msgspec.structs.replace(fills[0], cursor="3"))
    assert await t(w) == ()
    assert criticals(w) == ["Fill 1 is set aside"]
    assert (await w.fund.ledger.verify()).ok


async def test_the_later_word_about_one_report_in_one_answer_counts() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        wrong, right = F("1", "1", "10", fee=None), F("1", "1", "10", cursor="2")
        c.fill_list = [wrong, right]
        for _ in range(3):
            assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 10
        assert await w.fund.ledger.reports_aside() == ()
        assert criticals(w) == []
        c.fill_list += [F("1", "1", "11", cursor="3", fee=None)]
        await t(w)
        assert [aside.id for aside in await w.fund.ledger.reports_aside()] == ["1"]


async def test_the_command_about_a_hostile_report_is_one_word_to_a_shell() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.settlement_list = [Settlement('$(touch x)"', "X", "s", D(1), None)]  # type: ignore[arg-type]
        await t(w)
        [told] = [a for a in w.sent_alerts() if a.level.value == "CRITICAL"]
        command = told.message.rpartition("give it up: ")[2]
        [key] = [aside.key for aside in await w.fund.ledger.reports_aside()]
        assert "$(touch x)" in key
        assert shlex.split(command)[:4] == ["fundops", "ledger", "skip-report", key]


async def test_a_settlement_closes_the_position_that_its_fills_opened() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True, total_capital=100) as w:
        c.fill_list = [F("1", "100", "0.40", instrument="WILL-X")]
        c.settlement_list = [Settlement("a", "WILL-X", "s", D(40), D(100), 0, "1")]
        assert await t(w) == ()
        balances = await sheet(w)
        assert (balances["CASH"], balances["POSITIONS"]) == (D(160), D(0))
        await w.fund.ledger.withdraw(160)


class FailsOnce(FakeController):
    """An engine whose venue does not answer the first question about fills."""

    asked = 0

    def fills(self, after: str) -> list[Fill]:
        self.asked += 1
        if self.asked == 1:
            raise ConnectionError("the venue does not answer")
        return list(super().fills(after))


@pytest.mark.parametrize("fault", ["raises", "set aside", "restart"])
async def test_fills_that_come_after_their_settlement_are_settled(
    fault: str, tmp_path: Any
) -> None:
    good = F("1", "100", "0.40", instrument="WILL-X")
    c = FailsOnce(StrategyStatus("s", "running", equity=1000, allocated=1000))
    c.asked = int(fault != "raises")
    path = tmp_path / "fund.db"
    c.fill_list = [good if fault == "raises" else msgspec.structs.replace(good, fee=None)]
    c.settlement_list = [Settlement("a", "WILL-X", "s", D(40), D(100), 0, "1")]
    async with virtual_fund(c, ledger_enabled=True, total_capital=100, db_path=path) as w:
        await t(w)
        if fault != "restart":
            c.fill_list = [msgspec.structs.replace(good, cursor="2")]
            await t(w)
            balances = await sheet(w)
            assert (balances["CASH"], balances["POSITIONS"]) == (D(160), D(0))
            return
    async with virtual_fund(c, ledger_enabled=True, total_capital=100, db_path=path) as w:
        c.fill_list = [msgspec.structs.replace(good, cursor="2")]
        await t(w)
        balances = await sheet(w)
        assert (balances["CASH"], balances["POSITIONS"]) == (D(160), D(0))


async def test_settlements_wait_for_fills_that_have_come_already() -> None:
    """A long report takes several ticks; its markets must not be settled before their fills."""
    c = engine()
    async with virtual_fund(c, ledger_enabled=True, total_capital=1_000_000) as w:
        c.fill_list = [F(str(number), "1", "1") for number in range(1, 20_001)]
        c.fill_list.append(F("20001", "100", "0.40", instrument="WILL-X"))
        c.settlement_list = [Settlement("a", "WILL-X", "s", D(40), D(100), 0, "1")]
        for _ in range(2):
            assert await t(w) == ()
        balances = await sheet(w)
        assert (balances["POSITIONS"], balances["CASH"]) == (D(20_000), D(980_060))


async def test_the_stage_of_a_fill_is_that_of_now() -> None:
    """A strategy that was registered or adopted since the last tick is no stranger."""
    c = engine()
    async with virtual_fund(c, ledger_enabled=True, promotion_enabled=True) as w:
        await t(w)
        await w.fund.promotion.adopt("s", PromotionStage.Live_Small, by="ann", reason="live")
        await w.fund.promotion.register("young")
        c.fill_list = [F("1", "1", "10"), F("2", "1", "10", strategy="young")]
        await t(w)
        told = [(a.strategy, a.message) for a in w.sent_alerts() if a.level.value == "CRITICAL"]
        assert told == [
            ("young", "Its stage is paper. Fill 2 of 1 X at 10 is booked under its name.")
        ]


async def test_fills_without_entitlement_are_booked_and_told_by_name() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True, promotion_enabled=True) as w:
        await w.fund.promotion.register("s")
        c.set("unregistered")
        await t(w)
        c.fill_list = [
            F("1", "100", "100", fee=D(1)),
            F("2", "100", "100", fee=D(1), strategy="unregistered"),
            F("3", "100", "100", fee=D(1), strategy="never-reported"),
        ]
        await t(w)
        assert (await sheet(w))["CASH"] == 69_997
        told = {
            alert.strategy: alert.category.value
            for alert in w.sent_alerts()
            if alert.level.value == "CRITICAL"
        }
        assert told == dict.fromkeys(("s", "unregistered", "never-reported"), "RISK_LIMIT")
        c.fill_list.append(F("4", "1", "100"))
        await t(w)
        assert len(criticals(w)) == 3, "once per strategy and stage"


async def test_an_entitlement_that_comes_later_ends_the_alert() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True, promotion_enabled=True) as w:
        c.fill_list = [F("1", "1", "100")]
        await t(w)
        await w.fund.promotion.adopt("s", PromotionStage.Live_Small, by="ann", reason="live")
        for _ in range(3):
            await t(w)
        titles = [alert.title for alert in w.sent_alerts()]
        assert titles.count("s is entitled to real money now") == 1


async def test_cash_events_are_booked_once_and_move_their_cursor() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        c.cash_event_list = [
            CashEvent("a", "deposit", D(1000), START_US, cursor="1"),
            CashEvent("b", "dividend", D(5), START_US, strategy="s", instrument="X", cursor="2"),
            CashEvent("c", "funding", D("-0.1"), START_US, cursor="3"),
        ]
        for _ in range(3):
            assert await t(w) == ()
        balances = await sheet(w)
        assert balances["CASH"] == D("101004.9")
        assert (balances["INCOME"], balances["FINANCING"]) == (D(-5), D("0.1"))
        assert (await w.fund.ledger.trial_balance())["EXTERNAL"] == -101_000


async def test_imported_fills_go_through_the_same_checks() -> None:
    async with virtual_fund(engine(), ledger_enabled=True) as w:
        fills = [F("1", "1", "10"), F("2", "0", "10"), F("3", "1", "10")]
        booked = await w.fund.ledger.import_fills(fills)
        assert (booked.new, booked.cursor) == (2, "")
        assert [aside.id for aside in booked.aside] == ["2"]
        assert (await w.fund.ledger.import_fills(fills)).new == 0
        assert (await sheet(w))["POSITIONS"] == 20


async def test_a_fill_too_large_for_a_day_is_set_aside_alone() -> None:
    c = engine()
    async with virtual_fund(c, ledger_enabled=True) as w:
        huge = "46000000000"
        c.fill_list = [
            F("1", "1", huge),
            F("2", "-1", huge),
            F("3", "1", huge),
            F("4", "-1", huge),
            F("5", "1", "10"),
        ]
        assert await t(w) == ()
        assert (await sheet(w))["POSITIONS"] == 10
