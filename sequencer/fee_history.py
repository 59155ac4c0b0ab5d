"""What blocks cost: their prices, what they used, what was charged by part and paid for places; in memory.

The executor tells of every block as soon as it is executed, while the state still has its prices; readers
see blocks that are durable. The last `KEPT_BLOCKS` since the process started are kept, and running totals.

- iFEEHIST_001 Sums are of receipts: every `fee_parts` and `priority_uusd` of a kept block, once.
- iFEEHIST_002 No more than `kept` blocks, each of bounded size, whatever they contain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from sequencer.machine import ExecutedBlock
from state import fee_market, keys
from state.actions import SignedAction
from state.block import TransactionResult
from state.fees import PARTS
from state.leaves import FeeMarket, L1Price
from state.rules import rule_of, use_of
from state.view import StateView

KEPT_BLOCKS = 1_024
PERCENT = 100


@dataclass(frozen=True, slots=True)
class Collected:
    """Sums in uusd over transactions that were charged."""

    transactions: int = 0
    parts_uusd: tuple[int, ...] = (0,) * len(PARTS)
    """In the order of `fees.PARTS`."""
    priority_uusd: int = 0

    def __add__(self, other: Collected) -> Collected:
        return Collected(
            self.transactions + other.transactions,
            tuple([mine + theirs for mine, theirs in zip(self.parts_uusd, other.parts_uusd, strict=True)]),
            self.priority_uusd + other.priority_uusd,
        )


@dataclass(frozen=True, slots=True)
class BlockFees:
    """One block. `market` has its prices, and what it used."""

    number: int
    timestamp_ms: int
    elapsed_ms: int
    """Since the block before it."""
    market: FeeMarket
    byte_price_pusd: int
    """What a byte pays for L1."""
    targets: tuple[int, int, int]
    """Per second: execution units, bytes, leaves."""
    collected: Collected
    through: Collected
    """Of all blocks since the process started, this one included."""
    rewards_pusd: tuple[int, ...]
    """What was paid for places per execution unit, at every percentile of the units from 0 to 100; empty
    when nobody paid."""


class FeeHistory:
    """See the module's text. `view` is the state that blocks are executed on."""

    def __init__(self, view: StateView, timestamp_ms: int, kept: int = KEPT_BLOCKS) -> None:
        """`timestamp_ms` of the last block before."""
        self._view = view
        self._timestamp_ms = timestamp_ms
        self._blocks: deque[BlockFees] = deque(maxlen=kept)
        self._total = Collected()

    def executed(self, block: ExecutedBlock) -> None:
        """A block was executed, and nothing after it."""
        result = block.result
        header = result.header
        market: FeeMarket = self._view.get(keys.FEE_MARKET_KEY)
        price: L1Price = self._view.get(keys.L1_PRICE_KEY)
        terms = fee_market.terms_of(self._view)
        collected = collected_of(result.results)
        self._total += collected
        self._blocks.append(
            BlockFees(
                header.number,
                header.timestamp_ms,
                header.timestamp_ms - self._timestamp_ms,
                FeeMarket.decode(market.encode()),
                price.price_pusd,
                (terms.execution_target, terms.data_target, terms.growth_target),
                collected,
                self._total,
                _rewards_pusd(self._view, block, market.execution_used) if collected.priority_uusd else (),
            )
        )
        self._timestamp_ms = header.timestamp_ms

    @property
    def total(self) -> Collected:
        """Of all blocks executed since the process started."""
        return self._total

    def last(self, count: int, newest: int) -> list[BlockFees]:
        """At most `count` kept blocks up to number `newest`, the newest first."""
        if not self._blocks:
            return []
        # Blocks follow one another, so a block's place follows from its number.
        first = self._blocks[0].number
        end = min(newest - first + 1, len(self._blocks))
        return [self._blocks[place] for place in range(end - 1, max(end - count, 0) - 1, -1)]


def collected_of(results: Sequence[TransactionResult]) -> Collected:
    """What these transactions paid."""
    charged = [result.fee_parts for result in results if result.fee_parts]
    if not charged:
        return Collected()
    return Collected(
        len(charged),
        tuple([sum(column) for column in zip(*charged, strict=True)]),
        sum([result.priority_uusd for result in results]),
    )


def _rewards_pusd(view: StateView, block: ExecutedBlock, units_used: int) -> tuple[int, ...]:
    """Percentiles, weighted by units; those who paid nothing are the lowest."""
    paid: list[tuple[int, int]] = []
    for transaction, result in zip(block.transactions, block.result.results, strict=True):
        if result.priority_uusd:
            assert isinstance(transaction.payload, SignedAction)
            action = transaction.payload.action
            units, _ = use_of(view, action, rule_of(action))
            paid.append((result.priority_uusd * 1_000_000 // units, units))
    paid.sort()
    below = units_used - sum(units for _, units in paid)
    rewards = []
    place, price = 0, 0
    for percent in range(PERCENT + 1):
        while place < len(paid) and (not below or below * PERCENT < percent * units_used):
            price, units = paid[place]
            below += units
            place += 1
        rewards.append(price)
    return tuple(rewards)
