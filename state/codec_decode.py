"""Decoding of transactions: what `codec` encodes, and nothing else (PROTOCOL section 6).

Raises CodecError and nothing else, whatever the bytes. Readers append items as they read them and never
reserve what a count announces, so what decoding allocates is bounded by the bytes that are there.

A reader takes the data and an offset and returns what it read and the offset after it; the end of the data
shows as IndexError inside and becomes CodecError at the door.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar

from state.actions import (
    Action,
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
    Leg,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
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
    Scope,
    SelfTrade,
    SetProtection,
    Side,
    SignedAction,
    StartAuction,
    SurfaceReport,
    Transfer,
    TriggerCondition,
    TriggerSource,
    Withdraw,
)
from state.codec_format import (
    ADDRESS_BYTES,
    BID_FLAG,
    CLOCK_NONCE,
    EXPIRY_FLAG,
    HASH_BYTES,
    MAX_MARKET,
    MAX_ORDER_ID,
    NO_HASH,
    SIGNATURE_BYTES,
    CodecError,
    MarketEntry,
    Table,
    entry_of,
    in_u64,
    read_bytes,
    read_name,
    read_signed,
    read_varint,
    report_names,
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

Item = TypeVar("Item")

# Decoding: for each kind a function that reads what stands between envelope and signature.


def _read_entry(data: bytes, offset: int, table: Table) -> tuple[int, MarketEntry, int]:
    market, offset = read_varint(data, offset)
    return market, entry_of(table, market), offset


def _read_market(data: bytes, offset: int) -> tuple[int, int]:
    market, offset = read_varint(data, offset)
    if market > MAX_MARKET:
        raise CodecError("market", "out of range")
    return market, offset


def _read_order_id(data: bytes, offset: int, nonce: int) -> tuple[int, int]:
    back, offset = read_signed(data, offset)
    order_id = (nonce << OPERATION_BITS) - back
    if not 0 <= order_id <= MAX_ORDER_ID:
        raise CodecError("order_id", "out of range")
    return order_id, offset


def _read_price_and_size(data: bytes, offset: int, entry: MarketEntry) -> tuple[int, int, int]:
    ticks, offset = read_signed(data, offset)
    lots, offset = read_varint(data, offset)
    tick, lot, reference = entry
    price = in_u64((reference + ticks) * tick, "price_uusd")
    return price, in_u64(lots * lot, "size_ulots"), offset


def _read_flags(byte: int) -> tuple[Side, OrderKind, bool, SelfTrade] | None:
    kind, self_trade = byte >> 1 & 7, byte >> 5 & 3
    if kind >= len(OrderKind) or self_trade >= len(SelfTrade):
        return None
    return Side(byte & 1), OrderKind(kind), bool(byte & 16), SelfTrade(self_trade)


_FLAGS: Final = tuple(_read_flags(byte) for byte in range(256))


def _read_order(data: bytes, offset: int, now_s: int, table: Table) -> tuple[Order, int]:
    market, entry, offset = _read_entry(data, offset, table)
    byte = data[offset]
    flags = _FLAGS[byte]
    if flags is None:
        raise CodecError("flags", f"{byte:#04x} means nothing")
    price, size, offset = _read_price_and_size(data, offset + 1, entry)
    expiry_s = 0
    if byte & EXPIRY_FLAG:
        ahead, offset = read_signed(data, offset)
        expiry_s = in_u64(now_s + ahead, "expiry_s")
        if expiry_s == 0:
            raise CodecError("expiry_s", "0 is encoded by the flag's absence")
    side, kind, reduce_only, self_trade = flags
    return Order(market, side, kind, price, size, reduce_only, expiry_s, self_trade), offset


def _read_cancel(data: bytes, offset: int, nonce: int) -> tuple[Cancel, int]:
    market, offset = _read_market(data, offset)
    order_id, offset = _read_order_id(data, offset, nonce)
    return Cancel(market, order_id), offset


def _read_replacement(data: bytes, offset: int, nonce: int, table: Table) -> tuple[Replacement, int]:
    market, entry, offset = _read_entry(data, offset, table)
    order_id, offset = _read_order_id(data, offset, nonce)
    price, size, offset = _read_price_and_size(data, offset, entry)
    return Replacement(market, order_id, price, size), offset


def _read_list(
    data: bytes, offset: int, limit: int, read: Callable[[int], tuple[Item, int]], field: str
) -> tuple[tuple[Item, ...], int]:
    count, offset = read_varint(data, offset)
    if count > limit:
        raise CodecError(field, f"more than {limit}")
    items = []
    for _ in range(count):
        item, offset = read(offset)
        items.append(item)
    return tuple(items), offset


# A body reader takes (data, offset, the action's nonce, the block's time in ms, table) and returns the
# action's own fields by name, and the offset after them.
Fields = tuple[dict[str, Any], int]


def _read_place(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    order, offset = _read_order(data, offset, now_ms // MS_PER_S, table)
    return {"order": order}, offset


def _read_cancel_order(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    cancel, offset = _read_cancel(data, offset, nonce)
    return {"cancel": cancel}, offset


def _read_cancel_all(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    market, offset = _read_market(data, offset)
    return {"market": market}, offset


def _read_replace(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    replacement, offset = _read_replacement(data, offset, nonce, table)
    return {"replacement": replacement}, offset


def _read_bulk(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    left, now_s = MAX_BULK_OPERATIONS, now_ms // MS_PER_S
    cancels, offset = _read_list(data, offset, left, lambda at: _read_cancel(data, at, nonce), "cancels")
    left -= len(cancels)
    replacements, offset = _read_list(
        data, offset, left, lambda at: _read_replacement(data, at, nonce, table), "replacements"
    )
    left -= len(replacements)
    orders, offset = _read_list(data, offset, left, lambda at: _read_order(data, at, now_s, table), "orders")
    return {"cancels": cancels, "replacements": replacements, "orders": orders}, offset


def _read_transfer(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    to_account, offset = read_varint(data, offset)
    amount, offset = read_varint(data, offset)
    return {"to_account": to_account, "amount_uusd": amount}, offset


def _read_withdraw(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    recipient, offset = read_bytes(data, offset, ADDRESS_BYTES)
    amount, offset = read_varint(data, offset)
    return {"recipient": recipient, "amount_uusd": amount}, offset


def _read_authorize(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    key, offset = read_bytes(data, offset, ADDRESS_BYTES)
    scope = data[offset]
    if scope >= len(Scope):
        raise CodecError("scope", f"{scope} means nothing")
    expiry_s, offset = read_varint(data, offset + 1)
    return {"key": key, "scope": Scope(scope), "expiry_s": expiry_s}, offset


def _read_revoke(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    key, offset = read_bytes(data, offset, ADDRESS_BYTES)
    return {"key": key}, offset


def _read_cancel_all_after(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    timeout_s, offset = read_varint(data, offset)
    return {"timeout_s": timeout_s}, offset


def _read_leg(data: bytes, offset: int) -> tuple[Leg, int]:
    value, offset = read_varint(data, offset)
    if value >> 1 > MAX_MARKET:
        raise CodecError("legs", "market out of range")
    size, offset = read_varint(data, offset)
    return Leg(value >> 1, Side(value & 1), size), offset


def _read_quote(data: bytes, offset: int, timestamp_ms: int) -> tuple[Quote, int]:
    account, offset = read_varint(data, offset)
    legs, offset = _read_list(data, offset, MAX_LEGS, lambda at: _read_leg(data, at), "legs")
    net, offset = read_signed(data, offset)
    taker, offset = read_varint(data, offset)
    terms = NO_HASH
    with_terms = data[offset]
    offset += 1
    if with_terms:
        terms, offset = read_bytes(data, offset, HASH_BYTES)
        if with_terms != 1 or terms == NO_HASH:
            raise CodecError("terms_hash", "not its only encoding")
    nonce, offset = _read_nonce(data, offset, timestamp_ms)
    ahead, offset = read_signed(data, offset)
    expiry_s = in_u64(timestamp_ms // MS_PER_S + ahead, "expiry_s")
    max_fee, offset = read_varint(data, offset)
    return Quote(account, legs, net, taker, terms, nonce, expiry_s, max_fee), offset


def _read_execute_quote(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    quote, offset = _read_quote(data, offset, now_ms)
    signature, offset = read_bytes(data, offset, SIGNATURE_BYTES)
    limit, offset = read_signed(data, offset)
    return {"quote": quote, "quote_signature": signature, "limit_uusd": limit}, offset


def _read_cancel_quote(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    quote_nonce, offset = _read_nonce(data, offset, now_ms)
    ahead, offset = read_signed(data, offset)
    expiry_s = in_u64(now_ms // MS_PER_S + ahead, "quote_expiry_s")
    return {"quote_nonce": quote_nonce, "quote_expiry_s": expiry_s}, offset


def _read_set_protection(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    underlying, offset = read_name(data, offset)
    fields: dict[str, Any] = {"underlying": underlying}
    for name in ("interval_ms", "frozen_ms", "quantity_ulots", "delta_ulots", "vega_uusd"):
        fields[name], offset = read_varint(data, offset)
    return fields, offset


def _read_reset_protection(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    underlying, offset = read_name(data, offset)
    return {"underlying": underlying}, offset


def _read_trigger(data: bytes, offset: int, nonce: int, now_ms: int, table: Table) -> Fields:
    order, offset = _read_order(data, offset, now_ms // MS_PER_S, table)
    flags = data[offset]
    if flags > 3:
        raise CodecError("flags", f"{flags:#04x} means nothing")
    trigger, offset = read_varint(data, offset + 1)
    fields = {
        "order": order,
        "source": TriggerSource(flags & 1),
        "condition": TriggerCondition(flags >> 1),
        "trigger_uusd": trigger,
    }
    return fields, offset


def _read_liquidated(data: bytes, offset: int, nonce: int, now_s: int, table: Table) -> Fields:
    liquidated, offset = read_varint(data, offset)
    return {"liquidated": liquidated}, offset


def _read_bid(data: bytes, offset: int, nonce: int, now_s: int, table: Table) -> Fields:
    liquidated, offset = read_varint(data, offset)
    share, offset = read_varint(data, offset)
    reward, offset = read_varint(data, offset)
    return {"liquidated": liquidated, "share_ppm": share, "min_reward_uusd": reward}, offset


def _read_deleverage(data: bytes, offset: int, nonce: int, now_s: int, table: Table) -> Fields:
    liquidated, offset = read_varint(data, offset)
    market, offset = _read_market(data, offset)
    counterparties, offset = _read_list(
        data, offset, MAX_BULK_OPERATIONS, lambda at: read_varint(data, at), "counterparties"
    )
    return {"liquidated": liquidated, "market": market, "counterparties": counterparties}, offset


_READERS: dict[int, tuple[Callable[..., Action], Callable[[bytes, int, int, int, Table], Fields]]] = {
    PlaceOrder.KIND: (PlaceOrder, _read_place),
    CancelOrder.KIND: (CancelOrder, _read_cancel_order),
    CancelAll.KIND: (CancelAll, _read_cancel_all),
    ReplaceOrder.KIND: (ReplaceOrder, _read_replace),
    BulkOrders.KIND: (BulkOrders, _read_bulk),
    Transfer.KIND: (Transfer, _read_transfer),
    Withdraw.KIND: (Withdraw, _read_withdraw),
    AuthorizeSessionKey.KIND: (AuthorizeSessionKey, _read_authorize),
    RevokeSessionKey.KIND: (RevokeSessionKey, _read_revoke),
    CancelAllAfter.KIND: (CancelAllAfter, _read_cancel_all_after),
    ExecuteQuote.KIND: (ExecuteQuote, _read_execute_quote),
    CancelQuote.KIND: (CancelQuote, _read_cancel_quote),
    SetProtection.KIND: (SetProtection, _read_set_protection),
    ResetProtection.KIND: (ResetProtection, _read_reset_protection),
    PlaceTrigger.KIND: (PlaceTrigger, _read_trigger),
    CancelTrigger.KIND: (CancelTrigger, _read_cancel_order),
    StartAuction.KIND: (StartAuction, _read_liquidated),
    Bid.KIND: (Bid, _read_bid),
    EndAuction.KIND: (EndAuction, _read_liquidated),
    Deleverage.KIND: (Deleverage, _read_deleverage),
}


def _read_nonce(data: bytes, offset: int, timestamp_ms: int) -> tuple[int, int]:
    value, offset = read_varint(data, offset)
    if not value & 1:
        if value >> 1 >= CLOCK_NONCE:
            raise CodecError("nonce", "not relative to the block")
        return value >> 1, offset
    ago = ~(value >> 2) if value & 2 else value >> 2
    nonce = timestamp_ms - ago
    if not CLOCK_NONCE <= nonce <= MAX_NONCE:
        raise CodecError("nonce", "out of range")
    return nonce, offset


def _read_action(data: bytes, offset: int, timestamp_ms: int, table: Table) -> tuple[SignedAction, int]:
    tag = data[offset]
    reader = _READERS.get(tag & ~BID_FLAG)
    if reader is None:
        raise CodecError("kind", f"{tag:#04x} means nothing")
    make, read_fields = reader
    now_s = timestamp_ms // MS_PER_S
    account, offset = read_varint(data, offset + 1)
    nonce, offset = _read_nonce(data, offset, timestamp_ms)
    ahead, offset = read_signed(data, offset)
    max_fee, offset = read_varint(data, offset)
    bid = 0
    if tag & BID_FLAG:
        bid, offset = read_varint(data, offset)
        if bid == 0:
            raise CodecError("priority_bid_uusd", "0 is encoded by the flag's absence")
    fields, offset = read_fields(data, offset, nonce, timestamp_ms, table)
    signature, offset = read_bytes(data, offset, SIGNATURE_BYTES)
    action = make(
        account=account,
        nonce=nonce,
        deadline_s=in_u64(now_s + ahead, "deadline_s"),
        max_fee_uusd=max_fee,
        priority_bid_uusd=bid,
        **fields,
    )
    return SignedAction(action, signature), offset


def _read_update(data: bytes, offset: int, timestamp_ms: int) -> tuple[OracleUpdate, int]:
    limit = MAX_FEEDS_PER_REPORT
    names, offset = _read_list(data, offset + 1, limit, lambda at: read_name(data, at), "feeds")
    reports, offset = _read_list(
        data, offset, MAX_PUBLISHERS, lambda at: _read_report(data, at, timestamp_ms, names), "reports"
    )
    update = OracleUpdate(reports)
    if report_names(update) != list(names):
        raise CodecError("feeds", "not just those of the reports, in order")
    return update, offset


def _read_report(
    data: bytes, offset: int, timestamp_ms: int, names: Sequence[str]
) -> tuple[OracleReport, int]:
    ago, offset = read_signed(data, offset)
    reported_ms = in_u64(timestamp_ms - ago, "timestamp_ms")
    limit = MAX_FEEDS_PER_REPORT
    prices, offset = _read_list(data, offset, limit, lambda at: _read_price(data, at, names), "prices")
    rates, offset = _read_list(data, offset, limit, lambda at: _read_rate(data, at, names), "rates")
    surfaces, offset = _read_list(data, offset, limit, lambda at: _read_surface(data, at, names), "surfaces")
    signature, offset = read_bytes(data, offset, SIGNATURE_BYTES)
    return OracleReport(reported_ms, prices, signature, rates, surfaces), offset


def _read_feed(data: bytes, offset: int, names: Sequence[str]) -> tuple[str, int]:
    place, offset = read_varint(data, offset)
    if place >= len(names):
        raise CodecError("feed", "not in the list of feeds")
    return names[place], offset


def _read_price(data: bytes, offset: int, names: Sequence[str]) -> tuple[Price, int]:
    name, offset = _read_feed(data, offset, names)
    value, offset = read_varint(data, offset)
    confidence, offset = read_varint(data, offset)
    return Price(name, value, confidence), offset


def _read_rate(data: bytes, offset: int, names: Sequence[str]) -> tuple[Rate, int]:
    name, offset = _read_feed(data, offset, names)
    value, offset = read_signed(data, offset)
    confidence, offset = read_varint(data, offset)
    return Rate(name, value, confidence), offset


def _read_surface(data: bytes, offset: int, names: Sequence[str]) -> tuple[SurfaceReport, int]:
    name, offset = _read_feed(data, offset, names)
    shape, rest = [], []
    for _ in range(5):
        value, offset = read_signed(data, offset)
        shape.append(value)
    for _ in range(3):
        value, offset = read_varint(data, offset)
        rest.append(value)
    return SurfaceReport(name, *shape, *rest), offset


def decode_transaction(data: bytes, offset: int, timestamp_ms: int, table: Table) -> tuple[Payload, int]:
    """The transaction at `offset` (not negative) and the offset after it.

    `timestamp_ms` is its block's (below 2^48), `table` the batch head's. Raises CodecError for whatever is
    not the canonical encoding of a transaction, a block's end included.
    """
    try:
        if data[offset] == OracleUpdate.KIND:
            return _read_update(data, offset, timestamp_ms)
        return _read_action(data, offset, timestamp_ms, table)
    except IndexError:
        raise CodecError("data", "ends early") from None
