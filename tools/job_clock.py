"""The main job's clock: the machine's, as far ahead of it as the node's is, because L1's time may travel.

On a development chain a node follows L1's time (`sequencer.devnet_clock`). Whoever signs deadlines and dates
reports must follow the node: never be ahead of it, since it refuses what is from the future.
"""

from __future__ import annotations

import trio

from l1_bridge.client import RpcClient
from sequencer.client import NodeClient
from sequencer.clock import wall_clock_ms
from sequencer.devnet_clock import TOLERANCE_S

JITTER_MS = 500
LOOK_S = 0.05


class JobClock:
    """Milliseconds since the epoch, as the node sees it; never goes back."""

    def __init__(self) -> None:
        self._ahead_ms = 0

    def __call__(self) -> int:
        return wall_clock_ms() + self._ahead_ms

    async def follow(self, client: NodeClient) -> None:
        """Takes the node's time over if it is later. Raises NodeUnreachable."""
        node_ms: int = await client.call("public/get_time")
        if node_ms - self() > JITTER_MS:
            self._ahead_ms += node_ms - self()

    async def travel(self, l1: RpcClient, client: NodeClient, target_ms: int) -> None:
        """Moves L1 on to this time, which the node follows, and then this clock; or waits if it is near.

        L1 first: its contract refuses batches from its future. Raises L1Error, NodeUnreachable.
        """
        ahead_s = target_ms // 1_000 - (await l1.head()).timestamp_s
        if ahead_s > TOLERANCE_S and target_ms - self() > 2_000 * TOLERANCE_S:
            await l1.raw_request("evm_increaseTime", [ahead_s])
            await l1.raw_request("evm_mine", [])
        while self() < target_ms:
            await trio.sleep(LOOK_S)
            await self.follow(client)
