"""Liquidations: what there is to do about whom, open auctions and what they offer now, and how one went.

An explanation has the auction's steps as the signed blocks have them, and *moments*: the account after the
batch before the first step and after each batch with steps, every figure computed from leaves that stand
beside it with their proofs under that batch's root (`liquidation_proofs`), margin by its components as in
`straddle_getRisk`. What a bid, a draw or a closing has moved is the difference of two moments' proved leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Any

import msgspec
import trio
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.api_moments import HealthView, HoldingView, MomentView, holding_views, moment_view
from sequencer.deleveraging import Pick
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Method, NoParams
from sequencer.liquidation_index import Todo, in_order
from sequencer.liquidation_log import Place
from sequencer.liquidation_proofs import Moment
from sequencer.liquidations import Liquidations
from sequencer.receipts import SealedBlock, hex_of, wallet_signature
from state import keys
from state.auction import price_of
from state.block import LiquidationChange, LiquidationEvent
from state.leaves import Account, Auction, AuctionKind, System
from state.liquidation import offer_now
from state.seizure import health, parameters_of
from state.tree import VersionUnavailable
from state.units import PPM

MAX_TODO = 1_024
MAX_AUCTIONS = 1_024
MAX_MOMENTS = 8
"""The first ones and the last."""
MAX_BLOCKS = 64
"""With steps, that are told in full."""
MAX_OTHERS = 64
"""Whose money and positions are proved."""


class ExplainParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The auction's number."""

    auction: Annotated[int, Meta(ge=1, le=2**62)]


class TodoView(msgspec.Struct, frozen=True, omit_defaults=True):
    """`start`: StartAuction would be executed; `end`: EndAuction; `deleverage`: Deleverage, as said here."""

    account: int
    todo: str
    instrument_name: str | None = None
    counterparties: tuple[int, ...] = ()


class AuctionView(msgspec.Struct, frozen=True):
    """An open auction. The offer is that of this moment; rewards are for the whole of what is held."""

    auction: int
    account: int
    kind: str
    opened_ms: int
    started_ms: int
    left_ppb: int
    bids: int
    health: HealthView
    holdings: list[HoldingView]
    discount_ppm: int
    """Of a solvent auction; how far the ramp of an insolvent one has come."""
    allowed_share_ppm: int
    reward_uusd: int
    fee_uusd: int
    insurance_uusd: int


class LiquidationsView(msgspec.Struct, frozen=True):
    todo: list[TodoView]
    auctions: list[AuctionView]


class StepView(msgspec.Struct, frozen=True):
    """One step, as the block's signed header commits to its transaction."""

    block_number: int
    timestamp_ms: int
    batch: int
    transaction: str
    index: int
    block_hash: str
    header_signature: str
    step: str
    kind: str | None
    """Of an auction that starts or turns."""
    amount_uusd: int
    """Change of the account's cash."""
    other_account: int | None
    other_amount_uusd: int
    instrument_name: str | None
    size_ulots: int
    price_uusd: int
    share_ppm: int
    needed_uusd: int
    fund_uusd: int
    """Change of the insurance fund."""


class StepBlock(msgspec.Struct, frozen=True):
    """A signed block with steps, so that its hash can be computed again: from `transactions` in their order
    the `transactions_hash`, from all but them the hash. Later headers, which `straddle_getBlock` has, lead
    from it to the last one of its batch, whose hash is in the System leaf of the moment after."""

    number: int
    parent_hash: str
    timestamp_ms: int
    transactions_hash: str
    l1_block: int
    inbox_next: int
    transactions: list[str]


class Explanation(msgspec.Struct, frozen=True):
    auction: int
    account: int
    open: bool
    steps: list[StepView]
    bidders_uusd: int
    """What bidders were rewarded with, all in all."""
    fees_uusd: int
    """What the insurance fund got."""
    fund_uusd: int
    """What the insurance fund paid."""
    deleveraged_ulots: int
    blocks: list[StepBlock]
    """Of the first MAX_BLOCKS."""
    moments: list[MomentView]


