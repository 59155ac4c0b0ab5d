"""The margin grid: its parameters, the points at which every option is valued, and what an expiry adds to
them.

A *scenario* moves the spot and the volatility and has a damping factor. A *point* is what the price of an
option depends on in it: the spot's move and the kind of volatility. Mark, the two basis shocks and all
scenarios share points where they can (33 points in the published grid), and each option is valued once at
each point.

All parameters are data, x56 numbers of state/fixed.py; prices are integers in any one unit.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import NamedTuple

from state.fixed import BITS, MAX, ONE, exp, ln_ratio, mul, ratio, saturate, sqrt_x112
from state.svi import Svi

YEAR_S = 365 * 86_400
MONTH_S = 30 * 86_400
DAY_S = 86_400
SETTLEMENT_TWAP_S = 1_800
"""Over which the settlement price is averaged; inside it the part that has passed is fixed."""
MAX_SCENARIOS = 64
MAX_SPOT_SHOCK = 32 * ONE
MAX_SECONDS_X56 = 100 * YEAR_S << BITS
LN_OF_NOTHING = -64 * ONE
"""Stands for the logarithm of a forward of 0."""
_HALF_X112 = 1 << 111


class Vol(IntEnum):
    """What happens to volatility. The last two are skews: they leave the spot alone."""

    NONE = 0
    UP = 1
    DOWN = 2
    LINEAR = 3
    ABS = 4


SKEWS = (Vol.LINEAR, Vol.ABS)


class Scenario(NamedTuple):
    spot: int
    vol: Vol
    damp: int


class Point(NamedTuple):
    spot: int
    vol: Vol


@dataclass(frozen=True, slots=True)
class MarginParameters:
    """x56 all of them; names are those of PROTOCOL.md, section 12. Raises ValueError naming what is out of
    bounds."""

    scenarios: tuple[Scenario, ...]
    range_up: int
    range_down: int
    floor_up: int
    power_short: int
    power_long: int
    days_floor: int
    im_factor: int
    mm_factor: int
    static_long: int
    static_short: int
    long_rate_mult: int
    long_rate_add: int
    short_rate_mult: int
    short_rate_add: int
    basis_up: int
    basis_down: int
    basis_add: int
    basis_mult: int
    mm_perp: int
    im_perp: int
    mm_option: int
    im_option: int
    confidence_threshold: int
    confidence_margin: int
    peg_threshold: int
    peg_factor: int
    linear_cap: int
    linear_base: int
    abs_cap: int
    abs_base: int
    min_k_star: int
    width_scale: int
    vol_static: int
    vol_scale: int

    def __post_init__(self) -> None:
        if not 1 <= len(self.scenarios) <= MAX_SCENARIOS:
            raise ValueError(f"scenarios: 1 to {MAX_SCENARIOS}, got {len(self.scenarios)}")
        for number, scenario in enumerate(self.scenarios):
            if not (0 <= scenario.spot <= MAX_SPOT_SHOCK and 0 <= scenario.damp <= MAX):
                raise ValueError(f"scenarios: number {number} is out of bounds")
        for field in fields(self)[1:]:
            if abs(getattr(self, field.name)) > MAX:
                raise ValueError(f"{field.name}: out of bounds")
        for name in ("basis_up", "basis_down"):
            if not 0 <= getattr(self, name) <= MAX_SPOT_SHOCK:
                raise ValueError(f"{name}: out of bounds")
        if self.min_k_star <= 0:
            raise ValueError("min_k_star: not above 0")


@dataclass(frozen=True, slots=True)
class Grid:
    """Parameters with their points; `places` says at which point each scenario values options."""

    parameters: MarginParameters
    points: tuple[Point, ...]
    mark: int
    basis_up: int
    basis_down: int
    places: tuple[int, ...]
    moves: tuple[int, ...]
    """Of the spot, by scenario: shock less 1."""
    damps: tuple[int, ...]
    spots: tuple[int, ...]
    """Shocked forwards by point, while nothing of the settlement average is fixed."""
    logs: tuple[int, ...]
    """ln of `spots`."""
    skews: tuple[int, ...]
    """Points that are skews."""


def make_grid(parameters: MarginParameters) -> Grid:
    """Points in the order: mark, basis up, basis down, then of the scenarios; equal ones once."""
    shocks = (ONE, parameters.basis_up, parameters.basis_down)
    wanted = [Point(spot, Vol.NONE) for spot in shocks]
    wanted += [Point(ONE if s.vol in SKEWS else s.spot, s.vol) for s in parameters.scenarios]
    points = tuple(dict.fromkeys(wanted))
    mark, up, down, *places = [points.index(point) for point in wanted]
    moves = tuple(scenario.spot - ONE for scenario in parameters.scenarios)
    damps = tuple(scenario.damp for scenario in parameters.scenarios)
    spots = tuple(point.spot for point in points)
    skews = tuple(place for place, point in enumerate(points) if point.vol in SKEWS)
    return Grid(parameters, points, mark, up, down, tuple(places), moves, damps, spots, _logs(spots), skews)


def _logs(forwards: tuple[int, ...]) -> tuple[int, ...]:
    found = {f: ln_ratio(f, ONE) if f > 0 else LN_OF_NOTHING for f in forwards}
    return tuple(found[f] for f in forwards)


class ExpiryMarket(NamedTuple):
    """What the oracle says of an expiry at one moment. Confidences are 0..ONE."""

    seconds_x56: int
    """Until expiry; below 0 counts as 0."""
    forward: int
    rate: int
    svi: Svi
    forward_confidence: int = ONE
    rate_confidence: int = ONE
    vol_confidence: int = ONE
    live: int | None = None
    """The part of the forward that can still move; None: by the time, as if the average went with it."""


@dataclass(frozen=True, slots=True)
class Expiry:
    """What all options of an expiry share under one grid."""

    forward: int
    confidence: int
    """The weakest of forward, rate and volatility; with the forward's own."""
    forward_confidence: int
    svi: Svi
    years_x112: int
    root: int
    """sqrt(years)."""
    live: int
    """The part of the forward that moves with the spot."""
    discount: int
    vol_up: int
    vol_down: int
    floor_up: int
    """The least total volatility of Vol.UP."""
    linear_cap: int
    abs_cap: int
    k_star: int
    long_factor: int
    """Static discount of what is worth something, times `discount`."""
    short_factor: int
    basis_weight: int
    forwards: tuple[int, ...]
    """The forward at each point as a fraction of the forward."""
    logs: tuple[int, ...]
    """ln of `forwards`."""


