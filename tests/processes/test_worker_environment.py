"""The environment that a worker process is started with; its children and siblings are fakes."""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindbus.server import ServableLaunch, Server, ServerSettings
from telemetry.log import configure
from tests.processes.fakes.fake_serve import COMMANDS
from workers.backends.mindspore_discovery import find_package

pytestmark = pytest.mark.process


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What is logged at INFO and above."""
    stream = io.StringIO()
    configure("test", {"GLOG_v": "1"}, stream)
    yield stream
    configure("pytest", {})


@pytest.fixture
def root() -> Iterator[Path]:
    """A fake servable `add`, and CANN as it is installed below /usr/local/Ascend."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="mb-") as path:
        servable = Path(path, "servables", "add")
        servable.mkdir(parents=True)
        (servable / "servable_config.py").touch()
        (servable / "fake.json").write_text('{"boot": "ready"}')
        (Path(path) / "Ascend" / "ascend-toolkit" / "latest" / "lib64").mkdir(parents=True)
        yield Path(path)


def environments(root: Path, backend: str) -> dict[str, dict[str, str]]:
    """The environment of each child of a server, by its slot."""
    settings = ServerSettings(
        run_directory=root / "run", ascend_root=root / "Ascend", commands=COMMANDS
    )
    server = Server(settings)
    try:
        server.start_servables([ServableLaunch(str(root / "servables"), "add", backend=backend)])
        slots = server.status()["slots"]
        return {slot["slot"]: environment(slot["pid"]) for slot in slots}
    finally:
        server.stop(grace_ms=0)


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_text().rstrip("\0").split("\0")
    return {name: value for name, _, value in (entry.partition("=") for entry in entries)}


def test_a_worker_finds_the_libraries_of_cann_and_mindspore_and_the_log_says_so(
    root: Path, said: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/mine")
    package = find_package()
    assert package is not None
    wanted = f"{root}/Ascend/ascend-toolkit/latest/lib64:/opt/mine:{package}/lib"
    found = environments(root, "mindspore")
    assert found["add/1/device0"]["LD_LIBRARY_PATH"] == wanted
    assert found["gateway/0"]["LD_LIBRARY_PATH"] == "/opt/mine"
    assert os.environ["LD_LIBRARY_PATH"] == "/opt/mine"
    line = f"Update env LD_LIBRARY_PATH from '/opt/mine' to '{wanted}'"
    assert said.getvalue().count(line) == 1


def test_a_worker_that_needs_no_mindspore_keeps_the_library_path(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    found = environments(root, "numpy")["add/1/device0"]
    assert "LD_LIBRARY_PATH" not in found
    assert found["SERVING_DEVICE_ID"] == "0"
