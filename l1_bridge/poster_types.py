"""What the poster works with: the source of batches, its records and costs, and whom it tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from l1_bridge.rollup import Batch, BatchEvent
from l1_bridge.types import L1Receipt


class BatchSource(Protocol):
    """Closed batches by number; kept until L1 has confirmed them. Blocking; called in worker threads."""

    def batch(self, number: int) -> Batch | None:
        """None when it is not closed yet, or gone."""

    def root(self, number: int) -> bytes | None:
        """The state root after batch `number` (0: genesis); None when unknown."""


class IntentStore(Protocol):
    """Small records by number that survive a crash: durable when `put` returns. Blocking."""

    def get(self, number: int) -> bytes | None: ...

    def put(self, number: int, record: bytes | None) -> None:
        """Stores, or with None removes."""


class Listener(Protocol):
    """Told what happens to batches; called from the poster's task, must not block."""

    def posted(self, event: BatchEvent, receipt: L1Receipt) -> None: ...

    def confirmed(self, number: int) -> None:
        """All batches up to this one are deep enough."""

    def dropped(self, first: int) -> None:
        """A reorg dropped the batches from this one on; they will be posted again."""

    def finalized(self, number: int) -> None:
        """No batch up to this one can be disputed any more."""


class Ledger(msgspec.Struct):
    """What posting has cost, counted once each batch is confirmed; and how far that is."""

    confirmed: int = 0
    confirmed_l1_block: int = 0
    spent_wei: int = 0
    gas_used: int = 0
    blob_gas_used: int = 0
    bytes_posted: int = 0
    reverts: int = 0
    last_reverted: bytes = b""


@dataclass
class PosterStatus:
    """For `straddle_status`. Costs are what this poster's key paid."""

    state: str = "starting"
    """starting, idle, working, waiting, l1-unavailable, refused or halted."""
    doing: str = ""
    last_error: str = ""
    posted: int = 0
    confirmed: int = 0
    finalized: int = 0
    l1_block: int = 0
    spent_wei: int = 0
    gas_used: int = 0
    blob_gas_used: int = 0
    bytes_posted: int = 0
    balance_wei: int = 0
    gas_per_batch: int = 0
