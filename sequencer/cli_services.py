"""The two services behind the command line: the node and the verifier, put together from configuration."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec
import trio
from eth_account import Account
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from l1_bridge.client import connect
from l1_bridge.keys import DEVNET_CHAIN_IDS, Signer
from l1_bridge.rollup import RollupContract, RollupInfo
from l1_bridge.verifier import RootMismatch, VerifiedBatch, Verifier
from l1_bridge.workers import collect_seldom
from sequencer import logs
from sequencer.bridge import NodeBridge
from sequencer.config import BatchesSection, L1Section, NodeConfig, VerifierConfig
from sequencer.config_file import ConfigError
from sequencer.devnet_clock import DevnetClock
from sequencer.node import Node, serve_node
from sequencer.signals import cancel_on_signal
from sequencer.signing import load_key
from state.eip712 import Domain
from state.genesis import GENESIS_ROOT

MISMATCH_SHOWN_S = 30
"""How long the metric of a wrong root can be scraped before the verifier ends."""
NO_CONTRACT = bytes(20)
"""In the signing domain of a node that runs without an L1."""


async def run_node(config: NodeConfig) -> None:
    """Runs a node until a signal drains it. Raises ConfigError and what `Node.run` raises."""
    logs.configure(config.node.log_level, config.node.log_format)
    key = await trio.to_thread.run_sync(load_key, config.sequencer_key, "sequencer_key")
    keeper = None
    if config.keeper.account:
        keeper = await trio.to_thread.run_sync(load_key, config.keeper_key, "keeper_key")
    if not config.l1.url:
        domain = Domain(config.node.chain_id, NO_CONTRACT)
        await serve_node(Node(config, domain, key, keeper_key=keeper))
        return
    rollup = rollup_address(config.l1)
    client, transport = connect(config.l1.url)
    with closing(transport):
        info = await RollupContract(client, rollup).info()
        if info.chain_id != config.node.chain_id:
            wanted = config.node.chain_id
            raise ConfigError(f"node.chain_id: {wanted}, but the contract is for chain {info.chain_id}")
        if info.genesis_root != GENESIS_ROOT:
            raise ConfigError(
                "l1.rollup: the contract starts from another genesis state than this software's"
            )
        check_delay(config.batches, info)
        signer = None
        if config.poster.enabled:
            poster_key = await trio.to_thread.run_sync(load_key, config.poster_key, "poster_key")
            signer = Signer(Account.from_key(poster_key.reveal()))
            signer.check_chain(await client.chain_id())
        bridge = NodeBridge(client, info, config.l1, config.poster, signer)
        domain = Domain(info.chain_id, rollup)
        if await client.chain_id() not in DEVNET_CHAIN_IDS:
            await serve_node(Node(config, domain, key, bridge, keeper_key=keeper))
            return
        clock = DevnetClock(client)
        await clock.look()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(clock.run)
            await serve_node(Node(config, domain, key, bridge, keeper_key=keeper, now_ms=clock))
            nursery.cancel_scope.cancel()


def check_delay(batches: BatchesSection, info: RollupInfo) -> None:
    """Raises ConfigError when a batch may wait for so long that forced messages come too late."""
    limit_ms = info.forced_delay_s * 1000 // 2
    if batches.max_delay_ms > limit_ms:
        raise ConfigError(
            f"batches.max_delay_ms: must not exceed {limit_ms}, half of the contract's forcedDelay"
        )


async def run_verifier(config: VerifierConfig, follow: bool, as_json: bool) -> None:
    """Verifies what is posted, and with `follow` what will be, until SIGTERM or SIGINT.

    Raises RootMismatch, L1Error, StoreError.
    """
    logs.configure(config.verifier.log_level, "console")
    if not config.l1.url:
        raise ConfigError("l1.url: a verifier reads L1; set it, or STRADDLE_L1_URL")
    collect_seldom()
    client, transport = connect(config.l1.url)
    node = connect(config.verifier.node_url) if config.verifier.node_url else None
    with closing(transport):
        verifier = Verifier(
            client,
            rollup_address(config.l1),
            Path(config.verifier.data_dir),
            config.l1.beacon_url or config.l1.url,
            config.l1.confirmations,
            node[0] if node else None,
            poll_s=config.l1.poll_ms / 1000,
        )
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_on_signal, nursery.cancel_scope)
                with _metrics(verifier, config.verifier.metrics_port) as mismatches:
                    try:
                        await _show(verifier, follow, as_json)
                    except RootMismatch:
                        mismatches.inc()
                        if config.verifier.metrics_port:
                            await trio.sleep(MISMATCH_SHOWN_S)
                        raise
                nursery.cancel_scope.cancel()
        finally:
            if node:
                node[1].close()


@contextmanager
def _metrics(verifier: Verifier, port: int) -> Iterator[Counter]:
    """Serves the verifier's metrics on the loopback interface, unless `port` is 0. Raises OSError."""
    registry = CollectorRegistry()
    verified = Gauge("straddle_verifier_batch", "Last batch whose root is right", registry=registry)
    verified.set_function(lambda: verifier.verified)
    away = Gauge("straddle_verifier_l1_away", "1 while L1 does not answer", registry=registry)
    away.set_function(lambda: bool(verifier.last_error))
    mismatches = Counter("straddle_verifier_mismatches", "Posted roots that are wrong", registry=registry)
    if not port:
        yield mismatches
        return
    server, thread = start_http_server(port, "127.0.0.1", registry)
    try:
        yield mismatches
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def rollup_address(section: L1Section) -> bytes:
    """The Rollup contract's address. Raises ConfigError."""
    text = section.rollup.removeprefix("0x")
    try:
        address = bytes.fromhex(text)
    except ValueError:
        address = b""
    if len(address) != 20:
        raise ConfigError(f"l1.rollup: {section.rollup!r} is not an address")
    return address


async def _show(verifier: Verifier, follow: bool, as_json: bool) -> None:
    if as_json:

        def line(batch: VerifiedBatch) -> None:
            sys.stdout.write(msgspec.json.encode(batch, enc_hook=bytes.hex).decode() + "\n")
            sys.stdout.flush()

        await verifier.run(line, follow)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("verified batches", total=None)

        def advance(batch: VerifiedBatch) -> None:
            progress.update(task, completed=batch.batch, total=batch.last_batch)

        last = await verifier.run(advance, follow)
    console.print(f"every posted root up to batch {last} is right")
