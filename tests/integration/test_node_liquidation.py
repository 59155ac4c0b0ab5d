"""A node whose keeper puts an account up for auction, bids through the port, an explanation with proofs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from sequencer.client import NodeClient
from sequencer.clock import wall_clock_ms
from sequencer.config import KeeperSection
from sequencer.keeper import Keeper
from sequencer.signing import SecretKey
from state import keys
from state.actions import Bid, EndAuction, Side
from state.block import BlockHeader, L1Message, MessageKind
from state.eip712 import header_hash
from state.hashing import keccak
from state.leaves import Account, Feed, FeeTerms, System
from state.proofs import AbsenceProof, MembershipProof, verify_absence, verify_membership
from tests.integration.node_fixture import COIN, PRICE, USD, Running, Trader, running_node
from tools.exchange import l1_origin

KEEPER_SECRET = b"\x31" * 32


def traders() -> list[Trader]:
    """The keeper's account is the first."""
    return [Trader(secret, 0) for secret in (KEEPER_SECRET, b"\x32" * 32, b"\x33" * 32, b"\x34" * 32)]


async def leveraged(node: Running, all_of_them: list[Trader]) -> Trader:
    """The third is long 60 coins against the second, with a million of its own; risk costs nothing, so that
    the insurance fund is empty."""
    _, seller, buyer, _ = all_of_them
    await node.open_market(all_of_them)
    machine = node.node.opened.machine
    before = machine.system.inbox_next
    free = L1Message(MessageKind.SET_FEES, bytes(20), 1, FeeTerms(risk_ppm=0).encode())
    await node.node.inbox.put([free], l1_origin(1))
    await node.until(lambda: machine.system.inbox_next > before)
    await node.send_prices(PRICE)
    await node.send(seller.order(Side.SELL, PRICE, 60 * COIN))
    filled = await node.send(buyer.order(Side.BUY, PRICE, 60 * COIN))
    assert filled["operations"][0]["filled_ulots"] == 60 * COIN
    return buyer


async def liquidations(node: Running) -> Any:
    return await node.call("straddle_getLiquidations")


async def until_open(node: Running) -> Any:
    """The only auction, when there is one."""
    with trio.fail_after(20):
        while True:
            found = (await liquidations(node))["auctions"]
            if found:
                return found[0]
            await trio.sleep(0.02)


def check_proofs(moment: dict[str, Any]) -> dict[bytes, bytes | None]:
    """All of a moment's proofs hold under its root; the leaves that they prove."""
    root = bytes.fromhex(moment["root"][2:])
    leaves: dict[bytes, bytes | None] = {}
    for each in moment["proofs"]:
        key, encoded = bytes.fromhex(each["key"][2:]), bytes.fromhex(each["encoded"][2:])
        if each["present"]:
            proof = MembershipProof.decode(encoded)
            leaves[key] = verify_membership(root, proof, key)
        else:
            verify_absence(root, AbsenceProof.decode(encoded), key)
            leaves[key] = None
    return leaves


async def test_from_crash_to_explanation(tmp_path: Path) -> None:
    all_of_them = traders()
    section = KeeperSection(account=1, interval_ms=20)
    async with running_node(tmp_path, SecretKey(KEEPER_SECRET), keeper=section) as node:
        poor = await leveraged(node, all_of_them)
        await node.post_now()
        assert await liquidations(node) == {"todo": [], "auctions": []}
        await node.send_prices(50_000 * USD)
        auction = await until_open(node)
        assert (auction["auction"], auction["account"], auction["kind"]) == (1, poor.account, "solvent")
        assert auction["health"]["maintenance_margin_uusd"] < 0 < auction["health"]["equity_uusd"]
        assert 0 < auction["allowed_share_ppm"] < 1_000_000
        bidder = all_of_them[3]
        bid = {"liquidated": poor.account, "share_ppm": 50_000, "min_reward_uusd": 1}
        first = await node.send(bidder.signed(Bid(**bidder.envelope(), **bid)))
        assert first["status"] == "executed"
        while open_now := (await liquidations(node))["auctions"]:
            # The allowed share grows with time: the last bid may leave a little.
            bid["share_ppm"] = open_now[0]["allowed_share_ppm"]
            bid["min_reward_uusd"] = 0
            await node.send(bidder.signed(Bid(**bidder.envelope(), **bid)))
        assert (await liquidations(node))["todo"] == []
        await node.post_now()
        explained = await node.call("straddle_explainLiquidation", auction=1)
        await check_explanation(node, explained, poor, bidder)
    async with running_node(tmp_path) as node:
        assert await node.call("straddle_explainLiquidation", auction=1) == explained


