"""Models split over ranks, for the tests of real groups; imported only where MindSpore is."""

from __future__ import annotations

from pathlib import Path

import mindspore
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from examples.mindir_export import export_mindir
from tests.processes.stage_values import FIRST, SECOND

BATCH_SIZE = 2


class FirstStage(nn.Cell):
    """Multiplies, and hands its product on: there is no Send on the CPU, but a sum with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(FIRST), name="weight")
        self.hand_on = ops.AllReduce(group="mccl_world_group")

    def construct(self, x):
        return self.hand_on(ops.matmul(x, self.weight))


class SecondStage(nn.Cell):
    """Has no inputs: it takes what the first stage hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = Parameter(Tensor(SECOND), name="weight")
        self.nothing = Parameter(Tensor(np.zeros((BATCH_SIZE, 4), np.float32)), name="nothing")
        self.take = ops.AllReduce(group="mccl_world_group")

    def construct(self):
        return ops.matmul(self.take(self.nothing), self.weight)


def export_stages(directory: Path) -> None:
    """Write `rank0.mindir` and `rank1.mindir`, one stage each."""
    mindspore.set_device("CPU")
    x = Tensor(np.zeros((BATCH_SIZE, 3), np.float32))
    export_mindir(FirstStage(), (x,), directory / "rank0.mindir")
    export_mindir(SecondStage(), (), directory / "rank1.mindir")
