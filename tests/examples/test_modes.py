"""One servable with its real model gives the same values in every mode of the server."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindspore_serving.client import Client
from tests.examples.conftest import START_DEADLINE_S
from tests.examples.direct_run import ENVIRONMENT
from tests.mindspore_serving.start_script import StartScript, free_port, post
from tests.processes.server_process import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

IN_PROCESS = """
from mindspore_serving import master, worker

worker.start_servable_in_master("{directory}", "add")
master.start_grpc_server("127.0.0.1", {grpc})
master.start_restful_server("127.0.0.1", {rest})
print("served", flush=True)
"""


@contextmanager
def standalone(servables: Path) -> Iterator[tuple[int, int]]:
    """The ports of a server with a broker of its own."""
    with ServerProcess(
        servables,
        *("--servable", "add", "--mode", "standalone"),
        environment=ENVIRONMENT,
        deadline_s=START_DEADLINE_S,
    ) as server:
        yield ports_of(server)


@contextmanager
def in_process(servables: Path) -> Iterator[tuple[int, int]]:
    """The ports of a script that is doors, broker and worker."""
    grpc, rest = free_port(), free_port()
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        source = IN_PROCESS.format(directory=servables, grpc=grpc, rest=rest)
        with StartScript(Path(place), source, backend="mindspore") as script:
            script.wait_for("served", START_DEADLINE_S)
            assert script.children() == set()
            yield grpc, rest


def ports_of(server: ServerProcess) -> tuple[int, int]:
    grpc, rest = server.grpc_address, server.rest_address
    return int(grpc.rpartition(":")[2]), int(rest.rpartition(":")[2])


def answers(ports: tuple[int, int]) -> list[Any]:
    """What the servable `add` says to the same requests over both doors."""
    grpc_port, rest_port = ports
    x = np.random.default_rng(7).normal(size=(5, 2, 2)).astype(np.float32)
    instances = [{"x1": x[n], "x2": x[n + 1]} for n in range(4)]
    address = f"127.0.0.1:{grpc_port}"
    said: list[Any] = []
    for method in ("add_common", "add_cast"):
        with Client(address, "add", method) as client:
            results = client.infer(instances)
            assert isinstance(results, list)
            for instance, result in zip(instances, results, strict=True):
                np.testing.assert_array_equal(
                    result["y"], instance["x1"] + instance["x2"], strict=True
                )
            said.append([result["y"].tolist() for result in results])
            said.append(client.infer([instances[0], {"x1": x[0], "x2": np.ones(3, np.float32)}]))
            said[-1][0]["y"] = said[-1][0]["y"].tolist()
        as_lists = [{name: value.tolist() for name, value in one.items()} for one in instances]
        said.append(post(rest_port, f"/model/add:{method}", {"instances": as_lists}))
        said.append(post(rest_port, f"/model/add/version/7:{method}", {"instances": as_lists}))
    return said


def test_one_servable_gives_the_same_embedded_standalone_and_in_process(
    examples_server: ServerProcess, example_servables: Path
) -> None:
    embedded = answers(ports_of(examples_server))
    with standalone(example_servables) as ports:
        assert answers(ports) == embedded
    with in_process(example_servables) as ports:
        assert answers(ports) == embedded
    assert embedded[1][1] == {
        "error": "Given model input 1 size 12 not match the size 16 defined in model"
    }
    assert embedded[3] == {
        "error_msg": "Request servable(add) method(add_common)  version(7) , "
        "servable is not available"
    }
