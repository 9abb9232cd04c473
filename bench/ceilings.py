"""What nothing built on the same parts can pass: bare echoes, and the model called directly."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench import bodies, machine
from bench.endpoint import BUS, GRPC, HTTP, Endpoint, large_grpc
from bench.figures import of_latencies
from bench.mindbus_server import ROOT
from bench.peers.peer import SERVERS, directory_of
from bench.plan import Contender, Plan, measure_in_turns
from bench.processes import Running, free_port, start_and_wait
from bench.records import values_of

NAME = "ceilings"
CONCURRENCIES = (1, 8, 64)
WINDOWS = (1, 256)
LARGE_CONCURRENCIES = (1, 4)
BATCHES = (1, 32)
#: A model is called so often between two looks at the clock.
CALLS = 100

ENVOY = "pyvoy"


def run(plan: Plan) -> None:
    """Measure all of them in turn."""
    contenders = [
        Contender("grpcio echo, sync", lambda: own_echo("grpc-sync")),
        Contender("grpcio echo, aio + uvloop", lambda: own_echo("grpc-aio")),
        Contender("C zmq.proxy", lambda: own_echo("zmq-proxy")),
        Contender("Python broker", lambda: own_echo("zmq-python")),
        Contender("no broker", lambda: own_echo("zmq-direct")),
    ]
    if (directory_of(ENVOY) / ".installed").exists():
        contenders.insert(0, Contender("Envoy echo (pyvoy)", _envoy))
    else:
        plan.miss(NAME, "Envoy echo (pyvoy)", "not installed; see make bench-peers")
    measure_in_turns(plan, NAME, contenders, _xs)
    _model_calls(plan)


def _xs(door: str) -> tuple[int, ...]:
    if door == "gRPC 16 MiB":
        return LARGE_CONCURRENCIES
    return WINDOWS if door == "native bus" else CONCURRENCIES


def _small_grpc_echo(address: str) -> Endpoint:
    body = bodies.oip_grpc("small", {"x1": bodies.X1, "x2": bodies.X2})
    return Endpoint("gRPC", GRPC, address, bodies.INFER_PATH, body, check=_same_as(body))


def _same_as(body: bytes) -> Callable[[bytes], None]:
    def check(answer: bytes) -> None:
        assert answer == body, answer[:200]

    return check


def own_echo(kind: str) -> Running:
    """Start an echo of `bench.echo_servers`."""
    directory = tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp")
    if kind.startswith("grpc"):
        address = f"127.0.0.1:{free_port()}"
        large = large_grpc(address, "large")
        large = Endpoint(
            "gRPC 16 MiB", GRPC, address, large.path, large.body, check=_same_as(large.body)
        )
        endpoints = [_small_grpc_echo(address), large]
    else:
        address = f"ipc://{Path(directory.name, 'echo')}"
        parts = tuple(bodies.bus_parts("small", "add", {"x1": bodies.X1, "x2": bodies.X2}))
        endpoints = [Endpoint("native bus", BUS, address, parts=parts, check=_same_as(parts[1]))]
    return start_and_wait(
        kind,
        [sys.executable, "-m", "bench.echo_servers", kind, address],
        endpoints,
        environment={"PYTHONPATH": str(ROOT)},
        directory=directory,
    )


def _envoy() -> Running:
    """Envoy with an echo in Python inside, for HTTP/1.1 and for gRPC."""
    port = free_port()
    address = f"127.0.0.1:{port}"
    body = bodies.oip_json({"x1": bodies.X1, "x2": bodies.X2})
    headers = (("Content-Type", "application/json"),)
    rest = Endpoint("REST", HTTP, address, "/echo", body, headers, check=_same_as(body))
    home = directory_of(ENVOY)
    return start_and_wait(
        "Envoy echo",
        [str(home / "bin" / "pyvoy"), "envoy_echo:app", "--port", str(port)],
        [rest, _small_grpc_echo(address)],
        environment={"PYTHONPATH": str(SERVERS), "PATH": f"{home / 'bin'}:/usr/bin:/bin"},
    )


def _model_calls(plan: Plan) -> None:
    """Call the model of W1 in this process; x is the batch, the rate counts instances."""
    import numpy as np

    from workers.backends.numpy_scripted import NumpyBackend
    from workers.servable.declarations import ModelDeclaration

    version = ROOT / "bench" / "servables" / "small" / "1"
    declaration = ModelDeclaration("sum.json", ("sum.json",), "mindir")
    model = NumpyBackend().load(declaration, version, None, "AES-GCM")
    for round_number in range(plan.rounds):
        for batch in BATCHES:
            x1, x2 = (np.tile(x, (batch, 1)) for x in (bodies.X1, bodies.X2))
            load_before = machine.load_average()
            latencies_ms: list[float] = []
            begin = time.perf_counter()
            while (now := time.perf_counter()) - begin < plan.seconds / 2:
                for _ in range(CALLS):
                    model.predict(0, (x1, x2))
                latencies_ms.append((time.perf_counter() - now) * 1_000 / CALLS)
            seconds = (time.perf_counter() - begin) / CALLS / batch
            values = values_of(of_latencies(latencies_ms, seconds))
            plan.add(NAME, "direct model call", "none", batch, round_number, values, load_before)
