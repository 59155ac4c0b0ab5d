"""How signed actions travel to the node: JSON for wallets and people, msgpack for bots (PROTOCOL section 5).

JSON has the fields of the typed data, so what was signed is what is sent. The `...Json` types decode and
validate in one pass in C and serve the RPC layer as parameter types; `to_signed_action` turns one into the
action, looking up instruments by name. msgpack is positional and canonical: what re-encoding would not
reproduce is refused.

Everything here checks form only, and raises WireError; two things have a reject code of their own and raise
Rejected: UNKNOWN_INSTRUMENT and BAD_SIGNATURE.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import astuple

from state.actions import (
    Action,
    AuthorizeSessionKey,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    Payload,
    PlaceOrder,
    Price,
    Rate,
    Replacement,
    ReplaceOrder,
    RevokeSessionKey,
    Scope,
    SelfTrade,
    Side,
    SignedAction,
    SurfaceReport,
    Transfer,
    Withdraw,
)
from state.eip712 import ORDER_KINDS, SCOPES, SELF_TRADES, SIDES, TYPES, message, normalise_signature
from state.errors import RejectCode, Rejected
from state.units import MAX_BULK_OPERATIONS, MAX_FEEDS_PER_REPORT, MAX_NAME_BYTES, MAX_PUBLISHERS

MAX_U64 = 2**64 - 1
MAX_MARKET = 2**32 - 1

MarketOf = Callable[[str], int]
"""Market number by instrument name; KeyError when there is none of that name."""


class WireError(Exception):
    """Not the form that PROTOCOL describes; `path` is a JSON path such as `$.action.nonce`."""

    def __init__(self, path: str, expected: str, got: str):
        super().__init__(f"{path}: expected {expected}, got {got}")
        self.path = path
        self.expected = expected
        self.got = got


# Python's `$` also matches before a last newline: the lookahead forbids that, and means the same to others.
Uint64 = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(pattern=r"^(?:0|[1-9][0-9]{0,19})$(?!\n)")]
"""A JSON number or a decimal string."""
Int64 = int | Annotated[str, Meta(pattern=r"^(?:0|-?[1-9][0-9]{0,18})$(?!\n)")]
InstrumentName = Annotated[str, Meta(min_length=1, max_length=MAX_NAME_BYTES)]
AddressHex = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{40}$(?!\n)")]
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


# JSON to actions

_SIDES = dict(zip(SIDES, Side, strict=True))
_KINDS = dict(zip(ORDER_KINDS, OrderKind, strict=True))
_SELF_TRADES = dict(zip(SELF_TRADES, SelfTrade, strict=True))
_SCOPES = dict(zip(SCOPES, Scope, strict=True))


def _number(value: int | str, path: str) -> int:
    if type(value) is int and value <= MAX_U64:
        return value
    number = int(value)
    if number > MAX_U64:
        raise WireError(path, "an integer in 0..2^64-1", "a larger one")
    return number


def _market(name: str, market_of: MarketOf) -> int:
    try:
        return market_of(name)
    except KeyError:
        raise Rejected(RejectCode.UNKNOWN_INSTRUMENT, instrument=name) from None


def _signature(text: str) -> bytes:
    """Raises Rejected BAD_SIGNATURE for what is not one."""
    try:
        raw = bytes.fromhex(text[2:])
    except ValueError:
        raw = b""
    if not text.startswith("0x") or len(text) != 2 + 2 * len(raw):
        raise Rejected(RejectCode.BAD_SIGNATURE, reason="not 0x-hex")
    return normalise_signature(raw)


def _order(json: OrderJson, market_of: MarketOf, path: str) -> Order:
    price, size, expiry = json.price_uusd, json.size_ulots, json.expiry_s
    if not (type(price) is type(size) is type(expiry) is int and price | size | expiry <= MAX_U64):
        price = _number(price, path + ".price_uusd")
        size = _number(size, path + ".size_ulots")
        expiry = _number(expiry, path + ".expiry_s")
    return Order(
        _market(json.instrument, market_of),
        _SIDES[json.side],
        _KINDS[json.kind],
        price,
        size,
        json.reduce_only,
        expiry,
        _SELF_TRADES[json.self_trade],
    )


def _cancel(json: CancelJson, market_of: MarketOf, path: str) -> Cancel:
    return Cancel(_market(json.instrument, market_of), _number(json.order_id, path + ".order_id"))


def _replacement(json: ReplacementJson, market_of: MarketOf, path: str) -> Replacement:
    return Replacement(
        _market(json.instrument, market_of),
        _number(json.order_id, path + ".order_id"),
        _number(json.price_uusd, path + ".price_uusd"),
        _number(json.size_ulots, path + ".size_ulots"),
    )


def to_action(json: ActionJson, market_of: MarketOf) -> Action:
    """Raises WireError for a number above 2^64-1, Rejected UNKNOWN_INSTRUMENT."""
    account = _number(json.account, "$.action.account")
    nonce = _number(json.nonce, "$.action.nonce")
    deadline_s = _number(json.deadline_s, "$.action.deadline_s")
    max_fee_uusd = _number(json.max_fee_uusd, "$.action.max_fee_uusd")
    priority_bid_uusd = _number(json.priority_bid_uusd, "$.action.priority_bid_uusd")
    if type(json) is PlaceOrderJson:
        return PlaceOrder(
            account=account,
            nonce=nonce,
            deadline_s=deadline_s,
            max_fee_uusd=max_fee_uusd,
            priority_bid_uusd=priority_bid_uusd,
            order=_order(json.order, market_of, "$.action.order"),
        )
    make, own_fields = _ACTIONS[type(json)]
    action: Action = make(
        account=account,
        nonce=nonce,
        deadline_s=deadline_s,
        max_fee_uusd=max_fee_uusd,
        priority_bid_uusd=priority_bid_uusd,
        **own_fields(json, market_of),
    )
    return action


def _bulk_fields(json: BulkOrdersJson, market_of: MarketOf) -> dict[str, Any]:
    return {
        "cancels": tuple(
            _cancel(each, market_of, f"$.action.cancels[{place}]") for place, each in enumerate(json.cancels)
        ),
        "replacements": tuple(
            _replacement(each, market_of, f"$.action.replacements[{place}]")
            for place, each in enumerate(json.replacements)
        ),
        "orders": tuple(
            _order(each, market_of, f"$.action.orders[{place}]") for place, each in enumerate(json.orders)
        ),
    }


# All but PlaceOrder, which is most of what comes and has its own way in `to_action`.
_ACTIONS: dict[type[Any], tuple[Callable[..., Action], Callable[[Any, MarketOf], dict[str, Any]]]] = {
    CancelOrderJson: (CancelOrder, lambda json, of: {"cancel": _cancel(json.cancel, of, "$.action.cancel")}),
    CancelAllJson: (
        CancelAll,
        lambda json, of: {"market": _market(json.instrument, of) if json.instrument else 0},
    ),
    ReplaceOrderJson: (
        ReplaceOrder,
        lambda json, of: {"replacement": _replacement(json.replacement, of, "$.action.replacement")},
    ),
    BulkOrdersJson: (BulkOrders, _bulk_fields),
    TransferJson: (
        Transfer,
        lambda json, _: {
            "to_account": _number(json.to_account, "$.action.to_account"),
            "amount_uusd": _number(json.amount_uusd, "$.action.amount_uusd"),
        },
    ),
    WithdrawJson: (
        Withdraw,
        lambda json, _: {
            "recipient": bytes.fromhex(json.recipient[2:]),
            "amount_uusd": _number(json.amount_uusd, "$.action.amount_uusd"),
        },
    ),
    AuthorizeSessionKeyJson: (
        AuthorizeSessionKey,
        lambda json, _: {
            "key": bytes.fromhex(json.key[2:]),
            "scope": _SCOPES[json.scope],
            "expiry_s": _number(json.expiry_s, "$.action.expiry_s"),
        },
    ),
    RevokeSessionKeyJson: (RevokeSessionKey, lambda json, _: {"key": bytes.fromhex(json.key[2:])}),
    CancelAllAfterJson: (
        CancelAllAfter,
        lambda json, _: {"timeout_s": _number(json.timeout_s, "$.action.timeout_s")},
    ),
}


def to_signed_action(json: SignedActionJson, market_of: MarketOf) -> SignedAction:
    """Raises as `to_action`, and Rejected BAD_SIGNATURE for a malformed or high-s signature."""
    return SignedAction(to_action(json.action, market_of), _signature(json.signature))


def to_oracle_update(json: OracleUpdateJson) -> OracleUpdate:
    """Raises WireError for a number above 2^64-1, Rejected BAD_SIGNATURE."""
    return OracleUpdate(tuple(to_report(each, f"$.reports[{n}]") for n, each in enumerate(json.reports)))


def to_report(json: OracleReportJson, path: str = "$") -> OracleReport:
    """Raises WireError for a number beyond 64 bits, Rejected BAD_SIGNATURE."""
    return OracleReport(
        _number(json.timestamp_ms, f"{path}.timestamp_ms"),
        tuple(_values(Price, each, f"{path}.prices[{n}]") for n, each in enumerate(json.prices)),
        _signature(json.signature),
        tuple(_values(Rate, each, f"{path}.rates[{n}]") for n, each in enumerate(json.rates)),
        tuple(_values(SurfaceReport, each, f"{path}.surfaces[{n}]") for n, each in enumerate(json.surfaces)),
    )


Reported = TypeVar("Reported", Price, Rate, SurfaceReport)


def _values(make: type[Reported], json: PriceJson | RateJson | SurfaceReportJson, path: str) -> Reported:
    """A price, rate or surface: a feed and numbers, named alike in JSON."""
    numbers = [
        (_signed if kind == "int64" else _number)(value, f"{path}.{name}")
        for (name, kind), value in zip(TYPES[make.__name__][1:], astuple(json)[1:], strict=True)
    ]
    return make(json.feed, *numbers)


def _signed(value: int | str, path: str) -> int:
    number = int(value)
    if not -(2**63) <= number < 2**63:
        raise WireError(path, "an integer in -2^63..2^63-1", "another")
    return number


MAX_OPENINGS = 128
"""Of braces and brackets; a full bulk action has 70. It bounds nesting: the decoder recurses in C, guarded
only by Python's recursion limit, and libraries that raise it would let deep nesting overflow the stack."""
_DECODER = msgspec.json.Decoder(SignedActionJson)
_PROBLEM = re.compile(
    r"^(?:Expected (?P<expected>.*?)(?:, got (?P<got>.*?))?|(?P<other>.*?))(?: - at `(?P<path>\$.*?)`)?$",
    re.DOTALL,
)


