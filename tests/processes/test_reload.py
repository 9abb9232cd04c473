"""`mindbus reload`: a servable goes to another version under load, and no request fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from mindbus.bus_client import BusClient
from mindbus.bus_errors import BusError
from tests.processes.probe import broker_stats
from tests.processes.scale import reload, serving, slots_of, write_version
from tests.processes.server_process import CHECKOUT, ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process


@pytest.mark.shows("R1", "R4", "F25")
@pytest.mark.parametrize(
    ("devices", "flags"),
    [("0,1", ("--mode", "surge")), ("0,1", ("--mode", "in-place")), ("0", ())],
    ids=["two workers by surge", "two workers in place", "a single worker by surge"],
)
def test_a_new_version_takes_over_under_load_and_no_request_fails(
    tmp_path: Path, devices: str, flags: tuple[str, ...]
) -> None:
    write_version(tmp_path, 1)
    logs = tmp_path / "logs"
    where = ("--device-ids", devices, "--worker-log-directory", str(logs))
    with serving(tmp_path, *where) as (server, load):
        wait_until(lambda: load.factors[10] >= 20)
        write_version(tmp_path, 2)
        done = reload(server, "--settle-ms", "300", *flags)
        assert (done.returncode, done.stderr) == (0, "")
        workers = len(devices.split(","))
        assert slots_of(server) == {f"scale/2/device{n}": "READY" for n in range(workers)}
        log = logs / "log_scale_device0_version2.log"
        assert "version number: 2" in log.read_text()
        before = load.factors[10]
        wait_until(lambda: load.factors[100] >= 50)
        assert load.factors[10] == before, "the old version answers nobody any more"
        load.stop()
        assert load.failures == []
        assert set(load.factors) == {10, 100}
        with BusClient(server.producers_address) as client:
            x = np.ones(4, np.float32)
            assert client.infer("scale", "scale", {"x": x}, version=2)[0]["y"][0] == 100
            with pytest.raises(BusError):
                client.infer("scale", "scale", {"x": x}, version=1, timeout=5)


PARALLEL = """
import numpy as np
from mindspore_serving.server import register

model = register.declare_model("scale.json", "MindIR", with_batch_dim=True)


def same(x):
    return np.array(x)


@register.register_method(output_names=["y"])
def scale(x):
    return register.add_stage(model, register.add_stage(same, x, outputs_count=1), outputs_count=1)
