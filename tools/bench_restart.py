"""What a restart takes and what accounts weigh: processes of their own for `tools.bench_store`.

`fill DIR ORDERS` executes and journals that many signed orders as a node does, in blocks of a busy 50 ms with
one fsync each, and kills itself by SIGKILL; no checkpoint was written, as when the committer lags. `open DIR`
opens the directory as a node's start does: every signature checked, every block executed and compared again.
`weigh DIR` opens a directory made of `crowd` leaves and touches all of it.
"""

from __future__ import annotations

import gc
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sequencer.config import BatchesSection, StoreSection
from sequencer.machine import Machine
from sequencer.sealer import journal_block, sealed_block
from sequencer.signing import SecretKey
from sequencer.startup import Opened, open_state
from state import keys
from state.actions import (
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Price,
    Side,
    SignedAction,
    Transaction,
)
from state.eip712 import action_digest, header_digest, report_digest
from state.genesis import genesis_leaves
from state.hashing import keccak
from state.keys import SYSTEM_KEY
from state.leaves import (
    Account,
    AccountOrder,
    Leaf,
    Marker,
    Market,
    MarketName,
    Position,
    RestingOrder,
    System,
)
from state.signatures import sign
from state.store_records import JournalBatch
from tools.bench_node import DOMAIN, PUBLISHER, SPEC, messages, traders
from tools.devnet import perpetual
from tools.exchange import l1_origin
from tools.figure import Figure
from tools.market import Trader
from tools.midlife import NOWHERE, write_start

ACCOUNTS = 256
ORDERS_PER_BLOCK = 100
BLOCK_MS = 50
BEGIN_MS = 1_800_000_000_000
MARK_UUSD = 60_000_000_000
CASH_UUSD = 10**10
DEPTH_TICKS = 2_000
CROWD = 100_000
FIVE_LEAVES = "account, owner, position, order and its index; store.clean_leaves bounds it in a node"
CHILD_TIMEOUT_S = 300
UNBOUNDED_LEAVES = 10**8
"""So that nothing is evicted while a crowd is weighed."""


def _name(_: int) -> bytes:
    return keccak(SPEC.instrument.encode())


def _transaction(payload: SignedAction | OracleUpdate, secret: bytes, digest: bytes) -> Transaction:
    """As the node has it after its signature worker found the signer."""
    signature = payload.signature if isinstance(payload, SignedAction) else payload.reports[0].signature
    found = keccak(digest + signature)
    if isinstance(payload, OracleUpdate):
        found = keccak(found)
    return Transaction(payload, (SecretKey(secret).address,), found)


def _mark(now_ms: int) -> Transaction:
    prices = (Price(SPEC.underlying, MARK_UUSD, 1_000_000), Price(SPEC.instrument, MARK_UUSD, 1_000_000))
    digest = report_digest(DOMAIN, OracleReport(now_ms, prices, bytes(64)))
    report = OracleReport(now_ms, prices, sign(digest, PUBLISHER.secret))
    return _transaction(OracleUpdate((report,)), PUBLISHER.secret, digest)


def _order(trader: Trader, now_ms: int, chance: random.Random) -> Transaction:
    price = MARK_UUSD + chance.randint(-10, 10) * SPEC.tick_uusd
    size = SPEC.lot_ulots * chance.randint(1, 5)
    order = Order(1, Side(chance.getrandbits(1)), OrderKind.LIMIT, price, size)
    action = PlaceOrder(
        account=trader.account,
        nonce=trader.next_nonce(),
        deadline_s=now_ms // 1_000 + 60,
        max_fee_uusd=1_000_000,
        order=order,
    )
    digest = action_digest(DOMAIN, action, _name)
    return _transaction(SignedAction(action, sign(digest, trader.secret)), trader.secret, digest)


class _Journaling:
    """A node's executor and sealer in one, without checkpoints."""

    def __init__(self, opened: Opened) -> None:
        self._store = opened.store
        self._machine: Machine = opened.machine
        self._key = SecretKey(Trader("bench sequencer").secret)

    def block(self, now_ms: int, queued: tuple[Any, ...], transactions: list[Transaction]) -> None:
        """Executes a block and waits until the disk has it; ends the batch when it is full."""
        limit = BatchesSection().max_bytes
        outcomes, executed = self._machine.execute(now_ms, l1_origin(1), queued, transactions, limit)
        assert executed is not None
        refused = [each for each in outcomes if isinstance(each, Exception)]
        if refused or len(outcomes) < len(transactions):
            raise RuntimeError(f"not all of a block was executed: {refused[:1]}")
        signature = self._key.sign(header_digest(DOMAIN, executed.result.header))
        self._store.append_blocks([journal_block(sealed_block(executed, signature))])
        self._store.sync()
        batch = self._machine.batch
        assert batch is not None
        if batch.bytes > limit - limit // 16:
            closed = self._machine.close()
            record = JournalBatch(closed.number, closed.first_block, closed.last_block, closed.head)
            self._store.close_batch(record)


