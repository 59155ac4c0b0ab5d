"""The log finds an auction's steps, through writings and ends in the middle of one."""

from __future__ import annotations

from sequencer.liquidation_log import SCANNED_NAME, WRITE_AFTER_BLOCKS, LiquidationLog, Place
from sequencer.receipts import SealedBlock
from state.block import BlockHeader, LiquidationChange, LiquidationEvent, TransactionResult

HEADER = BlockHeader(0, bytes(32), 0, bytes(32), 0, 0)


class Store:
    """Values and blocks in memory; after `writes_left` writes there is an error."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.blocks: dict[int, SealedBlock] = {}
        self.writes_left = 1_000_000

    def meta(self, name: str) -> bytes | None:
        return self.values.get(name)

    def put_meta_sync(self, name: str, value: bytes | None) -> None:
        if self.writes_left == 0:
            raise OSError
        self.writes_left -= 1
        assert value is not None
        self.values[name] = value

    def block(self, number: int) -> SealedBlock | None:
        return self.blocks.get(number)

    def add(self, *auctions: int) -> int:
        """A block with a transaction for each of these auctions (0: for none); its number."""
        number = len(self.blocks) + 1
        results = tuple(
            TransactionResult(
                bytes(32),
                liquidations=(LiquidationEvent(LiquidationChange.BID, auction, 1),) * 2 if auction else (),
            )
            for auction in auctions
        )
        self.blocks[number] = SealedBlock(HEADER, bytes(32), bytes(64), 1, results, (), ())
        return number


def followed(store: Store, log: LiquidationLog, *auctions: int) -> None:
    number = store.add(*auctions)
    log.sealed(number, store.blocks[number].results)


def save(log: LiquidationLog) -> None:
    taken = log.take()
    log.save(taken)
    log.saved(taken)


def wants_save(log: LiquidationLog) -> bool:
    return log.wants_save


def test_places_are_found_before_and_after_they_are_written() -> None:
    store = Store()
    log = LiquidationLog(store, store, 0)
    followed(store, log, 0, 7)
    followed(store, log, 8, 7, 0, 7)
    expected = [Place(1, 1), Place(2, 1), Place(2, 3)]
    assert log.places(7) == expected
    assert wants_save(log)
    save(log)
    assert not wants_save(log)
    assert log.places(7) == expected
    followed(store, log, 7)
    assert log.places(7) == [*expected, Place(3, 0)]
    assert log.places(8) == [Place(2, 0)]
    assert log.places(9) == []


def test_what_came_while_it_was_written_is_kept() -> None:
    store = Store()
    log = LiquidationLog(store, store, 0)
    followed(store, log, 7)
    taken = log.take()
    log.save(taken)
    followed(store, log, 7)
    log.saved(taken)
    assert log.places(7) == [Place(1, 0), Place(2, 0)]
    save(log)
    assert LiquidationLog(store, store, 2).places(7) == [Place(1, 0), Place(2, 0)]


def test_after_any_end_the_log_is_what_the_blocks_say() -> None:
    for writes in range(4):
        store = Store()
        log = LiquidationLog(store, store, 0)
        followed(store, log, 7)
        save(log)
        followed(store, log, 0, 7, 8)
        store.writes_left = writes
        try:
            save(log)
        except OSError:
            assert writes < 3
        store.writes_left = 1_000_000
        again = LiquidationLog(store, store, 2)
        assert again.places(7) == [Place(1, 0), Place(2, 1)]
        assert again.places(8) == [Place(2, 2)]
        save(again)
        assert LiquidationLog(store, store, 2).places(7) == [Place(1, 0), Place(2, 1)]


def test_blocks_without_liquidations_are_not_read_again_for_ever() -> None:
    store = Store()
    log = LiquidationLog(store, store, 0)
    for _ in range(WRITE_AFTER_BLOCKS):
        assert not wants_save(log)
        followed(store, log, 0)
    assert wants_save(log)
    save(log)
    assert int.from_bytes(store.values[SCANNED_NAME], "big") == WRITE_AFTER_BLOCKS
