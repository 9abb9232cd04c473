"""The example `add_sub`: a pipeline of models, and models called by Python stages, agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mindspore_serving.client import Client
from tests.processes.doors import RestDoor
from tests.processes.server_process import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

METHODS = ("add_sub", "add_sub_call", "add_sub_batch")

#: Instances that one call of the batch function of `add_sub_batch` may hold.
SLICE_MAX = 8

TOO_LONG = "Given model input 0 size 16 not match the size 12 defined in model"


def call_error(method: str, function: str) -> str:
    """What a client is told when a function's `Model.call` got an array that is too long."""
    return (
        f"Call Function 'add_sub.{function}' Failed, method: '{method}', stage index(begin with "
        f"1): 1, error msg: Model(tensor_add.mindir).call() failed: {TOO_LONG}"
    )


def instances(count: int) -> list[dict[str, Any]]:
    """Different numbers in each instance."""
    x = np.random.default_rng(count).normal(size=(count, 3, 3)).astype(np.float32)
    return [{"x1": x1, "x2": x2, "x3": x3} for x1, x2, x3 in x]


def expected(instance: dict[str, Any]) -> Any:
    """y by numpy, in float32."""
    return (instance["x1"] + instance["x2"]) * np.float32(0.5) - instance["x3"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [1, 4, 21])
def test_every_way_to_chain_the_models_equals_numpy(
    examples_server: ServerProcess, method: str, count: int
) -> None:
    given = instances(count)
    results = Client(examples_server.grpc_address, "add_sub", method).infer(given)
    for instance, result in zip(given, results, strict=True):
        np.testing.assert_array_equal(result["y"], expected(instance), strict=True)


@pytest.mark.parametrize("method", METHODS)
def test_rest_clients_get_the_same(examples_server: ServerProcess, method: str) -> None:
    door = RestDoor(examples_server.rest_address, "add_sub")
    instance = {"x1": [1.0, 2.0, 3.0], "x2": [3.0, 2.0, 1.0], "x3": [0.5, 0.0, 4.0]}
    assert door.infer(method, [instance] * 5) == {"instances": [{"y": [1.5, 2.0, -2.0]}] * 5}
    door.close()


@pytest.mark.parametrize(
    ("method", "text"),
    [("add_sub", TOO_LONG), ("add_sub_call", call_error("add_sub_call", "below_mean"))],
)
def test_an_instance_of_the_wrong_size_fails_alone(
    examples_server: ServerProcess, method: str, text: str
) -> None:
    given = instances(6)
    given[4]["x1"] = np.ones(4, np.float32)
    results = Client(examples_server.grpc_address, "add_sub", method).infer(given)
    assert results.pop(4) == {"error": text}
    for instance, result in zip(given[:4] + given[5:], results, strict=True):
        np.testing.assert_array_equal(result["y"], expected(instance), strict=True)


def test_a_batch_function_that_raises_fails_its_slice_only(examples_server: ServerProcess) -> None:
    given = instances(21)
    given[10]["x1"] = np.ones(4, np.float32)
    results = Client(examples_server.grpc_address, "add_sub", "add_sub_batch").infer(given)
    failed = [number for number, result in enumerate(results) if "error" in result]
    assert 10 in failed
    assert len(failed) <= SLICE_MAX
    errors = {results[number]["error"] for number in failed}
    assert errors == {call_error("add_sub_batch", "below_mean_of_many")}
    for number in set(range(21)) - set(failed):
        np.testing.assert_array_equal(
            results[number]["y"], expected(given[number]), strict=True, err_msg=str(number)
        )
