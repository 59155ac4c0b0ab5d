"""Single oracle reports through a real node: together they are an update; evidence survives a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sequencer.api_oracle import report_json
from sequencer.client import NodeError
from sequencer.clock import wall_clock_ms
from state.actions import OracleReport, Price
from state.eip712 import report_digest
from state.keys import FEED, name_key
from state.signatures import address_of, recover, sign
from tests.integration.node_fixture import (
    DOMAIN,
    INSTRUMENT,
    PRICE,
    PUBLISHER_SECRETS,
    USD,
    Running,
    Trader,
    replace_signature,
    running_node,
)


def report(now_ms: int, price_uusd: int, secret: bytes) -> dict[str, Any]:
    prices = (Price("BTC", price_uusd, 990_000), Price(INSTRUMENT, price_uusd, 990_000))
    unsigned = OracleReport(now_ms, prices, bytes(64))
    return report_json(replace_signature(unsigned, sign(report_digest(DOMAIN, unsigned), secret)))


async def feeds(node: Running) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = await node.call("straddle_getFeeds", names=["BTC", INSTRUMENT, "ETH"])
    return found


async def send(node: Running, secret: bytes, price_uusd: int, now_ms: int) -> dict[str, Any]:
    taken: dict[str, Any] = await node.client.call("straddle_sendReport", report(now_ms, price_uusd, secret))
    return taken


async def test_single_reports_become_an_update(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.open_market([Trader(b"\x31" * 32, 0)])
        now_ms = wall_clock_ms()
        view = node.node.opened.machine.view
        for count, secret in enumerate(PUBLISHER_SECRETS, 1):
            taken = await send(node, secret, PRICE + count * USD, now_ms)
            assert taken == {"publisher": "0x" + address_of(secret).hex(), "waiting": count, "quorum": 2}
        await node.until(lambda: view.get(name_key(FEED, "BTC")).timestamp_ms == now_ms)
        btc, mark, eth = await feeds(node)
        assert btc["price"]["value_uusd"] == mark["price"]["value_uusd"] == PRICE + 2 * USD
        assert (btc["price"]["confidence_ppm"], btc["price"]["fresh"]) == (990_000, True)
        assert btc["rate"] is btc["surface"] is None
        assert eth == {"name": "ETH", "price": None, "rate": None, "surface": None}
        with pytest.raises(NodeError) as error:
            await send(node, b"\x55" * 32, PRICE, now_ms + 1)
        assert error.value.data["code"] == "ORACLE_UNKNOWN_PUBLISHER"
        with pytest.raises(NodeError) as error:
            await send(node, PUBLISHER_SECRETS[0], PRICE, now_ms)
        assert error.value.data["code"] == "ORACLE_OLD"


async def test_evidence_is_served_and_survives_a_restart(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.open_market([Trader(b"\x31" * 32, 0)])
        assert await node.call("straddle_getOracleEvidence") == []
        now_ms = wall_clock_ms()
        for price_uusd in (PRICE, PRICE + 1):
            await send(node, PUBLISHER_SECRETS[0], price_uusd, now_ms)
        stored = node.node.opened.store
        await node.until(lambda: stored.meta("oracle-evidence") is not None)
        before = await node.call("straddle_getOracleEvidence")
    async with running_node(tmp_path) as node:
        evidence = await node.call("straddle_getOracleEvidence")
    assert evidence == before
    publisher = address_of(PUBLISHER_SECRETS[0])
    assert (evidence[0]["publisher"], evidence[0]["feed"]) == ("0x" + publisher.hex(), "BTC")
    for each, digest in zip(evidence[0]["reports"], evidence[0]["digests"], strict=True):
        signature = bytes.fromhex(each["signature"][2:])
        assert recover(bytes.fromhex(digest[2:]), signature) == publisher
    assert len({each["prices"][0]["value_uusd"] for each in evidence[0]["reports"]}) == 2
