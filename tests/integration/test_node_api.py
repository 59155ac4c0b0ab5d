"""Every method of the public port: what it answers, and what bad input gets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from sequencer.client import NodeError
from sequencer.clock import wall_clock_ms
from sequencer.errors import ErrorCode
from state import keys
from state.actions import (
    BulkOrders,
    Cancel,
    CancelOrder,
    Order,
    OrderKind,
    PlaceOrder,
    Side,
    SignedAction,
    Transfer,
    Withdraw,
)
from state.block import BlockHeader
from state.eip712 import Domain, action_digest, header_digest
from state.errors import RejectCode
from state.proofs import MembershipProof, verify_membership
from state.signatures import recover, sign
from state.wire_msgpack import encode_msgpack
from tests.integration.node_fixture import (
    COIN,
    DOMAIN,
    INSTRUMENT,
    LOT,
    MARKET,
    PRICE,
    PUBLISHER_SECRETS,
    SEQUENCER,
    USD,
    Running,
    Trader,
    name_hash_of,
    oracle_update,
    running_node,
)

STRANGER = b"\x66" * 32


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with running_node(tmp_path) as running:
        yield running


@pytest.fixture
async def traders(node: Running) -> list[Trader]:
    both = [Trader(b"\x31" * 32, 0), Trader(b"\x32" * 32, 0)]
    await node.open_market(both)
    return both


async def refused(node: Running, method: str, params: Any) -> NodeError:
    try:
        answer = await node.client.call(method, params)
    except NodeError as error:
        return error
    raise AssertionError(f"{method}({params}) answered {answer}")


async def test_transactions_by_every_way_in(node: Running, traders: list[Trader]) -> None:
    alice, bob = traders
    first = alice.order(Side.BUY, PRICE - USD, COIN)
    found = await node.call("straddle_sendTransaction", transaction=first)
    receipt = await node.send(first)
    assert receipt["hash"] == found
    assert await node.call("straddle_sendTransaction", transaction=first) == found
    assert await node.call("straddle_getReceipt", hash=found) == receipt
    action = PlaceOrder(**bob.envelope(), order=Order(MARKET, Side.SELL, OrderKind.LIMIT, PRICE, COIN))
    signature = sign(action_digest(DOMAIN, action, name_hash_of), bob.secret)
    packed = "0x" + encode_msgpack(SignedAction(action, signature)).hex()
    assert (await node.send(packed))["operations"][0]["code"] == "OK"
    many = [alice.order(Side.BUY, PRICE - 2 * USD, LOT), bob.order(Side.SELL, PRICE + 1, LOT)]
    results = await node.call("straddle_sendTransactions", transactions=many)
    assert results[0]["receipt"]["status"] == "executed"
    assert results[1]["error"]["data"]["code"] == "PRICE_OFF_TICK"
    hashes = await node.call("straddle_sendTransactions", transactions=many[:1], until="accepted")
    assert hashes == [{"hash": results[0]["hash"]}]


async def test_a_bulk_action_answers_for_each_operation(node: Running, traders: list[Trader]) -> None:
    alice = traders[0]
    resting = await node.send(alice.order(Side.BUY, PRICE - USD, COIN))
    orders = (
        Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE - 3 * USD, COIN),
        Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE * 2, COIN),
    )
    cancels = (Cancel(MARKET, resting["operations"][0]["order_id"]), Cancel(MARKET, 64 * 999))
    receipt = await node.send(alice.signed(BulkOrders(**alice.envelope(), cancels=cancels, orders=orders)))
    codes = [operation["code"] for operation in receipt["operations"]]
    assert codes == ["OK", "UNKNOWN_ORDER", "OK", "PRICE_OUT_OF_BAND"]
    assert receipt["operations"][0]["cancelled_ulots"] == COIN


async def test_what_refused_transactions_get(node: Running, traders: list[Trader]) -> None:
    """iINGRESS_002, and issue section 6: codes and data of what a signed transaction can get wrong."""
    alice, bob = traders
    await node.send(alice.order(Side.BUY, PRICE - 7 * USD, LOT))

    def changed(transaction: dict[str, Any], **fields: Any) -> dict[str, Any]:
        return {**transaction, "action": {**transaction["action"], **fields}}

    def reject(code: RejectCode) -> int:
        return -32000 - code

    order = alice.order(Side.BUY, PRICE - USD, LOT)
    other_chain = Domain(1, DOMAIN.contract)
    other_contract = Domain(DOMAIN.chain_id, b"\x01" * 20)
    place = Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE - USD, LOT)
    late = alice.envelope(ahead_s=-5)
    high_s = order["signature"][:66] + "7f" + "ff" * 31
    cases: list[tuple[dict[str, Any], int]] = [
        (changed(order, nonce=-1), ErrorCode.INVALID_PARAMS),
        (changed(order, nonce=2**64), ErrorCode.INVALID_PARAMS),
        (changed(order, colour="red"), ErrorCode.INVALID_PARAMS),
        (changed(order, type="Dance"), ErrorCode.INVALID_PARAMS),
        ({"action": order["action"]}, ErrorCode.INVALID_PARAMS),
        ({**order, "signature": "0x1234"}, ErrorCode.BAD_SIGNATURE),
        ({**order, "signature": high_s}, ErrorCode.BAD_SIGNATURE),
        ({**order, "signature": "0x" + "00" * 64}, ErrorCode.BAD_SIGNATURE),
        (alice.signed(PlaceOrder(**alice.envelope(), order=place), other_chain), ErrorCode.WRONG_SIGNER),
        (alice.signed(PlaceOrder(**alice.envelope(), order=place), other_contract), ErrorCode.WRONG_SIGNER),
        (changed(order, account=77), reject(RejectCode.UNKNOWN_ACCOUNT)),
        (alice.signed(PlaceOrder(**late, order=place)), reject(RejectCode.DEADLINE_EXPIRED)),
        (
            alice.signed(PlaceOrder(**alice.envelope(ahead_s=90_000), order=place)),
            reject(RejectCode.DEADLINE_TOO_FAR),
        ),
        (
            alice.signed(PlaceOrder(**{**alice.envelope(), "nonce": 1}, order=place)),
            reject(RejectCode.NONCE_USED),
        ),
        (
            alice.signed(PlaceOrder(**{**alice.envelope(), "max_fee_uusd": 1}, order=place)),
            reject(RejectCode.FEE_ABOVE_MAX),
        ),
        (alice.order(Side.BUY, PRICE - 1, LOT), reject(RejectCode.PRICE_OFF_TICK)),
        (alice.order(Side.BUY, PRICE, LOT + 1), reject(RejectCode.SIZE_OFF_LOT)),
        (alice.order(Side.BUY, PRICE, 0), reject(RejectCode.SIZE_ZERO)),
        (alice.order(Side.BUY, PRICE, LOT, reduce_only=True), reject(RejectCode.REDUCE_ONLY_INCREASES)),
        (alice.order(Side.BUY, PRICE, 200 * COIN), reject(RejectCode.INSUFFICIENT_MARGIN)),
        (
            alice.signed(CancelOrder(**alice.envelope(), cancel=Cancel(MARKET, 64 * 999))),
            reject(RejectCode.UNKNOWN_ORDER),
        ),
        (
            bob.signed(Transfer(**bob.envelope(), to_account=bob.account, amount_uusd=1)),
            reject(RejectCode.SAME_ACCOUNT),
        ),
    ]
    block = (await node.call("straddle_status"))["block_number"]
    for transaction, code in cases:
        error = await refused(node, "straddle_sendTransactionSync", {"transaction": transaction})
        assert error.code == code, (transaction, error, error.data)
        assert error.data["code"]
    assert (await node.call("straddle_status"))["block_number"] == block, "a refusal made a block"
    unknown = {**order["action"]["order"], "instrument": "DOGE-PERPETUAL"}
    error = await refused(
        node, "straddle_sendTransactionSync", {"transaction": changed(order, order=unknown)}
    )
    assert error.data == {"code": "UNKNOWN_INSTRUMENT", "instrument": "DOGE-PERPETUAL"}


async def test_a_wrong_signer_is_told_who_signed_what(node: Running, traders: list[Trader]) -> None:
    alice = traders[0]
    stranger = Trader(STRANGER, alice.account)
    forged = stranger.order(Side.BUY, PRICE, LOT)
    error = await refused(node, "straddle_sendTransactionSync", {"transaction": forged})
    assert error.code == ErrorCode.WRONG_SIGNER
    assert error.data["recovered"] == "0x" + stranger.address.hex()
    assert error.data["owner"] == "0x" + alice.address.hex()
    checked = await node.call("straddle_checkSignature", transaction=forged)
    assert checked["recovered"] == error.data["recovered"]
    assert checked["digest"] == error.data["digest"]
    assert checked["may_sign"] is False
    assert checked["typed_data"]["primaryType"] == "PlaceOrder"
    good = await node.call("straddle_checkSignature", transaction=alice.order(Side.BUY, PRICE, LOT))
    assert good["may_sign"] is True


async def test_insufficient_margin_says_what_is_needed(node: Running, traders: list[Trader]) -> None:
    error = await refused(
        node,
        "straddle_sendTransactionSync",
        {"transaction": traders[0].order(Side.BUY, PRICE, 200 * COIN)},
    )
    assert error.data["needed_uusd"] > error.data["available_uusd"] > 0


async def test_quotes_and_simulations_change_nothing(node: Running, traders: list[Trader]) -> None:
    alice = traders[0]
    transaction = alice.order(Side.BUY, PRICE, COIN)
    before = await node.call("straddle_getAccount", account=alice.account)
    quote = await node.call("straddle_feeQuote", action=transaction["action"])
    simulated = await node.call("straddle_simulate", transaction=transaction)
    assert simulated["executed"] is True
    assert simulated["margin_before"]["initial_uusd"] == 0
    assert simulated["margin_after"]["initial_uusd"] == 13_200 * USD  # 22 %
    assert await node.call("straddle_getAccount", account=alice.account) == before
    receipt = await node.send(transaction)
    assert receipt["fee"]["inclusion_uusd"] == simulated["fee_uusd"]
    assert abs(quote["fee_uusd"] - simulated["fee_uusd"]) <= 10 * quote["byte_price_pusd"]
    again = await node.call("straddle_simulate", transaction=transaction)
    assert again["error"]["data"]["code"] == "NONCE_USED"
    bad = {**transaction["action"], "order": {**transaction["action"]["order"], "price_uusd": PRICE + 1}}
    error = await refused(node, "straddle_feeQuote", {"action": bad})
    assert error.code == ErrorCode.INVALID_PARAMS


async def test_blocks_and_their_signature(node: Running, traders: list[Trader]) -> None:
    receipt = await node.send(traders[0].order(Side.BUY, PRICE, COIN))
    block = await node.call("straddle_getBlock", block=receipt["block_number"], receipts=True)
    assert block["hash"] == receipt["block_hash"]
    assert block["receipts"] == [receipt]
    header = BlockHeader(
        block["number"],
        bytes.fromhex(block["parent_hash"][2:]),
        block["timestamp_ms"],
        bytes.fromhex(block["transactions_hash"][2:]),
        block["l1_block"],
        block["inbox_next"],
    )
    signature = bytes.fromhex(block["signature"][2:])
    assert len(signature) == 65
    compact = signature[:32] + bytes([signature[32] | (signature[64] - 27) << 7]) + signature[33:64]
    assert recover(header_digest(DOMAIN, header), compact) == SEQUENCER.address
    latest = await node.call("straddle_getBlock")
    assert latest["number"] == receipt["block_number"]
    ethereum = await node.client.call("eth_getBlockByNumber", [hex(block["number"]), False])
    assert ethereum["hash"] == block["hash"]
    assert ethereum["transactions"] == [receipt["hash"]]
    assert (await refused(node, "straddle_getBlock", {"block": 10**6})).code == ErrorCode.NOT_FOUND
    assert (await refused(node, "straddle_getBlock", {"block": "soon"})).code == ErrorCode.INVALID_PARAMS
    assert (await refused(node, "straddle_getBlock", {"block": "finalized"})).code == ErrorCode.NOT_FOUND
    missing = await refused(node, "straddle_getReceipt", {"hash": "0x" + "00" * 32})
    assert missing.code == ErrorCode.NOT_FOUND
    assert (await refused(node, "straddle_getReceipt", ["0x12"])).code == ErrorCode.INVALID_PARAMS
    assert await node.client.call("eth_getBlockByNumber", ["0xffffff"]) is None


async def test_batches_and_proofs(node: Running, traders: list[Trader]) -> None:
    alice = traders[0]
    await node.post_now()
    batch = await node.call("straddle_getBatch", data=True)
    assert (batch["number"], batch["stage"]) == (1, "sealed")
    assert len(batch["data"]) == 2 + 2 * batch["bytes"]
    key = keys.account_key(alice.account)
    proof = await node.call("straddle_getProof", key="0x" + key.hex())
    assert (proof["batch"], proof["root"], proof["present"]) == (1, batch["root"], True)
    value = verify_membership(
        bytes.fromhex(batch["root"][2:]), MembershipProof.decode(bytes.fromhex(proof["encoded"][2:])), key
    )
    assert "0x" + value.hex() == proof["value"]
    absent = await node.call("straddle_getProof", key="0x" + key.hex(), at=0)
    assert (absent["present"], absent["batch"]) == (False, 0)
    error = await refused(node, "straddle_getProof", {"key": "0x" + key.hex(), "at": 9})
    assert error.code == ErrorCode.NOT_AVAILABLE
    assert (await refused(node, "straddle_getProof", {"key": "0x00"})).code == ErrorCode.INVALID_PARAMS
    assert (await refused(node, "straddle_getBatch", {"batch": 9})).code == ErrorCode.NOT_FOUND


async def test_accounts(node: Running, traders: list[Trader]) -> None:
    alice, bob = traders
    await node.send(alice.order(Side.BUY, PRICE, COIN, expiry_s=wall_clock_ms() // 1000 + 1_000))
    await node.send(bob.order(Side.SELL, PRICE, COIN // 4))
    account = await node.call("straddle_getAccount", account=alice.account)
    (position,) = account["positions"]
    assert (position["size_ulots"], position["average_price_uusd"]) == (COIN // 4, PRICE)
    (order,) = account["orders"]
    assert (order["open_ulots"], order["filled_ulots"]) == (3 * COIN // 4, COIN // 4)
    assert account["owner"] == "0x" + alice.address.hex()
    assert account["next_nonce"] == alice.nonce + 1
    assert account["margin"]["equity_uusd"] == account["cash_uusd"]
    assert await node.client.call("straddle_getAccounts", ["0x" + alice.address.hex()]) == [alice.account]
    assert await node.client.call("straddle_getAccounts", ["0x" + "00" * 20]) == []
    assert (await refused(node, "straddle_getAccount", [99])).code == ErrorCode.NOT_FOUND
    assert (await refused(node, "straddle_getAccount", [2**64])).code == ErrorCode.NOT_FOUND
    assert (await refused(node, "straddle_getAccount", [-1])).code == ErrorCode.INVALID_PARAMS
    balance = await node.client.call("eth_getBalance", ["0x" + alice.address.hex(), "latest"])
    assert int(balance, 16) == account["cash_uusd"] * 10**12
    amount = 10 * USD
    withdrawal = await node.send(
        alice.signed(Withdraw(**alice.envelope(), recipient=alice.address, amount_uusd=amount))
    )
    assert withdrawal["withdrawal"] == 1


async def test_oracle_updates(node: Running, traders: list[Trader]) -> None:
    receipt = await node.send_prices(PRICE + 100 * USD)
    assert receipt["status"] == "executed"
    ticker = await node.call("public/ticker", instrument_name=INSTRUMENT)
    assert (ticker["mark_price"], ticker["index_price"]) == (60_100.0, 60_100.0)
    now = wall_clock_ms() - 1
    one = oracle_update(PRICE, now, PUBLISHER_SECRETS[:1])
    assert (await refused(node, "straddle_sendOracleUpdate", one)).data["code"] == "ORACLE_QUORUM"
    strange = oracle_update(PRICE, now, (PUBLISHER_SECRETS[0], STRANGER))
    error = await refused(node, "straddle_sendOracleUpdate", strange)
    assert error.data["code"] == "ORACLE_UNKNOWN_PUBLISHER"
    broken = oracle_update(PRICE, now)
    broken["reports"][0]["signature"] = "0x"
    error = await refused(node, "straddle_sendOracleUpdate", broken)
    assert error.code == ErrorCode.BAD_SIGNATURE
    assert (await refused(node, "straddle_sendOracleUpdate", {})).code == ErrorCode.INVALID_PARAMS


async def test_market_data(node: Running, traders: list[Trader]) -> None:
    alice, bob = traders
    for level in range(1, 4):
        await node.send(alice.order(Side.BUY, PRICE - level * USD, level * COIN))
    await node.send(bob.order(Side.SELL, PRICE - USD, COIN // 2))
    (instrument,) = await node.client.call("public/get_instruments", {"currency": "BTC", "kind": "future"})
    assert (instrument["instrument_name"], instrument["tick_size"]) == (INSTRUMENT, 0.1)
    assert await node.client.call("public/get_instruments", {"currency": "ETH"}) == []
    book = await node.call("public/get_order_book", instrument_name=INSTRUMENT, depth=2)
    assert book["bids"] == [[59_999.0, 0.5], [59_998.0, 2.0]]
    assert book["asks"] == []
    assert (book["best_bid_price"], book["best_ask_price"], book["last_price"]) == (59_999.0, None, 59_999.0)
    trades = await node.call("public/get_last_trades_by_instrument", instrument_name=INSTRUMENT)
    (trade,) = trades["trades"]
    assert (trade["direction"], trade["price"], trade["amount"]) == ("sell", 59_999.0, 0.5)
    ticker = await node.call("public/ticker", instrument_name=INSTRUMENT)
    assert ticker["stats"]["volume"] == 0.5
    assert abs(await node.call("public/get_time") - wall_clock_ms()) < 60_000
    for method in ("ticker", "get_order_book", "get_last_trades_by_instrument"):
        error = await refused(node, f"public/{method}", {"instrument_name": "NO-SUCH"})
        assert error.code == ErrorCode.NOT_FOUND
    error = await refused(node, "public/get_order_book", {"instrument_name": INSTRUMENT, "depth": 0})
    assert error.code == ErrorCode.INVALID_PARAMS


async def test_wallets_and_status(node: Running) -> None:
    assert await node.call("eth_chainId") == hex(DOMAIN.chain_id)
    assert await node.call("net_version") == str(DOMAIN.chain_id)
    assert (await node.call("web3_clientVersion")).startswith("straddle/")
    assert await node.call("eth_blockNumber") == "0x0"
    status = await node.call("straddle_status")
    assert status["ready"] is True
    assert status["contract"] == "0x" + DOMAIN.contract.hex()
    document = await node.call("rpc.discover")
    names = {method["name"] for method in document["methods"]}
    assert {"straddle_sendTransactionSync", "public/subscribe", "eth_chainId", "rpc.discover"} <= names
    error = await refused(node, "eth_getBalance", ["0x12"])
    assert error.code == ErrorCode.INVALID_PARAMS


async def test_channels(node: Running, traders: list[Trader]) -> None:
    """Frames of every channel, in the order the node makes them."""
    alice, bob = traders

    class Subscriber:
        def __init__(self) -> None:
            self.messages: list[Any] = []

        def push(self, frame: bytes) -> bool:
            self.messages.append(msgspec.json.decode(frame[frame.index(b"{") :])["params"])
            return True

        def room(self) -> int:
            return 1_000

        def of(self, channel: str) -> list[Any]:
            return [message["data"] for message in self.messages if message["channel"] == channel]

    subscriber = Subscriber()
    names = [f"book.{INSTRUMENT}.100ms", f"trades.{INSTRUMENT}", f"ticker.{INSTRUMENT}"]
    names += ["blocks", "batches", f"account.{alice.account}"]
    await node.send(alice.order(Side.BUY, PRICE, COIN))
    node.node.feed.subscribe(subscriber, names, {})
    receipt = await node.send(bob.order(Side.SELL, PRICE, COIN))
    await node.post_now()
    book = subscriber.of(names[0])
    await node.until(lambda: len(subscriber.of(names[0])) >= 2)
    book = subscriber.of(names[0])
    assert book[0]["type"] == "snapshot"
    assert book[0]["bids"] == [["new", 60_000.0, 1.0]]
    assert book[1]["bids"] == [["delete", 60_000.0, 0.0]]
    assert book[1]["prev_change_id"] == book[0]["change_id"]
    assert subscriber.of(names[1])[0][0]["amount"] == 1.0
    assert subscriber.of(names[2])[0]["best_bid_price"] == 60_000.0
    assert receipt["block_number"] in [block["number"] for block in subscriber.of("blocks")]
    await node.until(lambda: subscriber.of("batches"))
    assert subscriber.of("batches")[0]["number"] == 1
    money, event = subscriber.of(names[5])
    assert money["account"] == alice.account
    assert event["fills"][0]["liquidity"] == "maker"
    for bad in ("account.999", "account.x", "trades.NO", "book.BTC-PERPETUAL", "nothing", "account."):
        with pytest.raises(Exception, match="no such channel"):
            node.node.feed.subscribe(subscriber, [bad], {})
    node.node.feed.forget(subscriber)


async def test_a_resent_transaction_is_answered_while_it_waits(node: Running, traders: list[Trader]) -> None:
    """iINGRESS_001 for two callers at once."""
    transaction = traders[0].order(Side.BUY, PRICE, COIN)
    answers: list[Any] = []

    async def send() -> None:
        async with type(node.client)(f"http://127.0.0.1:{node.node.port}") as client:
            answers.append(await client.call("straddle_sendTransactionSync", [transaction]))

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(send)
    assert answers == [answers[0]] * 5
