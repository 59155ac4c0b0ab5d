"""What the node counts, for Prometheus; names carry units as Prometheus wants them.

The event loop counts once per block, not per order: `Metrics.block_executed` takes what a block did. Gauges
that somebody else already knows (mempool size, batch lag) are read when a scrape asks for them.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

FINE_BUCKETS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
COARSE_BUCKETS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0)
COUNT_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000)


class Metrics:
    """All metrics of one node, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.transactions = self._counter("transactions", "Transactions executed and included")
        self.orders = self._counter("orders", "Order operations executed (placed, replaced, cancelled)")
        self.fills = self._counter("fills", "Trades between two orders")
        self.blocks = self._counter("blocks", "Blocks executed")
        self.batches = self._counter("batches", "Batches closed")
        self.batches_closed = Counter(
            "straddle_batches_closed", "Batches closed, by what decided", ["rule"], registry=self.registry
        )
        self.l1_messages = self._counter("l1_messages", "L1 messages consumed")
        self.rejects = Counter(
            "straddle_rejects", "Transactions refused, by code", ["code"], registry=self.registry
        )
        self.block_transactions = self._histogram(
            "block_transactions", "Transactions per block", COUNT_BUCKETS
        )
        self.execute_s = self._histogram("block_execute_seconds", "Executing a block", FINE_BUCKETS_S)
        self.seal_s = self._histogram(
            "block_seal_seconds", "From executed to durable: signing, writing, fsync", FINE_BUCKETS_S
        )
        self.fsync_s = self._histogram("journal_fsync_seconds", "One fsync of the journal", FINE_BUCKETS_S)
        self.checkpoint_s = self._histogram(
            "batch_checkpoint_seconds", "Root, tree and database of one batch", COARSE_BUCKETS_S
        )
        self.block_number = self._gauge("block_number", "Last durable block")
        self.l1_spend = Counter("straddle_l1_spend_wei", "Paid on L1 for posting", registry=self.registry)
        self.conservation_ok = self._gauge("conservation_ok", "1 while money adds up, checked every batch")
        self.conservation_ok.set(1)

    def watch(self, name: str, text: str, read: Callable[[], float]) -> None:
        """A gauge that is read when asked for."""
        self._gauge(name, text).set_function(read)

    def watch_each(self, name: str, text: str, label: str, reads: Mapping[str, Callable[[], float]]) -> None:
        """Gauges of one name, by the values of a label, that are read when asked for."""
        gauge = Gauge(f"straddle_{name}", text, [label], registry=self.registry)
        for value, read in reads.items():
            gauge.labels(value).set_function(read)

    def block_executed(
        self, transactions: int, orders: int, fills: int, messages: int, rejects: Tally[str], seconds: float
    ) -> None:
        """One block was executed; `seconds` is how long that took."""
        self.blocks.inc()
        self.transactions.inc(transactions)
        self.orders.inc(orders)
        self.fills.inc(fills)
        self.l1_messages.inc(messages)
        self.block_transactions.observe(transactions)
        self.execute_s.observe(seconds)
        self.rejected(rejects)

    def rejected(self, rejects: Tally[str]) -> None:
        """Transactions refused, by code."""
        for code, count in rejects.items():
            self.rejects.labels(code).inc(count)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"straddle_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"straddle_{name}", text, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(f"straddle_{name}", text, buckets=buckets, registry=self.registry)
