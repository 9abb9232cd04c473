"""Fixtures that several rooms share."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.mindspore_process import MindSporeProcess

pytest_plugins = ["tests.figures"]

# Who starts the tests in the background of a script has SIGINT ignored, and so would every process
# that is to be ended by it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def prepare(directory: Path) -> list[str]:
    """Make the demo servables; runs in a process that has MindSpore."""
    from examples.prepare_demo import prepare_demo

    return prepare_demo(directory)


@pytest.fixture(scope="session")
def demo_servables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the demo servables `add` and `digits`, made and trained once per run."""
    directory = tmp_path_factory.mktemp("demo")
    with MindSporeProcess() as process:
        assert process.run(prepare, directory) == ["add", "digits"]
    return directory / "servables"
