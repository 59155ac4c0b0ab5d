"""Units, rounding and bounds shared by the whole protocol.

Units are in names: `uusd` is 10^-6 US dollar of collateral, `nusd` 10^-9, `pusd` 10^-12; `ulots` is 10^-6 of
one lot, and one lot is one coin of the underlying; prices are `uusd` per lot; `ppm` and `ppb` are rates; `_s`
and `_ms` are times since the Unix epoch, or durations. Rounding is in names too: `mul_div_down` and
`mul_div_up` round towards minus and plus infinity; callers choose the one that favours the house.

The bounds keep every value of a leaf inside a signed 64-bit integer and every intermediate inside 256 bits.
"""

ULOTS_PER_LOT = 1_000_000
NUSD_PER_UUSD = 1_000
PUSD_PER_UUSD = 1_000_000
PPM = 1_000_000
PPB = 1_000_000_000
MS_PER_S = 1_000
MS_PER_HOUR = 3_600_000

MAX_PRICE_UUSD = 10**15
MAX_SIZE_ULOTS = 10**15
MAX_NOTIONAL_UUSD = 10**17
"""Of one order, and of one position at its mark: 100 billion dollars."""
MAX_AMOUNT_UUSD = 10**17
"""Of one deposit, transfer, withdrawal or fee."""
MAX_TOTAL_COLLATERAL_UUSD = 4 * 10**18
"""Far above any real vault; a deposit beyond it is refused with COLLATERAL_LIMIT."""

MAX_NONCE = 2**56 - 1
NONCE_WINDOW = 256
MAX_BULK_OPERATIONS = 64
OPERATION_BITS = 6
"""order_id = nonce << OPERATION_BITS | place in the action: known to the signer before sending."""
MAX_DEADLINE_AHEAD_S = 86_400
"""A deadline further in the future is refused, so that replay windows and encodings stay small."""
MAX_POSITIONS = 128
"""Upper bound of the parameter max_positions, so that one margin check is bounded."""
MAX_OPEN_ORDERS = 65_536
"""Upper bound of the parameter max_orders."""
MAX_QUOTE_UUSD = 10**18
"""Of the cost of one position: a fill beyond it does not happen."""
MAX_CASH_UUSD = 4 * 10**18
"""Of one account's cash, either side of zero: a fill or transfer beyond it does not happen."""
MAX_MAKERS_PER_ORDER = 64
"""Resting orders that one order may meet, filled or removed."""
MAX_FILL_OR_KILL_MAKERS = 16
SWEEP_ORDERS = 16
"""Orders cancelled in one step of a cancel-all."""
MAX_SWITCHES = 64
"""Dead-man switches executed in one block."""
IMPACT_ORDERS = 16
"""Resting orders looked at on each side to measure the premium."""
MAX_NAME_BYTES = 31
MAX_PUBLISHERS = 16
MAX_FEEDS_PER_REPORT = 64


def mul_div_down(a: int, b: int, divisor: int) -> int:
    """floor(a * b / divisor); divisor > 0."""
    return a * b // divisor


def mul_div_up(a: int, b: int, divisor: int) -> int:
    """ceil(a * b / divisor); divisor > 0."""
    return -(-a * b // divisor)
