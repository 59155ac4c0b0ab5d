"""Where the node and its L1 side touch: what the poster reads and stores, and what it reports.

`L1Link` is the poster's `BatchSource`, `IntentStore` and `Listener` over the node's store, tree and stages,
and the inbox follower's `Executed`; the follower puts messages into `inbox`. The L1 side itself (`Bridge`) is
made by whoever starts the node, so that the node runs without one in tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import trio

from l1_bridge.poster_types import PosterStatus
from l1_bridge.posting_policy import L1Prices
from l1_bridge.rollup import Batch, BatchEvent
from l1_bridge.types import L1Receipt
from sequencer.closing import L1Side
from sequencer.committer import TreeAccess
from sequencer.executor import Inbox
from sequencer.metrics import Metrics
from sequencer.receipts import Stages
from state import keys
from state.block import L1Origin
from state.leaves import L1Price, System
from state.proofs import MembershipProof
from state.store import Store
from state.view import StateView

PRICE_KEPT_S = 120.0
"""Older fees are not L1's price any more: ten of its blocks."""


class L1Link:
    """See the module's text. `batch`, `root`, `get` and `put` block; any thread may call them."""

    def __init__(
        self,
        store: Store,
        trees: TreeAccess,
        inbox: Inbox,
        stages: Stages,
        metrics: Metrics,
        view: StateView,
        on_seen: Callable[[], None],
    ) -> None:
        self.inbox = inbox
        self._view = view
        recovered: System = view.get(keys.SYSTEM_KEY)
        self.inbox_next = recovered.inbox_next
        """The first L1 message that the recovered state has not consumed."""
        self.inbox_hash = recovered.inbox_hash
        """Rolling hash of those that it has."""
        self.recovered_l1_block = recovered.l1_block
        """Up to which L1 block they may reach."""
        self.stages = stages
        self._store = store
        self._trees = trees
        self._metrics = metrics
        self._on_seen = on_seen
        self.committed = trio.Event()
        """Set when a batch was committed; the bridge replaces it when it has seen it."""
        self.poster: PosterStatus | None = None
        """What the poster is doing and has spent; set by the bridge that runs one."""
        self.posted_batch = 0
        self.confirmed_batch = 0
        self.finalized_batch = 0
        self._prices: L1Prices | None = None
        self._priced_at_s = 0.0

    def seen(self) -> None:
        """L1 has answered, and messages up to its confirmed head have been read."""
        self._on_seen()

    def priced(self, prices: L1Prices) -> None:
        """L1's fees were looked at."""
        self._prices, self._priced_at_s = prices, trio.current_time()

    def side(self) -> L1Side | None:
        """L1 as the closing of batches has to see it; None when no poster runs here."""
        if self.poster is None:
            return None
        fresh = trio.current_time() - self._priced_at_s <= PRICE_KEPT_S
        return L1Side(self._prices if fresh else None, self.posted_batch)

    # the follower's Executed

    @property
    def l1_block(self) -> int:
        """Number of the last block's L1 origin."""
        system: System = self._view.get(keys.SYSTEM_KEY)
        return system.l1_block

    def agrees(self, origin: L1Origin) -> bool:
        """Whether the last block was made with these fees, given the L1 block of its origin's number.

        The base fee tells: it is made of what all blocks before used, so with another history it is another.
        """
        price: L1Price = self._view.get(keys.L1_PRICE_KEY)
        return price.base_fee_wei == origin.base_fee_wei

    # the poster's BatchSource

    def batch(self, number: int) -> Batch | None:
        """A closed batch with the proof of its registers, or None. Raises StoreError."""
        stored = self._store.batch(number)
        before = self._store.batch(number - 1)
        if stored is None or before is None or number == 0:
            return None
        with self._trees.lock:
            proof = self._trees.tree.at(number).prove(keys.SYSTEM_KEY)
        assert isinstance(proof, MembershipProof)
        system = System.decode(proof.value)
        siblings, bits = proof.siblings, proof.bits
        return Batch(
            number, stored.data, before.root, stored.root, proof.value, siblings, bits, system.inbox_next
        )

    def root(self, number: int) -> bytes | None:
        """The state root after a batch, or None. Raises StoreError."""
        stored = self._store.batch(number)
        return None if stored is None else stored.root

    # the poster's IntentStore

    def get(self, number: int) -> bytes | None:
        """Raises StoreError."""
        return self._store.posting(number) or None

    def put(self, number: int, record: bytes | None) -> None:
        """Raises StoreError."""
        self._store.put_posting_sync(number, record or b"")

    # the poster's Listener

    def posted(self, event: BatchEvent, receipt: L1Receipt) -> None:
        """A batch is on L1."""
        self.posted_batch = max(self.posted_batch, event.number)
        self._metrics.l1_spend.inc(receipt.cost_wei)
        self._move_stages()

    def confirmed(self, number: int) -> None:
        """All batches up to this one are deep enough in L1."""
        self.confirmed_batch = max(self.confirmed_batch, number)
        self.posted_batch = max(self.posted_batch, number)
        self._move_stages()

    def dropped(self, first: int) -> None:
        """A reorg dropped the batches from this one on."""
        self.posted_batch = min(self.posted_batch, first - 1)
        self._move_stages()

    def finalized(self, number: int) -> None:
        """No batch up to this one can be disputed any more."""
        self.finalized_batch = max(self.finalized_batch, number)
        self.posted_batch = max(self.posted_batch, number)
        self._move_stages()

    def _move_stages(self) -> None:
        self.stages.posted_block = self._last_block(self.posted_batch)
        self.stages.finalized_block = self._last_block(self.finalized_batch)

    def _last_block(self, batch: int) -> int:
        stored = self._store.batch(batch)
        return stored.last_block if stored is not None else 0


class Bridge(Protocol):
    """The L1 side of a node: follower of the inbox, poster, tracker of what is final."""

    async def run(self, link: L1Link, *, task_status: trio.TaskStatus[None]) -> None:
        """Runs until cancelled; survives an L1 that is away. Calls `link.seen` when L1 has been seen."""
