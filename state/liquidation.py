"""Liquidation: accounts below maintenance margin are put up for auction, bidders take shares of them.

`auction` has the formulas, `seizure` moves positions, `deleverage` is for what nobody bids for. Each action
is a check that changes nothing and an application; what takes long goes on in steps, of 16 orders cancelled
or one position moved each.

- iLIQ_001 An auction is opened only for an account whose maintenance margin is below 0, at fresh prices.
- iLIQ_002 While it is open, the account places nothing but reduce-only orders, and nothing leaves it.
- iLIQ_003 No bid takes more than brings buffer margin back to 0 (up to 1 ppm, and an ulot of each position).
- iLIQ_004 A bidder has initial margin, at fresh prices, for all that it has after its bid.
- iLIQ_005 The insurance fund pays only what it has.
- iLIQ_008 While the account's prices are fresh and nothing of it waits for settlement, an auction goes on: by
  EndAuction, by a bid whose hole the fund can fill, or against those who profit. What has none of these waits
  for money, for a price, or for the end of what it holds.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from state.accounts import sweep
from state.actions import Bid, EndAuction, StartAuction
from state.auction import (
    Health,
    Offer,
    Price,
    left_after,
    offer_of,
    price_of,
    seized_ulots,
)
from state.block import LiquidationChange, LiquidationEvent, OperationResult, OrderEnd
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.keys import (
    LIQUIDATIONS_KEY,
    PARAMETERS_KEY,
    SYSTEM_KEY,
    account_key,
    auction_key,
    market_key,
)
from state.leaves import (
    Account,
    Auction,
    AuctionKind,
    Liquidations,
    Market,
    Parameters,
    Progress,
    System,
    Task,
)
from state.margin import Changes, demand_fresh, requirement
from state.positions import notional_of
from state.seizure import (
    Holding,
    Party,
    check_markets,
    close_if_over,
    credit,
    finish,
    fund,
    health,
    holdings,
    is_within_cash,
    move,
    next_holding,
    parameters_of,
)
from state.units import PPB
from state.view import StateView

_SEIZED: Final = LiquidationChange.SEIZED


class BidPlan(NamedTuple):
    """What a bid that was checked does first; its positions follow step by step."""

    kind: AuctionKind
    offer: Offer
    price: Price


def check_not_in_auction(view: StateView, number: int) -> None:
    """Raises Rejected for an account that is being liquidated."""
    if view.get(auction_key(number)) is not None:
        raise Rejected(RejectCode.ACCOUNT_IN_AUCTION, account=number)


def kind_of(standing: Health) -> AuctionKind:
    return AuctionKind.SOLVENT if standing.equity_uusd > 0 else AuctionKind.INSOLVENT


def liquidated_of(view: StateView, number: int, action_account: int, fee: int) -> int:
    """The cash of an account that an action is about, after the action's own fee if it pays that."""
    account: Account | None = view.get(account_key(number))
    if account is None:
        raise Rejected(RejectCode.UNKNOWN_ACCOUNT, account=number)
    return account.cash_uusd - (fee if number == action_account else 0)


def auction_of(view: StateView, number: int) -> Auction:
    """Raises Rejected NO_AUCTION."""
    auction: Auction | None = view.get(auction_key(number))
    if auction is None:
        raise Rejected(RejectCode.NO_AUCTION, account=number)
    return auction


# StartAuction


def check_start(view: StateView, block: BlockContext, action: StartAuction, fee: int) -> Health:
    number = action.liquidated
    cash = liquidated_of(view, number, action.account, fee)
    check_markets(view, block, number)
    standing = health(view, number, cash)
    if standing.maintenance_uusd >= 0:
        raise Rejected(RejectCode.NOT_LIQUIDATABLE, maintenance_uusd=standing.maintenance_uusd)
    auction: Auction | None = view.get(auction_key(number))
    if auction is not None and auction.kind == kind_of(standing):
        raise Rejected(RejectCode.AUCTION_OPEN, auction=auction.number)
    return standing


