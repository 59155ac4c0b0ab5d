"""The chain of the embedded L1: eth-tester's py-evm backend, with the indexes that a node answers from.

It is a real EVM (Prague rules) with real transactions, receipts, logs, reverts, gas and blob sidecars. What
it is not is a network: every transaction is mined at once into its own block, there is no mempool, and
nothing is kept on disk. Timestamps follow the clock (plus `travel`) and strictly increase.

Answers are in the JSON-RPC's own form, hex strings in dicts. Not thread-safe: `embedded` holds one lock.
"""

from __future__ import annotations

import time
from typing import Any, cast

import rlp
from eth.exceptions import Revert
from eth.vm.forks.cancun.transactions import UnsignedBlobTransaction
from eth.vm.spoof import SpoofTransaction
from eth_tester.backends.pyevm.main import PyEVMBackend
from eth_utils.exceptions import ValidationError

from l1_bridge.blobs import BLOB_TYPE, GAS_PER_BLOB
from l1_bridge.client import from_hex, quantity, to_hex
from l1_bridge.keys import DEVNET_KEYS
from state.hashing import keccak
from state.signatures import address_of

CHAIN_ID = 131277322940537
"""eth-tester's own; nothing else uses it."""
GAS_LIMIT = 60_000_000
FUNDS_WEI = 10**24
TIP_WEI = 1_000_000_000
ZERO_ADDRESS = bytes(20)


class RpcFailure(Exception):
    """An answer with a JSON-RPC error object."""

    def __init__(self, code: int, message: str, data: str | None = None):
        super().__init__(message)
        self.error = {"code": code, "message": message} | ({"data": data} if data is not None else {})


