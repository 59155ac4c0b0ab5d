"""For the bridge's tests: a deployed rollup on either L1, and hand-made batches that the contract accepts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import Random

from l1_bridge.abi import contract
from l1_bridge.client import HttpTransport, RpcClient, connect
from l1_bridge.deploy import DeployConfig, Deployment, Sender, deploy
from l1_bridge.keys import devnet_signer
from l1_bridge.rollup import Batch, RollupContract
from state.hashing import keccak
from state.keys import PARAMETERS_KEY, SYSTEM_KEY
from state.leaves import System
from state.proofs import branch_hash, leaf_hash

ROLLUP_CHAIN_ID = 714_001
GOVERNOR, POSTER, GUARDIAN, TRADER, OTHER_POSTER = range(5)
OTHER_LEAF = b"parameters"
SIBLING = leaf_hash(PARAMETERS_KEY, OTHER_LEAF)
BIT = 6


def root_with(system: System) -> bytes:
    """Root of a state with this System leaf and one other leaf."""
    return branch_hash(BIT, leaf_hash(SYSTEM_KEY, system.encode()), SIBLING)


GENESIS = System(next_account=1, next_market=1, next_sequence=1, next_trade=1, next_withdrawal=1)


def make_batches(
    count: int, seed: int, size: int = 3_000, timestamp_ms: int = 1_700_000_000_000
) -> list[Batch]:
    """Batches 1..count over meaningless data, each continuing the one before, none reading messages."""
    random = Random(seed)
    system, batches = GENESIS, []
    for number in range(1, count + 1):
        data = random.randbytes(size)
        following = replace(
            system, batch_number=number, batch_cursor=len(data), timestamp_ms=timestamp_ms + number
        )
        batches.append(
            Batch(
                number,
                data,
                root_with(system),
                root_with(following),
                following.encode(),
                [SIBLING],
                bytes([BIT]),
                following.inbox_next,
            )
        )
        system = following
    return batches


class Batches:
    """A `poster.BatchSource` in memory."""

    def __init__(self, batches: list[Batch], closed: int | None = None):
        self.all = {batch.number: batch for batch in batches}
        self.closed = len(batches) if closed is None else closed

    def batch(self, number: int) -> Batch | None:
        return self.all.get(number) if number <= self.closed else None

    def root(self, number: int) -> bytes | None:
        if number == 0:
            return root_with(GENESIS)
        return self.all[number].root if number <= self.closed and number in self.all else None


class MemoryStore:
    """A `poster.IntentStore` in memory, which counts what was written."""

    def __init__(self) -> None:
        self.records: dict[int, bytes] = {}

    def get(self, number: int) -> bytes | None:
        return self.records.get(number)

    def put(self, number: int, record: bytes | None) -> None:
        if record is None:
            self.records.pop(number, None)
        else:
            self.records[number] = record


@dataclass
class Bridge:
    """A deployment and a client to talk to it."""

    url: str
    client: RpcClient
    transport: HttpTransport
    deployment: Deployment
    rollup: RollupContract

    def sender(self, index: int) -> Sender:
        return Sender(self.client, devnet_signer(index), poll_s=0.02)


@contextmanager
def connected(url: str) -> Iterator[tuple[RpcClient, HttpTransport]]:
    client, transport = connect(url)
    try:
        yield client, transport
    finally:
        transport.close()


async def deployed(
    url: str,
    client: RpcClient,
    transport: HttpTransport,
    genesis_root: bytes | None = None,
    challenge_window_s: int = 30,
) -> Bridge:
    """Deploys a rollup whose genesis is `GENESIS`, unless told otherwise."""
    sender = Sender(client, devnet_signer(GOVERNOR), poll_s=0.02)
    config = DeployConfig(
        rollup_chain_id=ROLLUP_CHAIN_ID,
        genesis_root=genesis_root or root_with(GENESIS),
        governor=devnet_signer(GOVERNOR).address,
        poster=devnet_signer(POSTER).address,
        guardian=devnet_signer(GUARDIAN).address,
        challenge_window_s=challenge_window_s,
        minimum_deposit_uusd=1,
        forced_delay_s=3_600,
        escape_delay_s=7_200,
    )
    deployment = await deploy(sender, config)
    rollup = RollupContract(client, deployment.rollup_address)
    return Bridge(url, client, transport, deployment, rollup)


async def grant_poster(bridge: Bridge, index: int) -> None:
    """Gives another development account the poster's role."""
    call = contract("Rollup").call("grantRole", keccak(b"POSTER"), devnet_signer(index).address)
    await bridge.sender(GOVERNOR).send(bridge.deployment.rollup_address, call)
