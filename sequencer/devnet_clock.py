"""The clock of a node on a development chain, where time can travel.

On a real chain a node's clock is the machine's. A development chain's time can be moved on, by
`evm_increaseTime`, to see in a minute what takes a day: an expiry, a challenge window, a deadline. The
contract bounds a batch's time by L1's, so a node follows there: its clock is ahead of the machine's by as
much as L1's last block was. Never used on another chain, and time never goes back.
"""

from __future__ import annotations

import structlog
import trio

from l1_bridge.client import RpcClient
from l1_bridge.types import L1Error
from sequencer.clock import wall_clock_ms

TOLERANCE_S = 30
"""Quick blocks bring a development chain some seconds ahead by themselves; that is no travel."""
POLL_S = 0.2

log = structlog.get_logger("clock")


class DevnetClock:
    """Milliseconds since the epoch, as L1 sees it. Call `look` once before use; `run` follows."""

    def __init__(self, client: RpcClient) -> None:
        self._client = client
        self._ahead_ms = 0

    def __call__(self) -> int:
        return wall_clock_ms() + self._ahead_ms

    async def look(self) -> None:
        """Takes L1's time over if it is later. Raises L1Error."""
        ahead_ms = (await self._client.head()).timestamp_s * 1_000 - self()
        if ahead_ms > TOLERANCE_S * 1_000:
            self._ahead_ms += ahead_ms
            log.info("L1's time has moved on", ahead_s=self._ahead_ms // 1_000)

    async def run(self) -> None:
        """Follows L1's time until cancelled."""
        while True:
            await trio.sleep(POLL_S)
            try:
                await self.look()
            except L1Error:
                continue  # the follower and the poster tell of an L1 that is away
