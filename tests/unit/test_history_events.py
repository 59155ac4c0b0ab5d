"""What single actions and messages become in the history of the accounts they concern."""

from __future__ import annotations

from struct import pack
from typing import Any

from sequencer.history_events import BlockEvents
from sequencer.history_records import UNKNOWN, Money, OrderChange
from sequencer.machine import ExecutedBlock, Machine
from state.actions import (
    Action,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Price,
    Replacement,
    ReplaceOrder,
    SelfTrade,
    Side,
    SignedAction,
    Transaction,
    Transfer,
    Withdraw,
)
from state.block import (
    BlockHeader,
    BlockResult,
    L1Message,
    LifeChange,
    LifeEvent,
    LiquidationChange,
    LiquidationEvent,
    MessageKind,
    OrderEnd,
    TransactionResult,
)
from state.cache import CachedState, MemorySource
from state.errors import RejectCode
from state.genesis import genesis_leaves
from state.signatures import address_of
from tests.integration.node_fixture import COIN, MARKET, PRICE, PUBLISHER_SECRETS, USD, opening_messages
from tools.exchange import l1_origin, owner_address

NOW_MS = 1_700_000_000_000
ALICE, BOB, CAROL = 1, 2, 3
"""Carol's account is Alice's second one."""
OWNERS = {ALICE: owner_address(1), BOB: owner_address(2), CAROL: owner_address(1)}
MAX_BYTES = 10**9


