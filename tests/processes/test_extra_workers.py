"""Extra workers: processes that run Python stages and have device workers run the models."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.digits_dataset import encode_png, load_split
from mindbus.bus_client import BusClient
from mindbus.bus_errors import BusError
from mindspore_serving.client import Client
from tests.processes.doors import RestDoor
from tests.processes.probe import SERVABLES, broker_stats
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

#: Requests of one run; many more than the workers hold at once.
REQUESTS = 300

SLOTS = ("parallel/1/device0", "parallel/1/extra0", "parallel/1/extra1")


def parallel_server(*flags: str) -> ServerProcess:
    """One device worker and two extra workers of the scripted servable `parallel`."""
    common = ("--servable", "parallel", "--backend", "numpy", "--extra-workers", "2")
    return ServerProcess(SERVABLES, *common, *flags)


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with parallel_server("--mode", request.param) as running:
        yield running


def pids_of(server: ServerProcess) -> dict[str, int]:
    """Worker processes by slot."""
    return {slot["slot"]: slot["pid"] for slot in server.status()["slots"] if slot["servable"]}


def all_registered(server: ServerProcess) -> bool:
    """Every worker is READY, and the broker knows it."""
    slots = [slot for slot in server.status()["slots"] if slot["servable"]]
    known = {worker["pid"] for worker in broker_stats(server)["workers"]}
    return all(slot["state"] == "READY" and slot["pid"] in known for slot in slots)


def submit_many(client: BusClient, method: str, rows: Any) -> list[Future[list[dict[str, Any]]]]:
    return [client.submit("parallel", method, [{"x": row}], timeout=120) for row in rows]


def rows_of(seed: int) -> Any:
    return np.random.default_rng(seed).random((REQUESTS, 4), np.float32)


def check(results: list[dict[str, Any]], expected: Any) -> set[int]:
    """Compare the values; returns the processes that ran the Python stages."""
    for result, row in zip(results, expected, strict=True):
        np.testing.assert_allclose(result["y"], row, rtol=1e-6)
    return {int(result["pid"]) for result in results}


def test_the_slots_of_extra_workers_are_shown_with_the_others(server: ServerProcess) -> None:
    slots = {slot["slot"]: slot for slot in server.status()["slots"] if slot["servable"]}
    assert tuple(slots) == SLOTS
    assert {slot["state"] for slot in slots.values()} == {"READY"}
    extra = {worker["worker_id"]: worker["is_extra"] for worker in broker_stats(server)["workers"]}
    assert extra == {SLOTS[0]: False, SLOTS[1]: True, SLOTS[2]: True}


@pytest.mark.parametrize(
    ("method", "compute"),
    [("prepared", lambda rows: 2 * (rows + 1)), ("called", lambda rows: 102 * rows)],
)
def test_every_worker_runs_python_stages_and_the_values_are_right(
    server: ServerProcess, method: str, compute: Callable[[Any], Any]
) -> None:
    rows = rows_of(1)
    with BusClient(server.producers_address) as client:
        results = [future.result()[0] for future in submit_many(client, method, rows)]
    assert check(results, compute(rows)) == set(pids_of(server).values())


def test_a_method_of_models_only_is_answered_beside_the_others(server: ServerProcess) -> None:
    rows = rows_of(2)
    with BusClient(server.producers_address) as client:
        prepared = submit_many(client, "prepared", rows)
        plain = submit_many(client, "plain", rows)
        for future, row in zip(plain, rows, strict=True):
            assert np.array_equal(future.result()[0]["y"], 2 * row)
        check([future.result()[0] for future in prepared], 2 * (rows + 1))


def test_one_bad_instance_fails_alone_wherever_its_stages_run(server: ServerProcess) -> None:
    instances = [{"x": np.ones(4, np.float32)}, {"x": np.ones(3, np.float32)}]
    with BusClient(server.producers_address) as client:
        futures = [
            client.submit("parallel", "prepared", instances, timeout=60, return_errors=True)
            for _ in range(30)
        ]
        outcomes = [future.result() for future in futures]
    for good, bad in outcomes:
        assert good["y"].tolist() == [4, 4, 4, 4]
        assert str(bad) == "Given model input 0 size 12 not match the size 16 defined in model"
    assert {int(good["pid"]) for good, _ in outcomes} == set(pids_of(server).values())


@pytest.mark.parametrize(
    ("method", "expected"),
    [("@call_double.json_0", 2), ("@call_first.json;second.json_1", 100)],
)
def test_each_subgraph_of_a_model_is_a_hidden_method(
    server: ServerProcess, method: str, expected: int
) -> None:
    client = Client(server.grpc_address, "parallel", method)
    (result,) = client.infer([{"x0": np.ones(4, np.float32)}])
    assert {name: value.tolist() for name, value in result.items()} == {"y0": [expected] * 4}


@pytest.mark.parametrize("slot", SLOTS[:2])
def test_no_request_is_lost_when_a_worker_is_killed_under_load(slot: str) -> None:
    rows = rows_of(3)
    with parallel_server() as server, BusClient(server.producers_address) as client:
        assert wait_until(lambda: all_registered(server))
        pid = pids_of(server)[slot]
        os.kill(pid, signal.SIGSTOP)  # so that it surely dies with requests in its hands
        futures = submit_many(client, "prepared", rows)
        wait_until(
            lambda: any(
                worker["in_flight"]
                for worker in broker_stats(server)["workers"]
                if worker["pid"] == pid
            )
        )
        os.kill(pid, signal.SIGKILL)
        check([future.result()[0] for future in futures], 2 * (rows + 1))
        assert wait_until(lambda: server.slot(slot)["restarts"] == 1 and all_registered(server))
        counters = broker_stats(server)["counters"]
        assert counters["redispatched"] >= 1
        assert (counters["failed"], counters["refused"]) == (0, 0)


def test_a_stop_finishes_what_was_accepted_and_loses_nothing() -> None:
    rows = rows_of(4)
    with parallel_server() as server, BusClient(server.producers_address) as client:
        assert wait_until(lambda: all_registered(server))
        futures = submit_many(client, "prepared", rows)
        assert wait_until(lambda: broker_stats(server)["counters"]["accepted"] >= REQUESTS)
        assert server.stop() == 0
        check([future.result()[0] for future in futures], 2 * (rows + 1))


def write_servable(directory: Path, config: str, models: Mapping[str, Any]) -> None:
    (directory / "1").mkdir(parents=True)
    (directory / "servable_config.py").write_text(config)
    for name, model in models.items():
        (directory / "1" / name).write_text(json.dumps(model))


DOUBLE = json.loads((SERVABLES / "probe" / "1" / "double.json").read_text())
SCALE = json.loads((SERVABLES / "parallel" / "1" / "first.json").read_text())


def test_a_servable_of_models_only_gets_no_extra_workers_and_a_warning(tmp_path: Path) -> None:
    config = (
        "from mindspore_serving.server import register\n"
        "model = register.declare_model('scale.json', 'MindIR', with_batch_dim=False)\n"
        "@register.register_method(output_names=['y'])\n"
        "def scale(x):\n"
        "    return register.add_stage(model, x, outputs_count=1)\n"
    )
    write_servable(tmp_path / "models", config, {"scale.json": SCALE})
    with ServerProcess(tmp_path, "--backend", "numpy", "--extra-workers", "2") as server:
        assert list(pids_of(server)) == ["models/1/device0"]
        (line,) = server.stderr
        assert line.startswith("[WARNING]")
        assert line.endswith(
            "There is no need to startup additional worker processes, all stages are models, "
            "servable: models"
        )


def test_an_extra_worker_that_cannot_start_is_named_with_its_number(tmp_path: Path) -> None:
    config = (
        "import os\n"
        "from mindspore_serving.server import register\n"
        "if 'SERVING_DEVICE_ID' not in os.environ:\n"
        "    raise RuntimeError('no device')\n"
        "@register.register_method(output_names=['y'])\n"
        "def same(x):\n"
        "    return register.add_stage(lambda x: x, x, outputs_count=1)\n"
    )
    write_servable(tmp_path / "picky", config, {})
    server = ServerProcess(tmp_path, "--backend", "numpy", "--extra-workers", "1")
    try:
        assert server.wait() == 1
        assert (
            "Fail to start workers: {servable:picky, version:1, extra:0, "
            "<import picky.servable_config failed, no device>}" in server.stderr[-1]
        )
    finally:
        server.close()


REMOTE = """
import time
from mindspore_serving.server import register

