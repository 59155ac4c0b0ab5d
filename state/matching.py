"""Continuous price-time matching, one resting order a step.

An incoming order stands in the registers (`Progress.taker`) and meets the best order of the other side until
it is filled, nothing crosses, or a bound is met. Each step ends one way: the resting order is removed without
a fill (expired, self-trade, nothing left to reduce, its account cannot carry the fill), or both trade at its
price, or matching ends. Both sides are judged before anything is changed.
"""

from __future__ import annotations

from typing import Final

from state.actions import OrderKind, SelfTrade
from state.block import OperationResult, OrderEnd, OrderEvent, Trade
from state.context import BlockContext
from state.errors import Rejected
from state.extras import extras_of
from state.fee_tiers import count_volume, fill_fees
from state.holdings import close_position, open_position
from state.keys import (
    SYSTEM_KEY,
    account_key,
    account_order_key,
    instrument_key,
    market_key,
    order_book_prefix,
    parse_order_key,
    position_key,
)
from state.leaves import Account, Instrument, Market, Position, Progress, RestingOrder, System, Taker, Task
from state.margin import carries, demand_placeable
from state.orders import crosses, is_expired, maker_price, reducible, remove, rest
from state.overlay import Overlay
from state.positions import after_trade, funding_owed, is_empty, notional_of
from state.priority import reward_uusd
from state.protection import count_fill, is_frozen
from state.trigger_book import position_closed
from state.units import (
    MAX_CASH_UUSD,
    MAX_FILL_OR_KILL_MAKERS,
    MAX_MAKERS_PER_ORDER,
    MAX_QUOTE_UUSD,
    MAX_SIZE_ULOTS,
)
from state.view import StateView

_POST_ONLY: Final = int(OrderKind.POST_ONLY)
_FILL_OR_KILL: Final = int(OrderKind.FILL_OR_KILL)
_NONE: Final = int(Task.NONE)
_MATCH: Final = int(Task.MATCH)


class _Side:
    """One party of a fill: what it has, and what it would have."""

    __slots__ = (
        "account",
        "cash",
        "held",
        "key",
        "market",
        "number",
        "open_buy",
        "open_sell",
        "owed",
        "position",
        "quote",
        "size",
    )

    def __init__(self, view: StateView, number: int, account: Account, market: int) -> None:
        self.number = number
        self.market = market
        self.account = account
        self.key = position_key(number, market)
        self.position: Position | None = view.get(self.key)

    def carries(
        self, view: StateView, market: int, index: int, delta: int, notional: int, fee: int, freed: int
    ) -> bool:
        """Computes the outcome of trading `delta` ulots; whether the account can carry it.

        `freed`: how much of its open orders (on the side of `delta`) the fill uses up. What it can carry is
        `margin.carries`.
        """
        position = self.position
        held = quote = owed = buy = sell = self.held = 0
        if position is not None:
            held = self.held = position.size_ulots
            owed = funding_owed(held, position.funding_index_nusd, index)
            buy, sell = position.open_buy_ulots, position.open_sell_ulots
            quote = position.quote_uusd
        size, quote, realised = after_trade(held, quote, delta, notional)
        if delta > 0:
            buy -= freed
        else:
            sell -= freed
        cash = self.account.cash_uusd - owed + realised - fee
        self.size, self.quote, self.cash, self.owed = size, quote, cash, owed
        self.open_buy, self.open_sell = buy, sell
        if abs(size) > MAX_SIZE_ULOTS or abs(quote) > MAX_QUOTE_UUSD or abs(cash) > MAX_CASH_UUSD:
            return False
        changes = {market: (size, quote, buy, sell)}
        return carries(view, self.number, cash, changes, self.account.cash_uusd)

    def write(self, view: StateView, index: int, orders_gone: int) -> int:
        """Stores the outcome; returns the change of the long open interest."""
        account, position = self.account, self.position
        account.cash_uusd = self.cash
        account.orders -= orders_gone
        if position is None:
            position = open_position(view, account, self.number, self.market)
        before = position.size_ulots
        position.size_ulots = self.size
        position.quote_uusd = self.quote
        position.funding_index_nusd = index
        position.open_buy_ulots = self.open_buy
        position.open_sell_ulots = self.open_sell
        position.orders -= orders_gone
        if is_empty(position):
            close_position(view, account, self.number, self.market)
        else:
            view.touch(self.key, position)
        view.touch(account_key(self.number), account)
        return max(self.size, 0) - max(before, 0)


def place(view: StateView, block: BlockContext, progress: Progress, crossing: bool) -> None:
    """Starts on the order in the registers, which was checked: it matches, rests, or is done."""
    taker = progress.taker
    taker.makers = 0
    taker.filled_ulots = 0
    taker.cleanup = 0
    block.accounts.add(taker.account)
    if crossing:
        progress.task = _MATCH
    else:
        finish(view, block, progress, OrderEnd.OPEN)


