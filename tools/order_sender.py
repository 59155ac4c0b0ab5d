"""Signs traders' actions as wallets would, sends them through the public port, counts what came back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from sequencer.client import NodeClient, NodeError
from state.actions import Action, BulkOrders, PlaceOrder, Quote, SignedAction
from state.eip712 import Domain, action_digest, quote_digest
from state.hashing import keccak
from state.signatures import sign
from state.wire import to_json
from tools.job_quotes import FeeQuotes
from tools.market import DEADLINE_S, MAX_FEE_UUSD, Trader
from tools.services import ServiceFailed


@dataclass(slots=True)
class Tally:
    """What was sent and heard; `orders` counts placed orders, those inside bulk actions singly."""

    orders: int = 0
    fills: int = 0
    transactions: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    ack_ms: list[float] = field(default_factory=list)
    busy_s: float = 0.0
    """How long orders were sent; for the rate."""

    @property
    def rejected(self) -> int:
        return sum(self.refused.values())

    @property
    def orders_per_s(self) -> float:
        return self.orders / self.busy_s if self.busy_s else 0.0

    def percentile_ms(self, percent: int) -> float:
        ordered = sorted(self.ack_ms)
        return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] if ordered else 0.0

    def count(self, action: Action, outcome: Any) -> None:
        self.transactions += 1
        if isinstance(action, PlaceOrder):
            self.orders += 1
        elif isinstance(action, BulkOrders):
            self.orders += len(action.orders)
        if isinstance(outcome, NodeError):
            self.refused[str((outcome.data or {}).get("code", outcome.message))] += 1
            return
        self.fills += len(outcome["fills"])
        self.refused.update(op["code"] for op in outcome["operations"] if op["code"] != "OK")


class OrderSender:
    """`clock` gives the rollup's time in milliseconds; deadlines are counted from it. `quotes` has some of
    the actions quoted before they are signed."""

    def __init__(self, domain: Domain, clock: Callable[[], int], quotes: FeeQuotes | None = None) -> None:
        self.tally = Tally()
        self.clock = clock
        self.quotes = quotes
        self._domain = domain
        self._instruments: dict[int, str] = {}
        self._names: dict[int, bytes] = {}

    def learn(self, instruments: Mapping[int, str]) -> None:
        """Names of instruments by number, as digests and JSON have them."""
        self._instruments.update(instruments)
        self._names.update({number: keccak(name.encode()) for number, name in instruments.items()})

    def envelope(self, trader: Trader) -> dict[str, Any]:
        """The fields that every action has, with the trader's next nonce."""
        return {
            "account": trader.account,
            "nonce": trader.next_nonce(),
            "deadline_s": self.clock() // 1_000 + DEADLINE_S,
            "max_fee_uusd": MAX_FEE_UUSD,
            "priority_bid_uusd": trader.bid_uusd,
        }

    def signed(self, trader: Trader, action: Action) -> dict[str, Any]:
        """The action's JSON form with the trader's signature."""
        return self._json(action, sign(self._digest(action), trader.secret))

    def _digest(self, action: Action) -> bytes:
        return action_digest(self._domain, action, self._names.__getitem__)

    def _json(self, action: Action, signature: bytes) -> dict[str, Any]:
        return to_json(SignedAction(action, signature), self._instruments.__getitem__)

    def signed_quote(self, maker: Trader, quote: Quote) -> bytes:
        """The maker's signature of a block trade's terms."""
        return sign(quote_digest(self._domain, quote, self._names.__getitem__), maker.secret)

    async def send(self, client: NodeClient, actions: Sequence[tuple[Trader, Action]]) -> list[Any]:
        """One array of signed actions; the receipts, or the errors, in order. Counts them.

        Raises ServiceFailed for a fee quote that is wrong.
        """
        quoted = [(trader, *await self._quoted(client, action)) for trader, action in actions]
        calls = [
            ("straddle_sendTransactionSync", [self.signed(trader, action)]) for trader, action, _ in quoted
        ]
        begin = time.monotonic()
        outcomes = await client.call_many(calls)
        self.tally.ack_ms.append((time.monotonic() - begin) * 1_000)
        for (_, action, quote), outcome in zip(quoted, outcomes, strict=True):
            self.tally.count(action, outcome)
            if quote is not None and self.quotes is not None:
                self.quotes.judge(quote, outcome)
        return outcomes

    async def _quoted(self, client: NodeClient, action: Action) -> tuple[Action, dict[str, Any] | None]:
        """The action as it is, or as its quote allows it, with the quote."""
        if self.quotes is None or not self.quotes.wanted():
            return action, None
        quote = await self.quotes.ask(client, self._json(action, bytes(64))["action"])
        if quote is None:
            return action, None
        action = replace(action, max_fee_uusd=quote["most_uusd"])
        if quote["action"] != "0x" + self._digest(action).hex():
            raise ServiceFailed(f"a fee quote is for another action: {quote}")
        return action, quote
