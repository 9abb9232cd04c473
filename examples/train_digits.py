"""Trains the model of the servable `digits` and exports it, in some seconds on two cores.

    python -m examples.train_digits digits.mindir

The exported graph takes the points as the data set has them, 0 to 16, and gives probabilities: a
client needs to know neither the scale nor the softmax. Its batch dimension is dynamic.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore
import numpy as np
import numpy.typing as npt
from mindspore import nn, ops

from examples.digits_dataset import WHITE, Pictures, load_split
from examples.mindir_export import export_mindir

SEED = 7
EPOCHS = 20
BATCH_SIZE = 32
LEARNING_RATE = 4e-3
WEIGHT_DECAY = 1e-4

#: The part of the test pictures that must be read correctly.
ACCURACY_MIN = 0.97


class DigitsNet(nn.Cell):
    """Two convolutions and two dense layers, 38 282 parameters; gives logits."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, pad_mode="same", has_bias=True)
        self.conv2 = nn.Conv2d(16, 32, 3, pad_mode="same", has_bias=True)
        self.pool = nn.MaxPool2d(2, 2)
        self.flatten = nn.Flatten()
        self.dense1 = nn.Dense(32 * 4 * 4, 64)
        self.dense2 = nn.Dense(64, 10)

    def construct(self, image: mindspore.Tensor) -> mindspore.Tensor:
        """Logits [n, 10] of images [n, 1, 8, 8] from 0 to 16."""
        x = self.pool(ops.relu(self.conv1(image * (1.0 / WHITE))))
        x = ops.relu(self.conv2(x))
        return self.dense2(ops.relu(self.dense1(self.flatten(x))))


class DigitsScores(nn.Cell):
    """What is served: probabilities [n, 10] of images [n, 1, 8, 8]."""

    def __init__(self, net: DigitsNet) -> None:
        super().__init__()
        self.net = net
        self.softmax = nn.Softmax(-1)

    def construct(self, image: mindspore.Tensor) -> mindspore.Tensor:
        """The softmax of the net's logits."""
        return self.softmax(self.net(image))


def train_digits(path: Path) -> float:
    """Train, check, and write the MindIR file `path`; its directory must exist.

    Returns: accuracy on the test pictures.
    Raises: RuntimeError if it is below ACCURACY_MIN; nothing is written then.
    """
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.set_device("CPU")
    mindspore.set_seed(SEED)
    train, test = load_split()
    net = DigitsNet()
    _fit(net, train)
    scores = DigitsScores(net).set_train(False)
    accuracy = _accuracy(scores, test)
    if accuracy < ACCURACY_MIN:
        raise RuntimeError(f"accuracy {accuracy:.4f} is below accuracy_min {ACCURACY_MIN}")
    any_images = mindspore.Tensor(shape=[None, 1, 8, 8], dtype=mindspore.float32)
    export_mindir(scores, (any_images,), path)
    return accuracy


def _fit(net: DigitsNet, pictures: Pictures) -> None:
    # Whole batches only: every other size would be compiled anew.
    steps = len(pictures.labels) // BATCH_SIZE
    rates = nn.cosine_decay_lr(0.0, LEARNING_RATE, EPOCHS * steps, steps, EPOCHS)
    loss = nn.WithLossCell(net, nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean"))
    optimizer = nn.Adam(net.trainable_params(), rates, weight_decay=WEIGHT_DECAY)
    step = nn.TrainOneStepCell(loss, optimizer).set_train(True)
    random = np.random.default_rng(SEED)
    for _ in range(EPOCHS):
        order = random.permutation(len(pictures.labels))[: steps * BATCH_SIZE]
        for places in order.reshape(steps, BATCH_SIZE):
            images = _shifted(pictures.images[places], random)
            step(_images(images), mindspore.Tensor(pictures.labels[places]))


def _shifted(
    images: npt.NDArray[np.float32], random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Each picture moved by at most one point up, down or sideways, so that the net generalises."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, images.shape[1:], axis=(1, 2))
    rows, columns = random.integers(0, 3, (2, len(images)))
    return windows[np.arange(len(images)), rows, columns]


def _accuracy(scores: DigitsScores, pictures: Pictures) -> float:
    labels = scores(_images(pictures.images)).asnumpy().argmax(-1)
    return float((labels == pictures.labels).mean())


def _images(images: npt.NDArray[np.float32]) -> mindspore.Tensor:
    return mindspore.Tensor(images.reshape(-1, 1, 8, 8))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train the model of the servable digits.")
    parser.add_argument("path", type=Path, help="the MindIR file to write")
    accuracy = train_digits(parser.parse_args().path)
    print(f"accuracy on pictures that were not used for training: {accuracy:.2%}")
