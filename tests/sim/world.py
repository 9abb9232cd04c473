"""A seeded world around the real core: virtual clock, links with delays, peers that fail.

Everything random comes from one `random.Random(seed)`, so a seed replays a run exactly. Messages
of one link are delayed but never reordered; what is on the way when a link is cut is lost. After
every turn the core's invariants are checked. When the faults are over the world must become quiet,
and empty when the workers have left.

Checked: I1 one final reply per request, and one outcome at its client · I2 credit · I3 nothing
behind the acknowledgement of a drain · I4 a lane has backlog or tokens · I5 in-flight tables agree
· I6 limits · I7 all tables empty at the end · I9 FIFO for first attempts · I10 tickets are never
reused · replies carry the right value, also from worker to client over a broker's restart · an
extra worker gets only what it offers · at most two executions · no reply later than its deadline
and one tick · a broker that is told to go fails no request of a patient client.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from functools import partial

from broker.deadlines import TICK_NS
from tests.sim.broker import SimBroker
from tests.sim.clients import SimClient
from tests.sim.links import DELAY_MS_MAX, MS
from tests.sim.supervisor import SimSupervisor
from tests.sim.weather import Weather
from tests.sim.workers import SimWorker

SECOND = 1_000 * MS

#: Faults happen in this time; afterwards the world is left in peace until it is quiet.
FAULTS_NS = 3 * SECOND
QUIET_NS = 40 * SECOND

#: No world has a tenth of so many events.
EVENTS_MAX = 200_000

#: How often the world looks whether it is quiet, which must be so twice.
LOOK_NS = 250 * MS


class World:
    """One run: clients, workers, a broker between them, and the fates that a seed deals."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_ns = 1 * SECOND
        self.weather = Weather(self.random)
        #: What befell the peers, and what clients were told.
        self.met: Counter[str] = Counter()
        #: payload -> how often a worker has begun to compute it
        self.executions: Counter[bytes] = Counter()
        #: payload -> how often it was asked for under its key
        self.asked_under_key: Counter[bytes] = Counter()
        self._events: list[tuple[int, int, Callable[[], None]]] = []
        self._sequence = 0
        self._quiet_looks = 0
        #: The workers are leaving for good.
        self.is_ending = False
        self._is_over = False
        layout = [(1, 2, False), (1, 1, False), (2, 3, False)][: self.random.randint(1, 3)]
        layout += [(1, 2, True), (2, 1, True)][: self.random.randint(0, 2)]
        versions = sorted({version for version, _, _ in layout})
        self.broker = SimBroker(self, len(versions) > 1)
        self.broker.start([])
        self.supervisor = SimSupervisor(self, [f"s/{version}" for version in versions])
        self.workers = [
            SimWorker(self, f"slot{number}", version, credit, is_extra)
            for number, (version, credit, is_extra) in enumerate(layout)
        ]
        self.clients = [
            SimClient(self, f"client{number}", is_patient)
            for number, is_patient in enumerate((True, True, False))
        ]

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

    def deadline_slack_ns(self) -> int:
        """How late an answer may reach a client: one tick, the way back, and the way in."""
        return TICK_NS + 2 * DELAY_MS_MAX * MS + 2 * MS

    def run(self) -> None:
        """Deal faults, wait for quiet, let everybody go, and check the whole run."""
        for worker in self.workers:
            self.after_ms(0, 200, worker.start)
        for client in self.clients:
            self.after_ms(0, 50, client.act)
        for _ in range(4):
            self.after_ms(0, FAULTS_NS // MS, self.supervisor.share_version_0)
        self.after_ms(0, FAULTS_NS // MS, self.supervisor.retire_a_version)
        for kind in self.weather.restarts:
            self.after_ms(100, FAULTS_NS // MS, partial(self.supervisor.replace_broker, kind))
        end_ns = self.now_ns + FAULTS_NS + QUIET_NS
        self.at(self.now_ns + FAULTS_NS, self._look)
        while self._events and not self._is_over:
            when_ns, _, event = heapq.heappop(self._events)
            assert self.now_ns <= when_ns <= end_ns, "the world never became quiet"
            assert self._sequence < EVENTS_MAX, "something goes round in circles"
            self.now_ns = when_ns
            event()
        self.broker.check_empty()
        for payload, count in self.executions.items():
            asked = max(1, self.asked_under_key[payload])
            assert count <= 2 * asked, "more than two executions"

    def _look(self) -> None:
        """Whether the world is quiet, and then, without workers, at its end."""
        if self.is_ending:
            self._is_over = not self.broker.core.registration.services
        elif not self.broker.has_orphans and all(
            each.is_quiet for each in (*self.clients, *self.workers, self.supervisor, self.broker)
        ):
            self._quiet_looks += 1
            if self._quiet_looks == 2:
                self._end()
        else:
            self._quiet_looks = 0
        self.at(self.now_ns + LOOK_NS, self._look)

    def _end(self) -> None:
        self.broker.check_quiet()
        for client in self.clients:
            client.check_quiet()
        self.is_ending = True
        for worker in self.workers:
            worker.leave()


def run_seed(seed: int) -> World:
    """Run one world; a failure names the seed that replays it. Raises AssertionError."""
    world = World(seed)
    try:
        world.run()
    except AssertionError as error:
        raise AssertionError(f"seed {seed} at {world.now_ns} ns: {error}") from error
    return world
