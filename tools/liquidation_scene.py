"""A liquidation: an account buys with borrowed strength, in a market of its own whose index then falls.

The fall is scripted and goes through the publishers like every price. When the account is below maintenance
margin, a keeper puts it up for auction; a trader bids for as much as the auction allows, until it is over.
"""

from __future__ import annotations

from typing import Any

import trio

from sequencer.client import NodeClient, NodeError
from state.actions import Bid, Order, OrderKind, PlaceOrder, Side
from state.units import PPM, ULOTS_PER_LOT
from tools.flow import Listed
from tools.job_oracle import reported
from tools.market import MarketSpec, Trader, spec_for
from tools.order_sender import OrderSender
from tools.services import ServiceFailed

UNDERLYING = "SLIDE"
PRICE_UUSD = 100_000_000
DEPOSIT_UUSD = 1_000_000_000
SIZE_ULOTS = 30 * ULOTS_PER_LOT
FALL_PPM = 30_000
"""Of the price, each time."""
LOOK_S = 0.2


def sliding_market() -> MarketSpec:
    return spec_for(UNDERLYING, PRICE_UUSD)


class LiquidationScene:
    """`victim` has DEPOSIT_UUSD, `seller` and `bidder` much more; `prices` are what publishers report."""

    def __init__(
        self,
        url: str,
        sender: OrderSender,
        market: Listed,
        traders: tuple[Trader, Trader, Trader],
        prices: dict[str, int],
    ) -> None:
        """`traders`: victim, seller and bidder."""
        self._url = url
        self._sender = sender
        self._market = market
        self._victim, self._seller, self._bidder = traders
        self._prices = prices

    async def run(self) -> int:
        """How many accounts were liquidated: one. Raises ServiceFailed when something is refused."""
        async with NodeClient(self._url) as client:
            await reported(client, [UNDERLYING], 1)
            await self._trade(client)
            await self._fall(client)
            await self._bid(client)
        return 1

    async def _trade(self, client: NodeClient) -> None:
        for trader, side, kind in (
            (self._seller, Side.SELL, OrderKind.POST_ONLY),
            (self._victim, Side.BUY, OrderKind.FILL_OR_KILL),
        ):
            order = Order(self._market.number, side, kind, PRICE_UUSD, SIZE_ULOTS)
            action = PlaceOrder(**self._sender.envelope(trader), order=order)
            (receipt,) = await self._sender.send(client, [(trader, action)])
            if isinstance(receipt, NodeError) or receipt["operations"][0]["code"] != "OK":
                raise ServiceFailed(f"the leveraged trade was refused: {_said(receipt)}")

    async def _fall(self, client: NodeClient) -> None:
        """The index falls until the account is below maintenance margin."""
        while await self._is_healthy(client):
            price = self._prices[UNDERLYING] * (PPM - FALL_PPM) // PPM
            tick = self._market.spec.tick_uusd
            self._prices[UNDERLYING] = price // tick * tick
            await reported(client, [UNDERLYING], self._sender.clock())

    async def _is_healthy(self, client: NodeClient) -> bool:
        account = await client.call("straddle_getAccount", {"account": self._victim.account})
        return bool(account["margin"]["equity_uusd"] >= account["margin"]["maintenance_uusd"])

    async def _bid(self, client: NodeClient) -> None:
        """Bids for all that the auction allows, as often as it takes, until a keeper has ended it."""
        number, bids = self._victim.account, 0
        while True:
            found = await client.call("straddle_getLiquidations")
            auction = next((each for each in found["auctions"] if each["account"] == number), None)
            if auction is None and bids:
                return
            if auction is not None and auction["allowed_share_ppm"]:
                share_ppm = auction["allowed_share_ppm"]
                envelope = self._sender.envelope(self._bidder)
                bid = Bid(**envelope, liquidated=number, share_ppm=share_ppm, min_reward_uusd=0)
                (receipt,) = await self._sender.send(client, [(self._bidder, bid)])
                bids += not isinstance(receipt, NodeError)
            await trio.sleep(LOOK_S)


def _said(outcome: Any) -> str:
    return f"{outcome} {outcome.data}" if isinstance(outcome, NodeError) else str(outcome["operations"])
