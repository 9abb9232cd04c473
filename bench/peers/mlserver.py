"""MLServer: uvicorn and grpc.aio, the model in the event loop."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from bench.endpoint import small_grpc, small_http
from bench.models import Model
from bench.peers.peer import SERVERS, Peer, directory_of
from bench.processes import Running, free_port, start_and_wait

ENVIRONMENT = "mlserver"


def _start(model: Model) -> Running:
    directory = tempfile.TemporaryDirectory(prefix="bench-", dir="/tmp")
    ports = [free_port() for _ in range(3)]
    settings = {
        "host": "127.0.0.1",
        "http_port": ports[0],
        "grpc_port": ports[1],
        "metrics_port": ports[2],
        "parallel_workers": 0,
        "debug": False,
    }
    described = {"name": model.name, "implementation": "mlserver_model.Small"}
    Path(directory.name, "settings.json").write_text(json.dumps(settings))
    Path(directory.name, "model-settings.json").write_text(json.dumps(described))
    endpoints = [
        small_http(f"127.0.0.1:{ports[0]}", f"/v2/models/{model.name}/infer"),
        small_grpc(f"127.0.0.1:{ports[1]}", model.name),
    ]
    return start_and_wait(
        "MLServer",
        [str(directory_of(ENVIRONMENT) / "bin" / "mlserver"), "start", directory.name],
        endpoints,
        environment={"BENCH_MODEL": model.as_json(), "PYTHONPATH": str(SERVERS)},
        directory=directory,
    )


PEERS = (Peer("MLServer", ENVIRONMENT, _start),)