class LiquidationApi:
    """The `straddle_` methods about liquidations."""

    def __init__(self, context: ApiContext, liquidations: Liquidations) -> None:
        self._context = context
        self._liquidations = liquidations

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_getLiquidations",
                NoParams,
                LiquidationsView,
                self._get_liquidations,
                "Accounts that must be liquidated or whose auctions are over, and what open auctions offer.",
            ),
            Method(
                "straddle_explainLiquidation",
                ExplainParams,
                Explanation,
                self._explain,
                "How an auction went: every step, and the account before and after with proofs.",
                errors=(ErrorCode.NOT_FOUND,),
            ),
        ]

    def _get_liquidations(self, _params: NoParams, _context: Context) -> LiquidationsView:
        view = self._context.machine.view
        index = self._liquidations.index
        todo = [
            self._todo(account, what, index.picks.get(account))
            for account, what in in_order(index.todo.items())[:MAX_TODO]
        ]
        found = view.iterate_under(bytes((keys.AUCTION,)), MAX_AUCTIONS)
        auctions = [self._auction(int.from_bytes(key[1:9], "big"), leaf) for key, leaf in found]
        return LiquidationsView(todo, auctions)

    def _todo(self, account: int, what: Todo, pick: Pick | None) -> TodoView:
        if pick is None:
            return TodoView(account, str(what))
        name = self._context.machine.markets.name_of(pick.market)
        return TodoView(account, str(what), name, pick.counterparties)

    def _auction(self, account: int, auction: Auction) -> AuctionView:
        view = self._context.machine.view
        leaf: Account = view.get(keys.account_key(account))
        system: System = view.get(keys.SYSTEM_KEY)
        standing = health(view, account, leaf.cash_uusd)
        discount = allowed = reward = fee = 0
        if standing.buffer_uusd < 0:
            offer, left_ppb = offer_now(view, self._context.now_ms(), auction, standing)
            price = price_of(standing, parameters_of(view), offer, left_ppb, PPM)
            discount, allowed = offer.discount_ppm, offer.allowed_ppm
            reward, fee = price.reward_uusd, price.fee_uusd
        return AuctionView(
            auction.number,
            account,
            AuctionKind(auction.kind).name.lower(),
            auction.opened_ms,
            auction.started_ms,
            auction.left_ppb,
            auction.bids,
            HealthView(*standing),
            holding_views(view, account, self._context.machine.markets.past_name_of),
            discount,
            allowed,
            reward,
            fee,
            system.insurance_uusd,
        )

    async def _explain(self, params: ExplainParams, _context: Context) -> Explanation:
        places, blocks = await self._read(params.auction)
        found = [
            (place, blocks[place.block], event)
            for place in places
            for event in blocks[place.block].results[place.transaction].liquidations
            if event.auction == params.auction
        ]
        if not found:
            data = {"auction": str(params.auction)}
            raise RpcError(ErrorCode.NOT_FOUND, "there was no such auction", data)
        events = [event for _, _, event in found]
        account = events[0].account
        batches = sorted({block.batch for _, block, _ in found})
        wanted = [batches[0] - 1, *batches]
        if len(wanted) > MAX_MOMENTS:
            wanted = [*wanted[: MAX_MOMENTS - 1], wanted[-1]]
        auction: Auction | None = self._context.machine.view.get(keys.auction_key(account))
        bids = [event for event in events if event.change == LiquidationChange.BID]
        others = dict.fromkeys((event.other, event.market) for event in events if event.other)
        return Explanation(
            params.auction,
            account,
            auction is not None and auction.number == params.auction,
            [self._step(place, block, event) for place, block, event in found],
            sum(event.other_amount_uusd for event in bids),
            sum(max(_fund_change(event), 0) for event in events),
            -sum(min(_fund_change(event), 0) for event in events),
            sum(abs(event.size_ulots) for event in events if event.change == LiquidationChange.DELEVERAGED),
            [
                _step_block(blocks[number])
                for number in sorted({place.block for place, _, _ in found})[:MAX_BLOCKS]
            ],
            [await self._moment(batch, account, others) for batch in wanted],
        )

    async def _read(self, auction: int) -> tuple[list[Place], dict[int, SealedBlock]]:
        """Where its steps are, and those blocks."""

        def read() -> tuple[list[Place], dict[int, SealedBlock]]:
            found = self._liquidations.log.places(auction)
            blocks = {place.block: self._context.receipts.block(place.block) for place in found}
            there = {number: block for number, block in blocks.items() if block is not None}
            return [place for place in found if place.block in there], there

        return await trio.to_thread.run_sync(read, limiter=self._context.reads)

    def _step(self, place: Place, block: SealedBlock, event: LiquidationEvent) -> StepView:
        changes_kind = event.change in (LiquidationChange.STARTED, LiquidationChange.TURNED)
        names = self._context.machine.markets.past_name_of
        return StepView(
            place.block,
            block.header.timestamp_ms,
            block.batch,
            hex_of(block.results[place.transaction].hash),
            place.transaction,
            hex_of(block.hash),
            wallet_signature(block.signature),
            LiquidationChange(event.change).name.lower(),
            AuctionKind(event.kind).name.lower() if changes_kind else None,
            event.amount_uusd,
            event.other or None,
            event.other_amount_uusd,
            names(event.market) if event.market else None,
            event.size_ulots,
            event.price_uusd,
            event.share_ppm,
            event.needed_uusd,
            _fund_change(event),
        )

    async def _moment(self, batch: int, account: int, others: Iterable[tuple[int, int]]) -> MomentView:
        """The account after a batch."""
        trees = self._context.trees
        dealt = list(islice(others, MAX_OTHERS))

        def collect() -> Moment:
            with trees.lock:
                return Moment(trees.tree.at(batch), account, dealt)

        try:
            moment = await trio.to_thread.run_sync(collect, limiter=self._context.reads)
        except VersionUnavailable:
            return MomentView(batch, False)
        return moment_view(moment, batch, self._context.machine.markets.past_name_of)


def _step_block(block: SealedBlock) -> StepBlock:
    header = block.header
    return StepBlock(
        header.number,
        hex_of(header.parent_hash),
        header.timestamp_ms,
        hex_of(header.transactions),
        header.l1_block,
        header.inbox_next,
        [hex_of(result.hash) for result in block.results],
    )


def _fund_change(event: LiquidationEvent) -> int:
    """Of the insurance fund: what the parties of a bid, a fee or a draw do not get from each other."""
    if event.change in (LiquidationChange.BID, LiquidationChange.FEE, LiquidationChange.DRAWN):
        return -event.amount_uusd - event.other_amount_uusd
    return 0
