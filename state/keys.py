"""Where everything lives in the tree: 32-byte keys, `kind | fields, big-endian | zero padding`.

Keys are not hashed, so a prefix is a subtree and order is meaning: the best order of a book is the first leaf
under `order_book_prefix`, because bids' prices are complemented and sequence numbers break ties by arrival.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from struct import Struct
from typing import Final

KEY_BYTES: Final = 32
SYSTEM: Final = 0x00
PROGRESS: Final = 0x01
PARAMETERS: Final = 0x02
PUBLISHERS: Final = 0x03
MARKET_NAME: Final = 0x04
INSTRUMENT: Final = 0x05
MARKET: Final = 0x06
FEED: Final = 0x07
ACCOUNT: Final = 0x08
OWNER_ACCOUNT: Final = 0x09
SESSION_KEY: Final = 0x0A
POSITION: Final = 0x0B
ORDER: Final = 0x0C
ACCOUNT_ORDER: Final = 0x0D
DEAD_MAN: Final = 0x0E
WITHDRAWAL: Final = 0x0F
EXPIRY: Final = 0x10
EXPIRY_OF: Final = 0x11
EXPIRY_MARKET: Final = 0x12
MARKET_POSITION: Final = 0x13
DUE: Final = 0x14
SERIES: Final = 0x15
RATE: Final = 0x16
SURFACE: Final = 0x17
PRICING: Final = 0x18
MARGIN: Final = 0x19
PROTECTION: Final = 0x1A
TRIGGER: Final = 0x1B
ACCOUNT_TRIGGER: Final = 0x1C
AUCTION: Final = 0x1D
QUOTE_USED: Final = 0x1E
LISTINGS: Final = 0x1F
BLOCK_TRADE: Final = 0x20
CLEANUP: Final = 0x21
TRIGGER_COUNT: Final = 0x22
MARKET_TRIGGER: Final = 0x23
EXTRAS: Final = 0x24
TRIGGER_QUEUE: Final = 0x25
LIQUIDATION: Final = 0x28
LIQUIDATIONS: Final = 0x29
FEE_TERMS: Final = 0x2A
FEE_MARKET: Final = 0x2B
PRIORITY: Final = 0x2C
L1_TERMS: Final = 0x2D
L1_PRICE: Final = 0x2E
INDEX_VARIANCE: Final = 0x2F
FEE_TIERS: Final = 0x30
VOLUME: Final = 0x31

MAX_U64: Final = 2**64 - 1

SYSTEM_KEY: Final = bytes([SYSTEM]).ljust(32, b"\0")
PROGRESS_KEY: Final = bytes([PROGRESS]).ljust(32, b"\0")
PARAMETERS_KEY: Final = bytes([PARAMETERS]).ljust(32, b"\0")
PUBLISHERS_KEY: Final = bytes([PUBLISHERS]).ljust(32, b"\0")
LISTINGS_KEY: Final = bytes([LISTINGS]).ljust(32, b"\0")
LIQUIDATION_KEY: Final = bytes([LIQUIDATION]).ljust(32, b"\0")
LIQUIDATIONS_KEY: Final = bytes([LIQUIDATIONS]).ljust(32, b"\0")
FEE_TERMS_KEY: Final = bytes([FEE_TERMS]).ljust(32, b"\0")
FEE_MARKET_KEY: Final = bytes([FEE_MARKET]).ljust(32, b"\0")
FEE_TIERS_KEY: Final = bytes([FEE_TIERS]).ljust(32, b"\0")
PRIORITY_KEY: Final = bytes([PRIORITY]).ljust(32, b"\0")
L1_TERMS_KEY: Final = bytes([L1_TERMS]).ljust(32, b"\0")
L1_PRICE_KEY: Final = bytes([L1_PRICE]).ljust(32, b"\0")

_instrument = Struct(">BI27x").pack
_account = Struct(">BQ23x").pack
_owner_account = Struct(">B20sQ3x").pack
_session_key = Struct(">BQ20s3x").pack
_position = Struct(">BQI19x").pack
_order = Struct(">BIBQQ10x").pack
_order_unpack = Struct(">BIBQQ10x").unpack
_account_order = Struct(">BQIQ11x").pack
_dead_man = Struct(">BQQ15x").pack
_market_prefix = Struct(">BI").pack
_book_prefix = Struct(">BIB").pack
_account_prefix = Struct(">BQ").pack
_account_market_prefix = Struct(">BQI").pack
_expiry_of = Struct(">B23sQ").pack
_expiry_market = Struct(">BIBI22x").pack
_expiry_stage_prefix = Struct(">BIB").pack
_market_position = Struct(">BIQ19x").pack
_due = Struct(">BQBQ14x").pack
_protection = Struct(">BQ23s").pack
_trigger = Struct(">B12sBQQ2x").pack
_trigger_unpack = Struct(">B12sBQQ2x").unpack
_scope_prefix = Struct(">B12sB").pack
_mark_scope = Struct(">8xI").pack
_account_trigger = Struct(">BQIBQ10x").pack
_account_market_flag_prefix = Struct(">BQIB").pack
_quote_used = Struct(">BQQQ7x").pack
_market_trigger = Struct(">BIQQ11x").pack
_trigger_queue = Struct(">BIQI15x").pack
_cleanup_orders = Struct(">BBQ22s").pack
_cleanup_triggers = Struct(">BBQI18x").pack


def name_key(kind: int, name: str) -> bytes:
    """Key of a leaf found by name (MARKET_NAME, FEED, RATE, SURFACE, INDEX_VARIANCE): 1 to 31 ASCII bytes."""
    return (bytes([kind]) + name.encode("ascii")).ljust(32, b"\0")


@lru_cache(4_096)
def instrument_key(market: int) -> bytes:
    return _instrument(INSTRUMENT, market)


@lru_cache(4_096)
def market_key(market: int) -> bytes:
    return _instrument(MARKET, market)


account_key: Callable[[int], bytes] = partial(_account, ACCOUNT)
"""Of an account's number. The keys on the way of an order are packed without a call of our own."""


