"""A node for benchmarks, as a process of its own: a real one, but its L1 is a list of messages made here.

`python -m tools.bench_node PORT DATA_DIR ACCOUNTS` lists one perpetual, names a publisher and opens that many
funded accounts, numbered from 1, of the traders named `bench 1`, `bench 2`, ... Nothing is posted.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from struct import pack

import trio

from sequencer import logs
from sequencer.config import (
    AdminSection,
    BatchesSection,
    NodeConfig,
    NodeSection,
    ServerSection,
)
from sequencer.l1_link import L1Link
from sequencer.node import Node, serve_node
from sequencer.signing import SecretKey
from state.block import L1Message, MessageKind
from state.eip712 import Domain
from state.leaves import Publishers
from state.signatures import address_of
from tools.devnet import perpetual
from tools.exchange import l1_origin
from tools.market import MarketSpec, Trader

DOMAIN = Domain(424_242, bytes.fromhex("5a" * 20))
SPEC = MarketSpec("BTC", 100_000, 1_000)
PUBLISHER = Trader("bench publisher")
DEPOSIT_UUSD = 10**15
VAULT = bytes(20)


@dataclass(slots=True)
class MessageList:
    """An L1 side (`l1_link.Bridge`) that delivers these messages and then nothing more."""

    messages: list[L1Message]

    async def run(self, link: L1Link, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await link.inbox.put(self.messages[link.inbox_next :], l1_origin(1))
        link.seen()
        await trio.sleep_forever()


def traders(accounts: int) -> list[Trader]:
    """The funded traders, with the accounts they get."""
    return [Trader(f"bench {number}", account=number) for number in range(1, accounts + 1)]


def messages(accounts: int) -> list[L1Message]:
    publishers = Publishers(1, (address_of(PUBLISHER.secret),)).encode()
    listing = [
        L1Message(MessageKind.SET_PUBLISHERS, VAULT, 1, publishers),
        L1Message(MessageKind.LIST_INSTRUMENT, VAULT, 1, perpetual(SPEC).encode()),
    ]
    deposits = [
        L1Message(MessageKind.DEPOSIT, VAULT, 1, pack(">20sQQ", address_of(trader.secret), 0, DEPOSIT_UUSD))
        for trader in traders(accounts)
    ]
    return listing + deposits


def main(port: int, data_dir: str, accounts: int) -> None:
    logs.configure("warning", "console")
    config = NodeConfig(
        node=NodeSection(data_dir=data_dir),
        server=ServerSection(port=port),
        admin=AdminSection(port=0),
        batches=BatchesSection(max_age_ms=2_000, max_delay_ms=2_000),
    )
    key = SecretKey(Trader("bench sequencer").secret)
    trio.run(serve_node, Node(config, DOMAIN, key, MessageList(messages(accounts))))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
