"""L1 messages, oracle updates, blocks and batches."""

from __future__ import annotations

from struct import pack
from typing import Any

import pytest

from state.actions import OracleReport, OracleUpdate, Order, OrderKind, PlaceOrder, Price, Side, Transaction
from state.block import BatchStart, InvalidBlock, L1Message, MessageKind, OrderedBlock, OrderEnd
from state.codec import MarketEntry
from state.eip712 import header_hash
from state.errors import RejectCode
from state.genesis import GENESIS_ROOT, genesis_leaves
from state.hashing import keccak
from state.keys import FEED, WITHDRAWAL, instrument_key, name_key, withdrawal_key
from state.leaves import Feed, Instrument, Parameters, Publishers
from state.messages import message_hash
from state.proofs import LeafData, subtree_hash
from state.transition import BlockExecution, apply_block, close_batch, next_batch, open_batch, void_batch
from tests.exchange_checks import assert_conserved, must_reject
from tools.exchange import (
    COIN,
    PUBLISHERS,
    USD,
    VAULT,
    Exchange,
    deposit_message,
    instrument,
    l1_origin,
    owner_address,
    standard_exchange,
)

PRICE = 1_000 * USD
STRANGER = b"\x66" * 20


@pytest.fixture
def exchange() -> Exchange:
    return standard_exchange()


def consumed(exchange: Exchange, message: L1Message) -> int:
    """The code of a message; one with a code changes the queue's registers only."""
    with exchange.block():
        before = exchange.leaves()
    result = exchange.messages(message).messages[0]
    if result.code:
        after = exchange.leaves()
        changed = {key for key in before | after if before.get(key) != after.get(key)}
        assert changed == {bytes(32)}, "only the system leaf"
    return result.code


def message(kind: int, payload: bytes, sender: bytes = VAULT) -> L1Message:
    return L1Message(kind, sender, 0, payload)


def test_genesis_root_is_that_of_its_leaves() -> None:
    leaves = [LeafData(key, leaf.encode()) for key, leaf in sorted(genesis_leaves().items())]
    assert len(leaves) == 4
    assert subtree_hash(leaves) == GENESIS_ROOT


# Messages


def test_deposits_open_and_credit_accounts(exchange: Exchange) -> None:
    assert exchange.deposit(STRANGER, 5) == 4
    assert exchange.deposit(STRANGER, 6, 4) == 4
    assert exchange.deposit(STRANGER, 7, 77) == 5, "unknown: a new one"
    assert exchange.account(4).cash_uusd == 11
    assert exchange.account(4).owner == exchange.account(5).owner == STRANGER
    assert_conserved(exchange)


def test_queue_is_hashed_in_order(exchange: Exchange) -> None:
    before = exchange.system.inbox_hash
    first, second = deposit_message(STRANGER, 0, 5), message(99, b"whatever")
    expected = message_hash(message_hash(before, first), second)
    assert message_hash(before, first) == keccak(before + b"\1" + VAULT + bytes(8) + first.payload)
    index = exchange.system.inbox_next
    results = exchange.messages(first, second).messages
    assert exchange.system.inbox_hash == expected
    assert [result.index for result in results] == [index, index + 1]
    assert results[1].code == RejectCode.MALFORMED_MESSAGE


@pytest.mark.parametrize("kind", [0, *MessageKind, 9, 255])
@pytest.mark.parametrize("payload", [b"", b"\1", bytes(35), bytes(37), b"\xff" * 400])
def test_malformed_messages_are_consumed_and_change_nothing(
    exchange: Exchange, kind: int, payload: bytes
) -> None:
    code = consumed(exchange, message(kind, payload))
    assert code in (RejectCode.MALFORMED_MESSAGE, RejectCode.BAD_PARAMETERS)


def test_collateral_is_bounded(exchange: Exchange) -> None:
    payload = STRANGER + pack(">QQ", 0, 4 * 10**18)
    assert consumed(exchange, message(MessageKind.DEPOSIT, payload)) == RejectCode.COLLATERAL_LIMIT


def forced_withdrawal(account: int, amount: int, sender: bytes) -> L1Message:
    payload = pack(">Q20sQ", account, STRANGER, amount)
    return message(MessageKind.FORCED_WITHDRAWAL, payload, sender)


