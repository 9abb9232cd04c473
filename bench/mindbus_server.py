"""MindBus itself under measurement, in each of its modes, started as a user starts it."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import bodies
from bench.endpoint import (
    BUS,
    GRPC,
    Endpoint,
    check_once,
    large_grpc,
    large_http,
    small_grpc,
    small_http,
)
from bench.models import Model
from bench.processes import Running, free_port, start_and_wait

ROOT = Path(__file__).resolve().parents[1]

EMBEDDED, STANDALONE, IN_PROCESS = "embedded", "standalone", "in-process"
MODES = (EMBEDDED, STANDALONE, IN_PROCESS)

CONFIG = '''\
"""A model of known cost."""

from mindspore_serving.server import register

model = register.declare_model("model.json", "MindIR", with_batch_dim=True)


@register.register_method(output_names=["y"])
def {method}({arguments}):
    """What the model gives."""
    return register.add_stage(model, {arguments}, outputs_count=1)
'''


STAGED_CONFIG = '''\
"""The same, with Python of {stage_ms} ms per batch before the model and after it."""

import time

from mindspore_serving.server import register

model = register.declare_model("model.json", "MindIR", with_batch_dim=True)


def burn(ms):
    """Hold the GIL as long."""
    until_ns = time.thread_time_ns() + int(ms * 1e6)
    while time.thread_time_ns() < until_ns:
        pass


def prepare(instances):
    """Before the model."""
    burn({stage_ms})
    return list(instances)


def finish(instances):
    """After it."""
    burn({stage_ms})
    return [y for (y,) in instances]


@register.register_method(output_names=["y"])
def add(x1, x2):
    """What the model gives."""
    x1, x2 = register.add_stage(prepare, x1, x2, outputs_count=2, batch_size=32)
    y = register.add_stage(model, x1, x2, outputs_count=1)
    return register.add_stage(finish, y, outputs_count=1, batch_size=32)
'''


def write_servable(directory: Path, model: Model, name: str = "") -> None:
    """Write a servable of the scripted backend. name: if it is not the model's."""
    is_large = model.name == "large"
    names = ("x",) if is_large else ("x1", "x2")
    batch = 1 if model.batch_max == 1 else -1
    shape = [batch, bodies.LARGE_VALUES if is_large else bodies.X1.size]
    script = {
        "inputs": [{"name": name, "dtype": "float32", "shape": shape} for name in names],
        "outputs": [{"name": "y", "dtype": "float32", "shape": shape}],
        "op": "identity" if is_large else "add",
        "delay_ms": model.delay_ms,
        "delay_per_item_ms": model.delay_per_item_ms,
    }
    version = directory / (name or model.name) / "1"
    version.mkdir(parents=True)
    (version / "model.json").write_text(json.dumps(script, indent=1))
    method = "same" if is_large else "add"
    if model.stage_ms:
        config = STAGED_CONFIG.format(stage_ms=model.stage_ms)
    else:
        config = CONFIG.format(method=method, arguments=", ".join(names))
    (version.parent / "servable_config.py").write_text(config)


def endpoints_of(model: Model, grpc: str, rest: str, run_directory: Path) -> list[Endpoint]:
    """Every door of a server, with the requests of a model."""
    producers = f"ipc://{run_directory / 'producers.ipc'}"
    path = f"/v2/models/{model.name}/infer"
    if model.name == "large":
        tensor = bodies.large()
        parts = tuple(bodies.bus_parts("large", "same", {"x": tensor}))
        bus = Endpoint("native bus", BUS, producers, parts=parts, check=bodies.check_tail(tensor))
        return [large_http(rest, path), large_grpc(grpc, "large"), bus]
    tensors = {"x1": bodies.X1, "x2": bodies.X2}
    parts = tuple(bodies.bus_parts("small", "add", tensors))
    return [
        small_http(rest, path),
        small_grpc(grpc, "small"),
        Endpoint(
            "MSService gRPC",
            GRPC,
            grpc,
            bodies.PREDICT_PATH,
            bodies.ms_grpc("small", "add", tensors),
            check=bodies.check_ms_grpc(bodies.SUM),
        ),
        Endpoint("native bus", BUS, producers, parts=parts, check=bodies.check_bus(bodies.SUM)),
    ]


def start(
    mode: str,
    model: Model,
    *,
    servables: int = 1,
    flags: Sequence[str] = (),
    seconds: float = 60.0,
) -> Running:
    """Serve a model on the scripted backend. Raises StartError.

    servables: how many, of which only the first, named as the model, gets requests.
    """
    directory = tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp")
    home = Path(directory.name, "servables")
    write_servable(home, model)
    for number in range(1, servables):
        write_servable(home, model, f"other{number}")
    devices = ("--device-ids", ",".join(map(str, range(model.workers))))
    return start_servables(
        mode,
        home,
        lambda grpc, rest, run: endpoints_of(model, grpc, rest, run),
        directory,
        name=model.name,
        flags=(*devices, *flags),
        seconds=seconds,
    )


def start_servables(
    mode: str,
    home: Path,
    make_endpoints: Any,
    directory: tempfile.TemporaryDirectory[str],
    *,
    name: str,
    backend: str = "numpy",
    flags: Sequence[str] = (),
    seconds: float = 60.0,
) -> Running:
    """Serve the servables of a directory. Raises StartError.

    make_endpoints: of gRPC address, REST address and run directory. name: what the process of the
    mode in-process serves.
    """
    run = Path(directory.name, "run")
    grpc, rest = (f"127.0.0.1:{free_port()}" for _ in range(2))
    environment = {
        "PYTHONPATH": str(ROOT),
        "MINDBUS_BACKEND": backend,
        "MINDBUS_RUN_DIRECTORY": str(run),
    }
    if mode == IN_PROCESS:
        command = ["-m", "bench.in_process_server", str(home), name, grpc, rest]
    else:
        ports = [
            f"--{kind}-port={at.split(':')[1]}" for kind, at in (("grpc", grpc), ("rest", rest))
        ]
        command = ["-m", "mindbus", "serve", "--servable-directory", str(home), "--mode", mode]
        command += [*ports, "--device-target", "CPU", *flags]
    endpoints: list[Endpoint] = make_endpoints(grpc, rest, run)
    running = start_and_wait(
        f"MindBus {mode}",
        [sys.executable, *command],
        endpoints[:1],
        environment=environment,
        directory=directory,
        seconds=seconds,
    )
    running.run_directory = run
    try:
        for endpoint in endpoints[1:]:
            check_once(endpoint)
    except BaseException:
        running.end()
        raise
    running.endpoints = [replace(endpoint) for endpoint in endpoints]
    return running
