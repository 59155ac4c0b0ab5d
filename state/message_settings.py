"""What the governor sets: the venue's parameters, its publishers and feeds, terms of margin and prices.

Handlers of `messages`: each raises Rejected before it has changed anything.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final

from state import l1_market
from state.block import L1Message, MessageKind, MessageResult
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


def _check_parameters(new: Parameters) -> None:
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


def _check_publishers(new: Publishers) -> None:
    count = len(new.addresses)
    demand(
        {
            "quorum": 0 < new.quorum <= count,
            "addresses": count <= MAX_PUBLISHERS and len(set(new.addresses)) == count,
        }
    )


def _check_liquidation(new: LiquidationParameters) -> None:
    demand(
        {
            "buffer_ppm": new.buffer_ppm <= PPM,
            "discounts": 0 < new.start_discount_ppm <= new.fast_discount_ppm <= PPM,
            "fee_ppm": new.fee_ppm <= PPM,
            "durations": min(new.fast_ms, new.slow_ms, new.insolvent_ms) > 0
            and max(new.fast_ms, new.slow_ms, new.insolvent_ms) <= _MAX_AUCTION_MS,
        }
    )


_SINGLE: Final[dict[int, tuple[Any, Callable[[Any], None], bytes]]] = {
    MessageKind.SET_PARAMETERS: (Parameters, _check_parameters, PARAMETERS_KEY),
    MessageKind.SET_PUBLISHERS: (Publishers, _check_publishers, PUBLISHERS_KEY),
    MessageKind.SET_LIQUIDATION: (LiquidationParameters, _check_liquidation, LIQUIDATION_KEY),
    MessageKind.SET_FEES: (FeeTerms, check_fee_terms, FEE_TERMS_KEY),
    MessageKind.SET_FEE_TIERS: (FeeTiers, check_tiers, FEE_TIERS_KEY),
    MessageKind.SET_PRIORITY: (PriorityTerms, check_priority_terms, PRIORITY_KEY),
}
"""Settings that are one leaf, whose bytes the message is: their leaf, bounds and key."""


def set_single(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Stores one of them."""
    kind, check, key = _SINGLE[message.kind]
    new = decode_as(kind, message.payload)
    check(new)
    view.put(key, new)
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


def set_l1_terms(
    view: StateView, block: BlockContext, progress: Progress, message: L1Message, index: int
) -> MessageResult:
    """Sets how the price of a batch byte follows L1; the next block is the first that they decide."""
    new = decode_as(L1Terms, message.payload)
    l1_market.check_l1_terms(new)
    l1_market.set_terms(view, new, block.timestamp_ms)
    return MessageResult(index, message.kind)
