"""What a block means for each account: its orders, trades and money, as `history_records`.

`BlockEvents` reads one executed block and nothing else, so a block that is executed again after a crash gives
the same records.

iHISTORY_003 An account's cash is the sum of the changes in its trades and its money, less the fees.

To add an event of money: a name in `Money`, and a line in the table of where it comes from
(`_MESSAGE_MONEY`, `_ACTION_MONEY`, `_LIFE_MONEY`). To add an action that places, changes or cancels orders: a
line in `_OPERATIONS`. Names of new reasons why orders end come from `OrderEnd` by themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from struct import Struct
from typing import Any

from sequencer.history_records import UNKNOWN, Money, MoneyRecord, OrderChange, OrderRecord, TradeRecord
from sequencer.machine import ExecutedBlock
from state.actions import (
    Action,
    BulkOrders,
    Cancel,
    CancelOrder,
    CancelTrigger,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    Replacement,
    ReplaceOrder,
    Side,
    SignedAction,
    Transfer,
    Withdraw,
)
from state.block import (
    BlockResult,
    L1Message,
    LifeChange,
    LiquidationEvent,
    MessageKind,
    MessageResult,
    OperationResult,
    OrderEnd,
    OrderEvent,
    Trade,
    TransactionResult,
    TriggerEvent,
)

_FORCED_ORDER = Struct(">QIBQQ")
_FILLED = int(OrderEnd.FILLED)
_TRIGGERED = int(OrderEnd.TRIGGERED)
_TOLD_BEFORE = (int(OrderEnd.OPEN), _TRIGGERED)
"""Ends of triggers that their transactions tell."""
_REPLACED = int(OrderEnd.REPLACED)
_BY_ITSELF = (int(OrderEnd.OPEN), int(OrderEnd.CANCELLED))
"""How the event of an order's own placement, replacement or cancel ends."""


_PLACE, _REPLACE, _CANCEL, _FILL, _REDUCE, _TRIGGER = (int(change) for change in OrderChange)
"""An enumeration's members take longer to find, and there is one for each order."""

Operation = Order | Replacement | Cancel
Moved = tuple[int, int, int, int]
"""(account, change_uusd, other account, withdrawal)"""


def _transferred(action: Transfer, _result: TransactionResult) -> Sequence[Moved]:
    return (
        (action.account, -action.amount_uusd, action.to_account, 0),
        (action.to_account, action.amount_uusd, action.account, 0),
    )


def _withdrawn(action: Withdraw, result: TransactionResult) -> Sequence[Moved]:
    return ((action.account, -action.amount_uusd, 0, result.withdrawal),)


_OPERATIONS: dict[type, Callable[[Any], tuple[Operation, ...]]] = {
    PlaceOrder: lambda action: (action.order,),
    CancelOrder: lambda action: (action.cancel,),
    ReplaceOrder: lambda action: (action.replacement,),
    BulkOrders: lambda action: (*action.cancels, *action.replacements, *action.orders),
}
"""The operations that an action's results are about, one for one."""
_ACTION_MONEY: dict[type, tuple[Money, Callable[[Any, TransactionResult], Sequence[Moved]]]] = {
    Transfer: (Money.TRANSFER, _transferred),
    Withdraw: (Money.WITHDRAWAL, _withdrawn),
}
_MESSAGE_MONEY: dict[int, tuple[Money, int]] = {
    MessageKind.DEPOSIT: (Money.DEPOSIT, 1),
    MessageKind.FORCED_WITHDRAWAL: (Money.WITHDRAWAL, -1),
}
"""L1 messages whose results carry an account and an amount: the kind, and the sign of the change."""
_LIFE_MONEY: dict[int, Money] = {LifeChange.POSITION_SETTLED: Money.SETTLEMENT}
"""Events in the life of instruments that change an account's cash."""


