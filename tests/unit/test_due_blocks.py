"""What block time drives, in the node and in the verifier: blocks without transactions, names that go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from l1_bridge.batch import BatchBlock, decode_batch, named_markets
from l1_bridge.derivation import DerivedBatch
from l1_bridge.recovery import recover_batch, recover_payload
from l1_bridge.replay import Replay
from l1_bridge.rollup import BatchEvent
from sequencer.checking import Checker
from sequencer.conservation import Books
from sequencer.machine import ClosedBatch, Machine
from state.actions import (
    BulkOrders,
    Cancel,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Price,
    Rate,
    Side,
    SignedAction,
    SurfaceReport,
    Transaction,
)
from state.block import L1Message, LifeChange
from state.cache import CachedState, MemorySource
from state.calendar import DAY_S, Rule, expiry_name, next_expiry_s
from state.eip712 import action_digest, report_digest
from state.errors import RejectCode, Rejected
from state.genesis import GENESIS_ROOT, genesis_leaves
from state.keys import LISTINGS_KEY
from state.leaves import Listings
from state.series import CALLS, FUTURES
from state.signatures import address_of, sign
from state.tree import Tree
from state.units import MAX_DUE_STEPS, MS_PER_S
from tests.integration.node_fixture import (
    DOMAIN,
    LOT,
    PRICE,
    PUBLISHER_SECRETS,
    USD,
    opening_messages,
)
from tests.tree_model import MemoryStore
from tests.unit.test_executor import START_MS, Bench, opened
from tools.exchange import l1_origin
from tools.option_exchange import series_message

OWNERS = (b"\x31" * 32, b"\x32" * 32)
EXPIRY_S = next_expiry_s(Rule.DAILY, START_MS // MS_PER_S)
NAME = expiry_name("BTC", EXPIRY_S)
SERIES = series_message("BTC", Rule.DAILY, 1, FUTURES | CALLS, 1_000 * USD, 1)
MAX_BYTES = 2**20
FUTURE = 2


def update(now_ms: int, price_uusd: int, is_listed: bool = True) -> OracleUpdate:
    """Index, mark, and what the expiry needs."""
    feeds = ("BTC", "BTC-PERPETUAL", NAME) if is_listed else ("BTC", "BTC-PERPETUAL")
    prices = tuple([Price(feed, price_uusd, 100) for feed in feeds])
    tau_s = max(60, EXPIRY_S - now_ms // MS_PER_S)
    surface = SurfaceReport(
        NAME, 360_000_000_000 * tau_s // (365 * DAY_S), 0, 0, 0, 10**11, price_uusd, tau_s, 100
    )
    reports = []
    for secret in PUBLISHER_SECRETS[:2]:
        lists = ((Rate(NAME, 0, 100),), (surface,)) if is_listed else ((), ())
        report = OracleReport(now_ms, prices, bytes(64), *lists)
        signature = sign(report_digest(DOMAIN, report), secret)
        reports.append(OracleReport(now_ms, prices, signature, report.rates, report.surfaces))
    return OracleUpdate(tuple(reports))


class Made:
    """A machine with two accounts and a series; batches closed as told, checked for conservation."""

    def __init__(self) -> None:
        self.source = MemorySource({key: leaf.encode() for key, leaf in genesis_leaves().items()})
        self.machine = Machine(CachedState(self.source, 1_000))
        self.books = Books(self.source.get)
        self.books.take(self.source.leaves)
        self.tree = Tree(MemoryStore(), 1_024)
        self.tree.update(dict(self.source.leaves))
        self.messages = (*opening_messages([address_of(secret) for secret in OWNERS]), SERIES)
        self.now_ms = START_MS
        self.nonce = 0
        self.batches: list[ClosedBatch] = []
        self.roots: list[bytes] = []
        self.lives: list[int] = []
        self.block(self.messages[:-1], update(self.now_ms, PRICE, False))
        self.block(self.messages[-1:])

    def block(
        self, messages: tuple[L1Message, ...] = (), *payloads: SignedAction | OracleUpdate
    ) -> list[Any]:
        """What became of each; a block of its own, if there is anything in it."""
        names = self.machine.markets.name_hash_of
        transactions: list[Transaction] = [
            recover_payload(DOMAIN, payload, names).transaction(payload) for payload in payloads
        ]
        outcomes, executed = self.machine.execute(
            self.now_ms, l1_origin(1), messages, transactions, MAX_BYTES
        )
        if executed is not None:
            self.lives += [event.change for event in executed.result.life]
        assert not any(isinstance(outcome, Rejected) for outcome in outcomes)
        return list(outcomes)

    def close(self) -> None:
        closed = self.machine.close()
        self.books.take(closed.dirty())
        self.source.apply(closed.dirty())
        self.roots.append(self.tree.update(closed.dirty()))
        self.machine.view.release()
        self.batches.append(closed)

    def order(self, account: int, side: Side, market: int = FUTURE, price_uusd: int = PRICE) -> SignedAction:
        return self.signed(PlaceOrder, account, order=Order(market, side, OrderKind.LIMIT, price_uusd, LOT))

    def signed(self, kind: type[Any], account: int, **fields: Any) -> SignedAction:
        self.nonce += 1
        deadline_s = self.now_ms // MS_PER_S + 30
        action = kind(account=account, nonce=self.nonce, deadline_s=deadline_s, max_fee_uusd=USD, **fields)
        digest = action_digest(DOMAIN, action, self.machine.markets.name_hash_of)
        return SignedAction(action, sign(digest, OWNERS[account - 1]))

    def live(self) -> None:
        """Listed, traded, settled and delisted, in four batches."""
        self.now_ms += MS_PER_S
        self.block((), update(self.now_ms, PRICE))
        self.close()
        outcomes = self.block((), self.order(1, Side.BUY), self.order(2, Side.SELL))
        assert [outcome.code for outcome in outcomes] == [0, 0]
        self.close()
        self.now_ms = (EXPIRY_S - 1_800) * MS_PER_S - 1
        for _ in range(32):
            self.block((), update(self.now_ms, PRICE + 50 * USD))
            self.now_ms += 60_000
        self.block()
        self.close()
        self.now_ms += DAY_S * MS_PER_S
        self.block()
        self.close()


@pytest.fixture(scope="module")
def made() -> Made:
    made = Made()
    made.live()
    return made


def event_of(number: int, made: Made) -> BatchEvent:
    return BatchEvent(
        number=number,
        prev_root=made.roots[number - 2] if number > 1 else GENESIS_ROOT,
        root=made.roots[number - 1],
        commitment=bytes(32),
        data_bytes=len(made.batches[number - 1].data),
        blobs=1,
        inbox_next=0,
        inbox_count=len(made.messages),
        timestamp_ms=0,
        poster=bytes(20),
        l1_block=1,
        l1_block_hash=bytes(32),
        transaction_hash=bytes(32),
    )


def test_a_batch_may_end_in_any_part_of_a_life(made: Made) -> None:
    """The node's own check of conservation passed at each batch; all of the life happened."""
    assert set(made.lives) == set(LifeChange)
    assert made.lives.count(LifeChange.POSITION_SETTLED) == 2
    assert made.machine.view.get(LISTINGS_KEY) == Listings(3, 2, 4)


