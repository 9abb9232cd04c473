"""Gives a net random weights that are the same everywhere and every time.

They come from numpy's generator, not from MindSpore's: its initial weights depend on its version
and on what was made before in the same process.
"""

from __future__ import annotations

import math

import mindspore
import numpy as np
from mindspore import nn


def draw_weights(net: nn.Cell, seed: int) -> None:
    """Replace all matrices and kernels of `net` by normal values, scaled for ReLU (He).

    Vectors stay as they are: biases at 0, and the scales and shifts of normalisation.
    """
    random = np.random.default_rng(seed)
    for weight in net.trainable_params():
        if weight.ndim > 1:
            values = random.standard_normal(weight.shape, np.float32)
            values *= math.sqrt(2 / math.prod(weight.shape[1:]))
            weight.set_data(mindspore.Tensor(values))
