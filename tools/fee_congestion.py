"""What a flood does: `python -m tools.fee_congestion [--seed N] [--json] [--plot FILE.png]`.

A small venue in memory takes orders through the node's mempool and the real transition. After a quiet lead,
twenty times as many orders arrive as blocks have room for, for a few seconds; then it is quiet again. The
orders find no counterparty, so they use execution units and bytes, and a full block is above the target for
units and below that for bytes; a maker adds leaves all the while. Everybody has a bid, a highest fee and a
deadline, drawn by the seed. The figures: base prices by resource, and by bid who got in, after how long, and
for how much.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from matplotlib.figure import Figure
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from sequencer.mempool import Full, Mempool, Pending
from sequencer.ordering import place_in_order
from state.actions import Order, OrderKind, PlaceOrder, Side, Transaction
from state.errors import Rejected
from state.keys import FEE_MARKET_KEY
from state.leaves import FeeMarket
from state.units import PUSD_PER_UUSD
from tools.exchange import COIN, USD, Exchange, standard_exchange

SEED = 1
TRADERS = 400
MAKER = TRADERS + 1
MEMPOOL = 20_000, 1_000
"""The node's defaults."""
TARGETS = {"execution_target": 1_700, "data_target": 10_000, "growth_target": 200}
"""A second. Full blocks use half as much again of units, and less than that of bytes."""
BLOCK_MS = 200
ROOM = 22
"""Transactions of a block."""
FLOOD = 20
QUIET_PART = 0.4
"""Of the room that quiet times use."""
LEAD_S, BURST_S, AFTER_S = 5, 8, 60
PATIENCE_S = 30
HIGHEST_BID_UUSD = 10_000
WITHOUT_BID = 0.4
MOST_FEES = 40
"""The most that anybody is ready to pay, in fees of the first block."""
BANDS_UUSD = (0, 1, 100, 1_000)
"""Bids from these on are told together."""
RESOURCES = ("execution", "data", "growth")
PRICES = {"C1": 1_000 * USD, "C1-PERPETUAL": 1_000 * USD}


@dataclass(slots=True)
class Sent:
    """An order and what became of it."""

    bid_uusd: int
    time_ms: int
    outcome: str = "waiting"
    """`included`, `expired`, `turned away` by a full mempool, or the code of a refusal."""
    wait_ms: int = 0
    fee_uusd: int = 0
    paid_uusd: int = 0
    """For its place."""


@dataclass(frozen=True, slots=True)
class Block:
    """Base prices in pusd, by resource."""

    time_ms: int
    prices_pusd: tuple[int, int, int]
    included: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Band:
    """Orders of the burst whose bids are near; waits and payments of those that got in."""

    from_bid_uusd: int
    sent: int
    outcomes: dict[str, int]
    wait_s_median: float | None
    wait_s_p95: float | None
    paid_uusd_mean: float | None


@dataclass(frozen=True, slots=True)
class Resource:
    """Base price in pusd when quiet, at its highest, and at the end."""

    name: str
    quiet_pusd: int
    highest_pusd: int
    last_pusd: int


