"""The clock of a node on a development chain follows L1's travels, and nothing else."""

import time
from typing import Any, cast

import pytest
import trio

from l1_bridge.client import RpcClient
from l1_bridge.types import L1Block, L1Unavailable
from sequencer.devnet_clock import POLL_S, TOLERANCE_S, DevnetClock


class Chain:
    """An L1 whose last block is `ahead_s` ahead of the machine's clock; away while that is None."""

    def __init__(self) -> None:
        self.ahead_s: int | None = 0

    async def head(self) -> L1Block:
        if self.ahead_s is None:
            raise L1Unavailable("away")
        return L1Block(1, bytes(32), bytes(32), int(time.time()) + self.ahead_s, 0, None)


def ahead_of(clock: DevnetClock) -> float:
    return clock() / 1_000 - time.time()


def clock_of(chain: Chain) -> DevnetClock:
    return DevnetClock(cast(RpcClient, chain))


@pytest.mark.parametrize("ahead_s", [-100_000, 0, TOLERANCE_S - 2])
async def test_a_chain_about_on_time_leaves_the_clock_alone(ahead_s: int) -> None:
    chain = Chain()
    clock = clock_of(chain)
    chain.ahead_s = ahead_s
    await clock.look()
    assert abs(ahead_of(clock)) < 1


async def test_travel_is_followed_and_never_undone() -> None:
    chain = Chain()
    clock = clock_of(chain)
    for ahead_s in (1_800, 86_400, 0):
        chain.ahead_s = ahead_s
        await clock.look()
    assert abs(ahead_of(clock) - 86_400) < 2


async def test_it_goes_on_after_an_l1_that_was_away(nursery: Any, autojump_clock: Any) -> None:
    chain = Chain()
    clock = clock_of(chain)
    chain.ahead_s = None
    nursery.start_soon(clock.run)
    await trio.sleep(3 * POLL_S)
    assert abs(ahead_of(clock)) < 1
    chain.ahead_s = 7_200
    await trio.sleep(2 * POLL_S)
    assert abs(ahead_of(clock) - 7_200) < 2
