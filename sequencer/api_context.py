"""What the methods of the public port look at. They read; only `ingress` takes anything in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from sequencer.closing import Closing
from sequencer.committer import TreeAccess
from sequencer.errors import ErrorCode, RpcError
from sequencer.fee_history import FeeHistory
from sequencer.health import Health
from sequencer.history import History
from sequencer.ingress import Ingress
from sequencer.l1_link import L1Link
from sequencer.machine import Machine
from sequencer.market_data import MarketData
from sequencer.markets import Listed
from sequencer.receipts import Receipts
from sequencer.report_pool import ReportPool
from state import keys
from state.eip712 import Domain
from state.leaves import Account
from state.store import Store


@dataclass(frozen=True, slots=True)
class ApiContext:
    """The node's parts as the public methods see them. `sequencer` is the address that signs headers."""

    domain: Domain
    sequencer: bytes
    machine: Machine
    store: Store
    trees: TreeAccess
    ingress: Ingress
    receipts: Receipts
    history: History
    market_data: MarketData
    link: L1Link
    health: Health
    now_ms: Callable[[], int]
    reports: ReportPool
    reads: trio.CapacityLimiter
    """Worker threads for reads of the disk, so that they never take those of sealing."""
    closing: Closing
    """When the open batch goes out."""
    fees: FeeHistory
    sign: Callable[[bytes], bytes]
    """The sequencer's signature of a digest, 64 bytes; some 70 microseconds."""

    def listed(self, name: str) -> Listed:
        """The instrument of that name. Raises RpcError NOT_FOUND."""
        found = self.machine.markets.by_name.get(name)
        if found is None:
            raise RpcError(ErrorCode.NOT_FOUND, "there is no such instrument", {"instrument_name": name[:64]})
        return found

    def account(self, number: int) -> Account:
        """The account of that number. Raises RpcError NOT_FOUND."""
        found: Account | None = None
        if number <= keys.MAX_U64:
            found = self.machine.view.get(keys.account_key(number))
        if found is None:
            raise RpcError(ErrorCode.NOT_FOUND, "there is no such account", {"account": str(number)})
        return found

    def sealed_block(self) -> int:
        """Number of the last durable block."""
        return self.receipts.last_block

    def summary(self) -> dict[str, Any]:
        """Where the chain stands, for status calls."""
        system = self.machine.system
        checkpoint = self.store.last_checkpoint
        return {
            "block_number": self.receipts.last_block,
            "timestamp_ms": system.timestamp_ms,
            "posted_block": self.receipts.stages.posted_block,
            "finalized_block": self.receipts.stages.finalized_block,
            "committed_batch": checkpoint.batch_number if checkpoint else 0,
            "posted_batch": self.link.posted_batch,
            "finalized_batch": self.link.finalized_batch,
            "inbox_next": system.inbox_next,
            "l1_block": system.l1_block,
        }
