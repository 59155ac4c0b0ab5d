"""The pricers that a fee replay compares: ours, and two written from their public formulas.

*Surplus feedback*: Arbitrum Nitro's L1 pricing (docs/arbos/l1-pricing.md in OffchainLabs/nitro and
docs.arbitrum.io, "Parent chain pricing model"). When the report of a posting at time u comes at time t, after
that of a posting at l, the share (u - l) / (t - l) of the units since the update is allotted to it: U. With
the surplus S (funds less what is due), S' after the last report, E equilibration units and inertia I:

    price += (-S / E - (S - S') / U) * U / (E / I + U)

A byte is 16 units. E = 160,000,000 and I = 10 are the published initial values; the reward per unit, the
operator's income, is left out, as is the cap on amortised cost.

*Open loop*: OP Stack's Ecotone formula (ethereum-optimism/specs, protocol/exec-engine.md):

    wei per byte = (16 * base fee * base fee scalar + blob base fee * blob base fee scalar) / 10^6

at the fees of the latest L1 origin. The operator re-tunes the scalars daily to what the last day's batches
took per byte; at the start they are what the batches of the recording's first hour will take, so that this
baseline begins as well tuned as it can be.
"""

from __future__ import annotations

from typing import Protocol

from l1_bridge.blobs import GAS_PER_BLOB
from state.l1_price import L1Price, L1Terms, most_within, starting
from state.l1_price import advanced as price_advanced
from state.l1_price import closed as batch_closed
from state.l1_price import collected as fees_collected
from state.l1_price import observed as origin_observed
from state.l1_price import reported as cost_reported
from state.units import PPM, PUSD_PER_UUSD
from tools.fee_recording import ETH_PRICE_UUSD, Posted, Replay
from tools.l1_fees import BlockFees

DAY_S = 86_400
HOUR_S = 3_600
UNITS_PER_BYTE = 16
_WEI_PER_ETH = 10**18


class Pricer(Protocol):
    """A price of data, in pusd per byte."""

    name: str

    def observed(self, origin: BlockFees) -> None:
        """A new L1 origin."""

    def reported(self, batch: Posted, now_s: int) -> None:
        """A batch's cost report has come."""

    def closed(self, batch: Posted) -> None:
        """The open batch ends."""

    def price_pusd(self, now_s: int) -> int:
        """The price of this second; called once for each."""

    def collected(self, size_bytes: int, uusd: int) -> None:
        """Transactions of the open batch paid so much for so many bytes."""

    def most_pusd(self, now_s: int, seconds: int) -> int | None:
        """The highest the price can be within so many seconds, where the pricer knows that."""


