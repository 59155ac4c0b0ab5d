"""Market data in Deribit's names and fields: what bots and charting tools already speak.

Prices are floats in USD and amounts floats in coins, as there; beside them instruments carry the integer
units (`tick_uusd`, `lot_ulots`) in which orders are signed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.errors import ErrorCode
from sequencer.jsonrpc import Context, Method, NoParams
from sequencer.market_data import Level, TradeRecord
from sequencer.markets import FUTURE, KIND_NAMES, PERPETUAL, STATUS_NAMES, Listed
from sequencer.option_greeks import Greeks, implied_volatility, mark_volatility, option_greeks
from sequencer.option_greeks import expiry_of as expiry_at
from sequencer.receipts import SIDE_NAMES
from state import keys
from state.calendar import expiry_name
from state.errors import Rejected
from state.leaves import Expiry, Feed, Market, Status
from state.margin_terms import grids_of
from state.orders import price_band
from state.pricing import mark_of, pricing_of
from state.view import StateView

MILLION = 1_000_000
NEVER_MS = 32_503_708_800_000
"""Deribit's expiry of what never expires: the year 3000."""
MAX_DEPTH = 1_000
MAX_TRADES = 1_000
FUNDING_HOURS = 8
TRADING = int(Status.TRADING)
HALTED = int(Status.HALTED)


class InstrumentsParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    currency: str = "any"
    kind: str = "any"
    expired: bool = False


class InstrumentParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instrument_name: str


class OrderBookParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instrument_name: str
    depth: Annotated[int, Meta(ge=1, le=MAX_DEPTH)] = 5


class LastTradesParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    instrument_name: str
    start_seq: Annotated[int, Meta(ge=0)] | None = None
    end_seq: Annotated[int, Meta(ge=0)] | None = None
    count: Annotated[int, Meta(ge=1, le=MAX_TRADES)] = 10
    sorting: Literal["default", "asc", "desc"] = "default"


class InstrumentView(msgspec.Struct, frozen=True):
    """Deribit's fields, and the integer terms of the instrument's leaf."""

    instrument_name: str
    instrument_id: int
    kind: str
    instrument_type: str
    settlement_period: str
    base_currency: str
    quote_currency: str
    counter_currency: str
    settlement_currency: str
    price_index: str
    is_active: bool
    state: str
    option_type: str | None
    strike: float | None
    tick_size: float
    contract_size: float
    min_trade_amount: float
    maker_commission: float
    taker_commission: float
    max_leverage: int
    expiration_timestamp: int
    settlement_price: float | None
    tick_uusd: int
    lot_ulots: int
    min_size_ulots: int
    max_size_ulots: int
    band_ppm: int
    initial_margin_ppm: int | None
    """Of a future or perpetual alone; what else an account has may lower it. Null of options."""
    maintenance_margin_ppm: int | None
    maker_fee_ppm: int
    taker_fee_ppm: int


class DayStats(msgspec.Struct, frozen=True):
    high: float | None
    low: float | None
    volume: float
    volume_usd: float
    price_change: float | None


class Ticker(msgspec.Struct, frozen=True):
    instrument_name: str
    timestamp: int
    state: str
    best_bid_price: float | None
    best_bid_amount: float
    best_ask_price: float | None
    best_ask_amount: float
    last_price: float | None
    mark_price: float | None
    index_price: float | None
    open_interest: float
    current_funding: float
    funding_8h: float
    min_price: float | None
    max_price: float | None
    settlement_price: float | None
    stats: DayStats
    underlying_price: float | None = None
    """Of a dated instrument: its expiry's forward in the pricing snapshot."""
    underlying_index: str | None = None
    mark_iv: float | None = None
    """This and what follows of options only; volatilities in percent."""
    bid_iv: float | None = None
    ask_iv: float | None = None
    interest_rate: float | None = None
    greeks: Greeks | None = None


class OrderBookView(Ticker, frozen=True, kw_only=True):
    change_id: int
    bids: list[tuple[float, float]]
    asks: list[tuple[float, float]]


class TradeView(msgspec.Struct, frozen=True):
    trade_id: str
    trade_seq: int
    timestamp: int
    instrument_name: str
    direction: str
    price: float
    amount: float
    block_number: int
    block_trade_id: str | None = None
    """Of a leg of a block trade, which was not made on the book."""


class LastTrades(msgspec.Struct, frozen=True):
    trades: list[TradeView]
    has_more: bool


def expiry_of(view: StateView, listed: Listed) -> Expiry | None:
    """None of a perpetual."""
    number = listed.leaf.expiry
    expiry: Expiry | None = view.get(keys.expiry_key(number)) if number else None
    return expiry


