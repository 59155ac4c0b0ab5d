"""Makes the oracle source that a configuration describes."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sequencer.config_file import ConfigError
from sequencer.option_chain import ChainError, read_chain
from sequencer.oracle_config import RecordedSection, SourceConfig, moment_ms
from sequencer.oracle_http import HttpSource
from sequencer.oracle_recorded import RecordedSource
from sequencer.oracle_sources import Source
from sequencer.oracle_static import StaticSource, Wander
from sequencer.svi_fit import fit_chain


def open_source(config: SourceConfig, now_ms: int) -> Source:
    """Reads and fits recorded chains, about a second for each: call it before the event loop or in a thread.

    Raises ConfigError for a source that has nothing to read and for files that cannot be read or fitted.
    """
    wander = Wander(config.source.seed, config.source.volatility)
    match config.source.kind:
        case "static":
            if not config.static.underlyings:
                raise ConfigError("static.underlyings: the source static needs at least one")
            return StaticSource(config.static, wander)
        case "recorded":
            return _open_recorded(config.recorded, wander, now_ms)
        case "http":
            if not config.http.feeds:
                raise ConfigError("http.feeds: the source http needs at least one")
            return HttpSource(config.http)


def _open_recorded(section: RecordedSection, wander: Wander, now_ms: int) -> RecordedSource:
    if not section.files:
        raise ConfigError("recorded.files: the source recorded needs at least one")
    start_ms = moment_ms(datetime.fromisoformat(section.start)) if section.start else now_ms
    try:
        chains = [read_chain(Path(file)) for file in section.files]
        fitted = [(chain, fit_chain(chain)) for chain in chains]
        return RecordedSource(fitted, section.dates, start_ms, section.stable, wander)
    except (ChainError, OSError, ValueError) as error:
        raise ConfigError(f"recorded.files: {error}") from None
