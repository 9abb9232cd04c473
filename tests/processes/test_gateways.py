"""Several gateways around one broker share the ports of the doors."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from mindspore_serving.client import Client
from tests.processes.doors import RestDoor
from tests.processes.probe import probe_server
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

ROW = np.ones(4, np.float32)


def test_two_gateways_share_the_ports_and_one_may_die() -> None:
    with probe_server("--mode", "standalone", "--gateways", "2") as server:
        gateways = [slot for slot in server.status()["slots"] if slot["kind"] == "gateway"]
        assert [slot["state"] for slot in gateways] == ["READY", "READY"]
        address, rest_address = server.grpc_address, server.rest_address
        for _ in range(20):
            assert (
                Client(address, "probe", "double").infer([{"x": ROW}])[0]["y"].tolist() == [2] * 4
            )
        os.kill(gateways[0]["pid"], signal.SIGKILL)
        door = RestDoor(rest_address, "probe")

        def answered() -> bool:
            try:
                return bool(door.infer("double", [{"x": ROW.tolist()}])["instances"])
            except OSError:
                door.close()
                return False

        def grpc_answered() -> bool:
            return isinstance(Client(address, "probe", "double").infer([{"x": ROW}]), list)

        # A connection to the dead gateway breaks; a new one finds the other gateway.
        wait_until(answered)
        wait_until(
            grpc_answered
        )  # gRPC clients of one process share a connection, perhaps that one
        for _ in range(10):
            assert grpc_answered()
