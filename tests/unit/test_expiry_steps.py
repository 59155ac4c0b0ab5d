"""Every step in the life of dated instruments executes again from its witness alone, to the same root."""

from __future__ import annotations

from collections import Counter

from state.block import L1Message, LifeChange
from state.cache import CachedState, MemorySource
from state.genesis import genesis_leaves
from state.keys import PROGRESS_KEY
from state.leaves import Phase, Progress
from state.recorder import RecordedExecution, StepRecord
from state.transition import BlockExecution, next_batch, open_batch
from tests.random_options import OptionTraffic
from tests.unit.test_transition_steps import Witnessed, outcome
from tools.exchange import l1_origin

MAX_BLOCKS = 250


class DueSteps(Witnessed):
    """Checks all steps of what is due, and one in eight of the others."""

    def __init__(self) -> None:
        super().__init__()
        self.due = self.others = 0
        self.phase = int(Phase.MESSAGES)

    def step(self, record: StepRecord) -> None:
        is_due = self.phase == Phase.DUE
        self.due += is_due
        self.others += not is_due
        if is_due or self.others % 8 == 0:
            super().step(record)
        else:
            self.tree.update(record.changes)
        progress = self.store.get(PROGRESS_KEY)
        self.phase = Progress.decode(progress).phase if progress else int(Phase.MESSAGES)


def test_every_step_executes_from_its_witness() -> None:
    witnessed = DueSteps()
    source = MemorySource({key: leaf.encode() for key, leaf in genesis_leaves().items()})
    view = CachedState(source, 10**6)
    open_batch(view, next_batch(view))
    traffic = OptionTraffic(1, view)
    messages: list[L1Message] = traffic.setup()
    changes: Counter[int] = Counter()
    for _ in range(MAX_BLOCKS):
        transactions = traffic.block(3)
        recorded = RecordedExecution(witnessed.store, traffic.now_ms, l1_origin(0), messages, witnessed.step)
        made = BlockExecution(view, traffic.now_ms, l1_origin(0), messages)
        for transaction in transactions:
            assert outcome(recorded, transaction) == outcome(made, transaction)
        result = made.end()
        assert recorded.end() == result
        changes.update(event.change for event in result.life)
        messages = traffic.messages()
        if changes[LifeChange.DELISTED] > changes[LifeChange.EXPIRED] > 0:
            break
    source.apply(view.take_dirty())
    assert witnessed.store.leaves == source.leaves
    assert all(changes[change] > 0 for change in LifeChange)
    assert witnessed.due > 60
