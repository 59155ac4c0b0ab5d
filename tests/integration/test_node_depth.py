"""Block trades, triggers and protection through a node's port, and what is left of them after a restart."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer

from sequencer import cli_depth, cli_trader
from sequencer.cli_options import Signing
from sequencer.cli_units import signed_dollars
from sequencer.client import NodeError
from sequencer.clock import wall_clock_ms
from state.actions import (
    Action,
    Cancel,
    CancelTrigger,
    ExecuteQuote,
    Leg,
    Order,
    OrderKind,
    PlaceTrigger,
    Quote,
    SetProtection,
    Side,
    SignedAction,
    TriggerCondition,
    TriggerSource,
)
from state.eip712 import action_digest, quote_digest
from state.fees import BASE_UNITS, LEG_UNITS, QUOTE_UNITS, TERMS_UNITS
from state.hashing import keccak
from state.keys import block_trade_key
from state.signatures import sign
from state.wire_msgpack import encode_msgpack
from tests.integration.node_fixture import (
    COIN,
    DOMAIN,
    INSTRUMENT,
    MARKET,
    PRICE,
    USD,
    Trader,
    name_hash_of,
    running_node,
)


def traders() -> list[Trader]:
    return [Trader(b"\x41" * 32, 0), Trader(b"\x42" * 32, 0)]


def execution(maker: Trader, taker: Trader, net_uusd: int, **changes: Any) -> ExecuteQuote:
    quote = Quote(
        maker.account,
        (Leg(MARKET, Side.SELL, COIN),),
        net_uusd,
        taker.account,
        keccak(b"agreed"),
        wall_clock_ms(),
        wall_clock_ms() // 1_000 + 60,
        100 * USD,
    )
    signature = sign(quote_digest(DOMAIN, quote, name_hash_of), maker.secret)
    fields: dict[str, Any] = {"quote": quote, "quote_signature": signature, "limit_uusd": net_uusd}
    return ExecuteQuote(**taker.envelope(), **(fields | changes))


def packed(action: Action, trader: Trader) -> str:
    """As bots send it."""
    signature = sign(action_digest(DOMAIN, action, name_hash_of), trader.secret)
    return "0x" + encode_msgpack(SignedAction(action, signature)).hex()


async def test_a_block_trade_over_the_port_and_after_a_restart(tmp_path: Path) -> None:
    maker, taker = both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        net = PRICE + 3
        receipt = await node.send(taker.signed(execution(maker, taker, net)))
        (fill,) = receipt["fills"]
        assert fill["block_trade"] == fill["trade"]
        assert (fill["side"], fill["maker_account"]) == ("buy", maker.account)
        again = await node.send(packed(execution(maker, taker, net), taker))
        assert again["status"] == "executed"
        found = await node.call("public/get_last_trades_by_instrument", instrument_name=INSTRUMENT)
        assert [trade["block_trade_id"] for trade in found["trades"]] == [
            str(each["fills"][0]["trade"]) for each in (again, receipt)
        ]
        ticker = await node.call("public/ticker", instrument_name=INSTRUMENT)
        assert ticker["last_price"] is None, "block trades make no price"
        assert ticker["stats"]["volume"] == 2.0
        history = await node.call("straddle_getTradeHistory", account=maker.account)
        assert {trade["block_trade_id"] for trade in history["entries"]} == {
            str(each["fills"][0]["trade"]) for each in (again, receipt)
        }
        positions = (await node.call("straddle_getAccount", account=taker.account))["positions"]
        await node.post_now()
        key = "0x" + block_trade_key(fill["trade"]).hex()
        proof = await node.call("straddle_getProof", key=key)
        assert proof["value"].startswith("0x" + keccak(b"agreed").hex())
    async with running_node(tmp_path) as node:
        assert (await node.call("straddle_getAccount", account=taker.account))["positions"] == positions


async def test_a_quote_that_the_maker_did_not_sign(tmp_path: Path) -> None:
    maker, taker = both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        forged = execution(maker, taker, PRICE)
        forged = msgspec.structs.replace(forged, quote_signature=sign(keccak(b"else"), maker.secret))
        with pytest.raises(NodeError) as refused:
            await node.send(taker.signed(forged))
        assert refused.value.data["code"] == "QUOTE_WRONG_SIGNER"
        short = taker.signed(execution(maker, taker, PRICE))
        short["action"]["quote_signature"] = "0x00"
        with pytest.raises(NodeError) as refused:
            await node.send(short)
        assert refused.value.data["path"].endswith("quote_signature")
        simulated = await node.call(
            "straddle_simulate", transaction=taker.signed(execution(maker, taker, PRICE))
        )
        assert simulated["executed"]
        quoted = await node.call(
            "straddle_feeQuote", action=taker.signed(execution(maker, taker, PRICE))["action"]
        )
        assert quoted["execution_units"] == BASE_UNITS + QUOTE_UNITS + LEG_UNITS + TERMS_UNITS
        await node.send(taker.signed(execution(maker, taker, PRICE)))


def stop(trader: Trader, **changes: Any) -> PlaceTrigger:
    order = Order(MARKET, Side.SELL, OrderKind.MARKET, PRICE * 92 // 100, COIN, True)
    fields: dict[str, Any] = {
        "order": order,
        "source": TriggerSource.MARK,
        "condition": TriggerCondition.AT_OR_BELOW,
        "trigger_uusd": PRICE * 97 // 100,
    }
    return PlaceTrigger(**trader.envelope(), **(fields | changes))


async def test_triggers_are_shown_fire_and_stand_in_the_history(tmp_path: Path) -> None:
    alice, bob = both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        await node.send(bob.order(Side.SELL, PRICE, 2 * COIN))
        await node.send(alice.order(Side.BUY, PRICE, 2 * COIN))
        with pytest.raises(NodeError) as refused:
            await node.send(alice.signed(stop(alice, trigger_uusd=PRICE)))
        assert refused.value.data["code"] == "TRIGGER_FIRES_AT_ONCE"
        placed = await node.send(alice.signed(stop(alice)))
        other = await node.send(packed(stop(alice, trigger_uusd=PRICE // 2), alice))
        order_id = placed["operations"][0]["order_id"]
        (found, deeper) = await node.call("straddle_getTriggers", account=alice.account)
        assert (found["order_id"], found["source"], found["condition"]) == (order_id, "mark", "at-or-below")
        assert (found["kind"], found["reduce_only"], found["trigger_uusd"]) == (
            "market",
            True,
            PRICE * 97 // 100,
        )
        assert deeper["order_id"] == other["operations"][0]["order_id"]
        cancel = CancelTrigger(**alice.envelope(), cancel=Cancel(MARKET, deeper["order_id"]))
        await node.send(alice.signed(cancel))
        await node.send(bob.order(Side.BUY, PRICE * 96 // 100, COIN))
        fired = await node.send_prices(PRICE * 96 // 100)
        assert fired["fills"][0]["order_id"] == order_id
        assert await node.call("straddle_getTriggers", account=alice.account) == []
        history = await node.call("straddle_getOrderHistory", account=alice.account)
        told = [
            (each["order_id"], each["order_state"])
            for each in history["entries"]
            if each["event"] == "trigger"
        ]
        assert sorted(told) == sorted(
            [
                (order_id, "untriggered"),
                (order_id, "triggered"),
                (deeper["order_id"], "untriggered"),
                (deeper["order_id"], "cancelled"),
            ]
        )


async def test_protection_is_shown_and_refuses(tmp_path: Path) -> None:
    alice, bob = both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        protection = SetProtection(
            **alice.envelope(),
            underlying="BTC",
            interval_ms=60_000,
            frozen_ms=0,
            quantity_ulots=COIN // 2,
            delta_ulots=0,
            vega_uusd=0,
        )
        await node.send(alice.signed(protection))
        for place in range(3):
            await node.send(alice.order(Side.SELL, PRICE + place * USD, COIN))
        await node.send(bob.order(Side.BUY, PRICE + 2 * USD, 3 * COIN))
        (found,) = await node.call("straddle_getProtections", account=alice.account)
        assert (found["underlying"], found["quantity_ulots"], found["frozen"]) == ("BTC", COIN, True)
        assert json.loads(found["frozen_until_ms"]) == 2**64 - 1
        account = await node.call("straddle_getAccount", account=alice.account)
        assert account["orders"] == []
        with pytest.raises(NodeError) as refused:
            await node.send(alice.order(Side.SELL, PRICE, COIN))
        assert refused.value.data["code"] == "MMP_FROZEN"


async def test_no_account_has_nothing(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        for account in (99, 2**64 - 1, 2**64):
            assert await node.call("straddle_getTriggers", account=account) == []
            assert await node.call("straddle_getProtections", account=account) == []


async def test_the_commands_against_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `straddle quote`, `block` and `trigger` do once their options are read."""
    maker, taker = both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        url = f"http://{node.client.host}:{node.client.port}"
        options = Signing(url, None, None, None, None, None, 60, None)
        monkeypatch.setenv("STRADDLE_PRIVATE_KEY", "0x" + maker.secret.hex())
        made = partial(
            Quote,
            net_uusd=signed_dollars(f"-{PRICE // USD}.000003"),
            taker_account=0,
            terms_hash=bytes(32),
            nonce=5,
            expiry_s=wall_clock_ms() // 1_000 + 30,
            max_fee_uusd=100 * USD,
        )
        with pytest.raises(typer.BadParameter):
            await cli_depth._quote(options, ["hold 1 BTC-PERPETUAL"], made)
        signed = await cli_depth._quote(options, [f"buy 1 {INSTRUMENT}"], made)
        path = tmp_path / "quote.json"
        path.write_bytes(msgspec.json.encode(signed))
        read = msgspec.json.decode(path.read_bytes(), type=cli_depth.SignedQuote)
        monkeypatch.setenv("STRADDLE_PRIVATE_KEY", "0x" + taker.secret.hex())
        receipt = await cli_depth._block(options, read.quote, bytes.fromhex(read.signature[2:]), None)
        (fill,) = receipt["fills"]
        assert (fill["side"], fill["price_uusd"], fill["maker_order_id"]) == ("sell", PRICE + 3, 5)
        placed = partial(
            Order, side=Side.BUY, kind=OrderKind.LIMIT, price_uusd=PRICE, size_ulots=COIN, reduce_only=True
        )
        terms = partial(
            PlaceTrigger,
            source=TriggerSource.INDEX,
            condition=TriggerCondition.AT_OR_BELOW,
            trigger_uusd=PRICE - USD,
        )
        receipt = await cli_depth._trigger(options, INSTRUMENT, placed, terms)
        (found,) = await node.call("straddle_getTriggers", account=taker.account)
        assert found["order_id"] == receipt["operations"][0]["order_id"]
        await cli_trader._cancel_one(options, found["order_id"], INSTRUMENT, True)
        assert await node.call("straddle_getTriggers", account=taker.account) == []
