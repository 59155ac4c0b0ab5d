"""What an account's margin is made of, every component by its name: the one form in which it is shown.

`straddle_getRisk` shows it of the state as it stands, `straddle_explainLiquidation` of proved leaves. Money
is in uusd, exactly as the exchange computes it (PROTOCOL 8.4 and 12), and everything adds up (iMARGIN_010):
of an underlying `required = loss + the contingencies`, of the account `initial` and `maintenance` are the
sums of what its underlyings require; equity is cash, what is being settled, and each mark to market.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from state.fixed import ONE
from state.margin import NO_CHANGES
from state.margin_parts import Part, parts_of, stable_price
from state.portfolio import UnderlyingMargin, initial_factor
from state.view import StateView


class Scenario(msgspec.Struct, frozen=True):
    """Spot as a factor; volatility: what happens to it; damping of the result."""

    spot: float
    volatility: str
    damping: float
    pnl_uusd: int


class Components(msgspec.Struct, frozen=True):
    """Of one underlying. Required is `loss_uusd` and the contingencies."""

    required_uusd: int
    worst_uusd: int
    """Result of the worst scenario, or of the basis if that is worse."""
    worst_scenario: int | None
    """Its place among `scenarios`; null where the basis is worse than all of them."""
    factor: float
    loss_uusd: int
    """What is lost at worst, times the factor; below 0 where even the worst is a gain."""
    basis_uusd: int
    contingencies_uusd: dict[str, int]
    scenarios: list[Scenario]


class UnderlyingComponents(msgspec.Struct, frozen=True):
    """`initial` counts open orders at their worst, `maintenance` positions alone."""

    underlying: str
    index_uusd: int
    mark_to_market_uusd: int
    initial: Components
    maintenance: Components


class MarginVector(msgspec.Struct, frozen=True):
    """The margin of an account. `settling_uusd`: what instruments that are being settled are worth."""

    cash_uusd: int
    settling_uusd: int
    equity_uusd: int
    initial_uusd: int
    maintenance_uusd: int
    underlyings: list[UnderlyingComponents]


class UnderlyingPart(NamedTuple):
    """One underlying of an account, computed: with its positions alone, and with its open orders."""

    part: Part
    held: UnderlyingMargin
    ordered: UnderlyingMargin


def underlying_parts(view: StateView, account: int) -> tuple[int, list[UnderlyingPart]]:
    """(worth of what is being settled, the rest by underlying)."""
    stable = stable_price(view)
    settling, held = parts_of(view, account, NO_CHANGES, False)
    _, ordered = parts_of(view, account, NO_CHANGES, True)
    orders = {part.underlying: part.full_margin(stable) for part in ordered}
    return settling, [
        UnderlyingPart(part, part.full_margin(stable), orders[part.underlying]) for part in held
    ]


def margin_vector(view: StateView, account: int, cash_uusd: int) -> MarginVector:
    """Of the account if it had this cash. Raises whatever the view raises for a leaf that it lacks."""
    stable = stable_price(view)
    settling, parts = underlying_parts(view, account)
    underlyings = [components_of(each, stable) for each in parts]
    return MarginVector(
        cash_uusd,
        settling,
        cash_uusd + settling + sum(each.mark_to_market_uusd for each in underlyings),
        sum(each.initial.required_uusd for each in underlyings),
        sum(each.maintenance.required_uusd for each in underlyings),
        underlyings,
    )


def components_of(found: UnderlyingPart, stable: int) -> UnderlyingComponents:
    """One underlying's components. `stable`: the collateral's price, x56."""
    part, held, ordered = found.part, found.held, found.ordered
    parameters = part.grids.grid.parameters
    return UnderlyingComponents(
        part.underlying.rstrip(b"\0").decode(),
        part.index.value_uusd,
        held.mark_to_market,
        _components(part, ordered, initial_factor(parameters, stable), True),
        _components(part, held, parameters.mm_factor, False),
    )


def _components(part: Part, margin: UnderlyingMargin, factor: int, is_initial: bool) -> Components:
    scenarios = [
        Scenario(each.spot / ONE, each.vol.name.lower(), each.damp / ONE, pnl)
        for each, pnl in zip(part.grids.grid.parameters.scenarios, margin.scenario_pnl, strict=True)
    ]
    of = margin.contingencies
    contingencies = {"perp_mm": of.perp_mm, "option_mm": of.option_mm}
    kept = margin.mark_to_market - of.maintenance
    loss = kept - margin.maintenance_margin
    if is_initial:
        contingencies |= {
            "perp_im": of.perp_im,
            "option_im": of.option_im,
            "perp_oracle": of.perp_oracle,
            "option_oracle": of.option_oracle,
        }
        loss = kept - of.initial - margin.initial_margin
    is_basis = margin.basis_contingency < min(margin.scenario_pnl)
    return Components(
        loss + sum(contingencies.values()),
        margin.worst,
        None if is_basis else margin.scenario_pnl.index(margin.worst),
        factor / ONE,
        loss,
        margin.basis_contingency,
        contingencies,
        scenarios,
    )
