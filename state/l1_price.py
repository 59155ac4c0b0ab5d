"""The price of a batch byte: what a byte costs on L1, steered so that what was collected pays what was spent.

    price = feed_forward * (1 + feedback + premium), at most one step per slot away from the last

- *feed-forward*: what a byte costs at the fees of the latest L1 origin by the cheaper of calldata and blobs.
  Sizes are averages of the last batches, known when they close; the gas that a model expects for them is
  corrected by what cost reports say.
- *feedback* = -position / (H * feed_forward), bounded. The position compares like with like:

      position = collected - reported cost - bytes on their way * feed_forward

  Bytes whose batch is not reported yet count at what they would cost now, so they are neither a surplus nor,
  when L1 has become dearer since they were charged, a loss that only shows when the report comes (a Smith
  predictor: O. Smith, "Closer control of loops with dead time", 1957).
- *premium* = z * s * sqrt(n / 3) * D / H: `s` is the standard deviation of the byte's cost per L1 block, `n`
  how many blocks pass until a byte's cost is known. Feedback takes it back once the position is what
  premium * H bytes cost, so it builds a standing reserve: z standard deviations of what the D bytes on their
  way may come to cost more. (They are spread evenly over the n blocks; of a random walk W the mean of
  W(t), t from 0 to n, has the variance s^2 * n / 3.) z is 2: L1's fees fall back, over the 20 blocks of a
  batch two fifths of a random walk's variance or less was left on recordings of three years, so these are
  more than 3 deviations of what happens. A standing reserve is users' money, so it is no larger.

Gains. All delays are measured in bytes: D is how many are on their way when a report comes, counted from the
first byte of the reported batch. In bytes collected, x, the feedback loop is position' = -position / H; of
what the predictor gets wrong (the gas model, say), a share m, the position shows only after the delay:
position'(x) = -((1 - m) * position(x) + m * position(x - D)) / H. It returns without overshoot exactly when
m * d * e^(1 + (1 - m) * d) <= 1, d being D / H, and it is stable, were nothing predicted at all, when
H > 2 * D / pi. `horizon_ppm` is 1.5: no overshoot while the predictor is right to a third, which its averages
see to within some batches, and an overshoot by less than a fifth if it knew nothing. A longer horizon lets a
loss in a rise of L1 stand for longer, and needs a larger reserve. D is averaged, and is at least one batch.
L1's fees move by at most an eighth per block of 12 s, so the price may, too: `step_ppm` per `slot_ms`.

Anti-windup. (1) Collected bytes count at most a step away from what the price was meant to be: what is
collected while the price is on its way from a wrong value is nobody's to pay back. (2) The position is
bounded to what `memory_batches` usual batches cost, so that one absurd posting is not paid by users for days.

- iL1PRICE_001 Within [min, max], and within a slot of block time at most a step away from the price at the
  slot's start; a slot without a block leaves its step to the next, as at most `CATCH_UP_SLOTS` do.
- iL1PRICE_002 `most_within` is never exceeded while the terms stay: it follows from 001 alone.
- iL1PRICE_003 L1's fees are those of the origin's header, whoever makes the block.

Money is in uusd, prices are in pusd per byte, L1's in wei. Pure integers; rounding is up, for the house.
"""

from __future__ import annotations

from math import isqrt
from typing import Final

from state.leaves import L1Price, L1Terms
from state.units import PPM, PUSD_PER_UUSD

GAS_PER_BLOB: Final = 131_072
BYTES_PER_BLOB: Final = 4_096 * 31
MAX_FEE_WEI: Final = 2**64 - 1
_WEI_PER_ETH: Final = 10**18
_TRANSACTION_GAS: Final = 21_000
_BYTE_GAS: Final = 17
"""Of a calldata byte that is not zero, with its hashing."""
_BYTE_FLOOR_GAS: Final = 40
"""EIP-7623's floor of such a byte."""
_MAX_EXPONENT: Final = 44
"""e to it is just below 2^64."""
CATCH_UP_SLOTS: Final = 10
"""Slots without a block that leave their steps to the next: then it may have moved by a factor of 3."""
_MAX_SURPLUS_UUSD: Final = 2**62

