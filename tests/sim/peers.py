"""Clients and workers of the simulated world; the worker's end is the real `WorkerSession`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocol import control
from protocol import head as heads
from protocol.native import decode_failure
from protocol.values import MethodSignature
from protocol.worker_session import CLOSED, READY, Arrival, SessionSettings, WorkerSession
from tests.sim.weather import CRASH, CUT, FREEZE

if TYPE_CHECKING:
    from tests.sim.world import Link, World

MS = 1_000_000

#: What clients ask for; an extra worker runs the first one only.
METHODS = (b"m", b"@call")

#: Whom they ask: versions, labels, and somebody who is not there.
SERVICES = (b"s/0", b"s/0", b"s/1", b"s/2", b"s/stable/0", b"s/canary/0", b"other/1")

#: A payload with this kills whichever worker computes it.
POISON = ".poison"


class SimClient:
    """Sends requests with random services and budgets, cancels some, sometimes vanishes."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self._life = 0
        self._next_id = 0
        #: request id -> (payload, deadline)
        self._outstanding: dict[int, tuple[bytes, int]] = {}
        self._cancelled: set[int] = set()
        self._answered: set[int] = set()
        self._connect()

    def _connect(self) -> None:
        self._life += 1
        life = self._life
        self._routing_id = f"{self._name}.{life}".encode()
        self._outstanding.clear()

        def deliver(parts: list[Any]) -> None:
            if life == self._life:
                self._receive(parts)

        self._link = self._world.connect_client(self._routing_id, deliver)

    def act(self) -> None:
        """Do one thing, and come again unless the faults are over."""
        world = self._world
        if not world.has_faults:
            return
        dice = world.random.random()
        if dice < 0.01:
            world.met["client left"] += 1
            world.disconnect(self._routing_id)
            self._link.is_cut = True
            self._connect()
        elif dice < 0.08 and self._outstanding:
            self._cancel(world.random.choice(sorted(self._outstanding)))
        else:
            self._request(world.random.randint(1, 3))
        world.after_ms(1, world.weather.pause_ms, self.act)

    def _request(self, count: int) -> None:
        random = self._world.random
        parts: list[bytes] = []
        for _ in range(count):
            self._next_id += 1
            poison = POISON if random.random() < self._world.weather.poison else ""
            payload = f"{self._name}.{self._next_id}{poison}".encode()
            budget_ms = random.choice((0, 5, 30, 200, 5_000))
            head = heads.Head(
                heads.REQUEST,
                flags=random.choice((0, heads.FLAG_COALESCE)),
                request_id=self._next_id,
                budget_ms=budget_ms,
                body_frames=1,
                service=random.choice(SERVICES),
                method=random.choice(METHODS),
            )
            deadline_ns = self._world.now_ns + (budget_ms or 20_000) * MS
            self._outstanding[self._next_id] = (payload, deadline_ns)
            parts += [heads.pack(head), payload]
        self._link.send(parts)

    def _cancel(self, request_id: int) -> None:
        del self._outstanding[request_id]
        self._cancelled.add(request_id)
        self._link.send([heads.pack(heads.Head(heads.CANCEL, request_id=request_id))])

    def _receive(self, parts: list[Any]) -> None:
        for frame, frames in heads.split_parcels(parts):
            head = heads.unpack(frame)
            assert head.request_id not in self._answered, "I1: a second reply"
            self._answered.add(head.request_id)
            if head.request_id in self._cancelled:
                continue  # it crossed our CANCEL on the way
            payload, deadline_ns = self._outstanding.pop(head.request_id)
            if head.status:
                decode_failure(frames)
            else:
                assert frames == [b"answer to " + payload], (frames, payload)
            latest_ns = deadline_ns + self._world.deadline_slack_ns()
            assert self._world.now_ns <= latest_ns, f"answered late: {payload!r}"

    @property
    def is_quiet(self) -> bool:
        """It waits for nothing."""
        return not self._outstanding

    def check_outcomes(self) -> None:
        """At the end nothing may be outstanding."""
        assert not self._outstanding, f"I1: {self._name} never heard of {self._outstanding}"