async def check_explanation(node: Running, explained: Any, poor: Trader, bidder: Trader) -> None:
    steps = explained["steps"]
    names = [step["step"] for step in steps]
    assert names[:7] == ["started", "bid", "fee", "seized", "bid", "fee", "seized"]
    assert names[-1] == "ended"
    assert (explained["account"], explained["open"]) == (poor.account, False)
    assert steps[0]["needed_uusd"] > 0
    assert {step["other_account"] for step in steps if step["step"] == "seized"} == {bidder.account}
    fees = sum(step["fund_uusd"] for step in steps)
    assert explained["fees_uusd"] == fees == (await system(node)).insurance_uusd
    assert explained["bidders_uusd"] == sum(s["other_amount_uusd"] for s in steps if s["step"] == "bid")
    for step in steps:
        receipt = await node.call("straddle_getReceipt", hash=step["transaction"])
        assert (receipt["block_number"], receipt["index"]) == (step["block_number"], step["index"])
        assert receipt["header_signature"] == step["header_signature"]
    before, after = explained["moments"][0], explained["moments"][-1]
    for moment in (before, after):
        assert moment["available"]
        leaves = check_proofs(moment)
        account = leaves[keys.account_key(poor.account)]
        fund = leaves[keys.SYSTEM_KEY]
        assert account is not None
        assert fund is not None
        assert Account.decode(account).cash_uusd == moment["cash_uusd"]
        assert System.decode(fund).insurance_uusd == moment["insurance_uusd"]
        assert leaves[keys.auction_key(poor.account)] is None
        assert keys.position_key(poor.account, 1) in leaves
        assert {each["feed"] for each in moment["oracle"]} == {"BTC", "BTC-PERPETUAL"}
        await check_values(moment, leaves, bidder)
        assert moment["margin"]["maintenance_uusd"] == (
            moment["health"]["equity_uusd"] - moment["health"]["maintenance_margin_uusd"]
        )
    await check_blocks(node, explained)
    now = await node.call("straddle_getRisk", account=poor.account)
    for each, risk in zip(after["margin"]["underlyings"], now["underlyings"], strict=True):
        assert each == {name: risk[name] for name in each}, "nothing has happened since"
    assert before["holdings"][0]["size_ulots"] == 60 * COIN
    assert before["health"]["maintenance_margin_uusd"] > 0
    assert after["health"]["buffer_margin_uusd"] >= 0
    assert after["holdings"][0]["size_ulots"] < 60 * COIN
    assert {each["value_uusd"] for each in after["oracle"]} == {50_000 * USD}


async def check_values(moment: Any, leaves: dict[bytes, bytes | None], bidder: Trader) -> None:
    """Oracle values are those of the proved leaves; what the bidder has is proved too."""
    for each in moment["oracle"]:
        feed = leaves[bytes.fromhex(each["key"][2:])]
        assert feed is not None
        assert Feed.decode(feed).value_uusd == each["value_uusd"]
    assert leaves[keys.account_key(bidder.account)] is not None
    assert keys.position_key(bidder.account, 1) in leaves


