"""What an account must hold against its positions and open orders: the portfolio margin on the state.

The one door to margin: everything that asks whether an account can carry something asks `requirement`, with
the hypothetical changes in as many markets as it has, or one of the rules below that are made of it. The
formulas are PROTOCOL.md's, sections 8.4 and 12. `portfolio` computes one underlying; what computes it for an
account of perpetuals alone stands here, since their worst scenario is that of the largest damped move.

Sizes and prices come from the leaves as they are: the last marks, the last pricing snapshots. Whether these
are fresh is asked separately (`demand_fresh`). What is remembered in memory (`expiry_books`) decides nothing.

- iMARGIN_020 A perpetual's closed form gives what `portfolio` gives.
- iMARGIN_022 With open orders counted, initial margin is no higher than after any fills of them at the marks.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final, NamedTuple

from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.expiry_books import Book, Held, book_of, fill_arrays
from state.expiry_sums import ExpiryHolding
from state.fixed import BITS, ONE
from state.keys import (
    FEED,
    PARAMETERS_KEY,
    account_key,
    instrument_key,
    market_key,
    positions_prefix,
    pricing_key,
)
from state.leaves import Account, Feed, Instrument, Kind, Market, Parameters, Position, Pricing, Status
from state.margin_terms import Grids, grids_of
from state.portfolio import (
    MIN_STABLE_PRICE,
    PerpHolding,
    UnderlyingHolding,
    UnderlyingMargin,
    doubt,
    initial_factor,
    underlying_margin,
)
from state.positions import NUSD_ULOTS_PER_UUSD
from state.pricing import STABLE_KEY, check_fresh, demand_feed, settlement_uusd, stable_uusd
from state.units import MAX_POSITIONS, PPM, ULOTS_PER_LOT
from state.view import StateView

Change = tuple[int, int, int, int]
"""(size, quote with funding settled, open buys, open sells) of a market."""
Changes = dict[int, Change]
"""By market: what it would be there; other markets stay as they are."""
Perpetual = tuple[Feed, int, int, int, int]
"""(feed of the mark, mark, size, open buys, open sells)."""
NO_CHANGES: Final[Changes] = {}

_FEED: Final = bytes((FEED,))
_SETTLING: Final = int(Status.SETTLING)
_PERPETUAL: Final = int(Kind.PERPETUAL)
_FUTURE: Final = int(Kind.FUTURE)
_CALL: Final = int(Kind.CALL)
_UNIT: Final = ULOTS_PER_LOT << BITS
"""Grains in a uusd."""


class Margin(NamedTuple):
    """What an account has and needs, in uusd."""

    equity_uusd: int
    initial_uusd: int
    """With its open orders."""
    maintenance_uusd: int
    """Of its positions alone."""
    available_uusd: int
    """equity - initial; may be negative."""
    withdrawable_uusd: int
    """What may leave: at most cash, at most available, never below 0."""


class HeldMargin(NamedTuple):
    """Of an account's positions, as if it had no open orders, in uusd."""

    equity_uusd: int
    initial_uusd: int
    maintenance_uusd: int


class Dated:
    """What an account has of one expiry."""

    def __init__(self, terms: Instrument, pricing: Pricing, grids: Grids) -> None:
        self.terms = terms
        """Of an option, if there is one: what tells which feeds are needed."""
        self.pricing = pricing
        self.book: Book = book_of(pricing, terms.expiry_s, grids)
        self.options: list[Held] = []
        self.future: int = 0
        self.future_buy: int = 0
        self.future_sell: int = 0

    def holding(self) -> ExpiryHolding:
        """Its arrays must be there."""
        options = self.options
        if len(options) > 1:
            options.sort()
        sums = self.book.sums_of(tuple(options))
        return ExpiryHolding(
            self.book.expiry, (), (), self.future, (), (), self.future_buy, self.future_sell, sums
        )


