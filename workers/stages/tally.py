"""What a worker counts of its works, in plain integers; heartbeats carry it to the broker. Pure.

Theory of operation. A work (one run of a model, or of a Python stage, over all instances that it
was given) is entered once, when it is complete; so a batch of a hundred costs what one instance
does. An instance is entered when it has its result.

Rule: names and labels come from the servable's own declaration, never from a client.
Rule: totals since the start of the process; they never get smaller.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from protocol.control import Histogram, Numbers
from protocol.limits import WORKER_SERIES_MAX
from workers.stages.rows import Subgraph, Work

#: Upper bounds of the times of works in nanoseconds: 0.1 ms to 60 s.
TIME_BOUNDS_NS = (
    100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 25_000_000, 50_000_000,
    100_000_000, 250_000_000, 500_000_000, 1_000_000_000, 2_500_000_000, 5_000_000_000,
    10_000_000_000, 30_000_000_000, 60_000_000_000,
)  # fmt: skip

#: Upper bounds of batch sizes.
SIZE_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_024)

Labels = tuple[tuple[str, str], ...]


class _Series:
    """One histogram under way."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0

    def enter(self, value: int) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def seal(self, name: str, labels: Labels) -> Histogram:
        """The totals under their name."""
        return Histogram(name, labels, self.bounds, tuple(self.counts), self.total)


class Tally:
    """All that one worker counts. Not for two threads at once; the shell has a lock."""

    def __init__(self) -> None:
        self._runs: dict[Subgraph, tuple[_Series, _Series]] = {}
        self._stages: dict[tuple[str, int], _Series] = {}
        self._waits: dict[str, _Series] = {}
        self._executions: Counter[str] = Counter()
        self._instances: Counter[tuple[str, str]] = Counter()
        self._compiled: Counter[str] = Counter()

    def complete(self, work: Work, took_ns: int) -> None:
        """A work was computed. Its rows are still at the step that it was."""
        for method in {row.plan.method for row in work.rows if not row.position}:
            self._executions[method] += 1
        if work.model is None:
            first = work.rows[0]
            key = first.plan.method, first.step.number
            stage = self._stages.get(key)
            if stage is None:
                stage = self._stages[key] = _Series(TIME_BOUNDS_NS)
            stage.enter(took_ns)
            return
        run = self._runs.get(work.model)
        if run is None:
            run = self._runs[work.model] = _Series(TIME_BOUNDS_NS), _Series(SIZE_BOUNDS)
        run[0].enter(took_ns)
        run[1].enter(len(work.rows))

    def begin_request(self, method: str, waited_ns: int) -> None:
        """The first instance of a request is taken, so long after it came."""
        waits = self._waits.get(method)
        if waits is None:
            waits = self._waits[method] = _Series(TIME_BOUNDS_NS)
        waits.enter(waited_ns)

    def end_instances(self, method: str, outcome: str, count: int = 1) -> None:
        """Instances have their result. outcome: `ok`, `failed` or `expired`."""
        self._instances[method, outcome] += count

    def compile_model(self, model_key: str) -> None:
        """A model runs with shapes that it has not been run with."""
        self._compiled[model_key] += 1

    def numbers(self) -> Numbers:
        """All totals, for a heartbeat."""
        numbers = []
        for model, (times, sizes) in self._runs.items():
            labels = ("model", model.model_key), ("subgraph", str(model.number))
            numbers += [times.seal("compute_ns", labels), sizes.seal("batch_size", labels)]
        for (method, number), stage in self._stages.items():
            numbers.append(stage.seal("stage_ns", (("method", method), ("stage", str(number)))))
        for method, waits in self._waits.items():
            numbers.append(waits.seal("worker_wait_ns", (("method", method),)))
        for method, count in self._executions.items():
            numbers.append(Histogram("executions", (("method", method),), (), (count,), 0))
        for (method, outcome), count in self._instances.items():
            labels = ("method", method), ("outcome", outcome)
            numbers.append(Histogram("instances", labels, (), (count,), 0))
        for key, count in self._compiled.items():
            numbers.append(Histogram("recompiles", (("model", key),), (), (count,), 0))
        return tuple(numbers[:WORKER_SERIES_MAX])
