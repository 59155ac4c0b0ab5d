"""The money check over a whole state: what the exchange holds in all pockets is what L1 holds for it.

    sum of cash + sum of quotes + sum of markets' pots + insurance + fees + venue fees = collateral

Marks do not appear: in every market the sizes of all positions add up to zero, but for an instrument whose
positions are being settled; what was paid for those is then in its funding pot. This full scan is for tests
and tools; the node keeps running sums over what each batch changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from state.keys import ACCOUNT, INSTRUMENT, MARKET, POSITION, SYSTEM
from state.leaves import Account, Instrument, Market, Position, Status, System


def conservation(leaves: Iterable[tuple[bytes, bytes]]) -> int:
    """What the pockets of these leaves (all of a state, encoded) hold above the collateral, in uusd.

    Raises ValueError when the sizes of a market do not add up to zero, and it is not settling.
    """
    pockets = 0
    sizes: dict[bytes, int] = {}
    settling: set[bytes] = set()
    for key, data in leaves:
        if key[0] == ACCOUNT:
            pockets += Account.decode(data).cash_uusd
        elif key[0] == POSITION:
            position = Position.decode(data)
            pockets += position.quote_uusd
            market = key[9:13]
            sizes[market] = sizes.get(market, 0) + position.size_ulots
        elif key[0] == INSTRUMENT:
            if Instrument.decode(data).status == Status.SETTLING:
                settling.add(key[1:5])
        elif key[0] == MARKET:
            of_market = Market.decode(data)
            pockets += of_market.funding_pot_uusd + of_market.priority_pot_uusd
        elif key[0] == SYSTEM:
            system = System.decode(data)
            pockets += system.insurance_uusd + system.fees_uusd + system.venue_fees_uusd
            pockets -= system.collateral_uusd
    unbalanced = {market.hex(): size for market, size in sizes.items() if size and market not in settling}
    if unbalanced:
        raise ValueError(f"sizes do not add up to zero: {unbalanced}")
    return pockets
