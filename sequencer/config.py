"""What the operator may set: the node's and the verifier's configuration, with defaults that work.

Only definitions and checks stand here; `config_file` reads files and the environment and writes the commented
default file from these same definitions. Numbers carry their unit in the name. Everything that can grow has
its bound here, and relations between bounds are checked once, when the object is made.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from sequencer.config_file import NO_SECRET, Secret
from sequencer.server_limits import ServerLimits

DEFAULT_LIMITS = ServerLimits()
MAX_CALLDATA_BYTES = 120_000
"""Public L1 nodes refuse transactions above 128 KiB that carry no blobs."""
PROTOCOL_BATCH_BYTES = 1 << 20
PROTOCOL_BLOCK_TRANSACTIONS = 65_535
PROTOCOL_BATCH_BLOCKS = 65_535


def _positive(section: Any, *allow_zero: str) -> None:
    for field in fields(section):
        value = getattr(section, field.name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            low = 0 if field.name in allow_zero else 1
            if value < low and not (isinstance(value, float) and value > 0):
                raise ValueError(f"{field.name}: must be at least {low}, got {value}")


def _port(section: Any) -> None:
    if not 0 <= section.port <= 65_535:
        raise ValueError(f"port: must be 0 (any free one) to 65535, got {section.port}")


@dataclass(frozen=True, slots=True)
class NodeSection:
    """Where the node keeps its data and how it talks about itself."""

    data_dir: str = "straddle-data"
    """Database and journal; one node at a time."""
    chain_id: int = 424_242
    """The rollup's chain id: part of what every wallet signs."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "json"
    shutdown_s: float = 20.0
    """How long sealing, flushing and closing may take after a stop signal."""

    def __post_init__(self) -> None:
        _positive(self)
        if not self.data_dir:
            raise ValueError("data_dir: must not be empty")


@dataclass(frozen=True, slots=True)
class ServerSection:
    """The public JSON-RPC port, HTTP and WebSocket."""

    host: str = "127.0.0.1"
    port: int = 8645
    """0 takes any free port."""
    cors_origins: tuple[str, ...] = ("*",)
    """Web pages that may call; "*" is everybody. Nothing here depends on cookies."""

    def __post_init__(self) -> None:
        _port(self)


@dataclass(frozen=True, slots=True)
class AdminSection:
    """The operator's port: health, metrics and admin calls, on the loopback interface only."""

    port: int = 8646
    """0 takes any free port."""
    token_file: str = ""
    """Holds the token that admin calls must carry; made at the first start with mode 0600. Empty: admin.token
    in the data directory."""

    def __post_init__(self) -> None:
        _port(self)


@dataclass(frozen=True, slots=True)
class KeySection:
    """A signing key: an encrypted keystore and its password, or the key itself in the environment."""

    keystore: str = ""
    """Path of the keystore file (made by `straddle keys new`)."""
    password_file: str = ""
    """Path of a file with the keystore's password."""
    password: Secret = NO_SECRET
    """The keystore's password."""
    private_key: Secret = NO_SECRET
    """32 bytes in hex, instead of a keystore."""

    def __post_init__(self) -> None:
        if self.keystore and self.private_key:
            raise ValueError("keystore: both a keystore and a private key are given; choose one")


@dataclass(frozen=True, slots=True)
class L1Section:
    """The L1 that holds the collateral and gets the batches."""

    url: str = ""
    """JSON-RPC URL. Empty runs without an L1: no deposits arrive and nothing is posted."""
    rollup: str = ""
    """Address of the Rollup contract."""
    beacon_url: str = ""
    """Beacon API that serves blobs to verifiers. Empty: the L1's own URL, as development chains have it."""
    confirmations: int = 2
    """Deposits and forced messages are taken from blocks at least this deep."""
    poll_ms: int = 2_000
    """Between two looks at the L1's head."""
    timeout_s: float = 20.0
    """Of one request."""

    def __post_init__(self) -> None:
        _positive(self, "confirmations")
        if self.url and not self.rollup:
            raise ValueError("rollup: the contract's address is needed with l1.url")


@dataclass(frozen=True, slots=True)
class PosterSection:
    """How batches go to L1, and when posting stops rather than burn money."""

    enabled: bool = True
    data: Literal["auto", "calldata", "blobs"] = "auto"
    """auto takes whichever is cheaper at that moment."""
    max_fee_gwei: int = 300
    """Highest gas price ever bid."""
    max_blob_fee_gwei: int = 300
    """Highest blob gas price ever bid."""
    min_balance_wei: int = 10**16
    """Posting pauses below this balance."""
    bump_s: float = 60.0
    """A posting that is not mined after this long is replaced with a higher fee."""

    def __post_init__(self) -> None:
        _positive(self, "min_balance_wei")


@dataclass(frozen=True, slots=True)
class BlocksSection:
    """Sealing."""

    block_interval_ms: int = 50
    """Blocks are sealed at most this often, and only with work in them."""
    max_transactions: int = 2_000
    """Of one block; what is left over waits in the mempool."""
    max_messages: int = 256
    """L1 messages of one block."""
    max_unsealed: int = 4
    """Executed blocks that may wait for the disk before execution pauses."""

    def __post_init__(self) -> None:
        _positive(self)
        if self.max_transactions > PROTOCOL_BLOCK_TRANSACTIONS:
            raise ValueError(f"max_transactions: the protocol allows {PROTOCOL_BLOCK_TRANSACTIONS}")


