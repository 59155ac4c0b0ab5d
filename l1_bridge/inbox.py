"""Following the L1 inbox: deposits, forced messages, governor's messages and cost reports, in order.

Messages surface only from blocks with `confirmations` blocks on top. Every message's index must follow the
one before and its rolling hash must be ours, so a node that leaves out a log is found out and asked again;
and what was read up to a block is compared with the contract's own count there.

A reorg deeper than the confirmations is noticed by the hashes of the blocks read up to: the follower goes
back to the last one that still stands and reports `Reorged`, naming the first message that may be another
now. Messages that the rollup has consumed already and that L1 took back cannot be helped: `InboxDiverged`. No
more can an origin of executed blocks whose header says other fees now: what L1 makes of their batches would
not be what was executed. It is looked at after every reorg, and when the follower starts.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass, replace
from typing import Protocol

import structlog
import trio

from l1_bridge.abi import contract
from l1_bridge.types import L1Client, L1Error, L1Log, L1Refused, L1Reverted, L1Unavailable
from state.block import L1Message, L1Origin
from state.hashing import keccak

log = structlog.get_logger("inbox")

BLOCKS_PER_READ = 2_000
PLACES_KEPT = 128
"""How many read positions are remembered for going back."""
BLOCKS_PER_POLL = 5_000
NO_HASH = bytes(32)


class InboxDiverged(Exception):
    """L1 no longer has messages that the rollup consumed, or has others: an operator must decide."""


@dataclass(frozen=True, slots=True)
class Messages:
    """All messages up to the L1 block `origin` that were not reported before; possibly none."""

    first_index: int
    messages: tuple[L1Message, ...]
    hashes: tuple[bytes, ...]
    """The rolling hash after each message."""
    origin: L1Origin


@dataclass(frozen=True, slots=True)
class Reorged:
    """Messages from this index on were taken back by L1; what replaces them follows."""

    from_index: int
    l1_block: int
    """Up to which the remaining messages are complete."""


Update = Messages | Reorged


@dataclass(frozen=True, slots=True)
class _Place:
    """Read up to here: all messages in blocks up to `block`."""

    block: int
    block_hash: bytes | None
    """None when the position came from a stored state, which does not keep it."""
    next_index: int
    rolling_hash: bytes
    origin: L1Origin | None = None
    """The block as an origin; None as above."""


def rolling_hash(before: bytes, message: L1Message) -> bytes:
    """The inbox's hash after one more message (PROTOCOL section 4)."""
    head = bytes([message.kind]) + message.sender + message.l1_block.to_bytes(8, "big")
    return keccak(before + head + message.payload)


class Executed(Protocol):
    """What blocks have been made of L1's fees."""

    @property
    def l1_block(self) -> int:
        """Number of the last block's origin; 0 when there is none."""

    def agrees(self, origin: L1Origin) -> bool:
        """Whether this is what they were made of, given the origin of that number."""


class InboxReader:
    """Reads ranges of the inbox's log and checks them; keeps no position."""

    def __init__(self, client: L1Client, inbox: bytes):
        self.client = client
        self.address = inbox
        self._abi = contract("Inbox")

    async def read(
        self, first_block: int, last_block: int, next_index: int, before: bytes
    ) -> list[tuple[L1Message, bytes]]:
        """Messages from `next_index` on in these blocks, each with the rolling hash after it.

        `before` is the rolling hash before `next_index`; earlier messages in the range are skipped. Raises
        L1Unavailable when the log has gaps, InboxDiverged when the first one does not continue `before`.
        """
        logs = await self.client.logs(
            self.address, [self._abi.topic("MessageQueued")], first_block, last_block
        )
        found: list[tuple[L1Message, bytes]] = []
        for entry in logs:
            index, message, after = self._parse(entry)
            if index < next_index:
                continue
            if index != next_index + len(found):
                raise L1Unavailable(f"the inbox's log goes from {next_index + len(found)} to {index}")
            if rolling_hash(found[-1][1] if found else before, message) != after:
                if found:
                    raise L1Unavailable(f"inbox message {index} does not fit its rolling hash")
                raise InboxDiverged(f"inbox message {index} does not continue what was consumed before it")
            found.append((message, after))
        return found

    async def count(self, block: int) -> int:
        """How many messages were queued up to a block."""
        answer = await self.client.call(self.address, self._abi.call("count"), block=block)
        return int(self._abi.result("count", answer)) if answer else 0

    async def start_of(self, next_index: int, first: int, earliest: int) -> int:
        """A block not after the one with message `next_index`; from `earliest` to `first`.

        A node that no longer knows the state of a block is taken to have had more messages by then.
        """
        while first > earliest:
            try:
                if await self.count(first - 1) <= next_index:
                    break
            except L1Refused:
                pass
            first = max(first - BLOCKS_PER_READ, earliest)
        return first

    async def hash_at(self, messages: int) -> bytes | None:
        """The contract's rolling hash of the first `messages`; None when it has fewer."""
        try:
            answer = await self.client.call(self.address, self._abi.call("hashAt", messages))
        except L1Reverted:
            return None
        return bytes(self._abi.result("hashAt", answer))

    def _parse(self, entry: L1Log) -> tuple[int, L1Message, bytes]:
        event = self._abi.event("MessageQueued", entry)
        sender = bytes.fromhex(event["sender"][2:])
        message = L1Message(event["kind"], sender, event["l1Block"], event["payload"])
        if message.l1_block != entry.block_number:
            raise L1Unavailable(f"inbox message {event['index']} is logged in another block than it says")
        return event["index"], message, event["rollingHash"]


