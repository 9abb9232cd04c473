"""What is known of a method's tensors before it is called."""

from __future__ import annotations

from typing import Any

from protocol.values import InstanceSpec, MethodTensors
from tests.workers.models import FakeModel, named_method, runner, tensor
from workers.servable.registry import add_stage, collecting, declare_model, register_method
from workers.stages.method_tensors import method_tensors

ROW = InstanceSpec("float32", (2,))
SCALAR = InstanceSpec("int32", ())


def known(body: Any, inputs: str, outputs: str, model: FakeModel, **declared: Any) -> MethodTensors:
    """What is known of a method `m` whose body gets the model and its inputs."""
    names = outputs.split()
    with collecting("s") as declaration:
        declared_model = declare_model("m.mindir", "MindIR", **declared)
        method = named_method("m", inputs.split(), lambda *values: body(declared_model, *values))
        register_method(names)(method)
    loaded = runner(model, **declared)
    return method_tensors(declaration.methods["m"], {"m.mindir": loaded})


def pair(size: int = 4) -> FakeModel:
    return FakeModel(
        [tensor(size, 2), tensor(size, dtype="int32")], [tensor(size, 2), tensor(size, 3)]
    )


def straight(model: Any, x: Any, n: Any) -> Any:
    return add_stage(model, x, n, outputs_count=2)


def test_values_of_a_model_are_known_without_its_batch_dimension() -> None:
    assert known(straight, "x n", "y z", pair()) == MethodTensors(
        True, (ROW, SCALAR), (ROW, InstanceSpec("float32", (3,))), 4
    )


def test_a_model_without_batch_dimension_is_known_as_it_is() -> None:
    assert known(straight, "x n", "y z", pair(), with_batch_dim=False) == MethodTensors(
        False,
        (InstanceSpec("float32", (4, 2)), InstanceSpec("int32", (4,))),
        (InstanceSpec("float32", (4, 2)), InstanceSpec("float32", (4, 3))),
        1,
    )


def test_an_input_without_batch_dimension_keeps_its_whole_shape() -> None:
    assert known(straight, "x n", "y z", pair(), without_batch_dim_inputs=(1,)).inputs == (
        ROW,
        InstanceSpec("int32", (4,)),
    )


def test_what_python_takes_or_gives_is_not_known() -> None:
    def mixed(model: Any, text: Any, n: Any) -> Any:
        x = add_stage(lambda value: value, text, outputs_count=1, tag="read")
        y, _ = add_stage(model, x, n, outputs_count=2)
        label = add_stage(lambda value: value, y, outputs_count=1, tag="name")
        return label, n, y

    assert known(mixed, "text n", "label n y", pair()) == MethodTensors(
        True, (None, SCALAR), (None, SCALAR, ROW), 4
    )


def test_behind_a_python_stage_instances_can_be_put_together_for_any_model() -> None:
    def behind(model: Any, text: Any) -> Any:
        x, n = add_stage(lambda value: (value, value), text, outputs_count=2, tag="read")
        return add_stage(model, x, n, outputs_count=2)

    assert known(behind, "text", "y z", pair(), with_batch_dim=False).is_batched


def test_an_input_that_a_model_takes_in_two_forms_is_not_known() -> None:
    model = FakeModel([tensor(4, 2), tensor(4, 2, 1)], [tensor(4, 2)])

    def twice(model: Any, x: Any) -> Any:
        return add_stage(model, x, x, outputs_count=1)

    assert known(twice, "x", "y", model).inputs == (None,)


def test_a_method_of_python_alone_has_no_largest_batch() -> None:
    def python(_: Any, x: Any) -> Any:
        return add_stage(lambda value: value, x, outputs_count=1, tag="same")

    assert known(python, "x", "y", pair()) == MethodTensors(True, (None,), (None,), 0)
