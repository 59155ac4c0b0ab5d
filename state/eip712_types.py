"""The EIP-712 structs: the only description of what is signed, and the strings that stand for enums.

The typed data for wallets, the wire forms and the type hashes are derived from these type strings, and the
tests compare them with PROTOCOL.
"""

from __future__ import annotations

from typing import Final

from state.hashing import keccak

DOMAIN_NAME: Final = "Straddle"
DOMAIN_VERSION: Final = "1"
SIDES: Final = ("buy", "sell")
ORDER_KINDS: Final = ("limit", "post-only", "immediate-or-cancel", "fill-or-kill", "market")
SELF_TRADES: Final = ("cancel-maker", "cancel-taker", "decrement-both")
SCOPES: Final = ("cancel-only", "trade")
TRIGGER_SOURCES: Final = ("mark", "index")
TRIGGER_CONDITIONS: Final = ("at-or-above", "at-or-below")
"""The strings that stand for the enums of `actions`, by value."""

_END: Final = "uint64 nonce,uint64 deadline_s,uint64 max_fee_uusd,uint64 priority_bid_uusd"
_FIELDS: Final = {
    "EIP712Domain": "string name,string version,uint256 chainId,address verifyingContract",
    "Order": "string instrument,string side,string kind,uint64 price_uusd,uint64 size_ulots,"
    "bool reduce_only,uint64 expiry_s,string self_trade",
    "Cancel": "string instrument,uint64 order_id",
    "Replacement": "string instrument,uint64 order_id,uint64 price_uusd,uint64 size_ulots",
    "PlaceOrder": f"uint64 account,Order order,{_END}",
    "CancelOrder": f"uint64 account,Cancel cancel,{_END}",
    "CancelAll": f"uint64 account,string instrument,{_END}",
    "ReplaceOrder": f"uint64 account,Replacement replacement,{_END}",
    "BulkOrders": f"uint64 account,Cancel[] cancels,Replacement[] replacements,Order[] orders,{_END}",
    "Transfer": f"uint64 account,uint64 to_account,uint64 amount_uusd,{_END}",
    "Withdraw": f"uint64 account,address recipient,uint64 amount_uusd,{_END}",
    "AuthorizeSessionKey": f"uint64 account,address key,string scope,uint64 expiry_s,{_END}",
    "RevokeSessionKey": f"uint64 account,address key,{_END}",
    "CancelAllAfter": f"uint64 account,uint64 timeout_s,{_END}",
    "Leg": "string instrument,string side,uint64 size_ulots",
    "Quote": "uint64 account,Leg[] legs,int64 net_uusd,uint64 taker_account,bytes32 terms_hash,"
    "uint64 nonce,uint64 expiry_s,uint64 max_fee_uusd",
    "ExecuteQuote": f"uint64 account,Quote quote,bytes quote_signature,int64 limit_uusd,{_END}",
    "CancelQuote": f"uint64 account,uint64 quote_nonce,uint64 quote_expiry_s,{_END}",
    "SetProtection": "uint64 account,string underlying,uint64 interval_ms,uint64 frozen_ms,"
    f"uint64 quantity_ulots,uint64 delta_ulots,uint64 vega_uusd,{_END}",
    "ResetProtection": f"uint64 account,string underlying,{_END}",
    "PlaceTrigger": f"uint64 account,Order order,string source,string condition,uint64 trigger_uusd,{_END}",
    "CancelTrigger": f"uint64 account,Cancel cancel,{_END}",
    "StartAuction": f"uint64 account,uint64 liquidated,{_END}",
    "Bid": f"uint64 account,uint64 liquidated,uint64 share_ppm,uint64 min_reward_uusd,{_END}",
    "EndAuction": f"uint64 account,uint64 liquidated,{_END}",
    "Deleverage": f"uint64 account,uint64 liquidated,string instrument,uint64[] counterparties,{_END}",
    "OracleReport": "uint64 timestamp_ms,Price[] prices,Rate[] rates,SurfaceReport[] surfaces",
    "Price": "string feed,uint64 value_uusd,uint64 confidence_ppm",
    "Rate": "string feed,int64 value_ppb,uint64 confidence_ppm",
    "SurfaceReport": "string feed,int64 a_pico,int64 b_pico,int64 rho_pico,int64 m_pico,int64 sigma_pico,"
    "uint64 forward_uusd,uint64 tau_s,uint64 confidence_ppm",
    "BlockHeader": "uint64 number,bytes32 parent_hash,uint64 timestamp_ms,bytes32 transactions,"
    "uint64 l1_block,uint64 inbox_next",
    "FeeQuote": "bytes32 action,uint64 quoted_ms,uint64 expiry_ms,uint64 fee_uusd,uint64 most_uusd,"
    "uint64 data_uusd,uint64 bandwidth_uusd,uint64 execution_uusd,uint64 growth_uusd,uint64 finality_uusd,"
    "uint64 risk_uusd,uint64 bid_uusd",
}


def _split(fields: str) -> tuple[tuple[str, str], ...]:
    pairs = (pair.split(" ") for pair in fields.split(","))
    return tuple((name, kind) for kind, name in pairs)


TYPES: dict[str, tuple[tuple[str, str], ...]] = {name: _split(text) for name, text in _FIELDS.items()}
"""(field name, EIP-712 type) of every struct, in order."""


def nested_types(name: str) -> list[str]:
    """The structs that fields of `name` contain, at any depth, sorted."""
    found: set[str] = set()
    left = [name]
    while left:
        inner = {kind.removesuffix("[]") for _, kind in TYPES[left.pop()]} & TYPES.keys()
        left += inner - found
        found |= inner
    return sorted(found)


def type_string(name: str) -> str:
    """EIP-712 encodeType."""
    return "".join(f"{each}({_FIELDS[each]})" for each in (name, *nested_types(name)))


TYPE_HASHES: dict[str, bytes] = {name: keccak(type_string(name).encode()) for name in TYPES}
