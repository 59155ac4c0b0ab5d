"""The keys the operator gives the node: loaded once, never shown.

A key comes from an encrypted keystore (scrypt; a second or so) with its password from a file or the
environment, or as hex from the environment. `SecretKey` signs digests and knows its address; its repr shows
the address only.
"""

from __future__ import annotations

import json
from pathlib import Path

from eth_account import Account

from l1_bridge.recursion import restore_recursion_limit
from sequencer.config import KeySection
from sequencer.config_file import ConfigError
from state import signatures

restore_recursion_limit()


class SecretKey:
    """A secp256k1 key; `address` has 20 bytes."""

    __slots__ = ("_secret", "address")

    def __init__(self, secret: bytes) -> None:
        """Raises ValueError when `secret` is not a key."""
        if len(secret) != 32:
            raise ValueError(f"a secret key has 32 bytes, not {len(secret)}")
        self._secret = secret
        self.address = signatures.address_of(secret)

    def sign(self, digest: bytes) -> bytes:
        """64 bytes, EIP-2098. Blocks for some 70 microseconds without the GIL."""
        return signatures.sign(digest, self._secret)

    def reveal(self) -> bytes:
        """The 32 secret bytes, for the library that signs L1 transactions."""
        return self._secret

    def __repr__(self) -> str:
        return f"SecretKey(0x{self.address.hex()})"


def load_key(section: KeySection, name: str) -> SecretKey:
    """The key that the configuration table `name` names. Blocks while a keystore is decrypted.

    Raises ConfigError, which never quotes a secret.
    """
    if section.private_key:
        text = section.private_key.reveal().removeprefix("0x")
        try:
            return SecretKey(bytes.fromhex(text))
        except ValueError:
            raise ConfigError(f"{name}.private_key: not 32 bytes of hex that make a key") from None
    if not section.keystore:
        variable = f"STRADDLE_{name.upper()}_PRIVATE_KEY"
        raise ConfigError(f"{name}: no key; set {name}.keystore (straddle keys new), or {variable}")
    try:
        keystore = json.loads(Path(section.keystore).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{name}.keystore: {section.keystore}: {error}") from None
    try:
        return SecretKey(bytes(Account.decrypt(keystore, _password(section, name))))
    except (ValueError, TypeError, KeyError, AssertionError):
        raise ConfigError(f"{name}.keystore: {section.keystore}: wrong password, or no keystore") from None


def _password(section: KeySection, name: str) -> str:
    if section.password:
        return section.password.reveal()
    if not section.password_file:
        variable = f"STRADDLE_{name.upper()}_PASSWORD"
        raise ConfigError(f"{name}: the keystore needs {name}.password_file, or {variable}")
    try:
        return Path(section.password_file).read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}.password_file: {section.password_file}: {error}") from None
