"""What an auction offers: discounts over time, the share that may be taken, rewards. Pure integers, no state.

All is said about the account as a whole, its cash included. With E its equity, M its maintenance margin (net:
what is left of equity after the requirement), B its buffer margin,

    B = M + buffer * (M - E)

a bidder who takes the share s of a solvent account's positions at their marks gets from it `s left d E`: so
he pays `(1 - d)` of what the share is worth, d being the discount, which rises from its start over a fast
and then a slow phase to everything. `left` is how much of what was held at first is still held: so what
earlier bidders paid is not sold again. The insurance fund gets a fee of what the bidder pays. Selling s takes
s of the requirement away, and the largest share is the one that brings buffer margin to 0:

    s = -B / (E - B - left * (d + fee * (1 - d)) * E)

An insolvent account (E not above 0) has nothing to reward bidders from: the insurance fund fills the share's
part of the hole and pays a reward that rises to the share's part of the requirement E - M. Its means bound
the share by the hole alone, and the reward by what is left then: who wants the positions for less may have
them, so an account without a hole finds bidders also when the fund is empty.

These are the rules of Derive's published liquidation auctions (docs.derive.xyz, "Liquidation parameters", and
its DutchAuction contract), whose values are the defaults; there the share is of the portfolio as it was at
the start and bids' proceeds are set aside, which is what `left` does here.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from state.leaves import LiquidationParameters
from state.units import PPB, PPM

_PPT: Final = PPM * PPM


class Health(NamedTuple):
    """How an account stands, in uusd; margins are net."""

    equity_uusd: int
    maintenance_uusd: int
    buffer_uusd: int


class Offer(NamedTuple):
    """What an auction offers at a moment."""

    is_insolvent: bool
    discount_ppm: int
    """Of a solvent auction; of an insolvent one, how far its ramp has come."""
    allowed_ppm: int
    """The largest share that may be taken now; 0: none."""
    means_uusd: int
    """Of the insurance fund."""


class Price(NamedTuple):
    """What a share costs whom, in uusd."""

    reward_uusd: int
    """To the bidder."""
    fee_uusd: int
    """From the account to the insurance fund."""
    hole_uusd: int
    """From the insurance fund to the account; the reward comes from there too if this is an insolvent one."""


def health_of(equity_uusd: int, maintenance_uusd: int, parameters: LiquidationParameters) -> Health:
    """Buffer margin is rounded down."""
    buffer = maintenance_uusd + parameters.buffer_ppm * (maintenance_uusd - equity_uusd) // PPM
    return Health(equity_uusd, maintenance_uusd, buffer)


def discount_ppm(parameters: LiquidationParameters, elapsed_ms: int) -> int:
    """Of a solvent auction that is so old; rounded down."""
    start, fast = parameters.start_discount_ppm, parameters.fast_discount_ppm
    if elapsed_ms < parameters.fast_ms:
        return start + (fast - start) * elapsed_ms // parameters.fast_ms
    slow = elapsed_ms - parameters.fast_ms
    return fast + (PPM - fast) * min(slow, parameters.slow_ms) // parameters.slow_ms


def ramp_ppm(parameters: LiquidationParameters, elapsed_ms: int) -> int:
    """Of an insolvent auction that is so old; rounded down."""
    return min(elapsed_ms, parameters.insolvent_ms) * PPM // parameters.insolvent_ms


def offer_of(
    health: Health, parameters: LiquidationParameters, elapsed_ms: int, left_ppb: int, insurance_uusd: int
) -> Offer:
    """Of an account whose buffer margin is below 0."""
    equity, buffer = health.equity_uusd, health.buffer_uusd
    if equity <= 0:
        allowed = min(PPM, insurance_uusd * PPM // -equity) if equity else PPM
        return Offer(True, ramp_ppm(parameters, elapsed_ms), allowed, insurance_uusd)
    discount = discount_ppm(parameters, elapsed_ms)
    cost = discount * PPM + parameters.fee_ppm * (PPM - discount)
    gain = (equity - buffer) * _PPT * PPB - left_ppb * cost * equity
    return Offer(False, discount, min(PPM, -(buffer * PPM * _PPT * PPB // gain)), insurance_uusd)


def price_of(
    health: Health, parameters: LiquidationParameters, offer: Offer, left_ppb: int, share_ppm: int
) -> Price:
    """Rounded down, but for the hole."""
    equity = health.equity_uusd
    if offer.is_insolvent:
        hole = -(equity * share_ppm // PPM)
        reward = (equity - health.maintenance_uusd) * offer.discount_ppm * share_ppm // _PPT
        return Price(min(reward, max(0, offer.means_uusd - hole)), 0, hole)
    worth = equity * share_ppm * left_ppb
    reward = worth * offer.discount_ppm // (_PPT * PPB)
    fee = worth * (PPM - offer.discount_ppm) * parameters.fee_ppm // (_PPT * PPM * PPB)
    return Price(reward, fee, 0)


def left_after(left_ppb: int, share_ppm: int) -> int:
    """How much is left when so much of it has been taken; rounded up."""
    return -(-left_ppb * (PPM - share_ppm) // PPM)


def seized_ulots(size_ulots: int, share_ppm: int) -> int:
    """How much of a position a share is, with its sign; rounded away from 0, so the share is not less.

    So it may be off the instrument's lot, and so may what is left.
    """
    seized = -(-abs(size_ulots) * share_ppm // PPM)
    return seized if size_ulots > 0 else -seized