def finish(view: StateView, block: BlockContext, progress: Progress, end: OrderEnd) -> None:
    """Ends matching: what is left rests if it may (`end` OPEN), or is cancelled for the reason `end`."""
    taker = progress.taker
    left = taker.size_ulots
    resting = 0
    if left == 0:
        end = OrderEnd.FILLED
    elif end == OrderEnd.OPEN:
        if taker.kind > _POST_ONLY:
            end = OrderEnd.IMMEDIATE
        elif taker.filled_ulots:
            end = _rest_refused(view, block, taker)
        if end == OrderEnd.OPEN:
            rest(view, block, taker)
            resting = left
    block.operations.append(
        OperationResult(0, taker.order_id, taker.filled_ulots, resting, left - resting, end)
    )
    progress.task = Task.CLEANUP if taker.cleanup else progress.parent


def _rest_refused(view: StateView, block: BlockContext, taker: Taker) -> OrderEnd:
    """Why what is left may not rest after fills have changed the account; OPEN if it may."""
    position: Position | None = view.get(position_key(taker.account, taker.market))
    if taker.reduce_only:
        return OrderEnd.OPEN if reducible(position, taker.side) else OrderEnd.REDUCE_ONLY
    account: Account = view.get(account_key(taker.account))
    state: Market = view.get(market_key(taker.market))
    size = quote = buy = sell = before = 0
    if position is not None:
        size, buy, sell = position.size_ulots, position.open_buy_ulots, position.open_sell_ulots
        owed = funding_owed(size, position.funding_index_nusd, state.funding_index_nusd)
        quote = position.quote_uusd - owed
        before = max(size + buy, sell - size)
    if taker.side:
        sell += taker.size_ulots
    else:
        buy += taker.size_ulots
    raises = max(size + buy, sell - size) > before
    change = (size, quote, buy, sell)
    delta = -taker.size_ulots if taker.side else taker.size_ulots
    cash = account.cash_uusd
    try:
        demand_placeable(view, block, taker.account, cash, taker.market, change, delta, raises)
    except Rejected:
        return OrderEnd.MARGIN
    return OrderEnd.OPEN


def match_step(view: StateView, block: BlockContext, progress: Progress) -> None:
    """Meets one resting order, or ends matching."""
    taker = progress.taker
    found = view.first_under(order_book_prefix(taker.market, 1 - taker.side)) if taker.size_ulots else None
    if found is None or not crosses(taker, found[0]):
        finish(view, block, progress, OrderEnd.OPEN)
        return
    bound = MAX_FILL_OR_KILL_MAKERS if taker.kind == _FILL_OR_KILL else MAX_MAKERS_PER_ORDER
    if taker.makers >= bound:
        finish(view, block, progress, OrderEnd.MATCH_LIMIT)
        return
    taker.makers += 1
    key: bytes = found[0]
    order: RestingOrder = found[1]
    if is_expired(order, block.now_s):
        remove(view, block, key, order, OrderEnd.EXPIRED)
        return
    if taker.cleanup and is_frozen(view, block, order.account, view.get(instrument_key(taker.market))):
        remove(view, block, key, order, OrderEnd.PROTECTION)
        return
    account: Account = view.get(account_key(taker.account))
    other: Account = view.get(account_key(order.account))
    if account.owner == other.owner:
        _self_trade(view, block, progress, key, order)
        return
    _trade(
        view,
        block,
        progress,
        key,
        order,
        _Side(view, taker.account, account, taker.market),
        _Side(view, order.account, other, taker.market),
    )


def _self_trade(
    view: StateView, block: BlockContext, progress: Progress, key: bytes, order: RestingOrder
) -> None:
    """The incoming order met one of its own owner: its own setting decides."""
    taker = progress.taker
    if taker.self_trade == SelfTrade.CANCEL_TAKER:
        finish(view, block, progress, OrderEnd.SELF_TRADE)
        return
    if taker.self_trade == SelfTrade.CANCEL_MAKER or order.size_ulots <= taker.size_ulots:
        if taker.self_trade == SelfTrade.DECREMENT_BOTH:
            taker.size_ulots -= order.size_ulots
        remove(view, block, key, order, OrderEnd.SELF_TRADE)
    else:
        shrink(view, block, key, order, order.size_ulots - taker.size_ulots)
        taker.size_ulots = 0
    if taker.size_ulots == 0:
        _finish_decremented(block, progress)


def _finish_decremented(block: BlockContext, progress: Progress) -> None:
    """The incoming order was used up by its owner's own orders, not filled."""
    taker = progress.taker
    block.operations.append(OperationResult(0, taker.order_id, taker.filled_ulots, 0, 0, OrderEnd.SELF_TRADE))
    progress.task = Task.CLEANUP if taker.cleanup else progress.parent


