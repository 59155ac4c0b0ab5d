"""The end of dated instruments: the settlement average, settlement, delisting; one bounded step at a time.

The settlement price of an expiry is the average of its underlying's index over SETTLEMENT_WINDOW_MS, from
half an hour before the expiry on. A reported value holds from its time until the next one's, but no longer
than its heartbeat: time without a fresh index does not count, so an outage lets the window, and settlement
with it, end later by its own length. Nothing is guessed: the last piece of the window is known only from a
report at or after its end.

From its expiry on nothing trades in an instrument. When the price is known, block time drives the rest: for
one instrument after another its resting orders are cancelled, its positions turned into cash, then it is
settled; a day later the leaves go.

- iEXPIRY_002 An expiry settles at the average of exactly SETTLEMENT_WINDOW_MS of fresh index values, none
  from before the window's start.
- iEXPIRY_003 A position settles for `quote + floor(size * payoff / 10^6)`; what these roundings leave of an
  instrument goes to the insurance fund: no unit appears or vanishes.
- iEXPIRY_004 A settled instrument has no orders and no positions; a delisted one has no leaves.
"""

from __future__ import annotations

from typing import Final

from state.block import LifeChange, LifeEvent, OrderEnd
from state.calendar import DAY_S, MAX_UNDERLYING_BYTES, expiry_name
from state.context import BlockContext
from state.holdings import close_position
from state.keys import (
    FEED,
    LISTINGS_KEY,
    MARKET_NAME,
    RATE,
    SURFACE,
    SYSTEM_KEY,
    account_key,
    due_key,
    expiries_prefix,
    expiry_key,
    expiry_market_key,
    expiry_markets_prefix,
    expiry_of_key,
    instrument_key,
    market_key,
    market_positions_prefix,
    market_triggers_prefix,
    name_key,
    order_book_prefix,
    parse_expiry_market,
    parse_market_trigger,
    position_key,
    pricing_key,
)
from state.leaves import (
    Account,
    Due,
    Expiry,
    Feed,
    Instrument,
    Kind,
    Listings,
    Marker,
    Market,
    Position,
    Status,
    System,
)
from state.orders import remove
from state.pricing import fixed_part
from state.trigger_book import find_trigger, remove_trigger
from state.units import MAX_CASH_UUSD, MAX_EXPIRIES, MS_PER_S, SETTLEMENT_WINDOW_MS, ULOTS_PER_LOT
from state.view import StateView

OPEN_STAGE: Final = 0
SETTLED_STAGE: Final = 1
_SETTLING: Final = int(Status.SETTLING)
_SETTLED: Final = int(Status.SETTLED)
_TRADING: Final = int(Status.TRADING)
_LISTED: Final = int(Status.LISTED)


def on_index(
    view: StateView, block: BlockContext, underlying: str, before: Feed, now_ms: int, heartbeat_ms: int
) -> None:
    """A feed takes its next value, reported at `now_ms`: until then `before` held, if it was fresh.

    To be called before the feed is changed, within its step; of a feed that no expiry settles at, it does
    nothing.
    """
    name = underlying.encode("ascii")
    if not before.version or len(name) > MAX_UNDERLYING_BYTES:
        return
    until_ms = min(now_ms, before.timestamp_ms + heartbeat_ms)
    for key, found in view.iterate_under(expiries_prefix(name), MAX_EXPIRIES):
        opens_ms = int.from_bytes(key[24:32], "big") * MS_PER_S - SETTLEMENT_WINDOW_MS
        if until_ms <= opens_ms:
            return
        expiry: Expiry = view.get(expiry_key(found.expiry))
        length_ms = until_ms - max(before.timestamp_ms, opens_ms)
        length_ms = min(length_ms, SETTLEMENT_WINDOW_MS - expiry.covered_ms)
        if length_ms > 0:
            _accrue(view, block, found.expiry, expiry, before.value_uusd, length_ms)


