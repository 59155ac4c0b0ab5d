"""What each kind of action costs in the transition, in execution units: `python -m tools.bench units`.

A unit is a fourteenth of what a limit order costs that rests in a perpetual: the table of PROTOCOL 8.13 says
14 of it. Everything is executed in rounds, every case in each; a case's time is taken over that of such
orders executed just before and after it, and of these ratios the median over the rounds counts. So load of
the machine that lasts is in both, and what comes and goes is in few of them.

Signatures are not here: they are recovered elsewhere, by all cores. Nor is what an action costs later, in
the tree, in the batch and on L1: bytes and leaves are paid apart.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from statistics import median, quantiles

from state.actions import SignedAction
from state.rules import rule_of, use_of
from tools.figure import Figure
from tools.units_cases import SCENARIOS, Case, Scenario, reference
from tools.units_scene import Scene

ROUNDS = 25
SEED = 20_261_124
REFERENCE_UNITS = 14

Key = tuple[str, int]
"""Name and parts of a case."""


class Bench:
    """Executes scenarios and keeps, by case, its ratios to the reference and the table's units."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.ratios: dict[Key, list[float]] = {}
        self.table: dict[Key, int] = {}

    def round(self) -> None:
        """Everything once, at fresh prices."""
        self.scene.tick()
        for scenario in SCENARIOS:
            self._run(scenario)

    def _run(self, scenario: Scenario) -> None:
        before = self._reference()
        pending: list[tuple[Key, float]] = []
        for case in scenario(self.scene):
            key = (case.name, case.parts)
            self.table[key] = units_of(self.scene, case)
            pending.append((key, seconds_of(self.scene, case)))
            if len(pending) == 4:
                before = self._settle(pending, before)
        self._settle(pending, before)

    def _settle(self, pending: list[tuple[Key, float]], before: float) -> float:
        """Compares what was measured since `before` with the reference then and now."""
        after = self._reference()
        for key, seconds in pending:
            self.ratios.setdefault(key, []).append(2 * seconds / (before + after))
        pending.clear()
        return after

    def _reference(self) -> float:
        (seconds,) = [seconds_of(self.scene, case) for case in reference(self.scene)]
        return seconds


def seconds_of(scene: Scene, case: Case) -> float:
    """Processor time of one of the case's transactions. Asserts that they do what they should."""
    measured = case.transactions[case.warm :]
    with scene.exchange.block() as execution:
        for transaction in case.transactions[: case.warm]:
            execution.execute(transaction)
        results = []
        begin = time.process_time_ns()
        for transaction in measured:
            results.append(execution.execute(transaction))
        elapsed = time.process_time_ns() - begin
    scene.exchange.results.clear()
    for result in results:
        assert not any(operation.code for operation in result.operations), (case.name, result.operations)
        assert result.trades[1] - result.trades[0] == case.fills, (case.name, result.trades)
    return elapsed / len(measured) / 1e9


def units_of(scene: Scene, case: Case) -> int:
    """The table's units of one of the case's actions; 0 of an oracle update, which pays nothing."""
    payload = case.transactions[-1].payload
    if not isinstance(payload, SignedAction):
        return 0
    return use_of(scene.view, payload.action, rule_of(payload.action))[0]


def figures_of(bench: Bench) -> Iterator[Figure]:
    """Of each case, and of each further part of cases that differ in nothing else."""
    found: dict[str, list[tuple[int, float]]] = {}
    for (name, parts), ratios in bench.ratios.items():
        units = REFERENCE_UNITS * median(ratios)
        low, _, high = (REFERENCE_UNITS * each for each in quantiles(ratios, n=4))
        table = bench.table[name, parts]
        beside = f"table {table}, {units / table:.2f} x; " if table else ""
        known = found.setdefault(name, [])
        known.append((parts, units))
        title = f"{name}: {parts}" if len({key for key in bench.ratios if key[0] == name}) > 1 else name
        yield Figure(title, units, "units", note=f"{beside}half of the rounds {low:.1f} to {high:.1f}")
    for name, points in found.items():
        if len(points) > 1:
            (few, low), (many, high) = points[0], points[-1]
            slope = (high - low) / (many - few)
            tables = bench.table[name, few], bench.table[name, many]
            note = f"table {(tables[1] - tables[0]) / (many - few):.2f}"
            yield Figure(f"{name}: each further one", slope, "units", note=note)


def bench_units() -> list[Figure]:
    bench = Bench(Scene(SEED))
    bench.round()
    bench.ratios.clear()
    gc.collect()
    gc.freeze()
    gc.disable()
    for _ in range(ROUNDS):
        bench.round()
        gc.collect()
    gc.enable()
    gc.unfreeze()
    return list(figures_of(bench))


if __name__ == "__main__":
    for figure in bench_units():
        print(f"{figure.name:66}{figure.value:9.1f}  {figure.note}")
