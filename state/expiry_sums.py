"""What the options of one expiry come to, at every point of the margin grid: positions, and open orders at
their worst.

Orders count as filled at the mark, each part of each order, where that lowers the result (PROTOCOL, section
12.7). With W the worth of the positions at a point, b one of the two static factors, and w the worth of one
unit of an option, an order moves the result by `b w - discount w_mark` a unit: what it gains is not counted,
what it loses is. Of the factors the one counts that gives less, so the result is no more than that of any
fills; and it is that of the worst fills of each point.

Moves are in 2^-56 grains (state/portfolio.py), unrounded; marks, basis moves and skews in grains, rounded
against the account. `lane_sums` gives the same as `plain_sums`, with all points in one integer.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import mul as product
from typing import NamedTuple

from state.fixed import BITS
from state.lanes import Lanes, lane, make_lanes
from state.risk_array import RiskArray
from state.risk_grid import Expiry, Grid
from state.units import MAX_POSITIONS

LANE_INPUT = 1 << 50
"""Below it amounts and forwards fit state/lanes.py; the exchange's nearly always do."""
LANE_STRIKES = MAX_POSITIONS << 100
"""Of an expiry's sum of amount times strike of puts."""


class ExpirySums(NamedTuple):
    """`row` packs by point what positions and orders add to the mark at their worst, before skews are told
    apart; where numbers are too large for that, `values` holds it instead."""

    mark: int
    up: int
    """What the forward alone, shocked up, adds to the mark."""
    down: int
    row: int
    values: tuple[int, ...]
    skews: tuple[int, ...]
    """By skew point: minus the larger of the largest gain and the largest loss."""
    naked: int
    """Short amount per strike that no option of the same strike covers, summed."""
    notional: int
    """The largest amounts either side of 0, summed."""


NO_OPTIONS = ExpirySums(0, 0, 0, 0, (), (), 0, 0)


class ExpiryHolding(NamedTuple):
    """All of one expiry: risk arrays with an amount each, and an amount of the future; open orders likewise,
    where there are any. `sums`, when known, stand for the options."""

    expiry: Expiry
    options: Sequence[RiskArray] = ()
    amounts: Sequence[int] = ()
    future_amount: int = 0
    buys: Sequence[int] = ()
    sells: Sequence[int] = ()
    future_buy: int = 0
    future_sell: int = 0
    sums: ExpirySums | None = None


class OrderMoves(NamedTuple):
    """Of one option: rows of what a unit loses bought and sold, with the long and with the short factor; and
    what the basis shocks alone add to it."""

    bought_long: int
    sold_long: int
    bought_short: int
    sold_short: int
    up: int
    down: int


def widest(amount: int, buy: int, sell: int) -> int:
    """The largest amount either side of 0 that orders can make of an amount."""
    return max(amount + buy, sell - amount)


def expiry_sums(grid: Grid, holding: ExpiryHolding) -> ExpirySums:
    """Of all options of the holding."""
    if not holding.options:
        return NO_OPTIONS
    return lane_sums(grid, holding, ()) if is_small(holding) else plain_sums(grid, holding)


def is_small(holding: ExpiryHolding) -> bool:
    """Whether the numbers of its options are within the bounds of `lane_sums`."""
    strike = max([option.put_strike for option in holding.options])
    sizes = [*map(abs, holding.amounts), *holding.buys, *holding.sells]
    return (
        len(holding.options) <= MAX_POSITIONS
        and max(sizes) < LANE_INPUT
        and sum(sizes) * strike < LANE_STRIKES
        and holding.expiry.forward < LANE_INPUT
    )


def plain_sums(grid: Grid, holding: ExpiryHolding) -> ExpirySums:
    """The definition, with integers of any size."""
    expiry, options, amounts = holding.expiry, holding.options, holding.amounts
    forward, discount = expiry.forward, expiry.discount
    units = [[forward * value + (option.put_strike << BITS) for value in option.values] for option in options]
    worth = [sum(map(product, amounts, column)) for column in zip(*units, strict=True)]
    mark = worth[grid.mark] * discount >> BITS
    marks = [unit[grid.mark] * discount for unit in units]
    basis = []
    for place in (grid.basis_up, grid.basis_down):
        moves = [unit[place] * discount - of_mark for unit, of_mark in zip(units, marks, strict=True)]
        loss, _ = _order_moves(holding, moves)
        basis.append((worth[place] * discount >> BITS) - mark - (-(-loss >> BITS)))
    lows, highs = [], []
    for place, of_point in enumerate(worth):
        factors = [expiry.long_factor, expiry.short_factor]
        if not holding.buys:
            factors = factors[:1] if of_point >= 0 else factors[1:]
        outcomes = []
        for factor in factors:
            moves = [factor * unit[place] - of_mark for unit, of_mark in zip(units, marks, strict=True)]
            loss, gain = _order_moves(holding, moves)
            base = factor * of_point - (mark << BITS)
            outcomes.append((base - loss, base + gain))
        lows.append(min(low for low, _ in outcomes))
        highs.append(min(high for _, high in outcomes))
    skews = tuple(min(lows[place] >> BITS, -(highs[place] >> BITS)) for place in grid.skews)
    return ExpirySums(mark, basis[0], basis[1], 0, tuple(lows), skews, *_amounts(holding))


