"""The Rollup contract as the bridge sees it: what it stores, what it logs, and how a batch is put to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from l1_bridge.abi import BadAnswer, Contract, contract
from l1_bridge.types import L1Client, L1Log, L1Refused, L1Reverted


@dataclass(frozen=True, slots=True)
class Batch:
    """A closed batch, ready to be posted.

    `system_leaf` is the System leaf after it, proved under `root` by `siblings` and `bits` (leaf to root);
    `inbox_next` is that leaf's position in the message queue.
    """

    number: int
    data: bytes
    prev_root: bytes
    root: bytes
    system_leaf: bytes
    siblings: Sequence[bytes]
    bits: bytes
    inbox_next: int


@dataclass(frozen=True, slots=True)
class BatchEvent:
    """A batch that was posted, as L1's log tells it."""

    number: int
    prev_root: bytes
    root: bytes
    commitment: bytes
    data_bytes: int
    blobs: int
    inbox_next: int
    inbox_count: int
    timestamp_ms: int
    poster: bytes
    l1_block: int
    l1_block_hash: bytes
    transaction_hash: bytes


@dataclass(frozen=True, slots=True)
class RollupInfo:
    """What is fixed at deployment; durations in seconds."""

    address: bytes
    inbox: bytes
    vault: bytes
    token: bytes
    chain_id: int
    """The rollup's own, in its EIP-712 domain."""
    deploy_block: int
    challenge_window_s: int
    forced_delay_s: int
    genesis_root: bytes


class RollupContract:
    """Reads one Rollup contract. All methods raise L1Unavailable, L1Refused or L1Reverted."""

    def __init__(self, client: L1Client, address: bytes):
        self.client = client
        self.address = address
        self.abi: Contract = contract("Rollup")

    async def info(self) -> RollupInfo:
        """Raises L1Refused when there is no Rollup at the address."""
        vault_abi = contract("Vault")
        try:
            vault = from_address(await self.read("vault"))
            token = await self.client.call(vault, vault_abi.call("token"))
            return RollupInfo(
                self.address,
                from_address(await self.read("inbox")),
                vault,
                from_address(vault_abi.result("token", token)),
                await self.read("chainId"),
                await self.read("deployBlock"),
                await self.read("challengeWindow"),
                await self.read("forcedDelay"),
                await self.root_of(0),
            )
        except (L1Reverted, BadAnswer):
            raise L1Refused(f"there is no Rollup contract at 0x{self.address.hex()}") from None

    async def read(self, function: str, *arguments: Any, block: int | str = "latest") -> Any:
        """The value of a view function."""
        answer = await self.client.call(self.address, self.abi.call(function, *arguments), block=block)
        return self.abi.result(function, answer)

    async def last_batch(self, block: int | str = "latest") -> int:
        """0 is genesis; also before the contract existed."""
        data = await self.client.call(self.address, self.abi.call("lastBatch"), block=block)
        return int(self.abi.result("lastBatch", data)) if data else 0

    async def finalized_batch(self) -> int:
        return int(await self.read("finalizedBatch"))

    async def root_of(self, number: int, block: int | str = "latest") -> bytes:
        return bytes(await self.read("rootOf", number, block=block))

    async def anchor(self, last: int, inbox_next: int) -> int:
        """The youngest batch whose then queued messages a batch that read `inbox_next` has all read.

        The contract decides whether it is young enough.
        """
        fits, beyond, step = 0, last + 1, 1  # counts do not fall; the last batches are the likely ones
        while beyond - fits > 1:
            number = max(beyond - step, (fits + beyond) // 2)
            _, _, _, _, _, inbox_count = await self.read("batchAt", number)
            if inbox_count <= inbox_next:
                fits = number
            else:
                beyond, step = number, 2 * step
        return fits

    async def posted(self, first: int, last: int, number: int | None = None) -> list[BatchEvent]:
        """Batches posted in L1 blocks first..last, in L1's order; or only batch `number`."""
        topic = None if number is None else number.to_bytes(32, "big")
        logs = await self.client.logs(self.address, [self.abi.topic("BatchPosted"), topic], first, last)
        return [self._batch_event(log) for log in logs]

    async def reverted_from(self, first: int, last: int) -> list[tuple[int, int, int]]:
        """What the guardian reverted in these L1 blocks: (first batch, last batch, L1 block)."""
        logs = await self.client.logs(self.address, [self.abi.topic("BatchesReverted")], first, last)
        events = [(self.abi.event("BatchesReverted", log), log) for log in logs]
        return [(event["from"], event["last"], log.block_number) for event, log in events]

    def post_call(self, batch: Batch, anchor: int, in_blobs: bool) -> bytes:
        """Calldata of the posting."""
        header = (batch.number, anchor, batch.prev_root, batch.root)
        proof = (batch.system_leaf, list(batch.siblings), batch.bits)
        return self.abi.call("postBatch", header, b"" if in_blobs else batch.data, proof)

    def _batch_event(self, log: L1Log) -> BatchEvent:
        event = self.abi.event("BatchPosted", log)
        return BatchEvent(
            event["number"],
            event["prevRoot"],
            event["newRoot"],
            event["commitment"],
            event["dataLength"],
            event["blobs"],
            event["inboxNext"],
            event["inboxCount"],
            event["timestampMs"],
            from_address(event["poster"]),
            log.block_number,
            log.block_hash,
            log.transaction_hash,
        )


def from_address(text: str) -> bytes:
    """20 bytes of an ABI-decoded address."""
    return bytes.fromhex(text[2:])
