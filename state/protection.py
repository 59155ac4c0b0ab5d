"""Market-maker protection: limits of what may be traded with an account's resting orders in a while.

Per account and underlying. What counts are fills of resting orders: their quantity, the sum of their signed
deltas (an option's by the engine, 1 of perpetuals and futures), the sum of their signed vegas. An interval
begins with the first fill after the one before is over. The fill that takes a sum above its limit still
happens, and freezes: the account's orders in the underlying are cancelled (`cleanup`), those met before that
are removed unfilled, and nothing that could rest or add may be placed until the freeze is over or reset.

- iPROTECT_001 After the transaction that froze an account, none of its orders rests in that underlying.
- iPROTECT_002 What fills after a breach is at most nothing: the fill that breaches is the last.
"""

from __future__ import annotations

from typing import Final

from state.actions import OrderKind, ResetProtection, SetProtection
from state.black76 import greeks
from state.codec_format import is_name
from state.context import BlockContext
from state.errors import RejectCode, Rejected
from state.extras import count_extras, extras_of
from state.fixed import BITS, MAX, ONE
from state.keys import FEED, MAX_U64, cleanup_orders_key, name_key, protection_key
from state.leaves import Feed, Instrument, Kind, Marker, Protection
from state.pricing import expiry_market, pricing_of
from state.svi import total_vol
from state.units import (
    MAX_PROTECTED_BYTES,
    MAX_PROTECTION_MS,
    MAX_SIZE_ULOTS,
    MAX_TOTAL_COLLATERAL_UUSD,
    ULOTS_PER_LOT,
)
from state.view import StateView

POINTS: Final = 100
"""Volatility points in a volatility of 1."""
YEAR_S: Final = 365 * 86_400
_SUM_LIMIT: Final = 2**62
"""Where a sum saturates: above all limits."""
_POST_ONLY: Final = int(OrderKind.POST_ONLY)


def is_frozen(view: StateView, block: BlockContext, account: int, terms: Instrument) -> bool:
    """Whether the account may not place orders in this instrument's underlying now."""
    found = _find(view, account, terms)
    return found is not None and found[1].frozen_until_ms > block.timestamp_ms


def check_not_frozen(
    view: StateView, block: BlockContext, account: int, terms: Instrument, kind: int, reduce_only: int
) -> None:
    """Raises Rejected MMP_FROZEN; what only reduces and never rests is good."""
    found = _find(view, account, terms)
    if found is not None and found[1].frozen_until_ms > block.timestamp_ms:
        if reduce_only and kind > _POST_ONLY:
            return
        raise Rejected(
            RejectCode.MMP_FROZEN,
            account=account,
            until_ms=found[1].frozen_until_ms,
            now_ms=block.timestamp_ms,
        )


def _find(view: StateView, account: int, terms: Instrument) -> tuple[bytes, Protection] | None:
    extras = extras_of(view, account)
    if extras is None or not extras.protections:
        return None
    underlying = terms.underlying.rstrip(b"\0")
    if len(underlying) > MAX_PROTECTED_BYTES:
        return None
    key = protection_key(account, underlying)
    leaf: Protection | None = view.get(key)
    return None if leaf is None else (key, leaf)


def count_fill(
    view: StateView, block: BlockContext, account: int, terms: Instrument, change_ulots: int
) -> bool:
    """Counts the fill of a resting order, which changed its account's position; whether that froze it.

    Then its orders in the underlying are marked for the CLEANUP task, which the caller starts.
    """
    found = _find(view, account, terms)
    if found is None:
        return False
    key, leaf = found
    now_ms = block.timestamp_ms
    if now_ms >= leaf.started_ms + leaf.interval_ms:
        leaf.started_ms = now_ms
        leaf.quantity_ulots = leaf.delta_ulots = leaf.vega_uusd = 0
    delta, vega = exposure(view, terms, change_ulots)
    leaf.quantity_ulots = min(leaf.quantity_ulots + abs(change_ulots), _SUM_LIMIT)
    leaf.delta_ulots = _clamped(leaf.delta_ulots + delta)
    leaf.vega_uusd = _clamped(leaf.vega_uusd + vega)
    breached = (
        0 < leaf.quantity_limit_ulots < leaf.quantity_ulots
        or 0 < leaf.delta_limit_ulots < abs(leaf.delta_ulots)
        or 0 < leaf.vega_limit_uusd < abs(leaf.vega_uusd)
    )
    if breached:
        leaf.frozen_until_ms = now_ms + leaf.frozen_ms if leaf.frozen_ms else MAX_U64
        view.put(cleanup_orders_key(account, terms.underlying.rstrip(b"\0")), Marker(1))
    view.touch(key, leaf)
    return breached


