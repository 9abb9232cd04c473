"""The registration functions of MindSpore Serving before 1.5, still in use in old servables.

    register.declare_servable(servable_file="bert.mindir", model_format="MindIR")

    @register.register_method(output_names=["label"])
    def classify(image):
        x = register.call_preprocess(decode, image)
        y = register.call_servable(x)
        label = register.call_postprocess(label_of, y)
        return label

They do not say how many outputs a stage has: that follows from the assignment targets in the
source of the method, which therefore must be plain assignments and a return.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from workers.servable.collector import Collector, MethodDraft, current_collector
from workers.servable.declarations import Placeholder
from workers.servable.deprecation import warn_deprecated
from workers.servable.model_call import Model
from workers.servable.model_context import AclOptions, GpuOptions
from workers.servable.registry import ARGS_TEXT, declare_model
from workers.servable.stage_builders import function_stage, model_stage

#: What each interface is for, in the order in which they must be called; pairs exclude each other.
_KINDS = {
    "call_preprocess": "call_preprocess or call_preprocess_pipeline",
    "call_preprocess_pipeline": "call_preprocess or call_preprocess_pipeline",
    "call_servable": "call_servable",
    "call_postprocess": "call_postprocess or call_postprocess_pipeline",
    "call_postprocess_pipeline": "call_postprocess or call_postprocess_pipeline",
}
_ORDER = tuple(dict.fromkeys(_KINDS.values()))


def declare_servable(
    servable_file: str | list[str] | tuple[str, ...],
    model_format: str,
    with_batch_dim: bool = True,
    options: AclOptions | GpuOptions | None = None,
    without_batch_dim_inputs: int | list[int] | tuple[int, ...] | None = None,
) -> Model:
    """Deprecated: `declare_model` under its old name."""
    warn_deprecated("declare_servable", "1.5.0", "declare_model")
    return declare_model(
        servable_file, model_format, with_batch_dim, options, without_batch_dim_inputs
    )


def call_preprocess(preprocess_fun: Callable[..., Any], *args: Any) -> Any:
    """Deprecated: a stage before the model, whose function is called once per instance."""
    warn_deprecated("call_preprocess", "1.5.0", "add_stage")
    return _add_function("call_preprocess", preprocess_fun, args, None, "Preprocess")


def call_preprocess_pipeline(preprocess_fun: Callable[..., Any], *args: Any) -> Any:
    """Deprecated: a stage before the model, whose function gets as many instances as it."""
    warn_deprecated("call_preprocess_pipeline", "1.5.0", "add_stage")
    return _add_function("call_preprocess_pipeline", preprocess_fun, args, 0, "Preprocess")


def call_servable(*args: Any) -> Any:
    """Deprecated: the stage of the only model that is declared."""
    warn_deprecated("call_servable", "1.5.0", "add_stage")
    collector, draft, outputs_count = _begin("call_servable", args)
    if not collector.handles:
        raise RuntimeError(
            "There is no model declared, you can use declare_model to declare models."
        )
    if len(collector.handles) > 1:
        raise RuntimeError(
            "There are more than one servable declared when the interface 'call_servable' is "
            "used, use 'add_stage' to replace 'call_servable'"
        )
    stage = model_stage(collector, draft.name, collector.handles[0], args, outputs_count, None)
    return _as_returned(draft.append(stage))


def call_postprocess(postprocess_fun: Callable[..., Any], *args: Any) -> Any:
    """Deprecated: a stage behind the model, whose function is called once per instance."""
    warn_deprecated("call_postprocess", "1.5.0", "add_stage")
    return _add_function("call_postprocess", postprocess_fun, args, None, "Postprocess")


def call_postprocess_pipeline(postprocess_fun: Callable[..., Any], *args: Any) -> Any:
    """Deprecated: a stage behind the model, whose function gets as many instances as it gives."""
    warn_deprecated("call_postprocess_pipeline", "1.5.0", "add_stage")
    return _add_function("call_postprocess_pipeline", postprocess_fun, args, 0, "Postprocess")


def _add_function(
    name: str,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    batch_size: int | None,
    tag: str,
) -> Any:
    collector, draft, outputs_count = _begin(name, args)
    if not inspect.isroutine(function):
        raise RuntimeError(
            f"Check failed in method '{draft.name}', the first parameter of {name} must be "
            f"function, now is {type(function)}"
        )
    stage = function_stage(collector, draft.name, function, args, outputs_count, batch_size, tag)
    return _as_returned(draft.append(stage))


def _begin(name: str, args: tuple[Any, ...]) -> tuple[Collector, MethodDraft, int]:
    """Check that `name` may be called now; returns also how many outputs its stage has."""
    collector = current_collector(name)
    draft = collector.draft
    if draft is None:
        raise RuntimeError(
            f"{name} can only be called in a function that is decorated by register_method"
        )
    outputs_count = _outputs_counts(draft).get(name)
    if outputs_count is None:
        raise _too_complex(draft)
    _check_order(draft, name)
    draft.legacy_calls.append(name)
    if not all(draft.knows(arg) for arg in args):
        raise RuntimeError(ARGS_TEXT)
    return collector, draft, outputs_count


def _check_order(draft: MethodDraft, name: str) -> None:
    kind = _KINDS[name]
    for earlier in draft.legacy_calls:
        if _KINDS[earlier] == kind:
            text = f"{kind} should not be invoked more than once"
        elif _ORDER.index(_KINDS[earlier]) > _ORDER.index(kind):
            text = f"{_KINDS[earlier]} should be invoked after {name}"
        else:
            continue
        raise RuntimeError(f"Check failed in method '{draft.name}', {text}")
    if kind == _ORDER[-1] and "call_servable" not in draft.legacy_calls:
        raise RuntimeError(
            f"Check failed in method '{draft.name}', {kind} should be invoked after call_servable"
        )


# ---------------------------------------------------------------- source of the method


def _outputs_counts(draft: MethodDraft) -> dict[str, int]:
    """Outputs of each deprecated call in the method's source, by the number of its targets."""
    counts: dict[str, int] = {}
    complex_found = False
    for statement in _body(draft):
        calls = [node for node in ast.walk(statement) if isinstance(node, ast.Call)]
        name = _called_name(calls[0]) if len(calls) == 1 else ""
        if isinstance(statement, ast.Return):
            width = draft.outputs_count
        elif isinstance(statement, ast.Assign):
            width = _targets_count(statement)
        else:
            width = 0
        if name in _KINDS and getattr(statement, "value", None) is calls[0] and width > 0:
            counts.setdefault(name, width)
        elif calls or not isinstance(statement, ast.Assign | ast.Return | ast.Expr | ast.Pass):
            complex_found = True
    if complex_found:
        raise _too_complex(draft)
    return counts


