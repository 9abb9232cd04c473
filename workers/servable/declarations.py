"""What a `servable_config.py` declares, as plain values: models, methods, stages, placeholders.

    ServableDeclaration
      models   key -> ModelDeclaration
      methods  name -> MethodDeclaration
                         inputs ─► stage 1 ─► stage 2 … ─► returns

A placeholder stands for a value while the body of a method is run once to wire its stages:
`stage` 0 are the method's inputs, stage i ≥ 1 the outputs of the i-th `add_stage`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from protocol.values import MethodSignature
from workers.servable.model_context import Context

#: Batch sizes of a model whose batch dimension is dynamic: each is compiled once, at start.
BATCH_SIZES_DEFAULT = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True, eq=False)
class _TensorDef:
    """Stands for a value while a method is being declared; equal only to itself.

    The name is MindSpore Serving's: Python puts it into the error text when a user unpacks the
    single output of a stage (`cannot unpack non-iterable _TensorDef object`).
    """

    stage: int
    index: int


Placeholder = _TensorDef


class GroupDeclaration(NamedTuple):
    """How a distributed model is split. rank_size: processes; stage_size: parts of a pipeline.

    is_pipelined: as many batches as there are stages may be under way at once.
    """

    rank_size: int
    stage_size: int
    is_pipelined: bool


@dataclass(frozen=True, slots=True)
class ModelDeclaration:
    """A declared model. One file is one subgraph; `key` is the file names joined by `;`.

    A distributed model has a `group`, and no files here: `key` is the servable's name.

    format: "mindir", "mindir_lite" or "om".
    config_file: what the user wrote; only MindSpore Lite would read it.
    batch_sizes: allowed sizes, ascending, if the batch dimension is dynamic; None = not said.
    """

    key: str
    files: tuple[str, ...]
    format: str
    with_batch_dim: bool = True
    without_batch_dim_inputs: tuple[int, ...] = ()
    context: Context | None = None
    config_file: str | None = None
    batch_sizes: tuple[int, ...] | None = None
    group: GroupDeclaration | None = None


@dataclass(frozen=True, slots=True)
class FunctionStage:
    """A Python function. name: `<servable>.<function>`. batch_size None = once per instance.

    batch_size 0 means: as large as the method's models (resolved by the executor).
    """

    function: Callable[..., Any]
    name: str
    inputs: tuple[Placeholder, ...]
    outputs_count: int
    batch_size: int | None
    tag: str


@dataclass(frozen=True, slots=True)
class ModelStage:
    """A subgraph of a declared model, by the model's key."""

    model_key: str
    inputs: tuple[Placeholder, ...]
    outputs_count: int
    tag: str
    subgraph: int = 0


@dataclass(frozen=True, slots=True)
class BuiltinStage:
    """A function of `workers.stages.builtin_functions`, by name."""

    name: str
    inputs: tuple[Placeholder, ...]
    outputs_count: int
    tag: str


Stage = FunctionStage | ModelStage | BuiltinStage


@dataclass(frozen=True, slots=True)
class MethodDeclaration:
    """A method: named inputs, stages in order, and which values are its outputs."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stages: tuple[Stage, ...]
    returns: tuple[Placeholder, ...]

    @property
    def has_python(self) -> bool:
        """Some stage is no model, so extra workers can help with it."""
        return any(not isinstance(stage, ModelStage) for stage in self.stages)


class StageCounts(NamedTuple):
    """Inputs and outputs of a model or function, as the first stage that used it said."""

    inputs: int
    outputs: int


@dataclass(slots=True)
class ServableDeclaration:
    """Everything that one `servable_config.py` declared. Complete after its import."""

    name: str
    models: dict[str, ModelDeclaration] = field(default_factory=dict)
    methods: dict[str, MethodDeclaration] = field(default_factory=dict)
    #: Counts of each model that is used as a stage, by model key.
    model_counts: dict[str, StageCounts] = field(default_factory=dict)

    @property
    def device_width(self) -> int:
        """How many runs of models may be under way at once."""
        groups = [model.group for model in self.models.values() if model.group is not None]
        return max((group.stage_size for group in groups if group.is_pipelined), default=1)

    @property
    def has_model_files(self) -> bool:
        """Whether a version directory is needed."""
        return any(model.files for model in self.models.values())

    def signature(self, method_name: str) -> MethodSignature:
        """The names of a method, for the dialects. Raises KeyError for an unknown method."""
        method = self.methods[method_name]
        return MethodSignature(self.name, method.name, method.inputs, method.outputs)

    def check_complete(self) -> None:
        """Raises RuntimeError if nothing can be requested of this servable."""
        if not self.methods:
            raise RuntimeError("There is no method registered for servable")