class Desk:
    """An exchange on which each call is a block; its records are returned."""

    def __init__(self) -> None:
        leaves = {key: leaf.encode() for key, leaf in genesis_leaves().items()}
        self.machine = Machine(CachedState(MemorySource(leaves), 10_000))
        self.now_ms = NOW_MS
        self.nonces = dict.fromkeys(OWNERS, 0)
        self.block(messages=opening_messages(list(OWNERS.values())))
        self.price()

    def price(self) -> None:
        prices = (Price("BTC", PRICE, 100), Price("BTC-PERPETUAL", PRICE, 100))
        update = OracleUpdate((OracleReport(self.now_ms, prices, signature=bytes(64)),) * 2)
        publishers = tuple(address_of(secret) for secret in PUBLISHER_SECRETS[:2])
        self.block(Transaction(update, publishers, b"\xee" * 32))

    def block(self, *transactions: Transaction, messages: list[L1Message] | None = None) -> BlockEvents:
        """Raises Rejected when one of the transactions is refused."""
        outcomes, executed = self.machine.execute(
            self.now_ms, l1_origin(1), tuple(messages or ()), transactions, MAX_BYTES
        )
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome
        assert executed is not None
        return BlockEvents(executed)

    def signed(self, kind: type[Any], account: int, **fields: Any) -> Transaction:
        self.nonces[account] += 1
        nonce = self.nonces[account]
        envelope = {"nonce": nonce, "deadline_s": self.now_ms // 1000 + 60, "max_fee_uusd": USD}
        action: Action = kind(account=account, **envelope, **fields)
        digest = pack(">QQ16x", account, nonce)
        return Transaction(SignedAction(action, bytes(64)), (OWNERS[account],), digest)

    def do(self, kind: type[Any], account: int, **fields: Any) -> BlockEvents:
        return self.block(self.signed(kind, account, **fields))

    def place(self, account: int, side: Side, price: int, size: int, **terms: Any) -> BlockEvents:
        kind = terms.pop("kind", OrderKind.LIMIT)
        return self.do(PlaceOrder, account, order=Order(MARKET, side, kind, price, size, **terms))


def orders(events: BlockEvents, account: int) -> list[tuple[Any, ...]]:
    """(change, order id, price, size, filled, open, cancelled, end) of each record."""
    return [
        (
            OrderChange(each.change).name,
            each.order_id,
            each.price_uusd // USD,
            each.size_ulots,
            each.filled_ulots,
            each.open_ulots,
            each.cancelled_ulots,
            OrderEnd(each.end).name,
        )
        for each in events.orders[account]
    ]


def test_an_order_that_rests_is_filled_in_parts_and_cancelled() -> None:
    desk = Desk()
    placed = desk.place(ALICE, Side.BUY, PRICE, 3 * COIN)
    assert orders(placed, ALICE) == [("PLACE", 64, 60_000, 3 * COIN, 0, 3 * COIN, 0, "OPEN")]
    (record,) = placed.orders[ALICE]
    assert (record.side, record.kind, record.reduce_only) == (Side.BUY, OrderKind.LIMIT, False)
    assert record.transaction == pack(">QQ16x", ALICE, 1)
    assert record.fee_uusd > 0
    sold = desk.place(BOB, Side.SELL, PRICE - USD, COIN)
    assert orders(sold, BOB) == [("PLACE", 64, 59_999, COIN, COIN, 0, 0, "FILLED")]
    assert orders(sold, ALICE) == [("FILL", 64, 60_000, COIN, COIN, 2 * COIN, 0, "OPEN")]
    (fill,) = sold.orders[ALICE]
    (trade,) = sold.trades[ALICE]
    assert sold.trades[BOB] == [trade]
    assert (fill.trade, fill.transaction, fill.kind, fill.fee_uusd) == (trade.number, b"", UNKNOWN, 0)
    assert trade.taker_change_uusd == -trade.taker_fee_uusd == -30 * USD
    all_cancelled = desk.do(CancelAll, ALICE)
    assert orders(all_cancelled, ALICE) == [("CANCEL", 64, 60_000, 2 * COIN, 0, 0, 2 * COIN, "CANCELLED")]
    assert all_cancelled.orders[ALICE][0].transaction == pack(">QQ16x", ALICE, 2)
    (fee,) = all_cancelled.money[ALICE]
    assert (fee.kind, fee.transaction) == (Money.INCLUSION_FEE, pack(">QQ16x", ALICE, 2))
    assert fee.change_uusd < 0


def test_orders_that_do_not_rest() -> None:
    desk = Desk()
    gone = desk.place(ALICE, Side.BUY, PRICE, COIN, kind=OrderKind.IMMEDIATE_OR_CANCEL)
    assert orders(gone, ALICE) == [("PLACE", 64, 60_000, COIN, 0, 0, COIN, "IMMEDIATE")]
    desk.place(BOB, Side.SELL, PRICE, COIN)
    part = desk.place(ALICE, Side.BUY, PRICE, 3 * COIN, kind=OrderKind.MARKET)
    assert orders(part, ALICE) == [("PLACE", 128, 60_000, 3 * COIN, COIN, 0, 2 * COIN, "IMMEDIATE")]
    assert part.orders[ALICE][0].kind == OrderKind.MARKET


def test_replacing_in_place_anew_and_away() -> None:
    desk = Desk()
    desk.place(ALICE, Side.SELL, PRICE, 3 * COIN)
    less = desk.do(ReplaceOrder, ALICE, replacement=Replacement(MARKET, 64, PRICE, 2 * COIN))
    assert orders(less, ALICE) == [("REPLACE", 64, 60_000, 2 * COIN, 0, 2 * COIN, COIN, "OPEN")]
    moved = desk.do(ReplaceOrder, ALICE, replacement=Replacement(MARKET, 64, PRICE + USD, 4 * COIN))
    assert orders(moved, ALICE) == [("REPLACE", 64, 60_001, 4 * COIN, 0, 4 * COIN, 0, "OPEN")]
    assert moved.orders[ALICE][0].side == Side.SELL
    none = desk.do(ReplaceOrder, ALICE, replacement=Replacement(MARKET, 64, PRICE, 0))
    assert orders(none, ALICE) == [("REPLACE", 64, 60_000, 0, 0, 0, 4 * COIN, "CANCELLED")]


def test_a_bulk_action_is_told_operation_by_operation() -> None:
    desk = Desk()
    desk.place(ALICE, Side.BUY, PRICE - USD, COIN)
    desk.place(ALICE, Side.BUY, PRICE - 2 * USD, COIN)
    desk.place(BOB, Side.SELL, PRICE + USD, COIN)
    bulk = desk.do(
        BulkOrders,
        ALICE,
        cancels=(Cancel(MARKET, 64), Cancel(MARKET, 999)),
        replacements=(Replacement(MARKET, 128, PRICE - 3 * USD, 2 * COIN),),
        orders=(
            Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE + USD, 3 * COIN),
            Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE * 2, COIN),
        ),
    )
    assert orders(bulk, ALICE) == [
        ("CANCEL", 64, 59_999, COIN, 0, 0, COIN, "CANCELLED"),
        ("REPLACE", 128, 59_997, 2 * COIN, 0, 2 * COIN, 0, "OPEN"),
        ("PLACE", 192, 60_001, 3 * COIN, COIN, 2 * COIN, 0, "OPEN"),
        ("CANCEL", 999, 0, 0, 0, 0, 0, "OPEN"),
        ("PLACE", 193, 120_000, COIN, 0, 0, 0, "OPEN"),
    ]
    codes = [record.code for record in bulk.orders[ALICE]]
    assert codes == [0, 0, 0, RejectCode.UNKNOWN_ORDER, RejectCode.PRICE_OUT_OF_BAND]
    assert [record.side for record in bulk.orders[ALICE]] == [0, 0, 0, UNKNOWN, 0]
    assert [bool(record.fee_uusd) for record in bulk.orders[ALICE]] == [True, False, False, False, False]
    assert orders(bulk, BOB) == [("FILL", 64, 60_001, COIN, COIN, 0, 0, "FILLED")]
    assert bulk.money == {}


