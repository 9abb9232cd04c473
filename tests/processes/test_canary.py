"""Canaries: one worker of a new version gets a share, is promoted or rolled back; labels."""

from __future__ import annotations

import json
import os
import signal
import threading
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindbus.bus_client import BusClient
from mindbus.bus_errors import NotFound
from mindbus.runtime_client import RuntimeClient
from mindspore_serving.client import Client
from tests.processes.scale import command, reload, serving, slots_of, write_version
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

SETTLED = ("--settle-ms", "0")


def versions_of(server: ServerProcess, count: int, name: str = "scale") -> Counter[int]:
    """Which version answers each of some requests, by its factor."""
    client = Client(server.grpc_address, name, "scale")
    answers = [client.infer([{"x": np.ones(4, np.float32)}]) for _ in range(count)]
    return Counter(int(answer[0]["y"][0]) for answer in answers)


@pytest.mark.shows("R1", "R4", "F25")
@pytest.mark.parametrize("mode", ["surge", "in-place"])
def test_a_canary_gets_its_share_until_it_is_promoted(tmp_path: Path, mode: str) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path, "--device-ids", "0,1") as (server, load):
        write_version(tmp_path, 2)
        done = reload(server, "--canary", "10", "--mode", mode, *SETTLED)
        assert (done.returncode, done.stderr) == (0, "")
        there = ["scale/1/device1", "scale/2/device0"]
        assert sorted(slots_of(server)) == (
            there if mode == "in-place" else ["scale/1/device0", *there]
        )
        before = load.factors.copy()
        wait_until(lambda: (load.factors - before).total() >= 200)
        seen = load.factors - before
        assert 0.08 <= seen[100] / seen.total() <= 0.12
        (change,) = server.status()["changes"]
        assert change == {
            "servable": "scale",
            "stable": 1,
            "canary": 2,
            "percent": 10,
            "shares": [[1, 90], [2, 10]],
        }
        assert (
            "versions       scale: stable 1 90 %, canary 2 10 %" in command(server, "status").stdout
        )
        done = command(server, "promote", "scale", "--mode", mode, *SETTLED)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(slots_of(server)) == ["scale/2/device0", "scale/2/device1"]
        assert versions_of(server, 20) == {100: 20}
        assert server.status()["changes"] == []
        load.stop()
        assert load.failures == []


@pytest.mark.shows("R4")
@pytest.mark.parametrize("mode", ["surge", "in-place"])
def test_a_canary_that_is_rolled_back_leaves_everything_as_it_was(
    tmp_path: Path, mode: str
) -> None:
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    flags = ("--device-ids", "0,1", "--servable", "scale:1")
    with serving(tmp_path, *flags) as (server, load):
        assert reload(server, "--canary", "50", "--mode", mode, *SETTLED).returncode == 0
        wait_until(lambda: load.factors[100] >= 5)
        done = command(server, "rollback", "scale", "--mode", mode, *SETTLED)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(slots_of(server)) == ["scale/1/device0", "scale/1/device1"]
        assert versions_of(server, 20) == {10: 20}
        assert server.status()["changes"] == []
        load.stop()
        assert load.failures == []


@pytest.mark.shows("R3", "F26")
def test_a_canary_that_dies_leaves_its_share_to_the_stable_version(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    with serving(tmp_path, "--servable", "scale:1") as (server, load):
        assert reload(server, "--canary", "50", *SETTLED).returncode == 0
        (tmp_path / "scale" / "2" / "scale.json").write_text("no model any more")
        (pid,) = [s["pid"] for s in server.status()["slots"] if s["slot"] == "scale/2/device0"]
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: slots_of(server)["scale/2/device0"] == "BACKOFF")
        assert versions_of(server, 20) == {10: 20}
        done = command(server, "rollback", "scale", *SETTLED)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(slots_of(server)) == ["scale/1/device0"]
        load.stop()
        assert load.failures == []


@pytest.mark.shows("R3")
def test_a_canary_that_cannot_be_loaded_changes_nothing(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path) as (server, load):
        write_version(tmp_path, 2)
        (tmp_path / "scale" / "2" / "scale.json").write_text("no model")
        done = reload(server, "--canary", "10", *SETTLED)
        assert done.returncode == 1
        assert "slot scale/2/device0 failed, phase STARTING: " in done.stderr
        assert server.status()["changes"] == []
        assert wait_until(lambda: sorted(slots_of(server)) == ["scale/1/device0"])
        assert versions_of(server, 10, "scale/canary") == {10: 10}
        load.stop()
        assert load.failures == []


