"""Stage functions that a servable names by text; MindSpore Serving ships one, `argmax_cpp`."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from protocol.status import MS_FAILED
from protocol.values import Failure, Instance, Result
from workers.stages.stage_values import type_name

_ARGMAX_DTYPES = frozenset(
    np.dtype(name)
    for name in (
        "float32",
        "float64",
        "int8",
        "uint8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
    )
)


class Builtin(NamedTuple):
    """A built-in function: how many values it takes and gives, and what it computes."""

    inputs_count: int
    outputs_count: int
    function: Callable[[Instance], Result]


def argmax(inputs: Instance) -> Result:
    """The index (int64, 0-d) of the first maximum over the flattened input."""
    (array,) = inputs
    if not isinstance(array, np.ndarray) or array.dtype not in _ARGMAX_DTYPES:
        return Failure(MS_FAILED, f"Argmax not support data type {type_name(array)}")
    if array.size == 0:
        return Failure(MS_FAILED, "Argmax not support an input without elements")
    return (np.array(array.argmax(), dtype=np.int64),)


BUILTINS = {"argmax_cpp": Builtin(1, 1, argmax)}
