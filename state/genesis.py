"""The state before the first block: registers, default parameters and prices without load, nothing else.

Instruments, publishers and other parameters arrive by L1 messages, so every rollup starts from this root.
"""

from typing import Final

from state import fee_market, l1_price
from state.keys import FEE_MARKET_KEY, L1_PRICE_KEY, PARAMETERS_KEY, SYSTEM_KEY
from state.leaves import FeeMarket, FeeTerms, L1Price, L1Terms, Leaf, Parameters, System
from state.proofs import LeafData, subtree_hash

FIRST_BASE_FEE_WEI: Final = 500_000_000
FIRST_BLOB_FEE_WEI: Final = 350_000_000
"""With ether at 3,000 dollars a full blob costs 3 uusd a byte."""


def genesis_leaves() -> dict[bytes, Leaf]:
    """Fresh leaves by key."""
    system = System(next_account=1, next_market=1, next_sequence=1, next_trade=1, next_withdrawal=1)
    parameters = Parameters(
        exec_price_pusd=10_000_000,
        eth_price_uusd=3_000_000_000,
        oracle_max_age_ms=60_000,
        oracle_deviation_ppm=200_000,
        max_orders=512,
        max_positions=64,
        max_session_keys=16,
    )
    market = FeeMarket()
    fee_market.advance(market, FeeTerms(), parameters.exec_price_pusd, 0)
    return {
        SYSTEM_KEY: system,
        PARAMETERS_KEY: parameters,
        FEE_MARKET_KEY: market,
        L1_PRICE_KEY: first_price(parameters.eth_price_uusd),
    }


def first_price(eth_price_uusd: int) -> L1Price:
    """Until a batch is reported: what a byte costs in a full blob at these fees."""
    terms = L1Terms()
    guess = l1_price.starting(terms, 0, 0, FIRST_BASE_FEE_WEI, FIRST_BLOB_FEE_WEI, 0)
    price_pusd = l1_price.feed_forward(guess, terms, eth_price_uusd)
    return l1_price.starting(terms, price_pusd, 0, FIRST_BASE_FEE_WEI, FIRST_BLOB_FEE_WEI, 0)


def genesis_root() -> bytes:
    """The first root in the contract."""
    leaves = sorted(genesis_leaves().items())
    return subtree_hash([LeafData(key, leaf.encode()) for key, leaf in leaves])


GENESIS_ROOT = genesis_root()