def decode_json(data: bytes | str | dict[str, Any], market_of: MarketOf) -> SignedAction:
    """From JSON text, or what a JSON parser made of it. Raises WireError and as `to_signed_action`."""
    try:
        if isinstance(data, bytes | str):
            text = data.encode() if isinstance(data, str) else data
            if text.count(b"[") + text.count(b"{") > MAX_OPENINGS:
                raise WireError("$", f"at most {MAX_OPENINGS} braces and brackets", "more")
            json = _DECODER.decode(text)
        else:
            json = msgspec.convert(data, SignedActionJson)
    except msgspec.ValidationError as error:
        found = _PROBLEM.match(str(error))
        assert found
        got = found["got"] or found["other"] or "another value"
        raise WireError(found["path"] or "$", found["expected"] or "the documented form", got) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise WireError("$", "JSON", str(error)) from None
    return to_signed_action(json, market_of)


def to_json(payload: Payload, instrument_name: Callable[[int], str]) -> dict[str, Any]:
    """The JSON form as Python values; integers stay integers. Raises KeyError for an unknown market."""
    if isinstance(payload, OracleUpdate):
        return {
            "reports": [
                message(report, instrument_name) | {"signature": "0x" + report.signature.hex()}
                for report in payload.reports
            ]
        }
    action = payload.action
    return {
        "action": {"type": type(action).__name__, **message(action, instrument_name)},
        "signature": "0x" + payload.signature.hex(),
    }
