"""Golden vectors of execution: blocks in, leaves and roots out.

A short story that touches every kind of leaf: listing, deposits, trades with fees and funding, a session key,
a dead-man switch, a withdrawal; an expiry of a future and options that settles, and one that is delisted; an
auction with bids that turns insolvent, and one that ends by deleveraging; bids for places; batches' costs. A
change of `state.json` is a change of the protocol; `python -m tests.vectors.state_vectors` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from struct import pack
from typing import Any

from state.actions import (
    AuthorizeSessionKey,
    Bid,
    BulkOrders,
    Cancel,
    CancelAllAfter,
    CancelQuote,
    Deleverage,
    ExecuteQuote,
    Leg,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    Quote,
    Scope,
    SetProtection,
    Side,
    StartAuction,
    Transfer,
    TriggerCondition,
    TriggerSource,
    Withdraw,
)
from state.block import L1Message, MessageKind
from state.calendar import DAY_S, Rule, next_expiry_s
from state.eip712 import header_hash
from state.fee_tiers import make_tiers
from state.hashing import keccak
from state.leaves import FeeTerms, L1Terms, LiquidationParameters, PriorityTerms
from state.proofs import LeafData, subtree_hash
from state.series import CALLS
from state.transition import close_batch, next_batch, open_batch
from state.units import MS_PER_S, PPM
from tools.exchange import COIN, START_MS, USD, VAULT, Exchange, owner_address, standard_exchange
from tools.option_exchange import full_update, markets_of, series_message, strikes_message

EXPIRY_S = next_expiry_s(Rule.DAILY, START_MS // MS_PER_S)
FILE = Path(__file__).parent / "state.json"


def story() -> Exchange:
    """The exchange after the story."""
    exchange = standard_exchange(traders=3, markets=2)
    exchange.place(1, 1, Side.SELL, 1_001 * USD, 5 * COIN)
    exchange.place(2, 1, Side.BUY, 1_002 * USD, 2 * COIN)
    exchange.place(3, 2, Side.BUY, 1_990 * USD, 3 * COIN, OrderKind.POST_ONLY)
    exchange.now_ms += 1_800_000
    exchange.report(
        {f"C{n}": n * 1_000 * USD for n in (1, 2)} | {f"C{n}-PERPETUAL": n * 1_003 * USD for n in (1, 2)}
    )
    orders = (
        Order(1, Side.BUY, OrderKind.LIMIT, 990 * USD, COIN),
        Order(2, Side.SELL, OrderKind.IMMEDIATE_OR_CANCEL, 1_985 * USD, COIN),
    )
    exchange.act(BulkOrders, 2, cancels=(Cancel(1, 64 * 7),), orders=orders)
    exchange.act(
        AuthorizeSessionKey, 1, key=b"\x77" * 20, scope=Scope.TRADE, expiry_s=exchange.now_ms // 1_000 + 60
    )
    exchange.act(CancelAllAfter, 3, timeout_s=600)
    exchange.act(Transfer, 1, to_account=2, amount_uusd=1_234_567)
    exchange.act(Withdraw, 3, recipient=b"\x99" * 20, amount_uusd=7_654_321)
    exchange.messages(L1Message(MessageKind.SET_FEES, VAULT, 0, FeeTerms(execution_target=10).encode()))
    tiers = make_tiers([(0, -PPM // 2, 900_000), (1_000 * USD, -PPM, 800_000)])
    exchange.messages(L1Message(MessageKind.SET_FEE_TIERS, VAULT, 0, tiers.encode()))
    expire(exchange)
    deepen(exchange)
    liquidate(exchange)
    bid_for_places(exchange)
    post_batches(exchange)
    return exchange


def post_batches(exchange: Exchange) -> None:
    """Two batches close and are reported, by calldata and by a blob; then terms of the byte price."""
    for gas, blobs in ((900_000, 0), (180_000, 1)):
        close_batch(exchange.view, 30, 2)
        open_batch(exchange.view, next_batch(exchange.view))
        exchange.now_ms += 24_000
        exchange.place(2, 2, Side.BUY, 1_900 * USD, COIN)
        cost = pack(">QIQQBQ", exchange.system.batch_number, 20_000, gas, 30 * 10**9, blobs, 10**9)
        exchange.messages(L1Message(MessageKind.BATCH_COST, VAULT, 0, cost))
        exchange.place(2, 2, Side.BUY, 1_900 * USD, COIN)
    terms = L1Terms(slot_ms=24_000, step_ppm=100_000)
    exchange.messages(L1Message(MessageKind.SET_L1_TERMS, VAULT, 0, terms.encode()))
    exchange.place(2, 2, Side.BUY, 1_900 * USD, COIN)


def bid_for_places(exchange: Exchange) -> None:
    """Three orders whose bids pay into a market's pot, and a fill that is rewarded from it."""
    terms = PriorityTerms(makers_ppm=600_000, operator_ppm=50_000)
    exchange.messages(L1Message(MessageKind.SET_PRIORITY, VAULT, 0, terms.encode()))
    order = Order(2, Side.SELL, OrderKind.LIMIT, 2_010 * USD, COIN)
    with exchange.block():
        for account, bid in ((1, 500_000), (2, 300_001), (3, 0)):
            exchange.act(PlaceOrder, account, order=order, priority_bid_uusd=bid)
    exchange.place(3, 2, Side.BUY, 2_010 * USD, COIN // 2)
    assert exchange.results[-1].trades[0].maker_reward_uusd
    assert exchange.market(2).priority_pot_uusd


def deepen(exchange: Exchange) -> None:
    """A block trade with terms, a cancelled quote; a protection that a fill sets off; triggers, one fires."""
    exchange.now_ms += 1_000
    exchange.send(full_update(exchange, {"C1": 1_050 * USD, "C2": 2_000 * USD}))
    later = markets_of(exchange, 3)
    call = next(market for name, market in later.items() if name.endswith("-C"))
    future = next(iter(later.values()))
    now_s = exchange.now_ms // MS_PER_S
    legs = (Leg(call, Side.SELL, COIN), Leg(future, Side.BUY, COIN // 2))
    quote = Quote(1, legs, -450 * USD, 2, keccak(b"terms"), 5, now_s + 20, 10 * USD)
    exchange.act(ExecuteQuote, 2, quote=quote, quote_signature=bytes(64), limit_uusd=-400 * USD)
    exchange.act(CancelQuote, 1, quote_nonce=6, quote_expiry_s=now_s + 30)
    limits = {"quantity_ulots": COIN // 10, "delta_ulots": COIN, "vega_uusd": USD}
    exchange.act(SetProtection, 3, underlying="C1", interval_ms=1_000, frozen_ms=0, **limits)
    exchange.place(3, future, Side.SELL, 1_051 * USD, COIN // 2)
    exchange.place(3, future, Side.SELL, 1_052 * USD, COIN // 2)
    exchange.place(2, future, Side.BUY, 1_052 * USD, COIN // 4)
    order = Order(future, Side.SELL, OrderKind.MARKET, 1_000 * USD, COIN // 4)
    for source, dollars in ((TriggerSource.MARK, 1_049), (TriggerSource.INDEX, 1_045)):
        terms = {"source": source, "condition": TriggerCondition.AT_OR_BELOW, "trigger_uusd": dollars * USD}
        exchange.act(PlaceTrigger, 1, order=order, **terms)
    exchange.act(PlaceTrigger, 2, order=order, **terms)
    exchange.now_ms += 1_000
    exchange.send(full_update(exchange, {"C1": 1_048 * USD}))
    far = {"condition": TriggerCondition.AT_OR_ABOVE, "trigger_uusd": 2_000 * USD}
    exchange.act(PlaceTrigger, 2, order=order, source=TriggerSource.MARK, **far)


def liquidate(exchange: Exchange) -> None:
    """Two accounts fall below maintenance margin: bids end one's auction, the other's goes on insolvent."""
    parameters = LiquidationParameters(fee_ppm=80_000)
    exchange.messages(L1Message(MessageKind.SET_LIQUIDATION, VAULT, 0, parameters.encode()))
    exchange.now_ms += 1_000
    exchange.send(full_update(exchange, {"C1": 1_000 * USD, "C2": 2_000 * USD}))
    first, second = (exchange.deposit(owner_address(number), 260 * USD) for number in (8, 9))
    exchange.place(1, 1, Side.SELL, 1_000 * USD, 2 * COIN)
    for account in (first, second):
        exchange.place(account, 1, Side.BUY, 1_000 * USD, COIN)
    exchange.place(first, 1, Side.SELL, 1_100 * USD, COIN)
    for dollars in (880, 720, 600):
        exchange.now_ms += 60_000
        exchange.send(full_update(exchange, {"C1": dollars * USD, "C2": 2_000 * USD}))
        if dollars == 880:
            exchange.act(StartAuction, 2, liquidated=first)
            exchange.act(Bid, 2, liquidated=first, share_ppm=100_000, min_reward_uusd=0)
            exchange.act(Bid, 3, liquidated=first, share_ppm=140_000, min_reward_uusd=1)
    exchange.act(StartAuction, 2, liquidated=second)
    exchange.act(Deleverage, 2, liquidated=second, market=1, counterparties=(3, 1))
    exchange.act(StartAuction, 2, liquidated=first)


def expire(exchange: Exchange) -> None:
    """Two expiries' lives: the first is delisted at the end, the second settled, a third trades."""
    exchange.messages(series_message("C1", Rule.DAILY, 2, strikes=1))
    exchange.messages(strikes_message("C1", EXPIRY_S, 1_050 * USD, 50 * USD, 1, CALLS))
    exchange.now_ms += 1
    exchange.send(full_update(exchange, {"C1": 1_010 * USD}))
    future, call = 3, 6
    exchange.place(1, future, Side.SELL, 1_011 * USD, COIN)
    exchange.place(2, future, Side.BUY, 1_011 * USD, COIN)
    exchange.place(3, call, Side.SELL, 25 * USD, 3 * COIN)
    exchange.place(1, call, Side.BUY, 25 * USD, 2 * COIN)
    for expiry_s in (EXPIRY_S, EXPIRY_S + DAY_S):
        exchange.now_ms = (expiry_s - 1_800) * MS_PER_S - 1
        for minute in range(32):
            exchange.send(full_update(exchange, {"C1": (1_015 + minute) * USD}))
            exchange.now_ms += 60_000
        exchange.messages()
    exchange.now_ms = (EXPIRY_S + DAY_S + 180) * MS_PER_S
    exchange.send(full_update(exchange, {"C1": 1_050 * USD}))
    later = next(iter(markets_of(exchange, 3).values()))
    exchange.place(1, later, Side.BUY, 1_049 * USD, COIN)
    exchange.act(CancelAllAfter, 3, timeout_s=600)


def build() -> dict[str, Any]:
    """What the story gives."""
    exchange = story()
    leaves = dict(sorted(exchange.leaves().items()))
    blocks = [
        {
            "timestamp_ms": each.header.timestamp_ms,
            "encoded": each.encoded.hex(),
            "hash": header_hash(each.header).hex(),
        }
        for each in exchange.results
    ]
    root = subtree_hash([LeafData(key, value) for key, value in leaves.items()])
    return {
        "blocks": blocks,
        "leaves": {key.hex(): value.hex() for key, value in leaves.items()},
        "root": root.hex(),
    }


if __name__ == "__main__":
    FILE.write_text(json.dumps(build(), indent=1) + "\n")
