"""Starting anvil, Foundry's development chain, from contracts/node_modules."""

from __future__ import annotations

import socket
import subprocess
import time
from contextlib import AbstractContextManager
from pathlib import Path
from shutil import which
from urllib.error import URLError
from urllib.request import urlopen

START_TIMEOUT_S = 30.0


class AnvilMissing(Exception):
    """There is no anvil to run."""


def find_anvil() -> Path:
    """Of contracts/node_modules in a checkout, otherwise on the PATH. Raises AnvilMissing."""
    local = Path(__file__).resolve().parent.parent / "contracts" / "node_modules" / ".bin" / "anvil"
    if local.exists():
        return local
    if found := which("anvil"):
        return Path(found)
    raise AnvilMissing("anvil is not installed: run `npm ci` in contracts/ (needs Node 20)")


class Anvil(AbstractContextManager["Anvil"]):
    """A running anvil at `url`. A context manager; `close` ends the process."""

    def __init__(self, port: int = 0, block_time_s: int = 0, options: tuple[str, ...] = ()):
        """`block_time_s` 0 mines every transaction at once. Raises AnvilMissing, or OSError if it dies."""
        port = port or _free_port()
        command = [str(find_anvil()), "--host", "127.0.0.1", "--port", str(port), "--silent", *options]
        if block_time_s:
            command += ["--block-time", str(block_time_s)]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process and waits for it."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise OSError(f"anvil ended with status {self._process.returncode}")
            try:
                with urlopen(f"{self.url}/eth/v1/beacon/genesis", timeout=1):
                    return
            except (URLError, OSError):
                time.sleep(0.05)
        raise OSError(f"anvil did not answer within {START_TIMEOUT_S:g} s")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
