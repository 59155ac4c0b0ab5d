"""L1 unreachable, answering 429, returning garbage: nothing is lost, nothing is done twice, all goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from l1_bridge.client import connect
from l1_bridge.embedded import EmbeddedL1
from l1_bridge.inbox import InboxFollower, Messages
from l1_bridge.keys import KeyRefused, devnet_signer
from l1_bridge.poster import Poster
from l1_bridge.posting import Limits
from l1_bridge.rollup import RollupContract
from l1_bridge.types import L1Refused, L1Unavailable
from l1_bridge.verifier import VerifiedBatch, Verifier
from state.block import L1Message
from state.genesis import GENESIS_ROOT
from tests.crash.faulty_proxy import FAULTS, FaultyProxy
from tests.integration.bridge_support import (
    POSTER,
    Batches,
    MemoryStore,
    connected,
    deployed,
    make_batches,
)
from tests.integration.test_bridge_embedded import first_batch, post_all, start

LIMITS = Limits(data="calldata", confirmations=0, resend_after_s=0.05)
IMPATIENT = {"attempts": 3, "first_delay_s": 0.002, "longest_delay_s": 0.01}


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition; fails after a minute."""
    with trio.fail_after(60):
        while not condition():  # noqa: ASYNC110 - the poster's status is polled, as an operator does
            await trio.sleep(0.01)


@pytest.mark.parametrize("seed", range(3))
async def test_follower_poster_and_verifier_work_through_a_faulty_l1(seed: int, tmp_path: Path) -> None:
    """A third of all requests fail, in every way there is."""
    print(f"seed {seed}")
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (good, transport):
        bridge = await deployed(l1.url, good, transport, GENESIS_ROOT)
        sequencer, _, _ = await start(bridge)
        with FaultyProxy(l1.url, seed, odds=0.33) as proxy:
            client, bad_transport = connect(proxy.url, **IMPATIENT)
            rollup = RollupContract(client, bridge.deployment.rollup_address)
            follower = InboxFollower(
                client,
                bridge.deployment.inbox_address,
                bridge.deployment.deploy_block,
                confirmations=0,
                poll_s=0.01,
            )
            seen: list[L1Message] = []
            with trio.fail_after(60):
                async with aclosing(follower.updates()) as updates:
                    async for update in updates:
                        assert isinstance(update, Messages)
                        seen += update.messages
                        if len(seen) == 4:
                            break
            reference = InboxFollower(
                good, bridge.deployment.inbox_address, bridge.deployment.deploy_block, confirmations=0
            )
            await first_batch(sequencer, reference, b"\xaa" * 20)
            sequencer.close()
            poster = Poster(rollup, devnet_signer(POSTER), sequencer, MemoryStore(), LIMITS, poll_s=0.01)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poster.run)
                await until(lambda: poster.status.confirmed == 1)
                nursery.cancel_scope.cancel()
            verified: list[VerifiedBatch] = []
            verifier = Verifier(
                client,
                bridge.deployment.rollup_address,
                tmp_path,
                proxy.url,
                confirmations=0,
                in_process=True,
                poll_s=0.001,
            )
            await verifier.run(verified.append)
            bad_transport.close()
            assert sum(proxy.faults.values()) > 10
        assert [message.kind for message in seen] == [7, 4, 1, 1]
        assert [(each.batch, each.root) for each in verified] == [(1, sequencer.root(1))]
        events = await bridge.rollup.posted(0, (await good.head()).number)
        assert [event.number for event in events] == [1]


async def test_an_outage_is_waited_out() -> None:
    """While L1 is away the poster says so and works on; when it is back, all is posted, once."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (good, transport):
        bridge = await deployed(l1.url, good, transport)
        with FaultyProxy(l1.url, 0, odds=0.0) as proxy:
            client, bad_transport = connect(proxy.url, **IMPATIENT)
            rollup = RollupContract(client, bridge.deployment.rollup_address)
            batches = Batches(make_batches(3, 1), closed=1)
            poster = Poster(rollup, devnet_signer(POSTER), batches, MemoryStore(), LIMITS, poll_s=0.005)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poster.run)
                await until(lambda: poster.status.confirmed == 1)
                proxy.down = True
                batches.closed = 3
                poster.notify()
                await until(lambda: poster.status.state == "l1-unavailable")
                proxy.down = False
                await until(lambda: poster.status.confirmed == 3)
                nursery.cancel_scope.cancel()
            bad_transport.close()
        events = await bridge.rollup.posted(0, (await good.head()).number)
        assert [event.number for event in events] == [1, 2, 3]
        assert await good.nonce(devnet_signer(POSTER).address) == 3


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("slow", "truncated")])
async def test_every_fault_is_transient_and_shows_no_secret(
    fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with EmbeddedL1(block_time_s=0) as l1, FaultyProxy(l1.url, 0, odds=1.0) as proxy:
        proxy.random.choice = lambda options: fault  # type: ignore[method-assign,assignment,return-value]
        client, transport = connect(f"{proxy.url}/v2/my-secret-key", **IMPATIENT)
        with pytest.raises(L1Unavailable) as caught:
            await client.chain_id()
        assert "my-secret-key" not in str(caught.value) + caplog.text
        assert caught.value.__cause__ is None
        assert proxy.faults[fault] == 3
        transport.close()


async def test_a_refusal_is_not_tried_again() -> None:
    with EmbeddedL1(block_time_s=0) as l1, FaultyProxy(l1.url, 0, odds=0.0) as proxy:
        client, transport = connect(proxy.url, **IMPATIENT)
        with pytest.raises(L1Refused, match="no method"):
            await client.raw_request("eth_nonsense", [])
        transport.close()


async def test_batches_posted_by_a_devnet_key_elsewhere_are_refused() -> None:
    """The well-known keys sign nothing on a chain that is not a devnet."""
    with pytest.raises(KeyRefused, match="not a devnet"):
        devnet_signer(0).check_chain(1)
    devnet_signer(0).check_chain(31337)


async def test_posting_goes_on_after_a_new_process_takes_over() -> None:
    """The second poster has only the store of the first one, which was cancelled in the middle."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport)
        batches, store = Batches(make_batches(4, 2)), MemoryStore()
        for _ in range(12):
            poster = Poster(bridge.rollup, devnet_signer(POSTER), batches, store, LIMITS)
            with trio.move_on_after(0.15):
                await post_all(poster)
        await post_all(Poster(bridge.rollup, devnet_signer(POSTER), batches, store, LIMITS))
        events = await bridge.rollup.posted(0, (await client.head()).number)
        assert [event.number for event in events] == [1, 2, 3, 4]
        assert await client.nonce(devnet_signer(POSTER).address) == 4
