"""The producers of `examples/producers` against a real server, each in its own language."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes.probe import broker_stats
from tests.processes.server_process import ServerProcess
from tests.processes.waiting import wait_until

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]
PRODUCERS = ROOT / "examples" / "producers"

EXPECTED = ["float32 [2, 2] 2 3 4 5"] * 2


def run(*command: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300
    )


def require(tool: str, package: str) -> str:
    """The path of a tool; the test fails with what to install if it is not there."""
    path = shutil.which(tool)
    if path is None:
        pytest.fail(f"no {tool} on PATH; run: sudo apt-get install {package} (`make test` does)")
    return path


@pytest.fixture(scope="module")
def python_producer() -> list[str]:
    return [sys.executable, str(PRODUCERS / "python" / "producer.py")]


@pytest.fixture(scope="module")
def node_producer() -> list[str]:
    """The packages are installed once per checkout, under build/."""
    npm, node = require("npm", "npm"), require("node", "nodejs")
    directory = ROOT / "build" / "producers" / "node"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name in ("package.json", "producer.mjs"):
            shutil.copy(PRODUCERS / "node" / name, directory)
        if not (directory / "node_modules" / "zeromq" / "package.json").exists():
            flags = ("--no-audit", "--no-fund", "--no-package-lock")
            done = run(npm, "install", *flags, cwd=directory)
            assert done.returncode == 0, f"npm install failed: {done.stderr}"
    return [node, str(directory / "producer.mjs")]


@pytest.fixture(scope="module")
def c_producer(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    binary = tmp_path_factory.mktemp("c") / "producer"
    if not Path("/usr/include/zmq.h").exists():
        pytest.fail("no zmq.h; run: sudo apt-get install libzmq3-dev (`make test` does)")
    flags = ("-std=c99", "-O1", "-Wall", "-Wextra", "-Wpedantic", "-Werror")
    source = PRODUCERS / "c" / "producer.c"
    done = run(require("gcc", "gcc"), *flags, "-o", binary, source, "-lzmq")
    assert done.returncode == 0, done.stderr
    return [str(binary)]


@pytest.mark.parametrize("language", ["python", "node", "c"])
def test_a_producer_in_another_language_gets_the_right_answers(
    server: ServerProcess, language: str, request: pytest.FixtureRequest
) -> None:
    command: list[str] = request.getfixturevalue(f"{language}_producer")
    done = run(*command, server.producers_address, "probe", "add")
    assert (done.stdout.splitlines(), done.stderr) == (EXPECTED, "")


@pytest.mark.parametrize("language", ["python", "node", "c"])
def test_a_producer_in_another_language_says_what_went_wrong(
    server: ServerProcess, language: str, request: pytest.FixtureRequest
) -> None:
    command: list[str] = request.getfixturevalue(f"{language}_producer")
    done = run(*command, server.producers_address, "probe", "nothing")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing" in done.stderr
    done = run(*command, server.producers_address, "absent", "add")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody serves" in done.stderr
    assert "absent" in done.stderr


def test_a_batch_of_python_uses_what_the_native_protocol_has(server: ServerProcess) -> None:
    before = broker_stats(server)["counters"]
    script = PRODUCERS / "python" / "batch.py"
    done = run(sys.executable, script, server.producers_address, "probe", "add")
    assert (done.returncode, done.stderr) == (0, "")
    first, keyed, last = done.stdout.splitlines()
    assert (first, last) == ("100 answered", "10 left behind")
    # The first one may have been answered before the second one came.
    ends = (("cancelled", "answered"), ("answered", "answered"))
    assert keyed in [f"under one key: first {a}, second {b}" for a, b in ends]

    def came() -> bool:
        now = broker_stats(server)["counters"]
        grown = {name: now[name] - before[name] for name in ("accepted", "answered", "replayed")}
        ended = now["answered"] + now["cancelled"] - before["answered"] - before["cancelled"]
        return grown["accepted"] + grown["replayed"] == 113 and ended == grown["accepted"]

    wait_until(came)
