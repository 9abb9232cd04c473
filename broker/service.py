"""What the core keeps: requests, workers with their credit, and services with their lanes.

Theory of operation. A worker announces a *credit*: how many requests it will hold. Each unit that
is free is a *token*. A service hands out the tokens of its least loaded worker first, so an idle
device never waits behind a busy one; among equals the one that waited longest is next. A token
comes home with the worker's reply or dies with the worker, never with a deadline: a device is
never over-committed.

A *lane* is a backlog and the tokens of the workers that take from it. A service has one, which all
its workers take from. With extra workers, which run only the methods that they offer, it has two:
the shared lane for these methods, and the device lane, which device workers take from first. So an
extra worker's calls of models never wait behind requests that wait for an extra worker.

Rule: a lane has tokens or a backlog, never both.
Rule: a worker is in the pools of its lanes if and only if it is READY and has a free token.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterator
from typing import Any

from protocol import control
from protocol import head as heads

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
        "lane",
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
        self.lane = service.lane_of(head)
        self.since_ns = now_ns
        self.deadline_ns = deadline_ns
        #: executions begun so far; at most `attempts_max`
        self.attempt = 0
        #: number of the last attempt, 0 before the first
        self.ticket = 0
        #: it stands in its lane's backlog
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
        "is_extra",
        "lanes",
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
        is_extra: bool = False,
    ) -> None:
        self.routing_id = routing_id
        self.worker_id = worker_id
        self.generation = generation
        self.service = service
        self.credit = credit
        #: it runs only the methods that its service's extra workers offer
        self.is_extra = is_extra
        #: the lanes that it takes from; its service says which
        self.lanes: tuple[Lane, ...] = ()
        self.state = READY
        #: ticket -> request; a request that is done stays until its reply brings the token home
        self.in_flight: dict[int, Request] = {}
        self.heard_ns = now_ns
        #: what READY said of device, process and methods, for the stats
        self.ready: control.Ready | None = None
        #: what the last heartbeat said of the running batch
        self.progress = control.Heartbeat()


class TokenPool:
    """The free tokens of one lane, least loaded worker first: O(1), no scan of the workers.

    Workers stand in levels by their number of requests in flight; a bit mask tells which levels
    are occupied. An extra worker stands one level higher: an idle device worker answers sooner,
    because its models are not a trip over the bus away.
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
        load += worker.is_extra
        while len(self._levels) <= load:
            self._levels.append({})
        self._levels[load][worker] = None
        self._mask |= 1 << load

    def remove(self, worker: Worker) -> None:
        """Withdraw the worker's tokens. Call it before its number in flight changes."""
        load = len(worker.in_flight) + worker.is_extra
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


class Lane:
    """Requests that the same workers take: their backlog, and the free tokens of these workers."""

    __slots__ = ("backlog", "queued", "tokens")

    def __init__(self) -> None:
        #: waiting requests in order; those that are done are skipped and swept
        self.backlog: deque[Request] = deque()
        #: requests in the backlog that are not done
        self.queued = 0
        self.tokens = TokenPool()

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


class Service:
    """A routing unit `servable/version`: its workers, and the lanes that they take from."""

    __slots__ = (
        "_device_lane",
        "_extra_methods",
        "_shared_lane",
        "give_up_ns",
        "key",
        "lanes",
        "retired",
        "servable",
        "version",
        "workers",
    )

    def __init__(self, key: bytes, servable: str, version: int) -> None:
        self.key = key
        self.servable = servable
        self.version = version
        self.workers: dict[Worker, None] = {}
        #: until when requests wait for a device worker; None while there is one
        self.give_up_ns: int | None = None
        #: why the supervisor starts no more workers, if it said so
        self.retired: str | None = None
        self._shared_lane = Lane()
        self._device_lane: Lane | None = None
        #: what every extra worker so far offered
        self._extra_methods: frozenset[bytes] = frozenset()
        #: in the order in which a device worker takes from them
        self.lanes: tuple[Lane, ...] = (self._shared_lane,)

    @property
    def queued(self) -> int:
        """How many requests wait."""
        return sum(lane.queued for lane in self.lanes)

    @property
    def has_device_worker(self) -> bool:
        """Whether somebody is here who runs every method."""
        return any(not worker.is_extra for worker in self.workers)

    def lane_of(self, head: bytes) -> Lane:
        """Where a request with this head waits."""
        if self._device_lane is None or heads.method_of(head) in self._extra_methods:
            return self._shared_lane
        return self._device_lane

    def add_worker(self, worker: Worker, methods: frozenset[bytes]) -> None:
        """Take in a worker and offer its tokens. methods: the names that it offers."""
        if worker.is_extra:
            self._split(methods)
        self.workers[worker] = None
        worker.lanes = (self._shared_lane,) if worker.is_extra else self.lanes
        self.offer(worker)

    def offer(self, worker: Worker) -> None:
        """Offer the worker's free tokens in its lanes."""
        for lane in worker.lanes:
            lane.tokens.add(worker)

    def withdraw(self, worker: Worker) -> None:
        """Withdraw the worker's tokens. Call it before its number in flight changes."""
        for lane in worker.lanes:
            lane.tokens.remove(worker)

    def _split(self, methods: frozenset[bytes]) -> None:
        """Keep what extra workers do not run apart from now on."""
        if self._device_lane is None:
            self._extra_methods = methods
            device_lane = self._device_lane = Lane()
            self.lanes = (device_lane, self._shared_lane)
            for worker in self.workers:
                self.withdraw(worker)
                worker.lanes = self.lanes
                if worker.state == READY:
                    self.offer(worker)
        self._extra_methods &= methods
        waiting = [request for request in self._shared_lane.backlog if request.waiting]
        self._shared_lane.backlog.clear()
        self._shared_lane.queued = 0
        for request in waiting:
            request.lane = self.lane_of(request.head)
            request.lane.enqueue(request)
