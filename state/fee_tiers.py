"""Maker and taker fees by what an account has traded: the venue's, beside aggregation fees.

An instrument has its rates. A tier says which share of them an account pays that traded at least so much in
the 30 days before today; a maker's share may be below 0, which is a rebate out of the taker's fee of the same
fill, and never more than that. A Volume leaf counts an account's fills by day of block time, in its 30 last
days and today; its shares are decided when the first fill of a day comes, so they hold for that day. Without
a FeeTiers leaf nobody's fills are counted, and all pay the instruments' rates.

- iTIER_001 What a fill pays the venue is not below 0, and no more than the instrument's rates.
- iTIER_002 An account's shares do not change within a day, and come from the 30 days before it.
"""

from __future__ import annotations

from itertools import pairwise
from struct import Struct
from typing import Final

from state.context import BlockContext
from state.keys import FEE_TIERS_KEY, volume_key
from state.leaves import FeeTiers, Instrument, Volume
from state.message_payloads import demand
from state.positions import fee_of
from state.units import PPM
from state.view import StateView

DAYS: Final = 30
DAY_S: Final = 86_400
MAX_TIERS: Final = 8
MAX_VOLUME_UUSD: Final = 2**63 - 1
"""Of one day; more is not counted."""
_ROW: Final = Struct(">QiI")
_DAYS: Final = Struct(">30Q")
Row = tuple[int, int, int]
"""(volume from which on it holds, maker's share in ppm, taker's)."""


def make_tiers(rows: list[Row]) -> FeeTiers:
    """The leaf of these tiers, at most MAX_TIERS."""
    return FeeTiers(
        len(rows), b"".join([_ROW.pack(*row) for row in rows]).ljust(_ROW.size * MAX_TIERS, b"\0")
    )


def rows_of(tiers: FeeTiers) -> list[Row]:
    return [_ROW.unpack_from(tiers.rows, place * _ROW.size) for place in range(tiers.count)]


def check_tiers(tiers: FeeTiers) -> None:
    """Raises Rejected BAD_PARAMETERS naming what is out of bounds."""
    good = tiers.count <= MAX_TIERS
    rows = rows_of(tiers) if good else []
    volumes = [row[0] for row in rows]
    checks = {
        "count": good and not any(tiers.rows[len(rows) * _ROW.size :]),
        "volumes": all(low < high for low, high in pairwise(volumes)),
        "maker_ppm": all(abs(row[1]) <= PPM for row in rows),
        "taker_ppm": all(row[2] <= PPM for row in rows),
    }
    demand(checks)


def fill_fees(
    view: StateView, block: BlockContext, maker: int, taker: int, terms: Instrument, notional_uusd: int
) -> tuple[int, int]:
    """(maker's, taker's) fee of a fill, rounded up; the maker's is below 0 when it is a rebate."""
    tiers: FeeTiers | None = view.get(FEE_TIERS_KEY)
    if tiers is None:
        return fee_of(notional_uusd, terms.maker_fee_ppm), fee_of(notional_uusd, terms.taker_fee_ppm)
    day = block.now_s // DAY_S
    taker_share = volume_of(view, tiers, taker, day).taker_ppm
    maker_share = volume_of(view, tiers, maker, day).maker_ppm
    taker_fee = -(-notional_uusd * terms.taker_fee_ppm * taker_share // (PPM * PPM))
    maker_fee = -(-notional_uusd * terms.maker_fee_ppm * maker_share // (PPM * PPM))
    return max(maker_fee, -taker_fee), taker_fee


def count_volume(view: StateView, block: BlockContext, accounts: tuple[int, int], notional_uusd: int) -> None:
    """A fill happened between these two."""
    tiers: FeeTiers | None = view.get(FEE_TIERS_KEY)
    if tiers is None:
        return
    day = block.now_s // DAY_S
    for account in accounts:
        leaf = volume_of(view, tiers, account, day)
        leaf.today_uusd = min(leaf.today_uusd + notional_uusd, MAX_VOLUME_UUSD)
        view.put(volume_key(account), leaf)


def traded_uusd(volume: Volume) -> tuple[int, int]:
    """In the 30 days before the leaf's; and in those before the next day, if no more is traded until then."""
    before = _DAYS.unpack(volume.days)
    return sum(before), volume.today_uusd + sum(before[:-1])


def volume_of(view: StateView, tiers: FeeTiers, account: int, day: int) -> Volume:
    """The account's leaf as of this day: a new one, not stored, where the day is new to it."""
    leaf: Volume | None = view.get(volume_key(account))
    if leaf is not None and leaf.day == day:
        return leaf
    before = [0] * DAYS
    if leaf is not None:
        idle = min(day - leaf.day - 1, DAYS)
        before = ([0] * idle + [leaf.today_uusd, *_DAYS.unpack(leaf.days)])[:DAYS]
    traded = sum(before)
    maker_ppm = taker_ppm = PPM
    for volume, maker, taker in rows_of(tiers):
        if traded >= volume:
            maker_ppm, taker_ppm = maker, taker
    return Volume(day, maker_ppm, taker_ppm, 0, _DAYS.pack(*before))
