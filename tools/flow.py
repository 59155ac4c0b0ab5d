"""Sends order flow to a node as traders' bots would: signs, sends arrays, counts what came back.

One task per market replays its rounds in tape time, one after another, because a round starts from what
the last one left; a publisher task reports prices to the oracle. All of it goes through the public port.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from sequencer.client import NodeClient, NodeError
from state.actions import Action, BulkOrders, OracleReport, OracleUpdate, PlaceOrder, Price, SignedAction
from state.eip712 import Domain, action_digest, report_digest, sign
from state.hashing import keccak
from state.wire import to_json
from tools.market import MarketSpec, Round, Trader, round_actions, rounds
from tools.tape import TapeTrade

ORACLE_INTERVAL_S = 1.0


@dataclass(slots=True)
class Tally:
    """What the flow has sent and heard; `orders` counts placed orders, those inside bulk actions singly."""

    orders: int = 0
    fills: int = 0
    transactions: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    ack_ms: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    busy_s: float = 0.0

    @property
    def rejected(self) -> int:
        return sum(self.refused.values())

    @property
    def orders_per_s(self) -> float:
        return self.orders / self.busy_s if self.busy_s else 0.0

    def percentile_ms(self, percent: int) -> float:
        ordered = sorted(self.ack_ms)
        return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] if ordered else 0.0


@dataclass(frozen=True, slots=True)
class Listed:
    """A market of the tape as the rollup numbers it."""

    number: int
    spec: MarketSpec


class Flow:
    """Replays a tape against the node at `url`. `markets` by underlying."""

    def __init__(
        self,
        url: str,
        domain: Domain,
        markets: dict[str, Listed],
        makers: dict[str, Trader],
        takers: list[Trader],
        publishers: Sequence[Trader],
    ) -> None:
        self.tally = Tally()
        self.prices: dict[str, int] = {}
        self._url = url
        self._domain = domain
        self._markets = markets
        self._makers = makers
        self._takers = takers
        self._publishers = publishers
        self._instruments = {listed.number: listed.spec.instrument for listed in markets.values()}
        self._names = {number: keccak(name.encode()) for number, name in self._instruments.items()}

    async def replay(self, tape: Iterable[TapeTrade]) -> None:
        """Replays the whole tape at its own pace, all markets at once, until the last round is answered.

        Raises ValueError for an empty tape, NodeUnreachable."""
        cut: dict[str, list[Round]] = defaultdict(list)
        for part in rounds(tape):
            cut[part.underlying].append(part)
        if not cut:
            raise ValueError("the tape has no trades")
        origin_ms = min(parts[0].time_ms for parts in cut.values())
        begin = time.monotonic()
        self.prices = {underlying: parts[0].last_price_uusd for underlying, parts in cut.items()}
        await self.publish()
        try:
            async with trio.open_nursery() as nursery:
                publisher = trio.CancelScope()
                nursery.start_soon(self._publish_for_ever, publisher)
                async with trio.open_nursery() as markets:
                    for underlying, parts in cut.items():
                        markets.start_soon(self._replay_market, underlying, parts, origin_ms)
                publisher.cancel()
        finally:
            self.tally.busy_s += time.monotonic() - begin

    async def publish(self) -> None:
        """One oracle update: every publisher reports the last traded price as index and as mark."""
        async with NodeClient(self._url) as client:
            await self._publish(client)

    async def send(self, client: NodeClient, actions: Sequence[tuple[Trader, Action]]) -> list[Any]:
        """One array of signed actions; the receipts, or the errors, in order. Counts them."""
        calls = [
            ("straddle_sendTransactionSync", [self.signed(trader, action)]) for trader, action in actions
        ]
        begin = time.monotonic()
        outcomes = await client.call_many(calls)
        self.tally.ack_ms.append((time.monotonic() - begin) * 1000)
        for (_, action), outcome in zip(actions, outcomes, strict=True):
            self._count(action, outcome)
        return outcomes

    def signed(self, trader: Trader, action: Action) -> dict[str, Any]:
        """The action's JSON form with the trader's signature."""
        digest = action_digest(self._domain, action, self._names.__getitem__)
        return to_json(SignedAction(action, sign(digest, trader.secret)), self._instruments.__getitem__)

    async def _replay_market(self, underlying: str, parts: list[Round], origin_ms: int) -> None:
        listed, maker = self._markets[underlying], self._makers[underlying]
        begin = trio.current_time()
        async with NodeClient(self._url) as client:
            for part in parts:
                await trio.sleep_until(begin + (part.time_ms - origin_ms) / 1000)
                actions = round_actions(
                    listed.number, listed.spec, part, maker, self._takers, int(time.time())
                )
                await self.send(client, actions)
                self.prices[underlying] = part.last_price_uusd

    async def _publish_for_ever(self, scope: trio.CancelScope) -> None:
        with scope:
            async with NodeClient(self._url) as client:
                while True:
                    await trio.sleep(ORACLE_INTERVAL_S)
                    await self._publish(client)

    async def _publish(self, client: NodeClient) -> None:
        prices = []
        for underlying, value_uusd in sorted(self.prices.items()):
            prices.append(Price(underlying, value_uusd, 1_000_000))
            prices.append(Price(self._markets[underlying].spec.instrument, value_uusd, 1_000_000))
        now_ms = time.time_ns() // 1_000_000
        reports = []
        for publisher in self._publishers:
            unsigned = OracleReport(now_ms, tuple(prices), bytes(64))
            digest = report_digest(self._domain, unsigned)
            reports.append(OracleReport(now_ms, tuple(prices), sign(digest, publisher.secret)))
        update = to_json(OracleUpdate(tuple(reports)), self._instruments.__getitem__)
        await client.call("straddle_sendOracleUpdate", update)

    def _count(self, action: Action, outcome: Any) -> None:
        tally = self.tally
        tally.transactions += 1
        if isinstance(action, PlaceOrder):
            tally.orders += 1
        elif isinstance(action, BulkOrders):
            tally.orders += len(action.orders)
        if isinstance(outcome, NodeError):
            tally.refused[str((outcome.data or {}).get("code", outcome.message))] += 1
            return
        tally.fills += len(outcome["fills"])
        tally.refused.update(op["code"] for op in outcome["operations"] if op["code"] != "OK")