def rest(server: ServerProcess, path: str) -> dict[str, Any]:
    body = json.dumps({"instances": [{"x": [1.0, 1.0, 1.0, 1.0]}]}).encode()
    with urllib.request.urlopen(f"http://{server.rest_address}{path}", body) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def test_labels_name_versions_through_every_door(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    with serving(tmp_path, "--servable", "scale:1") as (server, load):
        for label in ("stable", "canary"):
            assert versions_of(server, 4, f"scale/{label}") == {10: 4}
        assert reload(server, "--canary", "1", *SETTLED).returncode == 0
        ones = {"x": np.ones(4, np.float32)}
        for label, factor in (("stable", 10), ("canary", 100)):
            assert versions_of(server, 4, f"scale/{label}") == {factor: 4}
            answer = rest(server, f"/model/scale/label/{label}:scale")
            assert answer["instances"][0]["y"] == [factor] * 4
            with BusClient(server.producers_address) as client:
                assert client.infer(f"scale/{label}", "scale", [ones])[0]["y"][0] == factor
                with pytest.raises(NotFound, match="has no label 'beta', only stable, canary"):
                    client.infer("scale/beta", "scale", [ones])
        load.stop()
        assert load.failures == []


def test_a_restarted_gateway_and_restarted_workers_keep_the_shares(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    with ServerProcess(tmp_path, "--backend", "numpy", "--servable", "scale:1") as server:
        assert reload(server, "--canary", "25", *SETTLED).returncode == 0
        assert command(server, "restart", *SETTLED).returncode == 0
        assert versions_of(server, 40) == {10: 30, 100: 10}
        (pid,) = [s["pid"] for s in server.status()["slots"] if s["kind"] == "gateway"]
        os.kill(pid, signal.SIGKILL)

        def all_back() -> bool:
            try:
                return versions_of(server, 2, "scale/canary") == {100: 2}
            except (KeyError, TypeError):
                return False

        wait_until(all_back)
        wait_until(lambda: versions_of(server, 40) == {10: 30, 100: 10})


def test_what_makes_no_sense_while_a_canary_stands_is_refused(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        write_version(tmp_path, version)
    with ServerProcess(tmp_path, "--backend", "numpy", "--servable", "scale:1") as server:
        refused = "mindbus: the server refused: "
        assert command(server, "promote", "scale").stderr == (
            f"{refused}servable scale is not between two versions\n"
        )
        assert reload(server, "--canary", "0").stderr == (
            f"{refused}canary_percent 0 is not an integer in 1..99\n"
        )
        assert reload(server, "--canary", "5", "--version", "2", *SETTLED).returncode == 0
        assert reload(server, "--canary", "5", "--version", "2").stderr == (
            f"{refused}servable scale has a canary already, version 2\n"
        )
        assert reload(server).stderr == (
            f"{refused}servable scale is between versions 1 and 2: `mindbus promote` or "
            "`mindbus rollback` it first\n"
        )
        shown = command(server, "promote", "scale", "--dry-run").stdout
        assert shown == "1. scale/1/device0  surge, new slot scale/2/device0\n"


@pytest.mark.shows("F26")
def test_a_cancelled_roll_ends_after_its_step_and_can_go_on(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path, "--device-ids", "0,1") as (server, load):
        write_version(tmp_path, 2)
        watching: list[Any] = []
        thread = threading.Thread(
            target=lambda: watching.append(reload(server, "--settle-ms", "600000"))
        )
        thread.start()
        wait_until(lambda: slots_of(server).get("scale/2/device0") == "READY")
        assert command(server, "cancel").returncode == 0
        thread.join(60)
        assert watching[0].returncode == 1
        assert "the roll stopped: cancelled, 0 of 2 are replaced" in watching[0].stderr
        wait_until(lambda: sorted(slots_of(server)) == ["scale/1/device0", "scale/1/device1"])
        assert versions_of(server, 10) == {10: 10}
        with RuntimeClient(server.run_directory) as client:
            assert client.status()["changes"] == []
        assert "no roll is under way" in command(server, "cancel").stderr
        assert reload(server, *SETTLED).returncode == 0
        load.stop()
        assert load.failures == []


@pytest.mark.shows("F25")
def test_in_place_with_a_single_worker_what_waits_for_version_0_is_answered(
    tmp_path: Path,
) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path) as (server, load):
        write_version(tmp_path, 2)
        flags = ("--mode", "in-place", "--min-ready", "0", *SETTLED)
        done = reload(server, *flags)
        assert (done.returncode, done.stderr) == (0, "")
        wait_until(lambda: load.factors[100] >= 20)
        load.stop()
        assert load.failures == []


def test_after_a_restart_by_surge_a_rollback_finds_the_worker_where_it_is(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    write_version(tmp_path, 2)
    with ServerProcess(tmp_path, "--backend", "numpy", "--servable", "scale:1") as server:
        assert command(server, "restart", *SETTLED).returncode == 0
        assert reload(server, "--canary", "10", *SETTLED).returncode == 0
        assert command(server, "rollback", "scale", *SETTLED).returncode == 0
        assert sorted(slots_of(server)) == ["scale/1/device0~"]
        assert reload(server, "--canary", "10", *SETTLED).returncode == 0
        assert command(server, "restart", *SETTLED).returncode == 0
        assert command(server, "promote", "scale", *SETTLED).returncode == 0
        assert sorted(slots_of(server)) == ["scale/2/device0~"]
        assert versions_of(server, 4) == {100: 4}


def test_a_roll_may_begin_while_the_one_before_it_is_still_taken_back(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    with serving(tmp_path) as (server, load):
        write_version(tmp_path, 2)
        request = {"servable": "scale", "version": 2, "settle_ms": 600_000}
        with RuntimeClient(server.run_directory) as client:
            for _ in range(3):
                client.roll("reload", request)
                wait_until(lambda: "scale/2/device0" in slots_of(server))
                client.cancel_roll()
                wait_until(lambda: client.status()["roll"]["is_over"])
            client.roll("reload", request | {"settle_ms": 0})
            wait_until(lambda: client.status()["roll"]["is_over"])
            assert client.status()["roll"]["failure"] is None
        wait_until(lambda: sorted(slots_of(server)) == ["scale/2/device0"])
        wait_until(lambda: server.status()["changes"] == [])
        load.stop()
        assert load.failures == []
