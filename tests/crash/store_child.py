"""A process that seals blocks until it is killed or the disk refuses; run by the crash tests.

`python -m tests.crash.store_child PATH SEED MODE`. Recovers first and prints `recovered <last block>`; then
prints `sealed <block>` for each block after its sync: those are the promises. MODE `run` closes a batch after
every few blocks, its checkpoint written by another thread beside the sealing; `journal` never closes one;
`batches` closes one after every group. A StoreError ends it with `stopped <code>`, and `again <code>` shows
what a second attempt gets.
"""

import sys
import threading
from pathlib import Path
from random import Random

from state.recovery import recover
from state.store import Store, StoreError
from state.store_records import JournalBatch, JournalRoot, StoredBlock
from tests.toy_chain import IDENTITY, ToyChain


def say(*words: object) -> None:
    print(*words, flush=True)


class Sealing(ToyChain):
    """A toy chain whose checkpoints are written beside the sealing, one at a time."""

    thread: threading.Thread | None = None
    failure: StoreError | None = None

    def close_beside(self) -> None:
        """Closes the open batch and starts its checkpoint, when the one before is done."""
        if self.thread is not None:
            self.thread.join()
        if self.failure is not None:
            raise self.failure
        batch = self.journal_batch()
        position = self.store.close_batch(batch)
        arguments = (batch, position, dict(self.leaves), list(self.open), self.last_hash)
        self.leaves, self.open, self.batch = {}, [], batch.number + 1
        self.thread = threading.Thread(target=self._checkpoint_beside, args=arguments)
        self.thread.start()

    def _checkpoint_beside(
        self,
        batch: JournalBatch,
        journal_next: int,
        leaves: dict[bytes, bytes | None],
        blocks: list[StoredBlock],
        last_hash: bytes,
    ) -> None:
        beside = ToyChain.__new__(ToyChain)
        beside.__dict__.update(
            store=self.store, tree=self.tree, leaves=leaves, open=blocks, last_hash=last_hash
        )
        try:
            root = beside.replay_close(batch)
            self.store.append_root(JournalRoot(batch.number, root))
            beside.replay_checkpoint(batch, journal_next)
        except StoreError as error:
            self.failure = error


def seal_forever(chain: Sealing, random: Random, mode: str) -> None:
    while True:
        blocks = [chain.seal() for _ in range(random.randint(1, 4))]
        chain.store.append_blocks(blocks)
        chain.store.sync()
        for block in blocks:
            say("sealed", block.number)
        if chain.failure is not None:
            raise chain.failure
        if mode == "batches" or (mode == "run" and random.random() < 0.2):
            chain.close_beside()


def main() -> None:
    path, seed, mode = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    try:
        store = Store.open(path, IDENTITY)
        chain = Sealing(store, seed)
        recovered = recover(store, chain)
        say("recovered", recovered.last_block)
        seal_forever(chain, Random(seed + recovered.last_block), mode)
    except StoreError as error:
        say("stopped", error.code.name)
        print(error, file=sys.stderr)
    if chain.thread is not None:
        chain.thread.join()
    for attempt in (store.sync, lambda: store.put_meta_sync("name", b"value")):
        try:
            attempt()
        except StoreError as error:
            say("again", error.code.name)
    store.close()


if __name__ == "__main__":
    main()
