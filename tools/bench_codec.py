"""Bytes per order of the batch codec beside Ethereum's usual way: RLP type-2 transactions under a compressor.

A trade tape becomes signed order flow, twice. *Single*: every operation has its own signature; per trade
three quotes, two cancels and a replacement by makers, and the taker's order. *Bulk*: what `make run` sends;
makers requote a ladder under one signature, takers sign each order. The same transactions, with the same
block boundaries, are then written as

- one batch of the codec, not compressed, so that L1 can read any transaction by itself,
- RLP blocks of signed type-2 transactions that call a contract by ABI, the nonce, the fee and the bid in the
  transaction's own fields,
- the canonical msgpack of the wire,

and the last two compressed whole: the best case of a compressor, one stream without random access. A sample
is also compressed transaction by transaction, which keeps random access as the codec does.

Signatures are real, 64 bytes each in every form, and random to any compressor. So no encoding can be smaller
than 64 bytes a signature, and the ratio to the best compressor cannot fall below the share of the signatures
in its output, which is printed beside the ratio.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import brotli
import msgspec
import rlp
import zstandard
from rich.console import Console
from rich.table import Table

from l1_bridge.batch import BatchBlock, BatchHead, decode_batch, encode_batch, priced_markets
from state.actions import (
    Action,
    BulkOrders,
    Cancel,
    CancelAll,
    CancelOrder,
    Order,
    OrderKind,
    PlaceOrder,
    Replacement,
    ReplaceOrder,
    Side,
    SignedAction,
)
from state.codec import MarketEntry, decode_transaction, encode_transaction
from state.eip712 import Domain, action_digest
from state.eip712_types import type_string
from state.hashing import keccak
from state.signatures import sign
from state.units import OPERATION_BITS
from state.wire_msgpack import encode_msgpack
from tools.figure import Figure, keccak_seconds, seconds_per_call
from tools.market import MarketSpec, Trader, round_actions, rounds, spec_for
from tools.tape import TapeTrade, read_tape, synthetic_tape

TAPE = Path(__file__).parents[2] / "shared/data/binance_trades_btc_eth_20240808.csv.gz"
SEED = 20_240_808
SINGLE_TRADES = 800
SAMPLE = 300
"""Transactions that are compressed one by one."""
BULK_TRADES = 3_000
BLOCK_MS = 50
MAKERS = 24
TAKERS = 600
MAX_FEES_UUSD = (1_500, 4_000, 12_000)
DEADLINES_S = (5, 15, 30, 60)
MAX_BYTES_PER_ORDER = 80
MAX_RATIO = 0.6
DOMAIN = Domain(421_614, bytes(range(1, 21)))
Flow = list[tuple[int, SignedAction]]
"""Signed actions with the time at which they arrive."""


@dataclass(frozen=True, slots=True)
class Markets:
    """Numbers and grids of the tape's markets."""

    numbers: dict[str, int]
    specs: dict[str, MarketSpec]

    def names(self, market: int) -> bytes:
        (name,) = (self.specs[u].instrument for u, number in self.numbers.items() if number == market)
        return keccak(name.encode())

    def table(self, flow: Flow) -> dict[int, MarketEntry]:
        """Of each market that is priced, with its first price as the reference."""
        specs = {number: self.specs[underlying] for underlying, number in self.numbers.items()}
        table: dict[int, MarketEntry] = {}
        for _, payload in flow:
            for market in priced_markets(payload) - table.keys():
                tick = specs[market].tick_uusd
                price = next(p for m, p in _prices(payload.action) if m == market)
                table[market] = MarketEntry(tick, specs[market].lot_ulots, price // tick)
        return table


def _prices(action: Action) -> Iterator[tuple[int, int]]:
    if isinstance(action, PlaceOrder):
        yield action.order.market, action.order.price_uusd
    elif isinstance(action, ReplaceOrder):
        yield action.replacement.market, action.replacement.price_uusd
    elif isinstance(action, BulkOrders):
        yield from ((each.market, each.price_uusd) for each in action.replacements)
        yield from ((each.market, each.price_uusd) for each in action.orders)


def read_trades(count: int) -> list[TapeTrade]:
    """The recorded tape where it is present, else a seeded one."""
    tape = read_tape(TAPE) if TAPE.exists() else synthetic_tape(SEED, count)
    return list(islice(tape, count))


def markets_of(trades: list[TapeTrade]) -> Markets:
    first: dict[str, int] = {}
    for trade in trades:
        first.setdefault(trade.underlying, trade.price_uusd)
    numbers = {underlying: place + 1 for place, underlying in enumerate(first)}
    return Markets(numbers, {underlying: spec_for(underlying, price) for underlying, price in first.items()})


def _traders(kind: str, count: int, random_: random.Random) -> list[Trader]:
    accounts = random_.sample(range(1, 10_000), count)
    return [Trader(f"{kind} {n}", account=accounts[n], nonce=random_.randrange(10**5)) for n in range(count)]


def _signed(trader: Trader, action: Action, markets: Markets) -> SignedAction:
    return SignedAction(action, sign(action_digest(DOMAIN, action, markets.names), trader.secret))


class SingleFlow:
    """Per trade: quotes, cancels and a replacement by makers, and the taker's order, signed one by one."""

    def __init__(self, trades: list[TapeTrade], markets: Markets) -> None:
        self.trades = trades
        self.markets = markets
        self.random = random.Random(SEED)
        self.makers = _traders("maker", MAKERS, self.random)
        self.takers = _traders("taker", TAKERS, self.random)
        self.open: dict[tuple[str, str], list[tuple[int, int]]] = {}

    def __iter__(self) -> Iterator[tuple[int, SignedAction]]:
        for trade in self.trades:
            yield from ((trade.time_ms, signed) for signed in self._around(trade))

    def _around(self, trade: TapeTrade) -> Iterator[SignedAction]:
        market, spec = self.markets.numbers[trade.underlying], self.markets.specs[trade.underlying]
        tick, lot = spec.tick_uusd, spec.lot_ulots
        price = trade.price_uusd // tick * tick
        size = max(trade.size_ulots // lot, 1) * lot
        now_s = trade.time_ms // 1_000
        away = Side.SELL if trade.taker_buys else Side.BUY
        for step in (0, self.random.randint(1, 20), self.random.randint(1, 60)):
            side = away if step == 0 else self.random.choice(list(Side))
            quote = price + (step if side is Side.SELL else -step) * tick
            lots = size if step == 0 else self.random.randint(1, 800) * lot
            maker, envelope = self._envelope(self.makers, now_s)
            order = Order(market, side, OrderKind.POST_ONLY, quote, lots)
            self._opened(maker, trade).append((envelope["nonce"] << OPERATION_BITS, quote))
            yield _signed(maker, PlaceOrder(**envelope, order=order), self.markets)
        for _ in range(2):
            maker, envelope = self._envelope(self.makers, now_s)
            resting = self._opened(maker, trade)
            if resting:
                order_id, _ = resting.pop(0)
                yield _signed(maker, CancelOrder(**envelope, cancel=Cancel(market, order_id)), self.markets)
        maker, envelope = self._envelope(self.makers, now_s)
        resting = self._opened(maker, trade)
        if resting:
            order_id, old = resting[-1]
            change = Replacement(market, order_id, old + self.random.randint(-9, 9) * tick, size)
            yield _signed(maker, ReplaceOrder(**envelope, replacement=change), self.markets)
        taker, envelope = self._envelope(self.takers, now_s)
        side = Side.BUY if trade.taker_buys else Side.SELL
        order = Order(market, side, OrderKind.IMMEDIATE_OR_CANCEL, price, size)
        yield _signed(taker, PlaceOrder(**envelope, order=order), self.markets)

    def _opened(self, maker: Trader, trade: TapeTrade) -> list[tuple[int, int]]:
        return self.open.setdefault((maker.name, trade.underlying), [])

    def _envelope(self, traders: list[Trader], now_s: int) -> tuple[Trader, dict[str, Any]]:
        trader = self.random.choice(traders)
        return trader, {
            "account": trader.account,
            "nonce": trader.next_nonce(),
            "deadline_s": now_s + DEADLINES_S[trader.account % len(DEADLINES_S)],
            "max_fee_uusd": MAX_FEES_UUSD[trader.account % len(MAX_FEES_UUSD)],
        }


def single_flow() -> tuple[Flow, Markets]:
    trades = read_trades(SINGLE_TRADES)
    markets = markets_of(trades)
    return list(SingleFlow(trades, markets)), markets


def bulk_flow() -> tuple[Flow, Markets]:
    """The flow of the main job: a CancelAll and a bulk quote per round, then its takers."""
    trades = read_trades(BULK_TRADES)
    markets = markets_of(trades)
    random_ = random.Random(SEED)
    makers = _traders("maker", len(markets.numbers), random_)
    takers = _traders("taker", TAKERS, random_)
    flow: Flow = []
    for each in rounds(trades):
        market = markets.numbers[each.underlying]
        maker, spec = makers[market - 1], markets.specs[each.underlying]
        actions = round_actions(market, spec, each, maker, takers, each.time_ms // 1_000)
        flow += [(each.time_ms, _signed(trader, action, markets)) for trader, action in actions]
    return sorted(flow, key=lambda item: item[0]), markets


def with_clock_nonces(flow: Flow) -> Flow:
    """The same flow with the sender's clock in milliseconds as nonces; signatures are not made anew."""
    clock: dict[int, int] = {}
    moved: dict[tuple[int, int], int] = {}
    changed: Flow = []
    for time_ms, payload in flow:
        action = payload.action
        nonce = max(time_ms - action.account % 90, clock.get(action.account, 0) + 1)
        clock[action.account] = nonce
        moved[action.account, action.nonce] = nonce
        fields: dict[str, Any] = {"nonce": nonce}
        for name in ("cancel", "replacement"):
            target = getattr(action, name, None)
            if target is not None:
                old = target.order_id >> OPERATION_BITS
                new_id = moved[action.account, old] << OPERATION_BITS
                fields[name] = msgspec.structs.replace(target, order_id=new_id)
        changed.append((time_ms, SignedAction(msgspec.structs.replace(action, **fields), payload.signature)))
    return changed


def orders_in(flow: Flow) -> int:
    """Operations: a bulk action counts each of its own."""
    return sum(
        len(p.action.cancels) + len(p.action.replacements) + len(p.action.orders)
        if isinstance(p.action, BulkOrders)
        else 1
        for _, p in flow
    )


def blocks_of(flow: Flow) -> list[BatchBlock]:
    """Blocks of 50 ms."""
    grouped: dict[int, list[SignedAction]] = {}
    for time_ms, payload in flow:
        grouped.setdefault(time_ms // BLOCK_MS, []).append(payload)
    return [
        BatchBlock((slot + 1) * BLOCK_MS, 20_000_000 + place // 240, 0, tuple(payloads))
        for place, (slot, payloads) in enumerate(sorted(grouped.items()))
    ]


def as_batch(flow: Flow, markets: Markets) -> bytes:
    """The batch; it must decode to the same blocks."""
    blocks = blocks_of(flow)
    head = BatchHead(100, 5_000, blocks[0].timestamp_ms - BLOCK_MS, 20_000_000, 300, markets.table(flow))
    batch = encode_batch(head, blocks)
    assert decode_batch(batch).blocks == tuple(blocks)
    return batch


# The same as type-2 transactions


def _word(value: int | bytes) -> bytes:
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0")


def _order_words(order: Order) -> bytes:
    numbers = (
        order.market,
        order.side,
        order.kind,
        order.price_uusd,
        order.size_ulots,
        order.reduce_only,
        order.expiry_s,
        order.self_trade,
    )
    return b"".join(_word(int(number)) for number in numbers)


def _cancel_words(cancel: Cancel) -> bytes:
    return _word(cancel.market) + _word(cancel.order_id)


def _replacement_words(change: Replacement) -> bytes:
    numbers = (change.market, change.order_id, change.price_uusd, change.size_ulots)
    return b"".join(map(_word, numbers))


def _own_words(action: Action) -> bytes:
    """The ABI encoding of what is the action's own; arrays with their offsets and lengths."""
    if isinstance(action, PlaceOrder):
        return _order_words(action.order)
    if isinstance(action, CancelOrder):
        return _cancel_words(action.cancel)
    if isinstance(action, ReplaceOrder):
        return _replacement_words(action.replacement)
    if isinstance(action, CancelAll):
        return _word(action.market)
    assert isinstance(action, BulkOrders)
    arrays = [
        _word(len(action.cancels)) + b"".join(map(_cancel_words, action.cancels)),
        _word(len(action.replacements)) + b"".join(map(_replacement_words, action.replacements)),
        _word(len(action.orders)) + b"".join(map(_order_words, action.orders)),
    ]
    start = 32 * 5
    offsets = [start, start + len(arrays[0]), start + len(arrays[0]) + len(arrays[1])]
    return b"".join(map(_word, offsets)) + b"".join(arrays)


def type_2_fields(payload: SignedAction) -> list[Any]:
    """A signed type-2 transaction: chain, nonce, tip, fee, gas, to, value, data, access list, v, r, s."""
    action = payload.action
    selector = keccak(type_string(type(action).__name__).encode())[:4]
    data = selector + _word(action.account) + _word(action.deadline_s) + _own_words(action)
    r, s = payload.signature[:32], payload.signature[32:]
    parity = s[0] >> 7
    return [
        DOMAIN.chain_id,
        action.nonce,
        action.priority_bid_uusd,
        action.max_fee_uusd,
        200_000,
        DOMAIN.contract,
        0,
        data,
        [],
        parity,
        int.from_bytes(r, "big"),
        int.from_bytes(s, "big") & (2**255 - 1),
    ]


def as_rlp(payload: SignedAction) -> bytes:
    return b"\x02" + bytes(rlp.encode(type_2_fields(payload)))


def in_blocks(flow: Flow, encode: Callable[[SignedAction], bytes]) -> bytes:
    """The flow as a stream of RLP blocks: what the batch says of a block, and its transactions."""
    blocks = []
    for block in blocks_of(flow):
        transactions = [encode(p) for p in block.transactions if isinstance(p, SignedAction)]
        blocks.append([block.timestamp_ms, block.l1_block, block.messages, transactions])
    return bytes(rlp.encode(blocks))


def _brotli(data: bytes) -> bytes:
    return bytes(brotli.compress(data, quality=11, lgwin=24))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zlib-9": lambda data: zlib.compress(data, 9),
    "zstd-19": zstandard.ZstdCompressor(level=19).compress,
    "brotli-11": _brotli,
}


FORMS: dict[str, Callable[[SignedAction], bytes]] = {"RLP type-2": as_rlp, "msgpack": encode_msgpack}


def _figures(name: str, flow: Flow, markets: Markets) -> list[Figure]:
    orders, signatures = orders_in(flow), 64 * len(flow)
    ours = len(as_batch(flow, markets))
    others = {
        f"{form} {compressor}": len(compress(in_blocks(flow, encode)))
        for form, encode in FORMS.items()
        for compressor, compress in COMPRESSORS.items()
    }
    best = min(others, key=lambda other: others[other])
    note = f"{orders:,} orders under {len(flow):,} signatures"
    least = f"best: {best}; the signatures alone are {signatures / others[best]:.3f} of it"
    return [
        Figure(f"{name}: batch", ours / orders, "bytes/order", MAX_BYTES_PER_ORDER, note=note),
        *(Figure(f"{name}: {other}", size / orders, "bytes/order") for other, size in others.items()),
        Figure(f"{name}: batch / best of them", ours / others[best], "ratio", MAX_RATIO, note=least),
        Figure(
            f"{name}: the same less signatures", (ours - signatures) / (others[best] - signatures), "ratio"
        ),
        _one_by_one(name, flow, markets),
    ]


def _one_by_one(name: str, flow: Flow, markets: Markets) -> Figure:
    """Our transactions over the best of the others when each is to be readable by itself."""
    table, sample = markets.table(flow), flow[:SAMPLE]
    ours = sum(len(encode_transaction(payload, time_ms, table)) for time_ms, payload in sample)
    others = {
        f"{form} {compressor}": sum(len(compress(encode(payload))) for _, payload in sample)
        for form, encode in FORMS.items()
        for compressor, compress in COMPRESSORS.items()
    }
    others |= {form: sum(len(encode(payload)) for _, payload in sample) for form, encode in FORMS.items()}
    best = min(others, key=lambda other: others[other])
    return Figure(f"{name}: each by itself", ours / others[best], "ratio", note=f"best: {best}")


def _speeds(flow: Flow, markets: Markets) -> list[Figure]:
    table = markets.table(flow)
    time_ms, payload = next(item for item in flow if isinstance(item[1].action, PlaceOrder))
    encoded = encode_transaction(payload, time_ms, table)
    keccak_s = keccak_seconds()
    encoding = seconds_per_call(lambda: encode_transaction(payload, time_ms, table)) / keccak_s
    decoding = seconds_per_call(lambda: decode_transaction(encoded, 0, time_ms, table)) / keccak_s
    return [Figure("encode one order", encoding, "keccaks"), Figure("decode one order", decoding, "keccaks")]


def bench_codec() -> list[Figure]:
    """Sizes of both flows against the limits, and what encoding and decoding cost."""
    single, markets = single_flow()
    bulk, bulk_markets = bulk_flow()
    clock = with_clock_nonces(single)
    figures = _figures("single", single, markets) + _figures("bulk", bulk, bulk_markets)
    clock_bytes = len(as_batch(clock, markets)) / orders_in(clock)
    figures.append(Figure("single, clock nonces: batch", clock_bytes, "bytes/order", MAX_BYTES_PER_ORDER))
    return figures + _speeds(single, markets)


def main() -> None:
    """Prints the figures."""
    table = Table("figure", "value", "limit", "", "note")
    for figure in bench_codec():
        limit = "" if figure.limit is None else f"{figure.relation} {figure.limit}"
        verdict = {None: "", True: "holds", False: "MISSED"}[figure.holds]
        table.add_row(figure.name, f"{figure.value:.3f} {figure.unit}", limit, verdict, figure.note)
    Console().print(table)


if __name__ == "__main__":
    main()
