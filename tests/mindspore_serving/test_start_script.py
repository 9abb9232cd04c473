"""Start script, servable_config.py and client as a user of MindSpore Serving 2.0 has them."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from tests.mindspore_serving.start_script import (
    ROOT,
    StartScript,
    free_port,
    post,
    write_servable,
)
from tests.processes.scrapes import Scrape
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

GRPC_LINE = "Serving: Serving gRPC server start success, listening on 127.0.0.1:{}"
REST_LINE = "Serving: Serving RESTful server start success, listening on 127.0.0.1:{}"

SERVER_2_0 = """
import os
import sys
from mindspore_serving import server


def start():
    servable_dir = os.path.dirname(os.path.realpath(sys.argv[0]))
    servable_config = server.ServableStartConfig(servable_directory=servable_dir,
                                                 servable_name="add", device_ids=(0, 1))
    server.start_servables(servable_configs=servable_config)
    server.start_grpc_server(address="127.0.0.1:{grpc}")
    server.start_restful_server(address="127.0.0.1:{rest}")


if __name__ == "__main__":
    start()
"""

MASTER_1_1 = """
import os
from mindspore_serving import master
from mindspore_serving import worker

servable_dir = os.path.abspath(os.path.dirname(__file__))
worker.start_servable_in_master(servable_dir, "add", version_number=0, device_id=0)
master.start_grpc_server("127.0.0.1", {grpc})
master.start_restful_server("127.0.0.1", {rest})
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        yield Path(path)


def _assert_adds(grpc_port: int, rest_port: int) -> None:
    """Both doors compute, and fail one instance alone where only one is wrong."""
    ones = np.ones((2, 2), np.int32)
    with Client(f"127.0.0.1:{grpc_port}", "add", "add_cast") as client:
        result = client.infer([{"x1": ones * n, "x2": ones} for n in range(5)])
        mixed = client.infer([{"x1": ones, "x2": ones}, {"x1": np.ones((2, 3)), "x2": ones}])
    with Client(f"127.0.0.1:{grpc_port}", "add", "subtract") as client:
        unknown = client.infer({"x1": 1})
    assert isinstance(result, list)
    assert [instance["y"].tolist() for instance in result] == [
        [[n + 1.0] * 2] * 2 for n in range(5)
    ]
    assert result[0]["y"].dtype == np.float32
    assert isinstance(mixed, list)
    assert mixed[0]["y"].tolist() == [[2.0, 2.0], [2.0, 2.0]]
    assert mixed[1] == {
        "error": "Given model input 0 size 24 not match the size 16 defined in model"
    }
    assert unknown == {"error": "Request servable(add) method(subtract) , method is not available"}
    body = {"instances": [{"x1": [[1, 2], [3, 4]], "x2": [[1, 1], [1, 1]]}]}
    assert post(rest_port, "/model/add/version/1:add_cast", body) == {
        "instances": [{"y": [[2.0, 3.0], [4.0, 5.0]]}]
    }
    tensor = {"datatype": "INT32", "shape": [1, 2, 2], "data": [1, 2, 3, 4]}
    inference = {"inputs": [{"name": name, **tensor} for name in ("x1", "x2")]}
    said = post(rest_port, "/v2/models/add/infer", inference)
    assert said["outputs"][0]["data"] == [2, 4, 6, 8]
    with urllib.request.urlopen(f"http://127.0.0.1:{rest_port}/v2/health/ready") as ready:
        assert ready.status == 200


def test_a_start_script_of_release_2_0_serves_until_it_is_terminated(directory: Path) -> None:
    write_servable(directory)
    grpc_port, rest_port = free_port(), free_port()
    with StartScript(directory, SERVER_2_0.format(grpc=grpc_port, rest=rest_port)) as script:
        script.wait_for(REST_LINE.format(rest_port))
        script.wait_for(GRPC_LINE.format(grpc_port))
        _assert_adds(grpc_port, rest_port)
        assert len(script.children()) == 3, "a gateway and two workers"
        assert script.end(signal.SIGTERM) == 0
        assert script.run_directories() == []


PARALLEL = """
import os
import sys
from mindspore_serving import server

directory = os.path.dirname(os.path.realpath(sys.argv[0]))
config = server.ServableStartConfig(directory, "add", device_ids={devices},
                                    num_parallel_workers={workers})
server.start_servables(config)
server.start_grpc_server("127.0.0.1:{grpc}")
server.start_restful_server("127.0.0.1:{rest}")
"""


@pytest.mark.parametrize(
    ("devices", "workers", "processes"), [("None", 2, 3), ("0", 3, 4), ("(0, 1)", 1, 3)]
)
def test_parallel_workers_without_devices_load_the_models_themselves(
    directory: Path, devices: str, workers: int, processes: int
) -> None:
    write_servable(directory)
    grpc_port, rest_port = free_port(), free_port()
    source = PARALLEL.format(devices=devices, workers=workers, grpc=grpc_port, rest=rest_port)
    with StartScript(directory, source) as script:
        script.wait_for(REST_LINE.format(rest_port))
        _assert_adds(grpc_port, rest_port)
        assert len(script.children()) == processes, "a gateway and the workers"


