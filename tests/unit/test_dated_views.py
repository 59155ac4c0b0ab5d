"""What the API says of dated instruments, in Deribit's fields."""

from __future__ import annotations

from typing import Any

from sequencer.api_market import InstrumentsParams, MarketApi, instrument_view
from sequencer.api_market import expiry_of as expiry_leaf
from sequencer.market_data import MarketData
from sequencer.markets import Listed, Markets
from state.calendar import DAY_S
from state.units import MS_PER_S
from tests.unit.test_expiries import INDEX, Life, bought
from tools.exchange import COIN, USD
from tools.option_exchange import make_due


class Machine:
    """As much of the node's as the views look at."""

    def __init__(self, life: Life) -> None:
        self.view = life.exchange.view
        self.markets = Markets(self.view)
        self.system = life.exchange.system


class Context:
    """As much of the API's context as the market's methods look at."""

    def __init__(self, life: Life) -> None:
        self.machine = Machine(life)
        self.market_data = MarketData()
        self.now_ms = lambda: life.exchange.now_ms


def api(life: Life) -> tuple[Any, MarketApi]:
    context: Any = Context(life)
    return context, MarketApi(context)


def listed_of(context: Any, life: Life, suffix: str) -> Listed:
    found: Listed = context.machine.markets.by_name[life.name + suffix]
    return found


def names(life: Life, **params: Any) -> list[str]:
    _, market_api = api(life)
    handler: Any = next(
        each.handler for each in market_api.methods() if each.name == "public/get_instruments"
    )
    return [view.instrument_name for view in handler(InstrumentsParams(**params), None)]


def test_an_options_fields() -> None:
    life = Life()
    context, _ = api(life)
    listed = listed_of(context, life, "-1100-P")
    view = instrument_view(listed, expiry_leaf(life.exchange.view, listed), life.exchange.now_ms)
    assert (view.kind, view.option_type, view.strike) == ("option", "put", 1_100.0)
    assert view.expiration_timestamp == life.expiry_s * MS_PER_S
    assert (view.is_active, view.state, view.settlement_price) == (True, "trading", None)
    future = listed_of(context, life, "")
    view = instrument_view(future, expiry_leaf(life.exchange.view, future), life.expiry_s * MS_PER_S)
    assert (view.kind, view.option_type, view.strike) == ("future", None, None)
    assert (view.is_active, view.state) == (False, "settling")


def test_tickers_before_and_after_settlement() -> None:
    life = Life()
    bought(life, "-1000-C", 1, 2, 30 * USD, COIN)
    context, market_api = api(life)
    listed = listed_of(context, life, "-1100-P")
    ticker = market_api.ticker_of(listed)
    assert ticker.state == "open"
    assert ticker.mark_price is not None
    assert 99 < ticker.mark_price < 105
    assert ticker.max_price == round(ticker.mark_price + 200, 6)
    life.run_to(0, INDEX + 7 * USD)
    make_due(life.exchange)
    context, market_api = api(life)
    ticker = market_api.ticker_of(listed_of(context, life, "-1100-P"))
    assert (ticker.state, ticker.settlement_price) == ("settled", 1_007.0)


def test_expired_instruments_are_asked_for() -> None:
    life = Life()
    assert life.name in names(life)
    assert names(life, expired=True) == []
    life.run_to(0)
    make_due(life.exchange)
    assert set(names(life, expired=True)) == set(life.markets)
    assert set(names(life, kind="option")).isdisjoint(life.markets)
    life.exchange.now_ms += DAY_S * MS_PER_S
    make_due(life.exchange)
    assert not set(names(life, expired=True)) & set(life.markets)
