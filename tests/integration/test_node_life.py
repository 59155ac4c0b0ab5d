"""A node under pressure, stopped, killed and started again: nothing acknowledged is lost."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from sequencer.admin import load_token
from sequencer.client import NodeClient, NodeError, NodeUnreachable
from sequencer.clock import wall_clock_ms
from sequencer.config import BatchesSection, BlocksSection, MempoolSection
from sequencer.config_file import ConfigError
from sequencer.errors import ErrorCode
from sequencer.node import Node
from state.actions import AuthorizeSessionKey, CancelAllAfter, RevokeSessionKey, Scope, Side
from state.block import L1Message, MessageKind
from state.errors import RejectCode
from state.journal_format import StoreCode, StoreError
from tests.integration.node_fixture import (
    DOMAIN,
    LOT,
    PRICE,
    SEQUENCER,
    USD,
    Running,
    Trader,
    config_for,
    running_node,
)
from tools.exchange import l1_origin

SLOW_BLOCKS = BlocksSection(block_interval_ms=60_000)


def traders() -> list[Trader]:
    return [Trader(b"\x31" * 32, 0), Trader(b"\x32" * 32, 0)]


async def code_of(node: Running, transaction: Any) -> int:
    with pytest.raises(NodeError) as raised:
        await node.send(transaction)
    return raised.value.code


async def status_of(port: int, path: str) -> int:
    """The status of a GET."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return int((await stream.receive_some(64)).split(b" ")[1])


async def test_a_full_mempool_answers_busy(tmp_path: Path) -> None:
    mempool = MempoolSection(max_transactions=2_000, max_per_account=3)
    alice, bob = both = traders()
    async with running_node(tmp_path, mempool=mempool) as node:
        await node.open_market(both)
        node.node.executor._blocks = SLOW_BLOCKS
        await trio.sleep(0.05)
        accepted = [alice.order(Side.BUY, PRICE, LOT) for _ in range(3)]
        for transaction in accepted:
            await node.call("straddle_sendTransaction", transaction=transaction)
        assert await code_of(node, alice.order(Side.BUY, PRICE, LOT)) == ErrorCode.BUSY
        other = await node.call("straddle_sendTransaction", transaction=bob.order(Side.BUY, PRICE, LOT))
        waiting = await node.admin.call("admin_sealNow", [node.token])
        assert waiting["mempool"] in (0, 4)
        receipts = [await node.send(transaction) for transaction in accepted]
        assert {receipt["status"] for receipt in receipts} == {"executed"}
        assert (await node.call("straddle_getReceipt", hash=other))["block_number"]


