"""What is said of an account's risk: components that add up, Greeks, liquidation prices that come true."""

from __future__ import annotations

import pytest
import trio

from sequencer.api_risk import RiskView, risk_of
from sequencer.option_greeks import expiry_of, implied_volatility, mark_volatility, option_greeks
from state.actions import Side
from state.keys import FEED, account_key, name_key
from state.leaves import Account
from state.margin import margin
from state.pricing import mark_of, pricing_of
from tests.unit.test_portfolio_state import INDEX, Trading, terms_of
from tools.exchange import COIN, USD


async def risk(market: Trading, account: int) -> RiskView:
    leaf: Account = market.exchange.view.get(account_key(account))
    return await risk_of(market.exchange.view, account, leaf.cash_uusd, trio.CapacityLimiter(1))


def mixed(dollars: int = 100_000) -> tuple[Trading, int]:
    """A perpetual, short calls, a future, and an open order."""
    market = Trading()
    poor = market.poor(dollars)
    market.trade(poor, 1, 1, INDEX, 2 * COIN)
    market.trade(1, poor, market.call, 25 * USD, 5 * COIN)
    market.trade(2, poor, market.future, INDEX, COIN)
    market.exchange.place(poor, market.put, Side.SELL, 20 * USD, COIN)
    return market, poor


async def test_imargin_010_components_add_up() -> None:
    market, poor = mixed()
    found = await risk(market, poor)
    stated = margin(market.exchange.view, poor)
    assert stated is not None
    assert (found.equity_uusd, found.initial_uusd, found.maintenance_uusd) == stated[:3]
    assert found.distance_uusd == stated.equity_uusd - stated.maintenance_uusd
    (part,) = found.underlyings
    assert part.underlying == "C1"
    assert found.cash_uusd + found.settling_uusd + part.mark_to_market_uusd == found.equity_uusd
    for components, required in (
        (part.initial, found.initial_uusd),
        (part.maintenance, found.maintenance_uusd),
    ):
        assert components.required_uusd == required
        lowest = min(each.pnl_uusd for each in components.scenarios)
        assert min(lowest, components.basis_uusd) == components.worst_uusd
        total = -components.worst_uusd * components.factor + sum(components.contingencies_uusd.values())
        assert abs(total - required) <= 2
    assert part.initial.required_uusd > part.maintenance.required_uusd
    naked = (each.contingencies_uusd["option_mm"] for each in (part.initial, part.maintenance))
    assert list(naked) == [6 * 3 * USD + 1, 5 * 3 * USD + 1], "the open order to sell counts; rounded up"


async def test_greeks_are_derivatives() -> None:
    market, poor = mixed()
    before = await risk(market, poor)
    (part,) = before.underlyings
    assert part.by_expiry[0].expiry is None
    assert part.by_expiry[0].greeks.delta == 2
    assert part.greeks.gamma < 0
    assert part.greeks.vega < 0 < part.greeks.theta
    market.report(INDEX + USD)
    after = await risk(market, poor)
    change = (after.equity_uusd - before.equity_uusd) / USD
    assert change == pytest.approx(part.greeks.delta + part.greeks.gamma / 2, abs=0.01)


async def test_the_ticker_s_volatilities() -> None:
    market = Trading()
    view = market.exchange.view
    for number in (market.call, market.put):
        terms = terms_of(market.exchange, number)
        pricing = pricing_of(view, terms.expiry)
        assert pricing is not None
        expiry = expiry_of(pricing, terms)
        mark = mark_of(view, market.exchange.market(number), terms)
        assert mark is not None
        assert mark_volatility(expiry, terms.strike_uusd) == pytest.approx(60, abs=0.01)
        assert implied_volatility(expiry, terms, mark) == pytest.approx(60, abs=0.01)
        higher = implied_volatility(expiry, terms, mark + USD)
        assert higher is not None
        vega = option_greeks(expiry, terms, mark).vega
        assert higher == pytest.approx(60 + 1 / vega, rel=0.01)
        assert implied_volatility(expiry, terms, None) is None


async def test_a_perpetual_s_liquidation_price_by_hand() -> None:
    market = Trading()
    poor = market.poor(300)
    market.trade(poor, 1, 1, INDEX)
    (part,) = (await risk(market, poor)).underlyings
    # 300 - (1000 - p) less fees = (0.144 + 0.03) p
    assert part.liquidation_below_uusd is not None
    assert abs(part.liquidation_below_uusd / USD - 700 / 0.826) < 1
    assert part.liquidation_above_uusd is None


def move(market: Trading, index: int) -> None:
    """In steps that the oracle takes."""
    last = market.exchange.view.get(name_key(FEED, "C1")).value_uusd
    while last != index:
        last = max(last * 85 // 100, min(last * 115 // 100, index))
        market.report(last)


@pytest.mark.parametrize("dollars", [800, 1_100])
async def test_liquidation_prices_come_true(dollars: int) -> None:
    for direction in (-1, 1):
        market, poor = mixed(dollars)
        (part,) = (await risk(market, poor)).underlyings
        limit = part.liquidation_below_uusd if direction < 0 else part.liquidation_above_uusd
        if direction > 0:
            assert limit is not None, "short more calls than it is long"
        if limit is None:
            continue
        for off, is_below in ((-direction * USD, False), (direction * USD, True)):
            move(market, limit + off)
            found = margin(market.exchange.view, poor)
            assert found is not None
            assert (found.equity_uusd < found.maintenance_uusd) is is_below
