"""Reading the chain: receipts, blocks, batches, accounts, proofs, status.

`latest`, `safe` and `finalized` mean sealed, posted and finalized (DESIGN section 3). Accounts are read from
the state as it stands, a few milliseconds ahead of the last durable block. Whatever may read the disk does so
in a worker thread of its own pool.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Any, Literal, TypeVar

import msgspec
import trio
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.api_transactions import MarginView, margin_view
from sequencer.closing import PostingView
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Method, NoParams
from sequencer.receipts import SIDE_NAMES, Receipt, SealedBlock, hex_of, wallet_signature
from state import keys
from state.leaves import AccountOrder, Instrument, Market, Position, RestingOrder, SessionKey
from state.margin import MARGIN_CHECKS, margin
from state.pricing import mark_of
from state.proofs import MembershipProof
from state.tree import VersionUnavailable
from state.units import MAX_POSITIONS

MAX_ORDERS = 4_096
MAX_SESSION_KEYS = 256
MAX_OWNER_ACCOUNTS = 256
SCOPE_NAMES = ("cancel-only", "trade")

Tag = Literal["latest", "safe", "finalized"]
Number = Annotated[int, Meta(ge=0)]
Hash = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{64}$(?!\n)")]
Address = Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{40}$(?!\n)")]
Found = TypeVar("Found")


class HashParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    hash: Hash


class BlockParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`number` or a tag; `receipts` includes those of all its transactions."""

    block: Number | Tag = "latest"
    receipts: bool = False


class BatchParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`number` or a tag; `data` includes the posted bytes."""

    batch: Number | Tag = "latest"
    data: bool = False


class AccountParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    account: Number


class OwnerParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    owner: Address


class ProofParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`key` of a leaf (state/PROTOCOL.md section 2); `at` a batch's number or a tag."""

    key: Hash
    at: Number | Tag = "latest"


class BlockView(msgspec.Struct, frozen=True, omit_defaults=True):
    number: int
    hash: str
    parent_hash: str
    timestamp_ms: int
    transactions_hash: str
    l1_block: int
    inbox_next: int
    signature: str
    batch: int
    stage: str
    transactions: list[str]
    messages: int
    receipts: list[Receipt] | None = None


class BatchView(msgspec.Struct, frozen=True, omit_defaults=True):
    number: int
    root: str
    first_block: int
    last_block: int
    last_block_hash: str
    bytes: int
    stage: str
    data: str | None = None


class PositionView(msgspec.Struct, frozen=True):
    instrument_name: str
    size_ulots: int
    quote_uusd: int
    average_price_uusd: int | None
    mark_uusd: int
    value_uusd: int
    open_buy_ulots: int
    open_sell_ulots: int


class OrderView(msgspec.Struct, frozen=True):
    instrument_name: str
    order_id: int
    side: str
    price_uusd: int
    open_ulots: int
    filled_ulots: int
    reduce_only: bool
    expiry_s: int


class SessionKeyView(msgspec.Struct, frozen=True):
    key: str
    scope: str
    expiry_s: int


class AccountView(msgspec.Struct, frozen=True):
    account: int
    owner: str
    cash_uusd: int
    withdrawable_uusd: int
    margin: MarginView | None
    nonce_base: int
    next_nonce: int
    dead_man_ms: int
    positions: list[PositionView]
    orders: list[OrderView]
    session_keys: list[SessionKeyView]


class ProofView(msgspec.Struct, frozen=True):
    """`present` with value, or absent with the leaf at which the lookup ends; `encoded` for `proofs.py`."""

    batch: int
    root: str
    key: str
    present: bool
    value: str | None
    siblings: list[str]
    bits: str
    encoded: str


class Status(msgspec.Struct, frozen=True):
    version: str
    chain_id: int
    contract: str
    sequencer: str
    ready: bool
    reasons: list[str]
    block_number: int
    timestamp_ms: int
    posted_block: int
    finalized_block: int
    committed_batch: int
    posted_batch: int
    finalized_batch: int
    inbox_next: int
    l1_block: int
    margin_checks: int
    """Margin requirements that this process has computed since its start."""
    posting: PostingView
    """Why the open batch is not on its way to L1 yet."""


