"""What is known of a method's inputs and outputs before it is called, from its models.

An input that goes straight into a model has that model's dtype and shape, and so has an output that
comes straight out of one, or is such an input. What a Python stage takes or gives is not known.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocol.values import InstanceSpec, MethodTensors
from workers.backends.base import TensorSpec
from workers.servable.declarations import MethodDeclaration, ModelStage, Placeholder
from workers.stages.checked_model import CheckedModel


def method_tensors(method: MethodDeclaration, models: Mapping[str, CheckedModel]) -> MethodTensors:
    """Describe a method's tensors. models: by key, all that the method uses."""
    found: dict[tuple[int, int], InstanceSpec | None] = {}
    is_batched = True
    batch_size_max = 0
    for number, stage in enumerate(method.stages, start=1):
        if not isinstance(stage, ModelStage):
            continue
        model = models[stage.model_key]
        described, declaration = model.describe(), model.declaration
        has_batch = declaration.with_batch_dim
        batch_size_max = max(batch_size_max, model.batch_size if has_batch else 1)
        for index, placeholder in enumerate(stage.inputs):
            plain = not has_batch or index in declaration.without_batch_dim_inputs
            _note(found, placeholder, _spec(described.inputs[stage.subgraph][index], plain))
            if placeholder.stage == 0 and not has_batch:
                is_batched = False
        for index, spec in enumerate(described.outputs[stage.subgraph]):
            found[number, index] = _spec(spec, not has_batch)
    return MethodTensors(
        is_batched,
        tuple(found.get((0, index)) for index in range(len(method.inputs))),
        tuple(found.get((each.stage, each.index)) for each in method.returns),
        batch_size_max,
    )


def _note(
    found: dict[tuple[int, int], InstanceSpec | None], value: Placeholder, spec: InstanceSpec
) -> None:
    """An input that models want in different forms fits any of them: bytes are what counts."""
    if value.stage == 0:
        key = (value.stage, value.index)
        found[key] = spec if found.get(key, spec) == spec else None


def _spec(spec: TensorSpec, is_plain: bool) -> InstanceSpec:
    return InstanceSpec(spec.dtype.name, spec.shape if is_plain else spec.shape[1:])
