"""The example servables: exported once, served by one server for all modules of this room."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.examples.direct_run import ENVIRONMENT
from tests.mindspore_process import MindSporeProcess
from tests.processes.server_process import ServerProcess

#: Six processes import MindSpore, on a machine that may be busy.
START_DEADLINE_S = 180.0


def prepare(directory: Path) -> list[str]:
    """Make the example servables; runs in a process that has MindSpore."""
    from examples.prepare_examples import prepare_examples

    return prepare_examples(directory)


@pytest.fixture(scope="package")
def exporter() -> Iterator[MindSporeProcess]:
    """A process that has MindSpore, for exports and direct runs."""
    with MindSporeProcess() as process:
        yield process


@pytest.fixture(scope="package")
def example_servables(
    exporter: MindSporeProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The directory of the example servables; removed at once, because of its 100 MB."""
    directory = tmp_path_factory.mktemp("examples")
    names = ["add", "add_sub", "matmul", "lenet", "resnet50"]
    assert exporter.run(prepare, directory) == names
    yield directory
    shutil.rmtree(directory)


@pytest.fixture(scope="package")
def examples_server(example_servables: Path) -> Iterator[ServerProcess]:
    """A server of all examples."""
    with ServerProcess(
        example_servables, environment=ENVIRONMENT, deadline_s=START_DEADLINE_S
    ) as server:
        yield server
