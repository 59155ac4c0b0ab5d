"""EIP-4844 blobs: how a batch's bytes lie in them, and the KZG work, kept away from the node's process.

Layout: a blob is 4096 field elements of 32 bytes; each carries 31 bytes of data behind one zero byte, so that
every element is below the field's modulus. Byte `i` of the batch is byte `1 + i % 31` of element
`i // 31 % 4096` of blob `i // 126976`; the rest is zero. A contract can therefore prove any byte range by
point evaluations without knowing anything else.

`ckzg` holds the interpreter while it computes (half a second for a blob's cell proofs, three to load the
trusted setup), which would stall a sequencer in the same process: `KzgWorker` runs it in its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from threading import Lock
from typing import Any, NamedTuple, TypeVar

import ckzg
import rlp
import trio

from l1_bridge.workers import worker_process

Answer = TypeVar("Answer")
Argument = TypeVar("Argument")

BLOB_TYPE = 3
ELEMENTS = 4096
DATA_BYTES_PER_ELEMENT = 31
BLOB_BYTES = ELEMENTS * 32
DATA_BYTES_PER_BLOB = ELEMENTS * DATA_BYTES_PER_ELEMENT
GAS_PER_BLOB = 131_072
WRAPPER_VERSION = 1
"""EIP-7594: the sidecar carries cell proofs."""


class BlobError(ValueError):
    """Blobs that do not hold what they should."""


class Sidecar(NamedTuple):
    """What travels beside a blob transaction, and the hashes inside it."""

    blobs: tuple[bytes, ...]
    commitments: tuple[bytes, ...]
    cell_proofs: tuple[bytes, ...]

    @property
    def hashes(self) -> list[bytes]:
        return [versioned_hash(commitment) for commitment in self.commitments]


def blob_count(size: int) -> int:
    """Blobs that `size` bytes of data need."""
    return -(-size // DATA_BYTES_PER_BLOB)


def pack(data: bytes) -> list[bytes]:
    """Data as blobs. Raises BlobError for no data."""
    if not data:
        raise BlobError("no data")
    blobs = []
    for start in range(0, len(data), DATA_BYTES_PER_BLOB):
        piece = data[start : start + DATA_BYTES_PER_BLOB]
        elements = [
            b"\0" + piece[at : at + DATA_BYTES_PER_ELEMENT]
            for at in range(0, len(piece), DATA_BYTES_PER_ELEMENT)
        ]
        elements[-1] = elements[-1].ljust(32, b"\0")
        blobs.append(b"".join(elements).ljust(BLOB_BYTES, b"\0"))
    return blobs


def unpack(blobs: Sequence[bytes], size: int) -> bytes:
    """The first `size` bytes of data in blobs; bytes outside the layout are ignored, as L1 ignores them.

    Raises BlobError when the blobs are too few or of a wrong length.
    """
    if len(blobs) < blob_count(size):
        raise BlobError(f"{size} bytes of data need {blob_count(size)} blobs, got {len(blobs)}")
    pieces = []
    for blob in blobs:
        if len(blob) != BLOB_BYTES:
            raise BlobError(f"blob of {len(blob)} bytes")
        pieces += [blob[at + 1 : at + 32] for at in range(0, BLOB_BYTES, 32)]
    return b"".join(pieces)[:size]


def versioned_hash(kzg_commitment: bytes) -> bytes:
    """How L1 names a blob: version 1 and the hash of its commitment."""
    return b"\x01" + sha256(kzg_commitment).digest()[1:]


@lru_cache(maxsize=1)
def trusted_setup() -> Any:
    """The ceremony's parameters as packaged with eth_account; takes seconds to load, once per process."""
    source = files("eth_account.typed_transactions.blob_transactions") / "kzg_trusted_setup.txt"
    return ckzg.load_trusted_setup(str(source), 0)


def commitment(blob: bytes) -> bytes:
    """The blob's KZG commitment, 48 bytes. Raises BlobError for an element outside the field."""
    try:
        return bytes(ckzg.blob_to_kzg_commitment(blob, trusted_setup()))
    except (RuntimeError, ValueError) as error:
        raise BlobError(f"not a blob: {error}") from None


def blob_hashes(blobs: Sequence[bytes]) -> list[bytes]:
    """Versioned hashes of blobs."""
    return [versioned_hash(commitment(blob)) for blob in blobs]


def sidecar(data: bytes) -> Sidecar:
    """Blobs, commitments and cell proofs of a batch."""
    blobs = pack(data)
    proofs: list[bytes] = []
    for blob in blobs:
        proofs += ckzg.compute_cells_and_kzg_proofs(blob, trusted_setup())[1]
    return Sidecar(tuple(blobs), tuple(commitment(blob) for blob in blobs), tuple(map(bytes, proofs)))


def with_sidecar(raw: bytes, extra: Sidecar) -> bytes:
    """A signed blob transaction in the form that is sent to the network."""
    body = rlp.decode(raw[1:])
    parts = [body, WRAPPER_VERSION, list(extra.blobs), list(extra.commitments), list(extra.cell_proofs)]
    return bytes([BLOB_TYPE]) + bytes(rlp.encode(parts))


def split_sidecar(raw: bytes) -> tuple[bytes, dict[bytes, bytes]]:
    """The transaction as a block carries it, and its blobs by versioned hash. Raises BlobError."""
    try:
        body, _, blobs, *_ = rlp.decode(raw[1:])
        promised = list(body[10])
    except (rlp.DecodingError, IndexError, ValueError, TypeError):
        raise BlobError("blob transaction without a sidecar") from None
    hashes = blob_hashes(blobs)
    if hashes != promised:
        raise BlobError("blobs do not fit their versioned hashes")
    return bytes([BLOB_TYPE]) + bytes(rlp.encode(body)), dict(zip(hashes, blobs, strict=True))


class KzgWorker:
    """One process for KZG work, started at first use; any thread may use it. Call `close` when done."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._lock = Lock()

    async def sidecar(self, data: bytes) -> Sidecar:
        return await trio.to_thread.run_sync(self.call, sidecar, data, abandon_on_cancel=True)

    async def blob_hashes(self, blobs: Sequence[bytes]) -> list[bytes]:
        """Raises BlobError for what is not a blob."""
        return await trio.to_thread.run_sync(self.call, blob_hashes, list(blobs), abandon_on_cancel=True)

    def call(self, job: Callable[[Argument], Answer], argument: Argument) -> Answer:
        """Runs a function of this module over there and waits. Raises what it raises."""
        try:
            return self._submit(job, argument).result()
        except BrokenExecutor:
            self.close()
            return self._submit(job, argument).result()

    def close(self) -> None:
        """Ends the process; waits for work under way."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=True)

    def _submit(self, job: Callable[[Argument], Answer], argument: Argument) -> Future[Answer]:
        with self._lock:
            if self._pool is None:
                self._pool = worker_process()
            return self._pool.submit(job, argument)
