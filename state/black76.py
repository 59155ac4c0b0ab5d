"""Black-76 on futures: price, Greeks, implied volatility, in the fixed point of state/fixed.py.

Everything follows from one number, the price of the option that is out of the money as a fraction of the
smaller of forward and strike. With L = |ln(strike / forward)|, total volatility w = vol * sqrt(years), h =
w/2 - L/w and u = w/2 + L/w it is, by the symmetry of call and put,

    otm = cdf(h) - density(h) * mills(u)        = density(h) * (mills(-h) - mills(u)) where h <= 0

which never subtracts what is larger than 1, however far the strike is from the forward: the absolute error is
at most 1.5 * 2^-56 of the smaller of the two. The option in the money is worth `otm` plus the exact
difference of forward and strike, so parity of put and call holds exactly.

Prices are integers in any one unit below MAX_PRICE. Limits: w = 0 is the pay-off; w >= MAX_TOTAL_VOL a call
worth the forward. Nothing is discounted: the caller multiplies by the discount factor.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

from state.fixed import (
    BITS,
    MAX,
    ONE,
    TAIL,
    cdf,
    density_x62,
    ln_ratio,
    mills_x61,
    mul,
    saturate,
)

MAX_TOTAL_VOL = 24 * ONE
FREE_STEPS = 10
MAX_IMPLIED_STEPS = FREE_STEPS + 2 * 62
GREEK_LIMIT = 2**119
"""Where gamma and theta saturate: both go to infinity with the last second."""
_ONE_X61 = 1 << 61
_HALF_X62 = 1 << 61


class Divisor(NamedTuple):
    """A total volatility with what division by it needs."""

    total_vol: int
    shift: int
    reciprocal: int


class Greeks(NamedTuple):
    """Of the call, undiscounted, all x56. The put's delta is delta - ONE; the others are the same."""

    delta: int
    gamma_of_forward: int
    """Change of delta for a relative change of the forward: gamma * forward."""
    vega_of_forward: int
    """Vega / forward, per 1.00 of annual volatility."""
    theta_of_forward: int
    """Theta / forward, per year; not above 0."""


def divisor(total_vol: int) -> Divisor:
    """For total_vol from 0; what is above MAX_TOTAL_VOL counts as that."""
    total_vol = min(total_vol, MAX_TOTAL_VOL)
    shift = max(58 - total_vol.bit_length(), 0)
    return Divisor(total_vol, shift, min((1 << (120 - shift)) // max(total_vol, 1), MAX))


def distances(distance: int, by: Divisor) -> tuple[int, int] | None:
    """(h, u) for L = distance >= 0; None where L / w is 32 or more, and nothing is left of the price."""
    if distance >> 5 >= by.total_vol:
        return None
    quotient = ((distance << by.shift) * by.reciprocal) >> 64
    h = (by.total_vol >> 1) - quotient
    return h, by.total_vol - h


def otm_fraction(distance: int, by: Divisor) -> int:
    """The price out of the money as a fraction of min(forward, strike), 0..ONE; distance = |ln(strike /
    forward)|."""
    if by.total_vol >= MAX_TOTAL_VOL:
        return ONE
    both = distances(distance, by)
    if both is None:
        return 0
    h, u = both
    z = min(abs(h), TAIL)
    near, far = mills_x61(z), mills_x61(u)
    start, tails = (_ONE_X61, -near - far) if h > 0 else (0, near - far)
    price_x61 = start + ((density_x62(z) * tails + _HALF_X62) >> 62)
    return min(max((price_x61 + 16) >> 5, 0), ONE)


def black76(forward: int, strike: int, total_vol: int) -> tuple[int, int]:
    """(call, put) in the unit of forward and strike, to nearest; both of these in 1..MAX_PRICE."""
    fraction = otm_fraction(abs(ln_ratio(strike, forward)), divisor(total_vol))
    otm = mul(fraction, min(forward, strike))
    return otm + max(forward - strike, 0), otm + max(strike - forward, 0)


def greeks(forward: int, strike: int, total_vol: int, years_x112: int) -> Greeks:
    """Absolute errors, with e = 2^-56 (2 + 1 / w) since d1 is a quotient by w: of delta e, of
    gamma_of_forward e / w, of vega_of_forward e sqrt(years), of theta_of_forward e w / years; and one unit of
    rounding."""
    by = divisor(total_vol)
    distance = ln_ratio(strike, forward)
    both = distances(abs(distance), by)
    if both is None:
        return Greeks(ONE if distance < 0 else 0 if distance > 0 else ONE >> 1, 0, 0, 0)
    h, u = both
    d1 = h if distance > 0 else u
    density = density_x62(min(abs(d1), TAIL))
    root = min(isqrt(years_x112), MAX)
    return Greeks(
        delta=cdf(d1),
        gamma_of_forward=min((density << 50) // by.total_vol, GREEK_LIMIT),
        vega_of_forward=(density * root + _HALF_X62) >> 62,
        theta_of_forward=-min((density * by.total_vol << 49) // max(years_x112, 1), GREEK_LIMIT),
    )


def implied_total_vol(price: int, forward: int, strike: int, is_call: bool) -> int:
    """The total volatility at which `black76` gives `price`, undiscounted; 0 at or below the pay-off,
    MAX_TOTAL_VOL at or above the bound (the forward for a call, the strike for a put).

    Its price differs from the one asked for by 3 * 2^-56 of min(forward, strike) at most, besides that one's
    unit.
    """
    smaller = min(forward, strike)
    payoff = max(forward - strike, 0) if is_call else max(strike - forward, 0)
    wanted = (((price - payoff) << (BITS + 1)) + smaller) // (smaller << 1)
    if wanted <= 0:
        return 0
    if wanted >= ONE:
        return MAX_TOTAL_VOL
    return _solve(abs(ln_ratio(strike, forward)), wanted)


def _solve(distance: int, wanted: int) -> int:
    """A total volatility whose otm_fraction is `wanted`, give or take one unit, by Newton's steps in a
    bracket.

    It starts where vega is greatest, w = sqrt(2 L). Below, the price is convex in w and falls off faster than
    any power: there the step is Newton's for the logarithm of the price. A step that would leave the bracket,
    and after FREE_STEPS every second one, halves it instead; so MAX_IMPLIED_STEPS are enough for its 61 bits.
    """
    low, high = 0, MAX_TOTAL_VOL
    turn = isqrt(distance << (BITS + 1))
    guess = min(max(turn, ONE >> 4), MAX_TOTAL_VOL - 1)
    for step in range(MAX_IMPLIED_STEPS):
        by = divisor(guess)
        found = otm_fraction(distance, by)
        if abs(found - wanted) <= 1 or high - low <= 1:
            break
        if found > wanted:
            high = guess
        else:
            low = guess
        halve = step >= FREE_STEPS and step % 2 == 1
        target = 0 if halve else _newton(distance, by, found, wanted, guess < turn)
        guess = target if low < target < high else (low + high) >> 1
    return guess


def _newton(distance: int, by: Divisor, found: int, wanted: int, logarithmic: bool) -> int:
    """Where the tangent meets the wanted price; 0 where there is none."""
    both = distances(distance, by)
    vega_x62 = density_x62(min(abs(both[0]), TAIL)) if both else 0
    if vega_x62 == 0 or found == 0:
        return 0
    gap = mul(found, ln_ratio(wanted, found)) if logarithmic else wanted - found
    return by.total_vol + saturate((gap << 62) // vega_x62)
