"""`mindbus serve`, `status` and `stop` as a user meets them, with the numpy backend."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.processes.probe import broker_stats
from tests.processes.server_process import CHECKOUT, ServerProcess
from tests.processes.waiting import DEADLINE_S, wait_until

pytestmark = pytest.mark.process

CONFIG = """
from mindspore_serving.server import register

model = register.declare_model("add.json", model_format="MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.add_stage(model, x1, x2, outputs_count=1)
"""


def write_servable(root: Path, delay_ms: int = 0, name: str = "add") -> Path:
    """A servable that adds two vectors of two; returns the servable directory."""
    vector = {"dtype": "float32", "shape": [2]}
    model = {
        "inputs": [{"name": "x1", **vector}, {"name": "x2", **vector}],
        "outputs": [{"name": "y", **vector}],
        "op": "add",
        "delay_ms": delay_ms,
    }
    version = root / name / "1"
    version.mkdir(parents=True)
    (version / "add.json").write_text(json.dumps(model))
    (root / name / "servable_config.py").write_text(CONFIG)
    return root


def call(rest_address: str) -> dict[str, Any]:
    """[1.5, 2.5] + [3, 4] over REST."""
    body = {"instances": [{"x1": [1.5, 2.5], "x2": [3.0, 4.0]}]}
    request = urllib.request.Request(
        f"http://{rest_address}/model/add:add", json.dumps(body).encode()
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        answer: dict[str, Any] = json.load(reply)
    return answer


SUM = {"instances": [{"y": [4.5, 6.5]}]}


def mindbus(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mindbus", *arguments],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    servables = write_servable(tmp_path_factory.mktemp("servables"))
    flags = ("--backend", "numpy", "--mode", request.param, "--device-ids", "0,1")
    with ServerProcess(servables, *flags) as started:
        yield started
        assert started.stop() == 0


def test_stdout_tells_doors_then_workers_then_ready(server: ServerProcess) -> None:
    lines = server.stdout
    assert lines[:2] == [
        f"Serving: Serving gRPC server start success, listening on {server.grpc_address}",
        f"Serving: Serving RESTful server start success, listening on {server.rest_address}",
    ]
    assert [line.partition(",")[0] for line in lines[2:4]] == [
        "Serving: Start servable success",
        "Serving: Start servable success",
    ]
    assert lines[4] == (
        f"MindBus: ready, pid {server.process.pid}, servables add/1 (2 workers); "
        f"gRPC {server.grpc_address}, RESTful {server.rest_address}, "
        f"producers {server.producers_address}"
    )


def test_the_status_shows_every_process_and_the_brokers_numbers(server: ServerProcess) -> None:
    assert call(server.rest_address) == SUM
    shown = mindbus("status", "--json", "--run-directory", str(server.run_directory))
    status = json.loads(shown.stdout)
    assert {slot["pid"] for slot in status["slots"]} == server.remember_processes()
    assert {slot["state"] for slot in status["slots"]} == {"READY"}
    workers = [slot for slot in status["slots"] if slot["kind"] == "worker"]
    assert [(slot["slot"], slot["in_flight"]) for slot in workers] == [
        ("add/1/device0", 0),
        ("add/1/device1", 0),
    ]
    assert status["broker"]["counters"]["answered"] >= 1
    text = mindbus("status", "--run-directory", str(server.run_directory)).stdout
    pid, mode = server.process.pid, status["mode"]
    assert text.startswith(f"MindBus serving, ready, pid {pid}, mode {mode}\n")


def test_infer_finds_the_server_of_the_run_directory_by_itself(server: ServerProcess) -> None:
    instance = '{"x1": [1.5, 2.5], "x2": [3.0, 4.0]}'
    where = ("--run-directory", str(server.run_directory))
    answered = mindbus("infer", "add", "add", "--json", instance, *where)
    assert (answered.returncode, answered.stderr) == (0, "")
    assert json.loads(answered.stdout) == {"y": [4.5, 6.5]}


def test_a_second_server_with_this_run_directory_is_refused_in_one_line(
    server: ServerProcess, tmp_path: Path
) -> None:
    servables, run = write_servable(tmp_path), server.run_directory
    second = mindbus("serve", "--servable-directory", str(servables), "--run-directory", str(run))
    assert second.returncode == 1
    assert second.stderr == (
        f"mindbus: a MindBus server with pid {server.process.pid} already runs with "
        f"run directory {run}\n"
    )
    assert server.status()["state"] == "serving"


def test_a_killed_gateway_serves_again_at_the_same_address(server: ServerProcess) -> None:
    address = server.rest_address
    os.kill(server.slot("gateway/0")["pid"], signal.SIGKILL)
    wait_until(lambda: server.slot("gateway/0")["restarts"] == 1)
    wait_until(lambda: server.slot("gateway/0")["state"] == "READY")
    assert server.rest_address == address
    # The broker that was in it is new, too: the workers find it within a heartbeat or two.
    wait_until(lambda: call(address) == SUM, deadline_s=5)


def test_sigterm_lets_the_request_in_flight_finish(tmp_path: Path) -> None:
    servables = write_servable(tmp_path, delay_ms=600)
    with ServerProcess(servables, "--backend", "numpy") as server, ThreadPoolExecutor() as pool:
        running = pool.submit(call, server.rest_address)
        wait_until(lambda: broker_stats(server)["requests"] == 1)
        assert server.stop(signal.SIGTERM) == 0
        assert running.result() == SUM


def test_a_server_whose_output_nobody_reads_starts_serves_and_ends_all_the_same(
    tmp_path: Path,
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mb-") as root:
        read_end, write_end = os.pipe()
        os.close(read_end)
        where = ("--run-directory", f"{root}/run")
        ports = ("--grpc-port", "0", "--rest-port", "0", "--backend", "numpy")
        serving = subprocess.Popen(
            [
                *(sys.executable, "-m", "mindbus", "serve", *where, *ports),
                *("--servable-directory", str(write_servable(tmp_path))),
            ],
            cwd=CHECKOUT,
            stdout=write_end,
        )
        os.close(write_end)
        try:
            numbers = ("infer", *where, "add", "add", "--json", '{"x1": [1.5, 2], "x2": [3.5, 4]}')
            answer = wait_until(lambda: mindbus(*numbers).stdout)
            assert json.loads(answer) == {"y": [5.0, 6.0]}
            serving.terminate()
            assert serving.wait(DEADLINE_S) == 0
        finally:
            serving.kill()
            serving.wait()


def test_stop_ends_the_server_and_then_nothing_runs(tmp_path: Path) -> None:
    with ServerProcess(write_servable(tmp_path), "--backend", "numpy") as server:
        where = ("--run-directory", str(server.run_directory))
        stopped = mindbus("stop", *where)
        assert (stopped.returncode, stopped.stdout) == (0, "MindBus: stopped\n")
        assert server.wait() == 0
        assert server.stdout[-1] == "MindBus: stopped"
        assert [file.name for file in server.run_directory.iterdir()] == ["lock"]
        for command in (("status",), ("stop",), ("infer", "add", "add", "--json", "{}")):
            after = mindbus(*command, *where)
            assert (after.returncode, after.stdout, after.stderr) == (
                1,
                "",
                f"mindbus: no MindBus server runs with run directory {server.run_directory}\n",
            )


def test_a_servable_that_cannot_be_imported_ends_the_start_with_its_error(tmp_path: Path) -> None:
    servables = write_servable(tmp_path)
    (servables / "add" / "servable_config.py").write_text("raise ValueError('oops')\n")
    server = ServerProcess(servables, "--backend", "numpy")
    assert server.wait() == 1
    assert server.stderr[-1] == (
        "mindbus: Fail to start workers: {servable name:add, device id:0, "
        "<import add.servable_config failed, oops>}"
    )
    server.close()


def test_a_taken_port_ends_the_start_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ("--backend", "numpy", "--rest-port", str(port))
        server = ServerProcess(write_servable(tmp_path), *flags)
        assert server.wait() == 1
    assert server.stderr == [
        (
            "mindbus: Serving Error: RESTful server start failed, "
            f"bind to the socket address 127.0.0.1:{port} failed "
            "(in use, or not an address of this machine? see --host and --rest-port)"
        )
    ]
    server.close()


def test_a_directory_without_servables_is_refused_in_one_line(tmp_path: Path) -> None:
    refused = mindbus("serve", "--servable-directory", str(tmp_path))
    assert (refused.returncode, refused.stdout, refused.stderr) == (
        1,
        "",
        f"mindbus: no sub-directory of {tmp_path} has a servable_config.py\n",
    )
