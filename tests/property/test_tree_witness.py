"""A witness made for one step answers that step's questions and reaches the full tree's root."""

import random
from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from state.tree import Tree
from state.witness import MissingWitness, PartialTree, WitnessError
from tests.tree_model import Leaves, MemoryStore, random_key

Op = tuple[str, bytes, bytes | int | None]


class ModelStep:
    """Runs a random step on a plain dict and records what a recorder would."""

    def __init__(self, model: Leaves, rng: random.Random) -> None:
        self.model = dict(model)
        self.rng = rng
        self.keys: set[bytes] = set()
        self.prefixes: set[bytes] = set()
        self.script: list[tuple[Op, object]] = []

    def under(self, prefix: bytes, bound: int) -> list[tuple[bytes, bytes]]:
        return [(k, self.model[k]) for k in sorted(self.model) if k.startswith(prefix)][:bound]

    def some_key(self) -> bytes:
        """Often near to keys the step has touched, because that is where deletions made holes."""
        rng = self.rng
        if self.keys and rng.random() < 0.5:
            key = bytearray(rng.choice(sorted(self.keys)))
            if rng.random() < 0.7:
                key[rng.choice([0, 7, 8, 9, 31])] ^= 1 << rng.randrange(8)
            return bytes(key)
        return rng.choice(sorted(self.model)) if self.model and rng.random() < 0.5 else random_key(rng)

    def run(self, count: int) -> None:
        for _ in range(count):
            name = self.rng.choice(["get", "put", "delete", "delete", "first", "iterate"])
            key = self.some_key()
            prefix = key[: self.rng.choice([0, 1, 8, 9, 10, 32])]
            if name == "first":
                answer = self.under(prefix, 1)
                self.prefixes.add(prefix)
                self.keys.update(k for k, _ in answer)
                self.script.append((("first", prefix, None), answer[0] if answer else None))
            elif name == "iterate":
                bound = self.rng.randrange(4)
                answer = self.under(prefix, bound)
                self.prefixes.add(prefix)
                self.keys.update(k for k, _ in answer)
                self.script.append((("iterate", prefix, bound), answer))
            else:
                self.keys.add(key)
                value = self.rng.randbytes(5) if name == "put" else None
                self.script.append(((name, key, value), self.model.get(key)))
                if value is not None:
                    self.model[key] = value
                elif name == "delete":
                    self.model.pop(key, None)


def replay(partial: PartialTree, script: list[tuple[Op, object]]) -> None:
    for (name, key, argument), answer in script:
        if name == "first":
            assert partial.first_under(key) == answer
        elif name == "iterate":
            assert isinstance(argument, int)
            assert partial.iterate_under(key, argument) == answer
        else:
            assert partial.get(key) == answer
            if name == "delete":
                partial.delete(key)
            elif isinstance(argument, bytes):
                partial.put(key, argument)


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32), leaves=st.sampled_from([0, 1, 2, 5, 20, 200]), ops=st.integers(1, 40))
def test_witness_answers_the_step_and_ends_on_the_root_of_the_full_tree(
    seed: int, leaves: int, ops: int
) -> None:
    rng = random.Random(seed)
    model = {random_key(rng): rng.randbytes(4) for _ in range(leaves)}
    tree = Tree(MemoryStore(), 128)
    before = tree.update(model)
    step = ModelStep(model, rng)
    step.run(ops)
    partial = tree.witness(step.keys, step.prefixes)
    assert partial.root() == before
    encoded = partial.encode()
    decoded = PartialTree.decode(encoded)
    assert decoded.encode() == encoded
    for witness in (partial, decoded):
        replay(witness, step.script)
        changed = {k: step.model.get(k) for k in {*model, *step.model} if step.model.get(k) != model.get(k)}
        assert witness.root() == Tree(MemoryStore(), 128).update(step.model)
    assert tree.update(changed) == partial.root()


@settings(deadline=None, max_examples=150)
@given(seed=st.integers(0, 2**32))
def test_a_witness_never_answers_wrongly(seed: int) -> None:
    rng = random.Random(seed)
    model = {random_key(rng): rng.randbytes(4) for _ in range(60)}
    tree = Tree(MemoryStore(), 128)
    tree.update(model)
    partial = tree.witness(rng.sample(sorted(model), 3))
    for key in [*model, *(random_key(rng) for _ in range(60))]:
        with suppress(MissingWitness):
            assert partial.get(key) == model.get(key)
        prefix = key[: rng.randrange(12)]
        under = [(k, model[k]) for k in sorted(model) if k.startswith(prefix)]
        with suppress(MissingWitness):
            assert partial.iterate_under(prefix, 2) == under[:2]
    key = random_key(rng)
    with suppress(MissingWitness):
        partial.put(key, b"new")
        assert partial.root() == tree.update({key: b"new"})


@settings(deadline=None, max_examples=300)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_changed_witness_bytes_are_refused_or_have_another_root(seed: int, data: st.DataObject) -> None:
    rng = random.Random(seed)
    model = {random_key(rng): rng.randbytes(4) for _ in range(30)}
    tree = Tree(MemoryStore(), 128)
    tree.update(model)
    encoded = bytearray(tree.witness(rng.sample(sorted(model), 3)).encode())
    at = data.draw(st.integers(0, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with suppress(WitnessError):
        assert PartialTree.decode(bytes(encoded)).root() != tree.root


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400))
def test_no_bytes_crash_the_witness_decoder(data: bytes) -> None:
    with suppress(WitnessError):
        assert PartialTree.decode(data).encode() == data
