"""Readiness that does not lie: what breaks is seen, in time, and so is that it is mended."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindbus.bus_client import BusClient
from mindbus.runtime_client import RuntimeClient
from mindspore_serving.client import Client
from tests.figures import Figures
from tests.processes.probe import probe_server
from tests.processes.scale import command, write_version
from tests.processes.server_process import ServerProcess
from tests.processes.test_hang import hanging_servable
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

#: A worker that answers nothing for so long makes no progress, in these tests.
READY_MS = "1000"

ONES = np.ones(4, np.float32)

READY = "ready"


def ready_text(server: ServerProcess, *arguments: str) -> str:
    """What `mindbus ready` says; its exit code says the same."""
    done = command(server, "ready", "--timeout-ms", "1000", *arguments)
    text = done.stdout.strip() or done.stderr.strip()
    assert (done.returncode == 0) == (text == "ready"), text
    return text


def wait_for(server: ServerProcess, text: str, *arguments: str) -> float:
    """Wait until `mindbus ready` says this, or why not; returns after how many ms it did."""
    begin = time.monotonic()
    wait_until(
        lambda: (
            (said := ready_text(server, *arguments)) == text
            or (said != READY and text != READY and text in said)
        ),
        60,
    )
    return (time.monotonic() - begin) * 1_000


def slot_of(server: ServerProcess, name: str) -> dict[str, Any]:
    return next(slot for slot in server.status()["slots"] if slot["slot"] == name)


@pytest.mark.shows("R5", "F3")
@pytest.mark.parametrize("method", ["looping", "sleeping"])
def test_a_servable_whose_worker_hangs_is_not_ready_and_others_are(
    tmp_path: Path, figures: Figures, method: str
) -> None:
    hanging_servable(tmp_path)
    write_version(tmp_path, 1)
    flags = ("--backend", "numpy", "--ready-ms", READY_MS, "--hang-ms", "6000")
    with ServerProcess(tmp_path, *flags) as server, BusClient(server.producers_address) as client:
        assert ready_text(server) == "ready"
        hung = client.submit("hanging", method, {"x": ONES}, timeout=60)
        figures(not_ready_ms=wait_for(server, "no worker of hanging/1 makes progress"))
        assert ready_text(server, "scale") == "ready"
        assert "hanging" in ready_text(server, "hanging")
        status = json.loads(command(server, "status", "--json").stdout)
        assert status["live"] is True
        assert {each["servable"]: each["not_ready"] is None for each in status["servables"]} == {
            "hanging": False,
            "scale": True,
        }
        hung.cancel()
        figures(ready_again_ms=wait_for(server, "ready", "hanging"))
        wait_until(lambda: ready_text(server) == "ready")


@pytest.mark.shows("R5", "F2")
def test_a_stopped_worker_makes_its_servable_not_ready(figures: Figures) -> None:
    with probe_server("--ready-ms", READY_MS) as server:
        os.kill(slot_of(server, "probe/1/device0")["pid"], signal.SIGSTOP)
        figures(not_ready_ms=wait_for(server, "not ready: "))
        wait_until(lambda: ready_text(server) == "ready")
        assert slot_of(server, "probe/1/device0")["generation"] == 2


@pytest.mark.shows("R5", "F22")
def test_a_servable_whose_workers_cannot_start_again_is_not_ready(
    tmp_path: Path, figures: Figures
) -> None:
    write_version(tmp_path, 1)
    with ServerProcess(tmp_path, "--backend", "numpy", "--device-ids", "0,1") as server:
        good = (tmp_path / "scale" / "1" / "scale.json").read_text()
        (tmp_path / "scale" / "1" / "scale.json").write_text("no model any more")
        pids = [slot_of(server, f"scale/1/device{n}")["pid"] for n in (0, 1)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        figures(not_ready_ms=wait_for(server, "not ready: scale/1 has no worker"))
        asked = threading.Thread(
            target=Client(server.grpc_address, "scale", "scale").infer, args=([{"x": ONES}],)
        )
        asked.start()
        (tmp_path / "scale" / "1" / "scale.json").write_text(good)
        figures(ready_again_ms=wait_for(server, "ready"))
        asked.join(30)
        assert not asked.is_alive(), "what was asked meanwhile was answered"


@pytest.mark.shows("R5", "F7")
@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_broker_that_is_away_makes_the_server_not_ready(
    number: signal.Signals, figures: Figures
) -> None:
    with probe_server("--mode", "standalone") as server:
        pid = slot_of(server, "broker/0")["pid"]
        watched: list[str] = []
        over = threading.Event()

        def watch() -> None:
            while not over.is_set():
                watched.append(ready_text(server))

        watcher = threading.Thread(target=watch)
        watcher.start()
        wait_until(lambda: len(watched) >= 2)
        begin = time.monotonic()
        os.kill(pid, number)
        if number == signal.SIGKILL:
            kill_again(server, pid)
        wait_until(lambda: any(text != "ready" for text in watched))
        figures(not_ready_ms=(time.monotonic() - begin) * 1_000)
        with RuntimeClient(server.run_directory) as client:
            assert client.status()["state"] == "serving", "it is live"
        if number == signal.SIGSTOP:
            os.kill(pid, signal.SIGCONT)
        count = len(watched)
        wait_until(lambda: "ready" in watched[count:])
        over.set()
        watcher.join()


def kill_again(server: ServerProcess, pid: int) -> None:
    """Kill its successors, too: the third comes after a pause, in which somebody can ask."""
    for _ in range(2):
        wait_until(lambda pid=pid: slot_of(server, "broker/0")["pid"] not in (None, pid))  # type: ignore[misc]
        pid = slot_of(server, "broker/0")["pid"]
        os.kill(pid, signal.SIGKILL)


def test_without_a_server_nothing_is_ready(tmp_path: Path) -> None:
    with probe_server() as server:
        assert server.stop() == 0
        assert ready_text(server).startswith("mindbus: no MindBus server runs")


@contextmanager
def sampling(server: ServerProcess) -> Iterator[list[dict[str, Any]]]:
    """Samples of the supervisor's status, one after the other."""
    samples: list[dict[str, Any]] = []
    over = threading.Event()

    def sample() -> None:
        with RuntimeClient(server.run_directory) as client:
            while not over.wait(0.005):
                samples.append(client.status() | {"at": time.monotonic()})

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        over.set()
        thread.join()


