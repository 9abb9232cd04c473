"""The simulated broker process: a shell around the real core, which is killed or told to go.

Each life has a core of its own, and nothing that an earlier one knew. It goes by the real
`Stopping`, as `broker/__main__.py` has it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from broker.core import Core
from broker.departures import LOOK_AFTER_NS, who_understands
from broker.stats import totals
from broker.stopping import Stopping
from tests.sim.links import DELAY_MS_MAX, MS, Connection
from tests.sim.watch import Watch

if TYPE_CHECKING:
    from tests.sim.world import World

#: How long what was sent last may take to leave: `broker.__main__.GOODBYE_MS`.
GOODBYE_MS = 200

#: Counters of the core that are summed over all lives.
COUNTERS = (
    "accepted",
    "answered",
    "failed",
    "cancelled",
    "refused",
    "redispatched",
    "duplicates",
    "malformed",
    "replies_late",
    "replies_stale",
    "workers_lost",
)


class SimBroker:
    """What is bound to the broker's addresses, or is about to be."""

    def __init__(self, world: World, has_versions: bool) -> None:
        self._world = world
        self._has_versions = has_versions
        #: Number of the process; a message for another one is lost.
        self.life = 0
        self.is_bound = False
        #: Until when requests may have been lost for which no patient client is compensated.
        self._excuse_ns = 0
        self._was_orderly = True
        self._past: Counter[str] = Counter()
        self._connections: dict[bytes, Connection] = {}

    # ------------------------------------------------------------ lives

    def start(self, services: list[str]) -> None:
        """A new process, which is told the services whose workers are about to register."""
        world = self._world
        if not self._was_orderly:
            self._excuse_ns = world.now_ns
        self.life += 1
        self._begin_ns = world.now_ns
        self._expected = {service.encode() for service in services}
        self.core = core = Core(world.weather.settings)
        self.watch = Watch(core, self._has_versions)
        self._stopping: Stopping | None = None
        self._on_gone: Callable[[], None] = lambda: None
        self._armed_ns: int | None = None
        for key in services:
            core.registration.expect(key.encode(), world.now_ns)
        self.is_bound = True
        self._arm()

    def kill(self) -> None:
        """SIGKILL: nothing more leaves, and some of what was sent does not arrive."""
        world = self._world
        self._excuse_ns = world.now_ns
        self._was_orderly = False
        self._end(lambda _: world.now_ns + int(world.random.uniform(0, DELAY_MS_MAX) * MS))

    def terminate(self, grace_ms: int, on_gone: Callable[[], None]) -> None:
        """SIGTERM: drain, and go when all is answered, or when the grace is over."""
        self._on_gone = on_gone
        self._stopping = stopping = Stopping(grace_ms)
        stopping.begin(1, self._world.now_ns)
        self.core.drain()
        self._turn()

    def _leave(self) -> None:
        """The last words of a broker that was told to go."""
        world = self._world
        for client in world.clients:
            client.check_told()
        self._was_orderly = self.core.load() == (0, 0)
        if self._was_orderly:
            self.check_quiet()
        else:
            until_ns = self._stopping.until_ns if self._stopping is not None else None
            assert until_ns is not None
            assert until_ns <= world.now_ns, "it goes while it holds requests"
            world.met["grace over"] += 1
            self._excuse_ns = world.now_ns
        self.core.registration.say_goodbye()
        self._flush()
        last_ns = world.now_ns + GOODBYE_MS * MS
        self._end(lambda link: min(link.down.last_ns + MS, last_ns) if link.down else last_ns)
        self._on_gone()

    def _end(self, broken_at: Callable[[Connection], int]) -> None:
        self.core.check_invariants()
        self.is_bound = False
        self._past += self._counted()
        self.core = Core(self._world.weather.settings)  # nobody reaches it
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.broken_at(max(broken_at(connection), self._world.now_ns))

    def is_excused(self, since_ns: int) -> bool:
        """Whether a broker has been killed, or ran out of its grace, since then."""
        return self._excuse_ns >= since_ns or not (self.is_bound or self._was_orderly)

    def should_know(self, service: bytes, since_ns: int) -> bool:
        """Whether a request that came since then is for somebody whom this broker must know: it
        was told of all services, so that their requests wait for the workers to register."""
        expected = self._expected
        is_alias = bool(expected) and service in (b"s/0", b"s/stable/0", b"s/canary/0")
        return since_ns >= self._begin_ns and (is_alias or service in expected)

    @property
    def is_quiet(self) -> bool:
        """Nothing is here that nobody waits for: requests that stay when their client leaves; or of
        clients that have vanished, found out when a service without workers is given up."""
        services = self.core.registration.services.values()
        is_ending = any(each.queued and each.give_up_ns is not None for each in services)
        clients = self.core._clients.values()
        stay = any(self.core.outlives_client(each) for held in clients for each in held.values())
        return not is_ending and not stay

    @property
    def is_stopping(self) -> bool:
        """It was told to go."""
        return self._stopping is not None

    def totals(self) -> Counter[str]:
        """What the cores of all lives counted, and the reasons of failures."""
        return self._past + self._counted()

    def _counted(self) -> Counter[str]:
        counted = totals(self.core)
        reasons = self.core.counters.reasons
        return Counter({name: counted[name] for name in COUNTERS}) + reasons

    # ------------------------------------------------------------ connections

    def accept(self, connection: Connection) -> None:
        """A peer has connected."""
        self._connections[connection.routing_id] = connection

    def forget(self, connection: Connection) -> None:
        """A peer is gone; the core learns of it when it sends, or as `Departures` has it."""
        self._connections.pop(connection.routing_id, None)
        life, client = self.life, connection.routing_id
        look_ms = LOOK_AFTER_NS / MS
        self._world.after_ms(look_ms, look_ms + 50, lambda: self._note_departure(life, client))

    def _note_departure(self, life: int, client: bytes) -> None:
        if life == self.life and self.is_bound and client in who_understands(self.core):
            self._world.met["departures"] += 1
            self.core.client_lost(client, self._world.now_ns)
            self._turn()

    @property
    def has_orphans(self) -> bool:
        """It holds requests of clients that are gone, and does not know that they are."""
        return not self.core._clients.keys() <= self._connections.keys()

    def receive_from_client(self, life: int, routing_id: bytes, parts: list[Any]) -> None:
        """A client's message arrives."""
        if life == self.life and self.is_bound:
            self.watch.note_arrival(parts)
            refused, held = self.core.counters.refused, self.core.load()[0]
            self.core.receive_from_client(routing_id, parts, self._world.now_ns)
            is_late = self.is_stopping and held < self.core.load()[0]
            assert not is_late, "a broker that drains takes a request"
            self.watch.note_bound(routing_id)
            self._turn(is_quiet=refused == self.core.counters.refused)

    def receive_from_worker(self, life: int, routing_id: bytes, parts: list[Any]) -> None:
        """A message of a worker or of the supervisor arrives."""
        if life == self.life and self.is_bound:
            self.watch.check_leaving(routing_id, parts)
            self.core.receive_from_worker(routing_id, parts, self._world.now_ns)
            self.watch.note_displaced()
            self._turn()

    # ------------------------------------------------------------ turns

    def _turn(self, is_quiet: bool = True) -> None:
        now_ns = self._world.now_ns
        self.core.handle_timer(now_ns)
        self.watch.note_displaced()
        self._flush()
        self.core.check_invariants()
        self.watch.check_lines()
        self._check_heard()
        stopping = self._stopping
        if stopping is not None:
            stopping.note_turn(is_quiet, now_ns)
            if stopping.is_over(self.core.load()[0], now_ns):
                self._leave()
                return
        self._arm()

    def _arm(self) -> None:
        next_ns = self.core.next_timer_ns()
        if self._stopping is not None:
            wait_ms = self._stopping.cut(None, self._world.now_ns)
            assert wait_ms is not None
            cut_ns = self._world.now_ns + wait_ms * MS
            next_ns = cut_ns if next_ns is None else min(next_ns, cut_ns)
        if next_ns is not None and (self._armed_ns is None or next_ns < self._armed_ns):
            self._armed_ns = next_ns
            life = self.life
            self._world.at(next_ns, lambda: self._wake(life))

    def _wake(self, life: int) -> None:
        if life == self.life and self.is_bound:
            if self._armed_ns is not None and self._armed_ns <= self._world.now_ns:
                self._armed_ns = None
            self._turn()

    def _flush(self) -> None:
        outbox = self.core.outbox
        while outbox:
            to_clients, to_workers = outbox.take()
            self.watch.check_dispatch(to_workers)
            for client, parts in to_clients:
                assert isinstance(client, bytes)
                self._send_to_client(client, parts)
            for routing_id, parts in to_workers.items():
                self._send_to_worker(routing_id, parts)

    def _send_to_client(self, client: bytes, parts: list[Any]) -> None:
        connection = self._connections.get(client)
        if connection is None or connection.down is None:
            self._world.met["client unreachable"] += 1
            self.core.client_lost(client, self._world.now_ns)
            left = self.core._clients.get(client, {}).values()
            assert all(map(self.core.outlives_client, left)), "requests of a client that is gone"
        else:
            connection.down.send(parts)

    def _send_to_worker(self, routing_id: bytes, parts: list[Any]) -> None:
        connection = self._connections.get(routing_id)
        if connection is not None and connection.down is not None:
            connection.down.send(parts)
            return
        # The kernel may have swallowed it, or the ROUTER may know that the peer is gone.
        worker = self.core.registration.workers.get(routing_id)
        if worker is not None and self._world.random.random() < 0.5:
            self._world.met["worker unreachable"] += 1
            self.core.worker_unreachable(worker, self._world.now_ns)

    # ------------------------------------------------------------ checks

    def check_quiet(self) -> None:
        """Nobody waits for anything: no table of requests may have an entry."""
        core = self.core
        assert core.load() == (0, 0), "I7: requests left"
        assert len(core._deadlines) == 0, "I7: deadlines left"
        assert not core._clients, "I7: clients left"
        for worker in core.registration.workers.values():
            assert all(request.done for request in worker.in_flight.values()), "I7: still in flight"

    def _check_heard(self) -> None:
        """Nobody who is silent is kept: at the next beat it is lost."""
        settings = self.core.settings
        silent_ns = settings.heartbeat_interval_ms * (settings.heartbeat_liveness + 1) * MS
        for worker in self.core.registration.workers.values():
            assert self._world.now_ns - worker.heard_ns <= silent_ns, f"{worker.worker_id} is mute"

    def check_empty(self) -> None:
        """Everybody is gone: no table may have an entry, and no timer is set."""
        self.check_quiet()
        registration = self.core.registration
        assert not registration.workers, "I7: workers left"
        assert not registration._by_id, "I7: slots left"
        assert not registration.services, "I7: services left"
        assert not registration.routes, "I7: routes left"
        assert self.core.next_timer_ns() is None, "I7: a broker that is idle sleeps"
