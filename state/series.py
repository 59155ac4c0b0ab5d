"""Listing dated instruments: series are templates, and block time lists from them, one instrument a step.

The governor creates a series by an L1 message: an underlying, a rule for the days (`calendar`), how many of
the next expiries to keep listed, a strike step and how many strikes on each side of the index, which kinds,
and the terms of futures and of options. An expiry that is due begins with the strikes around the index of
that moment; its grid are the multiples of the step. An expiry, or a name, that exists already is not listed
twice, so series may share days. LIST_STRIKES adds strikes to an expiry: a series that lists once.

A series whose index is not fresh waits RETRY_S and looks again; none lists an expiry whose settlement window
has begun.

- iSERIES_001 The name of a dated instrument is derived from its underlying, expiry, kind and strike, and
  market numbers are never used twice.
- iSERIES_002 An underlying has at most MAX_EXPIRIES expiries, an expiry at most MAX_EXPIRY_INSTRUMENTS
  instruments.
"""

from __future__ import annotations

from typing import Final

from state.block import LifeChange, LifeEvent
from state.calendar import Rule, expiry_name, instrument_name, next_expiry_s
from state.context import BlockContext
from state.expiries import OPEN_STAGE
from state.keys import (
    FEED,
    LISTINGS_KEY,
    MARKET_NAME,
    PARAMETERS_KEY,
    RATE,
    SURFACE,
    SYSTEM_KEY,
    due_key,
    expiries_prefix,
    expiry_key,
    expiry_market_key,
    expiry_of_key,
    instrument_key,
    market_key,
    name_key,
    pricing_key,
    series_key,
)
from state.leaves import (
    Due,
    Expiry,
    ExpiryOf,
    Feed,
    Instrument,
    Kind,
    Listings,
    Marker,
    Market,
    MarketName,
    Parameters,
    Pricing,
    RateFeed,
    Series,
    Status,
    Surface,
    System,
    Terms,
)
from state.units import (
    MAX_EXPIRIES,
    MAX_EXPIRY_INSTRUMENTS,
    MAX_NAME_BYTES,
    MAX_PRICE_UUSD,
    MS_PER_S,
    SETTLEMENT_WINDOW_MS,
)
from state.view import StateView

FUTURES: Final = 1
CALLS: Final = 2
PUTS: Final = 4
"""Bits of a series' kinds."""
RETRY_S: Final = 60
_WINDOW_S: Final = SETTLEMENT_WINDOW_MS // MS_PER_S


def add_series(view: StateView, block: BlockContext, series: Series) -> int:
    """Stores a checked series, due at once; its number."""
    listings: Listings | None = view.get(LISTINGS_KEY)
    if listings is None:
        listings = Listings()
        view.put(LISTINGS_KEY, listings)
    number = listings.next_series
    listings.next_series = number + 1
    view.touch(LISTINGS_KEY, listings)
    view.put(series_key(number), series)
    view.put(due_key(block.now_s, Due.LIST, number), Marker(1))
    return number


def list_step(view: StateView, block: BlockContext, due: bytes, number: int) -> None:
    """The next step of a series that is due: begins an expiry, lists an instrument, or waits for its time."""
    series: Series = view.get(series_key(number))
    if series.expiry:
        _list_next(view, block, series)
        view.touch(series_key(number), series)
    elif series.rule == Rule.ONCE:
        view.delete(series_key(number))
        view.delete(due)
    else:
        again_s = _begin_expiry(view, block, series)
        if again_s == 0:
            view.touch(series_key(number), series)
            return
        view.delete(due)
        if again_s > 0:
            view.put(due_key(again_s, Due.LIST, number), Marker(1))


