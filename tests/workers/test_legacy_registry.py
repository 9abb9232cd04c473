"""The registration functions before MindSpore Serving 1.5: what they wire, and what they refuse.

The methods are written out at module level, because their source is parsed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protocol.values import Failure
from tests.workers.models import FakeModel, floats, run_method, tensor
from workers.servable import legacy_registry as register
from workers.servable.declarations import FunctionStage, ModelDeclaration, ModelStage
from workers.servable.legacy_registry import call_servable
from workers.servable.registry import add_stage, collecting, declare_model, register_method
from workers.stages.executor import Executor
from workers.stages.model_runner import ModelRunner

pytestmark = pytest.mark.filterwarnings("ignore:.*is deprecated from version 1.5.0:FutureWarning")

COMPLEX = "complex statements such as conditions and loops are not supported in register_method"


def halve(x: Any) -> Any:
    if x.sum() < 0:
        raise ValueError("negative")
    return x / np.float32(2), x


def largest(y: Any) -> Any:
    return int(y.argmax())


def pairs(instances: Any) -> Any:
    return [instance[0] for instance in instances]


def full(x):  # type: ignore[no-untyped-def]
    """A docstring does not disturb."""
    a, b = register.call_preprocess(halve, x)
    y = register.call_servable(a, b)
    label = register.call_postprocess(largest, y)
    return label, y


def pipelines(x):  # type: ignore[no-untyped-def]
    x = register.call_preprocess_pipeline(pairs, x)
    y = call_servable(x)
    return register.call_postprocess_pipeline(pairs, y)


def only_model(x):  # type: ignore[no-untyped-def]
    return call_servable(x)


def with_loop(x):  # type: ignore[no-untyped-def]
    for _ in range(2):
        x = call_servable(x)
    return x


def with_condition(x):  # type: ignore[no-untyped-def]
    y = call_servable(x) if x else x
    return y  # noqa: RET504


def with_add_stage(x):  # type: ignore[no-untyped-def]
    y = add_stage(largest, x, outputs_count=1)
    y = call_servable(y)
    return y  # noqa: RET504


def with_other_call(x):  # type: ignore[no-untyped-def]
    y = call_servable(only_model(x))
    return y  # noqa: RET504


def with_star(x):  # type: ignore[no-untyped-def]
    a, *_ = call_servable(x)
    return a


def two_preprocesses(x):  # type: ignore[no-untyped-def]
    x = register.call_preprocess(largest, x)
    x = register.call_preprocess_pipeline(pairs, x)
    return call_servable(x)


def two_servables(x):  # type: ignore[no-untyped-def]
    x = call_servable(x)
    return call_servable(x)


def two_postprocesses(x):  # type: ignore[no-untyped-def]
    x = call_servable(x)
    x = register.call_postprocess(largest, x)
    return register.call_postprocess(largest, x)


def preprocess_behind(x):  # type: ignore[no-untyped-def]
    x = call_servable(x)
    return register.call_preprocess(largest, x)


def postprocess_before(x):  # type: ignore[no-untyped-def]
    x = register.call_postprocess(largest, x)
    return call_servable(x)


def no_servable(x):  # type: ignore[no-untyped-def]
    return register.call_preprocess(largest, x)


def bad_argument(x):  # type: ignore[no-untyped-def]
    return call_servable(3)


def no_function(x):  # type: ignore[no-untyped-def]
    x = register.call_preprocess(3, x)  # type: ignore[arg-type]
    return call_servable(x)


def refuse(method: Callable[..., Any], text: str, models_count: int = 1) -> None:
    """Assert that registering `method` beside so many models fails with exactly this text."""
    with collecting("s"):
        for number in range(models_count):
            declare_model(f"m{number}.mindir", "MindIR")
        with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
            register_method("y")(method)


def test_preprocess_servable_and_postprocess_are_three_stages() -> None:
    with collecting("s") as declaration:
        register.declare_servable("m.mindir", "MindIR", with_batch_dim=False)
        register_method(["label", "y"])(full)
    first, second, third = declaration.methods["full"].stages
    assert isinstance(first, FunctionStage)
    assert (first.function, first.outputs_count, first.batch_size, first.tag) == (
        halve,
        2,
        None,
        "Preprocess",
    )
    assert isinstance(second, ModelStage)
    assert (second.model_key, len(second.inputs), second.outputs_count) == ("m.mindir", 2, 1)
    assert isinstance(third, FunctionStage)
    assert (third.function, third.outputs_count, third.tag) == (largest, 1, "Postprocess")


def test_the_three_stages_run_and_fail_under_their_old_names() -> None:
    with collecting("s") as declaration:
        register.declare_servable("m.mindir", "MindIR", with_batch_dim=False)
        register_method(["label", "y"])(full)
    model = FakeModel([tensor(2), tensor(2)], [tensor(2)])
    runner = ModelRunner(
        ModelDeclaration("m.mindir", ("m.mindir",), "mindir", with_batch_dim=False), model
    )
    good, bad = run_method(
        Executor(declaration, {"m.mindir": runner}), "full", [(floats(2, 4),), (floats(-2, -4),)]
    )
    assert [value.tolist() for value in good] == [1, [3.0, 6.0]]  # type: ignore[union-attr]
    assert bad == Failure(
        3,
        "Call Preprocess Failed, method: 'full', stage index(begin with 1): 1, error msg: negative",
    )


def test_pipeline_functions_take_batches_as_large_as_the_model() -> None:
    with collecting("s") as declaration:
        declare_model("m.mindir", "MindIR")
        register_method("y")(pipelines)
    stages = declaration.methods["pipelines"].stages
    assert [getattr(stage, "batch_size", "model") for stage in stages] == [0, "model", 0]


def test_a_returned_call_has_as_many_outputs_as_the_method() -> None:
    with collecting("s") as declaration:
        declare_model("m.mindir", "MindIR")
        register_method(["a", "b"])(only_model)
    assert declaration.methods["only_model"].stages[0].outputs_count == 2


@pytest.mark.parametrize(
    "method", [with_loop, with_condition, with_add_stage, with_other_call, with_star]
)
def test_anything_but_plain_assignments_is_refused(method: Callable[..., Any]) -> None:
    refuse(
        method,
        f"Failed to parse method '{method.__name__}', {COMPLEX} when the interface "
        "'call_servable' is used, use 'add_stage' to replace 'call_servable', which is allowed "
        "anywhere in a method",
    )


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (
            two_preprocesses,
            "call_preprocess or call_preprocess_pipeline should not be invoked more than once",
        ),
        (two_servables, "call_servable should not be invoked more than once"),
        (
            two_postprocesses,
            "call_postprocess or call_postprocess_pipeline should not be invoked more than once",
        ),
        (preprocess_behind, "call_servable should be invoked after call_preprocess"),
        (
            postprocess_before,
            "call_postprocess or call_postprocess_pipeline should be invoked after call_servable",
        ),
    ],
)
def test_the_order_is_preprocess_servable_postprocess_each_at_most_once(
    method: Callable[..., Any], text: str
) -> None:
    refuse(method, f"Check failed in method '{method.__name__}', {text}")


def test_the_model_must_be_called() -> None:
    refuse(no_servable, "Not find the invoke of 'call_servable'")


def test_exactly_one_model_must_be_declared() -> None:
    refuse(
        only_model,
        "There is no model declared, you can use declare_model to declare models.",
        models_count=0,
    )
    refuse(
        only_model,
        "There are more than one servable declared when the interface 'call_servable' is used, "
        "use 'add_stage' to replace 'call_servable'",
        models_count=2,
    )


def test_inputs_are_placeholders_and_stages_are_functions() -> None:
    refuse(
        bad_argument,
        "Each value of parameter *args is a placeholder for data and must come from the method "
        "inputs or the outputs of add_stage",
    )
    refuse(
        no_function,
        "Check failed in method 'no_function', the first parameter of call_preprocess must be "
        "function, now is <class 'int'>",
    )


def test_a_method_without_source_is_refused() -> None:
    scope: dict[str, Any] = {"call_servable": call_servable}
    exec("def sourceless(x): return call_servable(x)", scope)
    with collecting("s"):
        declare_model("m.mindir", "MindIR")
        text = "Failed to parse method 'sourceless', its source is not available"
        with pytest.raises(RuntimeError, match=text):
            register_method("y")(scope["sourceless"])


def test_a_call_outside_of_a_method_is_refused() -> None:
    text = "call_servable can only be called in a function that is decorated by register_method"
    with collecting("s"), pytest.raises(RuntimeError, match=text):
        call_servable()


@pytest.mark.filterwarnings("default")
def test_each_call_warns_with_its_replacement() -> None:
    text = (
        r"^'{}' is deprecated from version 1\.5\.0 and will be removed in a future version, use "
        r"'{}' instead\.$"
    )
    with collecting("s"):
        with pytest.warns(FutureWarning, match=text.format("declare_servable", "declare_model")):
            register.declare_servable("m.mindir", "MindIR")
        with pytest.warns(FutureWarning, match=text.format("call_servable", "add_stage")) as seen:
            register_method("y")(only_model)
    assert [warning.filename for warning in seen] == [__file__]


def declare_in_old_words(outputs: list[str], method: Callable[..., Any]) -> None:
    with collecting("s"):
        register.declare_servable("m.mindir", "MindIR")
        register_method(outputs)(method)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(
    ("method", "outputs", "names"),
    [
        (full, ["label", "y"], ["call_preprocess", "call_servable", "call_postprocess"]),
        (
            pipelines,
            ["y"],
            ["call_preprocess_pipeline", "call_servable", "call_postprocess_pipeline"],
        ),
    ],
)
def test_all_names_of_releases_before_1_5_warn(
    method: Callable[..., Any], outputs: list[str], names: list[str]
) -> None:
    with pytest.warns(FutureWarning) as seen:
        declare_in_old_words(outputs, method)
    assert [str(warning.message).split("'")[1::2] for warning in seen] == [
        ["declare_servable", "declare_model"],
        *([name, "add_stage"] for name in names),
    ]
