"""What the main job's orders cost by part, and what the operator is left with: the node's own sums of what
it charged (`straddle_feeHistory`), and what L1 took from the poster's balance.

Orders carry all that was charged, cancels and withdrawals too, as they carry all of the gas in the summary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from l1_bridge.client import RpcClient
from sequencer.client import NodeClient

UUSD = 1_000_000
_WEI_PER_ETH = 10**18


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
    execution_uusd: int
    risk_uusd: int
    other_uusd: int
    """Bandwidth, growth and finality."""
    priority_uusd: int
    spent_wei: int
    spent_uusd: int

    @classmethod
    def of(cls, history: Any, spent_wei: int) -> JobFees:
        """From an answer of `straddle_feeHistory`; L1's wei at the price that it gives."""
        total = history["total"]
        return cls(
            total["data_uusd"],
            total["execution_uusd"],
            total["risk_uusd"],
            total["bandwidth_uusd"] + total["growth_uusd"] + total["finality_uusd"],
            total["priority_uusd"],
            spent_wei,
            spent_wei * history["eth_price_uusd"] // _WEI_PER_ETH,
        )

    @property
    def operator_pnl_uusd(self) -> int:
        """Data fees less L1 spend."""
        return self.data_uusd - self.spent_uusd

    def facts(self, orders: int) -> list[tuple[str, str]]:
        """For the display."""
        parts = (self.data_uusd, self.execution_uusd, self.other_uusd, self.risk_uusd)
        each = " / ".join(f"{uusd / UUSD / max(orders, 1):.6f}" for uusd in parts)
        data, spent, left = map(_dollars, (self.data_uusd, self.spent_uusd, self.operator_pnl_uusd))
        return [
            ("fees per order: data/execution/other/risk", f"${each}"),
            ("paid for places", f"${self.priority_uusd / UUSD:,.6f}"),
            ("L1 spend", f"{self.spent_wei / _WEI_PER_ETH:.6f} ETH"),
            ("operator: data fees less L1 spend", f"{data} - {spent} = {left}"),
        ]

    def summary(self, orders: int) -> dict[str, float]:
        """In dollars, to a millionth."""
        each = max(orders, 1) * UUSD
        return {
            "fee_data_per_order": round(self.data_uusd / each, 6),
            "fee_exec_per_order": round(self.execution_uusd / each, 6),
            "fee_risk_per_order": round(self.risk_uusd / each, 6),
            "priority_paid": self.priority_uusd / UUSD,
            "operator_pnl": self.operator_pnl_uusd / UUSD,
        }


def _dollars(uusd: int) -> str:
    return f"{'-' if uusd < 0 else ''}${abs(uusd) / UUSD:,.2f}"


async def look(client: NodeClient, spend: PosterSpend) -> JobFees:
    """How it stands now. Raises NodeError, L1Error."""
    spent_wei = await spend.wei()
    return JobFees.of(await client.call("straddle_feeHistory", {"blocks": 1}), spent_wei)
