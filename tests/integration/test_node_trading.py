"""A node from the first deposit to a restart: the path that everything else stands on."""

from __future__ import annotations

from pathlib import Path

from state.actions import Side
from tests.integration.node_fixture import COIN, PRICE, SEQUENCER, USD, Trader, running_node


def traders() -> list[Trader]:
    return [Trader(b"\x31" * 32, 0), Trader(b"\x32" * 32, 0)]


async def test_two_orders_cross_and_survive_a_restart(tmp_path: Path) -> None:
    alice, bob = both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        rested = await node.send(alice.order(Side.BUY, PRICE, COIN))
        assert rested["status"] == "executed"
        assert rested["stage"] == "sealed"
        assert rested["operations"][0]["resting_ulots"] == COIN
        sale = bob.order(Side.SELL, PRICE, COIN // 2)
        filled = await node.send(sale)
        (fill,) = filled["fills"]
        assert (fill["price_uusd"], fill["size_ulots"], fill["side"]) == (PRICE, COIN // 2, "sell")
        assert fill["maker_account"] == alice.account
        assert filled["fee"]["trading_uusd"] == 15 * USD
        await node.post_now()
        after = await node.call("straddle_getAccount", account=bob.account)
        batch = await node.call("straddle_getBatch")
        await node.send(alice.order(Side.BUY, PRICE - USD, COIN))
        last = await node.call("straddle_status")
    async with running_node(tmp_path) as node:
        status = await node.call("straddle_status")
        assert status["block_number"] == last["block_number"]
        assert await node.call("straddle_getBatch") == batch
        assert await node.call("straddle_getAccount", account=bob.account) == after
        assert await node.send(sale) == filled
        orders = (await node.call("straddle_getAccount", account=alice.account))["orders"]
        assert [order["open_ulots"] for order in orders] == [COIN // 2, COIN]
        assert status["sequencer"] == "0x" + SEQUENCER.address.hex()
