"""What an action pays for the risk that its orders add; into the insurance fund.

In a market of a perpetual, with `size`, `buy` and `sell` being position and open orders of the account there,

    loss = max((size + buy) * down, (sell - size) * up, 0) * mark * rate

is the rate on what the worst scenarios of its margin grid cost if either side were filled. The fee is by how
much the action raises it: 0 for what only reduces, and for a replacement that is no larger. Everything that
an action places counts as placed, everything that it cancels as cancelled. The Market leaf has `down` and
`up` times mark and rate, made anew with every mark. Where dated instruments are traded it
is the account's initial requirement, before and after, from the margin engine (`risk_dated_ppm`, 0 unless the
governor says otherwise: it asks the engine twice for every order).

    rate = min(risk_ppm * (1 + volatility + interest + strain), risk_most_ppm)

- volatility: the variance of the index over the reference's, from an exponential average of squared moves;
- interest: what is open in the market, at the index, over `open_interest_uusd`;
- strain: how far the insurance fund is below `fund_target_ppm` of what is open in the market, 0 to 1.

- iFEE_008 An action that does not raise the worst loss of its account pays nothing for risk.
- iFEE_009 The rate is within risk_ppm and risk_most_ppm; more variance, more open interest, or less insurance
  fund never lowers it.
"""

from __future__ import annotations

from typing import Final

from state.actions import Action, BulkOrders, ExecuteQuote, Order, PlaceOrder, PlaceTrigger, ReplaceOrder
from state.fee_market import terms_of
from state.keys import (
    FEED,
    INDEX_VARIANCE,
    MAX_U64,
    SYSTEM_KEY,
    account_order_key,
    expiry_key,
    instrument_key,
    market_key,
    name_key,
    order_key,
    position_key,
    pricing_key,
)
from state.leaves import (
    AccountOrder,
    Expiry,
    Feed,
    FeeTerms,
    IndexVariance,
    Instrument,
    Kind,
    Market,
    Position,
    Pricing,
    RestingOrder,
    Status,
    System,
)
from state.margin import NO_CHANGES, Changes, requirement
from state.margin_terms import grids_of
from state.positions import funding_owed
from state.units import MAX_NOTIONAL_UUSD, MAX_SIZE_ULOTS, MS_PER_S, PPB, PPM, ULOTS_PER_LOT
from state.view import StateView

YEAR_S: Final = 31_536_000
_PPB_PER_PPM: Final = 1_000
_VARIANCE: Final = bytes((INDEX_VARIANCE,))
_FEED: Final = bytes((FEED,))
_PERPETUAL: Final = int(Kind.PERPETUAL)
_TRADING: Final = int(Status.TRADING)
_MAX_U32: Final = 2**32 - 1
_SCALE: Final = PPM * PPM
"""Of the rates, and of what a Market leaf has of them for an ulot."""
_MANY: Final = (BulkOrders, ReplaceOrder, ExecuteQuote)

Added = dict[int, tuple[int, int]]
"""By market: how much an action adds to its account's open buys and sells, in ulots; may be below 0."""


