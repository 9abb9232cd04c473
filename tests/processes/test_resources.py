"""Memory, descriptors and time of a server: what runs out harms who used it, nobody else."""

from __future__ import annotations

import os
import resource
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from mindbus.bus_client import BusClient
from mindspore_serving.client import Client
from protocol import head as heads
from tests.figures import Figures
from tests.processes.doors import RestDoor
from tests.processes.probe import broker_stats, probe_server
from tests.processes.scale import command, reload, serving, write_version
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_gone, wait_until

pytestmark = pytest.mark.process

GREEDY = """
import ctypes
import resource

import numpy as np
from mindspore_serving.server import register

HUGE = 1 << 40
resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]


def take(x):
    if x == 1:
        return np.float32(len(bytearray(HUGE)))
    if x == 2:  # what a library does that does not look at the result
        ctypes.memset(libc.malloc(HUGE), 0, 1)
    return x


@register.register_method(output_names=["y"])
def take_memory(x):
    return register.add_stage(take, x, outputs_count=1)
"""


def slot_of(server: ServerProcess, name: str) -> dict[str, Any]:
    return next(slot for slot in server.status()["slots"] if slot["slot"] == name)


@pytest.mark.shows("F4")
def test_memory_that_runs_out_costs_an_instance_or_at_most_two_workers(
    tmp_path: Path, figures: Figures
) -> None:
    (tmp_path / "greedy").mkdir()
    (tmp_path / "greedy" / "servable_config.py").write_text(GREEDY)
    write_version(tmp_path, 1)
    with serving(tmp_path) as (server, load):
        client = Client(server.grpc_address, "greedy", "take_memory")
        answers = client.infer([{"x": np.float32(value)} for value in (3, 1, 4)])
        assert [answer.get("y") for answer in answers] == [3, None, 4]
        assert "error" in answers[1]
        assert slot_of(server, "greedy/1/device0")["generation"] == 1
        begin = time.monotonic()
        deadly = client.infer([{"x": np.float32(2)}])
        figures(refused_ms=(time.monotonic() - begin) * 1_000)
        assert "2 workers of greedy/1 were lost while they computed" in deadly["error"]
        assert slot_of(server, "greedy/1/device0")["last_exit"] == "killed by SIGSEGV"
        wait_until(lambda: slot_of(server, "greedy/1/device0")["state"] == "READY")
        assert slot_of(server, "greedy/1/device0")["generation"] == 3
        assert client.infer([{"x": np.float32(3)}])[0]["y"] == 3
        load.stop()
        assert load.failures == []
        counters = broker_stats(server)["counters"]
        assert counters["accepted"] == counters["answered"] + counters["failed"]


def rss_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def gateway_pid(server: ServerProcess) -> int:
    (pid,) = [slot["pid"] for slot in server.status()["slots"] if slot["kind"] == "gateway"]
    return int(pid)


def p99_ms(address: str, count: int = 300) -> float:
    client = Client(address, "probe", "double")
    row = np.ones(4, np.float32)
    times = []
    for _ in range(count):
        begin = time.monotonic()
        assert client.infer([{"x": row}])[0]["y"].tolist() == [2] * 4
        times.append((time.monotonic() - begin) * 1_000)
    return statistics.quantiles(times, n=100)[98]


