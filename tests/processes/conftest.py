"""One running server per module and mode, and doors to it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mindbus.bus_client import BusClient
from tests.processes.doors import GrpcDoor, RestDoor
from tests.processes.probe import probe_server
from tests.processes.server_process import ServerProcess


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server of the scripted servable `probe` with two workers, in each mode."""
    with probe_server("--device-ids", "0,1", "--mode", request.param) as running:
        yield running


@pytest.fixture
def grpc_door(server: ServerProcess) -> Iterator[GrpcDoor]:
    """The gRPC door of the running server."""
    door = GrpcDoor(server.grpc_address, "probe")
    yield door
    door.close()


@pytest.fixture
def rest_door(server: ServerProcess) -> Iterator[RestDoor]:
    """The REST door of the running server."""
    door = RestDoor(server.rest_address, "probe")
    yield door
    door.close()


@pytest.fixture
def bus(server: ServerProcess) -> Iterator[BusClient]:
    """A direct client of the running server."""
    with BusClient(server.producers_address) as client:
        yield client
