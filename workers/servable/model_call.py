"""`Model`, the handle that `declare_model` returns, and its `call` inside Python stages.

The executor that runs a stage lends itself to the stage's calls (`calling_models`); the loan
follows the thread and what copies its context (`asyncio.to_thread`), not threads that user code
starts by hand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy.typing as npt

from protocol.parameter_checks import check_int

Array = npt.NDArray[Any]


class ModelCaller(Protocol):
    """Runs a declared model on instances of Python values."""

    def call_model(
        self, key: str, subgraph: int, instances: Sequence[Sequence[object]]
    ) -> list[tuple[Array, ...]]:
        """One tuple of outputs per instance. Raises RuntimeError; see `Model.call`."""


_caller: ContextVar[ModelCaller | None] = ContextVar("mindbus_model_caller", default=None)


@contextmanager
def calling_models(caller: ModelCaller) -> Iterator[None]:
    """Let `Model.call` of this thread go to `caller` while the context is open."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


class Model:
    """A declared model: a stage for `add_stage`, and callable inside Python stages.

    model_key: the model's file names joined by `;`.
    """

    def __init__(self, model_key: str) -> None:
        self.model_key = model_key

    def call(self, *args: Any, subgraph: int = 0) -> Any:
        """Run the model on one instance or on several.

        `call(x1, x2)` is one instance: returns its output, or a tuple if there are several.
        `call([[x1, x2], [x3, x4]])` are several: returns a tuple of tuples of outputs.
        Outputs are ndarrays. subgraph: which model file, from 0.
        Raises: RuntimeError; the first instance that fails fails the whole call.
        """
        check_int("subgraph", subgraph, minimum=0)
        suffix = f" ,subgraph={subgraph}" if subgraph else ""
        failed = f"Model({self.model_key}{suffix}).call() failed: "
        if not args:
            raise RuntimeError(
                f"{failed}no inputs provided, use call(x1, x2) for one instance or "
                "call([[x1, x2], [x3, x4]]) for several"
            )
        several = len(args) == 1 and isinstance(args[0], list | tuple)
        instances = args[0] if several else (args,)
        for instance in instances:
            if not isinstance(instance, list | tuple):
                raise RuntimeError(
                    f"{failed}inputs format invalid, use call(x1, x2) for one instance or "
                    "call([[x1, x2], [x3, x4]]) for several"
                )
        caller = _caller.get()
        if caller is None:
            raise RuntimeError(f"{failed}no request is running in this thread")
        outputs = caller.call_model(self.model_key, subgraph, instances)
        if several:
            return tuple(outputs)
        return outputs[0][0] if len(outputs[0]) == 1 else outputs[0]

    def __repr__(self) -> str:
        return f"Model({self.model_key!r})"