def apply_start(
    view: StateView, block: BlockContext, progress: Progress, action: StartAuction, standing: Health
) -> None:
    """Opens the auction, or turns the one there is to the kind that it should have."""
    number, kind = action.liquidated, kind_of(standing)
    key = auction_key(number)
    if view.get(key) is not None:
        turn(view, block, number, kind)
        return
    registers: Liquidations = view.get(LIQUIDATIONS_KEY) or Liquidations()
    auction = Auction(
        registers.next_auction, kind, block.timestamp_ms, block.timestamp_ms, PPB, -standing.buffer_uusd
    )
    registers.next_auction += 1
    view.put(LIQUIDATIONS_KEY, registers)
    view.put(key, auction)
    block.accounts.add(number)
    block.liquidations.append(
        LiquidationEvent(
            LiquidationChange.STARTED, auction.number, number, kind=kind, needed_uusd=auction.needed_uusd
        )
    )
    progress.task = Task.AUCTION_ORDERS


def auction_orders_step(
    view: StateView, block: BlockContext, progress: Progress, action: StartAuction
) -> None:
    """Cancels some orders of the account that is put up for auction."""
    cancelled, done = sweep(view, block, action.liquidated, 0, OrderEnd.LIQUIDATION)
    block.operations.append(OperationResult(cancelled_ulots=cancelled, end=OrderEnd.LIQUIDATION))
    progress.task = Task.NONE if done else Task.AUCTION_ORDERS


def turn(view: StateView, block: BlockContext, number: int, kind: AuctionKind) -> Auction:
    """The auction, which begins again as one of the other kind if it is not of this."""
    auction: Auction = view.get(auction_key(number))
    if auction.kind != kind:
        auction.kind = kind
        auction.started_ms = block.timestamp_ms
        auction.left_ppb = PPB
        view.touch(auction_key(number), auction)
        block.accounts.add(number)
        block.liquidations.append(
            LiquidationEvent(LiquidationChange.TURNED, auction.number, number, kind=kind)
        )
    return auction


def offer_now(view: StateView, now_ms: int, auction: Auction, standing: Health) -> tuple[Offer, int]:
    """What is offered, and how much of the account is left; to whom has not the right kind, as if turned."""
    system: System = view.get(SYSTEM_KEY)
    elapsed_ms, left_ppb = now_ms - auction.started_ms, auction.left_ppb
    if auction.kind != kind_of(standing):
        elapsed_ms, left_ppb = 0, PPB
    offer = offer_of(standing, parameters_of(view), elapsed_ms, left_ppb, system.insurance_uusd)
    return offer, left_ppb


# Bid


def check_bid(view: StateView, block: BlockContext, action: Bid, bidder: Account, fee: int) -> BidPlan:
    number, share = action.liquidated, action.share_ppm
    cash = liquidated_of(view, number, action.account, fee)
    owner: Account = view.get(account_key(number))
    if owner.owner == bidder.owner:
        raise Rejected(RejectCode.BID_OWN_ACCOUNT, account=number)
    check_not_in_auction(view, action.account)
    auction = auction_of(view, number)
    check_markets(view, block, number)
    standing = health(view, number, cash)
    if standing.buffer_uusd >= 0:
        raise Rejected(RejectCode.NOT_LIQUIDATABLE, buffer_uusd=standing.buffer_uusd)
    offer, left_ppb = offer_now(view, block.timestamp_ms, auction, standing)
    if not 0 < share <= offer.allowed_ppm:
        raise Rejected(RejectCode.BID_SHARE, allowed_ppm=offer.allowed_ppm, got=share)
    price = price_of(standing, parameters_of(view), offer, left_ppb, share)
    if price.reward_uusd < action.min_reward_uusd:
        raise Rejected(
            RejectCode.BID_REWARD, reward_uusd=price.reward_uusd, min_reward_uusd=action.min_reward_uusd
        )
    _check_bidder(view, block, action, bidder, bidder.cash_uusd - fee + price.reward_uusd, cash)
    return BidPlan(kind_of(standing), offer, price)


