"""The keeper against a node that refuses: what it tries again, and when."""

from __future__ import annotations

from typing import Any

import trio.testing

from sequencer.client import NodeError
from sequencer.keeper import RETRY_S, Keeper
from sequencer.signing import SecretKey


class RefusingNode:
    """Says what there is to do, and refuses whoever does it."""

    def __init__(self) -> None:
        self.todo: list[dict[str, Any]] = [{"account": 3, "todo": "start"}, {"account": 4, "todo": "start"}]
        self.sent: list[tuple[str, int]] = []

    async def call(self, method: str, params: Any = ()) -> Any:
        if method == "straddle_status":
            return {"chain_id": 7, "contract": "0x" + "11" * 20}
        if method == "straddle_getLiquidations":
            return {"todo": self.todo}
        if method == "straddle_feeQuote":
            return {"suggested_max_fee_uusd": 1_000}
        assert method == "straddle_sendTransactionSync"
        action = params["transaction"]["action"]
        self.sent.append((action["type"], action["liquidated"]))
        raise NodeError(-32_001, "refused", None)


async def test_what_was_refused_waits_unless_it_has_changed(autojump_clock: trio.testing.MockClock) -> None:
    """iKEEPER_003"""
    node = RefusingNode()
    keeper = Keeper(node, SecretKey(b"\x21" * 32), 1, 500, lambda: 1_700_000_000_000)
    assert await keeper.look() == 0
    assert node.sent == [("StartAuction", 3), ("StartAuction", 4)]
    await trio.sleep(RETRY_S * 0.9)
    node.todo[1] = {"account": 4, "todo": "end"}
    await keeper.look()
    assert node.sent[2:] == [("EndAuction", 4)]
    await trio.sleep(RETRY_S * 0.2)
    await keeper.look()
    assert node.sent[3:] == [("StartAuction", 3)]
    node.todo = []
    await keeper.look()
    node.todo = [{"account": 3, "todo": "start"}]
    await keeper.look()
    assert node.sent[4:] == [("StartAuction", 3)], "what was done and is to be done anew is new"
