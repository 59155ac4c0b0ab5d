"""What L1 costs, on real EVMs: gas per order as calldata and as blobs, deposits, and claiming a withdrawal.

On the embedded L1, and on anvil where it is installed. The rollup is one in mid life (`tools.midlife`): the
batches are signed flow from the tape, executed, encoded and hashed as a node does it; the poster itself
posts them, and the contract accepts them. Gas is what the receipts say.

The same postings are then read back as a verifier reads them: what L1 adds to replaying (`bench_verify`).
"""

from __future__ import annotations

import math
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import trio
from eth_account import Account

from l1_bridge.abi import contract
from l1_bridge.anvil import Anvil, AnvilMissing
from l1_bridge.blobs import DATA_BYTES_PER_BLOB, KzgWorker, blob_count
from l1_bridge.client import RpcClient, connect
from l1_bridge.deploy import (
    DeployConfig,
    Deployment,
    Sender,
    deploy,
    deposit,
    govern,
    list_instrument,
    mint_test_dollars,
    set_publishers,
)
from l1_bridge.derivation import BlobSource, Cursor, Derivation
from l1_bridge.embedded import EmbeddedL1
from l1_bridge.inbox import NO_HASH, InboxFollower, Messages
from l1_bridge.keys import DEVNET_KEYS, devnet_signer
from l1_bridge.poster import Poster
from l1_bridge.posting import Idle, Limits
from l1_bridge.rollup import RollupContract
from l1_bridge.types import L1Receipt
from l1_bridge.withdrawals import claim, claim_of
from sequencer import logs
from sequencer.config import BatchesSection
from state.actions import Withdraw
from state.block import L1Message
from state.eip712 import Domain
from state.keys import withdrawal_key
from state.signatures import address_of
from tools.bench_codec import Markets, markets_of, read_trades
from tools.devnet import perpetual
from tools.figure import Figure
from tools.midlife import (
    PUBLISHERS,
    WITHDRAWALS,
    Filled,
    Sequencer,
    Timed,
    Traders,
    envelope,
    first_prices,
    population,
    write_start,
)

ROLLUP_CHAIN_ID = 421_614
GOVERNOR, POSTER, DEPOSITOR, PERMITTER = 0, 1, 3, 4
WINDOW_S = 3_600
HEAD_BYTES = 64
"""Kept free for the batch's head."""
CALLDATA_BYTES = Limits().max_calldata_bytes - HEAD_BYTES
BLOB_BYTES = DATA_BYTES_PER_BLOB - HEAD_BYTES
NODE_BATCH = "the node's batch"
BATCH_BYTES = BatchesSection().max_bytes
"""Of the node's batches under load, unless configured otherwise."""
SMALL_ORDERS = 20
DEPOSIT_UUSD = 250_123_456
WITHDRAWN_UUSD = 99_000_000
SINGLE_TRADES, TRADES = 2_500, 9_000
MAX_ORDER_GAS, MAX_CLAIM_GAS, MAX_DEPOSIT_GAS = 100, 120_000, 100_000
POST_TICKS = 200


class _Intents:
    """A `poster.IntentStore` in memory."""

    def __init__(self) -> None:
        self._records: dict[int, bytes | None] = {}

    def get(self, number: int) -> bytes | None:
        return self._records.get(number)

    def put(self, number: int, record: bytes | None) -> None:
        self._records[number] = record


