"""Log and trace settings that clients and operators change while a server runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.processes.probe import SERVABLES
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until
from tests.telemetry import span_files

pytestmark = pytest.mark.process

BODY = {"instances": [{"x": [1.0] * 4}]}
PROBE = "/model/probe:double"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(server: ServerProcess, target: str, document: Any = None, **headers: str) -> Any:
    """The JSON of an answer; GET without a document."""
    body = None if document is None else json.dumps(document).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = Request(f"http://{server.rest_address}{target}", body, named)
    with urlopen(request, timeout=20) as answer:
        return json.loads(answer.read()) | {"traceresponse": answer.headers["traceresponse"]}


def mindbus(server: ServerProcess, *arguments: str) -> str:
    command = [sys.executable, "-m", "mindbus", *arguments]
    where = ["--run-directory", str(server.run_directory)]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def has_line(server: ServerProcess, *words: str) -> bool:
    return any(all(word in line for word in words) for line in server.stderr)


@pytest.mark.parametrize("mode", ["embedded", "standalone"])
def test_the_log_level_of_every_process_changes_while_it_runs(mode: str) -> None:
    with ServerProcess(
        SERVABLES,
        *("--servable", "probe", "--backend", "numpy", "--mode", mode),
        *("--settings-control", "explicit"),
        environment={"GLOG_v": "2"},
    ) as server:
        assert mindbus(server, "settings").startswith("log level: WARNING (from the environment)")
        assert not has_line(server, "[INFO]")
        assert ask(server, "/v2/logging", {"log_info": True})["log_info"] is True
        assert mindbus(server, "settings").startswith("log level: INFO\n")
        mindbus(server, "restart", "probe", "--settle-ms", "0")
        # the old worker was told, the new one was born with it, and the supervisor is one of us
        wait_until(lambda: has_line(server, "[INFO]", "worker drained"))
        wait_until(lambda: has_line(server, "[INFO]", "worker session"))
        assert has_line(server, "[INFO]", "child started")
        infrastructure = "broker/0" if mode == "standalone" else "gateway/0"
        generation = server.slot(infrastructure)["generation"]
        mindbus(server, "kill", infrastructure)
        wait_until(lambda: server.slot(infrastructure)["generation"] > generation)
        wait_until(lambda: server.slot(infrastructure)["state"] == "READY")
        own = "broker started" if mode == "standalone" else "door opened"
        wait_until(lambda: has_line(server, "[INFO]", own))
        assert ask(server, "/v2/logging")["log_info"] is True
        wait_until(lambda: {slot["state"] for slot in server.status()["slots"]} == {"READY"})

        text = mindbus(server, "settings", "--log-level", "environment")
        assert text.startswith("log level: WARNING (from the environment)")
        wait_until(lambda: ask(server, "/v2/logging")["log_info"] is False)
        before = len(server.stderr)
        mindbus(server, "restart", "probe", "--settle-ms", "0")
        assert not [line for line in server.stderr[before:] if "[INFO]" in line]


def test_traces_are_switched_off_and_sampled_while_a_server_runs(tmp_path: Path) -> None:
    environment = {
        "MINDBUS_TRACING": "on",
        "OTEL_TRACES_EXPORTER": span_files.NAME,
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        span_files.DIRECTORY: str(tmp_path),
    }

    def spans(name: str) -> list[dict[str, Any]]:
        return [span for span in span_files.read_spans(tmp_path) if span["name"] == name]

    def traced() -> list[str]:
        """Ids of the requests of the probe that a span was made of."""
        attributes = [span["attributes"] for span in spans("mindbus.rest")]
        return sorted(
            each["mindbus.request_id"] for each in attributes if "mindbus.servable" in each
        )

    with ServerProcess(
        SERVABLES,
        *("--servable", "probe", "--backend", "numpy", "--settings-control", "explicit"),
        environment=environment,
    ) as server:
        ask(server, PROBE, BODY, x_request_id="first")
        settings = ask(server, "/v2/trace/setting")
        assert (settings["trace_level"], settings["trace_rate"]) == (["TIMESTAMPS"], "1")

        assert "tracing:   off" in mindbus(server, "settings", "--tracing", "off")
        wait_until(lambda: ask(server, "/v2/trace/setting")["trace_level"] == ["OFF"])
        told = ask(server, PROBE, BODY, traceparent=PARENT)["traceresponse"]
        assert told == PARENT[:-2] + "00"  # it goes on, and is not recorded here
        assert ask(server, PROBE, BODY)["traceresponse"] is None
        ask(server, "/v2/trace/setting", {"trace_level": ["TIMESTAMPS"], "trace_rate": "3"})
        answers = [ask(server, PROBE, BODY, x_request_id=f"id {number}") for number in range(6)]
        is_traced = [answer["traceresponse"] is not None for answer in answers]
        assert is_traced == [True, False, False] * 2
        # what a caller has decided is kept
        told = ask(server, PROBE, BODY, traceparent=PARENT, x_request_id="last")["traceresponse"]
        assert told.endswith("-01")
        wait_until(lambda: traced() == ["first", "id 0", "id 3", "last"])
        wait_until(lambda: len(spans("mindbus.worker")) == 4)


def test_clients_change_nothing_unless_they_may() -> None:
    with ServerProcess(SERVABLES, "--servable", "probe", "--backend", "numpy") as server:
        with pytest.raises(HTTPError) as refused:
            ask(server, "/v2/logging", {"log_info": True})
        assert refused.value.code == 403
        with refused.value as answer:
            assert "--settings-control explicit" in json.loads(answer.read())["error"]
        done = subprocess.run(
            [
                *(sys.executable, "-m", "mindbus", "settings", "--trace-rate", "0"),
                *("--run-directory", str(server.run_directory)),
            ],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 1
        assert "trace_rate 0 is not a number from 1 to 2147483647" in done.stderr