@contextmanager
def idle_producers(address: str, count: int) -> Iterator[None]:
    """Sockets of ZeroMQ, connected, that say nothing."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, count + 10)
    sockets = []
    try:
        for _ in range(count):
            producer = context.socket(zmq.DEALER)
            producer.connect(address)
            sockets.append(producer)
        ping = heads.pack(heads.Head(heads.STATS, request_id=1))
        sockets[-1].send_multipart([ping])
        assert sockets[-1].poll(20_000), "the last one is not connected"
        yield
    finally:
        context.destroy(linger=0)


@pytest.mark.shows("F19")
def test_idle_connections_cost_memory_only(figures: Figures, is_full: bool) -> None:
    wanted = 9_999 if is_full else 600
    with ExitStack() as idle:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        idle.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        count = min(wanted, (hard - 500) * 3 // 4)  # a socket of ZeroMQ's has two descriptors
        server = idle.enter_context(probe_server())
        pid = gateway_pid(server)
        before_mb, before_ms = rss_mb(pid), p99_ms(server.grpc_address)
        for number in range(count * 2 // 3):
            address = server.rest_address if number % 2 else server.grpc_address
            host, _, port = address.rpartition(":")
            idle.enter_context(socket.create_connection((host, int(port)), timeout=20))
        idle.enter_context(idle_producers(server.producers_address, count // 3))
        with_ms = p99_ms(server.grpc_address)
        figures(
            connections=count,
            p99_before_ms=before_ms,
            p99_with_ms=with_ms,
            memory_mb=rss_mb(pid) - before_mb,
        )
        assert rss_mb(pid) - before_mb < 300
        assert with_ms < 10 * before_ms + 50, "the target is 1.5 times, on a quiet machine"
        door = RestDoor(server.rest_address, "probe")
        assert door.infer("double", [{"x": [1.0] * 4}])["instances"][0]["y"] == [2.0] * 4
        door.close()


@pytest.mark.shows("R9", "R23")
def test_the_broker_answers_while_a_model_is_loaded(tmp_path: Path, figures: Figures) -> None:
    write_version(tmp_path, 1)
    config = tmp_path / "scale" / "servable_config.py"
    with serving(tmp_path) as (server, load), BusClient(server.producers_address) as client:
        write_version(tmp_path, 2)
        config.write_text("import time\ntime.sleep(2)\n" + config.read_text())
        rolling = threading.Thread(target=reload, args=(server, "--settle-ms", "0"))
        rolling.start()
        longest = 0.0
        while rolling.is_alive():
            begin = time.monotonic()
            client.stats()
            longest = max(longest, time.monotonic() - begin)
        rolling.join()
        figures(longest_answer_ms=longest * 1_000)
        assert longest < 1, "the target is 50 ms, on a quiet machine"
        load.stop()
        assert load.failures == []


@pytest.mark.shows("R2", "R1")
def test_reloads_leave_no_memory_and_no_process_behind(
    tmp_path: Path, figures: Figures, is_full: bool
) -> None:
    cycles = 50 if is_full else 6
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    with serving(tmp_path, "--servable", "scale:1") as (server, load):
        pid = gateway_pid(server)
        sizes, gone = [], []
        for cycle in range(cycles):
            gone += [slot["pid"] for slot in server.status()["slots"] if slot["servable"]]
            version = str(2 - cycle % 2)
            done = command(server, "reload", "scale", "--version", version, "--settle-ms", "0")
            assert (done.returncode, done.stderr) == (0, "")
            sizes.append(rss_mb(pid))
        for old in gone:
            wait_gone(old)
        middle = cycles // 2
        growth = sizes[-1] - sizes[middle]
        figures(reloads=cycles, gateway_mb=sizes[-1], growth_of_second_half_mb=growth)
        assert growth < 5
        load.stop()
        assert load.failures == []


@pytest.mark.shows("R7", "F8", "F9")
@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        *(("embedded", kind) for kind in ("supervisor", "gateway", "worker")),
        *(("standalone", kind) for kind in ("supervisor", "gateway", "broker", "worker")),
    ],
)
def test_a_kill_of_any_process_leaves_nobody_behind(mode: str, kind: str, figures: Figures) -> None:
    server = probe_server("--device-ids", "0,1", "--mode", mode)
    with server:
        before = server.remember_processes()
        slots = server.status()["slots"]
        pids = [slot["pid"] for slot in slots if slot["kind"] == kind]
        victim = server.process.pid if kind == "supervisor" else pids[0]
        os.kill(victim, signal.SIGKILL)
        begin = time.monotonic()
        if kind == "supervisor":
            server.process.wait()
            for pid in before:
                wait_gone(pid)
            figures(all_gone_ms=(time.monotonic() - begin) * 1_000)
        else:
            wait_until(lambda: all_ready(server, victim), 60)
            figures(all_ready_ms=(time.monotonic() - begin) * 1_000)
            assert server.stop() == 0
        for pid in before:
            wait_gone(pid)
    assert not list(Path("/dev/shm").glob("*mindbus*"))


def all_ready(server: ServerProcess, victim: int) -> bool:
    slots = server.status()["slots"]
    return all(slot["state"] == "READY" and slot["pid"] != victim for slot in slots)
