"""The JSON forms of what traders and publishers sign, as types: they decode and validate in one pass in C.

Fields and names are those of the typed data (`eip712_types`). `wire` turns them into actions.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from state.units import MAX_BULK_OPERATIONS, MAX_FEEDS_PER_REPORT, MAX_NAME_BYTES, MAX_PUBLISHERS

# Python's `$` also matches before a last newline: the lookahead forbids that, and means the same to others.
Uint64 = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^(?:0|[1-9][0-9]{0,19})$(?!\n)")]
"""A JSON number or a decimal string."""
Int64 = int | Annotated[str, Meta(pattern=r"^(?:0|-?[1-9][0-9]{0,18})$(?!\n)")]
InstrumentName = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_BYTES)]
AddressHex = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{40}$(?!\n)")]
HashHex = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{64}$(?!\n)")]
FeedName = Annotated[str, Meta(pattern=r"^[\x21-\x7e]{1,31}$(?!\n)")]


class OrderJson(Struct, frozen=True, forbid_unknown_fields=True):
    instrument: InstrumentName
    side: Literal["buy", "sell"]
    kind: Literal["limit", "post-only", "immediate-or-cancel", "fill-or-kill", "market"]
    price_uusd: Uint64
    size_ulots: Uint64
    reduce_only: bool
    expiry_s: Uint64
    self_trade: Literal["cancel-maker", "cancel-taker", "decrement-both"]


class CancelJson(Struct, frozen=True, forbid_unknown_fields=True):
    instrument: InstrumentName
    order_id: Uint64


class ReplacementJson(Struct, frozen=True, forbid_unknown_fields=True):
    instrument: InstrumentName
    order_id: Uint64
    price_uusd: Uint64
    size_ulots: Uint64


class EnvelopeJson(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="type"):
    account: Uint64
    nonce: Uint64
    deadline_s: Uint64
    max_fee_uusd: Uint64
    priority_bid_uusd: Uint64


class PlaceOrderJson(EnvelopeJson, frozen=True, kw_only=True, tag="PlaceOrder"):
    order: OrderJson


class CancelOrderJson(EnvelopeJson, frozen=True, kw_only=True, tag="CancelOrder"):
    cancel: CancelJson


class CancelAllJson(EnvelopeJson, frozen=True, kw_only=True, tag="CancelAll"):
    instrument: Annotated[str, Meta(max_length=MAX_NAME_BYTES)]
    """Empty for all markets."""


class ReplaceOrderJson(EnvelopeJson, frozen=True, kw_only=True, tag="ReplaceOrder"):
    replacement: ReplacementJson


class BulkOrdersJson(EnvelopeJson, frozen=True, kw_only=True, tag="BulkOrders"):
    cancels: Annotated[list[CancelJson], Meta(max_length=MAX_BULK_OPERATIONS)]
    replacements: Annotated[list[ReplacementJson], Meta(max_length=MAX_BULK_OPERATIONS)]
    orders: Annotated[list[OrderJson], Meta(max_length=MAX_BULK_OPERATIONS)]


class TransferJson(EnvelopeJson, frozen=True, kw_only=True, tag="Transfer"):
    to_account: Uint64
    amount_uusd: Uint64


class WithdrawJson(EnvelopeJson, frozen=True, kw_only=True, tag="Withdraw"):
    recipient: AddressHex
    amount_uusd: Uint64


class AuthorizeSessionKeyJson(EnvelopeJson, frozen=True, kw_only=True, tag="AuthorizeSessionKey"):
    key: AddressHex
    scope: Literal["cancel-only", "trade"]
    expiry_s: Uint64


class RevokeSessionKeyJson(EnvelopeJson, frozen=True, kw_only=True, tag="RevokeSessionKey"):
    key: AddressHex


class CancelAllAfterJson(EnvelopeJson, frozen=True, kw_only=True, tag="CancelAllAfter"):
    timeout_s: Uint64


class LegJson(Struct, frozen=True, forbid_unknown_fields=True):
    instrument: InstrumentName
    side: Literal["buy", "sell"]
    size_ulots: Uint64


class QuoteJson(Struct, frozen=True, forbid_unknown_fields=True):
    account: Uint64
    legs: Annotated[list[LegJson], Meta(max_length=MAX_BULK_OPERATIONS)]
    net_uusd: Int64
    taker_account: Uint64
    terms_hash: HashHex
    nonce: Uint64
    expiry_s: Uint64
    max_fee_uusd: Uint64


class ExecuteQuoteJson(EnvelopeJson, frozen=True, kw_only=True, tag="ExecuteQuote"):
    quote: QuoteJson
    quote_signature: Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{128}$(?!\n)")]
    """The 64 bytes (EIP-2098) that the taker's signature covers."""
    limit_uusd: Int64


