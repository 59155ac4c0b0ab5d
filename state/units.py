"""Units, rounding and bounds shared by the whole protocol.

Units are in names: `uusd` is 10^-6 US dollar of collateral, `nusd` 10^-9, `pusd` 10^-12; `ulots` is 10^-6 of
one lot, and one lot is one coin of the underlying; prices are `uusd` per lot; `ppm` and `ppb` are rates; `_s`
and `_ms` are times since the Unix epoch, or durations. Divisions round down, towards minus infinity (`//`),
or up (`-(-a // b)`): whichever favours the house.

The bounds keep every value of a leaf inside a signed 64-bit integer and every intermediate inside 256 bits.
"""

from typing import Final

ULOTS_PER_LOT: Final = 1_000_000
PUSD_PER_UUSD: Final = 1_000_000
PPM: Final = 1_000_000
PPB: Final = 1_000_000_000
MS_PER_S: Final = 1_000
MS_PER_HOUR: Final = 3_600_000

MAX_PRICE_UUSD: Final = 10**15
MAX_SIZE_ULOTS: Final = 10**15
MAX_NOTIONAL_UUSD: Final = 10**17
"""Of one order, and of one position at its mark: 100 billion dollars."""
MAX_AMOUNT_UUSD: Final = 10**17
"""Of one deposit, transfer, withdrawal or fee."""
MAX_TOTAL_COLLATERAL_UUSD: Final = 4 * 10**18
"""Far above any real vault; a deposit beyond it is refused with COLLATERAL_LIMIT."""

MAX_NONCE: Final = 2**56 - 1
NONCE_WINDOW: Final = 256
MAX_BULK_OPERATIONS: Final = 64
OPERATION_BITS: Final = 6
"""order_id = nonce << OPERATION_BITS | place in the action: known to the signer before sending."""
MAX_DEADLINE_AHEAD_S: Final = 86_400
"""A deadline further in the future is refused, so that replay windows and encodings stay small."""
MAX_POSITIONS: Final = 128
"""Upper bound of the parameter max_positions, so that one margin check is bounded."""
MAX_OPEN_ORDERS: Final = 65_536
"""Upper bound of the parameter max_orders."""
MAX_QUOTE_UUSD: Final = 10**18
"""Of the cost of one position: a fill beyond it does not happen."""
MAX_CASH_UUSD: Final = 4 * 10**18
"""Of one account's cash, either side of zero: a fill or transfer beyond it does not happen."""
MAX_MAKERS_PER_ORDER: Final = 64
"""Resting orders that one order may meet, filled or removed."""
MAX_FILL_OR_KILL_MAKERS: Final = 16
SWEEP_ORDERS: Final = 16
"""Orders cancelled in one step of a cancel-all."""
MAX_SWITCHES: Final = 64
"""Dead-man switches executed in one block."""
IMPACT_ORDERS: Final = 16
"""Resting orders looked at on each side to measure the premium."""
MAX_LEGS: Final = 16
"""Of one quote."""
MAX_QUOTE_AHEAD_S: Final = 86_400
"""A quote that expires later is refused, so that what must be remembered of used ones is bounded."""
BLOCK_TRADE_KEPT_MS: Final = 90 * 86_400_000
"""How long the terms of a block trade can be proved from the current state."""
MAX_PROTECTED_BYTES: Final = 22
"""Of an underlying's name in which an account may be protected."""
MAX_PROTECTION_MS: Final = 86_400_000
"""Of a protection's interval, and of its freeze."""
MAX_FIRED: Final = 256
"""Triggers fired in one oracle update; the next begins with the rest."""
MAX_LOOKED: Final = 16
"""Markets of one expiry that are looked at for triggers, each time a feed of an update belongs to it."""
MAX_NAME_BYTES: Final = 31
MAX_PUBLISHERS: Final = 16
MAX_FEEDS_PER_REPORT: Final = 64
MAX_EXPIRIES: Final = 24
"""Of one underlying, settled ones that are not delisted yet included."""
MAX_EXPIRY_INSTRUMENTS: Final = 2_048
MAX_AHEAD: Final = 12
"""Expiries that one series keeps listed."""
MAX_STRIKES: Final = 128
"""Of a series, on each side of the index; of one LIST_STRIKES."""
MAX_DUE_STEPS: Final = 256
"""Steps of one block for what block time drives; the rest is done in the next blocks."""
SETTLEMENT_WINDOW_MS: Final = 1_800_000
"""Over which the index is averaged to the settlement price."""
