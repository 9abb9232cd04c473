"""How the demo's servables come into being: whole, once, and kept."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.digits_dataset import encode_png, load_split
from examples.prepare_demo import prepare_demo, prepare_samples
from examples.servable_files import CONFIGS


def model(content: bytes) -> object:
    """A maker that writes `content` as the model file."""
    return lambda path: path.write_bytes(content)


def files(directory: Path) -> Iterator[str]:
    """Every file below `directory`, by its path in it."""
    return (str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_servable_has_its_config_and_its_model_in_version_1(tmp_path: Path) -> None:
    made = prepare_demo(tmp_path, {"add": ("tensor_add.mindir", model(b"model"))})
    assert made == ["add"]
    assert sorted(files(tmp_path)) == [
        "servables/add/1/tensor_add.mindir",
        "servables/add/servable_config.py",
    ]
    config = tmp_path / "servables" / "add" / "servable_config.py"
    assert config.read_bytes() == (CONFIGS / "add" / "servable_config.py").read_bytes()


def test_a_model_that_is_there_is_kept(tmp_path: Path) -> None:
    prepare_demo(tmp_path, {"add": ("tensor_add.mindir", model(b"first"))})
    made = prepare_demo(tmp_path, {"add": ("tensor_add.mindir", model(b"second"))})
    assert made == []
    assert (tmp_path / "servables/add/1/tensor_add.mindir").read_bytes() == b"first"


def test_a_config_is_renewed_when_ours_is_newer(tmp_path: Path) -> None:
    makers = {"add": ("tensor_add.mindir", model(b"model"))}
    prepare_demo(tmp_path, makers)
    config = tmp_path / "servables" / "add" / "servable_config.py"
    config.write_text("old")
    prepare_demo(tmp_path, makers)
    assert config.read_bytes() == (CONFIGS / "add" / "servable_config.py").read_bytes()


def test_a_failing_maker_leaves_no_servable_behind(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_bytes(b"half a model")
        raise RuntimeError("no device")

    with pytest.raises(RuntimeError, match="no device"):
        prepare_demo(tmp_path, {"add": ("tensor_add.mindir", fail)})
    assert list(files(tmp_path)) == []


def test_a_second_run_that_finishes_first_wins_and_both_succeed(tmp_path: Path) -> None:
    def while_another_run_finishes(path: Path) -> None:
        prepare_demo(tmp_path, {"add": ("tensor_add.mindir", model(b"other run"))})
        path.write_bytes(b"this run")

    prepare_demo(tmp_path, {"add": ("tensor_add.mindir", while_another_run_finishes)})
    assert sorted(files(tmp_path)) == [
        "servables/add/1/tensor_add.mindir",
        "servables/add/servable_config.py",
    ]


def test_a_version_directory_without_the_model_gets_it(tmp_path: Path) -> None:
    notes = tmp_path / "servables" / "add" / "1" / "notes.txt"
    notes.parent.mkdir(parents=True)
    notes.write_text("mine")
    prepare_demo(tmp_path, {"add": ("tensor_add.mindir", model(b"model"))})
    assert (notes.parent / "tensor_add.mindir").read_bytes() == b"model"
    assert notes.read_text() == "mine"


def test_samples_are_one_test_picture_of_each_digit(tmp_path: Path) -> None:
    samples = prepare_samples(tmp_path)
    assert sorted(files(samples)) == [f"digit_{digit}.png" for digit in range(10)]
    _, test = load_split()
    for digit in range(10):
        points = np.asarray(Image.open(samples / f"digit_{digit}.png"), np.float32) * (16 / 255)
        distances = np.abs(test.images[test.labels == digit] - points).max((1, 2))
        assert distances.min() < 0.05


def test_the_split_is_the_same_each_time_and_no_picture_is_on_both_sides() -> None:
    train, test = load_split()
    again, _ = load_split()
    assert np.array_equal(train.images, again.images)
    assert len(train.labels) + len(test.labels) == 1797
    assert len(test.labels) == pytest.approx(1797 * 0.2, abs=10)
    assert set(test.labels) == set(train.labels) == set(range(10))


def test_a_picture_as_png_is_grey_and_white_where_the_ink_is() -> None:
    image = np.zeros((8, 8), np.float32)
    image[2, 3], image[5, 6] = 16, 8
    with Image.open(io.BytesIO(encode_png(image))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "L", (8, 8))
        assert [picture.getpixel(at) for at in ((3, 2), (6, 5), (0, 0))] == [255, 128, 0]
