"""A fake loaded model, and short ways to declare servables, for the tests of workers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.values import Instance, MethodSignature, RequestSpec, Result
from workers.backends.base import TensorSpec
from workers.servable.declarations import ModelDeclaration, ServableDeclaration
from workers.servable.registry import add_stage, collecting, register_method
from workers.stages.executor import Executor
from workers.stages.model_runner import ModelRunner
from workers.stages.rows import PendingRequest
from workers.stages.scheduler import Scheduler

Array = npt.NDArray[Any]
Compute = Callable[[Sequence[Array]], Sequence[Array]]


def tensor(*shape: int, dtype: str = "float32") -> TensorSpec:
    """A tensor spec whose name does not matter."""
    return TensorSpec("t", np.dtype(dtype), shape)


def floats(*items: Any) -> Array:
    """A float32 array."""
    return np.array(items, dtype=np.float32)


def total(arrays: Sequence[Array]) -> list[Array]:
    """The sum of all inputs, as one output."""
    return [sum(arrays[1:], start=arrays[0].copy())]


class FakeModel:
    """A loaded model that computes with a function and remembers what it was run with."""

    def __init__(
        self,
        inputs: Sequence[TensorSpec] | Sequence[Sequence[TensorSpec]],
        outputs: Sequence[TensorSpec] | Sequence[Sequence[TensorSpec]],
        compute: Compute = total,
    ) -> None:
        one = isinstance(inputs[0], TensorSpec)
        self.inputs = [tuple(inputs)] if one else [tuple(specs) for specs in inputs]
        self.outputs = [tuple(outputs)] if one else [tuple(specs) for specs in outputs]
        self.compute = compute
        #: (subgraph, inputs as lists) of each run.
        self.runs: list[tuple[int, list[Any]]] = []

    def predict(self, subgraph: int, arrays: Sequence[Array]) -> Sequence[Array]:
        """Remember the run and compute."""
        self.runs.append((subgraph, [array.tolist() for array in arrays]))
        return self.compute(arrays)


def runner(model: FakeModel, launched: Sequence[int] | None = None, **declared: Any) -> ModelRunner:
    """A runner of a model called `m.mindir`; `launched` its batch sizes, `declared` the rest."""
    declaration = ModelDeclaration("m.mindir", ("m.mindir",), "mindir", **declared)
    return ModelRunner(declaration, model, launched)


def one_stage(
    function: Callable[..., Any], inputs: str = "x", outputs_count: int = 1, **stage: Any
) -> ServableDeclaration:
    """Servable `s` with method `m`, whose only stage is `function`."""
    names = inputs.split()
    returned = [f"y{number}" for number in range(outputs_count)]

    def body(*placeholders: Any) -> Any:
        return add_stage(function, *placeholders, outputs_count=outputs_count, **stage)

    with collecting("s") as declaration:
        register_method(returned)(named_method("m", names, body))
    return declaration


def named_method(name: str, inputs: Sequence[str], body: Callable[..., Any]) -> Callable[..., Any]:
    """A function called `name` with parameters `inputs`, as a servable file would define it."""
    parameters = ", ".join(inputs)
    scope: dict[str, Any] = {"body": body}
    exec(f"def {name}({parameters}): return body({parameters})", scope)
    function: Callable[..., Any] = scope[name]
    return function


def execute(declaration: ServableDeclaration, *instances: Any) -> list[Any]:
    """Run method `m` of a servable without models; each instance is a tuple of values."""
    return run_method(Executor(declaration, {}), "m", list(instances))


def run_method(executor: Executor, method: str, instances: Sequence[Instance]) -> list[Result]:
    """Run a method as one request: Python as far as it gets, then one run of a model, and again.

    Time stands still, so that all that is measured costs nothing.
    """
    if not instances:
        return []
    scheduler = Scheduler(executor.plans)
    signature = MethodSignature("s", method, (), ())
    spec = RequestSpec("s", method, 0)
    request = PendingRequest(1, 0, spec, signature, list(instances), 1, False, bytes(16))
    scheduler.add(request)
    while (work := scheduler.next_python_work(0) or scheduler.next_device_work(0)) is not None:
        scheduler.complete(work, executor.run(work), 0)
        scheduler.check_invariants()
    assert scheduler.finished == [request]
    return [result for result in request.results if result is not None]
