"""EIP-712: what a signature covers.

Our structs are few and fixed, so digests are packed directly: type hashes and the hashes of enum strings are
computed once, integers stand in the last 8 bytes of their 32-byte words. The structs themselves are described
in `eip712_types`; the tests compare every digest with eth_account's. Signing and recovering are in
`signatures`, what a wallet shows in `typed_data`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any, Final

import msgspec
from msgspec.structs import force_setattr

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
    OracleReport,
    Order,
    PlaceOrder,
    PlaceTrigger,
    Quote,
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
from state.block import BlockHeader
from state.eip712_types import (
    DOMAIN_NAME,
    DOMAIN_VERSION,
    ORDER_KINDS,
    SCOPES,
    SELF_TRADES,
    SIDES,
    TRIGGER_CONDITIONS,
    TRIGGER_SOURCES,
    TYPE_HASHES,
    TYPES,
    type_string,
)
from state.hashing import keccak
from state.signatures import recover

Names = Callable[[int], bytes]
"""keccak of an instrument's name by market number; KeyError when there is no such market."""


def _hashes(strings: Iterable[str]) -> tuple[bytes, ...]:
    return tuple(keccak(string.encode()) for string in strings)


_SIDE_HASHES: Final = _hashes(SIDES)
_KIND_HASHES: Final = _hashes(ORDER_KINDS)
_SELF_TRADE_HASHES: Final = _hashes(SELF_TRADES)
_SCOPE_HASHES: Final = _hashes(SCOPES)
_SOURCE_HASHES: Final = _hashes(TRIGGER_SOURCES)
_CONDITION_HASHES: Final = _hashes(TRIGGER_CONDITIONS)
_EMPTY_HASH: Final = keccak(b"")


class Domain(msgspec.Struct, frozen=True):
    """What binds a signature to one rollup: its chain id and its contract (20 bytes)."""

    chain_id: int
    contract: bytes
    separator: bytes = b""
    """Computed, as is the prefix."""
    prefix: bytes = b""
    """0x1901 and the separator: what every digest starts with."""

    def __post_init__(self) -> None:
        if len(self.contract) != 20:
            raise ValueError(f"contract: {len(self.contract)} bytes, expected 20")
        words = (
            TYPE_HASHES["EIP712Domain"],
            *_hashes((DOMAIN_NAME, DOMAIN_VERSION)),
            self.chain_id.to_bytes(32, "big"),
            bytes(12) + self.contract,
        )
        force_setattr(self, "separator", keccak(b"".join(words)))
        force_setattr(self, "prefix", b"\x19\x01" + self.separator)


# One struct call packs a run of words: `24xQ` is a uint64, `31x?` a bool, `12x20s` an address.
_order_words = Struct(">32s 32s 32s 32s 24xQ 24xQ 31x? 24xQ 32s").pack
_cancel_words = Struct(">32s 32s 24xQ").pack
_replacement_words = Struct(">32s 32s 24xQ 24xQ 24xQ").pack
_start_words = Struct(">32s 24xQ").pack
_end_words = Struct(">24xQ 24xQ 24xQ 24xQ").pack
_number_word = Struct(">24xQ").pack
_two_numbers = Struct(">24xQ 24xQ").pack
_address_word = Struct(">12x20s").pack
_address_number = Struct(">12x20s 24xQ").pack
_key_words = Struct(">12x20s 32s 24xQ").pack
_leg_words = Struct(">32s 32s 32s 24xQ").pack
_quote_words = Struct(">32s 24xQ 32s 32s 24xQ 32s 24xQ 24xQ 24xQ").pack
_protection_words = Struct(">32s 24xQ 24xQ 24xQ 24xQ 24xQ").pack
_trigger_words = Struct(">32s 32s 32s 24xQ").pack
_price_words = Struct(">32s 32s 24xQ 24xQ").pack
_feed_words = Struct(">32s 32s").pack
_report_words = Struct(">32s 24xQ 32s 32s 32s").pack
_header_words = Struct(">32s 24xQ 32s 24xQ 32s 24xQ 24xQ").pack

_ORDER_TYPE: Final = TYPE_HASHES["Order"]
_CANCEL_TYPE: Final = TYPE_HASHES["Cancel"]
_REPLACEMENT_TYPE: Final = TYPE_HASHES["Replacement"]
_LEG_TYPE: Final = TYPE_HASHES["Leg"]
_QUOTE_TYPE: Final = TYPE_HASHES["Quote"]
_PRICE_TYPE: Final = TYPE_HASHES["Price"]
_RATE_TYPE: Final = TYPE_HASHES["Rate"]
_SURFACE_TYPE: Final = TYPE_HASHES["SurfaceReport"]


