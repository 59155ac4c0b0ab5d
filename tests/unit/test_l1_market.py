"""When the state's price of a batch byte moves: cost reports, closed batches, blocks, terms (iL1PRICE)."""

from __future__ import annotations

from dataclasses import replace
from struct import pack

import pytest

from state import l1_market, l1_price
from state.actions import Side
from state.block import InvalidBlock, L1Message, L1Origin, MessageKind
from state.errors import RejectCode
from state.genesis import genesis_leaves
from state.keys import L1_PRICE_KEY, L1_TERMS_KEY
from state.leaves import L1Price, L1Terms
from state.transition import BlockExecution, close_batch, next_batch, open_batch, same_origin, void_batch
from state.units import PPM, PUSD_PER_UUSD
from tests.exchange_checks import assert_conserved
from tools.exchange import COIN, USD, VAULT, Exchange, instrument, standard_exchange

GWEI = 10**9
TERMS = L1Terms()
SLOT_MS = TERMS.slot_ms


@pytest.fixture
def exchange() -> Exchange:
    return standard_exchange(3)


def registers(exchange: Exchange) -> L1Price:
    leaf: L1Price = exchange.view.get(L1_PRICE_KEY)
    return leaf


def send(exchange: Exchange, kind: MessageKind, payload: bytes) -> int:
    """Consumes a message in a block of its own; its code."""
    message = L1Message(kind, VAULT, 0, payload)
    origin = same_origin(exchange.view)
    return BlockExecution(exchange.view, exchange.now_ms, origin, (message,)).end().messages[0].code


def observe(exchange: Exchange, number: int, base_fee: int, excess: int | None = None) -> L1Price:
    """The registers in a block with this origin."""
    execution = BlockExecution(exchange.view, exchange.now_ms, L1Origin(number, base_fee, excess), ())
    execution.end()
    return registers(exchange)


def report(
    exchange: Exchange,
    size: int,
    gas: int,
    base_fee: int,
    blobs: int = 0,
    blob_fee: int = 0,
) -> int:
    payload = pack(">QIQQBQ", 1, size, gas, base_fee, blobs, blob_fee)
    return send(exchange, MessageKind.BATCH_COST, payload)


def order(exchange: Exchange, account: int = 1) -> int:
    """Executes one and returns what it paid for data."""
    return exchange.place(account, 1, Side.BUY, 900 * USD, COIN).fee_parts[0]


def next_slot(exchange: Exchange) -> int:
    """The price in a block of the next slot."""
    exchange.now_ms += SLOT_MS
    exchange.messages()
    return registers(exchange).price_pusd


def test_genesis_has_a_price_that_stays_until_something_is_reported(exchange: Exchange) -> None:
    genesis = genesis_leaves()[L1_PRICE_KEY]
    assert isinstance(genesis, L1Price)
    start = genesis.price_pusd
    assert start == l1_price.feed_forward(genesis, TERMS, exchange.parameters.eth_price_uusd)
    assert 2_900_000 < start < 3_100_000, "about 3 uusd"
    for _ in range(4):
        order(exchange)
        assert abs(next_slot(exchange) - start) <= start // 1_000


