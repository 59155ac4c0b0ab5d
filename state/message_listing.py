"""What the governor lists: instruments without expiry, series of dated ones, single chains of strikes.

Handlers of `messages`: each raises Rejected before it has changed anything.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from state.block import L1Message, MessageResult
from state.calendar import MAX_UNDERLYING_BYTES, STRIKE_UNIT_UUSD, Rule, parse_name
from state.codec_format import is_name
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.funding import PERPETUAL
from state.keys import FEED, MARKET_NAME, SYSTEM_KEY, expiry_of_key, instrument_key, market_key, name_key
from state.leaves import ExpiryOf, Feed, Instrument, Market, MarketName, Progress, Series, System, Terms
from state.message_payloads import decode_as, demand, unpack
from state.orders import instrument_of
from state.series import CALLS, FUTURES, PUTS, add_series
from state.units import (
    MAX_AHEAD,
    MAX_NOTIONAL_UUSD,
    MAX_PRICE_UUSD,
    MAX_SIZE_ULOTS,
    MAX_STRIKES,
    PPM,
    ULOTS_PER_LOT,
)
from state.view import StateView

_MARKET: Final = Struct(">I")
_SERIES: Final = Struct(">31s B B B Q I 52s 52s")
SERIES_BYTES: Final = _SERIES.size
"""How much of a Series leaf its message has: all before its registers."""
_STRIKES: Final = Struct(">31s Q B Q Q I 52s")
_NO_TERMS: Final = bytes(52)
_MAX_STATUS: Final = 3
_MAX_FEE_PPM: Final = 100_000


def list_instrument(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Lists a perpetual, and makes the feeds it needs."""
    terms = decode_as(Instrument, message.payload)
    _check_instrument(terms)
    name, underlying = terms.name.rstrip(b"\0").decode(), terms.underlying.rstrip(b"\0").decode()
    demand(
        {
            "kind": terms.kind == PERPETUAL,
            "expiry": terms.strike_uusd == terms.expiry_s == terms.expiry == 0,
            "name": parse_name(name) is None and parse_name(underlying) is None,
        }
    )
    # An instrument's name must not be a feed already, nor may an instrument's mark serve as an index.
    if view.get(name_key(FEED, name)) is not None or view.get(name_key(MARKET_NAME, underlying)) is not None:
        raise Rejected(RejectCode.NAME_TAKEN, name=name)
    system: System = view.get(SYSTEM_KEY)
    market = system.next_market
    system.next_market = market + 1
    view.touch(SYSTEM_KEY, system)
    view.put(instrument_key(market), terms)
    view.put(market_key(market), Market(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    view.put(name_key(MARKET_NAME, name), MarketName(market))
    for feed in (name, underlying):
        if view.get(name_key(FEED, feed)) is None:
            view.put(name_key(FEED, feed), Feed(0, 0, 0, 0))
    block.markets.add(market)
    return MessageResult(index, message.kind, market=market)


def set_instrument(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Changes an instrument's terms; what identifies it stays."""
    if len(message.payload) < _MARKET.size:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, got=len(message.payload))
    (market,) = _MARKET.unpack_from(message.payload)
    terms = decode_as(Instrument, message.payload[_MARKET.size :])
    before = instrument_of(view, market)
    _check_instrument(terms)
    fixed = ("name", "kind", "underlying", "tick_uusd", "lot_ulots", "strike_uusd", "expiry_s", "expiry")
    demand({field: getattr(terms, field) == getattr(before, field) for field in fixed})
    demand({"status": before.status <= _MAX_STATUS})
    view.put(instrument_key(market), terms)
    block.markets.add(market)
    return MessageResult(index, message.kind, market=market)


def list_series(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Adds a series, whose first listing is due at once."""
    series = Series(*unpack(_SERIES, message.payload))
    options = bool(series.kinds & (CALLS | PUTS))
    underlying = _check_underlying(series.underlying)
    demand(
        {
            "rule": Rule.DAILY <= series.rule <= Rule.QUARTERLY,
            "ahead": 0 < series.ahead <= MAX_AHEAD,
            "kinds": 0 < series.kinds <= FUTURES | CALLS | PUTS,
            "strikes": series.strikes <= MAX_STRIKES and (options or series.strikes == 0),
        }
    )
    _check_strikes(series.strike_step_uusd, series.strike_step_uusd, options)
    _check_encoded(series.future, bool(series.kinds & FUTURES))
    _check_encoded(series.option, options)
    if view.get(name_key(MARKET_NAME, underlying)) is not None:
        raise Rejected(RejectCode.NAME_TAKEN, name=underlying)
    if view.get(name_key(FEED, underlying)) is None:
        view.put(name_key(FEED, underlying), Feed(0, 0, 0, 0))
    return MessageResult(index, message.kind, series=add_series(view, block, series))


def list_strikes(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Lists strikes of an expiry that there is."""
    underlying, expiry_s, kinds, lowest_uusd, step_uusd, count, option = unpack(_STRIKES, message.payload)
    name = _check_underlying(underlying)
    demand({"kinds": kinds > 0 and kinds & ~(CALLS | PUTS) == 0, "count": 0 < count <= MAX_STRIKES})
    _check_strikes(lowest_uusd, step_uusd, True)
    _check_encoded(option, True)
    found: ExpiryOf | None = view.get(expiry_of_key(name.encode(), expiry_s))
    if found is None or expiry_s <= block.now_s:
        raise Rejected(RejectCode.UNKNOWN_EXPIRY, expiry_s=expiry_s)
    series = Series(
        underlying, int(Rule.ONCE), 0, kinds, step_uusd, count, _NO_TERMS, option, found.expiry, lowest_uusd
    )
    return MessageResult(index, message.kind, series=add_series(view, block, series))


def _check_instrument(terms: Instrument) -> None:
    """Bounds and relations of an instrument's fields. Raises Rejected BAD_PARAMETERS naming the field."""
    name, underlying = terms.name.rstrip(b"\0"), terms.underlying.rstrip(b"\0")
    demand(
        {
            "name": is_name(name) and is_name(underlying) and name != underlying,
            "status": terms.status <= _MAX_STATUS,
        }
    )
    _check_terms(terms)


def _check_terms(terms: Instrument | Terms) -> None:
    """Bounds and relations of trading terms. Raises Rejected BAD_PARAMETERS naming the field."""
    good = {
        "tick_uusd": 0 < terms.tick_uusd <= MAX_PRICE_UUSD,
        "lot_ulots": 0 < terms.lot_ulots <= MAX_SIZE_ULOTS
        and terms.tick_uusd * terms.lot_ulots % ULOTS_PER_LOT == 0,
        "size": 0 < terms.min_size_ulots <= terms.max_size_ulots <= MAX_SIZE_ULOTS,
        "band_ppm": 0 < terms.band_ppm < PPM,
        "fees": max(terms.maker_fee_ppm, terms.taker_fee_ppm) <= _MAX_FEE_PPM,
        "impact_notional_uusd": 0 < terms.impact_notional_uusd <= MAX_NOTIONAL_UUSD,
    }
    demand(good)


def _check_underlying(padded: bytes) -> str:
    """Of dated instruments: short enough for their names, and no such name itself."""
    name = padded.rstrip(b"\0")
    demand({"underlying": is_name(name) and len(name) <= MAX_UNDERLYING_BYTES})
    demand({"underlying": parse_name(name.decode()) is None})
    return name.decode()


def _check_strikes(lowest_uusd: int, step_uusd: int, options: bool) -> None:
    """Strikes are multiples of the step, and that of a cent; both are 0 without options."""
    demand({"strike_step_uusd": 0 < step_uusd <= MAX_PRICE_UUSD if options else step_uusd == 0})
    if options and (lowest_uusd == 0 or lowest_uusd % step_uusd or step_uusd % STRIKE_UNIT_UUSD):
        raise Rejected(RejectCode.STRIKE_OFF_GRID, step_uusd=step_uusd, got=lowest_uusd)


def _check_encoded(terms: bytes, are_used: bool) -> None:
    """Terms of a template: good ones, or zeros where that kind is not listed."""
    if are_used:
        _check_terms(Terms.decode(terms))
    else:
        demand({"terms": terms == _NO_TERMS})
