"""The scripted backend: what it computes, how long it says it takes, and how it fails."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.workers.models import floats
from workers.backends.base import BackendError, DeviceReport, TensorSpec
from workers.backends.numpy_scripted import FAULT_EXIT_CODE, NumpyBackend, NumpyModel
from workers.servable.declarations import ModelDeclaration


def spec(*shape: int, dtype: str = "float32") -> dict[str, Any]:
    return {"name": "t", "dtype": dtype, "shape": list(shape)}


def script(**fields: Any) -> dict[str, Any]:
    return {"inputs": [spec(2, 2)], "outputs": [spec(2, 2)], "op": "identity", **fields}


def load(
    tmp_path: Path,
    *scripts: dict[str, Any],
    dec_key: bytes | None = None,
    slept: list[float] | None = None,
    **declared: Any,
) -> NumpyModel:
    files = tuple(f"m{number}.json" for number in range(len(scripts)))
    for file, content in zip(files, scripts, strict=True):
        (tmp_path / file).write_text(json.dumps(content))
    backend = NumpyBackend(sleep=(slept if slept is not None else []).append)
    declaration = ModelDeclaration(";".join(files), files, "mindir", **declared)
    return backend.load(declaration, tmp_path, dec_key, "AES-GCM")


def test_the_device_is_the_one_asked_for_or_cpu() -> None:
    assert NumpyBackend().open_device("Ascend", 3) == DeviceReport("Ascend", 3)
    assert NumpyBackend().open_device(None, 0) == DeviceReport("CPU", 0)


def test_each_file_is_a_subgraph_with_its_specs(tmp_path: Path) -> None:
    model = load(tmp_path, script(), script(inputs=[spec(-1, 3, dtype="int8")]))
    assert model.inputs == (
        (TensorSpec("t", np.dtype("float32"), (2, 2)),),
        (TensorSpec("t", np.dtype("int8"), (-1, 3)),),
    )
    assert model.outputs[1] == (TensorSpec("t", np.dtype("float32"), (2, 2)),)


@pytest.mark.parametrize(
    ("fields", "arrays", "expected"),
    [
        ({"op": "add"}, [floats([1, 2], [3, 4]), floats(10, 20)], [[11, 22], [13, 24]]),
        ({"op": "multiply"}, [floats([1, 2], [3, 4]), floats(2, 3)], [[2, 6], [6, 12]]),
        ({"op": "identity"}, [floats([1, 2], [3, 4])], [[1, 2], [3, 4]]),
        ({"op": "scale", "factor": 0.5}, [floats([1, 2], [3, 4])], [[0.5, 1], [1.5, 2]]),
        ({"op": "matmul"}, [floats([1, 2], [3, 4]), floats([1, 0], [1, 1])], [[3, 2], [7, 4]]),
    ],
)
def test_ops_compute_with_numpy_in_the_dtype_of_the_output(
    tmp_path: Path, fields: dict[str, Any], arrays: list[Any], expected: list[Any]
) -> None:
    model = load(tmp_path, script(outputs=[spec(2, 2, dtype="float64")], **fields))
    (output,) = model.predict(0, arrays)
    assert (output.dtype.name, output.tolist()) == ("float64", expected)


def test_an_output_shares_no_memory_with_an_input(tmp_path: Path) -> None:
    array = floats([1, 2], [3, 4])
    (output,) = load(tmp_path, script()).predict(0, [array])
    assert not np.shares_memory(output, array)


def test_delays_are_per_run_and_per_instance(tmp_path: Path) -> None:
    slept: list[float] = []
    scripted = script(delay_ms=5, delay_per_item_ms=2)
    load(tmp_path, scripted, slept=slept).predict(0, [np.zeros((4, 2), np.float32)])
    load(tmp_path, scripted, slept=slept, with_batch_dim=False).predict(
        0, [np.zeros((4, 2), np.float32)]
    )
    assert slept == [0.013, 0.007]


def test_a_fault_strikes_at_the_first_value_of_any_instance(tmp_path: Path) -> None:
    faults = [{"when_first_value": 13, "do": "raise"}]
    model = load(tmp_path, script(faults=faults))
    assert len(model.predict(0, [floats([1, 13], [2, 13])])) == 1
    with pytest.raises(BackendError, match="scripted fault"):
        model.predict(0, [floats([1, 1], [13, 1])])
    alone = load(tmp_path, script(faults=faults), with_batch_dim=False)
    assert len(alone.predict(0, [floats([1, 1], [13, 1])])) == 1
    with pytest.raises(BackendError, match="scripted fault"):
        alone.predict(0, [floats([13, 1], [1, 1])])


def test_instances_are_counted_by_the_first_input_with_a_batch_dimension(tmp_path: Path) -> None:
    faults = [{"when_first_value": 13, "do": "raise"}]
    model = load(tmp_path, script(op="add", faults=faults), without_batch_dim_inputs=(0,))
    assert len(model.predict(0, [floats(13, 13), floats([1, 1], [2, 2])])) == 1
    with pytest.raises(BackendError, match="scripted fault"):
        model.predict(0, [floats(1, 1), floats([1, 1], [13, 2])])


def test_arrays_that_do_not_go_together_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="scripted model cannot compute"):
        load(tmp_path, script(op="add")).predict(0, [floats([1, 2]), floats([1, 2, 3])])


def test_an_op_that_gives_another_number_of_outputs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="op gives 2 outputs, not 1"):
        load(tmp_path, script()).predict(0, [floats([1, 2]), floats([1, 2])])


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[]",
        b"{}",
        json.dumps(script(op="softmax")).encode(),
        json.dumps(script(faults=[{"when_first_value": 1, "do": "explode"}])).encode(),
        json.dumps(script(inputs=[spec(2, dtype="float31")])).encode(),
    ],
)
def test_a_file_that_is_no_script_is_an_error_with_its_path(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(content)
    model = ModelDeclaration("m.json", ("m.json",), "mindir")
    with pytest.raises(BackendError, match=f"model file '{path}' is not a scripted model"):
        NumpyBackend().load(model, tmp_path, None, "AES-GCM")


def test_a_missing_file_is_an_error_with_its_path(tmp_path: Path) -> None:
    model = ModelDeclaration("m.json", ("m.json",), "mindir")
    text = f"model file '{tmp_path}/m.json' cannot be read: No such file or directory"
    with pytest.raises(BackendError, match=text):
        NumpyBackend().load(model, tmp_path, None, "AES-GCM")


def test_a_script_with_a_key_loads_with_that_key_only(tmp_path: Path) -> None:
    scripted = script(dec_key=base64.b64encode(b"secret").decode())
    assert len(load(tmp_path, scripted, dec_key=b"secret").inputs) == 1
    for key in (None, b"other"):
        with pytest.raises(BackendError, match="cannot be decrypted with this dec_key"):
            load(tmp_path, scripted, dec_key=key)


CRASH = """
import sys
from pathlib import Path
import numpy as np
from workers.backends.numpy_scripted import NumpyBackend
from workers.servable.declarations import ModelDeclaration