def break_even_pusd(replayed: Replay) -> int:
    """What a byte must cost if the usual batch is posted at the first block's fees."""
    batch, first = replayed.batches[0], replayed.first
    cost_wei = batch.gas * first.base_fee_wei + batch.blobs * GAS_PER_BLOB * first.blob_base_fee_wei
    return max(_pusd(cost_wei) // batch.charged_bytes, 1)


def _pusd(wei: int) -> int:
    return -(-wei * ETH_PRICE_UUSD * PUSD_PER_UUSD // _WEI_PER_ETH)


class Straddle:
    """`state.l1_price`, as the state machine calls it; it begins with the first batch's size and overhead."""

    def __init__(self, replayed: Replay, start_pusd: int, terms: L1Terms | None = None) -> None:
        self.name = "straddle"
        self.terms = terms or L1Terms()
        self._has_blobs = replayed.data != "calldata"
        first, usual = replayed.first, replayed.batches[0]
        now_ms = replayed.seconds[0].time_s * 1_000
        self.registers: L1Price = starting(
            self.terms,
            start_pusd,
            first.number,
            first.base_fee_wei,
            self._blob_wei(first),
            now_ms,
            usual.size_bytes,
        )
        self.registers.overhead_ppm = usual.size_bytes * PPM // usual.charged_bytes

    def observed(self, origin: BlockFees) -> None:
        if origin.number == self.registers.l1_block:
            return
        blob_wei = self._blob_wei(origin)
        origin_observed(self.registers, self.terms, origin.number, origin.base_fee_wei, blob_wei)

    def _blob_wei(self, block: BlockFees) -> int:
        return block.blob_base_fee_wei if self._has_blobs else 0

    def reported(self, batch: Posted, now_s: int) -> None:
        block = batch.block
        cost_reported(
            self.registers,
            self.terms,
            ETH_PRICE_UUSD,
            batch.size_bytes,
            batch.gas,
            block.base_fee_wei,
            batch.blobs,
            block.blob_base_fee_wei,
        )

    def closed(self, batch: Posted) -> None:
        batch_closed(self.registers, self.terms, batch.size_bytes)

    def price_pusd(self, now_s: int) -> int:
        price_advanced(self.registers, self.terms, ETH_PRICE_UUSD, now_s * 1_000)
        return self.registers.price_pusd

    def collected(self, size_bytes: int, uusd: int) -> None:
        fees_collected(self.registers, self.terms, size_bytes, uusd)

    def most_pusd(self, now_s: int, seconds: int) -> int | None:
        return most_within(self.registers, self.terms, now_s * 1_000, seconds)


class SurplusFeedback:
    """See the module's text. Money in wei."""

    EQUILIBRATION_UNITS = 160_000_000
    INERTIA = 10

    def __init__(self, replayed: Replay, start_pusd: int) -> None:
        self.name = "surplus feedback"
        self._price_wei = start_pusd * _WEI_PER_ETH // (ETH_PRICE_UUSD * PUSD_PER_UUSD * UNITS_PER_BYTE)
        self._units = 0
        self._surplus_wei = 0
        self._last_surplus_wei = 0
        self._last_update_s = replayed.seconds[0].time_s

    def observed(self, origin: BlockFees) -> None:
        """Nitro's price does not look at L1's fees."""

    def closed(self, batch: Posted) -> None:
        """Nitro's price does not look at open batches."""

    def reported(self, batch: Posted, now_s: int) -> None:
        updated_s = max(batch.block.timestamp_s, self._last_update_s)
        elapsed_s = now_s - self._last_update_s
        part_s = updated_s - self._last_update_s
        allotted = self._units * part_s // elapsed_s if elapsed_s > 0 else self._units
        self._units -= allotted
        self._last_update_s = updated_s
        self._surplus_wei -= batch.cost_wei
        if allotted == 0:
            return
        desired = -self._surplus_wei // self.EQUILIBRATION_UNITS
        actual = (self._surplus_wei - self._last_surplus_wei) // allotted
        inert = self.EQUILIBRATION_UNITS // self.INERTIA
        self._last_surplus_wei = self._surplus_wei
        self._price_wei = max(self._price_wei + (desired - actual) * allotted // (inert + allotted), 0)

    def price_pusd(self, now_s: int) -> int:
        return _pusd(self._price_wei * UNITS_PER_BYTE)

    def collected(self, size_bytes: int, uusd: int) -> None:
        self._units += size_bytes * UNITS_PER_BYTE
        self._surplus_wei += uusd * _WEI_PER_ETH // ETH_PRICE_UUSD

    def most_pusd(self, now_s: int, seconds: int) -> int | None:
        return None


class OpenLoop:
    """See the module's text. `factor_ppm` is how far off the first scalars are."""

    def __init__(self, replayed: Replay, factor_ppm: int = PPM) -> None:
        self.name = "open loop"
        start_s = replayed.seconds[0].time_s
        self._day: list[Posted] = []
        self._tuned_s = start_s
        self._base_scalar = self._blob_scalar = 0
        self._tune([batch for batch in replayed.batches if batch.closed_s < start_s + HOUR_S])
        self._base_scalar = self._base_scalar * factor_ppm // PPM
        self._blob_scalar = self._blob_scalar * factor_ppm // PPM
        self._origin = replayed.first

    def _tune(self, batches: list[Posted]) -> None:
        charged = sum(batch.charged_bytes for batch in batches)
        if not charged:
            return
        self._base_scalar = sum(batch.gas for batch in batches) * PPM // (16 * charged)
        self._blob_scalar = sum(batch.blobs for batch in batches) * GAS_PER_BLOB * PPM // charged

    def observed(self, origin: BlockFees) -> None:
        self._origin = origin

    def closed(self, batch: Posted) -> None:
        """The formula does not look at batches."""

    def reported(self, batch: Posted, now_s: int) -> None:
        self._day.append(batch)
        if now_s >= self._tuned_s + DAY_S:
            self._tune(self._day)
            self._day.clear()
            self._tuned_s = now_s

    def price_pusd(self, now_s: int) -> int:
        base = 16 * self._origin.base_fee_wei * self._base_scalar
        return _pusd((base + self._origin.blob_base_fee_wei * self._blob_scalar) // PPM)

    def collected(self, size_bytes: int, uusd: int) -> None:
        """Open loop."""

    def most_pusd(self, now_s: int, seconds: int) -> int | None:
        return None
