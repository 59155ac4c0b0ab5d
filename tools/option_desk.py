"""A market maker in options and futures, from the exchange's own marks and Greeks.

Once a second it cancels its quotes and places new ones around the marks: as far from them as half a
volatility point is worth, at least a tick, moved against what it holds. What it holds it keeps near delta
neutral with the perpetual. It knows nothing that a trader's bot could not know: everything comes from the
public port.
"""

from __future__ import annotations

from collections.abc import Iterable

import trio

from sequencer.client import NodeClient
from state.actions import Action, BulkOrders, CancelAll, Order, OrderKind, PlaceOrder, Side
from state.units import MAX_BULK_OPERATIONS, ULOTS_PER_LOT
from tools.flow import Listed
from tools.market import Trader
from tools.option_market import UUSD, Contract, Ticker, tickers, trading
from tools.order_sender import OrderSender

INTERVAL_S = 1.0
VOLATILITY_POINTS = 0.5
"""Half of what a quote is wide."""
FUTURE_SPREAD = 0.000_2
"""Half, of a future's price."""
QUOTED_USD = 50_000.0
"""Worth of the underlying on each side of a quote."""
MOST_QUOTES = 20
"""As many quotes' size may be held in one instrument."""
HEDGED_USD = 20_000.0
"""Net delta beyond this is hedged."""
HEDGE_REACH = 0.005
"""How far beyond the best price a hedge may trade."""


class OptionDesk:
    """Quotes everything on one underlying that can be traded; `perpetual` is its market for hedges."""

    def __init__(self, url: str, sender: OrderSender, trader: Trader, perpetual: Listed) -> None:
        self.trader = trader
        self.quoted = 0
        """Instruments that have its quotes."""
        self.net_delta = 0.0
        """Of all that it holds, in coins; before its last hedge."""
        self._url = url
        self._sender = sender
        self._perpetual = perpetual
        self._underlying = perpetual.spec.underlying

    async def run(self) -> None:
        """Quotes until cancelled, and then takes its quotes away. Raises NodeError, NodeUnreachable."""
        async with NodeClient(self._url) as client:
            try:
                while True:
                    await self.quote(client)
                    await trio.sleep(INTERVAL_S)
            finally:
                with trio.move_on_after(2, shield=True):
                    await self._sender.send(client, [(self.trader, self._cancel())])
                self.quoted = 0

    async def quote(self, client: NodeClient) -> None:
        """One round."""
        contracts = await trading(client, self._underlying)
        if not contracts:
            return
        self._sender.learn({each.market: each.name for each in contracts})
        name = self._perpetual.spec.instrument
        *found, perpetual = await tickers(client, [each.name for each in contracts] + [name])
        account = await client.call("straddle_getAccount", {"account": self.trader.account})
        held = {each["instrument_name"]: each["size_ulots"] for each in account["positions"]}
        orders: list[Order] = []
        self.quoted, self.net_delta = 0, held.get(name, 0) / ULOTS_PER_LOT
        for contract, ticker in zip(contracts, found, strict=True):
            position = held.get(contract.name, 0)
            self.net_delta += position / ULOTS_PER_LOT * delta_of(contract, ticker)
            quotes = quotes_of(contract, ticker, position)
            self.quoted += bool(quotes)
            orders += quotes
        actions: list[Action] = [self._cancel(), *self._placing(orders)]
        hedge = hedge_of(self._perpetual, perpetual, self.net_delta)
        if hedge is not None:
            actions.append(PlaceOrder(**self._sender.envelope(self.trader), order=hedge))
        await self._sender.send(client, [(self.trader, each) for each in actions])

    def _cancel(self) -> CancelAll:
        return CancelAll(**self._sender.envelope(self.trader))

    def _placing(self, orders: list[Order]) -> Iterable[BulkOrders]:
        for start in range(0, len(orders), MAX_BULK_OPERATIONS):
            some = tuple(orders[start : start + MAX_BULK_OPERATIONS])
            yield BulkOrders(**self._sender.envelope(self.trader), orders=some)


def delta_of(contract: Contract, ticker: Ticker) -> float:
    """Coins of the underlying that one coin of the instrument moves like; 0 of what has no Greeks yet."""
    if not contract.is_option:
        return 1.0
    return float((ticker.get("greeks") or {}).get("delta") or 0)


def half_spread(contract: Contract, ticker: Ticker) -> float:
    """In dollars, at least a tick."""
    if contract.is_option:
        wide = abs(ticker["greeks"]["vega"]) * VOLATILITY_POINTS
    else:
        wide = ticker["mark_price"] * FUTURE_SPREAD
    return max(float(wide), contract.tick_uusd / UUSD)


def quotes_of(contract: Contract, ticker: Ticker, held_ulots: int) -> list[Order]:
    """A bid and an ask around the mark, within the price band; none without mark, index or Greeks."""
    mark, index = ticker["mark_price"], ticker["index_price"]
    if mark is None or index is None or (contract.is_option and not ticker.get("greeks")):
        return []
    size = contract.lots(QUOTED_USD, index)
    half = half_spread(contract, ticker)
    middle = mark - half * held_ulots / (size * MOST_QUOTES)
    lowest, highest = contract.up(ticker["min_price"]), contract.down(ticker["max_price"])
    bid, ask = contract.down(middle - half), contract.up(middle + half)
    orders = []
    if held_ulots < size * MOST_QUOTES and lowest <= bid <= highest and bid > 0:
        orders.append(Order(contract.market, Side.BUY, OrderKind.POST_ONLY, bid, size))
    if held_ulots > -size * MOST_QUOTES and lowest <= ask <= highest and ask > 0:
        orders.append(Order(contract.market, Side.SELL, OrderKind.POST_ONLY, ask, size))
    return orders


def hedge_of(perpetual: Listed, ticker: Ticker, net_delta: float) -> Order | None:
    """An order in the perpetual that brings the net delta to 0; None if it is small or nobody is there."""
    side = Side.SELL if net_delta > 0 else Side.BUY
    best, index = ticker["best_bid_price" if side else "best_ask_price"], ticker["index_price"]
    if best is None or index is None or abs(net_delta) * index < HEDGED_USD:
        return None
    spec = perpetual.spec
    reach = best * (1 - HEDGE_REACH if side else 1 + HEDGE_REACH)
    price = int(reach * UUSD) // spec.tick_uusd * spec.tick_uusd
    size = int(abs(net_delta) * ULOTS_PER_LOT) // spec.lot_ulots * spec.lot_ulots
    return Order(perpetual.number, side, OrderKind.IMMEDIATE_OR_CANCEL, price, size)
