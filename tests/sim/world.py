"""A seeded world around the real core: virtual clock, links with delays, peers that fail.

Everything random comes from one `random.Random(seed)`, so a seed replays a run exactly. Messages
of one link are delayed but never reordered; what is on the way when a link is cut is lost. After
every event the core's invariants are checked; `World.run` ends with the checks of a whole run.

Checked: I1 one final reply per request · I2 credit · I3 nothing behind the acknowledgement of a
drain · I4 a lane has backlog or tokens · I5 in-flight tables agree · I6 limits · I7 all tables
empty at the end · I9 FIFO for first attempts · I10 tickets are never reused · replies carry the
right value · an extra worker gets only what it offers · at most two executions · no reply later
than its deadline and one tick.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from broker.core import Core
from broker.deadlines import TICK_NS
from protocol import control
from protocol import head as heads
from tests.sim.peers import SimClient, SimWorker
from tests.sim.weather import Weather

MS = 1_000_000
SECOND = 1_000 * MS

#: Faults happen in this time; afterwards the world is left in peace until it is quiet.
FAULTS_NS = 3 * SECOND
QUIET_NS = 30 * SECOND

#: How often the world looks whether it is quiet, which must be so twice.
LOOK_NS = 250 * MS


class Link:
    """One direction of a connection: FIFO, delayed, and dead once it is cut."""

    def __init__(self, world: World, deliver: Callable[[list[Any]], None]) -> None:
        self._world = world
        self._deliver = deliver
        self._last_ns = 0
        self._held: list[list[Any]] | None = None
        self.is_cut = False

    def send(self, parts: list[Any]) -> None:
        delay_ns = int(self._world.random.uniform(0.01, 3) * MS)
        self._last_ns = max(self._last_ns + 1, self._world.now_ns + delay_ns)
        self._world.at(self._last_ns, lambda: self._arrive(parts))

    def hold(self) -> None:
        """Let nothing arrive until `release`, as a network that is down."""
        self._held = []

    def release(self) -> None:
        """What was held arrives, in its order, and everything from now on."""
        held, self._held = self._held or [], None
        for parts in held:
            self._arrive(parts)

    def _arrive(self, parts: list[Any]) -> None:
        if self.is_cut:
            return
        if self._held is not None:
            self._held.append(parts)
        else:
            self._deliver(parts)


class World:
    """One run: clients, workers, the core between them, and the fates that a seed deals."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now_ns = 1 * SECOND
        self.weather = Weather(self.random)
        self.core = Core(self.weather.settings)
        #: What befell the peers.
        self.met: Counter[str] = Counter()
        self.executions: Counter[bytes] = Counter()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._armed_ns: int | None = None
        self._has_turned = False
        self._quiet_looks = 0
        #: The workers are leaving for good.
        self.is_ending = False
        self._is_over = False
        self._to_workers: dict[bytes, Link] = {}
        self._to_clients: dict[bytes, Link] = {}
        self._arrivals: dict[bytes, int] = {}
        #: payload -> the service that the request was bound to when it came
        self._bound: dict[bytes, bytes] = {}
        #: payloads that have lost their place in a line: they were sent to a worker before, or were
        #: for version 0, and their version took no work any more
        self._displaced: set[bytes] = set()
        self._dispatched: dict[bytes, int] = {}
        self._drained: set[bytes] = set()
        self._ticket_last = 0
        layout = [(1, 2, False), (1, 1, False), (2, 3, False)][: self.random.randint(1, 3)]
        layout += [(1, 2, True), (2, 1, True)][: self.random.randint(0, 2)]
        self.workers = [
            SimWorker(self, f"slot{number}", version, credit, is_extra)
            for number, (version, credit, is_extra) in enumerate(layout)
        ]
        #: Requests move between versions only where there are two.
        self._has_versions = len({version for version, _, _ in layout}) > 1
        self.clients = [SimClient(self, f"client{number}") for number in range(3)]

    # ------------------------------------------------------------ time

    def at(self, when_ns: int, event: Callable[[], None]) -> None:
        """Let something happen at a time (at once if it is past)."""
        self._sequence += 1
        heapq.heappush(self._events, (max(when_ns, self.now_ns), self._sequence, event))

    def after_ms(self, low: float, high: float, event: Callable[[], None]) -> None:
        """Let something happen after a random time in a range."""
        self.at(self.now_ns + int(self.random.uniform(low, high) * MS), event)

    @property
    def has_faults(self) -> bool:
        """Faults are still being dealt."""
        return self.now_ns < 1 * SECOND + FAULTS_NS

    def run(self) -> None:
        """Deal faults, wait for quiet, let everybody go, and check the whole run."""
        for worker in self.workers:
            self.after_ms(0, 200, worker.start)
        for client in self.clients:
            self.after_ms(0, 50, client.act)
        for _ in range(4):
            self.after_ms(0, FAULTS_NS // MS, self.supervisor_shares_version_0)
        self.after_ms(0, FAULTS_NS // MS, self.supervisor_retires_a_version)
        end_ns = self.now_ns + FAULTS_NS + QUIET_NS
        self.at(self.now_ns + FAULTS_NS, self._look)
        while self._events and not self._is_over:
            when_ns, _, event = heapq.heappop(self._events)
            assert self.now_ns <= when_ns <= end_ns, "the world never became quiet"
            self.now_ns = when_ns
            event()
            if self._has_turned:
                self._has_turned = False
                self.core.check_invariants()
        self._check_run()

    def _look(self) -> None:
        """Whether the world is quiet, and then, without workers, at its end."""
        if self.is_ending:
            self._is_over = not self.core.registration.services
        elif all(peer.is_quiet for peer in (*self.clients, *self.workers)):
            self._quiet_looks += 1
            if self._quiet_looks == 2:
                self._check_quiet()
                self.is_ending = True
                for worker in self.workers:
                    worker.leave()
        else:
            self._quiet_looks = 0
        self.at(self.now_ns + LOOK_NS, self._look)

    # ------------------------------------------------------------ the shell of the core

    def receive_from_client(self, routing_id: bytes, parts: list[Any]) -> None:
        """A client's message reaches the broker."""
        for head, frames in heads.split_parcels(parts):
            if head[3] == heads.REQUEST:
                self._arrivals.setdefault(frames[0], len(self._arrivals))
        self.core.receive_from_client(routing_id, parts, self.now_ns)
        for request in self.core._clients.get(routing_id, {}).values():
            self._bound.setdefault(bytes(request.frames[0]), request.service.key)
        self._turn()

    def receive_from_worker(self, routing_id: bytes, parts: list[Any]) -> None:
        """A worker's message reaches the broker."""
        self.core.receive_from_worker(routing_id, parts, self.now_ns)
        self._note_displaced()
        self._turn()

    def supervisor_says_lost(
        self, worker_id: str, generation: int, started: tuple[int, ...] | None
    ) -> None:
        """The process sentinel saw a worker die. started: tickets that it had begun to compute."""
        is_blameless = self.random.random() < 0.3
        lost = control.Lost(worker_id, generation, "killed", started, is_blameless)
        parts = control.pack(lost)
        self.core.receive_from_worker(b"supervisor", parts, self.now_ns)
        self._turn()

    def supervisor_shares_version_0(self) -> None:
        """A roll, or its end: version 0 is split between the versions, or not any more."""
        weights = self.random.choice(((), ((1, 1), (2, 2)), ((1, 3),)))
        labels = self.random.choice(((), (("stable", 1), ("canary", 2)), (("stable", 2),)))
        parts = control.pack(control.Share("s", weights, labels))
        self.core.receive_from_worker(b"supervisor", parts, self.now_ns)
        self._turn()

    def supervisor_retires_a_version(self) -> None:
        """A version gets no more workers, as far as the supervisor knows now."""
        retire = control.Retire(self.random.choice(("s/1", "s/2")), "rolled")
        self.core.receive_from_worker(b"supervisor", control.pack(retire), self.now_ns)
        self._turn()

    def _turn(self) -> None:
        self._has_turned = True
        self.core.handle_timer(self.now_ns)
        self._note_displaced()
        while self.core.outbox:
            to_clients, to_workers = self.core.outbox.take()
            self._check_dispatch(to_workers)
            for client, parts in to_clients:
                self._deliver_to_client(client, parts)
            for routing_id, parts in to_workers.items():
                self._deliver_to_worker(routing_id, parts)
        self._arm()

    def _arm(self) -> None:
        next_ns = self.core.next_timer_ns()
        if next_ns is not None and (self._armed_ns is None or next_ns < self._armed_ns):
            self._armed_ns = next_ns
            self.at(next_ns, self._timer)

    def _timer(self) -> None:
        if self._armed_ns is not None and self._armed_ns <= self.now_ns:
            self._armed_ns = None
        self._turn()

    def _deliver_to_client(self, client: Any, parts: list[Any]) -> None:
        link = self._to_clients.get(client)
        if link is None or link.is_cut:
            self.core.client_lost(client)
        else:
            link.send(parts)

    def _deliver_to_worker(self, routing_id: bytes, parts: list[Any]) -> None:
        link = self._to_workers.get(routing_id)
        if link is not None and not link.is_cut:
            link.send(parts)
            return
        # The kernel may have swallowed it, or the ROUTER may know that the peer is gone.
        worker = self.core.registration.workers.get(routing_id)
        if worker is not None and self.random.random() < 0.5:
            self.core.worker_lost(worker, self.now_ns, "its connection is gone")

    def _check_dispatch(self, to_workers: dict[bytes, list[Any]]) -> None:
        """Check the requests of one turn in the order of their tickets."""
        requests: list[tuple[int, bytes, heads.Head, Any]] = []
        workers = self.core.registration.workers
        for routing_id, parts in to_workers.items():
            for frame, frames in heads.split_parcels(parts):
                head = heads.unpack(frame)
                if head.command == heads.DRAIN:
                    self._drained.add(routing_id)
                elif head.command == heads.REQUEST:
                    assert routing_id not in self._drained, "I3: a request behind the drain"
                    requests.append((head.request_id, routing_id, head, frames[0]))
        if requests:
            self._note_displaced()
        for ticket, routing_id, head, payload in sorted(requests, key=lambda item: item[0]):
            assert ticket > self._ticket_last, "I10: a ticket is used again"
            self._ticket_last = ticket
            worker = workers.get(routing_id)
            if head.flags & heads.FLAG_REDELIVERED or worker is None:
                continue
            # Requests of one service wait in line with those of the same method.
            is_displaced = payload in self._displaced or self._bound[payload] != worker.service.key
            self._displaced.add(payload)
            if is_displaced:
                continue
            arrival, key = self._arrivals[payload], worker.service.key + head.method
            assert arrival > self._dispatched.get(key, -1), "I9: FIFO of first attempts"
            self._dispatched[key] = arrival

    def _note_displaced(self) -> None:
        if not self._has_versions:
            return
        for outstanding in self.core._clients.values():
            for request in outstanding.values():
                payload = bytes(request.frames[0])
                if request.service.key != self._bound[payload]:
                    self._displaced.add(payload)

    # ------------------------------------------------------------ connections

    def connect_worker(self, routing_id: bytes, deliver: Callable[[list[Any]], None]) -> Link:
        """A worker connects; returns its link to the broker."""
        self._to_workers[routing_id] = Link(self, deliver)
        return Link(self, lambda parts: self.receive_from_worker(routing_id, parts))

    def link_to_worker(self, routing_id: bytes) -> Link:
        """The other direction of a worker's connection."""
        return self._to_workers[routing_id]

    def connect_client(self, routing_id: bytes, deliver: Callable[[list[Any]], None]) -> Link:
        """A client connects; returns its link to the broker."""
        self._to_clients[routing_id] = Link(self, deliver)
        return Link(self, lambda parts: self.receive_from_client(routing_id, parts))

    def disconnect(self, routing_id: bytes) -> None:
        """Cut the links towards a peer."""
        for links in (self._to_workers, self._to_clients):
            if routing_id in links:
                links[routing_id].is_cut = True

    # ------------------------------------------------------------ the end

    def _check_quiet(self) -> None:
        """Nobody waits for anything: no table of requests may have an entry."""
        assert self.core.load() == (0, 0), "I7: requests left"
        assert len(self.core._deadlines) == 0, "I7: deadlines left"
        assert not self.core._clients, "I7: clients left"
        for worker in self.core.registration.workers.values():
            assert not worker.in_flight, f"I7: {worker.worker_id} holds {list(worker.in_flight)}"

    def _check_run(self) -> None:
        """Everybody is gone: no table may have an entry, and no timer is set."""
        for client in self.clients:
            client.check_outcomes()
        assert all(count <= 2 for count in self.executions.values()), "more than two executions"
        self._check_quiet()
        registration = self.core.registration
        assert not registration.workers, "I7: workers left"
        assert not registration._by_id, "I7: slots left"
        assert not registration.services, "I7: services left"
        assert not registration.routes, "I7: routes left"
        assert self.core.next_timer_ns() is None, "I7: a broker that is idle sleeps"

    def deadline_slack_ns(self) -> int:
        """How late an answer may reach a client: one tick, the way back, and the way in."""
        return TICK_NS + 2 * 3 * MS + 2 * MS


def run_seed(seed: int) -> World:
    """Run one world; a failure names the seed that replays it. Raises AssertionError."""
    world = World(seed)
    try:
        world.run()
    except AssertionError as error:
        raise AssertionError(f"seed {seed} at {world.now_ns} ns: {error}") from error
    return world
