"""Leaves of an account, besides its orders: cash, keys, positions, protection, what L1 owes it."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar

from state.leaves_base import FixedLeaf


@dataclass
class Account(FixedLeaf):
    """A numbered subaccount."""

    LAYOUT: ClassVar[Struct] = Struct(">20s q Q 32s I I I Q")

    owner: bytes
    cash_uusd: int
    """Settled collateral; may be negative after losses."""
    nonce_base: int
    """Nonces below are spent."""
    nonce_map: bytes
    """Bit i of the big-endian integer: nonce_base + i is spent."""
    orders: int
    """Open orders."""
    positions: int
    """Position leaves."""
    session_keys: int
    dead_man_ms: int
    """0 when off."""


@dataclass
class SessionKey(FixedLeaf):
    """May sign for an account until it expires."""

    LAYOUT: ClassVar[Struct] = Struct(">B Q")

    scope: int
    expiry_s: int


@dataclass
class Position(FixedLeaf):
    """One account in one market, with what its open orders could add. Absent when all is zero."""

    LAYOUT: ClassVar[Struct] = Struct(">q q q Q Q I")

    size_ulots: int
    """Signed: long above zero."""
    quote_uusd: int
    """Signed cost: minus what was paid for the open size."""
    funding_index_nusd: int
    """Market's index when funding was last settled."""
    open_buy_ulots: int
    open_sell_ulots: int
    orders: int
    """Open orders in this market."""


@dataclass
class Extras(FixedLeaf):
    """What an account has beyond orders; absent for most."""

    LAYOUT: ClassVar[Struct] = Struct(">I I")

    triggers: int = 0
    """Trigger leaves."""
    protections: int = 0
    """Protection leaves."""


@dataclass
class Protection(FixedLeaf):
    """Market-maker protection of an account in an underlying (`protection`). A limit of 0 is none."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q Q Q Q q q Q")

    interval_ms: int
    frozen_ms: int
    """How long a freeze lasts; 0: until it is reset."""
    quantity_limit_ulots: int
    delta_limit_ulots: int
    vega_limit_uusd: int
    started_ms: int = 0
    """When the interval began that the next three count."""
    quantity_ulots: int = 0
    delta_ulots: int = 0
    vega_uusd: int = 0
    frozen_until_ms: int = 0
    """Nothing may be placed before."""


@dataclass
class Withdrawal(FixedLeaf):
    """Collateral owed on L1: `Vault.sol` pays it against a proof of this leaf."""

    LAYOUT: ClassVar[Struct] = Struct(">20s Q Q Q")

    recipient: bytes
    amount_uusd: int
    account: int
    block_number: int
