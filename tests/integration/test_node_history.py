"""History over the public port of a real node, by JSON-RPC and by the command line; bad input."""

from __future__ import annotations

import csv
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
from sequencer.cli_history import COLUMNS, Kind
from sequencer.client import NodeError
from state.actions import CancelAll, OrderKind, Side, Transfer, Withdraw
from tests.integration.node_fixture import COIN, INSTRUMENT, PRICE, USD, Running, Trader, running_node

METHODS = ("straddle_getOrderHistory", "straddle_getTradeHistory", "straddle_getTransactionLog")
U64 = 2**64


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_node(tmp_path / "data") as running:
        yield running


@pytest.fixture
async def traders(node: Running) -> list[Trader]:
    """Two who traded: partly in a committed batch, partly in the open one."""
    alice, bob = both = [Trader(b"\x31" * 32, 0), Trader(b"\x32" * 32, 0)]
    await node.open_market(both)
    await node.send(alice.order(Side.BUY, PRICE, COIN))
    await node.send(bob.order(Side.SELL, PRICE, COIN // 2))
    await node.post_now()
    await node.send(bob.order(Side.SELL, PRICE, COIN, OrderKind.IMMEDIATE_OR_CANCEL))
    await node.send(alice.order(Side.BUY, PRICE - USD, COIN))
    await node.send(alice.signed(CancelAll(**alice.envelope(), market=0)))
    await node.send(alice.signed(Transfer(**alice.envelope(), to_account=bob.account, amount_uusd=5 * USD)))
    await node.send(bob.signed(Withdraw(**bob.envelope(), recipient=b"\x07" * 20, amount_uusd=7 * USD)))
    return both


async def entries(node: Running, method: str, **params: Any) -> list[Any]:
    found: list[Any] = []
    while True:
        page = await node.call(method, **params)
        found += page["entries"]
        if page["cursor"] is None:
            return found
        params["cursor"] = page["cursor"]


async def test_orders_trades_and_log(node: Running, traders: list[Trader]) -> None:
    alice, bob = traders
    orders = await entries(node, METHODS[0], account=alice.account, sorting="asc")
    assert [(each["event"], each["order_state"], each["reason"]) for each in orders] == [
        ("place", "open", None),
        ("fill", "open", None),
        ("fill", "filled", "filled"),
        ("place", "open", None),
        ("cancel", "cancelled", "cancelled"),
    ]
    placed = orders[0]
    assert {name: placed[name] for name in ("direction", "order_type", "time_in_force", "post_only")} == {
        "direction": "buy",
        "order_type": "limit",
        "time_in_force": "good_til_cancelled",
        "post_only": False,
    }
    assert (placed["price"], placed["price_uusd"], placed["amount"]) == (60_000.0, PRICE, 1.0)
    receipt = await node.call("straddle_getReceipt", hash=placed["transaction"])
    assert receipt["operations"][0]["order_id"] == placed["order_id"]
    assert receipt["block_number"] == placed["block_number"]
    (of_bob, market) = (await entries(node, METHODS[0], account=bob.account))[::-1]
    assert (market["time_in_force"], market["cancelled_ulots"]) == ("immediate_or_cancel", COIN // 2)
    assert of_bob["filled_amount"] == 0.5

    trades = await entries(node, METHODS[1], account=bob.account)
    assert [each["trade_seq"] for each in trades] == [2, 1]
    assert trades[0]["trade_id"] == f"{INSTRUMENT}-2"
    assert {(each["direction"], each["liquidity"], each["fee_uusd"]) for each in trades} == {
        ("sell", "T", 15 * USD)
    }
    of_alice = await entries(node, METHODS[1], account=alice.account)
    assert {(each["direction"], each["liquidity"], each["fee"]) for each in of_alice} == {("buy", "M", 0.0)}

    log = await entries(node, METHODS[2], account=bob.account, sorting="asc")
    assert [each["type"] for each in log if each["type"] != "inclusion_fee"] == [
        "deposit",
        "trade",
        "trade",
        "transfer",
        "withdrawal",
    ]
    for trader in traders:
        state = await node.call("straddle_getAccount", account=trader.account)
        log = await entries(node, METHODS[2], account=trader.account)
        assert sum(each["change_uusd"] for each in log) == state["cash_uusd"]
        assert [each["size_ulots"] for each in log if each["type"] == "trade"] == [
            COIN // 2 if trader is alice else -COIN // 2
        ] * 2


@pytest.mark.parametrize("method", METHODS)
async def test_pages_times_and_instruments(node: Running, traders: list[Trader], method: str) -> None:
    account = traders[0].account
    whole = (await node.call(method, account=account, limit=1000, sorting="asc"))["entries"]
    for limit in (1, 2, 3):
        assert await entries(node, method, account=account, limit=limit, sorting="asc") == whole
        assert await entries(node, method, account=account, limit=limit) == whole[::-1]
    first, last = whole[0]["timestamp"], whole[-1]["timestamp"]
    assert await entries(node, method, account=account, **{"from": first, "to": last + 1}) == whole[::-1]
    before = [each for each in whole if each["timestamp"] < last]
    assert await entries(node, method, account=account, to=last, sorting="asc") == before
    assert await entries(node, method, account=account, **{"from": last + 1}) == []
    of_instrument = await entries(node, method, account=account, instrument=INSTRUMENT, sorting="asc")
    assert of_instrument == [each for each in whole if each["instrument_name"]]
    by_position = await node.client.call(method, [account, INSTRUMENT, first, last + 1, None, 1000, "asc"])
    assert by_position["entries"] == of_instrument
    after_first = await node.call(method, account=account, cursor=whole[0]["id"], sorting="asc")
    assert after_first["entries"] == whole[1:], "an entry's id is a cursor"


BAD_INPUT: list[tuple[dict[str, Any], str]] = [
    ({}, "INVALID_PARAMS"),
    ({"account": -1}, "INVALID_PARAMS"),
    ({"account": 1, "limit": 0}, "INVALID_PARAMS"),
    ({"account": 1, "limit": 1001}, "INVALID_PARAMS"),
    ({"account": 1, "from": -1}, "INVALID_PARAMS"),
    ({"account": 1, "from": "now"}, "INVALID_PARAMS"),
    ({"account": 1, "sorting": "random"}, "INVALID_PARAMS"),
    ({"account": 1, "colour": "red"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": 7}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": ""}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": "1-2"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": "1-2-3-4"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": "-1-2-3"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": "1-2-03"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": "1-2-3\n"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": "1-2-\u0663"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": f"{U64}-2-3"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": f"1-{U64}-3"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": f"1-2-{2**32}"}, "INVALID_PARAMS"),
    ({"account": 1, "cursor": "9" * 10_000}, "INVALID_PARAMS"),
    ({"account": 0}, "NOT_FOUND"),
    ({"account": 99}, "NOT_FOUND"),
    ({"account": U64}, "NOT_FOUND"),
    ({"account": 1, "instrument": "BTC-1JAN27"}, "NOT_FOUND"),
    ({"account": 1, "instrument": ""}, "NOT_FOUND"),
    ({"account": 1, "instrument": "\u00c9TH"}, "NOT_FOUND"),
    ({"account": 1, "instrument": "\0\x01"}, "NOT_FOUND"),
    ({"account": 1, "instrument": "X" * 65}, "INVALID_PARAMS"),
]


async def test_bad_input(node: Running, traders: list[Trader]) -> None:
    for params, code in BAD_INPUT:
        for method in METHODS:
            with pytest.raises(NodeError) as refusal:
                await node.client.call(method, params)
            assert refusal.value.data["code"] == code, (params, refusal.value)


async def test_cursors_at_the_edges_are_places_like_any(node: Running, traders: list[Trader]) -> None:
    for cursor in ("0-0-0", f"{U64 - 2}-{U64 - 2}-{2**32 - 2}"):
        at_the_start = cursor == "0-0-0"
        for method in METHODS:
            whole = (await node.call(method, account=1, sorting="asc"))["entries"]
            up = await node.call(method, account=1, cursor=cursor, sorting="asc")
            down = await node.call(method, account=1, cursor=cursor)
            assert up["entries"] == (whole if at_the_start else [])
            assert down["entries"] == ([] if at_the_start else whole[::-1])


async def test_the_methods_are_described(node: Running) -> None:
    document = await node.call("rpc.discover")
    methods = {method["name"]: method for method in document["methods"]}
    for name in METHODS:
        params = [param["name"] for param in methods[name]["params"]]
        assert params == ["account", "instrument", "from", "to", "cursor", "limit", "sorting"]
    assert document["components"]["schemas"]["OrderEntry"]["properties"]["cancelled_ulots"]


# the command line


async def straddle(node: Running, *arguments: str) -> Result:
    """Runs `straddle history`; it talks to the node over its port."""
    env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STRADDLE_")}
    env |= {"STRADDLE_NODE": f"http://127.0.0.1:{node.node.port}", "COLUMNS": "300"}
    invoke = partial(CliRunner().invoke, app, ["history", *arguments], env=env)
    return await trio.to_thread.run_sync(invoke)


@pytest.mark.parametrize(("kind", "method"), list(zip(Kind, METHODS, strict=True)))
async def test_csv_has_every_entry_in_integers(
    node: Running, traders: list[Trader], tmp_path: Path, kind: Kind, method: str
) -> None:
    path = tmp_path / "out.csv"
    done = await straddle(node, "1", "--kind", kind, "--csv", str(path))
    assert (done.exit_code, done.stdout) == (0, ""), done.output
    data = path.read_bytes().decode()
    assert data.endswith("\r\n")
    assert data.count("\r\n") == data.count("\n")
    head, *rows = csv.reader(data.splitlines(), strict=True)
    assert tuple(head) == COLUMNS[kind]
    whole = await entries(node, method, account=1, sorting="asc")
    assert len(rows) == len(whole) > 1
    assert f"wrote {len(whole)} entries" in done.stderr
    for row, entry in zip(rows, whole, strict=True):
        for name, cell in zip(head, row, strict=True):
            value = entry.get(name)
            assert not isinstance(value, float)
            assert cell == ("" if value is None else json.dumps(value).strip('"'))
    assert sorted(os.listdir(tmp_path)) == ["data", "out.csv"]


async def test_what_the_screen_shows(node: Running, traders: list[Trader]) -> None:
    table = (await straddle(node, "1")).stdout
    assert "orders of account 1" in table
    assert table.count("fill") >= 2
    assert "$60,000.00" in table
    last = json.loads((await straddle(node, "1", "--kind", "log", "--last", "2", "--json")).stdout)
    assert last == (await entries(node, METHODS[2], account=1, sorting="asc"))[-2:]
    day = await straddle(node, "1", "--from", "2020-01-01", "--to", "2021-01-01T08:00", "--json")
    assert json.loads(day.stdout) == []
    trades = await straddle(node, "2", "--kind", "trades", "--instrument", INSTRUMENT)
    assert trades.stdout.count("sell") == 2


async def test_a_failed_export_leaves_no_file(node: Running, traders: list[Trader], tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    for arguments in (["99"], ["1", "--instrument", "NOTHING"]):
        failed = await straddle(node, *arguments, "--csv", str(path))
        assert failed.exit_code == 1
        assert "there is no such" in failed.stderr
    nowhere = await straddle(node, "1", "--csv", str(tmp_path / "no" / "out.csv"))
    assert nowhere.exit_code == 1
    assert os.listdir(tmp_path) == ["data"]
    for wrong in (["1", "--kind", "money"], ["0"], ["1", "--from", "soon"], ["1", "--last", "0"]):
        assert (await straddle(node, *wrong)).exit_code == 2
