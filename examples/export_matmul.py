"""Exports the two subgraphs of the servable `matmul`: x1 @ x2, and x1 @ x2 + x3, all float32.

    python -m examples.export_matmul build/matmul

x1 is [2, 4], x2 is [4, 3], x3 and the result are [2, 3]. The second graph has one input more: the
subgraphs of a model need not look alike.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore
import numpy as np
from mindspore import nn, ops

from examples.mindir_export import export_mindir


class Matmul(nn.Cell):
    """Subgraph 0: a product."""

    def construct(self, x1: mindspore.Tensor, x2: mindspore.Tensor) -> mindspore.Tensor:
        """y = x1 @ x2."""
        return ops.matmul(x1, x2)


class MatmulAdd(nn.Cell):
    """Subgraph 1: a product and a sum."""

    def construct(
        self, x1: mindspore.Tensor, x2: mindspore.Tensor, x3: mindspore.Tensor
    ) -> mindspore.Tensor:
        """y = x1 @ x2 + x3."""
        return ops.matmul(x1, x2) + x3


def export_matmul(directory: Path) -> None:
    """Write `matmul_0.mindir` and `matmul_1.mindir` into `directory`, which must exist."""
    mindspore.set_device("CPU")
    x1, x2, x3 = (
        mindspore.Tensor(np.zeros(shape, np.float32)) for shape in ((2, 4), (4, 3), (2, 3))
    )
    export_mindir(Matmul(), (x1, x2), directory / "matmul_0.mindir")
    export_mindir(MatmulAdd(), (x1, x2, x3), directory / "matmul_1.mindir")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Export the subgraphs of the servable matmul.")
    parser.add_argument("directory", type=Path, help="where to write the two MindIR files")
    export_matmul(parser.parse_args().directory)
