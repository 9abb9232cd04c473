"""What SIGTERM, SIGINT and SIGKILL to a real server and to its real workers do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import grpc
import numpy as np
import pytest

from mindbus.bus_client import BusClient
from mindbus.bus_errors import Unavailable
from mindspore_serving.client import Client
from tests.figures import Figures
from tests.processes.doors import GrpcDoor, tensor
from tests.processes.probe import probe_server
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_gone, wait_until

pytestmark = pytest.mark.process

ROW = np.ones(4, np.float32)


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    """A server of `probe` with two workers."""
    with probe_server("--device-ids", "0,1") as running:
        yield running


def worker_pids(server: ServerProcess) -> list[int]:
    return [slot["pid"] for slot in server.status()["slots"] if slot["kind"] == "worker"]


def doubled(address: str) -> list[float]:
    """One request that every worker can compute."""
    with Client(address, "probe", "double") as client:
        (result,) = client.infer([{"x": ROW}])
    values: list[float] = result["y"].tolist()
    return values


@pytest.mark.shows("F31")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_server_ends_every_process(
    server: ServerProcess, number: signal.Signals
) -> None:
    assert doubled(server.grpc_address) == [2.0] * 4
    processes = server.remember_processes()
    assert len(processes) >= 3
    assert server.stop(number) == 0  # `stop` waits for all that it has seen


@pytest.mark.shows("F9", "R7", "R17")
def test_kill_9_of_the_server_ends_every_process(server: ServerProcess) -> None:
    processes = server.remember_processes()
    assert set(worker_pids(server)) <= processes
    server.process.kill()
    server.process.wait()
    for pid in processes:
        wait_gone(pid)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_workers_that_are_told_to_go_sign_off_and_the_server_ends(
    server: ServerProcess, number: signal.Signals
) -> None:
    door = GrpcDoor(server.grpc_address, "probe")
    request = door.request("double", [{"x": tensor(ROW)}])
    assert door.errors(door.predict(request)) == []
    for pid in worker_pids(server):
        os.kill(pid, number)
    assert server.wait() == 0
    assert "all worker processes that occupy devices have exited" in "".join(server.stderr)
    with pytest.raises(grpc.RpcError) as refused:
        door.predict(request)
    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    door.close()


def test_workers_killed_before_any_request_are_replaced(server: ServerProcess) -> None:
    killed = worker_pids(server)
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not set(killed) & set(worker_pids(server)))
    assert doubled(server.grpc_address) == [2.0] * 4


def test_requests_during_the_gap_of_the_only_worker_are_answered_right() -> None:
    with probe_server("--device-ids", "0") as server:
        assert doubled(server.grpc_address) == [2.0] * 4
        (pid,) = worker_pids(server)
        os.kill(pid, signal.SIGKILL)
        for _ in range(5):
            assert doubled(server.grpc_address) == [2.0] * 4
        wait_until(lambda: worker_pids(server) not in ([pid], [None]))


@pytest.mark.shows("F32")
@pytest.mark.parametrize("mode", ["embedded", "standalone"])
def test_a_second_signal_under_load_ends_everything_at_once(mode: str, figures: Figures) -> None:
    with (
        probe_server("--mode", mode) as server,
        BusClient(server.producers_address, timeout=60) as client,
    ):
        futures = [client.submit("probe", "slow", {"x": ROW}) for _ in range(2_000)]
        wait_until(lambda: any(future.done() for future in futures))
        server.remember_processes()
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: server.status()["state"] == "stopping")
        begin = time.monotonic()
        assert server.stop(signal.SIGTERM) == 128 + signal.SIGTERM
        ended_s = time.monotonic() - begin
        figures(ended_ms=ended_s * 1_000)
        assert ended_s < 8, "the target is 2 s; without the signal it takes 10"
        for future in futures:
            assert future.exception(30) is None or isinstance(future.exception(), Unavailable)
