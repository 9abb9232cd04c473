"""What a run does, and the measuring of systems in turn, which every workload uses."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import zmq

from bench import machine
from bench.endpoint import BUS, Endpoint, call
from bench.figures import Figures
from bench.load_bus import load_bus
from bench.loads_c import LoadError, load
from bench.models import Model
from bench.peers import registry
from bench.peers.peer import ROOT
from bench.processes import Running, StartError
from bench.records import Record, Run, values_of

Start = Callable[[], Running]

#: How a call or a load can fail; the cell is missed then, and the run goes on.
FAILURES = (
    LoadError,
    AssertionError,
    OSError,
    http.client.HTTPException,
    grpc.RpcError,
    zmq.ZMQError,
)


@dataclass
class Plan:
    """Settings of a run, and where its figures go.

    seconds: of each load. peers: environments of `bench.peers`. modes: of MindBus.
    """

    rounds: int
    seconds: float
    peers: Sequence[str]
    modes: Sequence[str]
    run: Run = field(default_factory=Run)

    def add(
        self,
        workload: str,
        system: str,
        door: str,
        x: float,
        round_number: int,
        values: dict[str, float],
        load_before: float = 0.0,
        stolen: float = 0.0,
    ) -> None:
        """Keep a measurement, and show it."""
        self.run.records.append(
            Record(workload, system, door, x, round_number, values, load_before, stolen)
        )
        shown = "  ".join(f"{name} {value:.5g}" for name, value in values.items())
        print(
            f"{workload} {round_number + 1}/{self.rounds}  {system:<24} {door:<16} x={x:<7g} "
            f"{shown}  [load {load_before:.1f}, stolen {stolen:.1%}]",
            flush=True,
        )

    def miss(self, workload: str, system: str, reason: str) -> None:
        """Keep that somebody was not measured, and say so."""
        reason = reason.replace(str(ROOT), "")  # results are for others, too
        self.run.missing.append({"workload": workload, "system": system, "reason": reason})
        print(f"{workload}  {system}: NOT MEASURED: {reason}", flush=True)


@dataclass(frozen=True)
class Contender:
    """A system that takes part in a workload. is_busy_when_idle: it runs for its turn only."""

    name: str
    start: Start
    is_busy_when_idle: bool = False
    doors: tuple[str, ...] | None = None


def contenders_of_peers(plan: Plan, workload: str, model: Model) -> list[Contender]:
    """The peers of the plan that can run a workload; those that are not installed are missed."""
    found = []
    for peer in registry.choose(plan.peers, workload):
        if not peer.is_installed:
            plan.miss(workload, peer.name, "not installed; see make bench-peers")
            continue

        def start(start_peer: Callable[[Model], Running] = peer.start) -> Running:
            return start_peer(model)

        name = peer.name if model.batch_max > 1 else peer.name.split(",")[0]
        found.append(Contender(name, start, peer.is_busy_when_idle))
    return found


@contextmanager
def all_running(
    plan: Plan, workload: str, contenders: Sequence[Contender]
) -> Iterator[list[tuple[Contender, Running | None]]]:
    """Start what may run all the time; the others have None. Those that fail are missed."""
    started: list[tuple[Contender, Running | None]] = []
    try:
        for contender in contenders:
            if contender.is_busy_when_idle:
                started.append((contender, None))
                continue
            running = try_start(plan, workload, contender)
            if running is not None:
                started.append((contender, running))
        yield started
    finally:
        for _, running in started:
            if running is not None:
                running.end()


def try_start(plan: Plan, workload: str, contender: Contender) -> Running | None:
    """Start one; None if it failed, which is kept with the last lines of its log."""
    try:
        return contender.start()
    except (StartError, *FAILURES) as error:
        plan.miss(workload, contender.name, str(error)[-600:])
        return None


def measure_in_turns(
    plan: Plan,
    workload: str,
    contenders: Sequence[Contender],
    xs_of: Callable[[str], Sequence[int]],
) -> None:
    """Load every door of every contender, one after the other, in each round.

    In a round, all of one door at one concurrency follow each other, so that what is compared was
    measured within seconds. xs_of: the concurrencies of a door.
    """
    with all_running(plan, workload, contenders) as started:
        for round_number in range(plan.rounds):
            cells = [
                (endpoint.door, x, contender.name, endpoint)
                for contender, running in started
                if running is not None
                for endpoint in running.endpoints
                if contender.doors is None or endpoint.door in contender.doors
                for x in xs_of(endpoint.door)
            ]
            doors = list(dict.fromkeys(door for door, *_ in cells))
            cells.sort(key=lambda cell: (doors.index(cell[0]), cell[1]))
            for _, x, name, endpoint in cells:
                measure(plan, workload, name, endpoint, x, round_number)
            for contender, running in started:
                if running is None:
                    _measure_alone(plan, workload, contender, xs_of, round_number)


def _measure_alone(
    plan: Plan,
    workload: str,
    contender: Contender,
    xs_of: Callable[[str], Sequence[int]],
    round_number: int,
) -> None:
    running = try_start(plan, workload, contender)
    if running is None:
        return
    try:
        for endpoint in running.endpoints:
            for x in xs_of(endpoint.door):
                measure(plan, workload, contender.name, endpoint, x, round_number)
    finally:
        running.end()


def measure(
    plan: Plan, workload: str, system: str, endpoint: Endpoint, concurrency: int, round_number: int
) -> Figures | None:
    """Check one answer, load the door, and keep the figures; None if the load gave none."""
    load_before, before = machine.load_average(), machine.read_cpu_times()
    try:
        figures = load_endpoint(endpoint, concurrency, plan.seconds)
    except FAILURES as error:
        plan.miss(workload, system, f"{endpoint.door} at {concurrency}: {error}"[:600])
        return None
    stolen = machine.usage_between(before, machine.read_cpu_times()).stolen
    plan.add(
        workload,
        system,
        endpoint.door,
        concurrency,
        round_number,
        values_of(figures),
        load_before,
        stolen,
    )
    return figures


def load_endpoint(endpoint: Endpoint, concurrency: int, seconds: float) -> Figures:
    """Check one answer by value, then load the door. Raises LoadError or AssertionError."""
    answer = call(endpoint)
    endpoint.check(answer)
    if endpoint.kind == BUS:
        return load_bus(endpoint, concurrency, seconds)
    return load(endpoint, concurrency, seconds, len(answer))
