"""What one instance of a loaded model must look like, wherever the model is computed.

Only bytes and dtype of an instance are compared with the model, never its shape.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from protocol.layouts import Packed
from protocol.packed import PackedBatch
from protocol.status import MS_INVALID_INPUTS
from protocol.values import Failure, Instance, Result
from workers.backends.base import BackendError, TensorSpec
from workers.servable.declarations import BATCH_SIZES_DEFAULT, ModelDeclaration
from workers.stages.model_slots import subgraph_batch_size, subgraph_slots

Specs = Sequence[tuple[TensorSpec, ...]]


class ModelDescription(NamedTuple):
    """A loaded model in words, for workers that do not load it.

    inputs, outputs: of each subgraph. batch_sizes: that it is run with, ascending.
    """

    inputs: Specs
    outputs: Specs
    batch_sizes: tuple[int, ...]

    def as_document(self) -> dict[str, Any]:
        """Plain values, for a launch document."""
        return {
            "inputs": _specs_as_document(self.inputs),
            "outputs": _specs_as_document(self.outputs),
            "batch_sizes": list(self.batch_sizes),
        }


def read_model_description(document: Mapping[str, Any]) -> ModelDescription:
    """The description that `as_document` wrote. Raises KeyError, TypeError or ValueError."""
    return ModelDescription(
        _read_specs(document["inputs"]),
        _read_specs(document["outputs"]),
        tuple(int(size) for size in document["batch_sizes"]),
    )


def _specs_as_document(subgraphs: Specs) -> list[list[list[Any]]]:
    return [
        [[spec.name, spec.dtype.name, list(spec.shape)] for spec in specs] for specs in subgraphs
    ]


def _read_specs(document: Sequence[Any]) -> Specs:
    return [
        tuple(TensorSpec(str(name), np.dtype(dtype), tuple(shape)) for name, dtype, shape in specs)
        for specs in document
    ]


class CheckedModel(ABC):
    """A loaded model behind the checks of its declaration, computed here or elsewhere.

    batch_sizes: sizes for a dynamic batch dimension, before the declaration's own and the default.
    Raises: RuntimeError if the model does not have the batch dimension that was declared.
    """

    def __init__(
        self,
        declaration: ModelDeclaration,
        inputs: Specs,
        outputs: Specs,
        batch_sizes: Sequence[int] | None = None,
    ) -> None:
        self.declaration = declaration
        self._inputs = inputs
        self._outputs = outputs
        self._slots = [
            subgraph_slots(declaration, *specs) for specs in zip(inputs, outputs, strict=True)
        ]
        self._outputs_counts = [len(specs) for specs in outputs]
        sizes = [subgraph_batch_size(declaration, specs) for specs in inputs]
        for subgraph, size in enumerate(sizes):
            if size != sizes[0]:
                raise RuntimeError(
                    f"The batch size {size} of subgraph {subgraph} does not match the batch size "
                    f"{sizes[0]} of subgraph 0, model: {declaration.key}"
                )
        allowed = batch_sizes or declaration.batch_sizes or BATCH_SIZES_DEFAULT
        #: Sizes of the batches that the model is run with, ascending.
        self.batch_sizes = tuple(sorted(allowed)) if sizes[0] == -1 else (sizes[0],)
        #: Told before something long, such as a compilation, for how many ns to be patient, and
        #: with 0 when it is over.
        self.on_patience: Callable[[int], None] = lambda patience_ns: None  # noqa: ARG005
        #: Told when a reply of another worker is waited for, and when it has come.
        self.on_wait: Callable[[bool], None] = lambda is_waiting: None  # noqa: ARG005
        #: Backend errors since the owner last cleared the list: for its log, not for clients.
        self.faults: list[BackendError] = []

    @abstractmethod
    def run(
        self,
        subgraph: int,
        instances: Sequence[Instance],
        deadline_ns: int,
        is_mixed: bool = False,
    ) -> list[Result]:
        """Run a subgraph on any number of instances; results in their order.

        A bad instance fails alone. deadline_ns: when nobody waits for the results any more.
        is_mixed: the instances belong to several requests, and none may suffer from another one.
        """

    def is_packable(self, subgraph: int) -> bool:  # noqa: ARG002
        """Instances that are bytes, not decoded, may be given to `run_packed`."""
        return False

    def run_packed(self, subgraph: int, instances: Sequence[Packed]) -> PackedBatch | list[Result]:
        """Run a subgraph on at most `batch_size` instances that are bytes.

        Returns: their outputs together; or, if they failed together, the result of each.
        REQUIRES: is_packable(subgraph).
        """
        return self.run(subgraph, [packed.unpack() for packed in instances], 0)

    def describe(self) -> ModelDescription:
        """The model in words."""
        return ModelDescription(self._inputs, self._outputs, self.batch_sizes)

    @property
    def batch_size(self) -> int:
        """The most instances that one run of the model takes."""
        return self.batch_sizes[-1]

    @property
    def subgraphs_count(self) -> int:
        """How many subgraphs (model files) the model has."""
        return len(self._slots)

    def counts(self, subgraph: int) -> tuple[int, int]:
        """How many inputs and outputs a subgraph has."""
        return len(self._slots[subgraph]), self._outputs_counts[subgraph]

    def check(self, subgraph: int, instance: Instance) -> Failure | None:
        """What is wrong with an instance: first its count, then each input's size and dtype."""
        slots = self._slots[subgraph]
        if len(instance) != len(slots):
            relation = "less" if len(instance) < len(slots) else "more"
            return Failure(
                MS_INVALID_INPUTS,
                f"Given model inputs size {len(instance)} {relation} than model inputs size "
                f"{len(slots)}",
            )
        for slot, value in zip(slots, instance, strict=True):
            text = slot.mismatch(value)
            if text is not None:
                return Failure(MS_INVALID_INPUTS, text)
        return None
