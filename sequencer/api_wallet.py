"""What wallets ask of every chain, answered so that they can show it: ids, blocks, a balance.

Fees are in the collateral (`straddle_feeQuote`); what gas is here: `api_fees`. A balance is the cash of all
accounts of an owner, in 10^-18 USD, because wallets divide by 10^18.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from sequencer.api_chain import Address, ChainApi
from sequencer.api_context import ApiContext
from sequencer.api_fees import FeeApi
from sequencer.errors import ErrorCode, RpcError
from sequencer.jsonrpc import Context, Method, NoParams
from sequencer.receipts import SealedBlock, hex_of
from state import keys
from state.leaves import Account

WEI_PER_UUSD = 10**12
MAX_FEE_HISTORY = 1_024

BlockTag = Annotated[
    str, Meta(pattern=r"^(?:latest|safe|finalized|earliest|pending|0x[0-9a-fA-F]{1,16})$(?!\n)")
]
Percentile = Annotated[float, Meta(ge=0, le=100)]


class BalanceParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    address: Address
    block: BlockTag = "latest"


class BlockByNumberParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    block: BlockTag
    full: bool = False


class GasHistoryParams(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    block_count: Annotated[int, Meta(ge=1)] | Annotated[str, Meta(pattern=r"^0x[0-9a-fA-F]{1,8}$(?!\n)")]
    newest_block: BlockTag = "latest"
    reward_percentiles: Annotated[list[Percentile], Meta(max_length=100)] | None = None
    """Parts of a percent are dropped."""


class WalletApi:
    """The `eth_`, `net_` and `web3_` methods."""

    def __init__(self, context: ApiContext, chain: ChainApi, fees: FeeApi) -> None:
        self._context = context
        self._chain = chain
        self._fees = fees

    def methods(self) -> list[Method[Any]]:
        chain_id = self._context.domain.chain_id
        status = self._context.summary
        return [
            Method("eth_chainId", NoParams, str, lambda _p, _c: hex(chain_id), "The rollup's chain id."),
            Method("net_version", NoParams, str, lambda _p, _c: str(chain_id), "The chain id in decimal."),
            Method(
                "web3_clientVersion", NoParams, str, lambda _p, _c: "straddle/0.1.0", "The node's software."
            ),
            Method(
                "eth_blockNumber",
                NoParams,
                str,
                lambda _p, _c: hex(status()["block_number"]),
                "The last durable block.",
            ),
            Method(
                "eth_getBlockByNumber",
                BlockByNumberParams,
                dict[str, Any] | None,
                self._get_block,
                "A block in Ethereum's shape; transactions by hash only. null when there is none.",
                "Gas is execution units, known of the blocks that straddle_feeHistory has; zero before them.",
            ),
            Method(
                "eth_getBalance",
                BalanceParams,
                str,
                self._get_balance,
                "Cash of all accounts of an owner now, in 10^-18 USD.",
                errors=(ErrorCode.NOT_AVAILABLE,),
            ),
            Method(
                "eth_gasPrice",
                NoParams,
                str,
                lambda _p, _c: hex(self._fees.base_wei() + self._fees.priority_wei()),
                "Base price of an execution unit now, and what places cost lately, in 10^-18 USD.",
            ),
            Method(
                "eth_maxPriorityFeePerGas",
                NoParams,
                str,
                lambda _p, _c: hex(self._fees.priority_wei()),
                "The median of what the last blocks' median unit paid for its place; bids are in actions.",
            ),
            Method(
                "eth_feeHistory",
                GasHistoryParams,
                dict[str, Any],
                self._fee_history,
                "Base prices of execution units by block; a ratio of 0.5 is the target.",
                "Fewer blocks than asked when the node does not keep so many.",
            ),
        ]

    def _number(self, tag: str) -> int:
        if tag.startswith("0x"):
            return int(tag, 16)
        if tag == "earliest":
            return 1
        return self._chain.block_number("latest" if tag == "pending" else tag)

    async def _get_block(self, params: BlockByNumberParams, _context: Context) -> dict[str, Any] | None:
        try:
            block = await self._chain.block(self._number(params.block))
        except RpcError:
            return None
        return _ethereum_block(block, *self._fees.of_block(block.header.number))

    def _get_balance(self, params: BalanceParams, _context: Context) -> str:
        if params.block not in ("latest", "pending"):
            raise RpcError(ErrorCode.NOT_AVAILABLE, "balances are known at latest; use straddle_getProof")
        view = self._context.machine.view
        total_uusd = 0
        for number in self._chain.accounts_of(bytes.fromhex(params.address[2:])):
            leaf: Account = view.get(keys.account_key(number))
            total_uusd += leaf.cash_uusd
        return hex(max(0, total_uusd) * WEI_PER_UUSD)

    def _fee_history(self, params: GasHistoryParams, _context: Context) -> dict[str, Any]:
        asked = params.block_count
        count = min(asked if isinstance(asked, int) else int(asked, 16), MAX_FEE_HISTORY)
        newest = min(self._number(params.newest_block), self._context.receipts.last_block)
        return self._fees.ethereum_history(count, newest, params.reward_percentiles or [])


def _ethereum_block(block: SealedBlock, base_wei: int, units_used: int) -> dict[str, Any]:
    header = block.header
    nothing = hex_of(bytes(32))
    return {
        "number": hex(header.number),
        "hash": hex_of(block.hash),
        "parentHash": hex_of(header.parent_hash),
        "timestamp": hex(header.timestamp_ms // 1000),
        "transactions": [hex_of(result.hash) for result in block.results],
        "transactionsRoot": hex_of(header.transactions),
        "stateRoot": nothing,
        "receiptsRoot": nothing,
        "sha3Uncles": nothing,
        "mixHash": nothing,
        "uncles": [],
        "miner": hex_of(bytes(20)),
        "difficulty": "0x0",
        "totalDifficulty": "0x0",
        "extraData": "0x",
        "nonce": "0x0000000000000000",
        "logsBloom": hex_of(bytes(256)),
        "size": "0x0",
        "gasLimit": "0x0",
        "gasUsed": hex(units_used),
        "baseFeePerGas": hex(base_wei),
    }
