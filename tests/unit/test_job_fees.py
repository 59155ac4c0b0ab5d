"""The main job's fees: sums by part over orders, what the operator is left with; quotes must hold."""

from __future__ import annotations

from typing import Any, cast

import pytest

from l1_bridge.rollup import RollupContract
from sequencer.client import NodeClient, NodeError
from state.eip712 import Domain, fee_quote_digest
from state.errors import RejectCode
from state.keys import L1_PRICE_KEY
from state.l1_price import starting
from state.leaves import L1Terms
from state.signatures import address_of, sign
from tools.job_fees import JobFees, PosterSpend, look, look_settled
from tools.job_quotes import ASK_EVERY, FeeQuotes
from tools.services import ServiceFailed

HISTORY: dict[str, Any] = {
    "total": {
        "transactions": 10,
        "priority_uusd": 1_500,
        "data_uusd": 3_000_000,
        "bandwidth_uusd": 100,
        "execution_uusd": 20_000,
        "growth_uusd": 10,
        "finality_uusd": 1,
        "risk_uusd": 7,
    },
    "eth_price_uusd": 2_000_000_000,
}
DOMAIN = Domain(7, bytes(20))
SEQUENCER = bytes(31) + b"\x01"


def test_parts_per_order_and_the_operators_loss() -> None:
    fees = JobFees.of(HISTORY, 400_000, 2 * 10**15, -700_000)
    assert fees.summary(20) == {
        "fee_data_per_order": 0.15,
        "fee_exec_per_order": 0.001,
        "fee_risk_per_order": 0.0,
        "fee_other_per_order": 0.000006,
        "priority_paid": 0.0015,
        "l1_spend": 4.0,
        "operator_pnl": -1.4,
        "data_fees_not_posted": 0.4,
        "byte_price_position": -0.7,
    }
    facts = dict(fees.facts(20))
    assert facts["fees per order: data/execution/other/risk"] == "$0.150000 / 0.001000 / 0.000006 / 0.000000"
    assert facts["operator, posted batches: data fees less L1 spend"] == "$2.60 - $4.00 = -$1.40"
    assert facts["still to collect by price"] == "$0.70"
    assert "still to collect $0.70; $0.40 of data fees" in fees.said()
    assert "will give back $0.70" in JobFees.of(HISTORY, 0, 0, 700_000).said()


def test_without_orders_sums_stand_alone() -> None:
    assert JobFees.of(HISTORY, 0, 0, 0).summary(0)["operator_pnl"] == 3.0


class Node:
    """Answers from a chain of blocks of 5 uusd of data fees each, of which `posted` are on L1."""

    def __init__(self, blocks: int, posted: int, batch: int = 3) -> None:
        self.blocks, self.posted, self.batch = blocks, posted, batch

    async def call(self, method: str, params: Any = ()) -> Any:
        if method == "straddle_status":
            return {"posted_batch": self.batch}
        if method == "eth_getBlockByNumber":
            return {"number": hex(self.posted)} if self.posted else None
        if method == "straddle_getProof":
            is_price = params["key"] == "0x" + L1_PRICE_KEY.hex()
            leaf = starting(L1Terms(), 1, 0, 10**9, 0, 0)
            leaf.surplus_uusd = -1_000
            return {"batch": 2, "value": "0x" + leaf.encode().hex() if is_price else None}
        newest = params.get("newest", self.blocks)
        numbers = range(newest, max(0, newest - params["blocks"]), -1)
        rows = [{"block_number": number, "collected": {"data_uusd": 5}} for number in numbers]
        total = HISTORY["total"] | {"data_uusd": 5 * self.blocks}
        return HISTORY | {"total": total, "blocks": rows}


class Spend:
    async def wei(self) -> int:
        return 10**12


class Rollup:
    """Posts a batch between the first look and the second."""

    def __init__(self) -> None:
        self.looks = 0

    async def last_batch(self) -> int:
        self.looks += 1
        return 2 if self.looks == 1 else 3


