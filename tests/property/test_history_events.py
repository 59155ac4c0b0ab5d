"""What blocks mean for accounts, in random traffic: nothing is missing, nothing is told twice, all adds up.

The records are compared with what they were not made from: cash and resting orders in the state, operations
and fees in the results, and the same blocks executed again from their bytes.
"""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest

from sequencer.history_events import BlockEvents
from sequencer.history_records import OrderChange, OrderRecord
from sequencer.machine import ExecutedBlock, Machine
from state import keys
from state.actions import SignedAction
from state.block import OrderedBlock, OrderEnd
from state.cache import CachedState, MemorySource
from state.codec import Table, decode_transaction, read_varint
from state.genesis import genesis_leaves
from state.leaves import Account, AccountOrder
from tests.random_exchange import Traffic
from tools.exchange import l1_origin

BLOCKS = 150
MAX_BATCH_BYTES = 2**40
SEEDS = range(6)


def fresh() -> Machine:
    leaves = {key: leaf.encode() for key, leaf in genesis_leaves().items()}
    return Machine(CachedState(MemorySource(leaves), 1_000_000))


class Run:
    """Random traffic on a machine, and all records in their order."""

    def __init__(self, seed: int) -> None:
        self.machine = fresh()
        self.executed: list[ExecutedBlock] = []
        self.orders: dict[int, list[OrderRecord]] = defaultdict(list)
        self.changes: dict[int, int] = defaultdict(int)
        traffic = Traffic(seed)
        traffic.view = self.machine.view
        self.add(traffic, first=True)
        for _ in range(BLOCKS):
            self.add(traffic)

    def add(self, traffic: Traffic, first: bool = False) -> None:
        transactions = [] if first else traffic.block()
        messages = tuple(traffic.setup() if first else traffic.messages())
        _, executed = self.machine.execute(
            traffic.now_ms, l1_origin(0), messages, transactions, MAX_BATCH_BYTES
        )
        if executed is None:
            return
        self.executed.append(executed)
        events = BlockEvents(executed)
        for account, orders in events.orders.items():
            self.orders[account] += orders
            self.changes[account] -= sum(order.fee_uusd for order in orders)
        for account, trades in events.trades.items():
            for trade in trades:
                assert account in (trade.maker_account, trade.taker_account)
                is_maker = account == trade.maker_account
                self.changes[account] += trade.maker_change_uusd if is_maker else trade.taker_change_uusd
        for account, money in events.money.items():
            self.changes[account] += sum(record.change_uusd for record in money)

    @property
    def accounts(self) -> list[int]:
        return list(range(1, self.machine.system.next_account))


@pytest.fixture(scope="module", params=SEEDS)
def run(request: pytest.FixtureRequest) -> Run:
    return Run(request.param)


def test_changes_add_up_to_the_cash(run: Run) -> None:
    """iHISTORY_003."""
    for number in run.accounts:
        account: Account = run.machine.view.get(keys.account_key(number))
        assert run.changes[number] == account.cash_uusd
    assert sum(len(executed.result.trades) for executed in run.executed) > 50


def resting(run: Run, account: int) -> dict[tuple[int, int], int]:
    """Open size by (market, order id), from the state."""
    found: dict[tuple[int, int], int] = {}
    view = run.machine.view
    for key, leaf in view.iterate_under(keys.account_orders_prefix(account), 10_000):
        place: AccountOrder = leaf
        market = int.from_bytes(key[9:13], "big")
        order = view.get(keys.order_key(market, place.side, place.price_uusd, place.sequence))
        found[market, order.order_id] = order.size_ulots
    return found


def test_an_orders_events_lead_from_its_placing_to_where_it_is(run: Run) -> None:
    changes = set()
    for account in run.accounts:
        still_open: dict[tuple[int, int], int] = {}
        for record in run.orders[account]:
            if record.change == OrderChange.PLACE and not record.transaction:
                assert record.end != OrderEnd.OPEN  # forced through L1: it has no id, and never rests
                continue
            if record.code:
                assert (record.filled_ulots, record.open_ulots, record.cancelled_ulots) == (0, 0, 0)
                continue
            changes.add(record.change)
            key = record.market, record.order_id
            before = still_open.pop(key, 0)
            if record.change == OrderChange.PLACE:
                assert before == 0
                moved = record.filled_ulots + record.open_ulots + record.cancelled_ulots
                assert moved <= record.size_ulots  # less where an own order took a part of it away
            elif record.change != OrderChange.REPLACE:
                assert before - record.filled_ulots - record.cancelled_ulots == record.open_ulots
                assert bool(record.trade) == (record.change == OrderChange.FILL)
            if record.open_ulots:
                still_open[key] = record.open_ulots
        assert still_open == resting(run, account)
    assert changes == set(OrderChange)


def test_every_operation_and_every_trade_is_told_once(run: Run) -> None:
    for executed in run.executed:
        events = BlockEvents(executed)
        numbers = [trade.number for trade in executed.result.trades]
        told = sorted(trade.number for trades in events.trades.values() for trade in trades)
        assert told == sorted(numbers * 2)
        by_maker = [record.trade for orders in events.orders.values() for record in orders if record.trade]
        assert sorted(by_maker) == [each.number for each in executed.result.trades if not each.block_trade]
        for transaction, result in zip(executed.transactions, executed.result.results, strict=True):
            if not isinstance(transaction.payload, SignedAction):
                continue
            own = events.orders[transaction.payload.action.account]
            about = [record for record in own if record.transaction == transaction.hash]
            asked = Counter(
                (each.code, each.order_id, each.filled_ulots, each.resting_ulots)
                for each in result.operations
                if each.order_id
            )
            found = Counter((each.code, each.order_id, each.filled_ulots, each.open_ulots) for each in about)
            assert asked <= found
        indexes = [
            record.index
            for stream in (events.orders, events.money)
            for records in stream.values()
            for record in records
        ]
        assert len(set(indexes)) == len(indexes)


def encoded_of(executed: ExecutedBlock, table: Table) -> tuple[bytes, ...]:
    """Each transaction's bytes in the block."""
    data, found, offset = executed.result.encoded, [], 0
    for _ in range(3):
        _, offset = read_varint(data, offset)
    while data[offset]:
        _, end = decode_transaction(data, offset, executed.result.header.timestamp_ms, table)
        found.append(data[offset:end])
        offset = end
    return tuple(found)


def test_a_block_that_is_executed_again_gives_the_same(run: Run) -> None:
    machine = fresh()
    assert run.machine.batch is not None
    table = run.machine.batch.table
    for executed in run.executed:
        header = executed.result.header
        encoded = encoded_of(executed, table)
        block = OrderedBlock(
            header.timestamp_ms, l1_origin(header.l1_block), executed.messages, executed.transactions, encoded
        )
        again, first = BlockEvents(machine.replay(block, table)), BlockEvents(executed)
        for stream in ("orders", "trades", "money"):
            assert getattr(again, stream) == getattr(first, stream)