def _begin_expiry(view: StateView, block: BlockContext, series: Series) -> int:
    """Begins the first expiry that is missing: 0. Otherwise when to look again; -1: never."""
    underlying = series.underlying.rstrip(b"\0")
    earliest_s = block.now_s + _WINDOW_S
    again_s = next_expiry_s(series.rule, earliest_s) - _WINDOW_S
    missing_s = _missing_s(view, series, underlying, earliest_s)
    if missing_s == 0 or len(view.iterate_under(expiries_prefix(underlying), MAX_EXPIRIES)) == MAX_EXPIRIES:
        return again_s if again_s > 0 else -1
    index_uusd = _fresh_index(view, block, underlying.decode())
    if index_uusd == 0:
        return block.now_s + RETRY_S
    step = series.strike_step_uusd
    if step:
        middle = (index_uusd + step // 2) // step * step
        series.strike_uusd = max(step, middle - series.strikes * step)
    series.expiry = _add_expiry(view, underlying, missing_s)
    series.listed = 0
    return 0


def _missing_s(view: StateView, series: Series, underlying: bytes, after_s: int) -> int:
    """The first of the series' expiries that does not exist; 0 when all do."""
    expiry_s = after_s
    for _ in range(series.ahead):
        expiry_s = next_expiry_s(series.rule, expiry_s)
        if expiry_s == 0:
            return 0
        if view.get(expiry_of_key(underlying, expiry_s)) is None:
            return expiry_s
    return 0


def _fresh_index(view: StateView, block: BlockContext, underlying: str) -> int:
    """0 when there is none or it is stale."""
    feed: Feed = view.get(name_key(FEED, underlying))
    parameters: Parameters = view.get(PARAMETERS_KEY)
    heartbeat_ms = feed.heartbeat_ms or parameters.oracle_max_age_ms
    return feed.value_uusd if feed.timestamp_ms + heartbeat_ms >= block.timestamp_ms else 0


def _add_expiry(view: StateView, underlying: bytes, expiry_s: int) -> int:
    """A new expiry, its feeds, and when it settles; its number."""
    listings: Listings = view.get(LISTINGS_KEY)
    number = listings.next_expiry
    listings.next_expiry = number + 1
    view.touch(LISTINGS_KEY, listings)
    padded = underlying.ljust(MAX_NAME_BYTES, b"\0")
    view.put(expiry_key(number), Expiry(padded, expiry_s, int(Status.LISTED), 0, 0, 0, 0, 0, 0))
    view.put(expiry_of_key(underlying, expiry_s), ExpiryOf(number))
    view.put(due_key(expiry_s, Due.SETTLE, number), Marker(1))
    name = expiry_name(underlying.decode(), expiry_s)
    feed: Feed | RateFeed | Surface
    for kind, empty in ((FEED, Feed()), (RATE, RateFeed()), (SURFACE, Surface())):
        feed = view.get(name_key(kind, name)) or empty  # SetFeed may have made it
        feed.expiry = number
        view.put(name_key(kind, name), feed)
    view.put(pricing_key(number), Pricing())
    return number


def _list_next(view: StateView, block: BlockContext, series: Series) -> None:
    """Lists the series' next instrument of the expiry under way, or ends it."""
    expiry: Expiry | None = view.get(expiry_key(series.expiry))
    found = _instrument_at(series, series.listed)
    if (
        expiry is None
        or found is None
        or expiry.expiry_s <= block.now_s
        or expiry.instruments >= MAX_EXPIRY_INSTRUMENTS
    ):
        series.expiry = 0
        return
    series.listed += 1
    kind, strike_uusd = found
    underlying = series.underlying.rstrip(b"\0").decode()
    name = instrument_name(underlying, expiry.expiry_s, kind, strike_uusd)
    if len(name) <= MAX_NAME_BYTES and view.get(name_key(MARKET_NAME, name)) is None:
        terms = Terms.decode(series.future if kind == Kind.FUTURE else series.option)
        _list(view, block, series, expiry, name, kind, strike_uusd, terms)


def _instrument_at(series: Series, place: int) -> tuple[int, int] | None:
    """(kind, strike) of a place in the order of listing; None behind the last."""
    if series.kinds & FUTURES:
        if place == 0:
            return int(Kind.FUTURE), 0
        place -= 1
    calls, puts = series.kinds & CALLS, series.kinds & PUTS
    each = 2 if calls and puts else 1
    strikes = series.strikes if series.rule == Rule.ONCE else 2 * series.strikes + 1
    if not (calls or puts) or place >= strikes * each:
        return None
    strike_uusd = series.strike_uusd + place // each * series.strike_step_uusd
    if strike_uusd > MAX_PRICE_UUSD:
        return None
    return int(Kind.CALL if calls and place % each == 0 else Kind.PUT), strike_uusd


def _list(
    view: StateView,
    block: BlockContext,
    series: Series,
    expiry: Expiry,
    name: str,
    kind: int,
    strike_uusd: int,
    terms: Terms,
) -> None:
    """Allocates a market and makes its leaves."""
    number = series.expiry
    system: System = view.get(SYSTEM_KEY)
    market = system.next_market
    system.next_market = market + 1
    view.touch(SYSTEM_KEY, system)
    leaf = Instrument(
        name.encode().ljust(MAX_NAME_BYTES, b"\0"),
        kind,
        series.underlying,
        int(Status.TRADING),
        terms.tick_uusd,
        terms.lot_ulots,
        terms.min_size_ulots,
        terms.max_size_ulots,
        terms.band_ppm,
        terms.maker_fee_ppm,
        terms.taker_fee_ppm,
        terms.impact_notional_uusd,
        strike_uusd,
        expiry.expiry_s,
        number,
    )
    view.put(instrument_key(market), leaf)
    view.put(market_key(market), Market(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    view.put(name_key(MARKET_NAME, name), MarketName(market))
    view.put(expiry_market_key(number, OPEN_STAGE, market), Marker(1))
    expiry.instruments += 1
    view.touch(expiry_key(number), expiry)
    block.markets.add(market)
    block.life.append(LifeEvent(LifeChange.LISTED, number, market))
