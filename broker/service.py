"""What the core keeps: requests, workers with their credit, and services with their backlog.

Theory of operation. A worker announces a *credit*: how many requests it will hold. Each unit that
is free is a *token*. A service hands out the tokens of its least loaded worker first, so an idle
device never waits behind a busy one; among equals the one that waited longest is next. A token
comes home with the worker's reply or dies with the worker, never with a deadline: a device is
never over-committed.

Rule: a service has tokens or a backlog, never both.
Rule: a worker is in its service's pool if and only if it is READY and has a free token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any

from protocol import control

#: Worker states that the broker sees: READY -> DRAINING -> GONE.
READY = 0
DRAINING = 1
GONE = 2
WORKER_STATES = ("READY", "DRAINING", "GONE")

Frame = Any  # bytes, memoryview or zmq.Frame: the core only counts and forwards them


class Request:
    """One accepted request, from its arrival to its one reply."""

    __slots__ = (
        "attempt",
        "body_bytes",
        "client",
        "deadline_ns",
        "done",
        "frames",
        "head",
        "request_id",
        "service",
        "since_ns",
        "ticket",
        "waiting",
        "worker",
    )

    def __init__(
        self,
        client: Hashable,
        request_id: int,
        head: bytes,
        frames: list[Frame],
        service: Service,
        now_ns: int,
        deadline_ns: int,
    ) -> None:
        self.client = client
        #: the client's own number, unique among its outstanding requests
        self.request_id = request_id
        self.head = head
        #: body frames; emptied once the request is done, so that late replies hold no memory
        self.frames = frames
        self.body_bytes = sum(map(len, frames))
        self.service = service
        self.since_ns = now_ns
        self.deadline_ns = deadline_ns
        #: executions begun so far; at most `attempts_max`
        self.attempt = 0
        #: number of the last attempt, 0 before the first
        self.ticket = 0
        #: it stands in its service's backlog
        self.waiting = False
        self.worker: Worker | None = None
        #: answered, cancelled or expired: whatever still comes for it is dropped
        self.done = False


class Worker:
    """One registered worker process (one incarnation of a slot)."""

    __slots__ = (
        "credit",
        "generation",
        "heard_ns",
        "in_flight",
        "progress",
        "ready",
        "routing_id",
        "service",
        "state",
        "worker_id",
    )

    def __init__(
        self,
        routing_id: bytes,
        worker_id: str,
        generation: int,
        service: Service,
        credit: int,
        now_ns: int,
    ) -> None:
        self.routing_id = routing_id
        self.worker_id = worker_id
        self.generation = generation
        self.service = service
        self.credit = credit
        self.state = READY
        #: ticket -> request; a request that is done stays until its reply brings the token home
        self.in_flight: dict[int, Request] = {}
        self.heard_ns = now_ns
        #: what READY said of device, process and methods, for the stats
        self.ready: control.Ready | None = None
        #: what the last heartbeat said of the running batch
        self.progress = control.Heartbeat()


class TokenPool:
    """The free tokens of one service, least loaded worker first: O(1), no scan of the workers.

    Workers stand in levels by their number of requests in flight; a bit mask tells which levels
    are occupied.
    """

    __slots__ = ("_levels", "_mask")

    def __init__(self) -> None:
        self._levels: list[dict[Worker, None]] = []
        self._mask = 0

    def __bool__(self) -> bool:
        return self._mask != 0

    def __iter__(self) -> Iterator[Worker]:
        for level in self._levels:
            yield from level

    def add(self, worker: Worker) -> None:
        """Offer the worker's free tokens; nothing happens if it has none."""
        load = len(worker.in_flight)
        if load >= worker.credit:
            return
        while len(self._levels) <= load:
            self._levels.append({})
        self._levels[load][worker] = None
        self._mask |= 1 << load

    def remove(self, worker: Worker) -> None:
        """Withdraw the worker's tokens. Call it before its number in flight changes."""
        load = len(worker.in_flight)
        if load < len(self._levels):
            level = self._levels[load]
            level.pop(worker, None)
            if not level:
                self._mask &= ~(1 << load)

    def least_loaded(self) -> Worker | None:
        """The worker whose token is next, or None if every token is taken."""
        mask = self._mask
        if not mask:
            return None
        return next(iter(self._levels[(mask & -mask).bit_length() - 1]))


class Service:
    """A routing unit `servable/version`: its workers, their tokens, and the backlog."""

    __slots__ = (
        "backlog",
        "give_up_ns",
        "key",
        "queued",
        "retired",
        "servable",
        "tokens",
        "version",
        "workers",
    )

    def __init__(self, key: bytes, servable: str, version: int) -> None:
        self.key = key
        self.servable = servable
        self.version = version
        #: waiting requests in order; those that are done are skipped and swept
        self.backlog: deque[Request] = deque()
        #: requests in the backlog that are not done
        self.queued = 0
        self.tokens = TokenPool()
        self.workers: dict[Worker, None] = {}
        #: until when requests wait for a worker; None while there is one
        self.give_up_ns: int | None = None
        #: why the supervisor starts no more workers, if it said so
        self.retired: str | None = None

    def enqueue(self, request: Request) -> None:
        """Add a request behind all that wait."""
        self.backlog.append(request)
        request.waiting = True
        self.queued += 1

    def enqueue_first(self, request: Request) -> None:
        """Add a request before all that wait: its first worker died."""
        self.backlog.appendleft(request)
        request.waiting = True
        self.queued += 1

    def leave_backlog(self, request: Request) -> None:
        """A waiting request is done. It is swept once the dead outnumber the living."""
        assert request.done, request.request_id
        assert request.waiting, request.request_id
        request.waiting = False
        self.queued -= 1
        if len(self.backlog) > 2 * self.queued + 64:
            self.backlog = deque(other for other in self.backlog if other.waiting)

    def next_waiting(self) -> Request | None:
        """Take the request that is next out of the backlog, or None if nobody waits."""
        while self.backlog:
            request = self.backlog.popleft()
            if request.waiting:
                request.waiting = False
                self.queued -= 1
                return request
        return None
