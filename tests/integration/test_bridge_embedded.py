"""The whole bridge on the embedded L1: deposit, blocks, posting, verification from L1 alone, payout."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
import trio

from l1_bridge.blobs import KzgWorker, pack, with_sidecar
from l1_bridge.client import RpcClient
from l1_bridge.deploy import deposit, force_withdrawal, govern, mint_test_dollars
from l1_bridge.embedded import EmbeddedL1
from l1_bridge.inbox import NO_HASH, InboxDiverged, InboxFollower, Messages, Reorged, rolling_hash
from l1_bridge.keys import devnet_signer
from l1_bridge.poster import Poster
from l1_bridge.posting import Idle, Limits
from l1_bridge.replay import Replay, state_directory
from l1_bridge.types import L1Refused, L1Reverted, L1Unavailable
from l1_bridge.verifier import RootMismatch, VerifiedBatch, Verifier
from l1_bridge.withdrawals import claim, is_paid, prove, wait_final
from state.actions import Side
from state.block import L1Message, L1Origin
from state.eip712 import Domain
from state.genesis import GENESIS_ROOT
from state.signatures import address_of
from tests.integration.bridge_support import (
    GOVERNOR,
    POSTER,
    ROLLUP_CHAIN_ID,
    TRADER,
    Bridge,
    MemoryStore,
    connected,
    deployed,
)
from tests.integration.hand_sequencer import PRICE_UUSD, TRADERS, HandSequencer, governance

LIMITS = Limits(confirmations=0, data="calldata")


async def read_all(follower: InboxFollower) -> list[L1Message]:
    """All messages there are now."""
    found: list[L1Message] = []
    while (update := await follower.poll()) is not None:
        assert isinstance(update, Messages)
        found += update.messages
    return found


async def post_all(poster: Poster) -> None:
    """Ticks until there is nothing left to post. Fails rather than go on for ever."""
    for _ in range(50):
        if isinstance(await poster.tick(), Idle):
            return
        await trio.sleep(0.02)
    pytest.fail(f"not all posted: {poster.status}")


async def start(bridge: Bridge) -> tuple[HandSequencer, InboxFollower, Poster]:
    """A sequencer whose two traders have each deposited 10,000 dollars, and the bridge's parts."""
    deployment = bridge.deployment
    governor, trader = bridge.sender(GOVERNOR), bridge.sender(TRADER)
    await govern(governor, deployment.inbox_address, governance())
    await mint_test_dollars(trader, deployment.token_address, trader.signer.address, 10**12)
    for index, key in enumerate(TRADERS):
        message, _ = await deposit(
            trader,
            deployment.vault_address,
            deployment.token_address,
            10_000_000_000,
            owner=address_of(key),
        )
        assert message == 2 + index
    sequencer = HandSequencer(ROLLUP_CHAIN_ID, deployment.rollup_address)
    follower = InboxFollower(
        bridge.client, deployment.inbox_address, deployment.deploy_block, confirmations=0
    )
    poster = Poster(bridge.rollup, devnet_signer(POSTER), sequencer, MemoryStore(), LIMITS)
    return sequencer, follower, poster


async def first_batch(sequencer: HandSequencer, follower: InboxFollower, recipient: bytes) -> None:
    """Deposits, prices, a trade, and a withdrawal of 1,000 dollars."""
    now_ms = int(time.time()) * 1000
    messages = await read_all(follower)
    sequencer.block(now_ms, follower.origin, messages)
    sequencer.block(
        now_ms + 50,
        follower.origin,
        (),
        [
            sequencer.prices(PRICE_UUSD, now_ms + 50),
            sequencer.place(1, Side.BUY, PRICE_UUSD, 100_000, now_ms + 50),
            sequencer.place(2, Side.SELL, PRICE_UUSD, 60_000, now_ms + 50),
        ],
    )
    assert len(sequencer.results[-1].trades) == 1
    sequencer.block(
        now_ms + 100, follower.origin, (), [sequencer.withdraw(2, recipient, 1_000_000_000, now_ms + 100)]
    )