model = register.declare_model("scale.json", "MindIR", with_batch_dim=False)


def nap(x):
    time.sleep(1)
    return x


def same(x):
    return x


@register.register_method(output_names=["y"])
def napping(x):
    return register.add_stage(nap, x, outputs_count=1)


@register.register_method(output_names=["y"])
def scale(x):
    return register.add_stage(model, register.add_stage(same, x, outputs_count=1), outputs_count=1)
"""

DEADLY = [{"when_first_value": value, "do": "segfault"} for value in (7, 8)]


def error_through(server: ServerProcess, door: str, servable: str, row: list[float]) -> str:
    """The error text of a request of one instance."""
    if door == "gRPC":
        client = Client(server.grpc_address, servable, "scale")
        return str(client.infer([{"x": np.array(row, np.float32)}])["error"])
    rest = RestDoor(server.rest_address, servable)
    try:
        return str(rest.infer("scale", [{"x": row}])["error_msg"])
    finally:
        rest.close()


def keep_the_device_worker_busy(server: ServerProcess, client: BusClient) -> Any:
    """A request that the device worker runs, so that the next one is an extra worker's."""
    nap = client.submit("remote", "napping", {"x": np.ones(4, np.float32)}, timeout=60)
    assert wait_until(
        lambda: any(
            worker["in_flight"] and not worker["is_extra"]
            for worker in broker_stats(server)["workers"]
        )
    )
    return nap


