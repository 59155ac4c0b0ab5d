"""Request for quote through a node's WebSocket port: asked, answered by two makers, the best is executed."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from eth_account import Account
from eth_account.messages import encode_typed_data
from typer.testing import CliRunner, Result

from sequencer.cli import app
from sequencer.client import NodeError
from sequencer.clock import wall_clock_ms
from state.actions import CancelQuote, ExecuteQuote
from state.signatures import normalise_signature
from state.wire import to_quote
from state.wire_types import LegJson, QuoteJson
from tests.integration.node_fixture import COIN, INSTRUMENT, MARKET, PRICE, USD, Running, Trader, running_node
from tests.integration.ws_fixture import Socket, open_socket

ASKED = [{"instrument": INSTRUMENT, "side": "buy", "size_ulots": 2 * COIN}]


def people() -> tuple[Trader, Trader, Trader]:
    """A taker and two makers."""
    taker, first, second = (Trader(bytes([number]) * 32, 0) for number in (0x51, 0x52, 0x53))
    return taker, first, second


async def signed_quote(socket: Socket, maker: Trader, net_uusd: int, nonce: int = 1) -> dict[str, Any]:
    """Signed as a wallet does: what to sign comes from the node, the signature has 65 bytes."""
    quote = {
        "account": maker.account,
        "legs": [{"instrument": INSTRUMENT, "side": "sell", "size_ulots": 2 * COIN}],
        "net_uusd": net_uusd,
        "taker_account": 0,
        "terms_hash": "0x" + "00" * 32,
        "nonce": nonce,
        "expiry_s": wall_clock_ms() // 1_000 + 30,
        "max_fee_uusd": 100 * USD,
    }
    typed = (await socket.call("straddle_typedData", quote=quote))["typed_data"]
    signed = Account.from_key(maker.secret).sign_message(encode_typed_data(full_message=typed))
    return {"quote": quote, "signature": "0x" + signed.signature.hex().removeprefix("0x")}


def taken(taker: Trader, shown: dict[str, Any]) -> dict[str, Any]:
    """ExecuteQuote of a quote as the node shows it."""
    legs = [LegJson(**leg) for leg in shown["quote"]["legs"]]
    quote = QuoteJson(**(shown["quote"] | {"legs": legs}))
    return taker.signed(
        ExecuteQuote(
            **taker.envelope(),
            quote=to_quote(quote, {INSTRUMENT: MARKET}.__getitem__),
            quote_signature=normalise_signature(bytes.fromhex(shown["signature"][2:])),
            limit_uusd=int(quote.net_uusd),
        )
    )


async def test_the_best_of_two_quotes_is_executed(tmp_path: Path) -> None:
    taker, first, second = people()
    async with running_node(tmp_path) as node:
        await node.open_market([taker, first, second])
        async with open_socket(node) as of_taker, open_socket(node) as of_maker:
            tokens = await of_maker.subscribe("rfqs", "quotes")
            assert await of_maker.next("rfqs") == []
            rfq = await of_taker.call("straddle_requestQuote", legs=ASKED, account=taker.account, ttl_s=30)
            await of_taker.subscribe(rfq["channel"])
            assert (await of_taker.next(rfq["channel"]))["quotes"] == []
            request = (await of_maker.next("rfqs"))["request"]
            assert (request["rfq"], request["legs"], request["account"]) == (rfq["rfq"], ASKED, None)
            for maker, net in ((first, 2 * PRICE + 9), (second, 2 * PRICE + 5)):
                quote = await signed_quote(of_maker, maker, net)
                await of_maker.call("straddle_sendQuote", **quote, rfq=request["rfq"])
                event = await of_taker.next(rfq["channel"])
                assert (event["event"], event["quote"]["quote"]["net_uusd"]) == ("quoted", net)
            found = await of_taker.call("straddle_getQuotes", rfq=rfq["rfq"], key=rfq["key"])
            best = found["quotes"][0]
            assert best["quote"]["account"] == second.account
            receipt = await of_taker.call("straddle_sendTransactionSync", transaction=taken(taker, best))
            (fill,) = receipt["fills"]
            assert (fill["maker_account"], fill["price_uusd"]) == (second.account, PRICE + 2)
            withdrawn = await of_taker.next(rfq["channel"])
            assert (withdrawn["event"], withdrawn["reason"]) == ("withdrawn", "executed")
            assert withdrawn["quote"] == best
            assert (await of_taker.next(rfq["channel"]))["event"] == "closed"
            closed = {"event": "closed", "rfq": rfq["rfq"], "reason": "executed"}
            assert await of_maker.next("rfqs") == closed
        async with open_socket(node) as of_maker:
            await of_maker.subscribe("rfqs", resume={"rfqs": tokens["rfqs"]})
            assert (await of_maker.next("rfqs"))["request"] == request, "what was missed"
            assert await of_maker.next("rfqs") == closed
        await check_after(node, taker, first, quote)


async def check_after(node: Running, taker: Trader, maker: Trader, used: dict[str, Any]) -> None:
    """Over HTTP: the quote is used, another on the board is cancelled, errors have data."""
    with pytest.raises(NodeError) as refused:
        await node.call("straddle_sendQuote", **used)
    assert refused.value.data["code"] == "QUOTE_USED"
    with pytest.raises(NodeError) as refused:
        await node.call("straddle_sendQuote", **used, rfq=7)
    assert refused.value.data == {"code": "NOT_FOUND", "rfq": 7}
    async with open_socket(node) as socket:
        await socket.subscribe("quotes")
        assert await socket.next("quotes") == []
        offer = await signed_quote(socket, maker, 2 * PRICE + 100, nonce=2)
        await node.call("straddle_sendQuote", **offer)
        (shown,) = await node.call("straddle_getOpenQuotes")
        assert await socket.next("quotes") == {"event": "quoted", "quote": shown}
        fields = {"quote_nonce": 2, "quote_expiry_s": offer["quote"]["expiry_s"]}
        await node.send(maker.signed(CancelQuote(**maker.envelope(), **fields)))
        assert (await socket.next("quotes"))["reason"] == "cancelled"
    assert await node.call("straddle_getOpenQuotes") == []
    requests = [("straddle_requestQuote", {"legs": ASKED})] * 17
    answers = await node.client.call_many(requests)
    assert [isinstance(each, NodeError) for each in answers] == [False] * 16 + [True]
    assert answers[-1].data == {"code": "TOO_MANY_RFQS", "limit": 16}
    async with open_socket(node) as socket:
        await socket.call("straddle_requestQuote", legs=ASKED)
    document = await node.call("rpc.discover")
    methods = {method["name"]: method for method in document["methods"]}
    params = [param["name"] for param in methods["straddle_requestQuote"]["params"]]
    assert params == ["legs", "account", "disclose", "ttl_s"]
    assert {"$ref": "#/components/errors/QUOTE_OUTBID"} in methods["straddle_sendQuote"]["errors"]


async def straddle(node: Running, trader: Trader | None, *arguments: str) -> Result:
    """Runs the command with the trader's key; it talks to the node over its port."""
    env: dict[str, str | None] = {name: None for name in os.environ if name.startswith("STRADDLE_")}
    env |= {"STRADDLE_NODE": f"http://127.0.0.1:{node.node.port}", "COLUMNS": "200"}
    if trader is not None:
        env["STRADDLE_PRIVATE_KEY"] = "0x" + trader.secret.hex()
    return await trio.to_thread.run_sync(partial(CliRunner().invoke, app, arguments, env=env))