def test_orders_that_meet_their_own_owner() -> None:
    desk = Desk()
    desk.place(ALICE, Side.SELL, PRICE, 3 * COIN)
    met = desk.place(CAROL, Side.BUY, PRICE, COIN, self_trade=SelfTrade.DECREMENT_BOTH)
    assert orders(met, ALICE) == [("REDUCE", 64, 60_000, COIN, 0, 2 * COIN, COIN, "OPEN")]
    assert orders(met, CAROL) == [("PLACE", 64, 60_000, COIN, 0, 0, 0, "SELF_TRADE")]
    gone = desk.place(CAROL, Side.BUY, PRICE, COIN)
    assert orders(gone, ALICE) == [("CANCEL", 64, 60_000, 2 * COIN, 0, 0, 2 * COIN, "SELF_TRADE")]
    assert gone.orders[ALICE][0].transaction == b"", "not her account's transaction"


def test_an_order_that_meets_another_operations_order_before_its_own_turn() -> None:
    desk = Desk()
    desk.place(ALICE, Side.SELL, PRICE, 3 * COIN)
    desk.place(ALICE, Side.BUY, PRICE - USD, COIN, self_trade=SelfTrade.DECREMENT_BOTH)
    replacements = (Replacement(MARKET, 128, PRICE, COIN), Replacement(MARKET, 64, PRICE + USD, 3 * COIN))
    both = desk.do(BulkOrders, ALICE, replacements=replacements)
    assert orders(both, ALICE) == [
        ("REDUCE", 64, 60_000, COIN, 0, 2 * COIN, COIN, "OPEN"),
        ("REPLACE", 64, 60_001, 3 * COIN, 0, 3 * COIN, 0, "OPEN"),
        ("REPLACE", 128, 60_000, COIN, 0, 0, 0, "SELF_TRADE"),
    ]


def test_what_block_time_does() -> None:
    desk = Desk()
    desk.place(ALICE, Side.BUY, PRICE, COIN)
    desk.do(CancelAllAfter, ALICE, timeout_s=5)
    desk.now_ms += 6_000
    swept = desk.block(messages=[])
    assert orders(swept, ALICE) == [("CANCEL", 64, 60_000, COIN, 0, 0, COIN, "DEAD_MAN")]
    assert swept.money == {}


def test_money_that_comes_goes_and_moves() -> None:
    desk = Desk()
    both = desk.block(
        desk.signed(Transfer, ALICE, to_account=BOB, amount_uusd=5 * USD),
        desk.signed(Withdraw, BOB, recipient=b"\x07" * 20, amount_uusd=3 * USD),
        messages=[L1Message(MessageKind.DEPOSIT, bytes(20), 1, pack(">20sQQ", OWNERS[BOB], BOB, 7 * USD))],
    )
    told = {
        account: [
            (Money(each.kind).name, each.change_uusd, each.other_account, each.withdrawal)
            for each in both.money[account]
            if each.kind != Money.INCLUSION_FEE
        ]
        for account in (ALICE, BOB)
    }
    assert told[ALICE] == [("TRANSFER", -5 * USD, BOB, 0)]
    assert told[BOB] == [
        ("DEPOSIT", 7 * USD, 0, 0),
        ("TRANSFER", 5 * USD, ALICE, 0),
        ("WITHDRAWAL", -3 * USD, 0, 1),
    ]


