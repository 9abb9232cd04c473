"""Exports the model of the servable `resnet50`: ResNet-50 with random weights, one picture a call.

    python -m examples.export_resnet50 resnet50.mindir

The graph takes float32 [1, 3, 224, 224], normalised as for ImageNet, and gives probabilities
[1, 1000]. Nothing is downloaded: the weights are drawn from a fixed seed, so the net computes as
much as a trained one but knows nothing, and its classes have numbers for names.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore
import numpy as np
from mindspore import nn, ops

from examples.mindir_export import export_mindir
from examples.random_weights import draw_weights

SEED = 2015
CLASSES = 1000

#: Points of one side of a picture.
SIDE = 224

#: Width, blocks and first stride of the four groups of blocks. A block widens by EXPANSION.
GROUPS = ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2))
EXPANSION = 4

#: Scale of a block's last normalisation. With 1 each of the 16 blocks would double the variance,
#: and random weights would give one class everything.
GAMMA_LAST = 0.5


class Bottleneck(nn.Cell):
    """Narrow, look around, widen, and add what came in; the second convolution has the stride."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        wide = width * EXPANSION
        self.body = nn.SequentialCell(
            *_convolution(channels, width, 1),
            nn.ReLU(),
            *_convolution(width, width, 3, stride),
            nn.ReLU(),
            *_convolution(width, wide, 1, gamma=GAMMA_LAST),
        )
        changes = stride != 1 or channels != wide
        self.shortcut = (
            nn.SequentialCell(*_convolution(channels, wide, 1, stride))
            if changes
            else nn.Identity()
        )

    def construct(self, x: mindspore.Tensor) -> mindspore.Tensor:
        """[n, channels, h, w] to [n, 4 * width, h / stride, w / stride]."""
        return ops.relu(self.body(x) + self.shortcut(x))


class ResNet50(nn.Cell):
    """16 bottlenecks between a stem and a dense layer; 25 557 032 trainable parameters."""

    def __init__(self) -> None:
        super().__init__()
        layers = [*_convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, pad_mode="same")]
        channels = 64
        for width, blocks, stride in GROUPS:
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, stride if block == 0 else 1))
                channels = width * EXPANSION
        self.features = nn.SequentialCell(*layers)
        self.dense = nn.Dense(channels, CLASSES, bias_init="zeros")
        self.softmax = nn.Softmax(-1)

    def construct(self, image: mindspore.Tensor) -> mindspore.Tensor:
        """Probabilities [n, 1000] of images [n, 3, 224, 224]."""
        return self.softmax(self.dense(ops.mean(self.features(image), (2, 3))))


def _convolution(
    channels: int, filters: int, side: int, stride: int = 1, gamma: float = 1.0
) -> tuple[nn.Cell, nn.Cell]:
    convolution = nn.Conv2d(
        channels, filters, side, stride, pad_mode="pad", padding=side // 2, weight_init="zeros"
    )
    return convolution, nn.BatchNorm2d(filters, gamma_init=gamma)


def export_resnet50(path: Path) -> None:
    """Write the MindIR file `path` (103 MB); its directory must exist."""
    mindspore.set_device("CPU")
    net = ResNet50().set_train(False)
    draw_weights(net, SEED)
    image = mindspore.Tensor(np.zeros((1, 3, SIDE, SIDE), np.float32))
    export_mindir(net, (image,), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export the model of the servable resnet50.")
    parser.add_argument("path", type=Path, help="the MindIR file to write")
    export_resnet50(parser.parse_args().path)
