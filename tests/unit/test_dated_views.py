"""What the API says of dated instruments, in Deribit's fields."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from sequencer.api_market import InstrumentsParams, MarketApi, instrument_view
from sequencer.api_market import expiry_of as expiry_leaf
from sequencer.market_data import MarketData
from sequencer.markets import Listed, Markets
from sequencer.publisher import Publisher
from state.block import LifeChange, LifeEvent
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
    view = instrument_view(
        life.exchange.view, listed, expiry_leaf(life.exchange.view, listed), life.exchange.now_ms
    )
    assert (view.kind, view.option_type, view.strike) == ("option", "put", 1_100.0)
    assert view.expiration_timestamp == life.expiry_s * MS_PER_S
    assert (view.is_active, view.state, view.settlement_price) == (True, "trading", None)
    future = listed_of(context, life, "")
    view = instrument_view(
        life.exchange.view, future, expiry_leaf(life.exchange.view, future), life.expiry_s * MS_PER_S
    )
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


class Subscribers:
    """A feed on which all but `blocks` is wanted."""

    def __init__(self) -> None:
        self.published: list[tuple[str, Any]] = []

    def is_wanted(self, channel: str) -> bool:
        return channel != "blocks"

    def publish(self, channel: str, message: Any) -> None:
        self.published.append((channel, message))


def test_the_feed_tells_of_listings_and_settlements() -> None:
    life = Life()
    bought(life, "-900-C", 1, 2, 110 * USD, 2 * COIN)
    context, _ = api(life)
    first = len(life.exchange.results)
    life.run_to(0, INDEX + 10 * USD)
    make_due(life.exchange)
    feed: Any = Subscribers()
    publisher = Publisher(feed, context)
    assert publisher.open_channel("instruments") is None
    publisher.open_channel("account.1")
    for result in life.exchange.results[first:]:
        sealed: Any = SimpleNamespace(executed=SimpleNamespace(result=result))
        publisher.block_sealed(sealed)
    events = [
        event for channel, told in feed.published if channel == "instruments" for event in told["events"]
    ]
    told_changes = {event["change"] for event in events}
    assert told_changes == {"listed", "trading", "expired", "priced", "settled"}
    settled = {
        event["instrument_name"]: event["price_uusd"] for event in events if event["change"] == "settled"
    }
    assert settled[f"{life.name}-900-C"] == 110 * USD
    assert settled[f"{life.name}-1100-C"] is None
    mine = [row for channel, told in feed.published if channel == "account.1" for row in told["settlements"]]
    assert mine == [
        {
            "instrument_name": f"{life.name}-900-C",
            "size_ulots": 2 * COIN,
            "price_uusd": 110 * USD,
            "cash_uusd": 0,
        }
    ]


def test_books_of_what_is_gone_are_forgotten() -> None:
    data = MarketData()
    data.of(7).add(0, USD, COIN)
    gone = (LifeEvent(LifeChange.SETTLED, 1, 7), LifeEvent(LifeChange.DELISTED, 1, 7))
    block: Any = SimpleNamespace(header=None, trades=(), life=gone)
    data.block_sealed(block, ())
    assert data.of(7).levels(0, 1) == []
