"""`python -m tools.margin_case FILE.json`: the portfolio margin of one case by the exchange's integer code.

The case is `{"case": {...}}` in the format of the published floating-point reference, `parameters` inline or
"default". Numbers are read exactly, as fractions, and rounded once: prices and money to 2^-64 dollars,
amounts to 2^-64 of the underlying, the rest to the engine's fixed point. Prints the margin as JSON; floats
appear only there. A file that is no such case: a message and exit status 2.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from decimal import Decimal
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from state.expiry_sums import ExpiryHolding
from state.fixed import ONE
from state.margin_defaults import default_parameters
from state.portfolio import (
    CollateralHolding,
    PerpHolding,
    PortfolioMargin,
    UnderlyingHolding,
    portfolio_margin,
)
from state.risk_array import make_risk_array
from state.risk_grid import ExpiryMarket, Grid, MarginParameters, Scenario, Vol, make_expiry, make_grid
from state.svi import Svi

UNIT = 2**64
LOT = 2**64
LARGEST = 2**63
"""Of prices, money and amounts."""
LARGEST_EXPONENT = 400
MAX_DEPTH = 32
GROUPS = {
    "vol_shock": ("range_up", "range_down", "floor_up", "power_short", "power_long", "days_floor"),
    "margin": (
        "im_factor",
        "mm_factor",
        "static_long",
        "static_short",
        "long_rate_mult",
        "long_rate_add",
        "short_rate_mult",
        "short_rate_add",
    ),
    "contingency": (
        "mm_perp",
        "im_perp",
        "mm_option",
        "im_option",
        "confidence_threshold",
        "confidence_margin",
        "peg_threshold",
        "peg_factor",
    ),
    "skew": (
        "linear_cap",
        "linear_base",
        "abs_cap",
        "abs_base",
        "min_k_star",
        "width_scale",
        "vol_static",
        "vol_scale",
    ),
}
BASIS = {"spot_up": "basis_up", "spot_down": "basis_down", "add": "basis_add", "mult": "basis_mult"}


class BadCase(ValueError):
    """The file is no case; the message says where and why."""


class Node:
    """A place in the JSON document, that knows its path."""

    def __init__(self, value: Any, path: str) -> None:
        self.value, self.path = value, path

    def fail(self, why: str) -> NoReturn:
        raise BadCase(f"{self.path}: {why}")

    def __getitem__(self, name: str) -> Node:
        if not isinstance(self.value, dict):
            self.fail("an object is expected")
        if name not in self.value:
            self.fail(f"{name} is missing")
        return Node(self.value[name], f"{self.path}.{name}")

    def items(self) -> list[Node]:
        if not isinstance(self.value, list):
            self.fail("an array is expected")
        return [Node(value, f"{self.path}[{place}]") for place, value in enumerate(self.value)]

    def number(self) -> Fraction:
        if not isinstance(self.value, Fraction):
            self.fail("a number is expected")
        return self.value

    def flag(self) -> bool:
        if self.value not in (True, False):
            self.fail("true or false is expected")
        return bool(self.value)

    def scaled(self, scale: int, bound: int, above_zero: bool = False) -> int:
        """The number times `scale`, to nearest."""
        number = self.number()
        found = round(number * scale)
        if abs(number) >= bound or (above_zero and found <= 0):
            self.fail("out of bounds")
        return found

    def x56(self) -> int:
        return self.scaled(ONE, 128)

    def x112(self, above_zero: bool = False) -> int:
        return self.scaled(2**112, 2**20, above_zero)

    def price(self) -> int:
        return self.scaled(UNIT, LARGEST, above_zero=True)

    def money(self) -> int:
        return self.scaled(UNIT, LARGEST)

    def amount(self) -> int:
        return self.scaled(LOT, LARGEST)


def read_parameters(node: Node) -> MarginParameters:
    """The margin parameters of a case. Raises BadCase."""
    if node.value == "default":
        return default_parameters()
    names = {vol.name.lower(): vol for vol in Vol}
    scenarios = []
    for each in node["scenarios"].items():
        vol = each["vol"]
        if not isinstance(vol.value, str) or vol.value not in names:
            vol.fail(f"one of {', '.join(names)} is expected")
        scenarios.append(Scenario(each["spot"].x56(), names[vol.value], each["damp"].x56()))
    values = {name: node[group][name].x56() for group, group_names in GROUPS.items() for name in group_names}
    values |= {ours: node["basis"][theirs].x56() for theirs, ours in BASIS.items()}
    assert set(values) == {field.name for field in fields(MarginParameters)} - {"scenarios"}
    try:
        return MarginParameters(scenarios=tuple(scenarios), **values)
    except ValueError as error:
        raise BadCase(f"{node.path}: {error}") from error


def read_svi(node: Node) -> Svi:
    """The seven SVI parameters. Raises BadCase."""
    parts = node.items()
    if len(parts) != 7:
        node.fail("seven numbers are expected")
    a, b, rho, m, sigma, forward_ref, tau = parts
    return Svi(a.x112(), b.x112(), rho.x56(), m.x56(), sigma.x56(), forward_ref.price(), tau.x112(True))


def read_expiry(node: Node, grid: Grid) -> ExpiryHolding:
    """An expiry with the risk arrays of its options. Raises BadCase."""
    market = ExpiryMarket(
        seconds_x56=node["seconds"].scaled(ONE, 2**40),
        forward=node["forward"].price(),
        rate=node["rate"].x56(),
        svi=read_svi(node["svi"]),
        forward_confidence=node["forward_confidence"].x56(),
        rate_confidence=node["rate_confidence"].x56(),
        vol_confidence=node["vol_confidence"].x56(),
    )
    try:
        expiry = make_expiry(market, grid)
    except ValueError as error:
        raise BadCase(f"{node.path}: {error}") from error
    options = node["options"].items()
    arrays = [
        make_risk_array(expiry, grid, each["strike"].price(), each["is_call"].flag()) for each in options
    ]
    return ExpiryHolding(expiry, arrays, [each["amount"].amount() for each in options])


def read_collateral(node: Node) -> CollateralHolding:
    """Raises BadCase."""
    return CollateralHolding(
        node["amount"].amount(),
        node["price"].money(),
        node["confidence"].x56(),
        node["im_haircut"].x56(),
        node["mm_haircut"].x56(),
        node["offsets_risk"].flag(),
    )


def margin_of(case: Node) -> PortfolioMargin:
    """The exchange's margin of a case, in units of 2^-64 dollars. Raises BadCase."""
    grid = make_grid(read_parameters(case["parameters"]))
    perp = case["perp"]
    stable_price = case["stable_price"].scaled(ONE, 128, above_zero=True)
    holding = UnderlyingHolding(
        grid=grid,
        spot=case["spot"].price(),
        spot_confidence=case["spot_confidence"].x56(),
        unrealised=perp["unrealised_pnl"].money() + perp["unrealised_funding"].money(),
        perps=[PerpHolding(perp["amount"].amount(), perp["price"].money(), perp["confidence"].x56())],
        expiries=[read_expiry(each, grid) for each in case["expiries"].items()],
        collaterals=[read_collateral(each) for each in case["collaterals"].items()],
    )
    try:
        return portfolio_margin([holding], case["cash"].money(), stable_price, LOT)
    except ValueError as error:
        raise BadCase(f"{case.path}: {error}") from error