class BlockEvents:
    """One block's records by stream and account; `timestamp_ms` and `block` are theirs."""

    __slots__ = (
        "_fee_uusd",
        "_index",
        "_next_trade",
        "_told",
        "_trades",
        "block",
        "money",
        "orders",
        "timestamp_ms",
        "trades",
    )

    def __init__(self, executed: ExecutedBlock) -> None:
        result = executed.result
        self.timestamp_ms = result.header.timestamp_ms
        self.block = result.header.number
        self.orders: dict[int, list[OrderRecord]] = defaultdict(list)
        self.trades: dict[int, list[TradeRecord]] = defaultdict(list)
        self.money: dict[int, list[MoneyRecord]] = defaultdict(list)
        self._index = 0
        self._trades = _before_transactions(result)
        """Of the step that is being told; fills of resting orders come in the same order."""
        self._next_trade = 0
        self._told: set[tuple[int, int]] = set()
        """Triggers that their account cancelled by name."""
        self._fee_uusd = 0
        """Of the transaction that is being told, until a record has it."""
        for message, answer in zip(executed.messages, result.messages, strict=True):
            self._take_message(message, answer)
        for life in result.life:
            if life.change in _LIFE_MONEY:
                kind, size, price = _LIFE_MONEY[life.change], life.size_ulots, life.price_uusd
                self._moved(kind, life.account, life.amount_uusd, 0, 0, life.market, size, price)
        self._take_trades(result.trades)
        fired = (trigger for trigger in result.triggers if trigger.end == _TRIGGERED)
        start = result.order_ends[0]
        for event in result.orders[:start]:
            self._take_order_event(event, 0, b"")
        ends = result.order_ends[1:]
        for transaction, outcome, end in zip(executed.transactions, result.results, ends, strict=True):
            events = result.orders[start:end]
            start = end
            if events:
                first, after = outcome.trades
                base = result.trades[0].number if first != after else 0
                self._trades, self._next_trade = result.trades[first - base : after - base], 0
            payload = transaction.payload
            if type(payload) is SignedAction:
                self._take_action(payload.action, outcome, events)
                continue
            count = len(outcome.operations)
            self._take_fired(list(islice(fired, count)), outcome, events)
        for trigger in result.triggers:
            key = trigger.account, trigger.order_id
            if trigger.end not in _TOLD_BEFORE and key not in self._told:
                self._take_trigger(trigger, b"")

    @property
    def markets(self) -> set[int]:
        """The instruments that its records name."""
        streams: tuple[dict[int, Any], ...] = (self.orders, self.trades, self.money)
        return {each.market for stream in streams for records in stream.values() for each in records}

    def _moved(self, kind: Money, account: int, change_uusd: int, *details: Any) -> None:
        """Adds to the money stream; `details` are the record's further fields."""
        self._index += 1
        self.money[account].append(MoneyRecord(self._index, int(kind), change_uusd, *details))

    def _take_trigger(self, event: TriggerEvent, transaction: bytes) -> None:
        self._index += 1
        about = event.market, event.order_id, event.side, event.price_uusd, event.size_ulots
        how = event.end, event.code, event.kind, event.reduce_only
        record = OrderRecord(self._index, _TRIGGER, *about, 0, 0, 0, *how, 0, transaction, self._fee_uusd)
        self._fee_uusd = 0
        self.orders[event.account].append(record)

    def _take_own_trigger(self, action: PlaceTrigger | CancelTrigger, outcome: TransactionResult) -> None:
        """A trigger that its account has placed, or cancelled by name."""
        for result in outcome.operations:
            if isinstance(action, CancelTrigger):
                market, order = action.cancel.market, (UNKNOWN, UNKNOWN, 0, result.cancelled_ulots, False)
                self._told.add((action.account, result.order_id))
            else:
                placed = action.order
                size, reduce_only = placed.size_ulots, placed.reduce_only
                market, order = (
                    placed.market,
                    (placed.side, placed.kind, placed.price_uusd, size, reduce_only),
                )
            event = TriggerEvent(action.account, market, result.order_id, *order, result.end)
            self._take_trigger(event, outcome.hash)

    def _take_fired(
        self, fired: Sequence[TriggerEvent], outcome: TransactionResult, events: Sequence[OrderEvent]
    ) -> None:
        """What an oracle update did: triggers it fired, one for each of its operations, and their orders."""
        placed: dict[tuple[int, int], tuple[Order, OperationResult]] = {}
        for event, result in zip(fired, outcome.operations, strict=True):
            self._take_trigger(event, b"")
            side, kind = Side(event.side), OrderKind(event.kind)
            order = Order(event.market, side, kind, event.price_uusd, event.size_ulots, event.reduce_only)
            placed[event.account, event.order_id] = order, result
        for change in events:
            found = placed.pop((change.account, change.order_id), None) if change.delta_ulots > 0 else None
            if found is None:
                self._take_order_event(change, 0, b"")
            else:
                self._take_operation(change.account, *found, change.side, outcome.hash)
        for (account, _), found in placed.items():
            self._take_operation(account, *found, UNKNOWN, outcome.hash)

    def _take_message(self, message: L1Message, answer: MessageResult) -> None:
        """A deposit, or what an owner forced through L1; refused ones change nothing."""
        if answer.code:
            return
        if answer.kind in _MESSAGE_MONEY:
            kind, sign = _MESSAGE_MONEY[answer.kind]
            self._moved(kind, answer.account, sign * answer.amount_uusd, 0, answer.withdrawal)
        if answer.operation is not None and message.kind == MessageKind.FORCED_ORDER:
            _, market, side, price, size = _FORCED_ORDER.unpack(message.payload)
            order = Order(market, side, OrderKind.IMMEDIATE_OR_CANCEL, price, size, True)
            self._take_operation(answer.account, order, answer.operation, UNKNOWN, b"")

    def _take_trades(self, trades: Sequence[Trade]) -> None:
        for trade in trades:
            self._index += 1
            record = TradeRecord(
                self._index,
                trade.number,
                trade.market,
                trade.price_uusd,
                trade.size_ulots,
                trade.taker_side,
                trade.maker_account,
                trade.maker_order_id,
                trade.taker_account,
                trade.taker_order_id,
                trade.maker_fee_uusd,
                trade.taker_fee_uusd,
                trade.maker_change_uusd,
                trade.taker_change_uusd,
                trade.block_trade,
                trade.maker_reward_uusd,
            )
            self.trades[trade.maker_account].append(record)
            self.trades[trade.taker_account].append(record)

    def _take_action(self, action: Action, outcome: TransactionResult, events: Sequence[OrderEvent]) -> None:
        kind = type(action)
        self._fee_uusd = outcome.fee_uusd
        operations = _OPERATIONS.get(kind)
        if operations is not None:
            asked = operations(action)
            self._take_operations(action.account, asked, outcome.operations, events, outcome.hash)
        elif isinstance(action, PlaceTrigger | CancelTrigger):
            self._take_own_trigger(action, outcome)
        else:
            for event in events:
                self._take_order_event(event, action.account, outcome.hash)
        if kind in _ACTION_MONEY and not outcome.code:
            money, moved = _ACTION_MONEY[kind]
            for account, change_uusd, other, withdrawal in moved(action, outcome):
                self._moved(money, account, change_uusd, other, withdrawal, 0, 0, 0, outcome.hash)
        for step in outcome.liquidations:
            self._take_liquidation(step, outcome.hash)
        if self._fee_uusd:
            self._moved(Money.INCLUSION_FEE, action.account, -self._fee_uusd, 0, 0, 0, 0, 0, outcome.hash)
            self._fee_uusd = 0
        if outcome.priority_uusd:
            self._moved(Money.PRIORITY, action.account, -outcome.priority_uusd, 0, 0, 0, 0, 0, outcome.hash)

    def _take_liquidation(self, step: LiquidationEvent, transaction: bytes) -> None:
        """`size_ulots` is how a position changed, so that a position can be followed, as cash can."""
        sides = (
            (step.account, step.amount_uusd, step.other, step.size_ulots),
            (step.other, step.other_amount_uusd, step.account, -step.size_ulots),
        )
        for account, change_uusd, other, size in sides:
            if account and (change_uusd or size):
                terms = step.market, size, step.price_uusd, transaction
                self._moved(Money.LIQUIDATION, account, change_uusd, other, 0, *terms)

    def _take_operations(
        self,
        account: int,
        operations: Sequence[Operation],
        results: Sequence[OperationResult],
        events: Sequence[OrderEvent],
        transaction: bytes,
    ) -> None:
        """An action's own operations, and what happened to other orders while they were executed."""
        if len(results) == 1:
            result, side, price_uusd = results[0], UNKNOWN, 0
            for event in events:
                if event.order_id == result.order_id and event.account == account:
                    side, price_uusd = event.side, event.price_uusd
                else:
                    self._take_order_event(event, account, transaction)
            self._take_operation(account, operations[0], result, side, transaction, price_uusd)
            return
        waiting: dict[int, list[int]] = {}
        told: set[int] = set()
        for place, result in enumerate(results):
            if not result.code:
                waiting.setdefault(result.order_id, []).append(place)
        for event in events:
            places = waiting.get(event.order_id) if event.account == account else None
            if not places:
                self._take_order_event(event, account, transaction)
            elif event.end != _REPLACED:
                # Its own change, unless another operation of the account has met it first.
                place = places[0]
                if event.end in _BY_ITSELF and event.open_ulots == results[place].resting_ulots:
                    told.add(places.pop(0))
                    found = operations[place], results[place]
                    self._take_operation(account, *found, event.side, transaction, event.price_uusd)
                else:
                    self._take_order_event(event, account, transaction)
        for place, (operation, result) in enumerate(zip(operations, results, strict=False)):
            if place not in told:
                self._take_operation(account, operation, result, UNKNOWN, transaction)

    def _take_operation(
        self,
        account: int,
        operation: Operation,
        result: OperationResult,
        side: int,
        transaction: bytes,
        price_uusd: int = 0,
    ) -> None:
        """`side` and `price_uusd` are the order's where a cancel or replacement does not say them."""
        kind, size, reduce_only, change = UNKNOWN, result.cancelled_ulots, False, _CANCEL
        if type(operation) is Order:
            change, kind, side = _PLACE, operation.kind, operation.side
            price_uusd, size, reduce_only = operation.price_uusd, operation.size_ulots, operation.reduce_only
        elif type(operation) is Replacement:
            change, price_uusd, size = _REPLACE, operation.price_uusd, operation.size_ulots
        self._index += 1
        self.orders[account].append(
            OrderRecord(
                self._index,
                change,
                operation.market,
                result.order_id,
                side,
                price_uusd,
                size,
                result.filled_ulots,
                result.resting_ulots,
                result.cancelled_ulots,
                result.end,
                result.code,
                kind,
                reduce_only,
                0,
                transaction,
                self._fee_uusd,
            )
        )
        self._fee_uusd = 0

    def _take_order_event(self, event: OrderEvent, actor: int, transaction: bytes) -> None:
        """A change of a resting order, in a transaction of `actor` (0: of nobody's)."""
        size = abs(event.delta_ulots)
        filled = cancelled = number = 0
        if event.delta_ulots > 0:
            change = _PLACE
        elif (trade := self._trade_of(event)) is not None:
            change, filled, number = _FILL, size, trade.number
        else:
            change = _REDUCE if event.open_ulots else _CANCEL
            cancelled = size
        self._index += 1
        self.orders[event.account].append(
            OrderRecord(
                self._index,
                change,
                event.market,
                event.order_id,
                event.side,
                event.price_uusd,
                size,
                filled,
                event.open_ulots,
                cancelled,
                event.end,
                0,
                UNKNOWN,
                False,
                number,
                transaction if event.account == actor else b"",
            )
        )

    def _trade_of(self, event: OrderEvent) -> Trade | None:
        """The trade that this event tells of, if it does."""
        if event.end > _FILLED or self._next_trade >= len(self._trades):
            return None
        trade = self._trades[self._next_trade]
        if trade.maker_order_id != event.order_id or trade.maker_account != event.account:
            return None
        self._next_trade += 1
        return trade


def _before_transactions(result: BlockResult) -> Sequence[Trade]:
    """The trades of orders that were forced through L1: they come before those of transactions."""
    for outcome in result.results:
        if outcome.trades[0] != outcome.trades[1]:
            return result.trades[: outcome.trades[0] - result.trades[0].number]
    return result.trades
