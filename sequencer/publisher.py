"""What goes out on which channel, and when.

| channel | when | what |
|---|---|---|
| `blocks` | a block is durable | header, hash, signature, counts |
| `instruments` | a block is durable | instruments and expiries that were listed, settled or delisted in it |
| `batches` | a batch is committed | number, root, blocks, bytes |
| `trades.{instrument}` | a block is durable | its trades, as `public/get_last_trades_by_instrument` |
| `account.{id}` | a block is durable | its orders, fills, triggers, settlements, liquidations; its money |
| `book.{instrument}.100ms` | every 100 ms | snapshot first, then changed levels, as Deribit |
| `ticker.{instrument}` | every 100 ms, if it changed | as `public/ticker`; snapshot first |

Data is made only for channels that somebody has subscribed to. Requests for quotes have their own (`rfq`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import trio

from sequencer.api_context import ApiContext
from sequencer.api_market import MILLION, MarketApi, levels_view, trade_view
from sequencer.errors import ErrorCode, RpcError
from sequencer.feed import Feed, Snapshot
from sequencer.market_data import TradeRecord
from sequencer.markets import Listed
from sequencer.receipts import END_NAMES, SIDE_NAMES, hex_of, wallet_signature
from sequencer.sealer import Sealed
from state import keys
from state.block import BlockResult, LifeChange, LiquidationChange, LiquidationEvent
from state.errors import RejectCode
from state.margin import margin
from state.store_records import StoredBatch

TICK_S = 0.1
SNAPSHOT_DEPTH = 1_000
LIFE_NAMES = tuple(change.name.lower().replace("_", "-") for change in LifeChange)

BookLevel = tuple[str, float, float]
"""("new" | "change" | "delete", price, amount)"""


class BookMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Deribit's `book` notification: a snapshot, or the levels that changed since the one before."""

    type: str
    timestamp: int
    instrument_name: str
    change_id: int
    bids: list[BookLevel]
    asks: list[BookLevel]
    prev_change_id: int | None = None


def _liquidation(event: LiquidationEvent, names: Callable[[int], str]) -> dict[str, Any]:
    """A step of a liquidation, as `straddle_explainLiquidation` names things."""
    return {
        "auction": event.auction,
        "step": LiquidationChange(event.change).name.lower(),
        "account": event.account,
        "amount_uusd": event.amount_uusd,
        "other_account": event.other or None,
        "other_amount_uusd": event.other_amount_uusd,
        "instrument_name": names(event.market) if event.market else None,
        "size_ulots": event.size_ulots,
        "price_uusd": event.price_uusd,
        "share_ppm": event.share_ppm,
    }