__all__ = [
    "BYTES_PER_BLOB",
    "CATCH_UP_SLOTS",
    "GAS_PER_BLOB",
    "MAX_FEE_WEI",
    "L1Price",
    "L1Terms",
    "advanced",
    "batch_wei",
    "blob_base_fee",
    "byte_price",
    "closed",
    "collected",
    "feed_forward",
    "feedback_ppm",
    "horizon_bytes",
    "most_within",
    "observed",
    "position_uusd",
    "premium_ppm",
    "reported",
    "reset",
    "starting",
]


def starting(
    terms: L1Terms,
    price_pusd: int,
    l1_block: int,
    base_fee_wei: int,
    blob_fee_wei: int,
    now_ms: int,
    batch_bytes: int = BYTES_PER_BLOB,
) -> L1Price:
    """The registers at genesis, or when the market is switched on; `batch_bytes` is a usual batch's size."""
    price = min(max(price_pusd, terms.min_pusd), terms.max_pusd)
    return L1Price(
        l1_block=l1_block,
        base_fee_wei=base_fee_wei,
        blob_fee_wei=blob_fee_wei,
        variance_ppt=0,
        batch_bytes=batch_bytes,
        batch_blobs_ppm=_blobs(batch_bytes) * PPM,
        batch_blocks_ppm=5 * PPM,
        batch_cost_uusd=0,
        blob_gas_ppm=PPM,
        calldata_gas_ppm=PPM,
        overhead_ppm=PPM,
        flight_bytes=batch_bytes,
        closed_block=l1_block,
        open_bytes=0,
        closed_bytes=0,
        surplus_uusd=0,
        slot=now_ms // terms.slot_ms,
        low_pusd=_lowered(price, 1, terms),
        high_pusd=_raised(price, 1, terms),
        target_pusd=price,
        price_pusd=price,
    )


def blob_base_fee(excess_blob_gas: int, terms: L1Terms) -> int:
    """The blob base fee of a header with this excess: EIP-4844's `fake_exponential`, at most MAX_FEE_WEI.

    The EIP sums the series of e^(excess / fraction) by terms; so does this.
    """
    fraction = terms.blob_fraction
    if excess_blob_gas >= _MAX_EXPONENT * fraction:
        return MAX_FEE_WEI
    total = 0
    summand = fraction
    place = 1
    while summand > 0:
        total += summand
        summand = summand * excess_blob_gas // (fraction * place)
        place += 1
    return total // fraction


