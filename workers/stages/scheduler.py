"""The scheduler: which instances are computed next, by Python and by the device.

    add ─► rows wait for a step ─► next_python_work / next_device_work ─► complete ─┐
                    ▲                                                               │
                    └───────────────────── steps are left ◄─────────────────────────┤
                                                 finished / expired ◄───────────────┘

Rule 1: at any time at most one work of Python runs and at most one of the device; while the
device computes one batch, Python prepares the next one and finishes the one before. A model that
is a pipeline of ranks is wider: as many works of the device as it has stages may run.
Rule 2: rows wait first in, first out. For a step of Python they wait by method: methods take
turns, and within a method the latest step is first, so that what is begun is finished. For a
model they wait together, whatever their method is, and models take turns.
Rule 3: nothing waits for more to come, and nothing is taken before it can be computed: a free
device takes what is here, and a busy one lets the next batch grow.
Rule 4: a function that is called per instance is called on so many rows that it takes about
SLICE_NS, so that the device, deliveries and replies need not wait for a long queue of it.
Rule 5: a request that was sent a second time shares no work with others: if it kills this worker,
too, no neighbour shall have been computed with it.
Rule 6: a request whose budget runs out while it waits for any step is not computed any further; it
leaves through `expired`. Rows of a request that is over are dropped wherever they are.
Pure: time comes in as `now_ns`. Not for two threads at once; the shell has a lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from protocol.values import Failure
from workers.stages.rows import (
    Outcome,
    PackedResult,
    PendingRequest,
    Plan,
    Row,
    Step,
    Subgraph,
    TracedWork,
    Work,
)
from workers.stages.tally import Tally

#: How long one work of a function that is called per instance should take.
SLICE_NS = 2_000_000

#: A run this short costs less than to hand it to another thread.
SHORT_NS = 100_000

#: A run this short may occupy a thread that has nothing else to do: what comes meanwhile waits.
SHORT_IF_IDLE_NS = 1_000_000


class Scheduler:
    """Takes requests in and gives them back with their results, or expired.

    plans: by method. device_width: works of the device that may run at once.
    """

    def __init__(self, plans: Mapping[str, Plan], device_width: int = 1) -> None:
        self._device_width = device_width
        #: Whether requests remember their works, if their trace is recorded; the shell sets it.
        self.is_tracing = False
        #: What was computed so far, for metrics.
        self.tally = Tally()
        #: Requests with all results, in order of completion; the caller answers and clears.
        self.finished: list[PendingRequest] = []
        #: Requests whose budget ran out; the caller answers and clears.
        self.expired: list[PendingRequest] = []
        #: Tickets whose first rows were taken; the caller notes and clears.
        self.started: list[int] = []
        self._plans = plans
        #: By method, one queue for each step; those of model steps stay empty.
        self._python: dict[str, list[deque[Row]]] = {
            name: [deque() for _ in plan.steps] for name, plan in plans.items()
        }
        #: How many rows of a method wait for Python; never 0. The next in turn is the first key.
        self._turns: dict[str, int] = {}
        #: Rows by model; no deque is empty. The next model in turn is the first key.
        self._device: dict[Subgraph, deque[Row]] = {}
        #: Works that were taken and are not completed, the oldest first.
        self._running: list[Work] = []
        self._last_number = 0
        #: How long a run of a model took lately.
        self._run_costs_ns: dict[Subgraph, int] = {}
        #: How long a step of Python took lately for one row, by method and number of the step.
        self._row_costs_ns: dict[tuple[str, int], int] = {}

    @property
    def has_python_rows(self) -> bool:
        """Rows wait for a step of Python."""
        return bool(self._turns)

    @property
    def has_device_rows(self) -> bool:
        """Rows wait for a model."""
        return bool(self._device)

    @property
    def progress(self) -> tuple[int, int]:
        """(number, start) of the oldest work that runs; (number of the last, 0) if none does."""
        if self._running:
            return self._running[0].number, self._running[0].started_ns
        return self._last_number, 0

    def is_next_run_short(self, is_busy: bool) -> bool:
        """The next model in turn is quick enough to be run by the thread that also runs Python.

        is_busy: that thread has something else to do.
        """
        model = next(iter(self._device), None)
        cost_ns = None if model is None else self._run_costs_ns.get(model)
        return cost_ns is not None and cost_ns <= (SHORT_NS if is_busy else SHORT_IF_IDLE_NS)

    # ------------------------------------------------------------ in

    def add(self, request: PendingRequest) -> None:
        """Let the instances of a request wait for the first step of their method."""
        plan = self._plans[request.method.name]
        for index in range(len(request.results)):
            self._place(Row(request, index, plan))

    def clear(self) -> None:
        """Forget every request: nobody waits for it any more. What runs finishes into nothing."""
        for name in self._turns:
            for queue in self._python[name]:
                queue.clear()
        self._turns.clear()
        self._device.clear()
        for work in self._running:
            for row in work.rows:
                row.request.is_over = True
        self.finished.clear()
        self.expired.clear()

    # ------------------------------------------------------------ through

    def next_python_work(self, now_ns: int) -> Work | None:
        """Rows for one step of Python, or None if none waits.

        REQUIRES: the work of Python that was taken before is completed.
        """
        assert all(work.model is not None for work in self._running), self._running
        while self._turns:
            method = next(iter(self._turns))
            waiting = self._turns.pop(method)
            queues = self._python[method]
            position = max(number for number, queue in enumerate(queues) if queue)
            queue = queues[position]
            waiting -= len(queue)
            rows = self._take(queue, self._slice_size(method, queue[0].step), now_ns)
            waiting += len(queue)
            if waiting:
                self._turns[method] = waiting  # at the end: it is the others' turn
            if rows:
                return self._start(None, rows, now_ns)
        return None

    def next_device_work(self, now_ns: int) -> Work | None:
        """Rows for one run of one model, or None if none waits.

        REQUIRES: of the device's works that were taken before, fewer than its width still run.
        """
        assert self._device_works() < self._device_width, self._running
        while self._device:
            model = next(iter(self._device))
            queue = self._device.pop(model)
            rows = self._take(queue, queue[0].step.rows_max, now_ns)
            if queue:
                self._device[model] = queue
            if rows:
                return self._start(model, rows, now_ns)
        return None

    def complete(self, work: Work, outcomes: Sequence[Outcome], now_ns: int) -> None:
        """Move the rows of a work on: to their next step, or out with their result.

        outcomes: for each row the outputs of the step, or its failure.
        """
        assert work in self._running, work.number
        assert len(outcomes) == len(work.rows), (len(outcomes), len(work.rows))
        self._running.remove(work)
        self._measure(work, now_ns - work.started_ns)
        self.tally.complete(work, now_ns - work.started_ns)
        if self.is_tracing:
            _remember(work, now_ns)
        for row, outcome in zip(work.rows, outcomes, strict=True):
            if row.request.is_over:
                continue
            if isinstance(outcome, (PackedResult, Failure)):
                self._settle(row, outcome)
            else:
                row.values.append(list(outcome))
                row.position += 1
                self._place(row)

    def _device_works(self) -> int:
        return sum(work.model is not None for work in self._running)

    def _place(self, row: Row) -> None:
        """Put a row where it waits for its next step; without one it is done."""
        plan, position = row.plan, row.position
        if position == len(plan.steps):
            self._settle(row, row.read(plan.returns))
            return
        model = plan.steps[position].model
        if model is None:
            self._python[plan.method][position].append(row)
            self._turns[plan.method] = self._turns.get(plan.method, 0) + 1
        else:
            queue = self._device.get(model)
            if queue is None:
                queue = self._device[model] = deque()
            queue.append(row)

    def _settle(self, row: Row, result: Outcome) -> None:
        request = row.request
        assert request.results[row.index] is None, (request.spec, row.index)
        request.results[row.index] = result
        outcome = "failed" if isinstance(result, Failure) else "ok"
        self.tally.end_instances(request.method.name, outcome)
        request.unfinished -= 1
        if request.unfinished == 0:
            request.is_over = True
            self.finished.append(request)

    def _take(self, queue: deque[Row], rows_max: int, now_ns: int) -> list[Row]:
        """Up to `rows_max` rows that may be computed together, from the front of a queue."""
        assert rows_max >= 1, rows_max
        rows: list[Row] = []
        while queue and len(rows) < rows_max:
            request = queue[0].request
            if request.is_over:
                queue.popleft()
                continue
            if now_ns >= request.deadline_ns:
                request.is_over = True
                self.expired.append(request)
                self.tally.end_instances(request.method.name, "expired", request.unfinished)
                continue
            if rows and not _may_share(rows[0].request, request):
                break
            rows.append(queue.popleft())
        return rows

    def _start(self, model: Subgraph | None, rows: list[Row], now_ns: int) -> Work:
        self._last_number += 1
        work = Work(model, rows, self._last_number, now_ns)
        for row in rows:
            if not row.request.is_started:
                row.request.is_started = True
                self.started.append(row.request.ticket)
                waited_ns = now_ns - row.request.received_ns
                self.tally.begin_request(row.request.method.name, waited_ns)
        self._running.append(work)
        return work

    # ------------------------------------------------------------ costs

    def _slice_size(self, method: str, step: Step) -> int:
        if not step.is_per_row:
            return step.rows_max
        cost_ns = self._row_costs_ns.get((method, step.number))
        if cost_ns is None:
            return 1  # the first one shows how long it takes
        return max(1, min(step.rows_max, SLICE_NS // max(1, cost_ns)))

    def _measure(self, work: Work, cost_ns: int) -> None:
        if work.model is not None:
            before_ns = self._run_costs_ns.get(work.model, cost_ns)
            self._run_costs_ns[work.model] = (before_ns + cost_ns) // 2
            return
        first = work.rows[0]
        key = (first.plan.method, first.step.number)
        cost_ns //= len(work.rows)
        self._row_costs_ns[key] = (self._row_costs_ns.get(key, cost_ns) + cost_ns) // 2

    # ------------------------------------------------------------ for tests

    def check_invariants(self) -> None:
        """Assert what holds between any two calls."""
        seen: set[tuple[int, int]] = set()

        def see(row: Row) -> None:
            assert (id(row.request), row.index) not in seen, row.request.spec
            seen.add((id(row.request), row.index))
            if not row.request.is_over:
                assert row.request.results[row.index] is None
                assert row.request.unfinished == row.request.results.count(None)
            assert len(row.values) == row.position + 1

        for method, queues in self._python.items():
            assert sum(map(len, queues)) == self._turns.get(method, 0), method
            for position, queue in enumerate(queues):
                for row in queue:
                    see(row)
                    assert (row.plan.method, row.position) == (method, position)
        assert 0 not in self._turns.values()
        for model, queue in self._device.items():
            assert queue, model
            for row in queue:
                see(row)
                assert row.step.model == model
        assert self._device_works() <= self._device_width, self._running
        assert len(self._running) - self._device_works() <= 1, self._running
        for work in self._running:
            assert work.rows, work.number
            for row in work.rows:
                see(row)
        assert all(request.unfinished == 0 for request in self.finished)
        assert all(request.unfinished for request in self.expired)


def _remember(work: Work, now_ns: int) -> None:
    """Note a work in the traces of its requests, once in each."""
    for request in dict.fromkeys(row.request for row in work.rows):
        if request.trace is not None:
            number = next(row.step.number for row in work.rows if row.request is request)
            model = "" if work.model is None else work.model.model_key
            traced = TracedWork(number, model, len(work.rows), work.started_ns, now_ns)
            request.trace.works.append(traced)


def _may_share(one: PendingRequest, other: PendingRequest) -> bool:
    return one is other or not (one.is_redelivered or other.is_redelivered)
