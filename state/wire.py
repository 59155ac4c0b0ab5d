"""How signed actions travel to the node: JSON for wallets and people, msgpack for bots (PROTOCOL section 5).

JSON has the fields of the typed data, so what was signed is what is sent. The `...Json` types (`wire_types`)
serve the RPC layer as parameter types; `to_signed_action` turns one into the action, looking up instruments
by name. msgpack is positional and canonical: what re-encoding would not reproduce is refused.

Everything here checks form only, and raises WireError; two things have a reject code of their own and raise
Rejected: UNKNOWN_INSTRUMENT and BAD_SIGNATURE.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from msgspec.structs import astuple

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
from state.eip712_types import (
    ORDER_KINDS,
    SCOPES,
    SELF_TRADES,
    SIDES,
    TRIGGER_CONDITIONS,
    TRIGGER_SOURCES,
    TYPES,
)
from state.errors import RejectCode, Rejected
from state.signatures import normalise_signature
from state.typed_data import message
from state.wire_types import (
    ActionJson,
    AuthorizeSessionKeyJson,
    BidJson,
    BulkOrdersJson,
    CancelAllAfterJson,
    CancelAllJson,
    CancelJson,
    CancelOrderJson,
    CancelQuoteJson,
    CancelTriggerJson,
    DeleverageJson,
    EndAuctionJson,
    ExecuteQuoteJson,
    OracleReportJson,
    OracleUpdateJson,
    OrderJson,
    PlaceOrderJson,
    PlaceTriggerJson,
    PriceJson,
    QuoteJson,
    RateJson,
    ReplacementJson,
    ReplaceOrderJson,
    ResetProtectionJson,
    RevokeSessionKeyJson,
    SetProtectionJson,
    SignedActionJson,
    StartAuctionJson,
    SurfaceReportJson,
    TransferJson,
    WithdrawJson,
)

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


# JSON to actions

_SIDES = dict(zip(SIDES, Side, strict=True))
_KINDS = dict(zip(ORDER_KINDS, OrderKind, strict=True))
_SELF_TRADES = dict(zip(SELF_TRADES, SelfTrade, strict=True))
_SCOPES = dict(zip(SCOPES, Scope, strict=True))
_SOURCES = dict(zip(TRIGGER_SOURCES, TriggerSource, strict=True))
_CONDITIONS = dict(zip(TRIGGER_CONDITIONS, TriggerCondition, strict=True))


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


def to_quote(json: QuoteJson, market_of: MarketOf, path: str = "$") -> Quote:
    """Raises as `to_action`."""
    legs = [
        Leg(
            _market(leg.instrument, market_of),
            _SIDES[leg.side],
            _number(leg.size_ulots, f"{path}.legs[{place}].size_ulots"),
        )
        for place, leg in enumerate(json.legs)
    ]
    return Quote(
        _number(json.account, path + ".account"),
        tuple(legs),
        _signed(json.net_uusd, path + ".net_uusd"),
        _number(json.taker_account, path + ".taker_account"),
        bytes.fromhex(json.terms_hash[2:]),
        _number(json.nonce, path + ".nonce"),
        _number(json.expiry_s, path + ".expiry_s"),
        _number(json.max_fee_uusd, path + ".max_fee_uusd"),
    )


def _numbers(json: Any, *names: str) -> dict[str, int]:
    return {name: _number(getattr(json, name), f"$.action.{name}") for name in names}


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


def _deleverage_fields(json: DeleverageJson, market_of: MarketOf) -> dict[str, Any]:
    return {
        "liquidated": _number(json.liquidated, "$.action.liquidated"),
        "market": _market(json.instrument, market_of),
        "counterparties": tuple(
            _number(each, f"$.action.counterparties[{place}]")
            for place, each in enumerate(json.counterparties)
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
    ExecuteQuoteJson: (
        ExecuteQuote,
        lambda json, of: {
            "quote": to_quote(json.quote, of, "$.action.quote"),
            "quote_signature": bytes.fromhex(json.quote_signature[2:]),
            "limit_uusd": _signed(json.limit_uusd, "$.action.limit_uusd"),
        },
    ),
    CancelQuoteJson: (CancelQuote, lambda json, _: _numbers(json, "quote_nonce", "quote_expiry_s")),
    SetProtectionJson: (
        SetProtection,
        lambda json, _: {
            "underlying": json.underlying,
            **_numbers(json, "interval_ms", "frozen_ms", "quantity_ulots", "delta_ulots", "vega_uusd"),
        },
    ),
    ResetProtectionJson: (ResetProtection, lambda json, _: {"underlying": json.underlying}),
    PlaceTriggerJson: (
        PlaceTrigger,
        lambda json, of: {
            "order": _order(json.order, of, "$.action.order"),
            "source": _SOURCES[json.source],
            "condition": _CONDITIONS[json.condition],
            **_numbers(json, "trigger_uusd"),
        },
    ),
    StartAuctionJson: (StartAuction, lambda json, _: _numbers(json, "liquidated")),
    BidJson: (Bid, lambda json, _: _numbers(json, "liquidated", "share_ppm", "min_reward_uusd")),
    EndAuctionJson: (EndAuction, lambda json, _: _numbers(json, "liquidated")),
    DeleverageJson: (Deleverage, _deleverage_fields),
    CancelTriggerJson: (
        CancelTrigger,
        lambda json, of: {"cancel": _cancel(json.cancel, of, "$.action.cancel")},
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
