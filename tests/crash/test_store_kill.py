"""kill -9 while blocks are sealed and checkpoints written: every promise is kept, and nothing is invented."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

from state.recovery import recover
from state.store import Store
from state.tree import Tree
from tests.toy_chain import IDENTITY, ToyChain, encoded_block, expected_leaves, stored_block

SEED = 20
ROUNDS = 20


class MemoryPages:
    """No rows: a tree over it is built from its leaves alone."""

    def get(self, key: bytes) -> bytes | None:
        return None

    def iterate(self, start: bytes, stop: bytes) -> list[tuple[bytes, bytes]]:
        return []


def kill_at_random(path: Path, random: Random) -> tuple[int, int]:
    """Runs the child and kills it; returns (the block it recovered to, the last one it promised)."""
    command = [sys.executable, "-m", "tests.crash.store_child", str(path), str(SEED), "run"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        word, number = child.stdout.readline().split()
        assert word == "recovered"
        recovered = promised = int(number)
        wanted = promised + random.randint(1, 60)
        while promised < wanted:
            word, number = child.stdout.readline().split()
            assert word == "sealed"
            promised = int(number)
        # Not at the moment of a promise, but somewhere in what follows it.
        threading.Event().wait(random.random() * 0.01)
        os.kill(child.pid, signal.SIGKILL)
        for line in child.stdout:
            if line.endswith("\n"):
                word, number = line.split()
                assert word == "sealed"
                promised = int(number)
    return recovered, promised


def check_contents(path: Path, promised: int) -> int:
    """Recovers in this process and compares with what the seed says; returns the last block."""
    store = Store.open(path, IDENTITY)
    chain = ToyChain(store, SEED)
    recovered = recover(store, chain)
    last = recovered.last_block
    assert last >= promised
    leaves = expected_leaves(SEED, last)
    assert chain.current_leaves() == leaves
    root = chain.tree.update(chain.leaves)
    assert root == Tree(MemoryPages(), 128).update(leaves)
    in_memory = {block.number: block for block in chain.open}
    for number in range(1, last + 1):
        expected = stored_block(number, encoded_block(SEED, number))
        assert (store.block(number) or in_memory[number]) == expected
        position = store.transaction(expected.transaction_hashes[1])
        assert position == ((number, 1) if number not in in_memory else None)
    store.close()
    return last


def test_every_promise_is_kept_through_kills(tmp_path: Path) -> None:
    print("seed", SEED)
    random = Random(SEED)
    last = 0
    for _ in range(ROUNDS):
        recovered, promised = kill_at_random(tmp_path, random)
        assert recovered == last
        last = check_contents(tmp_path, promised)
    store = Store.open(tmp_path, IDENTITY)
    assert store.last_checkpoint is not None
    assert store.last_checkpoint.batch_number >= ROUNDS // 2, (
        "batches were closed and checkpointed on the way"
    )
    store.close()
