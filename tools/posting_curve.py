"""What waiting buys: cost per order and time to safe against `max_delay`, on recorded L1 fees.

    python -m tools.posting_curve ../shared/data/ethereum_l1_*.csv.gz

The node's own policy (`l1_bridge.posting_policy`) decides, seconds apart, over a steady flow of orders with
seeded Poisson arrivals; beside it a batch that always goes out at the age of `max_delay`, or when it is full.
The policy sees only blocks that have come. A batch pays what the first block asks that comes at least
`SENDING_S` after its decision, as calldata or whole blobs, whichever is cheaper then; without a tip, which
recordings do not have. Where a recording has no blob fees, blobs cost the least they can: `--data calldata`
shows how it is without them. Batches do not wait for one another. An order is safe when its batch is in that
block.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import typer
from numpy.typing import NDArray
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from l1_bridge.blobs import DATA_BYTES_PER_BLOB, GAS_PER_BLOB, blob_count
from l1_bridge.posting import GWEI, POST_GAS, Limits, calldata_gas
from l1_bridge.posting_policy import L1Prices, PolicyTerms, RecentPrices, Rule, Waiting, decide
from l1_bridge.types import Fees
from tools.l1_fees import BlockFees, FeesError, read_fees, synthetic_fees

Arrivals = NDArray[np.int64]
Data = Literal["auto", "calldata", "blobs"]

RECORDINGS = Path("../shared/data")
DELAYS_S = (15, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600)
LONGEST_PART = 6
"""A delay is shown if the recording is at least this many times as long."""
MAX_AGE_S = 60
ORDER_BYTES = 77.5
"""Of a batch, for a singly signed order (README)."""
SENDING_S = 4
"""From the decision to a transaction that the next block can take: root, blobs' proofs, signature."""
RATE_WINDOW_S = 600
SEED = 4
SYNTHETIC_BLOCKS = 2_400
RULES = {"full": Rule.FULL, "due": Rule.MAX_DELAY, "cheap": Rule.CHEAP_NOW}
"""Columns of the table: batches by what decided."""


@dataclass(frozen=True, slots=True)
class Posted:
    """One batch of a replay; times are seconds of the recording."""

    opened_s: int
    decided_s: int
    safe_s: int
    orders: int
    cost_wei: int
    rule: str


@dataclass(frozen=True, slots=True)
class Point:
    """One `max_delay` of the curve: costs in gwei for an order, times in seconds. `fixed`: always as old."""

    max_delay_s: int
    gwei_per_order: float
    fixed_gwei_per_order: float
    safe_mean_s: float
    safe_p99_s: float
    fixed_safe_mean_s: float
    oldest_s: int
    """Age of the oldest batch when it went out."""
    batches: int
    fill: float
    """Mean share of a full batch."""
    rules: dict[str, int]
    """Batches by what decided."""


def terms_for(max_delay_s: int, data: Data = "auto") -> PolicyTerms:
    """The node's terms with this `max_delay`."""
    room = Limits().max_calldata_bytes if data == "calldata" else 3 * DATA_BYTES_PER_BLOB
    return PolicyTerms(
        max_age_s=min(MAX_AGE_S, max_delay_s),
        max_delay_s=max_delay_s,
        full_bytes=room - room // 16,
        data=data,
    )


def steady_flow(blocks: Sequence[BlockFees], orders_per_s: float, seed: int = SEED) -> Arrivals:
    """Orders in each second of the recording, Poisson."""
    seconds = blocks[-1].timestamp_s - blocks[0].timestamp_s
    return np.random.default_rng(seed).poisson(orders_per_s, seconds)


def cost_wei(size: int, block: BlockFees, data: Data) -> int:
    """What a batch of `size` bytes, none of them zero, costs in a block: whole blobs, or calldata."""
    blobs = POST_GAS * block.base_fee_wei + blob_count(size) * GAS_PER_BLOB * block.blob_base_fee_wei
    calldata = calldata_gas(0, size) * block.base_fee_wei
    if data == "auto":
        return min(blobs, calldata)
    return calldata if data == "calldata" else blobs


