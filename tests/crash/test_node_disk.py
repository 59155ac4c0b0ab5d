"""A node whose disk fills up or turns read-only under it: it stops by itself, says why, and loses nothing.

The disks are real ones, where tests may mount: a small tmpfs, and an ext4 image whose file system is told to
abort, which is what Linux does when a disk fails.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from tests.crash.crowd import Crowd
from tests.crash.node_process import Home, Place, devnet_here

SEED = 5
TRADERS = 4
TRADE_S = 1.0
UNTIL_FULL_S = 90


IMAGE_BYTES = 64 * 2**20


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr.strip()}"


def skip_unless(*command: str | Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        pytest.skip(f"cannot mount here: {error}")
    if done.returncode:
        pytest.skip(f"cannot mount here: {' '.join(map(str, command))}: {done.stderr.strip()}")


@pytest.fixture
def may_mount(tmp_path: Path) -> None:
    """Skips where tests may not mount."""
    skip_unless("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path)
    run("umount", tmp_path)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A disk with an ext4 file system; skips where tests may not mount it."""
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(IMAGE_BYTES)
    skip_unless("mkfs.ext4", "-q", path)
    mount_point = tmp_path / "tried"
    mount_point.mkdir()
    skip_unless("mount", "-o", "loop", path, mount_point)
    run("umount", mount_point)
    return path


def repair(image: Path) -> None:
    """As at a boot after an error; its status only says that there was something to repair."""
    subprocess.run(["fsck.ext4", "-p", image], capture_output=True)


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[None]:
    path.mkdir(parents=True, exist_ok=True)
    run("mount", *options, path)
    try:
        yield
    finally:
        run("umount", path)


async def trade_until_it_stops(home: Home, crowd: Crowd, process: trio.Process) -> str:
    """Orders flow until the node ends by itself; its last line."""
    with trio.fail_after(UNTIL_FULL_S):
        await crowd.trade()
        return await home.failure(process)


async def serves_again(home: Home, crowd: Crowd) -> None:
    """A new process has everything that was promised, and takes orders."""
    process = await home.start()
    await crowd.check_all()
    await crowd.send_some_again(5)
    await crowd.send_again()
    before = len(crowd.receipts)
    with trio.move_on_after(TRADE_S):
        await crowd.trade()
    assert len(crowd.receipts) > before
    await home.stop(process)


@pytest.mark.slow
@pytest.mark.usefixtures("may_mount")
async def test_a_full_disk_stops_the_node_and_room_starts_it_again(tmp_path: Path) -> None:
    print("seed", SEED)
    async with devnet_here(TRADERS) as place:
        home = Home(place.devnet, tmp_path / "node")
        with mounted(home.data, "-t", "tmpfs", "-o", "size=1m", "tmpfs"), home:
            process = await home.start()
            await home.open_accounts(place.traders)
            crowd = Crowd(place.devnet, home.url, place.traders, Random(SEED), bulk=24)
            line = await trade_until_it_stops(home, crowd, process)
            assert str(home.data) in line
            assert "no space" in line
            assert "No space left on device" in line
            assert len(crowd.receipts) > 20
            assert "no space" in await home.refused()
            run("mount", "-o", "remount,size=64m", home.data)
            await serves_again(home, crowd)
        numbers = [event.number for event in await place.posted()]
        assert numbers == list(range(1, len(numbers) + 1))


async def stops_when(place: Place, home: Home, crowd: Crowd, reasons: tuple[str, ...], *mount: str) -> None:
    """This mount command takes the disk away from a node under load; it stops, and does not start again."""
    process = await home.start()
    await home.open_accounts(place.traders)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(crowd.trade)
        await trio.sleep(TRADE_S)
        await crowd.heard(20)
        run("mount", *mount, home.data)
        line = await home.failure(process)
    assert str(home.data) in line
    assert any(reason in line for reason in reasons), line
    assert len(crowd.receipts) > 20
    assert "Read-only file system" in await home.refused()


@pytest.mark.slow
async def test_a_disk_that_fails_stops_the_node(tmp_path: Path, image: Path) -> None:
    """The kernel answers the sync that fails with one error, and everything later with the other."""
    print("seed", SEED)
    async with devnet_here(TRADERS) as place:
        home = Home(place.devnet, tmp_path / "node")
        crowd = Crowd(place.devnet, home.url, place.traders, Random(SEED))
        with mounted(home.data, "-o", "loop,errors=remount-ro", str(image)), home:
            reasons = ("Input/output error", "Read-only file system")
            await stops_when(place, home, crowd, reasons, "-o", "remount,abort")
        repair(image)
        with mounted(home.data, "-o", "loop", str(image)), home:
            await serves_again(home, crowd)


@pytest.mark.slow
@pytest.mark.usefixtures("may_mount")
async def test_a_directory_that_turns_read_only_stops_the_node(tmp_path: Path) -> None:
    """Files that are open may still be written, new ones may not be made: the next batch ends it."""
    print("seed", SEED)
    async with devnet_here(TRADERS) as place:
        home = Home(place.devnet, tmp_path / "node")
        crowd = Crowd(place.devnet, home.url, place.traders, Random(SEED))
        with mounted(home.data, "-t", "tmpfs", "-o", "size=64m", "tmpfs"), home:
            reasons = ("Read-only file system",)
            await stops_when(place, home, crowd, reasons, "-o", "bind,ro", str(home.data))
            run("umount", home.data)
            await serves_again(home, crowd)
