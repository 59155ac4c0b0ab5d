"""The command line's deadlines, also where a development chain's time has travelled."""

from __future__ import annotations

import time
from typing import Any, cast

import pytest

from sequencer.cli_session import FAR_AHEAD_S, Node, deadline_of
from sequencer.client import NodeClient


class Client:
    """A node whose clock is `ahead_s` ahead."""

    def __init__(self, ahead_s: int) -> None:
        self.ahead_s = ahead_s

    async def call(self, method: str, params: Any = ()) -> int:
        assert method == "public/get_time"
        return (int(time.time()) + self.ahead_s) * 1_000


@pytest.mark.parametrize(
    ("ahead_s", "counted_s"),
    [(0, 0), (-5_000, 0), (FAR_AHEAD_S - 5, 0), (FAR_AHEAD_S + 60, 90), (86_400, 86_400)],
)
async def test_a_deadline_is_by_the_nodes_clock_only_where_that_is_far_ahead(
    ahead_s: int, counted_s: int, capsys: pytest.CaptureFixture[str]
) -> None:
    node = Node(cast(NodeClient, Client(ahead_s)), "http://node")
    found = await deadline_of(node, 15)
    assert abs(found - (time.time() + counted_s + 15)) < 4
    assert ("ahead of this machine" in capsys.readouterr().err) == (counted_s > 0)
