"""A standalone server with one real worker, and fake ones beside it (`bench.fake_workers`)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace

import grpc

from bench import bodies, mindbus_server, models
from bench.endpoint import BUS, GRPC, Endpoint, check_once
from bench.mindbus_server import ROOT, STANDALONE
from bench.processes import Running, StartError

READY_SECONDS_MAX = 60.0
#: Requests that the server holds at once: the largest backlog of W7, and room.
REQUESTS_MAX = 200_000


@dataclass(frozen=True)
class Fakes:
    """How many of what. services: they share the workers in turn. is_mute: none ever answers."""

    workers: int
    services: int = 1
    delay_ms: float = 0.0
    credit: int = 1
    name: str = "fake"
    is_mute: bool = False


def endpoints_of(running: Running, name: str) -> list[Endpoint]:
    """MSService and the bus, asking the first service of some fakes."""
    tensors = {"x1": bodies.X1, "x2": bodies.X2}
    call = next(endpoint for endpoint in running.endpoints if endpoint.kind == GRPC)
    bus = next(endpoint for endpoint in running.endpoints if endpoint.kind == BUS)
    service = f"{name}0"
    return [
        replace(
            call,
            door="gRPC",
            path=bodies.PREDICT_PATH,
            body=bodies.ms_grpc(service, "add", tensors),
            check=bodies.check_ms_grpc(bodies.SUM),
        ),
        replace(
            bus,
            parts=tuple(bodies.bus_parts(service, "add", tensors)),
            check=bodies.check_bus(bodies.SUM),
        ),
    ]


def start_real() -> Running:
    """The server with its one real worker, before any fake."""
    flags = ("--max-enqueued-requests", str(REQUESTS_MAX))
    return mindbus_server.start(STANDALONE, models.W1, flags=flags)


def add(running: Running, fakes: Fakes) -> subprocess.Popen[bytes]:
    """Start fakes beside a running server; returns once all are known and the first one answers.

    Raises: StartError. The process is the caller's to end, with `take_away`.
    """
    assert running.run_directory is not None
    document = asdict(fakes) | {"address": f"ipc://{running.run_directory / 'workers.ipc'}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.fake_workers", json.dumps(document)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        take_away(process)
        raise StartError("the fake workers ended before they were ready")
    deadline = time.monotonic() + READY_SECONDS_MAX
    door = endpoints_of(running, fakes.name)[0]
    while not fakes.is_mute:
        try:
            check_once(door)
            break
        except (AssertionError, grpc.RpcError) as error:  # the gateway hears of it later
            if process.poll() is not None or time.monotonic() > deadline:
                take_away(process)
                raise StartError(f"the fake workers do not answer: {error}"[:400]) from error
        time.sleep(0.05)
    return process


def take_away(process: subprocess.Popen[bytes]) -> None:
    """End fakes."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def start(fakes: Fakes) -> Running:
    """A server whose doors ask the fakes. Raises StartError."""
    running = start_real()
    try:
        process = add(running, fakes)
    except StartError:
        running.end()
        raise
    running.companions.append(process)
    running.endpoints = endpoints_of(running, fakes.name)
    return running