@pytest.mark.shows("F26")
def test_the_status_is_true_at_every_moment_of_a_roll_with_deaths_in_it() -> None:
    with (
        probe_server("--device-ids", "0,1") as server,
        RuntimeClient(server.run_directory) as client,
    ):
        with sampling(server) as samples:
            client.roll("restart", {"settle_ms": 300})
            killed: dict[int, float] = {}
            for name in ("probe/1/device1", "probe/1/device0~"):
                slot = wait_until(
                    lambda name=name: next(  # type: ignore[misc]
                        (
                            s
                            for s in client.status()["slots"]
                            if s["slot"] == name and s["state"] == "READY"
                        ),
                        None,
                    )
                )
                os.kill(slot["pid"], signal.SIGKILL)
                killed[slot["pid"]] = time.monotonic()
            wait_until(lambda: client.status()["roll"]["is_over"])
        generations: dict[str, int] = {}
        for sample in samples:
            steps = sample["roll"]["replacements"] if sample["roll"] else []
            states = [step["state"] for step in steps]
            assert sum(state not in ("WAITING", "DONE", "FAILED") for state in states) <= 1
            for slot in sample["slots"]:
                assert slot["generation"] >= generations.get(slot["slot"], 0)
                generations[slot["slot"]] = slot["generation"]
                has_process = slot["state"] in ("STARTING", "READY", "DRAINING")
                assert (slot["pid"] is not None) == has_process, slot
                assert len(slot["exits"]) <= 8
                died = killed.get(slot["pid"], sample["at"])
                assert sample["at"] - died < 3, "long dead and still shown"
        exits = [each["exit"] for slot in server.status()["slots"] for each in slot["exits"]]
        assert "killed by SIGKILL" in exits
        assert len(samples) > 50
