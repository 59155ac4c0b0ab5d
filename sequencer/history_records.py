"""Records of an account's history, in three streams: orders, trades, money.

Every record has an index that is unique in its block; time, block and index are its place, and places of an
account ascend. Records are small msgpack arrays; a field is only ever added at the end, with a default.
`history_events` makes them of blocks, `history` keeps and reads them.

- orders: one record for each operation that an account asked for (also those refused inside a bulk action),
  and one for whatever happens later to an order that rests: fills, removals. A transaction that was refused
  as a whole is in no block, so not here.
- trades: one record, filed under both accounts, with what it did to the cash of each.
- money: what came in, went out or moved otherwise.

A transaction's fee for inclusion stands in the record of its first operation on an order, or else in one of
money: most transactions have but one order, and one record is enough for them.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

UNKNOWN = -1
"""Stands for a side or an order kind that the block does not tell."""


class OrderChange(IntEnum):
    PLACE = 1
    REPLACE = 2
    CANCEL = 3
    """It left the book, or was to leave it, without a trade; `end` says why."""
    FILL = 4
    """It traded while it rested."""
    REDUCE = 5
    """It became smaller without a trade: an order of its own owner met it."""
    TRIGGER = 6
    """A trigger was placed (`end` is open), or is gone: fired (triggered, with the code of its order if that
    was refused), or cancelled for the reason `end`."""


class Money(IntEnum):
    """Kinds of the money stream; the names in lower case are what the API says."""

    DEPOSIT = 1
    WITHDRAWAL = 2
    TRANSFER = 3
    INCLUSION_FEE = 4
    SETTLEMENT = 5
    """A position in an expired instrument was closed; the change includes the cost it was held at."""
    LIQUIDATION = 6
    """A step of a liquidation, told to both sides: cash, a position, or both went to the other."""
    PRIORITY = 7
    """What a bid paid for the transaction's place in its block."""


class OrderRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    index: int
    change: int
    """OrderChange."""
    market: int
    order_id: int
    side: int
    """0 buy, 1 sell, UNKNOWN."""
    price_uusd: int
    size_ulots: int
    """What was asked for, or the open size that changed."""
    filled_ulots: int
    """By this event."""
    open_ulots: int
    """What rests after it."""
    cancelled_ulots: int
    """By this event."""
    end: int
    """OrderEnd."""
    code: int = 0
    """RejectCode of an operation that was refused."""
    kind: int = UNKNOWN
    """OrderKind."""
    reduce_only: bool = False
    trade: int = 0
    """Number of the trade that filled it while it rested."""
    transaction: bytes = b""
    """Hash of the account's own transaction that caused it, or of the oracle update that fired its trigger;
    empty when another caused it."""
    fee_uusd: int = 0
    """For the inclusion of `transaction`."""


class TradeRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    index: int
    number: int
    market: int
    price_uusd: int
    size_ulots: int
    taker_side: int
    maker_account: int
    maker_order_id: int
    taker_account: int
    taker_order_id: int
    maker_fee_uusd: int
    taker_fee_uusd: int
    maker_change_uusd: int
    """Of the maker's cash: realised profit and reward, less fee and funding that was due."""
    taker_change_uusd: int
    block_trade: int = 0
    """Of a leg of a block trade: the number of its first trade."""
    maker_reward_uusd: int = 0
    """From what others paid for places in blocks; part of `maker_change_uusd`."""


class MoneyRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    index: int
    kind: int
    """Money."""
    change_uusd: int
    """Of the account's cash."""
    other_account: int = 0
    withdrawal: int = 0
    """Number of the withdrawal."""
    market: int = 0
    size_ulots: int = 0
    price_uusd: int = 0
    transaction: bytes = b""
    """Hash of the transaction that caused it; empty when an L1 message or block time did."""


Record = OrderRecord | TradeRecord | MoneyRecord
