"""What was paid for places, as it is told: in receipts, in histories, to the node's count of the money."""

from __future__ import annotations

from sequencer.conservation import Books
from sequencer.history_events import BlockEvents
from sequencer.history_records import Money
from sequencer.receipts import ReceiptMaker, decode_block, encode_block
from sequencer.sealer import sealed_block
from state.actions import Order, OrderKind, PlaceOrder, Side
from tests.integration.node_fixture import COIN, MARKET, PRICE, USD
from tests.unit.test_history_events import ALICE, BOB, CAROL, MAX_BYTES, Desk
from tools.exchange import l1_origin


def test_receipts_and_histories_tell_what_was_paid() -> None:
    desk = Desk()
    order = Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE - 100 * USD, COIN // 10)
    sent = [
        desk.signed(PlaceOrder, account, order=order, priority_bid_uusd=bid)
        for account, bid in ((ALICE, 50_000), (BOB, 30_000), (CAROL, 0))
    ]
    _, executed = desk.machine.execute(desk.now_ms, l1_origin(1), (), sent, MAX_BYTES)
    assert executed is not None
    block = decode_block(encode_block(sealed_block(executed, bytes(64)).block))
    maker = ReceiptMaker(block, desk.machine.markets)
    fees = [maker.receipt(index, "sealed").fee for index in range(3)]
    assert [fee.priority_uusd for fee in fees] == [30_000, 0, 0]
    for fee in fees:
        assert fee.total_uusd == fee.inclusion_uusd + fee.trading_uusd + fee.priority_uusd
        parts = fee.data_uusd + fee.bandwidth_uusd + fee.execution_uusd + fee.growth_uusd
        assert parts + fee.finality_uusd + fee.risk_uusd == fee.inclusion_uusd > 0
    events = BlockEvents(executed)
    (paid,) = events.money[ALICE]
    assert (paid.kind, paid.change_uusd, paid.transaction) == (Money.PRIORITY, -30_000, sent[0].hash)
    assert not events.money[BOB]


def test_the_nodes_count_of_the_money_has_pots_and_rewards() -> None:
    """iMONEY_001, from what each batch changed."""
    desk = Desk()
    books = Books(lambda _: None)
    leaves = {key: data for key, data in desk.machine.close().dirty().items() if data is not None}
    books.take(leaves)
    books = Books(leaves.get, books.encode())
    order = Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE, COIN // 10)
    sent = [desk.signed(PlaceOrder, who, order=order, priority_bid_uusd=50_001) for who in (ALICE, CAROL)]
    desk.block(*sent)
    sold = desk.place(BOB, Side.SELL, PRICE, COIN // 100)
    (trade,) = sold.trades[ALICE]
    assert trade.maker_reward_uusd == 25_000, "half of one price, rounded down: the pot"
    assert trade.maker_change_uusd == trade.maker_reward_uusd - trade.maker_fee_uusd
    books.take(desk.machine.close().dirty())