@dataclass(slots=True)
class Bench:
    """One L1 with the contracts, and the rollup that posts to it."""

    name: str
    url: str
    client: RpcClient
    deployment: Deployment
    rollup: RollupContract
    sequencer: Sequencer
    kzg: KzgWorker
    follower: InboxFollower
    intents: _Intents = field(default_factory=_Intents)

    def sender(self, index: int) -> Sender:
        return Sender(self.client, devnet_signer(index), poll_s=0.01)

    async def post(self, filled: Filled, data: str) -> L1Receipt:
        """Posts a batch as `calldata` or `blobs` with the poster, and checks what the contract says of it."""
        limits = Limits(confirmations=0, data=data)
        poster = Poster(
            self.rollup, devnet_signer(POSTER), self.sequencer, self.intents, limits, kzg=self.kzg
        )
        for _ in range(POST_TICKS):
            if isinstance(await poster.tick(), Idle):
                break
            await trio.sleep(0.01)
        head = await self.client.head()
        events = await self.rollup.posted(0, head.number, filled.batch.number)
        if not events:
            raise RuntimeError(f"batch {filled.batch.number} was not posted: {poster.status.last_error}")
        receipt = await self.client.receipt(events[0].transaction_hash)
        assert receipt is not None
        assert events[0].root == filled.batch.root
        return receipt

    async def travel(self, seconds: int) -> None:
        await self.client.raw_request("evm_increaseTime", [seconds])
        await self.client.raw_request("evm_mine", [])

    async def fill(self, flow: Iterable[Timed], prices: dict[int, int], max_bytes: int) -> Filled:
        """A batch that first reads what waits in the inbox, as a node's does."""
        found: list[L1Message] = []
        while (update := await self.follower.poll()) is not None:
            assert isinstance(update, Messages)
            found += update.messages
        assert self.follower.origin is not None
        self.sequencer.read(found, self.follower.origin)
        return self.sequencer.fill(flow, prices, max_bytes)


@asynccontextmanager
async def _bench(
    name: str, url: str, start: Path, root: bytes, kzg: KzgWorker, markets: Markets, traders: Traders
) -> AsyncIterator[Bench]:
    """Deploys, lists the markets, and opens the rollup on the data directory `start`, which has `root`."""
    with ExitStack() as stack:
        client, transport = connect(url)
        stack.callback(transport.close)
        governor = Sender(client, devnet_signer(GOVERNOR), poll_s=0.01)
        config = DeployConfig(
            ROLLUP_CHAIN_ID,
            root,
            governor.signer.address,
            devnet_signer(POSTER).address,
            governor.signer.address,
            challenge_window_s=WINDOW_S,
        )
        deployment = await deploy(governor, config)
        listed = [perpetual(markets.specs[underlying]) for underlying in markets.numbers]
        addresses = [address_of(publisher.secret) for publisher in PUBLISHERS]
        messages = [set_publishers(2, addresses), *map(list_instrument, listed)]
        await govern(governor, deployment.inbox_address, messages)
        domain = Domain(ROLLUP_CHAIN_ID, deployment.rollup_address)
        sequencer = Sequencer(start, domain, traders, markets)
        stack.callback(sequencer.close)
        rollup = RollupContract(client, deployment.rollup_address)
        follower = InboxFollower(client, deployment.inbox_address, deployment.deploy_block, confirmations=0)
        yield Bench(name, url, client, deployment, rollup, sequencer, kzg, follower)


async def _deposits(bench: Bench) -> list[Figure]:
    """Two deposits with an approval of the exact amount before each, and one with a permit instead."""
    deployment = bench.deployment
    token, vault = deployment.token_address, deployment.vault_address
    depositor, permitter = bench.sender(DEPOSITOR), bench.sender(PERMITTER)
    for sender in (depositor, permitter):
        await mint_test_dollars(sender, token, sender.signer.address, 10 * DEPOSIT_UUSD)
    gas = [(await deposit(depositor, vault, token, DEPOSIT_UUSD))[1].gas_used for _ in range(2)]
    head = await bench.client.head()
    deadline_s = head.timestamp_s + WINDOW_S
    signed = _permit(await bench.client.chain_id(), token, vault, deadline_s)
    proof = (deadline_s, signed.v, signed.r.to_bytes(32, "big"), signed.s.to_bytes(32, "big"))
    owner = permitter.signer.address
    call = contract("Vault").call("depositWithPermit", 0, owner, DEPOSIT_UUSD, *proof)
    permitted = (await permitter.send(vault, call)).gas_used
    first, again = gas
    return [
        _gas(bench, "deposit, the vault's first", first, MAX_DEPOSIT_GAS, "after its approval"),
        _gas(bench, "deposit, later", again, MAX_DEPOSIT_GAS, "after its approval"),
        _gas(bench, "deposit with permit", permitted, None, "needs no approval before it"),
    ]


