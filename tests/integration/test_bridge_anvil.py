"""The bridge on anvil: blobs, reorgs that drop a batch and a deposit, rivals, replacement."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import trio

from l1_bridge.anvil import Anvil
from l1_bridge.blobs import KzgWorker
from l1_bridge.inbox import InboxFollower, Reorged
from l1_bridge.keys import devnet_signer
from l1_bridge.poster import Poster
from l1_bridge.posting import Bump, Idle, Limits, Wait
from l1_bridge.rollup import BatchEvent
from l1_bridge.types import L1Receipt
from state.genesis import GENESIS_ROOT
from tests.integration.bridge_support import (
    OTHER_POSTER,
    POSTER,
    Batches,
    MemoryStore,
    connected,
    deployed,
    grant_poster,
    make_batches,
)
from tests.integration.test_bridge_embedded import first_batch, read_all, start, verify

pytestmark = pytest.mark.anvil


class Diary:
    """A `poster.Listener` that writes down what it hears."""

    def __init__(self) -> None:
        self.entries: list[tuple[Any, ...]] = []

    def posted(self, event: BatchEvent, receipt: L1Receipt) -> None:
        assert receipt.succeeded
        self.entries.append(("posted", event.number))

    def confirmed(self, number: int) -> None:
        self.entries.append(("confirmed", number))

    def dropped(self, first: int) -> None:
        self.entries.append(("dropped", first))

    def finalized(self, number: int) -> None:
        self.entries.append(("finalized", number))


async def until_idle(poster: Poster) -> None:
    for _ in range(200):
        if isinstance(await poster.tick(), Idle):
            return
        await trio.sleep(0.05)
    pytest.fail(f"not all posted: {poster.status}")


async def test_blobs_and_calldata_are_both_verified_from_l1_alone(tmp_path: Path) -> None:
    kzg = KzgWorker()
    try:
        with Anvil() as l1, connected(l1.url) as (client, transport):
            bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
            sequencer, follower, _ = await start(bridge)
            await first_batch(sequencer, follower, b"\xaa" * 20)
            sequencer.close()
            store, signer = MemoryStore(), devnet_signer(POSTER)
            blobs = Limits(data="blobs", confirmations=0)
            await until_idle(Poster(bridge.rollup, signer, sequencer, store, blobs, kzg=kzg))
            sequencer.block(int(time.time()) * 1000 + 500, follower.origin)
            sequencer.close()
            calldata = Limits(data="calldata", confirmations=0)
            await until_idle(Poster(bridge.rollup, signer, sequencer, store, calldata))
            events = await bridge.rollup.posted(0, (await client.head()).number)
            assert [event.blobs for event in events] == [1, 0]
            verified = await verify(bridge, tmp_path)
            assert [(each.batch, each.root) for each in verified] == [
                (1, sequencer.root(1)),
                (2, sequencer.root(2)),
            ]
    finally:
        kzg.close()


async def test_a_reorg_that_drops_a_batch_and_a_deposit_is_survived() -> None:
    """The batch is posted again, and stands once; the follower takes the deposit's message back."""
    with Anvil() as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, _, _ = await start(bridge)
        diary = Diary()
        deep = InboxFollower(
            client, bridge.deployment.inbox_address, bridge.deployment.deploy_block, confirmations=0
        )
        assert len(await read_all(deep)) == 4
        assert deep.origin is not None
        last_deposit = deep.origin.number
        sequencer.block(int(time.time()) * 1000, None)
        sequencer.close()
        limits = Limits(data="calldata", confirmations=30)
        poster = Poster(bridge.rollup, devnet_signer(POSTER), sequencer, MemoryStore(), limits, diary)
        await until_idle(poster)
        await read_all(deep)
        await client.raw_request("anvil_reorg", [(await client.head()).number - last_deposit + 1, []])
        assert await bridge.rollup.last_batch() == 0
        await client.raw_request("evm_mine", [])

        update = await deep.poll()
        assert isinstance(update, Reorged)
        assert update.from_index <= 3
        deep_again = await read_all(deep)
        assert update.from_index + len(deep_again) == 3

        await until_idle(poster)
        events = await bridge.rollup.posted(0, (await client.head()).number)
        assert [event.number for event in events] == [1]
        assert diary.entries == [("posted", 1), ("dropped", 1), ("posted", 1)]
        assert poster.status.state == "idle"


async def test_two_posters_with_different_keys_cannot_both_win(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both send before either is mined: one posting stands, the loser takes it for its own and goes on."""
    with Anvil() as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport)
        await grant_poster(bridge, OTHER_POSTER)
        await client.raw_request("evm_setAutomine", [False])
        batches = Batches(make_batches(2, 5), closed=1)
        limits = Limits(data="calldata", confirmations=1)
        posters = [
            Poster(bridge.rollup, devnet_signer(index), batches, MemoryStore(), limits)
            for index in (POSTER, OTHER_POSTER)
        ]
        held: list[bytes] = []

        async def hold(raw: bytes) -> None:
            held.append(raw)

        monkeypatch.setattr(client, "send_raw", hold)
        for poster in posters:
            await poster.tick()
        monkeypatch.undo()
        assert len(held) == 2
        for raw in held:
            await client.send_raw(raw)
        await client.raw_request("evm_mine", [])
        await client.raw_request("evm_setAutomine", [True])
        await client.raw_request("evm_mine", [])
        for poster in posters:
            await until_idle(poster)
        assert [event.number for event in await bridge.rollup.posted(0, 1_000)] == [1]
        spent = [poster.status.spent_wei for poster in posters]
        assert all(amount > 0 for amount in spent)
        batches.closed = 2
        await until_idle(posters[1])
        await until_idle(posters[0])
        assert [event.number for event in await bridge.rollup.posted(0, 1_000)] == [1, 2]
        assert {poster.status.posted for poster in posters} == {2}


async def test_a_stuck_posting_is_replaced_under_its_nonce() -> None:
    with Anvil() as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport)
        await client.raw_request("evm_setAutomine", [False])
        now = [1_000.0]
        limits = Limits(data="calldata", confirmations=0)
        signer = devnet_signer(POSTER)
        poster = Poster(
            bridge.rollup,
            signer,
            Batches(make_batches(1, 6)),
            MemoryStore(),
            limits,
            clock=lambda: now[0],
        )
        await poster.tick()
        assert isinstance(await poster.tick(), Wait)
        now[0] += limits.bump_after_s
        assert isinstance(await poster.tick(), Bump)
        assert poster.status.last_error == ""
        await client.raw_request("evm_mine", [])
        await client.raw_request("evm_setAutomine", [True])
        await until_idle(poster)
        assert await client.nonce(signer.address) == 1
        assert [event.number for event in await bridge.rollup.posted(0, 1_000)] == [1]
