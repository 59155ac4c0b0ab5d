"""What an action pays for the risk that its orders add; into the insurance fund.

In each market, with `size`, `buy` and `sell` being position and open orders of the account there,

    loss = max((size + buy) * down, (sell - size) * up, 0) * price * rate

is the rate on what the worst scenarios of the margin grid cost if either side were filled. The fee is by how
much the action raises it: 0 for what only reduces, and for a replacement that is no larger. Everything that
an action places counts as placed, everything that it cancels as cancelled; what a post-only order adds counts
by `risk_resting_ppm`, since most quotes are gone before they trade. Of a perpetual and a future `down` and
`up` are the grid's largest damped moves, at the mark; of an option what one bought, and one sold, loses in
the worst scenario of its risk array, as a part of the forward. That needs no look at the account's other
markets, so it costs little; it also gives no rebate for hedges, and asks nothing of the margin engine. A
Market leaf of a perpetual has `down` and `up` times mark and rate, made anew with every mark.

    rate = min(risk_ppm * (1 + volatility + interest + strain), risk_most_ppm)

- volatility: the variance of the index over the reference's, from an exponential average of squared moves;
- interest: what is open in the market, at the index, over `open_interest_uusd`;
- strain: how far the insurance fund is below `fund_target_ppm` of what is open in the market, 0 to 1.

Why 1 ppm and one in fifty: PROTOCOL 8.13.

- iFEE_008 An action that raises the worst loss of its account in no market pays nothing for risk.
- iFEE_009 The rate is within risk_ppm and risk_most_ppm; more variance, more open interest, or less insurance
  fund never lowers it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from state.actions import (
    Action,
    BulkOrders,
    ExecuteQuote,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    ReplaceOrder,
)
from state.expiry_books import book_of
from state.fee_market import terms_of
from state.keys import (
    FEED,
    INDEX_VARIANCE,
    MAX_U64,
    SYSTEM_KEY,
    account_order_key,
    instrument_key,
    market_key,
    name_key,
    order_key,
    position_key,
)
from state.leaves import (
    AccountOrder,
    Feed,
    FeeTerms,
    IndexVariance,
    Instrument,
    Kind,
    Market,
    Position,
    RestingOrder,
    Status,
    System,
)
from state.margin_terms import grids_of
from state.pricing import pricing_of, settlement_uusd
from state.units import MS_PER_S, PPB, PPM, ULOTS_PER_LOT
from state.view import StateView

YEAR_S: Final = 31_536_000
_PPB_PER_PPM: Final = 1_000
_VARIANCE: Final = bytes((INDEX_VARIANCE,))
_FEED: Final = bytes((FEED,))
_PERPETUAL: Final = int(Kind.PERPETUAL)
_FUTURE: Final = int(Kind.FUTURE)
_CALL: Final = int(Kind.CALL)
_SETTLING: Final = int(Status.SETTLING)
_MAX_U32: Final = 2**32 - 1
_SCALE: Final = PPM * PPM
"""Of the rates, and of what a Market leaf has of them for an ulot."""
_MANY: Final = (BulkOrders, ReplaceOrder, ExecuteQuote)
_POST_ONLY: Final = OrderKind.POST_ONLY

Sizes = tuple[int, int, int, int]
"""What an action adds to its account's open buys and sells in a market, in ulots: of orders that may trade at
once, less what it cancels, may be below 0; and of post-only orders."""
Added = dict[int, Sizes]
"""By market."""


class Worst(NamedTuple):
    """What one unit may lose in the worst scenario."""

    price_uusd: int
    """Of a lot of the underlying; the next two are parts of it."""
    down_ppm: int
    """If it was bought."""
    up_ppm: int
    """If it was sold."""


def risk_uusd(view: StateView, action: Action) -> int:
    """The risk part of an action's fee. Its markets must be known; nothing else need be right about it."""
    if type(action) is PlaceOrder or type(action) is PlaceTrigger:
        order = action.order
    elif type(action) in _MANY:
        total = 0
        for market, sizes in _added(view, action).items():
            total += _raised(view, action.account, market, sizes)
        return -(-total // _SCALE)
    else:
        return 0
    if order.reduce_only:
        return 0
    size = _counted(view, order.market, order.size_ulots)
    return -(-_raised(view, action.account, order.market, _sizes(order, size)) // _SCALE)


def _sizes(order: Order, size_ulots: int) -> Sizes:
    buy, sell = (0, size_ulots) if order.side else (size_ulots, 0)
    return (0, 0, buy, sell) if order.kind is _POST_ONLY else (buy, sell, 0, 0)


def _raised(view: StateView, account: int, market: int, sizes: Sizes) -> int:
    """Rate times what the worst loss in a market rises by."""
    buy, sell, resting_buy, resting_sell = sizes
    if buy <= 0 and sell <= 0 and not (resting_buy or resting_sell):
        return 0
    long_rate, short_rate = _rates(view, market)
    long = short = 0
    position: Position | None = view.get(position_key(account, market))
    if position is not None:
        long = position.size_ulots + position.open_buy_ulots
        short = position.open_sell_ulots - position.size_ulots
    before = max(long * long_rate, short * short_rate, 0)
    long += buy
    short += sell
    after = max(long * long_rate, short * short_rate, 0)
    if not (resting_buy or resting_sell):
        return max(0, after - before)
    most = max((long + resting_buy) * long_rate, (short + resting_sell) * short_rate, before)
    at_once = max(0, after - before)
    resting_ppm = terms_of(view).risk_resting_ppm
    return at_once - (-(most - before - at_once) * resting_ppm // PPM)


def _counted(view: StateView, market: int, size_ulots: int) -> int:
    """What counts of an order's size: no more than an order may have, so that what is larger is refused for
    its size and not for its fee."""
    instrument: Instrument = view.get(instrument_key(market))
    return min(size_ulots, instrument.max_size_ulots)


def _added(view: StateView, action: Action) -> Added:
    """Of an action of many parts, and of those that place nothing."""
    added: Added = {}
    if isinstance(action, ExecuteQuote):
        for leg in action.quote.legs:
            if not 0 < leg.market <= _MAX_U32 or view.get(instrument_key(leg.market)) is None:
                continue
            # The quote says what its maker does; the taker has the other side.
            size = _counted(view, leg.market, leg.size_ulots)
            _add(added, leg.market, (size, 0, 0, 0) if leg.side else (0, size, 0, 0))
    elif isinstance(action, ReplaceOrder):
        replaced = action.replacement
        _take(view, added, action.account, replaced.market, replaced.order_id, replaced.size_ulots)
    elif isinstance(action, BulkOrders):
        seen: set[tuple[int, int]] = set()
        # Only the first mention of an order counts: it is gone, or another, when the second comes.
        for cancel in action.cancels:
            if (cancel.market, cancel.order_id) not in seen:
                seen.add((cancel.market, cancel.order_id))
                _take(view, added, action.account, cancel.market, cancel.order_id, 0)
        for each in action.replacements:
            if (each.market, each.order_id) not in seen:
                seen.add((each.market, each.order_id))
                _take(view, added, action.account, each.market, each.order_id, each.size_ulots)
        order: Order
        for order in action.orders:
            if not order.reduce_only:
                _add(added, order.market, _sizes(order, _counted(view, order.market, order.size_ulots)))
    return added


def _add(added: Added, market: int, sizes: Sizes) -> None:
    found = added.get(market)
    if found is not None:
        sizes = (found[0] + sizes[0], found[1] + sizes[1], found[2] + sizes[2], found[3] + sizes[3])
    added[market] = sizes


def _take(view: StateView, added: Added, account: int, market: int, order_id: int, total_ulots: int) -> None:
    """An open order is cancelled (0), or replaced by one of this total size, filled part included."""
    entry: AccountOrder | None = None
    if 0 < market <= _MAX_U32:
        entry = view.get(account_order_key(account, market, order_id))
    if entry is None:
        return
    order: RestingOrder = view.get(order_key(market, entry.side, entry.price_uusd, entry.sequence))
    if not order.reduce_only:
        left = max(0, _counted(view, market, total_ulots) - order.filled_ulots) if total_ulots else 0
        size = left - order.size_ulots
        _add(added, market, (0, size, 0, 0) if entry.side else (size, 0, 0, 0))


def _rates(view: StateView, market: int) -> tuple[int, int]:
    """What risk of a long and of a short ulot costs, in 10^-12 uusd; 0 where nothing can be placed."""
    state: Market = view.get(market_key(market))
    instrument: Instrument = view.get(instrument_key(market))
    if instrument.kind == _PERPETUAL:
        return state.risk_long, state.risk_short
    worst = worst_of(view, state, instrument)
    if worst is None:
        return 0, 0
    return _by_ulot(worst, _rate(view, terms_of(view), state, instrument.underlying))


def worst_of(view: StateView, state: Market, instrument: Instrument) -> Worst | None:
    """What a unit of an instrument may lose; None of one that is dated and has no mark yet, or no
    longer trades."""
    grids = grids_of(view, instrument.underlying)
    if instrument.kind == _PERPETUAL:
        return Worst(state.mark_uusd, grids.down_ppm, grids.up_ppm)
    pricing = pricing_of(view, instrument.expiry)
    if pricing is None or instrument.status >= _SETTLING:
        return None
    if instrument.kind == _FUTURE:
        return Worst(settlement_uusd(pricing), grids.down_ppm, grids.up_ppm)
    if pricing.tau_s == 0:
        return None
    book = book_of(pricing, instrument.expiry, instrument.expiry_s, grids)
    down_ppm, up_ppm = book.worst_ppm(instrument.strike_uusd, int(instrument.kind == _CALL))
    return Worst(book.expiry.forward, down_ppm, up_ppm)


def _by_ulot(worst: Worst, rate: int) -> tuple[int, int]:
    price_uusd, down_ppm, up_ppm = worst
    return (
        min(-(-rate * down_ppm * price_uusd // _SCALE), MAX_U64),
        min(-(-rate * up_ppm * price_uusd // _SCALE), MAX_U64),
    )


def _rate(view: StateView, terms: FeeTerms, state: Market, underlying: bytes) -> int:
    """Millionths of a ppm."""
    index: Feed = view.get(_FEED + underlying)
    open_uusd = state.open_interest_ulots * index.value_uusd // ULOTS_PER_LOT
    system: System = view.get(SYSTEM_KEY)
    variance: IndexVariance | None = view.get(_VARIANCE + underlying)
    per_s = 0 if variance is None else variance.ppb2_per_s
    return rate_of(terms, per_s, open_uusd, system.insurance_uusd)


def rate_of(terms: FeeTerms, ppb2_per_s: int, open_uusd: int, fund_uusd: int) -> int:
    """The rate in millionths of a ppm, from what it depends on."""
    reference = terms.volatility_ppm * _PPB_PER_PPM
    volatility = ppb2_per_s * YEAR_S * PPM // (reference * reference)
    interest = open_uusd * PPM // terms.open_interest_uusd
    wanted = open_uusd * terms.fund_target_ppm // PPM
    strain = (wanted - fund_uusd) * PPM // wanted if wanted > fund_uusd else 0
    return min(terms.risk_ppm * (PPM + volatility + interest + strain), most_rate(terms))


def most_rate(terms: FeeTerms) -> int:
    """No rate is above it; in millionths of a ppm."""
    return max(terms.risk_ppm, terms.risk_most_ppm) * PPM


def note_mark(view: StateView, market: int) -> None:
    """A perpetual has a new mark: what risk in it costs until the next one."""
    instrument: Instrument = view.get(instrument_key(market))
    state: Market = view.get(market_key(market))
    if instrument.kind != _PERPETUAL:
        return
    grids = grids_of(view, instrument.underlying)
    worst = Worst(state.mark_uusd, grids.down_ppm, grids.up_ppm)
    rate = _rate(view, terms_of(view), state, instrument.underlying)
    state.risk_long, state.risk_short = _by_ulot(worst, rate)
    view.touch(market_key(market), state)


def note_move(view: StateView, name: str, from_uusd: int, to_uusd: int, elapsed_ms: int) -> None:
    """An index moved: its average variance, an exponential one over `variance_window_s`."""
    move_ppb = abs(to_uusd - from_uusd) * PPB // from_uusd
    window_ms = terms_of(view).variance_window_s * MS_PER_S
    key = name_key(INDEX_VARIANCE, name)
    leaf: IndexVariance | None = view.get(key)
    before = 0 if leaf is None else leaf.ppb2_per_s
    # before * window / (window + elapsed) + move^2 / elapsed * elapsed / (window + elapsed)
    after = (before * window_ms + move_ppb * move_ppb * MS_PER_S) // (window_ms + elapsed_ms)
    view.put(key, IndexVariance(after))