async def test_the_commands(tmp_path: Path) -> None:
    """Asked, answered twice, taken, by the command line alone."""
    taker, first, second = people()
    best = tmp_path / "best.json"
    async with running_node(tmp_path / "data") as node:
        await node.open_market([taker, first, second])
        asked = ("rfq", "request", f"buy 2 {INSTRUMENT}", "--account", str(taker.account), "--for", "5m")
        opened = json.loads((await straddle(node, None, *asked, "--json")).stdout)
        shown = await straddle(node, None, "rfq", "list")
        assert f"buy 2 {INSTRUMENT}" in shown.stdout
        place = str(opened["rfq"]), opened["key"]
        early = await straddle(node, None, "rfq", "quotes", *place, "--best", str(best))
        assert (early.exit_code, best.exists()) == (1, False)
        assert "nobody has quoted" in early.stderr
        for maker, dollars in ((first, "120000.50"), (second, "120000.25")):
            offer = ("quote", f"sell 2 {INSTRUMENT}", "--net", dollars, "--rfq", place[0])
            sent = await straddle(node, maker, *offer)
            assert sent.exit_code == 0, sent.output
        own = await straddle(node, taker, *offer)
        assert own.exit_code == 1
        assert "oneself" in own.stderr
        listed = await straddle(node, None, "rfq", "quotes", *place, "--best", str(best))
        assert listed.stdout.index("$120,000.25") < listed.stdout.index("$120,000.50")
        done = await straddle(node, taker, "block", str(best), "--json")
        (fill,) = json.loads(done.stdout)["fills"]
        assert (fill["maker_account"], fill["side"]) == (second.account, "buy")
        gone = await straddle(node, None, "rfq", "quotes", *place)
        assert gone.exit_code == 1
        assert "no such open request" in gone.stderr
        again = await straddle(node, None, *asked)
        assert "open until" in again.stdout
