"""Wrong things at the start of a node: one clear line, exit status 1, and nothing changed."""

from __future__ import annotations

import shutil
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio

from l1_bridge.deploy import DeployConfig, deploy
from tests.crash.node_process import Home, Place, devnet_here
from tools.devnet import Devnet, open_devnet

NO_POSTING: dict[str, dict[str, Any]] = {"poster": {"enabled": False}}


def home_on(devnet: Devnet, directory: Path, rollup: str = "", **overrides: dict[str, Any]) -> Home:
    """A node that posts nothing; `rollup` names another contract than the devnet's."""
    if rollup:
        overrides["l1"] = {"rollup": rollup}
    return Home(devnet, directory, NO_POSTING | overrides)


async def used_directory(place: Place, directory: Path) -> Home:
    """A home whose node has run: deposits are in its state."""
    home = home_on(place.devnet, directory)
    with home:
        process = await home.start()
        await home.open_accounts(place.traders)
        await home.stop(process)
    return home


async def says(home: Home, *words: str) -> None:
    with home:
        line = await home.refused()
    for word in words:
        assert word in line, line


def moved_in(home: Home, used: Home) -> Home:
    """`home` with the data directory of another."""
    shutil.copytree(used.data, home.data)
    return home


@pytest.mark.slow
async def test_a_node_refuses_another_l1(tmp_path: Path) -> None:
    async with devnet_here(1) as place:
        devnet = place.devnet
        used = await used_directory(place, tmp_path / "used")
        other_genesis = DeployConfig(
            rollup_chain_id=devnet.deployment.rollup_chain_id,
            genesis_root=b"\x01" * 32,
            governor=devnet.governor.signer.address,
            poster=devnet.governor.signer.address,
            guardian=devnet.governor.signer.address,
            challenge_window_s=10,
        )
        elsewhere = (await deploy(devnet.governor, other_genesis)).rollup
        nothing, token = "0x" + "5a" * 20, "0x" + devnet.deployment.token_address.hex()
        async with open_devnet(place.l1.url, []) as second, trio.open_nursery() as nursery:
            for home, words in (
                (moved_in(home_on(second, tmp_path / "other"), used), ("belongs to",)),
                (home_on(devnet, tmp_path / "chain", node={"chain_id": 1}), ("node.chain_id", "424242")),
                (home_on(devnet, tmp_path / "nothing", nothing), ("no Rollup contract", nothing)),
                (home_on(devnet, tmp_path / "token", token), ("no Rollup contract", token)),
                (home_on(devnet, tmp_path / "genesis", elsewhere), ("another genesis state",)),
            ):
                nursery.start_soon(says, home, *words)
    async with devnet_here(0) as restarted:
        assert restarted.devnet.deployment.rollup == devnet.deployment.rollup, "the same contract, made again"
        home = moved_in(home_on(restarted.devnet, tmp_path / "restarted"), used)
        await says(home, "messages on L1 are not those consumed")


@pytest.mark.slow
async def test_a_node_refuses_a_place_that_is_taken(tmp_path: Path) -> None:
    async with devnet_here(0) as place:
        with home_on(place.devnet, tmp_path / "first") as first, socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            process = await first.start()
            same = home_on(place.devnet, tmp_path / "second", node={"data_dir": str(first.data)})
            public = replace(home_on(place.devnet, tmp_path / "third"), port=port)
            admin = replace(home_on(place.devnet, tmp_path / "fourth"), admin_port=port)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(says, same, f"another node or tool (process {process.pid})")
                nursery.start_soon(says, public, f"server.port {port}", "in use")
                nursery.start_soon(says, admin, f"admin.port {port}", "in use")
            await first.stop(process)
            with public:
                taken.close()
                await public.stop(await public.start())
