"""A small L1 for the poster's simulation: a mempool, blocks, reorgs, and a Rollup that knows batch numbers.

Whatever is asked may fail: `trouble` is called before every request and may raise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode
from eth_account.typed_transactions.typed_transaction import TypedTransaction
from hexbytes import HexBytes

from l1_bridge.abi import contract, selector
from l1_bridge.types import (
    Fees,
    L1Block,
    L1Log,
    L1Receipt,
    L1Refused,
    L1Reverted,
    L1Transaction,
    L1Unavailable,
)
from state.hashing import keccak

ROLLUP = b"\x42" * 20
GAS_USED = 200_000
PRICE_WEI = 2 * 10**9
ABI = contract("Rollup")


@dataclass
class Pending:
    hash: bytes
    nonce: int
    data: bytes
    max_fee_wei: int


@dataclass
class Mined:
    transaction: Pending
    succeeded: bool
    number: int
    """Of the batch that it tried to post."""
    root: bytes


@dataclass
class FakeL1:
    genesis_root: bytes
    poster: bytes
    trouble: Callable[[str], None]
    blocks: list[list[Mined]] = field(default_factory=lambda: [[]])
    pool: dict[int, Pending] = field(default_factory=dict)
    base_fee_wei: int = 10**9
    balance_wei: int = 10**20
    fork: int = 0
    """Makes block hashes differ after a reorg."""
    sent: int = 0

    def mine(self) -> None:
        """One block with all transactions of the pool that can be included."""
        block: list[Mined] = []
        self.blocks.append(block)
        while (pending := self.pool.get(self.nonces())) is not None:
            if pending.max_fee_wei < self.base_fee_wei:
                break
            del self.pool[pending.nonce]
            number, root, fits = self._judge(pending.data)
            block.append(Mined(pending, fits, number, root))
        self.pool = {nonce: each for nonce, each in self.pool.items() if nonce >= self.nonces()}

    def reorg(self, depth: int, keep: bool) -> None:
        """Drops the last blocks; with `keep` their transactions return to the pool."""
        self.fork += 1
        for _ in range(min(depth, len(self.blocks) - 1)):
            for mined in self.blocks.pop():
                if keep:
                    self.pool.setdefault(mined.transaction.nonce, mined.transaction)

    def mined(self, until: int | None = None) -> list[Mined]:
        return [mined for block in self.blocks[: None if until is None else until + 1] for mined in block]

    def postings(self, until: int | None = None) -> list[Mined]:
        return [mined for mined in self.mined(until) if mined.succeeded]

    def nonces(self) -> int:
        return len(self.mined())

    def _judge(self, data: bytes) -> tuple[int, bytes, bool]:
        header = ABI.arguments("postBatch", data)["header"]
        number, _, prev_root, root = header
        posted = self.postings()
        last_root = posted[-1].root if posted else self.genesis_root
        return number, root, number == len(posted) + 1 and prev_root == last_root

    def _hash(self, number: int) -> bytes:
        return keccak(b"%d %d" % (number, self.fork))

    # L1Client

    async def chain_id(self) -> int:
        self.trouble("chain_id")
        return 31337

    async def head(self) -> L1Block:
        self.trouble("head")
        number = len(self.blocks) - 1
        return L1Block(number, self._hash(number), self._hash(number - 1), number, self.base_fee_wei, 0)

    async def block(self, which: int | bytes | str) -> L1Block | None:
        raise NotImplementedError

    async def logs(
        self, address: bytes, topics: Sequence[bytes | None], first: int, last: int
    ) -> list[L1Log]:
        self.trouble("logs")
        if topics[0] != ABI.topic("BatchPosted"):
            return []
        return [
            self._log(mined, number)
            for number, block in enumerate(self.blocks)
            for mined in block
            if first <= number <= last and mined.succeeded
        ]

    def _log(self, mined: Mined, block: int) -> L1Log:
        plain = ["bytes32", "bytes32", "bytes32", "uint64", "uint8", "uint64", "uint64", "uint64"]
        values = (bytes(32), mined.root, bytes(32), 100, 0, 0, 0, 0)
        poster = bytes(12) + self.poster
        topics = (ABI.topic("BatchPosted"), mined.number.to_bytes(32, "big"), poster)
        place = (block, self._hash(block), mined.transaction.hash, 0)
        return L1Log(ROLLUP, topics, encode(plain, values), *place)

    async def transaction(self, transaction_hash: bytes) -> L1Transaction | None:
        self.trouble("transaction")
        for each in self.pool.values():
            if each.hash == transaction_hash:
                return L1Transaction(each.hash, b"", ROLLUP, each.nonce, each.data, (), None)
        return None

    async def receipt(self, transaction_hash: bytes) -> L1Receipt | None:
        self.trouble("receipt")
        for number, block in enumerate(self.blocks):
            for mined in block:
                if mined.transaction.hash == transaction_hash:
                    block_hash, succeeded = self._hash(number), mined.succeeded
                    return L1Receipt(
                        transaction_hash, number, block_hash, succeeded, GAS_USED, PRICE_WEI, 0, 0, None, ()
                    )
        return None

    async def nonce(self, address: bytes, tag: str = "latest") -> int:
        self.trouble("nonce")
        nonce = self.nonces()
        while tag == "pending" and nonce in self.pool:
            nonce += 1
        return nonce

    async def balance(self, address: bytes) -> int:
        self.trouble("balance")
        return self.balance_wei

    async def fees(self) -> Fees:
        self.trouble("fees")
        return Fees(self.base_fee_wei, 10**9, 1)

    async def call(
        self,
        to: bytes,
        data: bytes,
        sender: bytes | None = None,
        block: int | str = "latest",
        blob_hashes: Sequence[bytes] = (),
    ) -> bytes:
        self.trouble("call")
        until = block if isinstance(block, int) else None
        posted = self.postings(until)
        answers: dict[bytes, Callable[[], tuple[list[str], list[Any]]]] = {
            self._selector("lastBatch"): lambda: (["uint64"], [len(posted)]),
            self._selector("finalizedBatch"): lambda: (["uint64"], [0]),
            self._selector("deployBlock"): lambda: (["uint64"], [0]),
            self._selector("chainId"): lambda: (["uint64"], [1]),
            self._selector("challengeWindow"): lambda: (["uint64"], [1]),
            self._selector("forcedDelay"): lambda: (["uint64"], [1]),
            self._selector("inbox"): lambda: (["address"], [ROLLUP]),
            self._selector("vault"): lambda: (["address"], [ROLLUP]),
            keccak(b"token()")[:4]: lambda: (["address"], [ROLLUP]),
            self._selector("batchAt"): lambda: (
                ["(bytes32,bytes32,uint64,uint64,uint64,uint64)"],
                [(bytes(32), bytes(32), 0, 0, 0, 0)],
            ),
            self._selector("rootOf"): lambda: (["bytes32"], [self._root_of(data, posted)]),
        }
        types, values = answers[data[:4]]()
        return encode(types, values)

    def _root_of(self, data: bytes, posted: list[Mined]) -> bytes:
        number = int.from_bytes(data[4:36], "big")
        if number > len(posted):
            raise L1Reverted("no such batch")
        return posted[number - 1].root if number else self.genesis_root

    @staticmethod
    def _selector(function: str) -> bytes:
        entries = ABI.artifact["abi"]
        (found,) = [each for each in entries if each["type"] == "function" and each["name"] == function]
        return selector(function, found["inputs"])

    async def estimate_gas(
        self, sender: bytes, to: bytes | None, data: bytes, blob_hashes: Sequence[bytes] = ()
    ) -> int:
        self.trouble("estimate_gas")
        if not self._judge(data)[2]:
            raise L1Reverted("execution reverted")
        return GAS_USED

    async def send_raw(self, raw: bytes) -> None:
        self.trouble("send_raw")
        fields = TypedTransaction.from_bytes(HexBytes(raw)).as_dict()
        sent = Pending(keccak(raw), fields["nonce"], bytes(fields["data"]), fields["maxFeePerGas"])
        if sent.nonce < self.nonces():
            raise L1Refused("nonce too low")
        rival = self.pool.get(sent.nonce)
        if rival is not None and rival.hash != sent.hash and sent.max_fee_wei * 8 < rival.max_fee_wei * 9:
            raise L1Refused("replacement transaction underpriced")
        self.pool[sent.nonce] = sent
        self.sent += 1
        self.trouble("sent")


def unavailable(what: str) -> None:
    raise L1Unavailable(f"{what} failed")
