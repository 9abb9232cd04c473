"""What the core keeps: requests, workers with their credit, and services with their lanes.

A worker announces a *credit*: how many requests it will hold. A service has one lane (`lane.py`),
which all its workers take from. With extra workers, which run only the methods that they offer, it
has two: the shared lane for these methods, and the device lane, which device workers take from
first, so that model calls of extra workers never wait behind requests that wait for one of these.

Rule: a worker is in the pools of its lanes if and only if it is READY, has a free token, and is not
kept for suspects.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from broker.lane import Backlog, Lane
from broker.method_statistics import Statistics
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
        "begun_ns",
        "body_bytes",
        "client",
        "deadline_ns",
        "deaths",
        "done",
        "frames",
        "head",
        "lane",
        "request_id",
        "returns",
        "service",
        "since_ns",
        "ticket",
        "waits_in",
        "worker",
    )

    def __init__(
        self,
        client: Hashable,
        request_id: int,
        head: bytes,
        frames: list[Frame],
        body_bytes: int,
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
        self.body_bytes = body_bytes
        self.service = service
        self.lane = service.lane_of(head)
        self.since_ns = now_ns
        #: when its last attempt began
        self.begun_ns = now_ns
        self.deadline_ns = deadline_ns
        #: executions begun so far; at most `attempts_max`
        self.attempt = 0
        #: workers that it may have killed; a suspect has at least one
        self.deaths = 0
        #: how often a worker died that held it and had not started it
        self.returns = 0
        #: number of the last attempt, 0 before the first
        self.ticket = 0
        #: where it waits, if it does
        self.waits_in: Backlog | None = None
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
        "is_kept",
        "lanes",
        "lost_ns",
        "moved_ns",
        "patient_until_ns",
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
        #: it is kept for suspects: one at a time, and nothing else
        self.is_kept = False
        #: its connection is gone; when it is lost unless somebody knows more by then
        self.lost_ns: int | None = None
        #: the lanes that it takes from; its service says which
        self.lanes: tuple[Lane, ...] = ()
        self.state = READY
        #: ticket -> request; a request that is done stays until its reply brings the token home
        self.in_flight: dict[int, Request] = {}
        self.heard_ns = now_ns
        #: when it last answered, or got its first request after it had none
        self.moved_ns = now_ns
        #: until when it may take its time, because it compiles
        self.patient_until_ns = 0
        #: what READY said of device, process and methods, for the stats
        self.ready: control.Ready | None = None
        #: what the last heartbeat said of the running batch
        self.progress = control.Heartbeat()


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
        "statistics",
        "version",
        "workers",
    )

    def __init__(self, key: bytes, servable: str, version: int) -> None:
        self.key = key
        self.servable = servable
        self.version = version
        self.workers: dict[Worker, None] = {}
        self.statistics = Statistics()
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
        return sum(lane.backlog.count + lane.suspects.count for lane in self.lanes)

    @property
    def has_device_worker(self) -> bool:
        """Whether somebody is here who runs every method."""
        return any(not worker.is_extra for worker in self.workers)

    @property
    def takes_work(self) -> bool:
        """Whether somebody is here who runs every method and takes more requests."""
        return any(w.state == READY and not w.is_extra for w in self.workers)

    def lane_of(self, head: bytes) -> Lane:
        """Where a request with this head waits."""
        if self._device_lane is None or heads.method_of(head) in self._extra_methods:
            return self._shared_lane
        return self._device_lane

    def add_worker(self, worker: Worker, methods: frozenset[bytes]) -> None:
        """Take in a worker and offer its tokens. methods: the names that it offers."""
        if worker.is_extra:
            self._split(methods)
        self.statistics.know(methods)
        self.workers[worker] = None
        worker.lanes = (self._shared_lane,) if worker.is_extra else self.lanes
        self.offer(worker)

    def offer(self, worker: Worker) -> None:
        """Offer the worker's free tokens in its lanes, unless it is kept for suspects."""
        if not worker.is_kept:
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
        for backlog in (self._shared_lane.backlog, self._shared_lane.suspects):
            for request in backlog.take_all():
                request.lane = lane = self.lane_of(request.head)
                is_suspect = backlog is self._shared_lane.suspects
                (lane.suspects if is_suspect else lane.backlog).add(request)
