"""Makes the servable `matmul_distributed`: y = x @ w, with the rows of w split over ranks.

    python -m examples.export_matmul_distributed build/distributed --ranks 2

Each rank multiplies its columns of x with its rows of w; `AllReduce` adds the products up, on
every rank. `mccl_world_group` is the group of all ranks in MindSpore's collective library for the
CPU (`hccl_world_group` is Ascend's).
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import mindspore
import numpy as np
import numpy.typing as npt
from mindspore import Parameter, nn, ops

from examples.mindir_export import export_mindir
from examples.servable_files import make_servable

NAME = "matmul_distributed"
BATCH_SIZE = 4
INPUTS = 16
OUTPUTS = 8

#: The most ranks; each must get as many rows as the others.
RANKS_MAX = 8


def weights() -> npt.NDArray[Any]:
    """All of w: small whole numbers, so that sums in any order are equal. Fixed seed."""
    return np.random.default_rng(7).integers(-4, 5, (INPUTS, OUTPUTS)).astype(np.float32)


class PartialMatmul(nn.Cell):
    """What one rank computes."""

    def __init__(self, first: int, rows: npt.NDArray[Any]) -> None:
        """rows: of w, from row `first` on."""
        super().__init__()
        self.first = first
        self.last = first + len(rows)
        self.rows = Parameter(mindspore.Tensor(rows), name="rows")
        self.all_reduce = ops.AllReduce(group="mccl_world_group")

    def construct(self, x: mindspore.Tensor) -> mindspore.Tensor:
        """y = x @ w, the same on every rank."""
        return self.all_reduce(ops.matmul(x[:, self.first : self.last], self.rows))


def export_ranks(directory: Path, ranks: int) -> None:
    """Write `rank0.mindir`, `rank1.mindir`, … into `directory`, which must exist."""
    mindspore.set_device("CPU")
    x = mindspore.Tensor(np.zeros((BATCH_SIZE, INPUTS), np.float32))
    count = INPUTS // ranks
    for rank in range(ranks):
        rows = weights()[rank * count : (rank + 1) * count]
        net = PartialMatmul(rank * count, rows)
        export_mindir(net, (x,), directory / f"rank{rank}.mindir")


def rank_table(ranks: int) -> str:
    """All ranks on this machine, in Huawei's layout."""
    devices = [{"device_id": str(rank), "rank_id": str(rank)} for rank in range(ranks)]
    return json.dumps({"server_list": [{"server_id": "127.0.0.1", "device": devices}]}, indent=1)


def make_matmul_distributed(directory: Path, ranks: int) -> None:
    """Make the servable below `directory`; its rank table is beside its config.

    ranks: 1, 2, 4 or 8.
    """
    assert ranks <= RANKS_MAX, ranks
    assert INPUTS % ranks == 0, ranks
    make_servable(
        directory / NAME,
        [f"rank{rank}.mindir" for rank in range(ranks)],
        lambda version: export_ranks(version, ranks),
        {"rank_table.json": rank_table(ranks)},
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=f"Make the servable {NAME}.")
    parser.add_argument("directory", type=Path, help="where the servable's directory will be")
    parser.add_argument("--ranks", type=int, choices=(1, 2, 4, 8), default=2, help="default: 2")
    arguments = parser.parse_args()
    make_matmul_distributed(arguments.directory, arguments.ranks)
