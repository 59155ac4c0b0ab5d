"""Portfolio margin of perpetuals, futures, options and collateral, by exact linear algebra.

The formulas are PROTOCOL.md's, section 8.9. Inputs are integers: prices and money in one unit (the exchange:
uusd), amounts in 1/`lot` of the underlying (the exchange: ulots, a lot being 10^6), everything else x56. Sums
of amounts times risk arrays are exact; a *grain* is 2^-56 / lot of the unit, and a product is rounded down to
grains only after the options of an expiry are summed. Results are rounded to the unit at the end, against the
account: what counts for it down, what counts against it up, each component alone, so that these hold exactly:

    initial = floor(worst * im_factor) - im contingencies - mm contingencies + mark to market + cash
    maintenance = floor(worst * mm_factor) - mm contingencies + mark to market + cash

At or above zero is healthy. Underlyings do not offset each other; cash is counted once. With amounts and
prices to 10^15 and the bounds of state/risk_grid.py no intermediate needs more than 250 bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul as product
from typing import NamedTuple

import numpy as np

from state.fixed import BITS, ONE, mul
from state.risk_array import LIMB_BITS, RiskArray
from state.risk_grid import SKEWS, Expiry, Grid, MarginParameters, shocked_forward
from state.units import MAX_POSITIONS, ULOTS_PER_LOT

FAST_FROM_OPTIONS = 12
"""Below, plain integers are quicker than vectors."""
FAST_AMOUNT_BITS = 50
_AMOUNT_LIMB_BITS = 25


class PerpHolding(NamedTuple):
    """Of a perpetual: its mark, and the confidence in it."""

    amount: int
    price: int
    confidence: int


class CollateralHolding(NamedTuple):
    """An asset other than cash; `price` in dollars. With `offsets_risk` it is the underlying itself."""

    amount: int
    price: int
    confidence: int
    im_haircut: int
    mm_haircut: int
    offsets_risk: bool


class ExpiryHolding(NamedTuple):
    """All of one expiry: risk arrays with an amount each, and an amount of the future."""

    expiry: Expiry
    options: Sequence[RiskArray] = ()
    amounts: Sequence[int] = ()
    future_amount: int = 0


class UnderlyingHolding(NamedTuple):
    """All of one underlying. `unrealised`: profit and funding of perpetuals and futures, as money."""

    grid: Grid
    spot: int
    spot_confidence: int
    unrealised: int = 0
    perps: Sequence[PerpHolding] = ()
    expiries: Sequence[ExpiryHolding] = ()
    collaterals: Sequence[CollateralHolding] = ()


@dataclass(frozen=True, slots=True)
class Contingencies:
    """Each 0 or above when amounts of collateral are; im on top of mm."""

    perp_mm: int
    perp_im: int
    perp_oracle: int
    option_mm: int
    option_im: int
    option_oracle: int
    collateral_mm: int
    collateral_im: int
    collateral_oracle: int

    @property
    def maintenance(self) -> int:
        return self.perp_mm + self.option_mm + self.collateral_mm

    @property
    def initial(self) -> int:
        """What initial margin needs beyond `maintenance`."""
        oracle = self.perp_oracle + self.option_oracle + self.collateral_oracle
        return self.perp_im + self.option_im + self.collateral_im + oracle


@dataclass(frozen=True, slots=True)
class UnderlyingMargin:
    """Money of one underlying, cash left out."""

    initial_margin: int
    maintenance_margin: int
    mark_to_market: int
    scenario_pnl: tuple[int, ...]
    basis_contingency: int
    worst: int
    contingencies: Contingencies


@dataclass(frozen=True, slots=True)
class PortfolioMargin:
    """Money of the whole account."""

    initial_margin: int
    maintenance_margin: int
    mark_to_market: int
    """Without cash."""
    cash: int
    underlyings: tuple[UnderlyingMargin, ...]


class _ExpiryRisk(NamedTuple):
    """Grains, discounted; `shocked` with its static factor, at each point, still 2^56 finer."""

    mark: int
    up: int
    down: int
    shocked: list[int]


def portfolio_margin(
    holdings: Sequence[UnderlyingHolding], cash: int, stable_price: int = ONE, lot: int = ULOTS_PER_LOT
) -> PortfolioMargin:
    """The margin of an account. `stable_price` is the collateral's in dollars, x56, above 0.

    Raises ValueError for more than MAX_POSITIONS instruments.
    """
    if sum(map(_instruments, holdings)) > MAX_POSITIONS:
        raise ValueError(f"more than {MAX_POSITIONS} instruments")
    parts = tuple(underlying_margin(holding, stable_price, lot) for holding in holdings)
    return PortfolioMargin(
        initial_margin=sum(part.initial_margin for part in parts) + cash,
        maintenance_margin=sum(part.maintenance_margin for part in parts) + cash,
        mark_to_market=sum(part.mark_to_market for part in parts),
        cash=cash,
        underlyings=parts,
    )


def _instruments(holding: UnderlyingHolding) -> int:
    options = sum(len(each.options) + (each.future_amount != 0) for each in holding.expiries)
    return options + len(holding.perps)


def underlying_margin(holding: UnderlyingHolding, stable_price: int, lot: int) -> UnderlyingMargin:
    """One underlying's part of `portfolio_margin`."""
    p, unit = holding.grid.parameters, lot << BITS
    risks = _expiry_risks(holding.grid, [each for each in holding.expiries if each.options])
    values = [(each.amount * each.price << 2 * BITS) // stable_price for each in holding.collaterals]
    offsets = sum(value for value, each in zip(values, holding.collaterals, strict=True) if each.offsets_risk)
    pnl = _scenario_pnl(holding, risks, offsets)
    basis = _basis(holding, risks)
    worst = min(basis, *pnl)
    mark = (holding.unrealised * unit + sum(risk.mark for risk in risks) + sum(values)) // unit
    contingencies = _contingencies(holding, values, unit)
    im_factor = p.im_factor + mul(max(p.peg_threshold - stable_price, 0), p.peg_factor)
    kept = mark - contingencies.maintenance
    return UnderlyingMargin(
        initial_margin=(worst * im_factor >> BITS) // unit - contingencies.initial + kept,
        maintenance_margin=(worst * p.mm_factor >> BITS) // unit + kept,
        mark_to_market=mark,
        scenario_pnl=tuple(each // unit for each in pnl),
        basis_contingency=basis // unit,
        worst=worst // unit,
        contingencies=contingencies,
    )


def _expiry_risks(grid: Grid, expiries: Sequence[ExpiryHolding]) -> list[_ExpiryRisk]:
    """Of those that hold options."""
    amounts = [amount for each in expiries for amount in each.amounts]
    small = all(-(1 << FAST_AMOUNT_BITS) < amount < 1 << FAST_AMOUNT_BITS for amount in amounts)
    if small and FAST_FROM_OPTIONS <= len(amounts) <= MAX_POSITIONS:
        sums = vector_sums(expiries, amounts)
    else:
        sums = [plain_sums(each) for each in expiries]
    return [_expiry_risk(grid, each, row) for each, row in zip(expiries, sums, strict=True)]


def plain_sums(holding: ExpiryHolding) -> list[int]:
    """Sum of amount times value, at each point: the definition."""
    columns = zip(*(option.values for option in holding.options), strict=True)
    return [sum(map(product, holding.amounts, column)) for column in columns]


def vector_sums(expiries: Sequence[ExpiryHolding], amounts: Sequence[int]) -> list[list[int]]:
    """`plain_sums` of each expiry in 64-bit words; at most MAX_POSITIONS amounts below 2^FAST_AMOUNT_BITS.

    Values are within 2^61, so their limbs below 2^31; those of amounts are within 2^25: 128 products stay
    within 2^63. The four sums of limbs then carry into one high and one low word of 56 bits.
    """
    limbs = np.concatenate([option.limbs for each in expiries for option in each.options])
    limbs = limbs.reshape(len(amounts), -1)
    column = np.array(amounts, dtype=np.int64)[:, None]
    starts, begin = [], 0
    for each in expiries:
        starts.append(begin)
        begin += len(each.amounts)
    low = np.add.reduceat(limbs * (column & ((1 << _AMOUNT_LIMB_BITS) - 1)), starts)
    high = np.add.reduceat(limbs * (column >> _AMOUNT_LIMB_BITS), starts)
    points = limbs.shape[1] // 2
    low_low, low_high, high_low, high_high = (
        low[:, :points],
        low[:, points:],
        high[:, :points],
        high[:, points:],
    )
    bottom = (low_low & (ONE - 1)) + ((low_high & ((1 << 25) - 1)) << LIMB_BITS)
    bottom += (high_low & ((1 << 31) - 1)) << _AMOUNT_LIMB_BITS
    top = high_high + (low_low >> BITS) + (low_high >> 25) + (high_low >> 31) + (bottom >> BITS)
    bottom &= ONE - 1
    return [
        [(upper << BITS) + lower for upper, lower in zip(*rows, strict=True)]
        for rows in zip(top.tolist(), bottom.tolist(), strict=True)
    ]


def _expiry_risk(grid: Grid, holding: ExpiryHolding, sums: list[int]) -> _ExpiryRisk:
    """Money from sums: the strikes of puts, the forward, discount and static factor."""
    expiry = holding.expiry
    forward, discount = expiry.forward, expiry.discount
    strikes = sum(
        amount * option.strike
        for option, amount in zip(holding.options, holding.amounts, strict=True)
        if not option.is_call
    )
    fixed = strikes << BITS
    long, short = forward * expiry.long_factor, forward * expiry.short_factor
    fixed_long, fixed_short = fixed * expiry.long_factor, fixed * expiry.short_factor
    zero = -(fixed // forward)
    return _ExpiryRisk(
        mark=(forward * sums[grid.mark] + fixed) * discount >> BITS,
        up=(forward * sums[grid.basis_up] + fixed) * discount >> BITS,
        down=(forward * sums[grid.basis_down] + fixed) * discount >> BITS,
        shocked=[long * s + fixed_long if s >= zero else short * s + fixed_short for s in sums],
    )


def _scenario_pnl(holding: UnderlyingHolding, risks: list[_ExpiryRisk], offsets: int) -> list[int]:
    """Grains, by scenario."""
    grid = holding.grid
    marks = sum(risk.mark for risk in risks)
    totals = [sum(column) for column in zip(*(risk.shocked for risk in risks), strict=True)]
    linear = sum(perp.amount * perp.price for perp in holding.perps)
    futures = [each for each in holding.expiries if each.future_amount]
    found = []
    for scenario, place in zip(grid.parameters.scenarios, grid.places, strict=True):
        pnl = linear * (scenario.spot - ONE) + (offsets * (scenario.spot - ONE) >> BITS)
        for each in futures:
            moved = shocked_forward(each.expiry.live, scenario.spot) - ONE
            pnl += each.future_amount * each.expiry.forward * moved
        if scenario.vol in SKEWS:
            pnl -= sum(abs((risk.shocked[place] >> BITS) - risk.mark) for risk in risks)
        elif risks:
            pnl += (totals[place] >> BITS) - marks
        found.append(pnl * scenario.damp >> BITS)
    return found


def _basis(holding: UnderlyingHolding, risks: list[_ExpiryRisk]) -> int:
    """Grains, not above 0: what each expiry loses when its forward alone moves, by its weight."""
    grid, total, found = holding.grid, 0, iter(risks)
    for each in holding.expiries:
        risk = next(found) if each.options else _ExpiryRisk(0, 0, 0, [])
        future, forwards = each.future_amount * each.expiry.forward, each.expiry.forwards
        up = risk.up - risk.mark + future * (forwards[grid.basis_up] - ONE)
        down = risk.down - risk.mark + future * (forwards[grid.basis_down] - ONE)
        total += min(up, down, 0) * each.expiry.basis_weight >> BITS
    return total


def _contingencies(holding: UnderlyingHolding, values: list[int], unit: int) -> Contingencies:
    """All of them, rounded up to the unit. `values` are the collaterals', in grains."""
    p, spot = holding.grid.parameters, holding.spot
    confidence = min([holding.spot_confidence, *(perp.confidence for perp in holding.perps if perp.amount)])
    perps = sum(abs(perp.amount) for perp in holding.perps) * spot
    naked = linear_oracle = option_oracle = 0
    futures = 0
    linear_oracle = perps * _doubt(p, confidence)
    for each in holding.expiries:
        notional = abs(each.future_amount) * spot
        futures += notional
        linear_oracle += notional * _doubt(p, min(confidence, each.expiry.forward_confidence))
        gross = sum(map(abs, each.amounts)) * spot
        option_oracle += gross * _doubt(p, min(confidence, each.expiry.confidence))
        naked += _naked_short(each) * spot
    collateral_mm = collateral_im = collateral_oracle = 0
    for value, asset in zip(values, holding.collaterals, strict=True):
        collateral_mm += value * asset.mm_haircut
        collateral_im += value * asset.im_haircut
        collateral_oracle += value * _doubt(p, min(asset.confidence, holding.spot_confidence))
    fine = unit << BITS
    return Contingencies(
        perp_mm=-(-(perps + futures) * p.mm_perp // unit),
        perp_im=-(-(perps + futures) * p.im_perp // unit),
        perp_oracle=-(-linear_oracle // unit),
        option_mm=-(-naked * p.mm_option // unit),
        option_im=-(-naked * p.im_option // unit),
        option_oracle=-(-option_oracle // unit),
        collateral_mm=-(-collateral_mm // fine),
        collateral_im=-(-collateral_im // fine),
        collateral_oracle=-(-collateral_oracle // fine),
    )


def _doubt(p: MarginParameters, confidence: int) -> int:
    """The share of a notional that initial margin adds because a price is not trusted."""
    return mul(ONE - confidence, p.confidence_margin) if confidence < p.confidence_threshold else 0


def _naked_short(holding: ExpiryHolding) -> int:
    """Short amount per strike that no option of the same strike covers, summed."""
    by_strike: dict[int, int] = {}
    for option, amount in zip(holding.options, holding.amounts, strict=True):
        by_strike[option.strike] = by_strike.get(option.strike, 0) + amount
    return -sum(amount for amount in by_strike.values() if amount < 0)
