"""Binary fixed point: the one number format of the calculation engine, and its elementary functions.

**Format.** A number is an integer of 2^-56 (`x56`): a signed 64-bit word, range +-128, resolution 1.4e-17.
Every quantity the engine works with has no unit (log-moneyness, total volatility, probability, a price as a
fraction of the forward), and every argument and result without a suffix is x56. Squares (variances, and
years, the square of a root) are `x112`, the exact product of two x56, up to 256 bits wide. Inside a function
a value may have more bits: `x57`, `x61`, `x62`, `x80` say how many. Results saturate at +-MAX, they never
wrap. `>>` rounds down also below zero; `mul` and all x62 products round to nearest, halves up.

**Functions** (worst error over the whole domain, in units of 2^-56, measured by tests/unit/test_fixed.py):

| function | domain | how | error |
|---|---|---|---|
| `exp` | all; 0 below -39.6, MAX above 4.85 | 2^floor(y) 2^frac(y), degree 12 | 0.5 + 0.07 of the value |
| `ln_ratio` | numerator, denominator 1..2^128 | octave, then 2 atanh((m-1)/(m+1)), 14 terms in x80 | 0.51 |
| `sqrt_x112` | 0..2^250 | integer square root, rounded down | 1 |
| `density` | all; 0 beyond 9 | 2^(log2(density(0)) - x^2 log2(e) / 2), as exp | 0.8 |
| `cdf` | all; 0 and 1 beyond 9 | density times Mills' ratio; cdf(x) + cdf(-x) = 1 exactly | 0.7 |
| `mills_x61` | 0..32, constant above | degree 13 in 24 segments: quarters to 2, then 4 an octave | 0.2 |

Each is monotone up to its error: between two arguments a result goes the wrong way by twice that at most.
The vector forms in state/vector_fixed.py give the same integers.
"""

from __future__ import annotations

from math import isqrt

from state.fixed_tables import (
    ATANH_X80,
    EXP2_X62,
    LN2_X80,
    LOG2_DENSITY_AT_0_X57,
    LOG2E_X62,
    LOG2E_X80,
    MILLS_X61,
    SQRT_HALF_X80,
)

BITS = 56
ONE = 1 << BITS
MAX = 2**63 - 1
"""Where results saturate: 128, less one unit."""
TAIL = 9 * ONE
"""Beyond it the density is less than half a unit, and taken as it is here."""
MILLS_END = 2**61 - 1
MAX_PRICE = 2**128
"""Of prices in any unit."""

_EXP2_TOP, *_EXP2_REST = reversed(EXP2_X62)
_MILLS = tuple((row[-1], row[-2::-1]) for row in MILLS_X61)
_ATANH_TOP, *_ATANH_REST = reversed(ATANH_X80)
_HALF_X56 = 1 << 55
_HALF_X62 = 1 << 61
_ONE_X62 = 1 << 62
_ONE_X80 = 1 << 80


def saturate(x: int) -> int:
    """x within +-MAX."""
    return MAX if x > MAX else -MAX if x < -MAX else x


def mul(a: int, b: int) -> int:
    """The product, to nearest; not saturated."""
    return (a * b + _HALF_X56) >> BITS


def ratio(numerator: int, denominator: int) -> int:
    """numerator / denominator to nearest, saturated; denominator > 0, both in the same unit."""
    return saturate(((numerator << (BITS + 1)) + denominator) // (denominator << 1))


def sqrt_x112(x_x112: int) -> int:
    """The root of a square, rounded down, saturated; 0 for what is negative."""
    return min(isqrt(x_x112), MAX) if x_x112 > 0 else 0


def exp2_fraction_x62(f_x62: int) -> int:
    """2^(f - 1) for 0 <= f < 1."""
    t = (f_x62 << 1) - _ONE_X62
    p = _EXP2_TOP
    for c in _EXP2_REST:
        p = c + ((p * t + _HALF_X62) >> 62)
    return p


def exp(x: int) -> int:
    """e^x, to nearest; 0 where it is below half a unit, MAX where it is above."""
    y_x80 = (saturate(x) * LOG2E_X80) >> BITS
    n = y_x80 >> 80
    if n > 6:
        return MAX
    fraction_x62 = exp2_fraction_x62((y_x80 & (_ONE_X80 - 1)) >> 18)
    shift = 5 - n
    if shift < 1:
        return min(fraction_x62 << -shift, MAX)
    return (fraction_x62 + (1 << (shift - 1))) >> shift


def ln_ratio(numerator: int, denominator: int) -> int:
    """ln(numerator / denominator), to nearest; both in 1..MAX_PRICE."""
    octave = numerator.bit_length() - denominator.bit_length()
    shift = 80 - octave
    mantissa = (numerator << shift) // denominator if shift >= 0 else numerator // (denominator << -shift)
    if mantissa < SQRT_HALF_X80:
        mantissa <<= 1
        octave -= 1
    elif mantissa > SQRT_HALF_X80 << 1:
        octave += 1
        mantissa >>= 1
    z = ((mantissa - _ONE_X80) << 80) // (mantissa + _ONE_X80)
    square = z * z >> 80
    p = _ATANH_TOP
    for c in _ATANH_REST:
        p = c + (p * square >> 80)
    return (octave * LN2_X80 + (z * p >> 79) + (1 << 23)) >> 24


def ln(x: int) -> int:
    """ln(x) for x > 0; -MAX for what is not."""
    return ln_ratio(x, ONE) if x > 0 else -MAX


def density_x62(z: int) -> int:
    """The normal density at 0 <= z <= TAIL."""
    y_x57 = LOG2_DENSITY_AT_0_X57 - ((((z * z) >> BITS) * LOG2E_X62 + _HALF_X62) >> 62)
    t = ((y_x57 & ((1 << 57) - 1)) << 6) - _ONE_X62
    p = _EXP2_TOP
    for c in _EXP2_REST:
        p = c + ((p * t + _HALF_X62) >> 62)
    return p >> (-1 - (y_x57 >> 57))


def mills_x61(z: int) -> int:
    """Mills' ratio (1 - cdf(z)) / density(z) for z >= 0; above 32 its value there."""
    z = min(z, MILLS_END)
    length = max(z.bit_length(), 57)
    p, rest = _MILLS[4 * (length - 57) + (z >> (length - 3))]
    t = ((z & ((1 << (length - 3)) - 1)) << (66 - length)) - _ONE_X62
    for c in rest:
        p = c + ((p * t + _HALF_X62) >> 62)
    return p


def density(x: int) -> int:
    """The normal density."""
    return (density_x62(min(abs(x), TAIL)) + 32) >> 6


def cdf(x: int) -> int:
    """The normal distribution function."""
    z = min(abs(x), TAIL)
    tail_x61 = (density_x62(z) * mills_x61(z) + _HALF_X62) >> 62
    tail = (tail_x61 + 16) >> 5
    return ONE - tail if x > 0 else tail
