"""Replays a tape as order flow: one task per market, its rounds in tape time, one after another, because a
round starts from what the last one left. All of it goes through the public port.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from sequencer.client import NodeClient
from tools.market import MarketSpec, Round, Trader, round_actions, rounds
from tools.order_sender import OrderSender
from tools.tape import TapeTrade


@dataclass(frozen=True, slots=True)
class Listed:
    """A market of the tape as the rollup numbers it."""

    number: int
    spec: MarketSpec


class Flow:
    """Replays tapes against the node at `url`. `markets` and `makers` by underlying.

    `prices`, the last traded price of each underlying, is kept up to date for whoever publishes them.
    """

    def __init__(
        self,
        url: str,
        sender: OrderSender,
        markets: dict[str, Listed],
        makers: dict[str, Trader],
        takers: list[Trader],
        prices: dict[str, int],
    ) -> None:
        self.prices = prices
        self._url = url
        self._sender = sender
        self._markets = markets
        self._makers = makers
        self._takers = takers

    async def replay(self, tape: Iterable[TapeTrade]) -> None:
        """Replays the whole tape at its own pace, all markets at once, until the last round is answered.

        Raises ValueError for an empty tape, NodeUnreachable."""
        cut: dict[str, list[Round]] = defaultdict(list)
        for part in rounds(tape):
            cut[part.underlying].append(part)
        if not cut:
            raise ValueError("the tape has no trades")
        origin_ms = min(parts[0].time_ms for parts in cut.values())
        async with trio.open_nursery() as nursery:
            for underlying, parts in cut.items():
                nursery.start_soon(self._replay_market, underlying, parts, origin_ms)

    async def _replay_market(self, underlying: str, parts: list[Round], origin_ms: int) -> None:
        listed, maker = self._markets[underlying], self._makers[underlying]
        begin = trio.current_time()
        async with NodeClient(self._url) as client:
            for part in parts:
                await trio.sleep_until(begin + (part.time_ms - origin_ms) / 1000)
                now_s = self._sender.clock() // 1_000
                actions = round_actions(listed.number, listed.spec, part, maker, self._takers, now_s)
                await self._sender.send(client, actions)
                self.prices[underlying] = part.last_price_uusd
