"""What inclusion has cost lately: `straddle_feeHistory`, and Ethereum's gas methods as views of the same.

A unit of gas is one execution unit (`state/fees.py`; `straddle_feeQuote` says how many an action has), and
the gas price is the base price of a unit. Wallets count in wei, here 10^-18 USD: a pusd is 10^6 of them. The
other parts of a fee have prices of their own; what they come to in gas is what they cost divided by that
price, so a wallet's gas times gas price is a whole fee only if its gas was found from `straddle_feeQuote`.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.fee_history import PERCENT, BlockFees, Collected
from sequencer.jsonrpc import Context, Method
from state import fee_market, l1_market
from state.units import MS_PER_S

MAX_BLOCKS = 256
WEI_PER_PUSD = 10**6
NS_PER_MS = 1_000_000
SUGGESTED_FROM = 20
"""Blocks that a suggested priority price is the median of."""


class FeeHistoryParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The last `blocks` blocks up to number `newest` (default: the last durable one)."""

    blocks: Annotated[int, Meta(ge=1, le=MAX_BLOCKS)] = 20
    newest: Annotated[int, Meta(ge=0)] | None = None


class ResourceView(msgspec.Struct, frozen=True):
    """One of three resources in a block: its base price, its use, and how far use has been above target."""

    price_pusd: int
    used: int
    target_per_s: int
    backlog_ms: int


class CollectedView(msgspec.Struct, frozen=True):
    """Sums over charged transactions, as receipts have them."""

    transactions: int
    priority_uusd: int
    data_uusd: int
    bandwidth_uusd: int
    execution_uusd: int
    growth_uusd: int
    finality_uusd: int
    risk_uusd: int


class BlockFeesView(msgspec.Struct, frozen=True):
    """A block's prices (of execution units, batch bytes, leaves, and of a byte on L1), and what it paid."""

    block_number: int
    timestamp_ms: int
    byte_price_pusd: int
    proof_unit_pusd: int
    finality_byte_pusd: int
    execution: ResourceView
    bandwidth: ResourceView
    growth: ResourceView
    collected: CollectedView


class FeeHistoryView(msgspec.Struct, frozen=True):
    """Newest first. `total` is of all blocks since the node started, up to the last durable one."""

    blocks: list[BlockFeesView]
    total: CollectedView
    eth_price_uusd: int
    """Converts wei of L1 now."""


class FeeApi:
    """`straddle_feeHistory`; and the figures behind the `eth_` methods about gas, in wei of 10^-18 USD."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_feeHistory",
                FeeHistoryParams,
                FeeHistoryView,
                self._fee_history,
                "Prices of the last blocks, what they collected by part and what was paid for places.",
                "The node keeps a bounded number of blocks since its start.",
            )
        ]

    def _fee_history(self, params: FeeHistoryParams, _context: Context) -> FeeHistoryView:
        context = self._context
        last = context.receipts.last_block
        newest = last if params.newest is None else min(params.newest, last)
        latest = context.fees.last(1, last)
        return FeeHistoryView(
            [_block_view(each) for each in context.fees.last(params.blocks, newest)],
            _collected_view(latest[0].through if latest else Collected()),
            l1_market.eth_price_uusd(context.machine.view, self._now_ms()),
        )

    def base_wei(self) -> int:
        """Of a unit in a block that began now."""
        machine = self._context.machine
        elapsed_ms = self._now_ms() - machine.system.timestamp_ms
        return fee_market.coming(machine.view, elapsed_ms).execution_pusd * WEI_PER_PUSD

    def priority_wei(self) -> int:
        """The median of what the last blocks' median units paid for their places; 0 if most paid nothing."""
        found = self._context.fees.last(SUGGESTED_FROM, self._context.receipts.last_block)
        rewards = sorted(_reward_pusd(each, PERCENT / 2) for each in found)
        return rewards[len(rewards) // 2] * WEI_PER_PUSD if rewards else 0

    def of_block(self, number: int) -> tuple[int, int]:
        """(base price of a unit in wei, units used) of a block; zeros when it is not kept."""
        found = self._context.fees.last(1, number)
        if not found or found[0].number != number:
            return 0, 0
        market = found[0].market
        return market.execution_pusd * WEI_PER_PUSD, market.execution_used

    def ethereum_history(self, count: int, newest: int, percentiles: list[float]) -> dict[str, Any]:
        """What `eth_feeHistory` answers; fewer blocks when not so many are kept.

        A ratio of 0.5 is the target, as in EIP-1559. After the newest block's base price comes the next
        one's: the next block's if that is known, else that of a block that began now.
        """
        last = self._context.receipts.last_block
        found = self._context.fees.last(count, min(newest, last))[::-1]
        bases = [each.market.execution_pusd * WEI_PER_PUSD for each in found]
        after = self._context.fees.last(1, newest + 1) if newest < last else []
        bases.append(after[0].market.execution_pusd * WEI_PER_PUSD if after else self.base_wei())
        rewards = [[hex(_reward_pusd(each, at) * WEI_PER_PUSD) for at in percentiles] for each in found]
        return {
            "oldestBlock": hex(found[0].number if found else min(newest, last)),
            "baseFeePerGas": [hex(base) for base in bases],
            "gasUsedRatio": [_used_ratio(each) for each in found],
            "reward": rewards if percentiles else None,
        }

    def _now_ms(self) -> int:
        return max(self._context.now_ms(), self._context.machine.system.timestamp_ms)


def _reward_pusd(block: BlockFees, percentile: float) -> int:
    return block.rewards_pusd[int(percentile)] if block.rewards_pusd else 0


def _used_ratio(block: BlockFees) -> float:
    """Execution units over twice those of the target in the time since the block before, at most 1."""
    used, most = block.market.execution_used, 2 * block.targets[0] * block.elapsed_ms / MS_PER_S
    return min(1.0, used / most) if most else float(used > 0)


def _block_view(block: BlockFees) -> BlockFeesView:
    market = block.market
    execution, data, growth = block.targets
    return BlockFeesView(
        block.number,
        block.timestamp_ms,
        block.byte_price_pusd,
        market.proof_unit_pusd,
        market.finality_byte_pusd,
        _resource(market.execution_pusd, market.execution_used, execution, market.execution_backlog_ns),
        _resource(market.data_pusd, market.data_used, data, market.data_backlog_ns),
        _resource(market.growth_pusd, market.growth_used, growth, market.growth_backlog_ns),
        _collected_view(block.collected),
    )


def _resource(price_pusd: int, used: int, target: int, backlog_ns: int) -> ResourceView:
    return ResourceView(price_pusd, used, target, backlog_ns // NS_PER_MS)


def _collected_view(found: Collected) -> CollectedView:
    return CollectedView(found.transactions, found.priority_uusd, *found.parts_uusd)
