"""How an account stood after a batch, as it is shown: every figure beside the proved leaves it is made of.

`key` of a value names its leaf: the proof is the one of that key among the moment's `proofs`. A value without
a leaf (nothing was ever reported) is not listed; that it is absent is proved all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import msgspec

from sequencer.api_chain import ProofView
from sequencer.liquidation_proofs import Moment
from sequencer.margin_vector import MarginVector
from sequencer.receipts import hex_of
from state import keys
from state.leaves import Account, Feed, Pricing, RateFeed, Surface, System
from state.proofs import MembershipProof
from state.seizure import holdings
from state.view import StateView

Names = Callable[[int], str]
"""An instrument's name by its market, also of one that is gone."""


class HealthView(msgspec.Struct, frozen=True):
    """Of positions alone, without open orders; margins are net: below 0 is too little."""

    equity_uusd: int
    maintenance_margin_uusd: int
    buffer_margin_uusd: int


class HoldingView(msgspec.Struct, frozen=True):
    instrument_name: str
    size_ulots: int
    mark_uusd: int


class OracleValue(msgspec.Struct, frozen=True):
    """A price: an index, a perpetual's mark, an expiry's forward, the collateral's."""

    feed: str
    value_uusd: int
    confidence_ppm: int
    timestamp_ms: int
    key: str


class ExpiryValue(msgspec.Struct, frozen=True):
    """What else an expiry is priced from. `leaf`: snapshot, rate or surface; `values`: all of its fields.
    Margin is made of the snapshot."""

    expiry: str
    leaf: str
    key: str
    values: dict[str, int]


class MomentView(msgspec.Struct, frozen=True):
    """After a batch. Not `available` where the batch is not closed yet, or its state is not kept any more."""

    batch: int
    available: bool
    root: str | None = None
    cash_uusd: int | None = None
    health: HealthView | None = None
    margin: MarginVector | None = None
    """By its components, as `straddle_getRisk` has it."""
    holdings: list[HoldingView] = []
    oracle: list[OracleValue] = []
    expiries: list[ExpiryValue] = []
    insurance_uusd: int | None = None
    proofs: list[ProofView] = []


def holding_views(view: StateView, account: int, names: Names) -> list[HoldingView]:
    """What the account holds, at the marks."""
    return [
        HoldingView(names(held.market), held.size_ulots, held.mark_uusd) for held in holdings(view, account)
    ]


def moment_view(moment: Moment, batch: int, names: Names) -> MomentView:
    """All of a moment, which is that after `batch`."""
    standing = moment.health()
    leaf: Account | None = moment.view.get(keys.account_key(moment.account))
    system: System = moment.view.get(keys.SYSTEM_KEY)
    return MomentView(
        batch,
        True,
        hex_of(moment.root),
        None if leaf is None else leaf.cash_uusd,
        None if standing is None else HealthView(*standing),
        moment.margin(),
        holding_views(moment.view, moment.account, names),
        _oracle_values(moment),
        _expiry_values(moment),
        system.insurance_uusd,
        _proofs(moment, batch),
    )


def _oracle_values(moment: Moment) -> list[OracleValue]:
    """All feeds of prices that the moment has."""
    values = []
    for key in moment.proofs:
        leaf: Feed | None = moment.view.get(key) if key[0] == keys.FEED else None
        if leaf is not None:
            name = key[1:].rstrip(b"\0").decode()
            values.append(
                OracleValue(name, leaf.value_uusd, leaf.confidence_ppm, leaf.timestamp_ms, hex_of(key))
            )
    return values


def _expiry_values(moment: Moment) -> list[ExpiryValue]:
    values = []
    for number, name in moment.expiries.items():
        for kind, key in (
            ("snapshot", keys.pricing_key(number)),
            ("rate", keys.name_key(keys.RATE, name)),
            ("surface", keys.name_key(keys.SURFACE, name)),
        ):
            leaf: Pricing | RateFeed | Surface | None = moment.view.get(key)
            if leaf is not None:
                values.append(ExpiryValue(name, kind, hex_of(key), asdict(leaf)))
    return values


def _proofs(moment: Moment, batch: int) -> list[ProofView]:
    return [
        ProofView(
            batch,
            hex_of(moment.root),
            hex_of(key),
            isinstance(proof, MembershipProof),
            hex_of(proof.value) if isinstance(proof, MembershipProof) else None,
            [hex_of(sibling) for sibling in proof.path.siblings],
            hex_of(proof.path.bits),
            hex_of(proof.encode()),
        )
        for key, proof in moment.proofs.items()
    ]
