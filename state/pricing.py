"""What an expiry is priced from: the snapshot of its feeds, its marks, and whether its feeds are fresh.

`Pricing` takes over index, forward, rate, surface and the collateral's price together, and only when they
have moved out of a dead band (PROTOCOL, section 8.6). Marks and margin are functions of this leaf and of the
instrument's terms alone, time to expiry included, so nothing changes between two of its versions. What is
computed from it is remembered in memory by the snapshot's values, which decides nothing: it can always be
computed again.

Inside the settlement window a part of the settlement price is certain: `fixed`. The rest follows the forward,

    expected settlement = fixed + live * forward

and the time to expiry is the time that the average still has to cover: when the oracle was silent, settlement
waits, and options keep their time value. Conversions to the engine's fixed point round down.
"""

from __future__ import annotations

from functools import lru_cache
from math import isqrt
from typing import Final

from state.black76 import divisor
from state.calendar import expiry_name
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.fixed import BITS, MAX, ONE, ln_ratio, ratio
from state.keys import FEED, PARAMETERS_KEY, RATE, SURFACE, expiry_key, name_key, pricing_key
from state.leaves import (
    Expiry,
    Feed,
    Instrument,
    Kind,
    Market,
    Parameters,
    Pricing,
    RateFeed,
    Status,
    Surface,
)
from state.margin_defaults import default_parameters
from state.risk_array import call_fraction
from state.risk_grid import Expiry as EngineExpiry
from state.risk_grid import ExpiryMarket, make_expiry, make_grid
from state.svi import Svi, total_vol
from state.units import MS_PER_S, PPB, PPM, SETTLEMENT_WINDOW_MS
from state.view import StateView

STABLE_FEED: Final = "STABLE"
"""Dollars that one unit of the collateral is worth; without this feed it is worth one."""
STABLE_KEY: Final = name_key(FEED, STABLE_FEED)
_FEED: Final = bytes((FEED,))
PAR_UUSD: Final = 1_000_000
DEAD_BAND_PPM: Final = 200
"""Of index and forward."""
VOLATILITY_BAND_PPM: Final = 1_000
"""Of the volatility at the money."""
MAX_SNAPSHOT_AGE_MS: Final = 10_000
PICO: Final = 10**12
YEAR_S: Final = 365 * 86_400
_MAX_LEFT_MS: Final = 100 * YEAR_S * MS_PER_S
"""The engine's longest time to expiry."""
_VOLATILITY_SCALE: Final = YEAR_S * 10**6
"""10^-12 of variance times this over the time is the square of a volatility in ppb."""
_MARK_GRID: Final = make_grid(default_parameters())
"""Marks do not depend on it: at no shock the engine gives the same for every grid."""


def heartbeat_ms(feed: Feed | RateFeed | Surface, parameters: Parameters) -> int:
    """How old the feed's value may become."""
    return feed.heartbeat_ms or parameters.oracle_max_age_ms


def is_fresh(feed: Feed | RateFeed | Surface | None, parameters: Parameters, now_ms: int) -> bool:
    """Whether there is a value, and it is not older than the heartbeat."""
    return (
        feed is not None and feed.version > 0 and feed.timestamp_ms + heartbeat_ms(feed, parameters) >= now_ms
    )


