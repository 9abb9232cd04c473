"""The Open Inference Protocol of a real server: readiness, health, loads, and failures by code."""

from __future__ import annotations

import http.client
import json
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from protocol import oip_messages as messages
from tests.processes.load import load
from tests.processes.probe import broker_stats, probe_server
from tests.processes.scale import command, write_version
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

SERVING, NOT_SERVING = 1, 2


def ask(
    server: ServerProcess, verb: str, path: str, document: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    """Status, document and headers of one REST request."""
    connection = http.client.HTTPConnection(server.rest_address, timeout=60)
    body = None if document is None else json.dumps(document)
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(verb, f"/v2{path}", body, names)
    response = connection.getresponse()
    try:
        content = response.read()
        return response.status, json.loads(content), dict(response.getheaders())
    finally:
        connection.close()


def health(server: ServerProcess, service: str = "") -> int:
    with grpc.insecure_channel(server.grpc_address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            lambda message: message.SerializeToString(),
            messages.HealthCheckResponse.FromString,
        )
        state: int = check(messages.HealthCheckRequest(service=service), timeout=10).status
        return state


def test_statistics_count_what_really_ran() -> None:
    with probe_server() as server:
        path = "/models/probe.double/stats"
        (before,) = ask(server, "GET", path)[1]["model_stats"]
        assert (before["execution_count"], before["last_inference"]) == (0, 0)
        begin_ms = time.time() * 1_000
        for count in (3, 1):
            status, _, _ = ask(server, "POST", "/models/probe.double/infer", rows(*range(count)))
            assert status == 200
        wait_until(lambda: ask(server, "GET", path)[1]["model_stats"][0]["execution_count"] == 2)
        (after,) = ask(server, "GET", path)[1]["model_stats"]
        assert after["inference_count"] == 4
        assert begin_ms - 100 <= after["last_inference"] <= time.time() * 1_000 + 100


def rows(*first: float) -> dict[str, Any]:
    data = [[number, 0, 0, 0] for number in first]
    return {"inputs": [{"name": "x", "datatype": "FP32", "shape": [len(data), 4], "data": data}]}


def test_a_stopped_worker_makes_the_server_not_ready_and_it_stays_live() -> None:
    with probe_server("--ready-ms", "1000") as server:
        assert ask(server, "GET", "/health/ready")[:2] == (200, {"ready": True})
        assert health(server) == health(server, "probe.double") == SERVING
        (slot,) = (s for s in server.status()["slots"] if s["slot"] == "probe/1/device0")
        os.kill(slot["pid"], signal.SIGSTOP)
        wait_until(lambda: ask(server, "GET", "/health/ready")[0] == 503)
        assert ask(server, "GET", "/health/live")[0] == 200
        wait_until(lambda: ask(server, "GET", "/health/ready")[0] == 200)
        assert health(server, "probe") == SERVING


def test_a_client_loads_a_version_if_the_server_allows_it(tmp_path: Path) -> None:
    write_version(tmp_path, 1)
    flags = ("--backend", "numpy", "--model-control", "explicit")
    with ServerProcess(tmp_path, *flags) as server:
        ones = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1] * 4}]}
        said = ask(server, "POST", "/models/scale/infer", ones)[1]
        assert (said["model_version"], said["outputs"][0]["data"][0]) == ("1", 10)
        write_version(tmp_path, 2)
        load = "/repository/models/scale/load"
        assert ask(server, "POST", load)[:2] == (200, {})
        said = ask(server, "POST", "/models/scale/infer", ones)[1]
        assert (said["model_version"], said["outputs"][0]["data"][0]) == ("2", 100)
        assert ask(server, "POST", load)[0] == 200, "what runs already is loaded"
        code, said, headers = ask(server, "POST", load, {"parameters": {"version": 9}})
        assert (code, headers["mindbus-reason"]) == (400, "invalid_inputs")
        assert "9" in said["error"]
        index = ask(server, "POST", "/repository/index")[1]
        assert {"name": "scale", "version": "2", "state": "READY", "reason": ""} in index


def test_failures_of_a_real_model_have_their_codes() -> None:
    with probe_server() as server:
        infer = "/models/probe.broken/infer"
        code, said, headers = ask(server, "POST", infer, rows(1, 14))
        assert (code, headers["mindbus-reason"]) == (500, "system_error")
        assert said["error"].startswith("instance 0 of 2: ")  # a batch fails as a whole
        slow = "/models/probe.slow/infer"
        code, said, headers = ask(server, "POST", slow, rows(1), grpc_timeout="5m")
        assert (code, headers["mindbus-reason"]) == (504, "deadline_exceeded")
        wrong = rows(1)
        wrong["inputs"][0]["datatype"] = "INT32"
        assert ask(server, "POST", infer, wrong)[0] == 400
        many = ask(server, "POST", "/models/probe.double/infer", rows(*range(100)))[1]
        assert many["outputs"][0]["shape"] == [100, 4]
        doubled = np.array(many["outputs"][0]["data"]).reshape(100, 4)[:, 0]
        assert doubled.tolist() == [2 * number for number in range(100)]


