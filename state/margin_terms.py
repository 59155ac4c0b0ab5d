"""Margin parameters of an underlying: their bounds, and the grid made from them.

The governor sets them by SET_MARGIN; an underlying without a MARGIN leaf has the defaults
(`margin_defaults`). The bounds see to it that margin behaves: maintenance margin is no more than initial,
what is owned is discounted and what is owed is not, and an order can only add to what must be held. Grids are
remembered in memory by the leaf's encoding, which decides nothing.

- iMARGIN_021 With parameters within the bounds the long static factor is at most the short one.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from state.errors import RejectCode, Rejected
from state.fixed import BITS, ONE
from state.keys import MARGIN
from state.leaves import MarginTerms
from state.margin_defaults import DEFAULTS_PPM, default_parameters, from_ppm
from state.risk_grid import MAX_SCENARIOS, Grid, MarginParameters, Scenario, Vol, make_grid
from state.units import PPM
from state.view import StateView

_MARGIN: Final = bytes((MARGIN,))
_MAX_SPOT_PPM: Final = 32 * PPM
_BOUNDS_PPM: Final = {
    "range_up": (0, 10 * PPM),
    "range_down": (0, PPM),
    "floor_up": (0, 10 * PPM),
    "power_short": (0, PPM),
    "power_long": (0, PPM),
    "days_floor": (0, 100 * PPM),
    "im_factor": (PPM // 10, 10 * PPM),
    "mm_factor": (PPM // 100, 10 * PPM),
    "static_long": (0, PPM),
    "static_short": (PPM, 2 * PPM),
    "long_rate_mult": (0, 10 * PPM),
    "long_rate_add": (0, 10 * PPM),
    "short_rate_mult": (0, 10 * PPM),
    "short_rate_add": (0, 10 * PPM),
    "basis_up": (PPM, 2 * PPM),
    "basis_down": (0, PPM),
    "basis_add": (0, 10 * PPM),
    "basis_mult": (0, 10 * PPM),
    "mm_perp": (0, PPM),
    "im_perp": (0, PPM),
    "mm_option": (0, PPM),
    "im_option": (0, PPM),
    "confidence_threshold": (0, PPM),
    "confidence_margin": (0, 10 * PPM),
    "peg_threshold": (0, PPM),
    "peg_factor": (0, 100 * PPM),
    "linear_cap": (0, PPM),
    "linear_base": (-PPM, PPM),
    "abs_cap": (0, PPM),
    "abs_base": (-PPM, PPM),
    "min_k_star": (1, 10 * PPM),
    "width_scale": (0, 100 * PPM),
    "vol_static": (0, 10 * PPM),
    "vol_scale": (-10 * PPM, 10 * PPM),
}
assert list(_BOUNDS_PPM) == list(DEFAULTS_PPM)


class Grids:
    """One underlying's grid, and what a perpetual needs of it."""

    def __init__(self, key: bytes, parameters: MarginParameters) -> None:
        self.key: bytes = key
        """Tells it from all others: the leaf's encoding, empty for the defaults."""
        self.grid: Grid = make_grid(parameters)
        moves = [move * damp for move, damp in zip(self.grid.moves, self.grid.damps, strict=True)]
        self.up: int = max(0, *moves)
        """The largest damped move of the spot, x112; and down."""
        self.down: int = max(0, *[-move for move in moves])
        self.up_ppm: int = -(-self.up * PPM >> 2 * BITS)
        """The same in millionths, rounded up."""
        self.down_ppm: int = -(-self.down * PPM >> 2 * BITS)
        self.im_factor: int = parameters.im_factor
        self.mm_factor: int = parameters.mm_factor
        self.mm_perp: int = parameters.mm_perp
        self.im_perp: int = parameters.im_perp
        self.threshold_ppm: int = -(-parameters.confidence_threshold * PPM // ONE)
        """Below it prices are not trusted."""
        loss = max(self.up, self.down) >> BITS
        mm = self.mm_perp
        self.initial_ppm: int = _ppm((loss * self.im_factor >> BITS) + mm + self.im_perp)
        """What a perpetual alone requires of its notional: to tell people, rounded up."""
        self.maintenance_ppm: int = _ppm((loss * self.mm_factor >> BITS) + mm)


def _ppm(value: int) -> int:
    return -(-value * PPM // ONE)


DEFAULT_GRIDS: Final = Grids(b"", default_parameters())


def margin_key(underlying: bytes) -> bytes:
    """Of the parameters of an underlying, its name padded to 31 bytes."""
    return _MARGIN + underlying


def grids_of(view: StateView, underlying: bytes) -> Grids:
    """Of an underlying's name, padded to 31 bytes."""
    leaf: MarginTerms | None = view.get(margin_key(underlying))
    return DEFAULT_GRIDS if leaf is None else _grids(leaf.encode())


@lru_cache(64)
def _grids(encoded: bytes) -> Grids:
    return Grids(encoded, parameters_of(MarginTerms.decode(encoded)))


def parameters_of(terms: MarginTerms) -> MarginParameters:
    """The engine's parameters."""
    scenarios = tuple(
        [Scenario(from_ppm(spot), Vol(vol), from_ppm(damp)) for spot, vol, damp in terms.scenarios]
    )
    values = [from_ppm(value) for value in terms.values]
    return MarginParameters(scenarios, *values)


def check_margin_terms(terms: MarginTerms) -> None:
    """Raises Rejected BAD_PARAMETERS naming what is out of bounds."""
    good = 1 <= len(terms.scenarios) <= MAX_SCENARIOS
    for spot, vol, damp in terms.scenarios:
        good = good and spot <= _MAX_SPOT_PPM and vol <= Vol.ABS and damp <= PPM
    if not good:
        raise Rejected(RejectCode.BAD_PARAMETERS, field="scenarios")
    values = dict(zip(_BOUNDS_PPM, terms.values, strict=True))
    for name, (lowest, highest) in _BOUNDS_PPM.items():
        if not lowest <= values[name] <= highest:
            raise Rejected(RejectCode.BAD_PARAMETERS, field=name)
    if values["mm_factor"] > values["im_factor"]:
        raise Rejected(RejectCode.BAD_PARAMETERS, field="mm_factor")
