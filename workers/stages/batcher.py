"""The batcher: requests wait here, method by method, and leave as batches of instances.

Rule 1: first in, first out within a method; methods take turns, so that none starves another.
Rule 2: a batch holds as many instances as the method's limit allows, of as many requests as fit;
a request with more instances is spread over several batches and is answered when all are done.
Rule 3: nothing waits for more to come: a device that is free takes what is here.
Rule 4: a request that was sent a second time is alone in its batches: if it kills this worker,
too, no neighbour shall die with it.
Rule 5: a request whose budget has run out is not computed; it leaves through `expired`.
Pure: no clock, no decoding, no encoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from protocol.values import Failure, Instance, MethodSignature, RequestSpec, Result


class PendingRequest:
    """One request with its instances, until each of them has a result."""

    __slots__ = (
        "deadline_ns", "dialect", "instances", "is_redelivered", "method", "results", "spec",
        "taken", "ticket", "trace_id", "unfinished",
    )  # fmt: skip

    def __init__(
        self,
        ticket: int,
        dialect: int,
        spec: RequestSpec,
        method: MethodSignature,
        instances: list[Instance],
        deadline_ns: int,
        is_redelivered: bool,
        trace_id: bytes,
    ) -> None:
        assert instances, spec
        self.ticket = ticket
        self.dialect = dialect
        self.spec = spec
        self.method = method
        self.instances = instances
        self.deadline_ns = deadline_ns
        self.is_redelivered = is_redelivered
        self.trace_id = trace_id
        #: One per instance; None where the batch that computes it is not done.
        self.results: list[Result | None] = [None] * len(instances)
        #: Instances that went into a batch; they are the first ones.
        self.taken = 0
        #: Instances without a result.
        self.unfinished = len(instances)


class Share(NamedTuple):
    """What one request has in a batch: its instances from `start` up to `stop`, exclusive."""

    request: PendingRequest
    start: int
    stop: int


class Batch(NamedTuple):
    """Instances of one method that are computed together, and whose they are."""

    method: str
    instances: list[Instance]
    shares: list[Share]


class Batcher:
    """Gathers requests into batches and gives each request its own results back.

    instances_max_of: how many instances of a method one batch may hold, at least 1.
    """

    def __init__(self, instances_max_of: Callable[[str], int]) -> None:
        self._instances_max_of = instances_max_of
        #: Requests whose budget ran out before they were computed; the caller answers and clears.
        self.expired: list[PendingRequest] = []
        #: Waiting requests by method; no deque is empty. The next method in turn is the first key.
        self._backlogs: dict[str, deque[PendingRequest]] = {}
        #: The batch that was taken and is not completed yet.
        self._running: Batch | None = None

    def __len__(self) -> int:
        """Requests that still have instances for a batch."""
        return sum(map(len, self._backlogs.values()))

    def add(self, request: PendingRequest) -> None:
        """Let a request wait behind the others of its method."""
        backlog = self._backlogs.get(request.method.name)
        if backlog is None:
            backlog = self._backlogs[request.method.name] = deque()
        backlog.append(request)

    def clear(self) -> None:
        """Forget every waiting request: nobody waits for it any more."""
        self._backlogs.clear()
        self.expired.clear()

    def take_batch(self, now_ns: int) -> Batch | None:
        """The next batch, or None if nothing is left to compute. Fills `expired` on the way.

        REQUIRES: the batch taken before is completed.
        """
        assert self._running is None, self._running
        while self._backlogs:
            method = next(iter(self._backlogs))
            backlog = self._backlogs.pop(method)
            shares = self._gather(backlog, self._instances_max_of(method), now_ns)
            if backlog:
                self._backlogs[method] = backlog  # at the end: it is the others' turn
            if shares:
                instances = [
                    instance
                    for request, start, stop in shares
                    for instance in request.instances[start:stop]
                ]
                self._running = Batch(method, instances, shares)
                return self._running
        return None

    def complete(self, batch: Batch, results: Sequence[Result]) -> list[PendingRequest]:
        """Hand the results of a batch to its requests; returns the finished ones, in order."""
        assert batch is self._running, (batch.method, self._running)
        assert len(results) == len(batch.instances), (len(results), len(batch.instances))
        self._running = None
        finished = []
        at = 0
        for request, start, stop in batch.shares:
            count = stop - start
            request.results[start:stop] = results[at : at + count]
            request.unfinished -= count
            at += count
            if request.unfinished == 0:
                finished.append(request)
        return finished

    def fail(self, batch: Batch, failure: Failure) -> list[PendingRequest]:
        """Complete a batch with the same failure for each instance."""
        return self.complete(batch, [failure] * len(batch.instances))

    def check_invariants(self) -> None:
        """Assert what holds between any two calls."""
        for method, backlog in self._backlogs.items():
            assert backlog, method
            for request in backlog:
                assert request.method.name == method
                assert request.taken < len(request.instances)
                assert request.unfinished <= len(request.instances)
            assert all(request.taken == 0 for request in list(backlog)[1:]), method

    def _gather(
        self, backlog: deque[PendingRequest], instances_max: int, now_ns: int
    ) -> list[Share]:
        assert instances_max >= 1, instances_max
        shares: list[Share] = []
        room = instances_max
        while backlog and room:
            request = backlog[0]
            if now_ns >= request.deadline_ns:
                self.expired.append(backlog.popleft())
                continue
            if shares and request.is_redelivered:
                break
            start = request.taken
            request.taken = min(start + room, len(request.instances))
            shares.append(Share(request, start, request.taken))
            room -= request.taken - start
            if request.taken == len(request.instances):
                backlog.popleft()
            if request.is_redelivered:
                break
        return shares