def test_a_request_for_the_default_method_waits_for_the_next_worker() -> None:
    with probe_server() as server:
        square = {"datatype": "FP32", "shape": [2, 2], "data": [1, 2, 3, 4]}
        request = {"inputs": [{"name": name, **square} for name in ("x1", "x2")]}
        assert ask(server, "POST", "/models/probe/infer", request)[0] == 200
        (slot,) = (s for s in server.status()["slots"] if s["slot"] == "probe/1/device0")
        os.kill(slot["pid"], signal.SIGKILL)
        wait_until(lambda: ask(server, "GET", "/models/probe/ready")[0] == 503)
        code, said, _ = ask(server, "POST", "/models/probe/infer", request)
        assert (code, said["outputs"][0]["data"]) == (200, [2, 4, 6, 8])


def infer_grpc(server: ServerProcess, model: str, count: int = 1) -> Any:
    """Begin a ModelInfer call of `count` instances; returns the call and its own channel."""
    request = messages.ModelInferRequest(model_name=model)
    request.inputs.add(name="x", datatype="FP32", shape=[count, 4])
    request.raw_input_contents.append(bytes(16 * count))
    channel = grpc.insecure_channel(server.grpc_address)
    call = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        lambda message: message.SerializeToString(),
        messages.ModelInferResponse.FromString,
    ).future(request, timeout=60)
    return call, channel


def test_overload_sizes_and_cancelled_calls_are_answered_as_promised() -> None:
    flags = ("--max-enqueued-requests", "2", "--max-msg-mb-size", "1")
    with probe_server(*flags) as server:
        asked = [infer_grpc(server, "probe.slow") for _ in range(12)]
        codes = []
        for call, channel in asked:
            codes.append(call.code())
            if call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
                metadata = dict(call.trailing_metadata())
                assert metadata["mindbus-reason"] == "queue_full"
                assert metadata["grpc-retry-pushback-ms"] == "1000"
            channel.close()
        assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
        with ThreadPoolExecutor(12) as pool:
            answers = list(
                pool.map(
                    lambda number: ask(server, "POST", "/models/probe.slow/infer", rows(number)),
                    range(12),
                )
            )
        assert {code for code, _, _ in answers} == {200, 429}
        assert {h["retry-after"] for code, _, h in answers if code == 429} == {"1"}

        call, channel = infer_grpc(server, "probe.echo", 100_000)
        assert call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        channel.close()
        large = {"inputs": [], "id": "x" * (1 << 20)}
        code, _, headers = ask(server, "POST", "/models/probe/infer", large)
        assert (code, headers["mindbus-reason"]) == (413, "body_too_large")

        before = broker_stats(server)["counters"]["cancelled"]
        call, channel = infer_grpc(server, "probe.slow", 400)  # 3 s in batches of 4
        wait_until(lambda: broker_stats(server)["requests"] > 0)
        call.cancel()
        wait_until(lambda: broker_stats(server)["counters"]["cancelled"] > before)
        channel.close()


def rest_client(server: ServerProcess) -> Callable[[], Any]:
    """Asks on one kept connection; answers what is wrong, or None."""
    connection = http.client.HTTPConnection(server.rest_address, timeout=30)
    body = json.dumps(rows(3))

    def ask_once() -> Any:
        try:
            connection.request("POST", "/v2/models/probe.double/infer", body)
            answer = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        right = "outputs" in answer and answer["outputs"][0]["data"] == [6, 0, 0, 0]
        return None if right else answer

    return ask_once


def grpc_client(server: ServerProcess) -> Callable[[], Any]:
    """The same by the default method, on one channel."""
    request = messages.ModelInferRequest(model_name="probe")
    for name in ("x1", "x2"):
        request.inputs.add(name=name, datatype="FP32", shape=[2, 2])
        request.raw_input_contents.append(np.ones(4, np.float32).tobytes())
    call = grpc.insecure_channel(server.grpc_address).unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        lambda message: message.SerializeToString(),
        messages.ModelInferResponse.FromString,
    )

    def ask_once() -> Any:
        try:
            response = call(request, timeout=30)
        except grpc.RpcError as error:
            return repr(error)
        numbers = np.frombuffer(response.raw_output_contents[0], np.float32)
        return None if numbers.tolist() == [2] * 4 else numbers

    return ask_once


@pytest.mark.parametrize(
    ("mode", "arguments"),
    [
        ("embedded", ("--settle-ms", "0")),
        ("standalone", ("--gateways", "--settle-ms", "0")),
        ("standalone", ("--broker", "--settle-ms", "0")),
    ],
    ids=["workers", "gateways", "broker"],
)
def test_what_is_replaced_under_load_costs_no_request(
    mode: str, arguments: tuple[str, ...]
) -> None:
    flags = ["--mode", mode]
    if mode == "standalone":
        flags += ["--gateways", "2"]
    with probe_server(*flags) as server:
        clients = [make(server) for make in (rest_client, grpc_client, rest_client, grpc_client)]
        with load(lambda number: clients[number], clients=4) as running:
            done = command(server, "restart", *arguments)
            assert (done.returncode, done.stderr) == (0, "")
        assert running.failures == []
