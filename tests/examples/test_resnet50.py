"""The example `resnet50`: photographs get the five classes that a direct run gives them."""

from __future__ import annotations

import base64
import importlib.resources
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from mindspore_serving.client import Client
from tests.examples.direct_run import direct_run
from tests.mindspore_process import MindSporeProcess
from tests.processes.doors import RestDoor
from tests.processes.server_process import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)

BEST = 5

#: Two different kernels of one sum may differ in its last digits.
TOLERANCE = 1e-4


class Photo(NamedTuple):
    """A picture file, and what the model should see of it: uint8 [224, 224, 3]."""

    file: bytes
    points: Any


def photos() -> list[Photo]:
    """Two photographs as JPEG files, and pieces of them of 256 x 256 points as PNG files."""
    found = []
    for name in ("china.jpg", "flower.jpg"):
        file = (importlib.resources.files("sklearn.datasets.images") / name).read_bytes()
        with Image.open(io.BytesIO(file)) as picture:
            picture.load()
        found.append(Photo(file, _middle(picture)))
        for left, top in ((0, 0), (384, 171), (190, 80)):
            piece = picture.crop((left, top, left + 256, top + 256))
            png = io.BytesIO()
            piece.save(png, "PNG")
            found.append(Photo(png.getvalue(), np.asarray(piece)[16:240, 16:240]))
    return found


def _middle(picture: Image.Image) -> Any:
    # The shorter side, 427 points, is to be 256: 373.625 of them are the middle 224.
    assert picture.size == (640, 427)
    left, top, side = 133.1875, 26.6875, 373.625
    box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((224, 224), Image.Resampling.BILINEAR, box))


PHOTOS = photos()


@pytest.fixture(scope="module")
def scores(exporter: MindSporeProcess, example_servables: Path) -> Any:
    """Probabilities [photo, 1000] by a direct run."""
    model = example_servables / "resnet50" / "1" / "resnet50.mindir"
    batches = [
        ((photo.points.transpose(2, 0, 1) / np.float32(255) - MEAN) / DEVIATION)[np.newaxis]
        for photo in PHOTOS
    ]
    direct = np.concatenate(exporter.run(direct_run, model, batches))
    ranked = np.sort(direct, axis=1)[:, ::-1][:, : BEST + 1]
    assert (ranked[:, :-1] - ranked[:, 1:] > TOLERANCE * ranked[:, :-1]).all(), "no clear order"
    return direct


def best(scores: Any) -> Any:
    """Numbers of the five best classes of each row, the best first."""
    return np.argsort(-scores, axis=1)[:, :BEST]


def test_the_top_5_of_every_photo_equal_a_direct_run(
    examples_server: ServerProcess, scores: Any
) -> None:
    results = Client(examples_server.grpc_address, "resnet50", "classify").infer(
        [{"image": photo.file} for photo in PHOTOS]
    )
    classes = np.stack([result["classes"] for result in results])
    assert (classes.dtype, classes.tolist()) == (np.int64, best(scores).tolist())
    assert len({tuple(row) for row in classes.tolist()}) > 1, "photos differ in their classes"
    served = np.stack([result["scores"] for result in results])
    assert served.dtype == np.float32
    np.testing.assert_allclose(
        served, np.take_along_axis(scores, best(scores), axis=1), rtol=TOLERANCE
    )


def test_names_are_those_of_the_label_file(
    examples_server: ServerProcess, example_servables: Path
) -> None:
    labels = (example_servables / "resnet50" / "labels.txt").read_text().splitlines()
    assert len(labels) == 1000
    (result,) = Client(examples_server.grpc_address, "resnet50", "classify").infer(
        [{"image": PHOTOS[0].file}]
    )
    assert result["names"].split("; ") == [labels[number] for number in result["classes"]]


def test_all_probabilities_equal_a_direct_run(examples_server: ServerProcess, scores: Any) -> None:
    results = Client(examples_server.grpc_address, "resnet50", "predict").infer(
        [{"image": photo.file} for photo in PHOTOS]
    )
    served = np.stack([result["scores"] for result in results])
    np.testing.assert_allclose(served, scores, rtol=TOLERANCE, atol=1e-7)


def test_rest_clients_get_the_same_top_5(examples_server: ServerProcess, scores: Any) -> None:
    door = RestDoor(examples_server.rest_address, "resnet50")
    images = [{"b64": base64.b64encode(photo.file).decode()} for photo in PHOTOS[:2]]
    answer = door.infer("classify", [{"image": image} for image in images])["instances"]
    door.close()
    assert [one["classes"] for one in answer] == best(scores[:2]).tolist()
    wanted = np.take_along_axis(scores[:2], best(scores[:2]), axis=1)
    np.testing.assert_allclose([one["scores"] for one in answer], wanted, rtol=TOLERANCE)
    assert answer[0]["names"].split("; ")[0] == f"class {scores[0].argmax()}"


def test_a_damaged_photo_fails_alone(examples_server: ServerProcess, scores: Any) -> None:
    files = [PHOTOS[0].file, PHOTOS[0].file[:1000], PHOTOS[4].file]
    results = Client(examples_server.grpc_address, "resnet50", "classify").infer(
        [{"image": file} for file in files]
    )
    assert results[1]["error"].startswith(
        "Call Function 'resnet50.decode_photo' Failed, method: 'classify', stage index(begin with "
        "1): 1, error msg: image is not a readable JPEG or PNG file: "
    )
    classes = [results[number]["classes"].tolist() for number in (0, 2)]
    assert classes == best(scores[[0, 4]]).tolist()
