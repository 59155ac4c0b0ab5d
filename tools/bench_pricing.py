"""What pricing adds to the transition: `python -m tools.bench pricing`.

There is no transition without prices to compare with, and its hot modules are compiled, with calls that are
bound early, so nothing can be taken out of it from outside. So the pricing calls are timed themselves: blocks
of the usual flow (60 % resting orders, 30 % cancels, 10 % that cross; here under fee tiers, and half of them
with bids) are executed, and after each one exactly the calls that it made for prices are made again, on the
same state, with the same actions, sizes, bids and fills:

| by | calls |
|---|---|
| block | base prices and L1's byte price, at its beginning and end |
| transaction | its units and leaves, its parts, the risk that it adds |
| bid | what returns to the one before, what that pays and to whom, whose is held now |
| fill | both sides' tiers, and their volumes |

Then the same loop goes over functions that do nothing: what calling costs, from Python, is subtracted. What a
repetition changed is put back, unmeasured, and in the end the state must be that of the same blocks without
repetitions.

The figure is over the rest of the transition's time. It errs upwards in that calls from Python into compiled
code cost more than into the functions that do nothing, and that some fee would be charged without all this;
downwards in that what the loop itself does (counting in Progress), receipts with parts, and prices that are
made anew with each oracle update are not in it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import msgspec

import state
from state import fee_market, l1_market
from state.actions import SignedAction, Transaction
from state.block import L1Message, L1Origin, MessageKind, Trade
from state.context import BlockContext
from state.errors import Rejected
from state.fee_tiers import count_volume, fill_fees, make_tiers
from state.fees import Parts, charge
from state.keys import (
    FEE_MARKET_KEY,
    L1_PRICE_KEY,
    SYSTEM_KEY,
    account_key,
    instrument_key,
    market_key,
    volume_key,
)
from state.leaves import FeeMarket, Instrument, L1Price, Market, Phase, Progress, System
from state.positions import notional_of
from state.priority import lend_back, market_of, release, reward_uusd, settle
from state.risk_fees import risk_uusd
from state.rules import Rule, rule_of, use_of
from state.transition import BlockExecution
from state.view import StateView
from tools.bench_transition import ACCOUNTS, BLOCK, BOOK_ORDERS, MARKETS, SEED, Flow
from tools.exchange import USD, VAULT, Exchange, l1_origin, standard_exchange
from tools.figure import Figure

FLOW = 12_000
BLOCK_MS = 50
MOST_PERCENT = 10
TIERS = make_tiers([(10**6 * USD, 800_000, 900_000), (10**7 * USD, -200_000, 700_000)])
Fill = tuple[Trade, Instrument, int]
"""With its instrument and notional, which matching has anyway."""


class Charged(NamedTuple):
    """A transaction that was executed; its rule is not only for its price."""

    action: Any
    rule: Rule
    size_bytes: int


class Calls(NamedTuple):
    """Of the transition, as it calls them; or of the same shape, doing nothing."""

    begin_base: Callable[[StateView, int], None]
    begin_l1: Callable[[StateView, int, L1Origin], None]
    use_of: Callable[[StateView, Any, Rule], tuple[int, int]]
    charge: Callable[[int, FeeMarket, int, int, int, int], Parts]
    risk_uusd: Callable[[StateView, Any], int]
    lend_back: Callable[[StateView, Progress, int, int], int]
    settle: Callable[[StateView, BlockContext, Progress, int, int], None]
    market_of: Callable[[Any], int]
    fill_fees: Callable[[StateView, BlockContext, int, int, Instrument, int], tuple[int, int]]
    reward_uusd: Callable[[StateView, Market, int, int], int]
    count_volume: Callable[[StateView, BlockContext, tuple[int, int], int], None]
    end_base: Callable[[StateView, Progress], None]
    end_l1: Callable[[StateView, Progress], None]
    release: Callable[[StateView, Progress], None]


PRICING = Calls(
    fee_market.begin,
    l1_market.begin,
    use_of,
    charge,
    risk_uusd,
    lend_back,
    settle,
    market_of,
    fill_fees,
    reward_uusd,
    count_volume,
    fee_market.end,
    l1_market.end,
    release,
)
NOTHING = Calls(
    lambda view, elapsed_ms: None,
    lambda view, timestamp_ms, origin: None,
    lambda view, action, rule: (10, 2),
    lambda byte_pusd, market, units, leaves, size, risk: (1, 1, 1, 1, 1, 1),
    lambda view, action: 1,
    lambda view, progress, order_class, bid: 0,
    lambda view, block, progress, order_class, bid: None,
    lambda action: 1,
    lambda view, block, maker, taker, terms, notional: (1, 1),
    lambda view, market, notional, fees: 1,
    lambda view, block, accounts, notional: None,
    lambda view, progress: None,
    lambda view, progress: None,
    lambda view, progress: None,
)


class BidFlow(Flow):
    """Half of the transactions bid; in each class the highest bids come first."""

    def _block(self) -> list[Transaction]:
        made = super()._block()
        for place, transaction in enumerate(made):
            if self.random.random() < 0.5:
                made[place] = bidding(transaction, self.random.randint(1, 1_000))
        return sorted(made, key=_place_in_order)


def bidding(transaction: Transaction, bid_uusd: int) -> Transaction:
    """The same with a bid."""
    action = msgspec.structs.replace(_action(transaction), priority_bid_uusd=bid_uusd)
    return Transaction(SignedAction(action, bytes(64)), transaction.signers, transaction.hash)


def _action(transaction: Transaction) -> Any:
    assert isinstance(transaction.payload, SignedAction)
    return transaction.payload.action


def _place_in_order(transaction: Transaction) -> tuple[int, int]:
    action = _action(transaction)
    return rule_of(action).order_class, -action.priority_bid_uusd


def prepare() -> tuple[Exchange, list[list[Transaction]]]:
    """A state with tiers and full books, and blocks of the flow to execute on it."""
    exchange = standard_exchange(ACCOUNTS, MARKETS)
    exchange.messages(L1Message(MessageKind.SET_FEE_TIERS, VAULT, 0, TIERS.encode()))
    return exchange, BidFlow(exchange, SEED).blocks(BOOK_ORDERS * MARKETS // BLOCK, FLOW)


def execute(exchange: Exchange, transactions: list[Transaction]) -> tuple[BlockExecution, list[Charged]]:
    """Makes a block."""
    exchange.now_ms += BLOCK_MS
    execution = BlockExecution(exchange.view, exchange.now_ms, l1_origin(0), ())
    executed = []
    for transaction in transactions:
        try:
            execution.execute(transaction)
        except Rejected:
            continue
        executed.append(transaction)
    exchange.results.append(execution.end())
    sizes = map(len, execution.block.encoded[1:-1])
    actions = map(_action, executed)
    return execution, [
        Charged(action, rule_of(action), size) for action, size in zip(actions, sizes, strict=True)
    ]


def price_again(
    exchange: Exchange, execution: BlockExecution, charged: list[Charged], fills: list[Fill], calls: Calls
) -> None:
    """The calls that the block made for prices, in its order."""
    view, block = exchange.view, execution.block
    calls.begin_base(view, BLOCK_MS)
    calls.begin_l1(view, block.timestamp_ms, block.origin)
    progress = Progress(messages_left=0, phase=Phase.TRANSACTIONS)
    system: System = view.get(SYSTEM_KEY)
    system.order_class = system.order_bid = 0
    for action, rule, size_bytes in charged:
        l1_price: L1Price = view.get(L1_PRICE_KEY)
        market: FeeMarket = view.get(FEE_MARKET_KEY)
        units, leaves = calls.use_of(view, action, rule)
        risk = calls.risk_uusd(view, action)
        parts = calls.charge(l1_price.price_pusd, market, units, leaves, size_bytes, risk)
        block.fee_uusd = sum(parts)
        bid, order_class = action.priority_bid_uusd, rule.order_class
        if progress.bidder:
            calls.lend_back(view, progress, order_class, bid)
            calls.settle(view, block, progress, order_class, bid)
            progress.bidder = progress.bid_market = 0
        if bid:
            progress.bidder, progress.bid_market = action.account, calls.market_of(action)
        system.order_class, system.order_bid = order_class, bid
        progress.units_used += units
        progress.bytes_used += size_bytes
        progress.leaves_used += leaves
        progress.data_uusd += parts[0]
    for trade, terms, notional in fills:
        fees = calls.fill_fees(view, block, trade.maker_account, trade.taker_account, terms, notional)
        leaf: Market = view.get(market_key(trade.market))
        if leaf.priority_pot_uusd:
            calls.reward_uusd(view, leaf, notional, sum(fees))
        calls.count_volume(view, block, (trade.maker_account, trade.taker_account), notional)
    calls.end_base(view, progress)
    calls.end_l1(view, progress)
    if progress.bidder:
        calls.release(view, progress)


def repeated(
    exchange: Exchange, execution: BlockExecution, charged: list[Charged], calls: Calls
) -> tuple[float, int]:
    """(processor time of these calls for the last block, its fills); the state is afterwards what it was."""
    view, trades = exchange.view, exchange.results[-1].trades
    fills = [
        (trade, view.get(instrument_key(trade.market)), notional_of(trade.price_uusd, trade.size_ulots))
        for trade in trades
    ]
    touched = {SYSTEM_KEY, FEE_MARKET_KEY, L1_PRICE_KEY}
    touched |= {market_key(number) for number in range(1, MARKETS + 1)}
    touched |= {account_key(each.action.account) for each in charged}
    for trade in trades:
        touched |= {volume_key(trade.maker_account), volume_key(trade.taker_account)}
    before = {key: (leaf := view.get(key), leaf.encode()) for key in touched}
    begin = time.process_time()
    price_again(exchange, execution, charged, fills, calls)
    elapsed = time.process_time() - begin
    for key, (leaf, encoded) in before.items():
        view.put(key, type(leaf).decode(encoded))
    return elapsed, len(fills)


def bench_pricing() -> list[Figure]:
    """Each block and its repetitions one after the other, so that all meet the same load of the machine."""
    exchange, blocks = prepare()
    gc.collect()
    gc.freeze()
    orders, prices, ratios, highest = [], [], [], []
    fills = executed = 0
    for transactions in blocks:
        begin = time.process_time()
        execution, charged = execute(exchange, transactions)
        block_s = time.process_time() - begin
        driven_s, filled = repeated(exchange, execution, charged, PRICING)
        loop_s, _ = repeated(exchange, execution, charged, NOTHING)
        pricing_s = driven_s - loop_s
        orders.append(block_s / len(transactions))
        prices.append(pricing_s / len(charged))
        ratios.append(100 * pricing_s / (block_s - pricing_s))
        highest.append(100 * driven_s / (block_s - driven_s))
        fills += filled
        executed += len(charged)
    gc.unfreeze()
    check_unchanged(exchange)
    form = "compiled" if state.COMPILED else "as Python"
    note = f"{form}; {executed} executed, {fills} fills"
    return [
        Figure("one order, pricing included", median(orders) * 1e6, "us", note=note),
        Figure("its pricing", median(prices) * 1e6, "us", note="median of blocks"),
        Figure("pricing over the rest", median(ratios), "%", MOST_PERCENT, note="median of blocks"),
        Figure("the same with the cost of calling", median(highest), "%", note="median of blocks"),
    ]


def check_unchanged(exchange: Exchange) -> None:
    """Raises AssertionError unless the same blocks without repetitions lead to the same state."""
    other, blocks = prepare()
    for transactions in blocks:
        execute(other, transactions)
    assert other.leaves() == exchange.leaves(), "making prices again has changed something"


if __name__ == "__main__":
    for figure in bench_pricing():
        print(figure)
