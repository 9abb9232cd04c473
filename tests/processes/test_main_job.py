"""The whole road on real input: real MindSpore models, real pictures, every door, both modes."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from examples.digits_dataset import encode_png, load_split
from mindbus.bus_client import BusClient
from mindspore_serving.client import Client
from tests.processes.doors import RestDoor
from tests.processes.server_process import CHECKOUT, ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

#: MindSpore is imported, loads and compiles, on a machine that may be busy.
START_DEADLINE_S = 180.0


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def server(request: pytest.FixtureRequest, demo_servables: Path) -> Iterator[ServerProcess]:
    """A server of both demo servables, two workers each."""
    flags = ("--device-ids", "0,1", "--mode", request.param)
    with ServerProcess(demo_servables, *flags, deadline_s=START_DEADLINE_S) as running:
        yield running


def test_the_demo_reads_every_digit_right_through_every_door(server: ServerProcess) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "examples.demo", "--run-directory", str(server.run_directory)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=START_DEADLINE_S,
    )
    assert run.returncode == 0, run.stderr
    for door in ("gRPC", "REST", "ZeroMQ"):
        labels = re.findall(rf"{door} +label (\d) +score 0\.\d+|{door} +label (\d)", run.stdout)
        assert [first or second for first, second in labels] == [str(n) for n in range(10)]
        assert re.search(rf"{door} +median +[\d.]+ ms", run.stdout)


def test_a_thousand_real_pictures_keep_their_accuracy_in_batches(server: ServerProcess) -> None:
    _, test = load_split()
    with BusClient(server.producers_address) as client:
        futures = [
            client.submit("digits", "predict", [{"image": image} for image in test.images[at:][:7]])
            for at in range(0, len(test.images), 7)
        ]
        scores = [result["scores"] for future in futures for result in future.result(120)]
    labels = np.argmax(np.stack(scores), axis=1)
    assert np.mean(labels == test.labels) >= 0.97


def test_add_is_right_over_grpc_and_rest_and_casts_what_it_is_given(server: ServerProcess) -> None:
    x1, x2 = np.array([[1, 2], [3, 4]]), np.array([[10, 20], [30, 40]])
    cast = Client(server.grpc_address, "add", "add_cast")
    (result,) = cast.infer([{"x1": x1, "x2": x2}])
    np.testing.assert_array_equal(result["y"], (x1 + x2).astype(np.float32), strict=True)
    common = Client(server.grpc_address, "add", "add_common")
    refused = common.infer([{"x1": x1, "x2": x2}])
    assert refused == {
        "error": "Given model input 0 size 32 not match the size 16 defined in model"
    }
    door = RestDoor(server.rest_address, "add")
    instance = {"x1": [[1.0, 2.0], [3.0, 4.0]], "x2": [[1.0, 1.0], [1.0, 1.0]]}
    assert door.infer("add_common", [instance] * 2) == {
        "instances": [{"y": [[2.0, 3.0], [4.0, 5.0]]}] * 2
    }


def test_one_bad_picture_among_good_ones_fails_alone(server: ServerProcess) -> None:
    _, test = load_split()
    pictures = [encode_png(image) for image in test.images[:8]]
    pictures[3] = b"no picture"
    results = Client(server.grpc_address, "digits", "classify").infer(
        [{"image": picture} for picture in pictures]
    )
    assert "image is not a readable PNG file" in results[3]["error"]
    good = [result for at, result in enumerate(results) if at != 3]
    assert [sorted(result) for result in good] == [["label", "score"]] * 7


def test_two_servers_live_side_by_side_by_flags_and_by_environment(
    server: ServerProcess, demo_servables: Path
) -> None:
    environment = {"MINDBUS_SERVABLE": "add", "MINDBUS_DEVICE_TARGET": "CPU"}
    with ServerProcess(
        demo_servables, environment=environment, deadline_s=START_DEADLINE_S
    ) as other:
        assert other.grpc_address != server.grpc_address
        names = {slot["servable"] for slot in other.status()["slots"]} - {None}
        assert names == {"add"}
        ones = np.ones((2, 2), np.float32)
        for address in (other.grpc_address, server.grpc_address):
            (result,) = Client(address, "add", "add_common").infer([{"x1": ones, "x2": ones}])
            np.testing.assert_array_equal(result["y"], 2 * ones)
    assert server.run_directory.is_dir()
    assert server.status()["state"] == "serving"
