"""At which price of an underlying an account falls below maintenance margin.

**The liquidation price.** Let M(f) be the account's maintenance margin (equity less requirement, positions
alone) when the underlying's index, its perpetuals' marks and all its forwards, with the forwards at which
volatilities were fitted, are f times what they are, and everything else stays: other underlyings, volatility
by moneyness, time, rates. The part of a settlement average that is certain does not move. Below, f goes from
1 in steps of 5 % to 0.05, above in steps of 5 % to 3; where M first turns negative, the step is halved until
it is below 10^-5. The liquidation price is f times the index there; there is none where M stays from 0 up.
An account that is below already has none either.

Pure functions of values, so that they may run in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from state.expiry_sums import ExpiryHolding
from state.fixed import ONE, mul
from state.portfolio import PerpHolding, UnderlyingHolding, underlying_margin
from state.risk_grid import ExpiryMarket, Grid, make_expiry
from state.units import ULOTS_PER_LOT
from state.vector_risk import make_risk_arrays

STEP = ONE // 20
LOWEST = ONE // 20
HIGHEST = 3 * ONE
HALVINGS = 13
"""5 % / 2^13 is below 10^-5."""


@dataclass(frozen=True, slots=True)
class ExpiryValues:
    """Positions in one expiry: (strike, whether a call, amount), and the future's amount."""

    market: ExpiryMarket
    live: int
    options: Sequence[tuple[int, bool, int]]
    future: int


@dataclass(frozen=True, slots=True)
class UnderlyingValues:
    """Positions in one underlying; `cost`: of all of them."""

    grid: Grid
    spot: int
    spot_confidence: int
    cost: int
    perpetuals: Sequence[PerpHolding]
    expiries: Sequence[ExpiryValues]


def maintenance_at(values: UnderlyingValues, factor: int, stable: int) -> int:
    """The underlying's part of M(factor), in uusd."""
    perps = [perp._replace(price=mul(perp.price, factor)) for perp in values.perpetuals]
    unrealised = values.cost + sum(perp.amount * perp.price // ULOTS_PER_LOT for perp in perps)
    expiries = [make_expiry(_moved(each, factor), values.grid) for each in values.expiries]
    chain = [
        (expiry, [(strike, is_call) for strike, is_call, _ in each.options])
        for expiry, each in zip(expiries, values.expiries, strict=True)
    ]
    holdings = []
    arrays = make_risk_arrays(values.grid, chain) if chain else []
    for expiry, each, options in zip(expiries, values.expiries, arrays, strict=True):
        unrealised += each.future * expiry.forward // ULOTS_PER_LOT
        amounts = [amount for _, _, amount in each.options]
        holdings.append(ExpiryHolding(expiry, options, amounts, each.future))
    holding = UnderlyingHolding(
        values.grid, mul(values.spot, factor), values.spot_confidence, unrealised, perps, holdings
    )
    return underlying_margin(holding, stable, ULOTS_PER_LOT).maintenance_margin


def _moved(each: ExpiryValues, factor: int) -> ExpiryMarket:
    market = each.market
    kept = ONE - each.live
    share = mul(each.live, factor)
    forward = max(mul(market.forward, kept + share), 1)
    svi = market.svi._replace(forward_ref=max(mul(market.svi.forward_ref, factor), 1))
    live = (share << 56) // (kept + share) if kept + share else 0
    return market._replace(forward=forward, svi=svi, live=live)


def liquidation_prices(values: UnderlyingValues, rest: int, stable: int) -> tuple[int | None, int | None]:
    """(below, above) the index, in uusd. `rest`: maintenance margin of everything else, cash included."""

    def is_below(factor: int) -> bool:
        return maintenance_at(values, factor, stable) + rest < 0

    def first(step: int, last: int) -> int | None:
        good = ONE
        while abs(good - last) >= STEP:
            bad = good + step
            if is_below(bad):
                for _ in range(HALVINGS):
                    middle = (good + bad) >> 1
                    good, bad = (good, middle) if is_below(middle) else (middle, bad)
                return mul(values.spot, bad)
            good = bad
        return None

    if is_below(ONE):
        return None, None
    return first(-STEP, LOWEST), first(STEP, HIGHEST)
