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
from typing import NamedTuple

from state.expiry_sums import ExpiryHolding, ExpirySums, expiry_sums, widest
from state.fixed import BITS, ONE, mul
from state.lanes import make_lanes
from state.risk_grid import Grid, MarginParameters, shocked_forward
from state.units import MAX_POSITIONS, ULOTS_PER_LOT

MIN_STABLE_PRICE = ONE >> 7


class PerpHolding(NamedTuple):
    """Of a perpetual: its mark, and the confidence in it; amounts of open orders."""

    amount: int
    price: int
    confidence: int
    buy: int = 0
    sell: int = 0


class CollateralHolding(NamedTuple):
    """An asset other than cash; `price` in dollars. With `offsets_risk` it is the underlying itself."""

    amount: int
    price: int
    confidence: int
    im_haircut: int
    mm_haircut: int
    offsets_risk: bool


class UnderlyingHolding(NamedTuple):
    """All of one underlying. `unrealised`: profit and funding of perpetuals and futures, as money."""

    grid: Grid
    spot: int
    spot_confidence: int
    unrealised: int = 0
    perps: Sequence[PerpHolding] = ()
    expiries: Sequence[ExpiryHolding] = ()
    collaterals: Sequence[CollateralHolding] = ()


class Contingencies(NamedTuple):
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


class UnderlyingMargin(NamedTuple):
    """Money of one underlying, cash left out."""

    initial_margin: int
    maintenance_margin: int
    mark_to_market: int
    scenario_pnl: tuple[int, ...]
    basis_contingency: int
    worst: int
    contingencies: Contingencies


