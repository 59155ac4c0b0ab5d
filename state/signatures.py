"""Signatures over digests: who signed, and signing.

A signature is 64 bytes (EIP-2098): r, then s with the parity of the key's y in the top bit. Only low s is
valid, so nobody but the signer can turn one valid signature into another.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from coincurve import PrivateKey, PublicKey
from coincurve._libsecp256k1 import ffi, lib
from coincurve.context import GLOBAL_CONTEXT
from coincurve.flags import EC_UNCOMPRESSED

from state.errors import RejectCode, Rejected
from state.hashing import keccak

_HALF_ORDER: Final = bytes.fromhex("7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0")
"""Half the curve's order: the largest low s."""


def recover(digest: bytes, signature: bytes) -> bytes | None:
    """The signer's address (20 bytes), or None: not 64 bytes, high s, or nobody's signature."""
    if len(signature) != 64:
        return None
    parity = signature[32] >> 7
    if parity:
        s = bytes((signature[32] & 0x7F,)) + signature[33:]
        compact = signature[:32] + s + b"\x01"
    else:
        s = signature[32:]
        compact = signature + b"\x00"
    if s > _HALF_ORDER:
        return None
    try:
        key = PublicKey.from_signature_and_message(compact, digest, hasher=None)
    except ValueError:
        return None
    return keccak(key.format(compressed=False)[1:])[12:]


class Recoverer:
    """`recover` with buffers of its own, a twelfth faster: not for two threads at once.

    It calls libsecp256k1 as coincurve does, without an object for the signature, for the key and for its
    bytes each time.
    """

    def __init__(self) -> None:
        self._context = GLOBAL_CONTEXT.ctx
        self._signature = ffi.new("secp256k1_ecdsa_recoverable_signature *")
        self._key = ffi.new("secp256k1_pubkey *")
        self._serialized = ffi.new("unsigned char [65]")
        self._length = ffi.new("size_t *", 65)
        self._point = ffi.buffer(self._serialized)

    def recover(self, digest: bytes, signature: bytes) -> bytes | None:
        """As the module's `recover`."""
        if len(signature) != 64 or len(digest) != 32:
            return None
        context, key = self._context, self._key
        parity = signature[32] >> 7
        if parity:
            signature = signature[:32] + bytes((signature[32] & 0x7F,)) + signature[33:]
        if signature[32:] > _HALF_ORDER:
            return None
        parsed = self._signature
        if not lib.secp256k1_ecdsa_recoverable_signature_parse_compact(context, parsed, signature, parity):
            return None
        if not lib.secp256k1_ecdsa_recover(context, key, parsed, digest):
            return None
        lib.secp256k1_ec_pubkey_serialize(context, self._serialized, self._length, key, EC_UNCOMPRESSED)
        return keccak(self._point[1:])[12:]


def recover_many(pairs: Iterable[tuple[bytes, bytes]]) -> list[bytes | None]:
    """`recover` of each (digest, signature); for worker threads, the curve arithmetic frees the GIL."""
    return [recover(digest, signature) for digest, signature in pairs]


def sign(digest: bytes, secret: bytes) -> bytes:
    """Deterministic (RFC 6979) low-s signature, 64 bytes. Raises ValueError for an invalid secret."""
    signed = PrivateKey(secret).sign_recoverable(digest, hasher=None)
    return signed[:32] + bytes((signed[32] | signed[64] << 7,)) + signed[33:64]


def address_of(secret: bytes) -> bytes:
    """The address (20 bytes) of a 32-byte secret key. Raises ValueError for an invalid secret."""
    return keccak(PrivateKey(secret).public_key.format(compressed=False)[1:])[12:]


def normalise_signature(signature: bytes) -> bytes:
    """The 64-byte form of what wallets return: 65 bytes with v of 0, 1, 27 or 28, or 64 bytes already.

    Raises Rejected BAD_SIGNATURE with the reason.
    """
    if len(signature) == 65:
        parity = signature[64] - 27 if signature[64] >= 27 else signature[64]
        if parity not in (0, 1):
            raise Rejected(RejectCode.BAD_SIGNATURE, reason="v is not 0, 1, 27 or 28")
        s = signature[32:64]
    elif len(signature) == 64:
        parity = signature[32] >> 7
        s = bytes((signature[32] & 0x7F,)) + signature[33:]
    else:
        raise Rejected(RejectCode.BAD_SIGNATURE, reason="length is not 64 or 65 bytes")
    if s > _HALF_ORDER:
        raise Rejected(RejectCode.BAD_SIGNATURE, reason="s is high")
    return signature[:32] + bytes((s[0] | parity << 7,)) + s[1:]
