"""Leaves that prices and margins are made from: feeds, who may report them, snapshots, margin terms."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import ClassVar, Final

from state.leaves_base import FixedLeaf


class Publishers:
    """Who may report prices, and how many must agree."""

    __slots__ = ("addresses", "quorum")

    def __init__(self, quorum: int, addresses: tuple[bytes, ...]) -> None:
        self.quorum = quorum
        self.addresses = addresses

    def encode(self) -> bytes:
        return bytes([self.quorum, len(self.addresses)]) + b"".join(self.addresses)

    @classmethod
    def decode(cls, data: bytes) -> Publishers:
        """Raises ValueError when the length does not fit the count."""
        if len(data) < 2 or len(data) != 2 + 20 * data[1]:
            raise ValueError(f"Publishers: {len(data)} bytes do not fit the count")
        return cls(data[0], tuple(data[i : i + 20] for i in range(2, len(data), 20)))


@dataclass
class Feed(FixedLeaf):
    """A price that publishers report: an underlying's index, a perpetual's mark, an expiry's forward.

    The last three fields mean the same in all feeds: its terms, and what it belongs to.
    """

    LAYOUT: ClassVar[Struct] = Struct(">Q I Q Q I I I")

    value_uusd: int = 0
    confidence_ppm: int = 0
    timestamp_ms: int = 0
    """When it was reported."""
    version: int = 0
    """Counts updates; 0 before the first."""
    heartbeat_ms: int = 0
    """Older is stale; 0: as the parameters say."""
    deviation_ppm: int = 0
    """Largest relative move of one update; 0: as the parameters say."""
    expiry: int = 0
    """Number of the expiry whose forward it is; 0 of all others."""


@dataclass
class RateFeed(FixedLeaf):
    """The interest rate until an expiry, continuously compounded, that publishers report."""

    LAYOUT: ClassVar[Struct] = Struct(">q I Q Q I I I")

    value_ppb: int = 0
    """A year."""
    confidence_ppm: int = 0
    timestamp_ms: int = 0
    version: int = 0
    heartbeat_ms: int = 0
    deviation_ppm: int = 0
    """Largest move of one update, up or down: millionths a year."""
    expiry: int = 0


@dataclass
class Surface(FixedLeaf):
    """The volatilities of an expiry that publishers report: raw SVI (`svi`), parameters in 10^-12."""

    LAYOUT: ClassVar[Struct] = Struct(">q q q q q Q Q I Q Q I I I")

    a_pico: int = 0
    b_pico: int = 0
    rho_pico: int = 0
    m_pico: int = 0
    sigma_pico: int = 0
    forward_uusd: int = 0
    """At which the parameters were fitted."""
    tau_s: int = 0
    """Time to expiry to which the parameters belong."""
    confidence_ppm: int = 0
    timestamp_ms: int = 0
    version: int = 0
    heartbeat_ms: int = 0
    deviation_ppm: int = 0
    """Of the volatility at the money."""
    expiry: int = 0


@dataclass
class Pricing(FixedLeaf):
    """The snapshot from which an expiry's marks and risk arrays are made (`pricing`).

    It takes over the feeds' values together, and only when they have moved enough, so that what is computed
    from it stays good for a while.
    """

    LAYOUT: ClassVar[Struct] = Struct(">Q I Q I q I q q q q q Q Q I Q I Q Q Q")

    index_uusd: int = 0
    index_confidence_ppm: int = 0
    forward_uusd: int = 0
    forward_confidence_ppm: int = 0
    rate_ppb: int = 0
    rate_confidence_ppm: int = 0
    a_pico: int = 0
    """This and the next six: the surface."""
    b_pico: int = 0
    rho_pico: int = 0
    m_pico: int = 0
    sigma_pico: int = 0
    reference_uusd: int = 0
    """The surface's own forward."""
    tau_s: int = 0
    """0: there is no surface yet."""
    vol_confidence_ppm: int = 0
    fixed_uusd: int = 0
    """Inside the settlement window: the part of the settlement price that is already certain."""
    live_ppb: int = 1_000_000_000
    """The share of the settlement average that is still open."""
    stable_uusd: int = 1_000_000
    """Dollars that the collateral is worth."""
    priced_ms: int = 0
    """When it was taken: marks and margins count time to expiry from here."""
    version: int = 0
    """Counts moves; 0: nothing known yet."""


_SCENARIO: Final = Struct(">IBI")

_MARGIN_VALUES: Final = Struct(">34i")


class MarginTerms:
    """Margin parameters of an underlying (`margin_terms`), in millionths."""

    __slots__ = ("scenarios", "values")

    def __init__(self, scenarios: tuple[tuple[int, int, int], ...], values: tuple[int, ...]) -> None:
        self.scenarios = scenarios
        """Spot, risk_grid.Vol, damping of each."""
        self.values = values
        """In the order of `margin_defaults.DEFAULTS_PPM`."""

    def encode(self) -> bytes:
        scenarios = b"".join([_SCENARIO.pack(*scenario) for scenario in self.scenarios])
        return bytes([len(self.scenarios)]) + scenarios + _MARGIN_VALUES.pack(*self.values)

    @classmethod
    def decode(cls, data: bytes) -> MarginTerms:
        """Raises ValueError when the length does not fit the count."""
        count = data[0] if data else 0
        end = 1 + count * _SCENARIO.size
        if len(data) != end + _MARGIN_VALUES.size:
            raise ValueError(f"MarginTerms: {len(data)} bytes do not fit the count")
        scenarios = tuple([_SCENARIO.unpack_from(data, at) for at in range(1, end, _SCENARIO.size)])
        return cls(scenarios, _MARGIN_VALUES.unpack_from(data, end))