def _check_bidder(
    view: StateView, block: BlockContext, action: Bid, bidder: Account, bidder_cash: int, cash: int
) -> None:
    """Whether bidder and bounds allow all of its positions to move. Raises Rejected."""
    parameters: Parameters = view.get(PARAMETERS_KEY)
    positions = bidder.positions
    changes: Changes = {}
    bounded = True
    for holding in holdings(view, action.liquidated):
        own, other, _, _ = _parties(view, action, holding)
        bounded = bounded and own.is_within_bounds() and other.is_within_bounds()
        cash += own.cash_change
        bidder_cash += other.cash_change
        bounded = bounded and is_within_cash(cash, bidder_cash)
        positions += other.position is None
        changes[holding.market] = other.change
    if not bounded:
        raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE)
    if positions > parameters.max_positions:
        raise Rejected(RejectCode.TOO_MANY_POSITIONS, limit=parameters.max_positions)
    demand_fresh(view, block, action.account, changes)
    equity, initial = requirement(view, action.account, bidder_cash, changes)
    if equity < initial:
        raise Rejected(RejectCode.INSUFFICIENT_MARGIN, needed_uusd=initial, available_uusd=equity)


def _parties(view: StateView, action: Bid, holding: Holding) -> tuple[Party, Party, int, int]:
    """Both sides of one position's share, with what they would have; the size, and what it is worth."""
    size = seized_ulots(holding.size_ulots, action.share_ppm)
    worth = notional_of(holding.mark_uusd, abs(size))
    state: Market = view.get(market_key(holding.market))
    own = Party(view, action.liquidated, holding.market)
    other = Party(view, action.account, holding.market)
    own.trade(state.funding_index_nusd, -size, worth)
    other.trade(state.funding_index_nusd, size, worth)
    return own, other, size, worth


def apply_bid(view: StateView, block: BlockContext, progress: Progress, action: Bid, plan: BidPlan) -> None:
    """Pays reward, fee and hole; the positions follow."""
    number, price = action.liquidated, plan.price
    auction = turn(view, block, number, plan.kind)
    auction.bids += 1
    if plan.kind == AuctionKind.SOLVENT:
        auction.left_ppb = left_after(auction.left_ppb, action.share_ppm)
        credit(view, block, number, -price.reward_uusd - price.fee_uusd)
        fund(view, price.fee_uusd)
        change = -price.reward_uusd
    else:
        credit(view, block, number, price.hole_uusd)
        fund(view, -price.hole_uusd - price.reward_uusd)
        change = price.hole_uusd
    credit(view, block, action.account, price.reward_uusd)
    view.touch(auction_key(number), auction)
    event = LiquidationEvent(
        LiquidationChange.BID,
        auction.number,
        number,
        change,
        action.account,
        price.reward_uusd,
        share_ppm=action.share_ppm,
    )
    block.liquidations.append(event)
    if price.fee_uusd:
        block.liquidations.append(
            LiquidationEvent(LiquidationChange.FEE, auction.number, number, -price.fee_uusd)
        )
    progress.task = Task.SEIZE
    progress.cursor = 0


def seize_step(view: StateView, block: BlockContext, progress: Progress, action: Bid) -> None:
    """Moves the share of the next position, or ends the bid; `cursor` is the last market done."""
    number = action.liquidated
    holding = next_holding(view, number, progress.cursor)
    if holding is None:
        finish(view, block, progress, number)
        return
    progress.cursor = holding.market
    own, other, size, worth = _parties(view, action, holding)
    move(view, block, _SEIZED, view.get(auction_key(number)), own, other, -size, worth)


# EndAuction


def check_end(view: StateView, block: BlockContext, action: EndAuction, fee: int) -> None:
    """Refused unless the auction would be over, or the insurance fund can pay towards a debt that is all."""
    number = action.liquidated
    auction_of(view, number)
    cash = liquidated_of(view, number, action.account, fee)
    held = holdings(view, number)
    system: System = view.get(SYSTEM_KEY)
    if not held and cash < 0 < system.insurance_uusd:
        return
    if held:
        check_markets(view, block, number)
    standing = health(view, number, cash)
    if standing.buffer_uusd < 0:
        raise Rejected(RejectCode.AUCTION_NOT_OVER, buffer_uusd=standing.buffer_uusd)


def apply_end(view: StateView, block: BlockContext, action: EndAuction) -> None:
    close_if_over(view, block, action.liquidated)
