"""Real clients of the Open Inference Protocol against a real server, at both of its doors.

They live in an environment of their own, which `make clients` makes; without it these tests are
skipped. The Python clients check by themselves what they get.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.processes.probe import probe_server
from tests.processes.scrapes import Scrape
from tests.processes.server_process import CHECKOUT, ServerProcess
from tests.processes.waiting import wait_until

HERE = Path(__file__).parent
CLIENTS = Path(os.environ.get("MINDBUS_CLIENTS", CHECKOUT / "build" / "clients"))
PYTHON = CLIENTS / "bin" / "python"
PERF_ANALYZER = CLIENTS / "bin" / "perf_analyzer"

#: A client gets this long.
CLIENT_S = 240

#: How perf_analyzer ends its report, and what it gets to end itself then.
LAST_LINE = re.compile(r"^Concurrency: \d+, throughput: .*$", re.MULTILINE)
ENDS_S = 10

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not PYTHON.exists(), reason="no clients are there: make clients"),
]


@pytest.fixture(scope="module", params=["embedded", "standalone"])
def server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    flags = ("--device-ids", "0,1", "--settings-control", "explicit", "--rest-compression", "on")
    with probe_server(*flags, "--mode", request.param) as running:
        yield running


def run(*command: object, directory: Path | None = None) -> str:
    done = subprocess.run(
        [str(word) for word in command],
        capture_output=True,
        text=True,
        timeout=CLIENT_S,
        cwd=directory,
        env={**os.environ, "LD_LIBRARY_PATH": cuda_runtime()},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cuda_runtime() -> str:
    """Where the library is that perf_analyzer is linked with, and never calls here."""
    found = sorted(CLIENTS.glob("lib/python3*/site-packages/nvidia/*/lib/libcudart.so.*"))
    return str(found[0].parent) if found else ""


@pytest.mark.parametrize("client", ["tritonclient", "kserve", "grpcio"])
def test_a_python_client_finds_everything_as_it_expects(server: ServerProcess, client: str) -> None:
    script = HERE / f"with_{client}.py"
    said = run(PYTHON, script, server.grpc_address, server.rest_address)
    assert said.splitlines()[-1] == "every check passed"


def test_messages_have_the_numbers_types_and_names_of_tritons() -> None:
    assert run(PYTHON, HERE / "compare_messages.py").startswith("the same: ")


@pytest.mark.skipif(not PERF_ANALYZER.exists(), reason="no perf_analyzer is there: make clients")
@pytest.mark.parametrize(
    "flags",
    [
        ["-i", "grpc"],
        ["-i", "grpc", "-b", "4"],
        ["-i", "grpc", "--async", "--streaming"],
        ["-i", "http"],
        ["-i", "http", "--async"],
        ["-i", "http", "--input-tensor-format", "json", "--output-tensor-format", "json"],
    ],
    ids=" ".join,
)
def test_perf_analyzer_measures_both_doors(
    server: ServerProcess, flags: list[str], tmp_path: Path
) -> None:
    address = server.grpc_address if "grpc" in flags else server.rest_address
    window = ["--measurement-mode", "count_windows", "--measurement-request-count", "20"]
    said = said_by_perf_analyzer(
        [
            "-m", "probe.double", "-u", address, *flags, *window,
            *("-r", "10", "-s", "99", "--concurrency-range", "2"),
        ],
        tmp_path / "said",
    )  # fmt: skip
    throughput = re.search(r"throughput: ([0-9.]+) infer/sec", said)
    assert throughput is not None, said
    assert float(throughput[1]) > 0
    assert "Failed" not in said
    wait_until(lambda: not Scrape(server.rest_address).value("requests_held"))


def said_by_perf_analyzer(flags: list[str], file: Path) -> str:
    """What it says up to its last line. It may not end after that: a thread of it that finds its
    measurement over, and all replies there, waits for one more reply for ever."""
    with file.open("w") as output:
        measuring = subprocess.Popen(
            [PERF_ANALYZER, *flags],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "LD_LIBRARY_PATH": cuda_runtime()},
        )
    try:
        wait_until(
            lambda: measuring.poll() is not None or LAST_LINE.search(file.read_text()) is not None,
            CLIENT_S,
        )
        with suppress(subprocess.TimeoutExpired):
            assert measuring.wait(ENDS_S) == 0, file.read_text()
    finally:
        measuring.kill()
        measuring.wait()
    return file.read_text()


def test_curl_sends_json_and_binary_tensors(server: ServerProcess, tmp_path: Path) -> None:
    url = f"http://{server.rest_address}/v2/models/probe.double"
    assert json.loads(run("curl", "-sS", f"{url}/ready"))["ready"]
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}
    text = json.dumps({"inputs": [tensor]})
    said = json.loads(run("curl", "-sS", f"{url}/infer", "-d", text))
    assert said["outputs"][0]["data"] == [2, 4, 6, 8]
    del tensor["data"]
    binary = {"inputs": [{**tensor, "parameters": {"binary_data_size": 16}}]}
    head = json.dumps(binary).encode()
    (tmp_path / "body").write_bytes(head + bytes(16))
    length = f"Inference-Header-Content-Length: {len(head)}"
    body = f"@{tmp_path / 'body'}"
    said = json.loads(run("curl", "-sS", f"{url}/infer", "-H", length, "--data-binary", body))
    assert said["outputs"][0]["data"] == [0, 0, 0, 0]
    events = run("curl", "-sSN", f"{url}/infer", "-H", "Accept: text/event-stream", "-d", text)
    assert events.startswith("data: {")


def test_schemathesis_finds_every_rest_route_as_openapi_json_says(tmp_path: Path) -> None:
    flags = ("--model-control", "explicit", "--settings-control", "explicit")
    with probe_server(*flags) as server:
        said = run(
            CLIENTS / "bin" / "st", "--config-file", HERE / "schemathesis.toml",
            "run", f"http://{server.rest_address}/openapi.json",
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "15", "--seed", "1"),
            *("--suppress-health-check", "all", "--generation-database", "none", "--no-color"),
            directory=tmp_path,
        )  # fmt: skip
        assert re.search(r"\d{3,} generated, (\d+) passed", said), said
        generations = [slot["generation"] for slot in server.status()["slots"]]
        assert set(generations) == {1}, "a process died of it"