def test_what_owners_force_through_l1() -> None:
    desk = Desk()
    desk.place(ALICE, Side.BUY, PRICE, COIN)
    desk.place(BOB, Side.SELL, PRICE, COIN)
    desk.place(BOB, Side.SELL, PRICE + USD, COIN)
    forced = pack(">QIBQQ", ALICE, MARKET, Side.SELL, PRICE, COIN)
    refused = pack(">QIBQQ", BOB, MARKET, Side.SELL, PRICE, COIN)
    desk.place(BOB, Side.BUY, PRICE, COIN // 2, reduce_only=True)
    events = desk.block(
        messages=[
            L1Message(MessageKind.FORCED_ORDER, OWNERS[ALICE], 1, forced),
            L1Message(MessageKind.FORCED_ORDER, OWNERS[ALICE], 1, refused),
            L1Message(MessageKind.FORCED_WITHDRAWAL, OWNERS[ALICE], 1, pack(">Q20sQ", ALICE, bytes(20), USD)),
        ]
    )
    assert orders(events, ALICE) == [("PLACE", 0, 60_000, COIN, COIN // 2, 0, COIN // 2, "IMMEDIATE")]
    (record,) = events.orders[ALICE]
    assert (record.kind, record.reduce_only, record.transaction) == (2, True, b"")
    assert orders(events, BOB) == [("FILL", 192, 60_000, COIN // 2, COIN // 2, 0, 0, "FILLED")]
    assert events.orders[BOB][0].trade == events.trades[BOB][0].number
    (gone,) = events.money[ALICE]
    assert (gone.kind, gone.change_uusd, gone.withdrawal) == (Money.WITHDRAWAL, -USD, 1)


def test_steps_of_liquidations_are_told_to_both_sides() -> None:
    header = BlockHeader(1, bytes(32), NOW_MS, bytes(32), 0, 0)
    steps = (
        LiquidationEvent(LiquidationChange.STARTED, 1, ALICE, needed_uusd=5),
        LiquidationEvent(LiquidationChange.SEIZED, 1, ALICE, -3, BOB, 2, MARKET, -COIN, PRICE),
        LiquidationEvent(LiquidationChange.FEE, 1, ALICE, -7),
    )
    transaction = Desk().signed(CancelAll, CAROL)
    outcome = TransactionResult(transaction.hash, fee_uusd=9, liquidations=steps)
    result = BlockResult(header, bytes(32), (), (outcome,), (), (), (), (), b"", (), (0, 0))
    events = BlockEvents(ExecutedBlock(result, 1, l1_origin(1), (), (), (transaction,)))
    told = {
        account: [
            (Money(each.kind).name, each.change_uusd, each.other_account, each.market, each.size_ulots)
            for each in events.money[account]
        ]
        for account in (ALICE, BOB, CAROL)
    }
    assert told[ALICE] == [
        ("LIQUIDATION", -3, BOB, MARKET, -COIN),
        ("LIQUIDATION", -7, 0, 0, 0),
    ]
    assert told[BOB] == [("LIQUIDATION", 2, ALICE, MARKET, COIN)]
    assert told[CAROL] == [("INCLUSION_FEE", -9, 0, 0, 0)]


def test_settled_positions() -> None:
    header = BlockHeader(1, bytes(32), NOW_MS, bytes(32), 0, 0)
    life = (
        LifeEvent(LifeChange.SETTLED, 1, 5, price_uusd=PRICE),
        LifeEvent(LifeChange.POSITION_SETTLED, 1, 5, ALICE, -COIN, PRICE, 17),
    )
    result = BlockResult(header, bytes(32), (), (), (), (), (), (), b"", life, (0,))
    events = BlockEvents(ExecutedBlock(result, 1, l1_origin(1), (), (), ()))
    (settled,) = events.money[ALICE]
    assert settled.kind == Money.SETTLEMENT
    assert (settled.market, settled.size_ulots, settled.price_uusd, settled.change_uusd) == (
        5,
        -COIN,
        PRICE,
        17,
    )
    assert events.markets == {5}