class SimWorker:
    """A slot: incarnations of a process that crash, freeze, are cut off, drain and come back."""

    def __init__(self, world: World, slot: str, version: int, credit: int, is_extra: bool) -> None:
        self._world = world
        self._is_extra = is_extra
        self._slot = slot
        self._version = version
        self._credit = credit
        self._generation = 0
        self._session: WorkerSession | None = None
        self._armed_ns: int | None = None

    @property
    def is_quiet(self) -> bool:
        """It is registered, holds nothing, and nothing keeps it from its broker."""
        session = self._session
        return (
            session is not None
            and session.state == READY
            and not session.in_flight
            and self._frozen is None
            and not any(self._silent)
        )

    def leave(self) -> None:
        """The world ends: drain, and never come back. REQUIRES: `is_quiet`."""
        assert self._session is not None
        self._session.drain(self._world.now_ns)
        self._pump()

    def start(self) -> None:
        """Begin a new incarnation and plan its end."""
        if self._world.is_ending:
            return
        self._generation += 1
        device = control.Device("CPU", 0)
        methods = (MethodSignature("s", "m", ("x",), ("y",)),)
        ready = control.Ready(
            self._slot,
            self._generation,
            f"s/{self._version}",
            self._credit,
            methods,
            device,
            1,
            "s",
            self._is_extra,
        )
        self._session = WorkerSession(SessionSettings(ready, 100, 3))
        self._epoch = 0
        self._link: Link | None = None
        self._frozen: list[list[Any]] | None = None
        self._queue: list[tuple[int, Arrival]] = []
        self._batch: list[tuple[int, Arrival]] = []
        #: Tickets that this incarnation has begun to compute.
        self._started: list[int] = []
        self._computing = False
        #: which directions of its connections are down: to the broker, from it
        self._silent = (False, False)
        self._armed_ns = None
        self._session.connect(self._world.now_ns)
        self._pump()
        self._await_fate(self._generation)

    def _await_fate(self, life: int) -> None:
        self._world.after_ms(30, self._world.weather.fate_ms, lambda: self._meet_fate(life))

    def _meet_fate(self, life: int) -> None:
        if life != self._generation or self._session is None or not self._world.has_faults:
            return
        fate = self._world.weather.fate(self._world.random)
        self._world.met[fate] += 1
        if fate == CRASH:
            self._crash()
        elif fate == FREEZE:
            self._freeze(life)
        elif fate == CUT:
            self._cut_off(life)
        else:
            self._session.drain(self._world.now_ns)
            self._pump()

    def _die(self, life: int) -> None:
        if life == self._generation and self._session is not None:
            self._world.met["poisoned"] += 1
            self._crash()

    def _crash(self) -> None:
        world, generation = self._world, self._generation
        self._disconnect()
        self._session = None
        started: tuple[int, ...] | None = tuple(self._started)
        if world.random.random() < 0.3:
            started = None  # a worker without a page
        if world.random.random() < 0.7:
            world.after_ms(
                1, 50, lambda: world.supervisor_says_lost(self._slot, generation, started)
            )
        world.after_ms(5, 800, self.start)

    def _freeze(self, life: int) -> None:
        self._frozen = []
        self._world.after_ms(10, 1_000, lambda: self._thaw(life))

    def _thaw(self, life: int) -> None:
        if life != self._generation or self._session is None:
            return
        pending, self._frozen = self._frozen or [], None
        for parts in pending:
            self._receive(parts)
        self._wake(life)
        self._await_fate(life)

    def _cut_off(self, life: int) -> None:
        """The network is down, in both directions or in one; connections made meanwhile wait."""
        self._silent = self._world.random.choice(((True, True), (True, False), (False, True)))
        for link in self._silent_links():
            link.hold()
        self._world.after_ms(10, 1_500, lambda: self._heal(life))

    def _heal(self, life: int) -> None:
        if life != self._generation or self._session is None:
            return
        links, self._silent = self._silent_links(), (False, False)
        for link in links:
            link.release()
        self._await_fate(life)

    def _silent_links(self) -> list[Link]:
        if self._link is None:
            return []
        both = (self._link, self._world.link_to_worker(self._routing_id))
        return [link for link, is_silent in zip(both, self._silent, strict=True) if is_silent]

    def _arm(self) -> None:
        """Wake up when the session wants it, and a little later, as real timers do."""
        next_ns = self._session.next_timer_ns() if self._session is not None else None
        if next_ns is not None and (self._armed_ns is None or next_ns < self._armed_ns):
            self._armed_ns = next_ns
            life = self._generation
            self._world.at(next_ns + self._world.random.randrange(5 * MS), lambda: self._wake(life))

    def _wake(self, life: int) -> None:
        if life != self._generation or self._session is None:
            return
        self._armed_ns = None
        if self._frozen is None:
            self._session.handle_timer(self._world.now_ns)
            self._pump()

    def _receive(self, parts: list[Any]) -> None:
        if self._frozen is not None:
            self._frozen.append(parts)
        elif self._session is not None:
            self._session.receive(parts, self._world.now_ns)
            self._pump()

    def _pump(self) -> None:
        """What the worker's shell does after every event."""
        session = self._session
        assert session is not None
        session.check_invariants()
        if session.epoch != self._epoch:
            self._disconnect()
            self._epoch = session.epoch
            self._routing_id = f"{self._slot}.{self._generation}.{self._epoch}".encode()
            life = (self._generation, self._epoch)
            self._link = self._world.connect_worker(
                self._routing_id,
                lambda parts: (
                    self._receive(parts) if life == (self._generation, self._epoch) else None
                ),
            )
            for link in self._silent_links():
                link.hold()
        self._queue += [(self._epoch, arrival) for arrival in session.arrivals]
        session.arrivals.clear()
        for message in session.outbox:
            if self._link is not None:
                self._link.send(message)
        session.outbox.clear()
        if session.state == CLOSED:
            self._session = None
            self._world.after_ms(5, 300, self.start)
            return
        self._arm()
        if self._queue and not self._computing:
            self._compute()

    def _compute(self) -> None:
        """Begin a batch with everything that is here."""
        self._computing = True
        self._batch, self._queue = self._queue, []
        for _, arrival in self._batch:
            self._started.append(heads.unpack(arrival.head).request_id)
            assert not self._is_extra or heads.method_of(arrival.head) == METHODS[0]
            self._world.executions[bytes(arrival.frames[0])] += 1
        life_now = self._generation
        if any(POISON.encode() in arrival.frames[0] for _, arrival in self._batch):
            self._world.after_ms(0.1, 5, lambda doomed=self._generation: self._die(doomed))  # type: ignore[misc]
            return
        longest_ms = 400 if self._world.random.random() < 0.1 else 40
        self._world.after_ms(0.2, longest_ms, lambda: self._complete(life_now))

    def _complete(self, life: int) -> None:
        if life != self._generation or self._session is None:
            return
        if self._frozen is not None:
            self._world.after_ms(1, 20, lambda: self._complete(life))
            return
        self._computing = False
        for epoch, arrival in self._batch:
            payload = bytes(arrival.frames[0])
            ticket = heads.unpack(arrival.head).request_id
            head = heads.Head(heads.REPLY, request_id=ticket, body_frames=1)
            answer = [heads.pack(head), b"answer to " + payload]
            self._session.complete(epoch, (ticket,), answer)  # type: ignore[arg-type]
        self._pump()

    def _disconnect(self) -> None:
        if self._link is not None:
            self._link.is_cut = True
            self._world.disconnect(self._routing_id)
            self._link = None
