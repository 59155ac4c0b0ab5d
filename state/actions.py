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


class TriggerSource(IntEnum):
    """Whose price sets off a trigger."""

    MARK = 0
    """The mark of the order's own instrument."""
    INDEX = 1
    """The index of its underlying."""


class TriggerCondition(IntEnum):
    """Where that price must stand; a stop and a take-profit differ in nothing else."""

    AT_OR_ABOVE = 0
    AT_OR_BELOW = 1


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


class Leg(msgspec.Struct, frozen=True, array_like=True):
    market: int
    side: Side
    """What the account of the quote does."""
    size_ulots: int


class Quote(msgspec.Struct, frozen=True, array_like=True):
    """A maker's offer of several trades at once, or none, for one price; he signs it apart."""

    account: int
    legs: tuple[Leg, ...]
    net_uusd: int
    """Signed: what this account receives for all legs together; below 0 it pays. Fees are apart."""
    taker_account: int
    """The only account that may execute it; 0: any."""
    terms_hash: bytes
    """32 bytes: of what the two agreed besides; zeros for nothing."""
    nonce: int
    """Of quotes alone: an account's quotes of one expiry have different ones."""
    expiry_s: int
    """From this second on it cannot be executed."""
    max_fee_uusd: int
    """Bound of the venue fees that it may cost its account."""


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


class ExecuteQuote(Envelope, frozen=True, kw_only=True, tag=11):
    """Takes the other side of a quote: all its legs at once."""

    KIND: ClassVar[int] = 11
    quote: Quote
    quote_signature: bytes
    """64 bytes, EIP-2098: of the quote, by its account. Part of what the taker signs."""
    limit_uusd: int
    """Signed: the most that this account will pay net; below 0, what it wants to receive at least."""


class CancelQuote(Envelope, frozen=True, kw_only=True, tag=12):
    """Makes the account's quote of this nonce and expiry as good as executed."""

    KIND: ClassVar[int] = 12
    quote_nonce: int
    quote_expiry_s: int


class SetProtection(Envelope, frozen=True, kw_only=True, tag=13):
    """Market-maker protection in one underlying: limits of what may be traded with the account's resting
    orders within an interval. A limit of 0 is none; an interval of 0 ends the protection."""

    KIND: ClassVar[int] = 13
    underlying: str
    interval_ms: int
    frozen_ms: int
    """How long nothing may be placed after a breach; 0: until it is reset."""
    quantity_ulots: int
    delta_ulots: int
    """Of the sum of signed deltas, either way."""
    vega_uusd: int
    """Of the sum of signed vegas, either way: dollars for a volatility point."""


class ResetProtection(Envelope, frozen=True, kw_only=True, tag=14):
    """Ends a freeze, and counts from nothing again."""

    KIND: ClassVar[int] = 14
    underlying: str


class PlaceTrigger(Envelope, frozen=True, kw_only=True, tag=15):
    """An order that is placed when a price gets somewhere: a stop, a take-profit."""

    KIND: ClassVar[int] = 15
    order: Order
    source: TriggerSource
    condition: TriggerCondition
    trigger_uusd: int


class CancelTrigger(Envelope, frozen=True, kw_only=True, tag=16):
    """`order_id` is the one that the order will have when it is placed."""

    KIND: ClassVar[int] = 16
    cancel: Cancel


class StartAuction(Envelope, frozen=True, kw_only=True, tag=24):
    """Puts an account that is below maintenance margin up for auction. Anyone may."""

    KIND: ClassVar[int] = 24
    liquidated: int


class Bid(Envelope, frozen=True, kw_only=True, tag=25):
    """Takes over a share of all positions of an account in auction, at their marks, for a reward in cash."""

    KIND: ClassVar[int] = 25
    liquidated: int
    share_ppm: int
    """Of what the account holds now."""
    min_reward_uusd: int
    """The least reward for which the bidder does it."""


class EndAuction(Envelope, frozen=True, kw_only=True, tag=26):
    """Ends the auction of an account that is healthy again, or has nothing left. Anyone may."""

    KIND: ClassVar[int] = 26
    liquidated: int


class Deleverage(Envelope, frozen=True, kw_only=True, tag=27):
    """Closes a position of an insolvent account against others who profit on its other side. Anyone may."""

    KIND: ClassVar[int] = 27
    liquidated: int
    market: int
    counterparties: tuple[int, ...]
    """In this order, until the position is closed."""


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
    | ExecuteQuote
    | CancelQuote
    | SetProtection
    | ResetProtection
    | PlaceTrigger
    | CancelTrigger
    | StartAuction
    | Bid
    | EndAuction
    | Deleverage
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

    `signers` holds the recovered address of the action's signature (and after it that of the quote which it
    executes), or of each report's; `None` stands where a signature recovers to nothing. `hash` identifies the
    transaction everywhere (`eip712.transaction_hash`).
    """

    payload: Payload
    signers: tuple[bytes | None, ...]
    hash: bytes
