"""What a node says about prices lately, in its own terms and in Ethereum's."""

from __future__ import annotations

import io
import json
import os
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from rich.console import Console
from typer.testing import CliRunner, Result

from sequencer import cli_fees
from sequencer.cli import app
from sequencer.cli_session import Node
from sequencer.client import NodeError
from sequencer.errors import ErrorCode
from state import keys, l1_price
from state.actions import Order, OrderKind, PlaceOrder, Side
from state.errors import RejectCode
from state.fees import PARTS
from state.leaves import FeeMarket, L1Price, L1Terms
from tests.integration.node_fixture import COIN, MARKET, PRICE, USD, Running, Trader, running_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_node(tmp_path) as running:
        yield running


@pytest.fixture
async def alice(node: Running) -> Trader:
    trader = Trader(b"\x31" * 32, 0)
    await node.open_market([trader])
    return trader


def bidding(trader: Trader, bid_uusd: int) -> dict[str, Any]:
    order = Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE - USD, COIN)
    return trader.signed(PlaceOrder(**trader.envelope(), order=order, priority_bid_uusd=bid_uusd))


async def sent(node: Running, *transactions: Any) -> list[Any]:
    """Receipts of transactions that went in one array."""
    found = await node.call("straddle_sendTransactions", transactions=list(transactions))
    return [each["receipt"] for each in found]


