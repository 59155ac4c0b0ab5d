"""An exchange in memory with dated instruments: series, reports of everything an expiry needs, time passing.

For tests and benchmarks, beside `tools.exchange`: functions over an `Exchange`.
"""

from __future__ import annotations

from struct import pack

from state.actions import OracleReport, OracleUpdate, Price, Rate, SurfaceReport, Transaction
from state.block import L1Message, MessageKind, MessageResult
from state.calendar import Rule, expiry_name
from state.hashing import keccak
from state.keys import DUE, expiries_prefix, expiry_key, expiry_markets_prefix, instrument_key
from state.leaves import Expiry, Instrument, Terms
from state.series import CALLS, FUTURES, PUTS
from state.units import MAX_EXPIRIES, MAX_EXPIRY_INSTRUMENTS, MS_PER_S, PPM
from tools.exchange import COIN, PUBLISHERS, USD, VAULT, Exchange

NO_TERMS = bytes(52)
FUTURE_TERMS = Terms(10_000, 100, 100, 1_000 * COIN, 200_000, 100, 300, 10_000 * USD)
OPTION_TERMS = Terms(10_000, 100, 100, 1_000 * COIN, 200_000, 300, 300, 10_000 * USD)
_NO_SIGNATURE = bytes(64)
_YEAR_S = 365 * 86_400


def padded(name: str) -> bytes:
    return name.encode().ljust(31, b"\0")


def series_message(
    underlying: str,
    rule: int = Rule.DAILY,
    ahead: int = 1,
    kinds: int = FUTURES | CALLS | PUTS,
    step_uusd: int = 100 * USD,
    strikes: int = 2,
    *,
    future: Terms | None = FUTURE_TERMS,
    option: Terms | None = OPTION_TERMS,
) -> L1Message:
    """LIST_SERIES."""
    templates = [terms.encode() if terms else NO_TERMS for terms in (future, option)]
    payload = pack(
        ">31s B B B Q I 52s 52s", padded(underlying), rule, ahead, kinds, step_uusd, strikes, *templates
    )
    return L1Message(MessageKind.LIST_SERIES, VAULT, 0, payload)


def strikes_message(
    underlying: str,
    expiry_s: int,
    lowest_uusd: int,
    step_uusd: int,
    count: int,
    kinds: int = CALLS | PUTS,
    option: Terms = OPTION_TERMS,
) -> L1Message:
    """LIST_STRIKES."""
    payload = pack(
        ">31s Q B Q Q I 52s",
        padded(underlying),
        expiry_s,
        kinds,
        lowest_uusd,
        step_uusd,
        count,
        option.encode(),
    )
    return L1Message(MessageKind.LIST_STRIKES, VAULT, 0, payload)


def send_message(exchange: Exchange, message: L1Message) -> MessageResult:
    """What became of it, in a block of its own."""
    return exchange.messages(message).messages[0]


def expiries(exchange: Exchange, underlying: str) -> dict[int, Expiry]:
    """An underlying's expiries by number, in the order of their times."""
    found = exchange.view.iterate_under(expiries_prefix(underlying.encode()), MAX_EXPIRIES)
    return {leaf.expiry: exchange.view.get(expiry_key(leaf.expiry)) for _, leaf in found}


def markets_of(exchange: Exchange, expiry: int) -> dict[str, int]:
    """Numbers of an expiry's instruments by name, in the order of listing."""
    found = exchange.view.iterate_under(expiry_markets_prefix(expiry, 0), MAX_EXPIRY_INSTRUMENTS)
    found += exchange.view.iterate_under(expiry_markets_prefix(expiry, 1), MAX_EXPIRY_INSTRUMENTS)
    markets = sorted(int.from_bytes(key[6:10], "big") for key, _ in found)
    terms: list[Instrument] = [exchange.view.get(instrument_key(market)) for market in markets]
    return {leaf.name.rstrip(b"\0").decode(): market for leaf, market in zip(terms, markets, strict=True)}


def is_due(exchange: Exchange) -> bool:
    """Whether the next block has something to do because of its time."""
    found = exchange.view.first_under(bytes([DUE]))
    return found is not None and int.from_bytes(found[0][1:9], "big") * MS_PER_S <= exchange.now_ms


def make_due(exchange: Exchange) -> int:
    """Empty blocks until nothing is due; how many."""
    blocks = 0
    while is_due(exchange):
        exchange.messages()
        blocks += 1
    return blocks


def full_update(
    exchange: Exchange,
    indexes: dict[str, int],
    forwards: dict[str, int] | None = None,
    vol_ppm: int = 600_000,
) -> Transaction:
    """All publishers report each index and, for its expiries, a forward (the index unless `forwards` names
    the expiry), a rate of 0 and a flat surface of this volatility. Marks of perpetuals: the index."""
    prices, rates, surfaces = [], [], []
    for underlying, index_uusd in indexes.items():
        prices += [Price(underlying, index_uusd, PPM), Price(f"{underlying}-PERPETUAL", index_uusd, PPM)]
        for expiry in expiries(exchange, underlying).values():
            name = expiry_name(underlying, expiry.expiry_s)
            forward_uusd = (forwards or {}).get(name, index_uusd)
            tau_s = max(expiry.expiry_s - exchange.now_ms // MS_PER_S, 60)
            variance_pico = vol_ppm * vol_ppm * tau_s // _YEAR_S
            prices.append(Price(name, forward_uusd, PPM))
            rates.append(Rate(name, 0, PPM))
            surfaces.append(SurfaceReport(name, variance_pico, 0, 0, 0, 10**11, forward_uusd, tau_s, PPM))
    report = OracleReport(exchange.now_ms, tuple(prices), _NO_SIGNATURE, tuple(rates), tuple(surfaces))
    exchange._count += 1
    digest = keccak(b"update" + exchange._count.to_bytes(8, "big"))
    return Transaction(OracleUpdate((report,) * len(PUBLISHERS)), PUBLISHERS, digest)
