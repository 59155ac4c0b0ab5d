"""The poster's anchor: the youngest batch whose queued messages were all read, found in few questions."""

from __future__ import annotations

from typing import Any, cast

import pytest

from l1_bridge.client import RpcClient
from l1_bridge.rollup import RollupContract


class Counts(RollupContract):
    """A contract that knows how many messages were queued when each batch was posted."""

    def __init__(self, counts: list[int]) -> None:
        super().__init__(cast(RpcClient, None), bytes(20))
        self.counts = counts
        self.asked = 0

    async def read(self, name: str, *arguments: Any, block: int | str = "latest") -> Any:
        assert name == "batchAt"
        self.asked += 1
        return b"", b"", 0, 0, 0, self.counts[arguments[0]]


@pytest.mark.parametrize(
    "counts", [[0], [0, 3], [0, 3, 3, 3, 9], [0, *range(5, 105)], [0] * 40 + [1] * 40, [0, 0, 7, 7, 20]]
)
async def test_the_youngest_batch_that_was_all_read(counts: list[int]) -> None:
    for inbox_next in range(max(counts) + 2):
        contract = Counts(counts)
        found = await contract.anchor(len(counts) - 1, inbox_next)
        assert found == max(number for number, count in enumerate(counts) if count <= inbox_next)
        assert contract.asked <= 2 * len(counts).bit_length()


async def test_the_last_batch_is_found_at_once() -> None:
    contract = Counts(list(range(1_000)))
    assert await contract.anchor(998, 998) == 998
    assert contract.asked == 1
