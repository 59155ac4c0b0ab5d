"""The leaves of the tree: mutable records with one fixed big-endian layout each.

A leaf is mutable so that the hot path need not copy it; the rule is that whoever changes a leaf says so
to the view (`touch`) in the same step (the recorder checks that). `encode` packs the fields in the order of
their declaration by one struct call; `decode` refuses any other length. Money and sizes are signed 64-bit:
`units` bounds them. Plain dataclasses, because those become C structures when the module is compiled.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from operator import attrgetter
from struct import Struct
from typing import Any, ClassVar, Final, Protocol, Self, cast

from state import keys


class Leaf(Protocol):
    """What the state stores under a key."""

    def encode(self) -> bytes: ...


class FixedLeaf:
    """A leaf of fixed layout: `LAYOUT` packs its fields in the order of their declaration."""

    LAYOUT: ClassVar[Struct]
    values: ClassVar[Any]
    """Gets the fields as a tuple."""

    def encode(self) -> bytes:
        """Raises struct.error if a field is out of its range: a bug, since `units` bounds all inputs."""
        return self.LAYOUT.pack(*self.values(self))

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Raises ValueError when the length is not the layout's."""
        if len(data) != cls.LAYOUT.size:
            raise ValueError(f"{cls.__name__}: {len(data)} bytes, expected {cls.LAYOUT.size}")
        return cls(*cls.LAYOUT.unpack(data))


@dataclass
class System(FixedLeaf):
    """The machine's registers. `Rollup.sol` reads this leaf by offsets, so new fields go at the end."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q 32s Q Q Q 32s Q Q I Q Q Q q q q q B Q")

    block_number: int = 0
    """Of the last block executed."""
    timestamp_ms: int = 0
    """Of that block."""
    parent_hash: bytes = bytes(32)
    """Hash of that block's header."""
    batch_number: int = 0
    """Of the batch being read, or last read."""
    batch_cursor: int = 0
    """Bytes of that batch read so far; its whole length once closed."""
    inbox_next: int = 0
    """Index of the next L1 message to consume."""
    inbox_hash: bytes = bytes(32)
    """Rolling hash of all messages consumed."""
    l1_block: int = 0
    """L1 origin: the L1 block up to which messages may have been consumed."""
    next_account: int = 0
    next_market: int = 0
    next_sequence: int = 0
    """Of the next resting order: time priority."""
    next_trade: int = 0
    next_withdrawal: int = 0
    collateral_uusd: int = 0
    """Deposits less withdrawals begun: what the money below must add up to."""
    insurance_uusd: int = 0
    fees_uusd: int = 0
    """Aggregation fees collected."""
    venue_fees_uusd: int = 0
    """Maker and taker fees collected."""
    order_class: int = 0
    """Ordering: class of the last transaction in this block."""
    order_bid: int = 0
    """Ordering: its bid."""


@dataclass
class Parameters(FixedLeaf):
    """What the venue's governor sets by L1 message, and the prices that cost reports move."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q Q I I I I")

    exec_price_pusd: int
    """Per execution unit."""
    byte_price_pusd: int
    """Per batch byte; moved by batch cost reports."""
    byte_price_max_pusd: int
    """Bound of byte_price_pusd."""
    eth_price_uusd: int
    """Converts cost reports, when no fresh ETH feed does."""
    oracle_max_age_ms: int
    """Heartbeat: older prices are stale."""
    oracle_deviation_ppm: int
    """Largest relative move of one update."""
    max_orders: int
    """Open orders per account."""
    max_positions: int
    """Positions per account."""
    max_session_keys: int
    """Per account."""


@dataclass
class Instrument(FixedLeaf):
    """One tradable instrument as listed; `name` is padded with zeros."""

    LAYOUT: ClassVar[Struct] = Struct(">31s B 31s B Q Q Q Q I I I Q Q Q I")

    name: bytes
    kind: int
    """Kind: 0 perpetual, 1 future, 2 call, 3 put."""
    underlying: bytes
    """Feed name of the index."""
    status: int
    """Status. Of a dated instrument its expiry's status counts as well."""
    tick_uusd: int
    lot_ulots: int
    """Tick_uusd * lot_ulots is a multiple of 10^6, so every fill's notional is exact."""
    min_size_ulots: int
    max_size_ulots: int
    """Of one order."""
    band_ppm: int
    """Largest distance of an order's price from the mark."""
    maker_fee_ppm: int
    taker_fee_ppm: int
    impact_notional_uusd: int
    """Depth at which the premium is measured."""
    strike_uusd: int = 0
    """Of options; 0 of others."""
    expiry_s: int = 0
    """When it expires; 0 of perpetuals."""
    expiry: int = 0
    """Number of its Expiry; 0 of perpetuals."""


