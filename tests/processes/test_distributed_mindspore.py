"""Groups of real MindSpore ranks on the CPU: what they compute together equals the unsplit model.

Two and four ranks run the example `matmul_distributed` by the example's own scripts; two others
are the stages of a pipeline.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.mindspore_process import MindSporeProcess
from tests.mindspore_serving.start_script import ROOT, StartScript, free_port
from tests.processes.group_scripts import AGENTS_LINE, GRPC_LINE, GroupScripts
from tests.processes.stage_values import unsplit

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

#: Up to five processes import MindSpore, on a machine that may be busy.
DEADLINE_S = 240.0

EXAMPLE_SCRIPT = """
import os
import runpy
import sys

os.environ.update({environment})
sys.argv = [{path!r}, {directory!r}]
runpy.run_path({path!r}, run_name="__main__")
"""


def make_example(directory: Path, ranks: int) -> Any:
    """Export the example; runs in a process that has MindSpore. Returns the unsplit weights."""
    from examples.export_matmul_distributed import make_matmul_distributed, weights

    make_matmul_distributed(directory, ranks)
    return weights()


def make_stages(directory: Path) -> None:
    """Export the two stages; runs in a process that has MindSpore."""
    from tests.processes.group_models import export_stages

    export_stages(directory)


@pytest.fixture(scope="module")
def exporter() -> Iterator[MindSporeProcess]:
    with MindSporeProcess() as process:
        yield process


class Example(GroupScripts):
    """The example's scripts with ports of the test."""

    def __init__(self, exporter: MindSporeProcess, ranks: int) -> None:
        super().__init__("matmul_distributed", ranks, "mindspore", DEADLINE_S)
        self.weights = exporter.run(make_example, self.directory / "servables", ranks)

    def start_example(self) -> None:
        """Start both scripts and wait until the door is open."""
        self.server = self._run("serving_server.py", self.directory)
        self.agents = self._run("serving_agents.py", self.directory / "agents")
        self.server.wait_for(GRPC_LINE, DEADLINE_S)
        self.agents.wait_for(AGENTS_LINE, DEADLINE_S)

    def _run(self, name: str, directory: Path) -> StartScript:
        environment = {
            "DISTRIBUTED_ADDRESS": f"127.0.0.1:{self.port}",
            "GRPC_ADDRESS": f"127.0.0.1:{self.grpc_port}",
            "AGENT_START_PORT": str(free_port()),
        }
        source = EXAMPLE_SCRIPT.format(
            environment=environment,
            path=str(ROOT / "examples" / "distributed" / name),
            directory=str(self.directory / "servables"),
        )
        return StartScript(directory, source, "mindspore")

    def check_values(self) -> None:
        """Ten instances, in batches of four, equal the product with all of the weights."""
        inputs = np.random.default_rng(3).integers(-9, 10, (10, len(self.weights)))
        results = self.infer([{"x": row} for row in inputs])
        assert isinstance(results, list), results
        for row, result in zip(inputs, results, strict=True):
            expected = row.astype(np.float32) @ self.weights
            np.testing.assert_array_equal(result["y"], expected, strict=True)


@pytest.fixture(scope="module", params=[2, 4], ids=["2 ranks", "4 ranks"])
def example(request: pytest.FixtureRequest, exporter: MindSporeProcess) -> Iterator[Example]:
    with Example(exporter, request.param) as made:
        made.start_example()
        yield made


def test_a_matmul_split_over_ranks_equals_the_unsplit_one(example: Example) -> None:
    assert len(example.agent_pids()) == example.ranks
    example.check_values()


def test_the_death_of_a_rank_restarts_the_group_with_right_values(example: Example) -> None:
    before = example.agent_pids()
    os.kill(before[example.ranks - 1], signal.SIGKILL)
    example.wait_agents(before)
    example.check_values()


def test_the_end_of_the_server_ends_the_ranks(example: Example) -> None:
    assert example.server is not None
    assert example.agents is not None
    assert example.server.end(signal.SIGTERM) == 0
    assert example.agents.process.wait(DEADLINE_S) == 0
    assert example.agent_pids() == {}


def test_two_stages_of_a_pipeline_equal_the_unsplit_model(exporter: MindSporeProcess) -> None:
    with GroupScripts("stages", 2, "mindspore", DEADLINE_S) as scripts:
        scripts.write_servable(stages=2, is_pipelined=True)
        exporter.run(make_stages, scripts.directory / "agents")
        scripts.start(["rank0.mindir", "rank1.mindir"])
        inputs = np.random.default_rng(5).integers(-9, 10, (40, 3)).astype(np.float32)
        with ThreadPoolExecutor(8) as callers:
            results = list(callers.map(lambda row: scripts.infer([{"x": row}])[0], inputs))
        for row, result in zip(inputs, results, strict=True):
            np.testing.assert_array_equal(result["y"], unsplit(row), strict=True)
