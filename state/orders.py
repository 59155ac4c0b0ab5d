"""Orders in and out of the book: what an order must satisfy, resting, removal, finding one's own.

An order lives in two leaves, one in the book and one that finds it by account and id; `Account.orders`,
`Position.orders` and the position's open sizes count it. `rest` and `remove` are the only places that change
these, except for a fill's decrease of a maker's size (`matching`).
"""

from __future__ import annotations

from typing import Final

from state.actions import OrderKind
from state.block import OrderEnd, OrderEvent
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.extras import extras_of
from state.holdings import close_position, open_position
from state.keys import (
    MAX_U64,
    PARAMETERS_KEY,
    SYSTEM_KEY,
    account_key,
    account_order_key,
    auction_key,
    expiry_key,
    instrument_key,
    market_key,
    order_book_prefix,
    order_key,
    parse_order_key,
    position_key,
    pricing_key,
)
from state.leaves import (
    Account,
    AccountOrder,
    Expiry,
    Instrument,
    Market,
    Parameters,
    Position,
    Pricing,
    RestingOrder,
    System,
    Taker,
)
from state.margin import demand_placeable
from state.positions import funding_owed, is_empty
from state.pricing import mark_of
from state.protection import check_not_frozen
from state.units import MAX_NOTIONAL_UUSD, MAX_SIZE_ULOTS, PPM, ULOTS_PER_LOT
from state.view import StateView

TRADING: Final = 1
REDUCE_ONLY: Final = 2
_MAX_U32: Final = 2**32 - 1
_LIMIT: Final = int(OrderKind.LIMIT)
_POST_ONLY: Final = int(OrderKind.POST_ONLY)
_EXPIRED_LOOKED_AT: Final = 16
_OPEN: Final = int(OrderEnd.OPEN)


def instrument_of(view: StateView, market: int) -> Instrument:
    """Raises Rejected UNKNOWN_INSTRUMENT."""
    terms: Instrument | None = view.get(instrument_key(market)) if 0 < market <= _MAX_U32 else None
    if terms is None:
        raise Rejected(RejectCode.UNKNOWN_INSTRUMENT, market=market)
    return terms


def check_units(tick_uusd: int, lot_ulots: int, price_uusd: int, size_ulots: int) -> None:
    """On tick and on lot. Raises Rejected."""
    if price_uusd % tick_uusd:
        raise Rejected(RejectCode.PRICE_OFF_TICK, tick_uusd=tick_uusd, got=price_uusd)
    if size_ulots % lot_ulots:
        raise Rejected(RejectCode.SIZE_OFF_LOT, lot_ulots=lot_ulots, got=size_ulots)


def check_order(
    view: StateView,
    block: BlockContext,
    taker: Taker,
    account: Account,
    cash_uusd: int,
    old: RestingOrder | None = None,
) -> bool:
    """Whether the order in the registers crosses the book; raises Rejected when it may not be placed.

    `cash_uusd` is the account's cash as it will be; `old` is its order that this one replaces.
    """
    market = taker.market
    terms = instrument_of(view, market)
    state: Market = view.get(market_key(market))
    check_trading(view, block, terms, bool(taker.reduce_only))
    _check_terms(view, block, taker, terms, state)
    parameters: Parameters = view.get(PARAMETERS_KEY)
    position: Position | None = view.get(position_key(taker.account, market))
    if position is None and account.positions >= parameters.max_positions:
        raise Rejected(RejectCode.TOO_MANY_POSITIONS, limit=parameters.max_positions)
    extras = extras_of(view, taker.account)
    if extras is not None:
        check_not_frozen(view, block, taker.account, terms, taker.kind, taker.reduce_only)
    if taker.kind <= _POST_ONLY:
        waiting = extras.triggers if extras is not None else 0
        if account.orders + waiting - (old is not None) >= parameters.max_orders:
            raise Rejected(RejectCode.TOO_MANY_ORDERS, limit=parameters.max_orders)
    if not taker.reduce_only:
        if view.get(auction_key(taker.account)) is not None:
            raise Rejected(RejectCode.ACCOUNT_IN_AUCTION, account=taker.account)
        _check_exposure(view, block, taker, terms, state, position, cash_uusd, old)
    elif reducible(position, taker.side) == 0:
        raise Rejected(
            RejectCode.REDUCE_ONLY_INCREASES, position_ulots=position.size_ulots if position else 0
        )
    best = view.first_under(order_book_prefix(market, 1 - taker.side))
    if best is None or not crosses(taker, best[0]):
        return False
    if taker.kind == _POST_ONLY:
        _check_post_only(view, block, taker)
        return False
    return True


