"""A bid on the command line: what is signed and said, what it pays, and what is refused."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import trio
from typer.testing import CliRunner, Result

from sequencer.cli import app
from sequencer.mempool import Pending
from state.actions import Order, OrderKind, PlaceOrder, Side, SignedAction
from tests.integration.node_fixture import (
    COIN,
    INSTRUMENT,
    MARKET,
    PRICE,
    USD,
    Running,
    Trader,
    running_node,
)

ORDER = ("order", "buy", "0.01", INSTRUMENT, "--price", "59000")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_node(tmp_path) as running:
        yield running


@pytest.fixture
async def traders(node: Running) -> list[Trader]:
    found = [Trader(b"\x51" * 32, 0), Trader(b"\x52" * 32, 0)]
    await node.open_market(found)
    return found


async def straddle(node: Running, trader: Trader, *arguments: str) -> Result:
    env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STRADDLE_")}
    env |= {"STRADDLE_NODE": f"http://127.0.0.1:{node.node.port}", "COLUMNS": "300"}
    env |= {"STRADDLE_PRIVATE_KEY": trader.secret.hex()}
    return await trio.to_thread.run_sync(partial(CliRunner().invoke, app, list(arguments), env=env))


def dollars(said: str, pattern: str) -> int:
    """The first amount after these words, in uusd."""
    found = re.search(pattern + r" \$([0-9,.]+[0-9])", said)
    assert found is not None, said
    return round(float(found[1].replace(",", "")) * USD)


async def block_number(node: Running) -> int:
    number: int = (await node.call("straddle_status"))["block_number"]
    return number


async def test_an_order_pays_the_next_lower_bid(
    node: Running, traders: list[Trader], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bid is signed, with a most that covers it; in a block with a lower one, that is what it pays."""
    alice, bob = traders
    mempool = node.node.mempool
    together: list[Pending] = []

    def take_two(limit: int) -> list[Pending]:
        if len(mempool) < 2:
            return []
        together[:] = take(limit)
        return together

    take = mempool.take
    monkeypatch.setattr(mempool, "take", take_two)
    rival = Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE - USD, COIN)
    lower = bob.signed(PlaceOrder(**bob.envelope(), order=rival, priority_bid_uusd=20_000))
    await node.call("straddle_sendTransaction", transaction=lower)
    result = await straddle(node, alice, *ORDER, "--bid", "0.05", "--json")
    assert result.exit_code == 0, result.output
    fee, quoted = json.loads(result.stdout)["fee"], dollars(result.stderr, "at most")
    assert fee["priority_uusd"] == 20_000
    assert dollars(result.stderr, "fee now") <= quoted
    assert fee["inclusion_uusd"] <= quoted
    assert "and up to $0.05 for its place; until" in result.stderr
    payload = together[0].payload
    assert isinstance(payload, SignedAction)
    first = payload.action
    assert (first.account, first.priority_bid_uusd, first.max_fee_uusd) == (
        alice.account,
        50_000,
        quoted + 50_000,
    )
    shown = await straddle(node, alice, "receipt", json.loads(result.stdout)["hash"])
    assert re.search(r"for its place +\$0.02\n", shown.stdout)
    assert re.search(r"of it +data \$0\.\d+, bandwidth \$.*, execution \$.*, growth \$", shown.stdout)


async def test_bids_that_are_refused(node: Running, traders: list[Trader]) -> None:
    """Each ends with 1, names the code, and says what was there and what was asked; nothing is in a block."""
    alice, _ = traders
    before = await block_number(node)
    poor = await straddle(node, alice, *ORDER, "--bid", "2000000")
    assert (poor.exit_code, poor.stdout) == (1, "")
    assert "(INSUFFICIENT_CASH)" in poor.stderr
    assert dollars(poor.stderr, "available") == 1_000_000 * USD
    assert dollars(poor.stderr, "needed") > 2_000_000 * USD
    tight = await straddle(node, alice, *ORDER, "--bid", "0.05", "--max-fee", "0.05")
    assert (tight.exit_code, tight.stdout) == (1, "")
    assert "fee at most $0.05, of it up to $0.05 for its place; until" in tight.stderr
    assert "(BID_ABOVE_MAX_FEE)" in tight.stderr
    assert "bid $0.05, fee $0." in tight.stderr
    assert "max fee $0.05" in tight.stderr
    misused = await straddle(node, alice, *ORDER, "--bid", "0.06", "--max-fee", "0.05")
    assert (misused.exit_code, misused.stdout) == (2, "")
    assert "--max-fee, $0.05, which covers fee and bid" in misused.stderr
    for wrong in ("-1", "0.0000001", "much"):
        assert (await straddle(node, alice, *ORDER, "--bid", wrong)).exit_code == 2
    assert await block_number(node) == before
    account = await node.call("straddle_getAccount", account=alice.account)
    assert (account["cash_uusd"], account["orders"]) == (1_000_000 * USD, [])
