"""A sequencer without a node, for bridge tests: blocks made by hand, real transition, tree and codec.

It keeps what a node keeps (state, tree, closed batches) in memory, so that tests say exactly what each block
holds, and can lie about a root.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random

from l1_bridge.batch import BatchHead, assemble, encode_head
from l1_bridge.deploy import list_instrument, set_publishers
from l1_bridge.rollup import Batch
from state.actions import (
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Price,
    Side,
    SignedAction,
    Transaction,
    Withdraw,
)
from state.block import BatchStart, BlockResult, L1Message, L1Origin
from state.cache import CachedState, MemorySource
from state.codec import MarketEntry
from state.eip712 import Domain, action_digest, report_digest, transaction_hash, update_hash
from state.genesis import GENESIS_ROOT, genesis_leaves
from state.hashing import keccak
from state.keys import SYSTEM_KEY, instrument_key, market_key
from state.leaves import Instrument, Market, System
from state.proofs import MembershipProof, branch_hash, leaf_hash, verify_membership
from state.signatures import address_of, recover, sign
from state.transition import BlockExecution, close_batch, next_batch, open_batch, same_origin, void_batch
from state.tree import Tree

INSTRUMENT = "BTC-PERPETUAL"
UNDERLYING = "BTC"
PUBLISHERS = tuple(keccak(b"publisher %d" % number) for number in range(3))
TRADERS = tuple(keccak(b"trader %d" % number) for number in range(2))
PRICE_UUSD = 60_000_000_000


def perpetual() -> Instrument:
    return Instrument(
        INSTRUMENT.encode().ljust(31, b"\0"),
        0,
        UNDERLYING.encode().ljust(31, b"\0"),
        1,
        1_000_000,
        1_000,
        1_000,
        10**12,
        100_000,
        0,
        500,
        10_000_000_000,
    )


def governance() -> list[tuple[int, bytes]]:
    """Publishers and one listed perpetual."""
    return [set_publishers(2, [address_of(key) for key in PUBLISHERS]), list_instrument(perpetual())]


class MemoryPages:
    """A `tree.PageStore` in memory."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def iterate(self, start: bytes, stop: bytes) -> Iterable[tuple[bytes, bytes]]:
        return sorted((key, value) for key, value in self.rows.items() if start <= key < stop)

    def apply(self, writes: Iterable[tuple[bytes, bytes | None]]) -> None:
        for key, value in writes:
            if value is None:
                self.rows.pop(key, None)
            else:
                self.rows[key] = value


