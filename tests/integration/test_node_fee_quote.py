"""Fee quotes of a node: what they are made of, their signature, how long they hold, and what is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from eth_account.messages import encode_typed_data

from sequencer.client import NodeError
from sequencer.clock import wall_clock_ms
from sequencer.errors import ErrorCode
from sequencer.fee_quote import MAX_SECONDS
from state.actions import Order, OrderKind, PlaceOrder, Side
from state.eip712 import action_digest
from state.eip712_types import TYPES
from state.errors import RejectCode
from state.fees import PARTS
from state.hashing import keccak
from state.signatures import recover
from tests.integration.node_fixture import (
    COIN,
    DOMAIN,
    INSTRUMENT,
    MARKET,
    PRICE,
    SEQUENCER,
    USD,
    Running,
    Trader,
    name_hash_of,
    running_node,
)

FIELDS = [name for name, _ in TYPES["FeeQuote"]]


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
async def alice(node: Running) -> Trader:
    trader = Trader(b"\x41" * 32, 0)
    await node.open_market([trader])
    return trader


def order(trader: Trader, **changes: Any) -> PlaceOrder:
    placed = Order(MARKET, Side.BUY, OrderKind.LIMIT, PRICE - USD, COIN)
    return PlaceOrder(**({**trader.envelope(), "order": placed} | changes))


async def refused(node: Running, method: str, **params: Any) -> NodeError:
    with pytest.raises(NodeError) as caught:
        await node.client.call(method, params)
    return caught.value


def digest_by_eth_account(quote: dict[str, Any]) -> bytes:
    kinds = {name: [{"name": field, "type": kind} for field, kind in TYPES[name]] for name in ("FeeQuote",)}
    kinds["EIP712Domain"] = [{"name": field, "type": kind} for field, kind in TYPES["EIP712Domain"]]
    message = {name: quote[name] for name in FIELDS}
    message["action"] = bytes.fromhex(quote["action"][2:])
    domain = {
        "name": "Straddle",
        "version": "1",
        "chainId": DOMAIN.chain_id,
        "verifyingContract": "0x" + DOMAIN.contract.hex(),
    }
    signable = encode_typed_data(
        full_message={"types": kinds, "primaryType": "FeeQuote", "domain": domain, "message": message}
    )
    return keccak(b"\x19" + signable.version + signable.header + signable.body)


async def test_an_action_signed_at_its_most_is_what_was_quoted(node: Running, alice: Trader) -> None:
    action = order(alice, priority_bid_uusd=700)
    answer = await node.call("straddle_feeQuote", action=alice.signed(action)["action"], seconds=60)
    quote = answer["quote"]
    assert quote["fee_uusd"] == answer["fee_uusd"] == sum(quote[f"{part}_uusd"] for part in PARTS)
    assert quote["most_uusd"] == 700 + sum(answer["most"].values())
    assert all(quote[f"{part}_uusd"] <= answer["most"][f"{part}_uusd"] for part in PARTS)
    assert quote["risk_uusd"] > 0
    assert quote["expiry_ms"] == quote["quoted_ms"] + 60_000
    signed = PlaceOrder(**{**_fields(action), "max_fee_uusd": quote["most_uusd"]})
    assert quote["action"] == "0x" + action_digest(DOMAIN, signed, name_hash_of).hex()
    receipt = await node.send(alice.signed(signed))
    assert receipt["fee"]["inclusion_uusd"] <= quote["most_uusd"] - 700
    assert abs(receipt["fee"]["inclusion_uusd"] - quote["fee_uusd"]) <= quote["fee_uusd"] // 4


def _fields(action: PlaceOrder) -> dict[str, Any]:
    return {name: getattr(action, name) for name in action.__struct_fields__}


async def test_the_sequencer_signs_it_as_typed_data(node: Running, alice: Trader) -> None:
    quote = (await node.call("straddle_feeQuote", action=alice.signed(order(alice))["action"]))["quote"]
    digest = digest_by_eth_account(quote)
    assert recover(digest, bytes.fromhex(quote["signature"][2:])) == SEQUENCER.address
    found = await node.call("straddle_checkFeeQuote", quote=quote)
    assert found["digest"] == "0x" + digest.hex()
    assert found["signer"] == "0x" + SEQUENCER.address.hex()
    assert 0 < found["left_ms"] <= 30_000


async def test_a_changed_quote_and_a_stale_one_are_refused(
    node: Running, alice: Trader, clock: Clock
) -> None:
    quote = (await node.call("straddle_feeQuote", action=alice.signed(order(alice))["action"], seconds=5))[
        "quote"
    ]
    for field in FIELDS:
        changed = {**quote, field: "0x" + "11" * 32 if field == "action" else quote[field] + 1}
        error = await refused(node, "straddle_checkFeeQuote", quote=changed)
        assert error.code == ErrorCode.FEE_QUOTE_FOREIGN
        assert error.data["signer"] != "0x" + SEQUENCER.address.hex()
    malformed = await refused(node, "straddle_checkFeeQuote", quote={**quote, "signature": "0x11"})
    assert malformed.code == ErrorCode.INVALID_PARAMS
    clock.added_ms = 5_001
    stale = await refused(node, "straddle_checkFeeQuote", quote=quote)
    assert stale.code == ErrorCode.FEE_QUOTE_EXPIRED
    assert stale.data == {"code": "FEE_QUOTE_EXPIRED", "expiry_ms": quote["expiry_ms"]}


async def test_what_cannot_be_quoted(node: Running, alice: Trader) -> None:
    good = alice.signed(order(alice))["action"]
    unknown = await refused(
        node, "straddle_feeQuote", action=alice.signed(order(alice, account=99))["action"]
    )
    assert unknown.code == -32_000 - RejectCode.UNKNOWN_ACCOUNT
    assert unknown.data == {"code": "UNKNOWN_ACCOUNT", "account": 99}
    nowhere = {**good, "order": {**good["order"], "instrument": "NO-PERPETUAL"}}
    assert good["order"]["instrument"] == INSTRUMENT
    error = await refused(node, "straddle_feeQuote", action=nowhere)
    assert error.code == -32_000 - RejectCode.UNKNOWN_INSTRUMENT
    for seconds in (0, -1, MAX_SECONDS + 1, 1.5):
        error = await refused(node, "straddle_feeQuote", action=good, seconds=seconds)
        assert error.code == ErrorCode.INVALID_PARAMS
        assert "seconds" in str(error.data)
    off_tick = {**good, "order": {**good["order"], "price_uusd": PRICE + 1}}
    assert (await refused(node, "straddle_feeQuote", action=off_tick)).code == ErrorCode.INVALID_PARAMS


async def test_longer_quotes_promise_no_less(node: Running, alice: Trader) -> None:
    action = alice.signed(order(alice))["action"]
    mosts = [
        (await node.call("straddle_feeQuote", action=action, seconds=seconds))["quote"]["most_uusd"]
        for seconds in (1, 30, MAX_SECONDS)
    ]
    assert mosts == sorted(mosts)
    assert mosts[0] < mosts[-1]
