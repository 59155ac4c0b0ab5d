"""The main job's clock follows the node's, L1 travels first, and an expiry's stops leave out nothing."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any, cast

import pytest

from l1_bridge.client import RpcClient
from l1_bridge.types import L1Block
from sequencer.client import NodeClient
from state.units import SETTLEMENT_WINDOW_MS
from tools.devnet import INDEX_HEARTBEAT_MS
from tools.expiry_scene import stops
from tools.job_clock import JobClock
from tools.job_settings import Settings

EXPIRY_MS = 1_800_000_000_000


class World:
    """An L1 and a node that follows it, both `ahead_s` ahead of the machine."""

    def __init__(self) -> None:
        self.ahead_s = 0
        self.asked: list[str] = []

    def now_s(self) -> int:
        return int(time.time()) + self.ahead_s

    async def head(self) -> L1Block:
        return L1Block(1, bytes(32), bytes(32), self.now_s(), 0, None)

    async def raw_request(self, method: str, params: list[Any]) -> Any:
        self.asked.append(method)
        if method == "evm_increaseTime":
            self.ahead_s += params[0]

    async def call(self, method: str, params: Any = ()) -> Any:
        assert method == "public/get_time"
        return self.now_s() * 1_000

    @property
    def l1(self) -> RpcClient:
        return cast(RpcClient, self)

    @property
    def node(self) -> NodeClient:
        return cast(NodeClient, self)


def ahead_of(clock: JobClock) -> float:
    return clock() / 1_000 - time.time()


async def test_the_clock_follows_the_node_and_never_goes_back() -> None:
    world, clock = World(), JobClock()
    await clock.follow(world.node)
    assert abs(ahead_of(clock)) < 1
    world.ahead_s = 3_600
    await clock.follow(world.node)
    assert abs(ahead_of(clock) - 3_600) < 2
    world.ahead_s = 0
    await clock.follow(world.node)
    assert abs(ahead_of(clock) - 3_600) < 2


async def test_l1_travels_and_then_the_clock(autojump_clock: Any) -> None:
    world, clock = World(), JobClock()
    target_ms = clock() + 86_400_000
    await clock.travel(world.l1, world.node, target_ms)
    assert world.asked == ["evm_increaseTime", "evm_mine"]
    assert target_ms <= clock() < target_ms + 5_000


async def test_to_the_past_it_does_not_travel() -> None:
    world, clock = World(), JobClock()
    await clock.travel(world.l1, world.node, clock() - 1_000)
    assert world.asked == []


@pytest.mark.parametrize("before_s", [90_000, 3_600, 1_900, 1_200, 100, 10])
def test_stops_cover_the_window_within_the_heartbeat(before_s: int) -> None:
    now_ms = EXPIRY_MS - before_s * 1_000
    found = list(stops(now_ms, EXPIRY_MS))
    assert found[-1] > EXPIRY_MS
    assert found == sorted(found)
    assert found[0] > now_ms
    if before_s * 1_000 > SETTLEMENT_WINDOW_MS + INDEX_HEARTBEAT_MS:
        assert found[0] <= EXPIRY_MS - SETTLEMENT_WINDOW_MS
    else:
        found = [now_ms, *found]
    assert all(later - earlier < INDEX_HEARTBEAT_MS for earlier, later in pairwise(found))


def test_only_an_l1_of_its_own_travels() -> None:
    assert Settings.of({}).can_travel
    assert Settings.of({"L1": "anvil"}).can_travel
    assert not Settings.of({"L1": "http://127.0.0.1:8545"}).can_travel


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("CHAIN", "none.csv", "no such file"), ("DURATION", "-1", "more than 0"), ("L1", "main", "expected")],
)
def test_wrong_settings_are_named(name: str, value: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=.*{says}"):
        Settings.of({name: value})
