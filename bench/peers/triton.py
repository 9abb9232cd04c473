"""Triton's server, from the wheel of PyTriton: its own binary with its Python backend."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path

from bench.endpoint import large_grpc, large_http, small_grpc, small_http
from bench.models import Model
from bench.peers.peer import SERVERS, Peer, directory_of, site_packages
from bench.processes import Running, free_port, start_and_wait

ENVIRONMENT = "triton"

#: The stub of the Python backend moves tensors through shared memory, which grows in such steps.
LARGE_SHM_BYTES = 64 * 1024 * 1024


def config_text(model: Model) -> str:
    """The `config.pbtxt` of a model. Pure."""
    names, dims = (("x",), "4194304") if model.name == "large" else (("x1", "x2"), "16")
    inputs = ", ".join(
        f'{{ name: "{name}" data_type: TYPE_FP32 dims: [{dims}] }}' for name in names
    )
    lines = [
        f'name: "{model.name}"',
        'backend: "python"',
        f"max_batch_size: {max(1, model.batch_max)}",
        f"input [ {inputs} ]",
        f'output [ {{ name: "y" data_type: TYPE_FP32 dims: [{dims}] }} ]',
        f"instance_group [ {{ kind: KIND_CPU count: {model.workers} }} ]",
    ]
    if model.batch_max > 1:
        lines.append("dynamic_batching { max_queue_delay_microseconds: 0 }")
    return "\n".join(lines) + "\n"


def _write_repository(directory: Path, model: Model) -> None:
    version = directory / model.name / "1"
    version.mkdir(parents=True)
    (version.parent / "config.pbtxt").write_text(config_text(model))
    shutil.copy(SERVERS / "triton_model.py", version / "model.py")
    shutil.copy(SERVERS / "bench_model.py", version)


def prepare(environment: Path) -> None:
    """Lay the Python backend and the stub of this Python together, as the binary wants them."""
    server = site_packages(ENVIRONMENT) / "pytriton" / "tritonserver"
    backend = environment / "server" / "backends" / "python"
    shutil.rmtree(backend, ignore_errors=True)
    shutil.copytree(server / "backends" / "python", backend)
    version = sysconfig.get_python_version()
    shutil.copy(
        server / "python_backend_stubs" / version / "triton_python_backend_stub",
        backend / "triton_python_backend_stub",
    )


def _start(model: Model) -> Running:
    directory = tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp")
    repository = Path(directory.name, "repository")
    _write_repository(repository, model)
    rest, grpc = (f"127.0.0.1:{free_port()}" for _ in range(2))
    path = f"/v2/models/{model.name}/infer"
    if model.name == "large":
        endpoints = [large_http(rest, path), large_grpc(grpc, model.name)]
    else:
        endpoints = [small_http(rest, path), small_grpc(grpc, model.name)]
    home = directory_of(ENVIRONMENT)
    packages = site_packages(ENVIRONMENT)
    flags = {
        "model-repository": str(repository),
        "backend-directory": str(home / "server" / "backends"),
        "http-address": "127.0.0.1",
        "http-port": rest.split(":")[1],
        "grpc-address": "127.0.0.1",
        "grpc-port": grpc.split(":")[1],
        "allow-metrics": "false",
        "log-info": "false",
    }
    command = [str(packages / "pytriton" / "tritonserver" / "bin" / "tritonserver")]
    command += [f"--{name}={value}" for name, value in flags.items()]
    if model.name == "large":
        command.append(f"--backend-config=python,shm-default-byte-size={LARGE_SHM_BYTES}")
    libraries = [str(packages / "nvidia_pytriton.libs"), str(sysconfig.get_config_var("LIBDIR"))]
    environment = {
        "BENCH_MODEL": model.as_json(),
        "LD_LIBRARY_PATH": ":".join(libraries),
        # The stub finds its packages by the first `python3` on the path, and by that only.
        "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
    }
    return start_and_wait(
        "Triton", command, endpoints, environment=environment, directory=directory
    )


def _unbatched(model: Model) -> Running:
    return _start(model.without_batching())


PEERS = (
    Peer("Triton, batching on", ENVIRONMENT, _start, ("w1", "w2", "w3", "w4", "w5")),
    Peer("Triton, batching off", ENVIRONMENT, _unbatched, ("w1",)),
)
