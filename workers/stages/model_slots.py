"""The inputs of a model as one instance sees them: shapes and bytes without batch dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.values import Value
from workers.backends.base import TensorSpec
from workers.servable.declarations import ModelDeclaration
from workers.stages.stage_values import byte_count, dtype_name, type_name

#: The batch size of a model whose batch dimension is known only at run time.
DYNAMIC = -1


class InputSlot:
    """One model input, per instance.

    index: the input's number, for error texts.
    is_batched: the model's input has a batch dimension in front of `shape`.
    shape: what one instance supplies; -1 for a dimension known only at run time.
    """

    __slots__ = ("_dynamic_axis", "bytes", "dtype", "index", "is_batched", "is_dynamic", "shape")

    def __init__(self, index: int, spec: TensorSpec, is_batched: bool) -> None:
        self.index = index
        self.dtype = np.dtype(spec.dtype)
        self.is_batched = is_batched
        self.shape = spec.shape[1:] if is_batched else spec.shape
        dynamic = [axis for axis, length in enumerate(self.shape) if length == DYNAMIC]
        self.is_dynamic = bool(dynamic)
        #: The one axis whose length follows from the byte count; None if several are open.
        self._dynamic_axis = dynamic[0] if len(dynamic) == 1 else None
        #: Bytes of an instance; if a dimension is dynamic, of which they must be a multiple.
        self.bytes = self.dtype.itemsize * math.prod(n for n in self.shape if n != DYNAMIC)

    def mismatch(self, value: Value) -> str | None:
        """Why the value does not fit, or None: its size is compared first, then its dtype."""
        size = byte_count(value)
        if not self._fits(size):
            return (
                f"Given model input {self.index} size {size} not match the size {self.bytes} "
                "defined in model"
            )
        if not isinstance(value, np.ndarray) or value.dtype != self.dtype:
            return (
                f"Given model input {self.index} data type {type_name(value)} not match the data "
                f"type {dtype_name(self.dtype)} defined in model"
            )
        if self.is_dynamic and self._dynamic_axis is None and not self._matches(value.shape):
            return (
                f"Given model input {self.index} shape {list(value.shape)} not match the shape "
                f"{list(self.shape)} defined in model"
            )
        return None

    def shape_of(self, value: npt.NDArray[Any]) -> tuple[int, ...]:
        """The shape in which a fitting value enters the model, without batch dimension."""
        if not self.is_dynamic or self._matches(value.shape):
            return value.shape if self.is_dynamic else self.shape
        length = value.nbytes // self.bytes if self.bytes else 0
        return tuple(length if n == DYNAMIC else n for n in self.shape)

    def batch_shape(self, size: int, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape` with the batch dimension in front, if this input has one."""
        return (size, *shape) if self.is_batched else shape

    def _fits(self, size: int) -> bool:
        if not self.is_dynamic:
            return size == self.bytes
        return size % self.bytes == 0 if self.bytes else size == 0

    def _matches(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.shape) and all(
            mine in (DYNAMIC, given) for mine, given in zip(self.shape, shape, strict=True)
        )


def subgraph_slots(
    declaration: ModelDeclaration, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[InputSlot, ...]:
    """The inputs of one subgraph per instance.

    Raises: RuntimeError if inputs and outputs do not share a batch dimension as was declared.
    """
    if declaration.with_batch_dim:
        size = subgraph_batch_size(declaration, inputs)
        for index, spec in enumerate(inputs):
            if index not in declaration.without_batch_dim_inputs:
                _check_batch_dim(declaration, "input", index, spec, size)
        for index, spec in enumerate(outputs):
            _check_batch_dim(declaration, "output", index, spec, size)
    return tuple(
        InputSlot(
            index,
            spec,
            declaration.with_batch_dim and index not in declaration.without_batch_dim_inputs,
        )
        for index, spec in enumerate(inputs)
    )


def subgraph_batch_size(declaration: ModelDeclaration, inputs: Sequence[TensorSpec]) -> int:
    """How many instances one run of a subgraph takes; DYNAMIC if the model leaves it open."""
    if not declaration.with_batch_dim:
        return 1
    for index, spec in enumerate(inputs):
        if index not in declaration.without_batch_dim_inputs:
            if not spec.shape:
                raise RuntimeError(_empty_shape(declaration, "input", index))
            return spec.shape[0]
    raise RuntimeError(
        f"No input of the model has a batch dimension, when with_batch_dim is true and "
        f"without_batch_dim_inputs is {list(declaration.without_batch_dim_inputs)}, "
        f"model: {declaration.key}"
    )


def _check_batch_dim(
    declaration: ModelDeclaration, kind: str, index: int, spec: TensorSpec, size: int
) -> None:
    if not spec.shape:
        raise RuntimeError(_empty_shape(declaration, kind, index))
    if kind == "output" and spec.shape[0] == DYNAMIC:
        return  # an output's shape may be known only when the graph runs; then it is checked
    if spec.shape[0] != size or size == 0:
        raise RuntimeError(
            f"The shape {list(spec.shape)} of model {kind} {index} does not match current batch "
            f"size {size}"
        )


def _empty_shape(declaration: ModelDeclaration, kind: str, index: int) -> str:
    return (
        f"The shape of model {kind} {index} cannot be empty, when with_batch_dim is true and "
        f"without_batch_dim_inputs is {list(declaration.without_batch_dim_inputs)}"
    )
