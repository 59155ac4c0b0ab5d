"""The node: every part, put together, started, and stopped in order.

Nursery tree (who is below is closed by who is above):

    Node.run
      core      recovery processes, sealer, committer, executor     closed last, when all accepted is durable
      edge      bridge, feed ticker, report pool, liquidations, requests for quotes, servers, keeper
                                                                    closed before
    signals     (serve_node) ask the node to drain

`run` owns the store and closes it. Start: recover from disk, start the parts, open the port, and only then
`task_status.started`. Stop (`drain`): take nothing new, seal what was accepted, let its answers leave, close
the port, close the store; all of it under a shielded deadline. A part that fails ends everything at once:
what was not durable was not acknowledged, so the state on disk is safe, and the callers that still wait are
told so. Unknown errors are never survived.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import trio

from l1_bridge.workers import collect_seldom
from sequencer import logs
from sequencer.admin import admin_methods, load_token
from sequencer.api import public_methods
from sequencer.api_context import ApiContext
from sequencer.api_liquidations import LiquidationApi
from sequencer.api_rfq import RfqApi
from sequencer.clock import wall_clock_ms
from sequencer.closing import Closing
from sequencer.committer import Committer
from sequencer.config import NodeConfig
from sequencer.errors import ErrorCode, RpcError
from sequencer.executor import Executor, Inbox
from sequencer.faults import ACTIONABLE, describe, root_cause
from sequencer.fee_history import FeeHistory
from sequencer.fee_metrics import watch_fees
from sequencer.feed import Feed, FeedLimits
from sequencer.health import Health
from sequencer.http_server import App, Server, serve
from sequencer.ingress import Ingress, Unread
from sequencer.jsonrpc import Dispatcher, Method, Registry
from sequencer.keeper import keep
from sequencer.l1_link import Bridge, L1Link
from sequencer.liquidations import Liquidations
from sequencer.market_data import MarketData
from sequencer.mempool import Mempool, Pending
from sequencer.metrics import Metrics
from sequencer.openrpc import discover_method
from sequencer.publisher import Publisher
from sequencer.receipts import ReceiptMaker, Receipts, Stages, StoreArchive
from sequencer.recovery import ProcessRecovery
from sequencer.report_pool import ReportPool
from sequencer.rfq import CHANNELS as RFQ_CHANNELS
from sequencer.rfq import Rfqs
from sequencer.sealer import Closed, Sealed, Sealer
from sequencer.signals import drain_on_signal
from sequencer.signing import SecretKey
from sequencer.startup import Opened, open_state
from state.eip712 import Domain
from state.margin import MARGIN_CHECKS
from state.store_records import StoredBatch

SWITCH_INTERVAL_S = 0.000_05
"""Every system call of the event loop gives the interpreter to the thread that commits a batch, if one does,
and waits this long to get it back: with half a millisecond, sending a block's answers during a commit takes a
quarter of a second."""
SIGNATURE_WORKERS = 2
"""Clients answered by one block send again at once: with two workers a tenth more of them make the next
block, though the work is the same and the machine has two cores."""
READ_THREADS = 4
RECENT_BLOCKS = 256
"""Read at the start for the last trades."""
ADMIN_HOST = "127.0.0.1"
PUBLIC_PAGES = ("/health", "/ready")
"""Metrics are the operator's: on the admin port only."""


