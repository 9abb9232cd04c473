"""Workers that are alive and of no use: found, killed and replaced; no request is lost by it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mindbus.bus_client import BusClient
from mindbus.runtime_client import RuntimeClient
from tests.figures import Figures
from tests.processes.probe import SERVABLES, broker_stats, probe_server
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

CONFIG = """
import ctypes
import numpy as np
from mindspore_serving.server import register

model = register.declare_model("scale.json", "MindIR", with_batch_dim=False)


def loop(x):
    while float(x[0]) == 1:
        pass
    return x


def sleep_in_c(x):
    if float(x[0]) == 1:
        ctypes.PyDLL(None).sleep(600)  # with the GIL held: no thread of Python can run
    return x


@register.register_method(output_names=["y"])
def looping(x):
    return register.add_stage(model, register.add_stage(loop, x, outputs_count=1), outputs_count=1)


@register.register_method(output_names=["y"])
def sleeping(x):
    slept = register.add_stage(sleep_in_c, x, outputs_count=1)
    return register.add_stage(model, slept, outputs_count=1)
"""


def hanging_servable(root: Path) -> None:
    version = root / "hanging" / "1"
    version.mkdir(parents=True)
    (root / "hanging" / "servable_config.py").write_text(CONFIG)
    scale = json.loads((SERVABLES / "parallel" / "1" / "first.json").read_text())
    (version / "scale.json").write_text(json.dumps(scale))


def slots_of(server: ServerProcess) -> dict[str, dict[str, Any]]:
    return {slot["slot"]: slot for slot in server.status()["slots"] if slot["kind"] == "worker"}


@pytest.mark.shows("F3", "R28")
@pytest.mark.parametrize("method", ["looping", "sleeping"])
def test_a_stage_that_never_ends_costs_two_workers_and_no_other_request(
    tmp_path: Path, method: str, figures: Figures
) -> None:
    hanging_servable(tmp_path)
    flags = ("--backend", "numpy", "--device-ids", "0,1", "--hang-ms", "1000")
    with (
        ServerProcess(tmp_path, *flags) as server,
        BusClient(server.producers_address) as client,
    ):
        good = np.full(4, 2, np.float32)
        begin = time.monotonic()
        deadly = client.submit("hanging", method, {"x": np.ones(4, np.float32)}, timeout=60)
        others = [client.submit("hanging", method, {"x": good}, timeout=60) for _ in range(20)]
        for future in others:
            assert future.result()[0]["y"].tolist() == [20, 20, 20, 20]
        error = deadly.exception(60)
        figures(hang_limit_ms=1_000, second_death_ms=(time.monotonic() - begin) * 1_000)
        assert "2 workers of hanging/1 were lost while they computed this request" in str(error)
        assert "hung: one work has been running for" in str(error)
        assert wait_until(
            lambda: (
                [slot["generation"] for slot in slots_of(server).values()] == [2, 2]
                and all(slot["state"] == "READY" for slot in slots_of(server).values())
            )
        )
        for slot in slots_of(server).values():
            assert slot["last_exit"].startswith("killed by SIGKILL (hung: one work")


@pytest.mark.shows("F2", "R28")
def test_a_stopped_worker_is_found_and_replaced_and_what_it_held_is_answered(
    figures: Figures,
) -> None:
    with (
        probe_server("--device-ids", "0,1") as server,
        BusClient(server.producers_address) as client,
    ):
        pid = slots_of(server)["probe/1/device0"]["pid"]
        os.kill(pid, signal.SIGSTOP)
        begin = time.monotonic()
        rows = np.random.default_rng(1).random((40, 4), np.float32)
        futures = [client.submit("probe", "slow", {"x": row}, timeout=60) for row in rows]
        for future, row in zip(futures, rows, strict=True):
            assert np.array_equal(future.result()[0]["y"], 2 * row)
        figures(last_answer_ms=(time.monotonic() - begin) * 1_000)
        assert wait_until(lambda: slots_of(server)["probe/1/device0"]["generation"] == 2)
        last_exit = slots_of(server)["probe/1/device0"]["last_exit"]
        assert last_exit.startswith("killed by SIGKILL (stopped for")
        counters = broker_stats(server)["counters"]
        assert (counters["accepted"], counters["failed"]) == (40, 0)
        assert counters["redispatched"] >= 1


@pytest.mark.shows("R28")
def test_a_long_stage_within_the_limit_is_left_alone() -> None:
    with probe_server("--hang-ms", "3000") as server, BusClient(server.producers_address) as client:
        before = slots_of(server)["probe/1/device0"]["pid"]
        rows = np.ones((400, 4), np.float32)  # 100 batches of 30 ms, many works in a row
        results = client.infer("probe", "slow", [{"x": row} for row in rows], timeout=60)
        assert len(results) == 400
        assert slots_of(server)["probe/1/device0"]["pid"] == before


@pytest.mark.shows("F2", "F26")
def test_a_worker_that_is_stopped_while_it_drains_does_not_keep_what_it_holds(
    figures: Figures,
) -> None:
    with (
        probe_server("--device-ids", "0,1") as server,
        BusClient(server.producers_address) as client,
    ):
        rows = np.random.default_rng(2).random((200, 4), np.float32)
        futures = [client.submit("probe", "slow", {"x": row}, timeout=60) for row in rows]
        slot = slots_of(server)["probe/1/device0"]
        wait_until(lambda: broker_stats(server)["counters"]["answered"] > 5)
        os.kill(slot["pid"], signal.SIGSTOP)
        with RuntimeClient(server.run_directory) as control:
            control.slot_command("drain", "probe/1/device0")
        begin = time.monotonic()
        for future, row in zip(futures, rows, strict=True):
            assert np.array_equal(future.result()[0]["y"], 2 * row)
        figures(last_answer_ms=(time.monotonic() - begin) * 1_000)
        wait_until(lambda: slots_of(server)["probe/1/device0"]["pid"] is None)
        assert "stopped for" in slots_of(server)["probe/1/device0"]["last_exit"]
