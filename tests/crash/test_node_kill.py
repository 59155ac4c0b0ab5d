"""kill -9 of a real node at random moments under load: every promise is kept, on disk and on L1.

The node posts to an embedded L1 in this process. It is killed while it trades, closes and posts batches, at
the moment a batch reaches L1, and while it recovers. After every start each receipt that any trader ever got
is there and the same, and L1 has no batch twice. In the end the state is derived again two ways, from L1
alone and from a copy of the data directory, and both agree with the node.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest
import trio

from l1_bridge.keys import devnet_signer
from l1_bridge.replay import state_directory
from l1_bridge.verifier import VerifiedBatch, Verifier
from sequencer.client import NodeClient
from sequencer.startup import open_state
from state.conservation import conservation
from state.eip712 import Domain
from state.genesis import GENESIS_ROOT
from state.leaves import System
from state.store import Identity, Store
from tests.crash.crowd import Crowd
from tests.crash.node_process import (
    DEPOSIT_UUSD,
    Home,
    Place,
    PostingTrap,
    devnet_here,
    gone,
    kill,
)
from tools.devnet import POSTER

SEED = 7
UNDER_LOAD, AT_POSTING, AT_BLOBS, IN_RECOVERY = 20, 5, 2, 6
TRADERS = 4
LONGEST_LOAD_S = 1.2
LONGEST_RECOVERY_S = 0.1


class Siege:
    """One node, killed again and again."""

    def __init__(self, place: Place, home: Home, random: Random) -> None:
        self.place = place
        self.random = random
        self.home = home
        self.trap = PostingTrap(place.l1)
        self.crowd = Crowd(place.devnet, self.home.url, place.traders, random)

    async def begin(self) -> trio.Process:
        """Starts the node, and trades until it is killed; returns when all promises were found kept."""
        process = await self.home.start()
        if self.home.runs == 1:
            await self.home.open_accounts(self.place.traders)
        await self.crowd.check_all()
        await self.crowd.send_some_again(5)
        await self.crowd.send_again()
        await self.check_postings()
        return process

    async def check_postings(self) -> int:
        """No batch twice and none left out; returns how many there are."""
        numbers = [event.number for event in await self.place.posted()]
        assert numbers == list(range(1, len(numbers) + 1))
        return len(numbers)

    async def kill_under_load(self) -> None:
        process = await self.begin()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.crowd.trade)
            await trio.sleep(self.random.uniform(0.02, LONGEST_LOAD_S))
            await kill(process)

    async def kill_at_posting(self, data: str = "calldata") -> None:
        """Before L1 has taken the batch, or after; the next process finds the intent and must not differ."""
        self.home.overrides["poster"] = {"data": data}
        process = await self.begin()
        self.home.overrides.clear()
        self.trap.set(process.pid, before=self.random.random() < 0.5)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.crowd.trade)
            with trio.fail_after(90):
                await process.wait()
        await gone(self.trap.children)

    async def kill_at_posting_blobs(self) -> None:
        await self.kill_at_posting("blobs")

    async def kill_in_recovery(self) -> None:
        process = await self.home.spawn()
        await self.home.until_opening(process)
        await trio.sleep(self.random.uniform(0, LONGEST_RECOVERY_S))
        await kill(process)

    async def post_everything(self) -> int:
        """Closes the open batch and waits until L1 has it; returns the last batch."""
        token = (self.home.data / "admin.token").read_text().strip()
        async with NodeClient(f"http://127.0.0.1:{self.home.admin_port}") as admin:
            await admin.call("admin_pause", [token])
            await admin.call("admin_postNow", [token])
        async with NodeClient(self.home.url) as client:
            with trio.fail_after(60):
                while True:
                    status = await client.call("straddle_status")
                    if status["posted_block"] == status["block_number"]:
                        return int(status["committed_batch"])
                    await trio.sleep(0.1)


async def verify_from_l1(place: Place, directory: Path) -> tuple[list[VerifiedBatch], bytes]:
    """Every batch as derived from L1 alone, and the last block's hash."""
    verified: list[VerifiedBatch] = []
    address = place.devnet.deployment.rollup_address
    verifier = Verifier(
        place.devnet.client, address, directory, place.l1.url, confirmations=0, in_process=True, poll_s=0.1
    )
    with trio.fail_after(120):
        await verifier.run(verified.append)
    domain = Domain(place.devnet.deployment.rollup_chain_id, address)
    store = Store.open(
        state_directory(directory, domain), Identity(domain.chain_id, domain.contract, GENESIS_ROOT)
    )
    assert conservation(store.leaves.scan(b"")) == 0
    checkpoint = store.last_checkpoint
    assert checkpoint is not None
    store.close()
    return verified, checkpoint.last_block_hash


def recover_copy(place: Place, data: Path, copy: Path) -> tuple[bytes, System]:
    """The root of the last batch and the registers, recovered from a copy of the data directory."""
    shutil.copytree(data, copy)
    deployment = place.devnet.deployment
    opened = open_state(copy, Domain(deployment.rollup_chain_id, deployment.rollup_address), 10_000, 1_000)
    checkpoint = opened.store.last_checkpoint
    assert checkpoint is not None
    assert conservation(opened.store.leaves.scan(b"")) == 0
    opened.store.close()
    return checkpoint.root, opened.machine.system


@pytest.mark.slow
async def test_every_promise_is_kept_through_kills_of_the_node(tmp_path: Path) -> None:
    print("seed", SEED)
    random = Random(SEED)
    async with devnet_here(TRADERS) as place:
        with Home(place.devnet, tmp_path / "node") as home:
            siege = Siege(place, home, random)
            kills = [siege.kill_under_load] * (UNDER_LOAD - 1) + [siege.kill_at_posting] * AT_POSTING
            kills += [siege.kill_at_posting_blobs] * AT_BLOBS + [siege.kill_in_recovery] * IN_RECOVERY
            random.shuffle(kills)
            for strike in (siege.kill_under_load, *kills):
                await strike()
            process = await siege.begin()
            batches = await siege.post_everything()
            await home.stop(process)
        assert await siege.check_postings() == batches
        assert await place.devnet.client.nonce(devnet_signer(POSTER).address) == batches, (
            "none was paid twice"
        )
        verified, block_hash = await verify_from_l1(place, tmp_path / "verifier")
    root, system = recover_copy(place, home.data, tmp_path / "copy")
    crowd = siege.crowd
    print(len(crowd.receipts), "receipts,", batches, "batches, refused:", dict(crowd.refused))
    assert [each.batch for each in verified] == list(range(1, batches + 1))
    assert verified[-1].root == root
    assert system.parent_hash == block_hash
    assert system.collateral_uusd + crowd.withdrawn_uusd == DEPOSIT_UUSD * TRADERS
    assert len(crowd.receipts) > 1_000
    assert batches >= UNDER_LOAD