async def test_the_operator_pauses_resumes_and_drains(tmp_path: Path) -> None:
    alice, bob = both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        with pytest.raises(NodeError, match="wrong token"):
            await node.admin.call("admin_pause", ["not the token"])
        paused = await node.admin.call("admin_pause", [node.token])
        assert paused["reasons"] == ["paused"]
        assert await code_of(node, alice.order(Side.BUY, PRICE, LOT)) == ErrorCode.PAUSED
        await node.admin.call("admin_resume", [node.token])
        assert (await node.send(alice.order(Side.BUY, PRICE, LOT)))["status"] == "executed"
        await node.admin.call("admin_setLogLevel", [node.token, "error"])
        with pytest.raises(NodeError):
            await node.admin.call("admin_setLogLevel", [node.token, "shrill"])
        with pytest.raises(NodeError, match="no method"):
            await node.admin.call("straddle_status")
        with pytest.raises(NodeError, match="no method"):
            await node.client.call("admin_pause", [node.token])
        node.node.executor._blocks = SLOW_BLOCKS
        await trio.sleep(0.05)
        answers: list[Any] = []

        async def send_and_wait() -> None:
            async with NodeClient(f"http://127.0.0.1:{node.node.port}") as client:
                order = bob.order(Side.SELL, PRICE, LOT)
                answers.append(await client.call("straddle_sendTransactionSync", [order]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send_and_wait)
            await node.until(lambda: len(node.node.mempool) == 1)
            node.node.ingress.closed = ErrorCode.DRAINING  # what drain sets, before the port closes
            assert await code_of(node, alice.order(Side.BUY, PRICE, LOT)) == ErrorCode.DRAINING
            await node.admin.call("admin_drain", [node.token])
        assert answers[0]["fills"], "what was accepted before the drain is sealed and answered"


async def test_health_ready_and_metrics(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.open_market(traders())
        pages = node.node.health.pages(node.node.metrics.page)
        assert pages["/health"]().status == pages["/ready"]().status == 200
        for port, path, status in (
            (node.node.port, "/ready", 200),
            (node.node.port, "/metrics", 404),
            (node.node.admin_port, "/metrics", 200),
        ):
            assert await status_of(port, path) == status
        node.node.pause()
        assert pages["/ready"]().status == 503
        assert b"paused" in pages["/ready"]().body
        node.node.health.fault = "broken"
        assert pages["/health"]().status == 500
        text = pages["/metrics"]().body.decode()
        for name in ("straddle_blocks_total", "straddle_journal_fsync_seconds_count", "straddle_ready 0.0"):
            assert name in text


async def test_small_batches_under_load_then_a_cold_start(tmp_path: Path) -> None:
    """Batches close while blocks go on; a node that is cancelled, not drained, recovers every receipt."""
    alice, bob = both = traders()
    receipts: list[dict[str, Any]] = []
    sent: list[dict[str, Any]] = []
    with trio.CancelScope() as killed:
        async with running_node(tmp_path, batches=BatchesSection(max_bytes=2_000, max_age_ms=100)) as node:
            await node.open_market(both)
            for number in range(120):
                trader, side = (alice, Side.BUY) if number % 2 else (bob, Side.SELL)
                sent.append(trader.order(side, PRICE + (number % 5) * USD, LOT))
                receipts.append(await node.send(sent[-1]))
            status = await node.call("straddle_status")
            assert status["committed_batch"] >= 3
            account = await node.call("straddle_getAccount", account=alice.account)
            watched = [dict(side) for side in node.node.market_data.of(1).sides]
            trades = await node.call("public/get_last_trades_by_instrument", instrument_name="BTC-PERPETUAL")
            killed.cancel()
    async with running_node(tmp_path) as node:
        assert (await node.call("straddle_status"))["block_number"] >= status["block_number"]
        for receipt in receipts:
            assert await node.call("straddle_getReceipt", hash=receipt["hash"]) == receipt
        assert await node.send(sent[3]) == receipts[3]
        assert await node.call("straddle_getAccount", account=alice.account) == account
        assert [dict(side) for side in node.node.market_data.of(1).sides] == watched, "iDATA_001"
        assert trades["trades"]
        again = await node.call("public/get_last_trades_by_instrument", instrument_name="BTC-PERPETUAL")
        assert again == trades


async def test_what_was_executed_is_answered_by_its_receipt_for_ever(tmp_path: Path) -> None:
    """iINGRESS_001: after its checkpoint, after its deadline, after its key was revoked."""
    alice, bob = both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        key = Trader(b"\x41" * 32, alice.account)
        authorized = AuthorizeSessionKey(
            **alice.envelope(), key=key.address, scope=Scope.TRADE, expiry_s=wall_clock_ms() // 1000 + 500
        )
        await node.send(alice.signed(authorized))
        key.nonce = 100
        by_key = key.order(Side.BUY, PRICE, LOT)
        receipt = await node.send(by_key)
        await node.send(alice.signed(RevokeSessionKey(**alice.envelope(), key=key.address)))
        assert await code_of(node, key.order(Side.BUY, PRICE, LOT)) == ErrorCode.WRONG_SIGNER
        assert await node.send(by_key) == receipt
        await node.post_now()
        await node.until(lambda: not node.node.receipts.is_recent(bytes.fromhex(receipt["hash"][2:])))
        assert await node.send(by_key) == receipt
        assert await node.call("straddle_sendTransaction", transaction=by_key) == receipt["hash"]
        node.node.ingress._now_ms = lambda: wall_clock_ms() + 10**6
        assert await node.send(by_key) == receipt
        late = await code_of(node, bob.order(Side.SELL, PRICE, LOT))
        assert late == -32000 - RejectCode.DEADLINE_EXPIRED


async def test_a_dead_man_switch_makes_a_block_of_its_own(tmp_path: Path) -> None:
    both = traders()
    alice = both[0]
    async with running_node(tmp_path) as node:
        await node.open_market(both)
        await node.send(alice.order(Side.BUY, PRICE, LOT))
        await node.send(alice.signed(CancelAllAfter(**alice.envelope(), timeout_s=5)))
        node.node.executor._now_ms = lambda: 10_000 + max(node.node.opened.machine.system.timestamp_ms, 0)
        account = await node.call("straddle_getAccount", account=alice.account)
        with trio.fail_after(10):
            while account["orders"]:
                await trio.sleep(0.02)
                account = await node.call("straddle_getAccount", account=alice.account)
        assert account["dead_man_ms"] == 0


async def test_bad_l1_messages_are_consumed_and_harmless(tmp_path: Path) -> None:
    async with running_node(tmp_path) as node:
        await node.open_market(traders())
        before = node.node.opened.machine.system.inbox_next
        bad = [L1Message(MessageKind.DEPOSIT, bytes(20), 1, b"short"), L1Message(99, bytes(20), 1, b"")]
        await node.node.inbox.put(bad, l1_origin(5))
        await node.until(lambda: node.node.opened.machine.system.inbox_next == before + 2)


@pytest.mark.parametrize("drain_first", [False, True])
async def test_a_disk_that_refuses_stops_the_node_and_acknowledges_nothing(
    tmp_path: Path, drain_first: bool
) -> None:
    """iSEAL_001: an order whose fsync failed is not answered with a receipt, and is not there afterwards."""
    alice, bob = both = traders()
    refusals: list[BaseException] = []

    def refuse() -> int:
        raise StoreError(StoreCode.NO_SPACE, str(tmp_path), "syncing failed: No space left on device")

    async def send(client: NodeClient, order: Any) -> None:
        try:
            await client.call("straddle_sendTransactionSync", [order])
        except (NodeError, NodeUnreachable) as error:
            refusals.append(error)

    good: Any = None
    with pytest.RaisesGroup(StoreError, flatten_subgroups=True), trio.fail_after(10):
        async with running_node(tmp_path) as node:
            await node.open_market(both)
            good = await node.send(alice.order(Side.BUY, PRICE, LOT))
            if drain_first:
                node.node.executor._blocks = SLOW_BLOCKS
                await trio.sleep(0.05)
            node.node.opened.store.sync = refuse  # type: ignore[method-assign]
            async with trio.open_nursery() as nursery:
                nursery.start_soon(send, node.client, bob.order(Side.SELL, PRICE, LOT))
                if drain_first:
                    await node.until(lambda: len(node.node.mempool) == 1)
                    node.node.drain()
    assert node.node.health.fault.count("no space") == 1
    assert len(refusals) <= 1, "at most the one refusal, or the cancellation of its caller"
    async with running_node(tmp_path) as node:
        assert await node.call("straddle_getReceipt", hash=good["hash"]) == good


async def test_a_directory_of_another_rollup_is_refused(tmp_path: Path) -> None:
    async with running_node(tmp_path):
        pass
    other = type(DOMAIN)(DOMAIN.chain_id + 1, DOMAIN.contract)
    with pytest.raises(BaseException, match="belongs to") as raised:
        await Node(config_for(tmp_path), other, SEQUENCER).run()
    assert isinstance(raised.value, StoreError)


async def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    both = traders()
    async with running_node(tmp_path) as node:
        await node.open_market(both)
    journal = max((tmp_path / "journal").glob("*.journal"))
    data = bytearray(journal.read_bytes())
    data[200] ^= 1
    journal.write_bytes(data)
    with pytest.raises(StoreError, match="expected"):
        await Node(config_for(tmp_path), DOMAIN, SEQUENCER).run()


async def test_a_taken_port_ends_the_start_cleanly(tmp_path: Path) -> None:
    async with running_node(tmp_path / "one") as node:
        config = config_for(tmp_path / "two")
        taken = type(config.server)(port=node.node.port)
        second = Node(config_for(tmp_path / "two", server=taken), DOMAIN, SEQUENCER)
        with pytest.raises(OSError, match="in use"):
            await second.run()
    async with running_node(tmp_path / "two"):
        pass


def test_the_admin_token_is_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    token = load_token(path)
    assert load_token(path) == token
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.chmod(path, 0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_token(path)
    short = tmp_path / "short"
    short.write_text("x")
    os.chmod(short, 0o600)
    with pytest.raises(ConfigError, match="at least"):
        load_token(short)
