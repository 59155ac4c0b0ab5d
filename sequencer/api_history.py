"""An account's history, page by page: its orders, its trades, and what changed its money.

Fields are named as in Deribit's `private/get_order_history_by_instrument`, `private/get_user_trades_by_...`
and `private/get_transaction_log`, with floats in USD and coins; beside each float stands the integer it was
made from. What is here is public anyway: every batch is on L1.

Each entry has an `id`, by which an account's entries ascend; a page's `cursor` is the id up to which it has
looked, and the next page goes on behind it, in the same direction. While entries are added the pages of one
direction still join without gap or repetition.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec
import trio
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.errors import ErrorCode, RpcError
from sequencer.history import AFTER_ALL, Page, Place, Query, Stream
from sequencer.history_records import Money, OrderChange, OrderRecord, Record, TradeRecord
from sequencer.jsonrpc import Context, Method
from sequencer.receipts import END_NAMES, SIDE_NAMES, hex_of
from state.actions import OrderKind
from state.block import OrderEnd
from state.errors import RejectCode

MILLION = 1_000_000
MAX_ENTRIES = 1_000
MAX_NAME_CHARS = 64
USD = "USD"
_TIMES_IN_FORCE = {
    OrderKind.IMMEDIATE_OR_CANCEL: "immediate_or_cancel",
    OrderKind.FILL_OR_KILL: "fill_or_kill",
    OrderKind.MARKET: "immediate_or_cancel",
}
_TRIGGER_STATES = {int(OrderEnd.OPEN): "untriggered", int(OrderEnd.TRIGGERED): "triggered"}
_CHANGES = {int(change): change.name.lower() for change in OrderChange}
_ID = re.compile(r"(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,19})-(0|[1-9][0-9]{0,9})")

Entry = TypeVar("Entry")
MAX_TIME_MS = 2**62
Time = Annotated[int, Meta(ge=0, le=MAX_TIME_MS)]


class HistoryParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`instrument` is a name; `from` <= timestamp < `to`, in ms; `cursor` the last page's."""

    account: Annotated[int, Meta(ge=0)]
    instrument: Annotated[str, Meta(max_length=MAX_NAME_CHARS)] | None = None
    from_ms: Time = msgspec.field(name="from", default=0)
    to_ms: Time = msgspec.field(name="to", default=MAX_TIME_MS)
    cursor: str | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_ENTRIES)] = 100
    sorting: Literal["desc", "asc"] = "desc"


class OrderEntry(msgspec.Struct, frozen=True):
    """One event of an order; null is what the event does not tell.

    `event` is place, replace or cancel as the account (or, for cancel, a rule: see `reason`) did it, fill for
    a trade while the order rested, reduce when an order of the same owner took a part of it away. Amounts are
    of this event, but `amount` of place and replace is the order's own. `reason` is why an order is not open
    any more, or of a rejected operation its code. Of a trigger `event` is trigger, and `state` untriggered
    when it was placed, triggered when it fired (with the reason if its order was refused), or cancelled.
    """

    id: str
    timestamp: int
    block_number: int
    event: str
    order_id: int
    order_state: str
    reason: str | None
    instrument_name: str | None
    direction: str | None
    order_type: str | None
    time_in_force: str | None
    post_only: bool | None
    reduce_only: bool | None
    price: float
    amount: float
    filled_amount: float
    open_amount: float
    cancelled_amount: float
    price_uusd: int
    size_ulots: int
    filled_ulots: int
    open_ulots: int
    cancelled_ulots: int
    trade_seq: int | None
    transaction: str | None


class TradeEntry(msgspec.Struct, frozen=True):
    """One trade of the account; `fee` below zero is a rebate. `liquidity` is M (maker) or T (taker)."""

    id: str
    timestamp: int
    block_number: int
    trade_id: str
    trade_seq: int
    instrument_name: str | None
    order_id: int
    direction: str
    liquidity: str
    price: float
    amount: float
    fee: float
    fee_currency: str
    price_uusd: int
    size_ulots: int
    fee_uusd: int
    block_trade_id: str | None = None
    """Of a leg of a block trade."""
    reward_uusd: int = 0
    """Of the maker: from what others paid for places in blocks."""


class LogEntry(msgspec.Struct, frozen=True):
    """One change of an account's cash; null is what does not apply.

    `type` is deposit, withdrawal, transfer, trade (realised profit, less `commission` and the funding due),
    settlement, liquidation (a step of one, on either side), or inclusion_fee of a `transaction`. All changes
    of an account add up to its cash; those of an instrument are only those of its positions. `size_ulots` is
    how the position changed, but of a settlement the position that was settled.
    """

    id: str
    timestamp: int
    block_number: int
    type: str
    change: float
    currency: str
    change_uusd: int
    commission: float | None = None
    commission_uusd: int | None = None
    instrument_name: str | None = None
    price_uusd: int | None = None
    size_ulots: int | None = None
    trade_seq: int | None = None
    order_id: int | None = None
    other_account: int | None = None
    withdrawal: int | None = None
    transaction: str | None = None