@dataclass
class Market(FixedLeaf):
    """What moves in an instrument: its mark, funding, open interest and the batch's reference price."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q q q q Q q Q Q Q Q")

    mark_uusd: int
    """0 before the first oracle update."""
    mark_ms: int
    """When the mark was reported."""
    premium_ppb: int
    """Impact premium over the index, sampled at the last oracle update."""
    funding_rate_ppb: int
    """Hourly, in force until the next sample."""
    funding_index_nusd: int
    """Accumulated funding of one lot."""
    funding_ms: int
    """Up to when funding has accrued."""
    funding_pot_uusd: int
    """Paid in by payers, drawn by receivers; keeps roundings. Of a dated instrument: the pot from which
    positions are settled; losses come in, gains go out, what is left goes to the insurance fund."""
    open_interest_ulots: int
    last_price_uusd: int
    reference_batch: int
    """Batch for which the reference below holds."""
    reference_ticks: int
    """Mark in ticks when that batch first used the market."""


@dataclass
class Feed(FixedLeaf):
    """A price that publishers report: an underlying's index, a perpetual's mark, an expiry's forward.

    The last three fields mean the same in all feeds: its terms, and what it belongs to.
    """

    LAYOUT: ClassVar[Struct] = Struct(">Q I Q Q I I I")

    value_uusd: int = 0
    confidence_ppm: int = 0
    timestamp_ms: int = 0
    """When it was reported."""
    version: int = 0
    """Counts updates; 0 before the first."""
    heartbeat_ms: int = 0
    """Older is stale; 0: as the parameters say."""
    deviation_ppm: int = 0
    """Largest relative move of one update; 0: as the parameters say."""
    expiry: int = 0
    """Number of the expiry whose forward it is; 0 of all others."""


@dataclass
class RateFeed(FixedLeaf):
    """The interest rate until an expiry, continuously compounded, that publishers report."""

    LAYOUT: ClassVar[Struct] = Struct(">q I Q Q I I I")

    value_ppb: int = 0
    """A year."""
    confidence_ppm: int = 0
    timestamp_ms: int = 0
    version: int = 0
    heartbeat_ms: int = 0
    deviation_ppm: int = 0
    """Largest move of one update, up or down: millionths a year."""
    expiry: int = 0


@dataclass
class Surface(FixedLeaf):
    """The volatilities of an expiry that publishers report: raw SVI (`svi`), parameters in 10^-12."""

    LAYOUT: ClassVar[Struct] = Struct(">q q q q q Q Q I Q Q I I I")

    a_pico: int = 0
    b_pico: int = 0
    rho_pico: int = 0
    m_pico: int = 0
    sigma_pico: int = 0
    forward_uusd: int = 0
    """At which the parameters were fitted."""
    tau_s: int = 0
    """Time to expiry to which the parameters belong."""
    confidence_ppm: int = 0
    timestamp_ms: int = 0
    version: int = 0
    heartbeat_ms: int = 0
    deviation_ppm: int = 0
    """Of the volatility at the money."""
    expiry: int = 0


@dataclass
class Pricing(FixedLeaf):
    """The snapshot from which an expiry's marks and risk arrays are made (`pricing`).

    It takes over the feeds' values together, and only when they have moved enough, so that what is computed
    from it stays good for a while.
    """

    LAYOUT: ClassVar[Struct] = Struct(">Q I Q I q I q q q q q Q Q I Q I Q Q Q")

    index_uusd: int = 0
    index_confidence_ppm: int = 0
    forward_uusd: int = 0
    forward_confidence_ppm: int = 0
    rate_ppb: int = 0
    rate_confidence_ppm: int = 0
    a_pico: int = 0
    """This and the next six: the surface."""
    b_pico: int = 0
    rho_pico: int = 0
    m_pico: int = 0
    sigma_pico: int = 0
    reference_uusd: int = 0
    """The surface's own forward."""
    tau_s: int = 0
    """0: there is no surface yet."""
    vol_confidence_ppm: int = 0
    fixed_uusd: int = 0
    """Inside the settlement window: the part of the settlement price that is already certain."""
    live_ppb: int = 1_000_000_000
    """The share of the settlement average that is still open."""
    stable_uusd: int = 1_000_000
    """Dollars that the collateral is worth."""
    priced_ms: int = 0
    """When it was taken: marks and margins count time to expiry from here."""
    version: int = 0
    """Counts moves; 0: nothing known yet."""


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
class RestingOrder(FixedLeaf):
    """An order in the book; its price and priority are in its key."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q Q B B")

    account: int
    order_id: int
    size_ulots: int
    """Open."""
    filled_ulots: int
    expiry_s: int
    """0: good till cancelled."""
    reduce_only: int
    self_trade: int


@dataclass
class AccountOrder(FixedLeaf):
    """Finds an account's order in the book."""

    LAYOUT: ClassVar[Struct] = Struct(">B Q Q")

    side: int
    price_uusd: int
    sequence: int


