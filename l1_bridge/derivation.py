"""The rollup's history from L1 alone: which batches stand, their data, and the messages they could read.

Given a Rollup's address, everything comes from its logs, from the transactions that emitted them (calldata)
or their blobs, and from the inbox's log. Data is checked against the contract's commitment, blobs against
their versioned hashes, messages against the rolling hash, so a lying or broken node can stop a verifier but
not mislead it; but the headers of L1 origins, which set the price of a byte, are believed. Only blocks with
`confirmations` blocks on top are read.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import trio

from l1_bridge.abi import AbiError
from l1_bridge.batch import blob_commitment, data_commitment
from l1_bridge.blobs import BlobError, KzgWorker, unpack
from l1_bridge.client import RpcClient
from l1_bridge.inbox import BLOCKS_PER_READ, NO_HASH, InboxReader
from l1_bridge.keys import DEVNET_CHAIN_IDS
from l1_bridge.recovery import decoded
from l1_bridge.rollup import BatchEvent, RollupContract, RollupInfo
from l1_bridge.types import L1Error, L1Unavailable
from state.block import L1Message, L1Origin

HEADERS_AT_ONCE = 8


class DataMissing(L1Unavailable):
    """A posted batch's data cannot be had from the sources given."""


class HistoryChanged(Exception):
    """L1's history no longer leads to what was verified: a deep reorg, or the guardian reverted batches."""


