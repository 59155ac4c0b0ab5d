"""Risk arrays of whole chains: the integers of state/risk_array.py, made for all strikes and points together.

What belongs to one strike (its log-moneyness, its total volatilities and what divides by them) is computed
once in plain integers and shared by call and put; the price, of a strike at a point, on vectors.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from state.black76 import divisor
from state.lanes import LANE_BYTES, make_lanes
from state.risk_array import RiskArray, StrikeTerms, make_risk_array, strike_terms
from state.risk_grid import Expiry, Grid
from state.vector_fixed import Vector, VectorDivisor, mul, otm_fraction

SLICE = 256
"""Strikes at a time: the vectors of a slice stay in the processor's cache."""
FEW = 3
"""So many strikes are quicker one by one."""
_OFFSET = 1 << 61
"""No value is below minus this."""


def make_risk_arrays(
    grid: Grid, chain: Sequence[tuple[Expiry, Sequence[tuple[int, bool]]]]
) -> list[list[RiskArray]]:
    """The arrays of (strike, is_call) options by expiry, each equal to `make_risk_array` of it."""
    places: list[dict[int, int]] = []
    terms: list[StrikeTerms] = []
    rows: list[int] = []
    for number, (expiry, options) in enumerate(chain):
        strikes = dict.fromkeys(strike for strike, _ in options)
        places.append({strike: len(terms) + place for place, strike in enumerate(strikes)})
        terms += [strike_terms(expiry, strike) for strike in strikes]
        rows += [number] * len(strikes)
    if len(terms) <= FEW:
        return [[make_risk_array(expiry, grid, *option) for option in options] for expiry, options in chain]
    forwards = np.array([expiry.forwards for expiry, _ in chain], dtype=np.int64)[rows]
    logs = np.array([expiry.logs for expiry, _ in chain], dtype=np.int64)[rows]
    slices = [slice(begin, begin + SLICE) for begin in range(0, len(terms), SLICE)]
    calls = np.concatenate([_calls(grid, terms[part], forwards[part], logs[part]) for part in slices])
    puts = calls - forwards
    parts = {True: (calls.tolist(), _rows(calls)), False: (puts.tolist(), _rows(puts))}
    found = []
    for (_, options), place in zip(chain, places, strict=True):
        arrays = []
        for strike, is_call in options:
            number = place[strike]
            values, rows_of_kind = parts[is_call]
            put_strike = 0 if is_call else strike
            arrays.append(RiskArray(strike, put_strike, tuple(values[number]), rows_of_kind[number]))
        found.append(arrays)
    return found


def _rows(values: Vector) -> list[int]:
    """`pack` of each row: every value above zero by its offset, in the low bytes of its lane."""
    strikes, points = values.shape
    wide = np.zeros((strikes, points, LANE_BYTES), dtype=np.uint8)
    wide[..., :8] = (values + _OFFSET).astype("<i8")[..., None].view(np.uint8)
    offsets = make_lanes(points).ones * _OFFSET
    return [int.from_bytes(row.tobytes(), "little") - offsets for row in wide]


def _calls(grid: Grid, terms: list[StrikeTerms], forwards: Vector, logs: Vector) -> Vector:
    """`call_fraction` of each strike at each point."""
    kinds = [point.vol for point in grid.points]
    divisors = np.array([[divisor(vol) for vol in each.vols] for each in terms], dtype=np.int64)[:, kinds]
    by = VectorDivisor(divisors[..., 0], divisors[..., 1], divisors[..., 2])
    k = np.array([each.log_moneyness for each in terms], dtype=np.int64)[:, None]
    moneyness = np.array([each.moneyness for each in terms], dtype=np.int64)[:, None]
    otm: Vector = mul(otm_fraction(np.abs(k - logs), by), np.minimum(forwards, moneyness))
    otm += np.maximum(forwards - moneyness, 0)
    return otm