@dataclass
class Withdrawal(FixedLeaf):
    """Collateral owed on L1: `Vault.sol` pays it against a proof of this leaf."""

    LAYOUT: ClassVar[Struct] = Struct(">20s Q Q Q")

    recipient: bytes
    amount_uusd: int
    account: int
    block_number: int


@dataclass
class Marker(FixedLeaf):
    """An index entry that carries no value of its own."""

    LAYOUT: ClassVar[Struct] = Struct(">B")

    one: int
    """Always 1."""


@dataclass
class MarketName(FixedLeaf):
    """Finds a market by its instrument's name."""

    LAYOUT: ClassVar[Struct] = Struct(">I")

    market: int


@dataclass
class Taker(FixedLeaf):
    """Registers of the order that is being placed; part of `Progress`, not a leaf of its own."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q I B B Q Q Q Q B Q B I B")

    account: int = 0
    order_id: int = 0
    market: int = 0
    side: int = 0
    kind: int = 0
    """OrderKind."""
    price_uusd: int = 0
    size_ulots: int = 0
    """Not filled yet."""
    filled_ulots: int = 0
    prior_ulots: int = 0
    """Filled before it was replaced."""
    reduce_only: int = 0
    expiry_s: int = 0
    self_trade: int = 0
    makers: int = 0
    """Resting orders met so far: filled or removed."""
    cleanup: int = 0
    """1: its fills made something void, which is cancelled when it is done."""


class Kind(IntEnum):
    """What an instrument is."""

    PERPETUAL = 0
    FUTURE = 1
    CALL = 2
    PUT = 3


class Status(IntEnum):
    """Where an instrument, or all of an expiry, stands in its life; when delisted, its leaves are gone."""

    LISTED = 0
    """Not priced yet."""
    TRADING = 1
    REDUCE_ONLY = 2
    HALTED = 3
    SETTLING = 4
    """Expired: orders and positions are being closed, or the settlement price is not known yet."""
    SETTLED = 5


class Due(IntEnum):
    """What block time drives."""

    SETTLE = 0
    """An expiry is over, or its price is known; number: the expiry."""
    DELIST = 1
    """A settled expiry's leaves go; number: the expiry."""
    LIST = 2
    """A series lists what is missing; number: the series."""


@dataclass
class Listings(FixedLeaf):
    """Registers of the life cycle; absent before the first series."""

    LAYOUT: ClassVar[Struct] = Struct(">I I Q")

    next_expiry: int = 1
    next_series: int = 1
    delisted: int = 0
    """Counts instruments that are gone."""


@dataclass
class Expiry(FixedLeaf):
    """One expiry of an underlying: its status, its settlement average and price."""

    LAYOUT: ClassVar[Struct] = Struct(">31s Q B Q Q I I I I")

    underlying: bytes
    expiry_s: int
    status: int
    """Status: LISTED, TRADING, SETTLING or SETTLED."""
    settlement_uusd: int
    """0 until the average is complete."""
    average_uusd_s: int
    """Index times seconds, summed over the settlement window so far."""
    average_rest: int
    """Thousandths of the above."""
    covered_ms: int
    """How much of the window that sum covers."""
    instruments: int
    """Listed and not gone."""
    settled: int
    """Instruments settled."""


@dataclass
class ExpiryOf(FixedLeaf):
    """Finds an expiry by underlying and time."""

    LAYOUT: ClassVar[Struct] = Struct(">I")

    expiry: int


