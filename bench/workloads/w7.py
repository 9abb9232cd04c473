"""W7, growth: what a request costs while workers, servables, idle clients or a backlog grow.

CPU microseconds per request of gateway, broker and worker, read from the scheduler's own numbers,
with 64 requests in flight through the gRPC door of a standalone server. Workers and servables are
fake ones (`bench.fake_workers`), for hundreds of Python processes do not fit two cores: where they
answer themselves, in the range of workers, the worker's cost is not shown.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench import bodies, fake_server, machine, own_processes
from bench.backlog import Backlog
from bench.endpoint import GRPC, HTTP, Endpoint
from bench.fake_server import Fakes
from bench.mindbus_server import ROOT
from bench.plan import FAILURES, Plan, load_endpoint
from bench.processes import Running, StartError

NAME = "w7"
CONCURRENCY = 64

RANGES: dict[str, tuple[int, ...]] = {
    "workers": (1, 16, 256),
    "servables": (1, 50, 200),
    "idle clients": (0, 1_000, 10_000),
    "backlog": (0, 10_000, 100_000),
}
KINDS = ("gateway", "broker", "worker")


def kinds_of(name: str) -> tuple[str, ...]:
    """The processes whose cost a range shows."""
    return tuple(kind for kind in KINDS if (kind, name) != ("worker", "workers"))


def run(plan: Plan) -> None:
    """Each range, from its smallest scale to its largest, round by round."""
    growths: dict[str, Callable[[Running, int], _Growth]] = {
        "workers": _workers,
        "servables": _servables,
        "idle clients": _idle_clients,
        "backlog": _backlog,
    }
    for name, scales in RANGES.items():
        for round_number in range(plan.rounds):
            for scale in scales:
                try:
                    running = fake_server.start_real()
                except StartError as error:
                    plan.miss(NAME, name, str(error)[-400:])
                    continue
                try:
                    with _grown(growths[name], running, scale) as endpoint:
                        _measure(plan, name, scale, running, endpoint, round_number)
                except (StartError, *FAILURES) as error:
                    plan.miss(NAME, f"{scale} {name}", repr(error)[:400])
                finally:
                    running.end()


def _measure(
    plan: Plan, name: str, scale: int, running: Running, endpoint: Endpoint, round_number: int
) -> None:
    load_before = machine.load_average()
    kinds = own_processes.pids_by_kind(running)
    before = own_processes.cpu_by_kind(kinds)
    figures = load_endpoint(endpoint, CONCURRENCY, plan.seconds)
    after = own_processes.cpu_by_kind(kinds)
    answered = max(1, figures.requests)
    values = {
        f"{kind}_us": (after[kind] - before[kind]) / answered
        for kind in KINDS
        if kind in after and kind in kinds_of(name)
    }
    plan.add(NAME, name, "gRPC", scale, round_number, values | {"rate": figures.rate}, load_before)


# ---------------------------------------------------------------- what grows


class _Growth:
    """What was put beside a server. door: that is loaded."""

    def __init__(self, door: Endpoint, take_away: Callable[[], None]) -> None:
        self.door = door
        self.take_away = take_away


@contextmanager
def _grown(
    grow: Callable[[Running, int], _Growth], running: Running, scale: int
) -> Iterator[Endpoint]:
    growth = grow(running, scale)
    try:
        yield growth.door
    finally:
        growth.take_away()


def _real_door(running: Running) -> Endpoint:
    return next(
        endpoint
        for endpoint in running.endpoints
        if endpoint.kind == GRPC and endpoint.path == bodies.PREDICT_PATH
    )


def _workers(running: Running, scale: int) -> _Growth:
    process = fake_server.add(running, Fakes(workers=scale, credit=max(2, 256 // scale)))
    door = fake_server.endpoints_of(running, "fake")[0]
    return _Growth(door, lambda: fake_server.take_away(process))


def _servables(running: Running, scale: int) -> _Growth:
    if scale == 1:  # the real one
        return _Growth(_real_door(running), lambda: None)
    process = fake_server.add(running, Fakes(workers=scale - 1, services=scale - 1))
    return _Growth(_real_door(running), lambda: fake_server.take_away(process))


def _idle_clients(running: Running, scale: int) -> _Growth:
    rest = next(endpoint for endpoint in running.endpoints if endpoint.kind == HTTP)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.idle_clients", rest.address, str(scale)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
    )

    def take_away() -> None:
        process.kill()
        process.wait()

    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        take_away()
        raise StartError(f"{scale} connections could not be opened")
    return _Growth(_real_door(running), take_away)


def _backlog(running: Running, scale: int) -> _Growth:
    process = fake_server.add(running, Fakes(workers=1, name="mute", is_mute=True))
    try:
        waiting = Backlog(fake_server.endpoints_of(running, "mute")[1], scale)
    except BaseException:
        fake_server.take_away(process)
        raise

    def take_away() -> None:
        waiting.close()
        fake_server.take_away(process)

    return _Growth(_real_door(running), take_away)