async def verify(bridge: Bridge, path: Path, **options: object) -> list[VerifiedBatch]:
    seen: list[VerifiedBatch] = []
    verifier = Verifier(
        bridge.client,
        bridge.deployment.rollup_address,
        path,
        bridge.url,
        confirmations=0,
        in_process=True,
        **options,  # type: ignore[arg-type]
    )
    await verifier.run(seen.append)
    return seen


async def test_from_deposit_to_payout(tmp_path: Path) -> None:
    """Ends with the withdrawal paid on L1 by a proof from the verifier's own state, once and not twice."""
    recipient = bytes.fromhex("00000000000000000000000000000000000000aa")
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT, challenge_window_s=600)
        sequencer, follower, poster = await start(bridge)
        await first_batch(sequencer, follower, recipient)
        sequencer.close()
        await post_all(poster)
        (first,) = await verify(bridge, tmp_path)
        assert (first.batch, first.blocks, first.transactions, first.ignored_bytes) == (1, 3, 4, 0)
        assert first.root == sequencer.root(1)

        reports = await read_all(follower)
        assert [message.kind for message in reports] == [8]
        sequencer.block(int(time.time()) * 1000 + 1_000, follower.origin, reports)
        sequencer.close()
        await post_all(poster)
        (second,) = await verify(bridge, tmp_path)
        assert (second.batch, second.root) == (2, sequencer.root(2))
        assert await verify(bridge, tmp_path) == []

        await client.raw_request("evm_increaseTime", [700])
        await client.raw_request("evm_mine", [])
        final = await wait_final(bridge.rollup, 2)
        assert final == 2
        domain = Domain(ROLLUP_CHAIN_ID, bridge.deployment.rollup_address)
        with Replay(state_directory(tmp_path, domain), domain) as replay:
            ready = await prove(bridge.rollup, 1, final, replay.prove)
        assert (ready.withdrawal.recipient, ready.withdrawal.amount_uusd) == (recipient, 1_000_000_000)
        assert not await is_paid(bridge.rollup, 1)
        await claim(bridge.sender(TRADER), bridge.deployment.vault_address, ready)
        assert await is_paid(bridge.rollup, 1)
        with pytest.raises(L1Reverted, match=r"AlreadyClaimed\(number=1\)"):
            await claim(bridge.sender(TRADER), bridge.deployment.vault_address, ready)


async def test_a_claim_before_the_window_is_refused_in_words(tmp_path: Path) -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT, challenge_window_s=600)
        sequencer, follower, poster = await start(bridge)
        await first_batch(sequencer, follower, b"\xaa" * 20)
        sequencer.close()
        await post_all(poster)
        await verify(bridge, tmp_path)
        domain = Domain(ROLLUP_CHAIN_ID, bridge.deployment.rollup_address)
        with Replay(state_directory(tmp_path, domain), domain) as replay:
            ready = await prove(bridge.rollup, 1, 1, replay.prove)
        with pytest.raises(L1Reverted, match=r"BatchNotFinal\(number=1\)"):
            await claim(bridge.sender(TRADER), bridge.deployment.vault_address, ready)


class LyingNode(RpcClient):
    """A node whose receipts are right except one, as its root is wrong."""

    def __init__(self, sequencer: HandSequencer, wrong: bytes):
        self.sequencer = sequencer
        self.wrong = wrong

    async def raw_request(self, method: str, params: list[object]) -> dict[str, object]:
        assert method == "straddle_getReceipt"
        for block in self.sequencer.results:
            for result in block.results:
                if params == ["0x" + result.hash.hex()]:
                    extra = 1 if result.hash == self.wrong else 0
                    return {
                        "status": "executed",
                        "operations": [
                            {
                                "order_id": each.order_id,
                                "filled_ulots": each.filled_ulots,
                                "resting_ulots": each.resting_ulots,
                                "cancelled_ulots": each.cancelled_ulots,
                            }
                            for each in result.operations
                        ],
                        "fills": [{"trade": number} for number in range(*result.trades)],
                        "fee": {"inclusion_uusd": result.fee_uusd + extra},
                        "withdrawal": result.withdrawal or None,
                    }
        raise AssertionError(params)


