"""L1 fees, recorded or made up. A recording is a CSV with a header, plain or gzip, a row for each block.

Columns: `block_number`, `timestamp_s`, `base_fee_wei` and, from EIP-4844 on, `blob_base_fee_wei`; others are
ignored. Without the blob column blob gas counts as 1 wei, the least it can cost. Blocks may be missing.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import random
from dataclasses import dataclass
from pathlib import Path

SLOT_S = 12


class FeesError(ValueError):
    """The file is no recording of L1 fees; the message says which line and what was expected."""


@dataclass(frozen=True, slots=True)
class BlockFees:
    """One L1 block's base fees."""

    number: int
    timestamp_s: int
    base_fee_wei: int
    blob_base_fee_wei: int


def read_fees(path: Path) -> list[BlockFees]:
    """Raises FeesError for columns or values that do not fit, OSError when the file cannot be read."""
    data = path.read_bytes()
    try:
        text = (gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data).decode()
    except (UnicodeDecodeError, gzip.BadGzipFile, EOFError):
        raise FeesError(f"{path.name}: neither text nor gzip") from None
    rows = csv.DictReader(io.StringIO(text))
    missing = {"block_number", "timestamp_s", "base_fee_wei"} - set(rows.fieldnames or ())
    if missing:
        raise FeesError(f"{path.name}: no column {', '.join(sorted(missing))}")
    blocks: list[BlockFees] = []
    for row in rows:
        try:
            block = BlockFees(
                int(row["block_number"]),
                int(row["timestamp_s"]),
                int(row["base_fee_wei"]),
                int(row.get("blob_base_fee_wei") or 1),
            )
        except (TypeError, ValueError):
            raise FeesError(f"{path.name}: line {rows.line_num}: not integers") from None
        if block.base_fee_wei < 0 or block.blob_base_fee_wei < 1:
            raise FeesError(f"{path.name}: line {rows.line_num}: a fee below the least there is")
        if blocks and (block.number <= blocks[-1].number or block.timestamp_s <= blocks[-1].timestamp_s):
            raise FeesError(f"{path.name}: line {rows.line_num}: not later than the line before")
        blocks.append(block)
    if len(blocks) < 2:
        raise FeesError(f"{path.name}: fewer than two blocks")
    return blocks


def synthetic_fees(
    blocks: int, seed: int, mean_wei: float = 15e9, spread: float = 0.3, revert_s: float = 1_800.0
) -> list[BlockFees]:
    """Fees whose logarithms return to their mean, block by block within EIP-1559's eighth, without spikes.

    `spread` is their standard deviation in the long run (but for the bound), `revert_s` the time constant.
    Blob gas moves likewise, on its own, around a fifth of `mean_wei`.
    """
    dice = random.Random(seed)
    staying = math.exp(-SLOT_S / revert_s)
    shock = spread * math.sqrt(1 - staying * staying)
    most, least = math.log(9 / 8), math.log(7 / 8)
    gas = blob = 0.0
    found = []
    for number in range(blocks):
        gas += min(max((staying - 1) * gas + dice.gauss(0, shock), least), most)
        blob += min(max((staying - 1) * blob + dice.gauss(0, shock), least), most)
        fees = round(mean_wei * math.exp(gas)), max(1, round(mean_wei / 5 * math.exp(blob)))
        found.append(BlockFees(number, number * SLOT_S, *fees))
    return found
