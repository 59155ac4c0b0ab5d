"""What an action costs now, and the most it can cost within so many seconds: computed from the state alone.

Whatever is used of the venue and whatever L1 does, base prices and the byte price move by bounded steps from
block to block (`fee_market.most_within_pusd`, `l1_price.most_within`), so their highest values in a time are
known; and so is the most bytes that an action's encoding can have (`bytes_within`). Together they bound the
fee, as long as the governor leaves the terms as they are. The risk part has no such bound, since it follows
marks: here the whole size counts, at the highest rate there is, and at worst losses that have doubled.

- iQUOTE_001 Within the quote's time no block charges the quoted action more than `most`, while the terms stay
  and no mark of its markets doubles.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from state import fee_market, keys, l1_market, l1_price
from state.actions import (
    Action,
    BulkOrders,
    CancelQuote,
    ExecuteQuote,
    PlaceOrder,
    PlaceTrigger,
    ReplaceOrder,
    SignedAction,
)
from state.codec import MarketEntry, encode_transaction
from state.fees import Parts, charge
from state.leaves import FeeMarket, Instrument, Market, Parameters, System
from state.risk_fees import most_rate, risk_uusd, worst_of
from state.rules import priced_of, rule_of, use_of
from state.units import MAX_PRICE_UUSD, PPM
from state.view import StateView

MAX_SECONDS: Final = 600
_MAX_FEE_UUSD: Final = 2**63 - 1
"""Takes as many bytes as any fee."""
_NONCE_GROWTH: Final = 3
"""Bytes by which a clock's nonce grows in MAX_SECONDS."""
_TIME_GROWTH: Final = 1
"""Bytes by which a time in seconds grows that lies in the past then."""
_UNSIGNED: Final = bytes(64)
_MARK_RISE: Final = 2
_RISK_SCALE: Final = PPM * PPM


class Priced(msgspec.Struct, frozen=True):
    """Parts of a fee as in `state/fees.py`, now and at most; bids stand apart."""

    now: Parts
    most: Parts
    units: int
    leaves: int
    size_bytes: int
    most_bytes: int
    execution_pusd: int
    byte_price_pusd: int

    @property
    def fee_uusd(self) -> int:
        return sum(self.now)

    @property
    def most_uusd(self) -> int:
        return sum(self.most)


def priced(
    view: StateView, action: Action, table: Mapping[int, MarketEntry], now_ms: int, seconds: int
) -> Priced:
    """What the action, with `max_fee_uusd` at the most that it can be, costs in a block that began now.

    `table` has the markets that it prices in. 0 <= seconds <= MAX_SECONDS. Raises CodecError for an action
    that has no encoding, Rejected for one that is malformed.
    """
    system: System = view.get(keys.SYSTEM_KEY)
    now_ms = max(now_ms, system.timestamp_ms)
    market = fee_market.coming(view, now_ms - system.timestamp_ms)
    price = l1_market.coming(view, now_ms)
    units, leaves = use_of(view, action, rule_of(action))
    most_bytes = bytes_within(action, table, now_ms)
    most_byte_price = l1_price.most_within(price, l1_market.terms_of(view), now_ms, seconds)
    risk = risk_uusd(view, action)
    most_risk = max(_risk_within(view, action), risk)
    most = charge(most_byte_price, _highest(view, market, seconds), units, leaves, most_bytes, most_risk)
    paying = replace(action, max_fee_uusd=sum(most) + action.priority_bid_uusd)
    size_bytes = len(encode_transaction(SignedAction(paying, _UNSIGNED), now_ms, dict(table)))
    now = charge(price.price_pusd, market, units, leaves, size_bytes, risk)
    return Priced(now, most, units, leaves, size_bytes, most_bytes, market.execution_pusd, price.price_pusd)


def bytes_within(action: Action, table: Mapping[int, MarketEntry], now_ms: int) -> int:
    """The most bytes that the action takes in a batch in the next MAX_SECONDS, whatever its max_fee.

    A price counts from a reference that the batch will fix: here from one farther away than any. Times count
    from the block's: a deadline only comes nearer, but an order's expiry may pass, and nonces lie behind.
    """
    far = {
        market: entry._replace(reference_ticks=2 * MAX_PRICE_UUSD // entry.tick_uusd)
        for market, entry in table.items()
    }
    dear = replace(action, max_fee_uusd=_MAX_FEE_UUSD)
    size = len(encode_transaction(SignedAction(dear, _UNSIGNED), now_ms, far))
    growth = _NONCE_GROWTH + _TIME_GROWTH * len(priced_of(action))
    if isinstance(action, ExecuteQuote | CancelQuote):
        growth += _NONCE_GROWTH + _TIME_GROWTH
    return size + growth


def _risk_within(view: StateView, action: Action) -> int:
    """The risk part if all that is placed adds to the risk at once, at the highest rate, and marks have
    doubled."""
    rate = most_rate(fee_market.terms_of(view))
    total = 0
    for market, size_ulots, price_uusd in _placed(action):
        instrument: Instrument = view.get(keys.instrument_key(market))
        state: Market = view.get(keys.market_key(market))
        worst = worst_of(view, state, instrument)
        if worst is not None:
            price = _MARK_RISE * max(worst.price_uusd, price_uusd)
            by_ulot = -(-rate * max(worst.down_ppm, worst.up_ppm) * price // _RISK_SCALE)
            total += min(size_ulots, instrument.max_size_ulots) * by_ulot
    return -(-total // _RISK_SCALE)


def _placed(action: Action) -> list[tuple[int, int, int]]:
    """(market, size, price) of all that an action places; a leg of a quote has no price."""
    if isinstance(action, ExecuteQuote):
        return [(leg.market, leg.size_ulots, 0) for leg in action.quote.legs]
    if not isinstance(action, PlaceOrder | PlaceTrigger | ReplaceOrder | BulkOrders):
        return []
    return [(each.market, each.size_ulots, each.price_uusd) for each in priced_of(action)]


def _highest(view: StateView, market: FeeMarket, seconds: int) -> FeeMarket:
    """The base prices at their highest within so many seconds."""
    terms = fee_market.terms_of(view)
    parameters: Parameters = view.get(keys.PARAMETERS_KEY)
    bound = fee_market.most_within_pusd
    return FeeMarket(
        bound(terms, market.execution_pusd, parameters.exec_price_pusd, seconds),
        bound(terms, market.data_pusd, terms.data_min_pusd, seconds),
        bound(terms, market.growth_pusd, terms.growth_min_pusd, seconds),
        market.proof_unit_pusd,
        market.finality_byte_pusd,
    )