@dataclass(frozen=True, slots=True)
class DerivedBatch:
    """A posted batch with its data, and what there was for it to read of L1.

    `messages` are those of the inbox not read before that were queued when it was posted; `origins` the L1
    blocks before its posting that its blocks name, by number.
    """

    event: BatchEvent
    data: bytes
    messages: tuple[L1Message, ...]
    origins: Mapping[int, L1Origin]


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where derivation stands after a batch: enough to go on later."""

    batch: int
    root: bytes
    inbox_next: int
    inbox_hash: bytes
    l1_block: int
    """The block in which the batch was posted; 0 before the first one."""


class BlobSource:
    """Blobs from a beacon node, or from a development chain that serves them on the same path."""

    def __init__(self, client: RpcClient, beacon_url: str, l1_chain_id: int, kzg: KzgWorker):
        self._client = client
        self._kzg = kzg
        self._url = beacon_url.rstrip("/")
        self._blocks_are_slots = l1_chain_id in DEVNET_CHAIN_IDS
        self._genesis: tuple[int, int] | None = None

    async def fetch(self, l1_block: int, hashes: Sequence[bytes]) -> list[bytes]:
        """The blobs of these versioned hashes, in that order, each checked. Raises DataMissing."""
        slot = l1_block if self._blocks_are_slots else await self._slot(l1_block)
        blobs = await self._client.blobs(self._url, slot, hashes)
        try:
            found = dict(zip(await self._kzg.blob_hashes(blobs), blobs, strict=True))
        except BlobError as error:
            raise DataMissing(f"blobs of L1 block {l1_block}: {error}") from None
        missing = [each for each in hashes if each not in found]
        if missing:
            raise DataMissing(
                f"{len(missing)} of {len(hashes)} blobs of L1 block {l1_block} are not to be had"
            )
        return [found[each] for each in hashes]

    async def _slot(self, l1_block: int) -> int:
        if self._genesis is None:
            start = await self._client.get_json(
                f"{self._url}/eth/v1/beacon/genesis", lambda answer: int(answer["data"]["genesis_time"])
            )
            slot = await self._client.get_json(
                f"{self._url}/eth/v1/config/spec", lambda answer: int(answer["data"]["SECONDS_PER_SLOT"])
            )
            self._genesis = (start, slot)
        block = await self._client.block(l1_block)
        if block is None:
            raise L1Unavailable(f"block {l1_block} is gone")
        start_s, slot_s = self._genesis
        return (block.timestamp_s - start_s) // slot_s


class Derivation:
    """Reads batches in order, from a cursor on.

    It runs ahead of verification and takes each batch's claims (root, position in the inbox) as where the
    next one starts: if a claim is wrong, verification ends with that batch.
    """

    def __init__(
        self, client: RpcClient, info: RollupInfo, blobs: BlobSource, cursor: Cursor, confirmations: int = 2
    ):
        self._client = client
        self._info = info
        self._rollup = RollupContract(client, info.address)
        self._inbox = InboxReader(client, info.inbox)
        self._blobs = blobs
        self._confirmations = confirmations
        self._cursor = cursor
        self._read_to = max(cursor.l1_block, info.deploy_block) - 1
        self._messages_to = self._read_to
        self._waiting: deque[BatchEvent] = deque()
        self._messages: deque[L1Message] = deque()
        self._message_next = cursor.inbox_next
        self._message_hash = cursor.inbox_hash
        self.last_batch = cursor.batch
        """The contract's last batch when it was last looked at."""

    async def start(self) -> None:
        """Raises HistoryChanged when the contract does not have what the cursor says."""
        if await self._rollup.last_batch() < self._cursor.batch:
            raise HistoryChanged(f"batch {self._cursor.batch} is no longer on L1")
        if await self._rollup.root_of(self._cursor.batch) != self._cursor.root:
            raise HistoryChanged(f"batch {self._cursor.batch} has another root on L1 now")
        if await self._inbox.hash_at(self._cursor.inbox_next) != self._cursor.inbox_hash:
            raise HistoryChanged("L1 has other messages than those consumed")
        first = max(self._cursor.l1_block, self._info.deploy_block)
        if self._cursor.inbox_next == 0 and self._cursor.inbox_hash == NO_HASH:
            first = self._info.deploy_block
        next_index, deployed = self._cursor.inbox_next, self._info.deploy_block
        self._messages_to = await self._inbox.start_of(next_index, first, deployed) - 1

    async def next(self) -> DerivedBatch | None:
        """The next batch with its data; None when L1 has no further one deep enough.

        Raises HistoryChanged, DataMissing, L1Unavailable, L1Refused. It may be called again afterwards.
        """
        if not self._waiting:
            await self._read_events()
        if not self._waiting:
            return None
        event = self._waiting[0]
        if event.prev_root != self._cursor.root or event.number != self._cursor.batch + 1:
            raise HistoryChanged(f"batch {event.number} does not continue batch {self._cursor.batch}")
        data = await self._fetch(event)
        origins = await self._read_origins(event, data)
        await self._read_messages(event)
        start = self._message_next - len(self._messages)
        messages = tuple(self._messages)[: event.inbox_count - start]
        for _ in range(event.inbox_next - start):
            self._messages.popleft()
        self._waiting.popleft()
        self._cursor = Cursor(event.number, event.root, event.inbox_next, NO_HASH, event.l1_block)
        return DerivedBatch(event, data, messages, origins)

    async def _read_events(self) -> None:
        """Reads on until some batch is found; those that the guardian took back are left out."""
        head = (await self._client.head()).number
        safe = head - self._confirmations
        while not self._waiting and self._read_to < safe:
            until = min(safe, self._read_to + BLOCKS_PER_READ)
            events = await self._rollup.posted(self._read_to + 1, until)
            self.last_batch = await self._rollup.last_batch()
            for event in events:
                if event.number <= self._cursor.batch:
                    if event.l1_block > self._cursor.l1_block:
                        raise HistoryChanged(f"batch {event.number} was posted again")
                    continue
                while self._waiting and self._waiting[-1].number >= event.number:
                    self._waiting.pop()
                self._waiting.append(event)
            self._read_to = until
        while self._waiting and self._waiting[-1].number > self.last_batch:
            self._waiting.pop()

    async def _fetch(self, event: BatchEvent) -> bytes:
        transaction = await self._client.transaction(event.transaction_hash)
        if transaction is None:
            raise DataMissing(f"the transaction that posted batch {event.number} is not to be had")
        if event.blobs:
            hashes = transaction.blob_hashes
            if blob_commitment(hashes, event.data_bytes) != event.commitment:
                raise DataMissing(f"the blobs of batch {event.number} do not fit its commitment")
            return unpack(await self._blobs.fetch(event.l1_block, hashes), event.data_bytes)
        try:
            data: bytes = self._rollup.abi.arguments("postBatch", transaction.data)["data"]
        except AbiError as error:
            raise DataMissing(f"batch {event.number}: {error}") from None
        if not data or data_commitment(data) != event.commitment:
            raise DataMissing(f"the data of batch {event.number} does not fit its commitment")
        return data

    async def _read_origins(self, event: BatchEvent, data: bytes) -> dict[int, L1Origin]:
        """Of the blocks that the batch names; one that was not there before its posting has none."""
        batch = await trio.to_thread.run_sync(decoded, data)
        numbers = sorted({block.l1_block for block in batch.blocks if block.l1_block < event.l1_block})
        origins: dict[int, L1Origin] = {}
        failures: list[L1Error] = []

        async def read(number: int) -> None:
            try:
                block = await self._client.block(number)
                if block is None:
                    raise L1Unavailable(f"block {number} is gone")
                origins[number] = block.origin
            except L1Error as error:
                failures.append(error)

        for start in range(0, len(numbers), HEADERS_AT_ONCE):
            async with trio.open_nursery() as nursery:
                for number in numbers[start : start + HEADERS_AT_ONCE]:
                    nursery.start_soon(read, number)
            if failures:
                raise failures[0]
        return origins

    async def _read_messages(self, event: BatchEvent) -> None:
        """Reads the inbox up to the block of the posting, by which `inbox_count` messages were queued."""
        while self._message_next < event.inbox_count and self._messages_to < event.l1_block:
            until = min(event.l1_block, self._messages_to + BLOCKS_PER_READ)
            found = await self._inbox.read(
                self._messages_to + 1, until, self._message_next, self._message_hash
            )
            for message, after in found:
                self._messages.append(message)
                self._message_next += 1
                self._message_hash = after
            self._messages_to = until
        if self._message_next < event.inbox_count:
            raise L1Unavailable(f"the inbox's log up to block {event.l1_block} is not complete")
