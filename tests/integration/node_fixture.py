"""A real node on a temporary directory, without an L1: messages are put into its inbox by hand.

Traders, publishers and the clock are the test's; everything else is production: the store, the signature
workers, the HTTP port. Tests that use it run in real time (a node waits for disks and processes).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from struct import Struct
from typing import Any

import trio

from sequencer import logs
from sequencer.client import NodeClient
from sequencer.clock import wall_clock_ms
from sequencer.config import (
    AdminSection,
    BatchesSection,
    BlocksSection,
    MempoolSection,
    NodeConfig,
    NodeSection,
    ServerSection,
)
from sequencer.node import Node
from sequencer.signing import SecretKey
from state import wire
from state.actions import (
    Action,
    OracleReport,
    OracleUpdate,
    Order,
    OrderKind,
    PlaceOrder,
    Price,
    Side,
    SignedAction,
)
from state.block import L1Message, MessageKind
from state.eip712 import Domain, action_digest, report_digest
from state.hashing import keccak
from state.leaves import Instrument, Publishers
from state.signatures import address_of, sign
from tools.exchange import l1_origin

DOMAIN = Domain(424_242, bytes.fromhex("5a" * 20))
SEQUENCER = SecretKey(b"\x77" * 32)
INSTRUMENT = "BTC-PERPETUAL"
MARKET = 1
USD = 1_000_000
COIN = 1_000_000
PPM = 1_000_000
PRICE = 60_000 * USD
LOT = 1_000
MAX_FEE_UUSD = 100 * USD
PUBLISHER_SECRETS = (b"\x21" * 32, b"\x22" * 32, b"\x23" * 32)

logs.configure("error", "json")

_deposit = Struct(">20sQQ").pack


@dataclass(slots=True)
class Trader:
    """A key, its account, and the next nonce."""

    secret: bytes
    account: int
    nonce: int = 0
    address: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.address = address_of(self.secret)

    def envelope(self, ahead_s: int = 60) -> dict[str, Any]:
        self.nonce += 1
        return {
            "account": self.account,
            "nonce": self.nonce,
            "deadline_s": wall_clock_ms() // 1000 + ahead_s,
            "max_fee_uusd": MAX_FEE_UUSD,
        }

    def order(
        self, side: Side, price: int, size: int, kind: OrderKind = OrderKind.LIMIT, **fields: Any
    ) -> dict[str, Any]:
        """A signed PlaceOrder as JSON."""
        return self.signed(
            PlaceOrder(**self.envelope(), order=Order(MARKET, side, kind, price, size, **fields))
        )

    def signed(self, action: Action, domain: Domain = DOMAIN) -> dict[str, Any]:
        return signed_json(action, self.secret, domain)


def name_of(market: int) -> str:
    if market != MARKET:
        raise KeyError(market)
    return INSTRUMENT


def name_hash_of(market: int) -> bytes:
    return keccak(name_of(market).encode())


def signed_json(action: Action, secret: bytes, domain: Domain = DOMAIN) -> dict[str, Any]:
    signature = sign(action_digest(domain, action, name_hash_of), secret)
    return wire.to_json(SignedAction(action, signature), name_of)


def oracle_update(price_uusd: int, now_ms: int, secrets: tuple[bytes, ...] = PUBLISHER_SECRETS[:2]) -> Any:
    """Parameters of straddle_sendOracleUpdate: index and mark at one price."""
    prices = (Price("BTC", price_uusd, PPM), Price(INSTRUMENT, price_uusd, PPM))
    reports = []
    for secret in secrets:
        report = OracleReport(now_ms, prices, bytes(64))
        reports.append(replace_signature(report, sign(report_digest(DOMAIN, report), secret)))
    return wire.to_json(OracleUpdate(tuple(reports)), name_of)


def replace_signature(report: OracleReport, signature: bytes) -> OracleReport:
    return OracleReport(report.timestamp_ms, report.prices, signature)


def instrument_leaf() -> Instrument:
    return Instrument(
        name=INSTRUMENT.encode().ljust(31, b"\0"),
        kind=0,
        underlying=b"BTC".ljust(31, b"\0"),
        status=1,
        tick_uusd=100_000,
        lot_ulots=LOT,
        min_size_ulots=LOT,
        max_size_ulots=1_000 * COIN,
        band_ppm=100_000,
        maker_fee_ppm=0,
        taker_fee_ppm=500,
        impact_notional_uusd=10_000 * USD,
    )


def opening_messages(owners: list[bytes], amount_uusd: int = 1_000_000 * USD) -> list[L1Message]:
    """Lists the instrument, sets the publishers, and deposits into a new account of each owner."""
    publishers = Publishers(2, tuple(sorted(address_of(secret) for secret in PUBLISHER_SECRETS)))
    governor, vault = b"\x01" * 20, b"\x02" * 20
    messages = [
        L1Message(MessageKind.LIST_INSTRUMENT, governor, 1, instrument_leaf().encode()),
        L1Message(MessageKind.SET_PUBLISHERS, governor, 1, publishers.encode()),
    ]
    return messages + [
        L1Message(MessageKind.DEPOSIT, vault, 1, _deposit(owner, 0, amount_uusd)) for owner in owners
    ]


def config_for(path: Path, **sections: Any) -> NodeConfig:
    """Free ports, quick blocks; `sections` replace whole sections."""
    config = NodeConfig(
        node=NodeSection(data_dir=str(path)),
        server=ServerSection(port=0),
        admin=AdminSection(port=0),
        blocks=BlocksSection(block_interval_ms=10),
        batches=BatchesSection(max_age_ms=60_000),
        mempool=MempoolSection(),
    )
    return replace(config, **sections)


@dataclass
class Running:
    """A node and a client of it."""

    node: Node
    client: NodeClient
    admin: NodeClient
    nursery: trio.Nursery
    token: str

    async def call(self, method: str, **params: Any) -> Any:
        return await self.client.call(method, params)

    async def send(self, transaction: Any) -> Any:
        """The receipt of a signed transaction."""
        return await self.call("straddle_sendTransactionSync", transaction=transaction)

    async def open_market(self, traders: list[Trader], price_uusd: int = PRICE) -> None:
        """Instrument, deposits and first prices, as L1 and publishers would bring them."""
        messages = opening_messages([trader.address for trader in traders])
        await self.node.inbox.put(messages, l1_origin(1))
        machine = self.node.opened.machine
        await self.until(lambda: machine.system.inbox_next == len(messages))
        for trader in traders:
            found = await self.call("straddle_getAccounts", owner="0x" + trader.address.hex())
            trader.account = found[0]
        await self.send_prices(price_uusd)

    async def send_prices(self, price_uusd: int) -> Any:
        return await self.client.call(
            "straddle_sendOracleUpdate", oracle_update(price_uusd, wall_clock_ms() - 5)
        )

    async def post_now(self) -> None:
        """Closes the open batch and waits until it is committed."""
        checkpoint = self.node.opened.store.last_checkpoint
        assert checkpoint is not None
        before = checkpoint.batch_number
        await self.admin.call("admin_postNow", {"token": self.token})
        await self.until(lambda: self.node.opened.store.last_checkpoint.batch_number > before)  # type: ignore[union-attr]

    async def until(self, condition: Any) -> None:
        with trio.fail_after(20):
            while not condition():  # noqa: ASYNC110 - it watches a node from outside
                await trio.sleep(0.002)


@asynccontextmanager
async def running_node(
    path: Path,
    keeper_key: SecretKey | None = None,
    now_ms: Callable[[], int] = wall_clock_ms,
    **sections: Any,
) -> AsyncIterator[Running]:
    """Starts a node; at the end drains it and lets it close."""
    node = Node(config_for(path, **sections), DOMAIN, SEQUENCER, keeper_key=keeper_key, now_ms=now_ms)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        token = (path / "admin.token").read_text().strip()
        async with (
            NodeClient(f"http://127.0.0.1:{node.port}") as client,
            NodeClient(f"http://127.0.0.1:{node.admin_port}") as admin,
        ):
            yield Running(node, client, admin, nursery, token)
        node.drain()
