"""Traders who remember: order flow in which every answer of the node is kept, and asked for again later.

A receipt is a promise: once a trader has it, it must be there after any crash, the same but for its stage.
What was sent and not answered may have been executed or not; it is sent again, and either is right.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

import trio

from sequencer.client import NodeClient, NodeError, NodeUnreachable
from sequencer.clock import wall_clock_ms
from state.actions import (
    Action,
    BulkOrders,
    CancelAll,
    Order,
    OrderKind,
    PlaceOrder,
    Side,
    Transfer,
    Withdraw,
)
from state.eip712 import Domain
from tests.crash.node_process import PRICE_UUSD, SPEC
from tests.prices import publish_prices
from tools.devnet import Devnet
from tools.market import Trader
from tools.order_sender import OrderSender

MARKET = 1
DEADLINE_S = 300
MAX_FEE_UUSD = 100_000_000
ARRAY = 50
SPREAD_TICKS = 20
LONGEST_THOUGHT_S = 0.06
"""Of a trader between two requests: every receipt is asked for again after every crash, which adds up."""
NOTHING_SENT = ("DRAINING", "BUSY")
"""Answers that promise neither execution nor refusal."""


def without_stage(receipt: Any) -> Any:
    """What of a receipt may never change."""
    return {name: value for name, value in receipt.items() if name != "stage"}


@dataclass
class Crowd:
    """All traders of a test. `receipts` by transaction hash; `sent` holds the signed form of each."""

    devnet: Devnet
    url: str
    traders: Sequence[Trader]
    random: Random
    bulk: int = 4
    """Orders of a bulk action."""
    receipts: dict[str, Any] = field(default_factory=dict)
    sent: dict[str, Any] = field(default_factory=dict)
    unanswered: list[Any] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        deployment = self.devnet.deployment
        self._domain = Domain(deployment.rollup_chain_id, deployment.rollup_address)
        self._sender = OrderSender(self._domain, wall_clock_ms)
        self._sender.learn({MARKET: SPEC.instrument})

    async def heard(self, receipts: int) -> None:
        """Waits until more receipts than this have come, however slow the machine is."""
        with trio.fail_after(120):
            while len(self.receipts) <= receipts:  # noqa: ASYNC110 - receipts tell nobody
                await trio.sleep(0.1)

    async def trade(self) -> None:
        """Sends orders until the node goes away."""
        try:
            prices = dict.fromkeys((SPEC.underlying, SPEC.instrument), PRICE_UUSD)
            await publish_prices(self.url, self._domain, self.devnet.publishers, prices)
        except (NodeError, NodeUnreachable):
            return
        async with trio.open_nursery() as nursery:
            for trader in self.traders:
                nursery.start_soon(self._trade_as, trader)

    async def send_again(self) -> None:
        """What was not answered, once more."""
        waiting, self.unanswered = self.unanswered, []
        async with NodeClient(self.url) as client:
            for start in range(0, len(waiting), ARRAY):
                await self._send(client, waiting[start : start + ARRAY])

    async def send_some_again(self, count: int) -> None:
        """Transactions that have receipts get the same ones."""
        if not self.sent:
            return
        hashes = self.random.sample(sorted(self.sent), min(count, len(self.sent)))
        calls = [("straddle_sendTransactionSync", [self.sent[each]]) for each in hashes]
        async with NodeClient(self.url) as client:
            for each, answer in zip(hashes, await client.call_many(calls), strict=True):
                assert not isinstance(answer, NodeError), (each, answer.code, answer.data)
                assert without_stage(answer) == self.receipts[each]

    async def check_all(self) -> None:
        """Every receipt ever received is there, and says the same."""
        hashes = list(self.receipts)
        async with NodeClient(self.url) as client:
            for start in range(0, len(hashes), ARRAY):
                asked = hashes[start : start + ARRAY]
                answers = await client.call_many([("straddle_getReceipt", [each]) for each in asked])
                for each, answer in zip(asked, answers, strict=True):
                    assert not isinstance(answer, NodeError), (each, self.receipts[each], answer)
                    assert without_stage(answer) == self.receipts[each]

    @property
    def withdrawn_uusd(self) -> int:
        """By all withdrawals with receipts."""
        return sum(
            int(self.sent[each]["action"]["amount_uusd"])
            for each, receipt in self.receipts.items()
            if receipt["withdrawal"] is not None
        )

    async def _trade_as(self, trader: Trader) -> None:
        async with NodeClient(self.url) as client:
            while True:
                await trio.sleep(self.random.uniform(0, LONGEST_THOUGHT_S))
                actions = [self._action(trader) for _ in range(self.random.randint(1, 6))]
                if not await self._send(client, [self._sender.signed(trader, each) for each in actions]):
                    return

    async def _send(self, client: NodeClient, transactions: list[Any]) -> bool:
        """False when the node has gone."""
        calls = [("straddle_sendTransactionSync", [each]) for each in transactions]
        try:
            answers = await client.call_many(calls)
        except NodeUnreachable:
            self.unanswered += transactions
            return False
        for transaction, answer in zip(transactions, answers, strict=True):
            if isinstance(answer, NodeError):
                code = str((answer.data or {}).get("code", answer.message))
                self.refused[code] += 1
                if code in NOTHING_SENT:
                    self.unanswered.append(transaction)
            else:
                assert answer["stage"] in ("sealed", "posted", "finalized")
                before = self.receipts.setdefault(answer["hash"], without_stage(answer))
                assert before == without_stage(answer)
                self.sent[answer["hash"]] = transaction
        return not any(isinstance(each, NodeError) and "DRAINING" in str(each.data) for each in answers)

    def _action(self, trader: Trader) -> Action:
        random = self.random
        envelope: dict[str, Any] = {
            "account": trader.account,
            "nonce": trader.next_nonce(),
            "deadline_s": int(time.time()) + DEADLINE_S,
            "max_fee_uusd": MAX_FEE_UUSD,
        }
        match random.choices(("place", "bulk", "cancel", "transfer", "withdraw"), (60, 20, 10, 5, 5))[0]:
            case "bulk":
                orders = tuple(self._order(OrderKind.LIMIT) for _ in range(self.bulk))
                return BulkOrders(**envelope, orders=orders)
            case "cancel":
                return CancelAll(**envelope, market=MARKET)
            case "transfer":
                to = random.choice([each for each in self.traders if each is not trader])
                amount = random.randint(1, 10**6)
                return Transfer(**envelope, to_account=to.account, amount_uusd=amount)
            case "withdraw":
                return Withdraw(**envelope, recipient=random.randbytes(20), amount_uusd=10**6)
        return PlaceOrder(**envelope, order=self._order(random.choice(list(OrderKind))))

    def _order(self, kind: OrderKind) -> Order:
        random = self.random
        price = PRICE_UUSD + random.randint(-SPREAD_TICKS, SPREAD_TICKS) * SPEC.tick_uusd
        side = random.choice((Side.BUY, Side.SELL))
        return Order(MARKET, side, kind, price, random.randint(1, 5) * SPEC.lot_ulots)
