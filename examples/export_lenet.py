"""Exports the model of the servable `lenet`: LeNet-5 with random weights, for batches of 8.

    python -m examples.export_lenet lenet.mindir

The graph takes float32 [8, 1, 32, 32] from 0 to 1 and gives probabilities [8, 10]. The weights are
drawn from a fixed seed and not trained: the servable shows how such a model is served, the
servable `digits` one that can read.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore
import numpy as np
from mindspore import nn, ops

from examples.mindir_export import export_mindir
from examples.random_weights import draw_weights

SEED = 1998
BATCH_SIZE = 8

#: Points of one side of a picture.
SIDE = 32


class LeNet5(nn.Cell):
    """Two convolutions with pooling, three dense layers, tanh and a softmax; 61 706 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, pad_mode="valid", has_bias=True, bias_init="zeros")
        self.conv2 = nn.Conv2d(6, 16, 5, pad_mode="valid", has_bias=True, bias_init="zeros")
        self.pool = nn.MaxPool2d(2, 2)
        self.flatten = nn.Flatten()
        self.dense1 = nn.Dense(16 * 5 * 5, 120, bias_init="zeros")
        self.dense2 = nn.Dense(120, 84, bias_init="zeros")
        self.dense3 = nn.Dense(84, 10, bias_init="zeros")
        self.softmax = nn.Softmax(-1)

    def construct(self, image: mindspore.Tensor) -> mindspore.Tensor:
        """Probabilities [n, 10] of images [n, 1, 32, 32]."""
        x = self.pool(ops.tanh(self.conv1(image)))
        x = self.flatten(self.pool(ops.tanh(self.conv2(x))))
        x = ops.tanh(self.dense2(ops.tanh(self.dense1(x))))
        return self.softmax(self.dense3(x))


def export_lenet(path: Path) -> None:
    """Write the MindIR file `path`; its directory must exist."""
    mindspore.set_device("CPU")
    net = LeNet5().set_train(False)
    draw_weights(net, SEED)
    images = mindspore.Tensor(np.zeros((BATCH_SIZE, 1, SIDE, SIDE), np.float32))
    export_mindir(net, (images,), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export the model of the servable lenet.")
    parser.add_argument("path", type=Path, help="the MindIR file to write")
    export_lenet(parser.parse_args().path)
