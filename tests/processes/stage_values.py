"""The weights of the two-stage model of `group_models`, and what it computes; without MindSpore."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FIRST = (np.arange(12).reshape(3, 4) % 5).astype(np.float32)
SECOND = (np.arange(8).reshape(4, 2) % 3).astype(np.float32)


def unsplit(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """What both stages compute together."""
    product: npt.NDArray[Any] = x @ FIRST @ SECOND
    return product