def _permit(chain_id: int, token: bytes, vault: bytes, deadline_s: int) -> Any:
    owner = Account.from_key(DEVNET_KEYS[PERMITTER])
    domain = {"name": "Test Dollar", "version": "1", "chainId": chain_id, "verifyingContract": token}
    kinds = {"owner": "address", "spender": "address", "value": "uint256", "nonce": "uint256"}
    fields = [{"name": name, "type": kind} for name, kind in {**kinds, "deadline": "uint256"}.items()]
    message = {"owner": owner.address, "spender": vault, "value": DEPOSIT_UUSD, "nonce": 0}
    return owner.sign_typed_data(domain, {"Permit": fields}, {**message, "deadline": deadline_s})


def _gas(bench: Bench, name: str, gas: float, limit: float | None, note: str = "") -> Figure:
    return Figure(f"{bench.name}: {name}", gas, "gas", limit, note=note)


async def _postings(
    bench: Bench, name: str, flow: Iterator[Timed], prices: dict[int, int], sizes: dict[str, int]
) -> list[Figure]:
    """Batches of these sizes as blobs, and one full calldata transaction, all of this flow."""
    figures = []
    for what, size in sizes.items():
        filled = await bench.fill(flow, prices, size)
        receipt = await bench.post(filled, "blobs")
        limit = MAX_ORDER_GAS if what == NODE_BATCH else None
        per_order, blob_gas = receipt.gas_used / filled.orders, receipt.blob_gas_used / filled.orders
        figures += [
            _gas(bench, f"{name}, {what}: gas/order", per_order, limit, _note(filled, receipt)),
            _gas(bench, f"{name}, {what}: blob gas/order", blob_gas, None),
        ]
    filled = await bench.fill(flow, prices, CALLDATA_BYTES)
    receipt = await bench.post(filled, "calldata")
    per_order = receipt.gas_used / filled.orders
    return [*figures, _gas(bench, f"{name}, calldata: gas/order", per_order, None, _note(filled, receipt))]


async def _small(bench: Bench, flow: Iterator[Timed], prices: dict[int, int]) -> list[Figure]:
    """Batches of a few orders, where the posting itself is nearly all."""
    figures = []
    for data in ("blobs", "calldata"):
        filled = await bench.fill(islice(flow, SMALL_ORDERS), prices, CALLDATA_BYTES)
        receipt = await bench.post(filled, data)
        per_order = receipt.gas_used / filled.orders
        figures.append(
            _gas(bench, f"small batch, {data}: gas/order", per_order, None, _note(filled, receipt))
        )
    return figures


def _note(filled: Filled, receipt: L1Receipt) -> str:
    size = len(filled.batch.data)
    blobs = f", blobs: {blob_count(size)}" if receipt.blob_gas_used else ""
    return (
        f"{receipt.gas_used:,} gas; {filled.orders:,} orders, {filled.signatures:,} signatures, "
        f"{size:,} bytes{blobs}"
    )


async def _claim(bench: Bench) -> Figure:
    """The withdrawal of the last batches, claimed for a recipient who had nothing."""
    number = WITHDRAWALS + 1
    batch = await bench.rollup.last_batch()
    await bench.travel(WINDOW_S)
    root = await bench.rollup.root_of(batch)
    ready = claim_of(number, batch, root, bench.sequencer.prove(withdrawal_key(number)))
    receipt = await claim(bench.sender(DEPOSITOR), bench.deployment.vault_address, ready)
    leaves = bench.sequencer.leaf_count
    note = f"{len(ready.siblings)} siblings; {leaves:,} leaves, {number:,} of them withdrawals"
    return _gas(bench, "withdrawal", receipt.gas_used, MAX_CLAIM_GAS, note)


