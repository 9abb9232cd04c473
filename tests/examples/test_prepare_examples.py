"""How the example servables come into being: several files at once, the same each time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from examples.prepare_examples import EXAMPLES
from examples.servable_files import CONFIGS, make_servable
from tests.examples.direct_run import direct_run
from tests.mindspore_process import MindSporeProcess
from tests.processes.server_process import CHECKOUT

FILES = ("tensor_add.mindir", "tensor_sub.mindir")


def models(content: bytes) -> Callable[[Path], None]:
    """A maker that writes `content` into both model files."""

    def make(version: Path) -> None:
        for file in FILES:
            (version / file).write_bytes(content)

    return make


def contents(servable: Path) -> dict[str, bytes]:
    """Every file of a servable, by its path in it."""
    files = (path for path in servable.rglob("*") if path.is_file())
    return {str(path.relative_to(servable)): path.read_bytes() for path in files}


def config(name: str) -> bytes:
    """Our `servable_config.py` of a servable."""
    return (CONFIGS / name / "servable_config.py").read_bytes()


def test_a_servable_of_two_model_files_is_made_once(tmp_path: Path) -> None:
    servable = tmp_path / "add_sub"
    assert make_servable(servable, FILES, models(b"first"), {"labels.txt": "a\n"})
    assert not make_servable(servable, FILES, models(b"second"), {"labels.txt": "b\n"})
    assert contents(servable) == {
        "1/tensor_add.mindir": b"first",
        "1/tensor_sub.mindir": b"first",
        "labels.txt": b"b\n",
        "servable_config.py": config("add_sub"),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["add_sub"]


def test_a_missing_model_file_is_made_again_together_with_the_others(tmp_path: Path) -> None:
    servable = tmp_path / "add_sub"
    make_servable(servable, FILES, models(b"first"))
    (servable / "1" / FILES[1]).unlink()
    assert make_servable(servable, FILES, models(b"second"))
    assert contents(servable) == {
        "1/tensor_add.mindir": b"second",
        "1/tensor_sub.mindir": b"second",
        "servable_config.py": config("add_sub"),
    }


def test_a_maker_that_fails_halfway_leaves_nothing_to_serve(tmp_path: Path) -> None:
    def fail(version: Path) -> None:
        (version / FILES[0]).write_bytes(b"one of two")
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        make_servable(tmp_path / "add_sub", FILES, fail)
    assert contents(tmp_path) == {}


def test_every_example_has_a_config() -> None:
    assert all((CONFIGS / name / "servable_config.py").is_file() for name in EXAMPLES)


@pytest.mark.process
def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, "-m", "examples.prepare_examples"),
            *("add", "mul", "--directory", str(tmp_path)),
        ],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 2
    assert run.stderr.splitlines()[-1].endswith("error: there is no example mul")
    assert list(tmp_path.iterdir()) == []


def export_again(path: Path) -> None:
    """Export the model of lenet; runs in a process that has MindSpore."""
    from examples.export_lenet import export_lenet

    export_lenet(path)


@pytest.mark.mindspore
def test_the_random_weights_are_the_same_each_time(
    exporter: MindSporeProcess, example_servables: Path, tmp_path: Path
) -> None:
    again = tmp_path / "lenet.mindir"
    exporter.run(export_again, again)
    batch = np.random.default_rng(5).random((8, 1, 32, 32), np.float32)
    first = example_servables / "lenet" / "1" / "lenet.mindir"
    (one,), (other,) = (exporter.run(direct_run, path, [batch]) for path in (first, again))
    np.testing.assert_array_equal(one, other)