def risk_uusd(view: StateView, action: Action) -> int:
    """The risk part of an action's fee. Its markets must be known; nothing else need be right about it."""
    if type(action) is PlaceOrder or type(action) is PlaceTrigger:
        order = action.order
    elif type(action) in _MANY:
        added = _added(view, action)
        return -(-_of_many(view, action.account, added) // _SCALE) if added else 0
    else:
        return 0
    if order.reduce_only:
        return 0
    market = order.market
    state: Market = view.get(market_key(market))
    instrument: Instrument = view.get(instrument_key(market))
    size = order.size_ulots
    if size > instrument.max_size_ulots:
        # It will be refused, but for its size and not for its fee.
        size = instrument.max_size_ulots
    if state.risk_long:
        position: Position | None = view.get(position_key(action.account, market))
        if position is None:
            return -(-size * (state.risk_short if order.side else state.risk_long) // _SCALE)
        buy, sell = (0, size) if order.side else (size, 0)
        return -(-_linear(position, state, buy, sell) // _SCALE)
    added = {market: (0, size) if order.side else (size, 0)}
    return -(-_of_many(view, action.account, added) // _SCALE)


def _of_many(view: StateView, account: int, added: Added) -> int:
    """Rates times what the worst losses rise by, in several markets."""
    terms = terms_of(view)
    if terms.risk_dated_ppm:
        for market in added:
            instrument: Instrument = view.get(instrument_key(market))
            if instrument.kind != _PERPETUAL:
                return _engine(view, terms, account, added)
    total = 0
    for market, (buy, sell) in added.items():
        if buy > 0 or sell > 0:
            state: Market = view.get(market_key(market))
            position: Position | None = view.get(position_key(account, market))
            total += _linear(position, state, buy, sell)
    return total


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
            _add(added, leg.market, 1 - leg.side, _counted(view, leg.market, leg.size_ulots))
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
                _add(added, order.market, order.side, _counted(view, order.market, order.size_ulots))
    return added


def _add(added: Added, market: int, side: int, size_ulots: int) -> None:
    buy, sell = added.get(market, (0, 0))
    added[market] = (buy, sell + size_ulots) if side else (buy + size_ulots, sell)


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
        _add(added, market, entry.side, left - order.size_ulots)


def _linear(position: Position | None, state: Market, buy: int, sell: int) -> int:
    """What the worst loss in a perpetual's market rises by, with its rate; 0 in others, whose rates are 0."""
    long_rate, short_rate = state.risk_long, state.risk_short
    long = short = 0
    if position is not None:
        long = position.size_ulots + position.open_buy_ulots
        short = position.open_sell_ulots - position.size_ulots
    before = max(long * long_rate, short * short_rate)
    after = max((long + buy) * long_rate, (short + sell) * short_rate)
    return max(0, after - max(0, before))


def _engine(view: StateView, terms: FeeTerms, account: int, added: Added) -> int:
    """Rate times what the account's initial requirement rises by; the rate of its dearest market.

    Markets in which nothing can be placed, or not so much, are left out: their orders will be refused.
    """
    changes: Changes = {}
    rate = 0
    for market, (buy, sell) in added.items():
        state: Market = view.get(market_key(market))
        instrument: Instrument = view.get(instrument_key(market))
        price = state.mark_uusd
        if instrument.expiry:
            expiry: Expiry = view.get(expiry_key(instrument.expiry))
            pricing: Pricing | None = view.get(pricing_key(instrument.expiry))
            if expiry.status != _TRADING or pricing is None:
                continue
            price = pricing.forward_uusd
        size = quote = 0
        leaf: Position | None = view.get(position_key(account, market))
        if leaf is not None:
            size = leaf.size_ulots
            quote = leaf.quote_uusd - funding_owed(size, leaf.funding_index_nusd, state.funding_index_nusd)
            buy, sell = leaf.open_buy_ulots + buy, leaf.open_sell_ulots + sell
        widest = max(size + buy, sell - size)
        if widest > MAX_SIZE_ULOTS or widest * price > MAX_NOTIONAL_UUSD * ULOTS_PER_LOT:
            continue
        changes[market] = size, quote, buy, sell
        rate = max(rate, _rate(view, terms, terms.risk_dated_ppm, state, instrument.underlying))
    _, before = requirement(view, account, 0, NO_CHANGES)
    _, after = requirement(view, account, 0, changes)
    return max(0, after - before) * rate


def _rate(view: StateView, terms: FeeTerms, base_ppm: int, state: Market, underlying: bytes) -> int:
    """Millionths of a ppm."""
    index: Feed = view.get(_FEED + underlying)
    open_uusd = state.open_interest_ulots * index.value_uusd // ULOTS_PER_LOT
    system: System = view.get(SYSTEM_KEY)
    variance: IndexVariance | None = view.get(_VARIANCE + underlying)
    per_s = 0 if variance is None else variance.ppb2_per_s
    return rate_of(terms, base_ppm, per_s, open_uusd, system.insurance_uusd)


def rate_of(terms: FeeTerms, base_ppm: int, ppb2_per_s: int, open_uusd: int, fund_uusd: int) -> int:
    """The rate in millionths of a ppm, from what it depends on."""
    reference = terms.volatility_ppm * _PPB_PER_PPM
    volatility = ppb2_per_s * YEAR_S * PPM // (reference * reference)
    interest = open_uusd * PPM // terms.open_interest_uusd
    wanted = open_uusd * terms.fund_target_ppm // PPM
    strain = (wanted - fund_uusd) * PPM // wanted if wanted > fund_uusd else 0
    return min(base_ppm * (PPM + volatility + interest + strain), max(base_ppm, terms.risk_most_ppm) * PPM)


def note_mark(view: StateView, market: int) -> None:
    """A perpetual has a new mark: what risk in it costs until the next one."""
    instrument: Instrument = view.get(instrument_key(market))
    state: Market = view.get(market_key(market))
    if instrument.kind != _PERPETUAL:
        return
    terms = terms_of(view)
    grids = grids_of(view, instrument.underlying)
    rate = _rate(view, terms, terms.risk_ppm, state, instrument.underlying)
    state.risk_long = min(-(-rate * grids.down_ppm * state.mark_uusd // _SCALE), MAX_U64)
    state.risk_short = min(-(-rate * grids.up_ppm * state.mark_uusd // _SCALE), MAX_U64)
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
