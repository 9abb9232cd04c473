"""The example `lenet`: pictures through a model of fixed batch size, in any number."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from examples.digits_dataset import load_split
from mindspore_serving.client import Client
from tests.examples.direct_run import direct_run
from tests.mindspore_process import MindSporeProcess
from tests.processes.doors import RestDoor
from tests.processes.server_process import ServerProcess

pytestmark = [pytest.mark.process, pytest.mark.mindspore]

COUNT = 40
BATCH_SIZE = 8

#: Real digits, each point four times as high and wide: uint8 [COUNT, 32, 32].
PICTURES = np.kron(load_split()[1].images[:COUNT] * 15.9, np.ones((1, 4, 4))).astype(np.uint8)
POINTS = (PICTURES / np.float32(255)).astype(np.float32)[:, np.newaxis]


def png(picture: Any) -> bytes:
    """A grey PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def scores(exporter: MindSporeProcess, example_servables: Path) -> Any:
    """Probabilities [COUNT, 10] by a direct run, whole batches of it."""
    model = example_servables / "lenet" / "1" / "lenet.mindir"
    batches = POINTS.reshape(-1, BATCH_SIZE, 1, 32, 32)
    direct = np.concatenate(exporter.run(direct_run, model, list(batches)))
    assert len(set(direct.argmax(1))) > 1, "pictures that all are one class would prove little"
    return direct


@pytest.mark.parametrize("method", ["classify", "classify_tagged"])
@pytest.mark.parametrize("count", [1, BATCH_SIZE, BATCH_SIZE + 3, COUNT])
def test_any_number_of_pictures_is_classified_as_by_a_direct_run(
    examples_server: ServerProcess, scores: Any, method: str, count: int
) -> None:
    results = Client(examples_server.grpc_address, "lenet", method).infer(
        [{"image": png(picture)} for picture in PICTURES[:count]]
    )
    assert [int(result["label"]) for result in results] == scores[:count].argmax(1).tolist()
    np.testing.assert_allclose(
        [float(result["score"]) for result in results], scores[:count].max(1), rtol=1e-5
    )


def test_the_points_themselves_give_all_probabilities(
    examples_server: ServerProcess, scores: Any
) -> None:
    results = Client(examples_server.grpc_address, "lenet", "predict").infer(
        [{"points": points} for points in POINTS[:13]]
    )
    served = np.stack([result["scores"] for result in results])
    assert served.dtype == np.float32
    np.testing.assert_allclose(served, scores[:13], rtol=1e-5)


def test_rest_clients_send_pictures_as_base64(examples_server: ServerProcess, scores: Any) -> None:
    door = RestDoor(examples_server.rest_address, "lenet")
    images = [{"b64": base64.b64encode(png(picture)).decode()} for picture in PICTURES[:3]]
    answer = door.infer("classify", [{"image": image} for image in images])
    door.close()
    assert [one["label"] for one in answer["instances"]] == scores[:3].argmax(1).tolist()
    served = [one["score"] for one in answer["instances"]]
    np.testing.assert_allclose(served, scores[:3].max(1), rtol=1e-5)


@pytest.mark.parametrize(
    ("method", "stage"),
    [("classify", "Function 'lenet.decode_png'"), ("classify_tagged", "Preprocess")],
)
def test_an_error_names_the_function_or_the_tag_and_fails_one_picture(
    examples_server: ServerProcess, scores: Any, method: str, stage: str
) -> None:
    results = Client(examples_server.grpc_address, "lenet", method).infer(
        [{"image": png(PICTURES[0])}, {"image": b"no picture"}, {"image": png(PICTURES[2])}]
    )
    assert results[1] == {
        "error": f"Call {stage} Failed, method: '{method}', stage index(begin with 1): 1, "
        "error msg: image is not a readable PNG file: UnidentifiedImageError"
    }
    labels = [int(result["label"]) for result in (results[0], results[2])]
    assert labels == scores[[0, 2]].argmax(1).tolist()
