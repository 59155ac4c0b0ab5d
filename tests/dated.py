"""An exchange with one expiry whose leaves are put by hand, and reports about it."""

from __future__ import annotations

from collections.abc import Sequence

from state.actions import OracleReport, OracleUpdate, Price, Rate, SurfaceReport, Transaction
from state.calendar import expiry_name, instrument_name, next_expiry_s
from state.hashing import keccak
from state.keys import (
    FEED,
    MARKET_NAME,
    RATE,
    SURFACE,
    SYSTEM_KEY,
    expiry_key,
    expiry_of_key,
    instrument_key,
    market_key,
    name_key,
    pricing_key,
)
from state.leaves import (
    Expiry,
    ExpiryOf,
    Feed,
    Kind,
    Market,
    MarketName,
    Pricing,
    RateFeed,
    Status,
    Surface,
    System,
)
from tools.exchange import PUBLISHERS, START_MS, USD, Exchange, instrument, standard_exchange

INDEX = 1_000 * USD
FORWARD = 1_010 * USD
DAY_MS = 86_400_000
EXPIRY_S = next_expiry_s(1, START_MS // 1_000 + 20 * 86_400)
NAME = expiry_name("C1", EXPIRY_S)
TAU_S = EXPIRY_S - START_MS // 1_000


def add_expiry(exchange: Exchange, number: int = 1, expiry_s: int = EXPIRY_S) -> None:
    """An expiry of C1 with feeds that have no values yet."""
    view, name = exchange.view, expiry_name("C1", expiry_s)
    leaf = Expiry(b"C1".ljust(31, b"\0"), expiry_s, int(Status.LISTED), 0, 0, 0, 0, 0, 0)
    view.put(expiry_key(number), leaf)
    view.put(expiry_of_key(b"C1", expiry_s), ExpiryOf(number))
    view.put(name_key(FEED, name), Feed(expiry=number))
    view.put(name_key(RATE, name), RateFeed(expiry=number))
    view.put(name_key(SURFACE, name), Surface(expiry=number))
    view.put(pricing_key(number), Pricing())


def add_instrument(exchange: Exchange, kind: Kind, strike_uusd: int = 0, expiry_s: int = EXPIRY_S) -> int:
    """An instrument of expiry 1; its market."""
    view = exchange.view
    name = instrument_name("C1", expiry_s, kind, strike_uusd)
    dated = {"kind": int(kind), "strike_uusd": strike_uusd, "expiry_s": expiry_s, "expiry": 1}
    terms = instrument(name, "C1", **dated)
    system: System = view.get(SYSTEM_KEY)
    market = system.next_market
    system.next_market += 1
    view.touch(SYSTEM_KEY, system)
    view.put(instrument_key(market), terms)
    view.put(market_key(market), Market(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    view.put(name_key(MARKET_NAME, name), MarketName(market))
    return market


def flat(vol_ppm: int, forward_uusd: int = FORWARD, tau_s: int = TAU_S, name: str = NAME) -> SurfaceReport:
    """A surface of one volatility for all strikes."""
    variance = vol_ppm * vol_ppm * tau_s // (365 * 86_400)
    return SurfaceReport(name, variance, 0, 0, 0, 10**11, forward_uusd, tau_s, 900_000)


def report_of(
    exchange: Exchange,
    prices: dict[str, int] | None = None,
    rates: Sequence[Rate] = (),
    surfaces: Sequence[SurfaceReport] = (),
    ago_ms: int = 0,
) -> OracleReport:
    listed = tuple(Price(feed, value, 990_000) for feed, value in (prices or {}).items())
    return OracleReport(exchange.now_ms - ago_ms, listed, bytes(64), tuple(rates), tuple(surfaces))


def update_of(*reports: OracleReport) -> Transaction:
    """Signed by as many publishers."""
    digest = keccak(repr(reports).encode())
    return Transaction(OracleUpdate(reports), PUBLISHERS[: len(reports)], digest)


def full_report(exchange: Exchange, vol_ppm: int = 600_000, forward_uusd: int = FORWARD) -> OracleReport:
    """All feeds of the expiry and its index."""
    prices = {"C1": INDEX, "C1-PERPETUAL": INDEX, NAME: forward_uusd}
    rates = [Rate(NAME, 40_000_000, 950_000)]
    return report_of(exchange, prices, rates, [flat(vol_ppm, forward_uusd)])


def priced_exchange() -> Exchange:
    """Expiry 1 of C1 has all its values."""
    exchange = standard_exchange()
    add_expiry(exchange)
    exchange.now_ms += 1_000
    exchange.send(update_of(*[full_report(exchange)] * 3))
    return exchange