def test_forced_withdrawal(exchange: Exchange) -> None:
    owner = owner_address(1)
    assert consumed(exchange, forced_withdrawal(1, 5, STRANGER)) == RejectCode.NOT_OWNER
    assert consumed(exchange, forced_withdrawal(99, 5, owner)) == RejectCode.UNKNOWN_ACCOUNT
    assert consumed(exchange, forced_withdrawal(1, 0, owner)) == RejectCode.AMOUNT_ZERO
    assert consumed(exchange, forced_withdrawal(1, 5, owner)) == 0
    assert exchange.view.get(withdrawal_key(1)).amount_uusd == 5
    exchange.place(1, 1, Side.BUY, PRICE, COIN)
    assert consumed(exchange, forced_withdrawal(1, 2**64 - 1, owner)) == 0, "as much as may leave"
    left = exchange.account(1).cash_uusd
    assert 0 <= left - 220 * USD <= 3, "the initial margin of one coin"
    assert exchange.view.get(withdrawal_key(2)).amount_uusd + left < 1_000_000 * USD
    assert_conserved(exchange)


def forced_order(account: int, market: int, side: int, size: int, sender: bytes) -> L1Message:
    return message(MessageKind.FORCED_ORDER, pack(">QIBQQ", account, market, side, PRICE, size), sender)


def test_forced_order_reduces(exchange: Exchange) -> None:
    exchange.place(2, 1, Side.SELL, PRICE, 2 * COIN)
    exchange.place(1, 1, Side.BUY, PRICE, 2 * COIN)
    for _ in range(3):
        exchange.place(3, 1, Side.BUY, PRICE, COIN)
    owner = owner_address(1)
    for code, case in (
        (RejectCode.NOT_OWNER, forced_order(1, 1, 1, COIN, STRANGER)),
        (RejectCode.UNKNOWN_INSTRUMENT, forced_order(1, 9, 1, COIN, owner)),
        (RejectCode.MALFORMED_MESSAGE, forced_order(1, 1, 2, COIN, owner)),
        (RejectCode.SIZE_OFF_LOT, forced_order(1, 1, 1, 1, owner)),
        (RejectCode.REDUCE_ONLY_INCREASES, forced_order(1, 1, 0, COIN, owner)),
        (RejectCode.REDUCE_ONLY_INCREASES, forced_order(3, 1, 0, COIN, owner_address(3))),
    ):
        assert consumed(exchange, case) == code
    result = exchange.messages(forced_order(1, 1, 1, 5 * COIN, owner)).messages[0]
    assert result.operation is not None
    assert result.operation.filled_ulots == 2 * COIN
    assert result.operation.end == OrderEnd.REDUCE_ONLY
    assert exchange.position(1, 1) is None
    assert_conserved(exchange)


def listing(**changes: Any) -> L1Message:
    terms = instrument("NEW-PERPETUAL", "NEW", **changes)
    return message(MessageKind.LIST_INSTRUMENT, terms.encode())


@pytest.mark.parametrize(
    "changes",
    [
        {"name": bytes(31)},
        {"name": b"A B".ljust(31, b"\0")},
        {"name": b"\xc3\xa4".ljust(31, b"\0")},
        {"name": b"A\0B".ljust(31, b"\0")},
        {"name": b"NEW".ljust(31, b"\0")},
        {"underlying": bytes(31)},
        {"kind": 1},
        {"status": 4},
        {"tick_uusd": 0},
        {"lot_ulots": 0},
        {"tick_uusd": 10_000, "lot_ulots": 99},
        {"min_size_ulots": 0},
        {"min_size_ulots": 200, "max_size_ulots": 100},
        {"max_size_ulots": 2**63},
        {"band_ppm": 0},
        {"band_ppm": 1_000_000},
        {"taker_fee_ppm": 100_001},
        {"impact_notional_uusd": 0},
    ],
)
def test_bad_listings(exchange: Exchange, changes: dict[str, Any]) -> None:
    assert consumed(exchange, listing(**changes)) == RejectCode.BAD_PARAMETERS