def check_trading(view: StateView, block: BlockContext, terms: Instrument, reduce_only: bool) -> None:
    """Whether the instrument may be traded now. Raises Rejected."""
    if terms.expiry:
        if terms.expiry_s <= block.now_s:
            raise Rejected(RejectCode.EXPIRED_INSTRUMENT, now_s=block.now_s, expiry_s=terms.expiry_s)
        expiry: Expiry = view.get(expiry_key(terms.expiry))
        if expiry.status != TRADING:
            raise Rejected(RejectCode.INSTRUMENT_NOT_TRADING, status=expiry.status)
    status = terms.status
    if status != TRADING and not (status == REDUCE_ONLY and reduce_only):
        raise Rejected(RejectCode.INSTRUMENT_NOT_TRADING, status=status)


def _check_terms(
    view: StateView, block: BlockContext, taker: Taker, terms: Instrument, state: Market
) -> None:
    """What the instrument alone demands of price, size and time; tick and lot have been checked."""
    price, size = taker.price_uusd, taker.size_ulots
    check_size(terms, size)
    lowest, highest = price_band(view, state, terms)
    if not lowest <= price <= highest:
        raise Rejected(RejectCode.PRICE_OUT_OF_BAND, lowest=lowest, highest=highest, got=price)
    if price * size > MAX_NOTIONAL_UUSD * ULOTS_PER_LOT:
        raise Rejected(RejectCode.NOTIONAL_TOO_LARGE, maximum_uusd=MAX_NOTIONAL_UUSD)
    if taker.expiry_s and taker.expiry_s <= block.now_s:
        raise Rejected(RejectCode.ORDER_EXPIRED, now_s=block.now_s, got=taker.expiry_s)


def check_size(terms: Instrument, size_ulots: int) -> None:
    """Within the bounds of one order. Raises Rejected."""
    if size_ulots < terms.min_size_ulots:
        if size_ulots == 0:
            raise Rejected(RejectCode.SIZE_ZERO)
        raise Rejected(RejectCode.SIZE_TOO_SMALL, minimum=terms.min_size_ulots, got=size_ulots)
    if size_ulots > terms.max_size_ulots:
        raise Rejected(RejectCode.SIZE_TOO_LARGE, maximum=terms.max_size_ulots, got=size_ulots)


def price_band(view: StateView, state: Market, terms: Instrument) -> tuple[int, int]:
    """Lowest and highest price of an order now. Raises Rejected ORACLE_STALE before the first mark."""
    mark = mark_of(view, state, terms)
    if mark is None:
        raise Rejected(RejectCode.ORACLE_STALE, mark_ms=0)
    width = band_width(view, terms, mark)
    return max(mark - width, terms.tick_uusd), mark + width


def band_width(view: StateView, terms: Instrument, mark_uusd: int) -> int:
    """How far a price may be from the mark: a share of it, of an option of its expiry's forward, because an
    option's mark may be 0."""
    base = mark_uusd
    if terms.strike_uusd:
        pricing: Pricing = view.get(pricing_key(terms.expiry))
        base = pricing.forward_uusd
    return base * terms.band_ppm // PPM


def _check_exposure(
    view: StateView,
    block: BlockContext,
    taker: Taker,
    terms: Instrument,
    state: Market,
    position: Position | None,
    cash_uusd: int,
    old: RestingOrder | None,
) -> None:
    """What the order could come to must be carried; if it raises the market's exposure, at fresh prices."""
    size = quote = buy = sell = before = 0
    if position is not None:
        size, buy, sell = position.size_ulots, position.open_buy_ulots, position.open_sell_ulots
        quote = position.quote_uusd
        if size:
            quote -= funding_owed(size, position.funding_index_nusd, state.funding_index_nusd)
        before = size + buy if size + buy > sell - size else sell - size
    freed = old.size_ulots if old is not None else 0
    if taker.side:
        sell += taker.size_ulots - freed
    else:
        buy += taker.size_ulots - freed
    after = size + buy if size + buy > sell - size else sell - size
    raises = after > before
    if raises:
        price = state.mark_uusd
        if terms.expiry:
            pricing: Pricing = view.get(pricing_key(terms.expiry))
            price = pricing.forward_uusd
        if after > MAX_SIZE_ULOTS or after * price > MAX_NOTIONAL_UUSD * ULOTS_PER_LOT:
            raise Rejected(RejectCode.NOTIONAL_TOO_LARGE, maximum_uusd=MAX_NOTIONAL_UUSD)
    change = (size, quote, buy, sell)
    delta = -taker.size_ulots if taker.side else taker.size_ulots
    demand_placeable(view, block, taker.account, cash_uusd, taker.market, change, delta, raises)


