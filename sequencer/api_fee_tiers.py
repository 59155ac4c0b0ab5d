"""The venue's maker and taker fees by traded volume (`state/fee_tiers.py`): `straddle_getFeeTiers`.

Days are those of block time, in UTC. An account that has not traded today is shown with the shares that its
first fill of today would find.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sequencer.api_context import ApiContext
from sequencer.jsonrpc import Context, Method
from state import fee_tiers, keys
from state.leaves import FeeTiers
from state.units import MS_PER_S


class FeeTiersParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """With an account, also where it stands."""

    account: Annotated[int, Meta(ge=0)] | None = None


class TierView(msgspec.Struct, frozen=True):
    """Who traded at least `volume_uusd` in the 30 days before pays these shares of the instruments' rates."""

    volume_uusd: int
    maker_ppm: int
    """Below 0: a rebate, out of the taker's fee of the same fill and at most all of it."""
    taker_ppm: int


class NextTierView(msgspec.Struct, frozen=True):
    """The first tier that the account would not be in tomorrow if it traded no more today."""

    tier: int
    missing_uusd: int
    """What it has to trade until the day ends to be in it."""


class VolumeView(msgspec.Struct, frozen=True):
    """What an account traded, and what it pays today."""

    account: int
    volume_uusd: int
    """In the 30 days before today."""
    today_uusd: int
    maker_ppm: int
    taker_ppm: int
    tomorrow_uusd: int
    """In the 30 days before tomorrow, if it trades no more today."""
    next: NextTierView | None
    """None: it would be in the last one, or there are none."""


class FeeTiersView(msgspec.Struct, frozen=True):
    """Tiers are numbered from 0, by rising volume. None at all: fills are not counted, everybody pays all."""

    tiers: list[TierView]
    account: VolumeView | None


class FeeTierApi:
    """What the state says about tiers and volumes."""

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def methods(self) -> list[Method[Any]]:
        return [
            Method(
                "straddle_getFeeTiers",
                FeeTiersParams,
                FeeTiersView,
                self._tiers,
                "The venue's fee tiers; an account's 30-day volume, its shares today, and the next tier.",
            )
        ]

    def _tiers(self, params: FeeTiersParams, _context: Context) -> FeeTiersView:
        view = self._context.machine.view
        found: FeeTiers | None = view.get(keys.FEE_TIERS_KEY)
        tiers = fee_tiers.make_tiers([]) if found is None else found
        rows = fee_tiers.rows_of(tiers)
        account = None if params.account is None else self._volume(tiers, rows, params.account)
        return FeeTiersView([TierView(*row) for row in rows], account)

    def _volume(self, tiers: FeeTiers, rows: list[fee_tiers.Row], account: int) -> VolumeView:
        machine = self._context.machine
        self._context.account(account)
        now_ms = max(self._context.now_ms(), machine.system.timestamp_ms)
        leaf = fee_tiers.volume_of(machine.view, tiers, account, now_ms // MS_PER_S // fee_tiers.DAY_S)
        traded, tomorrow = fee_tiers.traded_uusd(leaf)
        above = [place for place, row in enumerate(rows) if row[0] > tomorrow]
        coming = NextTierView(above[0], rows[above[0]][0] - tomorrow) if above else None
        return VolumeView(account, traded, leaf.today_uusd, leaf.maker_ppm, leaf.taker_ppm, tomorrow, coming)
