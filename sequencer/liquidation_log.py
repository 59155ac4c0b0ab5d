"""Where each auction's steps are: which transactions of which blocks, by the auction's number.

The steps themselves are in the blocks' results; this only finds them. It follows the durable blocks and keeps
what it has found in the store's values, a few of them written together now and then. Blocks that came after
the last writing are read again at the start, so after any crash the log is what the durable blocks say.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import msgspec

from sequencer.receipts import SealedBlock
from state.block import TransactionResult

SCANNED_NAME = "liquidations"
"""Under which the store keeps up to which block everything is written."""
WRITE_AFTER_BLOCKS = 4_096
"""Without any liquidation: so that few blocks are read again at the start."""
MAX_PLACES = 4_096
"""Of one auction; further ones are not kept."""


class Place(NamedTuple):
    """A transaction that was about an auction."""

    block: int
    transaction: int
    """Its index in the block."""


class Values(Protocol):
    """The store, as far as it is needed here."""

    def meta(self, name: str) -> bytes | None: ...
    def put_meta_sync(self, name: str, value: bytes | None) -> None: ...


class Blocks(Protocol):
    """Durable blocks by number."""

    def block(self, number: int) -> SealedBlock | None: ...


class LiquidationLog:
    """See the module's text. `save` blocks and belongs into a worker thread, the rest into trio's."""

    def __init__(self, values: Values, blocks: Blocks, last_block: int) -> None:
        """Reads the blocks since the last writing. Raises StoreError."""
        self._values = values
        stored = values.meta(SCANNED_NAME)
        self._saved = int.from_bytes(stored, "big") if stored else 0
        self._scanned = self._saved
        self._changed: dict[int, list[Place]] = {}
        for number in range(self._scanned + 1, last_block + 1):
            block = blocks.block(number)
            if block is not None:
                self.sealed(number, block.results)
        self._scanned = max(self._scanned, last_block)

    def sealed(self, number: int, results: tuple[TransactionResult, ...]) -> None:
        """A block became durable."""
        for index, result in enumerate(results):
            for auction in {event.auction for event in result.liquidations}:
                places = self._changed.get(auction)
                if places is None:
                    places = self._changed[auction] = self._stored(auction)
                if len(places) < MAX_PLACES:
                    places.append(Place(number, index))
        self._scanned = number

    def places(self, auction: int) -> list[Place]:
        """Where an auction's steps are, in their order; empty for one that there never was. May read disk."""
        found = self._changed.get(auction)
        return list(found) if found is not None else self._stored(auction)

    @property
    def wants_save(self) -> bool:
        return bool(self._changed) or self._scanned - self._saved >= WRITE_AFTER_BLOCKS

    def take(self) -> tuple[int, dict[int, list[Place]]]:
        """What `save` has to write."""
        return self._scanned, {auction: list(places) for auction, places in self._changed.items()}

    def save(self, taken: tuple[int, dict[int, list[Place]]]) -> None:
        """Writes it, durably. Raises StoreError."""
        scanned, changed = taken
        for auction, places in changed.items():
            self._values.put_meta_sync(_name(auction), msgspec.msgpack.encode(places))
        self._values.put_meta_sync(SCANNED_NAME, scanned.to_bytes(8, "big"))

    def saved(self, taken: tuple[int, dict[int, list[Place]]]) -> None:
        """It is written: what has not changed since need not stay in memory."""
        self._saved = taken[0]
        for auction, places in taken[1].items():
            if self._changed.get(auction) == places:
                del self._changed[auction]

    def _stored(self, auction: int) -> list[Place]:
        """A place is in it once, also where a block is read again whose writing was cut short."""
        data = self._values.meta(_name(auction))
        found = [Place(*place) for place in msgspec.msgpack.decode(data)] if data else []
        return [place for place in found if place.block <= self._saved]


def _name(auction: int) -> str:
    return f"liquidation/{auction}"