def test_names_are_taken_once(exchange: Exchange) -> None:
    taken = b"C1-PERPETUAL".ljust(31, b"\0")
    assert consumed(exchange, listing(name=taken)) == RejectCode.NAME_TAKEN
    assert consumed(exchange, listing(name=b"C1".ljust(31, b"\0"))) == RejectCode.NAME_TAKEN
    assert consumed(exchange, listing(underlying=taken)) == RejectCode.NAME_TAKEN
    assert consumed(exchange, listing(underlying=b"C1".ljust(31, b"\0"))) == 0
    assert exchange.system.next_market == 3


def test_set_instrument(exchange: Exchange) -> None:
    terms: Instrument = exchange.view.get(instrument_key(1))
    changed = Instrument.decode(terms.encode())

    def send(market: int) -> int:
        payload = pack(">I", market) + changed.encode()
        return consumed(exchange, message(MessageKind.SET_INSTRUMENT, payload))

    changed.maker_fee_ppm = 200
    assert send(9) == RejectCode.UNKNOWN_INSTRUMENT
    assert send(1) == 0
    assert exchange.view.get(instrument_key(1)).maker_fee_ppm == 200
    for field, value in (("tick_uusd", 20_000), ("lot_ulots", 200), ("underlying", b"X".ljust(31, b"\0"))):
        changed = Instrument.decode(terms.encode())
        setattr(changed, field, value)
        assert send(1) == RejectCode.BAD_PARAMETERS


@pytest.mark.parametrize(
    "changes",
    [
        {"exec_price_pusd": 10**15 + 1},
        {"eth_price_uusd": 0},
        {"oracle_max_age_ms": 0},
        {"oracle_deviation_ppm": 0},
        {"max_orders": 0},
        {"max_positions": 129},
        {"max_session_keys": 65},
    ],
)
def test_bad_parameters(exchange: Exchange, changes: dict[str, int]) -> None:
    new = Parameters.decode(exchange.parameters.encode())
    for field, value in changes.items():
        setattr(new, field, value)
    assert consumed(exchange, message(MessageKind.SET_PARAMETERS, new.encode())) == RejectCode.BAD_PARAMETERS


@pytest.mark.parametrize(
    ("quorum", "addresses"), [(0, PUBLISHERS), (4, PUBLISHERS), (1, PUBLISHERS[:1] * 2), (1, ())]
)
def test_bad_publishers(exchange: Exchange, quorum: int, addresses: tuple[bytes, ...]) -> None:
    payload = Publishers(quorum, addresses).encode()
    assert consumed(exchange, message(MessageKind.SET_PUBLISHERS, payload)) == RejectCode.BAD_PARAMETERS


# Oracle updates


def update(
    exchange: Exchange, *reports: tuple[int, dict[str, int]], signers: tuple[bytes | None, ...] = PUBLISHERS
) -> Transaction:
    """Reports as (ms after now, prices), one for each signer."""
    made = tuple(
        OracleReport(
            exchange.now_ms + ms,
            tuple(Price(feed, value, 100 + value % 7) for feed, value in prices.items()),
            bytes(64),
        )
        for ms, prices in reports
    )
    return Transaction(OracleUpdate(made), signers, keccak(repr(reports).encode()))


def test_oracle_takes_lower_median_smallest_confidence_oldest_time(exchange: Exchange) -> None:
    """iORACLE_001"""
    exchange.now_ms += 1_000
    values = [PRICE + 3, PRICE + 1, PRICE + 2]
    exchange.send(update(exchange, *((-ms, {"C1": value}) for ms, value in enumerate(values))))
    feed: Feed = exchange.view.get(name_key(FEED, "C1"))
    assert feed == Feed(PRICE + 2, 100 + min(value % 7 for value in values), exchange.now_ms - 2, 2)
    exchange.now_ms += 1_000
    exchange.send(update(exchange, (0, {"C1": PRICE}), (0, {"C1": PRICE + 9}), signers=PUBLISHERS[1:]))
    assert feed.value_uusd == PRICE, "of two the lower"


