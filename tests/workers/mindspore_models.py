"""Models for the tests of the MindSpore side; imported only in processes that have MindSpore."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from workers.backends.base import LoadedModel
from workers.backends.mindspore_graph import MindSporeBackend
from workers.servable.declarations import ModelDeclaration

KEY = b"sixteen bytes ok"


class Add(nn.Cell):
    """Two inputs, one output."""

    def construct(self, x1, x2):
        return x1 + x2


class Scale(nn.Cell):
    """One input, one output."""

    def construct(self, x):
        return x * 10


class Identity(nn.Cell):
    """Gives its input back."""

    def construct(self, x):
        return x


class Nested(nn.Cell):
    """An input, a value twice, a parameter and a constant, in nested tuples."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(np.ones(2, np.float32)), name="weight")

    def construct(self, x):
        double = x * 2
        return x, (double, double), self.weight, 3


class Conv(nn.Cell):
    """A convolution whose kernels use vector instructions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3, pad_mode="same", weight_init="ones")

    def construct(self, image):
        return self.conv(image)


class MatMul(nn.Cell):
    """Fails for inputs whose inner dimensions differ."""

    def construct(self, x1, x2):
        return ops.matmul(x1, x2)


def zeros(*shape: int, dtype: str = "float32") -> Tensor:
    """An example tensor for an export."""
    return Tensor(np.zeros(shape, dtype))


def any_size(*shape: int | None, dtype: object = mindspore.float32) -> Tensor:
    """An example tensor with dynamic dimensions (None)."""
    return Tensor(shape=list(shape), dtype=dtype)


def export(net: nn.Cell, *inputs: Tensor, path: Path, **encryption: object) -> Path:
    """Export a net as MindIR."""
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.export(net, *inputs, file_name=str(path), file_format="MINDIR", **encryption)
    return path


@cache
def backend() -> MindSporeBackend:
    """The backend of this process, on the CPU."""
    made = MindSporeBackend()
    made.open_device("CPU", 0)
    return made


def load(*paths: Path, dec_key: bytes | None = None, dec_mode: str = "AES-GCM") -> LoadedModel:
    """Load files of one directory as one model."""
    files = tuple(path.name for path in paths)
    model = ModelDeclaration(";".join(files), files, "mindir")
    return backend().load(model, paths[0].parent, dec_key, dec_mode)