class HistoryPage(msgspec.Struct, Generic[Entry], frozen=True):
    """`cursor` is null when nothing is left; until then a page may also be short, or even empty.

    Entries from `kept_from` (ms) on are complete; older ones this node has deleted, or never had.
    """

    entries: list[Entry]
    cursor: str | None
    kept_from: int


def id_of(place: Place) -> str:
    return f"{place.timestamp_ms}-{place.block}-{place.number}"


def place_of(text: str) -> Place:
    """The place of an id. Raises RpcError INVALID_PARAMS."""
    found = _ID.fullmatch(text)
    if found is not None:
        place = Place(*map(int, found.groups()))
        if all(given < most for given, most in zip(place, AFTER_ALL, strict=True)):
            return place
    message = "cursor: expected a page's cursor, or the id of an entry"
    raise RpcError(ErrorCode.INVALID_PARAMS, message, {"param": "cursor", "got": text[:MAX_NAME_CHARS]})


class HistoryApi:
    """The methods; all of them read."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context
        self._name_of = context.history.name_of

    def methods(self) -> list[Method[Any]]:
        missing = (ErrorCode.NOT_FOUND,)
        return [
            Method(
                "straddle_getOrderHistory",
                HistoryParams,
                HistoryPage[OrderEntry],
                self._get_orders,
                "What became of an account's orders, event by event.",
                "Newest first unless sorting is asc. Refused transactions are in no block, so not here.",
                errors=missing,
            ),
            Method(
                "straddle_getTradeHistory",
                HistoryParams,
                HistoryPage[TradeEntry],
                self._get_trades,
                "An account's trades.",
                "Newest first unless sorting is asc.",
                errors=missing,
            ),
            Method(
                "straddle_getTransactionLog",
                HistoryParams,
                HistoryPage[LogEntry],
                self._get_log,
                "Every change of an account's cash: deposits, trades, fees, settlements and so on.",
                "Newest first unless sorting is asc.",
                errors=missing,
            ),
        ]

    async def _get_orders(self, params: HistoryParams, _context: Context) -> HistoryPage[OrderEntry]:
        return await self._page(params, (Stream.ORDERS,), self._order)

    async def _get_trades(self, params: HistoryParams, _context: Context) -> HistoryPage[TradeEntry]:
        return await self._page(params, (Stream.TRADES,), self._trade)

    async def _get_log(self, params: HistoryParams, _context: Context) -> HistoryPage[LogEntry]:
        of_instruments = Stream.TRADES, Stream.MONEY
        streams = of_instruments if params.instrument is not None else (Stream.ORDERS, *of_instruments)
        return await self._page(params, streams, self._log, _changes_cash)

    async def _page(
        self,
        params: HistoryParams,
        streams: tuple[Stream, ...],
        view: Callable[[int, Place, Any], Entry],
        wanted: Callable[[Record], bool] = lambda _: True,
    ) -> HistoryPage[Entry]:
        account = params.account
        self._context.account(account)
        low, high = _bounds(params)
        newest_first = params.sorting == "desc"

        def read() -> HistoryPage[Entry]:
            is_wanted = wanted
            if params.instrument is not None:
                is_wanted = self._of_instrument(params.instrument)
            query = Query(account, streams, low, high, newest_first, is_wanted, params.limit)
            page = self._context.history.page(query)
            return _answer(page, [view(account, *placed) for placed in page.records])

        return await trio.to_thread.run_sync(read, limiter=self._context.reads)

    def _of_instrument(self, name: str) -> Callable[[Record], bool]:
        """Whether a record is about the instrument. Raises RpcError NOT_FOUND."""
        markets = self._context.history.markets_of(name)
        if not markets:
            raise RpcError(ErrorCode.NOT_FOUND, "there is no such instrument", {"instrument_name": name})
        return lambda record: record.market in markets

    def _order(self, _account: int, place: Place, record: OrderRecord) -> OrderEntry:
        kind = record.kind if record.kind >= 0 else None
        return OrderEntry(
            id_of(place),
            place.timestamp_ms,
            place.block,
            _CHANGES[record.change],
            record.order_id,
            _state_of(record),
            _reason_of(record),
            self._name_of(record.market),
            SIDE_NAMES[record.side] if record.side >= 0 else None,
            None if kind is None else "market" if kind == OrderKind.MARKET else "limit",
            None if kind is None else _TIMES_IN_FORCE.get(OrderKind(kind), "good_til_cancelled"),
            None if kind is None else kind == OrderKind.POST_ONLY,
            None if kind is None else record.reduce_only,
            record.price_uusd / MILLION,
            record.size_ulots / MILLION,
            record.filled_ulots / MILLION,
            record.open_ulots / MILLION,
            record.cancelled_ulots / MILLION,
            record.price_uusd,
            record.size_ulots,
            record.filled_ulots,
            record.open_ulots,
            record.cancelled_ulots,
            record.trade or None,
            hex_of(record.transaction) if record.transaction else None,
        )

    def _trade(self, account: int, place: Place, record: TradeRecord) -> TradeEntry:
        is_maker = record.maker_account == account
        fee_uusd = record.maker_fee_uusd if is_maker else record.taker_fee_uusd
        name = self._name_of(record.market)
        return TradeEntry(
            id_of(place),
            place.timestamp_ms,
            place.block,
            f"{name}-{record.number}",
            record.number,
            name,
            record.maker_order_id if is_maker else record.taker_order_id,
            SIDE_NAMES[1 - record.taker_side if is_maker else record.taker_side],
            "M" if is_maker else "T",
            record.price_uusd / MILLION,
            record.size_ulots / MILLION,
            fee_uusd / MILLION,
            USD,
            record.price_uusd,
            record.size_ulots,
            fee_uusd,
            str(record.block_trade) if record.block_trade else None,
            record.maker_reward_uusd if is_maker else 0,
        )

    def _log(self, account: int, place: Place, record: Record) -> LogEntry:
        if isinstance(record, TradeRecord):
            return self._log_trade(account, place, record)
        if isinstance(record, OrderRecord):
            return self._log_money(place, Money.INCLUSION_FEE, -record.fee_uusd, record.transaction)
        kind, is_position = Money(record.kind), record.market != 0
        found = self._log_money(place, kind, record.change_uusd, record.transaction)
        return msgspec.structs.replace(
            found,
            instrument_name=self._name_of(record.market) if is_position else None,
            price_uusd=record.price_uusd if is_position else None,
            size_ulots=record.size_ulots if is_position else None,
            other_account=record.other_account or None,
            withdrawal=record.withdrawal or None,
        )

    def _log_money(self, place: Place, kind: Money, change_uusd: int, transaction: bytes) -> LogEntry:
        return LogEntry(
            id=id_of(place),
            timestamp=place.timestamp_ms,
            block_number=place.block,
            type=kind.name.lower(),
            change=change_uusd / MILLION,
            currency=USD,
            change_uusd=change_uusd,
            transaction=hex_of(transaction) if transaction else None,
        )

    def _log_trade(self, account: int, place: Place, record: TradeRecord) -> LogEntry:
        is_maker = record.maker_account == account
        change_uusd = record.maker_change_uusd if is_maker else record.taker_change_uusd
        fee_uusd = record.maker_fee_uusd if is_maker else record.taker_fee_uusd
        is_sale = record.taker_side != is_maker
        return LogEntry(
            id=id_of(place),
            timestamp=place.timestamp_ms,
            block_number=place.block,
            type="trade",
            change=change_uusd / MILLION,
            commission=fee_uusd / MILLION,
            currency=USD,
            change_uusd=change_uusd,
            commission_uusd=fee_uusd,
            instrument_name=self._name_of(record.market),
            price_uusd=record.price_uusd,
            size_ulots=-record.size_ulots if is_sale else record.size_ulots,
            trade_seq=record.number,
            order_id=record.maker_order_id if is_maker else record.taker_order_id,
        )


def _bounds(params: HistoryParams) -> tuple[Place, Place]:
    """Of the places that are left to look at, low <= place < high."""
    low = Place(params.from_ms, 0, 0)
    high = Place(params.to_ms, 0, 0)
    if params.cursor is not None:
        place = place_of(params.cursor)
        if params.sorting == "desc":
            high = min(high, place)
        else:
            low = max(low, place._replace(number=place.number + 1))
    return low, high


def _answer(page: Page, entries: Sequence[Entry]) -> HistoryPage[Entry]:
    return HistoryPage(list(entries), id_of(page.last) if page.last else None, page.kept_from_ms)


def _changes_cash(record: Record) -> bool:
    """Whether the log has an entry for it: of an action's records on orders, one bears its fee."""
    return type(record) is not OrderRecord or record.fee_uusd != 0


def _state_of(record: OrderRecord) -> str:
    if record.change == OrderChange.TRIGGER and record.end in _TRIGGER_STATES:
        return _TRIGGER_STATES[record.end]
    if record.code:
        return "rejected"
    if record.open_ulots:
        return "open"
    return "filled" if record.end == OrderEnd.FILLED else "cancelled"


def _reason_of(record: OrderRecord) -> str | None:
    if record.code:
        return RejectCode(record.code).name
    return None if record.end == OrderEnd.OPEN else END_NAMES[record.end]
