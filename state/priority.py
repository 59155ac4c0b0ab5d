"""Who goes first is sold: bids inside a class, each paid at the bid that follows it (PROTOCOL 8.1).

A generalised second price. What a bid pays is known only when the next transaction of its class executes, or
when the class ends. So the bid is taken when its transaction executes and held; the next transaction's
envelope, or the end of the block, returns what is above the price and pays the rest out. `Progress` says
whose bid is held and for which market, `System.order_bid` how much. Without bids nothing of this is touched.

The price goes to the makers of the market that the transaction names and to the insurance fund; nothing goes
to the operator unless the governor says so. The makers' part waits in the market's pot and is paid to makers
with their later fills, never more than half of the fees of the same fill: whoever trades with himself to
empty a pot pays at least twice what he gets.

- iAUCTION_BID_002 A bid pays the next bid of its class and block, the last one nothing.
- iAUCTION_BID_004 What is held is gone at the end of the block: paid out or returned.
- iAUCTION_BID_005 A fill's reward is at most its market's pot, the rate on its notional, and half its fees.
"""

from __future__ import annotations

from typing import Final

from state.actions import (
    Action,
    BulkOrders,
    CancelAll,
    CancelOrder,
    CancelTrigger,
    ExecuteQuote,
    PlaceOrder,
    PlaceTrigger,
    ReplaceOrder,
)
from state.context import BlockContext
from state.keys import PRIORITY_KEY, SYSTEM_KEY, account_key, market_key
from state.leaves import Account, Market, PriorityTerms, Progress, System
from state.message_payloads import demand
from state.units import PPM
from state.view import StateView

MAX_OPERATOR_PPM: Final = 500_000
"""At least half of what its own bids pay is lost to the operator."""
MAX_RATE_PPM: Final = 100_000
_DEFAULTS: Final = PriorityTerms()
_WASH: Final = 2
"""A reward is at most this part of what the fill costs both sides together."""


def check_priority_terms(terms: PriorityTerms) -> None:
    """Raises Rejected BAD_PARAMETERS."""
    shares = terms.makers_ppm + terms.operator_ppm <= PPM and terms.operator_ppm <= MAX_OPERATOR_PPM
    demand({"shares": shares, "rate_ppm": terms.rate_ppm <= MAX_RATE_PPM})


def terms_of(view: StateView) -> PriorityTerms:
    found: PriorityTerms | None = view.get(PRIORITY_KEY)
    return _DEFAULTS if found is None else found


def market_of(action: Action) -> int:
    """The one market that an action names; 0 when it names none, or several."""
    if type(action) is PlaceOrder or type(action) is PlaceTrigger:
        return action.order.market
    if type(action) is CancelOrder or type(action) is CancelTrigger:
        return action.cancel.market
    if isinstance(action, CancelAll):
        return action.market
    if isinstance(action, ReplaceOrder):
        return action.replacement.market
    if isinstance(action, BulkOrders):
        markets = [each.market for each in action.cancels]
        markets += [each.market for each in action.replacements]
        markets += [each.market for each in action.orders]
    elif isinstance(action, ExecuteQuote):
        markets = [leg.market for leg in action.quote.legs]
    else:
        return 0
    return markets[0] if markets.count(markets[0]) == len(markets) else 0


def price_uusd(system: System, order_class: int, bid_uusd: int) -> int:
    """What the bid that is held pays if a transaction of this class and bid is next.

    A bid above the one that is held stands out of order and is refused afterwards.
    """
    return min(system.order_bid, bid_uusd) if order_class == system.order_class else 0


def lend_back(view: StateView, progress: Progress, order_class: int, bid_uusd: int) -> int:
    """Returns to the account whose bid is held what this next transaction leaves it; how much that is.

    Before the checks of that transaction, so that nobody's margin is short of money which is not spent.
    When it is refused, `take_again` undoes this; when not, `settle` completes it.
    """
    system: System = view.get(SYSTEM_KEY)
    amount = system.order_bid - price_uusd(system, order_class, bid_uusd)
    take_again(view, progress, -amount)
    return amount


def take_again(view: StateView, progress: Progress, amount_uusd: int) -> None:
    """Undoes `lend_back`."""
    key = account_key(progress.bidder)
    account: Account = view.get(key)
    account.cash_uusd -= amount_uusd
    view.touch(key, account)


def settle(view: StateView, block: BlockContext, progress: Progress, order_class: int, bid_uusd: int) -> None:
    """The transaction that sets the price of the bid that is held executes: pays it out."""
    system: System = view.get(SYSTEM_KEY)
    price = price_uusd(system, order_class, bid_uusd)
    block.price_uusd = price
    if price:
        terms = terms_of(view)
        operator = price * terms.operator_ppm // PPM
        makers = price * terms.makers_ppm // PPM if progress.bid_market else 0
        system.fees_uusd += operator
        system.insurance_uusd += price - operator - makers
        view.touch(SYSTEM_KEY, system)
        if makers:
            key = market_key(progress.bid_market)
            market: Market = view.get(key)
            market.priority_pot_uusd += makers
            view.touch(key, market)
    progress.bidder = progress.bid_market = 0


def release(view: StateView, progress: Progress) -> None:
    """The block ends: nothing follows the bid that is held, so it is returned."""
    lend_back(view, progress, -1, 0)
    progress.bidder = progress.bid_market = 0


def reward_uusd(view: StateView, market: Market, notional_uusd: int, fees_uusd: int) -> int:
    """What the maker of a fill gets from the market's pot, which is not empty; `fees`: of both sides."""
    most = notional_uusd * terms_of(view).rate_ppm // PPM
    return max(0, min(market.priority_pot_uusd, most, fees_uusd // _WASH))
