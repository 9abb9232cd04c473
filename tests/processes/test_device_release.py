"""Devices that are not released at once, or never; devices that are not what was asked for."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindspore_serving.client import Client
from tests.figures import Figures
from tests.processes.load import load
from tests.processes.probe import SERVABLES
from tests.processes.scale import command
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until
from workers.backends.scripted_device import DIRECTORY

pytestmark = pytest.mark.process

RELEASE_MS = 2_500

ROW = np.ones(4, np.float32)


class Devices:
    """Scripts of devices, which processes of a server open."""

    def __init__(self, root: Path) -> None:
        self.root = root / "devices"
        self.root.mkdir()

    def script(self, device_id: int, **script: Any) -> None:
        """How a device behaves from now on."""
        (self.root / f"device{device_id}.json").write_text(json.dumps(script))


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    return Devices(tmp_path)


def serve(devices: Devices, *flags: str, ids: str = "0,1") -> ServerProcess:
    return ServerProcess(
        SERVABLES,
        *("--servable", "probe", "--servable", "plain", "--backend", "numpy"),
        *("--device-ids", ids, *flags),
        environment={DIRECTORY: str(devices.root)},
    )


def slot_of(server: ServerProcess, name: str) -> dict[str, Any]:
    return next(slot for slot in server.status()["slots"] if slot["slot"] == name)


@contextmanager
def asking(server: ServerProcess, servable: str = "probe") -> Iterator[list[Any]]:
    """A client that never retries; what was wrong with its answers."""

    def make_ask(_number: int) -> Callable[[], Any]:
        client = Client(server.grpc_address, servable, "double")

        def ask() -> Any:
            answer = client.infer([{"x": ROW}])
            is_right = isinstance(answer, list) and answer[0]["y"].tolist() == [2] * 4
            return None if is_right else answer

        return ask

    with load(make_ask, clients=1, pause_s=0.005) as clients:
        yield clients.failures


@pytest.mark.shows("F27", "R8")
@pytest.mark.parametrize("ids", ["0", "0,1"])
def test_a_device_that_is_released_late_is_tried_again_and_no_request_fails(
    devices: Devices, figures: Figures, ids: str
) -> None:
    for number in (0, 1):
        devices.script(number, release_ms=RELEASE_MS)
    with serve_probe(devices, ids) as server, asking(server) as wrong:
        pid = slot_of(server, "probe/1/device0")["pid"]
        os.kill(pid, signal.SIGKILL)
        begin = time.monotonic()
        wait_until(lambda: "Resource_Busy" in str(slot_of(server, "probe/1/device0")["error"]), 30)
        figures(found_busy_ms=(time.monotonic() - begin) * 1_000, release_ms=RELEASE_MS)
        wait_until(lambda: slot_of(server, "probe/1/device0")["state"] == "READY", 30)
        figures(ready_again_ms=(time.monotonic() - begin) * 1_000)
        assert slot_of(server, "probe/1/device0")["generation"] >= 4
    assert wrong == []


def serve_probe(devices: Devices, ids: str) -> ServerProcess:
    return ServerProcess(
        SERVABLES,
        *("--servable", "probe", "--backend", "numpy", "--device-ids", ids),
        environment={DIRECTORY: str(devices.root)},
    )


@pytest.mark.shows("F27")
def test_a_device_that_is_never_released_is_a_fault_of_one_slot_until_it_is_reset(
    devices: Devices, figures: Figures
) -> None:
    flags = ("--device-limit-ms", "2000")
    with serve(devices, *flags, ids="0") as server, asking(server, "plain") as wrong:
        devices.script(0, state="wedged")
        begin = time.monotonic()
        os.kill(slot_of(server, "probe/1/device0")["pid"], signal.SIGKILL)
        wait_until(lambda: slot_of(server, "probe/1/device0")["state"] == "DEVICE_FAULT", 60)
        figures(fault_ms=(time.monotonic() - begin) * 1_000, device_limit_ms=2_000)
        fault = slot_of(server, "probe/1/device0")
        assert "Resource_Busy (EL0005), it is wedged" in fault["error"]
        told = Client(server.grpc_address, "probe", "double").infer([{"x": ROW}])
        assert "servable is not available" in told["error"]
        assert command(server, "ready", "probe").returncode == 1
        assert slot_of(server, "plain/1/device0")["state"] == "READY"
        assert command(server, "restart", "probe").stderr == (
            "mindbus: the server refused: slot probe/1/device0 is DEVICE_FAULT: nothing can be "
            "rolled before it runs\n"
        )
        devices.script(0)
        assert command(server, "reset", "probe/1/device0").returncode == 0
        wait_until(lambda: command(server, "ready").returncode == 0)
        again = Client(server.grpc_address, "probe", "double").infer([{"x": ROW}])
        assert again[0]["y"].tolist() == [2] * 4
    assert wrong == []


@pytest.mark.shows("F27", "R8")
def test_a_rolling_restart_in_place_waits_for_each_device(devices: Devices) -> None:
    for number in (0, 1):
        devices.script(number, release_ms=1_000)
    with serve_probe(devices, "0,1") as server, asking(server) as wrong:
        least: list[int] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.01):
                states = [s["state"] for s in server.status()["slots"] if s["kind"] == "worker"]
                least.append(states.count("READY"))

        watcher = threading.Thread(target=watch)
        watcher.start()
        done = command(server, "restart", "--mode", "in-place", "--settle-ms", "0")
        over.set()
        watcher.join()
        assert (done.returncode, done.stderr) == (0, "")
        assert min(least) == 1
        assert {slot_of(server, f"probe/1/device{n}")["state"] for n in (0, 1)} == {"READY"}
    assert wrong == []


@pytest.mark.shows("F27")
def test_a_wedged_device_stops_a_rolling_restart_and_the_other_worker_serves(
    devices: Devices,
) -> None:
    flags = ("--device-limit-ms", "1000")
    with (
        ServerProcess(
            SERVABLES,
            *("--servable", "probe", "--backend", "numpy", "--device-ids", "0,1", *flags),
            environment={DIRECTORY: str(devices.root)},
        ) as server,
        asking(server) as wrong,
    ):
        untouched = slot_of(server, "probe/1/device1")["pid"]
        devices.script(0, state="wedged")
        done = command(server, "restart", "--mode", "in-place", "--settle-ms", "0")
        assert done.returncode == 1
        assert "slot probe/1/device0 failed, phase STARTING: open device failed" in done.stderr
        assert slot_of(server, "probe/1/device0")["state"] == "DEVICE_FAULT"
        assert slot_of(server, "probe/1/device1")["pid"] == untouched
    assert wrong == []


@pytest.mark.shows("F27")
def test_a_first_start_waits_for_a_busy_device_and_fails_with_a_broken_one(
    devices: Devices,
) -> None:
    devices.script(0, release_ms=1_500)
    holders = devices.root / "device0.holders"
    holders.write_text(json.dumps({str(2**22 - 1): None}))  # it has just died
    with serve_probe(devices, "0") as server:
        assert slot_of(server, "probe/1/device0")["generation"] >= 2
    devices.script(0, state="broken")
    server = serve_probe(devices, "0")
    try:
        assert server.wait() == 1
        assert "device CPU 0 cannot be opened: no such device" in server.stderr[-1]
    finally:
        server.close()


@pytest.mark.shows("F28")
def test_a_worker_on_another_device_than_asked_does_not_serve(devices: Devices) -> None:
    with serve_probe(devices, "0,1") as server, asking(server) as wrong:
        devices.script(0, opens_as=["CPU", 7])
        os.kill(slot_of(server, "probe/1/device0")["pid"], signal.SIGKILL)
        wait_until(lambda: slot_of(server, "probe/1/device0")["state"] == "DEVICE_FAULT")
        error = slot_of(server, "probe/1/device0")["error"]
        assert "device CPU 0 was asked for, but the process is on CPU 7" in error
        assert slot_of(server, "probe/1/device1")["state"] == "READY"
    assert wrong == []