def _accrue(
    view: StateView, block: BlockContext, number: int, expiry: Expiry, value_uusd: int, length_ms: int
) -> None:
    """Counts a piece of the window; with the last one the settlement price is known."""
    total = value_uusd * length_ms + expiry.average_rest
    expiry.average_uusd_s += total // MS_PER_S
    expiry.average_rest = total % MS_PER_S
    expiry.covered_ms += length_ms
    if expiry.covered_ms == SETTLEMENT_WINDOW_MS:
        expiry.settlement_uusd = fixed_part(expiry)[0]
        block.life.append(LifeEvent(LifeChange.PRICED, number, price_uusd=expiry.settlement_uusd))
        if expiry.status == _SETTLING:
            view.put(due_key(block.now_s, Due.SETTLE, number), Marker(1))
    view.touch(expiry_key(number), expiry)


def start_trading(view: StateView, block: BlockContext, number: int) -> None:
    """The expiry has its first prices: from now on its instruments may trade. Does nothing later."""
    expiry: Expiry = view.get(expiry_key(number))
    if expiry.status == _LISTED:
        expiry.status = _TRADING
        view.touch(expiry_key(number), expiry)
        block.life.append(LifeEvent(LifeChange.TRADING, number))


def payoff_uusd(kind: int, strike_uusd: int, settlement_uusd: int) -> int:
    """What one coin of a dated instrument is worth at this settlement price."""
    if kind == Kind.FUTURE:
        return settlement_uusd
    return max(0, settlement_uusd - strike_uusd if kind == Kind.CALL else strike_uusd - settlement_uusd)


def settle_step(view: StateView, block: BlockContext, due: bytes, number: int) -> None:
    """The next step of an expiry that is over; `due` is the entry that drives it."""
    expiry: Expiry = view.get(expiry_key(number))
    if expiry.status < _SETTLING:
        expiry.status = _SETTLING
        view.touch(expiry_key(number), expiry)
        block.life.append(LifeEvent(LifeChange.EXPIRED, number, price_uusd=expiry.settlement_uusd))
        if expiry.covered_ms < SETTLEMENT_WINDOW_MS:
            view.delete(due)  # comes again with the price
        return
    found = view.first_under(expiry_markets_prefix(number, OPEN_STAGE))
    if found is not None:
        _settle_market(view, block, number, expiry, parse_expiry_market(found[0]))
        return
    expiry.status = _SETTLED
    view.touch(expiry_key(number), expiry)
    view.delete(due)
    view.put(due_key(block.now_s + DAY_S, Due.DELIST, number), Marker(1))
    block.life.append(LifeEvent(LifeChange.SETTLED, number, price_uusd=expiry.settlement_uusd))


def _settle_market(view: StateView, block: BlockContext, number: int, expiry: Expiry, market: int) -> None:
    """One step of one instrument: it stops, an order or trigger goes, a position goes, or it is settled."""
    terms: Instrument = view.get(instrument_key(market))
    state: Market = view.get(market_key(market))
    payoff = payoff_uusd(terms.kind, terms.strike_uusd, expiry.settlement_uusd)
    if terms.status < _SETTLING:
        terms.status = _SETTLING
        view.touch(instrument_key(market), terms)
        state.mark_uusd = payoff
        state.mark_ms = block.timestamp_ms
        view.touch(market_key(market), state)
        block.markets.add(market)
        return
    for side in (0, 1):
        order = view.first_under(order_book_prefix(market, side))
        if order is not None:
            remove(view, block, order[0], order[1], OrderEnd.INSTRUMENT_EXPIRED)
            return
    waiting = view.first_under(market_triggers_prefix(market))
    if waiting is not None:
        owner, order_id = parse_market_trigger(waiting[0])
        key, trigger, entry = find_trigger(view, owner, market, order_id)
        remove_trigger(view, block, key, trigger, entry, OrderEnd.INSTRUMENT_EXPIRED)
        return
    holder = view.first_under(market_positions_prefix(market))
    if holder is not None:
        account = int.from_bytes(holder[0][5:13], "big")
        _settle_position(view, block, number, market, state, account, payoff)
        return
    terms.status = _SETTLED
    view.touch(instrument_key(market), terms)
    system: System = view.get(SYSTEM_KEY)
    system.insurance_uusd += state.funding_pot_uusd
    view.touch(SYSTEM_KEY, system)
    state.funding_pot_uusd = 0
    view.touch(market_key(market), state)
    view.delete(expiry_market_key(number, OPEN_STAGE, market))
    view.put(expiry_market_key(number, SETTLED_STAGE, market), Marker(1))
    expiry.settled += 1
    view.touch(expiry_key(number), expiry)
    block.markets.add(market)
    block.life.append(LifeEvent(LifeChange.SETTLED, number, market, price_uusd=payoff))