def volatility_ppb(a_pico: int, b_pico: int, rho_pico: int, m_pico: int, sigma_pico: int, tau_s: int) -> int:
    """At the money, a year, rounded down; 0 where the variance is not above 0. `tau_s` above 0."""
    wing = isqrt(m_pico * m_pico + sigma_pico * sigma_pico) - rho_pico * m_pico // PICO
    variance = a_pico + b_pico * wing // PICO
    return isqrt(max(variance, 0) * _VOLATILITY_SCALE // tau_s)


# The snapshot


def reprice(view: StateView, block: BlockContext, number: int) -> bool:
    """Takes a new snapshot of an expiry if its feeds have moved enough; whether it has."""
    expiry: Expiry = view.get(expiry_key(number))
    before: Pricing = view.get(pricing_key(number))
    if expiry.status == Status.SETTLED:
        return False
    after = _snapshot(view, block.timestamp_ms, expiry)
    if after is None or not _has_moved(before, after, expiry.expiry_s * MS_PER_S):
        return False
    after.version = before.version + 1
    view.put(pricing_key(number), after)
    return True


def _snapshot(view: StateView, now_ms: int, expiry: Expiry) -> Pricing | None:
    """The feeds as they stand, with version 0; None before index and forward are known."""
    index_key, forward_key, rate_key, surface_key = _feed_keys(expiry.underlying, expiry.expiry_s)
    index: Feed | None = view.get(index_key)
    forward: Feed | None = view.get(forward_key)
    if index is None or forward is None or not (index.version and forward.version):
        return None
    fixed_uusd, live_ppb = fixed_part(expiry)
    after = Pricing(
        index_uusd=index.value_uusd,
        index_confidence_ppm=index.confidence_ppm,
        forward_uusd=forward.value_uusd,
        forward_confidence_ppm=forward.confidence_ppm,
        fixed_uusd=fixed_uusd,
        live_ppb=live_ppb,
        stable_uusd=stable_uusd(view),
        priced_ms=now_ms,
    )
    rate: RateFeed | None = view.get(rate_key)
    if rate is not None:
        after.rate_ppb = rate.value_ppb
        after.rate_confidence_ppm = rate.confidence_ppm
    surface: Surface | None = view.get(surface_key)
    if surface is not None:
        after.a_pico = surface.a_pico
        after.b_pico = surface.b_pico
        after.rho_pico = surface.rho_pico
        after.m_pico = surface.m_pico
        after.sigma_pico = surface.sigma_pico
        after.reference_uusd = surface.forward_uusd
        after.tau_s = surface.tau_s
        after.vol_confidence_ppm = surface.confidence_ppm
    return after


def fixed_part(expiry: Expiry) -> tuple[int, int]:
    """(amount in uusd that the covered part of the window adds to the settlement price, rounded down; the
    share of the window that is still open, in ppb, rounded down)."""
    total = expiry.average_uusd_s * MS_PER_S + expiry.average_rest
    left_ms = SETTLEMENT_WINDOW_MS - expiry.covered_ms
    return total // SETTLEMENT_WINDOW_MS, left_ms * PPB // SETTLEMENT_WINDOW_MS


def stable_uusd(view: StateView) -> int:
    """What one unit of the collateral is worth."""
    stable: Feed | None = view.get(STABLE_KEY)
    return stable.value_uusd if stable is not None and stable.version else PAR_UUSD


def _has_moved(before: Pricing, after: Pricing, expiry_ms: int) -> bool:
    """Whether `after` (of version 0) is worth a new version."""
    if before.version == 0 or after.priced_ms - before.priced_ms > MAX_SNAPSHOT_AGE_MS:
        return True
    if after.priced_ms > expiry_ms - SETTLEMENT_WINDOW_MS:
        return _values(before) != _values(after)
    for old, new in (
        (before.index_uusd, after.index_uusd),
        (before.forward_uusd, after.forward_uusd),
    ):
        if abs(new - old) * PPM > old * DEAD_BAND_PPM:
            return True
    old, new = _volatility(before), _volatility(after)
    return abs(new - old) * PPM > old * VOLATILITY_BAND_PPM


def _volatility(pricing: Pricing) -> int:
    """At the money, in ppb; 0 without a surface."""
    if pricing.tau_s == 0:
        return 0
    return volatility_ppb(
        pricing.a_pico,
        pricing.b_pico,
        pricing.rho_pico,
        pricing.m_pico,
        pricing.sigma_pico,
        pricing.tau_s,
    )


# Freshness


@lru_cache(1_024)
def _feed_keys(underlying: bytes, expiry_s: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Keys of an expiry's index, forward, rate and surface."""
    index = underlying.rstrip(b"\0").decode("ascii")
    name = expiry_name(index, expiry_s)
    return name_key(FEED, index), name_key(FEED, name), name_key(RATE, name), name_key(SURFACE, name)


def check_fresh(view: StateView, block: BlockContext, terms: Instrument) -> None:
    """Raises Rejected unless all feeds that this instrument is priced from are fresh at the block's time.

    What may raise risk in it must ask; cancels and what reduces a position need not.
    """
    parameters: Parameters = view.get(PARAMETERS_KEY)
    now_ms = block.timestamp_ms
    stable: Feed | None = view.get(STABLE_KEY)
    if stable is not None and stable.version:
        demand_feed(stable, parameters, now_ms, RejectCode.STABLE_STALE)
    if terms.kind == Kind.PERPETUAL:
        for name in (terms.underlying, terms.name):
            feed: Feed | None = view.get(_FEED + name)
            demand_feed(feed, parameters, now_ms, RejectCode.ORACLE_STALE)
        return
    index_key, forward_key, rate_key, surface_key = _feed_keys(terms.underlying, terms.expiry_s)
    demand_feed(view.get(index_key), parameters, now_ms, RejectCode.ORACLE_STALE)
    demand_feed(view.get(forward_key), parameters, now_ms, RejectCode.FORWARD_STALE)
    if terms.kind != Kind.FUTURE:
        demand_feed(view.get(rate_key), parameters, now_ms, RejectCode.RATE_STALE)
        demand_feed(view.get(surface_key), parameters, now_ms, RejectCode.VOLATILITY_STALE)


def demand_feed(
    feed: Feed | RateFeed | Surface | None, parameters: Parameters, now_ms: int, code: RejectCode
) -> None:
    """Raises Rejected with this code unless the feed is fresh."""
    if feed is None or feed.version == 0:
        raise Rejected(code, oldest_ms=0)
    if not is_fresh(feed, parameters, now_ms):
        max_age_ms = heartbeat_ms(feed, parameters)
        raise Rejected(code, oldest_ms=feed.timestamp_ms, max_age_ms=max_age_ms)


# Marks


def pricing_of(view: StateView, expiry: int) -> Pricing | None:
    """The snapshot of an expiry's number; None before index and forward are known."""
    pricing: Pricing | None = view.get(pricing_key(expiry))
    return pricing if pricing is not None and pricing.version else None


def mark_of(view: StateView, market: Market, terms: Instrument) -> int | None:
    """The mark of an instrument in uusd, from 0; None when what it needs has never been reported.

    `market` is the instrument's market, which holds a perpetual's mark, and the pay-off of one that settles.
    """
    if terms.status >= Status.SETTLING:
        return market.mark_uusd
    if terms.kind == Kind.PERPETUAL:
        return market.mark_uusd or None
    pricing = pricing_of(view, terms.expiry)
    if pricing is None:
        return None
    if terms.kind == Kind.FUTURE:
        return settlement_uusd(pricing)
    if pricing.tau_s == 0:
        return None
    return _option_mark(_values(pricing), terms.expiry_s, terms.strike_uusd, terms.kind == Kind.CALL)


def settlement_uusd(pricing: Pricing) -> int:
    """What the settlement price is expected to be, which is the mark of the future; rounded down, from 1."""
    return max(pricing.fixed_uusd + pricing.live_ppb * pricing.forward_uusd // PPB, 1)


def expiry_market(pricing: Pricing, expiry_s: int) -> ExpiryMarket:
    """The snapshot in the engine's fixed point; prices stay uusd. Options need a surface in it."""
    return _expiry_market(_values(pricing), expiry_s)


def _values(pricing: Pricing) -> tuple[int, ...]:
    """All that the snapshot says, and not how often it has changed."""
    values: tuple[int, ...] = pricing.values(pricing)
    return values[:-1]


@lru_cache(512)
def _expiry_market(values: tuple[int, ...], expiry_s: int) -> ExpiryMarket:
    pricing = Pricing(*values)
    window_left_ms = pricing.live_ppb * SETTLEMENT_WINDOW_MS // PPB
    left_ms = max(expiry_s * MS_PER_S - pricing.priced_ms, window_left_ms)
    surface = Svi(
        (pricing.a_pico << 2 * BITS) // PICO,
        (pricing.b_pico << 2 * BITS) // PICO,
        _x56(pricing.rho_pico, PICO),
        _x56(pricing.m_pico, PICO),
        _x56(pricing.sigma_pico, PICO),
        pricing.reference_uusd,
        (pricing.tau_s << 2 * BITS) // YEAR_S,
    )
    expected_uusd = settlement_uusd(pricing)
    open_uusd = pricing.live_ppb * pricing.forward_uusd // PPB
    return ExpiryMarket(
        _x56(min(left_ms, _MAX_LEFT_MS), MS_PER_S),
        expected_uusd,
        _x56(pricing.rate_ppb, PPB),
        surface,
        _x56(pricing.forward_confidence_ppm, PPM),
        _x56(pricing.rate_confidence_ppm, PPM),
        _x56(pricing.vol_confidence_ppm, PPM),
        _x56(open_uusd, expected_uusd),
    )


def _x56(value: int, unit: int) -> int:
    return (value << BITS) // unit


@lru_cache(512)
def _engine_expiry(values: tuple[int, ...], expiry_s: int) -> EngineExpiry:
    return make_expiry(_expiry_market(values, expiry_s), _MARK_GRID)


@lru_cache(8_192)
def _option_mark(values: tuple[int, ...], expiry_s: int, strike_uusd: int, is_call: bool) -> int:
    """The engine's value at no shock, as `option_value` has it, without the rest of the risk array."""
    expiry = _engine_expiry(values, expiry_s)
    vol = min(total_vol(expiry.svi, strike_uusd, expiry.years_x112), MAX)
    distance = ln_ratio(strike_uusd, expiry.forward)
    call = call_fraction(distance, ONE, ratio(strike_uusd, expiry.forward), divisor(vol))
    undiscounted = call * expiry.forward
    if not is_call:
        undiscounted += (strike_uusd - expiry.forward) << BITS
    return max(0, undiscounted * expiry.discount >> 2 * BITS)  # a put's may be a rounding below
