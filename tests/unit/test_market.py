"""The order flow made from a tape: quotes can stand against their round; all is on grid and in bounds."""

from state.actions import BulkOrders, CancelAll, Order, OrderKind, PlaceOrder, Side
from state.units import MAX_BULK_OPERATIONS
from tools.market import MAX_ROUND_TRADES, Trader, round_actions, rounds, spec_for
from tools.tape import synthetic_tape

TAPE = list(synthetic_tape(11, 3_000))


def test_rounds_keep_every_trade_in_its_markets_order() -> None:
    replayed = list(rounds(TAPE))
    for underlying in ("BTC", "ETH"):
        flat = [trade for part in replayed if part.underlying == underlying for trade in part.trades]
        assert flat == [trade for trade in TAPE if trade.underlying == underlying]
    assert any(len(part.trades) > 3 for part in replayed)
    for part in replayed:
        assert len(part.trades) <= MAX_ROUND_TRADES
        sold = [t.price_uusd for t in part.trades if not t.taker_buys]
        bought = [t.price_uusd for t in part.trades if t.taker_buys]
        assert not sold or not bought or max(sold) < min(bought)


def test_a_rounds_actions_are_quotes_that_do_not_cross_and_takers_that_do() -> None:
    maker, takers = Trader("maker", account=1), [Trader("a", account=2), Trader("b", account=3)]
    for part in list(rounds(TAPE))[:200]:
        spec = spec_for(part.underlying, part.last_price_uusd)
        assert spec.tick_uusd * spec.lot_ulots % 1_000_000 == 0
        actions = round_actions(1, spec, part, maker, takers, now_s=1_000)
        cancel, bulk, *taken = [action for _, action in actions]
        assert isinstance(cancel, CancelAll)
        assert isinstance(bulk, BulkOrders)
        assert len(bulk.orders) <= MAX_BULK_OPERATIONS
        assert all(order.kind is OrderKind.POST_ONLY for order in bulk.orders)
        bids = [order.price_uusd for order in bulk.orders if order.side is Side.BUY]
        asks = [order.price_uusd for order in bulk.orders if order.side is Side.SELL]
        assert max(bids) < min(asks)
        orders: list[Order] = [*bulk.orders]
        for action in taken:
            assert isinstance(action, PlaceOrder)
            orders.append(action.order)
        assert all(o.price_uusd % spec.tick_uusd == 0 and o.size_ulots % spec.lot_ulots == 0 for o in orders)
        assert len(taken) == len(part.trades)


def test_traders_keys_follow_from_their_names() -> None:
    assert Trader("a").secret == Trader("a").secret != Trader("b").secret
    assert Trader("a").secret.hex() not in repr(Trader("a"))
