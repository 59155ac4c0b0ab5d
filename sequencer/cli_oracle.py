"""The oracle publisher behind `straddle oracle`, put together from configuration."""

from __future__ import annotations

import trio

from sequencer import logs
from sequencer.client import NodeClient
from sequencer.clock import wall_clock_ms
from sequencer.config_file import ConfigError
from sequencer.oracle_open import open_source
from sequencer.oracle_publisher import OracleConfig, OraclePublisher
from sequencer.signals import cancel_on_signal
from sequencer.signing import load_key

NODE_TIMEOUT_S = 10
"""Of one request."""


async def run_oracle(config: OracleConfig) -> None:
    """Publishes what a source says until SIGTERM or SIGINT. Raises ConfigError."""
    section = config.publisher
    logs.configure(section.log_level, section.log_format)
    key = await trio.to_thread.run_sync(load_key, config.publisher_key, "publisher_key")
    source = await trio.to_thread.run_sync(open_source, config, wall_clock_ms())
    try:
        client = NodeClient(section.node_url, timeout_s=NODE_TIMEOUT_S)
    except ValueError as error:
        raise ConfigError(f"publisher.node_url: {error}") from None
    async with client, trio.open_nursery() as nursery:
        nursery.start_soon(cancel_on_signal, nursery.cancel_scope)
        await OraclePublisher(source, key, client, section, wall_clock_ms).run()
