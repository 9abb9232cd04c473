"""The functions that `servable_config.py` calls, and the declaration that they fill.

    with collecting("add") as declaration:
        import add.servable_config          # declare_model, register_method, add_stage
    declaration.methods["add_common"]

The body of a method runs once, while it is registered: its parameters are placeholders, each
`add_stage` appends a stage and returns placeholders. All errors are RuntimeError.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from protocol.parameter_checks import check_bool, check_int, check_ints, check_str, check_strs
from workers.servable.collector import MethodDraft, collecting, current_collector
from workers.servable.declarations import (
    MethodDeclaration,
    ModelDeclaration,
    Placeholder,
    ServableDeclaration,
    Stage,
)
from workers.servable.model_call import Model
from workers.servable.model_context import AclOptions, Context, GpuOptions
from workers.servable.stage_builders import builtin_stage, function_stage, model_stage

F = TypeVar("F", bound=Callable[..., Any])

_FORMATS = {
    "mindir": "mindir",
    "mindir_lite": "mindir_lite",
    "mindir_opt": "mindir_lite",
    "om": "om",
}
#: What a stage is told whose inputs are not all placeholders of its method.
ARGS_TEXT = (
    "Each value of parameter *args is a placeholder for data and must come from the method inputs "
    "or the outputs of add_stage"
)

_REFUSED_PARAMETERS = {
    inspect.Parameter.VAR_POSITIONAL: "VAR_POSITIONAL",
    inspect.Parameter.VAR_KEYWORD: "VAR_KEYWORD",
    inspect.Parameter.KEYWORD_ONLY: "KEYWORD_ONLY",
}


__all__ = [
    "add_stage",
    "collecting",
    "declare_model",
    "register_method",
]


def declare_model(
    model_file: str | list[str] | tuple[str, ...],
    model_format: str,
    with_batch_dim: bool = True,
    options: AclOptions | GpuOptions | None = None,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
    context: Context | None = None,
    config_file: str | None = None,
    *,
    batch_sizes: int | list[int] | tuple[int, ...] | None = None,
) -> Model:
    """Declare a model, to be loaded from the version directory; returns its handle.

    model_file: one file, or several, each being one subgraph.
    model_format: MindIR, MindIR_Lite or OM, case ignored.
    with_batch_dim: the first dimension of inputs and outputs counts instances.
    without_batch_dim_inputs: numbers of inputs that lack that dimension all the same.
    options: deprecated; ignored if `context` is given.
    config_file: for MindSpore Lite; ignored, with a warning when the model is loaded.
    batch_sizes: (MindBus only) the sizes to which batches are padded if the batch dimension of
        the model is dynamic; every size is compiled at start. Default 1, 2, 4, 8, 16, 32.
    """
    collector = current_collector("declare_model")
    if any(model.group is not None for model in collector.declaration.models.values()):
        raise RuntimeError(
            "Declare model failed, servable has already been declared as distributed servable"
        )
    files = check_strs("model_file", model_file)
    check_str("model_format", model_format)
    if model_format.lower() not in _FORMATS:
        raise RuntimeError("model format can only be OM, MindIR or MindIR_Lite, case ignored")
    if config_file is not None:
        check_str("config_file", config_file)
    model = ModelDeclaration(
        key=";".join(files),
        files=files,
        format=_FORMATS[model_format.lower()],
        with_batch_dim=check_bool("with_batch_dim", with_batch_dim),
        without_batch_dim_inputs=_optional_ints(
            "without_batch_dim_inputs", without_batch_dim_inputs, minimum=0
        )
        or (),
        context=_model_context(context, options),
        config_file=config_file,
        batch_sizes=_optional_ints("batch_sizes", batch_sizes, minimum=1),
    )
    _check_files_are_new(model, collector.declaration)
    collector.declaration.models[model.key] = model
    handle = Model(model.key)
    collector.handles.append(handle)
    return handle


def register_method(output_names: str | list[str] | tuple[str, ...]) -> Callable[[F], F]:
    """Register the decorated function as a method; its parameters are the method's inputs.

    The function is called once, here, with placeholders, and returned as it was.
    """
    outputs = check_strs("output_names", output_names)

    def register(function: F) -> F:
        collector = current_collector("register_method")
        name = function.__name__
        if name in collector.declaration.methods:
            raise RuntimeError(f"Method {name} has been registered more than once.")
        if collector.draft is not None:
            raise RuntimeError(
                f"Method {name} cannot be registered inside of method {collector.draft.name}"
            )
        inputs = _method_inputs(function)
        draft = collector.draft = MethodDraft(function, inputs, len(outputs))
        try:
            returned = function(*draft.placeholders)
        finally:
            collector.draft = None
        draft.check_complete()
        returns = _method_returns(draft, returned, len(outputs))
        collector.declaration.methods[name] = MethodDeclaration(
            name, inputs, outputs, tuple(draft.stages), returns
        )
        return function

    return register


def add_stage(
    stage: Callable[..., Any] | Model | str,
    *args: Any,
    outputs_count: int,
    batch_size: int | None = None,
    tag: str | None = None,
) -> Any:
    """Append a stage to the method whose body is running.

    stage: a Python function, a model, or the name of a built-in function.
    args: placeholders, the stage's inputs.
    batch_size: for functions; k ≥ 1 = the function gets a tuple of up to k instances, 0 = up to
        the batch size of the method's models, None = it is called once per instance.
    tag: replaces the function's name in error texts.
    Returns: one placeholder, or a tuple of them if outputs_count is not 1.
    """
    collector = current_collector("add_stage")
    draft = collector.draft
    if draft is None:
        raise RuntimeError(
            "add_stage can only be called in a function that is decorated by register_method"
        )
    if not all(draft.knows(arg) for arg in args):
        raise RuntimeError(ARGS_TEXT)
    check_int("outputs_count", outputs_count, minimum=1)
    if batch_size is not None:
        check_int("batch_size", batch_size, minimum=0)
    if tag is not None:
        check_str("tag", tag)
    appended: Stage
    if isinstance(stage, str):
        appended = builtin_stage(stage, args, outputs_count, tag)
    elif isinstance(stage, Model):
        appended = model_stage(collector, draft.name, stage, args, outputs_count, tag)
    elif inspect.isroutine(stage):
        appended = function_stage(
            collector, draft.name, stage, args, outputs_count, batch_size, tag
        )
    else:
        raise RuntimeError(
            f"Check failed in method '{draft.name}', the parameter 'stage' of add_stage must be "
            f"function or Model returned by declare_model, now is {type(stage)}"
        )
    outputs = draft.append(appended)
    return outputs[0] if outputs_count == 1 else outputs


# ---------------------------------------------------------------- models


def _model_context(
    context: Context | None, options: AclOptions | GpuOptions | None
) -> Context | None:
    if context is not None:
        if not isinstance(context, Context):
            raise RuntimeError(f"Parameter 'context' should be Context, but gotten {type(context)}")
        return context
    if options is not None and not isinstance(options, AclOptions | GpuOptions):
        raise RuntimeError(
            "Parameter 'options' should be None, GpuOptions or AclOptions, but gotten "
            f"{type(options)}"
        )
    return options


def _optional_ints(name: str, value: Any, minimum: int) -> tuple[int, ...] | None:
    if value is None:
        return None
    return tuple(sorted(check_ints(name, value, minimum))) or None


def _check_files_are_new(model: ModelDeclaration, declaration: ServableDeclaration) -> None:
    used = {file for other in declaration.models.values() for file in other.files}
    for file in model.files:
        if file in used:
            files = ", ".join(model.files)
            raise RuntimeError(
                f"Declare model [{files}] failed, model file '{file}' has already been used"
            )


# ---------------------------------------------------------------- methods


def _method_inputs(function: Callable[..., Any]) -> tuple[str, ...]:
    parameters = inspect.signature(function).parameters
    for name, parameter in parameters.items():
        if parameter.kind in _REFUSED_PARAMETERS:
            raise RuntimeError(
                f"'{function.__name__}' input {name} cannot be "
                f"{_REFUSED_PARAMETERS[parameter.kind]} !"
            )
    return tuple(parameters)


def _method_returns(
    draft: MethodDraft, returned: object, outputs_count: int
) -> tuple[Placeholder, ...]:
    items = tuple(returned) if isinstance(returned, list | tuple) else (returned,)
    if not all(draft.knows(item) for item in items):
        raise RuntimeError(
            "Each value returned is a placeholder for data and must come from the method inputs "
            "or the outputs of add_stage"
        )
    if len(items) != outputs_count:
        raise RuntimeError(
            f"Method return output size {len(items)} not match registered {outputs_count}"
        )
    return items