async def _reading(bench: Bench) -> list[Figure]:
    """Reading all of it back as a verifier does, data checked against commitments."""
    chain_id = await bench.client.chain_id()
    info = await bench.rollup.info()
    blobs = BlobSource(bench.client, bench.url, chain_id, bench.kzg)
    cursor = Cursor(0, info.genesis_root, 0, NO_HASH, 0)
    derivation = Derivation(bench.client, info, blobs, cursor, confirmations=0)
    await derivation.start()
    seconds, size = {False: 0.0, True: 0.0}, {False: 0, True: 0}
    while True:
        begin = time.perf_counter()
        derived = await derivation.next()
        elapsed = time.perf_counter() - begin
        if derived is None:
            break
        if (ours := bench.sequencer.batch(derived.event.number)) is None or ours.data != derived.data:
            raise RuntimeError(f"batch {derived.event.number} came back otherwise than it was posted")
        kind = bool(derived.event.blobs)
        seconds[kind] += elapsed
        size[kind] += len(derived.data)
    return [
        Figure(f"{bench.name}: reading {what} back", size[kind] / seconds[kind] / 1e6, "MB/s", note=note)
        for kind, what, note in (
            (True, "blobs", "commitments recomputed"),
            (False, "calldata", "commitment recomputed"),
        )
    ]


async def _measure(name: str, url: str, start: Path, root: bytes, kzg: KzgWorker) -> list[Figure]:
    trades = read_trades(TRADES)
    markets, traders = markets_of(trades), Traders()
    prices = first_prices(trades, markets)
    async with _bench(name, url, start, root, kzg, markets, traders) as bench:
        figures = await _deposits(bench)
        single = traders.single(trades[:SINGLE_TRADES], markets)
        figures += await _small(bench, single, prices)
        figures += await _postings(
            bench, "single orders", single, prices, {"one blob": BLOB_BYTES, NODE_BATCH: BATCH_BYTES}
        )
        between_ms = trades[SINGLE_TRADES].time_ms
        last = list(traders.cancel_all(between_ms, len(markets.numbers)))
        withdrawer = traders.takers[0]
        fields = envelope(withdrawer, between_ms)
        recipient = b"\x77" * 20
        last.append((between_ms, Withdraw(**fields, recipient=recipient, amount_uusd=WITHDRAWN_UUSD)))
        await bench.post(await bench.fill(last, prices, CALLDATA_BYTES), "calldata")
        main_job = traders.main_job(trades[SINGLE_TRADES:], markets)
        figures += await _postings(bench, "main job's flow", main_job, prices, {NODE_BATCH: BATCH_BYTES})
        figures += [await _claim(bench), *await _reading(bench)]
    return figures


L1S: dict[str, Callable[[], AbstractContextManager[EmbeddedL1 | Anvil]]] = {
    "embedded": lambda: EmbeddedL1(block_time_s=0),
    "anvil": Anvil,
}


def bench_l1_cost() -> list[Figure]:
    """On every L1 that can be started here."""
    figures: list[Figure] = []
    logs.configure("warning", "console")
    with tempfile.TemporaryDirectory() as name, closing(KzgWorker()) as kzg:
        start = Path(name) / "start"
        root = write_start(start, population(Traders()))
        for l1, make in L1S.items():
            copy = Path(name) / l1
            shutil.copytree(start, copy)
            try:
                with make() as running:
                    figures += trio.run(_measure, l1, running.url, copy, root, kzg)
            except AnvilMissing as missing:
                figures.append(Figure(f"{l1}: not measured", math.nan, "", note=str(missing)))
    return figures


if __name__ == "__main__":
    for figure in bench_l1_cost():
        print(figure)
