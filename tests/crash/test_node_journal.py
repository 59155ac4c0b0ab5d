"""A node whose journal ends badly: a torn tail that was never acknowledged is cut, damage is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random

import pytest
import trio

from state.journal_format import RECORD_HEAD_BYTES
from tests.crash.crowd import Crowd
from tests.crash.node_process import Home, devnet_here, kill

SEED = 11
TRADERS = 3
TRADE_S = 1.0
LONG_BATCH = {"batches": {"max_age_ms": 600_000, "max_delay_ms": 600_000, "max_bytes": 100_000}}


def last_segment(data: Path) -> Path:
    return max(data.joinpath("journal").glob("*.journal"))


def variant(home: Home, name: str, journal: bytes) -> Home:
    """The same data directory with another journal tail, on ports of its own."""
    other = Home(home.devnet, home.directory.with_name(name), home.overrides)
    shutil.copytree(home.data, other.data)
    last_segment(other.data).write_bytes(journal)
    return other


async def is_refused(damaged: Home, journal: bytes) -> None:
    """The message names the file and the place, and nothing is changed."""
    with damaged:
        line = await damaged.refused()
    assert str(last_segment(damaged.data)) in line
    assert "at offset " in line
    assert last_segment(damaged.data).read_bytes() == journal


@pytest.mark.slow
async def test_a_torn_tail_is_cut_and_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    print("seed", SEED)
    random = Random(SEED)
    async with devnet_here(TRADERS) as place:
        with Home(place.devnet, tmp_path / "node", {**LONG_BATCH, "poster": {"enabled": False}}) as home:
            process = await home.start()
            await home.open_accounts(place.traders)
            crowd = Crowd(place.devnet, home.url, place.traders, random)
            with trio.move_on_after(TRADE_S):
                await crowd.trade()
            await crowd.send_again()
            promised = last_segment(home.data).read_bytes()
            extra = Crowd(place.devnet, home.url, place.traders, random)
            while last_segment(home.data).stat().st_size <= len(promised) + RECORD_HEAD_BYTES:
                with trio.move_on_after(0.1):
                    await extra.trade()
            await kill(process)
        journal = last_segment(home.data).read_bytes()
        assert journal.startswith(promised), "one segment: no batch was closed"

        for number in range(2):
            cut = random.randrange(len(promised), len(journal))
            with variant(home, f"cut-{number}", journal[:cut]) as torn:
                crowd.url = torn.url
                process = await torn.start()
                await crowd.check_all()
                await torn.stop(process)
        async with trio.open_nursery() as nursery:
            for number in range(3):
                at = random.randrange(len(promised), len(journal))
                flipped = bytearray(journal)
                flipped[at] ^= 1 << random.randrange(8)
                damaged = variant(home, f"flipped-{number}", bytes(flipped))
                nursery.start_soon(is_refused, damaged, bytes(flipped))
