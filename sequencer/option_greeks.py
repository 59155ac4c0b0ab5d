"""Volatilities and Greeks of listed options, by the exchange's own engine, in the units that people use.

Everything follows from an expiry's pricing snapshot, which holds also marks and margins; nothing here decides
anything, so results are floats. As usual on crypto options venues: delta is undiscounted and for one coin,
gamma its change for a dollar, vega and rho dollars for one percentage point, theta dollars for a day,
at unchanged volatility and forward.
"""

from __future__ import annotations

import msgspec

from state.black76 import greeks, implied_total_vol
from state.expiry_books import book_of
from state.fixed import BITS, ONE
from state.leaves import Instrument, Kind, Pricing
from state.margin_terms import DEFAULT_GRIDS
from state.risk_grid import Expiry
from state.svi import total_vol

MILLION = 1_000_000
DAYS_OF_A_YEAR = 365
PERCENT = 100
_ONE_X112 = ONE << BITS


class Greeks(msgspec.Struct, frozen=True):
    """Of one coin of an option, or of a portfolio of them."""

    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float


def expiry_of(pricing: Pricing, terms: Instrument) -> Expiry:
    """The engine's view of an instrument's expiry. The snapshot must know the forward."""
    return book_of(pricing, terms.expiry, terms.expiry_s, DEFAULT_GRIDS).expiry


def mark_volatility(expiry: Expiry, strike_uusd: int) -> float | None:
    """In percent a year; None in the last instant."""
    if expiry.root == 0:
        return None
    return total_vol(expiry.svi, strike_uusd, expiry.years_x112) / expiry.root * PERCENT


def implied_volatility(expiry: Expiry, terms: Instrument, price_uusd: int | None) -> float | None:
    """The volatility, in percent a year, at which the option has this price; 0 at or below what it is worth
    exercised; None without a price."""
    if expiry.root == 0 or not price_uusd:
        return None
    undiscounted = (price_uusd << BITS) // expiry.discount
    found = implied_total_vol(undiscounted, expiry.forward, terms.strike_uusd, terms.kind == Kind.CALL)
    return found / expiry.root * PERCENT


def option_greeks(expiry: Expiry, terms: Instrument, mark_uusd: int) -> Greeks:
    """Of one coin."""
    vol = total_vol(expiry.svi, terms.strike_uusd, expiry.years_x112)
    found = greeks(expiry.forward, terms.strike_uusd, vol, expiry.years_x112)
    forward = expiry.forward / MILLION
    years = expiry.years_x112 / _ONE_X112
    is_call = terms.kind == Kind.CALL
    return Greeks(
        delta=(found.delta if is_call else found.delta - ONE) / ONE,
        gamma=found.gamma_of_forward / ONE / forward,
        vega=found.vega_of_forward / ONE * forward * expiry.discount / ONE / PERCENT,
        theta=found.theta_of_forward / ONE * forward * expiry.discount / ONE / DAYS_OF_A_YEAR,
        rho=-years * mark_uusd / MILLION / PERCENT,
    )