def shrink(view: StateView, block: BlockContext, key: bytes, order: RestingOrder, size_ulots: int) -> None:
    """Makes a resting order smaller; it keeps its priority."""
    market, side, price, _ = parse_order_key(key)
    less = order.size_ulots - size_ulots
    order.size_ulots = size_ulots
    view.touch(key, order)
    if not order.reduce_only:
        held_key = position_key(order.account, market)
        position: Position = view.get(held_key)
        if side:
            position.open_sell_ulots -= less
        else:
            position.open_buy_ulots -= less
        view.touch(held_key, position)
    block.accounts.add(order.account)
    block.orders.append(
        OrderEvent(order.account, market, order.order_id, side, price, -less, size_ulots, OrderEnd.OPEN)
    )


def _trade(
    view: StateView,
    block: BlockContext,
    progress: Progress,
    key: bytes,
    order: RestingOrder,
    own: _Side,
    maker: _Side,
) -> None:
    """Fills both sides at the resting order's price, or removes who cannot carry it."""
    taker = progress.taker
    side, market = taker.side, taker.market
    size = min(taker.size_ulots, order.size_ulots)
    if order.reduce_only:
        size = min(size, reducible(maker.position, 1 - side))
        if size == 0:
            remove(view, block, key, order, OrderEnd.REDUCE_ONLY)
            return
    if taker.reduce_only:
        size = min(size, reducible(own.position, side))
        if size == 0:
            finish(view, block, progress, OrderEnd.REDUCE_ONLY)
            return
    terms: Instrument = view.get(instrument_key(market))
    state: Market = view.get(market_key(market))
    index = state.funding_index_nusd
    price = maker_price(taker, key)
    notional = notional_of(price, size)
    maker_fee, own_fee = fill_fees(view, block, order.account, taker.account, terms, notional)
    reward = 0
    if state.priority_pot_uusd:
        reward = reward_uusd(view, state, notional, maker_fee + own_fee)
    delta = -size if side else size
    freed = 0 if order.reduce_only else size
    if not maker.carries(view, market, index, -delta, notional, maker_fee - reward, freed):
        remove(view, block, key, order, OrderEnd.MARGIN)
        return
    if not own.carries(view, market, index, delta, notional, own_fee, 0):
        finish(view, block, progress, OrderEnd.MARGIN)
        return
    change, own_change = maker.cash - maker.account.cash_uusd, own.cash - own.account.cash_uusd
    _fill_maker(view, block, key, order, size, price, market, 1 - side)
    state.open_interest_ulots += own.write(view, index, 0)
    state.open_interest_ulots += maker.write(view, index, int(order.size_ulots == 0))
    state.funding_pot_uusd += own.owed + maker.owed
    state.priority_pot_uusd -= reward
    state.last_price_uusd = price
    view.touch(market_key(market), state)
    system: System = view.get(SYSTEM_KEY)
    number = system.next_trade
    system.next_trade = number + 1
    system.venue_fees_uusd += maker_fee + own_fee
    view.touch(SYSTEM_KEY, system)
    count_volume(view, block, (order.account, taker.account), notional)
    taker.size_ulots -= size
    taker.filled_ulots += size
    if extras_of(view, maker.number) is not None and (
        count_fill(view, block, maker.number, terms, -delta)
        | position_closed(view, maker.number, market, maker.held, maker.size)
    ):
        taker.cleanup = 1
    if position_closed(view, own.number, market, own.held, own.size):
        taker.cleanup = 1
    block.trades.append(
        Trade(
            number, market, price, size, side,
            order.account, order.order_id, taker.account, taker.order_id, maker_fee, own_fee,
            change, own_change, 0, reward,
        )
    )  # fmt: skip
    if taker.size_ulots == 0:
        finish(view, block, progress, OrderEnd.FILLED)


def _fill_maker(
    view: StateView,
    block: BlockContext,
    key: bytes,
    order: RestingOrder,
    size: int,
    price: int,
    market: int,
    side: int,
) -> None:
    """The resting order's own leaves after a fill; its position and account are written with the party's."""
    order.size_ulots -= size
    order.filled_ulots += size
    left = order.size_ulots
    if left:
        view.touch(key, order)
    else:
        view.delete(key)
        view.delete(account_order_key(order.account, market, order.order_id))
    block.accounts.add(order.account)
    end = OrderEnd.OPEN if left else OrderEnd.FILLED
    block.orders.append(OrderEvent(order.account, market, order.order_id, side, price, -size, left, end))


def fills_completely(view: StateView, block: BlockContext, taker: Taker, cash_uusd: int) -> bool:
    """Whether the registers' order would fill entirely, found by matching it on a copy of what it touches.

    Exact, because it is the same code on the same leaves; bounded by MAX_FILL_OR_KILL_MAKERS. `cash_uusd` is
    what the account will have when it comes to the fills.
    """
    overlay = Overlay(view)
    key = account_key(taker.account)
    account: Account = overlay.get(key)
    account.cash_uusd = cash_uusd
    overlay.put(key, account)
    trial = Progress(taker=Taker.decode(taker.encode()))
    scratch = BlockContext(block.timestamp_ms, block.origin, None)
    place(overlay, scratch, trial, True)
    while trial.task == _MATCH:
        match_step(overlay, scratch, trial)
    return trial.taker.filled_ulots == taker.size_ulots