def observed(price: L1Price, terms: L1Terms, l1_block: int, base_fee_wei: int, blob_fee_wei: int) -> None:
    """A new L1 origin: a block after the last one, and the fees of its header; `blob_fee_wei` 0: no blobs.

    The first origin of all says nothing of how L1's fees vary, nor of how many blocks there are between
    batches.
    """
    blocks = l1_block - price.l1_block
    is_first = price.l1_block == 0
    before = batch_wei(price, terms)
    price.l1_block = l1_block
    price.base_fee_wei = min(base_fee_wei, MAX_FEE_WEI)
    price.blob_fee_wei = blob_fee_wei
    if is_first:
        price.closed_block = l1_block
        return
    if before == 0:
        return
    change_ppm = min(abs(batch_wei(price, terms) - before) * PPM // before, PPM)
    sample = change_ppm * change_ppm // blocks
    weight = min(blocks, terms.variance_weight)
    price.variance_ppt += (sample - price.variance_ppt) * weight // terms.variance_weight


def collected(price: L1Price, terms: L1Terms, size_bytes: int, uusd: int) -> None:
    """A transaction of the open batch was charged `uusd` for `size_bytes` of data at the present price."""
    price.open_bytes += size_bytes
    meant = size_bytes * price.target_pusd
    most = -(-meant * (PPM + terms.step_ppm) // (PPM * PUSD_PER_UUSD))
    least = meant * PPM // ((PPM + terms.step_ppm) * PUSD_PER_UUSD)
    price.surplus_uusd = min(price.surplus_uusd + min(max(uusd, least), most), _MAX_SURPLUS_UUSD)


def closed(price: L1Price, terms: L1Terms, size_bytes: int) -> None:
    """The open batch ends with an encoded size of `size_bytes` (> 0)."""
    weight = terms.batch_weight
    if price.open_bytes:
        overhead = max(size_bytes * PPM // price.open_bytes, PPM)
        price.overhead_ppm = _average(price.overhead_ppm, min(overhead, 2 * PPM), weight)
    blocks = price.l1_block - price.closed_block
    price.batch_bytes = _average(price.batch_bytes, size_bytes, weight)
    price.batch_blobs_ppm = _average(price.batch_blobs_ppm, _blobs(size_bytes) * PPM, weight)
    price.batch_blocks_ppm = _average(price.batch_blocks_ppm, blocks * PPM, weight)
    price.closed_block = price.l1_block
    price.closed_bytes += size_bytes
    price.open_bytes = 0


def reported(
    price: L1Price,
    terms: L1Terms,
    eth_price_uusd: int,
    size_bytes: int,
    gas: int,
    base_fee_wei: int,
    blobs: int,
    blob_fee_wei: int,
) -> None:
    """The contract says what posting a batch of `size_bytes` (> 0) cost. Batches are reported in order."""
    spent_wei = gas * (base_fee_wei + terms.tip_wei) + blobs * GAS_PER_BLOB * blob_fee_wei
    spent_uusd = min(-(-spent_wei * eth_price_uusd // _WEI_PER_ETH), _MAX_SURPLUS_UUSD)
    weight = terms.batch_weight
    if blobs:
        ratio = min(gas * PPM // terms.post_gas, 8 * PPM)
        price.blob_gas_ppm = _average(price.blob_gas_ppm, ratio, weight)
    else:
        ratio = min(gas * PPM // _calldata_gas(terms, size_bytes), 8 * PPM)
        price.calldata_gas_ppm = _average(price.calldata_gas_ppm, ratio, weight)
    price.flight_bytes = _average(price.flight_bytes, _on_their_way(price), weight)
    price.closed_bytes = max(price.closed_bytes - size_bytes, 0)
    if price.batch_cost_uusd == 0:
        price.batch_cost_uusd = spent_uusd
    price.batch_cost_uusd = _average(price.batch_cost_uusd, spent_uusd, terms.memory_batches)
    price.surplus_uusd = max(price.surplus_uusd - spent_uusd, -_MAX_SURPLUS_UUSD)
    _bound_memory(price, terms, eth_price_uusd)


def advanced(price: L1Price, terms: L1Terms, eth_price_uusd: int, now_ms: int) -> None:
    """A block begins: the price moves towards its target as far as the slot allows."""
    slot = now_ms // terms.slot_ms
    if slot > price.slot:
        steps = min(slot - price.slot, CATCH_UP_SLOTS)
        price.low_pusd = _lowered(price.price_pusd, steps, terms)
        price.high_pusd = _raised(price.price_pusd, steps, terms)
        price.slot = slot
    price.target_pusd = _target(price, terms, eth_price_uusd)
    low = max(price.low_pusd, _lowered(price.price_pusd, 1, terms))
    high = min(price.high_pusd, _raised(price.price_pusd, 1, terms))
    price.price_pusd = min(max(price.target_pusd, low), high)


def reset(price: L1Price, terms: L1Terms, now_ms: int) -> None:
    """The governor set new terms: slots are counted by them, and this one starts from the present price."""
    price.slot = now_ms // terms.slot_ms
    price.low_pusd = _lowered(price.price_pusd, 1, terms)
    price.high_pusd = _raised(price.price_pusd, 1, terms)


def byte_price(price: L1Price) -> int:
    """Pusd per byte of a transaction in this block."""
    return price.price_pusd


def most_within(price: L1Price, terms: L1Terms, now_ms: int, seconds: int) -> int:
    """The highest byte price of any block up to `seconds` after `now_ms`, in pusd."""
    steps = (now_ms + seconds * 1_000) // terms.slot_ms - price.slot
    return _raised(price.high_pusd, max(steps, 0), terms)


def batch_wei(price: L1Price, terms: L1Terms) -> int:
    """What a usual batch costs at the origin's fees, by the cheaper way."""
    gas_wei = price.base_fee_wei + terms.tip_wei
    gas = _calldata_gas(terms, price.batch_bytes) * price.calldata_gas_ppm
    by_calldata = gas * gas_wei // PPM
    if price.blob_fee_wei == 0:
        return by_calldata
    blob_gas = GAS_PER_BLOB * price.batch_blobs_ppm
    by_blobs = terms.post_gas * price.blob_gas_ppm * gas_wei + blob_gas * price.blob_fee_wei
    return min(by_calldata, by_blobs // PPM)


def feed_forward(price: L1Price, terms: L1Terms, eth_price_uusd: int) -> int:
    """Pusd per encoded byte at the origin's fees; at least 1."""
    cost = batch_wei(price, terms) * eth_price_uusd * PUSD_PER_UUSD
    return max(-(-cost // (_WEI_PER_ETH * price.batch_bytes)), 1)


def position_uusd(price: L1Price, terms: L1Terms, eth_price_uusd: int) -> int:
    """Collected less spent, what is on its way counted at the present cost; see the module's text."""
    return _position(price, feed_forward(price, terms, eth_price_uusd))


def horizon_bytes(price: L1Price, terms: L1Terms) -> int:
    """H: over how many encoded bytes the position is brought back."""
    return max(price.flight_bytes, price.batch_bytes) * terms.horizon_ppm // PPM


def feedback_ppm(price: L1Price, terms: L1Terms, eth_price_uusd: int) -> int:
    """Part of the feed-forward that the position adds or takes."""
    return _feedback(price, terms, feed_forward(price, terms, eth_price_uusd))


def premium_ppm(price: L1Price, terms: L1Terms) -> int:
    """Part of the feed-forward that is added for what L1 may do until a byte's cost is known.

    The time is that of Little's law: bytes on their way over bytes per L1 block.
    """
    blocks_ppm = max(price.flight_bytes, price.batch_bytes) * price.batch_blocks_ppm // price.batch_bytes
    deviation_ppm = isqrt(price.variance_ppt * blocks_ppm // (3 * PPM))
    return min(terms.reserve_ppm * deviation_ppm // terms.horizon_ppm, terms.feedback_ppm)


def _position(price: L1Price, forward_pusd: int) -> int:
    return price.surplus_uusd - _on_their_way(price) * forward_pusd // PUSD_PER_UUSD


def _feedback(price: L1Price, terms: L1Terms, forward_pusd: int) -> int:
    worth = horizon_bytes(price, terms) * forward_pusd
    back = -_position(price, forward_pusd) * PUSD_PER_UUSD * PPM // worth
    return min(max(back, -terms.feedback_ppm), terms.feedback_ppm)


def _target(price: L1Price, terms: L1Terms, eth_price_uusd: int) -> int:
    forward = feed_forward(price, terms, eth_price_uusd)
    factor = PPM + _feedback(price, terms, forward) + premium_ppm(price, terms)
    plain = forward * price.overhead_ppm
    return min(max(-(-plain * factor // (PPM * PPM)), terms.min_pusd), terms.max_pusd)


def _bound_memory(price: L1Price, terms: L1Terms, eth_price_uusd: int) -> None:
    bound = terms.memory_batches * price.batch_cost_uusd
    position = position_uusd(price, terms, eth_price_uusd)
    surplus = price.surplus_uusd - position + min(max(position, -bound), bound)
    price.surplus_uusd = min(max(surplus, -_MAX_SURPLUS_UUSD), _MAX_SURPLUS_UUSD)


def _on_their_way(price: L1Price) -> int:
    return price.closed_bytes + price.open_bytes * price.overhead_ppm // PPM


def _calldata_gas(terms: L1Terms, size_bytes: int) -> int:
    executed = terms.post_gas + _BYTE_GAS * size_bytes
    return max(executed, _TRANSACTION_GAS + _BYTE_FLOOR_GAS * size_bytes)


def _blobs(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_BLOB)


def _average(old: int, sample: int, weight: int) -> int:
    return -(-((weight - 1) * old + sample) // weight)


def _raised(pusd: int, steps: int, terms: L1Terms) -> int:
    for _ in range(steps):
        if pusd >= terms.max_pusd:
            break
        pusd += max(pusd * terms.step_ppm // PPM, 1)
    return min(pusd, terms.max_pusd)


def _lowered(pusd: int, steps: int, terms: L1Terms) -> int:
    for _ in range(steps):
        if pusd <= terms.min_pusd:
            break
        pusd = pusd * PPM // (PPM + terms.step_ppm)
    return max(pusd, terms.min_pusd)