def test_a_model_call_that_kills_device_workers_is_told_through_both_doors(
    tmp_path: Path,
) -> None:
    write_servable(tmp_path / "remote", REMOTE, {"scale.json": {**SCALE, "faults": DEADLY}})
    flags = ("--backend", "numpy", "--extra-workers", "1")
    with ServerProcess(tmp_path, *flags) as server, BusClient(server.producers_address) as client:
        for door, row in (("gRPC", [7.0, 0.5, 0.5, 0.5]), ("REST", [8.0, 0.5, 0.5, 0.5])):
            assert wait_until(lambda: all_registered(server))
            nap = keep_the_device_worker_busy(server, client)
            assert error_through(server, door, "remote", row).startswith(
                "Remote call model failed: 2 workers of remote/1 were lost while they computed"
            )
            assert nap.result()[0]["y"].tolist() == [1, 1, 1, 1]


@pytest.mark.shows("F5", "R29")
def test_a_request_that_kills_device_workers_harms_no_other_in_the_same_batch(
    tmp_path: Path,
) -> None:
    config = REMOTE.replace("with_batch_dim=False", "with_batch_dim=True")
    script = {**DOUBLE, "factor": 10.0, "faults": DEADLY}
    write_servable(tmp_path / "remote", config, {"scale.json": script})
    flags = ("--backend", "numpy", "--extra-workers", "1")
    with ServerProcess(tmp_path, *flags) as server, BusClient(server.producers_address) as client:
        assert wait_until(lambda: all_registered(server))
        nap = keep_the_device_worker_busy(server, client)
        first_values = [1.5, 7.0, 2.5, 3.5]
        asked = [
            client.submit("remote", "scale", {"x": np.array([v, 1, 1, 1], np.float32)}, timeout=60)
            for v in first_values
        ]
        for value, request in zip(first_values, asked, strict=True):
            if value == 7.0:
                with pytest.raises(BusError, match="2 workers of remote/1 were lost"):
                    request.result()
            else:
                assert request.result()[0]["y"][0] == 10 * value
        assert nap.result()[0]["y"].tolist() == [1, 1, 1, 1]
        deaths = [
            s["restarts"] for s in server.status()["slots"] if s["slot"] == "remote/1/device0"
        ]
        assert deaths == [2]


def test_requests_of_extra_workers_end_when_no_device_worker_will_come_any_more(
    tmp_path: Path,
) -> None:
    write_servable(tmp_path / "remote", REMOTE, {"scale.json": SCALE})
    write_servable(tmp_path / "other", REMOTE, {"scale.json": SCALE})
    flags = ("--backend", "numpy", "--extra-workers", "1")
    with (
        ServerProcess(tmp_path, *flags) as server,
        BusClient(server.producers_address) as client,
        ThreadPoolExecutor(2) as pool,
    ):
        assert wait_until(lambda: all_registered(server))
        (tmp_path / "remote" / "1" / "scale.json").write_text("no model any more")
        os.kill(pids_of(server)["remote/1/device0"], signal.SIGKILL)
        assert wait_until(
            lambda: (
                not any(
                    worker["service"] == "remote/1" and not worker["is_extra"]
                    for worker in client.stats()["workers"]
                )
            )
        )
        row = [1.5, 0.5, 0.5, 0.5]
        texts = [
            pool.submit(error_through, server, door, "remote", row) for door in ("gRPC", "REST")
        ]
        for text in texts:
            assert text.result(120) == (
                "Request servable(remote) method(scale) , servable is not available"
            )


@pytest.mark.mindspore
def test_real_pictures_are_decoded_by_extra_workers_and_read_by_the_device(
    demo_servables: Path,
) -> None:
    _, test = load_split()
    images = [encode_png(image) for image in test.images[:100]]
    flags = ("--servable", "digits", "--extra-workers", "2")
    with (
        ServerProcess(demo_servables, *flags, deadline_s=180.0) as server,
        BusClient(server.producers_address) as client,
    ):
        assert wait_until(lambda: all_registered(server))
        assert list(pids_of(server)) == ["digits/1/device0", "digits/1/extra0", "digits/1/extra1"]
        alone = client.infer("digits", "predict", [{"image": image} for image in test.images[:100]])
        futures = [client.submit("digits", "classify", {"image": image}) for image in images]
        labels = [int(future.result(60)[0]["label"]) for future in futures]
    assert labels == [int(result["scores"].argmax()) for result in alone]
