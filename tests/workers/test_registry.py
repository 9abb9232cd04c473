"""What `servable_config.py` may declare, and the text for each thing it may not."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from protocol.values import MethodSignature
from workers.servable.declarations import (
    BuiltinStage,
    FunctionStage,
    ModelStage,
    Placeholder,
    StageCounts,
)
from workers.servable.model_call import Model
from workers.servable.model_context import AscendDeviceInfo, Context, GpuOptions
from workers.servable.registry import add_stage, collecting, declare_model, register_method

ARGS_TEXT = (
    "Each value of parameter *args is a placeholder for data and must come from the method inputs "
    "or the outputs of add_stage"
)
RETURNS_TEXT = (
    "Each value returned is a placeholder for data and must come from the method inputs or the "
    "outputs of add_stage"
)


def double(x: Any) -> Any:
    return x * 2


def join(x: Any, y: Any) -> Any:
    return x + y


def batched(instances: Any) -> Any:
    return instances


def exactly(text: str) -> str:
    return f"^{re.escape(text)}$"


def refuse(text: str, declare: Callable[[], object]) -> None:
    """Assert that declaring fails with exactly this text."""
    with collecting("s"), pytest.raises(RuntimeError, match=exactly(text)):
        declare()


# ---------------------------------------------------------------- a whole servable


def test_a_servable_is_collected_with_its_models_methods_and_stages() -> None:
    with collecting("add") as declaration:
        model = declare_model(
            model_file="tensor_add.mindir", model_format="MindIR", with_batch_dim=False
        )

        @register_method(output_names=["y"])
        def add_common(x1, x2):  # type: ignore[no-untyped-def]
            a, b = add_stage(join, x1, x2, outputs_count=2, tag="Pre")
            c = add_stage(model, a, b, outputs_count=1)
            return add_stage("argmax_cpp", c, outputs_count=1)

    assert list(declaration.models) == ["tensor_add.mindir"]
    assert declaration.models["tensor_add.mindir"].files == ("tensor_add.mindir",)
    assert declaration.models["tensor_add.mindir"].format == "mindir"
    assert declaration.models["tensor_add.mindir"].with_batch_dim is False
    assert declaration.model_counts == {"tensor_add.mindir": StageCounts(2, 1)}
    assert declaration.signature("add_common") == MethodSignature(
        "add", "add_common", ("x1", "x2"), ("y",)
    )
    first, second, third = declaration.methods["add_common"].stages
    assert isinstance(first, FunctionStage)
    assert (first.function, first.name, first.tag, first.batch_size) == (
        join,
        "add.join",
        "Pre",
        None,
    )
    assert isinstance(second, ModelStage)
    assert (second.model_key, second.tag) == ("tensor_add.mindir", "Model 'tensor_add.mindir'")
    assert isinstance(third, BuiltinStage)
    assert [(p.stage, p.index) for p in first.inputs] == [(0, 0), (0, 1)]
    assert [(p.stage, p.index) for p in second.inputs] == [(1, 0), (1, 1)]
    assert [(p.stage, p.index) for p in third.inputs] == [(2, 0)]
    assert [(p.stage, p.index) for p in declaration.methods["add_common"].returns] == [(3, 0)]


def test_the_decorator_returns_the_undecorated_function() -> None:
    def echo(x):  # type: ignore[no-untyped-def]
        return x

    with collecting("s"):
        assert register_method("y")(echo) is echo


def test_a_method_without_stages_and_with_defaults_echoes_all_its_inputs() -> None:
    with collecting("s") as declaration:

        @register_method(["a", "b"])
        def echo(x, y=3):  # type: ignore[no-untyped-def]
            return y, x

    method = declaration.methods["echo"]
    assert method.inputs == ("x", "y")
    assert method.stages == ()
    assert [(p.stage, p.index) for p in method.returns] == [(0, 1), (0, 0)]


def test_ordinary_python_in_a_method_body_wires_stages() -> None:
    with collecting("s") as declaration:

        @register_method("y")
        def three_times(x):  # type: ignore[no-untyped-def]
            for _ in range(3):
                x = add_stage(double, x, outputs_count=1)
            return x

    assert len(declaration.methods["three_times"].stages) == 3


def test_declaring_outside_of_an_import_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"declare_model can only be called while servable_c"):
        declare_model("a.mindir", "MindIR")
    with pytest.raises(
        RuntimeError, match=r"add_stage can only be called while servable_config.py"
    ):
        add_stage(double, outputs_count=1)


def test_a_servable_without_methods_is_incomplete() -> None:
    with collecting("s") as declaration:
        declare_model("a.mindir", "MindIR")
    with pytest.raises(RuntimeError, match=exactly("There is no method registered for servable")):
        declaration.check_complete()


# ---------------------------------------------------------------- declare_model


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("MindIR", "mindir"),
        ("MINDIR_LITE", "mindir_lite"),
        ("MindIR_Opt", "mindir_lite"),
        ("om", "om"),
    ],
)
def test_model_formats_ignore_case(given: str, kept: str) -> None:
    with collecting("s") as declaration:
        declare_model("a.mindir", given)
    assert declaration.models["a.mindir"].format == kept


def test_another_model_format_is_refused() -> None:
    refuse(
        "model format can only be OM, MindIR or MindIR_Lite, case ignored",
        lambda: declare_model("a.onnx", "ONNX"),
    )


def test_several_files_are_one_model_with_one_key() -> None:
    with collecting("s") as declaration:
        handle = declare_model(["a.mindir", "b.mindir"], "MindIR")
    assert handle.model_key == "a.mindir;b.mindir"
    assert declaration.models["a.mindir;b.mindir"].files == ("a.mindir", "b.mindir")


def test_a_file_that_another_model_uses_is_refused() -> None:
    def declare() -> None:
        declare_model("a.mindir", "MindIR")
        declare_model(["b.mindir", "a.mindir"], "MindIR")

    refuse(
        "Declare model [b.mindir, a.mindir] failed, model file 'a.mindir' has already been used",
        declare,
    )


@pytest.mark.parametrize("files", ["", [], ["a", ""], ["a", "a"], 3, [3]])
def test_bad_model_files_are_refused(files: Any) -> None:
    with collecting("s"), pytest.raises(RuntimeError, match="model_file"):
        declare_model(files, "MindIR")


def test_with_batch_dim_is_a_bool() -> None:
    refuse(
        "Parameter 'with_batch_dim' should be bool, but actually <class 'int'>",
        lambda: declare_model("a.mindir", "MindIR", with_batch_dim=1),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("numbers", [-1, [0, 0], True, "0", [0.5]])
def test_bad_without_batch_dim_inputs_are_refused(numbers: Any) -> None:
    with collecting("s"), pytest.raises(RuntimeError, match="without_batch_dim_inputs"):
        declare_model("a.mindir", "MindIR", without_batch_dim_inputs=numbers)


def test_without_batch_dim_inputs_may_be_one_number() -> None:
    with collecting("s") as declaration:
        declare_model("a.mindir", "MindIR", without_batch_dim_inputs=1)
    assert declaration.models["a.mindir"].without_batch_dim_inputs == (1,)


def test_batch_sizes_are_kept_ascending_and_must_be_positive() -> None:
    with collecting("s") as declaration:
        declare_model("a.mindir", "MindIR", batch_sizes=[8, 1, 4])
        declare_model("b.mindir", "MindIR")
    assert declaration.models["a.mindir"].batch_sizes == (1, 4, 8)
    assert declaration.models["b.mindir"].batch_sizes is None
    refuse(
        "The item value '0' in parameter 'batch_sizes' should be >= 1",
        lambda: declare_model("a.mindir", "MindIR", batch_sizes=[0]),
    )


def test_a_context_of_another_type_is_refused() -> None:
    refuse(
        "Parameter 'context' should be Context, but gotten <class 'dict'>",
        lambda: declare_model("a.mindir", "MindIR", context={}),  # type: ignore[arg-type]
    )


def test_options_of_another_type_are_refused() -> None:
    refuse(
        "Parameter 'options' should be None, GpuOptions or AclOptions, but gotten <class 'str'>",
        lambda: declare_model("a.mindir", "MindIR", options="x"),  # type: ignore[arg-type]
    )


def test_options_are_ignored_beside_a_context_and_are_a_context_alone() -> None:
    with pytest.warns(FutureWarning, match="'GpuOptions' is deprecated from version 1.6.0"):
        options = GpuOptions(precision_mode="fp16")
    context = Context()
    context.append_device_info(AscendDeviceInfo(precision_mode="force_fp16"))
    with collecting("s") as declaration:
        declare_model("a.mindir", "MindIR", options=options, context=context)
        declare_model("b.mindir", "MindIR", options=options)
    assert declaration.models["a.mindir"].context is context
    kept = declaration.models["b.mindir"].context
    assert kept is not None
    assert kept.device_options("GPU") == {"precision_mode": "fp16"}
    assert kept.device_options("CPU") == {}


# ---------------------------------------------------------------- register_method


def test_a_method_is_called_like_its_function_and_its_inputs_like_the_parameters() -> None:
    def classify(image, size):  # type: ignore[no-untyped-def]
        return size, image

    with collecting("s") as declaration:
        register_method(("label", "score"))(classify)
    assert declaration.signature("classify") == MethodSignature(
        "s", "classify", ("image", "size"), ("label", "score")
    )


def test_a_method_needs_no_source_that_can_be_read() -> None:
    scope: dict[str, Any] = {"add_stage": add_stage, "double": double}
    exec("def made(x): return add_stage(double, x, outputs_count=1)", scope)
    with collecting("s") as declaration:
        register_method("y")(scope["made"])
    assert len(declaration.methods["made"].stages) == 1


def test_a_method_name_can_be_registered_once() -> None:
    def declare() -> None:
        register_method("y")(double)
        register_method("y")(double)

    def double(x):  # type: ignore[no-untyped-def]
        return x

    refuse("Method double has been registered more than once.", declare)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda *xs: xs, "'<lambda>' input xs cannot be VAR_POSITIONAL !"),
        (lambda x, **kw: x, "'<lambda>' input kw cannot be VAR_KEYWORD !"),
        (lambda x, *, k: x, "'<lambda>' input k cannot be KEYWORD_ONLY !"),
    ],
)
def test_a_method_takes_named_positional_inputs_only(
    function: Callable[..., Any], text: str
) -> None:
    refuse(text, lambda: register_method("y")(function))


def test_a_method_returns_as_many_values_as_it_names() -> None:
    refuse(
        "Method return output size 2 not match registered 1",
        lambda: register_method("y")(lambda x: (x, x)),
    )


@pytest.mark.parametrize(
    "function",
    [lambda x: None, lambda x: 1, lambda x: (x, 1), lambda x: (1, x, x), lambda x: "xx"],
)
def test_a_method_returns_placeholders_only_and_this_is_checked_before_the_count(
    function: Callable[..., Any],
) -> None:
    refuse(RETURNS_TEXT, lambda: register_method(["a", "b"])(function))


def test_a_placeholder_of_another_method_is_refused() -> None:
    kept: list[Placeholder] = []

    def declare() -> None:
        register_method("y")(lambda x: kept.append(x) or x)

        @register_method("y")
        def other(x):  # type: ignore[no-untyped-def]
            return kept[0]

    refuse(RETURNS_TEXT, declare)


@pytest.mark.parametrize("names", ["", [], ["a", "a"], ["a", 1], None])
def test_bad_output_names_are_refused(names: Any) -> None:
    with collecting("s"), pytest.raises(RuntimeError, match="output_names"):
        register_method(names)(double)


def test_a_method_whose_body_raises_is_not_registered_and_the_next_one_is() -> None:
    def broken(x):  # type: ignore[no-untyped-def]
        raise KeyError("x")

    with collecting("s") as declaration:
        with pytest.raises(KeyError):
            register_method("y")(broken)
        register_method("y")(double_once)
    assert list(declaration.methods) == ["double_once"]


def double_once(x: Any) -> Any:
    return add_stage(double, x, outputs_count=1)


# ---------------------------------------------------------------- add_stage


def stages(*adds: Callable[[Any], Any]) -> Callable[[], None]:
    """Declares one method per given body, each with the one input `x`."""

    def declare() -> None:
        for number, add in enumerate(adds):

            def body(x, add=add):  # type: ignore[no-untyped-def]
                add(x)
                return x

            def method(x):  # type: ignore[no-untyped-def]
                return body(x)

            method.__name__ = f"m{number}"
            register_method("y")(method)

    return declare


def test_stage_inputs_are_placeholders_only() -> None:
    refuse(ARGS_TEXT, stages(lambda x: add_stage(join, x, 3, outputs_count=1)))


def test_add_stage_outside_of_a_method_is_refused() -> None:
    refuse(
        "add_stage can only be called in a function that is decorated by register_method",
        lambda: add_stage(double, outputs_count=1),
    )


def test_python_names_the_placeholder_when_one_output_is_unpacked() -> None:
    def method(x):  # type: ignore[no-untyped-def]
        a, _b = add_stage(double, x, outputs_count=1)
        return a

    text = "cannot unpack non-iterable _TensorDef object"
    with collecting("s"), pytest.raises(TypeError, match=text):
        register_method("y")(method)


def test_several_outputs_are_a_tuple() -> None:
    def method(x):  # type: ignore[no-untyped-def]
        a, _b = add_stage(double, x, outputs_count=3)
        return a

    text = r"too many values to unpack \(expected 2\)"
    with collecting("s"), pytest.raises(ValueError, match=text):
        register_method("y")(method)


def test_a_function_takes_as_many_arguments_as_the_stage_has_inputs() -> None:
    refuse(
        "function join input args count 2 not match the count 1 registered in method",
        stages(lambda x: add_stage(join, x, outputs_count=1)),
    )


def test_a_batch_function_takes_one_argument_whatever_its_inputs_count() -> None:
    with collecting("s") as declaration:
        stages(lambda x: add_stage(batched, x, x, outputs_count=1, batch_size=4))()
    (stage,) = declaration.methods["m0"].stages
    assert isinstance(stage, FunctionStage)
    assert stage.batch_size == 4
    refuse(
        "function join input args count 2 not match the count 1 registered in method",
        stages(lambda x: add_stage(join, x, x, outputs_count=1, batch_size=4)),
    )


def test_a_variadic_function_takes_any_count() -> None:
    def total(*items: Any) -> Any:
        return sum(items)

    with collecting("s") as declaration:
        stages(lambda x: add_stage(total, x, x, x, outputs_count=1))()
    assert len(declaration.methods["m0"].stages[0].inputs) == 3


@pytest.mark.parametrize(
    ("batch_size", "text"),
    [
        (-1, "Parameter 'batch_size' should be >= 0"),
        ("1", "Parameter 'batch_size' should be int, but actually <class 'str'>"),
        (True, "Parameter 'batch_size' should be int, but actually <class 'bool'>"),
    ],
)
def test_a_bad_batch_size_is_refused(batch_size: Any, text: str) -> None:
    refuse(text, stages(lambda x: add_stage(batched, x, outputs_count=1, batch_size=batch_size)))


@pytest.mark.parametrize("outputs_count", [0, -1, "1", 1.0])
def test_a_bad_outputs_count_is_refused(outputs_count: Any) -> None:
    add = stages(lambda x: add_stage(double, x, outputs_count=outputs_count))
    with collecting("s"), pytest.raises(RuntimeError, match="outputs_count"):
        add()


@pytest.mark.parametrize("tag", ["", 5])
def test_a_bad_tag_is_refused(tag: Any) -> None:
    with collecting("s"), pytest.raises(RuntimeError, match="tag"):
        stages(lambda x: add_stage(double, x, outputs_count=1, tag=tag))()


def test_something_that_is_no_stage_is_refused() -> None:
    refuse(
        "Check failed in method 'm0', the parameter 'stage' of add_stage must be function or "
        "Model returned by declare_model, now is <class 'int'>",
        stages(lambda x: add_stage(5, x, outputs_count=1)),  # type: ignore[arg-type]
    )


def test_a_model_made_by_hand_is_refused() -> None:
    def declare() -> None:
        declare_model("a.mindir", "MindIR")
        stages(lambda x: add_stage(Model("a.mindir"), x, outputs_count=1))()

    refuse(
        "Check failed in method 'm0', the parameter 'stage' of add_stage must be function or "
        "Model returned by declare_model, and ensure that interface 'declare_model' can take "
        "effect when importing servable_config.py by the serving server",
        declare,
    )


def test_inputs_of_a_function_agree_in_all_its_stages() -> None:
    refuse(
        "Stage function 's.batched' inputs count 2 not match last registered count 1, method "
        "name 'm1'",
        stages(
            lambda x: add_stage(batched, x, outputs_count=1, batch_size=2),
            lambda x: add_stage(batched, x, x, outputs_count=1, batch_size=2),
        ),
    )


def test_outputs_of_a_function_agree_in_all_its_stages() -> None:
    refuse(
        "Stage function 's.double' outputs count 2 not match last registered count 1, method "
        "name 'm1'",
        stages(
            lambda x: add_stage(double, x, outputs_count=1),
            lambda x: add_stage(double, x, outputs_count=2),
        ),
    )


def test_batch_mode_of_a_function_agrees_in_all_its_stages() -> None:
    refuse(
        "Failed to add stage function s.double: parameter 'batch_size' in multiple 'add_stage' "
        "should be enabled or disabled consistently",
        stages(
            lambda x: add_stage(double, x, outputs_count=1),
            lambda x: add_stage(double, x, outputs_count=1, batch_size=0),
        ),
    )


def test_two_functions_of_one_name_stay_two_functions() -> None:
    with collecting("s") as declaration:
        stages(
            lambda x: add_stage(lambda a: a, x, outputs_count=1),
            lambda x: add_stage(lambda a, b: (a, b), x, x, outputs_count=2),
        )()
    first, second = (declaration.methods[name].stages[0] for name in ("m0", "m1"))
    assert isinstance(first, FunctionStage)
    assert isinstance(second, FunctionStage)
    assert first.name == second.name == "s.<lambda>"
    assert first.function is not second.function


@pytest.mark.parametrize(
    ("inputs_count", "outputs_count", "text"),
    [
        (2, 1, "RegisterInputOutputInfo failed, inputs count 2 not match old count 1, model: a"),
        (1, 3, "RegisterInputOutputInfo failed, outputs count 3 not match old count 1, model: a"),
    ],
)
def test_counts_of_a_model_agree_in_all_its_stages(
    inputs_count: int, outputs_count: int, text: str
) -> None:
    def declare() -> None:
        model = declare_model("a", "MindIR")
        stages(
            lambda x: add_stage(model, x, outputs_count=1),
            lambda x: add_stage(model, *[x] * inputs_count, outputs_count=outputs_count),
        )()

    refuse(text, declare)


def test_an_unknown_built_in_function_is_refused() -> None:
    refuse(
        "Function 'softmax_cpp' is not defined",
        stages(lambda x: add_stage("softmax_cpp", x, outputs_count=1)),
    )


def test_counts_of_a_built_in_function_are_fixed() -> None:
    refuse(
        "function argmax_cpp input args count 1 not match the count 2 registered in method",
        stages(lambda x: add_stage("argmax_cpp", x, x, outputs_count=1)),
    )
    refuse(
        "function argmax_cpp outputs count 1 not match the count 2 registered in method",
        stages(lambda x: add_stage("argmax_cpp", x, outputs_count=2)),
    )