class Node:
    """See the module's text. Made once, run once.

    `key` signs block headers, `keeper_key` the keeper's actions (None: this node keeps nothing). `bridge` is
    the L1 side, None to run without; `now_ms` the wall clock.
    """

    def __init__(
        self,
        config: NodeConfig,
        domain: Domain,
        key: SecretKey,
        bridge: Bridge | None = None,
        *,
        keeper_key: SecretKey | None = None,
        now_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self.config = config
        self._keeper_key = keeper_key
        self.domain = domain
        self.health = Health()
        self.metrics = Metrics()
        self.port = 0
        """The public port, once `run` has started."""
        self.admin_port = 0
        self.link: L1Link
        self._key = key
        self._bridge = bridge
        self._now_ms = now_ms
        self._log = logs.logger(chain=domain.chain_id)
        self._stop = trio.Event()
        self._executed = trio.Event()
        self._public_closed = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[Node] = trio.TASK_STATUS_IGNORED) -> None:
        """Runs until `drain`. Raises ConfigError, StoreError, ConservationError, WorkerDied, OSError (a port
        that is taken): after any of them nothing acknowledged is lost."""
        config = self.config
        path = Path(config.node.data_dir)
        opened = await trio.to_thread.run_sync(
            open_state,
            path,
            self.domain,
            config.store.clean_leaves,
            config.store.tree_pages,
            config.history,
        )
        try:
            self._build(opened)
            _tune_interpreter()
            token = load_token(Path(config.admin.token_file or path / "admin.token"))
            recovered = opened.recovered
            self._log.info(
                "recovered",
                block=recovered.last_block,
                batch=recovered.last_batch,
                replayed_blocks=recovered.blocks,
                replayed_batches=recovered.batches,
            )
            async with trio.open_nursery() as core:
                await core.start(self.recovery.run)
                await core.start(self.sealer.run)
                await core.start(self.committer.run)
                core.start_soon(self._execute)
                async with trio.open_nursery() as edge:
                    server = await self._open_edge(edge, token)
                    task_status.started(self)
                    self._log.info("ready for orders", port=self.port, admin_port=self.admin_port)
                    await self._stop.wait()
                    await self._close_edge(edge, server)
                core.cancel_scope.cancel()
            self._log.info("stopped", block=opened.machine.system.block_number)
        except BaseException as error:
            cause = root_cause(error)
            self._failed(cause)
            if cause is None or cause is error:
                raise
            raise cause from error
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(opened.store.close)

    def drain(self) -> None:
        """Stop: take nothing new, seal what was accepted, answer, close. Returns at once."""
        if not self._stop.is_set():
            self._log.info("draining")
            self.health.draining = True
            self.ingress.closed = ErrorCode.DRAINING
            self._stop.set()

    def pause(self) -> None:
        """Take no new transactions until `resume`."""
        self.health.paused = True
        if not self.health.draining:
            self.ingress.closed = ErrorCode.PAUSED

    def resume(self) -> None:
        """Take new transactions again."""
        self.health.paused = False
        if not self.health.draining:
            self.ingress.closed = None

    def seal_now(self) -> None:
        self.executor.seal_now()

    def post_now(self) -> None:
        self.executor.close_now()

    def admin_status(self) -> dict[str, Any]:
        """What `admin_status` answers."""
        return {
            "ready": not self.health.reasons_not_ready(),
            "reasons": self.health.reasons_not_ready(),
            "mempool": len(self.mempool),
            "unchecked": self.ingress.unchecked,
            "poster": asdict(self.link.poster) if self.link.poster else None,
            **self.api.summary(),
        }

    def _build(self, opened: Opened) -> None:
        """Makes the parts around the recovered state."""
        config = self.config
        self.opened = opened
        machine = opened.machine
        machine.markets.recall = opened.history.name_of
        self.stages = Stages()
        self.mempool = Mempool(config.mempool.max_transactions, config.mempool.max_per_account)
        archive = StoreArchive(opened.store)
        self.receipts = Receipts(archive, machine.markets, self.stages, machine.system.block_number)
        self.inbox = Inbox(config.blocks.max_messages * 4)
        self.market_data = MarketData()
        self.ingress = Ingress(
            self.domain,
            machine.view,
            machine.markets,
            self.mempool,
            self.receipts,
            max_unchecked=config.mempool.max_unchecked,
            now_ms=self._now_ms,
            on_admitted=lambda: self.executor.wake(),
            on_rejected=lambda code: self.metrics.rejected(Counter((code,))),
        )
        self.recovery: ProcessRecovery[Pending | Unread] = ProcessRecovery(
            SIGNATURE_WORKERS, self.domain, machine.markets.names_from, self.ingress.checked
        )
        self.ingress.use_recovery(self.recovery)
        self.sealer = Sealer(
            opened.store,
            self._key,
            self.domain,
            self.metrics,
            max_waiting=config.blocks.max_unsealed,
            on_sealed=self._block_sealed,
            on_closed=self._batch_closed,
        )
        self.committer = Committer(
            opened.store,
            opened.trees,
            machine,
            opened.books,
            self.receipts,
            opened.history,
            self.metrics,
            keep_from=self._keep_from,
            on_committed=self._batch_committed,
        )
        self.closing = Closing(
            machine, config.batches, config.poster.data, lambda: self.link.side(), now_ms=self._now_ms
        )
        self.fees = FeeHistory(machine.view, machine.system.timestamp_ms)
        self.executor = Executor(
            machine,
            self.mempool,
            self.ingress,
            self.inbox,
            self.sealer,
            self.committer,
            self.metrics,
            config.blocks,
            config.batches,
            self.closing,
            now_ms=self._now_ms,
            on_executed=self.fees.executed,
        )
        self.inbox.on_message(self.executor.wake)
        self.link = L1Link(
            opened.store,
            opened.trees,
            self.inbox,
            self.stages,
            self.metrics,
            machine.view,
            self._l1_seen,
        )
        self.feed = Feed(
            lambda name: (self.rfqs if name.startswith(RFQ_CHANNELS) else self.publisher).open_channel(name),
            max_subscriptions=config.limits.max_ws_subscriptions,
            limits=FeedLimits(ring_messages=config.feed.history),
        )
        self.reports = ReportPool(self.domain, machine.view, opened.store, self.ingress, self._now_ms)
        self.api = ApiContext(
            self.domain,
            self._key.address,
            machine,
            opened.store,
            opened.trees,
            self.ingress,
            self.receipts,
            opened.history,
            self.market_data,
            self.link,
            self.health,
            self._now_ms,
            self.reports,
            trio.CapacityLimiter(READ_THREADS),
            self.closing,
            self.fees,
            self._key.sign,
        )
        self.publisher = Publisher(self.feed, self.api)
        self.rfqs = Rfqs(machine.view, self.feed.publish, self._now_ms)
        for sealed in opened.unsaved:
            self.receipts.add(sealed.block)
            self.committer.sealed(sealed)
        self.liquidations = Liquidations(machine, opened.store, self.receipts, self._now_ms)
        self._watch_gauges()
        self._load_market_data()
        self.metrics.block_number.set(machine.system.block_number)
        self.health.recovered = True
        self.health.l1_seen = self._bridge is None

    def _load_market_data(self) -> None:
        last = self.opened.machine.system.block_number
        numbers = range(max(1, last - RECENT_BLOCKS + 1), last + 1)
        blocks = [block for number in numbers if (block := self.receipts.block(number)) is not None]
        machine = self.opened.machine
        self.market_data.load(machine.view, machine.markets.by_number, blocks)

    def _watch_gauges(self) -> None:
        watch = self.metrics.watch
        watch("mempool_transactions", "Waiting for a block", lambda: len(self.mempool))
        watch("unchecked_transactions", "Waiting for a signature check", lambda: self.ingress.unchecked)
        watch("in_flight_transactions", "Not answered yet", lambda: len(self.ingress.in_flight))
        watch("inbox_messages", "L1 messages waiting for a block", lambda: len(self.inbox))
        watch("feed_subscribers", "Subscribers", lambda: self.feed.subscriber_count)
        watch("batches_unposted", "Closed batches not on L1 yet", lambda: self._batch_lag())
        self.closing.watch(self.metrics)
        watch_fees(self.metrics, self.opened.machine.view, self.fees, self._now_ms)
        watch("poster_stopped", "1 when the poster needs an operator", self._poster_stopped)
        watch("margin_checks", "Margin requirements computed", lambda: MARGIN_CHECKS.number)
        watch("history_bytes", "Records of accounts' history", lambda: self.opened.history.size_bytes)
        watch("ready", "1 when ready", lambda: not self.health.reasons_not_ready())

    def _poster_stopped(self) -> bool:
        poster = self.link.poster
        return poster is not None and poster.state in ("refused", "halted")

    def _batch_lag(self) -> int:
        checkpoint = self.opened.store.last_checkpoint
        return checkpoint.batch_number - self.link.posted_batch if checkpoint else 0

    async def _open_edge(self, edge: trio.Nursery, token: str) -> Server:
        """Starts the L1 side, the feed and both ports; the public one last."""
        config = self.config
        if self._bridge is not None:
            await edge.start(self._bridge.run, self.link)
        await edge.start(self.publisher.run)
        await edge.start(self.reports.run)
        await edge.start(self.liquidations.run)
        await edge.start(self.rfqs.run)
        pages = self.health.pages(self.metrics.page)
        admin = App(
            self._dispatcher(admin_methods(self, token)), self._on_fault, pages, allowed_origins=frozenset()
        )
        _, self.admin_port, _ = await self._listen(edge, "admin.port", ADMIN_HOST, config.admin.port, admin)
        liquidations = LiquidationApi(self.api, self.liquidations).methods()
        requests = RfqApi(self.api, self.rfqs).methods()
        methods = [*public_methods(self.api), *liquidations, *requests, *self.feed.methods()]
        public = App(
            self._dispatcher(methods),
            self._on_fault,
            {path: pages[path] for path in PUBLIC_PAGES},
            allowed_origins=frozenset(config.server.cors_origins),
            on_websocket_closed=self.feed.forget,
        )
        where = config.server.host, config.server.port
        listening = await self._listen(edge, "server.port", *where, public)
        server, self.port, self._public_closed = listening
        if self._keeper_key is not None:
            edge.start_soon(keep, where[0], self.port, self._keeper_key, config.keeper, self._now_ms)
        return server

    async def _listen(
        self, edge: trio.Nursery, setting: str, host: str, port: int, app: App
    ) -> tuple[Server, int, trio.Event]:
        """The server, its port, and what is set when it has closed. Raises OSError naming the setting."""
        try:
            listeners = await trio.open_tcp_listeners(port, host=host)
        except OSError as error:
            why = f"{setting} {port}: cannot listen on {host}: {error.strerror or error}"
            raise OSError(error.errno, why) from error
        found: int = listeners[0].socket.getsockname()[1]
        closed = trio.Event()

        async def run(*, task_status: trio.TaskStatus[Server]) -> None:
            try:
                await serve(listeners, app, self.config.limits, task_status=task_status)
            finally:
                closed.set()

        server: Server = await edge.start(run)
        return server, found, closed

    def _dispatcher(self, methods: list[Method[Any]]) -> Dispatcher:
        limits = self.config.limits
        registry = Registry(methods)
        registry.add(discover_method(registry, title="Straddle", version=version("straddle")))
        return Dispatcher(
            registry,
            self._on_fault,
            max_batch=limits.max_batch,
            max_in_flight=limits.max_in_flight,
            max_answer_bytes=limits.max_answer_bytes,
        )

    async def _close_edge(self, edge: trio.Nursery, server: Server) -> None:
        """Everything accepted becomes durable and is answered; then the ports close."""
        with trio.move_on_after(self.config.node.shutdown_s, shield=True) as deadline:
            self.executor.drain()
            await self._executed.wait()
            await self.committer.wait_idle()
            server.close()
            await self._public_closed.wait()
        if deadline.cancelled_caught:
            self._log.error("shutdown took too long", limit_s=self.config.node.shutdown_s)
        edge.cancel_scope.cancel()

    async def _execute(self) -> None:
        try:
            await self.executor.run()
        finally:
            self._executed.set()

    def _block_sealed(self, sealed: Sealed) -> None:
        """A block is durable: answer, remember, tell."""
        block = sealed.block
        self.receipts.add(block)
        self.committer.sealed(sealed)
        self.opened.history.sealed(sealed.executed)
        self.liquidations.sealed(sealed.executed)
        maker = ReceiptMaker(block, self.opened.machine.markets)
        for index, pending in enumerate(self.executor.take_awaiting(block.header.number)):
            self.ingress.sealed(pending, maker.receipt(index, "sealed") if pending.sealed else None)
        self.metrics.block_number.set(block.header.number)
        self.market_data.block_sealed(block, sealed.executed.result.orders)
        self.publisher.block_sealed(sealed)
        self.rfqs.sealed(sealed.executed)

    def _batch_closed(self, closed: Closed) -> None:
        batch = closed.batch
        self._log.info("batch closed", batch=batch.number, last_block=batch.last_block, bytes=len(batch.data))
        self.committer.closed(closed)

    def _batch_committed(self, batch: StoredBatch) -> None:
        self._log.info("batch committed", batch=batch.number, root=batch.root.hex())
        self.publisher.batch_committed(batch)
        self.link.committed.set()

    def _keep_from(self, batch: int) -> int:
        """The oldest batch whose state stays provable: never one that is not final yet."""
        return max(0, min(batch - self.config.store.keep_batches, self.link.finalized_batch))

    def _l1_seen(self) -> None:
        self.health.l1_seen = True

    def _on_fault(self, fault: BaseException, where: str) -> None:
        """A handler failed: its caller knows that something is wrong, the log knows what."""
        self._log.error("fault in a call", where=where, exc_info=fault)

    def _failed(self, cause: BaseException | None) -> None:
        """The node stops by itself, or is cancelled (None): tell those who wait."""
        if cause is not None:
            self.health.fault = describe(cause)
            shown = None if isinstance(cause, ACTIONABLE) else cause
            self._log.error("the node stops", reason=self.health.fault, exc_info=shown)
        if hasattr(self, "ingress"):
            self.ingress.fail_all(RpcError(ErrorCode.DRAINING, "the node stopped before this was sealed"))


def _tune_interpreter() -> None:
    """For a process that is a node and little else."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    collect_seldom()


async def serve_node(node: Node) -> None:
    """Runs the node until it ends; the first SIGTERM or SIGINT drains it, a second one cancels."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain_on_signal, node.drain, nursery.cancel_scope)
        await node.run()
        nursery.cancel_scope.cancel()
