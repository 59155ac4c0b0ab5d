"""The state before the first block: registers, default parameters and prices without load, nothing else.

Instruments, publishers and other parameters arrive by L1 messages, so every rollup starts from this root.
"""

from state import fee_market
from state.keys import FEE_MARKET_KEY, PARAMETERS_KEY, SYSTEM_KEY
from state.leaves import FeeMarket, FeeTerms, Leaf, Parameters, System
from state.proofs import LeafData, subtree_hash


def genesis_leaves() -> dict[bytes, Leaf]:
    """Fresh leaves by key."""
    system = System(next_account=1, next_market=1, next_sequence=1, next_trade=1, next_withdrawal=1)
    parameters = Parameters(
        exec_price_pusd=10_000_000,
        byte_price_pusd=3_000_000,
        byte_price_max_pusd=1_000_000_000,
        eth_price_uusd=3_000_000_000,
        oracle_max_age_ms=60_000,
        oracle_deviation_ppm=200_000,
        max_orders=512,
        max_positions=64,
        max_session_keys=16,
    )
    market = FeeMarket()
    fee_market.advance(market, FeeTerms(), parameters.exec_price_pusd, 0)
    return {SYSTEM_KEY: system, PARAMETERS_KEY: parameters, FEE_MARKET_KEY: market}


def genesis_root() -> bytes:
    """The first root in the contract."""
    leaves = sorted(genesis_leaves().items())
    return subtree_hash([LeafData(key, leaf.encode()) for key, leaf in leaves])


GENESIS_ROOT = genesis_root()
