"""`kill -9` of a worker that holds requests for a real model: each is answered, and right."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples.digits_dataset import load_split
from mindbus.bus_client import BusClient
from tests.processes.probe import broker_stats
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

REQUESTS = 200

#: MindSpore is imported, loads and compiles, on a machine that may be busy.
START_DEADLINE_S = 180.0


@pytest.fixture(scope="module")
def server(demo_servables: Path) -> Iterator[ServerProcess]:
    """A server of both demo servables, two workers each."""
    with ServerProcess(
        demo_servables, "--device-ids", "0,1", deadline_s=START_DEADLINE_S
    ) as running:
        yield running


def kill_while_busy(
    server: ServerProcess, worker_id: str, method: str, instances: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The results of one request per instance, all sent to a servable whose worker then dies.

    The worker is stopped first, so that it surely dies with requests in its hands.
    """
    (pid,) = (slot["pid"] for slot in server.status()["slots"] if slot["slot"] == worker_id)
    os.kill(pid, signal.SIGSTOP)
    with BusClient(server.producers_address) as client:
        servable = worker_id.partition("/")[0]
        futures = [client.submit(servable, method, [instance]) for instance in instances]
        held = wait_until(
            lambda: sum(
                worker["in_flight"]
                for worker in broker_stats(server)["workers"]
                if worker["pid"] == pid
            )
        )
        assert 0 < held < REQUESTS
        os.kill(pid, signal.SIGKILL)
        return [future.result(60)[0] for future in futures]


def restarts_of(server: ServerProcess, worker_id: str) -> tuple[str, int]:
    """State of a slot, and how often it was filled again."""
    (slot,) = (slot for slot in server.status()["slots"] if slot["slot"] == worker_id)
    return slot["state"], slot["restarts"]


def test_sums_of_a_killed_worker_are_computed_by_the_other(server: ServerProcess) -> None:
    generator = np.random.default_rng(5)
    pairs = generator.random((REQUESTS, 2, 2, 2), np.float32)
    instances = [{"x1": x1, "x2": x2} for x1, x2 in pairs]
    results = kill_while_busy(server, "add/1/device0", "add_common", instances)
    for (x1, x2), result in zip(pairs, results, strict=True):
        np.testing.assert_array_equal(result["y"], x1 + x2, strict=True)
    wait_until(lambda: restarts_of(server, "add/1/device0") == ("READY", 1), START_DEADLINE_S)


def test_pictures_of_a_killed_worker_are_read_by_the_other(server: ServerProcess) -> None:
    _, test = load_split()
    instances = [{"image": image} for image in test.images[:REQUESTS]]
    with BusClient(server.producers_address) as client:
        expected = client.infer("digits", "predict", instances, timeout=60)
    results = kill_while_busy(server, "digits/1/device1", "predict", instances)
    for result, undisturbed in zip(results, expected, strict=True):
        np.testing.assert_allclose(result["scores"], undisturbed["scores"], atol=1e-5)
    labels = [int(result["scores"].argmax()) for result in results]
    assert np.mean(labels == test.labels[:REQUESTS]) >= 0.97
    wait_until(lambda: restarts_of(server, "digits/1/device1") == ("READY", 1), START_DEADLINE_S)
