"""How a peer is started whose server is a Python script that listens where it is told."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.endpoint import Endpoint
from bench.models import Model
from bench.peers.peer import SERVERS, python_of
from bench.processes import Running, free_port, start_and_wait

#: Of the addresses of HTTP and gRPC.
MakeEndpoints = Callable[[str, str], Sequence[Endpoint]]


def start_script(
    name: str, environment: str, model: Model, script: str, make_endpoints: MakeEndpoints
) -> Running:
    """Run a script of `servers/` in an environment; it finds its ports in BENCH_PORT and so on."""
    port, grpc_port = free_port(), free_port()
    return start_and_wait(
        name,
        [python_of(environment), str(SERVERS / script)],
        make_endpoints(f"127.0.0.1:{port}", f"127.0.0.1:{grpc_port}"),
        environment={
            "BENCH_MODEL": model.as_json(),
            "BENCH_PORT": str(port),
            "BENCH_GRPC_PORT": str(grpc_port),
        },
    )
