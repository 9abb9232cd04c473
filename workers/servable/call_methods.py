"""Hidden methods: each subgraph of each model as a method of its own.

`@call_<model key>_<subgraph>` with inputs `x0, x1, …` and outputs `y0, y1, …`, as in MindSpore
Serving. Extra workers send their model stages to device workers by these names; clients may use
them, too.
"""

from __future__ import annotations

from protocol import head, limits
from workers.servable.declarations import MethodDeclaration, ModelStage, Placeholder


def call_method_name(model_key: str, subgraph: int) -> str:
    """The name of the method that is one subgraph of a model."""
    return f"{head.CALL_PREFIX}{model_key}_{subgraph}"


def input_names(count: int) -> tuple[str, ...]:
    """The names of a hidden method's inputs."""
    return tuple(f"x{number}" for number in range(count))


def output_names(count: int) -> tuple[str, ...]:
    """The names of a hidden method's outputs."""
    return tuple(f"y{number}" for number in range(count))


def call_method(
    model_key: str, subgraph: int, inputs_count: int, outputs_count: int
) -> MethodDeclaration | None:
    """The hidden method of a subgraph; None if its name is longer than a method's may be."""
    name = call_method_name(model_key, subgraph)
    if len(name.encode()) > limits.METHOD_BYTES_MAX:
        return None
    inputs = tuple(Placeholder(0, index) for index in range(inputs_count))
    outputs = tuple(Placeholder(1, index) for index in range(outputs_count))
    stage = ModelStage(model_key, inputs, outputs_count, f"Model '{model_key}'", subgraph)
    return MethodDeclaration(
        name, input_names(inputs_count), output_names(outputs_count), (stage,), outputs
    )
