"""Whether the models of a group's ranks fit together, in MindSpore Serving's words. Pure.

Rule: the ranks of stage 0 have the same inputs; those of other stages have none, or all of them
have these. The ranks of a stage have the same outputs. Whatever has a batch dimension has the
same batch size. The group computes what its last rank gives for the inputs of rank 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from protocol.group import Graph, TensorForm

#: A batch size known only at run time.
DYNAMIC = -1


class SignatureError(Exception):
    """Ranks whose models do not belong together; the text names the ranks and the difference."""


def group_signature(
    ranks: Sequence[tuple[Graph, ...]], stage_size: int, batched_input: int | None
) -> tuple[Graph, ...]:
    """What a group computes, by subgraph.

    ranks: the graphs of each rank, by rank. batched_input: number of an input whose first
        dimension is the batch size; None if the model has no batch dimension.
    Raises: SignatureError.
    """
    if not all(ranks):
        raise SignatureError("The number of graph cannot be 0")
    if any(len(graphs) != len(ranks[0]) for graphs in ranks):
        raise SignatureError("The number of graph not match in different agent")
    merged = []
    for subgraph in range(len(ranks[0])):
        graphs = [graphs[subgraph] for graphs in ranks]
        parallel_count = len(graphs) // stage_size
        _check_inputs(graphs, parallel_count, subgraph)
        _check_outputs(graphs, parallel_count, subgraph)
        if batched_input is not None:
            _check_batch_sizes(graphs, batched_input, subgraph)
        merged.append(Graph(graphs[0].inputs, graphs[-1].outputs))
    return tuple(merged)


def _check_inputs(graphs: Sequence[Graph], parallel_count: int, subgraph: int) -> None:
    expected = graphs[0].inputs
    if not expected:
        raise SignatureError("Rank 0 input count cannot be 0")
    for rank, graph in enumerate(graphs[:parallel_count]):
        difference = _difference(graph.inputs, expected)
        if difference:
            raise SignatureError(
                f"Rank {rank} input infos not match rank 0, subgraph: {subgraph}, details: "
                f"{difference}"
            )
    for rank, graph in enumerate(graphs[parallel_count + 1 :], start=parallel_count + 1):
        _check_later_stage(graphs[rank - 1], graph, rank, subgraph)
    for rank, graph in enumerate(graphs[parallel_count:], start=parallel_count):
        difference = _difference(graph.inputs, expected)
        if graph.inputs and difference:
            raise SignatureError(
                "Expect stage 0(other stages have empty inputs) or all stages have same inputs, "
                f"detect rank {rank - 1} and rank {rank} inputs are different, subgraph: "
                f"{subgraph}, details: {difference}"
            )


def _check_later_stage(before: Graph, graph: Graph, rank: int, subgraph: int) -> None:
    """Two neighbours behind stage 0: both have inputs, or none has."""
    if bool(before.inputs) != bool(graph.inputs):
        raise SignatureError(
            "Expect stage 0(other stages have empty inputs) or all stages have same inputs, "
            f"detect rank {rank - 1} input count is {len(before.inputs)}, but rank {rank} input "
            f"count is {len(graph.inputs)}, subgraph: {subgraph}"
        )


def _check_outputs(graphs: Sequence[Graph], parallel_count: int, subgraph: int) -> None:
    if not graphs[-1].outputs:
        raise SignatureError(f"Rank {len(graphs) - 1} output count cannot be 0")
    for rank, graph in enumerate(graphs):
        first = rank - rank % parallel_count
        difference = _difference(graph.outputs, graphs[first].outputs)
        if difference:
            raise SignatureError(
                f"Rank {rank} output infos not match rank {first}, subgraph: {subgraph}, details: "
                f"{difference}"
            )


def _check_batch_sizes(graphs: Sequence[Graph], batched_input: int, subgraph: int) -> None:
    inputs = graphs[0].inputs
    if batched_input >= len(inputs) or not inputs[batched_input].shape:
        return  # who loads the model says what is wrong with it
    expected = inputs[batched_input].shape[0]
    for rank, graph in enumerate(graphs):
        for form in graph.outputs:
            size = form.shape[0] if form.shape else 0
            if size not in (expected, DYNAMIC):
                raise SignatureError(
                    f"Expect rank {rank} batch size {size} equal to rank 0's batch size "
                    f"{expected}, subgraph: {subgraph}"
                )


def _difference(left: Sequence[TensorForm], right: Sequence[TensorForm]) -> str:
    """How two signatures differ, names apart; empty if they do not."""
    if len(left) != len(right):
        return f"Size not match, left: {len(left)}, right: {len(right)}"
    for index, (one, other) in enumerate(zip(left, right, strict=True)):
        if one[1:] != other[1:]:
            return f"Index {index} tensor not match, left- {_text(one)}; right- {_text(other)}"
    return ""


def _text(form: TensorForm) -> str:
    return f"data type: {form.dtype.name}, shape: {list(form.shape)}"
