"""A liquidation: an account buys with borrowed strength, in a market of its own whose index then falls.

The fall is scripted and goes through the publishers like every price. When the account is below maintenance
margin, another trader has it put up for auction and bids for as much as the auction allows, until it is over.
What an auction allows is asked by bidding too much: the refusal says it.
"""

from __future__ import annotations

from typing import Any

from sequencer.client import NodeClient, NodeError
from state.actions import Action, Bid, EndAuction, Order, OrderKind, PlaceOrder, Side, StartAuction
from state.units import PPM, ULOTS_PER_LOT
from tools.flow import Listed
from tools.job_oracle import fresh_index
from tools.market import MarketSpec, Trader, spec_for
from tools.order_sender import OrderSender, refusal_of
from tools.services import ServiceFailed

UNDERLYING = "SLIDE"
PRICE_UUSD = 100_000_000
DEPOSIT_UUSD = 1_000_000_000
SIZE_ULOTS = 30 * ULOTS_PER_LOT
FALL_PPM = 30_000
"""Of the price, each time."""
MOST_BIDS = 20
LOOK_S = 0.1


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
            await fresh_index(client, UNDERLYING, 1)
            await self._trade(client)
            await self._fall(client)
            await self._start(client)
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
            await fresh_index(client, UNDERLYING, self._sender.clock())

    async def _is_healthy(self, client: NodeClient) -> bool:
        account = await client.call("straddle_getAccount", {"account": self._victim.account})
        return bool(account["margin"]["equity_uusd"] >= account["margin"]["maintenance_uusd"])

    async def _start(self, client: NodeClient) -> None:
        action = StartAuction(**self._sender.envelope(self._bidder), liquidated=self._victim.account)
        refused = await self._refusal(client, action)
        if refused is not None and refusal_of(refused) != "AUCTION_OPEN":
            raise ServiceFailed(f"the auction was refused: {_said(refused)}")

    async def _bid(self, client: NodeClient) -> None:
        """Bids for what may be had, until the auction is over."""
        number, share_ppm = self._victim.account, PPM
        for _ in range(MOST_BIDS):
            envelope = self._sender.envelope(self._bidder)
            bid = Bid(**envelope, liquidated=number, share_ppm=share_ppm, min_reward_uusd=0)
            refused = await self._refusal(client, bid)
            if refused is None:
                end = EndAuction(**self._sender.envelope(self._bidder), liquidated=number)
                refused = await self._refusal(client, end)
                if refused is None or refusal_of(refused) == "NO_AUCTION":
                    return
                share_ppm = PPM
            elif refusal_of(refused) == "BID_SHARE":
                share_ppm = int((refused.data or {})["allowed_ppm"])
            else:
                raise ServiceFailed(f"the bid was refused: {_said(refused)}")
        raise ServiceFailed(f"the auction is not over after {MOST_BIDS} bids")

    async def _refusal(self, client: NodeClient, action: Action) -> NodeError | None:
        (outcome,) = await self._sender.try_out(client, [(self._bidder, action)])
        return outcome if isinstance(outcome, NodeError) else None


def _said(outcome: Any) -> str:
    return f"{outcome} {outcome.data}" if isinstance(outcome, NodeError) else str(outcome["operations"])
