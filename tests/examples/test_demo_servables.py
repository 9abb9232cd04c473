"""The demo servables compute what they promise, through backend, runner and stages."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.digits_dataset import encode_png, load_split
from protocol.status import MS_INVALID_INPUTS, MS_SYSTEM_ERROR
from protocol.values import BytesValue, Failure, Instance, Result
from tests.mindspore_process import MindSporeProcess
from tests.workers.models import run_method

pytestmark = pytest.mark.mindspore

ACCURACY_MIN = 0.97


@pytest.fixture(scope="module")
def mindspore_process() -> Iterator[MindSporeProcess]:
    with MindSporeProcess() as process:
        yield process


@pytest.fixture(scope="module")
def servables(demo_servables: Path) -> Path:
    return demo_servables


@cache
def booted(servables: Path, name: str) -> Any:
    """A servable as a worker boots it: device, import, load, warm-up."""
    from workers.device_worker import boot
    from workers.launch import read_launch

    document = {
        "servable_directory": str(servables),
        "servable_name": name,
        "version": 1,
        "version_asked": 0,
        "device_target": "CPU",
        "device_id": 0,
        "backend": "mindspore",
        "workers_address": "ipc:///nowhere",
        "worker_id": f"{name}/1/device0",
        "generation": 1,
        "dec_mode": "AES-GCM",
        "parent_pid": 1,
    }
    return boot(read_launch(document))


def infer(servables: Path, name: str, method: str, instances: list[Instance]) -> list[Result]:
    return run_method(booted(servables, name).executor, method, instances)


def device(servables: Path, name: str) -> tuple[str, int]:
    opened: tuple[str, int] = tuple(booted(servables, name).device)
    return opened


def batch_shape(servables: Path) -> list[tuple[int, ...]]:
    from workers.backends.mindir import read_signature

    signature = read_signature(servables / "digits" / "1" / "digits.mindir")
    return [spec.shape for specs in signature for spec in specs]


# ---------------------------------------------------------------- add


def test_the_demo_runs_on_the_device_that_was_asked_for(
    mindspore_process: MindSporeProcess, servables: Path
) -> None:
    assert mindspore_process.run(device, servables, "add") == ("CPU", 0)


def test_add_common_equals_numpy(mindspore_process: MindSporeProcess, servables: Path) -> None:
    random = np.random.default_rng(1)
    instances = [tuple(random.normal(size=(2, 2, 2)).astype(np.float32)) for _ in range(5)]
    results = mindspore_process.run(infer, servables, "add", "add_common", instances)
    for (x1, x2), (y,) in zip(instances, results, strict=True):
        assert y.dtype == np.float32
        assert np.array_equal(y, x1 + x2)


@pytest.mark.parametrize("dtypes", [("int32", "float64"), ("bool", "uint8"), ("float16",) * 2])
def test_add_cast_takes_any_numbers(
    mindspore_process: MindSporeProcess, servables: Path, dtypes: tuple[str, str]
) -> None:
    x1, x2 = (np.array([[1, 0], [1, 1]], dtype) for dtype in dtypes)
    ((y,),) = mindspore_process.run(infer, servables, "add", "add_cast", [(x1, x2)])
    assert (y.dtype, y.tolist()) == (np.float32, [[2, 0], [2, 2]])


def test_add_common_refuses_other_dtypes_and_keeps_the_good_instance(
    mindspore_process: MindSporeProcess, servables: Path
) -> None:
    good, bad = np.ones((2, 2), np.float32), np.ones((2, 2), np.int32)
    results = mindspore_process.run(
        infer, servables, "add", "add_common", [(bad, good), (good, good)]
    )
    assert results[0] == Failure(
        MS_INVALID_INPUTS,
        "Given model input 0 data type kMSI_Int32 not match the data type kMSI_Float32 defined "
        "in model",
    )
    assert results[1][0].tolist() == [[2, 2], [2, 2]]


# ---------------------------------------------------------------- digits


def test_the_batch_dimension_of_the_digits_is_dynamic(
    mindspore_process: MindSporeProcess, servables: Path
) -> None:
    assert mindspore_process.run(batch_shape, servables) == [(-1, 1, 8, 8), (-1, 10)]


@pytest.mark.parametrize("count", [1, 3, 32, 357])
def test_digits_are_read_with_any_number_of_instances(
    mindspore_process: MindSporeProcess, servables: Path, count: int
) -> None:
    _, test = load_split()
    right = 0
    for start in range(0, len(test.labels), count):
        instances = [(image,) for image in test.images[start : start + count]]
        results = mindspore_process.run(infer, servables, "digits", "predict", instances)
        scores = np.stack([result[0] for result in results])
        assert scores.dtype == np.float32
        assert np.allclose(scores.sum(-1), 1, atol=1e-5)
        right += int((scores.argmax(-1) == test.labels[start : start + count]).sum())
    assert right / len(test.labels) >= ACCURACY_MIN


def test_the_score_of_a_picture_does_not_depend_on_its_batch(
    mindspore_process: MindSporeProcess, servables: Path
) -> None:
    _, test = load_split()
    instances = [(image,) for image in test.images[:20]]
    together = mindspore_process.run(infer, servables, "digits", "predict", instances)
    for instance, (scores,) in zip(instances, together, strict=True):
        ((alone,),) = mindspore_process.run(infer, servables, "digits", "predict", [instance])
        assert np.allclose(alone, scores, atol=1e-5)


def test_classify_reads_png_files(mindspore_process: MindSporeProcess, servables: Path) -> None:
    _, test = load_split()
    instances = [(BytesValue(encode_png(image)),) for image in test.images]
    results = mindspore_process.run(infer, servables, "digits", "classify", instances)
    labels = np.array([int(label) for label, _ in results])
    scores = np.array([float(score) for _, score in results])
    assert (labels == test.labels).mean() >= ACCURACY_MIN
    assert scores.min() > 0.1
    assert scores.max() <= 1
    assert results[0][0].dtype == np.int64
    assert results[0][1].dtype == np.float64


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "1", "P"])
def test_classify_resizes_and_greys_a_picture(
    mindspore_process: MindSporeProcess, servables: Path, mode: str
) -> None:
    _, test = load_split()
    file = io.BytesIO()
    with Image.open(io.BytesIO(encode_png(test.images[0]))) as small:
        small.resize((64, 64), Image.Resampling.NEAREST).convert(mode).save(file, "PNG")
    instances = [(BytesValue(file.getvalue()),)]
    ((label, _),) = mindspore_process.run(infer, servables, "digits", "classify", instances)
    assert int(label) == test.labels[0]


def test_one_bad_picture_fails_alone_with_a_clear_text(
    mindspore_process: MindSporeProcess, servables: Path
) -> None:
    _, test = load_split()
    good = encode_png(test.images[0])
    bad = [b"", b"not a picture", good[:60], b"\xff\xd8\xff\xe0 a JPEG", huge_png()]
    instances = [(BytesValue(content),) for content in [good, *bad, good]]
    results = mindspore_process.run(infer, servables, "digits", "classify", instances)
    assert [int(result[0]) for result in (results[0], results[-1])] == [test.labels[0]] * 2
    for failure in results[1:-2]:
        assert failure.code == MS_SYSTEM_ERROR
        assert failure.message.startswith(
            "Call Function 'digits.decode_png' Failed, method: 'classify', "
            "stage index(begin with 1): 1, error msg: image is not a readable PNG file: "
        )
    assert results[-2].message.endswith(
        "error msg: image has 5000x5000 pixels, more than pixels_max 16777216"
    )


def huge_png() -> bytes:
    """A small file that would unpack to 25 million pixels."""
    file = io.BytesIO()
    Image.new("1", (5000, 5000)).save(file, "PNG")
    return file.getvalue()