def owner_account_key(owner: bytes, account: int) -> bytes:
    return _owner_account(OWNER_ACCOUNT, owner, account)


def owner_prefix(owner: bytes) -> bytes:
    return bytes([OWNER_ACCOUNT]) + owner


def session_key_key(account: int, key: bytes) -> bytes:
    return _session_key(SESSION_KEY, account, key)


def session_keys_prefix(account: int) -> bytes:
    return _account_prefix(SESSION_KEY, account)


position_key: Callable[[int, int], bytes] = partial(_position, POSITION)
"""Of the numbers of account and market."""


positions_prefix: Callable[[int], bytes] = partial(_account_prefix, POSITION)
"""Of an account's number."""


def order_key(market: int, side: int, price_uusd: int, sequence: int) -> bytes:
    return _order(ORDER, market, side, price_uusd if side else MAX_U64 - price_uusd, sequence)


@lru_cache(8_192)
def order_book_prefix(market: int, side: int) -> bytes:
    return _book_prefix(ORDER, market, side)


def parse_order_key(key: bytes) -> tuple[int, int, int, int]:
    """(market, side, price_uusd, sequence) of an order's key."""
    _, market, side, price, sequence = _order_unpack(key)
    return market, side, (price if side else MAX_U64 - price), sequence


account_order_key: Callable[[int, int, int], bytes] = partial(_account_order, ACCOUNT_ORDER)
"""Of the numbers of account and market, and the order's id."""


def account_orders_prefix(account: int, market: int = 0) -> bytes:
    """All open orders of the account, or those in one market (market numbers start at 1)."""
    if market:
        return _account_market_prefix(ACCOUNT_ORDER, account, market)
    return _account_prefix(ACCOUNT_ORDER, account)


def dead_man_key(deadline_ms: int, account: int) -> bytes:
    return _dead_man(DEAD_MAN, deadline_ms, account)


def withdrawal_key(number: int) -> bytes:
    return _account(WITHDRAWAL, number)


@lru_cache(4_096)
def pricing_key(expiry: int) -> bytes:
    """Of an expiry's number."""
    return _instrument(PRICING, expiry)


@lru_cache(4_096)
def expiry_key(expiry: int) -> bytes:
    return _instrument(EXPIRY, expiry)


def expiry_of_key(underlying: bytes, expiry_s: int) -> bytes:
    """Of an underlying's name (at most MAX_UNDERLYING_BYTES; padding does not matter) and a time."""
    return _expiry_of(EXPIRY_OF, underlying, expiry_s)


@lru_cache(4_096)
def expiries_prefix(underlying: bytes) -> bytes:
    """All expiries of an underlying, in the order of their times."""
    return _expiry_of(EXPIRY_OF, underlying, 0)[:24]


def expiry_market_key(expiry: int, stage: int, market: int) -> bytes:
    """Stage 0: open; 1: settled. So what is left to settle, and then to delist, is a prefix."""
    return _expiry_market(EXPIRY_MARKET, expiry, stage, market)


def expiry_markets_prefix(expiry: int, stage: int) -> bytes:
    return _expiry_stage_prefix(EXPIRY_MARKET, expiry, stage)


def parse_expiry_market(key: bytes) -> int:
    """The market."""
    return int.from_bytes(key[6:10], "big")


