"""What a fee replay replays: recorded L1 blocks, a load trace, and the batches that the posting policy makes.

The load does not answer to prices and is the same for every pricer. Per second, a Poisson number of
transactions; its mean is `mean_tps` times the exponential of an Ornstein-Uhlenbeck process (standard
deviation 0.4, 15 minutes), and about once an hour for two minutes four times that. Sizes are those of single
orders in batches (README.md), by kind. All from one seed.

Time goes by the second. A transaction's L1 origin lies `lag_blocks` behind L1's head, and a batch's report is
read as late, since the node waits for so many confirmations. The policy is asked at every L1 block, and when
the open batch is full; a batch is mined in the block after the one at which it was closed, at that block's
fees, without a tip (cost reports leave tips out), by the cheaper of calldata and blobs. Gas is that of the
project's contract. Blocks may be missing: the next one stands for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from l1_bridge.blobs import DATA_BYTES_PER_BLOB, GAS_PER_BLOB, blob_count
from l1_bridge.posting import POST_GAS, Limits, calldata_gas
from l1_bridge.posting_policy import L1Prices, PolicyTerms, RecentPrices, Waiting, decide
from l1_bridge.types import Fees
from tools.l1_fees import BlockFees

LAG_BLOCKS = 2
"""The node's default."""
ETH_PRICE_UUSD = 3_000_000_000
"""Of the replay: the recordings have none, and every figure but amounts of money is free of it."""
SIZES = (70, 76, 78, 84)
"""Bytes of a cancel, a post-only order, an order, a replacement."""
_SHARES = (0.30, 0.25, 0.30, 0.15)
_BATCH_BYTES = 64
_BLOCK_BYTES = 5
_BLOCKS_PER_S = 20
_SPREAD = 0.4
_CORRELATION_S = 900.0
_BURST_EVERY_S = 3_600.0
_BURST_S = 120
_BURST = 4.0
_RATE_S = 300.0
"""Time constant of the rate of bytes that the policy is told."""


@dataclass(slots=True)
class Posted:
    """One batch, as mined."""

    number: int
    charged_bytes: int
    """Of its transactions."""
    size_bytes: int
    """Encoded."""
    closed_s: int
    block: BlockFees
    gas: int
    blobs: int

    @property
    def cost_wei(self) -> int:
        return self.gas * self.block.base_fee_wei + self.blobs * GAS_PER_BLOB * self.block.blob_base_fee_wei


@dataclass(slots=True)
class Second:
    """What happens in a second, in this order: L1, then the batch's end, then transactions."""

    time_s: int
    origin: BlockFees | None
    reports: list[Posted]
    closed: Posted | None
    """The batch that ended before this second's transactions."""
    counts: tuple[int, ...]
    """Transactions by size, as `SIZES`."""
    batch: int
    """Number of the batch that holds them."""


@dataclass(slots=True)
class Replay:
    """All that pricers are shown. What is open or not mined at the recording's end is not in `batches`."""

    first: BlockFees
    data: str
    seconds: list[Second] = field(default_factory=list)
    batches: list[Posted] = field(default_factory=list)


def load_trace(seconds: int, seed: int, mean_tps: float) -> list[tuple[int, ...]]:
    """Transactions by size for each second; see the module's text."""
    rng = np.random.default_rng(seed)
    keep = np.exp(-1 / _CORRELATION_S)
    noise = rng.normal(0, _SPREAD * np.sqrt(1 - keep * keep), seconds)
    level = np.empty(seconds)
    value = 0.0
    for index in range(seconds):
        value = keep * value + noise[index]
        level[index] = value
    rate = mean_tps * np.exp(level - _SPREAD * _SPREAD / 2)
    for start in np.flatnonzero(rng.random(seconds) < 1 / _BURST_EVERY_S):
        rate[start : start + _BURST_S] *= _BURST
    counts = rng.poisson(np.outer(rate, _SHARES))
    return [tuple(row) for row in counts.tolist()]


