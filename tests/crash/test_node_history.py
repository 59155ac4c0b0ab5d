"""kill -9 of a real node under load: after each start, history is what the durable blocks say, once each.

What it must say is put together from elsewhere: the receipts of all blocks, the accounts' cash and open
orders as the state has them, and the traders' own memory of what they signed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from random import Random
from typing import Any

import pytest
import trio

from sequencer.client import NodeClient, NodeError
from tests.crash.crowd import ARRAY, Crowd
from tests.crash.node_process import Home, devnet_here, kill

SEED = 23
KILLS = 6
TRADERS = 3
LONGEST_LOAD_S = 1.5
PAGE = 97


async def whole(client: NodeClient, method: str, account: int, sorting: str) -> list[Any]:
    """All entries, page by page."""
    found: list[Any] = []
    params: dict[str, Any] = {"account": account, "limit": PAGE, "sorting": sorting}
    while True:
        page = await client.call(method, params)
        assert page["kept_from"] == 0
        found += page["entries"]
        if page["cursor"] is None:
            return found
        params["cursor"] = page["cursor"]


async def receipts_of_all_blocks(client: NodeClient) -> list[Any]:
    last = (await client.call("straddle_status"))["block_number"]
    found: list[Any] = []
    for start in range(1, last + 1, ARRAY):
        numbers = range(start, min(start + ARRAY, last + 1))
        calls = [("straddle_getBlock", {"block": number, "receipts": True}) for number in numbers]
        for block in await client.call_many(calls):
            assert not isinstance(block, NodeError), block.message
            found += block["receipts"]
    return found


class Expected:
    """What the receipts say of each account; `sent` tells whose transaction each was."""

    def __init__(self, receipts: list[Any], sent: dict[str, Any]) -> None:
        self.trades: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
        self.operations: dict[int, Counter[tuple[Any, ...]]] = defaultdict(Counter)
        self.fees: Counter[int] = Counter()
        for receipt in receipts:
            if receipt["hash"] not in sent:
                assert not receipt["operations"], "a publisher's"
                continue
            account = sent[receipt["hash"]]["action"]["account"]
            self.fees[account] += receipt["fee"]["inclusion_uusd"]
            for each in receipt["operations"]:
                if each["order_id"]:
                    outcome = each["order_id"], each["filled_ulots"], each["resting_ulots"]
                    self.operations[account][receipt["hash"], *outcome] += 1
            for fill in receipt["fills"]:
                what = fill["trade"], fill["price_uusd"], fill["size_ulots"]
                self.trades[account].append((*what, "T", fill["order_id"], fill["fee_uusd"]))
                maker = "M", fill["maker_order_id"], fill["maker_fee_uusd"]
                self.trades[fill["maker_account"]].append((*what, *maker))


async def check_history(client: NodeClient, accounts: list[int], sent: dict[str, Any]) -> int:
    """Returns how many entries there are."""
    expected = Expected(await receipts_of_all_blocks(client), sent)
    count = 0
    for account in accounts:
        orders = await whole(client, "straddle_getOrderHistory", account, "asc")
        trades = await whole(client, "straddle_getTradeHistory", account, "asc")
        log = await whole(client, "straddle_getTransactionLog", account, "asc")
        assert await whole(client, "straddle_getOrderHistory", account, "desc") == orders[::-1]
        for entries in (orders, trades, log):
            places = [tuple(map(int, entry["id"].split("-"))) for entry in entries]
            assert places == sorted(set(places))
            count += len(entries)
        names = ("trade_seq", "price_uusd", "size_ulots", "liquidity", "order_id", "fee_uusd")
        assert [tuple(each[name] for name in names) for each in trades] == expected.trades[account]
        fees = sum(each["change_uusd"] for each in log if each["type"] == "inclusion_fee")
        assert fees == -expected.fees[account]
        told = Counter(
            (each["transaction"], each["order_id"], each["filled_ulots"], each["open_ulots"])
            for each in orders
            if each["transaction"]
        )
        assert expected.operations[account] <= told
        state = await client.call("straddle_getAccount", [account])
        assert sum(each["change_uusd"] for each in log) == state["cash_uusd"]
        still_open: dict[int, int] = {}
        for each in orders:
            still_open.pop(each["order_id"], None)
            if each["open_ulots"]:
                still_open[each["order_id"]] = each["open_ulots"]
        assert still_open == {each["order_id"]: each["open_ulots"] for each in state["orders"]}
    return count


@pytest.mark.slow
async def test_history_is_what_the_durable_blocks_say_after_kills(tmp_path: Path) -> None:
    """iHISTORY_001."""
    print("seed", SEED)
    random = Random(SEED)
    async with devnet_here(TRADERS) as place:
        with Home(place.devnet, tmp_path / "node", {"poster": {"enabled": False}}) as home:
            crowd = Crowd(place.devnet, home.url, place.traders, random)
            for number in range(KILLS + 1):
                process = await home.start()
                if number == 0:
                    await home.open_accounts(place.traders)
                await crowd.send_again()
                accounts = [trader.account for trader in place.traders]
                async with NodeClient(home.url) as client:
                    entries = await check_history(client, accounts, crowd.sent)
                if number == KILLS:
                    await home.stop(process)
                    break
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(crowd.trade)
                    await trio.sleep(random.uniform(0.05, LONGEST_LOAD_S))
                    await kill(process)
    print(entries, "entries of", len(crowd.receipts), "receipts")
    assert entries > 1_000
