"""What a model file computes without MindBus; runs in a process that has MindSpore."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

Array = npt.NDArray[Any]

#: MindSpore 2.10 computes larger convolutions by plain loops where it finds AVX-512, some
#: fifty times slower; see examples/README.md. Other machines do not know the variable.
ENVIRONMENT: Mapping[str, str] = {"ONEDNN_MAX_CPU_ISA": "AVX2"}


def direct_run(model: Path, batches: Sequence[Array]) -> list[Array]:
    """The one output of a MindIR file for each batch for its one input."""
    os.environ.update(ENVIRONMENT)
    import mindspore

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.set_device("CPU")
    graph = mindspore.nn.GraphCell(mindspore.load(str(model)))
    return [graph(mindspore.Tensor(batch)).asnumpy() for batch in batches]
