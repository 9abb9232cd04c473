"""Exports the model of the servable `add`: y = x1 + x2, float32 [2, 2].

python -m examples.export_add tensor_add.mindir
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore
import numpy as np
from mindspore import nn, ops

from examples.mindir_export import export_mindir


class TensorAdd(nn.Cell):
    """One addition; the names of its inputs become those of the graph."""

    def construct(self, x1: mindspore.Tensor, x2: mindspore.Tensor) -> mindspore.Tensor:
        """y = x1 + x2."""
        return ops.add(x1, x2)


def export_add(path: Path) -> None:
    """Write the MindIR file `path`; its directory must exist."""
    mindspore.set_device("CPU")
    matrix = mindspore.Tensor(np.zeros((2, 2), np.float32))
    export_mindir(TensorAdd(), (matrix, matrix), path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export the model of the servable add.")
    parser.add_argument("path", type=Path, help="the MindIR file to write")
    export_add(parser.parse_args().path)
