"""L1 keys: signers, keystore files, and the devnet's public keys, which work on devnets only.

A signer's secret does not leave it: what is printed of a signer is its address.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from l1_bridge.recursion import restore_recursion_limit
from state.signatures import address_of

restore_recursion_limit()

DEVNET_CHAIN_IDS = frozenset({31337, 131277322940537})
"""Anvil's and Hardhat's default, and the embedded L1's."""

DEVNET_KEYS = tuple(
    bytes.fromhex(key)
    for key in (
        "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
        "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
        "5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
        "7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
        "47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
        "8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
        "92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
        "4bbbf85ce3377467afe5d46f804f221813b2bb87f24d81f60f1fcdbf7cbf4356",
        "dbda1821b80551c9d65939329250298aa3472ba22feea921c0cf5d620ea67b97",
        "2a871d0798f97d79848a013d4936a73bf4cc922c825d33c1cf7073dff6d409c6",
    )
)
"""Of the mnemonic "test test ... junk" that every development chain funds. Known to the whole world."""


class KeyRefused(Exception):
    """No usable key, or a key that must not be used here."""


class Signer:
    """Signs L1 transactions for one address."""

    def __init__(self, account: LocalAccount):
        self._account = account
        self.address = bytes.fromhex(account.address[2:])

    def __repr__(self) -> str:
        return f"Signer(0x{self.address.hex()})"

    def sign(self, transaction: dict[str, Any]) -> bytes:
        """The signed transaction in its network form (typed envelope), without a blob sidecar."""
        return bytes(self._account.sign_transaction(transaction).raw_transaction)

    def check_chain(self, chain_id: int) -> None:
        """Raises KeyRefused for a devnet key on any other chain: its funds would be anybody's."""
        if chain_id not in DEVNET_CHAIN_IDS and bytes(self._account.key) in DEVNET_KEYS:
            raise KeyRefused(f"{self!r} is a well-known development key; chain {chain_id} is not a devnet")


def devnet_signer(index: int) -> Signer:
    """One of the ten development accounts."""
    return Signer(Account.from_key(DEVNET_KEYS[index]))


def write_keystore(path: Path, secret: bytes, password: str) -> bytes:
    """Writes an encrypted keystore, readable by its owner only, and returns the address.

    Raises FileExistsError rather than overwrite a key.
    """
    keystore = Account.encrypt(secret, password)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(keystore, file)
    return address_of(secret)
