"""Why the exchange says no: stable codes, and the exception that carries one.

A code's number and name never change once published; new codes take new numbers. `Rejected` is raised before
anything is changed, so a rejected transaction (or one operation of a bulk action) leaves the state as it was.
"""

from enum import IntEnum


class RejectCode(IntEnum):
    # envelope
    OUT_OF_ORDER = 1
    BAD_SIGNATURE = 2
    WRONG_SIGNER = 3
    UNKNOWN_ACCOUNT = 4
    NONCE_USED = 5
    NONCE_TOO_OLD = 6
    NONCE_OUT_OF_RANGE = 7
    DEADLINE_EXPIRED = 8
    DEADLINE_TOO_FAR = 9
    FEE_ABOVE_MAX = 10
    INSUFFICIENT_CASH = 11
    SESSION_KEY_SCOPE = 12
    SESSION_KEY_EXPIRED = 13
    NUMBER_OUT_OF_RANGE = 14
    EMPTY_ACTION = 15
    BID_ABOVE_MAX_FEE = 16
    BAD_MARKET_TABLE = 17
    # instruments and orders
    UNKNOWN_INSTRUMENT = 30
    INSTRUMENT_NOT_TRADING = 31
    PRICE_OFF_TICK = 32
    SIZE_OFF_LOT = 33
    SIZE_ZERO = 34
    SIZE_TOO_SMALL = 35
    SIZE_TOO_LARGE = 36
    PRICE_OUT_OF_BAND = 37
    NOTIONAL_TOO_LARGE = 38
    ORDER_EXPIRED = 39
    REDUCE_ONLY_INCREASES = 40
    POST_ONLY_CROSSES = 41
    FILL_OR_KILL_UNFILLED = 42
    INSUFFICIENT_MARGIN = 43
    TOO_MANY_ORDERS = 44
    TOO_MANY_POSITIONS = 45
    UNKNOWN_ORDER = 46
    TOO_MANY_OPERATIONS = 47
    EXPIRED_INSTRUMENT = 48
    # money and keys
    AMOUNT_ZERO = 60
    SAME_ACCOUNT = 61
    UNKNOWN_RECIPIENT = 62
    UNKNOWN_SESSION_KEY = 63
    TOO_MANY_SESSION_KEYS = 64
    # oracle
    ORACLE_STALE = 80
    ORACLE_QUORUM = 81
    ORACLE_UNKNOWN_PUBLISHER = 82
    ORACLE_DUPLICATE_PUBLISHER = 83
    ORACLE_FUTURE = 84
    ORACLE_OLD = 85
    ORACLE_DEVIATION = 86
    ORACLE_UNKNOWN_FEED = 87
    ORACLE_DUPLICATE_FEED = 88
    ORACLE_SURFACE = 89
    FORWARD_STALE = 90
    RATE_STALE = 91
    VOLATILITY_STALE = 92
    STABLE_STALE = 93
    # L1 messages
    MALFORMED_MESSAGE = 100
    NOT_OWNER = 101
    NAME_TAKEN = 102
    BAD_PARAMETERS = 103
    COLLATERAL_LIMIT = 104
    STRIKE_OFF_GRID = 105
    UNKNOWN_EXPIRY = 106
    # liquidation
    NOT_LIQUIDATABLE = 120
    AUCTION_OPEN = 121
    NO_AUCTION = 122
    ACCOUNT_IN_AUCTION = 123
    AUCTION_NOT_OVER = 124
    BID_SHARE = 125
    BID_REWARD = 126
    BID_OWN_ACCOUNT = 127
    DELEVERAGE_EARLY = 128
    DELEVERAGE_NO_POSITION = 129
    DELEVERAGE_NOT_OPPOSITE = 130
    DELEVERAGE_NO_PROFIT = 131
    DELEVERAGE_WORSE = 132
    # blocks, protection, triggers
    LEG_COUNT = 140
    DUPLICATE_LEG = 141
    QUOTE_EXPIRED = 142
    QUOTE_USED = 143
    QUOTE_WRONG_SIGNER = 144
    QUOTE_TO_ONESELF = 145
    QUOTE_NOT_FOR_TAKER = 146
    NET_PRICE_LIMIT = 147
    NET_PRICE_OFF = 148
    MMP_FROZEN = 150
    UNKNOWN_PROTECTION = 151
    UNKNOWN_UNDERLYING = 152
    TRIGGER_FIRES_AT_ONCE = 155
    UNKNOWN_TRIGGER = 156


class Rejected(Exception):
    """A transaction or operation that the rules refuse; `data` says what was expected and what came."""

    def __init__(self, code: RejectCode, **data: int | str | bool):
        super().__init__(code.name)
        self.code = code
        self.data = data

    def __str__(self) -> str:
        details = ", ".join(f"{name}={value}" for name, value in self.data.items())
        return f"{self.code.name}({details})"
