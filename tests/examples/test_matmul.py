"""The example `matmul`: each subgraph of a model of two files computes its own graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mindspore_serving.client import Client
from tests.processes.doors import RestDoor
from tests.processes.server_process import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

MODEL = "matmul_0.mindir;matmul_1.mindir"

#: Instances with small whole numbers, so that every order of additions gives the same.
_random = np.random.default_rng(3)
INSTANCES = [
    {
        name: _random.integers(-9, 10, shape).astype(np.float32)
        for name, shape in (("x1", (2, 4)), ("x2", (4, 3)), ("x3", (2, 3)))
    }
    for _ in range(5)
]


def expected(method: str, x1: Any, x2: Any, x3: Any) -> dict[str, Any]:
    """The outputs of a method by numpy."""
    product = x1 @ x2
    return {
        "matmul": {"y": product},
        "matmul_call": {"y": product},
        "matmul_add": {"y": product + x3},
        "matmul_both": {"once": product, "twice": 2 * product},
    }[method]


def inputs(method: str, instance: dict[str, Any]) -> dict[str, Any]:
    """What of an instance a method takes."""
    names = ("x1", "x2", "x3") if method == "matmul_add" else ("x1", "x2")
    return {name: instance[name] for name in names}


@pytest.mark.parametrize("method", ["matmul", "matmul_call", "matmul_add", "matmul_both"])
def test_every_method_equals_numpy_over_grpc_and_rest(
    examples_server: ServerProcess, method: str
) -> None:
    wanted = [expected(method, **instance) for instance in INSTANCES]
    given = [inputs(method, instance) for instance in INSTANCES]
    results = Client(examples_server.grpc_address, "matmul", method).infer(given)
    for result, outputs in zip(results, wanted, strict=True):
        assert result.keys() == outputs.keys()
        for name, value in outputs.items():
            np.testing.assert_array_equal(result[name], value, strict=True)
    door = RestDoor(examples_server.rest_address, "matmul")
    as_lists = [{name: value.tolist() for name, value in one.items()} for one in given]
    assert door.infer(method, as_lists) == {
        "instances": [{name: value.tolist() for name, value in one.items()} for one in wanted]
    }
    door.close()


@pytest.mark.parametrize(
    ("method", "function", "model"),
    [
        ("matmul_call", "call_matmul", f"Model({MODEL})"),
        ("matmul_add", "call_matmul_add", f"Model({MODEL}, subgraph=1)"),
    ],
)
def test_an_error_of_a_call_names_the_model_and_its_subgraph(
    examples_server: ServerProcess, method: str, function: str, model: str
) -> None:
    instance = inputs(method, INSTANCES[0]) | {"x2": np.ones((4, 2), np.float32)}
    assert Client(examples_server.grpc_address, "matmul", method).infer([instance]) == {
        "error": f"Call Function 'matmul.{function}' Failed, method: '{method}', stage "
        f"index(begin with 1): 1, error msg: {model}.call() failed: "
        "Given model input 1 size 32 not match the size 48 defined in model"
    }
