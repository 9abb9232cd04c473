"""One loaded model: gathers instances into batches, runs it, and splits what comes back.

A model with a batch dimension has a fixed batch size N, or a dynamic one (-1). Fixed: a batch
holds up to N instances, the missing ones are copies of the first. Dynamic: a batch is filled up
to the next allowed size, because every new size would be compiled anew.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.layouts import Packed
from protocol.packed import PackedBatch
from protocol.status import MS_FAILED
from protocol.values import Failure, Instance, Result
from workers.backends.base import BackendError, GroupError, LoadedModel
from workers.servable.declarations import ModelDeclaration
from workers.stages.checked_model import CheckedModel
from workers.stages.model_slots import InputSlot

Array = npt.NDArray[Any]

#: Backend errors that are kept for the log between two looks at it; the first ones tell most.
FAULTS_MAX = 16


#: How long the first run with new shapes may take: on an NPU a large graph compiles for minutes.
COMPILE_NS = 600 * 1_000_000_000

#: Shapes that are remembered; a model with more of them compiles all the time anyway.
SHAPES_MAX = 4_096


class ModelRunner(CheckedModel):
    """A model that is loaded in this process. Parameters and errors: see `CheckedModel`."""

    def __init__(
        self,
        declaration: ModelDeclaration,
        loaded: LoadedModel,
        batch_sizes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(declaration, loaded.inputs, loaded.outputs, batch_sizes)
        self._loaded = loaded
        #: Shapes that were run before, by subgraph: a new one is compiled first.
        self._compiled: set[tuple[int, tuple[tuple[int, ...], ...]]] = set()

    def run(
        self,
        subgraph: int,
        instances: Sequence[Instance],
        deadline_ns: int = 0,  # noqa: ARG002 - what only who computes elsewhere has to tell
        is_mixed: bool = False,  # noqa: ARG002
    ) -> list[Result]:
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

    def is_packable(self, subgraph: int) -> bool:
        """Every input of an instance has one size, and no byte of it needs a look."""
        return all(
            slot.is_batched and not slot.is_dynamic and slot.bytes > 0 and slot.dtype.kind != "b"
            for slot in self._slots[subgraph]
        )

    def run_packed(self, subgraph: int, instances: Sequence[Packed]) -> PackedBatch | list[Result]:
        """Run a subgraph on instances that are bytes; see `CheckedModel`.

        A layout has only requests whose inputs have the bytes and dtypes of the model.
        """
        count = len(instances)
        size = self.batch_sizes[bisect.bisect_left(self.batch_sizes, count)]
        inputs = [packed.inputs for packed in instances]
        if size > count:
            inputs += [inputs[0]] * (size - count)
        try:
            arrays: list[Array] = [
                np.ndarray(
                    (size, *slot.shape),
                    slot.dtype,
                    bytearray().join([each[number] for each in inputs]),
                )
                for number, slot in enumerate(self._slots[subgraph])
            ]
            outputs = self._predict(subgraph, arrays, size)
        except BackendError as error:
            return self._fail_batch(subgraph, [packed.unpack() for packed in instances], error)
        return PackedBatch(outputs if size == count else [output[:count] for output in outputs])

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
        except BackendError as error:
            return self._fail_batch(subgraph, instances, error)
        if not self.declaration.with_batch_dim:
            return [tuple(outputs)]
        return [tuple(output[row, ...] for output in outputs) for row in range(len(instances))]

    def _fail_batch(
        self, subgraph: int, instances: list[Instance], error: BackendError
    ) -> list[Result]:
        """What becomes of the instances of a batch that failed: each is run alone."""
        if isinstance(error, GroupError):
            self._note_fault(error)
            return [Failure(MS_FAILED, str(error))] * len(instances)
        if len(instances) > 1:
            return [self._run_batch(subgraph, [instance])[0] for instance in instances]
        self._note_fault(error)
        return [Failure(MS_FAILED, "Predict Failed")]

    def _note_fault(self, error: BackendError) -> None:
        if len(self.faults) < FAULTS_MAX:
            self.faults.append(error)

    def _predict(self, subgraph: int, arrays: list[Array], size: int) -> Sequence[Array]:
        """Run the backend and check what it gave. Raises BackendError."""
        shapes = (subgraph, tuple([array.shape for array in arrays]))
        is_new = shapes not in self._compiled
        if is_new:
            self.on_patience(COMPILE_NS)
        try:
            outputs = self._loaded.predict(subgraph, arrays)
        finally:
            if is_new:
                self.on_patience(0)
        if is_new:
            if len(self._compiled) >= SHAPES_MAX:
                self._compiled.clear()
            self._compiled.add(shapes)
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
