"""One loaded model: checks instances, gathers them into batches, and splits what comes back.

A model with a batch dimension has a fixed batch size N, or a dynamic one (-1). Fixed: a batch
holds up to N instances, the missing ones are copies of the first. Dynamic: a batch is filled up
to the next allowed size, because every new size would be compiled anew. Only bytes and dtype of
an instance are compared with the model, never its shape.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.status import MS_FAILED, MS_INVALID_INPUTS
from protocol.values import Failure, Instance, Result
from workers.backends.base import BackendError, GroupError, LoadedModel
from workers.servable.declarations import BATCH_SIZES_DEFAULT, ModelDeclaration
from workers.stages.model_slots import InputSlot, subgraph_batch_size, subgraph_slots

Array = npt.NDArray[Any]

#: Backend errors that are kept for the log between two looks at it; the first ones tell most.
FAULTS_MAX = 16


class ModelRunner:
    """A loaded model behind the checks of its declaration.

    batch_sizes: sizes for a dynamic batch dimension, before the declaration's own and the default.
    Raises: RuntimeError if the model does not have the batch dimension that was declared.
    """

    def __init__(
        self,
        declaration: ModelDeclaration,
        loaded: LoadedModel,
        batch_sizes: Sequence[int] | None = None,
    ) -> None:
        self.declaration = declaration
        self._loaded = loaded
        self._slots = [
            subgraph_slots(declaration, inputs, outputs)
            for inputs, outputs in zip(loaded.inputs, loaded.outputs, strict=True)
        ]
        self._outputs_counts = [len(outputs) for outputs in loaded.outputs]
        sizes = [subgraph_batch_size(declaration, inputs) for inputs in loaded.inputs]
        for subgraph, size in enumerate(sizes):
            if size != sizes[0]:
                raise RuntimeError(
                    f"The batch size {size} of subgraph {subgraph} does not match the batch size "
                    f"{sizes[0]} of subgraph 0, model: {declaration.key}"
                )
        allowed = batch_sizes or declaration.batch_sizes or BATCH_SIZES_DEFAULT
        #: Sizes of the batches that the model is run with, ascending.
        self.batch_sizes = tuple(sorted(allowed)) if sizes[0] == -1 else (sizes[0],)
        #: Backend errors since the owner last cleared the list: for its log, not for clients.
        self.faults: list[BackendError] = []

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

    def run(self, subgraph: int, instances: Sequence[Instance]) -> list[Result]:
        """Run a subgraph on any number of instances; results in their order.

        A bad instance fails alone, also one whose computation fails.
        """
        results: list[Result | None] = [self.check(subgraph, instance) for instance in instances]
        good = [index for index, failure in enumerate(results) if failure is None]
        for batch in self._batches(subgraph, instances, good):
            outputs = self._run_batch(subgraph, [instances[index] for index in batch])
            for index, result in zip(batch, outputs, strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    def warm_up(self) -> None:
        """Run every subgraph once on zeros with each allowed batch size, so that all is compiled.

        Subgraphs with other dynamic dimensions are left out: no size of theirs is known.
        Raises: BackendError.
        """
        for subgraph, slots in enumerate(self._slots):
            if any(slot.is_dynamic for slot in slots):
                continue
            for size in self.batch_sizes:
                arrays = [
                    np.zeros(slot.batch_shape(size, slot.shape), slot.dtype) for slot in slots
                ]
                self._predict(subgraph, arrays, size)

    def _batches(
        self, subgraph: int, instances: Sequence[Instance], good: list[int]
    ) -> Iterator[list[int]]:
        """Split the good instances into batches of equal shapes and at most `batch_size`."""
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        slots = self._slots[subgraph]
        if any(slot.is_dynamic and slot.is_batched for slot in slots):
            for index in good:
                shapes = tuple(
                    slot.shape_of(value)
                    for slot, value in zip(slots, instances[index], strict=True)
                    if slot.is_batched and isinstance(value, np.ndarray)
                )
                groups.setdefault(shapes, []).append(index)
        else:
            groups[()] = good
        for group in groups.values():
            for start in range(0, len(group), self.batch_size):
                yield group[start : start + self.batch_size]

    def _run_batch(self, subgraph: int, instances: list[Instance]) -> list[Result]:
        """Run one batch; if it fails, each of its instances alone."""
        size = self.batch_sizes[bisect.bisect_left(self.batch_sizes, len(instances))]
        try:
            arrays = [
                _gather(slot, [instance[number] for instance in instances], size)
                for number, slot in enumerate(self._slots[subgraph])
            ]
            outputs = self._predict(subgraph, arrays, size)
        except GroupError as error:
            self._note_fault(error)
            return [Failure(MS_FAILED, str(error))] * len(instances)
        except BackendError as error:
            if len(instances) > 1:
                return [self._run_batch(subgraph, [instance])[0] for instance in instances]
            self._note_fault(error)
            return [Failure(MS_FAILED, "Predict Failed")]
        if not self.declaration.with_batch_dim:
            return [tuple(outputs)]
        return [tuple(output[row, ...] for output in outputs) for row in range(len(instances))]

    def _note_fault(self, error: BackendError) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(error)

    def _predict(self, subgraph: int, arrays: list[Array], size: int) -> Sequence[Array]:
        """Run the backend and check what it gave. Raises BackendError."""
        outputs = self._loaded.predict(subgraph, arrays)
        expected = self._outputs_counts[subgraph]
        if len(outputs) != expected:
            raise BackendError(f"model gave {len(outputs)} outputs, not {expected}")
        if self.declaration.with_batch_dim:
            for number, output in enumerate(outputs):
                if output.ndim == 0 or output.shape[0] != size:
                    raise BackendError(
                        f"model output {number} has shape {list(output.shape)}, which does not "
                        f"begin with batch size {size}"
                    )
        return outputs


def _gather(slot: InputSlot, values: list[Any], size: int) -> Array:
    """One array for an input of the whole batch; surplus rows are copies of the first instance.

    values: ndarrays that passed `check`; of an input without batch dimension the first counts.
    """
    first: Array = values[0]
    shape = slot.shape_of(first)
    if not slot.is_batched or size == 1:
        return first.reshape(slot.batch_shape(size, shape))
    batch = np.empty(slot.batch_shape(size, shape), slot.dtype)
    for row, value in enumerate(values):
        batch[row] = value.reshape(shape)
    batch[len(values) :] = batch[0]
    return batch
