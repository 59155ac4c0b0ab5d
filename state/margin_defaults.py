"""The margin parameters an exchange starts with: the published 33-scenario grid, in millionths."""

from __future__ import annotations

from state.fixed import ratio
from state.risk_grid import MarginParameters, Scenario, Vol
from state.units import PPM

REGULAR_MOVES_PPM = (1_135_000, 1_090_000, 1_045_000, 1_000_000, 955_000, 910_000, 865_000)
TAIL_MOVES_PPM = (
    (340_000, 210_000),
    (670_000, 420_000),
    (1_500_000, 277_200),
    (2_000_000, 138_600),
    (3_000_000, 69_300),
    (4_000_000, 46_200),
    (5_000_000, 34_650),
    (6_000_000, 27_720),
)
"""Spot and damping."""
DEFAULTS_PPM = {
    "range_up": 500_000,
    "range_down": 275_000,
    "floor_up": 400_000,
    "power_short": 300_000,
    "power_long": 130_000,
    "days_floor": 1_000_000,
    "im_factor": 1_000_000,
    "mm_factor": 800_000,
    "static_long": 980_000,
    "static_short": 1_020_000,
    "long_rate_mult": 0,
    "long_rate_add": 160_000,
    "short_rate_mult": 0,
    "short_rate_add": 160_000,
    "basis_up": 1_045_000,
    "basis_down": 955_000,
    "basis_add": 500_000,
    "basis_mult": 2_000_000,
    "mm_perp": 30_000,
    "im_perp": 10_000,
    "mm_option": 3_000,
    "im_option": 2_000,
    "confidence_threshold": 550_000,
    "confidence_margin": 1_000_000,
    "peg_threshold": 990_000,
    "peg_factor": 4_000_000,
    "linear_cap": 250_000,
    "linear_base": -100_000,
    "abs_cap": 250_000,
    "abs_base": -100_000,
    "min_k_star": 10_000,
    "width_scale": 4_000_000,
    "vol_static": 600_000,
    "vol_scale": 0,
}


def from_ppm(value_ppm: int) -> int:
    """Millionths as x56, to nearest, saturated."""
    return ratio(value_ppm, PPM)


def default_scenarios() -> tuple[Scenario, ...]:
    """The grid, in its published order."""
    grid = [(1_180_000, Vol.UP, PPM)]
    grid += [(move, vol, PPM) for move in REGULAR_MOVES_PPM for vol in (Vol.UP, Vol.NONE, Vol.DOWN)]
    grid.append((820_000, Vol.UP, PPM))
    grid += [(move, Vol.UP, damp) for move, damp in TAIL_MOVES_PPM]
    grid += [(PPM, Vol.LINEAR, PPM), (PPM, Vol.ABS, PPM)]
    return tuple(Scenario(from_ppm(spot), vol, from_ppm(damp)) for spot, vol, damp in grid)


def default_parameters() -> MarginParameters:
    """All defaults."""
    return MarginParameters(
        scenarios=default_scenarios(), **{name: from_ppm(value) for name, value in DEFAULTS_PPM.items()}
    )