async def test_a_wrong_root_is_found_and_the_transaction_named(tmp_path: Path) -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = await start(bridge)
        await first_batch(sequencer, follower, b"\xaa" * 20)
        sequencer.close(lie=Random(7))
        await post_all(poster)
        wrong = sequencer.results[1].results[2].hash
        with pytest.raises(RootMismatch) as caught:
            await verify(bridge, tmp_path, node=LyingNode(sequencer, wrong))
        assert caught.value.batch == 1
        assert caught.value.claimed == sequencer.root(1)
        assert f"transaction 2 of block 2 (0x{wrong.hex()}) differs first, in fee" in str(caught.value)
        with pytest.raises(RootMismatch, match="only its root is wrong"):
            await verify(bridge, tmp_path, node=LyingNode(sequencer, b""))


async def test_a_verifier_starts_again_when_the_guardian_reverted_what_it_verified(tmp_path: Path) -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = await start(bridge)
        await first_batch(sequencer, follower, b"\xaa" * 20)
        sequencer.close()
        await post_all(poster)
        assert [each.batch for each in await verify(bridge, tmp_path)] == [1]
        guardian = bridge.sender(2)
        await guardian.send(bridge.deployment.rollup_address, bridge.rollup.abi.call("revertBatches", 1))
        assert await verify(bridge, tmp_path) == []
        step = await poster.tick()
        assert "guardian" in getattr(step, "reason", "")

        other = HandSequencer(ROLLUP_CHAIN_ID, bridge.deployment.rollup_address)
        again = InboxFollower(
            bridge.client,
            bridge.deployment.inbox_address,
            bridge.deployment.deploy_block,
            confirmations=0,
        )
        messages = await read_all(again)
        other.block(int(time.time()) * 1000 + 2_000, again.origin, messages[:4])
        other.close()
        await post_all(Poster(bridge.rollup, devnet_signer(POSTER), other, MemoryStore(), LIMITS))
        (verified,) = await verify(bridge, tmp_path)
        assert verified.root == other.root(1) != sequencer.root(1)


async def test_the_inbox_follower_unwinds_a_reorg_and_reads_what_replaced_it() -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        _, follower, _ = await start(bridge)
        before = await read_all(follower)
        snapshot = await client.raw_request("evm_snapshot", [])
        trader, inbox = bridge.sender(TRADER), bridge.deployment.inbox_address
        await force_withdrawal(trader, inbox, 1, b"\xbb" * 20, 5)
        taken_back = await read_all(follower)
        assert len(taken_back) == 1
        await client.raw_request("evm_revert", [snapshot])
        await client.raw_request("evm_increaseTime", [5])
        await client.raw_request("evm_mine", [])
        await force_withdrawal(trader, inbox, 1, b"\xcc" * 20, 6)
        update = await follower.poll()
        assert isinstance(update, Reorged)
        assert update.from_index == len(before)
        (replacement,) = await read_all(follower)
        assert replacement.payload != taken_back[0].payload
        assert follower.next_index == len(before) + 1


@dataclass
class Made:
    """Blocks were made with this as their last origin (`inbox.Executed`)."""

    origin: L1Origin

    @property
    def l1_block(self) -> int:
        return self.origin.number

    def agrees(self, origin: L1Origin) -> bool:
        return self.origin == origin


