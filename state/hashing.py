"""Keccak-256, the one hash of the protocol.

eth-hash's automatic choice may fall on pycryptodome, several times slower than safe-pysha3, so the fast
backend is named here and everything else imports `keccak` from this module.
"""

from eth_hash.backends.pysha3 import keccak256 as keccak

__all__ = ["keccak"]
