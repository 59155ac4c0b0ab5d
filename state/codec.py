"""The batch encoding of transactions: the bytes that go to the journal and to L1 (PROTOCOL section 6).

Made for size and for reading from the middle: numbers are varints, and what repeats is said relative to
something already known. A price is a distance in ticks from its market's reference in the batch head, a
deadline or a clock-like nonce a distance from the block's timestamp, an order id a distance from the action's
own nonce. Nothing refers to another transaction, so one decodes from its offset, the head's table and its
block's timestamp alone.

Canonical: every value has one encoding, and the decoder (`codec_decode`) refuses every other. This module is
the door to all of it: the encoder is here, decoder and primitives are re-exported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from state.actions import (
    AuthorizeSessionKey,
    Bid,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    CancelQuote,
    CancelTrigger,
    Deleverage,
    EndAuction,
    ExecuteQuote,
    OracleReport,
    OracleUpdate,
    Order,
    Payload,
    PlaceOrder,
    PlaceTrigger,
    Price,
    Quote,
    Rate,
    Replacement,
    ReplaceOrder,
    ResetProtection,
    RevokeSessionKey,
    SetProtection,
    SignedAction,
    StartAuction,
    SurfaceReport,
    Transfer,
    Withdraw,
)
from state.codec_decode import decode_transaction
from state.codec_format import (
    ADDRESS_BYTES,
    BID_FLAG,
    BLOCK_END,
    BYTES,
    CLOCK_NONCE,
    EXPIRY_FLAG,
    HASH_BYTES,
    MAX_MARKET,
    MAX_ORDER_ID,
    MAX_TIMESTAMP_MS,
    NO_HASH,
    SIGNATURE_BYTES,
    CodecError,
    MarketEntry,
    Table,
    entry_of,
    read_signed,
    read_varint,
    report_names,
    signed_varint,
    varint,
    write_name,
)
from state.units import (
    MAX_BULK_OPERATIONS,
    MAX_FEEDS_PER_REPORT,
    MAX_LEGS,
    MAX_NONCE,
    MAX_PUBLISHERS,
    MS_PER_S,
    OPERATION_BITS,
)

__all__ = [
    "BLOCK_END",
    "MAX_ORDER_ID",
    "MAX_TIMESTAMP_MS",
    "CodecError",
    "MarketEntry",
    "Table",
    "block_start",
    "decode_transaction",
    "encode_transaction",
    "read_signed",
    "read_varint",
    "signed_varint",
    "varint",
]


def _fixed(value: bytes, length: int, field: str) -> bytes:
    if len(value) != length:
        raise CodecError(field, f"{len(value)} bytes, expected {length}")
    return value


# Encoding: one function for each kind gives the bytes between the envelope and the signature.


def _market(market: int) -> bytes:
    if market > MAX_MARKET:
        raise CodecError("market", f"{market} does not fit")
    return varint(market, "market")


def _order_id(order_id: int, nonce: int) -> bytes:
    if not 0 <= order_id <= MAX_ORDER_ID:
        raise CodecError("order_id", f"{order_id} does not fit")
    return signed_varint((nonce << OPERATION_BITS) - order_id)


def _price_and_size(price_uusd: int, size_ulots: int, entry: MarketEntry) -> tuple[bytes, bytes]:
    tick, lot, reference = entry
    ticks = price_uusd // tick
    if ticks * tick != price_uusd:
        raise CodecError("price_uusd", f"{price_uusd} is not a multiple of the tick {tick}")
    lots = size_ulots // lot
    if lots * lot != size_ulots:
        raise CodecError("size_ulots", f"{size_ulots} is not a multiple of the lot {lot}")
    return signed_varint(ticks - reference, "price_uusd"), varint(lots, "size_ulots")


def _order(order: Order, now_s: int, table: Table) -> bytes:
    market = order.market
    price, size = _price_and_size(order.price_uusd, order.size_ulots, entry_of(table, market))
    flags = order.side | order.kind << 1 | order.reduce_only << 4 | order.self_trade << 5
    if order.expiry_s:
        expiry = signed_varint(order.expiry_s - now_s, "expiry_s")
        return b"".join((varint(market), BYTES[flags | EXPIRY_FLAG], price, size, expiry))
    return b"".join((varint(market), BYTES[flags], price, size))


def _cancel(cancel: Cancel, nonce: int) -> bytes:
    return _market(cancel.market) + _order_id(cancel.order_id, nonce)


def _replacement(replacement: Replacement, nonce: int, table: Table) -> bytes:
    entry = entry_of(table, replacement.market)
    price, size = _price_and_size(replacement.price_uusd, replacement.size_ulots, entry)
    return varint(replacement.market) + _order_id(replacement.order_id, nonce) + price + size


Item = TypeVar("Item")


def _list(items: Sequence[Item], encode: Callable[[Item], bytes], field: str) -> bytes:
    parts = [varint(len(items))]
    for place, item in enumerate(items):
        try:
            parts.append(encode(item))
        except CodecError as error:
            raise CodecError(f"{field}[{place}].{error.field}", error.reason) from None
    return b"".join(parts)


def _bulk(action: BulkOrders, now_s: int, table: Table) -> bytes:
    if len(action.cancels) + len(action.replacements) + len(action.orders) > MAX_BULK_OPERATIONS:
        raise CodecError("operations", f"more than {MAX_BULK_OPERATIONS}")
    nonce = action.nonce
    return (
        _list(action.cancels, lambda cancel: _cancel(cancel, nonce), "cancels")
        + _list(action.replacements, lambda each: _replacement(each, nonce, table), "replacements")
        + _list(action.orders, lambda order: _order(order, now_s, table), "orders")
    )


def _session_key(action: AuthorizeSessionKey) -> bytes:
    key = _fixed(action.key, ADDRESS_BYTES, "key")
    return key + BYTES[action.scope] + varint(action.expiry_s, "expiry_s")


def _quote(quote: Quote, now_s: int, timestamp_ms: int) -> bytes:
    if len(quote.legs) > MAX_LEGS:
        raise CodecError("legs", f"more than {MAX_LEGS}")
    parts = [varint(quote.account, "account"), varint(len(quote.legs))]
    for leg in quote.legs:
        if leg.market > MAX_MARKET:
            raise CodecError("legs", f"market {leg.market} does not fit")
        parts += [varint(leg.market << 1 | leg.side, "market"), varint(leg.size_ulots, "size_ulots")]
    terms = _fixed(quote.terms_hash, HASH_BYTES, "terms_hash")
    parts += [
        signed_varint(quote.net_uusd, "net_uusd"),
        varint(quote.taker_account, "taker_account"),
        BYTES[0] if terms == NO_HASH else BYTES[1] + terms,
        _nonce(quote.nonce, timestamp_ms),
        signed_varint(quote.expiry_s - now_s, "expiry_s"),
        varint(quote.max_fee_uusd, "max_fee_uusd"),
    ]
    return b"".join(parts)


def _execute_quote(action: ExecuteQuote, timestamp_ms: int) -> bytes:
    return (
        _quote(action.quote, timestamp_ms // MS_PER_S, timestamp_ms)
        + _fixed(action.quote_signature, SIGNATURE_BYTES, "quote_signature")
        + signed_varint(action.limit_uusd, "limit_uusd")
    )


def _cancel_quote(action: CancelQuote, timestamp_ms: int) -> bytes:
    ahead = action.quote_expiry_s - timestamp_ms // MS_PER_S
    return _nonce(action.quote_nonce, timestamp_ms) + signed_varint(ahead, "quote_expiry_s")


def _protection(action: SetProtection) -> bytes:
    numbers = ("interval_ms", "frozen_ms", "quantity_ulots", "delta_ulots", "vega_uusd")
    return write_name(action.underlying) + b"".join([varint(getattr(action, name), name) for name in numbers])


def _trigger(action: PlaceTrigger, now_s: int, table: Table) -> bytes:
    flags = action.source | action.condition << 1
    return _order(action.order, now_s, table) + BYTES[flags] + varint(action.trigger_uusd, "trigger_uusd")


# Two actions stand apart: what they say is relative to the block's milliseconds.
_QUOTING: dict[type[Any], Callable[[Any, int], bytes]] = {
    ExecuteQuote: _execute_quote,
    CancelQuote: _cancel_quote,
}


def _deleverage(action: Deleverage) -> bytes:
    if len(action.counterparties) > MAX_BULK_OPERATIONS:
        raise CodecError("counterparties", f"more than {MAX_BULK_OPERATIONS}")
    return (
        varint(action.liquidated, "liquidated")
        + _market(action.market)
        + _list(action.counterparties, lambda account: varint(account, "account"), "counterparties")
    )


_ENCODERS: dict[type[Any], Callable[[Any, int, Table], bytes]] = {
    PlaceOrder: lambda action, now_s, table: _order(action.order, now_s, table),
    CancelOrder: lambda action, _, __: _cancel(action.cancel, action.nonce),
    CancelAll: lambda action, _, __: _market(action.market),
    ReplaceOrder: lambda action, _, table: _replacement(action.replacement, action.nonce, table),
    BulkOrders: _bulk,
    Transfer: lambda action, _, __: (
        varint(action.to_account, "to_account") + varint(action.amount_uusd, "amount_uusd")
    ),
    Withdraw: lambda action, _, __: (
        _fixed(action.recipient, ADDRESS_BYTES, "recipient") + varint(action.amount_uusd, "amount_uusd")
    ),
    AuthorizeSessionKey: lambda action, _, __: _session_key(action),
    RevokeSessionKey: lambda action, _, __: _fixed(action.key, ADDRESS_BYTES, "key"),
    CancelAllAfter: lambda action, _, __: varint(action.timeout_s, "timeout_s"),
    SetProtection: lambda action, _, __: _protection(action),
    ResetProtection: lambda action, _, __: write_name(action.underlying),
    PlaceTrigger: _trigger,
    CancelTrigger: lambda action, _, __: _cancel(action.cancel, action.nonce),
    StartAuction: lambda action, _, __: varint(action.liquidated, "liquidated"),
    Bid: lambda action, _, __: (
        varint(action.liquidated, "liquidated")
        + varint(action.share_ppm, "share_ppm")
        + varint(action.min_reward_uusd, "min_reward_uusd")
    ),
    EndAuction: lambda action, _, __: varint(action.liquidated, "liquidated"),
    Deleverage: lambda action, _, __: _deleverage(action),
}


def _nonce(nonce: int, timestamp_ms: int) -> bytes:
    if nonce < CLOCK_NONCE:
        return varint(nonce << 1, "nonce")
    if nonce > MAX_NONCE:
        raise CodecError("nonce", f"{nonce} does not fit")
    ago = timestamp_ms - nonce
    return varint((ago << 2 if ago >= 0 else ~(ago << 1) << 1) | 1)


def _update(update: OracleUpdate, timestamp_ms: int) -> bytes:
    if len(update.reports) > MAX_PUBLISHERS:
        raise CodecError("reports", f"more than {MAX_PUBLISHERS}")
    names = report_names(update)
    if len(names) > MAX_FEEDS_PER_REPORT:
        raise CodecError("feeds", f"more than {MAX_FEEDS_PER_REPORT}")
    places = {name: varint(place) for place, name in enumerate(names)}
    return (
        BYTES[OracleUpdate.KIND]
        + _list(names, write_name, "feeds")
        + _list(update.reports, lambda report: _report(report, timestamp_ms, places), "reports")
    )


def _report(report: OracleReport, timestamp_ms: int, places: Mapping[str, bytes]) -> bytes:
    for name in ("prices", "rates", "surfaces"):
        if len(getattr(report, name)) > MAX_FEEDS_PER_REPORT:
            raise CodecError(name, f"more than {MAX_FEEDS_PER_REPORT}")
    return (
        signed_varint(timestamp_ms - report.timestamp_ms, "timestamp_ms")
        + _list(report.prices, lambda price: _price(price, places), "prices")
        + _list(report.rates, lambda rate: _rate(rate, places), "rates")
        + _list(report.surfaces, lambda surface: _surface(surface, places), "surfaces")
        + _fixed(report.signature, SIGNATURE_BYTES, "signature")
    )


def _price(price: Price, places: Mapping[str, bytes]) -> bytes:
    return (
        places[price.feed]
        + varint(price.value_uusd, "value_uusd")
        + varint(price.confidence_ppm, "confidence_ppm")
    )


def _rate(rate: Rate, places: Mapping[str, bytes]) -> bytes:
    return (
        places[rate.feed]
        + signed_varint(rate.value_ppb, "value_ppb")
        + varint(rate.confidence_ppm, "confidence_ppm")
    )


def _surface(surface: SurfaceReport, places: Mapping[str, bytes]) -> bytes:
    shape = ("a_pico", "b_pico", "rho_pico", "m_pico", "sigma_pico")
    rest = ("forward_uusd", "tau_s", "confidence_ppm")
    return (
        places[surface.feed]
        + b"".join([signed_varint(getattr(surface, name), name) for name in shape])
        + b"".join([varint(getattr(surface, name), name) for name in rest])
    )


def encode_transaction(payload: Payload, timestamp_ms: int, table: Table) -> bytes:
    """The bytes of `payload` in a block of `timestamp_ms` (below 2^48) in a batch whose head has `table`.

    Raises CodecError naming the field that cannot be encoded: a price off the table's tick, a size off its
    lot, a market that is not in the table, a number out of range.
    """
    if type(payload) is OracleUpdate:
        return _update(payload, timestamp_ms)
    assert type(payload) is SignedAction
    action = payload.action
    now_s = timestamp_ms // MS_PER_S
    bid = action.priority_bid_uusd
    quoting = _QUOTING.get(type(action))
    own = quoting(action, timestamp_ms) if quoting else _ENCODERS[type(action)](action, now_s, table)
    return b"".join(
        (
            BYTES[action.KIND | BID_FLAG if bid else action.KIND],
            varint(action.account, "account"),
            _nonce(action.nonce, timestamp_ms),
            signed_varint(action.deadline_s - now_s, "deadline_s"),
            varint(action.max_fee_uusd, "max_fee_uusd"),
            varint(bid, "priority_bid_uusd") if bid else b"",
            own,
            _fixed(payload.signature, SIGNATURE_BYTES, "signature"),
        )
    )


def block_start(elapsed_ms: int, messages: int, l1_blocks: int) -> bytes:
    """A block's first bytes: time since the block before, L1 messages consumed, L1 blocks since.

    Its transactions and BLOCK_END follow.
    """
    return varint(elapsed_ms, "timestamp_ms") + varint(messages, "messages") + varint(l1_blocks, "l1_block")
