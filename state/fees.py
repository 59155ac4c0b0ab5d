"""Aggregation fees: what the sequencer charges for executing a transaction and posting its bytes.

    fee = ceil((units * exec_price + bytes * byte_price) / 10^6) uusd

Units are a constant of the action, known before it is sent: an order's include its matching, however much it
fills. The byte price follows what batches cost on L1 (`cost_report`).
"""

from __future__ import annotations

from typing import Final

from state.leaves import Parameters
from state.units import PUSD_PER_UUSD

BASE_UNITS: Final = 4
"""Of every action: its signature, account and nonce; `rules` adds what it does."""
ORDER_UNITS: Final = 10
POST_ONLY_UNITS: Final = 6
CANCEL_UNITS: Final = 3
REPLACE_UNITS: Final = 12
BLOB_GAS: Final = 131_072
_WEI_PER_ETH: Final = 10**18
_AVERAGING: Final = 8
"""One report moves the byte price by this part of the distance."""


def fee_uusd(parameters: Parameters, units: int, size_bytes: int) -> int:
    """The fee of so many units and bytes, rounded up."""
    total = units * parameters.exec_price_pusd + size_bytes * parameters.byte_price_pusd
    return -(-total // PUSD_PER_UUSD)


def next_byte_price(
    parameters: Parameters, eth_price_uusd: int, size_bytes: int, execution_wei: int, blob_wei: int
) -> int:
    """Byte price in pusd after a batch of `size_bytes` (> 0) that cost this much on L1.

    An exponential average: an eighth of the way from the old price to what these bytes cost, never above
    `byte_price_max_pusd`, rounded up.
    """
    cost = (execution_wei + blob_wei) * eth_price_uusd * PUSD_PER_UUSD
    sample = min(-(-cost // (_WEI_PER_ETH * size_bytes)), parameters.byte_price_max_pusd)
    average = -(-((_AVERAGING - 1) * parameters.byte_price_pusd + sample) // _AVERAGING)
    return min(average, parameters.byte_price_max_pusd)