"""


@pytest.mark.parametrize("devices", ["0", "0,1"])
def test_extra_workers_go_to_the_new_version_as_well(tmp_path: Path, devices: str) -> None:
    write_version(tmp_path, 1)
    (tmp_path / "scale" / "servable_config.py").write_text(PARALLEL)
    flags = ("--device-ids", devices, "--extra-workers", "1")
    with serving(tmp_path, *flags) as (server, load):
        wait_until(lambda: load.factors[10] >= 20)
        write_version(tmp_path, 2)
        (tmp_path / "scale" / "servable_config.py").write_text(PARALLEL)
        done = reload(server, "--settle-ms", "100")
        assert (done.returncode, done.stderr) == (0, "")
        expected = {f"scale/2/device{n}": "READY" for n in range(len(devices.split(",")))}
        assert slots_of(server) == {**expected, "scale/2/extra0": "READY"}
        before = load.factors[10]
        wait_until(lambda: load.factors[100] >= 50)
        assert load.factors[10] == before
        load.stop()
        assert load.failures == []


def test_while_two_versions_run_each_answers_its_share(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    flags = ("--device-ids", "0,1,2", "--servable", "scale:1")
    with serving(tmp_path, *flags) as (server, load):
        wait_until(lambda: load.factors[10] >= 20)
        roll = threading.Thread(target=reload, args=(server, "--settle-ms", "3000"))
        roll.start()
        wait_until(lambda: len(slots_of(server)) == 4 and load.factors[100] >= 1)
        seen = load.factors.copy()
        wait_until(lambda: sum(load.factors.values()) - sum(seen.values()) >= 100)
        share = (load.factors - seen)[100] / 100
        print(f"one of four workers has the new version: it answered {share:.2f}")
        assert 0 < share < 0.5
        roll.join()
        load.stop()
        assert load.failures == []


@pytest.mark.shows("R3")
@pytest.mark.parametrize("mode", ["surge", "in-place"])
def test_a_version_that_cannot_be_loaded_stops_the_roll_and_the_old_one_serves_on(
    tmp_path: Path, mode: str
) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path, "--device-ids", "0,1") as (server, load):
        write_version(tmp_path, 2, op="no such op")
        done = reload(server, "--mode", mode)
        assert done.returncode == 1
        assert (
            "slot scale/2/device0 failed, phase STARTING: Raise failed: Load model" in done.stderr
        )
        old = {"scale/1/device0": "READY", "scale/1/device1": "READY"}
        assert wait_until(lambda: slots_of(server) == old)
        before = load.factors[10]
        wait_until(lambda: load.factors[10] >= before + 50)
        load.stop()
        assert load.failures == []
        assert set(load.factors) == {10}


@pytest.mark.shows("F26")
def test_a_reload_that_stopped_half_way_can_go_on_or_back(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path, "--device-ids", "0,1") as (server, load):
        write_version(tmp_path, 2)
        roll = threading.Thread(target=reload, args=(server, "--settle-ms", "1500"))
        roll.start()
        model = tmp_path / "scale" / "2" / "scale.json"
        assert wait_until(lambda: slots_of(server).get("scale/2/device0") == "READY")
        good = model.read_text()
        model.write_text("not a model")
        roll.join()
        mixed = {"scale/1/device1": "READY", "scale/2/device0": "READY"}
        assert wait_until(lambda: slots_of(server) == mixed)
        assert reload(server, "--version-number", "1").returncode == 0
        back = {"scale/1/device1": "READY", "scale/1/device0": "READY"}
        assert slots_of(server) == back
        model.write_text(good)
        assert reload(server, "--settle-ms", "0").returncode == 0
        assert set(slots_of(server)) == {"scale/2/device0", "scale/2/device1"}
        load.stop()
        assert load.failures == []


@pytest.mark.shows("R3")
def test_a_version_that_dies_of_its_first_requests_stops_the_roll_and_fails_nobody(
    tmp_path: Path,
) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path, "--device-ids", "0,1") as (server, load):
        wait_until(lambda: load.factors[10] >= 20)
        write_version(tmp_path, 2, faults=[{"when_first_value": 1, "do": "segfault"}])
        done = reload(server, "--settle-ms", "2000")
        assert done.returncode == 1
        assert "slot scale/2/device0 failed, phase SETTLING: killed by SIGSEGV" in done.stderr
        old = {"scale/1/device0": "READY", "scale/1/device1": "READY"}
        assert wait_until(lambda: slots_of(server) == old)
        before = load.factors[10]
        wait_until(lambda: load.factors[10] >= before + 50)
        load.stop()
        assert load.failures == []
        assert broker_stats(server)["counters"]["failed"] == 0


def test_what_cannot_be_reloaded_is_refused_with_its_reason(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    with ServerProcess(tmp_path, "--backend", "numpy") as server:
        assert reload(server).stderr == (
            "mindbus: the server refused: version 1 of scale runs already\n"
        )
        assert "specified version number: 7" in reload(server, "--version-number", "7").stderr
        write_version(tmp_path, 3)
        assert reload(server, "--dry-run").stdout == (
            "1. scale/1/device0  surge, new slot scale/3/device0\n"
        )


def test_a_killed_gateway_learns_the_shares_again(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    flags = ("--device-ids", "0,1", "--servable", "scale:1")
    with ServerProcess(tmp_path, "--backend", "numpy", *flags) as server:
        roll = threading.Thread(target=reload, args=(server, "--settle-ms", "6000"))
        roll.start()
        assert wait_until(lambda: slots_of(server).get("scale/2/device0") == "READY")
        os.kill(server.slot("gateway/0")["pid"], signal.SIGKILL)
        assert wait_until(lambda: server.slot("gateway/0")["generation"] == 2)
        assert wait_until(lambda: server.slot("gateway/0")["state"] == "READY")
        with BusClient(server.producers_address) as client:
            wait_until(lambda: len(client.stats()["workers"]) == 3)
            x = np.ones(4, np.float32)
            answers = [client.infer("scale", "scale", {"x": x})[0]["y"][0] for _ in range(30)]
        assert set(answers) == {10, 100}
        roll.join()


@pytest.mark.shows("F25")
def test_a_watch_rolls_out_what_appears_and_leaves_alone_what_fails(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path) as (server, load):
        watching = subprocess.Popen(
            [
                *(sys.executable, "-m", "mindbus", "reload", "scale", "--watch"),
                *("--interval-s", "0.2", "--settle-ms", "0"),
                *("--run-directory", str(server.run_directory)),
            ],
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            write_version(tmp_path, 2)
            wait_until(lambda: load.factors[100] >= 10, 60)
            write_version(tmp_path, 3)
            (tmp_path / "scale" / "3" / "scale.json").write_text("no model")
            wait_until(lambda: str(server.status()["roll"]["failure"]).startswith("slot scale/3"))
            write_version(tmp_path, 4)
            wait_until(lambda: load.factors[10_000] >= 10, 60)
        finally:
            watching.send_signal(signal.SIGINT)
            said, errors = watching.communicate(timeout=30)
        assert watching.returncode == 130
        assert said.splitlines()[0] == f"watching {tmp_path}/scale"
        assert "the roll stopped: slot scale/3/device0 failed, phase STARTING" in errors
        load.stop()
        assert load.failures == []
