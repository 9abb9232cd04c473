"""Exports the models of the servable `add_sub`: y = x1 + x2 and y = x1 - x2, float32 [4, 3].

    python -m examples.export_add_sub build/add_sub

The first dimension is the batch: 4 instances of 3 numbers are computed in one call.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore
import numpy as np
from mindspore import nn, ops

from examples.mindir_export import export_mindir

#: Instances of one call, and numbers of one instance.
BATCH_SIZE = 4
LENGTH = 3


class TensorAdd(nn.Cell):
    """One addition."""

    def construct(self, x1: mindspore.Tensor, x2: mindspore.Tensor) -> mindspore.Tensor:
        """y = x1 + x2."""
        return ops.add(x1, x2)


class TensorSub(nn.Cell):
    """One subtraction."""

    def construct(self, x1: mindspore.Tensor, x2: mindspore.Tensor) -> mindspore.Tensor:
        """y = x1 - x2."""
        return ops.sub(x1, x2)


def export_add_sub(directory: Path) -> None:
    """Write `tensor_add.mindir` and `tensor_sub.mindir` into `directory`, which must exist."""
    mindspore.set_device("CPU")
    rows = mindspore.Tensor(np.zeros((BATCH_SIZE, LENGTH), np.float32))
    export_mindir(TensorAdd(), (rows, rows), directory / "tensor_add.mindir")
    export_mindir(TensorSub(), (rows, rows), directory / "tensor_sub.mindir")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export the models of the servable add_sub.")
    parser.add_argument("directory", type=Path, help="where to write the two MindIR files")
    export_add_sub(parser.parse_args().directory)
