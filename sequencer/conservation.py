"""Does the money add up? Counted anew at every batch from what changed, so the cost follows the batch's size.

Cash moves between accounts and pots; a trade moves position cost from one side to the other; so at every
batch boundary, whatever the marks are,

    sum(cash) + sum(position quote) + sum(markets' pots) + insurance + fees + venue fees == collateral

and in every market the sizes of all positions add up to zero, but for instruments whose positions are being
settled, one after another. The running sums are kept with the checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from state import keys
from state.leaves import Account, Instrument, Market, Position, Status, System


class ConservationError(Exception):
    """Money or contracts came from nowhere; the message says how much is missing where."""


class Totals(msgspec.Struct, array_like=True):
    """Running sums over all leaves at a batch boundary."""

    money_uusd: int = 0
    """Cash, position cost, and the pots of markets."""
    open_ulots: dict[int, int] = {}
    """Sum of signed position sizes by market; only those that are not zero."""


class Books:
    """The running sums. `source` gives the encoded leaf before the batch; used by one thread at a time."""

    def __init__(self, source: Callable[[bytes], bytes | None], totals: bytes | None = None) -> None:
        self._source = source
        self.totals = msgspec.msgpack.decode(totals, type=Totals) if totals else Totals()

    def encode(self) -> bytes:
        """What the constructor takes, for the checkpoint."""
        return msgspec.msgpack.encode(self.totals)

    def take(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Counts a batch's changed leaves; `source` must still give the values before.

        Raises ConservationError; the sums are then of no further use.
        """
        for key, after in changes.items():
            if key[0] in (keys.ACCOUNT, keys.POSITION, keys.MARKET):
                before = self._source(key)
                if before is not None:
                    self._count(key, before, -1)
                if after is not None:
                    self._count(key, after, 1)
        encoded = changes.get(keys.SYSTEM_KEY) or self._source(keys.SYSTEM_KEY)
        assert encoded is not None
        system = System.decode(encoded)
        pots = system.insurance_uusd + system.fees_uusd + system.venue_fees_uusd
        difference = self.totals.money_uusd + pots - system.collateral_uusd
        if difference:
            raise ConservationError(
                f"after block {system.block_number}: accounts, positions and pots hold {difference:+} uusd "
                f"against a collateral of {system.collateral_uusd} uusd"
            )
        unbalanced = {
            market: size
            for market, size in self.totals.open_ulots.items()
            if not self._is_settling(changes, market)
        }
        if unbalanced:
            raise ConservationError(
                f"after block {system.block_number}: longs and shorts differ: {unbalanced} ulots"
            )

    def _is_settling(self, changes: Mapping[bytes, bytes | None], market: int) -> bool:
        key = keys.instrument_key(market)
        encoded = changes[key] if key in changes else self._source(key)
        return encoded is not None and Instrument.decode(encoded).status == Status.SETTLING

    def _count(self, key: bytes, encoded: bytes, sign: int) -> None:
        totals = self.totals
        if key[0] == keys.ACCOUNT:
            totals.money_uusd += sign * Account.decode(encoded).cash_uusd
        elif key[0] == keys.MARKET:
            pots = Market.decode(encoded)
            totals.money_uusd += sign * (pots.funding_pot_uusd + pots.priority_pot_uusd)
        else:
            position = Position.decode(encoded)
            totals.money_uusd += sign * position.quote_uusd
            if position.size_ulots:
                market = int.from_bytes(key[9:13], "big")
                size = totals.open_ulots.pop(market, 0) + sign * position.size_ulots
                if size:
                    totals.open_ulots[market] = size
