"""How an account stood after a batch, computed from proved leaves alone.

Everything that decides whether an account is liquidated is in leaves: its money and positions, the markets'
marks, the feeds, the snapshots of expiries, the parameters. `Moment` collects those under one batch's root
with a proof each, and computes the figures from nothing else: whoever has the answer and the root can check
them. Money and positions of those whom it dealt with are proved beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from sequencer.margin_vector import MarginVector, margin_vector
from state import keys
from state.auction import Health
from state.cache import CachedState
from state.calendar import expiry_name
from state.leaves import Account, Instrument
from state.margin_terms import margin_key
from state.pricing import STABLE_KEY
from state.proofs import AbsenceProof, LeafData, MembershipProof
from state.seizure import health
from state.units import MAX_POSITIONS

Proof = MembershipProof | AbsenceProof


class TreeAt(Protocol):
    """One version of the tree."""

    @property
    def root(self) -> bytes: ...
    def prove(self, key: bytes) -> Proof: ...
    def iterate_under(self, prefix: bytes, bound: int) -> list[LeafData]: ...


class NotProved(LookupError):
    """A leaf was asked for that is not among those proved; `args[0]` is its key."""


class Moment:
    """An account under one root. Made in a worker thread, which holds the tree; then computed anywhere."""

    def __init__(self, at: TreeAt, account: int, others: Iterable[tuple[int, int]] = ()) -> None:
        """`others`: (account, market), or market 0, of those whom it deals with."""
        self.root = at.root
        self.account = account
        self.proofs: dict[bytes, Proof] = {}
        self.expiries: dict[int, str] = {}
        """Names of those in which the account holds something, by number."""
        self._positions = at.iterate_under(keys.positions_prefix(account), MAX_POSITIONS)
        first = [
            keys.account_key(account),
            keys.auction_key(account),
            keys.SYSTEM_KEY,
            keys.PARAMETERS_KEY,
            keys.LIQUIDATION_KEY,
            STABLE_KEY,
        ]
        self._prove(at, first)
        for leaf in self._positions:
            market = int.from_bytes(leaf.key[9:13], "big")
            terms_key = keys.instrument_key(market)
            self._prove(at, [leaf.key, terms_key, keys.market_key(market)])
            terms = Instrument.decode(self.get(terms_key) or b"")
            feed = bytes((keys.FEED,))
            self._prove(at, [feed + terms.underlying, margin_key(terms.underlying)])
            if terms.expiry:
                self._prove_expiry(at, terms)
            else:
                self._prove(at, [feed + terms.name])
        for other, market in others:
            self._prove(at, [keys.account_key(other)])
            if market:
                self._prove(at, [keys.position_key(other, market)])
        self.view = CachedState(self, 1_000_000)

    def _prove_expiry(self, at: TreeAt, terms: Instrument) -> None:
        name = expiry_name(terms.underlying.rstrip(b"\0").decode(), terms.expiry_s)
        self.expiries[terms.expiry] = name
        kinds = keys.FEED, keys.RATE, keys.SURFACE
        self._prove(at, [keys.pricing_key(terms.expiry), *(keys.name_key(kind, name) for kind in kinds)])

    def _prove(self, at: TreeAt, wanted: list[bytes]) -> None:
        for key in wanted:
            if key not in self.proofs:
                self.proofs[key] = at.prove(key)

    def get(self, key: bytes, /) -> bytes | None:
        """A proved leaf. Raises NotProved."""
        proof = self.proofs.get(key)
        if proof is None:
            raise NotProved(key)
        return proof.value if isinstance(proof, MembershipProof) else None

    def scan(self, prefix: bytes, /) -> list[tuple[bytes, bytes]]:
        """The account's positions. Raises NotProved for anything else."""
        if prefix != keys.positions_prefix(self.account):
            raise NotProved(prefix)
        return [(leaf.key, leaf.value) for leaf in self._positions]

    def health(self) -> Health | None:
        """None when there was no such account."""
        account: Account | None = self.view.get(keys.account_key(self.account))
        return None if account is None else health(self.view, self.account, account.cash_uusd)

    def margin(self) -> MarginVector | None:
        """None when there was no such account."""
        account: Account | None = self.view.get(keys.account_key(self.account))
        return None if account is None else margin_vector(self.view, self.account, account.cash_uusd)
