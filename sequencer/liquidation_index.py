"""Which accounts must be liquidated, found without looking at all of them at every tick.

Each account that holds something is looked at when a block has changed it, and otherwise only when it may
have come near: with maintenance margin M and gross exposure G (sizes times prices, summed), a move of all
prices by less than M / (3 G) cannot bring M below 0. Such a move changes equity by no more than itself times
G, and the requirement by no more than twice that (of the scenarios that count undamped the furthest is 18 %:
0.8 * (1.18 * 1.02 + 1) + 0.03 < 2). So an account waits at two prices of everything that it depends on, below
and above, in a heap for each; only those that a new price has passed are looked at again.

What the bound leaves out, volatility, time and other margin parameters, is why an account is also looked at
again after a while: the nearer it is the sooner, between MIN_WAIT_MS and MAX_WAIT_MS.

Blocks change the cash of everybody who sends anything, by a fee. So of the margin a share is set aside: until
cash has fallen by that much, an account whose positions are the same need not be looked at.

Accounts in auction are looked at after every oracle update and every MIN_WAIT_MS; they are few. Who holds
what is remembered as accounts are looked at, so that counterparties of deleveraging are found.

- iKEEPER_001 After `look` has come to its end, every account is known whose maintenance margin is below 0, if
  only prices and accounts have changed since it was last looked at, and nobody is listed who is not so.
- iKEEPER_002 An oracle update that passes no account's prices costs a look at accounts in auction alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from heapq import heappop, heappush

from sequencer.deleveraging import Pick, pick
from sequencer.machine import ExecutedBlock
from state import keys
from state.actions import OracleUpdate
from state.deleverage import is_last_resort
from state.leaves import Account, Auction, Feed, Instrument, Market, Pricing
from state.liquidation import kind_of
from state.seizure import Holding, health, holdings
from state.units import PPM, ULOTS_PER_LOT
from state.view import StateView

SENSITIVITY = 3
MIN_WAIT_MS = 1_000
MAX_WAIT_MS = 600_000
CASH_SHARE = 16
"""Of maintenance margin one part is set aside for cash that goes."""
WAIT_MS_PER_PPM = 4
"""Of distance: an account that a move of 1 % may bring down is looked at again after 40 s."""
SLICE = 64
"""Accounts looked at in one go."""
MAX_AUCTIONS = 4_096


class Todo(StrEnum):
    """What a keeper has to do about an account."""

    START = "start"
    """No auction, or one that must turn; maintenance margin is below 0."""
    END = "end"
    """Its auction is over."""
    DELEVERAGE = "deleverage"
    """Neither bids nor the insurance fund will do; `picks` says against whom."""


class LiquidationIndex:
    """See the module's text. `executed` after each block, then `look` until it returns False."""

    def __init__(self, view: StateView) -> None:
        self.looks = 0
        """Accounts looked at so far."""
        self.todo: dict[int, Todo] = {}
        """By account, in the order in which they were found."""
        self.picks: dict[int, Pick] = {}
        """Of accounts that are to be deleveraged."""
        self._view = view
        self._held: dict[int, tuple[int, ...]] = {}
        self._holders: dict[int, dict[int, None]] = {}
        self._pending: dict[int, None] = {}
        self._loading = range(0)
        self._versions: dict[int, int] = {}
        self._floors: dict[int, int] = {}
        """Cash down to which those who wait, or hold nothing, need not be looked at."""
        self._below: dict[bytes, list[tuple[int, int, int]]] = {}
        self._above: dict[bytes, list[tuple[int, int, int]]] = {}
        self._waiting: list[tuple[int, int, int]] = []

    def load(self, next_account: int) -> None:
        """All accounts below this number are to be looked at, once."""
        self._loading = range(1, next_account)

    def executed(self, block: ExecutedBlock) -> bool:
        """A block was executed: notes whom it has changed, or may have brought down.

        Whether looking is urgent. After trades alone it is not: they leave both sides with maintenance
        margin, or no less above it than before.
        """
        result = block.result
        for account in result.accounts:
            floor = self._floors.get(account)
            if floor is not None:
                leaf: Account = self._view.get(keys.account_key(account))
                if leaf.cash_uusd >= floor:
                    continue
            self._pending[account] = None
        for trade in result.trades:
            self._pending[trade.maker_account] = None
            self._pending[trade.taker_account] = None
        for settled in result.life:
            self._pending[settled.account] = None
        steps = [event for each in result.results for event in each.liquidations]
        for event in steps:
            self._pending[event.account] = None
            self._pending[event.other] = None
        if result.life or any(type(each.payload) is OracleUpdate for each in block.transactions):
            self._prices_changed()
            return True
        return bool(steps)

    def look(self, now_ms: int) -> bool:
        """Looks at some accounts; whether there are more."""
        while self._waiting and self._waiting[0][0] <= now_ms:
            _, account, version = heappop(self._waiting)
            self._note(account, version)
        left = SLICE
        while left and self._pending:
            account = next(iter(self._pending))
            del self._pending[account]
            self._look_at(account, now_ms)
            left -= 1
        for account in self._loading[:left]:
            self._look_at(account, now_ms)
        self._loading = self._loading[left:]
        return bool(self._pending or self._loading)

    def _note(self, account: int, version: int) -> None:
        if self._versions.get(account) == version:
            self._pending[account] = None

    def _prices_changed(self) -> None:
        for key, below in self._below.items():
            price, above = price_at(self._view, key), self._above[key]
            while below and -below[0][0] >= price:
                _, account, version = heappop(below)
                self._note(account, version)
            while above and above[0][0] <= price:
                _, account, version = heappop(above)
                self._note(account, version)
        for key, _ in self._view.iterate_under(bytes((keys.AUCTION,)), MAX_AUCTIONS):
            self._pending[int.from_bytes(key[1:9], "big")] = None

    def _look_at(self, account: int, now_ms: int) -> None:
        """Decides what there is to do about an account, or when to look at it again."""
        self.looks += 1
        self.todo.pop(account, None)
        self.picks.pop(account, None)
        self._floors.pop(account, None)
        version = self._versions.pop(account, 0) + 1
        view = self._view
        leaf: Account | None = view.get(keys.account_key(account))
        if leaf is None:
            return
        auction: Auction | None = view.get(keys.auction_key(account))
        held = holdings(view, account)
        self._remember(account, tuple(holding.market for holding in held))
        if not held and leaf.cash_uusd >= 0 and auction is None:
            self._floors[account] = 0
            return
        standing = health(view, account, leaf.cash_uusd)
        if auction is not None and (standing.buffer_uusd >= 0 or (not held and self._can_pay())):
            self.todo[account] = Todo.END
        elif standing.maintenance_uusd < 0:
            if auction is None or auction.kind != kind_of(standing):
                self.todo[account] = Todo.START
            elif is_last_resort(view, auction, standing.equity_uusd, now_ms):
                self._pick(account)
            if auction is not None:
                self._versions[account] = version
                heappush(self._waiting, (now_ms + MIN_WAIT_MS, account, version))
        else:
            self._wait(account, version, held, standing.maintenance_uusd, now_ms)
            if auction is None:
                self._floors[account] = leaf.cash_uusd - standing.maintenance_uusd // CASH_SHARE

    def _remember(self, account: int, markets: tuple[int, ...]) -> None:
        """Who holds what."""
        before = self._held.get(account, ())
        if markets == before:
            return
        for market in before:
            self._holders[market].pop(account, None)
        for market in markets:
            self._holders.setdefault(market, {})[account] = None
        self._held[account] = markets

    def _pick(self, account: int) -> None:
        found = pick(self._view, account, lambda market: self._holders.get(market, ()))
        if found is not None:
            self.todo[account] = Todo.DELEVERAGE
            self.picks[account] = found

    def _can_pay(self) -> bool:
        return bool(self._view.get(keys.SYSTEM_KEY).insurance_uusd > 0)

    def _wait(
        self, account: int, version: int, held: list[Holding], maintenance_uusd: int, now_ms: int
    ) -> None:
        exposure = 0
        prices: dict[bytes, int] = {}
        for holding in held:
            sources = sources_of(self._view, holding.market)
            prices.update(sources)
            exposure += abs(holding.size_ulots) * max(sources.values()) // ULOTS_PER_LOT
        if not exposure:
            return
        self._versions[account] = version
        spare_uusd = maintenance_uusd - maintenance_uusd // CASH_SHARE
        distance_ppm = spare_uusd * PPM // (SENSITIVITY * exposure)
        for key, price in prices.items():
            reach = price * distance_ppm // PPM
            self._above.setdefault(key, [])
            heappush(self._below.setdefault(key, []), (reach - price, account, version))
            heappush(self._above[key], (price + reach, account, version))
        wait_ms = min(max(distance_ppm * WAIT_MS_PER_PPM, MIN_WAIT_MS), MAX_WAIT_MS)
        heappush(self._waiting, (now_ms + wait_ms, account, version))


def sources_of(view: StateView, market: int) -> dict[bytes, int]:
    """Keys of the leaves with the prices that a market's margin depends on, and these prices."""
    terms: Instrument = view.get(keys.instrument_key(market))
    found = [bytes((keys.FEED,)) + terms.underlying]
    found.append(keys.pricing_key(terms.expiry) if terms.expiry else keys.market_key(market))
    return {key: price_at(view, key) for key in found}


def price_at(view: StateView, key: bytes) -> int:
    """The price in a Feed, Market or Pricing leaf; 0 when there is none."""
    leaf: Feed | Market | Pricing | None = view.get(key)
    if isinstance(leaf, Feed):
        return leaf.value_uusd
    if isinstance(leaf, Market):
        return leaf.mark_uusd
    return 0 if leaf is None else leaf.forward_uusd


def in_order(todo: Iterable[tuple[int, Todo]]) -> list[tuple[int, Todo]]:
    """Auctions are started before anything else is done."""
    return sorted(todo, key=lambda item: item[1] is not Todo.START)
