"""Positions that change hands outside the book: what a bidder seizes, what is closed by deleveraging.

A position moves between two accounts as if they traded it for a given amount, without fees: funding is
settled on both sides, what reduces a position is realised into cash, the same amount leaves one side and
reaches the other. So sizes and money are conserved whatever the amount. A `Party` computes first and writes
later, so a check can look at all of it without changing anything.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from state.auction import Health, health_of
from state.block import LiquidationChange, LiquidationEvent
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.holdings import close_position, open_position
from state.keys import (
    CLEANUP,
    LIQUIDATION_KEY,
    SYSTEM_KEY,
    account_key,
    auction_key,
    instrument_key,
    market_key,
    position_key,
    positions_prefix,
)
from state.leaves import (
    Account,
    Auction,
    Instrument,
    LiquidationParameters,
    Market,
    Position,
    Progress,
    System,
    Task,
)
from state.margin import NO_CHANGES, Change, Changes, demand_fresh, held_margin
from state.positions import after_trade, funding_owed, is_empty
from state.pricing import mark_of
from state.trigger_book import position_closed
from state.units import MAX_CASH_UUSD, MAX_POSITIONS, MAX_QUOTE_UUSD, MAX_SIZE_ULOTS, ULOTS_PER_LOT
from state.view import StateView

_CLEANUP: Final = bytes((CLEANUP,))
_DEFAULTS: Final = LiquidationParameters()


class Holding(NamedTuple):
    """A position that is not empty."""

    market: int
    size_ulots: int
    mark_uusd: int


class Party:
    """One side of a position that moves: what it has, and what it would have."""

    __slots__ = (
        "buy",
        "cash_change",
        "held_ulots",
        "key",
        "market",
        "number",
        "owed",
        "position",
        "quote",
        "sell",
        "size",
    )

    def __init__(self, view: StateView, number: int, market: int) -> None:
        self.number = number
        self.market = market
        self.key = position_key(number, market)
        self.position: Position | None = view.get(self.key)
        self.held_ulots = 0 if self.position is None else self.position.size_ulots

    def trade(self, index_nusd: int, delta_ulots: int, notional_uusd: int) -> None:
        """Computes the outcome of buying (selling, below 0) `delta_ulots` for `notional_uusd`."""
        position = self.position
        held = self.held_ulots
        quote = owed = buy = sell = 0
        if position is not None:
            quote = position.quote_uusd
            buy, sell = position.open_buy_ulots, position.open_sell_ulots
            owed = funding_owed(held, position.funding_index_nusd, index_nusd)
        self.size, self.quote, realised = after_trade(held, quote, delta_ulots, notional_uusd)
        self.owed = owed
        self.cash_change = realised - owed
        self.buy, self.sell = buy, sell

    def is_within_bounds(self) -> bool:
        return abs(self.size) <= MAX_SIZE_ULOTS and abs(self.quote) <= MAX_QUOTE_UUSD

    @property
    def change(self) -> Change:
        return self.size, self.quote, self.buy, self.sell

    def write(self, view: StateView, index_nusd: int) -> int:
        """Stores the outcome; returns the change of the long open interest."""
        account: Account = view.get(account_key(self.number))
        account.cash_uusd += self.cash_change
        position = self.position
        if position is None:
            position = open_position(view, account, self.number, self.market)
        position.size_ulots = self.size
        position.quote_uusd = self.quote
        position.funding_index_nusd = index_nusd
        if is_empty(position):
            close_position(view, account, self.number, self.market)
        else:
            view.touch(self.key, position)
        view.touch(account_key(self.number), account)
        return max(self.size, 0) - max(self.held_ulots, 0)


def move(
    view: StateView,
    block: BlockContext,
    change: LiquidationChange,
    auction: Auction,
    own: Party,
    other: Party,
    delta_ulots: int,
    notional_uusd: int,
) -> None:
    """Writes what both parties have computed: `delta_ulots` is the change of `own`, who is liquidated."""
    market = own.market
    state: Market = view.get(market_key(market))
    index = state.funding_index_nusd
    state.open_interest_ulots += own.write(view, index) + other.write(view, index)
    state.funding_pot_uusd += own.owed + other.owed
    view.touch(market_key(market), state)
    for party in (own, other):
        position_closed(view, party.number, market, party.held_ulots, party.size)
    block.accounts.update((own.number, other.number))
    block.liquidations.append(
        LiquidationEvent(
            change,
            auction.number,
            own.number,
            own.cash_change,
            other.number,
            other.cash_change,
            market,
            delta_ulots,
            notional_uusd * ULOTS_PER_LOT // abs(delta_ulots),
        )
    )


def holdings(view: StateView, account: int) -> list[Holding]:
    """The account's positions, by market."""
    return [Holding(market, size, mark_uusd(view, market)) for market, size in _sizes(view, account)]


