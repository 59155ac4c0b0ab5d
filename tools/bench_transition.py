"""Orders per second through the state machine alone: `python -m tools.bench_transition`.

The flow is 60 % resting orders, 30 % cancels, 10 % orders that cross, over several markets and many accounts,
against books of some thousand orders; each transaction is checked, executed and encoded into the batch.
"""

from __future__ import annotations

import gc
import random
import time
from statistics import median
from typing import NamedTuple

from state.actions import Cancel, CancelOrder, Order, OrderKind, PlaceOrder, Side, Transaction
from state.errors import Rejected
from state.transition import BlockExecution
from tools.exchange import COIN, USD, Exchange, l1_origin, standard_exchange
from tools.figure import Figure, recover_cpu_seconds

MARKETS = 4
ACCOUNTS = 1_000
BOOK_ORDERS = 4_000
"""Of one market, before the measurement."""
FLOW = 20_000
BLOCK = 200
SLICE = 5
"""Blocks between two measurements of the yardstick."""
TICK = 10_000
SPREAD_TICKS = 10
DEPTH_TICKS = 2_000
SEED = 20_240_808

Blocks = list[list[Transaction]]


class Tally(NamedTuple):
    executed: int
    refused: int
    fills: int


class Flow:
    """Makes transactions; knows which orders it placed, not what became of them."""

    def __init__(self, exchange: Exchange, seed: int) -> None:
        self.exchange = exchange
        self.random = random.Random(seed)
        self.open: list[tuple[int, int, int]] = []

    def resting(self) -> Transaction:
        """A limit order away from the other side."""
        return self._order(self.random.randint(SPREAD_TICKS, DEPTH_TICKS), self.random.randint(10, 100))

    def crossing(self) -> Transaction:
        """An order that takes the best of the other side."""
        return self._order(-self.random.randint(SPREAD_TICKS, 3 * SPREAD_TICKS), self.random.randint(10, 100))

    def cancel(self) -> Transaction:
        """Of an order placed earlier, unless it was filled in the meantime."""
        place = self.random.randrange(len(self.open))
        self.open[place], self.open[-1] = self.open[-1], self.open[place]
        account, market, order_id = self.open.pop()
        fields = self.exchange.envelope(account)
        return self.exchange.sign(CancelOrder(**fields, cancel=Cancel(market, order_id)))

    def blocks(self, filling: int, length: int) -> Blocks:
        """So many transactions, after the books were filled by as many blocks of resting orders."""
        for _ in range(filling):
            with self.exchange.block() as execution:
                for _ in range(BLOCK):
                    execution.execute(self.resting())
        self.exchange.results.clear()
        return [self._block() for _ in range(length // BLOCK)]

    def _block(self) -> list[Transaction]:
        kinds = self.random.choices(("place", "cancel", "cross"), (60, 30, 10), k=BLOCK)
        cancels = [self.cancel() for kind in kinds if kind == "cancel"]
        rest = [self.resting() if kind == "place" else self.crossing() for kind in kinds if kind != "cancel"]
        return cancels + rest

    def _order(self, ticks_away: int, size: int) -> Transaction:
        account = self.random.randint(1, ACCOUNTS)
        market = self.random.randint(1, MARKETS)
        side = Side(self.random.getrandbits(1))
        price = market * 1_000 * USD + (ticks_away if side else -ticks_away) * TICK
        fields = self.exchange.envelope(account)
        self.open.append((account, market, fields["nonce"] << 6))
        placed = Order(market, side, OrderKind.LIMIT, price, size * COIN // 1_000)
        return self.exchange.sign(PlaceOrder(**fields, order=placed))


def prepare(seed: int = SEED, flow_length: int = FLOW) -> tuple[Exchange, Blocks]:
    """A state with full books, and blocks of the flow to execute on it."""
    exchange = standard_exchange(ACCOUNTS, MARKETS)
    flow = Flow(exchange, seed)
    return exchange, flow.blocks(BOOK_ORDERS * MARKETS // BLOCK, flow_length)


def run(exchange: Exchange, blocks: Blocks) -> Tally:
    """Executes the blocks."""
    refused = fills = 0
    for transactions in blocks:
        exchange.now_ms += 50
        execution = BlockExecution(exchange.view, exchange.now_ms, l1_origin(0), ())
        for transaction in transactions:
            try:
                execution.execute(transaction)
            except Rejected:
                refused += 1
        fills += len(execution.end().trades)
    return Tally(sum(map(len, blocks)) - refused, refused, fills)


def bench_transition() -> list[Figure]:
    """Slices of the flow between recoveries, so that both meet the same load of the machine."""
    exchange, blocks = prepare()
    gc.collect()
    gc.freeze()
    slices, ratios = [], []
    tally = Tally(0, 0, 0)
    before = recover_cpu_seconds()
    for start in range(0, len(blocks), SLICE):
        begin = time.process_time()
        part = run(exchange, blocks[start : start + SLICE])
        slices.append((time.process_time() - begin) / (SLICE * BLOCK))
        after = recover_cpu_seconds()
        ratios.append(2 * slices[-1] / (before + after))
        before = after
        tally = Tally(*(a + b for a, b in zip(tally, part, strict=True)))
    gc.unfreeze()
    one, ratio = median(slices), median(ratios)
    note = f"{tally.executed} executed, {tally.refused} cancels too late, {tally.fills} fills"
    return [
        Figure("orders through the transition", 1 / one, "1/s", ratio / one, ">=", note),
        Figure("one order", one * 1e6, "us", note="processor time, median slice"),
        Figure("one order, in recoveries", ratio, "recoveries", 1.0, note="median of slices"),
    ]


if __name__ == "__main__":
    for figure in bench_transition():
        print(figure)
