"""Oracle publishers against a real node: two in this process and one by the command line make its updates."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from struct import pack
from typing import Any

import pytest
import trio

from sequencer.client import NodeClient
from sequencer.clock import wall_clock_ms
from sequencer.config_file import ConfigError, load
from sequencer.oracle_config import moment_ms
from sequencer.oracle_open import open_source
from sequencer.oracle_publisher import OracleConfig, OraclePublisher, PublisherSection
from sequencer.oracle_sources import Expiry
from sequencer.oracle_values import feed_name
from sequencer.signing import SecretKey
from state.block import L1Message, MessageKind
from tests.integration.node_fixture import PUBLISHER_SECRETS, Running, Trader, running_node
from tools.exchange import l1_origin

WHEN = datetime.combine(datetime.now(UTC).date() + timedelta(days=30), datetime.min.time(), UTC).replace(
    hour=8
)
NAME = feed_name(Expiry("BTC", moment_ms(WHEN)))
CONFIG = f"""
[source]
kind = "static"

[[static.underlyings]]
name = "BTC"
index = 60000.0
expiries = [{{ at = {WHEN.isoformat()}, volatility = 0.6, rate = 0.04 }}]

[publisher]
interval_ms = 100
surface_interval_ms = 200
"""


async def open_feeds(node: Running) -> None:
    """The perpetual, and feeds of an expiry and of the collateral's price."""
    await node.open_market([Trader(b"\x31" * 32, 0)])
    feeds = [(0, NAME), (1, NAME), (2, NAME), (0, "STABLE")]
    messages = [
        L1Message(MessageKind.SET_FEED, b"\x01" * 20, 1, pack(">B31sII", kind, name.encode(), 5_000, 0))
        for kind, name in feeds
    ]
    machine = node.node.opened.machine
    await node.node.inbox.put(messages, l1_origin(machine.system.inbox_next))
    wanted = machine.system.inbox_next + len(messages)
    await node.until(lambda: machine.system.inbox_next == wanted)


async def feeds_of(node: Running) -> list[dict[str, Any]]:
    names = ["BTC", "BTC-PERPETUAL", "STABLE", NAME]
    found: list[dict[str, Any]] = await node.call("straddle_getFeeds", names=names)
    return found


async def until_version(node: Running, version: int) -> list[dict[str, Any]]:
    """The feeds, when the expiry's surface has had so many updates."""
    with trio.fail_after(30):
        while True:
            found = await feeds_of(node)
            if found[3]["surface"]["version"] >= version:
                return found
            await trio.sleep(0.05)


def url_of(node: Running) -> str:
    return f"http://127.0.0.1:{node.node.port}"


async def test_three_publishers_keep_all_feeds_fresh(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    config = load(OracleConfig, path, {})
    async with (
        running_node(tmp_path / "node") as node,
        NodeClient(url_of(node)) as first,
        NodeClient(url_of(node)) as second,
        trio.open_nursery() as nursery,
    ):
        await open_feeds(node)
        publishers = []
        for secret, client in zip(PUBLISHER_SECRETS, (first, second), strict=False):
            source = open_source(config, wall_clock_ms())
            key = SecretKey(secret)
            publishers.append(OraclePublisher(source, key, client, config.publisher, wall_clock_ms))
            nursery.start_soon(publishers[-1].run)
        environment = os.environ | {
            "STRADDLE_PUBLISHER_KEY_PRIVATE_KEY": PUBLISHER_SECRETS[2].hex(),
            "STRADDLE_PUBLISHER_NODE_URL": url_of(node),
        }
        process = await trio.lowlevel.open_process(
            [sys.executable, "-m", "sequencer.cli", "oracle", "--config", str(path)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            await until_logged(process, b'"event": "publishing"')
            index, mark, stable, dated = await until_version(node, 3)
        finally:
            process.send_signal(signal.SIGTERM)
            await process.wait()
        nursery.cancel_scope.cancel()
    assert process.returncode == 0
    assert index["price"]["value_uusd"] == mark["price"]["value_uusd"] == 60_000_000_000
    assert stable["price"]["value_uusd"] == 1_000_000
    assert dated["rate"]["value_ppb"] == 40_000_000
    assert 60_000_000_000 < dated["price"]["value_uusd"] < 60_300_000_000
    variance_pico = dated["surface"]["a_pico"] * 365 * 86_400 / dated["surface"]["tau_s"]
    assert variance_pico == pytest.approx(0.36e12, rel=1e-6)
    assert all(each["price"]["fresh"] for each in (index, mark, stable, dated))
    assert index["price"]["version"] > dated["surface"]["version"]
    assert min(publisher.sent for publisher in publishers) >= 3


async def until_logged(process: trio.Process, text: bytes) -> None:
    assert process.stderr is not None
    seen = b""
    with trio.fail_after(30):
        while text not in seen:
            data = await process.stderr.receive_some()
            assert data, seen
            seen += data


async def test_a_publisher_of_another_rollup_stops(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node, NodeClient(f"http://127.0.0.1:{node.node.port}") as client:
        for section in (
            PublisherSection(interval_ms=10, surface_interval_ms=10, chain_id=1),
            PublisherSection(interval_ms=10, surface_interval_ms=10, rollup="0x" + "11" * 20),
        ):
            source = open_source(load(OracleConfig, write_config(tmp_path), {}), wall_clock_ms())
            publisher = OraclePublisher(
                source, SecretKey(PUBLISHER_SECRETS[0]), client, section, wall_clock_ms
            )
            with pytest.raises(ConfigError, match="but the node's is"):
                await publisher.run()


def write_config(path: Path) -> Path:
    found = path / "other.toml"
    found.write_text(CONFIG)
    return found


async def test_a_node_that_is_away_is_waited_for(tmp_path: Path) -> None:
    """Nothing listens on the discard port: the publisher goes on trying."""
    source = open_source(load(OracleConfig, write_config(tmp_path), {}), wall_clock_ms())
    async with NodeClient("http://127.0.0.1:9") as client:
        publisher = OraclePublisher(
            source,
            SecretKey(PUBLISHER_SECRETS[0]),
            client,
            PublisherSection(interval_ms=10, surface_interval_ms=10),
            wall_clock_ms,
        )
        with trio.move_on_after(0.3) as scope:
            await publisher.run()
    assert scope.cancelled_caught
    assert publisher.sent == 0