def next_holding(view: StateView, account: int, market: int) -> Holding | None:
    """The account's first position in a market after this one: the others' marks are not asked for."""
    for found, size in _sizes(view, account):
        if found > market:
            return Holding(found, size, mark_uusd(view, found))
    return None


def _sizes(view: StateView, account: int) -> list[tuple[int, int]]:
    """(market, size) of each position."""
    found = []
    for key, leaf in view.iterate_under(positions_prefix(account), MAX_POSITIONS):
        position: Position = leaf
        if position.size_ulots:
            found.append((int.from_bytes(key[9:13], "big"), position.size_ulots))
    return found


def mark_uusd(view: StateView, market: int) -> int:
    """The mark of a market that has been traded in."""
    terms: Instrument = view.get(instrument_key(market))
    return mark_of(view, view.get(market_key(market)), terms) or 0


def check_markets(view: StateView, block: BlockContext, account: int) -> None:
    """Raises Rejected unless all that the account holds has fresh prices and has not expired."""
    for holding in holdings(view, account):
        terms: Instrument = view.get(instrument_key(holding.market))
        if terms.expiry and terms.expiry_s <= block.now_s:
            raise Rejected(RejectCode.EXPIRED_INSTRUMENT, now_s=block.now_s, expiry_s=terms.expiry_s)
    demand_fresh(view, block, account, NO_CHANGES)


def parameters_of(view: StateView) -> LiquidationParameters:
    found: LiquidationParameters | None = view.get(LIQUIDATION_KEY)
    return _DEFAULTS if found is None else found


def health(view: StateView, account: int, cash_uusd: int) -> Health:
    """Of the account if it had this cash."""
    equity, net = standing(view, account, cash_uusd, NO_CHANGES)
    return health_of(equity, net, parameters_of(view))


def standing(view: StateView, account: int, cash_uusd: int, changes: Changes) -> tuple[int, int]:
    """(equity, maintenance margin left) of the account if it had this cash and these positions."""
    found = held_margin(view, account, cash_uusd, changes)
    return found.equity_uusd, found.equity_uusd - found.maintenance_uusd


def fund(view: StateView, change_uusd: int) -> None:
    """Moves money into (out of, below 0) the insurance fund."""
    system: System = view.get(SYSTEM_KEY)
    system.insurance_uusd += change_uusd
    view.touch(SYSTEM_KEY, system)


def credit(view: StateView, block: BlockContext, number: int, change_uusd: int) -> None:
    """Changes an account's cash; where from is for the caller."""
    account: Account = view.get(account_key(number))
    account.cash_uusd += change_uusd
    view.touch(account_key(number), account)
    block.accounts.add(number)


def draw(view: StateView, block: BlockContext, auction: Auction, number: int, hole_uusd: int) -> None:
    """The insurance fund pays what the account is short of, as far as it has means."""
    system: System = view.get(SYSTEM_KEY)
    amount = min(hole_uusd, system.insurance_uusd)
    if amount > 0:
        fund(view, -amount)
        credit(view, block, number, amount)
        block.liquidations.append(LiquidationEvent(LiquidationChange.DRAWN, auction.number, number, amount))


def finish(view: StateView, block: BlockContext, progress: Progress, number: int) -> None:
    """The last step of what moved positions; the triggers that died with them follow."""
    close_if_over(view, block, number)
    progress.task = Task.NONE if view.first_under(_CLEANUP) is None else Task.CLEANUP
    progress.parent = Task.NONE
    progress.cursor = progress.operation = 0


def close_if_over(view: StateView, block: BlockContext, number: int) -> None:
    """Ends the auction of an account that has buffer margin again. Fills the hole of one that has no
    positions left, as far as the insurance fund has means."""
    key = auction_key(number)
    auction: Auction = view.get(key)
    account: Account = view.get(account_key(number))
    if account.cash_uusd < 0 and not holdings(view, number):
        draw(view, block, auction, number, -account.cash_uusd)
    if health(view, number, account.cash_uusd).buffer_uusd >= 0:
        view.delete(key)
        block.accounts.add(number)
        block.liquidations.append(LiquidationEvent(LiquidationChange.ENDED, auction.number, number))


def is_within_cash(*amounts_uusd: int) -> bool:
    return max(map(abs, amounts_uusd)) <= MAX_CASH_UUSD
