"""A rollup in mid life, for benchmarks: many accounts and withdrawals, and flow from the tape in batches.

The state starts with `ACCOUNTS` funded accounts and `WITHDRAWALS` withdrawals begun before, so that account
numbers, tree depth and proofs are those of a venue in use; from there everything is real: signed actions,
transition, codec, tree. `Sequencer` is what a node is without its port and its journal, and a
`poster.BatchSource`.

Refused actions (a cancel of what was filled, a post-only order that would cross) are in no batch.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from l1_bridge.batch import MAX_BATCH_BYTES
from l1_bridge.rollup import Batch
from sequencer.committer import BOOKS
from sequencer.conservation import Books
from sequencer.machine import Machine
from sequencer.ordering import place_in_order
from sequencer.startup import open_state
from state.actions import (
    Action,
    BulkOrders,
    CancelAll,
    OracleReport,
    OracleUpdate,
    Price,
    SignedAction,
    Transaction,
)
from state.block import L1Message, L1Origin
from state.eip712 import Domain, action_digest, report_digest, transaction_hash, update_hash
from state.errors import Rejected
from state.genesis import GENESIS_ROOT, genesis_leaves
from state.hashing import keccak
from state.keys import SYSTEM_KEY, account_key, owner_account_key, withdrawal_key
from state.leaves import Account, Marker, System, Withdrawal
from state.proofs import MembershipProof
from state.signatures import address_of, sign
from state.store import Identity, Store
from state.store_records import StoredBatch
from state.transition import same_origin
from state.tree import Tree
from tools.bench_codec import MAKERS, SEED, TAKERS, Markets, SingleFlow
from tools.market import MarketSpec, Trader, round_actions, rounds
from tools.tape import TapeTrade

ACCOUNTS = 50_000
WITHDRAWALS = 2**17 - 2
"""The next one's proof has as many siblings as any: 17 of them below the kind."""
CASH_UUSD = 10**12
WITHDRAWN_UUSD = 250_000_000
TREE_PAGES = 20_000
CLEAN_LEAVES = 500_000
BLOCK_MS = 50
ORACLE_MS = 1_000
PUBLISHERS = tuple(Trader(f"publisher {number}") for number in (1, 2, 3))
NOWHERE = Domain(0, bytes(20))
"""Identity of a data directory that is made before the contract has its address."""
Timed = tuple[int, Action]
"""An action and when it arrives."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A closed batch, and what is in it."""

    batch: Batch
    orders: int
    """Operations: each of a bulk action counts."""
    signatures: int
    refused: Counter[str]


