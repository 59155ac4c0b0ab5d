"""What an account has of each underlying, read from the leaves, and what that must be held against.

`perpetual_measure` is for accounts of perpetuals, one for each underlying: nearly all orders come from them,
and the worst scenario of a perpetual is that of the largest damped move, so everything is a few products.
`parts_of` and `measure` are for all others. Both give what `portfolio` gives (iMARGIN_020).

- iMARGIN_023 Whether given cash covers a requirement is the same by the bound as by the requirement.
"""

from __future__ import annotations

from typing import Final

from state.expiry_books import Book, Held, book_of, fill_arrays
from state.expiry_sums import ExpiryHolding, ExpirySums
from state.fixed import BITS, ONE
from state.keys import FEED, MARGIN, PARAMETERS_KEY, instrument_key, market_key, positions_prefix, pricing_key
from state.leaves import Feed, Instrument, Kind, Market, Parameters, Position, Pricing, Status
from state.margin_terms import DEFAULT_GRIDS, Grids, grids_of
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
from state.pricing import STABLE_KEY, settlement_uusd
from state.units import MAX_POSITIONS, PPM, ULOTS_PER_LOT
from state.view import StateView

Change = tuple[int, int, int, int]
"""(size, quote with funding settled, open buys, open sells) of a market."""
Changes = dict[int, Change]
"""By market: what it would be there; other markets stay as they are."""
NO_CHANGES: Final[Changes] = {}
Perpetual = tuple[Feed, int, int, int, int]
"""(feed of the mark, mark, size, open buys, open sells)."""

_FEED: Final = bytes((FEED,))
_MARGIN: Final = bytes((MARGIN,))
_SETTLING: Final = int(Status.SETTLING)
_PERPETUAL: Final = int(Kind.PERPETUAL)
_FUTURE: Final = int(Kind.FUTURE)
_CALL: Final = int(Kind.CALL)
_UNIT: Final = ULOTS_PER_LOT << BITS
"""Grains in a uusd."""
_FINE_UNIT: Final = _UNIT << BITS
_ROUNDED_UUSD: Final = 4
"""More than what rounding adds to a perpetual's requirement."""
EXACTLY: Final = -(2**63)
"""No cash, of which nothing is covered."""
_KEYS_KEPT: Final = 65_536


class Measure:
    """Of an account without its cash, in uusd. Maintenance is 0 where open orders are counted."""

    __slots__ = ("equity_uusd", "fresh", "initial_uusd", "maintenance_uusd")

    def __init__(self, equity_uusd: int, initial_uusd: int, maintenance_uusd: int, fresh: bool) -> None:
        self.equity_uusd = equity_uusd
        self.initial_uusd = initial_uusd
        self.maintenance_uusd = maintenance_uusd
        self.fresh = fresh
        """Whether all feeds are fresh that it rests on; False also where that was not looked at."""


def x56(ppm: int) -> int:
    """Millionths, rounded down."""
    return (ppm << BITS) // PPM


def stable_price(view: StateView) -> int:
    """Dollars that the collateral is worth, x56, not below what the engine takes."""
    feed: Feed | None = view.get(STABLE_KEY)
    if feed is None or feed.version == 0:
        return ONE
    price = x56(feed.value_uusd)
    return price if price > MIN_STABLE_PRICE else MIN_STABLE_PRICE


