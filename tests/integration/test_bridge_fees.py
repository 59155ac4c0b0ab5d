"""Fees on L1's side, on the embedded L1: what the governor sets, and cost reports that nobody may invent."""

from __future__ import annotations

import ast
import inspect
import re
import time
from collections.abc import Awaitable
from pathlib import Path
from struct import pack

import pytest

from l1_bridge.abi import contract
from l1_bridge.deploy import govern, set_fees
from l1_bridge.embedded import EmbeddedL1
from l1_bridge.inbox import InboxFollower
from l1_bridge.keys import devnet_signer
from l1_bridge.poster import Poster
from l1_bridge.types import L1Reverted
from state import keys
from state.block import L1Message, L1Origin, MessageKind
from state.genesis import GENESIS_ROOT
from state.leaves import FeeTerms, L1Terms, PriorityTerms
from state.units import PPM
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
from tests.integration.hand_sequencer import HandSequencer
from tests.integration.test_bridge_embedded import LIMITS, read_all

OPERATING = Path(__file__).resolve().parents[2] / "sequencer" / "OPERATING.md"
COST = pack(">QIQQBQ", 1, 100_000, 30_000_000, 10**12, 0, 0)
"""A report of 30 million gas at 1,000 gwei."""


def example() -> str:
    """The Python in OPERATING.md that sets fees."""
    blocks = [found[1] for found in re.finditer(r"```python\n(.*?)```", OPERATING.read_text(), re.S)]
    (code,) = [block for block in blocks if "set_fees" in block]
    return code


def parts(bridge: Bridge) -> tuple[HandSequencer, InboxFollower, Poster]:
    deployment = bridge.deployment
    sequencer = HandSequencer(ROLLUP_CHAIN_ID, deployment.rollup_address)
    follower = InboxFollower(
        bridge.client, deployment.inbox_address, deployment.deploy_block, confirmations=0
    )
    return sequencer, follower, Poster(bridge.rollup, devnet_signer(POSTER), sequencer, MemoryStore(), LIMITS)


async def test_the_governors_example_works() -> None:
    """What OPERATING.md shows is executed as it stands: every message is queued, read and obeyed."""
    code = compile(example(), str(OPERATING), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        names = {"sender": bridge.sender(GOVERNOR), "deployment": bridge.deployment}
        done = eval(code, names)
        assert inspect.isawaitable(done)
        assert isinstance(done, Awaitable)
        await done
        sequencer, follower, _ = parts(bridge)
        messages = await read_all(follower)
        assert {message.kind for message in messages} == {
            MessageKind.SET_FEES,
            MessageKind.SET_FEE_TIERS,
            MessageKind.SET_L1_TERMS,
            MessageKind.SET_PRIORITY,
        }
        sequencer.block(int(time.time()) * 1000, follower.origin, messages)
        assert [result.code for result in sequencer.results[-1].messages] == [0] * 4
        view = sequencer._view
        fees: FeeTerms = view.get(keys.FEE_TERMS_KEY)
        assert (fees.execution_target, fees.inertia_s) == (50_000, FeeTerms().inertia_s)
        assert view.get(keys.FEE_TIERS_KEY).count == 2
        terms: L1Terms = view.get(keys.L1_TERMS_KEY)
        assert terms.blob_fraction == L1Terms().blob_fraction
        assert view.get(keys.PRIORITY_KEY) == PriorityTerms(makers_ppm=7 * PPM // 10)


async def test_nobody_but_the_rollup_queues_a_cost_report() -> None:
    """Neither directly nor as a governor's message; the queue stays empty."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        inbox = bridge.deployment.inbox_address
        for index in (GOVERNOR, POSTER, TRADER):
            with pytest.raises(L1Reverted, match=r"WrongSender\(expected=0x\w+, got=0x\w+\)"):
                await bridge.sender(index).send(inbox, contract("Inbox").call("queueBatchCost", COST))
        with pytest.raises(L1Reverted, match=r"NotGovernanceKind\(kind=8\)"):
            await govern(bridge.sender(GOVERNOR), inbox, [(MessageKind.BATCH_COST, COST)])
        _, follower, _ = parts(bridge)
        assert await read_all(follower) == []


async def refusal(poster: Poster, bridge: Bridge) -> str:
    """Why the first batch is not posted; the contract still has none, and nothing was sent."""
    await poster.tick()
    assert poster.status.state == "refused"
    assert await bridge.rollup.last_batch() == 0
    assert await bridge.client.nonce(devnet_signer(POSTER).address) == 0
    return poster.status.doing


@pytest.mark.parametrize(("queued", "says"), [(0, "BeyondQueue("), (1, "InboxHashMismatch(")])
async def test_a_batch_with_an_invented_cost_report_is_refused(queued: int, says: str) -> None:
    """The operator puts one into its own block, as a message too many or in the place of a real one."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        if queued:
            await govern(bridge.sender(GOVERNOR), bridge.deployment.inbox_address, [set_fees(FeeTerms())])
        sequencer, follower, poster = parts(bridge)
        assert len(await read_all(follower)) == queued
        forged = L1Message(MessageKind.BATCH_COST, bridge.deployment.rollup_address, 1, COST)
        sequencer.block(int(time.time()) * 1000, follower.origin, [forged])
        sequencer.close()
        assert f"batch 1 would revert: {says}" in await refusal(poster, bridge)


async def test_a_batch_whose_l1_origin_is_not_past_is_refused() -> None:
    """An origin of the posting's own block or later has no header to read fees from yet."""
    with EmbeddedL1(block_time_s=0) as l1, connected(l1.url) as (client, transport):
        bridge = await deployed(l1.url, client, transport, GENESIS_ROOT)
        sequencer, follower, poster = parts(bridge)
        await read_all(follower)
        assert follower.origin is not None
        ahead = L1Origin(follower.origin.number + 1_000, 1, 0)
        sequencer.block(int(time.time()) * 1000, ahead, ())
        sequencer.close()
        said = await refusal(poster, bridge)
        assert "batch 1 would revert: OriginNotPast(" in said
        assert str(ahead.number) in said
