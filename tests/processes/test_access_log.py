"""Request ids and the access log of a real server, over every door."""

from __future__ import annotations

import http.client
import json
from typing import Any

import grpc
import numpy as np
import pytest

from protocol import ms_service_pb2 as pb
from tests.processes.doors import PREDICT, GrpcDoor, tensor
from tests.processes.probe import SERVABLES
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TRACE = f"00-{TRACE_ID}-b7ad6b7169203331-01"
BODY = json.dumps({"instances": [{"x": [1.0] * 4}]})


def server(**environment: str) -> ServerProcess:
    return ServerProcess(
        SERVABLES,
        *("--servable", "probe", "--backend", "numpy", "--access-log", "on"),
        environment=environment,
    )


def post(address: str, target: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(address, timeout=20)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("POST", target, BODY, named)
    response = connection.getresponse()
    response.read()
    return response


def call(door: GrpcDoor, method: str, *metadata: tuple[str, str]) -> dict[str, Any]:
    """The trailing metadata of one call."""
    request = door.request(method, [{"x": tensor(np.ones(4, np.float32))}])
    with grpc.insecure_channel(door.address) as channel:
        predict = channel.unary_unary(
            PREDICT, pb.PredictRequest.SerializeToString, pb.PredictReply.FromString
        )
        _, answered = predict.with_call(request, timeout=20, metadata=metadata)
    return dict(answered.trailing_metadata())


def test_every_request_has_an_id_a_line_and_its_trace_in_json() -> None:
    with server(MINDBUS_LOG_FORMAT="json") as running:
        kept = post(
            running.rest_address, "/model/probe:double", X_Request_Id="order-17", traceparent=TRACE
        )
        made = post(running.rest_address, "/model/nobody:double")
        door = GrpcDoor(running.grpc_address, "probe")
        of_call = call(door, "double", ("x-request-id", "call-1"), ("traceparent", TRACE))
        door.close()

        def lines() -> list[dict[str, Any]]:
            found = [json.loads(line) for line in running.stderr if line.startswith("{")]
            return [line for line in found if line["message"] == "access"]

        wait_until(lambda: len(lines()) == 3)
        rest, refused, grpc_line = lines()
    assert kept.getheader("x-request-id") == rest["request_id"] == "order-17"
    assert kept.getheader("traceresponse") == TRACE
    assert rest["trace_id"] == grpc_line["trace_id"] == TRACE_ID
    assert (rest["servable"], rest["version"], rest["method"]) == ("probe", 0, "double")
    assert (rest["code"], rest["reason"], rest["door"]) == ("OK", "", "rest")
    assert rest["request_bytes"] == len(BODY)
    assert rest["reply_bytes"] > 0
    assert 0 < rest["duration_ms"] < 20_000
    assert made.getheader("x-request-id") == refused["request_id"] != ""
    assert made.getheader("traceresponse") is None
    assert (refused["code"], refused["reason"]) == ("NOT_FOUND", "unknown_service")
    assert of_call["x-request-id"] == grpc_line["request_id"] == "call-1"
    assert of_call["traceresponse"] == TRACE
    assert (grpc_line["door"], grpc_line["code"]) == ("grpc", "OK")


def test_the_same_line_in_glog_form() -> None:
    with server() as running:
        post(running.rest_address, "/model/probe:double", X_Request_Id="order-18")

        def line() -> str:
            return next((line for line in running.stderr if "request_id=order-18" in line), "")

        text = wait_until(line)
    assert text.startswith("[INFO] SERVING(")
    assert "] access door=rest peer=127.0.0.1:" in text
    assert "servable=probe version=0 method=double code=OK" in text
