"""From executed to durable: what is released, and when (iSEAL_001, iSEAL_002)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio

from sequencer.machine import ExecutedBlock, Machine
from sequencer.metrics import Metrics
from sequencer.sealer import Sealed, Sealer
from sequencer.signing import SecretKey
from state.cache import CachedState, MemorySource
from state.eip712 import Domain
from state.genesis import genesis_leaves
from state.store import Store, StoreCode, StoreError
from tests.integration.node_fixture import opening_messages
from tools.exchange import l1_origin

NOW_MS = 1_700_000_000_000


class Disk:
    """A store that syncs a number of times, and then refuses."""

    def __init__(self, syncs: int) -> None:
        self.syncs = syncs
        self.unsynced: list[int] = []
        self.durable: list[int] = []

    def append_blocks(self, blocks: Sequence[Any]) -> None:
        self.unsynced += [block.number for block in blocks]

    def sync(self) -> None:
        if not self.syncs:
            raise StoreError(StoreCode.NO_SPACE, "disk", "syncing failed")
        self.syncs -= 1
        self.durable += self.unsynced
        self.unsynced = []


def executed_blocks(count: int) -> list[ExecutedBlock]:
    leaves = {key: leaf.encode() for key, leaf in genesis_leaves().items()}
    machine = Machine(CachedState(MemorySource(leaves), 1_000))
    messages = opening_messages([bytes([number]) * 20 for number in range(1, count + 1)])
    blocks = [
        machine.execute(NOW_MS + number, l1_origin(1), (message,), (), 100_000)[1]
        for number, message in enumerate(messages[:count])
    ]
    return [block for block in blocks if block is not None]


@pytest.mark.parametrize("syncs", [0, 1, 2])
async def test_released_in_order_when_durable_and_never_after_a_failure(syncs: int) -> None:
    disk = Disk(syncs)
    released: list[int] = []

    def on_sealed(sealed: Sealed) -> None:
        released.append(sealed.block.header.number)
        assert released == disk.durable[: len(released)]

    sealer = Sealer(
        cast("Store", disk),
        SecretKey(b"\x21" * 32),
        Domain(7, bytes(20)),
        Metrics(),
        max_waiting=16,
        on_sealed=on_sealed,
        on_closed=lambda closed: None,
    )
    blocks = executed_blocks(6)
    assert len(blocks) == 6
    with pytest.RaisesGroup(StoreError), trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            await nursery.start(sealer.run)
            for first in (0, 2, 4):
                await sealer.put(blocks[first])
                await sealer.put(blocks[first + 1])
                await sealer.flush()
    assert released == disk.durable
    assert released == list(range(1, len(released) + 1))
    assert syncs <= len(released) <= 2 * syncs, "a sync covers what waited for it"
