"""All methods of the public port, in one list; the feed's own two are added by the node."""

from __future__ import annotations

from typing import Any

from sequencer.api_chain import ChainApi
from sequencer.api_context import ApiContext
from sequencer.api_depth import DepthApi
from sequencer.api_fee_quote import FeeQuoteApi
from sequencer.api_fee_tiers import FeeTierApi
from sequencer.api_fees import FeeApi
from sequencer.api_history import HistoryApi
from sequencer.api_market import MarketApi
from sequencer.api_oracle import OracleApi
from sequencer.api_risk import RiskApi
from sequencer.api_transactions import TransactionApi
from sequencer.api_typed_data import TypedDataApi
from sequencer.api_wallet import WalletApi
from sequencer.jsonrpc import Method


def public_methods(context: ApiContext) -> list[Method[Any]]:
    """The methods that read or take transactions."""
    chain = ChainApi(context)
    fees = FeeApi(context)
    return [
        *TransactionApi(context).methods(),
        *FeeQuoteApi(context).methods(),
        *FeeTierApi(context).methods(),
        *TypedDataApi(context).methods(),
        *chain.methods(),
        *HistoryApi(context).methods(),
        *MarketApi(context).methods(),
        *RiskApi(context).methods(),
        *DepthApi(context).methods(),
        *OracleApi(context).methods(),
        *fees.methods(),
        *WalletApi(context, chain, fees).methods(),
    ]