@dataclass(frozen=True, slots=True)
class BatchesSection:
    """When the open batch is closed and posted: full, or when waiting longer saves nothing (OPERATING.md)."""

    max_bytes: int = 380_928
    """Encoded size; the default fills three blobs, so that the gas of posting is shared by many orders."""
    max_age_ms: int = 60_000
    """Age from which on it is closed, unless waiting for more orders or cheaper L1 gas is expected to pay."""
    max_delay_ms: int = 600_000
    """Age at which it is closed whatever L1 costs: what users are promised. As max_age_ms: it never waits."""
    max_blocks: int = 4_096

    def __post_init__(self) -> None:
        _positive(self)
        if self.max_bytes > PROTOCOL_BATCH_BYTES:
            raise ValueError(f"max_bytes: the protocol allows {PROTOCOL_BATCH_BYTES}")
        if self.max_delay_ms < self.max_age_ms:
            raise ValueError("max_delay_ms: must not be shorter than max_age_ms")
        if self.max_blocks > PROTOCOL_BATCH_BLOCKS:
            raise ValueError(f"max_blocks: the protocol allows {PROTOCOL_BATCH_BLOCKS}")


@dataclass(frozen=True, slots=True)
class MempoolSection:
    """Transactions that wait for a block; beyond these bounds callers are answered BUSY."""

    max_transactions: int = 20_000
    max_per_account: int = 1_000
    max_unchecked: int = 20_000
    """Waiting for their signature check."""

    def __post_init__(self) -> None:
        _positive(self)
        if self.max_per_account > self.max_transactions:
            raise ValueError("max_per_account: must not exceed max_transactions")


@dataclass(frozen=True, slots=True)
class StoreSection:
    """The database below the state."""

    clean_leaves: int = 500_000
    """Unchanged leaves kept in memory."""
    tree_pages: int = 20_000
    """Tree pages kept in memory."""
    keep_batches: int = 256
    """Roots of this many last batches stay provable (never fewer than the unfinalized ones)."""

    def __post_init__(self) -> None:
        _positive(self)


@dataclass(frozen=True, slots=True)
class HistorySection:
    """Accounts' orders, trades and money, as `straddle history` shows them; the oldest is deleted first."""

    keep_days: int = 365
    """Older history is deleted."""
    max_mib: int = 16_384
    """Size of the records above which the oldest are deleted earlier; LevelDB may take less or some more."""

    def __post_init__(self) -> None:
        _positive(self)


@dataclass(frozen=True, slots=True)
class KeeperSection:
    """The node's own keeper, which starts the auctions of accounts below maintenance margin and ends them."""

    account: int = 0
    """Pays the fees; keeper_key is its owner's, or a session key of it. 0: this node keeps nothing."""
    interval_ms: int = 500
    """Between two looks."""

    def __post_init__(self) -> None:
        _positive(self, "account")


@dataclass(frozen=True, slots=True)
class FeedSection:
    """Subscriptions."""

    history: int = 1_024
    """Messages kept of each channel for those who resume."""

    def __post_init__(self) -> None:
        _positive(self)


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Configuration of a Straddle node (the sequencer)."""

    node: NodeSection = NodeSection()
    server: ServerSection = ServerSection()
    limits: ServerLimits = DEFAULT_LIMITS
    admin: AdminSection = AdminSection()
    sequencer_key: KeySection = KeySection()
    poster_key: KeySection = KeySection()
    keeper_key: KeySection = KeySection()
    l1: L1Section = L1Section()
    poster: PosterSection = PosterSection()
    blocks: BlocksSection = BlocksSection()
    batches: BatchesSection = BatchesSection()
    mempool: MempoolSection = MempoolSection()
    store: StoreSection = StoreSection()
    history: HistorySection = HistorySection()
    feed: FeedSection = FeedSection()
    keeper: KeeperSection = KeeperSection()

    def __post_init__(self) -> None:
        if self.batches.max_age_ms < self.blocks.block_interval_ms:
            raise ValueError("batches.max_age_ms: must not be shorter than blocks.block_interval_ms")
        if self.blocks.max_transactions > self.mempool.max_transactions:
            raise ValueError("blocks.max_transactions: must not exceed mempool.max_transactions")
        if self.poster.data == "calldata" and self.batches.max_bytes > MAX_CALLDATA_BYTES:
            raise ValueError(f"batches.max_bytes: as calldata a batch may have {MAX_CALLDATA_BYTES} bytes")
        if self.server.port and self.server.port == self.admin.port:
            raise ValueError("admin.port: must differ from server.port")
        if self.limits.ws_queue < self.limits.max_pipelined:
            raise ValueError("limits.ws_queue: must not be smaller than limits.max_pipelined")


@dataclass(frozen=True, slots=True)
class VerifierSection:
    """Where the verifier keeps what it has verified, and what it compares with."""

    data_dir: str = "straddle-verifier"
    node_url: str = ""
    """A node's JSON-RPC URL: on a mismatch its feed tells which transaction first differs."""
    metrics_port: int = 0
    """Loopback port of the metrics; 0 serves none. A wrong root shows for 30 s before the end."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    def __post_init__(self) -> None:
        if not 0 <= self.metrics_port <= 65_535:
            raise ValueError(f"metrics_port: must be 0 to 65535, got {self.metrics_port}")


@dataclass(frozen=True, slots=True)
class VerifierConfig:
    """Configuration of a Straddle verifier."""

    verifier: VerifierSection = VerifierSection()
    l1: L1Section = L1Section()