@dataclass
class Terms(FixedLeaf):
    """Trading terms of instruments yet to be listed; part of `Series`, not a leaf of its own."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q Q Q I I I Q")

    tick_uusd: int
    lot_ulots: int
    min_size_ulots: int
    max_size_ulots: int
    band_ppm: int
    maker_fee_ppm: int
    taker_fee_ppm: int
    impact_notional_uusd: int


@dataclass
class Series(FixedLeaf):
    """A template from which expiries are listed, and how far the one under way has come."""

    LAYOUT: ClassVar[Struct] = Struct(">31s B B B Q I 52s 52s I Q I")

    underlying: bytes
    rule: int
    """calendar.Rule."""
    ahead: int
    """How many of the rule's next expiries are kept listed."""
    kinds: int
    """Bits: 1 futures, 2 calls, 4 puts."""
    strike_step_uusd: int
    strikes: int
    """On each side of the index."""
    future: bytes
    """Encoded Terms; zeros if futures are not listed."""
    option: bytes
    """Encoded Terms; zeros if options are not listed."""
    expiry: int = 0
    """Number of the expiry being listed; 0 when none is."""
    strike_uusd: int = 0
    """The lowest strike of that expiry."""
    listed: int = 0
    """Steps of its listing done: first the future, then a call and a put for each strike."""


class AuctionKind(IntEnum):
    """Which curve an auction is on."""

    SOLVENT = 0
    """The account has equity: bidders are rewarded from it."""
    INSOLVENT = 1
    """It has none: the insurance fund fills the hole and rewards bidders."""


@dataclass
class Auction(FixedLeaf):
    """An account in liquidation (`liquidation`); the leaf exists as long as its auction."""

    LAYOUT: ClassVar[Struct] = Struct(">Q B Q Q Q q I")

    number: int
    """Auctions are numbered from 1."""
    kind: int
    """AuctionKind."""
    started_ms: int
    """Since when it is of this kind."""
    opened_ms: int
    left_ppb: int = 1_000_000_000
    """How much of what was held at the start of this kind no bid has taken yet."""
    needed_uusd: int = 0
    """What buffer margin was short of 0 when the auction was opened."""
    bids: int = 0


@dataclass
class LiquidationParameters(FixedLeaf):
    """How auctions run, set by the venue's governor; absent: these defaults."""

    LAYOUT: ClassVar[Struct] = Struct(">I I I I Q Q Q")

    buffer_ppm: int = 150_000
    """Buffer margin is maintenance margin and so much of the requirement more."""
    start_discount_ppm: int = 50_000
    fast_discount_ppm: int = 300_000
    """At the end of the fast phase; at the end of the slow one it is all."""
    fee_ppm: int = 100_000
    """Of what bidders pay, to the insurance fund."""
    fast_ms: int = 900_000
    slow_ms: int = 43_200_000
    insolvent_ms: int = 3_600_000
    """Over which the insurance fund's reward rises to the maintenance requirement."""


@dataclass
class Liquidations(FixedLeaf):
    """Registers of liquidation; absent before the first auction."""

    LAYOUT: ClassVar[Struct] = Struct(">Q")

    next_auction: int = 1


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
class BlockTrade(FixedLeaf):
    """What two parties agreed on when they traded, so that it can be proved (`blocks`)."""

    LAYOUT: ClassVar[Struct] = Struct(">32s 32s Q Q q Q")

    terms_hash: bytes
    legs_hash: bytes
    """Of market, side, size and amount of each leg."""
    maker: int
    taker: int
    net_uusd: int
    """What the maker received."""
    timestamp_ms: int


@dataclass
class Trigger(FixedLeaf):
    """An order that waits for a price; which one is in its key."""

    LAYOUT: ClassVar[Struct] = Struct(">Q Q I B B Q Q B Q B")

    account: int
    order_id: int
    """That the order will have."""
    market: int
    side: int
    kind: int
    """OrderKind."""
    price_uusd: int
    size_ulots: int
    reduce_only: int
    expiry_s: int
    """Of the order; at or after it the trigger places nothing. 0: none."""
    self_trade: int


@dataclass
class AccountTrigger(FixedLeaf):
    """Finds an account's trigger."""

    LAYOUT: ClassVar[Struct] = Struct(">B B Q Q")

    source: int
    """TriggerSource."""
    below: int
    """1: fires at or below its price."""
    trigger_uusd: int
    sequence: int