def test_the_verifier_comes_to_the_same_roots(made: Made, tmp_path: Path) -> None:
    """iMACHINE_002: prices in a batch are deltas from the references in its head."""
    with Replay(tmp_path, DOMAIN) as replay:
        for number, batch in enumerate(made.batches, 1):
            messages = tuple(made.messages) if number == 1 else ()
            derived = DerivedBatch(event_of(number, made), batch.data, messages, {1: l1_origin(1)})
            done = replay.execute(derived, recover_batch(DOMAIN, batch.data, replay.names()))
            assert (done.root, done.ignored_bytes) == (made.roots[number - 1], 0)
            replay.keep(number)


def test_a_block_whose_origin_was_not_on_l1_yet_is_not_read(made: Made, tmp_path: Path) -> None:
    """Nor is what follows it: derivation finds the headers of blocks before the posting alone."""
    with Replay(tmp_path, DOMAIN) as replay:
        data = made.batches[0].data
        derived = DerivedBatch(
            event_of(1, made), data, tuple(made.messages), {0: l1_origin(0), 2: l1_origin(2)}
        )
        done = replay.execute(derived, recover_batch(DOMAIN, data, replay.names()))
        assert done.blocks == ()
        assert done.ignored_bytes == len(data) - decode_batch(data).head_bytes


