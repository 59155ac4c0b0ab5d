"""Portfolio margin of perpetuals, futures, options and collateral, by exact linear algebra.

The formulas are PROTOCOL.md's, section 12. Inputs are integers: prices and money in one unit (the exchange:
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

from state.fixed import BITS, ONE, mul
from state.lanes import lane, make_lanes
from state.risk_array import RiskArray
from state.risk_grid import SKEWS, Expiry, Grid, MarginParameters, shocked_forward
from state.units import MAX_POSITIONS, ULOTS_PER_LOT

MIN_STABLE_PRICE = ONE >> 7
LANE_INPUT = 1 << 50
"""Below it amounts and forwards fit state/lanes.py; the exchange's always do."""
LANE_STRIKES = MAX_POSITIONS << 100
"""Of an expiry's sum of amount times strike of puts."""


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


class OptionRisk(NamedTuple):
    """What all options of an underlying come to, in grains."""

    mark: int
    basis_moves: list[tuple[int, int]]
    """By expiry: what its forward alone, up and down, adds to the mark."""
    pnl: list[int]
    """By point, before damping: of a skew minus the sum of the expiries' absolute moves."""


def portfolio_margin(
    holdings: Sequence[UnderlyingHolding], cash: int, stable_price: int = ONE, lot: int = ULOTS_PER_LOT
) -> PortfolioMargin:
    """The margin of an account. `stable_price` is the collateral's in dollars, x56.

    Raises ValueError for more than MAX_POSITIONS instruments, or a stable price below MIN_STABLE_PRICE.
    """
    if stable_price < MIN_STABLE_PRICE:
        raise ValueError("stable price out of bounds")
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
    risk = option_risk(holding.grid, [each for each in holding.expiries if each.options])
    values = [(each.amount * each.price << 2 * BITS) // stable_price for each in holding.collaterals]
    offsets = sum(value for value, each in zip(values, holding.collaterals, strict=True) if each.offsets_risk)
    pnl = _scenario_pnl(holding, risk, offsets)
    basis = _basis(holding, risk)
    worst = min(basis, *pnl)
    mark = (holding.unrealised * unit + risk.mark + sum(values)) // unit
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


def option_risk(grid: Grid, expiries: Sequence[ExpiryHolding]) -> OptionRisk:
    """Of expiries that hold options."""
    sizes = [0]
    for each in expiries:
        sizes += each.amounts
    put_strikes = [_put_strikes(each) for each in expiries]
    forward = max([each.expiry.forward for each in expiries], default=0)
    strikes = max(map(abs, put_strikes), default=0)
    small = max(sizes) < LANE_INPUT and min(sizes) > -LANE_INPUT and len(sizes) <= MAX_POSITIONS + 1
    if small and forward < LANE_INPUT and strikes < LANE_STRIKES:
        return lane_risk(grid, expiries, put_strikes)
    return plain_risk(grid, expiries, put_strikes)


def plain_risk(grid: Grid, expiries: Sequence[ExpiryHolding], put_strikes: Sequence[int]) -> OptionRisk:
    """The definition, with integers of any size."""
    marks, basis_moves, shocked = [], [], []
    for holding, strikes in zip(expiries, put_strikes, strict=True):
        expiry = holding.expiry
        columns = zip(*(option.values for option in holding.options), strict=True)
        sums = [sum(map(product, holding.amounts, column)) for column in columns]
        worth = [expiry.forward * each + (strikes << BITS) for each in sums]
        mark, up, down = (
            worth[place] * expiry.discount >> BITS for place in (grid.mark, grid.basis_up, grid.basis_down)
        )
        marks.append(mark)
        basis_moves.append((up - mark, down - mark))
        shocked.append([each * (expiry.long_factor if each >= 0 else expiry.short_factor) for each in worth])
    pnl = []
    for place, point in enumerate(grid.points):
        moved = [row[place] for row in shocked]
        if point.vol in SKEWS:
            pnl.append(-sum(abs((each >> BITS) - mark) for each, mark in zip(moved, marks, strict=True)))
        else:
            pnl.append((sum(moved) >> BITS) - sum(marks))
    return OptionRisk(sum(marks), basis_moves, pnl)


def lane_risk(grid: Grid, expiries: Sequence[ExpiryHolding], put_strikes: Sequence[int]) -> OptionRisk:
    """`plain_risk` with all points of an option in one integer.

    For at most MAX_POSITIONS options within LANE_INPUT and LANE_STRIKES: 2^7 2^50 2^61 of the sums times 2^50
    of the forward and 2^63 of the factor are within the 2^239 of a lane.
    """
    lanes = make_lanes(len(grid.points))
    skews = [place for place, point in enumerate(grid.points) if point.vol in SKEWS]
    skew_pnl = [0] * len(skews)
    marks, total, basis_moves = 0, 0, []
    for holding, strikes in zip(expiries, put_strikes, strict=True):
        expiry, discount = holding.expiry, holding.expiry.discount
        worth = expiry.forward * sum(
            map(product, holding.amounts, [option.row for option in holding.options])
        )
        worth += (strikes << BITS) * lanes.ones
        lifted = worth + lanes.halves
        mark = lane(lifted, grid.mark) * discount >> BITS
        up = lane(lifted, grid.basis_up) * discount >> BITS
        down = lane(lifted, grid.basis_down) * discount >> BITS
        marks += mark
        basis_moves.append((up - mark, down - mark))
        gains = lanes.positive_part(lifted)
        shocked = expiry.short_factor * worth + (expiry.long_factor - expiry.short_factor) * gains
        total += shocked
        lifted = shocked + lanes.halves
        for number, place in enumerate(skews):
            skew_pnl[number] -= abs((lane(lifted, place) >> BITS) - mark)
    pnl = [(each >> BITS) - marks for each in lanes.unpack(total)]
    for place, loss in zip(skews, skew_pnl, strict=True):
        pnl[place] = loss
    return OptionRisk(marks, basis_moves, pnl)


def _put_strikes(holding: ExpiryHolding) -> int:
    """Sum of amount times strike of the puts."""
    return sum(map(product, holding.amounts, [option.put_strike for option in holding.options]))


def _scenario_pnl(holding: UnderlyingHolding, risk: OptionRisk, offsets: int) -> list[int]:
    """Grains, by scenario."""
    grid = holding.grid
    linear = sum([perp.amount * perp.price for perp in holding.perps])
    pnl = [risk.pnl[place] for place in grid.places]
    if linear or offsets:
        pnl = [
            each + linear * move + (offsets * move >> BITS)
            for each, move in zip(pnl, grid.moves, strict=True)
        ]
    for each in holding.expiries:
        if each.future_amount:
            future, live = each.future_amount * each.expiry.forward, each.expiry.live
            moves = [shocked_forward(live, scenario.spot) - ONE for scenario in grid.parameters.scenarios]
            pnl = [before + future * move for before, move in zip(pnl, moves, strict=True)]
    return [each * damp >> BITS for each, damp in zip(pnl, grid.damps, strict=True)]


def _basis(holding: UnderlyingHolding, risk: OptionRisk) -> int:
    """Grains, not above 0: what each expiry loses when its forward alone moves, by its weight."""
    grid, total, option_moves = holding.grid, 0, iter(risk.basis_moves)
    for each in holding.expiries:
        up, down = next(option_moves) if each.options else (0, 0)
        if each.future_amount:
            future, forwards = each.future_amount * each.expiry.forward, each.expiry.forwards
            up += future * (forwards[grid.basis_up] - ONE)
            down += future * (forwards[grid.basis_down] - ONE)
        total += min(up, down, 0) * each.expiry.basis_weight >> BITS
    return total


def _contingencies(holding: UnderlyingHolding, values: list[int], unit: int) -> Contingencies:
    """All of them, rounded up to the unit. `values` are the collaterals', in grains."""
    p, spot = holding.grid.parameters, holding.spot
    confidence = min([holding.spot_confidence, *(perp.confidence for perp in holding.perps if perp.amount)])
    linear = sum([abs(perp.amount) for perp in holding.perps])
    linear_oracle = linear * _doubt(p, confidence)
    naked = option_oracle = 0
    for each in holding.expiries:
        if each.future_amount:
            future = abs(each.future_amount)
            linear += future
            linear_oracle += future * _doubt(p, min(confidence, each.expiry.forward_confidence))
        weakest = min(confidence, each.expiry.confidence)
        if weakest < p.confidence_threshold:
            option_oracle += sum(map(abs, each.amounts)) * _doubt(p, weakest)
        naked += _naked_short(each)
    collateral_mm = collateral_im = collateral_oracle = 0
    for value, asset in zip(values, holding.collaterals, strict=True):
        collateral_mm += value * asset.mm_haircut
        collateral_im += value * asset.im_haircut
        collateral_oracle += value * _doubt(p, min(asset.confidence, holding.spot_confidence))
    linear *= spot
    naked *= spot
    fine = unit << BITS
    return Contingencies(
        perp_mm=-(-linear * p.mm_perp // unit),
        perp_im=-(-linear * p.im_perp // unit),
        perp_oracle=-(-linear_oracle * spot // unit),
        option_mm=-(-naked * p.mm_option // unit),
        option_im=-(-naked * p.im_option // unit),
        option_oracle=-(-option_oracle * spot // unit),
        collateral_mm=-(-collateral_mm // fine),
        collateral_im=-(-collateral_im // fine),
        collateral_oracle=-(-collateral_oracle // fine),
    )


def _doubt(p: MarginParameters, confidence: int) -> int:
    """The share of a notional that initial margin adds because a price is not trusted."""
    return mul(ONE - confidence, p.confidence_margin) if confidence < p.confidence_threshold else 0


def _naked_short(holding: ExpiryHolding) -> int:
    """Short amount per strike that no option of the same strike covers, summed."""
    if min(holding.amounts, default=0) >= 0:
        return 0
    strikes = [option.strike for option in holding.options]
    by_strike = dict.fromkeys(strikes, 0)
    for strike, amount in zip(strikes, holding.amounts, strict=True):
        by_strike[strike] += amount
    return -sum([amount for amount in by_strike.values() if amount < 0])