async def test_history_has_what_receipts_have(node: Running, alice: Trader) -> None:
    first = await sent(node, bidding(alice, 0))
    later = await sent(node, *(bidding(alice, bid) for bid in (900, 400, 0)))
    found = await node.call("straddle_feeHistory", blocks=256)
    numbers = [block["block_number"] for block in found["blocks"]]
    assert numbers == sorted(numbers, reverse=True)
    by_number = {block["block_number"]: block for block in found["blocks"]}
    receipts = [*first, *later]
    for part in (*PARTS, "priority"):
        name = f"{part}_uusd"
        paid = sum(receipt["fee"][name] for receipt in receipts)
        assert found["total"][name] == paid
        assert sum(block["collected"][name] for block in found["blocks"]) == paid
    assert found["total"]["transactions"] == 4
    assert found["total"]["data_uusd"] > 0
    assert found["eth_price_uusd"] > 0
    block = by_number[first[0]["block_number"]]
    units = block["execution"]["used"]
    assert first[0]["fee"]["execution_uusd"] == -(-units * block["execution"]["price_pusd"] // 10**6)
    size = block["bandwidth"]["used"]
    assert first[0]["fee"]["data_uusd"] == -(-size * block["byte_price_pusd"] // 10**6)


async def test_history_is_paged_by_number(node: Running, alice: Trader) -> None:
    for _ in range(3):
        await sent(node, bidding(alice, 0))
    last = await node.call("straddle_feeHistory", blocks=1)
    number = last["blocks"][0]["block_number"]
    earlier = await node.call("straddle_feeHistory", blocks=2, newest=number - 1)
    assert [each["block_number"] for each in earlier["blocks"]] == [number - 1, number - 2]
    assert earlier["total"] == last["total"]
    for wrong in ({"blocks": 0}, {"blocks": 257}, {"newest": -1}, {"page": 1}):
        with pytest.raises(NodeError) as caught:
            await node.client.call("straddle_feeHistory", wrong)
        assert caught.value.code == ErrorCode.INVALID_PARAMS


async def test_gas_is_an_execution_unit(node: Running, alice: Trader) -> None:
    quote = await node.call("straddle_feeQuote", action=bidding(alice, 0)["action"])
    assert int(await node.call("eth_gasPrice"), 16) == quote["exec_price_pusd"] * 10**6
    assert await node.call("eth_maxPriorityFeePerGas") == "0x0"
    receipts = []
    for _ in range(3):
        receipts += await sent(node, *(bidding(alice, bid) for bid in (900, 400, 300)))
    kept = (await node.call("straddle_feeHistory", blocks=256))["blocks"]
    history = await node.client.call("eth_feeHistory", ["0x3", "latest", [0, 50.5, 100]])
    assert history["oldestBlock"] == hex(kept[2]["block_number"])
    bases = [int(each, 16) for each in history["baseFeePerGas"]]
    assert bases[:3] == [each["execution"]["price_pusd"] * 10**6 for each in kept[2::-1]]
    assert len(bases) == 4
    assert all(0 < ratio <= 1 for ratio in history["gasUsedRatio"])
    units = quote["execution_units"]
    highest = [int(row[2], 16) for row in history["reward"]]
    for block, reward in zip(kept[2::-1], highest, strict=True):
        paid = [it["fee"]["priority_uusd"] for it in receipts if it["block_number"] == block["block_number"]]
        assert reward == max(paid) * 10**6 // units * 10**6
    block = await node.client.call("eth_getBlockByNumber", [hex(kept[0]["block_number"]), False])
    assert (int(block["baseFeePerGas"], 16), int(block["gasUsed"], 16)) == (
        bases[2],
        kept[0]["execution"]["used"],
    )
    none = await node.client.call("eth_feeHistory", ["0x3", "latest", None])
    assert none["reward"] is None
    for wrong in (["0x3", "latest", [101.0]], ["0x3", "latest", [-1]], ["0x3", "latest", [1.0] * 101]):
        with pytest.raises(NodeError) as caught:
            await node.client.call("eth_feeHistory", wrong)
        assert caught.value.code == ErrorCode.INVALID_PARAMS


async def test_bids_that_are_refused(node: Running, alice: Trader) -> None:
    """Without the money, above `max_fee_uusd`, no number: a code, what was asked and what there was."""
    before = await node.call("straddle_getAccount", account=alice.account)
    block = (await node.call("straddle_status"))["block_number"]

    async def refused(transaction: dict[str, Any]) -> NodeError:
        with pytest.raises(NodeError) as caught:
            await node.client.call("straddle_sendTransactionSync", {"transaction": transaction})
        return caught.value

    def order(**fields: int) -> dict[str, Any]:
        placed = Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE - USD, COIN)
        return alice.signed(PlaceOrder(**(alice.envelope() | fields), order=placed))

    cash = before["cash_uusd"]
    error = await refused(order(priority_bid_uusd=cash, max_fee_uusd=2 * cash))
    assert (error.code, error.data["code"]) == (
        -32_000 - RejectCode.INSUFFICIENT_CASH,
        "INSUFFICIENT_CASH",
    )
    assert error.data["available_uusd"] == cash < error.data["needed_uusd"] <= cash + USD
    error = await refused(order(priority_bid_uusd=USD, max_fee_uusd=USD))
    assert error.code == -32_000 - RejectCode.BID_ABOVE_MAX_FEE
    assert error.data["bid_uusd"] == error.data["max_fee_uusd"] == USD
    assert 0 < error.data["fee_uusd"] < USD
    assert error.data["code"] == "BID_ABOVE_MAX_FEE"
    good = order(priority_bid_uusd=1)
    for bid in (-1, 2**64, "one", 1.5, None):
        error = await refused({**good, "action": {**good["action"], "priority_bid_uusd": bid}})
        assert (error.code, error.data["code"]) == (ErrorCode.INVALID_PARAMS, "INVALID_PARAMS")
        assert "priority_bid_uusd" in error.data["path"]
    assert await node.call("straddle_getAccount", account=alice.account) == before
    assert (await node.call("straddle_status"))["block_number"] == block


async def test_gauges_are_what_the_state_says(node: Running, alice: Trader) -> None:
    """What a scrape gets of prices, of the position of L1's price, and of what was collected."""
    await sent(node, *(bidding(alice, bid) for bid in (900, 400)))
    view = node.node.opened.machine.view
    price: L1Price = view.get(keys.L1_PRICE_KEY)
    market: FeeMarket = view.get(keys.FEE_MARKET_KEY)
    scraped = {
        name: float(value)
        for line in node.node.metrics.page().decode().splitlines()
        if not line.startswith("#")
        for name, value in [line.removeprefix("straddle_").rsplit(" ", 1)]
    }
    eth_uusd = scraped["eth_price_uusd"]
    terms = L1Terms()
    assert scraped["l1_byte_price_pusd"] == price.price_pusd > 0
    assert scraped["l1_byte_target_pusd"] == price.target_pusd
    assert scraped["l1_byte_cost_pusd"] == l1_price.feed_forward(price, terms, int(eth_uusd)) > 0
    assert scraped["l1_surplus_uusd"] == price.surplus_uusd > 0
    position = l1_price.position_uusd(price, terms, int(eth_uusd))
    assert scraped["l1_position_uusd"] == position < price.surplus_uusd
    assert scraped["l1_origin_base_fee_wei"] == price.base_fee_wei > 0
    assert scraped["l1_origin_blob_fee_wei"] == price.blob_fee_wei > 0
    assert scraped["l1_origin_block"] == price.l1_block == 1
    assert scraped['base_price_pusd{resource="growth"}'] == market.growth_pusd > 0
    assert 'load_backlog_seconds{resource="data"}' in scraped
    total = (await node.call("straddle_feeHistory"))["total"]
    for part in (*PARTS, "priority"):
        assert scraped[f'fees_collected_uusd{{part="{part}"}}'] == total[f"{part}_uusd"]
    assert total["priority_uusd"] == 400


async def test_an_empty_node_has_prices_and_no_history(node: Running) -> None:
    found = await node.call("straddle_feeHistory")
    assert found["blocks"] == []
    assert set(found["total"].values()) == {0}
    history = await node.client.call("eth_feeHistory", ["0x4", "latest", [10.0]])
    assert (history["gasUsedRatio"], len(history["baseFeePerGas"])) == ([], 1)
    assert int(await node.call("eth_gasPrice"), 16) > 0


async def straddle(node: Running, *arguments: str) -> Result:
    env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STRADDLE_")}
    env |= {"STRADDLE_NODE": f"http://127.0.0.1:{node.node.port}", "COLUMNS": "300"}
    invoke = partial(CliRunner().invoke, app, ["fees", *arguments], env=env)
    return await trio.to_thread.run_sync(invoke)


async def test_the_command_shows_what_the_node_says(node: Running, alice: Trader) -> None:
    receipts = await sent(node, bidding(alice, 0)) + await sent(node, bidding(alice, 70))
    found = json.loads((await straddle(node, "--blocks", "2", "--json")).stdout)
    numbers = [receipt["block_number"] for receipt in receipts]
    assert [block["block_number"] for block in found["blocks"]] == numbers[::-1]
    shown = (await straddle(node, "--blocks", "2")).stdout.splitlines()
    assert shown[0].startswith("since the node started: 2 charged, $")
    assert shown[1].split("  ")[0] == "block"
    first, second = shown[3].split(), shown[2].split()
    for row, receipt in ((first, receipts[0]), (second, receipts[1])):
        fee = receipt["fee"]
        parts = [fee[f"{part}_uusd"] for part in (*PARTS, "priority")]
        assert row[0] == str(receipt["block_number"])
        assert [int(cell.replace(",", "")) for cell in row[-7:]] == parts
    refusal = await straddle(node, "--watch")
    assert (refusal.exit_code, refusal.stdout) == (1, "")
    assert "needs a terminal" in refusal.stderr
    assert (await straddle(node, "--watch", "--json")).exit_code == 2
    assert (await straddle(node, "--blocks", "257")).exit_code == 2


async def test_a_live_table_follows_the_blocks(
    node: Running, alice: Trader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli_fees, "LOOK_S", 0.01)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=250, height=30)

    async def drawn(text: str) -> None:
        while text not in screen.getvalue():  # noqa: ASYNC110 - the table is drawn by itself
            await trio.sleep(0.01)

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cli_fees.watch_fees, Node(node.client, ""), 20, console)
            await drawn("0 charged")
            await sent(node, bidding(alice, 0))
            await drawn("1 charged")
            nursery.cancel_scope.cancel()
