"""The handwritten digits of scikit-learn, split once for training and testing.

1797 pictures of 8x8 points, 0 (black) to 16 (white), as PNG files 0 to 255.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

#: Part of each digit's pictures that is kept for testing, and the seed of the choice.
TEST_PART = 0.2
SPLIT_SEED = 7

#: The value of a white point, here and in a PNG file.
WHITE = 16.0
WHITE_PNG = 255


class Pictures(NamedTuple):
    """images: float32 [n, 8, 8] from 0 to 16. labels: int32 [n] from 0 to 9."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int32]


def load_split() -> tuple[Pictures, Pictures]:
    """Pictures for training and for testing, always the same; every digit is in both."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    images, labels = digits.images.astype(np.float32), digits.target.astype(np.int32)
    random = np.random.default_rng(SPLIT_SEED)
    is_test = np.zeros(len(labels), np.bool_)
    for digit in range(10):
        places = random.permutation(np.flatnonzero(labels == digit))
        is_test[places[: round(TEST_PART * len(places))]] = True
    return Pictures(images[~is_test], labels[~is_test]), Pictures(images[is_test], labels[is_test])


def encode_png(image: npt.NDArray[np.float32]) -> bytes:
    """One picture as a PNG file in grey. image: float32 [8, 8] from 0 to 16."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.rint(image * (WHITE_PNG / WHITE)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def write_samples(directory: Path) -> None:
    """Write one test picture of each digit as `digit_<n>.png`; none was used for training."""
    _, test = load_split()
    directory.mkdir(parents=True, exist_ok=True)
    for digit in range(10):
        place = int(np.flatnonzero(test.labels == digit)[0])
        (directory / f"digit_{digit}.png").write_bytes(encode_png(test.images[place]))
