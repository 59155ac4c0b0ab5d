"""The money check: what the exchange holds in all its pockets is what L1 holds for it.

    sum of cash + sum of quotes + sum of funding pots + insurance + fees + venue fees = collateral

Marks do not appear: in every market the sizes of all positions add up to zero. A full scan costs about a
microsecond a leaf, so the node does it at every batch, on the encoded leaves, away from its main thread.
"""

from __future__ import annotations

from collections.abc import Iterable

from state.keys import ACCOUNT, MARKET, POSITION, SYSTEM
from state.leaves import Account, Market, Position, System


class Ledger:
    """Sums over leaves; adding the differences of changed leaves keeps it up to date."""

    def __init__(self) -> None:
        self.cash_uusd = 0
        self.quote_uusd = 0
        self.funding_uusd = 0
        self.pots_uusd = 0
        """Insurance, fees, venue fees."""
        self.collateral_uusd = 0
        self.sizes_ulots: dict[bytes, int] = {}
        """By market's key bytes; all zero when all is well."""

    def add(self, key: bytes, data: bytes, sign: int = 1) -> None:
        """Counts an encoded leaf; with `sign` -1 it no longer counts."""
        kind = key[0]
        if kind == ACCOUNT:
            self.cash_uusd += sign * Account.decode(data).cash_uusd
        elif kind == POSITION:
            position = Position.decode(data)
            self.quote_uusd += sign * position.quote_uusd
            market = key[9:13]
            self.sizes_ulots[market] = self.sizes_ulots.get(market, 0) + sign * position.size_ulots
        elif kind == MARKET:
            self.funding_uusd += sign * Market.decode(data).funding_pot_uusd
        elif kind == SYSTEM:
            system = System.decode(data)
            pots = system.insurance_uusd + system.fees_uusd + system.venue_fees_uusd
            self.pots_uusd += sign * pots
            self.collateral_uusd += sign * system.collateral_uusd

    @property
    def difference_uusd(self) -> int:
        """What the pockets hold above the collateral; 0 when all is well."""
        pockets = self.cash_uusd + self.quote_uusd + self.funding_uusd + self.pots_uusd
        return pockets - self.collateral_uusd

    @property
    def unbalanced(self) -> dict[bytes, int]:
        """Markets in which sizes do not add up to zero."""
        return {market: size for market, size in self.sizes_ulots.items() if size}


def conservation(leaves: Iterable[tuple[bytes, bytes]]) -> int:
    """What the pockets of these leaves (all of a state, encoded) hold above the collateral, in uusd.

    Raises ValueError when the sizes of a market do not add up to zero.
    """
    ledger = Ledger()
    for key, data in leaves:
        ledger.add(key, data)
    if ledger.unbalanced:
        raise ValueError(f"sizes do not add up to zero: {ledger.unbalanced}")
    return ledger.difference_uusd
