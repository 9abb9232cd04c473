"""What a start script is told about model formats and `enable_lite`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from mindspore_serving.server.servables import NO_LITE_TEXT
from tests.mindspore_process import MindSporeProcess
from tests.mindspore_serving.start_script import StartScript, free_port

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

START_S = 120.0

CONFIG = """
from mindspore_serving.server import register

model = register.declare_model(model_file="add.mindir", model_format="{}", with_batch_dim=False)


@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.add_stage(model, x1, x2, outputs_count=1)
"""

SCRIPT = """
from mindspore_serving import server

try:
    server.start_servables(server.ServableStartConfig(".", "add", 0{key}), enable_lite={lite})
    server.start_grpc_server("127.0.0.1:{port}")
except RuntimeError as error:
    print("refused:", error, flush=True)
"""

DOOR = "Serving: Serving gRPC server start success, listening on "


def export_add(path: Path) -> None:
    """Export `x1 + x2` for 2 x 2 matrices."""
    from tests.workers import mindspore_models as models

    models.export(models.Add(), models.zeros(2, 2), models.zeros(2, 2), path=path)


@pytest.fixture(scope="module")
def add_mindir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported model file."""
    path = tmp_path_factory.mktemp("models") / "add.mindir"
    with MindSporeProcess() as process:
        process.run(export_add, path)
    return path


@pytest.fixture
def directory(add_mindir: Path) -> Iterator[Path]:
    """A directory for a script and the servable `add`."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        version = Path(path, "add", "1")
        version.mkdir(parents=True)
        (version / "add.mindir").write_bytes(add_mindir.read_bytes())
        yield Path(path)


@pytest.mark.parametrize(
    ("model_format", "enable_lite", "key", "model_type", "needed"),
    [
        ("OM", False, "", "OM", "the offline model runtime of CANN"),
        ("MindIR_Lite", False, "", "MindIR_Lite", "MindSpore Lite"),
        ("MindIR_Lite", True, ", dec_key=b'k' * 16", "MindIR_Lite", "MindSpore Lite"),
        ("mindir_opt", True, "", "MindIR_Lite", "MindSpore Lite"),
    ],
)
def test_a_format_that_no_backend_runs_ends_the_start_with_the_known_text(
    directory: Path, model_format: str, enable_lite: bool, key: str, model_type: str, needed: str
) -> None:
    (directory / "add" / "servable_config.py").write_text(CONFIG.format(model_format))
    source = SCRIPT.format(lite=enable_lite, key=key, port=free_port())
    with StartScript(directory, source, "mindspore") as script:
        script.wait_for("refused:", START_S)
        assert script.process.wait(START_S) == 0
    text = (
        "Fail to start workers: {servable name:add, device id:0, <Raise failed: Load model failed, "
        f"servable directory: '{directory}', servable name: 'add', model file: '[add.mindir]', "
        "version number 1,model context: {}, load error details: Not support device type CPU and "
        f"model type {model_type}. Current inference backend: MindSpore. It needs {needed}, for "
        "which there is no backend: export the model as MindIR.>}"
    )
    assert script.lines == [f"refused: {text}"]


def test_with_enable_lite_mindspore_runs_mindir_models_and_says_so(directory: Path) -> None:
    (directory / "add" / "servable_config.py").write_text(CONFIG.format("MindIR"))
    port = free_port()
    with StartScript(directory, SCRIPT.format(lite=True, key="", port=port), "mindspore") as script:
        script.wait_for(DOOR, START_S)
        with Client(f"127.0.0.1:{port}", "add", "add") as client:
            ones = np.ones((2, 2), np.float32)
            assert client.infer({"x1": ones, "x2": ones})[0]["y"].tolist() == [[2.0, 2.0]] * 2
    assert sum(NO_LITE_TEXT in line for line in script.error_lines) == 1
