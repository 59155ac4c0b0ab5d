"""What the bridge knows of L1, as frozen records, and the ways in which L1 can fail.

Amounts of ether and fees are in wei, times in seconds, hashes and addresses raw bytes. Failures come in three
kinds, because they are answered differently: `L1Unavailable` passes with time (wait and ask again),
`L1Refused` does not (report it), and `L1Reverted` is the EVM's own no, with the reason's bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from state.block import L1Origin


class L1Error(Exception):
    """Any failure of L1 or of the way there."""


class L1Unavailable(L1Error):
    """The node cannot be reached, is overloaded, limits our rate, or answers nonsense: try again later."""

    def __init__(self, message: str, retry_after_s: float | None = None):
        super().__init__(message)
        self.retry_after_s = retry_after_s


class L1Refused(L1Error):
    """The node understood and said no; asking again will not help."""

    def __init__(self, message: str, code: int = 0):
        super().__init__(message)
        self.code = code


class L1Reverted(L1Error):
    """The EVM reverted a call; `data` is the ABI-encoded error, if the node passed it on."""

    def __init__(self, message: str, data: bytes = b""):
        super().__init__(message)
        self.data = data


@dataclass(frozen=True, slots=True)
class L1Block:
    number: int
    hash: bytes
    parent_hash: bytes
    timestamp_s: int
    base_fee_wei: int
    excess_blob_gas: int | None
    """None on a chain without blobs."""

    @property
    def origin(self) -> L1Origin:
        """The block as an origin of blocks of the rollup."""
        return L1Origin(self.number, self.base_fee_wei, self.excess_blob_gas)


@dataclass(frozen=True, slots=True)
class L1Log:
    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: bytes
    transaction_hash: bytes
    index: int


@dataclass(frozen=True, slots=True)
class L1Transaction:
    """A transaction as L1 executed it, or has it pending (then `block_number` is None)."""

    hash: bytes
    sender: bytes
    to: bytes | None
    nonce: int
    data: bytes
    blob_hashes: tuple[bytes, ...]
    block_number: int | None


@dataclass(frozen=True, slots=True)
class L1Receipt:
    transaction_hash: bytes
    block_number: int
    block_hash: bytes
    succeeded: bool
    gas_used: int
    gas_price_wei: int
    blob_gas_used: int
    blob_gas_price_wei: int
    contract: bytes | None
    logs: tuple[L1Log, ...]

    @property
    def cost_wei(self) -> int:
        """What the transaction cost its sender, execution and blobs."""
        return self.gas_used * self.gas_price_wei + self.blob_gas_used * self.blob_gas_price_wei


@dataclass(frozen=True, slots=True)
class Fees:
    """Current prices: of the last block's gas, of a tip that gets included, and of blob gas."""

    base_wei: int
    tip_wei: int
    blob_base_wei: int


class L1Client(Protocol):
    """All that the bridge asks of an L1 node. Every method raises L1Unavailable or L1Refused."""

    async def chain_id(self) -> int: ...

    async def head(self) -> L1Block: ...

    async def block(self, which: int | bytes | str) -> L1Block | None:
        """By number, hash, or tag (`safe`, `finalized`); None when the node has none."""

    async def logs(
        self, address: bytes, topics: Sequence[bytes | None], first: int, last: int
    ) -> list[L1Log]: ...

    async def transaction(self, transaction_hash: bytes) -> L1Transaction | None: ...

    async def receipt(self, transaction_hash: bytes) -> L1Receipt | None: ...

    async def nonce(self, address: bytes, tag: str = "latest") -> int: ...

    async def balance(self, address: bytes) -> int: ...

    async def fees(self) -> Fees: ...

    async def call(
        self,
        to: bytes,
        data: bytes,
        sender: bytes | None = None,
        block: int | str = "latest",
        blob_hashes: Sequence[bytes] = (),
    ) -> bytes:
        """Also raises L1Reverted."""

    async def estimate_gas(
        self, sender: bytes, to: bytes | None, data: bytes, blob_hashes: Sequence[bytes] = ()
    ) -> int:
        """Also raises L1Reverted."""

    async def send_raw(self, raw: bytes) -> None:
        """Sending what the node already knows is no error."""
