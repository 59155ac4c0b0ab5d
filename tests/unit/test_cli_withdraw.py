"""Following a withdrawal while L1 and the node come and go, on a virtual clock; deploying off a devnet."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock
from typer.testing import CliRunner

from l1_bridge.keys import DEVNET_KEYS
from l1_bridge.types import L1Unavailable
from sequencer.cli import app
from sequencer.cli_l1 import L1
from sequencer.cli_output import Steps
from sequencer.cli_withdraw import POLL_S, until_final
from sequencer.client import NodeUnreachable
from state.keys import withdrawal_key
from state.leaves import Withdrawal
from state.proofs import NO_PATH, AbsenceProof, LeafData, MembershipProof, ProofError, leaf_hash
from state.signatures import address_of

NUMBER = 7
KEY = withdrawal_key(NUMBER)
LEAF = Withdrawal(b"\xab" * 20, 5_000_000, 1, 9)
WITH = leaf_hash(KEY, LEAF.encode())
OTHER = LeafData(withdrawal_key(1), LEAF.encode())
WITHOUT = leaf_hash(*OTHER)
BEGUN_IN = 3


class Chain:
    """L1 and node on a timetable, in seconds: batch n is posted at 10 n and final 30 later."""

    def __init__(self, lies: bool = False) -> None:
        self.lies = lies
        self.asked = 0

    def l1(self) -> L1:
        info = SimpleNamespace(challenge_window_s=30)
        return L1(cast(Any, self), cast(Any, self), cast(Any, info))

    async def last_batch(self) -> int:
        if 5 < trio.current_time() < 8:
            raise L1Unavailable("away")
        return int(trio.current_time() // 10)

    async def finalized_batch(self) -> int:
        return max(0, await self.last_batch() - 3)

    async def root_of(self, batch: int) -> bytes:
        return WITH if batch >= BEGUN_IN else WITHOUT

    async def read(self, function: str, batch: int) -> tuple[int, ...]:
        assert function == "batchAt"
        return 0, 0, batch * 10, 0, 0, 0

    async def head(self) -> Any:
        return SimpleNamespace(timestamp_s=int(trio.current_time()))

    async def prove(self, key: bytes, batch: int) -> tuple[int, MembershipProof | AbsenceProof] | None:
        assert key == KEY
        self.asked += 1
        if 12 < trio.current_time() < 20:
            raise NodeUnreachable("restarting")
        if trio.current_time() < 3:
            return None
        if batch >= BEGUN_IN or self.lies:
            return batch, MembershipProof(KEY, LEAF.encode(), NO_PATH)
        return batch, AbsenceProof(KEY, OTHER, NO_PATH)


async def test_a_withdrawal_is_followed_through_outages(
    autojump_clock: MockClock, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = Chain()
    with Steps() as steps:
        ready = await until_final(chain.l1(), NUMBER, chain.prove, steps)
    assert (ready.batch, ready.number, ready.leaf) == (BEGUN_IN, NUMBER, LEAF.encode())
    assert 60 <= trio.current_time() <= 60 + POLL_S
    said = capsys.readouterr().err.splitlines()
    assert said == [
        "waiting: a batch on L1 that has it",
        "waiting: L1, which does not answer",
        "waiting: a batch on L1 that has it",
        "waiting: the node, which does not answer (a verifier's --data-dir would do)",
        "waiting: a batch on L1 that has it",
        "done: it is on L1, in batch 3 or one before",
        "waiting: the challenge window",
    ]


async def test_a_node_that_proves_under_another_root_than_l1s_is_found_out(autojump_clock: MockClock) -> None:
    chain = Chain(lies=True)
    with Steps() as steps, pytest.raises(ProofError):
        await until_final(chain.l1(), NUMBER, chain.prove, steps)


class MainnetHandler(BaseHTTPRequestHandler):
    """An L1 that only says that it is no devnet."""

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert request["method"] == "eth_chainId", "nothing else may be asked, let alone sent"
        body = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": "0x1"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def mainnet() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), MainnetHandler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


MINE = "0x" + "17" * 20
KNOWN = "0x" + address_of(DEVNET_KEYS[2]).hex()
ROLES = ("--token", MINE, "--governor", MINE, "--poster", MINE, "--guardian", MINE)


@pytest.mark.parametrize(
    ("roles", "secret", "status", "says"),
    [
        ((), "4c" * 32, 2, "--token: chain 1 is not a devnet: name it"),
        (ROLES[:6], "4c" * 32, 2, "--guardian: chain 1 is not a devnet: name it"),
        ((*ROLES[:7], KNOWN), "4c" * 32, 1, f"--guardian: {KNOWN} is a well-known development key"),
        (ROLES, DEVNET_KEYS[0].hex(), 1, "is a well-known development key; chain 1 is not a devnet"),
    ],
)
def test_deploying_off_a_devnet_takes_no_defaults_and_no_devnet_keys(
    tmp_path: Any, roles: tuple[str, ...], secret: str, status: int, says: str
) -> None:
    out = tmp_path / "deployment.json"
    env = {"STRADDLE_PRIVATE_KEY": secret, "STRADDLE_KEY": None, "COLUMNS": "200"}
    with mainnet() as url:
        result = CliRunner().invoke(app, ["deploy", "--l1", url, "--out", str(out), *roles], env=env)
    assert result.exit_code == status, result.output
    assert says in result.stderr
    assert secret not in result.output
    assert not out.exists()