class Chain:
    """The chain and what a node must index besides: transactions by hash, logs by block, blobs by hash."""

    def __init__(self) -> None:
        genesis = {
            address_of(key): {"balance": FUNDS_WEI, "nonce": 0, "code": b"", "storage": {}}
            for key in DEVNET_KEYS
        }
        parameters = PyEVMBackend.generate_genesis_params({"gas_limit": GAS_LIMIT})
        self._backend = PyEVMBackend(genesis_parameters=parameters, genesis_state=genesis)
        self._ahead_s = 0
        self._places: dict[bytes, tuple[int, int]] = {}
        self._logs: dict[int, list[dict[str, Any]]] = {}
        self._snapshots: dict[int, int] = {}
        self.blobs: dict[bytes, bytes] = {}

    @property
    def _chain(self) -> Any:
        return self._backend.chain

    @property
    def height(self) -> int:
        return cast(int, self._chain.header.block_number) - 1

    def now(self) -> int:
        """The clock, advanced by what `evm_increaseTime` asked for."""
        return int(time.time()) + self._ahead_s

    # mining

    def mine(self) -> None:
        """One block of what has been applied, at the current time."""
        parent = self._chain.get_canonical_block_header_by_number(self.height)
        if self._chain.header.gas_used == 0:
            self._chain.set_header_timestamp(max(self.now(), parent.timestamp + 1))
        self._backend.mine_blocks(1)
        self._index(self.height)

    def mine_if_due(self) -> None:
        """For the miner thread: blocks never run ahead of the clock for its sake."""
        parent = self._chain.get_canonical_block_header_by_number(self.height)
        if parent.timestamp < self.now():
            self.mine()

    def travel(self, seconds: int) -> None:
        """The clock advances, from the last block's time if that is ahead of it, as after quick blocks."""
        head = self._chain.get_canonical_block_header_by_number(self.height)
        self._ahead_s += seconds + max(0, head.timestamp - self.now())

    def _index(self, number: int) -> None:
        block = self._chain.get_canonical_block_by_number(number)
        logs: list[dict[str, Any]] = []
        for place, (transaction, receipt) in enumerate(
            zip(block.transactions, block.get_receipts(self._chain.chaindb), strict=True)
        ):
            self._places[transaction.hash] = (number, place)
            for log in receipt.logs:
                logs.append(
                    {
                        "address": to_hex(log.address),
                        "topics": [to_hex(topic.to_bytes(32, "big")) for topic in log.topics],
                        "data": to_hex(log.data),
                        "blockNumber": hex(number),
                        "blockHash": to_hex(block.hash),
                        "transactionHash": to_hex(transaction.hash),
                        "transactionIndex": hex(place),
                        "logIndex": hex(len(logs)),
                        "removed": False,
                    }
                )
        if logs:
            self._logs[number] = logs

    def snapshot(self) -> int:
        name = len(self._snapshots) + 1
        self._snapshots[name] = self.height
        return name

    def revert(self, name: int) -> bool:
        """A reorg: blocks after the snapshot are gone, with their transactions and logs."""
        if name not in self._snapshots:
            return False
        height = self._snapshots[name]
        header = self._chain.get_canonical_block_header_by_number(height)
        self._backend.revert_to_snapshot(header.hash)
        self._places = {key: place for key, place in self._places.items() if place[0] <= height}
        self._logs = {number: logs for number, logs in self._logs.items() if number <= height}
        return True

    # transactions

    def send(self, plain: bytes, sidecar: dict[bytes, bytes]) -> bytes:
        """Executes and mines a signed transaction; `sidecar` are its blobs by hash, checked.

        Raises RpcFailure if it may not enter a block.
        """
        transaction_hash = keccak(plain)
        if transaction_hash in self._places:
            raise RpcFailure(-32000, "already known")
        parent = self._chain.get_canonical_block_header_by_number(self.height)
        self._chain.set_header_timestamp(max(self.now(), parent.timestamp + 1))
        try:
            transaction = self._chain.get_vm().get_transaction_builder().decode(plain)
            self._chain.apply_transaction(transaction)
        except (ValidationError, rlp.DecodingError, rlp.DeserializationError) as error:
            raise RpcFailure(-32000, f"invalid transaction: {error}") from None
        self.blobs |= sidecar
        self.mine()
        return transaction_hash

    def execute(self, request: dict[str, Any], height: int) -> tuple[Any, int]:
        """Runs a call on top of block `height`, without fees; the computation and the gas it used."""
        parent = self._chain.get_canonical_block_header_by_number(height)
        timestamp = max(self.now(), parent.timestamp + 1) if height == self.height else parent.timestamp
        header = self._chain.create_header_from_parent(parent, gas_limit=GAS_LIMIT)
        vm = self._chain.get_vm(at_header=header.copy(timestamp=timestamp, base_fee_per_gas=0))
        sender = from_hex(request["from"]) if request.get("from") else ZERO_ADDRESS
        gas = min(quantity(request.get("gas") or hex(GAS_LIMIT)), GAS_LIMIT)
        fields = {
            "chain_id": CHAIN_ID,
            "nonce": vm.state.get_nonce(sender),
            "max_priority_fee_per_gas": 0,
            "max_fee_per_gas": 0,
            "gas": gas,
            "to": from_hex(request["to"]) if request.get("to") else b"",
            "value": quantity(request.get("value") or "0x0"),
            "data": from_hex(request.get("input") or request.get("data") or "0x"),
            "access_list": (),
        }
        if hashes := request.get("blobVersionedHashes"):
            fields["max_fee_per_blob_gas"] = vm.state.blob_base_fee
            fields["blob_versioned_hashes"] = tuple(from_hex(item) for item in hashes)
            unsigned = UnsignedBlobTransaction(**fields)
        else:
            unsigned = vm.get_transaction_builder().new_unsigned_dynamic_fee_transaction(**fields)
        computation = vm.state.apply_transaction(SpoofTransaction(unsigned, from_=sender))
        if computation.is_error:
            reason = computation.error
            if isinstance(reason, Revert):
                raise RpcFailure(
                    3, "execution reverted", to_hex(bytes(reason.args[0]) if reason.args else b"")
                )
            raise RpcFailure(-32000, f"execution failed: {type(reason).__name__}")
        return computation, gas - computation.get_gas_remaining()

    def estimate(self, request: dict[str, Any]) -> int:
        """Gas limit that suffices: gas used before refunds plus what nested calls hold back (1/64 each)."""
        _, used = self.execute(request, self.height)
        data = from_hex(request.get("input") or request.get("data") or "0x")
        floor = 21_000 + 10 * data.count(0) + 40 * (len(data) - data.count(0))
        return min(max(used + used // 16 + 5_000, floor), GAS_LIMIT)

    # reading

    def height_of(self, tag: str) -> int:
        if tag in ("latest", "safe", "finalized", "pending"):
            return self.height
        return 0 if tag == "earliest" else quantity(tag)

    def block(self, number: int, full: bool) -> dict[str, Any] | None:
        if not 0 <= number <= self.height:
            return None
        block = self._chain.get_canonical_block_by_number(number)
        header = block.header
        hashes = [to_hex(transaction.hash) for transaction in block.transactions]
        return {
            "number": hex(number),
            "hash": to_hex(header.hash),
            "parentHash": to_hex(header.parent_hash),
            "timestamp": hex(header.timestamp),
            "baseFeePerGas": hex(header.base_fee_per_gas),
            "blobGasUsed": hex(header.blob_gas_used),
            "excessBlobGas": hex(header.excess_blob_gas),
            "gasUsed": hex(header.gas_used),
            "gasLimit": hex(header.gas_limit),
            "miner": to_hex(header.coinbase),
            "stateRoot": to_hex(header.state_root),
            "transactionsRoot": to_hex(header.transaction_root),
            "receiptsRoot": to_hex(header.receipt_root),
            "extraData": to_hex(header.extra_data),
            "difficulty": "0x0",
            "transactions": [self.transaction(from_hex(item)) for item in hashes] if full else hashes,
        }

    def block_by_hash(self, block_hash: bytes, full: bool) -> dict[str, Any] | None:
        for number in range(self.height, -1, -1):
            if self._chain.get_canonical_block_header_by_number(number).hash == block_hash:
                return self.block(number, full)
        return None

    def transaction(self, transaction_hash: bytes) -> dict[str, Any] | None:
        if transaction_hash not in self._places:
            return None
        number, place = self._places[transaction_hash]
        block = self._chain.get_canonical_block_by_number(number)
        transaction = block.transactions[place]
        kind = getattr(transaction, "type_id", None) or 0
        answer: dict[str, Any] = {
            "type": hex(kind),
            "hash": to_hex(transaction_hash),
            "from": to_hex(transaction.sender),
            "to": to_hex(transaction.to) if transaction.to else None,
            "nonce": hex(transaction.nonce),
            "value": hex(transaction.value),
            "gas": hex(transaction.gas),
            "input": to_hex(transaction.data),
            "blockNumber": hex(number),
            "blockHash": to_hex(block.hash),
            "transactionIndex": hex(place),
        }
        if kind == BLOB_TYPE:
            answer["blobVersionedHashes"] = [to_hex(item) for item in transaction.blob_versioned_hashes]
        return answer

    def receipt(self, transaction_hash: bytes) -> dict[str, Any] | None:
        if transaction_hash not in self._places:
            return None
        number, place = self._places[transaction_hash]
        block = self._chain.get_canonical_block_by_number(number)
        receipts = block.get_receipts(self._chain.chaindb)
        transaction = block.transactions[place]
        before = receipts[place - 1].gas_used if place else 0
        base = block.header.base_fee_per_gas
        created = None
        if not transaction.to:
            created = keccak(rlp.encode([transaction.sender, transaction.nonce]))[12:]
        if hasattr(transaction, "max_fee_per_gas"):
            price = min(transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas + base)
        else:
            price = transaction.gas_price
        answer = {
            "transactionHash": to_hex(transaction_hash),
            "blockNumber": hex(number),
            "blockHash": to_hex(block.hash),
            "transactionIndex": hex(place),
            "from": to_hex(transaction.sender),
            "to": to_hex(transaction.to) if transaction.to else None,
            "status": "0x1" if receipts[place].state_root == b"\x01" else "0x0",
            "gasUsed": hex(receipts[place].gas_used - before),
            "cumulativeGasUsed": hex(receipts[place].gas_used),
            "effectiveGasPrice": hex(price),
            "contractAddress": to_hex(created) if created else None,
            "logs": [
                log
                for log in self._logs.get(number, ())
                if log["transactionHash"] == to_hex(transaction_hash)
            ],
        }
        if (getattr(transaction, "type_id", None) or 0) == BLOB_TYPE:
            answer["blobGasUsed"] = hex(GAS_PER_BLOB * len(transaction.blob_versioned_hashes))
            answer["blobGasPrice"] = hex(self._chain.get_vm(at_header=block.header).state.blob_base_fee)
        return answer

    def logs(self, query: dict[str, Any]) -> list[dict[str, Any]]:
        first = self.height_of(query.get("fromBlock", "latest"))
        last = min(self.height_of(query.get("toBlock", "latest")), self.height)
        address = query.get("address")
        addresses = None if address is None else [address] if isinstance(address, str) else list(address)
        wanted = None if addresses is None else {item.lower() for item in addresses}
        topics = query.get("topics") or []
        return [
            log
            for number in range(first, last + 1)
            for log in self._logs.get(number, ())
            if (wanted is None or log["address"] in wanted) and matches(log["topics"], topics)
        ]

    def account(self, address: bytes, height: int) -> tuple[int, int, bytes]:
        """(nonce, balance, code) after block `height`."""
        header = self._chain.get_canonical_block_header_by_number(height)
        state = self._chain.get_vm(at_header=header).state
        return state.get_nonce(address), state.get_balance(address), state.get_code(address)

    def blob_base_fee(self) -> int:
        return cast(int, self._chain.get_vm().state.blob_base_fee)


def matches(topics: list[str], wanted: list[Any]) -> bool:
    """Whether a log's topics fit a filter: null fits all, a list is an or."""
    if len(wanted) > len(topics):
        return False
    return all(
        want is None or topic in (want if isinstance(want, list) else [want])
        for topic, want in zip(topics, wanted, strict=False)
    )
