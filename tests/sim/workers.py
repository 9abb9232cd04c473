"""Workers of the simulated world: the real `WorkerSession`, and around it what its shells do.

`workers/bus.py` is the model for connections, `workers/device_worker.py` for what is computed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from protocol import control
from protocol import head as heads
from protocol.values import MethodSignature
from protocol.worker_session import CLOSED, READY, Arrival, SessionSettings, WorkerSession
from tests.sim.clients import METHODS, POISON
from tests.sim.links import MS, Connection
from tests.sim.weather import CRASH, CUT, FREEZE

if TYPE_CHECKING:
    from tests.sim.world import World


class SimWorker:
    """A slot: incarnations of a process that crash, freeze, are cut off, drain and come back."""

    def __init__(self, world: World, slot: str, version: int, credit: int, is_extra: bool) -> None:
        self._world = world
        self._is_extra = is_extra
        self._slot = slot
        self.service = f"s/{version}"
        self._credit = credit
        self._generation = 0
        self._session: WorkerSession | None = None

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
        methods = (MethodSignature("s", "m", ("x",), ("y",)),)
        ready = control.Ready(
            self._slot,
            self._generation,
            self.service,
            self._credit,
            methods,
            control.Device("CPU", 0),
            1,
            "s",
            self._is_extra,
        )
        self._session = WorkerSession(SessionSettings(ready, 100, 3))
        self._epoch = 0
        self._connection: Connection | None = None
        self._frozen: list[list[Any]] | None = None
        self._queue: list[Arrival] = []
        self._batch: list[tuple[int, Arrival]] = []
        #: Tickets that this connection has begun to compute: the progress page.
        self._started: list[int] = []
        self._computing = False
        #: which directions of its connections are down: to the broker, from it
        self._silent = (False, False)
        self._armed_ns: int | None = None
        self._session.connect(self._world.now_ns)
        self._pump()
        self._await_fate(self._generation)

    # ------------------------------------------------------------ fates

    def _await_fate(self, life: int) -> None:
        self._world.after_ms(30, self._world.weather.fate_ms, lambda: self._meet_fate(life))

    def _meet_fate(self, life: int) -> None:
        if not self._is_alive(life) or not self._world.has_faults:
            return
        fate = self._world.weather.fate(self._world.random)
        self._world.met[fate] += 1
        if fate == CRASH:
            self._crash()
        elif fate == FREEZE:
            self._freeze(life)
        elif fate == CUT:
            self._cut_off(life)
        elif self._session is not None:
            self._session.drain(self._world.now_ns)
            self._pump()

    def _is_alive(self, life: int) -> bool:
        return life == self._generation and self._session is not None

    def _die(self, life: int) -> None:
        if self._is_alive(life):
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
            report = world.supervisor.report_lost
            world.after_ms(1, 50, lambda: report(self._slot, generation, started))
        world.after_ms(5, 800, self.start)

    def _freeze(self, life: int) -> None:
        self._frozen = []
        self._world.after_ms(10, 1_000, lambda: self._thaw(life))

    def _thaw(self, life: int) -> None:
        if not self._is_alive(life):
            return
        pending, self._frozen = self._frozen or [], None
        for parts in pending:
            self._receive(parts)
        self._wake(life)
        self._await_fate(life)

    def _cut_off(self, life: int) -> None:
        """The network is down, in both directions or in one; connections made meanwhile wait."""
        self._silent = self._world.random.choice(((True, True), (True, False), (False, True)))
        if self._connection is not None:
            self._connection.silence(*self._silent)
        self._world.after_ms(10, 1_500, lambda: self._heal(life))

    def _heal(self, life: int) -> None:
        if not self._is_alive(life):
            return
        self._silent = (False, False)
        if self._connection is not None:
            self._connection.silence(*self._silent)
        self._await_fate(life)

    # ------------------------------------------------------------ the shell of the session

    def _arm(self) -> None:
        """Wake up when the session wants it, and a little later, as real timers do."""
        next_ns = self._session.next_timer_ns() if self._session is not None else None
        if next_ns is not None and (self._armed_ns is None or next_ns < self._armed_ns):
            self._armed_ns = next_ns
            life = self._generation
            late_ns = int(self._world.random.random() * 5 * MS)
            self._world.at(next_ns + late_ns, lambda: self._wake(life))

    def _wake(self, life: int) -> None:
        if not self._is_alive(life):
            return
        self._armed_ns = None
        if self._frozen is None:
            assert self._session is not None
            self._session.handle_timer(self._world.now_ns)
            self._pump()

    def _receive(self, parts: list[Any]) -> None:
        if self._session is None:
            return
        if self._frozen is not None:
            self._frozen.append(parts)
        else:
            self._session.receive(parts, self._world.now_ns)
            self._pump()

    def _pump(self) -> None:
        """What the worker's shell does after every event."""
        session = self._session
        assert session is not None
        session.check_invariants()
        if session.epoch != self._epoch:
            self._reopen()
        self._queue += session.arrivals
        session.arrivals.clear()
        self._flush()
        if session.state == CLOSED:
            # Its last words arrive; whoever crashed has none.
            self._disconnect(is_killed=False)
            self._session = None
            self._world.after_ms(5, 300, self.start)
            return
        self._arm()
        if self._queue and not self._computing:
            self._compute()

    def _reopen(self) -> None:
        """A new socket for a new connection: what is of an older one is void."""
        assert self._session is not None
        self._disconnect()
        self._epoch = self._session.epoch
        self._queue.clear()
        self._started.clear()
        life = (self._generation, self._epoch)

        def deliver(parts: list[Any]) -> None:
            if life == (self._generation, self._epoch):
                self._receive(parts)

        def flush() -> None:
            if life == (self._generation, self._epoch) and self._frozen is None:
                self._flush()

        name = f"{self._slot}.{self._generation}.{self._epoch}"
        self._connection = Connection(self._world, name, True, deliver, flush)
        self._connection.silence(*self._silent)

    def _flush(self) -> None:
        """Send what can be sent; without a broker it waits in the session."""
        if self._session is None or self._connection is None:
            return
        outbox = self._session.outbox
        while outbox and self._connection.send(outbox[0]):
            del outbox[0]

    def _disconnect(self, is_killed: bool = True) -> None:
        if self._connection is not None:
            self._connection.close(is_killed)
            self._connection = None

    # ------------------------------------------------------------ computing

    def _compute(self) -> None:
        """Begin a batch with everything that is here."""
        self._computing = True
        self._batch, self._queue = [(self._epoch, arrival) for arrival in self._queue], []
        for _, arrival in self._batch:
            self._started.append(heads.unpack(arrival.head).request_id)
            assert not self._is_extra or heads.method_of(arrival.head) == METHODS[0]
            self._world.executions[bytes(arrival.frames[0])] += 1
        life = self._generation
        if any(POISON.encode() in arrival.frames[0] for _, arrival in self._batch):
            self._world.after_ms(0.1, 5, lambda: self._die(life))
            return
        longest_ms = 400 if self._world.random.random() < 0.1 else 40
        self._world.after_ms(0.2, longest_ms, lambda: self._complete(life))

    def _complete(self, life: int) -> None:
        if not self._is_alive(life):
            return
        if self._frozen is not None:
            self._world.after_ms(1, 20, lambda: self._complete(life))
            return
        assert self._session is not None
        self._computing = False
        for epoch, arrival in self._batch:
            payload = bytes(arrival.frames[0])
            ticket = heads.unpack(arrival.head).request_id
            head = heads.Head(heads.REPLY, request_id=ticket, body_frames=1)
            answer = [heads.pack(head), b"answer to " + payload]
            self._session.complete(epoch, (ticket,), answer)  # type: ignore[arg-type]
            if self._world.random.random() < 0.01 and epoch == self._session.epoch:
                # A worker that repeats itself: nobody's ticket any more.
                self._session.outbox += self._session.outbox[-1:]
        self._pump()
