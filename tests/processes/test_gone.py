"""What clients are told when a servable has lost its workers for good."""

from __future__ import annotations

import itertools
import os
import signal

import numpy as np
import pytest

from protocol import status
from tests.processes.doors import GrpcDoor, RestDoor, tensor
from tests.processes.probe import probe_server
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

ROW = np.ones(4, np.float32)
TEXT = "Request servable(probe) method(double) , servable is not available"


@pytest.mark.parametrize("mode", ["embedded", "standalone"])
def test_a_servable_whose_workers_signed_off_is_not_available_at_once_and_others_go_on(
    mode: str,
) -> None:
    with probe_server("--servable", "plain", "--mode", mode) as server:
        grpc_door, rest_door = (
            GrpcDoor(server.grpc_address, "probe"),
            RestDoor(server.rest_address, "probe"),
        )
        row = {"x": tensor(ROW)}
        assert grpc_door.errors(grpc_door.predict(grpc_door.request("double", [row]))) == []
        os.kill(server.slot("probe/1/device0")["pid"], signal.SIGTERM)
        wait_until(lambda: server.slot("probe/1/device0")["state"] == "VACANT")

        def is_gone() -> bool:
            reply = grpc_door.predict(grpc_door.request("double", [row]))
            return grpc_door.errors(reply) == [(status.MS_SERVABLE_UNAVAILABLE, TEXT)]

        wait_until(is_gone)
        assert rest_door.infer("double", [{"x": [1.0] * 4}]) == {"error_msg": TEXT}
        # What is wrong with an input is known to workers only.
        wrong = tensor(ROW)
        wrong.data = b"short"
        reply = grpc_door.predict(grpc_door.request("double", [{"x": wrong}]))
        assert grpc_door.errors(reply) == [(status.MS_SERVABLE_UNAVAILABLE, TEXT)]
        reply = grpc_door.predict(grpc_door.request("double", [row], servable="plain"))
        (instance,) = reply.instances
        assert np.frombuffer(instance.items["y"].data, np.float32).tolist() == [2.0] * 4


@pytest.mark.shows("F6")
def test_a_servable_that_keeps_crashing_is_given_up_and_others_go_on() -> None:
    with probe_server("--servable", "plain") as server:
        grpc_door = GrpcDoor(server.grpc_address, "probe")
        numbers = itertools.count()

        def is_gone() -> bool:
            # Each time other bytes: the same ones are refused once they have killed two workers.
            deadly = {"x": tensor(np.array([666, next(numbers), 0, 0], np.float32))}
            reply = grpc_door.predict(grpc_door.request("mortal", [deadly]))
            ((code, _),) = grpc_door.errors(reply)
            return code == status.MS_SERVABLE_UNAVAILABLE

        wait_until(is_gone, 120)
        assert server.slot("probe/1/device0")["state"] == "FAILED"
        row = {"x": tensor(np.ones(4, np.float32))}
        reply = grpc_door.predict(grpc_door.request("double", [row], servable="plain"))
        assert grpc_door.errors(reply) == []