@dataclass
class TriggerCount(FixedLeaf):
    """How many triggers wait for the mark of a dated instrument."""

    LAYOUT: ClassVar[Struct] = Struct(">I Q")

    triggers: int
    version: int
    """Of its expiry's Pricing when they were last looked at: where the market stands in the queue."""


class Phase(IntEnum):
    """What a block is at."""

    MESSAGES = 0
    SWITCHES = 1
    DUE = 2
    TRANSACTIONS = 3


class Task(IntEnum):
    """What is under way within a message or transaction."""

    NONE = 0
    MATCH = 1
    """The order in the registers is being matched."""
    OPERATIONS = 2
    """A bulk action."""
    SWEEP = 3
    """Orders are being cancelled."""
    FEEDS = 4
    """The feeds of an oracle update are being applied."""
    PRICINGS = 5
    """The expiries that the feeds of an oracle update belong to are being priced."""
    TRIGGERS = 8
    """Triggers that the prices of an oracle update set off are being fired."""
    CLEANUP = 9
    """What trades made void is being cancelled; then the parent task goes on."""
    AUCTION_ORDERS = 20
    """Orders of an account that is put up for auction are being cancelled."""
    SEIZE = 21
    """A bidder takes over positions."""
    DELEVERAGE = 22
    """A position is being closed against counterparties."""


class Progress:
    """Where execution stands between two steps of a block; absent between blocks.

    The registers of the order being placed are part of it only while that order is matching.
    """

    __slots__ = (
        "accumulator",
        "cursor",
        "due",
        "fired",
        "looked",
        "messages_left",
        "operation",
        "parent",
        "phase",
        "switches",
        "taker",
        "task",
    )
    LAYOUT: ClassVar[Struct] = Struct(">BBBIIII32sQII")

    def __init__(
        self,
        phase: int = Phase.MESSAGES,
        task: int = Task.NONE,
        parent: int = Task.NONE,
        messages_left: int = 0,
        switches: int = 0,
        due: int = 0,
        operation: int = 0,
        accumulator: bytes = bytes(32),
        cursor: int = 0,
        fired: int = 0,
        looked: int = 0,
        taker: Taker | None = None,
    ) -> None:
        self.phase = phase
        self.task = task
        self.parent = parent
        """Task that goes on when an order has been matched."""
        self.messages_left = messages_left
        self.switches = switches
        """Dead-man switches executed."""
        self.due = due
        """Steps done of what block time drives."""
        self.operation = operation
        """Next operation of a bulk action, next feed or name of an oracle update."""
        self.accumulator = accumulator
        """Rolling hash of the block's transactions."""
        self.cursor = cursor
        """How far a walk over leaves has come, as its task says; 0 at its start."""
        self.fired = fired
        """Triggers fired in this oracle update."""
        self.looked = looked
        """Markets of one expiry looked at for triggers."""
        self.taker = taker or Taker()

    def encode(self) -> bytes:
        head = self.LAYOUT.pack(
            self.phase,
            self.task,
            self.parent,
            self.messages_left,
            self.switches,
            self.due,
            self.operation,
            self.accumulator,
            self.cursor,
            self.fired,
            self.looked,
        )
        return head + self.taker.encode() if self.task == Task.MATCH else head

    @classmethod
    def decode(cls, data: bytes) -> Progress:
        """Raises ValueError when the length does not fit the task."""
        size = cls.LAYOUT.size
        if len(data) < size:
            raise ValueError(f"Progress: {len(data)} bytes, expected at least {size}")
        progress = cls(*cls.LAYOUT.unpack_from(data))
        if progress.task == Task.MATCH:
            progress.taker = Taker.decode(data[size:])
        elif len(data) != size:
            raise ValueError(f"Progress: {len(data)} bytes, expected {size}")
        return progress


