"""What a start script is told about servables that cannot be served, by real workers."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mindspore_serving.start_script import StartScript

pytestmark = pytest.mark.process

HEAD = "from mindspore_serving.server import register\n"
MODEL = HEAD + 'model = register.declare_model("m.mindir", "MindIR")\n'
METHOD = '\n@register.register_method("y")\ndef m(x):\n'

VECTOR = {"dtype": "float32", "shape": [2, 3]}
GOOD = {
    "inputs": [{"name": "x", **VECTOR}],
    "outputs": [{"name": "y", **VECTOR}],
    "op": "identity",
}
SCALAR = {"dtype": "float32", "shape": []}
FLAT = {**GOOD, "inputs": [{"name": "x", **SCALAR}]}


def imported(name: str, error: str) -> str:
    return f"import {name}.servable_config failed, {error}"


def load_failed(name: str, error: str) -> str:
    return (
        "Raise failed: Load model failed, servable directory: '{directory}', "
        f"servable name: '{name}', model file: '[m.mindir]', version number 1,"
        f"model context: {{{{}}}}, load error details: {error}"
    )


#: Servable -> its configuration, its model file of version 1 or None for no version directory, and
#: what the worker says. {directory} stands for the servable directory.
SERVABLES = {
    "raises": (HEAD + "raise KeyError('x')", GOOD, imported("raises", "'x'")),
    "no_method": (MODEL, GOOD, "There is no method registered for servable"),
    "twice": (
        HEAD + 2 * (METHOD + "    return x\n"),
        None,
        imported("twice", "Method m has been registered more than once."),
    ),
    "unpacks": (
        MODEL + METHOD + "    a, b = register.add_stage(model, x, outputs_count=1)\n    return a\n",
        GOOD,
        imported("unpacks", "cannot unpack non-iterable _TensorDef object"),
    ),
    "no_builtin": (
        HEAD + METHOD + '    return register.add_stage("softmax_cpp", x, outputs_count=1)\n',
        None,
        imported("no_builtin", "Function 'softmax_cpp' is not defined"),
    ),
    "bad_format": (
        HEAD + 'register.declare_model("m.onnx", "ONNX")\n',
        GOOD,
        imported("bad_format", "model format can only be OM, MindIR or MindIR_Lite, case ignored"),
    ),
    "counts": (
        MODEL + METHOD + "    return register.add_stage(model, x, x, outputs_count=1)\n",
        GOOD,
        (
            "The inputs count 2 in register_method not equal to the count 1 defined in model, "
            "model info: m.mindir, subgraph: 0"
        ),
    ),
    "no_batch": (
        MODEL + METHOD + "    return register.add_stage(model, x, outputs_count=1)\n",
        FLAT,
        load_failed(
            "no_batch",
            "The shape of model input 0 cannot be empty, when with_batch_dim is true and "
            "without_batch_dim_inputs is []",
        ),
    ),
    "no_version": (
        MODEL + METHOD + "    return register.add_stage(model, x, outputs_count=1)\n",
        None,
        (
            "There is no valid version directory of models while there are models declared in "
            "servable_config.py, servable directory: {directory}, servable name: no_version"
        ),
    ),
}

SOURCE = """
from mindspore_serving import server

for name, version in [*((name, 0) for name in {names}), ("no_method", 9), ("counts", 9)]:
    try:
        server.start_servables(server.ServableStartConfig(".", name, 0, version_number=version))
    except RuntimeError as error:
        print(f"refused: {{name}}: {{error}}", flush=True)
print("done", flush=True)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """All servables, in a directory whose path is short enough for sockets."""
    with tempfile.TemporaryDirectory(dir="/tmp") as path:
        for name, (config, model, _) in SERVABLES.items():
            (Path(path) / name).mkdir()
            (Path(path) / name / "servable_config.py").write_text(config)
            if model is not None:
                (Path(path) / name / "1").mkdir()
                (Path(path) / name / "1" / "m.mindir").write_text(json.dumps(model))
        yield Path(path)


def test_each_start_error_reaches_the_script_in_its_own_words(directory: Path) -> None:
    with StartScript(directory, SOURCE.format(names=list(SERVABLES))) as script:
        script.wait_for("done", deadline_s=120)
        refused = [line for line in script.lines if line.startswith("refused: ")]
    told = [(name, text.format(directory=directory)) for name, (_, _, text) in SERVABLES.items()]
    told.append(("no_method", "There is no method registered for servable"))
    no_version_9 = (
        "Start servable failed: There is no specified version directory of models, specified "
        f"version number: 9, servable directory: '{directory}', servable name: 'counts'"
    )
    told.append(("counts", no_version_9))
    assert [line.removeprefix("refused: ") for line in refused] == [
        f"{name}: Fail to start workers: {{servable name:{name}, device id:0, <{text}>}}"
        for name, text in told
    ]