def fill(path: Path, orders: int) -> None:
    """Journals that many orders, says so, and dies."""
    limits = StoreSection()
    journaling = _Journaling(open_state(path, DOMAIN, limits.clean_leaves, limits.tree_pages))
    chance, people = random.Random(1), traders(ACCOUNTS)
    journaling.block(BEGIN_MS, tuple(messages(ACCOUNTS)), [_mark(BEGIN_MS)])
    for number in range(orders // ORDERS_PER_BLOCK):
        now_ms = BEGIN_MS + (number + 1) * BLOCK_MS
        chosen = chance.sample(people, ORDERS_PER_BLOCK)
        journaling.block(now_ms, (), [_order(trader, now_ms, chance) for trader in chosen])
    say(orders=orders)
    os.kill(os.getpid(), signal.SIGKILL)


def open_again(path: Path) -> None:
    """A node's start, timed."""
    limits = StoreSection()
    begin = time.perf_counter()
    opened = open_state(path, DOMAIN, limits.clean_leaves, limits.tree_pages)
    seconds = time.perf_counter() - begin
    found = opened.recovered
    opened.store.close()
    say(seconds=seconds, blocks=found.blocks, batches=found.batches)


def crowd(accounts: int) -> dict[bytes, bytes]:
    """Leaves of accounts that each have a position and a resting order: five leaves an account."""
    instrument = perpetual(SPEC)
    leaves: dict[bytes, Leaf] = dict(genesis_leaves())
    leaves[SYSTEM_KEY] = System(
        next_account=accounts + 1,
        next_market=2,
        next_sequence=accounts + 1,
        next_trade=1,
        next_withdrawal=1,
        collateral_uusd=accounts * CASH_UUSD,
    )
    leaves[keys.instrument_key(1)] = instrument
    leaves[keys.name_key(keys.MARKET_NAME, SPEC.instrument)] = MarketName(1)
    leaves[keys.market_key(1)] = Market(MARK_UUSD, BEGIN_MS, 0, 0, 0, BEGIN_MS, 0, 0, 0, 0, 0)
    size = SPEC.lot_ulots
    for number in range(1, accounts + 1):
        side = number % 2
        owner = keccak(number.to_bytes(8, "big"))[12:]
        order_id = number << 6
        away = (number % DEPTH_TICKS + 1) * SPEC.tick_uusd
        price = MARK_UUSD + (away if side else -away)
        sign_of = 1 if side else -1
        cost = MARK_UUSD * size // 1_000_000
        open_sides = (0, size) if side else (size, 0)
        leaves[keys.account_key(number)] = Account(owner, CASH_UUSD, 0, bytes(32), 1, 1, 0, 0)
        leaves[keys.owner_account_key(owner, number)] = Marker(1)
        leaves[keys.position_key(number, 1)] = Position(sign_of * size, -sign_of * cost, 0, *open_sides, 1)
        leaves[keys.order_key(1, side, price, number)] = RestingOrder(number, order_id, size, 0, 0, 0, 0)
        leaves[keys.account_order_key(number, 1, order_id)] = AccountOrder(side, price, number)
    return {key: leaf.encode() for key, leaf in leaves.items()}


def weigh(path: Path) -> None:
    """Resident memory before opening, when open, and when every account was touched; bytes."""
    gc.collect()
    before = resident_bytes()
    opened = open_state(path, NOWHERE, UNBOUNDED_LEAVES, StoreSection().tree_pages)
    at_rest = resident_bytes()
    view = opened.machine.view
    accounts = opened.machine.system.next_account - 1
    for number in range(1, accounts + 1):
        account = view.get(keys.account_key(number))
        view.get(keys.owner_account_key(account.owner, number))
        view.iterate_under(keys.positions_prefix(number), 64)
        view.iterate_under(keys.account_orders_prefix(number), 512)
    for side in Side:
        view.iterate_under(keys.order_book_prefix(1, side), accounts)
    touched = resident_bytes()
    resident = view.resident
    opened.store.close()
    say(before=before, at_rest=at_rest, touched=touched, accounts=accounts, leaves=resident)


def child(doing: str, path: Path, count: int = 0) -> dict[str, Any]:
    """Runs one of the above in a process of its own; what it said. Raises RuntimeError if it failed."""
    command = [sys.executable, "-m", "tools.bench_restart", doing, str(path), str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=CHILD_TIMEOUT_S)
    if done.returncode != (-signal.SIGKILL if doing == "fill" else 0):
        raise RuntimeError(f"{doing} ended with status {done.returncode}")
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def restart_figure(orders: int) -> Figure:
    """The start of a node whose journal holds so many orders."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "data"
        child("fill", path, orders)
        opened = child("open", path)
    if opened["blocks"] != orders // ORDERS_PER_BLOCK + 1:
        raise RuntimeError(f"{opened['blocks']} blocks came back")
    note = f"after kill -9; {opened['seconds'] / orders * 1e6:.0f} us an order, {opened['batches']} batches"
    return Figure(f"restart, {orders:,} orders in the journal", opened["seconds"], "s", note=note)


def memory_figures() -> list[Figure]:
    """Measured with CROWD accounts, extrapolated in proportion to a million."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "data"
        write_start(path, crowd(CROWD))
        found = child("weigh", path)
    million = 10**6 / found["accounts"] / 10**6
    rest, touched = found["at_rest"] - found["before"], found["touched"] - found["before"]
    note = f"measured with {found['accounts']:,}, {found['leaves']:,} leaves: {touched / 10**6:,.0f} MB"
    return [
        Figure("memory per million accounts, opened", rest * million, "MB", note="tree index and LevelDB"),
        Figure("memory per million accounts, all touched", touched * million, "MB", note=note),
        Figure("memory of one account, all touched", touched / found["accounts"], "bytes", note=FIVE_LEAVES),
    ]


def resident_bytes() -> int:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def say(**figures: float) -> None:
    print(json.dumps(figures), flush=True)


def main(doing: str, path: Path, count: int) -> None:
    if doing == "fill":
        fill(path, count)
    elif doing == "open":
        open_again(path)
    else:
        weigh(path)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