def test_the_name_of_what_is_gone_is_empty_whenever_signers_were_found(made: Made, tmp_path: Path) -> None:
    with Replay(tmp_path, DOMAIN) as replay:
        before: dict[int, bytes] = {}
        for number, batch in enumerate(made.batches, 1):
            messages = tuple(made.messages) if number == 1 else ()
            derived = DerivedBatch(event_of(number, made), batch.data, messages, {1: l1_origin(1)})
            replay.execute(derived, recover_batch(DOMAIN, batch.data, replay.names()))
            replay.keep(number)
            before = before or dict(replay.names())
        cancels = (Cancel(FUTURE, 1), Cancel(1, 2))
        payload = SignedAction(
            BulkOrders(
                account=1,
                nonce=99,
                deadline_s=5,
                max_fee_uusd=1,
                cancels=cancels,
                replacements=(),
                orders=(),
            ),
            bytes(63) + b"\1",
        )
        block = BatchBlock(made.now_ms + 1, 1, 0, (payload,), encoded=(b"",))
        stale = recover_payload(DOMAIN, payload, before.__getitem__)
        found = [
            replay._transactions(block, l1_origin(1), (), [signed], {})
            for signed in (stale, None, recover_payload(DOMAIN, payload, replay.names().__getitem__))
        ]
        assert found[0] == found[1]
        assert found[0][0].hash != stale.hash
        assert named_markets(payload) == {FUTURE, 1}


def test_a_bulk_action_that_names_what_is_gone_is_refused(made: Made) -> None:
    cancels = (Cancel(FUTURE, 64), Cancel(1, 64))
    with pytest.raises(KeyError):
        made.signed(BulkOrders, 1, cancels=cancels, replacements=(), orders=())
    deadline_s = made.now_ms // MS_PER_S + 30
    action = BulkOrders(
        account=1,
        nonce=500,
        deadline_s=deadline_s,
        max_fee_uusd=USD,
        cancels=cancels,
        replacements=(),
        orders=(),
    )
    transaction = Transaction(SignedAction(action, bytes(64)), (address_of(OWNERS[0]),), bytes(32))
    (outcome,), executed = made.machine.execute(made.now_ms, l1_origin(1), (), [transaction], MAX_BYTES)
    assert executed is None
    assert isinstance(outcome, Rejected)
    assert outcome.code is RejectCode.UNKNOWN_INSTRUMENT


def test_names_come_and_go(made: Made) -> None:
    markets = made.machine.markets
    assert list(markets.by_number) == [1, *range(6, 10)]
    names = markets.names_from(0)
    assert names[:5] == ["BTC-PERPETUAL", "", "", "", ""]
    assert len(names) == 9
    assert markets.past_name_of(FUTURE) == NAME
    restarted = Machine(made.machine.view).markets
    assert restarted.past_name_of(FUTURE) == f"#{FUTURE}"
    restarted.recall = {FUTURE: NAME}.get
    assert [restarted.past_name_of(market) for market in (1, FUTURE)] == ["BTC-PERPETUAL", NAME]
    checker = Checker(DOMAIN)
    checker.learn(names[:3])
    checker.learn(names[3:])
    assert checker._numbers == {name: number for number, name in enumerate(names, 1) if name}


async def trickle(bench: Bench, until_ms: int) -> None:
    """Reports up to that time, the clock jumping a minute with each."""
    while bench.now_ms() < until_ms:
        bench.ingress.submit_update(update(bench.now_ms(), PRICE), True)
        await trio.sleep(0.2)
        bench.offset_ms += 59_800


async def test_blocks_are_made_for_what_is_due(autojump_clock: trio.testing.MockClock) -> None:
    """Without a transaction: listing, settlement, delisting; and none when nothing is due."""
    async with opened() as bench:
        await bench.inbox.put([SERIES], l1_origin(1))
        await trio.sleep(0.2)
        assert NAME in bench.machine.markets.by_name
        bench.offset_ms = (EXPIRY_S - 1_800) * MS_PER_S - round(trio.current_time() * 1000) - 100
        await trickle(bench, EXPIRY_S * MS_PER_S + 60_000)
        await trio.sleep(2)
        changes = [event.change for block in bench.blocks for event in block.result.life]
        assert changes.count(LifeChange.SETTLED) == 5
        count = len(bench.blocks)
        await trio.sleep(5)
        assert len(bench.blocks) == count
        bench.offset_ms += DAY_S * MS_PER_S
        await trio.sleep(2)
        assert len(bench.blocks) > count
        assert all(not block.result.results for block in bench.blocks[count:])
        assert NAME not in bench.machine.markets.by_name


async def test_much_that_is_due_takes_the_next_blocks(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as bench:
        await bench.inbox.put([series_message("BTC", strikes=128, step_uusd=100 * USD)], l1_origin(1))
        await trio.sleep(0.5)
        counts = [len(block.result.life) for block in bench.blocks if block.result.life]
        assert sum(counts) == 1 + 2 * 257
        assert len(counts) == 3
        assert max(counts) <= MAX_DUE_STEPS