def replay(blocks: Sequence[BlockFees], arrivals: Arrivals, terms: PolicyTerms, data: Data) -> list[Posted]:
    """Batches of `arrivals` as `terms` post them; what is open at the recording's end is left out."""
    start_s = blocks[0].timestamp_s
    times_s = [block.timestamp_s - start_s for block in blocks]
    sums = [0, *np.cumsum(arrivals).tolist()]
    prices: L1Prices | None = None
    recent, seen, mined = RecentPrices(), 0, 0
    step_s = max(1, int(terms.max_delay_s) // 128)
    opened: int | None = None
    posted: list[Posted] = []
    for now_s in range(len(arrivals)):
        while seen < len(blocks) and times_s[seen] <= now_s:
            block = blocks[seen]
            fees = Fees(block.base_fee_wei, 0, block.blob_base_fee_wei)
            prices = recent.observed(times_s[seen], fees)
            seen += 1
        if opened is None and sums[now_s + 1] > sums[now_s]:
            opened = now_s
        if opened is None or (now_s - opened) % step_s:
            continue
        orders = sums[now_s + 1] - sums[opened]
        window_s = min(now_s + 1, RATE_WINDOW_S)
        flow = (sums[now_s + 1] - sums[now_s + 1 - window_s]) / window_s * ORDER_BYTES
        size = math.ceil(orders * ORDER_BYTES)
        verdict = decide(Waiting(size, now_s - opened, flow, 0, prices), terms)
        if not verdict.post:
            continue
        while mined < len(blocks) and times_s[mined] < now_s + SENDING_S:
            mined += 1
        if mined == len(blocks):
            break
        cost = cost_wei(size, blocks[mined], data)
        posted.append(Posted(opened, now_s, times_s[mined], orders, cost, verdict.rule.value))
        opened = None
    return posted


def cost_per_order_wei(posted: Sequence[Posted]) -> float:
    """Over all batches."""
    return sum(batch.cost_wei for batch in posted) / max(1, sum(batch.orders for batch in posted))


def times_to_safe_s(posted: Sequence[Posted], arrivals: Arrivals) -> tuple[float, float]:
    """Mean and 99th percentile over the orders of these batches."""
    waits: list[NDArray[np.int64]] = []
    counts: list[NDArray[np.int64]] = []
    for batch in posted:
        seconds = np.arange(batch.opened_s, batch.decided_s + 1)
        waits.append(batch.safe_s - seconds)
        counts.append(arrivals[seconds])
    wait, count = np.concatenate(waits), np.concatenate(counts)
    order = np.argsort(wait)
    reached = np.cumsum(count[order])
    p99 = wait[order][np.searchsorted(reached, 0.99 * reached[-1])]
    return float(np.average(wait, weights=count)), float(p99)


def point(blocks: Sequence[BlockFees], arrivals: Arrivals, terms: PolicyTerms, data: Data) -> Point | None:
    """One point of the curve; None when the recording ends before a batch went out."""
    posted = replay(blocks, arrivals, terms, data)
    fixed = replay(blocks, arrivals, replace(terms, max_age_s=terms.max_delay_s), data)
    if not posted or not fixed:
        return None
    mean_s, p99_s = times_to_safe_s(posted, arrivals)
    return Point(
        max_delay_s=int(terms.max_delay_s),
        gwei_per_order=cost_per_order_wei(posted) / GWEI,
        fixed_gwei_per_order=cost_per_order_wei(fixed) / GWEI,
        safe_mean_s=mean_s,
        safe_p99_s=p99_s,
        fixed_safe_mean_s=times_to_safe_s(fixed, arrivals)[0],
        oldest_s=max(batch.decided_s - batch.opened_s for batch in posted),
        batches=len(posted),
        fill=sum(batch.orders for batch in posted) * ORDER_BYTES / len(posted) / terms.full_bytes,
        rules=dict(sorted(Counter(batch.rule for batch in posted).items())),
    )


def curve(blocks: Sequence[BlockFees], orders_per_s: float, data: Data) -> list[Point]:
    """Points for all delays that the recording is long enough for."""
    arrivals = steady_flow(blocks, orders_per_s)
    delays = [delay for delay in DELAYS_S if delay * LONGEST_PART <= len(arrivals)]
    found = (point(blocks, arrivals, terms_for(delay, data), data) for delay in delays)
    return [each for each in found if each is not None]


def show(console: Console, name: str, points: Sequence[Point]) -> None:
    """A recording's table; `fixed` stands for batches that are always as old as `max_delay`, or full."""
    table = Table(title=name, box=SIMPLE, padding=(0, 0, 0, 1))
    for heading in ("delay s", "gwei/order", "fixed", "safe s", "p99 s", "fixed s", "fill", *RULES):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in points:
        table.add_row(
            str(each.max_delay_s),
            _gwei(each.gwei_per_order),
            _gwei(each.fixed_gwei_per_order),
            f"{each.safe_mean_s:.0f}",
            f"{each.safe_p99_s:.0f}",
            f"{each.fixed_safe_mean_s:.0f}",
            f"{each.fill:.0%}",
            *(str(each.rules.get(rule.value, 0)) for rule in RULES.values()),
        )
    console.print(table)


def _gwei(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.4g}"


def plot(curves: dict[str, list[Point]], orders_per_s: float, path: Path) -> None:
    """The curves as a PNG: a column for each recording, cost above, time to safe below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(curves), 7.5), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False, sharex=True)
    figure.suptitle(f"Waiting to post a batch, at {orders_per_s:g} orders a second")
    for column, (name, points) in enumerate(curves.items()):
        delays = [each.max_delay_s for each in points]
        cost, safe = axes[0][column], axes[1][column]
        cost.plot(delays, [each.gwei_per_order for each in points], "o-", label="policy")
        cost.plot(delays, [each.fixed_gwei_per_order for each in points], "x--", label="always at max_delay")
        cost.set_ylabel("L1 cost per order (gwei)")
        safe.plot(delays, [each.safe_mean_s for each in points], "o-", label="policy, mean")
        safe.plot(delays, [each.safe_p99_s for each in points], "^:", label="policy, 99th percentile")
        safe.plot(delays, [each.fixed_safe_mean_s for each in points], "x--", label="always at max_delay")
        safe.set_ylabel("time to safe (s)")
        safe.set_xlabel("max_delay (s)")
        cost.set_title(name, fontsize="small")
        for axis in (cost, safe):
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.grid(visible=True, which="both", alpha=0.3)
            axis.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def recordings(files: Sequence[Path]) -> dict[str, list[BlockFees]]:
    """Named fees: of `files`, else of the recordings beside the repository, else made up.

    Raises FeesError for a file that is no recording, OSError for one that cannot be read.
    """
    found = files or sorted(RECORDINGS.glob("ethereum_l1_*.csv.gz"))
    if not found:
        return {"synthetic": synthetic_fees(SYNTHETIC_BLOCKS, SEED)}
    return {path.name.split(".")[0]: read_fees(path) for path in found}


def main(
    files: Annotated[list[Path] | None, typer.Argument(help="Recorded L1 fees, CSV, plain or gzip.")] = None,
    rate: Annotated[float, typer.Option(min=0.001, help="Orders a second.")] = 1.0,
    data: Annotated[Data, typer.Option(help="What the poster may use.")] = "auto",
    picture: Annotated[Path, typer.Option("--plot", help="The PNG to write.")] = Path(
        "data/posting_curve.png"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Cost per order and time to safe against max_delay, on recorded L1 fees: tables and a picture."""
    try:
        named = recordings(files or ())
    except (FeesError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(2) from None
    curves = {name: curve(blocks, rate, data) for name, blocks in named.items()}
    plot(curves, rate, picture)
    if as_json:
        result: dict[str, Any] = {name: [asdict(each) for each in points] for name, points in curves.items()}
        print(msgspec.json.encode({"orders_per_s": rate, "data": data, "curves": result}).decode())
        return
    console = Console()
    for name, points in curves.items():
        show(console, f"{name}, {rate:g} orders a second", points)
    console.print(f"plotted: {picture}")


if __name__ == "__main__":
    typer.run(main)
