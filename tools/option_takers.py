"""Takers of options and futures: at random instruments, sides and sizes, they take what the desk quotes."""

from __future__ import annotations

import random

import trio

from sequencer.client import NodeClient
from state.actions import Order, OrderKind, PlaceOrder, Side
from tools.market import Trader
from tools.option_market import Contract, Ticker, tickers, trading
from tools.order_sender import OrderSender

SEED = 7
LONGEST_THOUGHT_S = 0.8
LARGEST_USD = 40_000.0
"""Worth of the underlying."""
PICKED = 4
"""Instruments that a taker looks at before it decides."""


class OptionTakers:
    """`traders` take turns; the same seed gives the same choices among the same instruments."""

    def __init__(self, url: str, sender: OrderSender, traders: list[Trader], underlying: str) -> None:
        self.fills = 0
        self._url = url
        self._sender = sender
        self._traders = traders
        self._underlying = underlying
        self._random = random.Random(SEED)

    async def run(self) -> None:
        """Trades until cancelled. Raises NodeError, NodeUnreachable."""
        async with NodeClient(self._url) as client:
            while True:
                await trio.sleep(self._random.uniform(0, LONGEST_THOUGHT_S))
                contracts = await trading(client, self._underlying)
                if contracts:
                    await self._trade(client, contracts)

    async def _trade(self, client: NodeClient, contracts: list[Contract]) -> None:
        chance = self._random
        seen = chance.sample(contracts, min(PICKED, len(contracts)))
        side = chance.choice((Side.BUY, Side.SELL))
        dollars = chance.uniform(0, LARGEST_USD)
        trader = chance.choice(self._traders)
        found = await tickers(client, [each.name for each in seen])
        for contract, ticker in zip(seen, found, strict=True):
            order = taking(contract, ticker, side, dollars)
            if order is not None:
                self._sender.learn({contract.market: contract.name})
                action = PlaceOrder(**self._sender.envelope(trader), order=order)
                (receipt,) = await self._sender.send(client, [(trader, action)])
                if isinstance(receipt, dict):
                    self.fills += len(receipt["fills"])
                return


def taking(contract: Contract, ticker: Ticker, side: Side, dollars: float) -> Order | None:
    """An order at the best price of the other side; None if nobody is there."""
    best = ticker["best_bid_price" if side else "best_ask_price"]
    if best is None or ticker["index_price"] is None:
        return None
    size = contract.lots(dollars, ticker["index_price"])
    kind = OrderKind.IMMEDIATE_OR_CANCEL
    return Order(contract.market, side, kind, contract.down(best + contract.tick_uusd / 2_000_000), size)
