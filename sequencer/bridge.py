"""The node's L1 side: the inbox follower feeds the executor, the poster takes what the committer has closed.

Both survive an L1 that is away. A reorg that takes back messages which no block has read yet only removes
them from the queue; one that takes back messages already read ends the node with InboxDiverged, because its
signed blocks can then never be posted and a person has to decide.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass

import structlog
import trio

from l1_bridge.blobs import KzgWorker
from l1_bridge.client import RpcClient
from l1_bridge.inbox import InboxDiverged, InboxFollower, Messages
from l1_bridge.keys import Signer
from l1_bridge.poster import Poster
from l1_bridge.posting import GWEI, Limits
from l1_bridge.posting_policy import RecentPrices
from l1_bridge.rollup import RollupContract, RollupInfo
from l1_bridge.types import L1Error
from sequencer.config import L1Section, PosterSection
from sequencer.l1_link import L1Link

log = structlog.get_logger("bridge")

PRICE_LOOK_S = 6.0
"""Between two looks at L1's fees: half the time of its blocks."""


@dataclass(slots=True)
class NodeBridge:
    """One node's follower and poster (`l1_link.Bridge`). `signer` pays for batches; None only follows."""

    client: RpcClient
    info: RollupInfo
    l1: L1Section
    posting: PosterSection
    signer: Signer | None

    async def run(self, link: L1Link, *, task_status: trio.TaskStatus[None]) -> None:
        """Runs until cancelled; ends its KZG process. Raises InboxDiverged, KeyRefused."""
        kzg = KzgWorker()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._follow, link)
                if self.signer is not None:
                    poster = self._new_poster(link, self.signer, kzg)
                    link.poster = poster.status
                    nursery.start_soon(poster.run)
                    nursery.start_soon(_notify, link, poster)
                    nursery.start_soon(self._watch_prices, link)
                task_status.started()
        finally:
            kzg.close()

    def _new_poster(self, link: L1Link, signer: Signer, kzg: KzgWorker) -> Poster:
        limits = Limits(
            max_fee_wei=self.posting.max_fee_gwei * GWEI,
            max_blob_fee_wei=self.posting.max_blob_fee_gwei * GWEI,
            balance_floor_wei=self.posting.min_balance_wei,
            bump_after_s=self.posting.bump_s,
            data=self.posting.data,
            confirmations=self.l1.confirmations,
        )
        contract = RollupContract(self.client, self.info.address)
        return Poster(contract, signer, link, link, limits, link, kzg, poll_s=self.l1.poll_ms / 1000)

    async def _watch_prices(self, link: L1Link) -> None:
        recent = RecentPrices()
        while True:
            try:
                link.priced(recent.observed(trio.current_time(), await self.client.fees()))
            except L1Error as error:
                log.warning("L1's fees cannot be read", error=str(error))
            await trio.sleep(PRICE_LOOK_S)

    async def _follow(self, link: L1Link) -> None:
        follower = InboxFollower(
            self.client,
            self.info.inbox,
            max(link.recovered_l1_block, self.info.deploy_block),
            link.inbox_next,
            link.inbox_hash,
            confirmations=self.l1.confirmations,
            poll_s=self.l1.poll_ms / 1000,
            executed=link,
        )
        reported = follower.next_index
        async with aclosing(follower.updates()) as updates:
            async for update in updates:
                if isinstance(update, Messages):
                    await link.inbox.put(list(update.messages), update.origin)
                    reported = update.first_index + len(update.messages)
                    link.seen()
                    continue
                first = update.from_index
                if not link.inbox.take_back(reported - first, update.l1_block):
                    raise InboxDiverged(
                        f"L1 took back messages from {first} on, which sealed blocks have read"
                    )
                reported = first


async def _notify(link: L1Link, poster: Poster) -> None:
    while True:
        await link.committed.wait()
        link.committed = trio.Event()
        poster.notify()
