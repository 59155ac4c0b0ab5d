"""What can be asked of the exchange: the actions that traders sign and the updates that publishers sign.

These are the types that the transition executes, after the wire forms (`wire`, `codec`) have been decoded;
a market is its number here and its name in what a wallet signs (`eip712`). All integers are non-negative and
below 2^64; the decoders enforce that, the transition enforces the tighter bounds of `units`.

Every action names the account it acts for, and carries its replay nonce, its deadline and what it may cost.

Between processes of a node they travel as msgpack arrays tagged by kind; that is no form of the protocol.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

import msgspec


class Side(IntEnum):
    BUY = 0
    SELL = 1


class OrderKind(IntEnum):
    LIMIT = 0
    """Matches what it crosses, then rests until cancelled or `expiry_s`."""
    POST_ONLY = 1
    """Rests without matching, or is rejected."""
    IMMEDIATE_OR_CANCEL = 2
    FILL_OR_KILL = 3
    MARKET = 4
    """Immediate-or-cancel whose price is the protection price: the worst that will be accepted."""


class SelfTrade(IntEnum):
    """What happens when an order meets an order of its own account's owner."""

    CANCEL_MAKER = 0
    CANCEL_TAKER = 1
    DECREMENT_BOTH = 2


class Scope(IntEnum):
    """What a session key may sign: everything that `CANCEL_ONLY` may, `TRADE` may."""

    CANCEL_ONLY = 0
    TRADE = 1


class Order(msgspec.Struct, frozen=True, array_like=True):
    market: int
    side: Side
    kind: OrderKind
    price_uusd: int
    size_ulots: int
    reduce_only: bool = False
    expiry_s: int = 0
    """Good till this time; 0 is good till cancelled. Ignored by kinds that never rest."""
    self_trade: SelfTrade = SelfTrade.CANCEL_MAKER


class Cancel(msgspec.Struct, frozen=True, array_like=True):
    market: int
    order_id: int


class Replacement(msgspec.Struct, frozen=True, array_like=True):
    market: int
    order_id: int
    price_uusd: int
    size_ulots: int
    """The new total, counting what was already filled; at or below that the order is cancelled."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    account: int
    nonce: int
    deadline_s: int
    max_fee_uusd: int
    priority_bid_uusd: int = 0


class PlaceOrder(Envelope, frozen=True, kw_only=True, tag=1):
    KIND: ClassVar[int] = 1
    order: Order


class CancelOrder(Envelope, frozen=True, kw_only=True, tag=2):
    KIND: ClassVar[int] = 2
    cancel: Cancel


class CancelAll(Envelope, frozen=True, kw_only=True, tag=3):
    """Cancels all open orders of the account in one market, or everywhere when `market` is 0."""

    KIND: ClassVar[int] = 3
    market: int = 0


class ReplaceOrder(Envelope, frozen=True, kw_only=True, tag=4):
    KIND: ClassVar[int] = 4
    replacement: Replacement


class BulkOrders(Envelope, frozen=True, kw_only=True, tag=5):
    """Up to 64 operations under one signature, executed as listed: cancels, replacements, places."""

    KIND: ClassVar[int] = 5
    cancels: tuple[Cancel, ...] = ()
    replacements: tuple[Replacement, ...] = ()
    orders: tuple[Order, ...] = ()


class Transfer(Envelope, frozen=True, kw_only=True, tag=6):
    KIND: ClassVar[int] = 6
    to_account: int
    amount_uusd: int


class Withdraw(Envelope, frozen=True, kw_only=True, tag=7):
    KIND: ClassVar[int] = 7
    recipient: bytes
    amount_uusd: int


class AuthorizeSessionKey(Envelope, frozen=True, kw_only=True, tag=8):
    KIND: ClassVar[int] = 8
    key: bytes
    scope: Scope
    expiry_s: int


class RevokeSessionKey(Envelope, frozen=True, kw_only=True, tag=9):
    KIND: ClassVar[int] = 9
    key: bytes


class CancelAllAfter(Envelope, frozen=True, kw_only=True, tag=10):
    """Dead-man switch: cancel everything `timeout_s` from now unless refreshed; 0 switches it off."""

    KIND: ClassVar[int] = 10
    timeout_s: int


Action = (
    PlaceOrder
    | CancelOrder
    | CancelAll
    | ReplaceOrder
    | BulkOrders
    | Transfer
    | Withdraw
    | AuthorizeSessionKey
    | RevokeSessionKey
    | CancelAllAfter
)


class Price(msgspec.Struct, frozen=True):
    feed: str
    """Of an underlying (its index), a perpetual (its mark), an expiry (its forward), or the collateral."""
    value_uusd: int
    confidence_ppm: int


class Rate(msgspec.Struct, frozen=True):
    feed: str
    """An expiry's name, as `BTC-27DEC26`."""
    value_ppb: int
    """Until that expiry, continuously compounded, a year; signed."""
    confidence_ppm: int


class SurfaceReport(msgspec.Struct, frozen=True):
    """Raw SVI (`svi`): the first five, in 10^-12, are signed."""

    feed: str
    """An expiry's name."""
    a_pico: int
    b_pico: int
    rho_pico: int
    m_pico: int
    sigma_pico: int
    forward_uusd: int
    tau_s: int
    confidence_ppm: int


class OracleReport(msgspec.Struct, frozen=True):
    timestamp_ms: int
    prices: tuple[Price, ...]
    signature: bytes
    """64 bytes, EIP-2098."""
    rates: tuple[Rate, ...] = ()
    surfaces: tuple[SurfaceReport, ...] = ()


class OracleUpdate(msgspec.Struct, frozen=True):
    KIND: ClassVar[int] = 20
    reports: tuple[OracleReport, ...]


class SignedAction(msgspec.Struct, frozen=True, array_like=True):
    action: Action
    signature: bytes
    """64 bytes, EIP-2098: r, then s with the parity in its top bit."""


Payload = SignedAction | OracleUpdate


class Transaction(msgspec.Struct, frozen=True):
    """A payload whose signatures have been recovered, ready for the transition.

    `signers` holds the recovered address of the action's signature, or of each report's; `None` stands where
    a signature recovers to nothing. `hash` identifies the transaction everywhere (`eip712.transaction_hash`).
    """

    payload: Payload
    signers: tuple[bytes | None, ...]
    hash: bytes
