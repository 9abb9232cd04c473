"""`pip install .` into a clean environment: the clients work there, and no MindSpore comes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.gateway.fakes import fake_broker
from tests.tidy.test_floor_plan import OURS

pytestmark = [pytest.mark.process, pytest.mark.long]

ROOT = Path(__file__).resolve().parents[2]

#: What is installed: every room but those for those who work on the house.
ROOMS = sorted({*OURS} - {"tests", "bench", "examples", "docs"})

#: What a producer does, and what has come with the package, as seen from within the environment.
PROGRAM = """
import sys
from importlib import metadata, util

import numpy as np
from mindbus import AsyncBusClient, BusClient, Retry
import mindbus.bus_client

with BusClient(sys.argv[1], timeout=30, retry=Retry()) as client:
    (result,) = client.infer("add", "m", {"x": np.ones(2, np.float32)})
    print(result["x"].tolist())
print(sorted(each.metadata["Name"].lower() for each in metadata.distributions()))
print([name for name in ("mindspore", "grpc", "httptools") if util.find_spec(name)])
print(mindbus.bus_client.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, built from the checkout's files, which nothing is written into."""
    directory = tmp_path_factory.mktemp("wheel")
    source = directory / "source"
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check")
    run(*pip, "--no-deps", "--no-build-isolation", "-w", directory, source, cwd=directory)
    (built,) = directory.glob("mindbus-*.whl")
    return built


def test_the_wheel_has_the_rooms_of_the_house_and_nothing_else(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(ROOMS)
    assert "mindbus/bus_client.py" in names


def test_a_clean_environment_gets_the_clients_and_no_mindspore(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "clean", cwd=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    flags = ("--quiet", "--disable-pip-version-check", "--no-compile")
    run(python, "-m", "pip", "install", *flags, wheel, cwd=tmp_path)
    with fake_broker() as broker:
        program = subprocess.Popen(
            [python, "-I", "-c", PROGRAM, broker.address],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert broker.router.poll(60_000), "the program never asked"
            asked = broker.receive()
            broker.answer_frames(asked, asked.frames)
            out, errors = program.communicate(timeout=60)
        finally:
            program.kill()
    assert program.returncode == 0, errors
    values, packages, extras, place = out.splitlines()
    assert values == "[1.0, 1.0]"
    wanted = {"mindbus", "msgpack", "numpy", "pyzmq"}
    installed = {name.strip(" '[]") for name in packages.split(",")}
    assert installed - {"pip", "setuptools"} == wanted
    assert extras == "[]"
    assert place.startswith(str(tmp_path))
