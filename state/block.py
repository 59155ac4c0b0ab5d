"""What a block is made of.

The header is what the sequencer signs and what the next block's `parent_hash` commits to; its hash is the
EIP-712 struct hash (`eip712.header_hash`).
"""

import msgspec


class BlockHeader(msgspec.Struct, frozen=True):
    number: int
    parent_hash: bytes
    """Hash of the header before; 32 zero bytes for the first block."""
    timestamp_ms: int
    transactions: bytes
    """keccak of the concatenated transaction hashes, in execution order."""
    l1_block: int
    """L1 origin: messages up to this L1 block may have been consumed."""
    inbox_next: int
    """Index of the first L1 message not consumed yet."""