model = NumpyBackend().load(
    ModelDeclaration("m0.json", ("m0.json",), "mindir"), Path(sys.argv[1]), None, "AES-GCM"
)
print("loaded", flush=True)
model.predict(0, [np.full((2, 2), 13, np.float32)])
print("survived", flush=True)
"""


def start_crash(tmp_path: Path, fault: str) -> subprocess.Popen[str]:
    """A process that runs into `fault`; it says `loaded` just before."""
    faults = [{"when_first_value": 13, "do": fault}]
    (tmp_path / "m0.json").write_text(json.dumps(script(faults=faults)))
    return subprocess.Popen(
        [sys.executable, "-c", CRASH, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


@pytest.mark.process
@pytest.mark.parametrize(
    ("fault", "returncode"), [("exit", FAULT_EXIT_CODE), ("segfault", -signal.SIGSEGV)]
)
def test_a_fatal_fault_ends_the_process(tmp_path: Path, fault: str, returncode: int) -> None:
    process = start_crash(tmp_path, fault)
    output, _ = process.communicate(timeout=30)
    assert (output, process.returncode) == ("loaded\n", returncode)


@pytest.mark.process
def test_a_hanging_fault_keeps_the_process_alive_and_silent(tmp_path: Path) -> None:
    process = start_crash(tmp_path, "hang")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "loaded\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.communicate(timeout=0.3)
    finally:
        process.kill()
        output, _ = process.communicate(timeout=30)
    assert "survived" not in output
