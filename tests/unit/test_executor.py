"""The executor on a virtual clock: when blocks are made, what is in them, when batches close."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio

from sequencer.checking import Checker, Params, Task
from sequencer.closing import Closing, L1Side
from sequencer.config import BatchesSection, BlocksSection
from sequencer.conservation import Books, ConservationError
from sequencer.errors import ErrorCode, RpcError
from sequencer.executor import SLICE_S, Executor, Inbox
from sequencer.fee_history import FeeHistory
from sequencer.ingress import MAX_UNREAD_BYTES, Ingress, Unread
from sequencer.jsonrpc import Deferred
from sequencer.machine import Changes, ClosedBatch, ExecutedBlock, Machine
from sequencer.mempool import Mempool, Pending
from sequencer.metrics import Metrics
from sequencer.receipts import Receipts, Stages
from sequencer.recovery import InlineRecovery
from sequencer.sealer import sealed_block
from state import keys, wire, wire_types
from state.actions import Action, Cancel, CancelOrder, Order, OrderKind, PlaceOrder, Side
from state.cache import CachedState, MemorySource
from state.errors import RejectCode
from state.genesis import genesis_leaves
from state.leaves import Account, System
from state.signatures import address_of
from tests.integration.node_fixture import (
    DOMAIN,
    LOT,
    MARKET,
    PRICE,
    USD,
    opening_messages,
    oracle_update,
    signed_json,
)
from tools.exchange import l1_origin

START_MS = 1_700_000_000_000
INTERVAL_MS = 50
OWNER = b"\x31" * 32


class NoArchive:
    def block(self, number: int) -> bytes | None:
        return None

    def transaction_place(self, transaction_hash: bytes) -> tuple[int, int] | None:
        return None


class Bench:
    """An executor over a state in memory; `items` is what it hands to the sealer, sealed at once."""

    def __init__(self, **sections: Any) -> None:
        source = MemorySource({key: leaf.encode() for key, leaf in genesis_leaves().items()})
        self.source = source
        self.machine = Machine(CachedState(source, 1_000))
        self.offset_ms = START_MS
        self.items: list[ExecutedBlock | ClosedBatch] = []
        self.times: list[float] = []
        self.busy = False
        self.takes_slices = False
        self.slices: list[Changes] = []
        self.idle = trio.Event()
        self.nonce = 0
        self.mempool = Mempool(1_000, 1_000)
        self.receipts = Receipts(NoArchive(), self.machine.markets, Stages(), 0)
        self.ingress = Ingress(
            DOMAIN,
            self.machine.view,
            self.machine.markets,
            self.mempool,
            self.receipts,
            max_unchecked=100,
            now_ms=self.now_ms,
            on_admitted=lambda: self.executor.wake(),
            on_rejected=lambda code: None,
        )
        recovery: InlineRecovery[Pending | Unread] = InlineRecovery(
            DOMAIN, self.machine.markets.names_from, self.ingress.checked
        )
        self.ingress.use_recovery(recovery)
        self.inbox = Inbox(64)
        batches = sections.get("batches", BatchesSection(max_age_ms=10_000))
        self.l1: L1Side | None = None
        self.metrics = Metrics()
        self.closing = Closing(self.machine, batches, "auto", lambda: self.l1, now_ms=self.now_ms)
        self.fees = FeeHistory(self.machine.view, 0)
        self.executor = Executor(
            self.machine,
            self.mempool,
            self.ingress,
            self.inbox,
            self,  # type: ignore[arg-type]
            self,
            self.metrics,
            sections.get("blocks", BlocksSection(block_interval_ms=INTERVAL_MS)),
            batches,
            self.closing,
            now_ms=self.now_ms,
            on_executed=self.fees.executed,
        )
        self.inbox.on_message(self.executor.wake)

    def now_ms(self) -> int:
        return self.offset_ms + round(trio.current_time() * 1000)

    # the sealer
    async def put(self, item: ExecutedBlock | ClosedBatch) -> None:
        await trio.lowlevel.checkpoint()
        self.items.append(item)
        self.times.append(trio.current_time())
        if isinstance(item, ExecutedBlock):
            sealed = sealed_block(item, bytes(64))
            self.receipts.add(sealed.block)
            receipts = self.receipts.of_block(sealed.block)
            waiting = self.executor.take_awaiting(item.result.header.number)
            for pending, receipt in zip(waiting, receipts, strict=True):
                self.ingress.sealed(pending, receipt)

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    # the closer
    @property
    def is_busy(self) -> bool:
        return self.busy

    def begin(self) -> None:
        pass

    @property
    def wants_changes(self) -> bool:
        return self.takes_slices and not self.busy

    def prepare(self, changes: Changes) -> None:
        self.slices.append(changes)

    async def wait_idle(self) -> None:
        if self.busy:
            await self.idle.wait()

    # what the tests do
    @property
    def blocks(self) -> list[ExecutedBlock]:
        return [item for item in self.items if isinstance(item, ExecutedBlock)]

    @property
    def closed(self) -> list[ClosedBatch]:
        return [item for item in self.items if isinstance(item, ClosedBatch)]

    def send(self, make: type[Action], ahead_s: int = 60, bid: int = 0, **fields: Any) -> Deferred[Any]:
        self.nonce += 1
        action = make(
            account=1,
            nonce=self.nonce,
            deadline_s=self.now_ms() // 1000 + ahead_s,
            max_fee_uusd=USD,
            priority_bid_uusd=bid,
            **fields,
        )
        sent = wire_types.SignedActionJson(**_typed(signed_json(action, OWNER)))
        answer = self.ingress.submit(sent, True)
        assert isinstance(answer, Deferred)
        return answer

    def buy(self, price: int = PRICE - USD, kind: OrderKind = OrderKind.LIMIT, bid: int = 0) -> Deferred[Any]:
        return self.send(PlaceOrder, bid=bid, order=Order(MARKET, Side.BUY, kind, price, LOT))


def _typed(json: dict[str, Any]) -> dict[str, Any]:
    converted = msgspec.convert(json, wire_types.SignedActionJson)
    return {"action": converted.action, "signature": converted.signature}


def outcome_of(deferred: Deferred[Any]) -> Any:
    found: list[object] = []
    deferred.on_settled(found.append)
    return found[0] if found else None


@asynccontextmanager
async def opened(**sections: Any) -> AsyncIterator[Bench]:
    """A bench whose market is open and whose executor runs."""
    bench = Bench(**sections)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.executor.run)
        await bench.inbox.put(opening_messages([address_of(OWNER)]), l1_origin(1))
        bench.executor.seal_now()
        await trio.sleep(0.2)
        bench.ingress.submit_update(wire.to_oracle_update(_update(bench.now_ms())), True)
        bench.executor.seal_now()
        await trio.sleep(0.2)
        yield bench
        nursery.cancel_scope.cancel()


def _update(now_ms: int) -> wire_types.OracleUpdateJson:
    return msgspec.convert(oracle_update(PRICE, now_ms), wire_types.OracleUpdateJson)


async def test_blocks_stand_on_a_grid_of_the_interval(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as bench:
        before = len(bench.blocks)
        for wait_s in (0.013, 0.001, 0.07, 0.2):
            await trio.sleep(wait_s)
            bench.buy()
        await trio.sleep(0.1)
        made = bench.times[before:]
        assert len(made) == 3, "two orders of one interval share a block, an interval without work has none"
        for time in made:
            assert time / 0.05 == pytest.approx(round(time / 0.05), abs=1e-6)


async def test_time_never_goes_back(autojump_clock: trio.testing.MockClock) -> None:
    """iEXEC_001"""
    async with opened() as bench:
        bench.buy()
        await trio.sleep(0.1)
        bench.offset_ms -= 5_000
        bench.buy()
        await trio.sleep(0.1)
        times = [block.result.header.timestamp_ms for block in bench.blocks]
        assert times == sorted(times)
        assert times[-1] == times[-2]


async def test_execution_order_is_by_class_then_bid(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as bench:
        first = outcome_of(bench.buy()) or bench.nonce
        await trio.sleep(0.1)
        low, high = bench.buy(bid=1), bench.buy(bid=9)
        post = bench.buy(kind=OrderKind.POST_ONLY)
        cancel = bench.send(CancelOrder, cancel=Cancel(MARKET, first * 64))
        await trio.sleep(0.1)
        places = [outcome_of(answer).index for answer in (cancel, post, high, low)]
        assert places == [0, 1, 2, 3]


async def test_a_refused_transaction_is_answered_and_makes_no_block(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """iEXEC_002"""
    async with opened() as bench:
        before, leaves = len(bench.items), bench.machine.system.encode()
        error = bench.buy(price=PRICE + 1)
        await trio.sleep(0.2)
        refusal = outcome_of(error)
        assert isinstance(refusal, RpcError)
        assert refusal.code == -32000 - RejectCode.PRICE_OFF_TICK
        assert len(bench.items) == before
        assert bench.machine.system.encode() == leaves


async def test_what_waits_past_its_deadline_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(blocks=BlocksSection(block_interval_ms=5_000)) as bench:
        await trio.sleep(10)
        answer = bench.send(PlaceOrder, 2, order=Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE, LOT))
        await trio.sleep(10)
        refusal = outcome_of(answer)
        assert refusal.data["code"] == "DEADLINE_EXPIRED"
        assert len(bench.mempool) == 0


async def test_leftover_waits_for_the_next_block(autojump_clock: trio.testing.MockClock) -> None:
    blocks = BlocksSection(block_interval_ms=INTERVAL_MS, max_transactions=2)
    async with opened(blocks=blocks) as bench:
        before = len(bench.blocks)
        answers = [bench.buy() for _ in range(5)]
        await trio.sleep(0.5)
        assert [len(block.result.results) for block in bench.blocks[before:]] == [2, 2, 1]
        assert [outcome_of(answer).index for answer in answers] == [0, 1, 0, 1, 0]


async def test_a_batch_closes_by_age_and_by_request(autojump_clock: trio.testing.MockClock) -> None:
    async with opened() as bench:
        await trio.sleep(12)
        assert [batch.number for batch in bench.closed] == [1]
        bench.buy()
        await trio.sleep(0.1)
        bench.executor.close_now()
        await trio.sleep(0.1)
        assert [batch.number for batch in bench.closed] == [1, 2]
        assert bench.closed[1].first_block == bench.closed[0].last_block + 1
        await trio.sleep(30)
        assert len(bench.closed) == 2, "an empty batch was closed"


async def test_a_full_batch_waits_for_its_closer_and_nothing_is_lost(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with opened(batches=BatchesSection(max_bytes=2_000, max_age_ms=60_000)) as bench:
        bench.busy = True
        answers = [bench.buy() for _ in range(60)]
        await trio.sleep(1)
        assert bench.closed == []
        assert any(outcome_of(answer) is None for answer in answers[-5:]), "the batch outgrew its limit"
        bench.busy = False
        bench.idle.set()
        await trio.sleep(2)
        assert len(bench.closed) >= 2
        assert all(len(batch.data) <= 2_000 for batch in bench.closed)


async def test_sealing_now_does_not_wait_for_the_interval(autojump_clock: trio.testing.MockClock) -> None:
    async with opened(blocks=BlocksSection(block_interval_ms=60_000)) as bench:
        await trio.sleep(20)
        answer = bench.buy()
        await trio.sleep(1)
        bench.executor.seal_now()
        await trio.sleep(1)
        assert outcome_of(answer).status == "executed"


async def test_draining_executes_everything_accepted(autojump_clock: trio.testing.MockClock) -> None:
    bench = Bench(blocks=BlocksSection(block_interval_ms=60_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.executor.run)
        await bench.inbox.put(opening_messages([address_of(OWNER)]), l1_origin(1))
        bench.executor.drain()
    assert bench.machine.system.inbox_next == 3
    assert trio.current_time() < 60


async def test_ingress_is_bounded_before_signatures_are_checked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """iINGRESS_003: signatures that nobody has checked yet count."""

    class Never:
        def submit(self, item: Pending | Unread, task: Task) -> None:
            pass

    async with opened() as bench:
        bench.ingress.use_recovery(Never())
        unread = bench.ingress.submit_params(msgspec.Raw(b"[]"), True)
        for _ in range(99):
            bench.buy()
        with pytest.raises(RpcError) as raised:
            bench.buy()
        assert raised.value.code == ErrorCode.BUSY
        with pytest.raises(RpcError) as raised:
            bench.ingress.submit_params(msgspec.Raw(b"[]"), True)
        assert raised.value.code == ErrorCode.BUSY
        bench.ingress.fail_all(RpcError(ErrorCode.DRAINING))
        assert bench.ingress.in_flight == {}
        assert outcome_of(unread).code == ErrorCode.DRAINING


async def test_unread_parameters_are_bounded_in_bytes(autojump_clock: trio.testing.MockClock) -> None:
    """iINGRESS_003"""
    params = msgspec.Raw(b"[" + b" " * (MAX_UNREAD_BYTES // 3) + b"]")
    asked: list[Unread] = []

    class Later:
        def submit(self, item: Pending | Unread, task: Task) -> None:
            assert isinstance(item, Unread)
            asked.append(item)

    async with opened() as bench:
        bench.ingress.use_recovery(Later())
        first = bench.ingress.submit_params(params, True)
        bench.ingress.submit_params(params, True)
        with pytest.raises(RpcError) as raised:
            bench.ingress.submit_params(params, True)
        assert raised.value.code == ErrorCode.BUSY
        bench.ingress.checked(asked[0], Checker(DOMAIN).answer(Params(b"[]")))
        assert outcome_of(first).code == ErrorCode.INVALID_PARAMS
        bench.ingress.submit_params(params, True)
        assert bench.ingress.unchecked == 2


async def test_parameters_are_read_and_resending_joins(autojump_clock: trio.testing.MockClock) -> None:
    """iINGRESS_001 and 002, by the way through a worker: in flight, executed, and too late."""
    async with opened() as bench:
        deadline_s = bench.now_ms() // 1000 + 60
        order = Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE - USD, LOT)
        action = PlaceOrder(
            account=1, nonce=1, deadline_s=deadline_s, max_fee_uusd=USD, priority_bid_uusd=0, order=order
        )
        late = msgspec.structs.replace(action, nonce=2, deadline_s=1)
        stranger = signed_json(msgspec.structs.replace(action, nonce=3), bytes([9]) * 32)
        params = msgspec.Raw(msgspec.json.encode([signed_json(action, OWNER)]))
        hashes = [bench.ingress.submit_params(params, False) for _ in range(2)]
        waiting = [bench.ingress.submit_params(params, True) for _ in range(2)]
        assert outcome_of(hashes[0]) == outcome_of(hashes[1])
        await trio.sleep(0.2)
        again = bench.ingress.submit_params(params, True)
        receipts = [outcome_of(each) for each in (*waiting, again)]
        assert receipts[0].status == "executed"
        assert receipts[0].hash == outcome_of(bench.ingress.submit_params(params, False))
        assert [each.index for each in receipts] == [receipts[0].index] * 3
        for refused, code in ((signed_json(late, OWNER), "DEADLINE_EXPIRED"), (stranger, "WRONG_SIGNER")):
            raw = msgspec.Raw(msgspec.json.encode([refused]))
            assert outcome_of(bench.ingress.submit_params(raw, True)).data["code"] == code


@pytest.mark.parametrize("takes_slices", [False, True])
async def test_a_batch_gives_all_its_changes_whole_or_in_slices(
    takes_slices: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """iMACHINE_001"""
    async with opened() as bench:
        bench.takes_slices = takes_slices
        for _ in range(4):
            bench.buy()
            await trio.sleep(1.5 * SLICE_S)
        bench.executor.close_now()
        await trio.sleep(0.1)
        (batch,) = bench.closed
        assert len(bench.slices) == (4 if takes_slices else 0)
        assert list(batch.changes[:-1]) == bench.slices
        bench.source.apply(batch.dirty())
        system = bench.source.get(keys.SYSTEM_KEY)
        assert system is not None
        assert System.decode(system).batch_cursor == len(batch.data)
        orders = bench.source.scan(keys.account_orders_prefix(1))
        assert len(orders) == 4
        leaves = tuple(bench.source.leaves.items())
        assert all(bench.machine.view.get(key).encode() == value for key, value in leaves)


async def test_books_balance_and_notice_when_they_do_not(autojump_clock: trio.testing.MockClock) -> None:
    """iCOMMIT_001"""
    async with opened() as bench:
        bench.buy(price=PRICE)
        bench.executor.close_now()
        await trio.sleep(0.1)
        books = Books(bench.source.get)
        dirty = bench.closed[0].dirty()
        books.take(dirty)
        assert books.totals.money_uusd == 1_000_000 * USD - _fees(bench)
        key = keys.account_key(1)
        encoded = dirty[key]
        assert encoded is not None
        forged = Account.decode(encoded)
        forged.cash_uusd += 1
        with pytest.raises(ConservationError, match=r"\+1 uusd"):
            Books(bench.source.get).take({**dirty, key: forged.encode()})


def _fees(bench: Bench) -> int:
    system = bench.machine.system
    return system.fees_uusd + system.venue_fees_uusd + system.insurance_uusd
