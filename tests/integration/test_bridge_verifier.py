"""The verifier on batches that honest sequencers rarely post, and across interruptions."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from l1_bridge.blobs import KzgWorker
from l1_bridge.derivation import BlobSource, Cursor, Derivation, HistoryChanged
from l1_bridge.embedded import EmbeddedL1
from l1_bridge.embedded_chain import CHAIN_ID
from l1_bridge.inbox import NO_HASH
from l1_bridge.keys import devnet_signer
from l1_bridge.poster import Poster
from l1_bridge.types import L1Refused
from l1_bridge.verifier import VerifiedBatch, Verifier
from state.actions import Side
from state.genesis import GENESIS_ROOT
from tests.integration.bridge_support import (
    GUARDIAN,
    POSTER,
    Batches,
    MemoryStore,
    connected,
    deployed,
    make_batches,
)
from tests.integration.hand_sequencer import PRICE_UUSD
from tests.integration.test_bridge_embedded import LIMITS, post_all, read_all, start, verify


async def test_orders_in_the_very_block_that_lists_their_market(tmp_path: Path) -> None:
    """Their signers can only be recovered once the block has read its messages."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = await start(bridge)
        now_ms = int(time.time()) * 1000
        messages = await read_all(follower)
        result = sequencer.block(
            now_ms,
            follower.origin,
            messages,
            [
                sequencer.prices(PRICE_UUSD, now_ms),
                sequencer.place(1, Side.BUY, PRICE_UUSD, 50_000, now_ms),
                sequencer.place(2, Side.SELL, PRICE_UUSD, 50_000, now_ms),
            ],
        )
        assert len(result.trades) == 1
        sequencer.close()
        await post_all(poster)
        (verified,) = await verify(bridge, tmp_path)
        assert (verified.root, verified.transactions) == (sequencer.root(1), 3)


async def test_bytes_that_are_no_block_are_ignored_and_counted(tmp_path: Path) -> None:
    """iBATCH: any bytes give exactly one next state; a tail, and a batch that is nothing but garbage."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = await start(bridge)
        messages = await read_all(follower)
        sequencer.block(int(time.time()) * 1000, follower.origin, messages)
        sequencer.close(tail=b"\xff" * 9)
        await post_all(poster)
        sequencer.void(b"not a batch")
        await post_all(poster)
        verified = await verify(bridge, tmp_path)
        assert [(each.batch, each.blocks, each.ignored_bytes) for each in verified] == [(1, 1, 9), (2, 0, 11)]
        assert verified[-1].root == sequencer.root(2)


class Interrupted(Exception):
    """Somebody stopped the verifier."""


async def test_it_goes_on_where_it_was_interrupted_with_a_recovery_process(tmp_path: Path) -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = await start(bridge)
        now_ms = int(time.time()) * 1000
        for number in range(5):
            at_ms = now_ms + 100 * number
            messages = await read_all(follower)
            transactions = [sequencer.prices(PRICE_UUSD, at_ms)]
            if number:
                transactions.append(sequencer.place(1, Side.BUY, PRICE_UUSD, 10_000, at_ms))
            sequencer.block(at_ms, follower.origin, messages, transactions)
            sequencer.close()
            await post_all(poster)
        seen: list[int] = []

        def stop_at_two(verified: VerifiedBatch) -> None:
            seen.append(verified.batch)
            if verified.batch == 2:
                raise Interrupted

        address = bridge.deployment.rollup_address
        with pytest.raises(Interrupted):
            await Verifier(client, address, tmp_path, l1.url, confirmations=0).run(stop_at_two)
        last = await Verifier(client, address, tmp_path, l1.url, confirmations=0).run(
            lambda verified: seen.append(verified.batch)
        )
        assert (seen, last) == ([1, 2, 3, 4, 5], 5)


async def test_following_goes_on_with_batches_to_come(tmp_path: Path) -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = await start(bridge)
        send, receive = trio.open_memory_channel[VerifiedBatch](10)
        verifier = Verifier(
            client,
            bridge.deployment.rollup_address,
            tmp_path,
            l1.url,
            confirmations=0,
            in_process=True,
            poll_s=0.02,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(verifier.run, send.send_nowait, True)
            with trio.fail_after(30):
                for number in (1, 2):
                    at_ms = int(time.time()) * 1000 + number
                    messages = await read_all(follower)
                    sequencer.block(at_ms, follower.origin, messages)
                    sequencer.close()
                    await post_all(poster)
                    assert (await receive.receive()).batch == number
            nursery.cancel_scope.cancel()
        assert verifier.verified == 2


async def test_an_address_without_a_rollup_is_refused(tmp_path: Path) -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, _):
        verifier = Verifier(client, b"\x77" * 20, tmp_path, l1.url, in_process=True)
        with pytest.raises(L1Refused, match="no Rollup contract at 0x7777"):
            await verifier.run(lambda _: None)


async def test_another_genesis_is_refused(tmp_path: Path) -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport)
        with pytest.raises(L1Refused, match="another genesis"):
            await verify(bridge, tmp_path)


async def test_a_poster_refuses_what_the_contract_would() -> None:
    """The root of a batch is proved by its System leaf: without that proof nothing is sent."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, _ = await start(bridge)
        sequencer.block(int(time.time()) * 1000 + 10**9, follower.origin)
        sequencer.close()
        signer = devnet_signer(POSTER)
        poster = Poster(bridge.rollup, signer, sequencer, MemoryStore(), LIMITS)
        await poster.tick()
        assert poster.status.state == "refused"
        assert "batch 1 would revert: TimestampAhead(" in poster.status.doing
        assert await client.nonce(signer.address) == 0


async def test_a_batch_posted_again_after_a_revert_is_noticed_while_running() -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport)
        rollup, signer = bridge.rollup, devnet_signer(POSTER)
        await post_all(Poster(rollup, signer, Batches(make_batches(2, 1)), MemoryStore(), LIMITS))
        kzg = KzgWorker()
        info = await rollup.info()
        blobs = BlobSource(client, l1.url, CHAIN_ID, kzg)
        cursor = Cursor(0, info.genesis_root, 0, NO_HASH, 0)
        derivation = Derivation(client, info, blobs, cursor, confirmations=0)
        await derivation.start()
        derived = [await derivation.next(), await derivation.next(), await derivation.next()]
        assert [each.event.number if each else None for each in derived] == [1, 2, None]
        await bridge.sender(GUARDIAN).send(info.address, rollup.abi.call("revertBatches", 2))
        others = make_batches(1, 1) + make_batches(2, 1, timestamp_ms=1_700_000_000_500)[1:]
        later = replace(others[1], prev_root=others[0].root)
        await post_all(Poster(rollup, signer, Batches([others[0], later]), MemoryStore(), LIMITS))
        with pytest.raises(HistoryChanged, match="batch 2 was posted again"):
            await derivation.next()
