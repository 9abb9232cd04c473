"""What a machine does to a real server: its clock jumps, its disk is full, it is shut down."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import wait
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from mindbus.bus_client import BusClient
from mindbus.bus_errors import Unavailable
from tests.figures import Figures
from tests.processes.doors import RestDoor
from tests.processes.probe import SERVABLES, broker_stats
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

ROW = np.ones(4, np.float32)

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)


def server_with(environment: dict[str, str], *flags: str, servable: str = "probe") -> ServerProcess:
    """A server with two workers, of `probe` unless it is another."""
    common = ("--servable", servable, "--backend", "numpy", "--device-ids", "0,1")
    return ServerProcess(SERVABLES, *common, *flags, environment=environment)


def assert_serves(server: ServerProcess, servable: str = "probe") -> None:
    """Both a door and the bus give the right values."""
    door = RestDoor(server.rest_address, servable)
    for _ in range(20):
        assert door.infer("double", [{"x": ROW.tolist()}]) == {"instances": [{"y": [2.0] * 4}]}
    door.close()
    with BusClient(server.producers_address) as client:
        assert client.infer(servable, "double", {"x": ROW})[0]["y"].tolist() == [2] * 4


# ---------------------------------------------------------------- clock


@pytest.mark.shows("F29")
@pytest.mark.skipif(FAKETIME is None, reason="libfaketime is not here: apt-get install faketime")
@pytest.mark.parametrize("jump", ["+3600", "-3600"])
def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, jump: str, figures: Figures) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "GLOG_v": "1",
    }
    # A servable that never sleeps: libfaketime has clock_nanosleep fail (EINVAL).
    with server_with(environment, "--mode", "standalone", servable="plain") as server:
        assert_serves(server, "plain")
        pids = {slot["slot"]: slot["pid"] for slot in server.status()["slots"]}
        begin_s = time.monotonic()
        clock.write_text(f"{jump}\n")
        served = 0
        # Longer than two heartbeats: who measured silence by this clock would be lost by now.
        while time.monotonic() < begin_s + 3:
            assert_serves(server, "plain")
            served += 21
        assert {slot["slot"]: slot["pid"] for slot in server.status()["slots"]} == pids
        counters = broker_stats(server)["counters"]
        assert (counters["workers_lost"], counters["failed"]) == (0, 0)
        # The processes did see the jump: their log lines tell the time.
        os.kill(server.slot("plain/1/device0")["pid"], signal.SIGKILL)
        wait_until(lambda: server.slot("plain/1/device0")["restarts"] == 1)
        hour = (datetime.now().astimezone() + timedelta(seconds=int(jump))).strftime(
            "-%Y-%m-%d-%H"
        )[1:]
        wait_until(lambda: any(hour in line and "child" in line for line in server.stderr))
        figures(jump_s=float(jump), served=served)


# ---------------------------------------------------------------- disk


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system without a free byte."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"only root may mount a small file system: {mounted.stderr.strip()}")
    try:
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "filler").write_bytes(bytes(1 << 20))
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.shows("F30")
def test_on_a_full_disk_serving_goes_on_and_the_log_goes_to_stderr(full_disk: Path) -> None:
    environment = {"GLOG_logtostderr": "0", "GLOG_log_dir": str(full_disk), "GLOG_v": "1"}
    flags = ("--worker-log-directory", str(full_disk))
    with server_with(environment, *flags) as server:
        assert_serves(server)
        slots = [slot for slot in server.status()["slots"] if slot["kind"] == "worker"]
        assert [slot["restarts"] for slot in slots] == [0, 0]
        os.kill(slots[0]["pid"], signal.SIGKILL)
        wait_until(lambda: server.slot(slots[0]["slot"])["restarts"] == 1)
        wait_until(lambda: server.slot(slots[0]["slot"])["state"] == "READY")
        assert_serves(server)
        assert server.stop() == 0
    # Once per process that writes there: the supervisor and the gateway.
    said = [line for line in server.stderr if "log file cannot be written" in line]
    assert 1 <= len(said) <= 2
    assert all("No space left" in line for line in said)


@pytest.mark.shows("F30")
def test_a_log_directory_that_cannot_be_written_costs_a_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    environment = {"GLOG_logtostderr": "0", "GLOG_log_dir": str(tmp_path / "file"), "GLOG_v": "1"}
    with server_with(environment, "--worker-log-directory", str(tmp_path / "file")) as server:
        assert_serves(server)
        assert server.stop() == 0
    texts = "\n".join(server.stderr)
    assert "log file cannot be written, output log to screen" in texts
    assert texts.count("worker log cannot be written, workers write to the terminal") == 1


# ---------------------------------------------------------------- shutdown


@pytest.mark.shows("F31")
@pytest.mark.parametrize("mode", ["embedded", "standalone"])
@pytest.mark.parametrize("instances", [1, 8], ids=["within_grace", "beyond_grace"])
def test_sigterm_with_a_thousand_requests_answers_each_of_them(
    mode: str, instances: int, figures: Figures
) -> None:
    grace_ms = 60_000 if instances == 1 else 3_000
    with (
        server_with({}, "--mode", mode, "--grace-ms", str(grace_ms)) as server,
        BusClient(server.producers_address, timeout=60) as client,
    ):
        futures = [client.submit("probe", "slow", [{"x": ROW}] * instances) for _ in range(1_000)]
        wait_until(lambda: broker_stats(server)["counters"]["accepted"] >= 1_000)
        begin_s = time.monotonic()
        assert server.stop(signal.SIGTERM) == 0
        ended_s = time.monotonic() - begin_s
        assert not wait(futures, 10).not_done
        outcomes: Counter[str] = Counter()
        for future in futures:
            error = future.exception()
            assert error is None or isinstance(error, Unavailable), error
            outcomes[str(error) if error else "answered"] += 1
            if error is None:
                values = [result["y"].tolist() for result in future.result()]
                assert values == [[2] * 4] * instances
        assert ended_s < grace_ms / 1_000 + 5
        if instances == 1:  # then the work fits into the grace
            assert set(outcomes) == {"answered"}, outcomes
        figures(ended_s=ended_s, answered=outcomes["answered"], told=1_000 - outcomes["answered"])