async def test_an_origin_whose_fees_a_reorg_changed_is_noticed() -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        snapshot = await client.raw_request("evm_snapshot", [])
        await start(bridge)
        await client.raw_request("evm_mine", ["0x2"])
        head = await client.head()
        place = bridge.deployment.inbox_address, bridge.deployment.deploy_block
        made = Made(head.origin)
        follower = InboxFollower(client, *place, confirmations=0, executed=made)
        assert len(await read_all(follower)) == 4
        assert follower.origin == head.origin

        await client.raw_request("evm_revert", [snapshot])
        with pytest.raises(L1Unavailable, match=f"block {head.number} is gone"):
            await follower.poll()
        await client.raw_request("evm_mine", ["0x40"])
        assert isinstance(await follower.poll(), Reorged)
        other = await client.block(head.number)
        assert other is not None
        assert other.base_fee_wei < head.base_fee_wei, "nothing was sent: gas became cheaper"
        for again in (follower, InboxFollower(client, *place, confirmations=0, executed=made)):
            with pytest.raises(InboxDiverged, match=f"block {head.number} on L1 has other fees"):
                await again.poll()
        made.origin = other.origin
        assert await read_all(follower) == []


async def test_messages_before_the_last_origin_are_still_read() -> None:
    """A block need not read all messages up to its origin."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        _, follower, _ = await start(bridge)
        messages = await read_all(follower)
        head = await client.head()
        consumed = rolling_hash(NO_HASH, messages[0])
        later = InboxFollower(
            client, bridge.deployment.inbox_address, head.number, 1, consumed, confirmations=0
        )
        assert await read_all(later) == messages[1:]


async def test_messages_surface_only_with_confirmations() -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        await start(bridge)
        follower = InboxFollower(
            client, bridge.deployment.inbox_address, bridge.deployment.deploy_block, confirmations=3
        )
        seen = await read_all(follower)
        assert len(seen) == 2
        await client.raw_request("evm_mine", ["0x3"])
        assert len(seen + await read_all(follower)) == 4


async def test_a_state_that_consumed_other_messages_is_told_so() -> None:
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        await start(bridge)
        start_block = bridge.deployment.deploy_block
        follower = InboxFollower(
            client, bridge.deployment.inbox_address, start_block, 2, b"\x01" * 32, confirmations=0
        )
        with pytest.raises(InboxDiverged, match="not those consumed"):
            await follower.poll()


async def test_blobs_are_checked_and_served_by_the_embedded_l1(tmp_path: Path) -> None:
    """A sidecar that does not fit its hashes is refused; a right one is verified from L1 alone."""
    kzg = KzgWorker()
    try:
        with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
            bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
            sequencer, follower, _ = await start(bridge)
            await first_batch(sequencer, follower, b"\xaa" * 20)
            sequencer.close()
            limits = Limits(confirmations=0, data="blobs")
            signer, store = devnet_signer(POSTER), MemoryStore()
            await post_all(Poster(bridge.rollup, signer, sequencer, store, limits, kzg=kzg))
            (event,) = await bridge.rollup.posted(0, (await client.head()).number)
            assert event.blobs == 1
            (verified,) = await verify(bridge, tmp_path)
            assert verified.root == sequencer.root(1)

            right = await kzg.sidecar(b"some data")
            wrong = right._replace(blobs=tuple(pack(b"other data")))
            fields = {
                "type": 3,
                "chainId": await client.chain_id(),
                "nonce": await client.nonce(signer.address),
                "gas": 100_000,
                "maxFeePerGas": 10**10,
                "maxPriorityFeePerGas": 10**9,
                "maxFeePerBlobGas": 100,
                "to": b"\xaa" * 20,
                "value": 0,
                "data": b"",
                "accessList": [],
                "blobVersionedHashes": right.hashes,
            }
            with pytest.raises(L1Refused, match="do not fit their versioned hashes"):
                await client.send_raw(with_sidecar(signer.sign(fields), wrong))
    finally:
        kzg.close()
