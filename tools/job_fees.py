"""What the main job's orders cost by part, and what the operator is left with.

Fees are the node's own sums of what it charged (`straddle_feeHistory`). Orders carry all that was charged,
cancels and withdrawals too, as they carry all of the gas in the summary. The operator's profit and loss is
data fees less what L1 took from the poster's balance, of the same batches: what was charged for blocks that
are not on L1 yet stands apart, and so does what the byte price has still to bring in for the past (the
position of `state/l1_price.py`, from the L1Price leaf under the last batch's root).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import trio

from l1_bridge.client import RpcClient
from l1_bridge.rollup import RollupContract
from sequencer.client import NodeClient
from state.keys import L1_PRICE_KEY, L1_TERMS_KEY
from state.l1_price import position_uusd
from state.leaves import L1Price, L1Terms

UUSD = 1_000_000
_WEI_PER_ETH = 10**18
_PAGE = 256
LOOK_S = 0.1


class PosterSpend:
    """What the poster had before the node started (wei), less what is left."""

    def __init__(self, l1: RpcClient, poster: bytes, before_wei: int) -> None:
        self._l1 = l1
        self._poster = poster
        self._before_wei = before_wei

    async def wei(self) -> int:
        """Raises L1Error."""
        return self._before_wei - await self._l1.balance(self._poster)


@dataclass(frozen=True, slots=True)
class JobFees:
    """Sums in uusd since the node started, and L1's share."""

    data_uusd: int
    """Of blocks on L1."""
    waiting_uusd: int
    """Of blocks that are not on L1 yet: data fees too."""
    execution_uusd: int
    risk_uusd: int
    other_uusd: int
    """Bandwidth, growth and finality."""
    priority_uusd: int
    spent_wei: int
    spent_uusd: int
    position_uusd: int = 0
    """Of the byte price: below 0 it will be collected from later bytes, above 0 given back."""

    @classmethod
    def of(cls, history: Any, waiting_uusd: int, spent_wei: int, position: int) -> JobFees:
        """From an answer of `straddle_feeHistory`; L1's wei at the price that it gives."""
        total = history["total"]
        return cls(
            total["data_uusd"] - waiting_uusd,
            waiting_uusd,
            total["execution_uusd"],
            total["risk_uusd"],
            total["bandwidth_uusd"] + total["growth_uusd"] + total["finality_uusd"],
            total["priority_uusd"],
            spent_wei,
            spent_wei * history["eth_price_uusd"] // _WEI_PER_ETH,
            position,
        )

    @property
    def operator_pnl_uusd(self) -> int:
        """Data fees of posted batches less L1 spend."""
        return self.data_uusd - self.spent_uusd

    def facts(self, orders: int) -> list[tuple[str, str]]:
        """For the display."""
        parts = (self.data_uusd + self.waiting_uusd, self.execution_uusd, self.other_uusd, self.risk_uusd)
        each = " / ".join(f"{uusd / UUSD / max(orders, 1):.6f}" for uusd in parts)
        data, spent, left = map(_dollars, (self.data_uusd, self.spent_uusd, self.operator_pnl_uusd))
        owed = "still to collect by price" if self.position_uusd < 0 else "to give back by price"
        return [
            ("fees per order: data/execution/other/risk", f"${each}"),
            ("paid for places", f"${self.priority_uusd / UUSD:,.6f}"),
            ("L1 spend", f"{self.spent_wei / _WEI_PER_ETH:.6f} ETH"),
            ("operator, posted batches: data fees less L1 spend", f"{data} - {spent} = {left}"),
            ("data fees not posted yet", _dollars(self.waiting_uusd)),
            (owed, _dollars(abs(self.position_uusd))),
        ]

    def said(self) -> str:
        """The operator's result as a sentence."""
        data, spent, left = map(_dollars, (self.data_uusd, self.spent_uusd, self.operator_pnl_uusd))
        past = _dollars(abs(self.position_uusd))
        later = "has still to collect" if self.position_uusd < 0 else "will give back"
        return (
            f"operator: {data} of data fees in posted batches less {spent} for posting them is {left}; "
            f"for the past the byte price {later} {past}; {_dollars(self.waiting_uusd)} of data fees are in "
            "blocks that are not posted yet and do not count"
        )

    def summary(self, orders: int) -> dict[str, float]:
        """In dollars, to a millionth."""
        each = max(orders, 1) * UUSD
        return {
            "fee_data_per_order": round((self.data_uusd + self.waiting_uusd) / each, 6),
            "fee_exec_per_order": round(self.execution_uusd / each, 6),
            "fee_risk_per_order": round(self.risk_uusd / each, 6),
            "fee_other_per_order": round(self.other_uusd / each, 6),
            "priority_paid": self.priority_uusd / UUSD,
            "l1_spend": self.spent_uusd / UUSD,
            "operator_pnl": self.operator_pnl_uusd / UUSD,
            "data_fees_not_posted": self.waiting_uusd / UUSD,
            "byte_price_position": self.position_uusd / UUSD,
        }


def _dollars(uusd: int) -> str:
    return f"{'-' if uusd < 0 else ''}${abs(uusd) / UUSD:,.2f}"


async def look(client: NodeClient, spend: PosterSpend) -> JobFees:
    """How it stands now; the poster may have paid for a batch whose posting the node has not heard of.

    Raises NodeError, L1Error.
    """
    spent_wei = await spend.wei()
    safe = await client.call("eth_getBlockByNumber", ["safe", False])
    posted = int(safe["number"], 16) if safe else 0
    history = await client.call("straddle_feeHistory", {"blocks": _PAGE})
    waiting_uusd = await _data_after(client, history["blocks"], posted)
    return JobFees.of(history, waiting_uusd, spent_wei, await _position(client, history["eth_price_uusd"]))


async def look_settled(client: NodeClient, spend: PosterSpend, rollup: RollupContract) -> JobFees:
    """`look` at a moment at which node and L1 know the same batches."""
    while True:
        before = await rollup.last_batch()
        found = await look(client, spend)
        status = await client.call("straddle_status")
        if before == status["posted_batch"] == await rollup.last_batch():
            return found
        await trio.sleep(LOOK_S)


async def _data_after(client: NodeClient, blocks: list[Any], number: int) -> int:
    """Data fees of blocks after `number`; `blocks` are the latest. Older ones than the node keeps are left
    out."""
    found = 0
    while blocks:
        found += sum(each["collected"]["data_uusd"] for each in blocks if each["block_number"] > number)
        oldest = blocks[-1]["block_number"]
        if oldest <= number + 1:
            break
        page = {"blocks": _PAGE, "newest": oldest - 1}
        blocks = (await client.call("straddle_feeHistory", page))["blocks"]
    return found


async def _position(client: NodeClient, eth_price_uusd: int) -> int:
    """When the last batch was closed."""
    proof = await client.call("straddle_getProof", {"key": "0x" + L1_PRICE_KEY.hex()})
    at = {"key": "0x" + L1_TERMS_KEY.hex(), "at": proof["batch"]}
    terms = await client.call("straddle_getProof", at)
    price = L1Price.decode(bytes.fromhex(proof["value"][2:]))
    set_terms = L1Terms.decode(bytes.fromhex(terms["value"][2:])) if terms["value"] else L1Terms()
    return position_uusd(price, set_terms, eth_price_uusd)