def replay(
    blocks: list[BlockFees], seed: int, mean_tps: float, data: str = "auto", lag_blocks: int = LAG_BLOCKS
) -> Replay:
    """The recording with load and batches. Raises ValueError when it is too short for a batch."""
    if len(blocks) <= lag_blocks + 1:
        raise ValueError(f"{len(blocks)} blocks are too few to replay")
    loads = load_trace(blocks[-1].timestamp_s - blocks[lag_blocks].timestamp_s, seed, mean_tps)
    replayed = _Replayer(blocks, policy_terms(data), lag_blocks).run(loads)
    if not replayed.batches:
        raise ValueError("the recording is too short, or the load too low, for a single batch")
    return replayed


def policy_terms(data: str) -> PolicyTerms:
    """As the node's defaults: a batch fits into three blobs, or one transaction's calldata, and is full from
    15/16 of that on, since its last transactions make it larger."""
    room = Limits().max_calldata_bytes if data == "calldata" else 3 * DATA_BYTES_PER_BLOB
    return PolicyTerms(data=data, full_bytes=room - room // 16, backlog_bytes=2 * room)


class _Replayer:
    """State of the replay: L1's head, the open batch."""

    def __init__(self, blocks: list[BlockFees], terms: PolicyTerms, lag_blocks: int) -> None:
        self._blocks = blocks
        self._terms = terms
        self._lag = lag_blocks
        self._recent = RecentPrices()
        self._prices: L1Prices | None = None
        self._head = lag_blocks
        self._replay = Replay(blocks[0], terms.data)
        self._charged = 0
        self._size = _BATCH_BYTES
        self._opened_s: int | None = None
        self._rate = 0.0
        self._reported = 0
        self._number = 0

    def run(self, loads: list[tuple[int, ...]]) -> Replay:
        start_s = self._blocks[self._lag].timestamp_s
        for offset, counts in enumerate(loads):
            now_s = start_s + offset
            self._second(now_s, counts)
        return self._replay

    def _second(self, now_s: int, counts: tuple[int, ...]) -> None:
        before = self._head
        while self._head + 1 < len(self._blocks) and self._blocks[self._head + 1].timestamp_s <= now_s:
            self._head += 1
        moved = self._head != before or not self._replay.seconds
        if moved:
            head = self._blocks[self._head]
            self._prices = self._recent.observed(now_s, Fees(head.base_fee_wei, 0, head.blob_base_fee_wei))
        closed = None
        if self._charged and (moved or self._size >= self._terms.full_bytes):
            closed = self._ask(now_s)
        origin = self._blocks[self._head - self._lag]
        reports = list(self._reports(origin.number)) if moved else []
        self._replay.seconds.append(
            Second(now_s, origin if moved else None, reports, closed, counts, self._number)
        )
        self._take(now_s, counts)

    def _take(self, now_s: int, counts: tuple[int, ...]) -> None:
        size = sum(count * each for count, each in zip(counts, SIZES, strict=True))
        self._rate += (size - self._rate) / _RATE_S if self._rate else size
        if not size:
            return
        if self._opened_s is None:
            self._opened_s = now_s
        self._charged += size
        self._size += size + _BLOCK_BYTES * min(sum(counts), _BLOCKS_PER_S)

    def _ask(self, now_s: int) -> Posted | None:
        age_s = now_s - self._opened_s if self._opened_s is not None else 0
        waiting = Waiting(self._size, age_s, self._rate, prices=self._prices)
        if not decide(waiting, self._terms).post or self._head + 1 == len(self._blocks):
            return None
        block = self._blocks[self._head + 1]
        gas, blobs = self._way(block)
        posted = Posted(self._number, self._charged, self._size, now_s, block, gas, blobs)
        self._replay.batches.append(posted)
        self._number += 1
        self._charged, self._size, self._opened_s = 0, _BATCH_BYTES, None
        return posted

    def _way(self, block: BlockFees) -> tuple[int, int]:
        """Gas and blobs of posting the open batch in `block`."""
        data, calldata, blobs = self._terms.data, calldata_gas(0, self._size), blob_count(self._size)
        blob_wei = POST_GAS * block.base_fee_wei + blobs * GAS_PER_BLOB * block.blob_base_fee_wei
        if data == "calldata" or (data == "auto" and calldata * block.base_fee_wei <= blob_wei):
            return calldata, 0
        return POST_GAS, blobs

    def _reports(self, confirmed: int) -> Iterator[Posted]:
        batches = self._replay.batches
        while self._reported < len(batches) and batches[self._reported].block.number <= confirmed:
            yield batches[self._reported]
            self._reported += 1