class CancelQuoteJson(EnvelopeJson, frozen=True, kw_only=True, tag="CancelQuote"):
    quote_nonce: Uint64
    quote_expiry_s: Uint64


class SetProtectionJson(EnvelopeJson, frozen=True, kw_only=True, tag="SetProtection"):
    underlying: FeedName
    interval_ms: Uint64
    frozen_ms: Uint64
    quantity_ulots: Uint64
    delta_ulots: Uint64
    vega_uusd: Uint64


class ResetProtectionJson(EnvelopeJson, frozen=True, kw_only=True, tag="ResetProtection"):
    underlying: FeedName


class PlaceTriggerJson(EnvelopeJson, frozen=True, kw_only=True, tag="PlaceTrigger"):
    order: OrderJson
    source: Literal["mark", "index"]
    condition: Literal["at-or-above", "at-or-below"]
    trigger_uusd: Uint64


class CancelTriggerJson(EnvelopeJson, frozen=True, kw_only=True, tag="CancelTrigger"):
    cancel: CancelJson


class StartAuctionJson(EnvelopeJson, frozen=True, kw_only=True, tag="StartAuction"):
    liquidated: Uint64


class BidJson(EnvelopeJson, frozen=True, kw_only=True, tag="Bid"):
    liquidated: Uint64
    share_ppm: Uint64
    min_reward_uusd: Uint64


class EndAuctionJson(EnvelopeJson, frozen=True, kw_only=True, tag="EndAuction"):
    liquidated: Uint64


class DeleverageJson(EnvelopeJson, frozen=True, kw_only=True, tag="Deleverage"):
    liquidated: Uint64
    instrument: InstrumentName
    counterparties: Annotated[list[Uint64], Meta(max_length=MAX_BULK_OPERATIONS)]


ActionJson = (
    PlaceOrderJson
    | CancelOrderJson
    | CancelAllJson
    | ReplaceOrderJson
    | BulkOrdersJson
    | TransferJson
    | WithdrawJson
    | AuthorizeSessionKeyJson
    | RevokeSessionKeyJson
    | CancelAllAfterJson
    | ExecuteQuoteJson
    | CancelQuoteJson
    | SetProtectionJson
    | ResetProtectionJson
    | PlaceTriggerJson
    | CancelTriggerJson
    | StartAuctionJson
    | BidJson
    | EndAuctionJson
    | DeleverageJson
)


class SignedActionJson(Struct, frozen=True, forbid_unknown_fields=True):
    """A transaction as wallets send it."""

    action: ActionJson
    signature: str
    """0x-hex of 65 bytes (r, s, v) or 64 (EIP-2098)."""


class PriceJson(Struct, frozen=True, forbid_unknown_fields=True):
    feed: FeedName
    value_uusd: Uint64
    confidence_ppm: Uint64


class RateJson(Struct, frozen=True, forbid_unknown_fields=True):
    feed: FeedName
    value_ppb: Int64
    confidence_ppm: Uint64


class SurfaceReportJson(Struct, frozen=True, forbid_unknown_fields=True):
    feed: FeedName
    a_pico: Int64
    b_pico: Int64
    rho_pico: Int64
    m_pico: Int64
    sigma_pico: Int64
    forward_uusd: Uint64
    tau_s: Uint64
    confidence_ppm: Uint64


class OracleReportJson(Struct, frozen=True, forbid_unknown_fields=True):
    """One publisher's signed report."""

    timestamp_ms: Uint64
    prices: Annotated[list[PriceJson], Meta(max_length=MAX_FEEDS_PER_REPORT)]
    rates: Annotated[list[RateJson], Meta(max_length=MAX_FEEDS_PER_REPORT)]
    surfaces: Annotated[list[SurfaceReportJson], Meta(max_length=MAX_FEEDS_PER_REPORT)]
    signature: str


class OracleUpdateJson(Struct, frozen=True, forbid_unknown_fields=True):
    """Publishers' signed reports as they are sent together."""

    reports: Annotated[list[OracleReportJson], Meta(max_length=MAX_PUBLISHERS)]
