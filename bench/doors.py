"""W1 through every door: `python -m bench.doors [--seconds 3] [--mode embedded|standalone]`.

Starts a server of its own on the numpy backend, checks one answer by value, and prints requests
per second and latency at 1, 8 and 64 requests in flight (the bus also at 256). The load generator
is Python on the same cores: figures compare versions of this code in one run, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.loads import Figures, bus_load, grpc_load, rest_load
from mindbus.bus_client import BusClient
from mindbus.server import ServableLaunch, Server, ServerSettings
from mindspore_serving.client import Client
from protocol import head as heads
from protocol import ms_service_pb2 as pb
from protocol import native
from protocol.values import MethodSignature

SERVABLES = Path(__file__).resolve().parent / "servables"
X1 = np.arange(16, dtype=np.float32)
X2 = np.ones(16, np.float32)


def grpc_body() -> bytes:
    """The request as a PredictRequest."""
    request = pb.PredictRequest()
    request.servable_spec.name, request.servable_spec.method_name = "small", "add"
    items = request.instances.add().items
    for name, array in (("x1", X1), ("x2", X2)):
        items[name].shape.dims.append(16)
        items[name].dtype = 11
        items[name].data = array.tobytes()
    return request.SerializeToString()


def rest_body() -> bytes:
    """The request as JSON."""
    return json.dumps({"instances": [{"x1": X1.tolist(), "x2": X2.tolist()}]}).encode()


def bus_parts() -> list[bytes]:
    """The request as a head and a meta frame."""
    head = heads.Head(
        heads.REQUEST,
        flags=heads.FLAG_COALESCE,
        instance_count=1,
        body_frames=1,
        service=b"small/0",
        method=b"add",
    )
    return [heads.pack(head), *map(bytes, native.encode_request([{"x1": X1, "x2": X2}]))]


def check(grpc_address: str, producers_address: str) -> None:
    """One answer by value, over gRPC and over the bus."""
    (result,) = Client(grpc_address, "small", "add").infer([{"x1": X1, "x2": X2}])
    assert np.array_equal(result["y"], X1 + X2), result
    with BusClient(producers_address) as client:
        (result,) = client.infer("small", "add", [{"x1": X1, "x2": X2}])
    assert np.array_equal(result["y"], X1 + X2), result


async def first_answers(grpc_address: str, rest_address: str) -> tuple[bytes, bytes]:
    """What each door answers to the request; every later answer must be the same."""
    import http.client

    import grpc

    connection = http.client.HTTPConnection(rest_address)
    connection.request("POST", "/model/small:add", rest_body())
    rest = connection.getresponse().read()
    assert json.loads(rest) == {"instances": [{"y": (X1 + X2).tolist()}]}, rest
    with grpc.insecure_channel(grpc_address) as channel:
        predict = channel.unary_unary("/mindspore.serving.proto.MSService/Predict")
        return predict(grpc_body()), rest


def main() -> None:
    """Entry of `python -m bench.doors`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--mode", choices=("embedded", "standalone"), default="embedded")
    flags = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mb") as directory:
        server = Server(ServerSettings(run_directory=Path(directory, "run"), mode=flags.mode))
        grpc_address = server.open_grpc("127.0.0.1:0")
        rest_address = server.open_rest("127.0.0.1:0")
        launch = ServableLaunch(
            servable_directory=str(SERVABLES), servable_name="small", backend="numpy"
        )
        server.start_servables([launch])
        producers_address = server.status()["producers"][0]
        try:
            check(grpc_address, producers_address)
            measure(grpc_address, rest_address, producers_address, flags.seconds)
        finally:
            server.stop()


def measure(grpc_address: str, rest_address: str, producers_address: str, seconds: float) -> None:
    """Print a line per door and concurrency."""
    grpc_answer, rest_answer = asyncio.run(first_answers(grpc_address, rest_address))
    bus_answer = bytes(
        native.encode_reply(
            None,  # type: ignore[arg-type] - the native dialect does not echo it
            MethodSignature("small", "add", ("x1", "x2"), ("y",)),
            [(X1 + X2,)],
        )[0]
    )
    loads: dict[str, tuple[tuple[int, ...], Callable[[int], Figures]]] = {
        "REST": (
            (1, 8, 64),
            lambda n: asyncio.run(rest_load(rest_address, rest_body(), rest_answer, n, seconds)),
        ),
        "gRPC": (
            (1, 8, 64),
            lambda n: asyncio.run(grpc_load(grpc_address, grpc_body(), grpc_answer, n, seconds)),
        ),
        "bus": (
            (1, 8, 64, 256),
            lambda n: bus_load(producers_address, bus_parts(), bus_answer, n, seconds),
        ),
    }
    for name, (concurrencies, load) in loads.items():
        for concurrency in concurrencies:
            print(f"{name:<5} c={concurrency:<4} {load(concurrency).line()}", flush=True)


if __name__ == "__main__":
    main()