def _clamped(value: int) -> int:
    return max(-_SUM_LIMIT, min(_SUM_LIMIT, value))


def exposure(view: StateView, terms: Instrument, size_ulots: int) -> tuple[int, int]:
    """(delta in ulots, vega in uusd for a volatility point) of a signed size, rounded down, undiscounted.

    Before an option's expiry is priced it counts like a future.
    """
    pricing = pricing_of(view, terms.expiry) if terms.kind > Kind.FUTURE else None
    if pricing is None or pricing.tau_s == 0:
        return size_ulots, 0
    market = expiry_market(pricing, terms.expiry_s)
    years_x112 = (market.seconds_x56 << BITS) // YEAR_S
    vol = min(total_vol(market.svi, terms.strike_uusd, years_x112), MAX)
    found = greeks(market.forward, terms.strike_uusd, vol, years_x112)
    delta = found.delta if terms.kind == Kind.CALL else found.delta - ONE
    vega = size_ulots * found.vega_of_forward * market.forward >> BITS
    return size_ulots * delta >> BITS, vega // (ULOTS_PER_LOT * POINTS)


# Actions


def check_set(view: StateView, action: SetProtection) -> None:
    """Raises Rejected for an underlying that there is not, and for numbers out of range."""
    name = action.underlying.encode()
    feed: Feed | None = None
    if is_name(name) and len(name) <= MAX_PROTECTED_BYTES:
        feed = view.get(name_key(FEED, action.underlying))
    if feed is None or feed.expiry:
        raise Rejected(RejectCode.UNKNOWN_UNDERLYING, underlying=action.underlying)
    for value, maximum in (
        (action.interval_ms, MAX_PROTECTION_MS),
        (action.frozen_ms, MAX_PROTECTION_MS),
        (action.quantity_ulots, MAX_SIZE_ULOTS),
        (action.delta_ulots, MAX_SIZE_ULOTS),
        (action.vega_uusd, MAX_TOTAL_COLLATERAL_UUSD),
    ):
        if value > maximum:
            raise Rejected(RejectCode.NUMBER_OUT_OF_RANGE, maximum=maximum, got=value)
    if not action.interval_ms:
        _must_exist(view, action.account, action.underlying)


def apply_set(view: StateView, block: BlockContext, action: SetProtection) -> None:
    """New terms, counting from nothing; a freeze stays, but for a protection that ends."""
    key = protection_key(action.account, action.underlying.encode())
    before: Protection | None = view.get(key)
    block.accounts.add(action.account)
    if not action.interval_ms:
        view.delete(key)
        count_extras(view, action.account, protections=-1)
        return
    if before is None:
        count_extras(view, action.account, protections=1)
    leaf = Protection(
        action.interval_ms, action.frozen_ms, action.quantity_ulots, action.delta_ulots, action.vega_uusd
    )
    if before is not None:
        leaf.frozen_until_ms = before.frozen_until_ms
    view.put(key, leaf)


def check_reset(view: StateView, action: ResetProtection) -> None:
    """Raises Rejected UNKNOWN_PROTECTION."""
    _must_exist(view, action.account, action.underlying)


def apply_reset(view: StateView, block: BlockContext, action: ResetProtection) -> None:
    key = protection_key(action.account, action.underlying.encode())
    leaf: Protection = view.get(key)
    leaf.started_ms = leaf.quantity_ulots = leaf.delta_ulots = leaf.vega_uusd = leaf.frozen_until_ms = 0
    view.touch(key, leaf)
    block.accounts.add(action.account)


def _must_exist(view: StateView, account: int, underlying: str) -> None:
    name = underlying.encode()
    is_good = is_name(name) and len(name) <= MAX_PROTECTED_BYTES
    if not is_good or view.get(protection_key(account, name)) is None:
        raise Rejected(RejectCode.UNKNOWN_PROTECTION, underlying=underlying)
