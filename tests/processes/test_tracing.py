"""A trace through a real server: from the client's header to every stage, and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

from tests.processes.probe import SERVABLES
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until
from tests.telemetry import span_files

pytestmark = pytest.mark.process

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


def test_a_trace_goes_from_the_client_through_door_queue_batch_and_stages(tmp_path: Path) -> None:
    environment = {
        "MINDBUS_TRACING": "on",
        "OTEL_TRACES_EXPORTER": span_files.NAME,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        span_files.DIRECTORY: str(tmp_path),
    }
    with ServerProcess(
        SERVABLES, "--servable", "probe", "--backend", "numpy", environment=environment
    ) as server:
        body = json.dumps({"instances": [{"x": [1.0] * 4}]}).encode()
        headers = {"traceparent": f"00-{TRACE_ID}-{PARENT}-01", "X-Request-Id": "r1"}
        url = f"http://{server.rest_address}/model/probe:double"
        with urlopen(Request(url, body, headers), timeout=20) as answer:
            answer.read()
            told = answer.headers["traceresponse"]

        def spans() -> dict[str, dict[str, Any]]:
            return {span["name"]: span for span in span_files.read_spans(tmp_path)}

        wait_until(lambda: len(spans()) == 5)
        found = spans()
        door, worker = found["mindbus.rest"], found["mindbus.worker"]
        assert {span["trace"] for span in found.values()} == {TRACE_ID}
        assert (door["parent"], worker["parent"]) == (PARENT, door["span"])
        assert found["mindbus.queue"]["parent"] == door["span"]
        assert found["mindbus.batch"]["parent"] == worker["span"]
        assert found["mindbus.stage"]["parent"] == worker["span"]
        assert found["mindbus.stage"]["attributes"]["mindbus.model"] == "double.json"
        assert told == f"00-{TRACE_ID}-{door['span']}-01"
        assert door["begin_ns"] <= worker["begin_ns"] <= worker["end_ns"] <= door["end_ns"]
