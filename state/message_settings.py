"""What the governor sets: the venue's parameters, its publishers and feeds, terms of margin and prices.

Handlers of `messages`: each raises Rejected before it has changed anything.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from state import l1_market
from state.block import L1Message, MessageResult
from state.codec_format import is_name
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.fee_market import check_fee_terms
from state.fee_tiers import check_tiers
from state.keys import (
    FEE_TERMS_KEY,
    FEE_TIERS_KEY,
    FEED,
    LIQUIDATION_KEY,
    MARKET_NAME,
    PARAMETERS_KEY,
    PRIORITY_KEY,
    PUBLISHERS_KEY,
    RATE,
    SURFACE,
    name_key,
)
from state.leaves import (
    Feed,
    FeeTerms,
    FeeTiers,
    L1Terms,
    LiquidationParameters,
    MarginTerms,
    Parameters,
    PriorityTerms,
    Progress,
    Publishers,
    RateFeed,
    Surface,
)
from state.margin_terms import check_margin_terms, margin_key
from state.message_payloads import decode_as, demand, unpack
from state.oracle import FeedKind
from state.priority import check_priority_terms
from state.units import MAX_NAME_BYTES, MAX_OPEN_ORDERS, MAX_POSITIONS, MAX_PRICE_UUSD, MAX_PUBLISHERS, PPM
from state.view import StateView

_SET_FEED: Final = Struct(">B31sII")
_MAX_PUSD: Final = 10**15
_MAX_AGE_MS: Final = 86_400_000
_MAX_SESSION_KEYS: Final = 64
_MAX_AUCTION_MS: Final = 7 * 86_400_000
"""Of each phase."""
_FEED_KINDS: Final[dict[int, tuple[int, type[Feed] | type[RateFeed] | type[Surface]]]] = {
    FeedKind.PRICE: (FEED, Feed),
    FeedKind.RATE: (RATE, RateFeed),
    FeedKind.SURFACE: (SURFACE, Surface),
}


def set_parameters(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets the venue's parameters."""
    new = decode_as(Parameters, message.payload)
    demand(
        {
            "exec_price_pusd": new.exec_price_pusd <= _MAX_PUSD,
            "eth_price_uusd": 0 < new.eth_price_uusd <= MAX_PRICE_UUSD,
            "oracle_max_age_ms": 0 < new.oracle_max_age_ms <= _MAX_AGE_MS,
            "oracle_deviation_ppm": 0 < new.oracle_deviation_ppm <= PPM,
            "max_orders": 0 < new.max_orders <= MAX_OPEN_ORDERS,
            "max_positions": 0 < new.max_positions <= MAX_POSITIONS,
            "max_session_keys": new.max_session_keys <= _MAX_SESSION_KEYS,
        }
    )
    view.put(PARAMETERS_KEY, new)
    return MessageResult(index, message.kind)


def set_publishers(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Names who reports prices, and how many must agree."""
    new = decode_as(Publishers, message.payload)
    count = len(new.addresses)
    demand(
        {
            "quorum": 0 < new.quorum <= count,
            "addresses": count <= MAX_PUBLISHERS and len(set(new.addresses)) == count,
        }
    )
    view.put(PUBLISHERS_KEY, new)
    return MessageResult(index, message.kind)


def set_feed(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets the terms of a feed, which need not exist before."""
    kind, padded, heartbeat_ms, deviation_ppm = unpack(_SET_FEED, message.payload)
    name = padded.rstrip(b"\0")
    demand(
        {
            "kind": kind in _FEED_KINDS,
            "name": is_name(name),
            "heartbeat_ms": heartbeat_ms <= _MAX_AGE_MS,
            "deviation_ppm": deviation_ppm <= PPM,
        }
    )
    key_kind, make = _FEED_KINDS[kind]
    key = name_key(key_kind, name.decode())
    feed: Feed | RateFeed | Surface | None = view.get(key)
    if feed is None:
        if kind == FeedKind.PRICE and view.get(name_key(MARKET_NAME, name.decode())) is not None:
            raise Rejected(RejectCode.NAME_TAKEN, name=name.decode())
        feed = make()
    feed.heartbeat_ms = heartbeat_ms
    feed.deviation_ppm = deviation_ppm
    view.put(key, feed)
    return MessageResult(index, message.kind)


def set_margin(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets the margin parameters of an underlying that there is."""
    padded = message.payload[:MAX_NAME_BYTES]
    name = padded.rstrip(b"\0")
    if len(padded) < MAX_NAME_BYTES:
        raise Rejected(RejectCode.MALFORMED_MESSAGE, got=len(message.payload))
    terms = decode_as(MarginTerms, message.payload[MAX_NAME_BYTES:])
    demand({"underlying": is_name(name) and view.get(name_key(FEED, name.decode())) is not None})
    check_margin_terms(terms)
    view.put(margin_key(padded), terms)
    return MessageResult(index, message.kind)


def set_liquidation(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets how auctions run."""
    new = decode_as(LiquidationParameters, message.payload)
    demand(
        {
            "buffer_ppm": new.buffer_ppm <= PPM,
            "discounts": 0 < new.start_discount_ppm <= new.fast_discount_ppm <= PPM,
            "fee_ppm": new.fee_ppm <= PPM,
            "durations": min(new.fast_ms, new.slow_ms, new.insolvent_ms) > 0
            and max(new.fast_ms, new.slow_ms, new.insolvent_ms) <= _MAX_AUCTION_MS,
        }
    )
    view.put(LIQUIDATION_KEY, new)
    return MessageResult(index, message.kind)


def set_fees(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets what base prices follow; the next block is the first that they decide."""
    new = decode_as(FeeTerms, message.payload)
    check_fee_terms(new)
    view.put(FEE_TERMS_KEY, new)
    return MessageResult(index, message.kind)


def set_fee_tiers(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets what accounts pay of the instruments' fees; each from its next day on."""
    new = decode_as(FeeTiers, message.payload)
    check_tiers(new)
    view.put(FEE_TIERS_KEY, new)
    return MessageResult(index, message.kind)


def set_priority(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets where what is paid for places in blocks goes."""
    new = decode_as(PriorityTerms, message.payload)
    check_priority_terms(new)
    view.put(PRIORITY_KEY, new)
    return MessageResult(index, message.kind)


def set_l1_terms(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets how the price of a batch byte follows L1; the next block is the first that they decide."""
    new = decode_as(L1Terms, message.payload)
    l1_market.check_l1_terms(new)
    l1_market.set_terms(view, new, block.timestamp_ms)
    return MessageResult(index, message.kind)
