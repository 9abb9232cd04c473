"""MindSpore as a backend: devices, loading, and what a prediction promises."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol import values
from tests.mindspore_process import MindSporeProcess
from workers.backends.base import BackendError, DeviceReport
from workers.backends.mindspore_graph import PROBE_ORDER, MindSporeBackend

pytestmark = pytest.mark.mindspore

KEY = b"sixteen bytes ok"
DTYPES = sorted(values.DTYPES)


@pytest.fixture(scope="module")
def mindspore_process() -> Iterator[MindSporeProcess]:
    with MindSporeProcess() as process:
        yield process


@pytest.fixture(scope="module")
def directory(
    mindspore_process: MindSporeProcess, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("graphs")
    mindspore_process.run(export_models, directory)
    return directory


def export_models(directory: Path) -> None:
    from tests.workers import mindspore_models as models

    export, zeros, any_size = models.export, models.zeros, models.any_size
    export(models.Add(), zeros(2, 2), zeros(2, 2), path=directory / "add.mindir")
    export(models.Scale(), any_size(None, 3), path=directory / "scale.mindir")
    export(models.Nested(), zeros(2), path=directory / "nested.mindir")
    export(models.Conv(), any_size(None, 1, 8, 8), path=directory / "conv.mindir")
    two_sizes = any_size(None, None), any_size(None, None)
    export(models.MatMul(), *two_sizes, path=directory / "matmul.mindir")
    for dtype in DTYPES:
        export(models.Identity(), zeros(3, dtype=dtype), path=directory / f"{dtype}.mindir")
    for mode in ("AES-GCM", "AES-CBC"):
        path = directory / f"{mode}.mindir"
        export(models.Scale(), zeros(2), path=path, enc_key=models.KEY, enc_mode=mode)


def predict(paths: list[Path], subgraph: int, arrays: list[Any], **key: Any) -> list[Any]:
    from tests.workers.mindspore_models import load

    return list(load(*paths, **key).predict(subgraph, arrays))


# ---------------------------------------------------------------- devices


def open_device(target: str | None, device_id: int) -> DeviceReport:
    return MindSporeBackend().open_device(target, device_id)


def supported_targets() -> list[str]:
    import mindspore

    modules = {target: getattr(mindspore.device_context, target.lower()) for target in PROBE_ORDER}
    return [target for target, module in modules.items() if module.is_available()]


def open_after_the_user_opened_another() -> DeviceReport:
    import mindspore

    mindspore.set_device("CPU", 0)
    return open_device("CPU", 1)


def test_the_device_that_was_asked_for_is_reported() -> None:
    with MindSporeProcess() as fresh:
        assert fresh.run(open_device, "CPU", 3) == DeviceReport("CPU", 3)


@pytest.mark.parametrize(("preset", "effective"), [(None, "AVX2"), ("ALL", "ALL")])
def test_on_the_cpu_onednn_is_told_to_use_avx2_unless_the_user_said_otherwise(
    preset: str | None, effective: str
) -> None:
    with MindSporeProcess() as fresh:
        assert fresh.run(onednn_isa_after_open, preset) == effective


def onednn_isa_after_open(preset: str | None) -> str | None:
    os.environ.pop("ONEDNN_MAX_CPU_ISA", None)
    if preset is not None:
        os.environ["ONEDNN_MAX_CPU_ISA"] = preset
    MindSporeBackend().open_device("CPU", 0)
    return os.environ.get("ONEDNN_MAX_CPU_ISA")


def test_without_a_wish_the_first_available_target_is_taken(
    mindspore_process: MindSporeProcess,
) -> None:
    first = mindspore_process.run(supported_targets)[0]
    with MindSporeProcess() as fresh:
        assert fresh.run(open_device, None, 0) == DeviceReport(first, 0)


@pytest.mark.shows("F28")
def test_a_target_that_this_machine_lacks_is_refused(mindspore_process: MindSporeProcess) -> None:
    supported = mindspore_process.run(supported_targets)
    lacking = next(target for target in PROBE_ORDER if target not in supported)
    with MindSporeProcess() as fresh, pytest.raises(BackendError) as refused:
        fresh.run(open_device, lacking, 0)
    said = str(refused.value)
    assert said.startswith(
        f"device {lacking} 0 cannot be opened: this MindSpore supports {', '.join(supported)} "
        f"here, not {lacking}"
    )
    if lacking == "Ascend":  # the library that is missing is the cause
        assert "cannot open shared object file" in said
    assert "\n" not in said


@pytest.mark.shows("F28")
def test_a_process_that_is_bound_to_another_device_is_refused() -> None:
    with MindSporeProcess() as fresh, pytest.raises(BackendError) as refused:
        fresh.run(open_after_the_user_opened_another)
    assert str(refused.value) == (
        "device CPU 1 cannot be opened: The 'mindspore.set_device' can not be modified."
    )


# ---------------------------------------------------------------- loading


def load_as(directory: Path, *files: str, **declared: Any) -> None:
    from tests.workers.mindspore_models import backend
    from workers.servable.declarations import ModelDeclaration

    declared = {"format": "mindir", **declared}
    model = ModelDeclaration(";".join(files), files, **declared)
    backend().load(model, directory, None, "AES-GCM")


def test_every_file_is_one_subgraph(mindspore_process: MindSporeProcess, directory: Path) -> None:
    paths = [directory / "scale.mindir", directory / "add.mindir"]
    ones = np.ones((2, 2), np.float32)
    assert mindspore_process.run(predict, paths, 1, [ones, ones])[0].tolist() == [[2, 2], [2, 2]]
    three = np.full((1, 3), 3, np.float32)
    assert mindspore_process.run(predict, paths, 0, [three])[0].tolist() == [[30, 30, 30]]


def interrupt_after_a_run_on_a_thread(path: Path) -> list[int]:
    from tests.workers.mindspore_models import load

    taken: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: taken.append(number))
    ones = np.ones((2, 2), np.float32)
    graphs = load(path)  # kept: MindSpore takes the signal also when it frees a graph
    runs = threading.Thread(target=graphs.predict, args=(0, [ones, ones]))
    runs.start()
    runs.join()
    signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)
    return taken


def test_sigint_still_reaches_the_process_after_a_run(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    path = directory / "add.mindir"
    assert mindspore_process.run(interrupt_after_a_run_on_a_thread, path) == [signal.SIGINT]


@pytest.mark.parametrize("mode", ["AES-GCM", "AES-CBC"])
def test_an_encrypted_model_computes_with_its_key(
    mindspore_process: MindSporeProcess, directory: Path, mode: str
) -> None:
    path, arrays = directory / f"{mode}.mindir", [np.array([1, 2], np.float32)]

    def compute(key: bytes | None) -> list[Any]:
        return mindspore_process.run(_predict_encrypted, path, arrays, key, mode)

    assert compute(KEY)[0].tolist() == [10, 20]
    for key in (None, b"x" * 16):
        with pytest.raises(BackendError, match=f"{mode}.mindir"):
            compute(key)


def _predict_encrypted(path: Path, arrays: list[Any], key: bytes | None, mode: str) -> list[Any]:
    return predict([path], 0, arrays, dec_key=key, dec_mode=mode)


def test_a_missing_file_is_named(mindspore_process: MindSporeProcess, directory: Path) -> None:
    with pytest.raises(BackendError) as refused:
        mindspore_process.run(load_as, directory, "none.mindir")
    path = directory / "none.mindir"
    assert str(refused.value) == f"model file '{path}' cannot be read: No such file or directory"


def test_a_directory_with_blanks_and_umlauts_is_no_obstacle(
    mindspore_process: MindSporeProcess, directory: Path, tmp_path: Path
) -> None:
    path = tmp_path / "meine müdelle 1" / "add.mindir"
    path.parent.mkdir()
    shutil.copyfile(directory / "add.mindir", path)
    ones = np.ones((2, 2), np.float32)
    assert mindspore_process.run(predict, [path], 0, [ones, ones])[0].tolist() == [[2, 2], [2, 2]]


def load_with_fp16(directory: Path) -> str:
    from workers.servable.model_context import Context, CPUDeviceInfo

    context = Context()
    context.append_device_info(CPUDeviceInfo(precision_mode="fp16"))
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        load_as(directory, "add.mindir", context=context)
    return said.getvalue()


def test_device_options_without_effect_are_warned_of(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    said = mindspore_process.run(load_with_fp16, directory)
    assert "device options have no effect on MindIR graphs model=add.mindir device=CPU" in said
    assert "fp16" in said


def load_as_format(directory: Path, model_format: str) -> None:
    load_as(directory, "add.mindir", format=model_format)


@pytest.mark.parametrize(
    ("model_format", "model_type", "needed"),
    [
        ("om", "OM", "the offline model runtime of CANN"),
        ("mindir_lite", "MindIR_Lite", "MindSpore Lite"),
    ],
)
def test_a_format_that_mindspore_cannot_run_is_refused(
    mindspore_process: MindSporeProcess,
    directory: Path,
    model_format: str,
    model_type: str,
    needed: str,
) -> None:
    with pytest.raises(BackendError) as refused:
        mindspore_process.run(load_as_format, directory, model_format)
    assert str(refused.value) == (
        f"Not support device type CPU and model type {model_type}. Current inference backend: "
        f"MindSpore. It needs {needed}, for which there is no backend: export the model as MindIR."
    )


# ---------------------------------------------------------------- predictions


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_comes_back_as_it_went(
    mindspore_process: MindSporeProcess, directory: Path, dtype: str
) -> None:
    array = np.array([0, 1, 1], dtype)
    (output,) = mindspore_process.run(predict, [directory / f"{dtype}.mindir"], 0, [array])
    assert output.dtype == array.dtype
    assert output.tolist() == array.tolist()


def test_nested_outputs_come_back_leaf_by_leaf(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    arrays = [np.array([1, 2], np.float32)]
    outputs = mindspore_process.run(predict, [directory / "nested.mindir"], 0, arrays)
    assert [output.tolist() for output in outputs] == [[1, 2], [2, 4], [2, 4], [1, 1], 3]


def write_to_every_output(directory: Path) -> list[Any]:
    from tests.workers.mindspore_models import load

    model, array = load(directory / "nested.mindir"), np.array([1, 2], np.float32)
    outputs = model.predict(0, [array])
    for number, output in enumerate(outputs[:4]):
        output[:] = 100 + number
    written = [output.tolist() for output in outputs[:4]]
    again = [output.tolist() for output in model.predict(0, [array])]
    return [written, array.tolist(), again]


def test_writing_to_an_output_changes_nothing_else(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    written, array, again = mindspore_process.run(write_to_every_output, directory)
    assert written == [[100, 100], [101, 101], [102, 102], [103, 103]]
    assert array == [1, 2]
    assert again == [[1, 2], [2, 4], [2, 4], [1, 1], 3]


def keep_outputs_of_many_batches(directory: Path) -> bool:
    from tests.workers.mindspore_models import load

    model = load(directory / "scale.mindir")
    batches = [np.full((1 + number % 4, 3), number, np.float32) for number in range(200)]
    kept = [model.predict(0, [batch])[0] for batch in batches]
    return all(np.array_equal(out, batch * 10) for out, batch in zip(kept, batches, strict=True))


def test_outputs_stay_valid_after_later_predictions(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    assert mindspore_process.run(keep_outputs_of_many_batches, directory)


def reuse_one_input(directory: Path) -> list[Any]:
    from tests.workers.mindspore_models import load

    model, array = load(directory / "scale.mindir"), np.ones((1, 3), np.float32)
    first = model.predict(0, [array])[0]
    array[:] = 7
    return [first.tolist(), model.predict(0, [array])[0].tolist()]


def test_the_caller_may_fill_an_input_again_after_a_prediction(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    assert mindspore_process.run(reuse_one_input, directory) == [[[10, 10, 10]], [[70, 70, 70]]]


def predict_from_message(directory: Path, offset: int) -> list[Any]:
    """Predict on an array that begins `offset` bytes into read-only bytes."""
    from tests.workers.mindspore_models import load

    model = load(directory / "conv.mindir")
    images = np.arange(3 * 64, dtype=np.float32).reshape(3, 1, 8, 8)
    message = bytes(offset) + images.tobytes()
    array = np.frombuffer(message, np.float32, offset=offset).reshape(images.shape)
    outputs = model.predict(0, [array])[0], model.predict(0, [images])[0]
    return [np.array_equal(*outputs), message == bytes(offset) + images.tobytes()]


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4, 20])
def test_an_array_cut_out_of_a_message_is_read_at_any_byte_and_not_written(
    mindspore_process: MindSporeProcess, directory: Path, offset: int
) -> None:
    assert mindspore_process.run(predict_from_message, directory, offset) == [True, True]


def test_what_the_model_cannot_compute_is_a_backend_error_without_frames(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    arrays = [np.ones((2, 3), np.float32), np.ones((2, 3), np.float32)]
    with pytest.raises(BackendError) as failed:
        mindspore_process.run(predict, [directory / "matmul.mindir"], 0, arrays)
    assert "MatMul" in str(failed.value)
    assert "C++ Call Stack" not in str(failed.value)


def fail_then_compute(directory: Path) -> list[Any]:
    from tests.workers.mindspore_models import load

    model, array = load(directory / "matmul.mindir"), np.ones((2, 3), np.float32)
    with pytest.raises(BackendError):
        model.predict(0, [array, array])
    return [output.tolist() for output in model.predict(0, [array, array.T.copy()])]


def test_a_failed_prediction_leaves_the_model_usable(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    assert mindspore_process.run(fail_then_compute, directory) == [[[3, 3], [3, 3]]]


# ---------------------------------------------------------------- threads


def predict_on_two_threads(path: Path, runs_count: int) -> list[float]:
    """Load and warm on one thread, then run in turn on it and on another: the odd differences."""
    from concurrent.futures import ThreadPoolExecutor

    from tests.workers.mindspore_models import load

    model = load(path)
    images = np.random.default_rng(1).random((8, 4, 1, 8, 8), np.float32)
    expected = [model.predict(0, [image])[0] for image in images]
    differences = []
    with ThreadPoolExecutor(1) as other:
        for number in range(runs_count):
            arrays = [images[number % 8]]
            if number % 2:
                (output,) = other.submit(model.predict, 0, arrays).result()
            else:
                (output,) = model.predict(0, arrays)
            differences.append(float(np.abs(output - expected[number % 8]).max()))
    return [difference for difference in differences if difference > 1e-5]


def test_a_graph_may_be_run_by_two_threads_in_turn(
    mindspore_process: MindSporeProcess, directory: Path
) -> None:
    assert mindspore_process.run(predict_on_two_threads, directory / "conv.mindir", 1000) == []
