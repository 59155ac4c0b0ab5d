"""What the node knows of liquidations: who must be liquidated, and where each auction's steps are.

`sealed` follows the durable blocks; `run` looks at accounts in slices between blocks, and writes the log.
"""

from __future__ import annotations

from collections.abc import Callable

import trio

from sequencer.liquidation_index import LiquidationIndex
from sequencer.liquidation_log import Blocks, LiquidationLog, Values
from sequencer.machine import ExecutedBlock, Machine

LOOK_S = 1.0
"""At the latest after this long, accounts that have traded, or whose time has come, are looked at."""
SAVE_S = 1.0
"""Between two writings of the log."""


class Liquidations:
    """See the module's text. Used from the trio thread."""

    def __init__(self, machine: Machine, values: Values, blocks: Blocks, now_ms: Callable[[], int]) -> None:
        """Raises StoreError."""
        self.index = LiquidationIndex(machine.view)
        self.index.load(machine.system.next_account)
        self.log = LiquidationLog(values, blocks, machine.system.block_number)
        self._now_ms = now_ms
        self._wake = trio.Event()

    def sealed(self, block: ExecutedBlock) -> None:
        """A block is durable."""
        self.log.sealed(block.result.header.number, block.result.results)
        if self.index.executed(block):
            self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until cancelled. Raises StoreError."""
        task_status.started()
        next_save = trio.current_time()
        while True:
            self._wake = trio.Event()
            while True:
                if not self.index.look(self._now_ms()):
                    break
                await trio.lowlevel.checkpoint()
            if self.log.wants_save and trio.current_time() >= next_save:
                next_save = trio.current_time() + SAVE_S
                taken = self.log.take()
                await trio.to_thread.run_sync(self.log.save, taken)
                self.log.saved(taken)
            with trio.move_on_after(LOOK_S):
                await self._wake.wait()