class Part:
    """What an account has of one underlying."""

    def __init__(self, view: StateView, terms: Instrument) -> None:
        self.underlying: bytes = terms.underlying
        self.index: Feed = view.get(_FEED + terms.underlying)
        self.grids: Grids = grids_of(view, terms.underlying)
        self.unrealised: int = 0
        """Cost of all positions, and what perpetuals and futures are worth at their marks."""
        self.perpetuals: list[Perpetual] = []
        self.dated: dict[int, Dated] = {}

    def add_perpetual(
        self, view: StateView, terms: Instrument, mark: int, size: int, buy: int, sell: int
    ) -> None:
        self.unrealised += size * mark // ULOTS_PER_LOT
        if size or buy or sell:
            feed: Feed = view.get(_FEED + terms.name)
            self.perpetuals.append((feed, mark, size, buy, sell))

    def add_dated(self, view: StateView, terms: Instrument, size: int, buy: int, sell: int) -> None:
        """A future or option, by its expiry's snapshot; what the future is worth counts here."""
        if not (size or buy or sell):
            return
        found = self.dated.get(terms.expiry)
        if found is None:
            pricing: Pricing = view.get(pricing_key(terms.expiry))
            found = self.dated[terms.expiry] = Dated(terms, pricing, self.grids)
        if terms.kind == _FUTURE:
            found.future, found.future_buy, found.future_sell = size, buy, sell
            self.unrealised += size * settlement_uusd(found.pricing) // ULOTS_PER_LOT
        else:
            found.terms = terms
            found.options.append((terms.strike_uusd, int(terms.kind == _CALL), size, buy, sell))

    def linear_margin(self, stable: int) -> tuple[int, int, int]:
        """(mark to market, initial, maintenance) of perpetuals alone, the last two as requirements."""
        grids = self.grids
        confidence_ppm = self.index.confidence_ppm
        held = buys = sells = exposure = 0
        for feed, mark, size, buy, sell in self.perpetuals:
            held += size * mark
            buys += buy * mark
            sells += sell * mark
            exposure += size + buy if size + buy > sell - size else sell - size
            if feed.confidence_ppm < confidence_ppm:
                confidence_ppm = feed.confidence_ppm
        loss = (held + buys) * grids.down
        if (sells - held) * grids.up > loss:
            loss = (sells - held) * grids.up
        worst = -loss >> BITS if loss > 0 else 0
        notional = exposure * self.index.value_uusd
        maintenance = -(-notional * grids.mm_perp // _UNIT)
        initial = maintenance - (-notional * grids.im_perp // _UNIT)
        confidence = _x56(confidence_ppm)
        if confidence < grids.threshold:
            initial -= -notional * doubt(grids.grid.parameters, confidence) // _UNIT
        factor = grids.im_factor
        if stable < ONE:
            factor = initial_factor(grids.grid.parameters, stable)
        initial -= (worst * factor >> BITS) // _UNIT
        maintenance -= (worst * grids.mm_factor >> BITS) // _UNIT
        return self.unrealised, initial, maintenance

    def full_margin(self, stable: int) -> UnderlyingMargin:
        """The general form."""
        grid = self.grids.grid
        fill_arrays(grid, [(each.book, each.options) for each in self.dated.values()])
        perps = [
            PerpHolding(size, mark, _x56(feed.confidence_ppm), buy, sell)
            for feed, mark, size, buy, sell in self.perpetuals
        ]
        expiries = [each.holding() for each in self.dated.values()]
        confidence = _x56(self.index.confidence_ppm)
        holding = UnderlyingHolding(grid, self.index.value_uusd, confidence, self.unrealised, perps, expiries)
        return underlying_margin(holding, stable, ULOTS_PER_LOT)


def _x56(ppm: int) -> int:
    """Millionths, rounded down."""
    return (ppm << BITS) // PPM


def parts_of(view: StateView, account: int, changes: Changes, with_orders: bool) -> tuple[int, list[Part]]:
    """(money in instruments that are being settled, all else by underlying)."""
    get = view.get
    parts: dict[bytes, Part] = {}
    settling = 0
    leaf: Position
    terms: Instrument
    state: Market
    for key, leaf in view.iterate_under(positions_prefix(account), MAX_POSITIONS):
        number, terms_key, state_key = _keys_of(key[9:13])
        if number in changes:
            continue
        terms, state = get(terms_key), get(state_key)
        size, quote = leaf.size_ulots, leaf.quote_uusd
        if leaf.funding_index_nusd != state.funding_index_nusd:
            quote += size * (leaf.funding_index_nusd - state.funding_index_nusd) // NUSD_ULOTS_PER_UUSD
        if with_orders:
            settling += _add(
                view, parts, terms, state, size, quote, leaf.open_buy_ulots, leaf.open_sell_ulots
            )
        else:
            settling += _add(view, parts, terms, state, size, quote, 0, 0)
    for number, (size, quote, buy, sell) in changes.items():
        terms, state = get(instrument_key(number)), get(market_key(number))
        if not with_orders:
            buy = sell = 0
        settling += _add(view, parts, terms, state, size, quote, buy, sell)
    return settling, list(parts.values())


def _add(
    view: StateView,
    parts: dict[bytes, Part],
    terms: Instrument,
    state: Market,
    size: int,
    quote: int,
    buy: int,
    sell: int,
) -> int:
    """Adds a position to its underlying's part; what it is worth if it is being settled."""
    if terms.status >= _SETTLING:
        return quote + size * state.mark_uusd // ULOTS_PER_LOT
    part = parts.get(terms.underlying)
    if part is None:
        part = parts[terms.underlying] = Part(view, terms)
    part.unrealised += quote
    if terms.kind == _PERPETUAL:
        part.add_perpetual(view, terms, state.mark_uusd, size, buy, sell)
    else:
        part.add_dated(view, terms, size, buy, sell)
    return 0


@lru_cache(4_096)
def _keys_of(number: bytes) -> tuple[int, bytes, bytes]:
    """The market whose number stands in a position's key, and keys of its instrument and market."""
    market = int.from_bytes(number, "big")
    return market, instrument_key(market), market_key(market)


def stable_price(view: StateView) -> int:
    """Dollars that the collateral is worth, x56, not below what the engine takes."""
    price = _x56(stable_uusd(view))
    return price if price > MIN_STABLE_PRICE else MIN_STABLE_PRICE


def _sum(view: StateView, settling: int, parts: list[Part]) -> HeldMargin:
    """Of all underlyings, without offset; equity without cash."""
    equity, initial, maintenance = settling, 0, 0
    stable = stable_price(view)
    for part in parts:
        if part.dated:
            full = part.full_margin(stable)
            mark = full.mark_to_market
            initial += mark - full.initial_margin
            maintenance += mark - full.maintenance_margin
        else:
            mark, of_initial, of_maintenance = part.linear_margin(stable)
            initial += of_initial
            maintenance += of_maintenance
        equity += mark
    return HeldMargin(equity, initial, maintenance)


def requirement(view: StateView, account: int, cash_uusd: int, changes: Changes) -> tuple[int, int]:
    """(equity, initial requirement) of `account` if it had this cash and these changes, its open orders
    counted as filled where that is worse."""
    settling, parts = parts_of(view, account, changes, True)
    found = _sum(view, settling, parts)
    return cash_uusd + found.equity_uusd, found.initial_uusd


def held_margin(view: StateView, account: int, cash_uusd: int, changes: Changes) -> HeldMargin:
    """Of `account` if it had this cash, these changes, and no open orders."""
    settling, parts = parts_of(view, account, changes, False)
    found = _sum(view, settling, parts)
    return found._replace(equity_uusd=cash_uusd + found.equity_uusd)


# Rules


def demand_placeable(
    view: StateView,
    block: BlockContext,
    account: int,
    cash_uusd: int,
    market: int,
    change: Change,
    delta: int,
    raises: bool,
) -> None:
    """iMARGIN_001. Whether an order for `delta` ulots may rest or match, so that `change` is what the account
    has in its market; raises Rejected.

    The account has initial margin then; or the order only reduces risk: with all of it filled, what the
    positions alone require initially is no more than now. If it raises (`raises`) what the market may come
    to, all feeds that the margin rests on must be fresh.
    """
    changes = {market: change}
    settling, parts = parts_of(view, account, changes, True)
    if raises:
        _demand_fresh(view, block, parts)
    found = _sum(view, settling, parts)
    equity, initial = cash_uusd + found.equity_uusd, found.initial_uusd
    if equity >= initial:
        return
    now = held_margin(view, account, cash_uusd, NO_CHANGES)
    filled = held_margin(view, account, cash_uusd, {market: (change[0] + delta, change[1], 0, 0)})
    if filled.initial_uusd > now.initial_uusd:
        raise Rejected(RejectCode.INSUFFICIENT_MARGIN, needed_uusd=initial, available_uusd=equity)


def carries(view: StateView, account: int, cash_uusd: int, changes: Changes, cash_now_uusd: int) -> bool:
    """iMARGIN_003, iMARGIN_004. Whether the account may come to have this cash and these changes by trading.

    It has initial margin then; or what its positions alone require initially is no more than now, and they
    leave maintenance margin, or no less above it than now.
    """
    equity, initial = requirement(view, account, cash_uusd, changes)
    if equity >= initial:
        return True
    now = held_margin(view, account, cash_now_uusd, NO_CHANGES)
    then = held_margin(view, account, cash_uusd, changes)
    if then.initial_uusd > now.initial_uusd:
        return False
    above = then.equity_uusd - then.maintenance_uusd
    return above >= 0 or above >= now.equity_uusd - now.maintenance_uusd


def withdrawable_uusd(view: StateView, block: BlockContext, account: int, cash_uusd: int) -> int:
    """What may leave an account of this cash: at most cash, at most what is above initial margin.

    Raises Rejected when that rests on a feed that is not fresh.
    """
    settling, parts = parts_of(view, account, NO_CHANGES, True)
    _demand_fresh(view, block, parts)
    found = _sum(view, settling, parts)
    return max(0, min(cash_uusd, cash_uusd + found.equity_uusd - found.initial_uusd))


def demand_fresh(view: StateView, block: BlockContext, account: int, changes: Changes) -> None:
    """Raises Rejected unless all feeds are fresh that the account's margin with these changes rests on."""
    _demand_fresh(view, block, parts_of(view, account, changes, True)[1])


def _demand_fresh(view: StateView, block: BlockContext, parts: list[Part]) -> None:
    """Raises Rejected, with the feed's code, unless all feeds of what is held or may come are fresh."""
    now_ms = block.timestamp_ms
    parameters: Parameters = view.get(PARAMETERS_KEY)
    stable: Feed | None = view.get(STABLE_KEY)
    if parts and stable is not None and stable.version:
        demand_feed(stable, parameters, now_ms, RejectCode.STABLE_STALE)
    for part in parts:
        if part.perpetuals or part.dated:
            demand_feed(part.index, parameters, now_ms, RejectCode.ORACLE_STALE)
        for each in part.perpetuals:
            demand_feed(each[0], parameters, now_ms, RejectCode.ORACLE_STALE)
        for dated in part.dated.values():
            check_fresh(view, block, dated.terms)


# As it stands


def margin(view: StateView, account: int) -> Margin | None:
    """The account as it stands, at the last known marks; None when there is no such account."""
    leaf: Account | None = view.get(account_key(account))
    return None if leaf is None else margin_with_cash(view, account, leaf.cash_uusd)


def margin_with_cash(view: StateView, account: int, cash_uusd: int) -> Margin:
    """`margin` if the account had this cash."""
    equity, initial = requirement(view, account, cash_uusd, NO_CHANGES)
    maintenance = held_margin(view, account, cash_uusd, NO_CHANGES).maintenance_uusd
    available = equity - initial
    withdrawable = max(0, min(cash_uusd, available))
    return Margin(equity, initial, maintenance, available, withdrawable)
