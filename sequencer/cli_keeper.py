"""The keeper behind `straddle keeper`, put together from configuration."""

from __future__ import annotations

import trio

from sequencer import logs
from sequencer.client import NodeClient
from sequencer.clock import wall_clock_ms
from sequencer.config_file import ConfigError
from sequencer.keeper import Keeper, KeeperConfig, KeeperProcessSection
from sequencer.signals import cancel_on_signal
from sequencer.signing import load_key
from state.eip712 import Domain

NODE_TIMEOUT_S = 10
"""Of one request."""


async def run_keeper(config: KeeperConfig) -> None:
    """Keeps until SIGTERM or SIGINT. Raises ConfigError."""
    section = config.keeper
    logs.configure(section.log_level, section.log_format)
    expected = expected_domain(section)
    key = await trio.to_thread.run_sync(load_key, config.keeper_key, "keeper_key")
    try:
        client = NodeClient(section.node_url, timeout_s=NODE_TIMEOUT_S)
    except ValueError as error:
        raise ConfigError(f"keeper.node_url: {error}") from None
    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(cancel_on_signal, nursery.cancel_scope)
        await Keeper(client, key, section.account, section.interval_ms, wall_clock_ms, expected).run()


def expected_domain(section: KeeperProcessSection) -> Domain | None:
    """The rollup that the configuration names; None when it names none. Raises ConfigError."""
    if not section.rollup and not section.chain_id:
        return None
    try:
        return Domain(section.chain_id, bytes.fromhex(section.rollup.removeprefix("0x")))
    except ValueError:
        raise ConfigError("keeper.rollup: with keeper.chain_id, the address of the Rollup contract") from None