def test_what_a_block_charges_for_data_is_collected_at_its_end(exchange: Exchange) -> None:
    """iL1PRICE_004, iL1PRICE_005"""
    before = L1Price.decode(registers(exchange).encode())
    with exchange.block() as execution:
        paid = [order(exchange, account) for account in (1, 2, 3)]
        sizes = [len(encoded) for encoded in execution.block.encoded[1:4]]
        assert paid == [-(-size * registers(exchange).price_pusd // PUSD_PER_UUSD) for size in sizes]
        assert registers(exchange).surplus_uusd == before.surplus_uusd
        assert execution.progress.data_uusd == sum(paid)
    assert registers(exchange).surplus_uusd == before.surplus_uusd + sum(paid)
    assert registers(exchange).open_bytes == before.open_bytes + sum(sizes)


def test_a_closed_batch_counts_with_its_length(exchange: Exchange) -> None:
    order(exchange)
    cursor = exchange.system.batch_cursor
    before = registers(exchange).batch_bytes
    close_batch(exchange.view, 30, 4)
    after = registers(exchange)
    assert (after.open_bytes, after.closed_bytes) == (0, cursor + 34)
    assert after.batch_bytes == -(-(7 * before + cursor + 34) // 8)
    void_batch(exchange.view, 50)
    assert registers(exchange).closed_bytes == cursor + 84
    void_batch(exchange.view, 0)
    assert registers(exchange).closed_bytes == cursor + 84


def test_a_report_is_spent(exchange: Exchange) -> None:
    """iL1PRICE_005"""
    close_batch(exchange.view, 0)
    open_batch(exchange.view, next_batch(exchange.view))
    before = replace(registers(exchange))
    assert report(exchange, 0, 1, 1) == RejectCode.BAD_PARAMETERS
    # 200,000 gas at 10 gwei and a blob at 5 are 0.00265536 ETH, 7.96608 dollars.
    assert report(exchange, 1_000, 200_000, 10 * GWEI, 1, 5 * GWEI) == 0
    after = registers(exchange)
    assert after.batch_cost_uusd == 7_966_080
    assert after.surplus_uusd == before.surplus_uusd - 7_966_080
    fees = after.l1_block, after.base_fee_wei, after.blob_fee_wei
    assert fees == (before.l1_block, before.base_fee_wei, before.blob_fee_wei), "a report is of the past"


def test_an_origin_says_what_its_header_says(exchange: Exchange) -> None:
    """iL1PRICE_003"""
    price = observe(exchange, 21_000_000, 10 * GWEI, 0)
    assert (price.l1_block, price.base_fee_wei, price.blob_fee_wei) == (21_000_000, 10 * GWEI, 1)
    assert (price.closed_block, price.variance_ppt) == (21_000_000, 0), "the first one is no change"
    price = observe(exchange, 21_000_001, 11 * GWEI, 10 * 11_684_671)
    assert (price.l1_block, price.base_fee_wei, price.blob_fee_wei) == (21_000_001, 11 * GWEI, 22_026)
    assert price.variance_ppt > 0
    price = observe(exchange, 21_000_001, 99 * GWEI, 0)
    assert (price.base_fee_wei, price.blob_fee_wei) == (11 * GWEI, 22_026), "no new block"
    assert observe(exchange, 21_000_002, 11 * GWEI, None).blob_fee_wei == 0, "an L1 without blobs"
    with pytest.raises(InvalidBlock, match="L1 origin 21000001 after 21000002"):
        observe(exchange, 21_000_001, 11 * GWEI)
    assert registers(exchange).l1_block == 21_000_002


def test_the_price_goes_to_what_the_origin_says_by_a_step_a_slot(exchange: Exchange) -> None:
    start = next_slot(exchange)
    assert observe(exchange, 5, 2 * GWEI, 242_142_000).price_pusd == start + start * TERMS.step_ppm // PPM
    for _ in range(5):
        last = registers(exchange).price_pusd
        assert next_slot(exchange) == last + last * TERMS.step_ppm // PPM
        exchange.now_ms += SLOT_MS // 3
        exchange.messages()
        assert registers(exchange).price_pusd <= (last * 9 // 8) * 9 // 8
    for _ in range(30):
        highest = next_slot(exchange)
    fair = l1_price.feed_forward(registers(exchange), TERMS, exchange.parameters.eth_price_uusd)
    assert fair <= highest <= fair * 2
    assert_conserved(exchange)


def test_wei_are_worth_what_a_fresh_eth_feed_says(exchange: Exchange) -> None:
    exchange.list(instrument("ETH-PERPETUAL", "ETH"))
    assert l1_market.eth_price_uusd(exchange.view, exchange.now_ms) == 3_000 * USD
    exchange.report({"ETH": 6_000 * USD})
    report(exchange, 1_000, 200_000, 10 * GWEI)
    assert registers(exchange).batch_cost_uusd == 12 * USD
    exchange.now_ms += exchange.parameters.oracle_max_age_ms + 1
    assert l1_market.eth_price_uusd(exchange.view, exchange.now_ms) == 3_000 * USD


def test_the_governors_terms_hold_from_the_next_block_on(exchange: Exchange) -> None:
    terms = L1Terms(slot_ms=60_000, step_ppm=500_000, min_pusd=10**7)
    before = registers(exchange).price_pusd
    assert send(exchange, MessageKind.SET_L1_TERMS, terms.encode()) == 0
    price = registers(exchange)
    assert exchange.view.get(L1_TERMS_KEY) == terms
    assert (price.slot, price.price_pusd) == (exchange.now_ms // 60_000, before)
    exchange.messages()
    assert registers(exchange).price_pusd == before + before // 2
    exchange.now_ms += 10 * 60_000
    for _ in range(3):
        exchange.messages()
    assert registers(exchange).price_pusd == 10**7
    assert send(exchange, MessageKind.SET_L1_TERMS, terms.encode() + b"\0") == RejectCode.MALFORMED_MESSAGE


@pytest.mark.parametrize(
    "changes",
    [
        {"min_pusd": 0},
        {"min_pusd": 2, "max_pusd": 1},
        {"max_pusd": 10**15 + 1},
        {"step_ppm": 0},
        {"step_ppm": PPM + 1},
        {"slot_ms": 999},
        {"slot_ms": 86_400_001},
        {"horizon_ppm": PPM - 1},
        {"feedback_ppm": PPM + 1},
        {"reserve_ppm": 100 * PPM + 1},
        {"batch_weight": 0},
        {"variance_weight": 65_537},
        {"memory_batches": 0},
        {"post_gas": 20_999},
        {"post_gas": 30_000_001},
        {"blob_fraction": 999_999},
        {"tip_wei": 10**12 + 1},
    ],
)
def test_bad_terms(exchange: Exchange, changes: dict[str, int]) -> None:
    code = send(exchange, MessageKind.SET_L1_TERMS, L1Terms(**changes).encode())
    assert code == RejectCode.BAD_PARAMETERS
    assert exchange.view.get(L1_TERMS_KEY) is None


def test_no_report_takes_a_register_out_of_its_field(exchange: Exchange) -> None:
    largest = 2**64 - 1
    for size in (1, 2**32 - 1):
        for gas, base, blobs, blob_fee in (
            (largest, largest, 255, largest),
            (0, 0, 0, 0),
            (1, largest, 0, 0),
        ):
            for excess in (None, 0, 2**64 - 1):
                observe(exchange, exchange.system.l1_block + 2**40, base, excess)
                report(exchange, size, gas, base, blobs, blob_fee)
                order(exchange)
                close_batch(exchange.view, 2**20)
                open_batch(exchange.view, next_batch(exchange.view))
                exchange.now_ms += 50
                assert L1Price.decode(registers(exchange).encode()) == registers(exchange)
