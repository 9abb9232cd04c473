"""One model: which instances it takes, in what batches it runs, and what comes back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from protocol.values import BytesValue, Failure, StringValue
from tests.workers.models import FakeModel, floats, runner, tensor, total
from workers.backends.base import BackendError
from workers.stages.model_runner import FAULTS_MAX


def lists(results: Sequence[Any]) -> list[Any]:
    """Results with arrays as lists; failures as they are."""
    return [
        result if isinstance(result, Failure) else tuple(array.tolist() for array in result)
        for result in results
    ]


def poisoned_by(value: float) -> Any:
    """A computation that fails if any element is `value`."""

    def compute(arrays: Sequence[Any]) -> Any:
        if any((array == value).any() for array in arrays):
            raise BackendError(f"poisoned by {value}")
        return total(arrays)

    return compute


def pair_model(size: int = 3, **options: Any) -> FakeModel:
    """y = x1 + x2, with `size` instances of two float32 each."""
    return FakeModel([tensor(size, 2), tensor(size, 2)], [tensor(size, 2)], **options)


# ---------------------------------------------------------------- checks per instance


def test_too_few_inputs_fail_their_instance() -> None:
    (result,) = runner(pair_model()).run(0, [(floats(1, 2),)])
    assert result == Failure(2, "Given model inputs size 1 less than model inputs size 2")


def test_an_input_of_another_byte_size_fails_its_instance_alone() -> None:
    results = runner(pair_model()).run(
        0, [(floats(1, 2), floats(1, 2, 3)), (floats(1, 2), floats(3, 4))]
    )
    assert lists(results) == [
        Failure(2, "Given model input 1 size 12 not match the size 8 defined in model"),
        ([4.0, 6.0],),
    ]


def test_an_input_of_another_dtype_fails_its_instance_with_the_names_of_both() -> None:
    (result,) = runner(pair_model()).run(0, [(np.array([1, 2], np.int32), floats(1, 2))])
    assert result == Failure(
        2,
        "Given model input 0 data type kMSI_Int32 not match the data type kMSI_Float32 defined in "
        "model",
    )


def test_size_is_compared_before_dtype_and_inputs_in_their_order() -> None:
    model = runner(pair_model())
    wide = np.array([1, 2], np.int64)
    assert model.check(0, (wide, wide)) == Failure(
        2, "Given model input 0 size 16 not match the size 8 defined in model"
    )


def test_text_and_bytes_are_no_model_inputs_even_of_the_right_size() -> None:
    model = runner(FakeModel([tensor(1, 4, dtype="uint8")], [tensor(1, 4, dtype="uint8")]))
    assert model.check(0, (StringValue("abcd"),)) == Failure(
        2,
        "Given model input 0 data type kMSI_String not match the data type kMSI_Uint8 defined in "
        "model",
    )
    assert model.check(0, (BytesValue(b"abcd"),)) == Failure(
        2,
        "Given model input 0 data type kMSI_Bytes not match the data type kMSI_Uint8 defined in "
        "model",
    )
    assert model.check(0, (BytesValue(b"abc"),)) == Failure(
        2, "Given model input 0 size 3 not match the size 4 defined in model"
    )


def test_the_shape_of_an_instance_does_not_matter() -> None:
    model = pair_model(size=1)
    results = runner(model).run(0, [(floats([1, 2]), floats([3], [4]))])
    assert lists(results) == [([4.0, 6.0],)]
    assert model.runs == [(0, [[[1.0, 2.0]], [[3.0, 4.0]]])]


# ---------------------------------------------------------------- batches


def test_without_batch_dim_each_instance_runs_alone_and_keeps_the_shape_of_the_model() -> None:
    model = FakeModel([tensor(2, 2)], [tensor(2, 2)])
    results = runner(model, with_batch_dim=False).run(
        0, [(floats(1, 2, 3, 4),), (floats(5, 6, 7, 8),)]
    )
    assert lists(results) == [([[1.0, 2.0], [3.0, 4.0]],), ([[5.0, 6.0], [7.0, 8.0]],)]
    assert len(model.runs) == 2


def test_without_batch_dim_the_list_of_inputs_that_lack_it_means_nothing() -> None:
    model = FakeModel([tensor(2), tensor(2)], [tensor(2)])
    results = runner(model, with_batch_dim=False, without_batch_dim_inputs=(0,)).run(
        0, [(floats(1, 2), floats(3, 4)), (floats(5, 6), floats(7, 8))]
    )
    assert lists(results) == [([4.0, 6.0],), ([12.0, 14.0],)]


def test_a_full_batch_is_one_run_and_the_rest_is_another() -> None:
    model = FakeModel([tensor(2, 1)], [tensor(2, 1)])
    results = runner(model).run(0, [(floats(n),) for n in range(4)])
    assert lists(results) == [([0.0],), ([1.0],), ([2.0],), ([3.0],)]
    assert model.runs == [(0, [[[0.0], [1.0]]]), (0, [[[2.0], [3.0]]])]


def test_a_partial_batch_is_filled_with_copies_of_the_first_instance() -> None:
    model = FakeModel([tensor(4, 1)], [tensor(4, 1)])
    results = runner(model).run(0, [(floats(7),), (floats(8),)])
    assert model.runs == [(0, [[[7.0], [8.0], [7.0], [7.0]]])]
    assert lists(results) == [([7.0],), ([8.0],)]


def test_outputs_of_one_value_per_instance_are_arrays_without_dimensions() -> None:
    model = FakeModel([tensor(2, 2)], [tensor(2)], lambda arrays: [arrays[0].sum(axis=1)])
    ((first,), (second,)) = runner(model).run(0, [(floats(1, 2),), (floats(3, 4),)])
    assert isinstance(first, np.ndarray)
    assert (first.shape, first.item(), second.item()) == ((), 3.0, 7.0)  # type: ignore[union-attr]


def test_an_input_without_batch_dim_is_that_of_the_first_instance() -> None:
    model = FakeModel(
        [tensor(2, 1), tensor(3)],
        [tensor(2, 1)],
        lambda arrays: [arrays[0] + arrays[1].sum()],
    )
    results = runner(model, without_batch_dim_inputs=(1,)).run(
        0, [(floats(1), floats(1, 1, 1)), (floats(2), floats(9, 9, 9))]
    )
    assert model.runs == [(0, [[[1.0], [2.0]], [1.0, 1.0, 1.0]])]
    assert lists(results) == [([4.0],), ([5.0],)]


def test_a_dynamic_batch_is_filled_to_the_next_allowed_size() -> None:
    model = FakeModel([tensor(-1, 1)], [tensor(-1, 1)])
    results = runner(model, [4, 1, 8]).run(0, [(floats(n),) for n in range(3)])
    assert model.runs == [(0, [[[0.0], [1.0], [2.0], [0.0]]])]
    assert lists(results) == [([0.0],), ([1.0],), ([2.0],)]


def test_a_dynamic_batch_above_the_largest_size_is_split() -> None:
    model = FakeModel([tensor(-1, 1)], [tensor(-1, 1)])
    results = runner(model, [1, 2]).run(0, [(floats(n),) for n in range(5)])
    assert [len(arrays[0]) for _, arrays in model.runs] == [2, 2, 1]
    assert lists(results) == [([float(n)],) for n in range(5)]


def test_batch_sizes_come_from_the_launch_then_the_declaration_then_the_default() -> None:
    def model() -> FakeModel:
        return FakeModel([tensor(-1, 1)], [tensor(-1, 1)])

    assert runner(model(), [3], batch_sizes=(1, 5)).batch_sizes == (3,)
    assert runner(model(), None, batch_sizes=(1, 5)).batch_sizes == (1, 5)
    assert runner(model()).batch_sizes == (1, 2, 4, 8, 16, 32)
    assert runner(pair_model(size=3), [8]).batch_sizes == (3,)
    assert runner(pair_model(), [8], with_batch_dim=False).batch_size == 1


def test_nothing_runs_when_no_instance_is_good() -> None:
    model = pair_model()
    assert isinstance(runner(model).run(0, [()])[0], Failure)
    assert runner(model).run(0, []) == []
    assert model.runs == []


# ---------------------------------------------------------------- other dynamic dimensions


def test_a_dynamic_dimension_follows_from_the_byte_count() -> None:
    model = FakeModel([tensor(-1, 2)], [tensor(-1, 2)])
    one = runner(model, with_batch_dim=False)
    assert lists(one.run(0, [(floats(1, 2, 3, 4),)])) == [([[1.0, 2.0], [3.0, 4.0]],)]
    assert one.check(0, (floats(1, 2, 3),)) == Failure(
        2, "Given model input 0 size 12 not match the size 8 defined in model"
    )


def test_instances_of_other_shapes_run_in_other_batches_and_keep_their_order() -> None:
    model = FakeModel([tensor(-1, -1)], [tensor(-1, -1)])
    results = runner(model, [2]).run(0, [(floats(1, 2),), (floats(1, 2, 3),), (floats(4, 5),)])
    assert lists(results) == [([1.0, 2.0],), ([1.0, 2.0, 3.0],), ([4.0, 5.0],)]
    assert [arrays[0] for _, arrays in model.runs] == [
        [[1.0, 2.0], [4.0, 5.0]],
        [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]],
    ]


def test_several_dynamic_dimensions_need_a_shape_that_fits() -> None:
    one = runner(FakeModel([tensor(-1, 2, -1)], [tensor(-1)]), with_batch_dim=False)
    assert one.check(0, (np.zeros((3, 2, 5), np.float32),)) is None
    assert one.check(0, (np.zeros((2, 3, 5), np.float32),)) == Failure(
        2, "Given model input 0 shape [2, 3, 5] not match the shape [-1, 2, -1] defined in model"
    )


# ---------------------------------------------------------------- failing computations


def test_a_failing_single_instance_gets_predict_failed_and_the_log_the_cause() -> None:
    one = runner(pair_model(size=1, compute=poisoned_by(13)))
    assert one.run(0, [(floats(13, 0), floats(0, 0))]) == [Failure(1, "Predict Failed")]
    assert [str(error) for error in one.faults] == ["poisoned by 13"]


def test_in_a_failing_batch_each_instance_runs_alone_so_that_only_the_bad_one_fails() -> None:
    model = FakeModel([tensor(4, 1)], [tensor(4, 1)], poisoned_by(13))
    batch = runner(model)
    results = batch.run(0, [(floats(n),) for n in (1, 13, 3)])
    assert lists(results) == [([1.0],), Failure(1, "Predict Failed"), ([3.0],)]
    assert len(model.runs) == 4
    assert len(batch.faults) == 1


def test_a_model_that_always_fails_fails_all_instances_of_the_batch() -> None:
    def compute(arrays: Sequence[Any]) -> Any:
        raise BackendError("device is gone")

    batch = runner(FakeModel([tensor(40, 1)], [tensor(40, 1)], compute))
    assert batch.run(0, [(floats(n),) for n in range(40)]) == [Failure(1, "Predict Failed")] * 40
    assert len(batch.faults) == FAULTS_MAX


@pytest.mark.parametrize(
    ("outputs", "text"),
    [
        ([], "model gave 0 outputs, not 1"),
        (
            [floats(1)],
            "model output 0 has shape [1], which does not begin with batch size 2",
        ),
        (
            [np.float32(1).reshape(())],
            "model output 0 has shape [], which does not begin with batch size 2",
        ),
    ],
)
def test_outputs_that_cannot_be_split_are_a_failed_prediction(outputs: Any, text: str) -> None:
    batch = runner(FakeModel([tensor(2, 1)], [tensor(-1, 1)], lambda arrays: outputs))
    assert batch.run(0, [(floats(1),)]) == [Failure(1, "Predict Failed")]
    assert [str(error) for error in batch.faults] == [text]


# ---------------------------------------------------------------- start


@pytest.mark.parametrize(
    ("inputs", "outputs", "text"),
    [
        (
            [tensor(2, 1), tensor()],
            [tensor(2, 1)],
            (
                "The shape of model input 1 cannot be empty, when with_batch_dim is true and "
                "without_batch_dim_inputs is [2]"
            ),
        ),
        (
            [tensor()],
            [tensor(2, 1)],
            (
                "The shape of model input 0 cannot be empty, when with_batch_dim is true and "
                "without_batch_dim_inputs is [2]"
            ),
        ),
        (
            [tensor(2, 1)],
            [tensor()],
            (
                "The shape of model output 0 cannot be empty, when with_batch_dim is true and "
                "without_batch_dim_inputs is [2]"
            ),
        ),
        (
            [tensor(2, 1), tensor(3, 1)],
            [tensor(2, 1)],
            "The shape [3, 1] of model input 1 does not match current batch size 2",
        ),
        (
            [tensor(2, 1)],
            [tensor(1, 5)],
            "The shape [1, 5] of model output 0 does not match current batch size 2",
        ),
        (
            [tensor(-1, 1)],
            [tensor(4, 5)],
            "The shape [4, 5] of model output 0 does not match current batch size -1",
        ),
        (
            [tensor(0, 1)],
            [tensor(0, 1)],
            "The shape [0, 1] of model input 0 does not match current batch size 0",
        ),
    ],
)
def test_a_model_without_the_declared_batch_dimension_does_not_start(
    inputs: Any, outputs: Any, text: str
) -> None:
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        runner(FakeModel(inputs, outputs), without_batch_dim_inputs=(2,))


def test_a_model_without_any_batched_input_does_not_start() -> None:
    with pytest.raises(RuntimeError, match="No input of the model has a batch dimension"):
        runner(FakeModel([tensor(2)], [tensor(2)]), without_batch_dim_inputs=(0,))


def test_subgraphs_have_one_batch_size() -> None:
    model = FakeModel([[tensor(2, 1)], [tensor(3, 1)]], [[tensor(2, 1)], [tensor(3, 1)]])
    text = (
        "The batch size 3 of subgraph 1 does not match the batch size 2 of subgraph 0, model: "
        "m.mindir"
    )
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        runner(model)


def test_warm_up_runs_zeros_of_each_allowed_size_through_each_subgraph() -> None:
    model = FakeModel(
        [[tensor(-1, 1)], [tensor(-1, 1), tensor(2)]],
        [[tensor(-1, 1)], [tensor(-1, 1)]],
        lambda arrays: [arrays[0]],
    )
    runner(model, [1, 2], without_batch_dim_inputs=(1,)).warm_up()
    assert model.runs == [
        (0, [[[0.0]]]),
        (0, [[[0.0], [0.0]]]),
        (1, [[[0.0]], [0.0, 0.0]]),
        (1, [[[0.0], [0.0]], [0.0, 0.0]]),
    ]


def test_warm_up_leaves_out_what_has_other_dynamic_dimensions() -> None:
    model = FakeModel([tensor(-1, -1)], [tensor(-1, -1)])
    runner(model).warm_up()
    assert model.runs == []


def test_a_warm_up_that_fails_is_an_error_of_the_backend() -> None:
    with pytest.raises(BackendError, match="poisoned by 0"):
        runner(pair_model(compute=poisoned_by(0))).warm_up()
