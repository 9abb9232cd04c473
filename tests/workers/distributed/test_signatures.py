"""Which models of ranks fit together, and how those that do not are named."""

from __future__ import annotations

import numpy as np
import pytest

from protocol.group import Graph, TensorForm
from workers.distributed.signatures import SignatureError, group_signature


def form(*shape: int, dtype: str = "float32", name: str = "t") -> TensorForm:
    return TensorForm(name, np.dtype(dtype), shape)


X, Y, Z = form(4, 2, name="x"), form(4, 3, name="y"), form(4, 5, name="z")
PLAIN = (Graph((X,), (Y,)),)


def text_of(ranks: list[tuple[Graph, ...]], stage_size: int = 1, batched: int | None = 0) -> str:
    with pytest.raises(SignatureError) as caught:
        group_signature(ranks, stage_size, batched)
    return str(caught.value)


def test_a_group_takes_what_rank_0_takes_and_gives_what_the_last_rank_gives() -> None:
    first, last = (Graph((X,), (Z,)),), (Graph((), (Y,)),)
    assert group_signature([first, first, last, last], 2, 0) == (Graph((X,), (Y,)),)
    everywhere = (Graph((X,), (Y,)),)
    assert group_signature([first, everywhere], 2, 0) == (Graph((X,), (Y,)),)


def test_names_of_tensors_may_differ() -> None:
    other = (Graph((X._replace(name="a"),), (Y._replace(name="b"),)),)
    assert group_signature([PLAIN, other], 1, 0) == (Graph((X,), other[0].outputs),)


def test_several_subgraphs_are_compared_one_by_one() -> None:
    two = (*PLAIN, Graph((X, X), (Z,)))
    assert group_signature([two, two], 1, 0) == two
    assert text_of([two, PLAIN]) == "The number of graph not match in different agent"
    assert text_of([two, (*PLAIN, Graph((X,), (Z,)))]) == (
        "Rank 1 input infos not match rank 0, subgraph: 1, details: Size not match, left: 1, "
        "right: 2"
    )


@pytest.mark.parametrize(
    ("ranks", "stage_size", "text"),
    [
        ([(), ()], 1, "The number of graph cannot be 0"),
        ([(Graph((), (Y,)),)], 1, "Rank 0 input count cannot be 0"),
        ([(Graph((X,), ()),)], 1, "Rank 0 output count cannot be 0"),
        (
            [PLAIN, (Graph((form(4, 2, dtype="int8"),), (Y,)),)],
            1,
            (
                "Rank 1 input infos not match rank 0, subgraph: 0, details: Index 0 tensor not "
                "match, left- data type: int8, shape: [4, 2]; right- data type: float32, shape: "
                "[4, 2]"
            ),
        ),
        (
            [PLAIN, (Graph((X,), (Z,)),)],
            1,
            (
                "Rank 1 output infos not match rank 0, subgraph: 0, details: Index 0 tensor not "
                "match, left- data type: float32, shape: [4, 5]; right- data type: float32, shape: "
                "[4, 3]"
            ),
        ),
        (
            [PLAIN, (Graph((Z,), (Y,)),)],
            2,
            (
                "Expect stage 0(other stages have empty inputs) or all stages have same inputs, "
                "detect rank 0 and rank 1 inputs are different, subgraph: 0, details: Index 0 "
                "tensor not match, left- data type: float32, shape: [4, 5]; right- data type: "
                "float32, shape: [4, 2]"
            ),
        ),
        (
            [PLAIN, PLAIN, PLAIN, (Graph((), (Y,)),)],
            2,
            (
                "Expect stage 0(other stages have empty inputs) or all stages have same inputs, "
                "detect rank 2 input count is 1, but rank 3 input count is 0, subgraph: 0"
            ),
        ),
    ],
)
def test_ranks_that_do_not_belong_together_are_named(
    ranks: list[tuple[Graph, ...]], stage_size: int, text: str
) -> None:
    assert text_of(ranks, stage_size) == text


def test_batch_sizes_are_equal_everywhere() -> None:
    first, last = (Graph((X,), (form(2, 5),)),), (Graph((), (Y,)),)
    assert text_of([first, last], 2) == (
        "Expect rank 0 batch size 2 equal to rank 0's batch size 4, subgraph: 0"
    )
    assert group_signature([first, last], 2, None), "without batch dimension it is no matter"
    dynamic = (Graph((X,), (form(-1, 5),)),)
    assert group_signature([dynamic, last], 2, 0)
