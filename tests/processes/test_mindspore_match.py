"""MindSpore that is missing, or of another version: what the server says of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import mindspore_serving
from tests.processes.server_process import CHECKOUT, ServerProcess
from tests.processes.test_serve_command import SUM, call, write_servable

CONFIG_WITHOUT_MODEL = """
from mindspore_serving.server import register


def plus(x1, x2):
    return x1 + x2


@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.add_stage(plus, x1, x2, outputs_count=1)
"""


def without_mindspore(directory: Path) -> dict[str, str]:
    """An environment in which `mindspore` is no package: a file of that name stands before it."""
    (directory / "mindspore.py").write_text("raise ImportError('not MindSpore')\n")
    return {"PYTHONPATH": str(directory)}


def test_the_version_of_this_package_is_that_of_the_locked_mindspore() -> None:
    lock = (CHECKOUT / "requirements.lock").read_text()
    (locked,) = (line for line in lock.splitlines() if line.startswith("mindspore=="))
    assert locked.split()[0] == f"mindspore=={mindspore_serving.__version__}"


@pytest.mark.process
def test_another_version_of_mindspore_is_warned_of_in_the_originals_words(tmp_path: Path) -> None:
    package = tmp_path / "lib" / "mindspore"
    package.mkdir(parents=True)
    (package / "version.py").write_text("__version__ = '1.9.0'\n")
    (package / "__init__.py").write_text("")
    server = ServerProcess(
        write_servable(tmp_path / "servables"), environment={"PYTHONPATH": str(package.parent)}
    )
    assert server.wait() == 1
    server.close()
    assert server.stderr[0].startswith("[WARNING] SERVING(")
    assert server.stderr[0].endswith(
        "MindSpore version 1.9.0 and MindSpore Serving version "
        f"{mindspore_serving.__version__} are expected to be consistent. If not, there may be "
        "compatibility problems."
    )


@pytest.mark.process
def test_a_missing_mindspore_ends_the_start_with_one_line_that_says_what_to_install(
    tmp_path: Path,
) -> None:
    environment = without_mindspore(tmp_path)
    servables = write_servable(tmp_path / "servables")
    with (servables / "add" / "servable_config.py").open("a") as config:
        config.write("import mindspore\n")
    server = ServerProcess(servables, environment=environment)
    assert server.wait() == 1
    server.close()
    (line,) = server.stderr
    assert line.startswith("mindbus: Fail to start workers: {servable name:add, device id:0, <")
    assert f"MindSpore is not installed for {sys.executable}: run `{sys.executable} -m " in line
    assert "pip install mindspore`" in line


@pytest.mark.process
def test_a_servable_without_models_needs_no_mindspore(tmp_path: Path) -> None:
    servables = tmp_path / "servables"
    (servables / "add").mkdir(parents=True)
    (servables / "add" / "servable_config.py").write_text(CONFIG_WITHOUT_MODEL)
    environment = without_mindspore(tmp_path)
    with ServerProcess(servables, environment=environment) as server:
        assert call(server.rest_address) == SUM
        assert server.slot("add/1/device0")["device"] == {"target": "CPU", "id": 0}
        assert server.stderr == []
