"""All leaves of the tree, by the kind that their keys begin with: the door through which they are imported.

They stand by subject: `leaves_system`, `leaves_market`, `leaves_pricing`, `leaves_account`, `leaves_orders`,
`leaves_liquidation`, `leaves_fees`, `leaves_priority`; what a leaf is, and its rules, in `leaves_base`. A new
kind of leaf is entered here.
"""

from __future__ import annotations

from dataclasses import fields
from operator import attrgetter
from typing import Any, cast

from state import keys
from state.leaves_account import Account, Extras, Position, Protection, SessionKey, Withdrawal
from state.leaves_base import FixedLeaf, Leaf, Marker
from state.leaves_fees import FeeMarket, FeeTerms, FeeTiers, IndexVariance, L1Price, L1Terms, Volume
from state.leaves_liquidation import Auction, AuctionKind, LiquidationParameters, Liquidations
from state.leaves_market import (
    Due,
    Expiry,
    ExpiryOf,
    Instrument,
    Kind,
    Listings,
    Market,
    MarketName,
    Series,
    Status,
    Terms,
)
from state.leaves_orders import AccountOrder, AccountTrigger, BlockTrade, RestingOrder, Trigger, TriggerCount
from state.leaves_pricing import Feed, MarginTerms, Pricing, Publishers, RateFeed, Surface
from state.leaves_priority import PriorityTerms
from state.leaves_system import Parameters, Phase, Progress, System, Taker, Task

__all__ = [
    "LEAF_OF_KIND",
    "Account",
    "AccountOrder",
    "AccountTrigger",
    "Auction",
    "AuctionKind",
    "BlockTrade",
    "Due",
    "Expiry",
    "ExpiryOf",
    "Extras",
    "FeeMarket",
    "FeeTerms",
    "FeeTiers",
    "Feed",
    "FixedLeaf",
    "IndexVariance",
    "Instrument",
    "Kind",
    "L1Price",
    "L1Terms",
    "Leaf",
    "LiquidationParameters",
    "Liquidations",
    "Listings",
    "MarginTerms",
    "Marker",
    "Market",
    "MarketName",
    "Parameters",
    "Phase",
    "Position",
    "Pricing",
    "PriorityTerms",
    "Progress",
    "Protection",
    "Publishers",
    "RateFeed",
    "RestingOrder",
    "Series",
    "SessionKey",
    "Status",
    "Surface",
    "System",
    "Taker",
    "Task",
    "Terms",
    "Trigger",
    "TriggerCount",
    "Volume",
    "Withdrawal",
    "decode_leaf",
]

LEAF_OF_KIND: dict[int, type[FixedLeaf]] = {
    keys.SYSTEM: System,
    keys.PARAMETERS: Parameters,
    keys.MARKET_NAME: MarketName,
    keys.INSTRUMENT: Instrument,
    keys.MARKET: Market,
    keys.FEED: Feed,
    keys.ACCOUNT: Account,
    keys.OWNER_ACCOUNT: Marker,
    keys.SESSION_KEY: SessionKey,
    keys.POSITION: Position,
    keys.ORDER: RestingOrder,
    keys.ACCOUNT_ORDER: AccountOrder,
    keys.DEAD_MAN: Marker,
    keys.WITHDRAWAL: Withdrawal,
    keys.EXPIRY: Expiry,
    keys.EXPIRY_OF: ExpiryOf,
    keys.EXPIRY_MARKET: Marker,
    keys.MARKET_POSITION: Marker,
    keys.DUE: Marker,
    keys.SERIES: Series,
    keys.LISTINGS: Listings,
    keys.EXTRAS: Extras,
    keys.PROTECTION: Protection,
    keys.BLOCK_TRADE: BlockTrade,
    keys.QUOTE_USED: Marker,
    keys.TRIGGER: Trigger,
    keys.ACCOUNT_TRIGGER: AccountTrigger,
    keys.MARKET_TRIGGER: Marker,
    keys.TRIGGER_COUNT: TriggerCount,
    keys.TRIGGER_QUEUE: Marker,
    keys.CLEANUP: Marker,
    keys.RATE: RateFeed,
    keys.SURFACE: Surface,
    keys.PRICING: Pricing,
    keys.AUCTION: Auction,
    keys.LIQUIDATION: LiquidationParameters,
    keys.LIQUIDATIONS: Liquidations,
    keys.FEE_TERMS: FeeTerms,
    keys.FEE_MARKET: FeeMarket,
    keys.PRIORITY: PriorityTerms,
    keys.L1_TERMS: L1Terms,
    keys.L1_PRICE: L1Price,
    keys.INDEX_VARIANCE: IndexVariance,
    keys.FEE_TIERS: FeeTiers,
    keys.VOLUME: Volume,
}


def _values_of(leaf_type: type[FixedLeaf]) -> Any:
    names = [field.name for field in fields(cast("Any", leaf_type))]
    return attrgetter(*names) if len(names) > 1 else lambda leaf: (getattr(leaf, names[0]),)


_types: list[type[FixedLeaf]] = [*LEAF_OF_KIND.values(), Taker, Terms]
for _type in _types:
    setattr(_type, "values", staticmethod(_values_of(_type)))  # noqa: B010 - a class of C takes it only so


def decode_leaf(key: bytes, data: bytes) -> Leaf:
    """The leaf stored under `key`; raises ValueError for an unknown kind or a wrong length."""
    kind = key[0]
    if kind == keys.PUBLISHERS:
        return Publishers.decode(data)
    if kind == keys.PROGRESS:
        return Progress.decode(data)
    if kind == keys.MARGIN:
        return MarginTerms.decode(data)
    leaf_type = LEAF_OF_KIND.get(kind)
    if leaf_type is None:
        raise ValueError(f"no leaf of kind {kind:#04x}")
    return leaf_type.decode(data)
