"""How methods run: stages in order, instances apart, failures in their texts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from protocol.values import BytesValue, Failure, StringValue
from tests.workers.models import (
    FakeModel,
    execute,
    floats,
    named_method,
    one_stage,
    run_method,
    tensor,
)
from workers.backends.base import BackendError
from workers.servable.declarations import ModelDeclaration, ServableDeclaration
from workers.servable.registry import add_stage, collecting, declare_model, register_method
from workers.stages.executor import FAULTS_MAX, Executor
from workers.stages.model_runner import ModelRunner


def ints(*items: int) -> list[tuple[Any, ...]]:
    """Instances of one int64 scalar each."""
    return [(np.array(item, dtype=np.int64),) for item in items]


def plain(results: Sequence[Any]) -> list[Any]:
    """Results as Python values; failures as they are."""
    return [
        result if isinstance(result, Failure) else tuple(map(to_plain, result))
        for result in results
    ]


def to_plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.text if isinstance(value, StringValue) else bytes(value.content)


def stage_failure(text: str, tag: str, method: str = "m", stage: int = 1) -> Failure:
    return Failure(
        3,
        f"Call {tag} Failed, method: '{method}', stage index(begin with 1): {stage}, "
        f"error msg: {text}",
    )


class Models:
    """Declares models and loads fakes for them."""

    def __init__(self) -> None:
        self.runners: dict[str, ModelRunner] = {}

    def declare(self, file: str, model: FakeModel, **declared: Any) -> Any:
        handle = declare_model(file, "MindIR", **declared)
        self.runners[file] = ModelRunner(
            ModelDeclaration(file, (file,), "mindir", **declared), model
        )
        return handle


def batch_model(size: int, compute: Any = None) -> FakeModel:
    """y = x + 1 on int64, `size` instances a batch."""
    spec = tensor(size, dtype="int64")
    return FakeModel([spec], [spec], compute or (lambda arrays: [arrays[0] + 1]))


# ---------------------------------------------------------------- values


def test_a_method_without_stages_echoes_inputs_with_their_own_shape() -> None:
    with collecting("s") as declaration:
        register_method(["b", "a"])(named_method("m", ["x", "y"], lambda x, y: (y, x)))
    text, blob = StringValue("t", (1,)), BytesValue(b"b", (1,))
    ((first, second),) = execute(declaration, (text, blob))
    assert first is blob
    assert second is text


def test_an_input_that_a_stage_used_is_still_passed_through_as_it_came() -> None:
    with collecting("s") as declaration:

        def body(x: Any, y: Any) -> Any:
            return add_stage(lambda a, b: str(a) + str(b.tolist()), x, y, outputs_count=1), x, y

        register_method(["r", "x", "y"])(named_method("m", ["x", "y"], body))
    ((result, text, blob),) = execute(declaration, (StringValue("t", (1,)), BytesValue(b"b", (1,))))
    assert result == StringValue("t[98]", ())
    assert text == StringValue("t", (1,))
    assert bytes(blob.content) == b"b"
    assert blob.shape == (1,)


def test_functions_see_str_and_arrays_that_they_may_write_to() -> None:
    seen: list[Any] = []

    def look(text: Any, blob: Any, scalar: Any, matrix: Any) -> int:
        seen.append((type(text), blob.dtype.name, scalar.shape, scalar.dtype.name, matrix.shape))
        blob[0] = 1
        matrix[0, 0] = 5
        return 0

    frozen = np.zeros((2, 2), np.float16)
    frozen.flags.writeable = False
    (result,) = execute(
        one_stage(look, "a b c d"),
        (StringValue("t"), BytesValue(b"xy"), np.array(3, np.int32), frozen),
    )
    assert plain([result]) == [(0,)]
    assert seen == [(str, "uint8", (), "int32", (2, 2))]
    assert frozen[0, 0] == 0


def test_values_are_normalised_at_each_stage_boundary() -> None:
    seen: list[Any] = []

    def first(x: Any) -> Any:
        return 5, b"ab", "t", 2.5

    def second(*items: Any) -> int:
        seen.extend(
            item if isinstance(item, str) else (item.dtype.name, item.shape) for item in items
        )
        return 0

    with collecting("s") as declaration:

        def body(x: Any) -> Any:
            outputs = add_stage(first, x, outputs_count=4)
            return add_stage(second, *outputs, outputs_count=1)

        register_method("y")(named_method("m", ["x"], body))
    execute(declaration, *ints(0))
    assert seen == [("int64", ()), ("uint8", (2,)), "t", ("float64", ())]


def test_a_returned_array_is_passed_on_as_the_same_memory() -> None:
    kept: list[Any] = []

    def first(x: Any) -> Any:
        kept.append(np.arange(4))
        return kept[0]

    def second(x: Any) -> Any:
        kept.append(x)
        return x

    with collecting("s") as declaration:

        def body(x: Any) -> Any:
            return add_stage(second, add_stage(first, x, outputs_count=1), outputs_count=1)

        register_method("y")(named_method("m", ["x"], body))
    ((output,),) = execute(declaration, *ints(0))
    assert np.shares_memory(kept[0], kept[1])
    assert np.shares_memory(kept[0], output)


def test_edits_in_place_are_seen_by_later_stages_of_the_same_method_input() -> None:
    def edit(x: Any) -> int:
        x += 1
        return 0

    with collecting("s") as declaration:

        def body(x: Any) -> Any:
            add_stage(edit, x, outputs_count=1)
            add_stage(edit, x, outputs_count=1)
            return add_stage(lambda a: a * 10, x, outputs_count=1)

        register_method("y")(named_method("m", ["x"], body))
    read_only = np.array([1, 2])
    read_only.flags.writeable = False
    assert plain(execute(declaration, (np.array([3, 4]),), (read_only,))) == [
        ([50, 60],),
        ([30, 40],),
    ]
    assert read_only.tolist() == [1, 2]


def test_zero_instances_give_zero_results() -> None:
    assert execute(one_stage(lambda x: x)) == []


# ---------------------------------------------------------------- per-instance functions


def test_an_exception_fails_its_instance_only_with_stage_index_and_function_name() -> None:
    def invert(x: Any) -> float:
        if x == 0:
            raise ValueError("zero has no inverse")
        return float(1 / x)

    assert plain(execute(one_stage(invert), *ints(1, 0, 2))) == [
        (1.0,),
        stage_failure("zero has no inverse", "Function 's.invert'"),
        (0.5,),
    ]


def test_a_tag_replaces_the_name_and_later_stages_count_on() -> None:
    def fail(x: Any) -> Any:
        raise KeyError("k")

    with collecting("s") as declaration:

        def body(x: Any) -> Any:
            x = add_stage(lambda a: a, x, outputs_count=1)
            return add_stage(fail, x, outputs_count=1, tag="Postprocess")

        register_method("y")(named_method("m", ["x"], body))
    assert execute(declaration, *ints(1)) == [stage_failure("'k'", "Postprocess", stage=2)]


def test_a_failed_instance_is_not_seen_by_later_stages() -> None:
    seen: list[int] = []

    def odd_only(x: Any) -> Any:
        if x % 2 == 0:
            raise ValueError("even")
        return x

    def remember(x: Any) -> Any:
        seen.append(int(x))
        return x

    with collecting("s") as declaration:

        def body(x: Any) -> Any:
            return add_stage(remember, add_stage(odd_only, x, outputs_count=1), outputs_count=1)

        register_method("y")(named_method("m", ["x"], body))
    assert plain(execute(declaration, *ints(1, 2, 3))) == [
        (1,),
        stage_failure("even", "Function 's.odd_only'"),
        (3,),
    ]
    assert seen == [1, 3]


@pytest.mark.parametrize("error", [SystemExit(3), GeneratorExit("g"), MemoryError("m")])
def test_whatever_user_code_raises_fails_the_instance_not_the_worker(error: BaseException) -> None:
    def leave(x: Any) -> Any:
        raise error

    assert execute(one_stage(leave), *ints(1)) == [stage_failure(str(error), "Function 's.leave'")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit, SystemExit, AssertionError])
def test_an_exception_of_any_kind_fails_its_instance_and_is_named_if_it_says_nothing(
    error: type[BaseException],
) -> None:
    def fail_at_0(x: Any) -> Any:
        if x == 0:
            raise error
        return x

    failed, passed = execute(one_stage(fail_at_0), *ints(0, 1))
    assert failed == stage_failure(error.__name__, "Function 's.fail_at_0'")
    assert not isinstance(passed, Failure)


def test_an_exception_without_a_usable_text_is_named_by_its_type() -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    def fail(x: Any) -> Any:
        raise SpeechlessError

    assert execute(one_stage(fail), *ints(1)) == [
        stage_failure("SpeechlessError", "Function 's.fail'")
    ]


def test_error_texts_are_valid_unicode_and_bounded() -> None:
    def fail(x: Any) -> Any:
        raise ValueError("\udc80" if x == 0 else "ab" * 10_000)

    surrogate, endless = execute(one_stage(fail), *ints(0, 1))
    assert surrogate == stage_failure("\\udc80", "Function 's.fail'")
    assert endless == stage_failure("ab" * 1024 + "..." + "ab" * 1024, "Function 's.fail'")


def test_a_list_or_tuple_is_always_read_as_the_outputs() -> None:
    assert plain(execute(one_stage(lambda x: [x, x + 1], outputs_count=2), *ints(1))) == [(1, 2)]
    assert plain(execute(one_stage(lambda x: (x,)), *ints(1))) == [(1,)]


def test_a_list_as_one_of_several_outputs_becomes_an_array() -> None:
    assert plain(execute(one_stage(lambda x: ([1, 2], 3), outputs_count=2), *ints(1))) == [
        ([1, 2], 3)
    ]


@pytest.mark.parametrize(
    ("returned", "outputs_count", "number"), [((1, 2), 1, 2), (1, 2, 1), ([], 1, 0)]
)
def test_a_wrong_number_of_outputs_fails_the_instance(
    returned: Any, outputs_count: int, number: int
) -> None:
    def wrong(x: Any) -> Any:
        return returned if x == 0 else [7] * outputs_count

    good, bad = execute(one_stage(wrong, outputs_count=outputs_count), *ints(1, 0))
    assert plain([good]) == [(7,) * outputs_count]
    assert bad == stage_failure(
        f"The outputs number {number} of one instance returned by function 's.wrong' is not equal "
        f"to the outputs number {outputs_count}  registered in method m",
        "Function 's.wrong'",
    )


def test_an_unsupported_result_type_fails_the_instance() -> None:
    def maybe(x: Any) -> Any:
        return {} if x == 0 else x

    assert plain(execute(one_stage(maybe), *ints(0, 1))) == [
        stage_failure(
            "Push py task result cause exception: Get illegal result data with type <class 'dict'>",
            "Function 's.maybe'",
        ),
        (1,),
    ]


def test_a_result_whose_conversion_raises_fails_the_instance() -> None:
    class Broken:
        def asnumpy(self) -> Any:
            raise OSError("device is gone")

    assert execute(one_stage(lambda x: Broken()), *ints(0)) == [
        stage_failure("device is gone", "Function 's.<lambda>'")
    ]


# ---------------------------------------------------------------- batch functions


def test_a_batch_function_gets_tuples_of_instances_up_to_its_size() -> None:
    calls: list[Any] = []

    def double(instances: Any) -> Any:
        calls.append([tuple(int(value) for value in instance) for instance in instances])
        assert isinstance(instances, tuple)
        return [instance[0] * 2 for instance in instances]

    declaration = one_stage(double, batch_size=4)
    assert plain(execute(declaration, *ints(*range(6)))) == [(0,), (2,), (4,), (6,), (8,), (10,)]
    assert calls == [[(0,), (1,), (2,), (3,)], [(4,), (5,)]]


@pytest.mark.parametrize("form", [list, tuple, iter, lambda items: (item for item in items)])
def test_a_batch_function_returns_lists_tuples_iterators_or_generators(form: Any) -> None:
    def pairs(instances: Any) -> Any:
        return form([(x, x + 1) for (x,) in instances])

    declaration = one_stage(pairs, outputs_count=2, batch_size=8)
    assert plain(execute(declaration, *ints(1, 2))) == [(1, 2), (2, 3)]


def test_surplus_results_are_ignored_and_the_generator_is_closed() -> None:
    closed: list[bool] = []

    def endless(instances: Any) -> Any:
        try:
            while True:
                yield 7
        finally:
            closed.append(True)

    assert plain(execute(one_stage(endless, batch_size=2), *ints(1, 2))) == [(7,), (7,)]
    assert closed == [True]


def test_a_generator_that_fails_while_it_is_closed_only_leaves_a_fault() -> None:
    def stubborn(instances: Any) -> Any:
        try:
            yield 7
        finally:
            raise ValueError("never")

    executor = Executor(one_stage(stubborn, batch_size=2), {})
    assert plain(run_method(executor, "m", ints(1))) == [(7,)]
    assert [(fault.where, str(fault.error)) for fault in executor.faults] == [
        ("s.stubborn", "never")
    ]


def test_a_batch_function_that_raises_when_called_fails_all_instances_of_the_call() -> None:
    def fragile(instances: Any) -> Any:
        if any(x == 3 for (x,) in instances):
            raise ValueError("three")
        return [x for (x,) in instances]

    failure = stage_failure("three", "Function 's.fragile'")
    assert plain(execute(one_stage(fragile, batch_size=2), *ints(1, 2, 3, 4, 5))) == [
        (1,),
        (2,),
        failure,
        failure,
        (5,),
    ]


def test_a_generator_that_raises_fails_one_instance_and_is_called_again_with_the_rest() -> None:
    calls: list[int] = []

    def fragile(instances: Any) -> Any:
        calls.append(len(instances))
        for (x,) in instances:
            if x % 2 == 0:
                raise ValueError(f"{x} is even")
            yield x

    assert plain(execute(one_stage(fragile, batch_size=8), *ints(1, 2, 3, 4))) == [
        (1,),
        stage_failure("2 is even", "Function 's.fragile'"),
        (3,),
        stage_failure("4 is even", "Function 's.fragile'"),
    ]
    assert calls == [4, 2]


def test_a_system_exit_in_a_generator_fails_its_instance_only() -> None:
    def leave(instances: Any) -> Any:
        for (x,) in instances:
            if x == 1:
                raise SystemExit("bye")
            yield x

    assert plain(execute(one_stage(leave, batch_size=8), *ints(0, 1, 2))) == [
        (0,),
        stage_failure("bye", "Function 's.leave'"),
        (2,),
    ]


@pytest.mark.parametrize(
    ("returned", "type_text"), [(None, "NoneType"), (7, "int"), (np.arange(3), "numpy.ndarray")]
)
def test_a_batch_function_without_an_iterator_fails_each_instance_with_one_call_each(
    returned: Any, type_text: str
) -> None:
    calls: list[int] = []

    def forgetful(instances: Any) -> Any:
        calls.append(len(instances))
        return returned

    failure = stage_failure(f"'{type_text}' object is not an iterator", "Function 's.forgetful'")
    assert execute(one_stage(forgetful, batch_size=8), *ints(1, 2, 3)) == [failure] * 3
    assert calls == [3, 2, 1]


@pytest.mark.parametrize("form", [list, iter])
def test_fewer_results_than_instances_fail_every_instance_of_the_call(form: Any) -> None:
    def short(instances: Any) -> Any:
        return form([x for (x,) in instances if x != 3])

    failure = stage_failure(
        "The number 1 of instances returned by function 's.short' is not equal to the number 2 of "
        "instances provided to this function.",
        "Function 's.short'",
    )
    assert plain(execute(one_stage(short, batch_size=2), *ints(1, 2, 3, 4))) == [
        (1,),
        (2,),
        failure,
        failure,
    ]


def test_a_result_of_the_wrong_form_fails_its_instance_of_the_batch_only() -> None:
    def mixed(instances: Any) -> Any:
        return [5, None, (1, 2), 6]

    assert plain(execute(one_stage(mixed, batch_size=8), *ints(0, 1, 2, 3))) == [
        (5,),
        stage_failure(
            "Push py task result cause exception: Get illegal result data with type "
            "<class 'NoneType'>",
            "Function 's.mixed'",
        ),
        stage_failure(
            "The outputs number 2 of one instance returned by function 's.mixed' is not equal to "
            "the outputs number 1  registered in method m",
            "Function 's.mixed'",
        ),
        (6,),
    ]


# ---------------------------------------------------------------- models and built-in functions


def test_a_model_stage_runs_once_over_the_batch_and_passes_arrays_on() -> None:
    models = Models()
    model = batch_model(4)
    with collecting("s") as declaration:
        handle = models.declare("a.mindir", model)

        def body(x: Any) -> Any:
            y = add_stage(lambda a: a * 10, x, outputs_count=1)
            y = add_stage(handle, y, outputs_count=1)
            return add_stage(lambda a: -a, y, outputs_count=1)

        register_method("y")(named_method("m", ["x"], body))
    executor = Executor(declaration, models.runners)
    assert plain(run_method(executor, "m", ints(1, 2, 3))) == [(-11,), (-21,), (-31,)]
    assert model.runs == [(0, [[10, 20, 30, 10]])]


def model_executor(compute: Any, size: int = 2) -> Executor:
    """Servable `s` whose method `m` is one model stage."""
    models = Models()
    with collecting("s") as declaration:
        handle = models.declare("a.mindir", batch_model(size, compute))
        body = named_method("m", ["x"], lambda x: add_stage(handle, x, outputs_count=1))
        register_method("y")(body)
    return Executor(declaration, models.runners)


def test_instances_that_do_not_fit_the_model_fail_alone() -> None:
    executor = model_executor(None)
    bad = (floats(1, 2, 3),)
    assert plain(run_method(executor, "m", [*ints(1), bad, *ints(2)])) == [
        (2,),
        Failure(2, "Given model input 0 size 12 not match the size 8 defined in model"),
        (3,),
    ]


def test_a_failing_model_says_predict_failed_and_leaves_its_cause_as_a_fault() -> None:
    def compute(arrays: Any) -> Any:
        raise BackendError("out of device memory")

    executor = model_executor(compute)
    assert run_method(executor, "m", ints(1)) == [Failure(1, "Predict Failed")]
    assert [(fault.where, str(fault.error)) for fault in executor.faults] == [
        ("a.mindir", "out of device memory")
    ]


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RuntimeError("r"), "Serving Error: runtime error occurred: r"),
        (ValueError("v"), "Serving Error: exception occurred: v"),
        (MemoryError(), "Serving Error: malloc memory failed"),
    ],
)
def test_an_exception_that_no_backend_should_raise_fails_the_batch(
    error: Exception, text: str
) -> None:
    def compute(arrays: Any) -> Any:
        raise error

    assert run_method(model_executor(compute), "m", ints(1, 2)) == [Failure(3, text)] * 2


def test_argmax_gives_the_index_of_the_first_maximum_over_the_flattened_array() -> None:
    declaration = one_stage("argmax_cpp")  # type: ignore[arg-type]
    ((index,),) = execute(declaration, (np.array([[1, 5], [5, 2]], np.int8),))
    assert (index.dtype.name, index.shape, index.item()) == ("int64", (), 1)


@pytest.mark.parametrize(
    "dtype",
    ["float32", "float64"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)],
)
def test_argmax_takes_all_integers_float32_and_float64(dtype: str) -> None:
    declaration = one_stage("argmax_cpp")  # type: ignore[arg-type]
    ((index,),) = execute(declaration, (np.array([3, 1, 7, 7], dtype),))
    assert index.item() == 2


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.zeros(2, np.float16), "Float16"),
        (np.zeros(2, np.bool_), "Bool"),
        (StringValue("x"), "String"),
        (BytesValue(b"x"), "Bytes"),
    ],
)
def test_argmax_rejects_other_types(value: Any, name: str) -> None:
    declaration = one_stage("argmax_cpp")  # type: ignore[arg-type]
    assert execute(declaration, (value,)) == [
        Failure(1, f"Argmax not support data type kMSI_{name}")
    ]


def test_argmax_of_nothing_fails_its_instance() -> None:
    declaration = one_stage("argmax_cpp")  # type: ignore[arg-type]
    assert execute(declaration, (np.zeros(0, np.float32),)) == [
        Failure(1, "Argmax not support an input without elements")
    ]


@pytest.mark.parametrize(
    ("inputs_count", "outputs_count", "text"),
    [
        (
            2,
            1,
            (
                "The inputs count 2 in register_method not equal to the count 1 defined in model, "
                "model info: a.mindir, subgraph: 0"
            ),
        ),
        (
            1,
            2,
            (
                "The outputs count 2 in register_method not equal to the count 1 defined in model, "
                "model info: a.mindir, subgraph: 0"
            ),
        ),
    ],
)
def test_a_stage_with_other_counts_than_the_loaded_model_does_not_start(
    inputs_count: int, outputs_count: int, text: str
) -> None:
    models = Models()
    with collecting("s") as declaration:
        handle = models.declare("a.mindir", batch_model(1))

        def body(x: Any) -> Any:
            add_stage(handle, *[x] * inputs_count, outputs_count=outputs_count)
            return x

        register_method("y")(named_method("m", ["x"], body))
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        Executor(declaration, models.runners)


# ---------------------------------------------------------------- batch sizes


def declare_mixed(models: Models, **last: Any) -> tuple[ServableDeclaration, list[Any]]:
    """Batch function of size 0, models of batch 2 and 5, batch function of size 0."""
    calls: list[Any] = []

    def before(instances: Any) -> Any:
        calls.append(("before", len(instances)))
        return [x for (x,) in instances]

    def after(instances: Any) -> Any:
        calls.append(("after", len(instances)))
        return [x for (x,) in instances]

    with collecting("s") as declaration:
        small = models.declare("small", batch_model(2))
        large = models.declare("large", batch_model(5))

        def body(x: Any) -> Any:
            x = add_stage(before, x, outputs_count=1, batch_size=0)
            x = add_stage(small, x, outputs_count=1)
            x = add_stage(large, x, outputs_count=1)
            return add_stage(after, x, outputs_count=1, **(last or {"batch_size": 0}))

        register_method("y")(named_method("m", ["x"], body))
    return declaration, calls


def test_batch_size_zero_is_the_smallest_model_before_models_and_the_largest_behind() -> None:
    models = Models()
    declaration, calls = declare_mixed(models)
    executor = Executor(declaration, models.runners)
    assert plain(run_method(executor, "m", ints(*range(6)))) == [(n + 2,) for n in range(6)]
    assert [step.rows_max for step in executor.plans["m"].steps] == [2, 2, 5, 5]
    assert calls == [("before", 2)] * 3 + [("after", 4), ("after", 2)]


def test_the_batch_size_of_a_method_is_that_of_its_widest_stage() -> None:
    models = Models()
    declaration, _ = declare_mixed(models)
    assert Executor(declaration, models.runners).batch_size("m") == 5
    models = Models()
    declaration, _ = declare_mixed(models, batch_size=12)
    assert Executor(declaration, models.runners).batch_size("m") == 12


def test_the_batch_size_of_a_method_without_batches_is_one() -> None:
    assert Executor(one_stage(lambda x: x), {}).batch_size("m") == 1
    assert Executor(one_stage(lambda xs: xs, batch_size=0), {}).batch_size("m") == 1


def test_batch_size_zero_beside_a_called_model_is_one() -> None:
    models = Models()
    calls: list[int] = []

    def together(instances: Any) -> Any:
        calls.append(len(instances))
        return [handle.call(x) for (x,) in instances]

    with collecting("s") as declaration:
        handle = models.declare("a.mindir", batch_model(4))
        body = named_method(
            "m", ["x"], lambda x: add_stage(together, x, outputs_count=1, batch_size=0)
        )
        register_method("y")(body)
    executor = Executor(declaration, models.runners)
    assert plain(run_method(executor, "m", ints(1, 2, 3))) == [(2,), (3,), (4,)]
    assert calls == [1, 1, 1]


# ---------------------------------------------------------------- faults


def test_faults_are_bounded_until_they_are_taken_out() -> None:
    def fail(x: Any) -> Any:
        if x > 0:
            raise ValueError(int(x))
        return x

    executor = Executor(one_stage(fail), {})
    run_method(executor, "m", ints(*range(1, 100)))
    assert [str(fault.error) for fault in executor.faults] == [
        str(number) for number in range(1, FAULTS_MAX + 1)
    ]
    executor.faults.clear()
    run_method(executor, "m", ints(0, 7))
    assert [str(fault.error) for fault in executor.faults] == ["7"]