async def check_blocks(node: Running, explained: Any) -> None:
    """From a step's transaction to the root: its block's hash, the headers after it, the System leaf."""
    blocks = {each["number"]: each for each in explained["blocks"]}
    for step in explained["steps"]:
        block = blocks[step["block_number"]]
        assert block["transactions"][step["index"]] == step["transaction"]
        accumulator = bytes(32)
        for each in block["transactions"]:
            accumulator = keccak(accumulator + bytes.fromhex(each[2:]))
        assert "0x" + accumulator.hex() == block["transactions_hash"]
        header = BlockHeader(
            block["number"],
            bytes.fromhex(block["parent_hash"][2:]),
            block["timestamp_ms"],
            accumulator,
            block["l1_block"],
            block["inbox_next"],
        )
        assert "0x" + header_hash(header).hex() == step["block_hash"]
        (moment,) = [each for each in explained["moments"] if each["batch"] == step["batch"]]
        if not moment["available"]:
            continue
        proved = check_proofs(moment)[keys.SYSTEM_KEY]
        assert proved is not None
        last = System.decode(proved)
        above, number = step["block_hash"], block["number"]
        while number < last.block_number:
            number += 1
            later = await node.call("straddle_getBlock", block=number)
            assert later["parent_hash"] == above
            above = later["hash"]
        assert "0x" + last.parent_hash.hex() == above


async def system(node: Running) -> System:
    return node.node.opened.machine.system


async def test_a_keeper_from_outside(tmp_path: Path) -> None:
    all_of_them = traders()
    async with running_node(tmp_path) as node:
        poor = await leveraged(node, all_of_them)
        await node.send_prices(50_000 * USD)
        todo: list[Any] = []
        with trio.fail_after(20):
            while not todo:
                todo = (await liquidations(node))["todo"]
                await trio.sleep(0.01)
        assert todo == [{"account": poor.account, "todo": "start"}]
        async with NodeClient(f"http://127.0.0.1:{node.node.port}") as client:
            keeper = Keeper(client, SecretKey(KEEPER_SECRET), 0, 100, wall_clock_ms)
            assert await keeper.look() == 1
            assert (await until_open(node))["account"] == poor.account
            assert await keeper.look() == 0
            await node.send_prices(59_000 * USD)
            with trio.fail_after(20):
                while True:
                    if await keeper.look():
                        break
                    await trio.sleep(0.01)
        assert await liquidations(node) == {"todo": [], "auctions": []}
        late = poor.signed(EndAuction(**poor.envelope(), liquidated=poor.account))
        refused = await node.client.call_many([("straddle_sendTransactionSync", {"transaction": late})])
        assert refused[0].data["code"] == "NO_AUCTION"
        missing = await node.client.call_many([("straddle_explainLiquidation", {"auction": 7})])
        assert missing[0].data["code"] == "NOT_FOUND"


async def test_a_keeper_deleverages_when_the_fund_is_empty(tmp_path: Path) -> None:
    all_of_them = traders()
    async with running_node(tmp_path) as node:
        poor = await leveraged(node, all_of_them)
        for dollars in (50_000, 42_000):
            await node.send_prices(dollars * USD)
        async with NodeClient(f"http://127.0.0.1:{node.node.port}") as client:
            keeper = Keeper(client, SecretKey(KEEPER_SECRET), 1, 100, wall_clock_ms)
            with trio.fail_after(20):
                while keeper.done < 2:
                    await keeper.look()
                    await trio.sleep(0.01)
        explained = await node.call("straddle_explainLiquidation", auction=1)
        await check_blocks(node, explained)
        assert [step["step"] for step in explained["steps"]] == ["started", "deleveraged", "ended"]
        assert explained["steps"][1]["other_account"] == all_of_them[1].account
        assert explained["deleveraged_ulots"] == 60 * COIN
        account = await node.call("straddle_getAccount", account=poor.account)
        assert (account["cash_uusd"], account["positions"]) == (0, [])
        assert [moment["available"] for moment in explained["moments"]] == [True, False], "not closed yet"
