"""Every dtype goes in and comes out, over gRPC, REST and ZeroMQ, through models and Python."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindbus.bus_client import BusClient
from protocol.values import DTYPES
from tests.processes.doors import GrpcDoor, RestDoor
from tests.processes.probe import broker_stats
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process


def sample(dtype: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Values at both ends of the dtype's range."""
    count = int(np.prod(shape))
    if dtype == "bool":
        values = np.arange(count) % 2 == 0
    elif dtype.startswith(("int", "uint")):
        limits = np.iinfo(dtype)
        values = np.array([limits.min, limits.max, 1, 0] * count, dtype)[:count]
    else:
        numbers = np.finfo(dtype)
        values = np.array([numbers.min, numbers.tiny, 1.5, 0] * count, dtype)[:count]
    return values.astype(dtype).reshape(shape)


SHAPES = [(), (1,), (4,), (2, 3), (0,), (3, 0)]


@pytest.mark.parametrize("method", ["echo", "copy"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_and_shape_survives_grpc_and_the_bus(
    grpc_door: GrpcDoor, bus: BusClient, method: str, dtype: str
) -> None:
    output = {"echo": "x", "copy": "y"}[method]
    instances = [{"x": sample(dtype, shape)} for shape in SHAPES]
    for results in (
        grpc_door.client(method).infer(instances),
        bus.infer("probe", method, instances),
    ):
        for instance, result in zip(instances, results, strict=True):
            np.testing.assert_array_equal(result[output], instance["x"], strict=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_survives_rest_as_base64(rest_door: RestDoor, dtype: str) -> None:
    array = sample(dtype, (2, 3))
    value = {"b64": base64.b64encode(array.tobytes()).decode(), "type": dtype, "shape": [2, 3]}
    (result,) = rest_door.infer("copy", [{"x": value}])["instances"]
    np.testing.assert_array_equal(np.array(result["y"], dtype), array)


@pytest.mark.parametrize(
    "value", [1, -5, 1.5, True, [1, 2], [[1.5], [2.5]], [True, False], "text", "ünï", ["one"]]
)
def test_json_values_come_back_as_they_went(rest_door: RestDoor, value: Any) -> None:
    assert rest_door.infer("echo", [{"x": value}]) == {"instances": [{"x": value}]}


def test_text_and_bytes_survive_every_door(
    grpc_door: GrpcDoor, rest_door: RestDoor, bus: BusClient
) -> None:
    for text in ("", "text", "ünïcödé \U0001f600"):
        assert grpc_door.client("copy").infer([{"x": text}]) == [{"y": text}]
        assert bus.infer("probe", "copy", [{"x": text}]) == [{"y": text}]
    for content in (b"", b"\x00\xff" * 10):
        assert grpc_door.client("echo").infer([{"x": content}]) == [{"x": content}]
        assert bus.infer("probe", "echo", [{"x": content}]) == [{"x": content}]
        encoded = {"b64": base64.b64encode(content).decode()}
        assert rest_door.infer("echo", [{"x": encoded}]) == {"instances": [{"x": encoded}]}


def test_python_scalars_become_the_documented_tensors(
    grpc_door: GrpcDoor, rest_door: RestDoor
) -> None:
    (result,) = grpc_door.client("scalars").infer([{"x": np.int32(3)}])
    assert (result["truth"].dtype, result["truth"].shape) == (np.bool_, ())
    assert (result["number"].dtype, result["number"].item()) == (np.int64, 3)
    assert (result["real"].dtype, result["real"].item()) == (np.float64, 3.0)
    assert (result["text"], result["content"]) == ("text 3", b"bytes 3")
    (answer,) = rest_door.infer("scalars", [{"x": 3}])["instances"]
    assert answer == {
        "content": {"b64": base64.b64encode(b"bytes 3").decode()},
        "number": 3,
        "real": 3.0,
        "text": "text 3",
        "truth": True,
    }


def test_instances_of_many_clients_share_a_batch_and_each_gets_its_own(
    bus: BusClient,
) -> None:
    futures = [
        bus.submit("probe", "slow", [{"x": np.full(4, number, np.float32)}])
        for number in range(200)
    ]
    for number, future in enumerate(futures):
        (result,) = future.result(60)
        assert result["y"].tolist() == [2.0 * number] * 4


def test_a_batch_function_sees_all_requests_that_wait_up_to_its_size(
    server: ServerProcess, bus: BusClient, tmp_path: Path
) -> None:
    gates = [tmp_path / "gate0", tmp_path / "gate1"]
    for gate in gates:
        os.mkfifo(gate)
    holding = [bus.submit("probe", "gated", {"path": str(gate)}, timeout=60) for gate in gates]
    waiting = [bus.submit("probe", "together", {"x": 1}, timeout=60) for _ in range(64)]

    def held() -> list[int]:
        return [worker["in_flight"] for worker in broker_stats(server)["workers"]]

    assert wait_until(lambda: held() == [33, 33]), "each of both workers has a gate and 32 more"
    for gate, future in zip(gates, holding, strict=True):
        gate.write_text("open")
        assert future.result() == [{"text": "open"}]
    assert {int(future.result()[0]["count"]) for future in waiting} == {32}
