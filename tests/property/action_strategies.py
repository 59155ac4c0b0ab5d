"""Hypothesis strategies for actions: any that the wire can carry, and those that a batch can encode."""

from __future__ import annotations

from typing import Any, get_args

from hypothesis import strategies as st

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
from state.codec import MAX_ORDER_ID, MAX_TIMESTAMP_MS, MarketEntry

INSTRUMENTS = {1: "BTC-PERPETUAL", 2: "ETH-PERPETUAL", 300: "SOL-27DEC26-100-C", 2**32 - 1: "X"}
MARKET_OF = {name: market for market, name in INSTRUMENTS.items()}
TABLE = {
    1: MarketEntry(500_000, 1_000, 120_000),
    2: MarketEntry(10_000, 10_000, 268_380),
    300: MarketEntry(1, 1, 0),
    2**32 - 1: MarketEntry(7, 3, 2**60),
}

MAX_U64 = 2**64 - 1
ACTION_TYPES: tuple[type[Any], ...] = get_args(Action)

# Edges matter more than the bulk of 2^64: small numbers, and those around powers of two.
u64 = st.one_of(
    st.integers(0, 300),
    st.builds(lambda bits, less: max(0, 2**bits - less), st.integers(0, 63), st.integers(0, 2)),
    st.integers(0, MAX_U64),
)
markets = st.sampled_from(sorted(INSTRUMENTS))
addresses = st.binary(min_size=20, max_size=20)
signatures = st.binary(min_size=64, max_size=64)
timestamps = st.one_of(st.integers(0, MAX_TIMESTAMP_MS), st.integers(1_700_000_000_000, 1_800_000_000_000))
feeds = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=31)

wire_orders = st.builds(
    Order,
    markets,
    st.sampled_from(Side),
    st.sampled_from(OrderKind),
    u64,
    u64,
    st.booleans(),
    u64,
    st.sampled_from(SelfTrade),
)


i64 = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))


def quotes(
    nonces: st.SearchStrategy[int], times: st.SearchStrategy[int], legs: int
) -> st.SearchStrategy[Quote]:
    return st.builds(
        Quote,
        u64,
        st.lists(st.builds(Leg, markets, st.sampled_from(Side), u64), max_size=legs).map(tuple),
        i64,
        u64,
        st.one_of(st.just(bytes(32)), st.binary(min_size=32, max_size=32)),
        nonces,
        times,
        u64,
    )