def _order_hash(order: Order, names: Names) -> bytes:
    return keccak(
        _order_words(
            _ORDER_TYPE,
            names(order.market),
            _SIDE_HASHES[order.side],
            _KIND_HASHES[order.kind],
            order.price_uusd,
            order.size_ulots,
            order.reduce_only,
            order.expiry_s,
            _SELF_TRADE_HASHES[order.self_trade],
        )
    )


def _cancel_hash(cancel: Cancel, names: Names) -> bytes:
    return keccak(_cancel_words(_CANCEL_TYPE, names(cancel.market), cancel.order_id))


def _replacement_hash(replacement: Replacement, names: Names) -> bytes:
    return keccak(
        _replacement_words(
            _REPLACEMENT_TYPE,
            names(replacement.market),
            replacement.order_id,
            replacement.price_uusd,
            replacement.size_ulots,
        )
    )


def _bulk_words(action: BulkOrders, names: Names) -> bytes:
    cancels = [_cancel_hash(cancel, names) for cancel in action.cancels]
    replacements = [_replacement_hash(replacement, names) for replacement in action.replacements]
    orders = [_order_hash(order, names) for order in action.orders]
    return b"".join([keccak(b"".join(hashes)) for hashes in (cancels, replacements, orders)])


def quote_hash(quote: Quote, names: Names) -> bytes:
    """EIP-712 struct hash of a maker's quote. Raises KeyError for an unknown market."""
    legs = [
        keccak(_leg_words(_LEG_TYPE, names(leg.market), _SIDE_HASHES[leg.side], leg.size_ulots))
        for leg in quote.legs
    ]
    return keccak(
        _quote_words(
            _QUOTE_TYPE,
            quote.account,
            keccak(b"".join(legs)),
            _signed_word(quote.net_uusd),
            quote.taker_account,
            quote.terms_hash,
            quote.nonce,
            quote.expiry_s,
            quote.max_fee_uusd,
        )
    )


def quote_digest(domain: Domain, quote: Quote, names: Names) -> bytes:
    """What the maker signs. Raises as `quote_hash`."""
    return keccak(domain.prefix + quote_hash(quote, names))


def _protection(action: SetProtection) -> bytes:
    return _protection_words(
        keccak(action.underlying.encode()),
        action.interval_ms,
        action.frozen_ms,
        action.quantity_ulots,
        action.delta_ulots,
        action.vega_uusd,
    )


# The words between `account` and `nonce` of each action.
_OWN_WORDS: dict[type[Any], Callable[[Any, Names], bytes]] = {
    PlaceOrder: lambda action, names: _order_hash(action.order, names),
    CancelOrder: lambda action, names: _cancel_hash(action.cancel, names),
    CancelAll: lambda action, names: names(action.market) if action.market else _EMPTY_HASH,
    ReplaceOrder: lambda action, names: _replacement_hash(action.replacement, names),
    BulkOrders: _bulk_words,
    Transfer: lambda action, _: _two_numbers(action.to_account, action.amount_uusd),
    Withdraw: lambda action, _: _address_number(action.recipient, action.amount_uusd),
    AuthorizeSessionKey: lambda action, _: _key_words(
        action.key, _SCOPE_HASHES[action.scope], action.expiry_s
    ),
    RevokeSessionKey: lambda action, _: _address_word(action.key),
    CancelAllAfter: lambda action, _: _number_word(action.timeout_s),
    ExecuteQuote: lambda action, names: (
        quote_hash(action.quote, names) + keccak(action.quote_signature) + _signed_word(action.limit_uusd)
    ),
    CancelQuote: lambda action, _: _two_numbers(action.quote_nonce, action.quote_expiry_s),
    SetProtection: lambda action, _: _protection(action),
    ResetProtection: lambda action, _: keccak(action.underlying.encode()),
    PlaceTrigger: lambda action, names: _trigger_words(
        _order_hash(action.order, names),
        _SOURCE_HASHES[action.source],
        _CONDITION_HASHES[action.condition],
        action.trigger_uusd,
    ),
    CancelTrigger: lambda action, names: _cancel_hash(action.cancel, names),
    StartAuction: lambda action, _: _number_word(action.liquidated),
    Bid: lambda action, _: (
        _two_numbers(action.liquidated, action.share_ppm) + _number_word(action.min_reward_uusd)
    ),
    EndAuction: lambda action, _: _number_word(action.liquidated),
    Deleverage: lambda action, names: (
        _number_word(action.liquidated)
        + names(action.market)
        + keccak(b"".join([_number_word(account) for account in action.counterparties]))
    ),
}
_ACTION_TYPES: Final = {action: TYPE_HASHES[action.__name__] for action in _OWN_WORDS}


def action_hash(action: Action, names: Names) -> bytes:
    """EIP-712 struct hash. Raises KeyError for an unknown market, struct.error beyond 64 bits."""
    cls = type(action)
    return keccak(
        _start_words(_ACTION_TYPES[cls], action.account)
        + _OWN_WORDS[cls](action, names)
        + _end_words(action.nonce, action.deadline_s, action.max_fee_uusd, action.priority_bid_uusd)
    )