class ChainApi:
    """The `straddle_` methods that read."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def methods(self) -> list[Method[Any]]:
        missing = (ErrorCode.NOT_FOUND,)
        return [
            Method(
                "straddle_getReceipt",
                HashParams,
                Receipt,
                self._get_receipt,
                "The receipt of a transaction, with how far it has come.",
                errors=missing,
            ),
            Method(
                "straddle_getBlock",
                BlockParams,
                BlockView,
                self._get_block,
                "A block's signed header and its transactions.",
                errors=missing,
            ),
            Method(
                "straddle_getBatch",
                BatchParams,
                BatchView,
                self._get_batch,
                "A closed batch: its root, blocks and size, and the bytes that are posted.",
                errors=missing,
            ),
            Method(
                "straddle_getAccount",
                AccountParams,
                AccountView,
                self._get_account,
                "An account's money, margin, positions, open orders, session keys and next nonce.",
                errors=missing,
            ),
            Method(
                "straddle_getAccounts",
                OwnerParams,
                list[int],
                self._get_accounts,
                "The numbers of an owner's accounts.",
            ),
            Method(
                "straddle_getProof",
                ProofParams,
                ProofView,
                self._get_proof,
                "Any leaf, or its absence, with a proof under a batch's root.",
                "latest is the last batch whose root is known; safe and finalized the last posted and final.",
                errors=(ErrorCode.NOT_AVAILABLE,),
            ),
            Method("straddle_status", NoParams, Status, self._status, "Who this node is, and how it is."),
        ]

    def block_number(self, which: int | str) -> int:
        """The number that a tag stands for."""
        context = self._context
        if which == "latest":
            return context.receipts.last_block
        if which == "safe":
            return context.receipts.stages.posted_block
        if which == "finalized":
            return context.receipts.stages.finalized_block
        return int(which)

    async def block(self, which: int | str) -> SealedBlock:
        """A durable block. Raises RpcError NOT_FOUND."""
        number = self.block_number(which)
        found = await self._read(lambda: self._context.receipts.block(number))
        if found is None or number > self._context.receipts.last_block:
            raise RpcError(ErrorCode.NOT_FOUND, "there is no such block", {"block": number})
        return found

    async def _read(self, read: Callable[[], Found]) -> Found:
        return await trio.to_thread.run_sync(read, limiter=self._context.reads)

    async def _get_receipt(self, params: HashParams, _context: Context) -> Receipt:
        wanted = bytes.fromhex(params.hash[2:])
        found = await self._read(lambda: self._context.receipts.find(wanted))
        if found is None:
            pending = wanted in self._context.ingress.in_flight
            message = "it waits for its block" if pending else "there is no such transaction"
            stage = "accepted" if pending else "unknown"
            raise RpcError(ErrorCode.NOT_FOUND, message, {"hash": params.hash, "stage": stage})
        return found

    async def _get_block(self, params: BlockParams, _context: Context) -> BlockView:
        block = await self.block(params.block)
        header = block.header
        receipts = self._context.receipts
        return BlockView(
            header.number,
            hex_of(block.hash),
            hex_of(header.parent_hash),
            header.timestamp_ms,
            hex_of(header.transactions),
            header.l1_block,
            header.inbox_next,
            wallet_signature(block.signature),
            block.batch,
            receipts.stages.of(header.number),
            [hex_of(result.hash) for result in block.results],
            len(block.messages),
            receipts.of_block(block) if params.receipts else None,
        )

    async def _get_batch(self, params: BatchParams, _context: Context) -> BatchView:
        number = self._batch_number(params.batch)
        found = await self._read(lambda: self._context.store.batch(number))
        if found is None:
            raise RpcError(ErrorCode.NOT_FOUND, "there is no such closed batch", {"batch": number})
        link = self._context.link
        stage = "posted" if number <= link.posted_batch else "sealed"
        return BatchView(
            found.number,
            hex_of(found.root),
            found.first_block,
            found.last_block,
            hex_of(found.last_block_hash),
            len(found.data),
            "finalized" if number <= link.finalized_batch else stage,
            hex_of(found.data) if params.data else None,
        )

    def _batch_number(self, which: int | str) -> int:
        link = self._context.link
        if which == "latest":
            checkpoint = self._context.store.last_checkpoint
            return checkpoint.batch_number if checkpoint else 0
        if which == "safe":
            return link.posted_batch
        return link.finalized_batch if which == "finalized" else int(which)

    def _get_account(self, params: AccountParams, _context: Context) -> AccountView:
        view = self._context.machine.view
        number = params.account
        leaf = self._context.account(number)
        found = margin(view, number)
        assert found is not None
        spent = int.from_bytes(leaf.nonce_map, "big")
        return AccountView(
            number,
            hex_of(leaf.owner),
            leaf.cash_uusd,
            found.withdrawable_uusd,
            margin_view(found),
            leaf.nonce_base,
            leaf.nonce_base + spent.bit_length(),
            leaf.dead_man_ms,
            self._positions(number),
            self._orders(number),
            self._session_keys(number),
        )

    def _positions(self, account: int) -> list[PositionView]:
        machine = self._context.machine
        views = []
        for key, found in machine.view.iterate_under(keys.positions_prefix(account), MAX_POSITIONS):
            leaf: Position = found
            number = int.from_bytes(key[9:13], "big")
            market: Market = machine.view.get(keys.market_key(number))
            terms: Instrument = machine.view.get(keys.instrument_key(number))
            mark = mark_of(machine.view, market, terms) or 0
            size = leaf.size_ulots
            views.append(
                PositionView(
                    machine.markets.name_of(number),
                    size,
                    leaf.quote_uusd,
                    abs(leaf.quote_uusd) * 1_000_000 // abs(size) if size else None,
                    mark,
                    leaf.quote_uusd + size * mark // 1_000_000,
                    leaf.open_buy_ulots,
                    leaf.open_sell_ulots,
                )
            )
        return views

    def _orders(self, account: int) -> list[OrderView]:
        machine = self._context.machine
        views = []
        for key, found in machine.view.iterate_under(keys.account_orders_prefix(account), MAX_ORDERS):
            place: AccountOrder = found
            market = int.from_bytes(key[9:13], "big")
            book_key = keys.order_key(market, place.side, place.price_uusd, place.sequence)
            order: RestingOrder = machine.view.get(book_key)
            views.append(
                OrderView(
                    machine.markets.name_of(market),
                    order.order_id,
                    SIDE_NAMES[place.side],
                    place.price_uusd,
                    order.size_ulots,
                    order.filled_ulots,
                    bool(order.reduce_only),
                    order.expiry_s,
                )
            )
        return views

    def _session_keys(self, account: int) -> list[SessionKeyView]:
        view = self._context.machine.view
        views = []
        for key, found in view.iterate_under(keys.session_keys_prefix(account), MAX_SESSION_KEYS):
            leaf: SessionKey = found
            views.append(SessionKeyView(hex_of(key[9:29]), SCOPE_NAMES[leaf.scope], leaf.expiry_s))
        return views

    def _get_accounts(self, params: OwnerParams, _context: Context) -> list[int]:
        return self.accounts_of(bytes.fromhex(params.owner[2:]))

    def accounts_of(self, owner: bytes) -> list[int]:
        """Numbers of an owner's accounts, the first ones if there are very many."""
        prefix = keys.owner_prefix(owner)
        found = self._context.machine.view.iterate_under(prefix, MAX_OWNER_ACCOUNTS)
        return [int.from_bytes(key[21:29], "big") for key, _ in found]

    async def _get_proof(self, params: ProofParams, _context: Context) -> ProofView:
        number = self._batch_number(params.at)
        key = bytes.fromhex(params.key[2:])
        trees = self._context.trees

        def prove() -> ProofView:
            with trees.lock:
                at = trees.tree.at(number)
                proof = at.prove(key)
                root = at.root
            is_present = isinstance(proof, MembershipProof)
            return ProofView(
                number,
                hex_of(root),
                hex_of(key),
                is_present,
                hex_of(proof.value) if isinstance(proof, MembershipProof) else None,
                [hex_of(sibling) for sibling in proof.path.siblings],
                hex_of(proof.path.bits),
                hex_of(proof.encode()),
            )

        try:
            return await self._read(prove)
        except VersionUnavailable:
            raise RpcError(
                ErrorCode.NOT_AVAILABLE, "the state after this batch is not kept", {"batch": number}
            ) from None

    def _status(self, _params: NoParams, _context: Context) -> Status:
        context = self._context
        reasons = context.health.reasons_not_ready()
        return Status(
            version=version("straddle"),
            chain_id=context.domain.chain_id,
            contract=hex_of(context.domain.contract),
            sequencer=hex_of(context.sequencer),
            ready=not reasons,
            reasons=reasons,
            margin_checks=MARGIN_CHECKS.number,
            posting=context.closing.view(context.link.poster.state if context.link.poster else ""),
            **context.summary(),
        )