class Publisher:
    """See the module's text."""

    def __init__(self, feed: Feed, context: ApiContext) -> None:
        self._feed = feed
        self._context = context
        self._market_api = MarketApi(context)
        self._last_change: dict[int, int] = {}
        self._last_ticker: dict[int, bytes] = {}
        self._accounts: set[int] = set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The 100 ms channels; runs until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(TICK_S)
            for listed in list(self._context.machine.markets.by_number.values()):
                self._publish_book(listed)
                self._publish_ticker(listed)

    def open_channel(self, name: str) -> Snapshot | None:
        """Checks a channel's name (feed.py's `OpenChannel`). Raises RpcError UNKNOWN_CHANNEL."""
        kind, _, rest = name.partition(".")
        if name in ("blocks", "batches", "instruments"):
            return None
        if kind == "account" and rest.isascii() and rest.isdigit() and len(rest) < 20:
            account = int(rest)
            if self._context.machine.view.get(keys.account_key(account)) is not None:
                self._accounts.add(account)
                return partial(self._account_money, account)
        listed = self._listed(rest.removesuffix(".100ms") if kind == "book" else rest)
        if listed is not None and kind == "trades":
            return None
        if listed is not None and kind == "ticker":
            return partial(self._market_api.ticker_of, listed)
        if listed is not None and kind == "book" and rest.endswith(".100ms"):
            self._publish_book(listed)  # so that the next change follows on the snapshot
            return partial(self._book_snapshot, listed)
        raise RpcError(ErrorCode.UNKNOWN_CHANNEL, data={"channel": name})

    def block_sealed(self, sealed: Sealed) -> None:
        """Tells of a durable block."""
        feed = self._feed
        result = sealed.executed.result
        if feed.is_wanted("blocks"):
            feed.publish("blocks", self._block_message(sealed))
        if result.trades:
            self._publish_trades(result)
        if result.life:
            self._publish_life(result)
        if self._accounts:
            wanted = self._accounts.intersection(result.accounts)
            for account in wanted:
                self._publish_account(account, result)

    def batch_committed(self, batch: StoredBatch) -> None:
        """Tells of a batch whose root is known."""
        message = {
            "number": batch.number,
            "root": hex_of(batch.root),
            "first_block": batch.first_block,
            "last_block": batch.last_block,
            "bytes": len(batch.data),
        }
        self._feed.publish("batches", message)

    def _listed(self, name: str) -> Listed | None:
        return self._context.machine.markets.by_name.get(name)

    def _block_message(self, sealed: Sealed) -> dict[str, Any]:
        block = sealed.block
        header = block.header
        return {
            "number": header.number,
            "hash": hex_of(block.hash),
            "parent_hash": hex_of(header.parent_hash),
            "timestamp_ms": header.timestamp_ms,
            "signature": wallet_signature(block.signature),
            "batch": block.batch,
            "l1_block": header.l1_block,
            "transactions": len(block.results),
            "trades": len(block.trades),
            "messages": len(block.messages),
        }

    def _publish_trades(self, result: BlockResult) -> None:
        by_market = defaultdict(list)
        for trade in result.trades:
            by_market[trade.market].append(trade)
        header = result.header
        for market, trades in by_market.items():
            name = self._context.machine.markets.past_name_of(market)
            channel = f"trades.{name}"
            if self._feed.is_wanted(channel):
                views = [
                    trade_view(name, TradeRecord(trade, header.timestamp_ms, header.number))
                    for trade in trades
                ]
                self._feed.publish(channel, views)

    def _publish_life(self, result: BlockResult) -> None:
        for event in result.life:
            if event.change == LifeChange.DELISTED:
                self._last_change.pop(event.market, None)
                self._last_ticker.pop(event.market, None)
        if not self._feed.is_wanted("instruments"):
            return
        names = self._context.machine.markets.past_name_of
        events = [
            {
                "change": LIFE_NAMES[event.change],
                "instrument_name": names(event.market) if event.market else None,
                "expiry": event.expiry,
                "price_uusd": event.price_uusd or None,
            }
            for event in result.life
            if event.change != LifeChange.POSITION_SETTLED
        ]
        if events:
            header = result.header
            message = {"block_number": header.number, "timestamp_ms": header.timestamp_ms, "events": events}
            self._feed.publish("instruments", message)

    def _publish_account(self, account: int, result: BlockResult) -> None:
        channel = f"account.{account}"
        if not self._feed.is_wanted(channel):
            self._accounts.discard(account)
            return
        names = self._context.machine.markets.past_name_of
        orders = [
            {
                "instrument_name": names(event.market),
                "order_id": event.order_id,
                "side": SIDE_NAMES[event.side],
                "price_uusd": event.price_uusd,
                "open_ulots": event.open_ulots,
                "end": END_NAMES[event.end],
            }
            for event in result.orders
            if event.account == account
        ]
        fills = []
        for trade in result.trades:
            is_maker = trade.maker_account == account
            if is_maker or trade.taker_account == account:
                fills.append(
                    {
                        "trade": trade.number,
                        "instrument_name": names(trade.market),
                        "order_id": trade.maker_order_id if is_maker else trade.taker_order_id,
                        "side": SIDE_NAMES[1 - trade.taker_side if is_maker else trade.taker_side],
                        "liquidity": "maker" if is_maker else "taker",
                        "price_uusd": trade.price_uusd,
                        "size_ulots": trade.size_ulots,
                        "fee_uusd": trade.maker_fee_uusd if is_maker else trade.taker_fee_uusd,
                        "reward_uusd": trade.maker_reward_uusd if is_maker else 0,
                        "block_trade": trade.block_trade or None,
                    }
                )
        header = result.header
        message = {
            "block_number": header.number,
            "timestamp_ms": header.timestamp_ms,
            "orders": orders,
            "fills": fills,
            "triggers": [
                {
                    "instrument_name": names(event.market),
                    "order_id": event.order_id,
                    "end": END_NAMES[event.end],
                    "code": RejectCode(event.code).name if event.code else None,
                }
                for event in result.triggers
                if event.account == account
            ],
            "settlements": [
                {
                    "instrument_name": names(event.market),
                    "size_ulots": event.size_ulots,
                    "price_uusd": event.price_uusd,
                    "cash_uusd": event.amount_uusd,
                }
                for event in result.life
                if event.account == account
            ],
            "liquidations": [
                _liquidation(event, names)
                for transaction in result.results
                for event in transaction.liquidations
                if account in (event.account, event.other)
            ],
            **self._account_money(account),
        }
        self._feed.publish(channel, message)

    def _account_money(self, account: int) -> dict[str, Any]:
        view = self._context.machine.view
        found = margin(view, account)
        leaf = view.get(keys.account_key(account))
        if found is None or leaf is None:
            return {"account": account}
        return {
            "account": account,
            "cash_uusd": leaf.cash_uusd,
            "equity_uusd": found.equity_uusd,
            "initial_margin_uusd": found.initial_uusd,
            "maintenance_margin_uusd": found.maintenance_uusd,
            "available_uusd": found.available_uusd,
        }

    def _publish_book(self, listed: Listed) -> None:
        """The levels that changed since the last time."""
        book = self._context.market_data.of(listed.market)
        if not book.changed:
            return
        changes = book.take_changes()
        channel = f"book.{listed.name}.100ms"
        before = self._last_change.get(listed.market, 0)
        self._last_change[listed.market] = book.changes
        if not changes or not self._feed.is_wanted(channel):
            return
        sides: tuple[list[BookLevel], list[BookLevel]] = ([], [])
        for side, price, old, new in changes:
            action = "delete" if not new else "change" if old else "new"
            sides[side].append((action, price / MILLION, new / MILLION))
        timestamp = self._context.machine.system.timestamp_ms
        message = BookMessage("change", timestamp, listed.name, book.changes, *sides, prev_change_id=before)
        self._feed.publish(channel, message)

    def _book_snapshot(self, listed: Listed) -> BookMessage:
        book = self._context.market_data.of(listed.market)
        bids, asks = (
            [("new", price, amount) for price, amount in levels_view(book.levels(side, SNAPSHOT_DEPTH))]
            for side in (0, 1)
        )
        timestamp = self._context.machine.system.timestamp_ms
        return BookMessage("snapshot", timestamp, listed.name, book.changes, bids, asks)

    def _publish_ticker(self, listed: Listed) -> None:
        channel = f"ticker.{listed.name}"
        if not self._feed.is_wanted(channel):
            self._last_ticker.pop(listed.market, None)
            return
        data = msgspec.json.encode(self._market_api.ticker_of(listed))
        if data != self._last_ticker.get(listed.market):
            self._last_ticker[listed.market] = data
            self._feed.publish(channel, msgspec.Raw(data))
