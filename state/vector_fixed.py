"""Prices for many options at once: state/fixed.py and state/black76.py on vectors of 64-bit words.

Every function gives the same integers as the one of its name there, element by element. numpy has no product
of 128 bits: `_Factor` makes it of four products of halves, and keeps the halves of an operand that is used
again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from state.black76 import MAX_TOTAL_VOL
from state.fixed import BITS, MILLS_END, ONE, TAIL
from state.fixed_tables import EXP2_X62, LOG2_DENSITY_AT_0_X57, LOG2E_X62, MILLS_X61

Vector = np.ndarray[Any, np.dtype[np.int64]]
_LOW = (1 << 32) - 1
_ONE_X61 = 1 << 61
_ONE_X62 = 1 << 62
_EXP2 = EXP2_X62[::-1]
_MILLS = np.array(MILLS_X61, dtype=np.int64).T[::-1].copy()
"""Highest power first, a column for each segment."""


class VectorDivisor(NamedTuple):
    """`Divisor` of each element."""

    total_vol: Vector
    shift: Vector
    reciprocal: Vector


class _Factor:
    """One operand of products; `low` and `high` halves."""

    __slots__ = ("high", "low")

    def __init__(self, value: Vector) -> None:
        self.low = value & _LOW
        self.high = value >> 32

    def _times(self, other: _Factor) -> tuple[Vector, Vector]:
        """The product's upper word, and a word whose low half is the upper half of its lower word."""
        bottom = ((self.low * other.low).view(np.uint64) >> np.uint64(32)).view(np.int64)
        bottom += self.low * other.high
        middle = self.high * other.low
        middle += bottom & _LOW
        bottom >>= 32
        upper = self.high * other.high
        upper += bottom
        upper += middle >> 32
        middle &= _LOW
        return upper, middle

    def rounded(self, other: Vector, shift: int) -> Vector:
        """(self * other + 2^(shift - 1)) >> shift, for 32 < shift < 64 and results of 64 bits."""
        upper, middle = self._times(_Factor(other))
        middle += 1 << (shift - 33)
        middle >>= shift - 32
        upper <<= 64 - shift
        upper += middle
        return upper

    def down(self, other: _Factor, shift: int) -> Vector:
        """(self * other) >> shift, for 32 < shift <= 64 and results of 64 bits."""
        upper, middle = self._times(other)
        if shift == 64:
            return upper
        return (upper << (64 - shift)) + (middle >> (shift - 32))


def mul(a: Vector, b: Vector) -> Vector:
    """Products of x56, to nearest, where they fit 64 bits."""
    return _Factor(a).rounded(b, BITS)


def density_x62(z: Vector) -> Vector:
    """The normal density at 0 <= z <= TAIL."""
    half = _Factor(z)
    y_x57 = LOG2_DENSITY_AT_0_X57 - _Factor(half.down(half, BITS)).rounded(np.int64(LOG2E_X62), 62)  # type: ignore[arg-type]
    t = _Factor(((y_x57 & ((1 << 57) - 1)) << 6) - _ONE_X62)
    p = np.full(z.shape, _EXP2[0], dtype=np.int64)
    for c in _EXP2[1:]:
        p = t.rounded(p, 62)
        p += c
    p >>= -1 - (y_x57 >> 57)
    return p


def mills_x61(z: Vector) -> Vector:
    """Mills' ratio for z >= 0."""
    z = np.minimum(z, MILLS_END)
    octave = (z >= 1 << 57).astype(np.int64)
    for bits in (58, 59, 60):
        octave += z >= 1 << bits
    segment = (z >> (octave + 54)) + 4 * octave
    below = (np.int64(1) << (octave + 54)) - 1
    t = _Factor(((z & below) << (9 - octave)) - _ONE_X62)
    p: Vector = _MILLS[0][segment]
    for row in _MILLS[1:]:
        p = t.rounded(p, 62)
        p += row[segment]
    return p


def otm_fraction(distance: Vector, by: VectorDivisor) -> Vector:
    """The price out of the money as a fraction of min(forward, strike); distance >= 0."""
    w = by.total_vol
    nothing = (distance >> 5) >= w
    everything = w >= MAX_TOTAL_VOL
    near = np.where(nothing | everything, 0, distance) << by.shift
    h = (w >> 1) - _Factor(near).down(_Factor(by.reciprocal), 64)
    z = np.minimum(np.abs(h), TAIL)
    likely = h > 0
    own = mills_x61(z)
    tails = np.where(likely, -own, own) - mills_x61(w - h)
    price = _Factor(density_x62(z)).rounded(tails, 62)
    price += np.where(likely, _ONE_X61, 0)
    price += 16
    price >>= 5
    np.clip(price, 0, ONE, out=price)
    price[nothing] = 0
    price[everything] = ONE
    return price
