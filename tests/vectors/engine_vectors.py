"""Makes tests/vectors/engine.json: `python -m tests.vectors.engine_vectors`.

Integers in and out of every function of the calculation engine, for a second implementation to compare with.
Every integer is a decimal string, arguments in the order of the function's parameters.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

from state import black76, fixed, svi
from state.expiry_sums import ExpiryHolding
from state.fixed import MAX, ONE
from state.margin_defaults import default_parameters
from state.portfolio import (
    CollateralHolding,
    PerpHolding,
    UnderlyingHolding,
    portfolio_margin,
)
from state.risk_array import make_risk_array
from state.risk_grid import Expiry, ExpiryMarket, MarginParameters, make_expiry, make_grid
from tests.risk_support import COIN, DAY_S, USD, flat_svi, x56

FILE = Path(__file__).parent / "engine.json"
SEED = 20_261_123
SPOT = 62_700 * USD


def strings(value: Any) -> Any:
    """Integers as strings, tuples as lists."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        return str(int(value))
    return [strings(each) for each in value]


def rows(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    return [{"in": strings(each), "out": strings(function(*each))} for each in arguments]


def words(rng: random.Random, count: int, bits: int) -> list[int]:
    return [rng.getrandbits(rng.randint(1, bits)) for _ in range(count)]


def otm(distance: int, total_vol: int) -> int:
    return black76.otm_fraction(distance, black76.divisor(total_vol))


def elementary(rng: random.Random) -> dict[str, Any]:
    """Functions of one or two numbers."""
    signed = [0, 1, -1, ONE, -ONE, 9 * ONE, -9 * ONE, MAX, -MAX]
    signed += [x if rng.random() < 0.5 else -x for x in words(rng, 16, 60)]
    positive = [0, 1, ONE // 4, 2 * ONE - 1, 2 * ONE, 31 * ONE, 32 * ONE, *words(rng, 24, 61)]
    ratios = [
        (1, 1),
        (2**128, 1),
        (1, 2**128),
        (3, 2),
        (2, 3),
        *zip(words(rng, 9, 128), words(rng, 9, 50), strict=True),
    ]
    return {
        "exp": rows(fixed.exp, [(x,) for x in signed]),
        "ln_ratio": rows(fixed.ln_ratio, [(max(a, 1), max(b, 1)) for a, b in ratios]),
        "sqrt_x112": rows(fixed.sqrt_x112, [(x,) for x in (-1, 0, 1, 2**112, 2**250, *words(rng, 8, 125))]),
        "density": rows(fixed.density, [(x,) for x in signed]),
        "cdf": rows(fixed.cdf, [(x,) for x in signed]),
        "mills_x61": rows(fixed.mills_x61, [(x,) for x in positive]),
    }


def prices(rng: random.Random) -> dict[str, Any]:
    """Black-76, implied volatility, SVI."""
    points = [(0, 0), (0, 1), (0, 24 * ONE), (ONE, 0), (32 * ONE, ONE), (32 * ONE - 1, ONE)]
    points += [
        (x56(d) // 100, x56(w) // 100)
        for d, w in ((0, 50), (10, 30), (30, 10), (200, 150), (5, 1), (90, 2_300))
    ]
    points += list(zip(words(rng, 8, 60), words(rng, 8, 60), strict=True))
    quotes = [
        (SPOT, SPOT * k // 100, x56(w) // 100) for k in (10, 90, 100, 130, 900) for w in (0, 3, 40, 300)
    ]
    year = 2**112
    solved = [
        (black76.black76(forward, strike, w)[0 if is_call else 1], forward, strike, is_call)
        for forward, strike, w in (
            (SPOT, SPOT, x56("0.3")),
            (SPOT, SPOT * 2, x56("0.5")),
            (SPOT, SPOT // 2, x56("0.9")),
        )
        for is_call in (True, False)
    ]
    surface = svi.Svi(year // 200, year // 60, -ONE // 4, ONE // 50, ONE // 7, SPOT, year // 12)
    strikes = [SPOT * k // 100 for k in (1, 50, 99, 100, 120, 400)]
    return {
        "otm_fraction": rows(otm, points),
        "black76": rows(black76.black76, quotes),
        "greeks": rows(black76.greeks, [(*quote, year // 12) for quote in quotes]),
        "implied_total_vol": rows(
            black76.implied_total_vol, [*solved, (0, SPOT, SPOT, True), (SPOT, SPOT, SPOT, True)]
        ),
        "svi_parameters": strings(surface),
        "total_variance_x112": [
            {"in": strings([strike]), "out": strings(svi.total_variance_x112(surface, strike))}
            for strike in strikes
        ],
        "total_vol": [
            {"in": strings([strike, year // 13]), "out": strings(svi.total_vol(surface, strike, year // 13))}
            for strike in strikes
        ],
    }


def named(expiry: Expiry) -> dict[str, Any]:
    names = [field.name for field in fields(expiry)]
    return {name: strings(getattr(expiry, name)) for name in names}


def portfolio() -> dict[str, Any]:
    """Two expiries, one inside its last half hour, with everything an account can hold."""
    parameters = default_parameters()
    grid = make_grid(parameters)
    markets = [
        ExpiryMarket(1_200 << 56, SPOT, ONE // 20, flat_svi(0.7, 1_200, SPOT), ONE, ONE, ONE),
        ExpiryMarket(
            40 * DAY_S << 56, SPOT + 300 * USD, ONE // 25, flat_svi(0.5, 40 * DAY_S, SPOT), ONE, ONE, ONE // 2
        ),
    ]
    expiries = [make_expiry(market, grid) for market in markets]
    options = [(SPOT * 99 // 100, True), (SPOT * 99 // 100, False), (SPOT * 3 // 2, False)]
    arrays = [[make_risk_array(expiry, grid, *option) for option in options] for expiry in expiries]
    amounts = [[-2 * COIN, COIN, 3 * COIN], [5 * COIN, -7 * COIN, -COIN // 3]]
    futures = [0, -COIN]
    holding = UnderlyingHolding(
        grid,
        SPOT,
        ONE,
        -1_234_567,
        [PerpHolding(-3 * COIN, SPOT - 5 * USD, x56("0.5"))],
        [ExpiryHolding(*each) for each in zip(expiries, arrays, amounts, futures, strict=True)],
        [CollateralHolding(COIN, SPOT, x56("0.9"), x56("0.1"), x56("0.05"), True)],
    )
    margin = portfolio_margin([holding], 50_000 * USD, x56("0.98"))
    (part,) = margin.underlyings
    flat = [field.name for field in fields(MarginParameters) if field.name != "scenarios"]
    return {
        "parameters": {name: strings(getattr(parameters, name)) for name in flat},
        "scenarios": strings(parameters.scenarios),
        "points": strings(grid.points),
        "markets": strings([market[:-1] for market in markets]),
        "expiries": [named(expiry) for expiry in expiries],
        "options": strings(options),
        "values": strings([[array.values for array in each] for each in arrays]),
        "amounts": strings(amounts),
        "futures": strings(futures),
        "spot": strings([holding.spot, holding.spot_confidence, holding.unrealised]),
        "perps": strings([perp[:3] for perp in holding.perps]),
        "collaterals": strings(holding.collaterals),
        "cash_and_stable_price": strings([50_000 * USD, x56("0.98")]),
        "initial_margin": strings(margin.initial_margin),
        "maintenance_margin": strings(margin.maintenance_margin),
        "mark_to_market": strings(margin.mark_to_market),
        "scenario_pnl": strings(part.scenario_pnl),
        "basis_contingency": strings(part.basis_contingency),
        "contingencies": {name: strings(value) for name, value in part.contingencies._asdict().items()},
    }


def build() -> dict[str, Any]:
    """All vectors."""
    rng = random.Random(SEED)
    return {"elementary": elementary(rng), "prices": prices(rng), "portfolio": portfolio()}


if __name__ == "__main__":
    FILE.write_text(json.dumps(build(), indent=1) + "\n")
