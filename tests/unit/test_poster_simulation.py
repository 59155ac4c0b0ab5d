"""The poster against an L1 that reorganises, forgets, fails and changes its prices, and crashes of its own.

iPOST_001, iPOST_002.
"""

from __future__ import annotations

from random import Random

import pytest

from l1_bridge.keys import devnet_signer
from l1_bridge.poster import LEDGER, Poster
from l1_bridge.posting import Halt, Idle, Limits
from l1_bridge.rollup import RollupContract
from l1_bridge.types import L1Error
from tests.integration.bridge_support import GENESIS, Batches, MemoryStore, make_batches, root_with
from tests.unit.fake_l1 import ROLLUP, FakeL1, unavailable

LIMITS = Limits(data="calldata", confirmations=3, bump_after_s=20, resend_after_s=4)
BATCHES = 6


class Crash(Exception):
    """The process died here."""


class CrashingStore(MemoryStore):
    """Dies before or after a write, as told."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self.random = random
        self.odds = 0.0

    def put(self, number: int, record: bytes | None) -> None:
        if self.random.random() < self.odds:
            raise Crash
        super().put(number, record)
        if self.random.random() < self.odds:
            raise Crash


class World:
    """One poster over one fake L1, with a clock of its own."""

    def __init__(self, seed: int):
        self.random = Random(seed)
        self.now_s = 0.0
        self.fail_odds = 0.0
        self.crash_odds = 0.0
        self.l1 = FakeL1(root_with(GENESIS), devnet_signer(1).address, self.trouble)
        self.store = CrashingStore(self.random)
        self.batches = Batches(make_batches(BATCHES, seed, size=200), closed=0)
        self.restarts = 0
        self.poster = self.new_poster()

    def trouble(self, what: str) -> None:
        if self.random.random() < self.fail_odds:
            unavailable(what)
        if self.random.random() < self.crash_odds:
            raise Crash

    def new_poster(self) -> Poster:
        return Poster(
            RollupContract(self.l1, ROLLUP),
            devnet_signer(1),
            self.batches,
            self.store,
            LIMITS,
            clock=lambda: self.now_s,
        )

    async def tick(self) -> object:
        """A tick; a crash is answered by a new poster over what was stored."""
        try:
            return await self.poster.tick()
        except L1Error as error:
            return error
        except Crash:
            self.restarts += 1
            self.poster = self.new_poster()
            return None

    async def chaos(self, steps: int) -> None:
        random = self.random
        for _ in range(steps):
            self.fail_odds = random.choice([0.0, 0.0, 0.02, 0.3])
            self.crash_odds = random.choice([0.0, 0.0, 0.02])
            self.store.odds = random.choice([0.0, 0.05])
            self.now_s += random.choice([0.5, 2, 10, 30])
            await self.tick()
            event = random.random()
            if event < 0.3:
                self.l1.mine()
            elif event < 0.36:
                self.l1.reorg(random.randrange(1, 4), keep=random.random() < 0.5)
            elif event < 0.42:
                self.l1.pool.clear()
            elif event < 0.5:
                self.l1.base_fee_wei = random.choice([1, 2, 5, 20]) * 10**9
            elif event < 0.6:
                self.batches.closed = min(self.batches.closed + 1, BATCHES)

    async def calm(self) -> None:
        """All is well again: the poster must finish. A block is mined after each tick."""
        self.fail_odds = self.crash_odds = self.store.odds = 0.0
        self.l1.base_fee_wei = 10**9
        self.batches.closed = BATCHES
        for _ in range(200):
            self.now_s += 5
            step = await self.tick()
            assert not isinstance(step, Halt), step
            self.l1.mine()
            if isinstance(step, Idle) and self.poster.status.confirmed == BATCHES:
                return
        pytest.fail(f"not finished: {self.poster.status}")


@pytest.mark.parametrize("seed", range(20))
async def test_every_batch_is_posted_once_whatever_happens(seed: int) -> None:
    """iPOST_001, iPOST_002."""
    world = World(seed)
    await world.chaos(150)
    await world.calm()
    postings = world.l1.postings()
    assert [mined.number for mined in postings] == list(range(1, BATCHES + 1))
    assert [mined.root for mined in postings] == [world.batches.all[n].root for n in range(1, BATCHES + 1)]
    assert [mined for mined in world.l1.mined() if not mined.succeeded] == []
    assert set(world.store.records) == {LEDGER}


async def test_without_trouble_each_batch_is_sent_once() -> None:
    world = World(0)
    await world.calm()
    assert world.l1.sent == BATCHES
    assert world.poster.status.spent_wei == BATCHES * 200_000 * 2 * 10**9
    assert world.poster.status.bytes_posted == BATCHES * 100


async def test_a_crash_between_storing_and_sending_sends_the_same_transaction() -> None:
    world = World(1)
    world.batches.closed = 1
    world.l1.trouble = lambda what: unavailable(what) if what == "send_raw" else None
    await world.tick()
    assert 1 in world.store.records
    assert world.l1.sent == 0
    stored = world.store.records[1]
    world.l1.trouble = lambda what: None
    world.poster = world.new_poster()
    world.now_s += 60
    await world.tick()
    assert world.l1.sent == 1
    assert world.store.records[1] == stored


async def test_a_batch_that_would_revert_is_refused_and_nothing_is_sent() -> None:
    world = World(2)
    world.batches.closed = 1

    def revert(what: str) -> None:
        if what == "estimate_gas":
            from l1_bridge.types import L1Reverted

            raise L1Reverted("execution reverted", bytes.fromhex("c0de"))

    world.l1.trouble = revert
    await world.tick()
    assert world.poster.status.state == "refused"
    assert "batch 1 would revert: reverted with 0xc0de" in world.poster.status.doing
    assert (world.l1.sent, world.store.records) == (0, {})


async def test_the_balance_floor_and_the_cost_cap_stop_before_sending() -> None:
    world = World(3)
    world.batches.closed = 1
    world.l1.balance_wei = LIMITS.balance_floor_wei + 1
    await world.tick()
    assert world.poster.status.state == "refused"
    assert "below the floor" in world.poster.status.doing
    world.l1.balance_wei = 10**20
    dear = Limits(data="calldata", max_batch_cost_wei=1)
    poster = Poster(RollupContract(world.l1, ROLLUP), devnet_signer(1), world.batches, world.store, dear)
    await poster.tick()
    assert "above the cap" in poster.status.doing
    assert world.l1.sent == 0


async def test_the_loser_of_two_posters_takes_the_winners_batch_for_its_own() -> None:
    """Two posters by accident, same state, other keys: the second finds the batch posted and goes on."""
    world = World(4)
    world.batches.closed = 2
    other = Poster(RollupContract(world.l1, ROLLUP), devnet_signer(1), world.batches, MemoryStore(), LIMITS)
    await other.tick()
    world.l1.mine()
    await world.tick()
    world.l1.mine()
    assert [mined.number for mined in world.l1.postings()] == [1, 2]


async def test_another_root_for_our_batch_halts() -> None:
    world = World(5)
    world.batches.closed = 1
    await world.tick()
    world.l1.mine()
    world.l1.blocks[-1][0].root = b"\x66" * 32
    step = await world.tick()
    assert isinstance(step, Halt)
    assert world.poster.status.state == "halted"
    assert "ours is" in world.poster.status.last_error
