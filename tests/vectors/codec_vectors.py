"""Golden vectors of signatures and encodings. `python -m tests.vectors.codec_vectors` writes them anew.

A change of these files is a change of the protocol.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from l1_bridge.batch import BatchBlock, BatchHead, data_commitment, decode_batch, encode_batch
from state import eip712, eip712_types, signatures
from state.actions import (
    Action,
    AuthorizeSessionKey,
    Bid,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelAllAfter,
    CancelOrder,
    CancelQuote,
    CancelTrigger,
    Deleverage,
    EndAuction,
    ExecuteQuote,
    Leg,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    PlaceTrigger,
    Price,
    Quote,
    Rate,
    Replacement,
    ReplaceOrder,
    ResetProtection,
    RevokeSessionKey,
    Scope,
    SelfTrade,
    SetProtection,
    Side,
    SignedAction,
    StartAuction,
    SurfaceReport,
    Transfer,
    TriggerCondition,
    TriggerSource,
    Withdraw,
)
from state.block import BlockHeader
from state.codec import MarketEntry, encode_transaction
from state.hashing import keccak
from state.wire import to_json
from state.wire_msgpack import encode_msgpack

HERE = Path(__file__).parent
DOMAIN = eip712.Domain(31_337, bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3"))
SECRET = keccak(b"straddle golden vectors")
INSTRUMENTS = {1: "BTC-PERPETUAL", 2: "ETH-PERPETUAL"}
NAMES = {market: keccak(name.encode()) for market, name in INSTRUMENTS.items()}
TIMESTAMP_MS = 1_723_161_255_342
NOW_S = TIMESTAMP_MS // 1_000
TABLE = {1: MarketEntry(100_000, 1_000, 618_376), 2: MarketEntry(10_000, 10_000, 268_380)}

BID = Order(1, Side.BUY, OrderKind.LIMIT, 61_837_600_000, 20_000)
ASK = Order(2, Side.SELL, OrderKind.POST_ONLY, 2_683_800_000, 1_500_000, False, NOW_S + 3_600)
CLOSE = Order(1, Side.SELL, OrderKind.MARKET, 61_000_000_000, 5_000, True, 0, SelfTrade.DECREMENT_BOTH)
ADDRESS = bytes(range(0xE0, 0xF4))
MAKER_SECRET = keccak(b"straddle golden maker")
QUOTE = Quote(
    4_321,
    (Leg(1, Side.BUY, 250_000), Leg(2, Side.SELL, 3_000_000)),
    -7_408_500_000,
    1_234,
    keccak(b"agreed terms"),
    TIMESTAMP_MS - 900,
    NOW_S + 20,
    9_000_000,
)


def _envelope(nonce: int, bid: int = 0) -> dict[str, Any]:
    return {
        "account": 1_234,
        "nonce": nonce,
        "deadline_s": NOW_S + 30,
        "max_fee_uusd": 2_500,
        "priority_bid_uusd": bid,
    }


ACTIONS: tuple[Action, ...] = (
    PlaceOrder(**_envelope(70_000), order=BID),
    PlaceOrder(**_envelope(TIMESTAMP_MS - 400, bid=300), order=ASK),
    PlaceOrder(**_envelope(2**40 - 1), order=CLOSE),
    CancelOrder(**_envelope(70_001), cancel=Cancel(1, 70_000 << 6)),
    CancelAll(**_envelope(70_002)),
    CancelAll(**_envelope(70_003), market=2),
    ReplaceOrder(**_envelope(70_004), replacement=Replacement(2, 69_000 << 6 | 5, 2_683_810_000, 40_000)),
    BulkOrders(**_envelope(70_005)),
    BulkOrders(
        **_envelope(70_006),
        cancels=(Cancel(1, 1), Cancel(2, 69_999 << 6)),
        replacements=(Replacement(1, 70_000 << 6, 61_837_500_000, 1_000),),
        orders=(BID, ASK, CLOSE),
    ),
    Transfer(**_envelope(70_007), to_account=77, amount_uusd=5_000_000),
    Withdraw(**_envelope(70_008), recipient=ADDRESS, amount_uusd=10**11),
    AuthorizeSessionKey(**_envelope(70_009), key=ADDRESS, scope=Scope.TRADE, expiry_s=NOW_S + 86_400),
    RevokeSessionKey(**_envelope(70_010), key=ADDRESS),
    CancelAllAfter(**_envelope(70_011), timeout_s=60),
    ExecuteQuote(
        **_envelope(70_012),
        quote=QUOTE,
        quote_signature=signatures.sign(eip712.quote_digest(DOMAIN, QUOTE, NAMES.__getitem__), MAKER_SECRET),
        limit_uusd=-1_000_000,
    ),
    CancelQuote(**_envelope(70_013), quote_nonce=TIMESTAMP_MS - 10, quote_expiry_s=NOW_S + 30),
    SetProtection(
        **_envelope(70_014),
        underlying="BTC",
        interval_ms=5_000,
        frozen_ms=0,
        quantity_ulots=10_000_000,
        delta_ulots=5_000_000,
        vega_uusd=2_000_000_000,
    ),
    ResetProtection(**_envelope(70_015), underlying="BTC"),
    PlaceTrigger(
        **_envelope(70_016),
        order=CLOSE,
        source=TriggerSource.INDEX,
        condition=TriggerCondition.AT_OR_BELOW,
        trigger_uusd=61_200_000_000,
    ),
    CancelTrigger(**_envelope(70_017), cancel=Cancel(1, 70_016 << 6)),
    StartAuction(**_envelope(70_012), liquidated=99),
    Bid(**_envelope(70_013), liquidated=99, share_ppm=250_000, min_reward_uusd=1_000_000),
    EndAuction(**_envelope(70_014), liquidated=99),
    Deleverage(**_envelope(70_015), liquidated=99, market=1, counterparties=(3, 2**40)),
)
REPORT = OracleReport(
    TIMESTAMP_MS - 120,
    (
        Price("BTC", 61_837_630_000, 150),
        Price("BTC-27DEC26", 62_904_110_000, 990_000),
        Price("ETH-PERPETUAL", 2_683_800_000, 400),
    ),
    bytes(64),
    (Rate("BTC-27DEC26", 34_200_000, 950_000), Rate("ETH-27DEC26", -1_500_000, 0)),
    (
        SurfaceReport(
            "BTC-27DEC26",
            -13_000_000_000,
            131_000_000_000,
            -270_000_000_000,
            41_000_000_000,
            523_000_000_000,
            62_900_000_000,
            15_811_200,
            880_000,
        ),
    ),
)
HEADER = BlockHeader(42, keccak(b"parent"), TIMESTAMP_MS, keccak(b"transactions"), 20_000_000, 17)


def signed(action: Action) -> SignedAction:
    digest = eip712.action_digest(DOMAIN, action, NAMES.__getitem__)
    return SignedAction(action, signatures.sign(digest, SECRET))


def signed_update() -> OracleUpdate:
    signature = signatures.sign(eip712.report_digest(DOMAIN, REPORT), SECRET)
    return OracleUpdate((msgspec.structs.replace(REPORT, signature=signature),))


def example_batch() -> tuple[BatchHead, list[BatchBlock]]:
    """Two blocks with every kind of transaction."""
    head = BatchHead(7, 40, TIMESTAMP_MS - 500, 19_999_990, 15, TABLE)
    transactions = [signed(action) for action in ACTIONS]
    blocks = [
        BatchBlock(TIMESTAMP_MS, 20_000_000, 2, (signed_update(), *transactions[:7])),
        BatchBlock(TIMESTAMP_MS + 50, 20_000_000, 0, tuple(transactions[7:])),
    ]
    return head, blocks


def build_eip712() -> dict[str, Any]:
    """Type hashes, digests, signatures and transaction hashes."""
    cases = []
    for action in ACTIONS:
        digest = eip712.action_digest(DOMAIN, action, NAMES.__getitem__)
        signature = signed(action).signature
        cases.append(
            {
                "transaction": to_json(signed(action), INSTRUMENTS.__getitem__),
                "struct_hash": eip712.action_hash(action, NAMES.__getitem__).hex(),
                "digest": digest.hex(),
                "signature": signature.hex(),
                "transaction_hash": eip712.transaction_hash(digest, signature).hex(),
            }
        )
    return {
        "chain_id": DOMAIN.chain_id,
        "contract": DOMAIN.contract.hex(),
        "domain_separator": DOMAIN.separator.hex(),
        "secret": SECRET.hex(),
        "signer": signatures.address_of(SECRET).hex(),
        "type_hashes": {name: hash_.hex() for name, hash_ in eip712_types.TYPE_HASHES.items()},
        "actions": cases,
        "quote": {
            "struct_hash": eip712.quote_hash(QUOTE, NAMES.__getitem__).hex(),
            "digest": eip712.quote_digest(DOMAIN, QUOTE, NAMES.__getitem__).hex(),
            "signer": signatures.address_of(MAKER_SECRET).hex(),
        },
        "report": {
            "struct_hash": eip712.report_hash(REPORT).hex(),
            "digest": eip712.report_digest(DOMAIN, REPORT).hex(),
        },
        "header": {
            "hash": eip712.header_hash(HEADER).hex(),
            "digest": eip712.header_digest(DOMAIN, HEADER).hex(),
        },
    }


def build_codec() -> dict[str, Any]:
    """The bytes of each transaction in its three forms, and of a batch."""
    head, blocks = example_batch()
    batch = encode_batch(head, blocks)
    payloads = [(block.timestamp_ms, payload) for block in blocks for payload in block.transactions]
    return {
        "table": {str(market): list(entry) for market, entry in TABLE.items()},
        "instruments": {str(market): name for market, name in INSTRUMENTS.items()},
        "transactions": [
            {
                "json": to_json(payload, INSTRUMENTS.__getitem__),
                "msgpack": encode_msgpack(payload).hex() if isinstance(payload, SignedAction) else None,
                "block_timestamp_ms": timestamp_ms,
                "encoded": encode_transaction(payload, timestamp_ms, TABLE).hex(),
            }
            for timestamp_ms, payload in payloads
        ],
        "batch": batch.hex(),
        "block_offsets": [block.offset for block in decode_batch(batch).blocks],
        "data_commitment": data_commitment(batch).hex(),
    }


def write() -> None:
    for name, vectors in (("eip712", build_eip712()), ("codec", build_codec())):
        (HERE / f"{name}.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    write()