def _settle_position(
    view: StateView,
    block: BlockContext,
    number: int,
    market: int,
    state: Market,
    account_number: int,
    payoff: int,
) -> None:
    """Turns a position into cash, by way of the market's pot. No pocket leaves +-MAX_CASH_UUSD for it."""
    position: Position = view.get(position_key(account_number, market))
    account: Account = view.get(account_key(account_number))
    size, quote, pot = position.size_ulots, position.quote_uusd, state.funding_pot_uusd
    gain = quote + size * payoff // ULOTS_PER_LOT
    highest = min(MAX_CASH_UUSD - account.cash_uusd, MAX_CASH_UUSD + pot + quote)
    lowest = max(-MAX_CASH_UUSD - account.cash_uusd, pot + quote - MAX_CASH_UUSD)
    gain = max(lowest, min(highest, gain))
    account.cash_uusd += gain
    state.funding_pot_uusd = pot + quote - gain
    state.open_interest_ulots -= max(size, 0)
    view.touch(market_key(market), state)
    close_position(view, account, account_number, market)
    view.touch(account_key(account_number), account)
    block.accounts.add(account_number)
    block.life.append(
        LifeEvent(LifeChange.POSITION_SETTLED, number, market, account_number, size, payoff, gain)
    )


def delist_step(view: StateView, block: BlockContext, due: bytes, number: int) -> None:
    """Removes one instrument of a settled expiry, or at last the expiry itself."""
    expiry: Expiry = view.get(expiry_key(number))
    found = view.first_under(expiry_markets_prefix(number, SETTLED_STAGE))
    if found is None:
        _remove_expiry(view, number, expiry)
        view.delete(due)
        block.life.append(LifeEvent(LifeChange.DELISTED, number))
        return
    market = parse_expiry_market(found[0])
    terms: Instrument = view.get(instrument_key(market))
    state: Market = view.get(market_key(market))
    system: System = view.get(SYSTEM_KEY)
    system.insurance_uusd += state.priority_pot_uusd
    view.touch(SYSTEM_KEY, system)
    view.delete(name_key(MARKET_NAME, terms.name.rstrip(b"\0").decode()))
    view.delete(instrument_key(market))
    view.delete(market_key(market))
    view.delete(found[0])
    expiry.instruments -= 1
    expiry.settled -= 1
    view.touch(expiry_key(number), expiry)
    listings: Listings = view.get(LISTINGS_KEY)
    listings.delisted += 1
    view.touch(LISTINGS_KEY, listings)
    block.markets.add(market)
    block.life.append(LifeEvent(LifeChange.DELISTED, number, market))


def _remove_expiry(view: StateView, number: int, expiry: Expiry) -> None:
    """The expiry's own leaves, its feeds, and its pricing."""
    underlying = expiry.underlying.rstrip(b"\0")
    name = expiry_name(underlying.decode(), expiry.expiry_s)
    for key in (
        name_key(FEED, name),
        name_key(RATE, name),
        name_key(SURFACE, name),
        pricing_key(number),
        expiry_of_key(underlying, expiry.expiry_s),
        expiry_key(number),
    ):
        if view.get(key) is not None:
            view.delete(key)
