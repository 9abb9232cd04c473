"""Builds the stages of a method and checks each against what was declared before."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from workers.servable.collector import Collector
from workers.servable.declarations import (
    BuiltinStage,
    FunctionStage,
    ModelStage,
    Placeholder,
    StageCounts,
)
from workers.servable.model_call import Model
from workers.stages.builtin_functions import BUILTINS


def function_stage(
    collector: Collector,
    method: str,
    function: Callable[..., Any],
    inputs: tuple[Placeholder, ...],
    outputs_count: int,
    batch_size: int | None,
    tag: str | None,
) -> FunctionStage:
    """A stage of a Python function. Raises RuntimeError if its uses do not agree."""
    in_batches = batch_size is not None
    _check_parameters(function, 1 if in_batches else len(inputs), in_batches)
    name = f"{collector.declaration.name}.{function.__name__}"
    counts = StageCounts(len(inputs), outputs_count)
    last_counts, last_in_batches = collector.functions.setdefault(function, (counts, in_batches))
    for which, count, last in zip(("inputs", "outputs"), counts, last_counts, strict=True):
        if count != last:
            raise RuntimeError(
                f"Stage function '{name}' {which} count {count} not match last registered count "
                f"{last}, method name '{method}'"
            )
    if in_batches != last_in_batches:
        raise RuntimeError(
            f"Failed to add stage function {name}: parameter 'batch_size' in multiple "
            "'add_stage' should be enabled or disabled consistently"
        )
    return FunctionStage(
        function, name, inputs, outputs_count, batch_size, tag or f"Function '{name}'"
    )


def _check_parameters(function: Callable[..., Any], count: int, in_batches: bool) -> None:
    """Raise unless `function` takes `count` arguments; a batch function may have defaults."""
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a function written in C that does not say; it will say when it is called
    parameters = signature.parameters.values()
    if in_batches or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        try:
            signature.bind(*(None,) * count)
            return
        except TypeError:
            pass
    elif len(parameters) == count:
        return
    raise RuntimeError(
        f"function {function.__name__} input args count {len(parameters)} not match the count "
        f"{count} registered in method"
    )


def model_stage(
    collector: Collector,
    method: str,
    handle: Model,
    inputs: tuple[Placeholder, ...],
    outputs_count: int,
    tag: str | None,
) -> ModelStage:
    """A stage of a declared model. Raises RuntimeError if undeclared, or its uses differ."""
    if not any(handle is declared for declared in collector.handles):
        raise RuntimeError(
            f"Check failed in method '{method}', the parameter 'stage' of add_stage must be "
            "function or Model returned by declare_model, and ensure that interface "
            "'declare_model' can take effect when importing servable_config.py by the serving "
            "server"
        )
    key = handle.model_key
    counts = StageCounts(len(inputs), outputs_count)
    old_counts = collector.declaration.model_counts.setdefault(key, counts)
    for which, count, old in zip(("inputs", "outputs"), counts, old_counts, strict=True):
        if count != old:
            raise RuntimeError(
                f"RegisterInputOutputInfo failed, {which} count {count} not match old count "
                f"{old}, model: {key}"
            )
    return ModelStage(key, inputs, outputs_count, tag or f"Model '{key}'")


def builtin_stage(
    name: str, inputs: tuple[Placeholder, ...], outputs_count: int, tag: str | None
) -> BuiltinStage:
    """A stage of a built-in function. Raises RuntimeError if it is unknown or takes others."""
    builtin = BUILTINS.get(name)
    if builtin is None:
        raise RuntimeError(f"Function '{name}' is not defined")
    if len(inputs) != builtin.inputs_count:
        raise RuntimeError(
            f"function {name} input args count {builtin.inputs_count} not match the count "
            f"{len(inputs)} registered in method"
        )
    if outputs_count != builtin.outputs_count:
        raise RuntimeError(
            f"function {name} outputs count {builtin.outputs_count} not match the count "
            f"{outputs_count} registered in method"
        )
    return BuiltinStage(name, inputs, outputs_count, tag or f"Function '{name}'")
