"""Orders per second through the state machine alone: `python -m tools.bench_transition`.

The flow is 60 % resting orders, 30 % cancels, 10 % orders that cross, over several markets and many accounts,
against books of some thousand orders; each transaction is checked, executed and encoded into the batch. It
is measured over several rounds of the same seeded flow, each against a state of its own.
"""

from __future__ import annotations

import gc
import random
import time

from state.actions import Cancel, CancelOrder, Order, OrderKind, PlaceOrder, Side, Transaction
from state.errors import Rejected
from state.transition import BlockExecution
from tools.exchange import COIN, USD, Exchange, standard_exchange
from tools.figure import Figure, recover_seconds

MARKETS = 4
ACCOUNTS = 1_000
BOOK_ORDERS = 4_000
"""Of one market, before the measurement."""
FLOW = 20_000
BLOCK = 200
TICK = 10_000
SPREAD_TICKS = 10
DEPTH_TICKS = 2_000
SEED = 20_240_808

Blocks = list[list[Transaction]]


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
    for _ in range(BOOK_ORDERS * MARKETS // BLOCK):
        with exchange.block() as execution:
            for _ in range(BLOCK):
                execution.execute(flow.resting())
    exchange.results.clear()
    blocks: Blocks = []
    for _ in range(flow_length // BLOCK):
        kinds = flow.random.choices(("place", "cancel", "cross"), (60, 30, 10), k=BLOCK)
        cancels = [flow.cancel() for kind in kinds if kind == "cancel"]
        rest = [
            flow.resting() if kind == "place" else flow.crossing() for kind in kinds if kind != "cancel"
        ]
        blocks.append(cancels + rest)
    return exchange, blocks


def run(exchange: Exchange, blocks: Blocks) -> tuple[int, int, int]:
    """Executes the blocks; (executed, refused, fills)."""
    refused = fills = 0
    for transactions in blocks:
        exchange.now_ms += 50
        execution = BlockExecution(exchange.view, exchange.now_ms, 0, ())
        for transaction in transactions:
            try:
                execution.execute(transaction)
            except Rejected:
                refused += 1
        fills += len(execution.end().trades)
    return sum(map(len, blocks)) - refused, refused, fills


def bench_transition(rounds: int = 3) -> list[Figure]:
    """The best of a few rounds, since other work on the machine only ever slows a round down."""
    best = float("inf")
    for _ in range(rounds):
        exchange, blocks = prepare()
        gc.collect()
        begin = time.perf_counter()
        executed, refused, fills = run(exchange, blocks)
        best = min(best, (time.perf_counter() - begin) / FLOW)
    limit = 1 / recover_seconds()
    note = f"{executed} executed, {refused} refused (cancels of orders filled before), {fills} fills"
    return [
        Figure("orders through the transition", 1 / best, "1/s", limit, ">=", note),
        Figure("one order", best * 1e6, "us"),
        Figure("one order, in recoveries", best / recover_seconds(), "recoveries", 1.0),
    ]


if __name__ == "__main__":
    for figure in bench_transition():
        print(figure)
