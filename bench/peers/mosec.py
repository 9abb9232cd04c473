"""Mosec: a front in Rust, workers in Python, JSON over HTTP."""

from __future__ import annotations

from bench import bodies
from bench.endpoint import HTTP, Endpoint
from bench.models import Model
from bench.peers.json_body import json_endpoint
from bench.peers.peer import SERVERS, Peer, python_of
from bench.processes import Running, free_port, start_and_wait

#: W3's 16 MiB are more than Mosec takes by default.
REQUEST_BYTES_MAX = 64 * 1024 * 1024


def _start(model: Model) -> Running:
    address = f"127.0.0.1:{free_port()}"
    if model.name == "large":
        tensor = bodies.large()
        check = bodies.check_tail(tensor)
        endpoint = Endpoint(
            "binary REST", HTTP, address, "/inference", tensor.tobytes(), check=check
        )
    else:
        endpoint = json_endpoint(address, "/inference")
    host, port = address.split(":")
    flags = ["--address", host, "--port", port, "--timeout", "60000", "--log-level", "warning"]
    return start_and_wait(
        "Mosec",
        [
            python_of("mosec"),
            str(SERVERS / "mosec_server.py"),
            *flags,
            "--max-request-size",
            str(REQUEST_BYTES_MAX),
        ],
        [endpoint],
        environment={"BENCH_MODEL": model.as_json()},
    )


def _unbatched(model: Model) -> Running:
    return _start(model.without_batching())


PEERS = (
    Peer("Mosec, batching on", "mosec", _start, ("w1", "w2", "w3", "w4", "w5")),
    Peer("Mosec, batching off", "mosec", _unbatched, ("w1",)),
)
