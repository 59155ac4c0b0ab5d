"""`straddle_getRisk`: everything an account's margin is made of, and how far it is from liquidation.

Money is in uusd, exactly as the exchange computes it (PROTOCOL 8.4 and 12): adding up what is shown gives
what is required. Greeks are floats in the units of `option_greeks`, liquidation prices as in `risk`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import trio

from sequencer.api_chain import AccountParams
from sequencer.api_context import ApiContext
from sequencer.errors import ErrorCode
from sequencer.jsonrpc import Context, Method
from sequencer.margin_vector import Components, UnderlyingPart, components_of, underlying_parts
from sequencer.option_greeks import Greeks, expiry_of, option_greeks
from sequencer.risk import ExpiryValues, UnderlyingValues, liquidation_prices
from state import keys
from state.calendar import expiry_name
from state.fixed import ONE
from state.leaves import Instrument, Kind, Market, Position
from state.margin import margin_with_cash
from state.margin_parts import Part, stable_price, x56
from state.portfolio import PerpHolding
from state.pricing import expiry_market, mark_of, pricing_of
from state.units import MAX_POSITIONS
from state.view import StateView

MILLION = 1_000_000
NOTHING = Greeks(0.0, 0.0, 0.0, 0.0, 0.0)


class ExpiryRisk(msgspec.Struct, frozen=True):
    """`expiry` is null for perpetuals."""

    expiry: str | None
    greeks: Greeks


class UnderlyingRisk(msgspec.Struct, frozen=True):
    """`initial` counts open orders at their worst, `maintenance` positions alone."""

    underlying: str
    index_uusd: int
    mark_to_market_uusd: int
    initial: Components
    maintenance: Components
    greeks: Greeks
    by_expiry: list[ExpiryRisk]
    liquidation_below_uusd: int | None
    liquidation_above_uusd: int | None


class RiskView(msgspec.Struct, frozen=True):
    """`distance_uusd`: equity above maintenance margin; below 0 the account can be liquidated."""

    account: int
    cash_uusd: int
    settling_uusd: int
    equity_uusd: int
    initial_uusd: int
    maintenance_uusd: int
    available_uusd: int
    distance_uusd: int
    underlyings: list[UnderlyingRisk]


class RiskApi:
    """The risk of accounts as the state stands."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_getRisk",
                AccountParams,
                RiskView,
                self._get_risk,
                "Greeks, scenarios, margin by component, and liquidation prices of an account.",
                errors=(ErrorCode.NOT_FOUND,),
            )
        ]

    async def _get_risk(self, params: AccountParams, _context: Context) -> RiskView:
        context, number = self._context, params.account
        cash_uusd = context.account(number).cash_uusd
        return await risk_of(context.machine.view, number, cash_uusd, context.reads)


async def risk_of(view: StateView, number: int, cash_uusd: int, reads: trio.CapacityLimiter) -> RiskView:
    """All leaves are read before the first wait; liquidation prices are found in a thread."""
    margin = margin_with_cash(view, number, cash_uusd)
    stable = stable_price(view)
    settling, found = underlying_parts(view, number)
    greeks = _greeks(view, number)
    values = [(_values(each.part), each.held.maintenance_margin) for each in found]
    distance = margin.equity_uusd - margin.maintenance_uusd

    def prices() -> list[tuple[int | None, int | None]]:
        return [liquidation_prices(each, distance - own, stable) for each, own in values]

    limits = await trio.to_thread.run_sync(prices, limiter=reads)
    underlyings = [
        _underlying(each, greeks, stable, limit) for each, limit in zip(found, limits, strict=True)
    ]
    return RiskView(
        number,
        cash_uusd,
        settling,
        margin.equity_uusd,
        margin.initial_uusd,
        margin.maintenance_uusd,
        margin.available_uusd,
        distance,
        underlyings,
    )


def _underlying(
    found: UnderlyingPart,
    greeks: dict[tuple[bytes, int], Greeks],
    stable: int,
    limits: tuple[int | None, int | None],
) -> UnderlyingRisk:
    of_margin = components_of(found, stable)
    name, padded = of_margin.underlying, found.part.underlying
    own = {expiry_s: each for (underlying, expiry_s), each in greeks.items() if underlying == padded}
    return UnderlyingRisk(
        name,
        of_margin.index_uusd,
        of_margin.mark_to_market_uusd,
        of_margin.initial,
        of_margin.maintenance,
        total_greeks(list(own.values())),
        [
            ExpiryRisk(expiry_name(name, expiry_s) if expiry_s else None, each)
            for expiry_s, each in sorted(own.items())
        ],
        *limits,
    )


def _values(part: Part) -> UnderlyingValues:
    """What liquidation prices are computed from, detached from the leaves."""
    perps = [PerpHolding(size, mark, x56(feed.confidence_ppm)) for feed, mark, size, _, _ in part.perpetuals]
    expiries = [
        ExpiryValues(
            expiry_market(each.pricing, each.terms.expiry_s),
            each.book.expiry.live,
            [(strike, is_call == 1, size) for strike, is_call, size, _, _ in each.options],
            each.future,
        )
        for each in part.dated.values()
    ]
    worth = sum(size * mark // MILLION for _, mark, size, _, _ in part.perpetuals)
    worth += sum(each.future * each.book.expiry.forward // MILLION for each in part.dated.values())
    return UnderlyingValues(
        part.grids.grid,
        part.index.value_uusd,
        x56(part.index.confidence_ppm),
        part.unrealised - worth,
        perps,
        expiries,
    )


def total_greeks(each: list[Greeks]) -> Greeks:
    return Greeks(
        sum(one.delta for one in each),
        sum(one.gamma for one in each),
        sum(one.vega for one in each),
        sum(one.theta for one in each),
        sum(one.rho for one in each),
    )


def _greeks(view: StateView, account: int) -> dict[tuple[bytes, int], Greeks]:
    """Of all positions, by underlying and expiry time (0: perpetuals)."""
    found: dict[tuple[bytes, int], Greeks] = {}
    for key, position in view.iterate_under(keys.positions_prefix(account), MAX_POSITIONS):
        leaf: Position = position
        market = int.from_bytes(key[9:13], "big")
        terms: Instrument = view.get(keys.instrument_key(market))
        state: Market = view.get(keys.market_key(market))
        size = leaf.size_ulots / MILLION
        own = Greeks(size, 0.0, 0.0, 0.0, 0.0)
        pricing = pricing_of(view, terms.expiry) if terms.expiry else None
        if pricing is not None:
            expiry = expiry_of(pricing, terms)
            one = Greeks(expiry.live / ONE, 0.0, 0.0, 0.0, 0.0)
            if terms.kind != Kind.FUTURE:
                one = option_greeks(expiry, terms, mark_of(view, state, terms) or 0)
            own = Greeks(
                size * one.delta, size * one.gamma, size * one.vega, size * one.theta, size * one.rho
            )
        place = terms.underlying, terms.expiry_s
        found[place] = total_greeks([found.get(place, NOTHING), own])
    return found