@dataclass(slots=True)
class Venue:
    """Drives the exchange block by block; times are since the beginning."""

    seed: int
    sent: list[Sent] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    exchange: Exchange = field(init=False)
    _mempool: Mempool = field(default_factory=lambda: Mempool(*MEMPOOL))
    _of: dict[bytes, Sent] = field(default_factory=dict)
    _chance: random.Random = field(init=False)
    _quiet_fee_uusd: int = field(init=False)
    _begin_ms: int = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self.exchange = standard_exchange(traders=MAKER)
        self.exchange.set_fees(**TARGETS)
        self._begin_ms = self.exchange.now_ms
        self._quiet_fee_uusd = self.exchange.act(PlaceOrder, 1, order=order()).fee_uusd

    def run(self, seconds: int, arrivals_per_block: float) -> None:
        """So many seconds of blocks; fractions of an order are sent by chance."""
        for _ in range(seconds * 1_000 // BLOCK_MS):
            self.exchange.now_ms += BLOCK_MS
            count = int(arrivals_per_block + self._chance.random())
            for _ in range(count):
                self._send()
            self._block()

    def _send(self) -> None:
        chance, exchange = self._chance, self.exchange
        bid = 0 if chance.random() < WITHOUT_BID else round(HIGHEST_BID_UUSD ** chance.random())
        envelope = exchange.envelope(chance.randint(1, TRADERS)) | {
            "max_fee_uusd": bid + round(self._quiet_fee_uusd * MOST_FEES ** chance.uniform(0.05, 1)),
            "priority_bid_uusd": bid,
            "deadline_s": exchange.now_ms // 1_000 + PATIENCE_S,
        }
        transaction = exchange.sign(PlaceOrder(**envelope, order=order()))
        sent = Sent(bid, exchange.now_ms - self._begin_ms)
        self.sent.append(sent)
        try:
            self._mempool.add(pending_of(transaction, len(self.sent)))
        except Full:
            sent.outcome = "turned away"
        else:
            self._of[transaction.hash] = sent

    def _block(self) -> None:
        exchange, now_ms = self.exchange, self.exchange.now_ms
        for late in self._mempool.expire(now_ms // 1_000):
            self._of.pop(late.hash).outcome = "expired"
        taken = self._mempool.take(ROOM)
        with exchange.block() as execution:
            execution.execute(exchange.update(PRICES))
            resting = Order(1, Side.BUY, OrderKind.POST_ONLY, 900 * USD, COIN // 100)
            exchange.act(PlaceOrder, MAKER, order=resting)
            for pending in taken:
                try:
                    execution.execute(pending.transaction)
                except Rejected as rejected:
                    self._of.pop(pending.hash).outcome = rejected.code.name
        results = exchange.results.pop().results[2:]
        for result in results:
            sent = self._of.pop(result.hash)
            sent.outcome, sent.wait_ms = "included", now_ms - self._begin_ms - sent.time_ms
            sent.fee_uusd, sent.paid_uusd = result.fee_uusd, result.priority_uusd
        market: FeeMarket = exchange.view.get(FEE_MARKET_KEY)
        prices = market.execution_pusd, market.data_pusd, market.growth_pusd
        self.blocks.append(Block(now_ms - self._begin_ms, prices, len(results), len(self._mempool)))


def order() -> Order:
    """Finds nobody, and does not rest."""
    return Order(1, Side.BUY, OrderKind.IMMEDIATE_OR_CANCEL, 990 * USD, COIN // 100)


def pending_of(transaction: Transaction, arrival: int) -> Pending:
    """As the mempool has it."""
    payload: Any = transaction.payload
    action = payload.action
    place = place_in_order(payload)
    pending = Pending(
        payload, transaction.hash, transaction.hash, action.account, action.deadline_s, place, arrival
    )
    pending.transaction = transaction
    return pending


def flood(seed: int, after_s: int = AFTER_S) -> Venue:
    """The whole story: quiet, flood, quiet."""
    venue = Venue(seed)
    venue.run(LEAD_S, ROOM * QUIET_PART)
    venue.run(BURST_S, ROOM * FLOOD)
    venue.run(after_s, ROOM * QUIET_PART)
    return venue


def resources(blocks: Sequence[Block]) -> list[Resource]:
    """Quiet is the end of the lead."""
    quiet = blocks[LEAD_S * 1_000 // BLOCK_MS - 1].prices_pusd
    found = []
    for place, name in enumerate(RESOURCES):
        prices = [block.prices_pusd[place] for block in blocks]
        found.append(Resource(name, quiet[place], max(prices), prices[-1]))
    return found


def of_burst(venue: Venue) -> list[Sent]:
    """What was sent in the burst."""
    lead, burst = LEAD_S * 1_000 // BLOCK_MS, BURST_S * 1_000 // BLOCK_MS
    first, last = venue.blocks[lead].time_ms, venue.blocks[lead + burst - 1].time_ms
    return [it for it in venue.sent if first <= it.time_ms <= last]


def bands(venue: Venue) -> list[Band]:
    """Of what was sent in the burst, the lowest bids first."""
    burst = of_burst(venue)
    found = []
    for low, high in zip(BANDS_UUSD, (*BANDS_UUSD[1:], HIGHEST_BID_UUSD + 1), strict=True):
        sent = [it for it in burst if low <= it.bid_uusd < high]
        got_in = [it for it in sent if it.outcome == "included"]
        waits = sorted(it.wait_ms / 1_000 for it in got_in)
        found.append(
            Band(
                low,
                len(sent),
                dict(Counter(it.outcome for it in sent).most_common()),
                waits[len(waits) // 2] if waits else None,
                waits[len(waits) * 95 // 100] if waits else None,
                round(sum(it.paid_uusd for it in got_in) / len(got_in), 1) if got_in else None,
            )
        )
    return found


def plot(venue: Venue, path: Path) -> None:
    """Prices over time, and waits by bid. A PNG file."""
    figure = Figure(figsize=(10, 8), layout="constrained")
    above, below = figure.subplots(2)
    seconds = [block.time_ms / 1_000 for block in venue.blocks]
    for place, name in enumerate(RESOURCES):
        above.plot(seconds, [it.prices_pusd[place] / PUSD_PER_UUSD for it in venue.blocks], label=name)
    above.axvspan(LEAD_S, LEAD_S + BURST_S, color="lightgrey", label=f"{FLOOD} times the room")
    above.set_yscale("log")
    above.set(xlabel="time (s)", ylabel="base price (uusd per unit, byte, leaf)")
    above.legend()
    got_in = [it for it in of_burst(venue) if it.outcome == "included"]
    below.scatter([it.bid_uusd + 1 for it in got_in], [it.wait_ms / 1_000 for it in got_in], s=4)
    below.set_xscale("log")
    below.set(xlabel="bid + 1 (uusd), of orders sent in the burst", ylabel="time until included (s)")
    figure.savefig(path)


def show(venue: Venue) -> None:
    """For people."""
    console = Console()
    table = Table("base price of", "quiet, pusd", "highest", "at the end", box=SIMPLE)
    for each in resources(venue.blocks):
        table.add_row(each.name, f"{each.quiet_pusd:,}", f"{each.highest_pusd:,}", f"{each.last_pusd:,}")
    console.print(table)
    table = Table("bid from, uusd", "sent", "median wait, s", "p95", "paid, uusd", "outcomes", box=SIMPLE)
    for band in bands(venue):
        figures = (band.wait_s_median, band.wait_s_p95, band.paid_uusd_mean)
        outcomes = ", ".join(f"{count:,} {name}" for name, count in band.outcomes.items())
        shown = ("-" if figure is None else f"{figure:g}" for figure in figures)
        table.add_row(f"{band.from_bid_uusd:,}", f"{band.sent:,}", *shown, outcomes)
    console.print(table)


def main(
    seed: int = SEED,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    plot_to: Annotated[Path | None, typer.Option("--plot", help="PNG file to write.")] = None,
) -> None:
    """Fees and inclusion under a flood of orders."""
    venue = flood(seed)
    if plot_to is not None:
        plot(venue, plot_to)
    if as_json:
        found = {
            "seed": seed,
            "resources": [asdict(each) for each in resources(venue.blocks)],
            "bids": [asdict(each) for each in bands(venue)],
        }
        print(msgspec.json.encode(found).decode())
    else:
        show(venue)


if __name__ == "__main__":
    typer.run(main)