class InboxFollower:
    """Follows the inbox from a position in it: the one the state has (System leaf), or the beginning.

    `next_index` and `consumed_hash` are the state's `inbox_next` and `inbox_hash`; `from_block` is its
    `l1_block`, or the deployment's block. `executed` says what blocks have been made of L1's fees; None where
    nobody makes blocks.
    """

    def __init__(
        self,
        client: L1Client,
        inbox: bytes,
        from_block: int,
        next_index: int = 0,
        consumed_hash: bytes = NO_HASH,
        confirmations: int = 2,
        poll_s: float = 2.0,
        executed: Executed | None = None,
    ):
        self._client = client
        self._reader = InboxReader(client, inbox)
        self._confirmations = confirmations
        self._poll_s = poll_s
        start = _Place(max(from_block - 1, 0), None, next_index, consumed_hash)
        self._places = deque([start], maxlen=PLACES_KEPT)
        self._executed = executed
        self._is_suspect = True
        """Whether L1 may have another block now where blocks had their origin."""
        self._started = False
        self.last_error = ""

    @property
    def next_index(self) -> int:
        """Of the next message to report."""
        return self._places[-1].next_index

    @property
    def origin(self) -> L1Origin | None:
        """Up to which messages are complete; None before anything was read."""
        return self._places[-1].origin

    async def updates(self) -> AsyncGenerator[Update, None]:
        """Updates without end; close the generator when done (`contextlib.aclosing`).

        L1 being away only delays them. Raises InboxDiverged.
        """
        failures = 0
        while True:
            try:
                update = await self.poll()
                failures, self.last_error = 0, ""
            except L1Error as error:
                failures += 1
                self.last_error = str(error)
                log.warning("the inbox cannot be read", error=str(error), failures=failures)
                update = None
            if update is not None:
                yield update
                continue
            await trio.sleep(self._poll_s * min(2**failures, 16))

    async def poll(self) -> Update | None:
        """The next update, None when there is nothing new. Raises L1Error, InboxDiverged."""
        head = await self._client.head()
        safe = head.number - self._confirmations
        if not self._started:
            await self._check_consumed()
            place = self._places[-1]
            first = place.block + 1
            first = await self._reader.start_of(place.next_index, first, max(first - BLOCKS_PER_POLL, 0))
            self._places[-1] = replace(place, block=max(first - 1, 0))
            self._started = True
        if (reorged := await self._check_chain()) is not None:
            self._is_suspect = True
            return reorged
        if self._is_suspect:
            await self._check_executed()
            self._is_suspect = False
        place = self._places[-1]
        if safe <= place.block:
            return None
        until = min(safe, place.block + BLOCKS_PER_POLL)
        found = await self._reader.read(place.block + 1, until, place.next_index, place.rolling_hash)
        next_index = place.next_index + len(found)
        if until == safe and await self._reader.count(until) != next_index:
            raise L1Unavailable(f"the inbox's log up to block {until} is not complete")
        block = await self._client.block(until)
        if block is None:
            raise L1Unavailable(f"block {until} is gone")
        after = found[-1][1] if found else place.rolling_hash
        self._places.append(_Place(until, block.hash, next_index, after, block.origin))
        messages = tuple(message for message, _ in found)
        return Messages(place.next_index, messages, tuple(each for _, each in found), block.origin)

    async def _check_consumed(self) -> None:
        """What the state consumed must be what L1 has."""
        place = self._places[-1]
        theirs = await self._reader.hash_at(place.next_index)
        if theirs != place.rolling_hash:
            raise InboxDiverged(f"the first {place.next_index} messages on L1 are not those consumed")

    async def _check_executed(self) -> None:
        """The last block's origin must still say what it was made of."""
        number = self._executed.l1_block if self._executed is not None else 0
        if self._executed is None or number == 0:
            return
        block = await self._client.block(number)
        if block is None:
            raise L1Unavailable(f"block {number} is gone and not replaced yet")
        if not self._executed.agrees(block.origin):
            raise InboxDiverged(f"block {number} on L1 has other fees than sealed blocks were made with")

    async def _check_chain(self) -> Reorged | None:
        """Goes back to the last read position whose block still stands."""
        lost = False
        while (place := self._places[-1]).block_hash is not None:
            block = await self._client.block(place.block)
            if block is None:
                raise L1Unavailable(f"block {place.block} is gone and not replaced yet")
            if block.hash == place.block_hash:
                break
            lost = True
            self._places.pop()
            if not self._places:
                raise InboxDiverged(f"L1 reorganised below block {place.block}, deeper than is remembered")
        if not lost:
            return None
        if place.block_hash is None:
            await self._check_consumed()
        log.warning("an L1 reorg took back inbox messages", from_index=place.next_index, block=place.block)
        return Reorged(place.next_index, place.block)
