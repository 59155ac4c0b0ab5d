"""What a quote calls the most is not exceeded within its time, whatever traffic and L1 do (iQUOTE_001)."""

from __future__ import annotations

import random
from struct import pack

import pytest
from msgspec.structs import replace

from sequencer.fee_quote import MAX_SECONDS, Priced, bytes_within, priced
from state.actions import Action, SignedAction, Transaction
from state.block import L1Message, MessageKind
from state.cache import CachedState, MemorySource
from state.codec import CodecError, MarketEntry, encode_transaction
from state.errors import Rejected
from state.genesis import genesis_leaves
from state.keys import FEE_MARKET_KEY, L1_PRICE_KEY, SYSTEM_KEY, instrument_key, market_key
from state.leaves import FeeMarket, Instrument, L1Price, L1Terms, Market, System
from state.rules import priced_of
from state.transition import BlockExecution, close_batch, next_batch, open_batch
from state.units import MAX_PRICE_UUSD
from tests.property.test_fees import random_terms
from tests.random_exchange import Traffic
from tools.exchange import VAULT, l1_origin

BLOCKS = 120


def table_of(view: CachedState, action: Action) -> dict[int, MarketEntry]:
    table = {}
    for each in priced_of(action):
        terms: Instrument = view.get(instrument_key(each.market))
        market: Market = view.get(market_key(each.market))
        table[each.market] = MarketEntry(
            terms.tick_uusd, terms.lot_ulots, market.mark_uusd // terms.tick_uusd
        )
    return table


class Load:
    """Random traffic, cost reports that L1's fees could give or not, and batches that close."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.traffic = Traffic(seed)
        leaves = {key: leaf.encode() for key, leaf in genesis_leaves().items()}
        self.view = CachedState(MemorySource(leaves), 10**6)
        open_batch(self.view, next_batch(self.view))
        l1_terms = L1Terms(
            step_ppm=self.chance.choice((10_000, 125_000, 10**6)), slot_ms=self.chance.choice((1_000, 12_000))
        )
        messages = [
            *self.traffic.setup(),
            L1Message(MessageKind.SET_FEES, VAULT, 0, random_terms(self.chance).encode()),
            L1Message(MessageKind.SET_L1_TERMS, VAULT, 0, l1_terms.encode()),
        ]
        BlockExecution(self.view, self.traffic.now_ms, l1_origin(0), messages).end()

    def cost(self) -> L1Message:
        base = self.chance.choice((1, 10**9, 10**11, 10**13))
        cost = pack(
            ">QIQQBQ", 1, self.chance.randint(1, 10**6), 200_000, base, 2, self.chance.choice((0, base))
        )
        return L1Message(MessageKind.BATCH_COST, VAULT, 0, cost)

    def transactions(self) -> list[Transaction]:
        """Of the next block, some time after the last."""
        if self.chance.random() < 0.1:
            self.traffic.now_ms += self.chance.choice((1_000, 20_000))
        return self.traffic.block()

    def quote(self, action: Action, now_ms: int, seconds: int) -> Priced | None:
        try:
            return priced(self.view, action, table_of(self.view, action), now_ms, seconds)
        except (CodecError, Rejected):
            return None

    def execute(self, transactions: list[Transaction]) -> dict[int, tuple[int, ...]]:
        """A block of them; what was charged, by index."""
        messages = [self.cost()] if self.chance.random() < 0.3 else []
        execution = BlockExecution(self.view, self.traffic.now_ms, l1_origin(0), messages)
        charged = {}
        for index, transaction in enumerate(transactions):
            try:
                charged[index] = execution.execute(transaction).fee_parts
            except Rejected:
                continue
        execution.end()
        if self.chance.random() < 0.1:
            close_batch(self.view, 30)
            open_batch(self.view, next_batch(self.view))
        return charged


def assert_covers(view: CachedState, quoted: Priced) -> None:
    """Prices in force, for the most bytes: at most what was quoted."""
    market: FeeMarket = view.get(FEE_MARKET_KEY)
    price: L1Price = view.get(L1_PRICE_KEY)
    data, bandwidth, execution, growth, finality, _ = quoted.most
    assert quoted.most_bytes * price.price_pusd <= data * 10**6
    assert quoted.most_bytes * market.data_pusd <= bandwidth * 10**6
    assert quoted.units * market.execution_pusd <= execution * 10**6
    assert quoted.leaves * market.growth_pusd <= growth * 10**6
    proof = quoted.units * market.proof_unit_pusd + quoted.most_bytes * market.finality_byte_pusd
    assert proof <= finality * 10**6


@pytest.mark.parametrize("seed", range(8))
def test_no_block_within_its_time_charges_more_than_a_quote_says(seed: int) -> None:
    """Each transaction is quoted before its block; and the prices of quotes are held against later blocks."""
    load = Load(seed)
    system: System = load.view.get(SYSTEM_KEY)
    standing: list[tuple[Priced, int]] = []
    held = compared = 0
    for _ in range(BLOCKS):
        transactions = load.transactions()
        then_ms, now_ms = system.timestamp_ms, load.traffic.now_ms
        quotes: dict[int, Priced] = {}
        for index, transaction in enumerate(transactions):
            if not isinstance(transaction.payload, SignedAction):
                continue
            action = transaction.payload.action
            found = load.quote(action, then_ms, -(-(now_ms - then_ms) // 1_000))
            if found is not None:
                quotes[index] = found
                assert all(now <= most for now, most in zip(found.now, found.most, strict=True))
            seconds = load.chance.choice((1, 5, 30, MAX_SECONDS))
            longer = load.quote(action, then_ms, seconds)
            if longer is not None and load.chance.random() < 0.2:
                standing.append((longer, then_ms + seconds * 1_000))
        for index, parts in load.execute(transactions).items():
            if index in quotes and parts:
                assert all(part <= most for part, most in zip(parts, quotes[index].most, strict=True))
                compared += 1
        standing = [each for each in standing if each[1] >= now_ms]
        for quoted, _ in standing:
            assert_covers(load.view, quoted)
            held += 1
    assert held > 1_000
    assert compared > 100


@pytest.mark.parametrize("seed", range(4))
def test_no_encoding_is_longer_than_its_bound(seed: int) -> None:
    """At any time until MAX_SECONDS, for any reference price, and whatever max_fee is signed."""
    chance = random.Random(seed)
    load = Load(seed)
    checked = 0
    for _ in range(25):
        for transaction in load.traffic.block():
            if not isinstance(transaction.payload, SignedAction):
                continue
            now_ms = load.traffic.now_ms
            action = transaction.payload.action
            if chance.random() < 0.3:
                action = replace(action, nonce=now_ms - chance.choice((0, 1, 60_000)))
            try:
                table = table_of(load.view, action)
                bound = bytes_within(action, table, now_ms)
            except (CodecError, Rejected, AttributeError):
                continue
            for _ in range(10):
                later = now_ms + chance.choice((0, 1, 5_000, chance.randint(0, MAX_SECONDS * 1_000)))
                if action.deadline_s < later // 1_000:
                    continue
                moved = {
                    market: entry._replace(
                        reference_ticks=chance.choice(
                            (0, 1, entry.reference_ticks * 2, MAX_PRICE_UUSD // entry.tick_uusd)
                        )
                    )
                    for market, entry in table.items()
                }
                signed = replace(action, max_fee_uusd=chance.choice((0, 10**6, 2**63 - 1)))
                assert len(encode_transaction(SignedAction(signed, bytes(64)), later, moved)) <= bound
                checked += 1
    assert checked > 300
