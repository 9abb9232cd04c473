"""`Model.call` inside Python stages: its forms, and the text for each wrong call."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from protocol.values import Failure, Result
from tests.workers.models import FakeModel, floats, named_method, run_method, tensor, total
from workers.backends.base import BackendError
from workers.servable.declarations import ModelDeclaration
from workers.servable.model_call import Model
from workers.servable.registry import add_stage, collecting, declare_model, register_method
from workers.stages.executor import Executor
from workers.stages.model_runner import ModelRunner

FRAME = "Call Function 's.stage' Failed, method: 'm', stage index(begin with 1): 1, error msg: "


def run_stage(
    stage: Callable[[Any], Any], model: FakeModel, key: str = "K", **declared: Any
) -> tuple[Result, Executor]:
    """Run a stage function (of the input 1.0) beside a declared model `key`."""
    with collecting("s") as declaration:
        declare_model(key, "MindIR", **declared)
        stage.__name__ = "stage"
        body = named_method("m", ["x"], lambda x: add_stage(stage, x, outputs_count=1))
        register_method("y")(body)
    runner = ModelRunner(ModelDeclaration(key, (key,), "mindir", **declared), model)
    executor = Executor(declaration, {key: runner})
    (result,) = run_method(executor, "m", [(np.array(1.0),)])
    return result, executor


def pair(compute: Any = total) -> FakeModel:
    """y = x1 + x2 of shape [2], without batch dimension in the test's declarations."""
    return FakeModel([tensor(2), tensor(2)], [tensor(2)], compute)


def fail_with(call: Callable[[Model], object], model: FakeModel | None = None) -> str:
    """The text that a stage gets from a wrong call of the model `K`."""

    def stage(x: Any) -> Any:
        call(Model("K"))
        return x

    result, _ = run_stage(stage, model or pair(), with_batch_dim=False)
    assert isinstance(result, Failure)
    assert result.code == 3
    assert result.message.startswith(FRAME)
    return result.message.removeprefix(FRAME)


def test_one_instance_gives_its_single_output() -> None:
    def stage(x: Any) -> Any:
        y = Model("K").call(floats(1, 2), floats(3, 4))
        assert isinstance(y, np.ndarray)
        return y

    result, _ = run_stage(stage, pair(), with_batch_dim=False)
    assert not isinstance(result, Failure)
    assert result[0].tolist() == [4.0, 6.0]  # type: ignore[union-attr]


def test_one_instance_of_several_outputs_gives_a_tuple() -> None:
    seen: list[Any] = []
    model = FakeModel([tensor(1)], [tensor(1), tensor(1)], lambda a: [a[0], -a[0]])

    def stage(x: Any) -> Any:
        seen.append(Model("K").call(floats(5)))
        return x

    run_stage(stage, model, with_batch_dim=False)
    assert isinstance(seen[0], tuple)
    assert [array.tolist() for array in seen[0]] == [[5.0], [-5.0]]


@pytest.mark.parametrize("form", [list, tuple])
def test_several_instances_give_a_tuple_of_output_tuples_in_one_batch(form: Any) -> None:
    seen: list[Any] = []
    model = FakeModel([tensor(4, 1)], [tensor(4, 1)])

    def stage(x: Any) -> Any:
        seen.append(Model("K").call(form([form([floats(5)]), form([floats(6)])])))
        return x

    run_stage(stage, model)
    assert isinstance(seen[0], tuple)
    assert [tuple(array.tolist() for array in outputs) for outputs in seen[0]] == [
        ([5.0],),
        ([6.0],),
    ]
    assert len(model.runs) == 1


def test_a_subgraph_is_called_by_its_number() -> None:
    seen: list[Any] = []
    model = FakeModel([[tensor(1)], [tensor(1)]], [[tensor(1)], [tensor(1)]])

    def stage(x: Any) -> Any:
        seen.append(Model("K").call(floats(5), subgraph=1))
        return x

    run_stage(stage, model, with_batch_dim=False)
    assert model.runs == [(1, [[5.0]])]


def test_a_call_without_inputs_is_refused() -> None:
    text = fail_with(lambda model: model.call())
    assert text.startswith("Model(K).call() failed: no inputs provided, ")
    text = fail_with(lambda model: model.call(subgraph=2))
    assert text.startswith("Model(K ,subgraph=2).call() failed: no inputs provided, ")


def test_instances_that_are_no_lists_are_refused() -> None:
    text = fail_with(lambda model: model.call([floats(1, 2), floats(1, 2)]))
    assert text.startswith("Model(K).call() failed: inputs format invalid, ")