@pytest.mark.parametrize(("blocks", "posted"), [(0, 0), (700, 0), (700, 699), (700, 700), (700, 188)])
async def test_what_is_not_posted_is_apart(blocks: int, posted: int) -> None:
    node = cast(NodeClient, Node(blocks, posted))
    fees = await look(node, cast(PosterSpend, Spend()))
    assert (fees.data_uusd, fees.waiting_uusd) == (5 * posted, 5 * (blocks - posted))
    assert (fees.spent_uusd, fees.position_uusd) == (2_000, -1_000)


async def test_the_last_look_waits_until_node_and_l1_agree(autojump_clock: object) -> None:
    rollup = Rollup()
    node, spend = cast(NodeClient, Node(10, 10)), cast(PosterSpend, Spend())
    await look_settled(node, spend, cast(RollupContract, rollup))
    assert rollup.looks > 2


# Quotes


def quote_of(most_uusd: int, secret: bytes = SEQUENCER) -> dict[str, Any]:
    """As the node answers it."""
    names = ("quoted_ms", "expiry_ms", "fee_uusd", "most_uusd", "d", "b", "e", "g", "f", "risk", "bid")
    numbers = dict(zip(names, (1_000, 31_000, 5, most_uusd, 1, 1, 1, 1, 1, 0, 0), strict=True))
    signature = sign(fee_quote_digest(DOMAIN, bytes(32), list(numbers.values())), secret)
    return {"action": "0x" + bytes(32).hex(), **numbers, "signature": "0x" + signature.hex()}


class Quoting:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def call(self, method: str, params: Any) -> Any:
        assert method == "straddle_feeQuote"
        if isinstance(self.answer, NodeError):
            raise self.answer
        return {"quote": self.answer}


async def ask(quotes: FeeQuotes, answer: Any) -> dict[str, Any] | None:
    return await quotes.ask(cast(NodeClient, Quoting(answer)), {})


async def test_a_quote_must_be_the_sequencers() -> None:
    quotes = FeeQuotes(DOMAIN, address_of(SEQUENCER))
    assert await ask(quotes, quote_of(9)) == quote_of(9)
    assert quotes.asked == 1
    with pytest.raises(ServiceFailed, match="signature"):
        await ask(quotes, quote_of(9, bytes(31) + b"\x02"))
    with pytest.raises(ServiceFailed, match="signature"):
        await ask(quotes, quote_of(9) | {"most_uusd": 10})
    assert await ask(quotes, NodeError(-32000, "refused")) is None
    assert quotes.asked == 1
    assert [quotes.wanted() for _ in range(2 * ASK_EVERY)].count(True) == 2


@pytest.mark.parametrize(
    ("charged", "placed", "at_ms", "exceeded"),
    [(9, 0, 2_000, 0), (6, 3, 31_000, 0), (7, 3, 31_000, 1), (10, 0, 2_000, 1), (10, 0, 31_001, 0)],
)
def test_what_counts_as_exceeded(charged: int, placed: int, at_ms: int, exceeded: int) -> None:
    quotes = FeeQuotes(DOMAIN, address_of(SEQUENCER))
    fee = {"inclusion_uusd": charged, "priority_uusd": placed, "trading_uusd": 10**6}
    quotes.judge(quote_of(9), {"fee": fee, "timestamp_ms": at_ms})
    assert quotes.exceeded == exceeded


@pytest.mark.parametrize(
    ("code", "exceeded"),
    [(RejectCode.FEE_ABOVE_MAX, 1), (RejectCode.BID_ABOVE_MAX_FEE, 1), (RejectCode.INSUFFICIENT_CASH, 0)],
)
def test_refused_for_its_fee_is_exceeded(code: RejectCode, exceeded: int) -> None:
    quotes = FeeQuotes(DOMAIN, address_of(SEQUENCER))
    quotes.judge(quote_of(9), NodeError(-32000, "refused", {"code": code.name}))
    assert quotes.exceeded == exceeded