LEAF_OF_KIND: dict[int, type[FixedLeaf]] = {
    keys.SYSTEM: System,
    keys.PARAMETERS: Parameters,
    keys.MARKET_NAME: MarketName,
    keys.INSTRUMENT: Instrument,
    keys.MARKET: Market,
    keys.FEED: Feed,
    keys.ACCOUNT: Account,
    keys.OWNER_ACCOUNT: Marker,
    keys.SESSION_KEY: SessionKey,
    keys.POSITION: Position,
    keys.ORDER: RestingOrder,
    keys.ACCOUNT_ORDER: AccountOrder,
    keys.DEAD_MAN: Marker,
    keys.WITHDRAWAL: Withdrawal,
    keys.EXPIRY: Expiry,
    keys.EXPIRY_OF: ExpiryOf,
    keys.EXPIRY_MARKET: Marker,
    keys.MARKET_POSITION: Marker,
    keys.DUE: Marker,
    keys.SERIES: Series,
    keys.LISTINGS: Listings,
    keys.EXTRAS: Extras,
    keys.PROTECTION: Protection,
    keys.BLOCK_TRADE: BlockTrade,
    keys.QUOTE_USED: Marker,
    keys.TRIGGER: Trigger,
    keys.ACCOUNT_TRIGGER: AccountTrigger,
    keys.MARKET_TRIGGER: Marker,
    keys.TRIGGER_COUNT: TriggerCount,
    keys.TRIGGER_QUEUE: Marker,
    keys.CLEANUP: Marker,
    keys.RATE: RateFeed,
    keys.SURFACE: Surface,
    keys.PRICING: Pricing,
    keys.AUCTION: Auction,
    keys.LIQUIDATION: LiquidationParameters,
    keys.LIQUIDATIONS: Liquidations,
}


def _values_of(leaf_type: type[FixedLeaf]) -> Any:
    names = [field.name for field in fields(cast("Any", leaf_type))]
    return attrgetter(*names) if len(names) > 1 else lambda leaf: (getattr(leaf, names[0]),)


_types: list[type[FixedLeaf]] = [*LEAF_OF_KIND.values(), Taker, Terms]
for _type in _types:
    setattr(_type, "values", staticmethod(_values_of(_type)))  # noqa: B010 - a class of C takes it only so


class Publishers:
    """Who may report prices, and how many must agree."""

    __slots__ = ("addresses", "quorum")

    def __init__(self, quorum: int, addresses: tuple[bytes, ...]) -> None:
        self.quorum = quorum
        self.addresses = addresses

    def encode(self) -> bytes:
        return bytes([self.quorum, len(self.addresses)]) + b"".join(self.addresses)

    @classmethod
    def decode(cls, data: bytes) -> Publishers:
        """Raises ValueError when the length does not fit the count."""
        if len(data) < 2 or len(data) != 2 + 20 * data[1]:
            raise ValueError(f"Publishers: {len(data)} bytes do not fit the count")
        return cls(data[0], tuple(data[i : i + 20] for i in range(2, len(data), 20)))


_SCENARIO: Final = Struct(">IBI")
_MARGIN_VALUES: Final = Struct(">34i")


class MarginTerms:
    """Margin parameters of an underlying (`margin_terms`), in millionths."""

    __slots__ = ("scenarios", "values")

    def __init__(self, scenarios: tuple[tuple[int, int, int], ...], values: tuple[int, ...]) -> None:
        self.scenarios = scenarios
        """Spot, risk_grid.Vol, damping of each."""
        self.values = values
        """In the order of `margin_defaults.DEFAULTS_PPM`."""

    def encode(self) -> bytes:
        scenarios = b"".join([_SCENARIO.pack(*scenario) for scenario in self.scenarios])
        return bytes([len(self.scenarios)]) + scenarios + _MARGIN_VALUES.pack(*self.values)

    @classmethod
    def decode(cls, data: bytes) -> MarginTerms:
        """Raises ValueError when the length does not fit the count."""
        count = data[0] if data else 0
        end = 1 + count * _SCENARIO.size
        if len(data) != end + _MARGIN_VALUES.size:
            raise ValueError(f"MarginTerms: {len(data)} bytes do not fit the count")
        scenarios = tuple([_SCENARIO.unpack_from(data, at) for at in range(1, end, _SCENARIO.size)])
        return cls(scenarios, _MARGIN_VALUES.unpack_from(data, end))


def decode_leaf(key: bytes, data: bytes) -> Leaf:
    """The leaf stored under `key`; raises ValueError for an unknown kind or a wrong length."""
    kind = key[0]
    if kind == keys.PUBLISHERS:
        return Publishers.decode(data)
    if kind == keys.PROGRESS:
        return Progress.decode(data)
    if kind == keys.MARGIN:
        return MarginTerms.decode(data)
    leaf_type = LEAF_OF_KIND.get(kind)
    if leaf_type is None:
        raise ValueError(f"no leaf of kind {kind:#04x}")
    return leaf_type.decode(data)