def oracle_cases(exchange: Exchange) -> list[tuple[RejectCode, Transaction]]:
    good = (0, {"C1": PRICE})
    return [
        (RejectCode.ORACLE_QUORUM, update(exchange, good, signers=PUBLISHERS[:1])),
        (RejectCode.ORACLE_QUORUM, update(exchange, signers=())),
        (RejectCode.ORACLE_QUORUM, update(exchange, good, (0, {}), signers=PUBLISHERS[:2])),
        (RejectCode.BAD_SIGNATURE, update(exchange, good, good, signers=(PUBLISHERS[0], None))),
        (RejectCode.BAD_SIGNATURE, update(exchange, good, good, signers=PUBLISHERS)),
        (
            RejectCode.ORACLE_UNKNOWN_PUBLISHER,
            update(exchange, good, good, signers=(PUBLISHERS[0], STRANGER)),
        ),
        (RejectCode.ORACLE_DUPLICATE_PUBLISHER, update(exchange, good, good, signers=PUBLISHERS[:1] * 2)),
        (RejectCode.ORACLE_FUTURE, update(exchange, good, (1, {"C1": PRICE}), signers=PUBLISHERS[:2])),
        (RejectCode.ORACLE_OLD, update(exchange, good, (-1_000, {"C1": PRICE}), signers=PUBLISHERS[:2])),
        (RejectCode.ORACLE_DEVIATION, update(exchange, *[(0, {"C1": PRICE * 13 // 10})] * 3)),
        (RejectCode.ORACLE_DEVIATION, update(exchange, *[(0, {"C1": PRICE * 7 // 10})] * 3)),
        (RejectCode.ORACLE_UNKNOWN_FEED, update(exchange, *[(0, {"C1": PRICE, "C9": PRICE})] * 3)),
        (RejectCode.NUMBER_OUT_OF_RANGE, update(exchange, *[(0, {"C1": 0})] * 3)),
        (RejectCode.NUMBER_OUT_OF_RANGE, update(exchange, *[(0, {"C1": 10**15 + 1})] * 3)),
        (RejectCode.NUMBER_OUT_OF_RANGE, update(exchange, *[(0, {"C\0": PRICE})] * 3)),
        (RejectCode.NUMBER_OUT_OF_RANGE, update(exchange, *[(0, {})] * 3)),
        (RejectCode.NUMBER_OUT_OF_RANGE, update(exchange, *[(0, {str(n): 1 for n in range(65)})] * 3)),
    ]


@pytest.mark.parametrize("case", range(17))
def test_bad_oracle_updates(exchange: Exchange, case: int) -> None:
    """iORACLE_001, iORACLE_002"""
    exchange.now_ms += 1_000
    code, transaction = oracle_cases(exchange)[case]
    must_reject(exchange, code, transaction)


def test_feed_reported_twice_in_one_report(exchange: Exchange) -> None:
    exchange.now_ms += 1_000
    twice = OracleReport(exchange.now_ms, (Price("C1", PRICE, 0),) * 2, bytes(64))
    transaction = Transaction(OracleUpdate((twice,) * 3), PUBLISHERS, bytes(32))
    must_reject(exchange, RejectCode.ORACLE_DUPLICATE_FEED, transaction)


def test_update_without_publishers() -> None:
    exchange = Exchange()
    must_reject(exchange, RejectCode.ORACLE_QUORUM, update(exchange, signers=()))
    unknown = update(exchange, (0, {"C1": PRICE}), signers=PUBLISHERS[:1])
    must_reject(exchange, RejectCode.ORACLE_UNKNOWN_PUBLISHER, unknown)


def test_an_update_cannot_be_used_twice(exchange: Exchange) -> None:
    """iORACLE_002"""
    exchange.now_ms += 1_000
    transaction = exchange.update({"C1": PRICE})
    exchange.send(transaction)
    must_reject(exchange, RejectCode.ORACLE_OLD, transaction)


# Blocks and batches


def test_header_chains_blocks(exchange: Exchange) -> None:
    parent = exchange.system.parent_hash
    with exchange.block() as execution:
        first = execution.execute(exchange.sign(PlaceOrder(**exchange.envelope(1), order=ORDER)))
        second = execution.execute(exchange.sign(PlaceOrder(**exchange.envelope(1), order=ORDER)))
    result = exchange.results[-1]
    assert result.header.parent_hash == parent
    assert result.header.transactions == keccak(keccak(bytes(32) + first.hash) + second.hash)
    assert result.header.number == exchange.system.block_number
    assert exchange.system.parent_hash == result.hash == header_hash(result.header)


ORDER = Order(1, Side.BUY, OrderKind.LIMIT, 900 * USD, COIN)


@pytest.mark.parametrize(
    ("ms", "l1_block", "messages"),
    [(-1, 0, ()), (2**48, 0, ()), (0, 2**63, ()), (0, 5, (L1Message(1, VAULT, 6, b""),))],
)
def test_blocks_that_cannot_follow(
    exchange: Exchange, ms: int, l1_block: int, messages: tuple[L1Message, ...]
) -> None:
    before = exchange.leaves()
    with pytest.raises(InvalidBlock):
        BlockExecution(exchange.view, exchange.now_ms + ms, l1_origin(l1_block), messages)
    assert exchange.leaves() == before


def test_l1_origin_does_not_go_back(exchange: Exchange) -> None:
    BlockExecution(exchange.view, exchange.now_ms, l1_origin(7), ()).end()
    with pytest.raises(InvalidBlock):
        BlockExecution(exchange.view, exchange.now_ms, l1_origin(6), ())


def test_batch_cursor_counts_every_byte() -> None:
    exchange = Exchange()
    before = exchange.system.batch_cursor
    results = [exchange.messages(), exchange.messages(deposit_message(STRANGER, 0, USD))]
    assert exchange.system.batch_cursor == before + sum(len(result.encoded) for result in results)
    close_batch(exchange.view, 17, 4)
    total = sum(len(result.encoded) for result in exchange.results)
    assert exchange.system.batch_cursor == total + 21


def test_batches_continue_the_state(exchange: Exchange) -> None:
    close_batch(exchange.view, 10)
    start = next_batch(exchange.view)
    for field in BatchStart.__struct_fields__:
        values = {name: getattr(start, name) for name in BatchStart.__struct_fields__}
        wrong = BatchStart(**(values | {field: values[field] + 1}))
        before = exchange.leaves()
        with pytest.raises(InvalidBlock, match=field):
            open_batch(exchange.view, wrong)
        assert exchange.leaves() == before
    open_batch(exchange.view, start)
    assert (exchange.system.batch_number, exchange.system.batch_cursor) == (2, 0)
    void_batch(exchange.view, 99)
    assert (exchange.system.batch_number, exchange.system.batch_cursor) == (3, 99)


def test_reference_price_is_fixed_at_first_use_in_a_batch(exchange: Exchange) -> None:
    exchange.place(1, 1, Side.BUY, PRICE, COIN)
    assert exchange.market(1).reference_ticks == 100_000
    exchange.now_ms += 1_000
    exchange.report({"C1-PERPETUAL": PRICE + 50 * USD})
    exchange.place(1, 1, Side.BUY, PRICE, COIN)
    assert exchange.market(1).reference_ticks == 100_000
    close_batch(exchange.view, 10)
    open_batch(exchange.view, next_batch(exchange.view))
    exchange.place(1, 1, Side.BUY, PRICE, COIN)
    assert exchange.market(1).reference_ticks == 105_000
    assert exchange.market(1).reference_batch == 2


def test_replay_ends_in_the_same_state_and_a_wrong_table_changes_nothing() -> None:
    made, replayed, wrong = (standard_exchange() for _ in range(3))
    transactions = [made.sign(PlaceOrder(**made.envelope(account), order=ORDER)) for account in (1, 2)]
    with made.block() as execution:
        for transaction in transactions:
            execution.execute(transaction)
        encoded = tuple(execution.block.encoded[1:])
    block = OrderedBlock(made.now_ms, l1_origin(0), (), tuple(transactions), encoded)
    table = {1: MarketEntry(10_000, 100, 100_000)}
    assert apply_block(replayed.view, block, table) == made.results[-1]
    assert replayed.leaves() == made.leaves()
    result = apply_block(wrong.view, block, {1: MarketEntry(10_000, 100, 100_001)})
    assert [each.code for each in result.results] == [RejectCode.BAD_MARKET_TABLE] * 2
    assert result.header == made.results[-1].header
    assert wrong.system.batch_cursor == made.system.batch_cursor
    assert wrong.account(1).orders == 0
    assert wrong.market(1).reference_batch == 0


def test_withdrawals_are_not_iterated() -> None:
    with pytest.raises(KeyError):
        standard_exchange().view.iterate_under(bytes([WITHDRAWAL]), 1)