def market_position_key(market: int, account: int) -> bytes:
    return _market_position(MARKET_POSITION, market, account)


def market_positions_prefix(market: int) -> bytes:
    return _market_prefix(MARKET_POSITION, market)


def due_key(time_s: int, what: int, number: int) -> bytes:
    """`what`: `leaves.Due`; `number`: of the expiry or series."""
    return _due(DUE, time_s, what, number)


def parse_due_key(key: bytes) -> tuple[int, int, int]:
    """(time_s, what, number)."""
    return int.from_bytes(key[1:9], "big"), key[9], int.from_bytes(key[10:18], "big")


def series_key(series: int) -> bytes:
    return _instrument(SERIES, series)


def volume_key(account: int) -> bytes:
    return _account(VOLUME, account)


def auction_key(account: int) -> bytes:
    return _account(AUCTION, account)


extras_key: Callable[[int], bytes] = partial(_account, EXTRAS)
"""Of an account's number."""


def protection_key(account: int, underlying: bytes) -> bytes:
    """`underlying`: a name of at most MAX_PROTECTED_BYTES; padding does not matter."""
    return _protection(PROTECTION, account, underlying)


def protections_prefix(account: int) -> bytes:
    return _account_prefix(PROTECTION, account)


def block_trade_key(trade: int) -> bytes:
    """Of the number of its first trade."""
    return _account(BLOCK_TRADE, trade)


def quote_used_key(expiry_s: int, account: int, nonce: int) -> bytes:
    return _quote_used(QUOTE_USED, expiry_s, account, nonce)


def mark_scope(market: int) -> bytes:
    """What triggers on the mark of a market are found under; no name begins with a zero."""
    return _mark_scope(market)


def index_scope(underlying: bytes) -> bytes:
    """What triggers on an index are found under; a name of at most MAX_UNDERLYING_BYTES."""
    return underlying.rstrip(b"\0").ljust(12, b"\0")


def trigger_key(scope: bytes, below: int, trigger_uusd: int, sequence: int) -> bytes:
    """`below`: 1 for triggers that fire at or below their price. The first under a scope and direction is the
    next that fires."""
    price = MAX_U64 - trigger_uusd if below else trigger_uusd
    return _trigger(TRIGGER, scope, below, price, sequence)


def triggers_prefix(scope: bytes, below: int) -> bytes:
    return _scope_prefix(TRIGGER, scope, below)


def parse_trigger_key(key: bytes) -> tuple[bytes, int, int]:
    """(scope, below, trigger_uusd)."""
    _, scope, below, price, _ = _trigger_unpack(key)
    return scope, below, MAX_U64 - price if below else price


def account_trigger_key(account: int, market: int, reduce_only: int, order_id: int) -> bytes:
    return _account_trigger(ACCOUNT_TRIGGER, account, market, reduce_only, order_id)


def account_triggers_prefix(account: int, market: int = 0) -> bytes:
    """All triggers of the account, or those in one market."""
    if market:
        return _account_market_prefix(ACCOUNT_TRIGGER, account, market)
    return _account_prefix(ACCOUNT_TRIGGER, account)


def reducing_triggers_prefix(account: int, market: int) -> bytes:
    """The account's reduce-only triggers in a market."""
    return _account_market_flag_prefix(ACCOUNT_TRIGGER, account, market, 1)


def market_trigger_key(market: int, account: int, order_id: int) -> bytes:
    return _market_trigger(MARKET_TRIGGER, market, account, order_id)


def market_triggers_prefix(market: int) -> bytes:
    return _market_prefix(MARKET_TRIGGER, market)


def parse_market_trigger(key: bytes) -> tuple[int, int]:
    """(account, order id)."""
    return int.from_bytes(key[5:13], "big"), int.from_bytes(key[13:21], "big")


def trigger_count_key(market: int) -> bytes:
    return _instrument(TRIGGER_COUNT, market)


def trigger_queue_key(expiry: int, version: int, market: int) -> bytes:
    return _trigger_queue(TRIGGER_QUEUE, expiry, version, market)


def trigger_queue_prefix(expiry: int) -> bytes:
    return _market_prefix(TRIGGER_QUEUE, expiry)


def parse_trigger_queue(key: bytes) -> tuple[int, int]:
    """(version, market)."""
    return int.from_bytes(key[5:13], "big"), int.from_bytes(key[13:17], "big")


def cleanup_orders_key(account: int, underlying: bytes) -> bytes:
    """All orders of an account in an underlying are to go."""
    return _cleanup_orders(CLEANUP, 0, account, underlying)


def cleanup_triggers_key(account: int, market: int) -> bytes:
    """The reduce-only triggers of an account in a market are to go."""
    return _cleanup_triggers(CLEANUP, 1, account, market)