def linear_initial(
    grids: Grids,
    spot: int,
    held: int,
    buys: int,
    sells: int,
    widest: int,
    confidence_ppm: int,
    stable: int,
) -> int:
    """What perpetuals require initially. `held`, `buys`, `sells`: size times mark; `widest`: the largest size
    that orders can make."""
    up, down = sells - held, held + buys
    loss = down * grids.down
    if up > down or grids.up > grids.down:
        other = up * grids.up
        if other > loss:
            loss = other
    notional = widest * spot
    required = -(-notional * grids.mm_perp // _UNIT) - (-notional * grids.im_perp // _UNIT)
    if confidence_ppm < grids.threshold_ppm:
        required -= -notional * doubt(grids.grid.parameters, x56(confidence_ppm)) // _UNIT
    if loss <= 0:
        return required
    factor = grids.im_factor
    if stable < ONE:
        factor = initial_factor(grids.grid.parameters, stable)
    if factor == ONE:
        return required - (-loss // _FINE_UNIT)
    return required - ((-loss >> BITS) * factor >> BITS) // _UNIT


def linear_maintenance(grids: Grids, spot: int, held: int, size: int) -> int:
    """What perpetuals require to be maintained; `size`: the sum of sizes either side of 0."""
    loss = held * grids.down if held > 0 else -held * grids.up
    worst = (-loss >> BITS) * grids.mm_factor >> BITS
    return -(-size * spot * grids.mm_perp // _UNIT) - worst // _UNIT


def perpetual_measure(
    view: StateView,
    account: int,
    changes: Changes,
    with_orders: bool,
    now_ms: int,
    cash_uusd: int = EXACTLY,
) -> Measure | None:
    """The measure of an account that has perpetuals alone, one for each underlying; None for any other.

    Feeds are judged fresh at `now_ms`. Where `cash_uusd` covers even a bound of the initial requirement,
    `initial_uusd` is that bound: the answer is the same, and nearly all who trade are answered so.
    """
    rough = with_orders and cash_uusd > EXACTLY
    get = view.get
    stable = stable_price(view)
    rough = rough and stable >= ONE
    parameters: Parameters = get(PARAMETERS_KEY)
    max_age_ms = parameters.oracle_max_age_ms
    equity = initial = maintenance = bound = 0
    until_ms = now_ms
    backing: Feed | None = get(STABLE_KEY)
    if backing is not None and backing.version:
        until_ms = min(until_ms, backing.timestamp_ms + (backing.heartbeat_ms or max_age_ms))
    seen: list[bytes] = []
    terms: Instrument
    state: Market
    index: Feed
    feed: Feed
    rows = view.iterate_under(positions_prefix(account), MAX_POSITIONS)
    count = len(rows)
    changed = list(changes.items())
    for place in range(count + len(changed)):
        if place < count:
            key: bytes = rows[place][0]
            number, terms_key, state_key = _keys_of(key[9:13])
            if number in changes:
                continue
            terms = get(terms_key)
            state = get(state_key)
            leaf: Position = rows[place][1]
            size, quote = leaf.size_ulots, leaf.quote_uusd
            buy, sell = leaf.open_buy_ulots, leaf.open_sell_ulots
            if leaf.funding_index_nusd != state.funding_index_nusd:
                change = leaf.funding_index_nusd - state.funding_index_nusd
                quote += size * change // NUSD_ULOTS_PER_UUSD
        else:
            number, (size, quote, buy, sell) = changed[place - count]
            terms = get(instrument_key(number))
            state = get(market_key(number))
        if terms.kind != _PERPETUAL or terms.underlying in seen:
            return None
        seen.append(terms.underlying)
        mark = state.mark_uusd
        equity += quote + size * mark // ULOTS_PER_LOT
        if not with_orders:
            buy = sell = 0
        widest = size + buy
        if sell - size > widest:
            widest = sell - size
        if widest == 0:
            continue
        index = get(_FEED + terms.underlying)
        feed = get(_FEED + terms.name)
        age_ms = index.timestamp_ms + (index.heartbeat_ms or max_age_ms)
        if age_ms < until_ms:
            until_ms = age_ms
        age_ms = feed.timestamp_ms + (feed.heartbeat_ms or max_age_ms)
        if age_ms < until_ms:
            until_ms = age_ms
        confidence_ppm = index.confidence_ppm
        if feed.confidence_ppm < confidence_ppm:
            confidence_ppm = feed.confidence_ppm
        grids = DEFAULT_GRIDS
        if get(_MARGIN + terms.underlying) is not None:
            grids = grids_of(view, terms.underlying)
        spot = index.value_uusd
        if rough and confidence_ppm >= grids.threshold_ppm:
            bound += widest * (mark if mark > spot else spot) * grids.initial_ppm
            continue
        rough = False
        held = size * mark
        initial += linear_initial(grids, spot, held, buy * mark, sell * mark, widest, confidence_ppm, stable)
        if not with_orders:
            maintenance += linear_maintenance(grids, spot, held, widest)
    if bound:
        initial = bound // (PPM * ULOTS_PER_LOT) + _ROUNDED_UUSD * (len(seen) + 1)
        if not rough or cash_uusd + equity < initial:
            return perpetual_measure(view, account, changes, with_orders, now_ms)
    return Measure(equity, initial, maintenance, until_ms >= now_ms)


class Dated:
    """What an account has of one expiry."""

    def __init__(self, terms: Instrument, pricing: Pricing, grids: Grids) -> None:
        self.terms = terms
        """Of an option, if there is one: what tells which feeds are needed."""
        self.pricing = pricing
        self.book: Book = book_of(pricing, terms.expiry, terms.expiry_s, grids)
        self.options: list[Held] = []
        self.sums: ExpirySums | None = None
        self.future: int = 0
        self.future_buy: int = 0
        self.future_sell: int = 0

    def is_summed(self) -> bool:
        """Whether the sums of its options are remembered. Brings them into their order."""
        if len(self.options) > 1:
            self.options.sort()
        self.sums = self.book.sums.get(tuple(self.options))
        return self.sums is not None

    def holding(self) -> ExpiryHolding:
        """Its sums or its arrays must be there, and its options in order."""
        sums = self.sums
        if sums is None:
            sums = self.book.sums_of(tuple(self.options))
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

    def linear_margin(self, stable: int, with_orders: bool) -> tuple[int, int, int]:
        """(mark to market, initial, maintenance) of perpetuals alone, the last two as requirements."""
        confidence_ppm = self.index.confidence_ppm
        held = buys = sells = widest = 0
        for feed, mark, size, buy, sell in self.perpetuals:
            held += size * mark
            buys += buy * mark
            sells += sell * mark
            widest += size + buy if size + buy > sell - size else sell - size
            if feed.confidence_ppm < confidence_ppm:
                confidence_ppm = feed.confidence_ppm
        grids, spot = self.grids, self.index.value_uusd
        initial = linear_initial(grids, spot, held, buys, sells, widest, confidence_ppm, stable)
        maintenance = 0 if with_orders else linear_maintenance(grids, spot, held, widest)
        return self.unrealised, initial, maintenance

    def full_margin(self, stable: int) -> UnderlyingMargin:
        """The general form."""
        grid = self.grids.grid
        missing = [(each.book, each.options) for each in self.dated.values() if not each.is_summed()]
        if missing:
            fill_arrays(grid, missing)
        perps = [
            PerpHolding(size, mark, x56(feed.confidence_ppm), buy, sell)
            for feed, mark, size, buy, sell in self.perpetuals
        ]
        expiries = [each.holding() for each in self.dated.values()]
        confidence = x56(self.index.confidence_ppm)
        holding = UnderlyingHolding(grid, self.index.value_uusd, confidence, self.unrealised, perps, expiries)
        return underlying_margin(holding, stable, ULOTS_PER_LOT)


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


_keys: Final[dict[bytes, tuple[int, bytes, bytes]]] = {}


def _keys_of(number: bytes) -> tuple[int, bytes, bytes]:
    """The market whose number stands in a position's key, and keys of its instrument and market."""
    found = _keys.get(number)
    if found is None:
        if len(_keys) >= _KEYS_KEPT:
            _keys.clear()
        market = int.from_bytes(number, "big")
        found = _keys[number] = market, instrument_key(market), market_key(market)
    return found


def measure(view: StateView, parts: list[Part], settling: int, with_orders: bool) -> Measure:
    """Of what `parts_of` found; underlyings do not offset each other."""
    equity, initial, maintenance = settling, 0, 0
    stable = stable_price(view)
    for part in parts:
        if part.dated:
            full = part.full_margin(stable)
            mark = full.mark_to_market
            initial += mark - full.initial_margin
            maintenance += mark - full.maintenance_margin
        else:
            mark, of_initial, of_maintenance = part.linear_margin(stable, with_orders)
            initial += of_initial
            maintenance += of_maintenance
        equity += mark
    return Measure(equity, initial, 0 if with_orders else maintenance, False)