def status_of(listed: Listed, expiry: Expiry | None, now_ms: int) -> int:
    """The instrument's own status, unless its expiry's says more; from its expiry on it is settling."""
    own = listed.leaf.status
    if expiry is None or own > HALTED:
        return own
    if expiry.expiry_s * 1_000 <= now_ms:
        return int(Status.SETTLING)
    return int(Status.LISTED) if expiry.status == Status.LISTED else own


def instrument_view(view: StateView, listed: Listed, expiry: Expiry | None, now_ms: int) -> InstrumentView:
    """`expiry`: the leaf of the instrument's expiry; None of a perpetual."""
    leaf = listed.leaf
    grids = grids_of(view, leaf.underlying)
    is_perpetual = leaf.kind == PERPETUAL
    is_option = leaf.kind > FUTURE
    status = status_of(listed, expiry, now_ms)
    return InstrumentView(
        listed.name,
        listed.market,
        "option" if is_option else "future",
        "linear",
        "perpetual" if is_perpetual else "day",
        listed.currency,
        "USD",
        "USD",
        "USD",
        listed.underlying,
        status == TRADING,
        STATUS_NAMES[status],
        KIND_NAMES[leaf.kind] if is_option else None,
        leaf.strike_uusd / MILLION if is_option else None,
        leaf.tick_uusd / MILLION,
        leaf.lot_ulots / MILLION,
        leaf.min_size_ulots / MILLION,
        leaf.maker_fee_ppm / MILLION,
        leaf.taker_fee_ppm / MILLION,
        0 if is_option else MILLION // max(grids.initial_ppm, 1),
        leaf.expiry_s * 1_000 if leaf.expiry_s else NEVER_MS,
        _usd(expiry.settlement_uusd) if expiry else None,
        leaf.tick_uusd,
        leaf.lot_ulots,
        leaf.min_size_ulots,
        leaf.max_size_ulots,
        leaf.band_ppm,
        None if is_option else grids.initial_ppm,
        None if is_option else grids.maintenance_ppm,
        leaf.maker_fee_ppm,
        leaf.taker_fee_ppm,
    )


def trade_view(name: str, record: TradeRecord) -> TradeView:
    trade = record.trade
    return TradeView(
        f"{name}-{trade.number}",
        trade.number,
        record.timestamp_ms,
        name,
        SIDE_NAMES[trade.taker_side],
        trade.price_uusd / MILLION,
        trade.size_ulots / MILLION,
        record.block,
        str(trade.block_trade) if trade.block_trade else None,
    )


def levels_view(levels: Sequence[Level]) -> list[tuple[float, float]]:
    return [(price / MILLION, size / MILLION) for price, size in levels]