def test_no_instances_are_refused() -> None:
    assert fail_with(lambda model: model.call([])) == (
        "Model(K).call() failed: Input instances count is 0"
    )


def test_another_inputs_count_is_refused_with_the_number_of_the_instance() -> None:
    good = [floats(1, 2), floats(1, 2)]
    assert fail_with(lambda model: model.call([good, [floats(1, 2)]])) == (
        "Model(K).call() failed: The inputs count 1 of instance 1 is not equal to the inputs "
        "count 2 of the model"
    )


def test_an_undeclared_model_is_refused() -> None:
    assert fail_with(lambda _: Model("other").call(floats(1))) == (
        "Model(other).call() failed: the model is not declared, ensure that interface "
        "'declare_model' can take effect when importing servable_config.py by the serving server"
    )


def test_a_subgraph_that_is_not_there_is_refused() -> None:
    assert fail_with(lambda model: model.call(floats(1), subgraph=1)) == (
        "Model(K, subgraph=1).call() failed: The model does not have subgraph of index 1, the "
        "subgraph count of the model is 1"
    )


@pytest.mark.parametrize(
    ("subgraph", "text"),
    [
        (-1, "Parameter 'subgraph' should be >= 0"),
        ("0", "Parameter 'subgraph' should be int, but actually <class 'str'>"),
    ],
)
def test_a_bad_subgraph_is_refused(subgraph: Any, text: str) -> None:
    assert fail_with(lambda model: model.call(floats(1), subgraph=subgraph)) == text


def test_size_and_dtype_have_the_texts_of_model_stages() -> None:
    assert fail_with(lambda model: model.call(floats(1, 2), floats(1))) == (
        "Model(K).call() failed: Given model input 1 size 4 not match the size 8 defined in model"
    )
    wrong = np.array([1, 2], np.int32)
    assert fail_with(lambda model: model.call([[wrong, wrong]])) == (
        "Model(K).call() failed: Given model input 0 data type kMSI_Int32 not match the data type "
        "kMSI_Float32 defined in model"
    )


def test_an_input_that_has_no_value_is_refused() -> None:
    assert fail_with(lambda model: model.call(floats(1, 2), None)) == (
        "Model(K).call() failed: Push py task result cause exception: Get illegal result data "
        "with type <class 'NoneType'>"
    )


def test_the_first_bad_instance_fails_the_call_before_the_model_runs() -> None:
    model = pair()
    good = [floats(1, 2), floats(1, 2)]
    fail_with(lambda handle: handle.call([good, [floats(1), floats(1)]]), model)
    assert model.runs == []


def test_a_failing_computation_fails_the_call_and_leaves_its_cause_as_a_fault() -> None:
    def compute(arrays: Any) -> Any:
        raise BackendError("device is gone")

    def stage(x: Any) -> Any:
        return Model("K").call(floats(1, 2), floats(1, 2))

    result, executor = run_stage(stage, pair(compute), with_batch_dim=False)
    assert result == Failure(3, f"{FRAME}Model(K).call() failed: Predict Failed")
    assert [(fault.where, str(fault.error)) for fault in executor.faults] == [
        ("K", "device is gone"),
        ("s.stage", "Model(K).call() failed: Predict Failed"),
    ]


def test_a_user_who_catches_the_error_gets_on() -> None:
    def stage(x: Any) -> Any:
        try:
            return Model("K").call(floats(1))
        except RuntimeError:
            return -1

    result, _ = run_stage(stage, pair(), with_batch_dim=False)
    assert not isinstance(result, Failure)
    assert result[0].item() == -1  # type: ignore[union-attr]


def test_a_batch_function_may_call_the_model_while_it_yields() -> None:
    model = FakeModel([tensor(1)], [tensor(1)])

    def stage(instances: Any) -> Any:
        for (x,) in instances:
            yield Model("K").call(floats(float(x)))

    with collecting("s") as declaration:
        declare_model("K", "MindIR", with_batch_dim=False)
        body = named_method(
            "m", ["x"], lambda x: add_stage(stage, x, outputs_count=1, batch_size=4)
        )
        register_method("y")(body)
    runner = ModelRunner(ModelDeclaration("K", ("K",), "mindir", with_batch_dim=False), model)
    results = run_method(
        Executor(declaration, {"K": runner}), "m", [(np.array(n),) for n in (1, 2)]
    )
    assert [result[0].tolist() for result in results] == [[1.0], [2.0]]  # type: ignore[union-attr]


def test_a_call_outside_of_a_running_stage_is_refused() -> None:
    text = re.escape("Model(K).call() failed: no request is running in this thread")
    with pytest.raises(RuntimeError, match=f"^{text}$"):
        Model("K").call(floats(1))