def dollars(value: int) -> float:
    return float(Fraction(value, UNIT))


def report(margin: PortfolioMargin) -> dict[str, Any]:
    """What is printed, in dollars."""
    (part,) = margin.underlyings
    contingencies = {name: dollars(value) for name, value in part.contingencies._asdict().items()}
    return {
        "initial_margin": dollars(margin.initial_margin),
        "maintenance_margin": dollars(margin.maintenance_margin),
        "mark_to_market": dollars(margin.mark_to_market),
        "scenario_pnl": [dollars(each) for each in part.scenario_pnl],
        "basis_contingency": dollars(part.basis_contingency),
        "worst": dollars(part.worst),
        "contingencies": contingencies,
    }


def exact(text: str) -> Fraction:
    """A JSON number; what no double could hold is refused, or 0. Raises BadCase."""
    number = Decimal(text)
    if number.adjusted() > LARGEST_EXPONENT:
        raise BadCase(f"{text[:20]}: out of bounds")
    return Fraction(number) if number.adjusted() >= -LARGEST_EXPONENT else Fraction(0)


def refuse_constant(name: str) -> NoReturn:
    raise BadCase(f"{name} is no number")


def _depth(text: str) -> int:
    """How deep brackets stand in each other: the parser's own limit is as high as any library last set it."""
    return max(
        accumulate((1 if bracket in "[{" else -1 for bracket in re.findall(r"[][{}]", text)), initial=0)
    )


def load(text: str) -> Node:
    """The case in a JSON text, its numbers exact. Raises BadCase."""
    if _depth(text) > MAX_DEPTH:
        raise BadCase(f"nested deeper than {MAX_DEPTH}")
    try:
        document = json.loads(text, parse_float=exact, parse_int=exact, parse_constant=refuse_constant)
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadCase(f"not JSON: {error}") from error
    return Node(document, "$")["case"]


def main(file: Annotated[Path, typer.Argument(help="A case in the reference's format.")]) -> None:
    """Prints the margin of a case as JSON."""
    try:
        found = report(margin_of(load(file.read_text())))
    except (OSError, UnicodeDecodeError, BadCase) as error:
        print(f"margin_case: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    typer.run(main)
