"""Pages of history: joined, they are everything, while blocks are added, checkpointed and pruned in between.

The database is a dictionary here, and blocks are made by hand: a block's result is all that history reads.
"""

from __future__ import annotations

import bisect
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from struct import pack

import pytest

from sequencer.config import HistorySection
from sequencer.history import (
    AFTER_ALL,
    DAY_MS,
    FIRST,
    MAX_SCANNED,
    History,
    HistoryState,
    Place,
    Placed,
    Query,
    Stream,
)
from sequencer.history_records import Record
from sequencer.machine import ExecutedBlock
from sequencer.markets import Markets
from state.block import BlockHeader, BlockResult, L1Message, MessageKind, MessageResult, Trade
from state.cache import CachedState, MemorySource
from state.genesis import genesis_leaves
from state.store import HISTORY, Write
from tools.exchange import l1_origin

START_MS = 1_700_000_000_000
ACCOUNTS = 4
MARKETS = 3
BOTH = (Stream.TRADES, Stream.MONEY)


class Table:
    """The database's rows of history."""

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self.before_read: Callable[[], None] = lambda: None

    def get(self, key: bytes) -> bytes | None:
        return self.rows.get(key)

    def iterate(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self.before_read()
        keys = sorted(self.rows)
        found = keys[bisect.bisect_left(keys, start) : bisect.bisect_left(keys, stop)]
        yield from [(key, self.rows[key]) for key in (reversed(found) if reverse else found)]

    def write(self, writes: Sequence[Write]) -> None:
        for key, value in writes:
            assert key.startswith(HISTORY)
            if value is None:
                del self.rows[key]
            else:
                self.rows[key] = value


class Chain:
    """Random blocks of deposits and trades, and what each account's history must say."""

    def __init__(self, seed: int, limits: HistorySection | None = None) -> None:
        self.random = random.Random(seed)
        self.limits = limits or HistorySection()
        self.table = Table()
        self.expected: dict[int, list[Place]] = defaultdict(list)
        self.now_ms = START_MS
        self.block = self.batch = self.trade = 0
        self.open: list[ExecutedBlock] = []
        self.start()

    def start(self) -> None:
        """Opens the history as a start after a crash does: blocks of the open batch come from the journal."""
        view = CachedState(MemorySource({k: leaf.encode() for k, leaf in genesis_leaves().items()}), 100)
        self.history = History(self.table, Markets(view), self.limits, self.batch, 0)
        for executed in self.open:
            self.history.sealed(executed)

    def seal(self, size: int = 30) -> None:
        """Adds a durable block."""
        random = self.random
        self.now_ms += random.choice((0, 1, 50))
        self.block += 1
        deposits = [random.randint(1, ACCOUNTS) for _ in range(random.randint(0, size))]
        index = 0
        for index, account in enumerate(deposits, 1):
            self.expected[account].append(Place(self.now_ms, self.block, index))
        trades = []
        for _ in range(random.randint(0, size)):
            maker, taker = random.sample(range(1, ACCOUNTS + 1), 2)
            self.trade, index = self.trade + 1, index + 1
            market = random.randint(1, MARKETS)
            trades.append(Trade(self.trade, market, 10**6, 10**6, 0, maker, 1, taker, 2, 3, 4))
            for account in (maker, taker):
                self.expected[account].append(Place(self.now_ms, self.block, index))
        self.open.append(executed_block(self.block, self.now_ms, deposits, trades))
        self.history.sealed(self.open[-1])

    def commit(self) -> None:
        """Closes the batch; its checkpoint is written."""
        if self.open:
            self.batch += 1
            self.table.write(self.history.rows(self.batch, self.block))
            self.history.archived(self.block)
            self.open = []

    def check_kept(self, account: int) -> None:
        """What is served is the end of everything, and lacks nothing from `kept_from_ms` on."""
        found = places(self.all_of(Query(account, BOTH)))
        expected = self.expected[account]
        assert found == expected[len(expected) - len(found) :]
        gone = expected[: len(expected) - len(found)]
        assert not gone or gone[-1].timestamp_ms < self.history.kept_from_ms

    def all_of(self, query: Query) -> Iterator[list[Placed]]:
        """Page after page."""
        while True:
            page = self.history.page(query)
            yield page.records
            if page.last is None:
                return
            query = after(query, page.last)


def after(query: Query, last: Place) -> Query:
    """The query for the next page."""
    fields = {name: getattr(query, name) for name in Query.__dataclass_fields__}
    if query.newest_first:
        return Query(**fields | {"high": last})
    return Query(**fields | {"low": last._replace(number=last.number + 1)})


def of(markets: frozenset[int] | None) -> Callable[[Record], bool]:
    """Whether a record is about one of these markets; None stands for any."""
    return lambda record: markets is None or record.market in markets


def executed_block(
    number: int, timestamp_ms: int, deposits: Sequence[int], trades: Sequence[Trade]
) -> ExecutedBlock:
    header = BlockHeader(number, bytes(32), timestamp_ms, bytes(32), 0, 0)
    messages = tuple(
        L1Message(MessageKind.DEPOSIT, bytes(20), 0, pack(">20sQQ", b"", 0, 1)) for _ in deposits
    )
    results = tuple(
        MessageResult(index, MessageKind.DEPOSIT, account=account, amount_uusd=1)
        for index, account in enumerate(deposits)
    )
    result = BlockResult(header, bytes(32), results, (), tuple(trades), (), (), (), b"", order_ends=(0,))
    return ExecutedBlock(result, 1, l1_origin(1), messages, (), ())


def places(pages: Iterator[list[Placed]]) -> list[Place]:
    return [place for page in pages for place, _ in page]


@pytest.mark.parametrize("seed", range(20))
def test_pages_joined_are_everything_while_the_history_grows(seed: int) -> None:
    """iHISTORY_001."""
    chain = Chain(seed)
    random = chain.random
    for _ in range(random.randint(0, 40)):
        chain.seal()
        if random.random() < 0.2:
            chain.commit()
    for account in range(1, ACCOUNTS + 1):
        for newest_first in (False, True):
            before = expected = list(chain.expected[account])
            found: list[Place] = []
            for page in chain.all_of(
                Query(account, BOTH, newest_first=newest_first, limit=random.randint(1, 99))
            ):
                found += [place for place, _ in page]
                expected = list(chain.expected[account])
                event = random.random()
                if event < 0.1:
                    chain.seal(5)
                elif event < 0.2:
                    chain.commit()
                elif event < 0.25:
                    chain.start()
            assert found == (before[::-1] if newest_first else expected)


@pytest.mark.parametrize("seed", range(10))
def test_any_range_and_any_market(seed: int) -> None:
    chain = Chain(seed)
    random = chain.random
    for _ in range(40):
        chain.seal()
        if random.random() < 0.1:
            chain.commit()
    for _ in range(100):
        account = random.randint(1, ACCOUNTS)
        everything = places(chain.all_of(Query(account, BOTH)))
        low, high = sorted(random.choices([FIRST, AFTER_ALL, *everything, *everything], k=2))
        markets = random.choice((None, frozenset({1}), frozenset({2, 3}), frozenset[int]()))
        newest_first = random.random() < 0.5
        query = Query(account, BOTH, low, high, newest_first, of(markets), random.randint(1, 50))
        found = [placed for page in chain.all_of(query) for placed in page]
        whole = [placed for page in chain.all_of(Query(account, BOTH)) for placed in page]
        wanted = [
            (place, record)
            for place, record in whole
            if low <= place < high and (markets is None or record.market in markets)
        ]
        assert found == (wanted[::-1] if newest_first else wanted)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_checkpoint_in_the_middle_of_a_page_changes_nothing(newest_first: bool) -> None:
    """A page has looked at the memory when a checkpoint moves what is there to the database."""
    chain = Chain(8)
    for _ in range(10):
        chain.seal()
        chain.seal()
        chain.table.before_read = chain.commit
        page = chain.history.page(Query(1, BOTH, newest_first=newest_first, limit=10**6))
        chain.table.before_read = lambda: None
        assert not chain.open
        found = [place for place, _ in page.records]
        assert found == (chain.expected[1][::-1] if newest_first else chain.expected[1])


def test_streams_are_apart() -> None:
    chain = Chain(1)
    for _ in range(20):
        chain.seal()
    chain.commit()
    for account in range(1, ACCOUNTS + 1):
        trades = places(chain.all_of(Query(account, (Stream.TRADES,))))
        money = places(chain.all_of(Query(account, (Stream.MONEY,))))
        assert sorted(trades + money) == chain.expected[account]
        assert trades
        assert money
        assert places(chain.all_of(Query(account, (Stream.ORDERS,)))) == []
    assert places(chain.all_of(Query(ACCOUNTS + 1, BOTH))) == []


def test_a_start_finds_what_was_there() -> None:
    chain = Chain(2)
    for _ in range(30):
        chain.seal()
        if chain.random.random() < 0.2:
            chain.commit()
        chain.start()
    for account in range(1, ACCOUNTS + 1):
        assert places(chain.all_of(Query(account, BOTH))) == chain.expected[account]
    assert chain.history.kept_from_ms == 0


def test_what_is_too_old_goes_from_the_beginning() -> None:
    """iHISTORY_002."""
    chain = Chain(3, HistorySection(keep_days=10))
    for _ in range(40):
        chain.seal()
        chain.now_ms += DAY_MS
        chain.seal()
        chain.commit()
        kept_from_ms = chain.history.kept_from_ms
        assert kept_from_ms == 0 or chain.now_ms - 12 * DAY_MS < kept_from_ms < chain.now_ms - 10 * DAY_MS
        for account in range(1, ACCOUNTS + 1):
            chain.check_kept(account)
    assert chain.history.kept_from_ms
    assert len(chain.table.rows) < 15 * (1 + 2 * ACCOUNTS) + 2


def test_what_is_too_much_goes_from_the_beginning() -> None:
    """iHISTORY_002."""
    chain = Chain(4, HistorySection(max_mib=1))
    for _ in range(60):
        for _ in range(10):
            chain.seal(400)
        chain.commit()
    size = sum(len(key) + len(value) for key, value in chain.table.rows.items() if key[1] == 2)
    assert 0.8 * 2**20 < size <= 2**20  # whole batches go, a tenth and more of it each
    state = chain.history._state
    assert isinstance(state, HistoryState)
    assert (state.bytes, state.next_batch) == (size, 61)
    assert state.oldest_batch > 1
    for account in range(1, ACCOUNTS + 1):
        chain.check_kept(account)


def test_a_cursor_before_what_was_pruned_goes_on_with_what_is_left() -> None:
    chain = Chain(5, HistorySection(keep_days=1))
    chain.seal(200)
    chain.commit()
    page = chain.history.page(Query(1, BOTH, limit=1))
    assert page.last is not None
    for _ in range(4):
        chain.now_ms += DAY_MS
        chain.seal(200)
        chain.commit()
    found = places(chain.all_of(after(Query(1, BOTH), page.last)))
    assert found == places(chain.all_of(Query(1, BOTH)))
    chain.check_kept(1)
    assert chain.history.kept_from_ms > START_MS


def test_a_page_looks_at_a_bounded_number_of_records() -> None:
    """iHISTORY_002: a page of what hardly ever happens ends, and the next one goes on."""
    chain = Chain(6)
    for _ in range(60):
        chain.seal(2_000)
        if chain.random.random() < 0.3:
            chain.commit()
    nothing = Query(1, BOTH, wanted=of(frozenset()))
    assert len(chain.expected[1]) > MAX_SCANNED
    page = chain.history.page(nothing)
    assert (page.records, page.last) == ([], chain.expected[1][MAX_SCANNED - 1])
    assert places(chain.all_of(nothing)) == []


def test_batches_without_history_are_owned_up_to() -> None:
    """A release without history wrote some batches: what is there stays, and is not called complete."""
    chain = Chain(7)
    chain.seal()
    chain.commit()
    gap = History(chain.table, chain.history._markets, chain.limits, chain.batch + 3, START_MS + 777)
    assert gap.kept_from_ms == START_MS + 777
    assert places(iter([gap.page(Query(1, BOTH)).records])) == chain.expected[1]