def _order_moves(holding: ExpiryHolding, moves: Sequence[int]) -> tuple[int, int]:
    """(what orders can lose, what they can gain) when one unit of each option moves so."""
    loss = gain = 0
    for move, buy, sell in zip(moves, holding.buys, holding.sells, strict=False):
        loss += sell * move if move > 0 else buy * -move
        gain += buy * move if move > 0 else sell * -move
    return loss, gain


def order_moves(grid: Grid, expiry: Expiry, option: RiskArray) -> OrderMoves:
    """Within the bounds of `lane_sums`."""
    lanes = make_lanes(len(grid.points))
    unit = expiry.forward * option.row + (option.put_strike << BITS) * lanes.ones
    lifted = unit + lanes.halves
    mark = lane(lifted, grid.mark) * expiry.discount
    rows = []
    for factor in (expiry.long_factor, expiry.short_factor):
        move = factor * unit - mark * lanes.ones
        gains = lanes.positive_part(move + lanes.halves)
        rows += [gains - move, gains]
    up = lane(lifted, grid.basis_up) * expiry.discount - mark
    down = lane(lifted, grid.basis_down) * expiry.discount - mark
    return OrderMoves(rows[0], rows[1], rows[2], rows[3], up, down)


def lane_sums(grid: Grid, holding: ExpiryHolding, moves: Sequence[OrderMoves]) -> ExpirySums:
    """`plain_sums` with all points of an option in one integer. `moves`: of each option, if known.

    For at most MAX_POSITIONS options within LANE_INPUT and LANE_STRIKES: 2^7 2^50 2^61 of the sums times 2^50
    of the forward and 2^63 of the factor, and orders with twice that, are within the 2^239 of a lane.
    """
    expiry, discount = holding.expiry, holding.expiry.discount
    lanes = make_lanes(len(grid.points))
    worth = _worth(holding, lanes, holding.amounts)
    lifted = worth + lanes.halves
    mark = lane(lifted, grid.mark) * discount >> BITS
    up = (lane(lifted, grid.basis_up) * discount >> BITS) - mark
    down = (lane(lifted, grid.basis_down) * discount >> BITS) - mark
    marks = (mark << BITS) * lanes.ones
    if holding.buys:
        moves = moves or [order_moves(grid, expiry, option) for option in holding.options]
        low, high = _with_orders(grid, holding, moves, worth, marks)
        up -= -(-_basis_loss(holding, [move.up for move in moves]) >> BITS)
        down -= -(-_basis_loss(holding, [move.down for move in moves]) >> BITS)
    else:
        gains = lanes.positive_part(lifted)
        low = expiry.short_factor * worth + (expiry.long_factor - expiry.short_factor) * gains - marks
        high = low
    lifted_low, lifted_high = low + lanes.halves, high + lanes.halves
    skews = tuple(
        [min(lane(lifted_low, place) >> BITS, -(lane(lifted_high, place) >> BITS)) for place in grid.skews]
    )
    naked, notional = _amounts(holding)
    return ExpirySums(mark, up, down, low, (), skews, naked, notional)


def _worth(holding: ExpiryHolding, lanes: Lanes, amounts: Sequence[int]) -> int:
    """Row of what these amounts of the options are worth, undiscounted."""
    rows: int = sum(map(product, amounts, [option.row for option in holding.options]))
    strikes: int = sum(map(product, amounts, [option.put_strike for option in holding.options]))
    return holding.expiry.forward * rows + (strikes << BITS) * lanes.ones


def _with_orders(
    grid: Grid, holding: ExpiryHolding, moves: Sequence[OrderMoves], worth: int, marks: int
) -> tuple[int, int]:
    """Rows of the least and the greatest that fills can make of the moves.

    What orders can gain is what they can lose, and what all of them filled move: no unit does both.
    """
    expiry, buys, sells = holding.expiry, holding.buys, holding.sells
    lanes = make_lanes(len(grid.points))
    filled = _worth(holding, lanes, [buy - sell for buy, sell in zip(buys, sells, strict=True)])
    filled_mark = lane(filled + lanes.halves, grid.mark) * expiry.discount * lanes.ones
    lows, highs = [], []
    for factor, bought, sold in (
        (expiry.long_factor, [m.bought_long for m in moves], [m.sold_long for m in moves]),
        (expiry.short_factor, [m.bought_short for m in moves], [m.sold_short for m in moves]),
    ):
        loss = sum(map(product, buys, bought)) + sum(map(product, sells, sold))
        base = factor * worth - marks
        lows.append(base - loss)
        highs.append(base + loss + factor * filled - filled_mark)
    return lanes.least(lows[0], lows[1]), lanes.least(highs[0], highs[1])


def _basis_loss(holding: ExpiryHolding, moves: Sequence[int]) -> int:
    return _order_moves(holding, moves)[0]


def _amounts(holding: ExpiryHolding) -> tuple[int, int]:
    """(naked, notional)."""
    amounts, buys, sells = holding.amounts, holding.buys, holding.sells
    if not buys:
        buys = sells = [0] * len(amounts)
    notional = 0
    shorts: dict[int, int] = {}
    for option, amount, buy, sell in zip(holding.options, amounts, buys, sells, strict=True):
        notional += widest(amount, buy, sell)
        shorts[option.strike] = shorts.get(option.strike, 0) + sell - amount
    return sum([short for short in shorts.values() if short > 0]), notional