def shocked_forward(live: int, spot: int) -> int:
    """As a fraction of the forward: what is open moves with the spot, what is averaged does not."""
    return mul(live, spot) + ONE - live


def make_expiry(market: ExpiryMarket, grid: Grid) -> Expiry:
    """The factors of an expiry. Raises ValueError if forward or time is out of bounds."""
    p = grid.parameters
    if market.seconds_x56 > MAX_SECONDS_X56 or market.forward <= 0:
        raise ValueError("time to expiry or forward out of bounds")
    seconds_x56 = max(market.seconds_x56, 0)
    years_x112 = (seconds_x56 << BITS) // YEAR_S
    root = sqrt_x112(years_x112)
    live = min(ratio(seconds_x56, SETTLEMENT_TWAP_S << BITS), ONE) if market.live is None else market.live
    rate = max(market.rate, 0)
    discount = max(exp(-_over(years_x112, rate)), 1)
    vol_up, vol_down = _vol_factors(p, seconds_x56)
    long_rate = _over(years_x112, mul(rate, p.long_rate_mult) + p.long_rate_add)
    short_rate = _over(years_x112, mul(rate, p.short_rate_mult) + p.short_rate_add)
    static_long = mul(p.static_long, exp(-long_rate))
    static_short = min((ONE << BITS) // discount, mul(p.static_short, exp(short_rate)))
    width = mul(mul(root, p.width_scale), p.vol_static + mul(root, p.vol_scale))
    forwards, logs = grid.spots, grid.logs
    if live < ONE:
        forwards = tuple(shocked_forward(live, spot) for spot in grid.spots)
        logs = _logs(forwards)
    return Expiry(
        forward=market.forward,
        confidence=min(market.forward_confidence, market.rate_confidence, market.vol_confidence),
        forward_confidence=market.forward_confidence,
        svi=market.svi,
        years_x112=years_x112,
        root=root,
        live=live,
        discount=discount,
        vol_up=vol_up,
        vol_down=vol_down,
        floor_up=mul(p.floor_up, root),
        linear_cap=mul(p.linear_base, root) + p.linear_cap,
        abs_cap=mul(p.abs_base, root) + p.abs_cap,
        k_star=max(p.min_k_star, width),
        long_factor=saturate(mul(static_long, discount)),
        short_factor=saturate(mul(static_short, discount)),
        basis_weight=saturate(p.basis_add + _over(years_x112, p.basis_mult)),
        forwards=forwards,
        logs=logs,
    )


def _over(years_x112: int, rate: int) -> int:
    """rate * years, to nearest, saturated."""
    return saturate((years_x112 * rate + _HALF_X112) >> 112)


def _vol_factors(p: MarginParameters, seconds_x56: int) -> tuple[int, int]:
    """Factors of volatility up and down: greater for the near expiries."""
    power = p.power_short if seconds_x56 <= MONTH_S << BITS else p.power_long
    longest = max(seconds_x56, p.days_floor * DAY_S, 1)
    scale = exp(saturate(mul(power, ln_ratio(MONTH_S << BITS, longest))))
    up = ONE + mul(p.range_up, scale)
    return saturate(up), saturate(max(ONE - mul(p.range_down, scale), 0))
