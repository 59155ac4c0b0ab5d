"""Dated instruments as a trader's bot sees them: from `public/get_instruments` and `public/ticker`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sequencer.client import NodeClient, NodeError
from state.units import ULOTS_PER_LOT

UUSD = 1_000_000
Ticker = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Contract:
    """A future or an option."""

    name: str
    market: int
    is_option: bool
    expiry_ms: int
    strike: float
    """In dollars; 0 of a future."""
    tick_uusd: int
    lot_ulots: int

    @classmethod
    def of(cls, view: dict[str, Any]) -> Contract:
        """Of an entry of `public/get_instruments`."""
        return cls(
            view["instrument_name"],
            view["instrument_id"],
            view["kind"] == "option",
            view["expiration_timestamp"],
            view["strike"] or 0.0,
            view["tick_uusd"],
            view["lot_ulots"],
        )

    def down(self, price: float) -> int:
        """A price in dollars on the tick, in uusd, not above it."""
        return int(price * UUSD // self.tick_uusd) * self.tick_uusd

    def up(self, price: float) -> int:
        """Not below it."""
        return -int(-price * UUSD // self.tick_uusd) * self.tick_uusd

    def lots(self, dollars: float, index: float) -> int:
        """The size in ulots of so many dollars' worth of the underlying: whole lots, at least one."""
        return max(int(dollars / index * ULOTS_PER_LOT) // self.lot_ulots, 1) * self.lot_ulots


async def dated(client: NodeClient, underlying: str, expired: bool = False) -> list[dict[str, Any]]:
    """What the node says of an underlying's futures and options, nearest expiry first."""
    found = await client.call("public/get_instruments", {"currency": underlying, "expired": expired})
    kept = [each for each in found if each["settlement_period"] != "perpetual"]
    return sorted(kept, key=lambda each: (each["expiration_timestamp"], each["instrument_id"]))


async def trading(client: NodeClient, underlying: str) -> list[Contract]:
    """Futures and options that can be traded now, nearest expiry first."""
    return [Contract.of(each) for each in await dated(client, underlying) if each["is_active"]]


async def tickers(client: NodeClient, names: list[str]) -> list[Ticker]:
    """Of each of these instruments. Raises NodeError for one that there is not."""
    return await all_of(client, [("public/ticker", {"instrument_name": name}) for name in names])


async def all_of(client: NodeClient, calls: list[tuple[str, Any]]) -> list[dict[str, Any]]:
    """Results of one array request. Raises NodeError for the first that failed."""
    found: list[dict[str, Any]] = []
    for outcome in await client.call_many(calls) if calls else ():
        if isinstance(outcome, NodeError):
            raise outcome
        found.append(outcome)
    return found
