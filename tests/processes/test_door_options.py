"""Priority and idempotency key over gRPC and REST, in both modes."""

from __future__ import annotations

import http.client
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from protocol import ms_service_pb2 as pb
from tests.processes.doors import PREDICT, GrpcDoor, text_tensor
from tests.processes.probe import probe_server
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import DEADLINE_S, wait_reader

pytestmark = pytest.mark.process


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    with probe_server("--mode", request.param) as running:
        yield running


@pytest.fixture
def gates(tmp_path: Path) -> list[Path]:
    """Two named pipes whose paths have one length."""
    paths = [tmp_path / "gate-a", tmp_path / "gate-b"]
    for path in paths:
        os.mkfifo(path)
    return paths


def asked(address: str, gate: Path, **headers: str) -> http.client.HTTPConnection:
    """A connection whose request waits until somebody writes into the gate."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE_S)
    body = json.dumps({"instances": [{"path": str(gate)}]})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", "/model/probe:gated", body, named)
    return connection


def answer(connection: http.client.HTTPConnection) -> Any:
    return json.loads(connection.getresponse().read())


def test_who_asks_again_over_rest_gets_the_answer_of_the_first_execution(
    server: ServerProcess, gates: list[Path]
) -> None:
    first, second = gates
    vanishing = asked(server.rest_address, first, Idempotency_Key="order-17")
    held = wait_reader(first)
    vanishing.close()
    again = asked(server.rest_address, second, Idempotency_Key="order-17")
    os.write(held, b"once")
    os.close(held)
    said = answer(again)
    assert list(said["instances"][0].values()) == ["once"]
    # It is remembered: nobody ever writes into the second gate.
    assert answer(asked(server.rest_address, second, Idempotency_Key="order-17")) == said


def test_a_key_in_the_metadata_of_a_call_does_the_same(
    server: ServerProcess, gates: list[Path]
) -> None:
    first, second = gates
    door = GrpcDoor(server.grpc_address, "probe")

    def request(gate: Path) -> pb.PredictRequest:
        return door.request("gated", [{"path": text_tensor(os.fsencode(gate), dims=())}])

    with grpc.insecure_channel(server.grpc_address) as channel, ThreadPoolExecutor(1) as pool:
        predict = channel.unary_unary(
            PREDICT, pb.PredictRequest.SerializeToString, pb.PredictReply.FromString
        )
        metadata = (("idempotency-key", "order-18"), ("mindbus-priority", "high"))
        running = pool.submit(predict, request(first), timeout=DEADLINE_S, metadata=metadata)
        held = wait_reader(first)
        os.write(held, b"once")
        os.close(held)
        assert "once" in str(running.result(DEADLINE_S))
        assert predict(request(second), timeout=DEADLINE_S, metadata=metadata) == running.result()


def test_a_priority_that_is_none_is_named(server: ServerProcess, gates: list[Path]) -> None:
    said = answer(asked(server.rest_address, gates[0], Mindbus_Priority="urgent"))
    assert said == {"error_msg": "mindbus-priority 'urgent' is not one of high, normal, low"}