class MarketApi:
    """The `public/` methods; the feed uses the same views."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def ticker_of(self, listed: Listed) -> Ticker:
        return Ticker(**self._ticker_fields(listed))

    def book_of(self, listed: Listed, depth: int) -> OrderBookView:
        book = self._context.market_data.of(listed.market)
        return OrderBookView(
            **self._ticker_fields(listed),
            change_id=book.changes,
            bids=levels_view(book.levels(0, depth)),
            asks=levels_view(book.levels(1, depth)),
        )

    def methods(self) -> list[Method[Any]]:
        missing = (ErrorCode.NOT_FOUND,)
        return [
            Method("public/get_time", NoParams, int, self._get_time, "The node's clock, in ms."),
            Method(
                "public/get_instruments",
                InstrumentsParams,
                list[InstrumentView],
                self._get_instruments,
                "All instruments, or those of one currency or kind; expired: those not delisted yet.",
            ),
            Method(
                "public/ticker",
                InstrumentParams,
                Ticker,
                self._ticker,
                "Best prices, mark, index, funding and a day's statistics.",
                errors=missing,
            ),
            Method(
                "public/get_order_book",
                OrderBookParams,
                OrderBookView,
                self._get_order_book,
                "The best levels of the book, with the ticker's fields.",
                errors=missing,
            ),
            Method(
                "public/get_last_trades_by_instrument",
                LastTradesParams,
                LastTrades,
                self._get_last_trades,
                "The last trades, newest first unless sorting is asc.",
                errors=missing,
            ),
        ]

    def _ticker_fields(self, listed: Listed) -> dict[str, Any]:
        context = self._context
        view = context.machine.view
        book = context.market_data.of(listed.market)
        market: Market = view.get(keys.market_key(listed.market))
        index: Feed | None = view.get(keys.name_key(keys.FEED, listed.underlying))
        bids, asks = book.levels(0, 1), book.levels(1, 1)
        on_book = (
            record.trade.price_uusd for record in reversed(book.trades) if not record.trade.block_trade
        )
        last = next(on_book, market.last_price_uusd)
        mark = mark_of(view, market, listed.leaf)
        expiry = expiry_of(view, listed)
        try:
            lowest, highest = price_band(view, market, listed.leaf)
        except Rejected:
            lowest = highest = 0
        day = book.day(context.now_ms())
        funding = market.funding_rate_ppb / 1_000_000_000
        return {
            "instrument_name": listed.name,
            "timestamp": context.machine.system.timestamp_ms,
            "state": _state_name(status_of(listed, expiry, context.machine.system.timestamp_ms)),
            "best_bid_price": _usd(bids[0][0]) if bids else None,
            "best_bid_amount": bids[0][1] / MILLION if bids else 0.0,
            "best_ask_price": _usd(asks[0][0]) if asks else None,
            "best_ask_amount": asks[0][1] / MILLION if asks else 0.0,
            "last_price": _usd(last),
            "mark_price": None if mark is None else mark / MILLION,
            "index_price": _usd(index.value_uusd) if index else None,
            "open_interest": market.open_interest_ulots / MILLION,
            "current_funding": funding,
            "funding_8h": funding * FUNDING_HOURS,
            "min_price": _usd(lowest),
            "max_price": _usd(highest),
            "settlement_price": _usd(expiry.settlement_uusd) if expiry else None,
            "stats": DayStats(
                _usd(day.high_uusd),
                _usd(day.low_uusd),
                day.volume_ulots / MILLION,
                day.notional_uusd / MILLION,
                round((last - day.open_uusd) * 100 / day.open_uusd, 4) if day.open_uusd else None,
            ),
            **_dated_fields(view, listed, mark, bids[0][0] if bids else None, asks[0][0] if asks else None),
        }

    def _get_time(self, _params: NoParams, _context: Context) -> int:
        return self._context.now_ms()

    def _get_instruments(self, params: InstrumentsParams, _context: Context) -> list[InstrumentView]:
        machine, now_ms = self._context.machine, self._context.machine.system.timestamp_ms
        views = [
            instrument_view(machine.view, listed, expiry_of(machine.view, listed), now_ms)
            for listed in machine.markets.by_number.values()
            if (0 < listed.leaf.expiry_s * 1_000 <= now_ms) == params.expired
        ]
        return [
            view
            for view in views
            if params.currency in ("any", view.base_currency) and params.kind in ("any", view.kind)
        ]

    def _ticker(self, params: InstrumentParams, _context: Context) -> Ticker:
        return self.ticker_of(self._context.listed(params.instrument_name))

    def _get_order_book(self, params: OrderBookParams, _context: Context) -> OrderBookView:
        return self.book_of(self._context.listed(params.instrument_name), params.depth)

    def _get_last_trades(self, params: LastTradesParams, _context: Context) -> LastTrades:
        listed = self._context.listed(params.instrument_name)
        start = params.start_seq or 0
        found = [
            record
            for record in self._context.market_data.of(listed.market).trades
            if record.trade.number >= start
            and (params.end_seq is None or record.trade.number <= params.end_seq)
        ]
        ascending = params.sorting == "asc"
        kept = found[: params.count] if ascending else found[::-1][: params.count]
        return LastTrades([trade_view(listed.name, record) for record in kept], len(found) > len(kept))


def _dated_fields(
    view: StateView, listed: Listed, mark: int | None, bid: int | None, ask: int | None
) -> dict[str, Any]:
    """What the ticker of a dated instrument says besides; nothing before it is priced, or of what settles."""
    terms = listed.leaf
    pricing = pricing_of(view, terms.expiry) if terms.expiry else None
    if pricing is None or terms.status >= Status.SETTLING:
        return {}
    expiry = expiry_at(pricing, terms)
    found: dict[str, Any] = {
        "underlying_price": expiry.forward / MILLION,
        "underlying_index": expiry_name(listed.underlying, terms.expiry_s),
    }
    if terms.kind == FUTURE or mark is None:
        return found
    return found | {
        "mark_iv": mark_volatility(expiry, terms.strike_uusd),
        "bid_iv": implied_volatility(expiry, terms, bid),
        "ask_iv": implied_volatility(expiry, terms, ask),
        "interest_rate": pricing.rate_ppb / 1_000_000_000,
        "greeks": option_greeks(expiry, terms, mark),
    }


def _state_name(status: int) -> str:
    """Deribit's word for whether one can trade."""
    if status == TRADING:
        return "open"
    return "settled" if status == Status.SETTLED else "closed"


def _usd(price_uusd: int) -> float | None:
    """None for a price that there is not yet."""
    return price_uusd / MILLION if price_uusd else None
