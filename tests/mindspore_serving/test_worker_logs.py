"""`serving_logs`: where the workers of a start script write."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from tests.mindspore_serving.start_script import StartScript, free_port, write_servable
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import descendants, wait_until

pytestmark = pytest.mark.process

SERVER = """
from mindspore_serving import server

config = server.ServableStartConfig(".", "add", device_ids=(0, 3), num_parallel_workers=3)
server.start_servables(config)
server.start_grpc_server("127.0.0.1:{grpc}")
"""

#: The words of user code: one stream each, when the worker imports it.
TALKATIVE = """
import sys

print("printed by the servable")
print("complained by the servable", file=sys.stderr)
"""

SUCCESS = "Serving: Start servable success, servable directory: "
DOOR = "Serving: Serving gRPC server start success, listening on "
DEVICE_0, DEVICE_3 = "log_add_device0_version1.log", "log_add_device3_version1.log"
EXTRA_0 = "log_add_extra0_version1.log"


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with the servable `add`, whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        write_servable(Path(path))
        config = Path(path, "add", "servable_config.py")
        config.write_text(config.read_text() + TALKATIVE)
        yield Path(path)


def _starts(lines: list[str]) -> int:
    return sum(line.startswith(SUCCESS) for line in lines)


def _assert_adds(port: int) -> None:
    ones = np.ones((2, 2), np.float32)
    with Client(f"127.0.0.1:{port}", "add", "add_cast") as client:
        assert client.infer({"x1": ones, "x2": ones})[0]["y"].tolist() == [[2.0, 2.0]] * 2


def _worker_of_device(script: StartScript, device: int) -> int:
    wanted = f"SERVING_DEVICE_ID={device}".encode()
    for pid in descendants(script.process.pid):
        if wanted in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return pid
    raise AssertionError(f"no worker has device {device}")


def test_each_worker_of_a_start_script_has_a_log_in_the_current_directory(
    directory: Path,
) -> None:
    with StartScript(directory, SERVER.format(grpc=free_port())) as script:
        script.wait_for(DOOR)
        logs = script.logs()
        assert set(logs) == {DEVICE_0, DEVICE_3, EXTRA_0}
        for lines in logs.values():
            assert _starts(lines) == 1
            assert "printed by the servable" in lines
            assert "complained by the servable" in lines
        assert not any("servable" in line for line in [*script.lines, *script.error_lines])
        assert [line for line in script.lines if line.startswith(DOOR)]
        script.end(signal.SIGTERM)


def test_a_restarted_worker_goes_on_in_its_log_and_a_new_server_begins_it_anew(
    directory: Path,
) -> None:
    source = SERVER.format(grpc=free_port())
    with StartScript(directory, source) as script:
        script.wait_for(DOOR)
        os.kill(_worker_of_device(script, 3), signal.SIGKILL)
        wait_until(lambda: _starts(script.logs()[DEVICE_3]) == 2)
        assert _starts(script.logs()[DEVICE_0]) == 1
        script.end(signal.SIGTERM)
    with StartScript(directory, source) as script:
        script.wait_for(DOOR)
        assert [_starts(lines) for lines in script.logs().values()] == [1, 1, 1]
        script.end(signal.SIGTERM)


def test_without_a_directory_for_logs_workers_write_to_the_terminal_and_serve(
    directory: Path,
) -> None:
    port = free_port()
    (directory / "cwd").mkdir()
    (directory / "cwd" / "serving_logs").write_text("a file is in the way")
    with StartScript(directory, SERVER.format(grpc=port)) as script:
        script.wait_for(DOOR)
        _assert_adds(port)
        assert _starts(script.lines) == 3
        script.end(signal.SIGTERM)
    warning = "worker log cannot be written, workers write to the terminal"
    assert sum(warning in line for line in script.error_lines) == 1


def test_serve_writes_to_its_own_output_unless_a_directory_is_named(directory: Path) -> None:
    logs = directory / "logs"
    with ServerProcess(directory, "--backend", "numpy") as server:
        assert _starts(server.stdout) == 1
    with ServerProcess(
        directory, "--backend", "numpy", "--worker-log-directory", str(logs)
    ) as server:
        assert _starts(server.stdout) == 0
    assert _starts((logs / DEVICE_0).read_text().splitlines()) == 1