class HandSequencer:
    """Makes blocks and batches; also a `poster.BatchSource`."""

    def __init__(self, rollup_chain_id: int, rollup: bytes):
        self.domain = Domain(rollup_chain_id, rollup)
        self._source = MemorySource({key: leaf.encode() for key, leaf in genesis_leaves().items()})
        self._view = CachedState(self._source, 10_000)
        self._start: BatchStart | None = None
        self._encoded: list[bytes] = []
        self._pages = MemoryPages()
        self._tree = Tree(self._pages, 128)
        self._tree.update(dict(self._source.leaves))
        self._pages.apply(self._tree.commit(0))
        self._roots = [GENESIS_ROOT]
        self._batches: dict[int, Batch] = {}
        self.results: list[BlockResult] = []
        self._nonces: dict[int, int] = {}

    # transactions

    def place(self, account: int, side: Side, price_uusd: int, size_ulots: int, at_ms: int) -> Transaction:
        """A limit order of the account's trader (account 1 is the first trader's)."""
        order = Order(1, side, OrderKind.LIMIT, price_uusd, size_ulots)
        action = PlaceOrder(order=order, **self._envelope(account, at_ms))
        return self._signed(SignedAction(action, self._signature(account, action)))

    def withdraw(self, account: int, recipient: bytes, amount_uusd: int, at_ms: int) -> Transaction:
        action = Withdraw(recipient=recipient, amount_uusd=amount_uusd, **self._envelope(account, at_ms))
        return self._signed(SignedAction(action, self._signature(account, action)))

    def prices(self, value_uusd: int, at_ms: int) -> Transaction:
        """Index and mark, reported by two publishers."""
        prices = (Price(UNDERLYING, value_uusd, 100), Price(INSTRUMENT, value_uusd, 100))
        reports = []
        for key in PUBLISHERS[:2]:
            unsigned = OracleReport(at_ms, prices, b"")
            signature = sign(report_digest(self.domain, unsigned), key)
            reports.append(OracleReport(at_ms, prices, signature))
        digests = [report_digest(self.domain, report) for report in reports]
        pairs = list(zip(digests, [report.signature for report in reports], strict=True))
        hashes = [transaction_hash(*pair) for pair in pairs]
        signers = tuple(recover(*pair) for pair in pairs)
        return Transaction(OracleUpdate(tuple(reports)), signers, update_hash(hashes))

    def _envelope(self, account: int, at_ms: int) -> dict[str, int]:
        nonce = self._nonces.get(account, 0) + 1
        self._nonces[account] = nonce
        return {
            "account": account,
            "nonce": nonce,
            "deadline_s": at_ms // 1000 + 60,
            "max_fee_uusd": 10_000_000,
        }

    def _signature(self, account: int, action: PlaceOrder | Withdraw) -> bytes:
        return sign(action_digest(self.domain, action, self._name), TRADERS[account - 1])

    def _signed(self, payload: SignedAction) -> Transaction:
        digest = action_digest(self.domain, payload.action, self._name)
        signer = recover(digest, payload.signature)
        return Transaction(payload, (signer,), transaction_hash(digest, payload.signature))

    @staticmethod
    def _name(market: int) -> bytes:
        return keccak(INSTRUMENT.encode())

    # blocks and batches

    def block(
        self,
        at_ms: int,
        origin: L1Origin | None,
        messages: Sequence[L1Message] = (),
        transactions: Sequence[Transaction] = (),
    ) -> BlockResult:
        """Executes a block. A transaction that is refused fails the test."""
        if self._start is None:
            self._start = next_batch(self._view)
            open_batch(self._view, self._start)
        origin = origin or same_origin(self._view)
        execution = BlockExecution(self._view, at_ms, origin, tuple(messages))
        for transaction in transactions:
            execution.execute(transaction)
        result = execution.end()
        self._encoded.append(result.encoded)
        self.results.append(result)
        return result

    def void(self, data: bytes) -> Batch:
        """A batch of bytes that are none."""
        void_batch(self._view, len(data))
        return self._batch(data, None)

    def close(self, lie: Random | None = None, tail: bytes = b"") -> Batch:
        """Closes the batch, with `tail` after its last block.

        With `lie`, it claims that the fees collected were others than they are.
        """
        start = self._start
        assert start is not None
        number = start.batch_number
        head = BatchHead(
            number,
            start.first_block,
            start.base_timestamp_ms,
            start.base_l1_block,
            start.inbox_start,
            self._table(number),
        )
        close_batch(self._view, len(encode_head(head)), len(tail))
        data = assemble(head, self._encoded) + tail
        self._start, self._encoded = None, []
        return self._batch(data, lie)

    def _batch(self, data: bytes, lie: Random | None) -> Batch:
        """What is posted, and what the state is after it."""
        number = len(self._roots)
        dirty = self._view.take_dirty()
        self._source.apply(dirty)
        root = self._tree.update(dirty)
        self._pages.apply(self._tree.commit(number))
        self._view.release()
        proof = self._tree.prove(SYSTEM_KEY)
        assert isinstance(proof, MembershipProof)
        leaf = proof.value
        if lie is not None:
            system = System.decode(leaf)
            leaf = replace(system, fees_uusd=lie.randrange(1, 10**9)).encode()
            root = _root_with(leaf, proof)
        batch = Batch(
            number,
            data,
            self._roots[-1],
            root,
            leaf,
            proof.siblings,
            proof.bits,
            System.decode(leaf).inbox_next,
        )
        self._roots.append(root)
        self._batches[batch.number] = batch
        return batch

    def _table(self, number: int) -> dict[int, MarketEntry]:
        """The markets that took a reference price for this batch."""
        table = {}
        system: System = self._view.get(SYSTEM_KEY)
        for market in range(1, system.next_market):
            leaf: Market = self._view.get(market_key(market))
            terms: Instrument = self._view.get(instrument_key(market))
            if leaf.reference_batch == number:
                table[market] = MarketEntry(terms.tick_uusd, terms.lot_ulots, leaf.reference_ticks)
        return table

    def batch(self, number: int) -> Batch | None:
        return self._batches.get(number)

    def root(self, number: int) -> bytes | None:
        return self._roots[number] if number < len(self._roots) else None


def _root_with(leaf: bytes, proof: MembershipProof) -> bytes:
    """The root that the path gives for another System leaf, whose key turns left everywhere."""
    node = leaf_hash(SYSTEM_KEY, leaf)
    for bit, sibling in zip(proof.bits, proof.siblings, strict=True):
        node = branch_hash(bit, node, sibling)
    lied = MembershipProof(SYSTEM_KEY, leaf, proof.path)
    assert verify_membership(node, lied, SYSTEM_KEY) == leaf
    return node