def _check_post_only(view: StateView, block: BlockContext, taker: Taker) -> None:
    """The best order crosses; unless it and those behind it that cross have expired, that is a no."""
    prefix = order_book_prefix(taker.market, 1 - taker.side)
    found = view.iterate_under(prefix, _EXPIRED_LOOKED_AT)
    for key, order in found:
        if not crosses(taker, key):
            return
        if not is_expired(order, block.now_s):
            raise Rejected(RejectCode.POST_ONLY_CROSSES, best_uusd=maker_price(taker, key))
    if len(found) == _EXPIRED_LOOKED_AT:
        raise Rejected(RejectCode.POST_ONLY_CROSSES)


def reducible(position: Position | None, side: int) -> int:
    """How much of the position an order on this side may reduce, in ulots."""
    if position is None:
        return 0
    return max(0, position.size_ulots if side else -position.size_ulots)


def is_expired(order: RestingOrder, now_s: int) -> bool:
    """Good till its expiry: from that second on it is gone."""
    return 0 < order.expiry_s <= now_s


def maker_price(taker: Taker, key: bytes) -> int:
    """Price of the order under `key` on the other side of the book."""
    price = int.from_bytes(key[6:14], "big")
    return MAX_U64 - price if taker.side else price


def crosses(taker: Taker, key: bytes) -> bool:
    """Whether the registers' order trades with the one under `key`."""
    price = int.from_bytes(key[6:14], "big")
    if taker.side:
        return MAX_U64 - price >= taker.price_uusd
    return price <= taker.price_uusd


def rest(view: StateView, block: BlockContext, taker: Taker) -> None:
    """Puts what is left of the registers' order into the book, behind all others at its price."""
    market, side, price, size = taker.market, taker.side, taker.price_uusd, taker.size_ulots
    number, order_id = taker.account, taker.order_id
    system: System = view.get(SYSTEM_KEY)
    sequence = system.next_sequence
    system.next_sequence = sequence + 1
    view.touch(SYSTEM_KEY, system)
    order = RestingOrder(
        number,
        order_id,
        size,
        taker.prior_ulots + taker.filled_ulots,
        taker.expiry_s,
        taker.reduce_only,
        taker.self_trade,
    )
    view.put(order_key(market, side, price, sequence), order)
    view.put(account_order_key(number, market, order_id), AccountOrder(side, price, sequence))
    own_key = account_key(number)
    account: Account = view.get(own_key)
    account.orders += 1
    held_key = position_key(number, market)
    position: Position | None = view.get(held_key)
    if position is None:
        position = open_position(view, account, number, market)
    position.orders += 1
    if not taker.reduce_only:
        if side:
            position.open_sell_ulots += size
        else:
            position.open_buy_ulots += size
    view.touch(held_key, position)
    view.touch(own_key, account)
    block.orders.append(OrderEvent(number, market, order_id, side, price, size, size, _OPEN))


def remove(view: StateView, block: BlockContext, key: bytes, order: RestingOrder, end: OrderEnd) -> None:
    """Takes an order out of the book, and everything that counts it."""
    market, side, price, _ = parse_order_key(key)
    number, size = order.account, order.size_ulots
    own_key = account_key(number)
    account: Account = view.get(own_key)
    account.orders -= 1
    held_key = position_key(number, market)
    position: Position = view.get(held_key)
    position.orders -= 1
    if not order.reduce_only:
        if side:
            position.open_sell_ulots -= size
        else:
            position.open_buy_ulots -= size
    if is_empty(position):
        close_position(view, account, number, market)
    else:
        view.touch(held_key, position)
    view.touch(own_key, account)
    view.delete(key)
    view.delete(account_order_key(number, market, order.order_id))
    block.accounts.add(number)
    block.orders.append(OrderEvent(number, market, order.order_id, side, price, -size, 0, end))


def find_order(
    view: StateView, account: int, market: int, order_id: int
) -> tuple[bytes, RestingOrder, AccountOrder]:
    """The open order of that id: its key in the book, itself, its entry. Raises Rejected UNKNOWN_ORDER."""
    entry: AccountOrder | None = None
    if 0 < market <= _MAX_U32:
        entry = view.get(account_order_key(account, market, order_id))
    if entry is None:
        raise Rejected(RejectCode.UNKNOWN_ORDER, market=market, order_id=order_id)
    key = order_key(market, entry.side, entry.price_uusd, entry.sequence)
    return key, view.get(key), entry