def _own_fields(
    orders: st.SearchStrategy[Order],
    cancels: st.SearchStrategy[Cancel],
    replacements: st.SearchStrategy[Replacement],
    nonces: st.SearchStrategy[int],
    times: st.SearchStrategy[int],
    legs: int,
) -> dict[type[Any], dict[str, st.SearchStrategy[Any]]]:
    def some(items: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.lists(items, max_size=5).map(tuple)

    return {
        PlaceOrder: {"order": orders},
        CancelOrder: {"cancel": cancels},
        CancelAll: {"market": st.one_of(st.just(0), markets)},
        ReplaceOrder: {"replacement": replacements},
        BulkOrders: {"cancels": some(cancels), "replacements": some(replacements), "orders": some(orders)},
        Transfer: {"to_account": u64, "amount_uusd": u64},
        Withdraw: {"recipient": addresses, "amount_uusd": u64},
        AuthorizeSessionKey: {"key": addresses, "scope": st.sampled_from(Scope), "expiry_s": u64},
        RevokeSessionKey: {"key": addresses},
        CancelAllAfter: {"timeout_s": u64},
        ExecuteQuote: {
            "quote": quotes(nonces, times, legs),
            "quote_signature": signatures,
            "limit_uusd": i64,
        },
        CancelQuote: {"quote_nonce": nonces, "quote_expiry_s": times},
        SetProtection: {
            "underlying": feeds,
            "interval_ms": u64,
            "frozen_ms": u64,
            "quantity_ulots": u64,
            "delta_ulots": u64,
            "vega_uusd": u64,
        },
        ResetProtection: {"underlying": feeds},
        PlaceTrigger: {
            "order": orders,
            "source": st.sampled_from(TriggerSource),
            "condition": st.sampled_from(TriggerCondition),
            "trigger_uusd": u64,
        },
        CancelTrigger: {"cancel": cancels},
        StartAuction: {"liquidated": u64},
        Bid: {"liquidated": u64, "share_ppm": u64, "min_reward_uusd": u64},
        EndAuction: {"liquidated": u64},
        Deleverage: {"liquidated": u64, "market": markets, "counterparties": some(u64)},
    }


_WIRE_FIELDS = _own_fields(
    wire_orders, st.builds(Cancel, markets, u64), st.builds(Replacement, markets, u64, u64, u64), u64, u64, 20
)


def wire_actions(kind: type[Any]) -> st.SearchStrategy[Any]:
    """Any action of one type, with numbers up to 2^64-1."""
    return st.builds(
        kind,
        account=u64,
        nonce=u64,
        deadline_s=u64,
        max_fee_uusd=u64,
        priority_bid_uusd=u64,
        **_WIRE_FIELDS[kind],
    )


any_wire_action = st.sampled_from(ACTION_TYPES).flatmap(wire_actions)


@st.composite
def _prices(draw: st.DrawFn) -> tuple[int, int, int]:
    """A market of TABLE with a price and a size on its grid."""
    market = draw(markets)
    tick, lot, _ = TABLE[market]
    return market, draw(st.integers(0, 2**62 // tick)) * tick, draw(st.integers(0, MAX_U64 // lot)) * lot


@st.composite
def _batch_orders(draw: st.DrawFn) -> Order:
    market, price, size = draw(_prices())
    kinds = draw(st.sampled_from(Side)), draw(st.sampled_from(OrderKind))
    expiry_s = draw(st.integers(0, 2**62))
    return Order(market, *kinds, price, size, draw(st.booleans()), expiry_s, draw(st.sampled_from(SelfTrade)))


@st.composite
def _batch_replacements(draw: st.DrawFn) -> Replacement:
    market, price, size = draw(_prices())
    return Replacement(market, draw(st.integers(0, MAX_ORDER_ID)), price, size)


batch_nonces = st.one_of(st.integers(0, 300), st.integers(2**40 - 3, 2**40 + 3), st.integers(0, 2**56 - 1))
_BATCH_FIELDS = _own_fields(
    _batch_orders(),
    st.builds(Cancel, st.one_of(markets, st.integers(0, 2**32 - 1)), st.integers(0, MAX_ORDER_ID)),
    _batch_replacements(),
    batch_nonces,
    st.integers(0, 2**62),
    16,
)


def batch_actions(kind: type[Any]) -> st.SearchStrategy[SignedAction]:
    """Signed actions of one type that encode with TABLE."""
    action = st.builds(
        kind,
        account=u64,
        nonce=batch_nonces,
        deadline_s=st.integers(0, 2**62),
        max_fee_uusd=u64,
        priority_bid_uusd=st.one_of(st.just(0), u64),
        **_BATCH_FIELDS[kind],
    )
    return st.builds(SignedAction, action, signatures)


oracle_reports = st.builds(
    OracleReport,
    st.integers(0, 2**62),
    st.lists(st.builds(Price, feeds, u64, u64), max_size=4).map(tuple),
    signatures,
    st.lists(st.builds(Rate, feeds, i64, u64), max_size=3).map(tuple),
    st.lists(st.builds(SurfaceReport, feeds, *[i64] * 5, u64, u64, u64), max_size=2).map(tuple),
)
oracle_updates = st.builds(OracleUpdate, st.lists(oracle_reports, max_size=4).map(tuple))
payloads = st.one_of(st.sampled_from(ACTION_TYPES).flatmap(batch_actions), oracle_updates)