def _body(draft: MethodDraft) -> list[ast.stmt]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(draft.function)))
    except (OSError, TypeError, SyntaxError) as error:
        raise RuntimeError(
            f"Failed to parse method '{draft.name}', its source is not available: {error}"
        ) from error
    (definition,) = tree.body
    if not isinstance(definition, ast.FunctionDef):
        raise _too_complex(draft)
    return definition.body


def _targets_count(statement: ast.Assign) -> int:
    """How many names the value is assigned to; 0 if that cannot be said."""
    target = statement.targets[0]
    if isinstance(target, ast.Tuple | ast.List):
        starred = any(isinstance(item, ast.Starred) for item in target.elts)
        return 0 if starred else len(target.elts)
    return 1


def _called_name(call: ast.Call) -> str:
    """`f` of `f(…)` and of `register.f(…)`."""
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _too_complex(draft: MethodDraft) -> RuntimeError:
    source = inspect.getsource(draft.function)
    names = ", ".join(name for name in _KINDS if f"{name}(" in source)
    return RuntimeError(
        f"Failed to parse method '{draft.name}', complex statements such as conditions and loops "
        f"are not supported in register_method when the interface '{names}' is used, use "
        f"'add_stage' to replace '{names}', which is allowed anywhere in a method"
    )


def _as_returned(outputs: tuple[Placeholder, ...]) -> Placeholder | tuple[Placeholder, ...]:
    return outputs[0] if len(outputs) == 1 else outputs
