"""The servable that is being declared: what the functions of `registry` fill and check against."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from workers.servable.declarations import Placeholder, ServableDeclaration, Stage, StageCounts
from workers.servable.model_call import Model


class MethodDraft:
    """A method whose body is running."""

    def __init__(
        self, function: Callable[..., Any], inputs: tuple[str, ...], outputs_count: int
    ) -> None:
        self.name = function.__name__
        self.function = function
        self.outputs_count = outputs_count
        self.placeholders = [Placeholder(0, index) for index in range(len(inputs))]
        self.stages: list[Stage] = []
        #: Deprecated interfaces that the body has called so far, see `legacy_registry`.
        self.legacy_calls: list[str] = []

    def knows(self, value: object) -> bool:
        """Whether `value` is a placeholder of this very method, not of another one."""
        return any(value is placeholder for placeholder in self.placeholders)

    def check_complete(self) -> None:
        """Raises RuntimeError if the body used the deprecated interfaces without the model's."""
        if self.legacy_calls and "call_servable" not in self.legacy_calls:
            raise RuntimeError("Not find the invoke of 'call_servable'")

    def append(self, stage: Stage) -> tuple[Placeholder, ...]:
        """Append a stage; returns the placeholders of its outputs."""
        self.stages.append(stage)
        outputs = tuple(Placeholder(len(self.stages), i) for i in range(stage.outputs_count))
        self.placeholders.extend(outputs)
        return outputs


class Collector:
    """The servable that is being declared, and what its checks must remember."""

    def __init__(self, servable_name: str) -> None:
        self.declaration = ServableDeclaration(servable_name)
        #: Handles that `declare_model` returned; a `Model` made by hand is not among them.
        self.handles: list[Model] = []
        #: The method whose body is running, if one is.
        self.draft: MethodDraft | None = None
        #: Counts and batch mode of each stage function, so that its uses agree. By the function
        #: itself, not by its name: two lambdas are two functions.
        self.functions: dict[Callable[..., Any], tuple[StageCounts, bool]] = {}


_collector: ContextVar[Collector | None] = ContextVar("mindbus_collector", default=None)


@contextmanager
def collecting(servable_name: str) -> Iterator[ServableDeclaration]:
    """Collect what this thread declares into one `ServableDeclaration`, which is returned."""
    collector = Collector(servable_name)
    token = _collector.set(collector)
    try:
        yield collector.declaration
    finally:
        _collector.reset(token)


def current_collector(function: str) -> Collector:
    """The collector that is open in this thread. function: who asks, for the error text."""
    collector = _collector.get()
    if collector is None:
        raise RuntimeError(
            f"{function} can only be called while servable_config.py is being imported by the "
            "serving server"
        )
    return collector
