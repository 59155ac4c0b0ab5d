"""The venue's fee tiers as a node and the command line show them (iTIER_002)."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from typer.testing import CliRunner, Result

from sequencer.cli import app
from sequencer.client import NodeError
from sequencer.clock import wall_clock_ms
from sequencer.errors import ErrorCode
from state.actions import Side
from state.block import L1Message, MessageKind
from state.fee_tiers import DAY_S, make_tiers
from state.units import MS_PER_S, PPM
from tests.integration.node_fixture import COIN, PRICE, USD, Running, Trader, running_node
from tools.exchange import l1_origin

DAY_MS = DAY_S * MS_PER_S
TIERS = [(0, PPM, PPM), (100_000 * USD, PPM // 2, 900_000), (500_000 * USD, -PPM, 600_000)]
FIELDS = ("volume_uusd", "maker_ppm", "taker_ppm")


class Clock:
    """The wall clock, and what a test adds to it."""

    def __init__(self) -> None:
        self.added_ms = 0

    def __call__(self) -> int:
        return wall_clock_ms() + self.added_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def node(tmp_path: Path, clock: Clock) -> AsyncIterator[Running]:
    async with running_node(tmp_path, now_ms=clock) as running:
        yield running


@pytest.fixture
async def traders(node: Running) -> list[Trader]:
    found = [Trader(b"\x61" * 32, 0), Trader(b"\x62" * 32, 0)]
    await node.open_market(found)
    return found


async def set_tiers(node: Running) -> None:
    message = L1Message(MessageKind.SET_FEE_TIERS, b"\x01" * 20, 2, make_tiers(TIERS).encode())
    system = node.node.opened.machine.system
    read = system.inbox_next
    await node.node.inbox.put([message], l1_origin(2))
    await node.until(lambda: system.inbox_next > read)


async def fill(node: Running, traders: list[Trader], coins: int) -> Any:
    """The taker's receipt."""
    maker, taker = traders
    await node.send(maker.order(Side.SELL, PRICE, coins * COIN))
    receipt = await node.send(taker.order(Side.BUY, PRICE, coins * COIN))
    assert sum(each["size_ulots"] for each in receipt["fills"]) == coins * COIN
    return receipt


async def standing(node: Running, trader: Trader) -> dict[str, Any]:
    found: dict[str, Any] = (await node.call("straddle_getFeeTiers", account=trader.account))["account"]
    return found


async def straddle(node: Running, *arguments: str) -> Result:
    env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STRADDLE_")}
    env |= {"STRADDLE_NODE": f"http://127.0.0.1:{node.node.port}", "COLUMNS": "300"}
    return await trio.to_thread.run_sync(partial(CliRunner().invoke, app, list(arguments), env=env))


async def test_a_venue_without_tiers(node: Running, traders: list[Trader]) -> None:
    assert await node.call("straddle_getFeeTiers") == {"tiers": [], "account": None}
    await fill(node, traders, 1)
    found = await standing(node, traders[0])
    assert (found["today_uusd"], found["maker_ppm"], found["taker_ppm"], found["next"]) == (0, PPM, PPM, None)
    shown = (await straddle(node, "fees", "--tiers")).stdout
    assert "no tiers: everybody pays the instruments' fees" in shown
    assert "30-day volume" not in (await straddle(node, "account", "1")).stdout


async def test_volume_shares_and_the_next_tier(node: Running, traders: list[Trader], clock: Clock) -> None:
    """A fill counts today, decides tomorrow's shares, and these are what the next fill is charged by."""
    await set_tiers(node)
    tiers = (await node.call("straddle_getFeeTiers"))["tiers"]
    assert [tuple(tier[field] for field in FIELDS) for tier in tiers] == TIERS
    receipt = await fill(node, traders, 2)
    assert receipt["fee"]["trading_uusd"] == 2 * PRICE * 500 // PPM, "all of the instrument's rate"
    today = await standing(node, traders[1])
    assert today == {
        "account": traders[1].account,
        "volume_uusd": 0,
        "today_uusd": 2 * PRICE,
        "maker_ppm": PPM,
        "taker_ppm": PPM,
        "tomorrow_uusd": 2 * PRICE,
        "next": {"tier": 2, "missing_uusd": 500_000 * USD - 2 * PRICE},
    }
    clock.added_ms = DAY_MS
    tomorrow = await standing(node, traders[1])
    assert tomorrow["volume_uusd"] == today["tomorrow_uusd"]
    assert (tomorrow["maker_ppm"], tomorrow["taker_ppm"]) == TIERS[1][1:]
    clock.added_ms = 31 * DAY_MS
    month = await standing(node, traders[1])
    assert (month["volume_uusd"], month["tomorrow_uusd"]) == (0, 0), "of 30 days, and no longer"
    assert month["next"] == {"tier": 1, "missing_uusd": 100_000 * USD}


async def test_the_commands(node: Running, traders: list[Trader]) -> None:
    await set_tiers(node)
    await fill(node, traders, 2)
    shown = (await straddle(node, "fees", "--tiers", "--account", "2")).stdout
    lines = [line.split() for line in shown.splitlines()]
    assert ["1", "$100,000.00", "50", "%", "90", "%"] in lines
    assert ["2", "$500,000.00", "-100", "%", "60", "%"] in lines
    assert "$0.00, and $120,000.00 today" in shown
    assert "100 % as maker, 100 % as taker" in shown
    assert "2, from tomorrow on, for $380,000.00 more today" in shown
    assert "2, from tomorrow on, for $380,000.00 more today" in (await straddle(node, "account", "2")).stdout
    found = json.loads((await straddle(node, "fees", "--tiers", "--account", "2", "--json")).stdout)
    assert found == await node.call("straddle_getFeeTiers", account=2)
    refused = await straddle(node, "fees", "--tiers", "--account", "99")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "(NOT_FOUND)" in refused.stderr


async def test_what_is_refused(node: Running) -> None:
    for account in (99, 2**64 - 1, 2**64):
        with pytest.raises(NodeError) as caught:
            await node.client.call("straddle_getFeeTiers", {"account": account})
        assert caught.value.code == ErrorCode.NOT_FOUND
        assert caught.value.data == {"code": "NOT_FOUND", "account": str(account)}
    for wrong in ({"account": -1}, {"account": "1"}, {"tier": 1}):
        with pytest.raises(NodeError) as caught:
            await node.client.call("straddle_getFeeTiers", wrong)
        assert caught.value.code == ErrorCode.INVALID_PARAMS


async def test_the_node_describes_the_method(node: Running) -> None:
    document = await node.client.call("rpc.discover")
    (method,) = [each for each in document["methods"] if each["name"] == "straddle_getFeeTiers"]
    assert "fee tiers" in method["summary"]
    fields = document["components"]["schemas"]["VolumeView"]["properties"]
    assert {"volume_uusd", "today_uusd", "maker_ppm", "taker_ppm", "tomorrow_uusd", "next"} == set(fields) - {
        "account"
    }