class PortfolioMargin(NamedTuple):
    """Money of the whole account."""

    initial_margin: int
    maintenance_margin: int
    mark_to_market: int
    """Without cash."""
    cash: int
    underlyings: tuple[UnderlyingMargin, ...]


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
    sums = [each.sums or expiry_sums(holding.grid, each) for each in holding.expiries]
    values = [(each.amount * each.price << 2 * BITS) // stable_price for each in holding.collaterals]
    offsets = sum(value for value, each in zip(values, holding.collaterals, strict=True) if each.offsets_risk)
    pnl = _scenario_pnl(holding, sums, offsets)
    basis = _basis(holding, sums)
    worst = min(basis, *pnl)
    mark = (holding.unrealised * unit + sum([each.mark for each in sums]) + sum(values)) // unit
    contingencies = _contingencies(holding, sums, values, unit)
    kept = mark - contingencies.maintenance
    factor = initial_factor(p, stable_price)
    return UnderlyingMargin(
        initial_margin=(worst * factor >> BITS) // unit - contingencies.initial + kept,
        maintenance_margin=(worst * p.mm_factor >> BITS) // unit + kept,
        mark_to_market=mark,
        scenario_pnl=tuple(each // unit for each in pnl),
        basis_contingency=basis // unit,
        worst=worst // unit,
        contingencies=contingencies,
    )


def initial_factor(p: MarginParameters, stable_price: int) -> int:
    """What the worst loss counts in initial margin: more when the collateral has lost its peg."""
    return p.im_factor + mul(max(p.peg_threshold - stable_price, 0), p.peg_factor)


def option_pnl(grid: Grid, sums: Sequence[ExpirySums]) -> list[int]:
    """Of all options of an underlying, by point, before damping."""
    lanes = make_lanes(len(grid.points))
    row = sum([each.row for each in sums])
    moves = lanes.unpack(row) if row else [0] * len(grid.points)
    for each in sums:
        if each.values:
            moves = [a + b for a, b in zip(moves, each.values, strict=True)]
    pnl = [each >> BITS for each in moves]
    for number, place in enumerate(grid.skews):
        pnl[place] = sum([each.skews[number] for each in sums if each.skews])
    return pnl


def _scenario_pnl(holding: UnderlyingHolding, sums: Sequence[ExpirySums], offsets: int) -> list[int]:
    """Grains, by scenario. Of orders only what they lose counts."""
    grid = holding.grid
    of_options = option_pnl(grid, sums)
    pnl = [of_options[place] for place in grid.places]
    if offsets:
        pnl = [each + (offsets * move >> BITS) for each, move in zip(pnl, grid.moves, strict=True)]
    linear = sum([perp.amount * perp.price for perp in holding.perps])
    buys = sum([perp.buy * perp.price for perp in holding.perps])
    sells = sum([perp.sell * perp.price for perp in holding.perps])
    for each in holding.expiries:
        forward, live = each.expiry.forward, each.expiry.live
        if live == ONE:
            linear += each.future_amount * forward
            buys += each.future_buy * forward
            sells += each.future_sell * forward
        elif each.future_amount or each.future_buy or each.future_sell:
            moves = [shocked_forward(live, scenario.spot) - ONE for scenario in grid.parameters.scenarios]
            future = each.future_amount * forward, each.future_buy * forward, each.future_sell * forward
            pnl = [before + _linear_pnl(move, *future) for before, move in zip(pnl, moves, strict=True)]
    if linear or buys or sells:
        pnl = [
            before + _linear_pnl(move, linear, buys, sells)
            for before, move in zip(pnl, grid.moves, strict=True)
        ]
    return [each if damp == ONE else each * damp >> BITS for each, damp in zip(pnl, grid.damps, strict=True)]


def _linear_pnl(move: int, held: int, buys: int, sells: int) -> int:
    """Of notionals when their price moves."""
    return (held - sells if move > 0 else held + buys) * move


def _basis(holding: UnderlyingHolding, sums: Sequence[ExpirySums]) -> int:
    """Grains, not above 0: what each expiry loses when its forward alone moves, by its weight."""
    grid, total = holding.grid, 0
    for each, options in zip(holding.expiries, sums, strict=True):
        up, down = options.up, options.down
        if each.future_amount or each.future_buy or each.future_sell:
            forward, forwards = each.expiry.forward, each.expiry.forwards
            future = each.future_amount * forward, each.future_buy * forward, each.future_sell * forward
            up += _linear_pnl(forwards[grid.basis_up] - ONE, *future)
            down += _linear_pnl(forwards[grid.basis_down] - ONE, *future)
        total += min(up, down, 0) * each.expiry.basis_weight >> BITS
    return total


def _contingencies(
    holding: UnderlyingHolding, sums: Sequence[ExpirySums], values: list[int], unit: int
) -> Contingencies:
    """All of them, rounded up to the unit. `values` are the collaterals', in grains."""
    p, spot = holding.grid.parameters, holding.spot
    amounts = [widest(perp.amount, perp.buy, perp.sell) for perp in holding.perps]
    trusted = [perp.confidence for perp, amount in zip(holding.perps, amounts, strict=True) if amount]
    confidence = min([holding.spot_confidence, *trusted])
    linear = sum(amounts)
    linear_oracle = linear * doubt(p, confidence)
    naked = option_oracle = 0
    for each, options in zip(holding.expiries, sums, strict=True):
        future = widest(each.future_amount, each.future_buy, each.future_sell)
        if future:
            linear += future
            linear_oracle += future * doubt(p, min(confidence, each.expiry.forward_confidence))
        option_oracle += options.notional * doubt(p, min(confidence, each.expiry.confidence))
        naked += options.naked
    collateral_mm = collateral_im = collateral_oracle = 0
    for value, asset in zip(values, holding.collaterals, strict=True):
        collateral_mm += value * asset.mm_haircut
        collateral_im += value * asset.im_haircut
        collateral_oracle += value * doubt(p, min(asset.confidence, holding.spot_confidence))
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


def doubt(p: MarginParameters, confidence: int) -> int:
    """The share of a notional that initial margin adds because a price is not trusted."""
    return mul(ONE - confidence, p.confidence_margin) if confidence < p.confidence_threshold else 0
