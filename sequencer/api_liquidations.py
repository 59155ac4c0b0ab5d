"""Liquidations: what there is to do about whom, open auctions and what they offer now, and how one went.

An explanation has the auction's steps as the signed blocks have them, and *moments*: the account after the
batch before the first step and after each batch with steps, every figure computed from leaves that stand
beside it with their proofs under that batch's root (`liquidation_proofs`).
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import trio
from msgspec import Meta

from sequencer.api_chain import ProofView
from sequencer.api_context import ApiContext
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
from state.leaves import Account, Auction, AuctionKind, Feed, System
from state.liquidation import offer_now
from state.proofs import MembershipProof
from state.seizure import health, holdings, parameters_of
from state.tree import VersionUnavailable
from state.units import PPM

MAX_TODO = 1_024
MAX_AUCTIONS = 1_024
MAX_MOMENTS = 8
"""The first ones and the last."""


class ExplainParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The auction's number."""

    auction: Annotated[int, Meta(ge=1, le=2**62)]


class TodoView(msgspec.Struct, frozen=True, omit_defaults=True):
    """`start`: StartAuction would be executed; `end`: EndAuction; `deleverage`: Deleverage, as said here."""

    account: int
    todo: str
    instrument_name: str | None = None
    counterparties: tuple[int, ...] = ()


class HealthView(msgspec.Struct, frozen=True):
    """Of positions alone, without open orders; margins are net: below 0 is too little."""

    equity_uusd: int
    maintenance_margin_uusd: int
    buffer_margin_uusd: int


class HoldingView(msgspec.Struct, frozen=True):
    instrument_name: str
    size_ulots: int
    mark_uusd: int


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


class OracleValue(msgspec.Struct, frozen=True):
    feed: str
    value_uusd: int
    confidence_ppm: int
    timestamp_ms: int


class MomentView(msgspec.Struct, frozen=True):
    """After a batch. Not `available` where the batch is not closed yet, or its state is not kept any more."""

    batch: int
    available: bool
    root: str | None = None
    cash_uusd: int | None = None
    health: HealthView | None = None
    initial_margin_uusd: int | None = None
    """What is required, with open orders."""
    holdings: list[HoldingView] = []
    oracle: list[OracleValue] = []
    insurance_uusd: int | None = None
    proofs: list[ProofView] = []


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
            self._holdings(view, account),
            discount,
            allowed,
            reward,
            fee,
            system.insurance_uusd,
        )

    def _holdings(self, view: Any, account: int) -> list[HoldingView]:
        names = self._context.machine.markets.past_name_of
        return [
            HoldingView(names(held.market), held.size_ulots, held.mark_uusd)
            for held in holdings(view, account)
        ]

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
        return Explanation(
            params.auction,
            account,
            auction is not None and auction.number == params.auction,
            [self._step(place, block, event) for place, block, event in found],
            sum(event.other_amount_uusd for event in bids),
            sum(max(_fund_change(event), 0) for event in events),
            -sum(min(_fund_change(event), 0) for event in events),
            sum(abs(event.size_ulots) for event in events if event.change == LiquidationChange.DELEVERAGED),
            [await self._moment(batch, account) for batch in wanted],
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

    async def _moment(self, batch: int, account: int) -> MomentView:
        """The account after a batch."""
        trees = self._context.trees

        def collect() -> Moment:
            with trees.lock:
                return Moment(trees.tree.at(batch), account)

        try:
            moment = await trio.to_thread.run_sync(collect, limiter=self._context.reads)
        except VersionUnavailable:
            return MomentView(batch, False)
        standing, margin = moment.health(), moment.margin()
        leaf: Account | None = moment.view.get(keys.account_key(account))
        system: System = moment.view.get(keys.SYSTEM_KEY)
        proofs = [
            ProofView(
                batch,
                hex_of(moment.root),
                hex_of(key),
                isinstance(proof, MembershipProof),
                hex_of(proof.value) if isinstance(proof, MembershipProof) else None,
                [hex_of(sibling) for sibling in proof.path.siblings],
                hex_of(proof.path.bits),
                hex_of(proof.encode()),
            )
            for key, proof in moment.proofs.items()
        ]
        return MomentView(
            batch,
            True,
            hex_of(moment.root),
            None if leaf is None else leaf.cash_uusd,
            None if standing is None else HealthView(*standing),
            None if margin is None else margin.initial_uusd,
            self._holdings(moment.view, account),
            _oracle_values(moment),
            system.insurance_uusd,
            proofs,
        )


def _oracle_values(moment: Moment) -> list[OracleValue]:
    """All feeds that the moment has."""
    values = []
    for key in moment.proofs:
        leaf: Feed | None = moment.view.get(key) if key[0] == keys.FEED else None
        if leaf is not None:
            name = key[1:].rstrip(b"\0").decode()
            values.append(OracleValue(name, leaf.value_uusd, leaf.confidence_ppm, leaf.timestamp_ms))
    return values


def _fund_change(event: LiquidationEvent) -> int:
    """Of the insurance fund: what the parties of a bid, a fee or a draw do not get from each other."""
    if event.change in (LiquidationChange.BID, LiquidationChange.FEE, LiquidationChange.DRAWN):
        return -event.amount_uusd - event.other_amount_uusd
    return 0
