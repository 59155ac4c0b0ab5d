"""The golden blocks still give the golden leaves and root, in this process and under another hash seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from state import keys
from state.conservation import conservation
from state.leaves import decode_leaf
from state.tree import Tree
from tests.tree_model import MemoryStore
from tests.vectors.state_vectors import FILE, build

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = json.loads(FILE.read_text())


def test_nothing_changed() -> None:
    assert build() == GOLDEN


@pytest.mark.parametrize(("seed", "pure"), [("0", ""), ("1", "1"), ("4242", "")])
def test_neither_hash_seed_nor_compiled_modules_change_anything(seed: str, pure: str) -> None:
    program = "import json; from tests.vectors.state_vectors import build; print(json.dumps(build()))"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "STRADDLE_PURE": pure}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        timeout=120,
        check=True,
    )
    assert json.loads(done.stdout) == GOLDEN


def test_the_tree_gives_the_same_root_and_money_adds_up() -> None:
    leaves = {bytes.fromhex(key): bytes.fromhex(value) for key, value in GOLDEN["leaves"].items()}
    tree = Tree(MemoryStore(), 128)
    assert tree.update(leaves).hex() == GOLDEN["root"]
    assert conservation(leaves.items()) == 0


def test_the_story_touches_every_kind_of_leaf_and_each_decodes_canonically() -> None:
    kinds = {int(key[:2], 16) for key in GOLDEN["leaves"]}
    dated = {*range(keys.EXPIRY, keys.PRICING + 1), keys.LISTINGS}
    liquidation = {keys.AUCTION, keys.LIQUIDATION, keys.LIQUIDATIONS}
    depth = {keys.PROTECTION, keys.TRIGGER, keys.ACCOUNT_TRIGGER, keys.QUOTE_USED}
    depth |= set(range(keys.BLOCK_TRADE, keys.TRIGGER_QUEUE + 1)) - {keys.CLEANUP}
    usual = set(range(keys.SYSTEM, keys.WITHDRAWAL + 1)) - {keys.PROGRESS}
    fees = {keys.FEE_TERMS, keys.FEE_MARKET, keys.PRIORITY, keys.L1_TERMS, keys.L1_PRICE}
    fees |= {keys.INDEX_VARIANCE, keys.FEE_TIERS, keys.VOLUME}
    assert kinds == usual | dated | liquidation | depth | fees
    for key, value in GOLDEN["leaves"].items():
        data = bytes.fromhex(value)
        assert decode_leaf(bytes.fromhex(key), data).encode() == data
        with pytest.raises(ValueError, match="bytes"):
            decode_leaf(bytes.fromhex(key), data + b"\0")