def action_digest(domain: Domain, action: Action, names: Names) -> bytes:
    """What the trader signs. Raises as `action_hash`."""
    return keccak(domain.prefix + action_hash(action, names))


def signature_pairs(domain: Domain, signed: SignedAction, names: Names) -> list[tuple[bytes, bytes]]:
    """(digest, signature) of an action, and after it of the quote that it executes: whose recovered addresses
    are the signers of its `Transaction`. Raises as `action_hash`."""
    action = signed.action
    pairs = [(action_digest(domain, action, names), signed.signature)]
    if type(action) is ExecuteQuote:
        pairs.append((quote_digest(domain, action.quote, names), action.quote_signature))
    return pairs


def report_hash(report: OracleReport) -> bytes:
    """EIP-712 struct hash of a publisher's report, without its signature.

    Raises struct.error or OverflowError beyond 64 bits.
    """
    prices = [
        keccak(_price_words(_PRICE_TYPE, keccak(price.feed.encode()), price.value_uusd, price.confidence_ppm))
        for price in report.prices
    ]
    rates = [
        keccak(
            _feed_words(_RATE_TYPE, keccak(rate.feed.encode()))
            + _signed_word(rate.value_ppb)
            + _number_word(rate.confidence_ppm)
        )
        for rate in report.rates
    ]
    surfaces = [_surface_hash(surface) for surface in report.surfaces]
    lists = (keccak(b"".join(hashes)) for hashes in (prices, rates, surfaces))
    return keccak(_report_words(TYPE_HASHES["OracleReport"], report.timestamp_ms, *lists))


def _surface_hash(surface: SurfaceReport) -> bytes:
    shape = (surface.a_pico, surface.b_pico, surface.rho_pico, surface.m_pico, surface.sigma_pico)
    return keccak(
        _feed_words(_SURFACE_TYPE, keccak(surface.feed.encode()))
        + b"".join([_signed_word(value) for value in shape])
        + _two_numbers(surface.forward_uusd, surface.tau_s)
        + _number_word(surface.confidence_ppm)
    )


def _signed_word(value: int) -> bytes:
    """An int64 as its 32-byte word. Raises OverflowError beyond 64 bits."""
    value.to_bytes(8, "big", signed=True)
    return value.to_bytes(32, "big", signed=True)


def report_digest(domain: Domain, report: OracleReport) -> bytes:
    """What the publisher signs."""
    return keccak(domain.prefix + report_hash(report))


def header_hash(header: BlockHeader) -> bytes:
    """The block's hash: the EIP-712 struct hash of its header."""
    return keccak(
        _header_words(
            TYPE_HASHES["BlockHeader"],
            header.number,
            header.parent_hash,
            header.timestamp_ms,
            header.transactions,
            header.l1_block,
            header.inbox_next,
        )
    )


def header_digest(domain: Domain, header: BlockHeader) -> bytes:
    """What the sequencer signs."""
    return keccak(domain.prefix + header_hash(header))


def fee_quote_digest(domain: Domain, action: bytes, numbers: Sequence[int]) -> bytes:
    """What the sequencer signs of a fee quote: for the action of that digest, the other fields in order.

    Raises OverflowError beyond 64 bits, ValueError unless there are as many as the type has.
    """
    if len(numbers) != len(TYPES["FeeQuote"]) - 1:
        raise ValueError(f"a fee quote has {len(TYPES['FeeQuote']) - 1} numbers, not {len(numbers)}")
    words = [bytes(24) + number.to_bytes(8, "big") for number in numbers]
    return keccak(domain.prefix + keccak(b"".join([TYPE_HASHES["FeeQuote"], action, *words])))


def transaction_hash(digest: bytes, signature: bytes) -> bytes:
    """Identifies an action or a report together with its signature; both are of fixed length."""
    return keccak(digest + signature)


def update_hash(hashes: Sequence[bytes]) -> bytes:
    """The transaction hash of an oracle update, from those of its reports."""
    return keccak(b"".join(hashes))


class SignatureCheck(msgspec.Struct, frozen=True):
    """Every intermediate of a signature check, for whoever must find where theirs differs."""

    type_string: str
    type_hash: bytes
    struct_hash: bytes
    domain_separator: bytes
    digest: bytes
    recovered: bytes | None
    """The signer's address, None when the signature recovers to nobody."""


def check(domain: Domain, action: Action, signature: bytes, names: Names) -> SignatureCheck:
    """Raises KeyError for an unknown market."""
    name = type(action).__name__
    struct_hash = action_hash(action, names)
    digest = keccak(domain.prefix + struct_hash)
    return SignatureCheck(
        type_string(name),
        TYPE_HASHES[name],
        struct_hash,
        domain.separator,
        digest,
        recover(digest, signature),
    )