def test_a_script_of_release_1_1_serves_in_one_process(directory: Path) -> None:
    write_servable(directory, package="worker")
    grpc_port, rest_port = free_port(), free_port()
    source = MASTER_1_1.format(grpc=grpc_port, rest=rest_port)
    with StartScript(directory, source, MINDBUS_ACCESS_LOG="on") as script:
        script.wait_for(REST_LINE.format(rest_port))
        assert any(line.startswith("Serving: Start servable success") for line in script.lines)
        _assert_adds(grpc_port, rest_port)
        assert script.children() == set()
        # Long enough to be looked at beside the loop, although the script's main thread has ended.
        large = {"instances": [{"x1": "x" * 100_000}]}
        assert "not available" in post(rest_port, "/model/nobody:any", large)["error_msg"]
        shown = Scrape(f"127.0.0.1:{rest_port}")
        assert shown.value("request_total", servable="add", method="add_cast", code="OK") == 4
        assert shown.value("gateway_request_total", door="rest", code="OK") == 3
        assert shown.value("worker_credit", servable="add") > 0
        wait_until(lambda: script.errors().count("] access door=") >= 7)
        lines = [line for line in script.errors().splitlines() if "] access door=" in line]
        assert len(lines) == 7, "one for each request over gRPC and REST, OIP among them"
        assert script.end(signal.SIGTERM) == 0
        assert script.run_directories() == []


FAILING = """
import sys
from mindspore_serving import server


def attempt(function, *arguments):
    try:
        function(*arguments)
    except RuntimeError as error:
        print("refused:", error, flush=True)


config = server.ServableStartConfig(".", "add")
attempt(server.start_servables, server.ServableStartConfig(".", "broken"))
attempt(server.start_grpc_server, "127.0.0.1:{taken}")
server.start_servables(config)
server.start_grpc_server("127.0.0.1:{grpc}")
attempt(server.start_servables, config)
attempt(server.start_grpc_server, "127.0.0.1:{rest}")
server.start_restful_server("127.0.0.1:{rest}")
print("served", flush=True)
sys.stdin.read()
"""


FAILED_START = (
    "Fail to start workers: {servable:broken, version:1, extra:0, "
    "<import broken.servable_config failed, why>}"
)
FAILED_DOOR = (
    "Raise failed: Serving Error: Serving gRPC server start failed, create server failed, "
    "address 127.0.0.1:"
)


def test_a_start_that_fails_is_told_and_leaves_a_healthy_server_alone(directory: Path) -> None:
    write_servable(directory)
    (directory / "broken").mkdir()
    (directory / "broken" / "servable_config.py").write_text('raise ValueError("why")\n')
    grpc_port, rest_port = free_port(), free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        taken_port = taken.getsockname()[1]
        source = FAILING.format(taken=taken_port, grpc=grpc_port, rest=rest_port)
        with StartScript(directory, source) as script:
            script.wait_for("served")
            refused = [line for line in script.lines if line.startswith("refused: ")]
            _assert_adds(grpc_port, rest_port)
    assert [line.removeprefix("refused: ") for line in refused] == [
        FAILED_START,
        f"{FAILED_DOOR}{taken_port}",
        "Raise failed: Serving Error: Master gRPC server is already running",
        "Raise failed: Serving Error: Serving gRPC server is already running",
    ]


BUSY = """
import signal
import threading
from mindspore_serving import server

signal.signal(signal.SIGINT, signal.default_int_handler)
server.start_servables(server.ServableStartConfig(".", "add"))
print("busy", flush=True)
try:
    threading.Event().wait()
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize(
    ("number", "exit_code", "last_line"),
    [(signal.SIGINT, 0, "interrupted"), (signal.SIGTERM, -signal.SIGTERM, "busy")],
)
def test_a_signal_ends_the_server_and_then_a_script_that_still_runs(
    directory: Path, number: signal.Signals, exit_code: int, last_line: str
) -> None:
    write_servable(directory)
    with StartScript(directory, BUSY) as script:
        script.wait_for("busy")
        assert script.end(number) == exit_code
        script.wait_for(last_line)
        assert script.lines[-1] == last_line


STOPPING = """
from mindspore_serving import server

for port in ({grpc}, {rest}):
    server.start_servables(server.ServableStartConfig(".", "add"))
    server.start_grpc_server(f"127.0.0.1:{{port}}")
    server.stop()
    print("stopped", flush=True)
"""


def test_after_stop_the_script_may_start_again_and_ends_by_itself(directory: Path) -> None:
    write_servable(directory)
    source = STOPPING.format(grpc=free_port(), rest=free_port())
    with StartScript(directory, source) as script:
        assert script.process.wait(60) == 0
        script.wait_for("stopped")
        assert script.lines.count("stopped") == 2
        assert script.run_directories() == []


@pytest.mark.mindspore
@pytest.mark.parametrize("source", [SERVER_2_0, MASTER_1_1], ids=["processes", "in_process"])
def test_a_mindir_model_is_served_in_either_deployment(directory: Path, source: str) -> None:
    write_servable(directory)
    model = directory / "add" / "1" / "tensor_add.mindir"
    subprocess.run(
        [sys.executable, "-m", "examples.export_add", str(model)],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=120,
    )
    grpc_port, rest_port = free_port(), free_port()
    source = source.format(grpc=grpc_port, rest=rest_port)
    with StartScript(directory, source, backend="mindspore") as script:
        script.wait_for(REST_LINE.format(rest_port), deadline_s=120)
        _assert_adds(grpc_port, rest_port)
        # SIGINT and not SIGTERM: it is the one that MindSpore takes when it compiles.
        assert script.end(signal.SIGINT) == 0