class Traders:
    """Makers and takers with accounts scattered over the population."""

    def __init__(self) -> None:
        chosen = random.Random(SEED).sample(range(1, ACCOUNTS + 1), MAKERS + TAKERS)
        self.makers = [Trader(f"maker {n}", account=chosen[n]) for n in range(MAKERS)]
        self.takers = [Trader(f"taker {n}", account=chosen[MAKERS + n]) for n in range(TAKERS)]
        self.by_account = {trader.account: trader for trader in self.makers + self.takers}
        self.addresses = {number: address_of(trader.secret) for number, trader in self.by_account.items()}

    def single(self, trades: list[TapeTrade], markets: Markets) -> Iterator[Timed]:
        """Orders signed one by one (`bench_codec.SingleFlow`)."""
        flow = SingleFlow(trades, markets)
        flow.makers, flow.takers = self.makers, self.takers
        for time_ms, payload in flow:
            yield time_ms, payload.action

    def main_job(self, trades: list[TapeTrade], markets: Markets) -> Iterator[Timed]:
        """What `make run` sends: quotes in bulk, takers one by one."""
        for each in sorted(rounds(trades), key=lambda round_: round_.trades[-1].time_ms):
            market = markets.numbers[each.underlying]
            spec, maker = markets.specs[each.underlying], self.makers[market]
            now_ms = each.trades[-1].time_ms
            for _, action in round_actions(market, spec, each, maker, self.takers, now_ms // 1_000):
                yield now_ms, action

    def cancel_all(self, time_ms: int, markets: int) -> Iterator[Timed]:
        """Every maker leaves every market."""
        for maker in self.makers:
            for market in range(1, markets + 1):
                yield time_ms, CancelAll(**envelope(maker, time_ms), market=market)


def envelope(trader: Trader, time_ms: int) -> dict[str, int]:
    """Fresh envelope fields with a generous fee."""
    deadline_s = time_ms // 1_000 + 60
    return {
        "account": trader.account,
        "nonce": trader.next_nonce(),
        "deadline_s": deadline_s,
        "max_fee_uusd": CASH_UUSD // 1_000,
    }


def population(traders: Traders) -> dict[bytes, bytes]:
    """The leaves that the rollup starts with."""
    leaves = {key: leaf.encode() for key, leaf in genesis_leaves().items()}
    system = System.decode(leaves[SYSTEM_KEY])
    system.next_account, system.next_withdrawal = ACCOUNTS + 1, WITHDRAWALS + 1
    system.collateral_uusd = ACCOUNTS * CASH_UUSD
    leaves[SYSTEM_KEY] = system.encode()
    marker = Marker(1).encode()
    for number in range(1, ACCOUNTS + 1):
        owner = traders.addresses.get(number) or keccak(number.to_bytes(8, "big"))[12:]
        leaves[account_key(number)] = Account(owner, CASH_UUSD, 0, bytes(32), 0, 0, 0, 0).encode()
        leaves[owner_account_key(owner, number)] = marker
    for number in range(1, WITHDRAWALS + 1):
        account = number % ACCOUNTS + 1
        recipient = keccak(b"recipient" + number.to_bytes(8, "big"))[12:]
        leaves[withdrawal_key(number)] = Withdrawal(recipient, WITHDRAWN_UUSD, account, 0).encode()
    return leaves


def write_start(path: Path, leaves: dict[bytes, bytes]) -> bytes:
    """Makes a data directory that stands at these leaves as batch 0; its root. Money must add up."""
    store = Store.open(path, Identity(NOWHERE.chain_id, NOWHERE.contract, GENESIS_ROOT))
    tree = Tree(store.pages, TREE_PAGES)
    root = tree.update(leaves)
    books = Books(lambda _: None)
    books.take(leaves)
    batch = StoredBatch(0, 1, 0, bytes(32), root, b"")
    store.checkpoint(batch, tree.commit(0), [], 1, {BOOKS: books.encode()})
    store.close()
    return root


class Sequencer:
    """Executes flow on a data directory of `write_start` and closes batches; call `close` when done."""

    def __init__(self, path: Path, domain: Domain, traders: Traders, markets: Markets) -> None:
        self.domain = domain
        self.traders = traders
        self.markets = markets
        self._opened = open_state(path, NOWHERE, CLEAN_LEAVES, TREE_PAGES)
        self._machine: Machine = self._opened.machine
        self._tree = self._opened.trees.tree
        self._roots = [self._tree.root]
        self._batches: dict[int, Batch] = {}
        self._specs: dict[int, MarketSpec] = {
            number: markets.specs[underlying] for underlying, number in markets.numbers.items()
        }
        self._reported_ms = 0

    def close(self) -> None:
        self._opened.store.close()

    def read(self, messages: Sequence[L1Message], origin: L1Origin) -> None:
        """A block of L1 messages, if there are any, at the time of the last block."""
        now_ms = self._machine.system.timestamp_ms
        self._machine.execute(now_ms, origin, tuple(messages), (), MAX_BATCH_BYTES)

    def fill(self, flow: Iterable[Timed], prices: dict[int, int], max_bytes: int) -> Filled:
        """Executes the flow in blocks until the batch is full or the flow ends, and closes it.

        `prices` are reported at the first block and then every second. What did not fit is lost to the flow.
        """
        machine, refused = self._machine, Counter[str]()
        orders = signatures = 0
        for slot, arrived in groupby(flow, lambda timed: timed[0] // BLOCK_MS):
            now_ms = max((slot + 1) * BLOCK_MS, machine.system.timestamp_ms)
            transactions = [self._signed(action) for _, action in arrived]
            if now_ms - self._reported_ms >= ORACLE_MS:
                transactions.append(self._report(now_ms, prices))
                self._reported_ms = now_ms
            transactions.sort(key=lambda it: place_in_order(it.payload)[0])
            outcomes, _ = machine.execute(now_ms, same_origin(machine.view), (), transactions, max_bytes)
            for transaction, outcome in zip(transactions, outcomes, strict=False):
                if isinstance(outcome, Rejected):
                    refused[outcome.code.name] += 1
                else:
                    orders += _orders_in(transaction)
                    signatures += len(transaction.signers)
            if len(outcomes) < len(transactions):
                break
        return Filled(self._close_batch(), orders, signatures, refused)

    def batch(self, number: int) -> Batch | None:
        return self._batches.get(number)

    def root(self, number: int) -> bytes | None:
        return self._roots[number] if number < len(self._roots) else None

    def prove(self, key: bytes) -> MembershipProof:
        """Under the root of the last batch. Raises LookupError when there is no such leaf."""
        proof = self._tree.prove(key)
        if not isinstance(proof, MembershipProof):
            raise LookupError(key.hex())
        return proof

    @property
    def leaf_count(self) -> int:
        return self._tree.leaf_count

    def _close_batch(self) -> Batch:
        closed = self._machine.close()
        root = self._tree.update(closed.dirty())
        proof = self.prove(SYSTEM_KEY)
        inbox_next = System.decode(proof.value).inbox_next
        batch = Batch(
            closed.number,
            closed.data,
            self._roots[-1],
            root,
            proof.value,
            proof.siblings,
            proof.bits,
            inbox_next,
        )
        self._roots.append(root)
        self._batches[batch.number] = batch
        return batch

    def _signed(self, action: Action) -> Transaction:
        digest = action_digest(self.domain, action, self.markets.names)
        signature = sign(digest, self.traders.by_account[action.account].secret)
        signer = self.traders.addresses[action.account]
        return Transaction(SignedAction(action, signature), (signer,), transaction_hash(digest, signature))

    def _report(self, now_ms: int, prices: dict[int, int]) -> Transaction:
        listed: list[Price] = []
        for market, value_uusd in sorted(prices.items()):
            spec = self._specs[market]
            listed.append(Price(spec.underlying, value_uusd, 1_000_000))
            listed.append(Price(spec.instrument, value_uusd, 1_000_000))
        reports = []
        for publisher in PUBLISHERS:
            unsigned = OracleReport(now_ms, tuple(listed), bytes(64))
            digest = report_digest(self.domain, unsigned)
            reports.append(OracleReport(now_ms, tuple(listed), sign(digest, publisher.secret)))
        hashes = [transaction_hash(report_digest(self.domain, each), each.signature) for each in reports]
        signers = tuple(address_of(publisher.secret) for publisher in PUBLISHERS)
        return Transaction(OracleUpdate(tuple(reports)), signers, update_hash(hashes))


def _orders_in(transaction: Transaction) -> int:
    payload = transaction.payload
    if isinstance(payload, OracleUpdate):
        return 0
    action = payload.action
    if isinstance(action, BulkOrders):
        return len(action.cancels) + len(action.replacements) + len(action.orders)
    return 1


def first_prices(trades: Iterable[TapeTrade], markets: Markets) -> dict[int, int]:
    """Of each market, its first price, on the grid."""
    found: dict[int, int] = {}
    for trade in trades:
        found.setdefault(markets.numbers[trade.underlying], trade.price_uusd)
    return found
